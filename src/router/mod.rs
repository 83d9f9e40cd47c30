//! The router for one machine: it receives Metlog messages, decides by type and severity, and delivers.
//!
//! ```text
//! udp, unixgram ───────────── datagram ─┐                 ┌─ queue ─ console
//! tcp, unix ── connection ── splitter ──┤ decode ─ routes ┼─ queue ─ file
//! http ─────── connection ── lines ─────┘                 │
//!                                                         └─ queue ─ function
//!   one thread for each socket and connection               one thread for each output
//! ```
//!
//! Never does one part wait for another: when the queue of an output is full, messages for that output are
//! dropped and counted, and everything else goes on. Nothing that a client sends can end the router; what is not
//! a message is counted by reason, and the next one is read.
//!
//! ```
//! use std::time::Duration;
//! use tracing_metlog::router::{Config, Input, Matcher, Output, Route, Router};
//!
//! let config = Config::new()
//!     .input(Input::udp("127.0.0.1:0"))
//!     .input(Input::tcp("127.0.0.1:0"))
//!     .route(Route::new(Matcher::type_is("timer"), Output::null()))
//!     .route(Route::new(Matcher::any(), Output::function(|message| println!("{}", message.payload))));
//! let router = Router::start(config)?;
//! println!("send to {:?}", router.addresses());
//! let counters = router.shutdown(Duration::from_secs(5));
//! println!("{counters}");
//! # Ok::<(), tracing_metlog::router::RouterError>(())
//! ```

#[cfg(feature = "http")]
mod admin;
#[cfg(feature = "ring")]
mod adopt;
mod budget;
mod config;
mod connection;
mod connections;
mod counters;
mod deadlines;
mod decode;
mod dispatch;
mod duplicates;
mod frames;
#[cfg(feature = "http")]
mod http;
mod input;
mod kernel_drops;
mod limits;
mod matcher;
mod output;
mod overview;
mod parts;
mod peers;
pub(crate) mod received;
mod refused;
mod reload;
mod report;
mod servants;
mod settings;
mod stop;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "zmq")]
mod zmq;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[cfg(feature = "ring")]
pub use adopt::Adopted;
pub use config::{Config, Input, Route, RouterError};
pub use counters::{Counters, InputCounters, MalformedReason, OutputCounters};
pub use decode::{decode, DecodeError};
#[cfg(all(fuzzing, feature = "http"))]
pub(crate) use http::script as http_script;
pub use matcher::{
    language, Matcher, MatcherError, MatcherSet, Matches, NumberVariable, Subject, TextVariable,
};
#[cfg(feature = "sentry")]
pub use output::SentryOutput;
pub use output::{
    Capture, Color, ConsoleFormat, ConsoleOutput, FileFormat, FileOutput, ForwardOutput, Output, StatsdOutput,
};
#[cfg(feature = "http")]
pub use output::{HttpFormat, HttpOutput};
pub use peers::Network;
pub use refused::RefusedReason;
pub use reload::Reloaded;
pub use settings::{ConfigError, ConfigProblem};

#[cfg(fuzzing)]
pub(crate) use output::statsd::line::lines as statsd_lines;

#[cfg(feature = "http")]
use admin::Admin;
use dispatch::Dispatch;
use overview::Overview;
use parts::{OpenInput, OpenOutput};
use reload::Plan;
use report::Reporter;

/// What outputs get at least to write what is queued, when clients have used up the deadline of a shutdown.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

/// A running router. Dropping it stops it at once; [`shutdown`](Router::shutdown) lets it finish.
pub struct Router {
    addresses: Vec<String>,
    dispatch: Arc<Dispatch>,
    inputs: Vec<OpenInput>,
    outputs: Vec<OpenOutput>,
    /// Inputs that have a successor on the same socket, and perhaps connections.
    succeeded: Vec<OpenInput>,
    /// Threads that wait for what a reload has removed.
    draining: Vec<JoinHandle<()>>,
    overview: Arc<Overview>,
    report_every: Option<Duration>,
    reporter: Option<Reporter>,
    /// What was said of the admin server, and that server.
    admin_address: Option<String>,
    #[cfg(feature = "http")]
    admin: Option<Admin>,
}

impl Router {
    /// Opens every output and every input, and starts the threads.
    ///
    /// # Errors
    /// Says which input or output cannot be opened, and why. Then nothing is left open.
    pub fn start(config: Config) -> Result<Self, RouterError> {
        if config.inputs.is_empty() {
            return Err(RouterError::NoInput);
        }
        let open = |input| OpenInput::open(input, None);
        let inputs = config.inputs.into_iter().map(open).collect::<Result<Vec<_>, _>>()?;
        refuse_circles(&config.routes, inputs.iter().map(|input| input.state.address.as_str()))?;
        let (routes, outputs) = Plan::of(config.routes, &[])?.begin();
        let dispatch = Arc::new(Dispatch::new(routes));
        let mut router = Router {
            addresses: inputs.iter().map(|input| input.state.address.clone()).collect(),
            overview: Arc::new(Overview::of(&dispatch)),
            dispatch,
            inputs,
            outputs,
            succeeded: Vec::new(),
            draining: Vec::new(),
            report_every: None,
            reporter: None,
            admin_address: None,
            #[cfg(feature = "http")]
            admin: None,
        };
        for input in &mut router.inputs {
            input.start(&router.dispatch)?;
        }
        router.publish((&[], &[]));
        let servants = router.servants(config.admin, config.report_every)?;
        router.employ(servants);
        Ok(router)
    }

    /// Where it listens, in the order of the configuration: URLs that a client can be given, with the real port.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Where `/metrics` and `/healthz` are served, if they are.
    #[cfg(feature = "http")]
    pub fn admin_address(&self) -> Option<std::net::SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// What it has counted so far.
    pub fn counters(&self) -> Counters {
        self.overview.counters()
    }

    /// Has every output open its files anew, after somebody has moved them away.
    pub fn reopen(&self) {
        self.outputs.iter().for_each(OpenOutput::reopen);
    }

    /// Ends it without losing what was sent: accepts no more connections, reads what datagram sockets still hold,
    /// reads open connections until their clients close them or `deadline` has passed, writes out what is queued,
    /// and says what became of everything.
    ///
    /// An output that is slow may take a second longer; one that is stuck is left behind then, and what it has not
    /// written is in its `queued`.
    pub fn shutdown(mut self, deadline: Duration) -> Counters {
        self.finish(deadline);
        self.counters()
    }

    fn finish(&mut self, patience: Duration) {
        let now = Instant::now();
        // Somebody's Duration::MAX is a year: no clock can name the end of it.
        let deadline = now.checked_add(patience).unwrap_or_else(|| now + Duration::from_secs(365 * 86_400));
        self.overview.begin_end();
        let mut inputs: Vec<&mut OpenInput> = self.inputs.iter_mut().chain(&mut self.succeeded).collect();
        inputs.iter().for_each(|input| input.request_stop(deadline));
        inputs.iter_mut().for_each(|input| input.wait_read(deadline));
        inputs.iter().for_each(|input| input.close());
        // Its last report still finds the outputs.
        self.reporter = None;
        let deadline = deadline.max(Instant::now() + OUTPUT_GRACE);
        // All are told first: one that is stuck must not use up the time in which another saves what it holds.
        self.outputs.iter_mut().for_each(|output| output.stop(deadline));
        self.outputs.iter_mut().for_each(|output| output.wait(deadline));
        for drain in self.draining.drain(..) {
            while !drain.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.finish(Duration::ZERO);
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Router").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// No output may send to the router itself. One that does so by way of another router cannot be seen from here.
fn refuse_circles<'a>(routes: &[Route], addresses: impl Iterator<Item = &'a str>) -> Result<(), RouterError> {
    for (address, route) in addresses.flat_map(|address| routes.iter().map(move |route| (address, route))) {
        if route.output.leads_to(address) {
            let problem = format!(
                "it leads to this router's own input {address}, and every message would come back for ever; \
                 the address of another router is accepted"
            );
            let (output, kind) = (route.output.to_string(), io::ErrorKind::InvalidInput);
            return Err(RouterError::Output { output, source: io::Error::new(kind, problem) });
        }
    }
    Ok(())
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// The lock, also after a panic elsewhere: what these locks guard is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
