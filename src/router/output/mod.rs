//! Where messages go: [`Output`]. In: messages that matched. Out: text, files, calls of a function.
//!
//! Every kind of output is a file here that says how a message is drawn and where drawn messages are written; what they
//! have in common, a bounded queue and a thread, is in `queue.rs`.
//!
//! The thread of the input draws, a batch at a time, and the thread of the output only moves bytes. So a message is
//! freed where it was made: freeing on another thread made the output's thread the slowest part of the router,
//! because the two then fight for the allocator.
//!
//! Lost here: what arrives while an output's queue is full (`dropped`), so that a slow output never slows another
//! or an input; what could not be drawn or written (`failed`); at shutdown, what a stuck output has not done before
//! the deadline (`queued`).

pub(super) mod console;
mod context;
mod delivery;
pub(super) mod file;
mod forward;
mod function;
#[cfg(feature = "http")]
mod http;
mod queue;
#[cfg(feature = "sentry")]
mod sentry;
pub(crate) mod statsd;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use super::received::Received;
use crate::Message;
pub use console::{Color, ConsoleFormat, ConsoleOutput};
pub(super) use context::Context;
pub use file::{FileFormat, FileOutput};
pub use forward::ForwardOutput;
pub use function::Capture;
#[cfg(feature = "http")]
pub use http::{HttpFormat, HttpOutput};
pub(super) use queue::{start, Batch, Queue, Running};
#[cfg(feature = "sentry")]
pub use sentry::SentryOutput;
pub use statsd::StatsdOutput;

/// A place that messages go to.
///
/// As text: `console`, `null`, `file:PATH` or `file:///PATH`.
pub struct Output(Box<dyn Endpoint>);

/// A kind of output, before it is opened: its settings.
pub(super) trait Endpoint: Send {
    /// What it is called in counters and errors. Two outputs of one name are one place, which gets each message once.
    fn name(&self) -> String;

    /// Whether another output of this name is another place all the same.
    fn is_of_its_own(&self) -> bool {
        false
    }

    /// Colours the console so; nothing on other outputs.
    fn color(&mut self, _: Color) {}

    /// Whether the settings go together, as far as can be said without opening anything.
    ///
    /// # Errors
    /// `OPTION: ` and why that option cannot be.
    fn check(&self) -> io::Result<()> {
        Ok(())
    }

    /// Everything it was told, as text that is compared and never shown: a reload keeps an output whose settings are
    /// equal.
    fn settings(&self) -> String {
        self.name()
    }

    /// How many bytes may wait for it.
    fn queue_bytes(&self) -> usize {
        queue::QUEUE_BYTES
    }

    /// Whether the place may be away for long, so that no client should wait for it.
    #[cfg(feature = "http")]
    fn is_far(&self) -> bool {
        false
    }

    /// Whether what it sends would come back to the router, by the input at `input`, a client's URL.
    fn leads_to(&self, _input: &str) -> bool {
        false
    }

    /// # Errors
    /// What cannot be opened. A place that is only away for now is no error: it is tried again later.
    fn open(self: Box<Self>) -> io::Result<Place>;
}

/// An output that has been opened.
pub(super) struct Place {
    /// How messages become bytes. Without it the batch keeps the messages themselves.
    pub(super) draw: Option<Draw>,
    pub(super) writer: Box<dyn Writer>,
}

/// Appends a message as its writer wants it, for instance as a line with its newline; runs on the threads of inputs.
///
/// # Errors
/// What it is about the message that the output cannot take. Then nothing is appended, and the message is `failed`.
pub(super) type Draw = Arc<dyn Fn(&Received<'_>, &mut Vec<u8>) -> Result<(), String> + Send + Sync>;

/// Puts what was drawn where it belongs; runs on the thread of the output. It may take its time: only its own queue
/// waits. Every message of a batch must be settled once by [`Context::settle`], at once or in a later call.
pub(super) trait Writer: Send {
    fn write(&mut self, batch: &Batch, context: &Context);

    /// When [`tick`](Writer::tick) is to be called, if nothing is written before.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Something is due.
    fn tick(&mut self, _: &Context) {}

    /// Somebody has moved files away: from now on, write to new ones (SIGHUP).
    fn reopen(&mut self, _: &Context) {}

    /// Nothing more will be written: brings to its end what it holds, until [`Context::deadline`].
    fn close(&mut self, _: &Context) {}
}

impl Output {
    pub(super) fn new(endpoint: impl Endpoint + 'static) -> Self {
        Output(Box::new(endpoint))
    }

    /// Lines for people, on standard output. [`ConsoleOutput`] can do more.
    pub fn console(color: Color) -> Self {
        ConsoleOutput::new().color(color).into()
    }

    /// A file of JSON lines, one message each; appended to, made if it is not there. [`FileOutput`] can do more.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        FileOutput::new(path).into()
    }

    /// Calls `function` with each message, on a thread of its own. A message that it panics at is counted
    /// `failed`.
    pub fn function(function: impl FnMut(&Message) + Send + 'static) -> Self {
        Output::new(function::Settings { name: "function", function: Box::new(function) })
    }

    /// Keeps messages for a test to look at.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tracing_metlog::router::{Config, Input, Matcher, Output, Route, Router};
    ///
    /// let (output, capture) = Output::capture();
    /// let config =
    ///     Config::new().input(Input::udp("127.0.0.1:0")).route(Route::new(Matcher::any(), output));
    /// let router = Router::start(config)?;
    ///
    /// let address = router.addresses()[0].strip_prefix("udp://").unwrap();
    /// let client = std::net::UdpSocket::bind("127.0.0.1:0")?;
    /// client.send_to(br#"{"type": "counter", "payload": "1"}"#, address)?;
    ///
    /// assert_eq!(capture.wait_for(1, Duration::from_secs(5))[0].r#type, "counter");
    /// let counters = router.shutdown(Duration::from_secs(5));
    /// assert_eq!(counters.received, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn capture() -> (Self, Capture) {
        let capture = Capture::default();
        let keeper = capture.clone();
        let function = Box::new(move |message: &Message| keeper.push(message.clone()));
        (Output::new(function::Settings { name: "capture", function }), capture)
    }

    /// Takes messages and does nothing with them.
    pub fn null() -> Self {
        Output::new(Null)
    }

    /// Colours the console so; nothing on other outputs.
    pub fn color(&mut self, color: Color) {
        self.0.color(color);
    }

    /// Whether its settings go together: an error begins with `OPTION: `.
    pub(super) fn check(&self) -> io::Result<()> {
        self.0.check()
    }

    /// See [`Endpoint::settings`]; nothing for one that is like no other.
    pub(super) fn settings(&self) -> Option<String> {
        (!self.0.is_of_its_own()).then(|| self.0.settings())
    }

    /// Whether what it sends would come back by the router's own input at `address`.
    pub(super) fn leads_to(&self, address: &str) -> bool {
        self.0.leads_to(address)
    }

    /// Whether both are the same place, which then gets one queue and each message once.
    pub(super) fn is_same(&self, other: &Output) -> bool {
        !self.0.is_of_its_own() && !other.0.is_of_its_own() && self.0.name() == other.0.name()
    }
}

/// Where messages are counted, and no more.
struct Null;

impl Endpoint for Null {
    fn name(&self) -> String {
        String::from("null")
    }

    fn open(self: Box<Self>) -> io::Result<Place> {
        Ok(Place { draw: Some(Arc::new(|_, _| Ok(()))), writer: self })
    }
}

impl Writer for Null {
    fn write(&mut self, batch: &Batch, context: &Context) {
        context.settle(batch.count, Ok(()));
    }
}

impl fmt::Display for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.name())
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Output({self})")
    }
}

impl FromStr for Output {
    type Err = super::RouterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = text.strip_prefix("file:").map(|path| path.strip_prefix("//").unwrap_or(path));
        match (text, path) {
            ("console", _) => Ok(Output::console(Color::Auto)),
            ("null", _) => Ok(Output::null()),
            (_, Some(path)) if !path.is_empty() => Ok(Output::file(path)),
            _ => Err(super::RouterError::Config {
                value: text.to_owned(),
                accepted: "console, null or file:PATH",
            }),
        }
    }
}
