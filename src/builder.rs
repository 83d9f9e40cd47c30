//! Configuration: the builder, the environment, the defaults, and what is wrong with a value.
//!
//! In: what the code sets, then what the environment says where the code is silent, then defaults. Out: a running
//! pipeline and its front end, or an error that names the value, where it came from and what would be accepted.

#[cfg(feature = "tracing")]
use std::collections::HashMap;
use std::collections::HashSet;
use std::env;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::capture::client::Client;
use crate::delivery::address::Address;
use crate::delivery::destination::Destination;
use crate::delivery::encode::json::JsonEncoder;
use crate::delivery::encode::{Encoding, NonFinite, Origin, SpanContext, Style};
#[cfg(feature = "heka")]
use crate::delivery::heka::Heka;
use crate::delivery::outlet::Outlet;
use crate::delivery::transport::{Limits, Transport};
use crate::delivery::worker::Worker;
use crate::guard::Guard;
use crate::message::Severity;
use crate::pipeline::{Envelope, MessageFilter, Parts, Pipeline};
#[cfg(feature = "ring")]
use crate::queue::ring::{self, Ring};
use crate::queue::{Queue, WhenFull};
use crate::stats::{Counters, DestinationCounters};

mod error;
#[cfg(any(feature = "tracing", feature = "log"))]
mod install;
#[cfg(feature = "spool")]
mod spool;

pub use error::{BuildError, InitError};

/// The environment variables, and what each one is for. Code that sets the same thing comes first.
pub mod variables {
    /// `METLOG_ROUTER`: where messages go, one or more addresses with commas between them.
    /// Default `udp://127.0.0.1:5565`; `off` switches everything off.
    pub const ROUTER: &str = "METLOG_ROUTER";
    /// `METLOG_LOGGER`: the `logger` of every message. Default: the name of the program's file.
    pub const LOGGER: &str = "METLOG_LOGGER";
    /// `METLOG_FILTER`: filter directives, before `RUST_LOG`.
    pub const FILTER: &str = "METLOG_FILTER";
    /// `RUST_LOG`: filter directives if there is no `METLOG_FILTER`. Default `info`.
    pub const RUST_LOG: &str = "RUST_LOG";
    /// `METLOG_WHEN_FULL`: `drop-newest` (default), `drop-oldest`, `block`, or `block:MILLISECONDS`.
    pub const WHEN_FULL: &str = "METLOG_WHEN_FULL";
    /// `METLOG_QUEUE_BYTES`: the queue's memory in bytes. Default 8388608.
    pub const QUEUE_BYTES: &str = "METLOG_QUEUE_BYTES";
    /// `METLOG_FLUSH_TIMEOUT_MS`: how long the end of the program waits for delivery. Default 5000.
    pub const FLUSH_TIMEOUT: &str = "METLOG_FLUSH_TIMEOUT_MS";
    /// `METLOG_MESSAGE_IDS`: `true` or `false`; a `metlog_id` in each message, so that one that is sent again is known.
    /// Default `false`.
    pub const MESSAGE_IDS: &str = "METLOG_MESSAGE_IDS";
    /// `METLOG_DISABLED_TIMERS`: names of timers and spans that are not timed, with commas; `*` is all.
    pub const DISABLED_TIMERS: &str = "METLOG_DISABLED_TIMERS";
    /// `METLOG_HOSTNAME`: the `metlog_hostname` of every message. Default: the system's.
    pub const HOSTNAME: &str = "METLOG_HOSTNAME";
    /// `METLOG_SPOOL`: a directory where messages wait on disk that no router takes (feature `spool`). Default: none.
    pub const SPOOL: &str = "METLOG_SPOOL";
    /// `METLOG_SPOOL_LIMIT`: the most the spool may hold, in bytes. Default 1073741824.
    pub const SPOOL_LIMIT: &str = "METLOG_SPOOL_LIMIT";
    /// `METLOG_SPOOL_MAX_AGE_S`: how long a message may wait in the spool, in seconds. Default 604800.
    pub const SPOOL_MAX_AGE: &str = "METLOG_SPOOL_MAX_AGE_S";
    /// `METLOG_CONSOLE`: `true` or `false`; a readable copy of everything on stderr (feature `console`, and
    /// [`init`](crate::init) only). Default `false`.
    pub const CONSOLE: &str = "METLOG_CONSOLE";
    /// `METLOG_RING`: the crash ring (feature `ring`): `on` for the default directory,
    /// `/dev/shm/tracing-metlog-UID`, an absolute path for another one, or `off`. Default `off`.
    pub const RING: &str = "METLOG_RING";
}

/// The queue's memory: at 150 bytes a record, room for about 55,000 of them.
const DEFAULT_QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// Long enough for a slow router, short enough for whoever waits for the program to end.
const DEFAULT_FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than a router takes to restart, short enough for somebody who looks for the reason.
const DEFAULT_STUCK_AFTER: Duration = Duration::from_secs(10);
/// Severities of the levels ERROR, WARN, INFO, DEBUG, TRACE.
const DEFAULT_SEVERITIES: [u8; 5] = [3, 4, 6, 7, 7];

/// Everything that can be configured; from [`builder`](crate::builder()).
///
/// What code sets comes first, then the environment ([`variables`]), then the default.
///
/// ```no_run
/// use std::time::Duration;
/// use tracing_metlog::WhenFull;
///
/// let _metlog = tracing_metlog::builder()
///     .logger("shop")
///     .router("tcp://127.0.0.1:5565")
///     .router("file:///var/log/shop.jsonl")
///     .filter("info,hyper=warn")
///     .when_full(WhenFull::BlockFor(Duration::from_millis(5)))
///     .disabled_timers(["poll"])
///     .init();
/// ```
#[must_use = "a builder does nothing until `.init()`, `.build()` or `.build_logger()`"]
pub struct Builder {
    logger: Option<String>,
    hostname: Option<String>,
    routers: Vec<String>,
    transports: Vec<Box<dyn Transport>>,
    filter: Option<String>,
    when_full: Option<WhenFull>,
    queue_bytes: Option<usize>,
    max_message_bytes: Option<usize>,
    flush_timeout: Option<Duration>,
    stuck_after: Duration,
    message_ids: Option<bool>,
    encoding: Encoding,
    origin: Origin,
    span_context: SpanContext,
    span_keys: Option<Vec<String>>,
    non_finite: NonFinite,
    whole_milliseconds: bool,
    severities: [u8; 5],
    filters: Vec<MessageFilter>,
    disabled_timers: Option<HashSet<String>>,
    #[cfg(feature = "tracing")]
    timers: crate::capture::timers::TimerRules,
    #[cfg(feature = "tracing")]
    timer_rates: HashMap<String, f64>,
    panics: Option<bool>,
    #[cfg(feature = "spool")]
    spool: spool::SpoolSettings,
    #[cfg(feature = "console")]
    console: Option<bool>,
    #[cfg(feature = "ring")]
    ring: Option<Ring>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Builder {
            logger: None,
            hostname: None,
            routers: Vec::new(),
            transports: Vec::new(),
            filter: None,
            when_full: None,
            queue_bytes: None,
            max_message_bytes: None,
            flush_timeout: None,
            stuck_after: DEFAULT_STUCK_AFTER,
            message_ids: None,
            encoding: Encoding::default(),
            origin: Origin::default(),
            span_context: SpanContext::default(),
            span_keys: None,
            non_finite: NonFinite::default(),
            whole_milliseconds: false,
            severities: DEFAULT_SEVERITIES,
            filters: Vec::new(),
            disabled_timers: None,
            #[cfg(feature = "tracing")]
            timers: crate::capture::timers::TimerRules::default(),
            #[cfg(feature = "tracing")]
            timer_rates: HashMap::new(),
            panics: None,
            #[cfg(feature = "spool")]
            spool: spool::SpoolSettings::default(),
            #[cfg(feature = "console")]
            console: None,
            #[cfg(feature = "ring")]
            ring: None,
        }
    }

    /// The `logger` of every message that names none. Default: `METLOG_LOGGER`, else the name of the program's file.
    pub fn logger(mut self, logger: impl Into<String>) -> Self {
        self.logger = Some(logger.into());
        self
    }

    /// The `metlog_hostname` of every message. Default: `METLOG_HOSTNAME`, else the system's.
    pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
        self.hostname = Some(hostname.into());
        self
    }

    /// Where messages go: an [`Address`]. Called again, every message goes to each of them, and one that is down
    /// does not slow the others. Default: `METLOG_ROUTER`, else `udp://127.0.0.1:5565`.
    pub fn router(mut self, address: impl Into<String>) -> Self {
        self.routers.push(address.into());
        self
    }

    /// Where messages go, in a way of your own: a [`Capture`](crate::Capture) in a test, or your own
    /// [`Transport`]. May be mixed with [`router`](Builder::router).
    pub fn transport(mut self, transport: impl Transport + 'static) -> Self {
        self.transports.push(Box::new(transport));
        self
    }

    /// Which events, spans and log records are sent: filter directives as in `RUST_LOG`, `info,hyper=warn`.
    ///
    /// Default: `METLOG_FILTER`, else `RUST_LOG`, else `info`. A layer from [`build`](Builder::build) asks neither
    /// `RUST_LOG` nor the default: there, the filters of your own stack decide.
    pub fn filter(mut self, directives: impl Into<String>) -> Self {
        self.filter = Some(directives.into());
        self
    }

    /// What to do with a message when the queue is full. Default: `METLOG_WHEN_FULL`, else
    /// [`WhenFull::DropNewest`].
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = Some(when_full);
        self
    }

    /// The queue's memory in bytes, taken at once, in chunks of 64 KiB. There are never fewer chunks than two
    /// for each lane and two more, and there are about two lanes for each processor. Default: `METLOG_QUEUE_BYTES`, else 8 MiB.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = Some(bytes);
        self
    }

    /// The longest message in bytes. A longer one is cut: first its payload, then its largest field, and marked
    /// `fields.truncated = true`. Default: 60,000 for datagrams, as much as Metlog's routers read; no limit else.
    /// In any case a single text is cut at 56 KiB, and a message at 64 KiB of captured values.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = Some(bytes);
        self
    }

    /// How long the end of the program, a panic and `log::logger().flush()` wait for delivery. Default:
    /// `METLOG_FLUSH_TIMEOUT_MS`, else 5 s. At the end of the program a router that refuses is not waited for
    /// longer than half a second.
    pub fn flush_timeout(mut self, timeout: Duration) -> Self {
        self.flush_timeout = Some(timeout);
        self
    }

    /// For how long a destination may have something to send and confirm none of it before that is reported, on stderr
    /// and as [`problem`](crate::DestinationStats::problem): it does not read, or does not answer. Nothing is lost by
    /// that yet. Default 10 s. (One that refuses is reported at once.)
    pub fn stuck_after(mut self, patience: Duration) -> Self {
        self.stuck_after = patience;
        self
    }

    /// Whether each message has a field `metlog_id`, `boot-pid-start-sequence`: the same when it is sent again because
    /// a connection broke, and to each of several destinations, so that a receiver can tell a message that came twice.
    /// The router of this crate drops those. Default `false`: it makes each message about 70 bytes longer.
    pub fn message_ids(mut self, wanted: bool) -> Self {
        self.message_ids = Some(wanted);
        self
    }

    /// The form of a message's bytes. Default: [`Encoding::Metlog`].
    pub fn encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// How the fields of the enclosing spans stand in `fields`. Default: [`SpanContext::Flat`].
    pub fn span_context(mut self, shape: SpanContext) -> Self {
        self.span_context = shape;
        self
    }

    /// The only keys of enclosing spans that are sent. Default: all.
    pub fn span_keys<K: Into<String>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.span_keys = Some(keys.into_iter().map(Into::into).collect());
        self
    }

    /// Whether `fields.target` is written. Default: yes.
    pub fn target(mut self, wanted: bool) -> Self {
        self.origin.target = wanted;
        self
    }

    /// Whether `fields.module`, the module's path, is written. Default: yes.
    pub fn module(mut self, wanted: bool) -> Self {
        self.origin.module = wanted;
        self
    }

    /// Whether `fields.file` is written. Default: yes.
    pub fn file(mut self, wanted: bool) -> Self {
        self.origin.file = wanted;
        self
    }

    /// Whether `fields.line` is written. Default: yes.
    pub fn line(mut self, wanted: bool) -> Self {
        self.origin.line = wanted;
        self
    }

    /// Whether `fields.thread`, the thread's name or else its id, is written. Default: yes.
    pub fn thread(mut self, wanted: bool) -> Self {
        self.origin.thread = wanted;
        self
    }

    /// Whether `fields.span`, the name of the innermost span, is written. Default: yes.
    pub fn span(mut self, wanted: bool) -> Self {
        self.origin.span = wanted;
        self
    }

    /// Whether `fields.spans`, the names of all enclosing spans (`request:query`), is written. Default: yes.
    pub fn spans(mut self, wanted: bool) -> Self {
        self.origin.spans = wanted;
        self
    }

    /// What NaN and the infinities become. Default: [`NonFinite::Text`].
    pub fn non_finite(mut self, policy: NonFinite) -> Self {
        self.non_finite = policy;
        self
    }

    /// Whether timers are rounded to whole milliseconds, as metlog-py's are (Heka's `StatsdOutput` takes no
    /// other). Default: no, up to three decimals.
    pub fn whole_milliseconds(mut self, wanted: bool) -> Self {
        self.whole_milliseconds = wanted;
        self
    }

    /// The severities of the levels ERROR, WARN, INFO, DEBUG and TRACE. Default: 3, 4, 6, 7, 7.
    pub fn severities(mut self, of_levels: [Severity; 5]) -> Self {
        self.severities = of_levels.map(Severity::number);
        self
    }

    /// Sends only messages of this severity or worse (metlog-py's `severity_max`). Like all the filters below it
    /// works before the queue, on messages from everywhere, and every one that is set must pass.
    pub fn severity_max(mut self, most: Severity) -> Self {
        self.filters.push(MessageFilter::SeverityMax(most));
        self
    }

    /// Sends no message of these types (metlog-py's `type_blacklist`).
    pub fn type_blacklist<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        let types = types.into_iter().map(Into::into).collect();
        self.filters.push(MessageFilter::TypeBlacklist(types));
        self
    }

    /// Sends only messages of these types (metlog-py's `type_whitelist`).
    pub fn type_whitelist<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        let types = types.into_iter().map(Into::into).collect();
        self.filters.push(MessageFilter::TypeWhitelist(types));
        self
    }

    /// Of these types, sends only messages of the given severity or worse (metlog-py's `type_severity_max`).
    pub fn type_severity_max<T: Into<String>>(
        mut self,
        most: impl IntoIterator<Item = (T, Severity)>,
    ) -> Self {
        let most = most.into_iter().map(|(name, severity)| (name.into(), severity)).collect();
        self.filters.push(MessageFilter::TypeSeverityMax(most));
        self
    }

    /// Sends only messages for which `passes` says so.
    ///
    /// ```
    /// # use tracing_metlog::Severity;
    /// let builder = tracing_metlog::builder()
    ///     .message_filter(|message| message.r#type != "audit" || message.severity <= Severity::Notice);
    /// ```
    pub fn message_filter(mut self, passes: impl Fn(&Envelope<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.filters.push(MessageFilter::Predicate(Box::new(passes)));
        self
    }

    /// Names of timers and spans that are not timed; `*` is all of them. Default: `METLOG_DISABLED_TIMERS`, else
    /// none.
    pub fn disabled_timers<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.disabled_timers.get_or_insert_with(HashSet::new).extend(names.into_iter().map(Into::into));
        self
    }

    /// The most verbose level of spans that are timed. Default: all levels.
    #[cfg(feature = "tracing")]
    pub fn timer_level(mut self, level: tracing::level_filters::LevelFilter) -> Self {
        self.timers.level = level;
        self
    }

    /// Targets of spans that are timed: the module itself and those inside it. Default: all.
    #[cfg(feature = "tracing")]
    pub fn timer_targets<T: Into<String>>(mut self, targets: impl IntoIterator<Item = T>) -> Self {
        self.timers.targets.extend(targets.into_iter().map(Into::into));
        self
    }

    /// Times only this share, from 0 to 1, of the spans of this name; each timer carries the rate, so that a
    /// receiver can scale. Default: 1 for all.
    #[cfg(feature = "tracing")]
    pub fn timer_rate(mut self, name: impl Into<String>, rate: f64) -> Self {
        self.timer_rates.insert(name.into(), rate);
        self
    }

    /// Whether panics are sent, as messages of type `panic` and severity 1, and then flushed. The hook that was
    /// there before is called first. Default: yes with [`init`](Builder::init), no with `build`.
    pub fn panics(mut self, wanted: bool) -> Self {
        self.panics = Some(wanted);
        self
    }

    /// Whether [`init`](Builder::init) also shows everything on stderr, for people. Default: `METLOG_CONSOLE`,
    /// else no.
    #[cfg(feature = "console")]
    pub fn console(mut self, wanted: bool) -> Self {
        self.console = Some(wanted);
        self
    }

    /// Keeps the queue in a file in memory that outlives the process, so that every message whose call has returned
    /// survives `SIGKILL`, `SIGSEGV`, `abort`, `_exit` and the out-of-memory killer. Default: `METLOG_RING`, else
    /// [`Ring::Off`].
    ///
    /// The next start of a program with the same [`logger`](Builder::logger) and the same directory delivers what is
    /// found there, and so does `metlog-router --adopt DIRECTORY`; messages keep the times, process ids and names they
    /// were made with. A message that was delivered just before the crash may be delivered again. A call costs the
    /// same as without.
    ///
    /// A directory that cannot be used, or has no room, is no error: a service must start. The queue is in ordinary
    /// memory then, and a line on stderr says why. Nothing is synced to a disk: what stops the machine also ends the
    /// ring. See `docs/crash-ring.md`.
    ///
    /// ```no_run
    /// use tracing_metlog::Ring;
    ///
    /// let _metlog = tracing_metlog::builder().logger("shop").ring(Ring::Default).init();
    /// ```
    #[cfg(feature = "ring")]
    pub fn ring(mut self, ring: impl Into<Ring>) -> Self {
        self.ring = Some(ring.into());
        self
    }
}

/// A transport and the address it was made from.
struct Named {
    address: String,
    transport: Box<dyn Transport>,
    /// For a transport that carries Heka's frames.
    #[cfg(feature = "heka")]
    heka: Heka,
}

impl Builder {
    /// A client alone, for a program that makes its messages itself; [`Guard::client`] gives the same beside a layer
    /// or a logger.
    ///
    /// ```
    /// let (client, _guard) = tracing_metlog::builder().router("off").build_client()?;
    /// client.incr("starts");
    /// # Ok::<(), tracing_metlog::BuildError>(())
    /// ```
    ///
    /// # Errors
    /// A [`BuildError`] names the value that is wrong, where it came from and what is accepted. A router that is
    /// down is no error.
    pub fn build_client(mut self) -> Result<(Client, Guard), BuildError> {
        let guard = Guard::new(self.start(false)?);
        Ok((guard.client(), guard))
    }
}

/// From settings to a running pipeline.
impl Builder {
    fn start(&mut self, panics: bool) -> Result<Arc<Pipeline>, BuildError> {
        let transports = self.open_transports()?;
        let enabled = !transports.is_empty();
        let message_ids = self.resolve_message_ids()?;
        let counters = Arc::new(Counters::default());
        let logger = self.logger_or_default();
        let style = self.style(&logger, message_ids);
        let queue_bytes = if enabled { self.resolve_queue_bytes()? } else { 0 };
        let when_full = self.resolve_when_full()?;
        #[cfg(feature = "ring")]
        let (queue, calls) = match self.resolve_ring()?.directory().filter(|_| enabled) {
            Some(directory) => ring::queue(&directory, &style, queue_bytes, when_full, &counters),
            None => Queue::new(queue_bytes, when_full, Arc::clone(&counters)),
        };
        #[cfg(not(feature = "ring"))]
        let (queue, calls) = Queue::new(queue_bytes, when_full, Arc::clone(&counters));
        let queue = Arc::new(queue);
        let parts = Parts {
            queue: Arc::clone(&queue),
            enabled,
            logger,
            filters: std::mem::take(&mut self.filters),
            disabled_timers: self.resolve_disabled_timers(),
            flush_timeout: self.resolve_flush_timeout()?,
            panics: self.panics.unwrap_or(panics),
        };
        if enabled {
            let encoder = JsonEncoder::new(style);
            let outlets = self.outlets(transports, &counters)?;
            let spool = self.open_spool(&counters)?;
            Worker::start(queue, calls, encoder, outlets, spool).map_err(BuildError::Thread)?;
        }
        Ok(Pipeline::new(parts))
    }

    /// A program that was told to keep messages on disk, and cannot, must not seem to.
    #[cfg(not(feature = "spool"))]
    fn open_spool(&self, _: &Arc<Counters>) -> Result<Option<crate::delivery::spool::Spool>, BuildError> {
        const ACCEPTED: &str = "nothing, because this program was built without the feature `spool`,";
        for name in [variables::SPOOL, variables::SPOOL_LIMIT, variables::SPOOL_MAX_AGE] {
            if let Some(value) = variable(name) {
                return Err(BuildError::Variable { name, value, accepted: ACCEPTED });
            }
        }
        Ok(None)
    }

    fn outlets(&self, transports: Vec<Named>, all: &Arc<Counters>) -> Result<Vec<Outlet>, BuildError> {
        let counters: Vec<_> = transports
            .iter()
            .map(|one| Arc::new(DestinationCounters::new(one.address.clone(), self.stuck_after)))
            .collect();
        all.set_destinations(counters.clone());
        let is_only = counters.len() == 1;
        let outlet = |(named, counters): (Named, _)| {
            let destination = Destination::new(named.transport, counters);
            let outlet = match is_only {
                true => Outlet::here(destination, all, self.max_message_bytes),
                false => Outlet::apart(destination, all, self.max_message_bytes)?,
            };
            #[cfg(feature = "heka")]
            let outlet = outlet.speaking_heka(named.heka);
            Ok(outlet)
        };
        transports.into_iter().zip(counters).map(outlet).collect::<Result<_, _>>().map_err(BuildError::Thread)
    }

    /// Every destination with its name. Empty when all are `off`.
    fn open_transports(&mut self) -> Result<Vec<Named>, BuildError> {
        let own = std::mem::take(&mut self.transports);
        let mut open: Vec<_> = own
            .into_iter()
            .map(|transport| Named {
                address: String::from("transport"),
                transport,
                #[cfg(feature = "heka")]
                heka: self.heka().cloned().unwrap_or_default(),
            })
            .collect();
        let (origin, addresses) = self.addresses(!open.is_empty())?;
        for address in addresses {
            let address = Address::from_str(&address)
                .map_err(|error| BuildError::Address { origin, problem: error })?;
            #[cfg(feature = "heka")]
            let address = self.in_its_encoding(address)?;
            let wrong = |problem| BuildError::Address { origin, problem };
            #[cfg(feature = "heka")]
            let heka = Heka::of(&address, self.heka()).map_err(wrong)?.unwrap_or_default();
            if let Some(transport) = address.open(self.limits()).map_err(wrong)? {
                open.push(Named {
                    address: address.to_string(),
                    transport,
                    #[cfg(feature = "heka")]
                    heka,
                });
            }
        }
        Ok(open)
    }

    fn limits(&self) -> Limits {
        let default = Limits::default();
        let or_set = |most| self.max_message_bytes.unwrap_or(most);
        Limits {
            max_datagram_bytes: or_set(default.max_datagram_bytes),
            #[cfg(feature = "heka")]
            max_heka_datagram_bytes: or_set(default.max_heka_datagram_bytes),
        }
    }

    /// Heka's form, if that is the encoding.
    #[cfg(feature = "heka")]
    fn heka(&self) -> Option<&Heka> {
        match &self.encoding {
            Encoding::Heka(heka) => Some(heka),
            Encoding::Metlog => None,
        }
    }

    /// The address as one for the encoding that was set.
    #[cfg(feature = "heka")]
    fn in_its_encoding(&self, address: Address) -> Result<Address, BuildError> {
        const ACCEPTED: &str = "Encoding::Heka with udp, tcp, tls, unix and unixgram addresses";
        if self.heka().is_none() {
            return Ok(address);
        }
        let value = address.to_string();
        let (name, accepted) = ("Builder::encoding", ACCEPTED);
        address.speaking_heka().ok_or(BuildError::Variable { name, value, accepted })
    }

    /// The addresses, and where they came from.
    fn addresses(&mut self, has_transports: bool) -> Result<(&'static str, Vec<String>), BuildError> {
        let from_code = std::mem::take(&mut self.routers);
        if has_transports || !from_code.is_empty() {
            return Ok(("Builder::router", from_code));
        }
        let (name, accepted) = (variables::ROUTER, "router addresses with commas between them, or off");
        let Some(value) = variable(name) else { return Ok((name, vec![Address::default().to_string()])) };
        let addresses: Vec<_> =
            value.split(',').map(|address| address.trim().to_owned()).filter(|one| !one.is_empty()).collect();
        match addresses.is_empty() {
            true => Err(BuildError::Variable { name, value, accepted }),
            false => Ok((name, addresses)),
        }
    }

    fn style(&self, logger: &str, message_ids: bool) -> Style {
        let hostname =
            self.hostname.clone().or_else(|| variable(variables::HOSTNAME)).unwrap_or_else(hostname);
        Style {
            logger: logger.to_owned(),
            hostname,
            process_id: std::process::id(),
            origin: self.origin,
            span_context: self.span_context,
            span_keys: self.span_keys.clone(),
            non_finite: self.non_finite,
            whole_milliseconds: self.whole_milliseconds,
            message_ids,
        }
    }

    fn logger_or_default(&self) -> String {
        self.logger.clone().or_else(|| variable(variables::LOGGER)).or_else(program_name).unwrap_or_default()
    }

    fn resolve_when_full(&self) -> Result<WhenFull, BuildError> {
        from_environment(
            self.when_full,
            variables::WHEN_FULL,
            WHEN_FULL_ACCEPTED,
            parse_when_full,
            WhenFull::default(),
        )
    }

    fn resolve_queue_bytes(&self) -> Result<usize, BuildError> {
        // More than any machine has for it; without a limit a slip of the finger would be an abort.
        const MOST: u64 = 1 << 36;
        const ACCEPTED: &str = "a number of bytes up to 68719476736";
        let is_possible = |bytes: &usize| *bytes as u64 <= MOST;
        if let Some(bytes) = self.queue_bytes.filter(|bytes| !is_possible(bytes)) {
            let (name, value) = ("Builder::queue_bytes", bytes.to_string());
            return Err(BuildError::Variable { name, value, accepted: ACCEPTED });
        }
        let parse = |value: &str| parse(value).filter(is_possible);
        from_environment(self.queue_bytes, variables::QUEUE_BYTES, ACCEPTED, parse, DEFAULT_QUEUE_BYTES)
    }

    #[cfg(feature = "ring")]
    fn resolve_ring(&self) -> Result<Ring, BuildError> {
        const ACCEPTED: &str = "on, off or an absolute path";
        if let Some(Ring::In(path)) = self.ring.as_ref().filter(|ring| !ring.is_possible()) {
            let (name, value) = ("Builder::ring", path.display().to_string());
            return Err(BuildError::Variable { name, value, accepted: ACCEPTED });
        }
        from_environment(self.ring.clone(), variables::RING, ACCEPTED, Ring::parse, Ring::Off)
    }

    fn resolve_flush_timeout(&self) -> Result<Duration, BuildError> {
        const ACCEPTED: &str = "a number of milliseconds";
        let parse = |value: &str| parse(value).map(Duration::from_millis);
        from_environment(self.flush_timeout, variables::FLUSH_TIMEOUT, ACCEPTED, parse, DEFAULT_FLUSH_TIMEOUT)
    }

    fn resolve_message_ids(&self) -> Result<bool, BuildError> {
        from_environment(self.message_ids, variables::MESSAGE_IDS, "true or false", parse, false)
    }

    fn resolve_disabled_timers(&mut self) -> HashSet<String> {
        let names = |value: String| value.split(',').map(|name| name.trim().to_owned()).collect();
        self.disabled_timers
            .take()
            .or_else(|| variable(variables::DISABLED_TIMERS).map(names))
            .unwrap_or_default()
    }
}

/// What code set, else what the variable says, else the default.
fn from_environment<T>(
    set: Option<T>,
    name: &'static str,
    accepted: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
    default: T,
) -> Result<T, BuildError> {
    match (set, variable(name)) {
        (Some(value), _) => Ok(value),
        (None, None) => Ok(default),
        (None, Some(value)) => parse(value.trim()).ok_or(BuildError::Variable { name, value, accepted }),
    }
}

/// A variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    env::var_os(name)
        .map(|value| value.to_string_lossy().into_owned())
        .filter(|value| !value.trim().is_empty())
}

fn parse<T: FromStr>(value: &str) -> Option<T> {
    value.parse().ok()
}

const WHEN_FULL_ACCEPTED: &str = "drop-newest, drop-oldest, block or block:MILLISECONDS";

fn parse_when_full(value: &str) -> Option<WhenFull> {
    match value {
        "drop-newest" => Some(WhenFull::DropNewest),
        "drop-oldest" => Some(WhenFull::DropOldest),
        "block" => Some(WhenFull::Block),
        other => {
            let milliseconds = other.strip_prefix("block:")?;
            parse(milliseconds).map(|milliseconds| WhenFull::BlockFor(Duration::from_millis(milliseconds)))
        }
    }
}

fn program_name() -> Option<String> {
    Some(env::current_exe().ok()?.file_stem()?.to_string_lossy().into_owned())
}

#[cfg(unix)]
fn hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Some(name).filter(|name| !name.is_empty()).unwrap_or_else(|| String::from("localhost"))
}

#[cfg(not(unix))]
fn hostname() -> String {
    variable("COMPUTERNAME").unwrap_or_else(|| String::from("localhost"))
}

impl fmt::Debug for Builder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Builder")
            .field("logger", &self.logger)
            .field("routers", &self.routers)
            .field("filter", &self.filter)
            .field("when_full", &self.when_full)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_from_its_name() {
        assert_eq!(parse_when_full("drop-oldest"), Some(WhenFull::DropOldest));
        assert_eq!(parse_when_full("block:250"), Some(WhenFull::BlockFor(Duration::from_millis(250))));
        assert_eq!(parse_when_full("block:soon"), None);
        assert_eq!(parse_when_full("drop"), None);
    }
}
