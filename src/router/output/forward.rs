//! The forward output: messages as they came, to another router. In: messages. Out: the same, to any address that the
//! client knows, until they are confirmed; while that router is away, into a spool.
//!
//! The envelope is not touched: hostname, pid, timestamp, logger and the id of a message are those of the program that
//! made it, so that the next router knows it again if it comes twice.
//!
//! Lost here: what `delivery.rs` says. A message too long for a datagram is cut, and counted `truncated`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::delivery::{are_one_place, invalid, messages, Delivery, Pace};
use super::{queue, Batch, Context, Endpoint, Output, Place, Writer};
use crate::delivery::spool::Spool;
use crate::delivery::transport::Limits;
use crate::router::received::Received;
use crate::stats::Counters;
use crate::Address;

/// Messages that come within this are sent together.
const LINGER: Duration = Duration::from_millis(1);
const BATCH_BYTES: usize = 64 * 1024;
#[cfg(feature = "spool")]
const DEFAULT_SPOOL_BYTES: u64 = 1 << 30;
/// Fewer hold not even one segment.
#[cfg(feature = "spool")]
const FEWEST_SPOOL_BYTES: u64 = 64 * 1024;
#[cfg(feature = "spool")]
const SPOOL_MAX_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Sends messages on to another router, unchanged, with the client's own delivery: one connection, confirmed by the
/// rule of its transport, sent again when it breaks.
///
/// While that router does not answer messages wait in memory, [`queue_bytes`](ForwardOutput::queue_bytes) and 4 MiB
/// more of them, and then new ones are `dropped`; with a [`spool`](ForwardOutput::spool) they wait on disk.
///
/// An address of the router itself is refused when it starts. Routers that send to each other in a circle are not
/// seen: a message that has an id ends there as a duplicate, one without (from another client than this crate's)
/// goes round for as long as both run. Let the route of one of them leave out what the other one sends.
///
/// ```no_run
/// use tracing_metlog::router::{Config, ForwardOutput, Input, Matcher, Route};
///
/// let central = ForwardOutput::new("tls://logs.example").spool("/var/spool/metlog-router");
/// let config = Config::new()
///     .input(Input::udp("127.0.0.1:5565"))
///     .route(Route::new(Matcher::any(), central.into()));
/// ```
#[derive(Clone, Debug)]
pub struct ForwardOutput {
    address: String,
    spool: Option<PathBuf>,
    spool_bytes: Option<u64>,
    queue_bytes: usize,
}

impl ForwardOutput {
    /// To the router at `address`, any [`Address`] but `off`. A wrong one is an error when the router starts; one that
    /// does not answer is none.
    pub fn new(address: impl Into<String>) -> Self {
        let address = address.into();
        ForwardOutput { address, spool: None, spool_bytes: None, queue_bytes: queue::QUEUE_BYTES }
    }

    /// A directory for messages that the other router does not take; each forward output needs one of its own, because
    /// what is in it is sent wherever the next one leads that opens it. Needs the feature `spool`. Default: none.
    pub fn spool(mut self, directory: impl Into<PathBuf>) -> Self {
        self.spool = Some(directory.into());
        self
    }

    /// The most the spool may hold, in bytes on disk, at least 65,536. Default: 1 GiB. When it is full messages wait in
    /// memory, and then new ones are dropped. What is in it for 7 days is lost (`spool_expired`).
    pub fn spool_bytes(mut self, bytes: u64) -> Self {
        self.spool_bytes = Some(bytes);
        self
    }

    /// How many bytes of messages may wait for this output in memory. Default: 16 MiB.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    fn parsed(&self) -> io::Result<Address> {
        self.address.parse().map_err(invalid)
    }

    #[cfg(feature = "spool")]
    fn check_spool(&self) -> io::Result<()> {
        match self.spool_bytes {
            Some(bytes) if bytes < FEWEST_SPOOL_BYTES => {
                Err(invalid(format!("spool_bytes {bytes}: a number of bytes from 65536 on is accepted")))
            }
            Some(_) if self.spool.is_none() => Err(invalid(NO_SPOOL)),
            _ => Ok(()),
        }
    }

    #[cfg(not(feature = "spool"))]
    fn check_spool(&self) -> io::Result<()> {
        match self.spool.is_some() || self.spool_bytes.is_some() {
            true => Err(invalid("spool: this router was built without the feature `spool`")),
            false => Ok(()),
        }
    }

    #[cfg(feature = "spool")]
    fn open_spool(&self, counters: &Arc<Counters>) -> io::Result<Option<Spool>> {
        use crate::delivery::spool::{store, Settings};

        let bytes = self.spool_bytes.unwrap_or(DEFAULT_SPOOL_BYTES);
        let Some(directory) = self.spool.clone() else { return Ok(None) };
        let limits = store::Limits { bytes, max_age: SPOOL_MAX_AGE };
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("spool {}: {error}", directory.display()))
        };
        let settings = Settings { directory: directory.clone(), limits, drops_oldest: false };
        Spool::open(settings, counters).map(Some).map_err(named)
    }

    #[cfg(not(feature = "spool"))]
    fn open_spool(&self, _: &Arc<Counters>) -> io::Result<Option<Spool>> {
        Ok(None)
    }
}

const NO_ROUTER: &str = "off is no router: any other address is accepted";
#[cfg(feature = "spool")]
const NO_SPOOL: &str = "spool_bytes says how large the spool may be, and spool, its directory, is not given";

impl From<ForwardOutput> for Output {
    fn from(settings: ForwardOutput) -> Self {
        Output::new(settings)
    }
}

impl Endpoint for ForwardOutput {
    fn name(&self) -> String {
        // What is no address may have a password in it.
        self.parsed().map_or_else(|_| String::from("forward"), |address| format!("forward:{address}"))
    }

    fn settings(&self) -> String {
        format!("{self:?}")
    }

    fn queue_bytes(&self) -> usize {
        self.queue_bytes
    }

    fn leads_to(&self, input: &str) -> bool {
        self.parsed().is_ok_and(|address| are_one_place(&address, input))
    }

    fn check(&self) -> io::Result<()> {
        self.parsed().and_then(|address| match address {
            Address::Off => Err(invalid(NO_ROUTER)),
            _ => Ok(()),
        })?;
        self.check_spool()
    }

    fn open(self: Box<Self>) -> io::Result<Place> {
        self.check()?;
        let address = self.parsed()?;
        let transport = address.open(Limits::default()).map_err(invalid)?;
        let transport = transport.ok_or_else(|| invalid(NO_ROUTER))?;
        let pace = Pace { linger: LINGER, batch_bytes: BATCH_BYTES };
        let delivery = Delivery::new(self.name(), transport, &pace, |counters| self.open_spool(counters))?;
        Ok(Place { draw: Some(Arc::new(draw)), writer: Box::new(Forward(delivery)) })
    }
}

/// A message as a line of JSON, as it came.
pub(super) fn draw(message: &Received<'_>, lines: &mut Vec<u8>) -> Result<(), String> {
    message.write_json(lines);
    lines.push(b'\n');
    Ok(())
}

struct Forward(Delivery);

impl Writer for Forward {
    fn write(&mut self, batch: &Batch, context: &Context) {
        self.0.write(messages(&batch.lines, 1), batch.is_awaited(), context);
    }

    fn due(&self) -> Option<std::time::Instant> {
        self.0.due()
    }

    fn tick(&mut self, context: &Context) {
        self.0.tick(context);
    }

    fn close(&mut self, context: &Context) {
        self.0.close(context);
    }
}
