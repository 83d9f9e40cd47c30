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
#[cfg(feature = "http")]
mod http;
mod input;
mod kernel_drops;
mod limits;
mod matcher;
mod output;
mod peers;
mod refused;
mod stop;
#[cfg(feature = "tls")]
mod tls;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[cfg(feature = "ring")]
pub use adopt::Adopted;
#[cfg(all(fuzzing, feature = "http"))]
pub(crate) use http::script as http_script;

pub use config::{Config, Input, Route, RouterError};
pub use counters::{Counters, InputCounters, MalformedReason, OutputCounters};
pub use decode::{decode, DecodeError};
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

#[cfg(fuzzing)]
pub(crate) use output::statsd::line::lines as statsd_lines;

use connections::Connections;
use counters::{InputState, TypeCounters};
use dispatch::Dispatch;
use duplicates::Seen;
use input::Bound;
use output::{Queue, Running};
use stop::Stop;

/// What outputs get at least to write what is queued, when clients have used up the deadline of a shutdown.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

/// What connections get to end after they have been closed at the deadline.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// A running router. Dropping it stops it at once; [`shutdown`](Router::shutdown) lets it finish.
pub struct Router {
    addresses: Vec<String>,
    dispatch: Arc<Dispatch>,
    inputs: Vec<Arc<InputState>>,
    connections: Arc<Connections>,
    stop: Arc<Stop>,
    readers: Vec<JoinHandle<()>>,
    writers: Vec<Running>,
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
        let stop = Arc::new(Stop::new().map_err(RouterError::System)?);
        let bound = config.inputs.into_iter().map(input::bind).collect::<Result<Vec<_>, _>>()?;
        refuse_circles(&config.routes, &bound)?;
        let (matchers, outputs, writers) = open_outputs(config.routes)?;
        let mut router = Router {
            addresses: bound.iter().map(|bound| bound.state.address.clone()).collect(),
            dispatch: Arc::new(Dispatch {
                matchers,
                outputs,
                types: TypeCounters::default(),
                unrouted: AtomicU64::new(0),
                seen: Seen::default(),
                duplicates: AtomicU64::new(0),
            }),
            inputs: bound.iter().map(|bound| Arc::clone(&bound.state)).collect(),
            connections: Arc::default(),
            stop,
            readers: Vec::new(),
            writers,
        };
        router.start_reading(bound).map_err(RouterError::System)?;
        Ok(router)
    }

    fn start_reading(&mut self, bound: Vec<Bound>) -> io::Result<()> {
        for bound in bound {
            self.readers.push(bound.start(&self.dispatch, &self.connections, &self.stop)?);
        }
        Ok(())
    }

    /// Where it listens, in the order of the configuration: URLs that a client can be given, with the real port.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// What it has counted so far.
    pub fn counters(&self) -> Counters {
        let inputs: Vec<InputCounters> = self.inputs.iter().map(|input| input.counters()).collect();
        let mut malformed = std::collections::BTreeMap::new();
        for (reason, count) in inputs.iter().flat_map(|input| &input.malformed) {
            *malformed.entry(*reason).or_default() += count;
        }
        Counters {
            received: inputs.iter().map(|input| input.received).sum(),
            bytes: inputs.iter().map(|input| input.bytes).sum(),
            malformed,
            types: self.dispatch.types.counters(),
            unrouted: self.dispatch.unrouted.load(Relaxed),
            duplicates: self.dispatch.duplicates.load(Relaxed),
            inputs,
            outputs: self.dispatch.outputs.iter().map(|queue| queue.state.counters()).collect(),
        }
    }

    /// Has every output open its files anew, after somebody has moved them away.
    pub fn reopen(&self) {
        self.writers.iter().for_each(Running::reopen);
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
        self.stop.request(deadline);
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        self.connections.wait_closed(deadline);
        self.connections.close();
        self.connections.wait_closed(Instant::now() + CLOSE_GRACE);
        let deadline = deadline.max(Instant::now() + OUTPUT_GRACE);
        self.writers.drain(..).for_each(|writer| writer.finish(deadline));
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
fn refuse_circles(routes: &[Route], bound: &[Bound]) -> Result<(), RouterError> {
    let addresses = bound.iter().map(|bound| bound.state.address.as_str());
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

type Outputs = (MatcherSet, Vec<Queue>, Vec<Running>);

/// Opens each output once, with the matchers of all routes that lead to it.
fn open_outputs(routes: Vec<Route>) -> Result<Outputs, RouterError> {
    let mut places: Vec<(Vec<Matcher>, Output)> = Vec::new();
    for Route { matcher, output } in routes {
        match places.iter_mut().find(|(_, place)| place.is_same(&output)) {
            Some((matchers, _)) => matchers.push(matcher),
            None => places.push((vec![matcher], output)),
        }
    }
    let (matchers, places): (Vec<_>, Vec<_>) = places.into_iter().unzip();
    let mut outputs = Vec::new();
    let mut writers = Vec::new();
    for output in places {
        let (queue, running) = output::start(output)?;
        outputs.push(queue);
        writers.push(running);
    }
    Ok((matchers.into_iter().map(Matcher::any_of).collect(), outputs, writers))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// The lock, also after a panic elsewhere: what these locks guard is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
