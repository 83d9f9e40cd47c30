//! What came in, what was made of it and where it went. In: events, counted by many threads without a lock.
//! Out: [`Counters`], a copy at one moment, readable as text.
//!
//! Two laws hold once the router has been shut down: every frame is in `received` or in `malformed`, and every
//! message handed to an output, or found in its spool (`inherited`), is in that output's `delivered`, `dropped`,
//! `failed`, `spooled` or `queued`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::budget::Budget;
use super::config::Input;
use super::decode::DecodeError;
use super::kernel_drops::KernelDrops;
use super::lock;
use super::output::console::Escaped;
use super::refused::{Refused, RefusedReason};
use crate::delivery::framing::FrameError;
use crate::stats::Losses;

/// How many types are counted by name; a sender that invents types must not fill the memory.
const MAX_TYPES: usize = 1_000;

/// How long a type may be to be counted by name.
const MAX_TYPE_BYTES: usize = 100;

/// The name that types beyond these limits are counted under.
const OTHER_TYPES: &str = "(other)";

/// Why a frame was not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum MalformedReason {
    /// Nothing but white space.
    Empty,
    /// Not UTF-8.
    InvalidUtf8,
    /// Not JSON, or nested too deep.
    InvalidJson,
    /// JSON, but not an object.
    NotAnObject,
    /// No `type`.
    MissingType,
    /// A key of the envelope with a value it cannot have.
    InvalidValue,
    /// A `\0NAME::` prefix other than `json`.
    UnknownDecoder,
    /// Longer than the input's limit.
    TooLong,
    /// No octet count where one belongs.
    BadCount,
    /// The stream ended inside a message.
    Truncated,
    /// Heka: no frame where one should begin. ZeroMQ: a connection on which no ZMTP 3 is spoken.
    BadHeader,
    /// Heka: a frame whose message is none.
    InvalidProtobuf,
    /// Heka: signed by nobody who is known, with another key, or changed on its way.
    BadSignature,
    /// Heka: not signed, where that is asked for.
    Unsigned,
}

impl MalformedReason {
    /// Every reason there is.
    pub const ALL: [MalformedReason; 14] = [
        MalformedReason::Empty,
        MalformedReason::InvalidUtf8,
        MalformedReason::InvalidJson,
        MalformedReason::NotAnObject,
        MalformedReason::MissingType,
        MalformedReason::InvalidValue,
        MalformedReason::UnknownDecoder,
        MalformedReason::TooLong,
        MalformedReason::BadCount,
        MalformedReason::Truncated,
        MalformedReason::BadHeader,
        MalformedReason::InvalidProtobuf,
        MalformedReason::BadSignature,
        MalformedReason::Unsigned,
    ];

    /// The name in reports: `invalid_json`, `too_long`, ...
    pub const fn name(self) -> &'static str {
        match self {
            MalformedReason::Empty => "empty",
            MalformedReason::InvalidUtf8 => "invalid_utf8",
            MalformedReason::InvalidJson => "invalid_json",
            MalformedReason::NotAnObject => "not_an_object",
            MalformedReason::MissingType => "missing_type",
            MalformedReason::InvalidValue => "invalid_value",
            MalformedReason::UnknownDecoder => "unknown_decoder",
            MalformedReason::TooLong => "too_long",
            MalformedReason::BadCount => "bad_count",
            MalformedReason::Truncated => "truncated",
            MalformedReason::BadHeader => "bad_header",
            MalformedReason::InvalidProtobuf => "invalid_protobuf",
            MalformedReason::BadSignature => "bad_signature",
            MalformedReason::Unsigned => "unsigned",
        }
    }
}

impl fmt::Display for MalformedReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl From<&DecodeError> for MalformedReason {
    fn from(error: &DecodeError) -> Self {
        match error {
            DecodeError::Empty => MalformedReason::Empty,
            DecodeError::InvalidUtf8(_) => MalformedReason::InvalidUtf8,
            DecodeError::InvalidJson(_) => MalformedReason::InvalidJson,
            DecodeError::NotAnObject => MalformedReason::NotAnObject,
            DecodeError::MissingType => MalformedReason::MissingType,
            DecodeError::InvalidValue { .. } => MalformedReason::InvalidValue,
            DecodeError::UnknownDecoder => MalformedReason::UnknownDecoder,
        }
    }
}

impl From<FrameError> for MalformedReason {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::TooLong => MalformedReason::TooLong,
            FrameError::BadCount => MalformedReason::BadCount,
            FrameError::Truncated => MalformedReason::Truncated,
            #[cfg(any(feature = "heka", feature = "zmq"))]
            FrameError::BadHeader => MalformedReason::BadHeader,
            #[cfg(feature = "heka")]
            FrameError::InvalidProtobuf => MalformedReason::InvalidProtobuf,
            #[cfg(feature = "heka")]
            FrameError::BadSignature => MalformedReason::BadSignature,
            #[cfg(feature = "heka")]
            FrameError::Unsigned => MalformedReason::Unsigned,
        }
    }
}

/// What a router has counted, at one moment. `Display` is a report of several lines for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Messages: frames that could be decoded.
    pub received: u64,
    /// Bytes read from all inputs.
    pub bytes: u64,
    /// Frames that were no message, by reason; only reasons that occurred.
    pub malformed: BTreeMap<MalformedReason, u64>,
    /// Messages by type, duplicates not among them. Beyond 1,000 types, and for types over 100 bytes, the name is `(other)`.
    pub types: BTreeMap<String, u64>,
    /// Messages that no route matched.
    pub unrouted: u64,
    /// Messages whose `metlog_id` came before: a client sent them again. They went no further.
    pub duplicates: u64,
    /// Input by input, in the order of the configuration.
    pub inputs: Vec<InputCounters>,
    /// Output by output, in the order of the configuration. Routes to the same place share one.
    pub outputs: Vec<OutputCounters>,
}

impl Counters {
    /// Frames that were no message, for any reason.
    pub fn malformed_total(&self) -> u64 {
        self.malformed.values().sum()
    }
}

/// What one input has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InputCounters {
    /// The address it listens on, as a client's URL.
    pub address: String,
    /// Messages: frames that could be decoded.
    pub received: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Frames that were no message, by reason; only reasons that occurred.
    pub malformed: BTreeMap<MalformedReason, u64>,
    /// Connections there have been.
    pub connections: u64,
    /// Connections open now.
    pub open: u64,
    /// Connections turned away or closed before their clients did, and datagrams not read, for any reason.
    pub refused: u64,
    /// The same by reason; only reasons that occurred.
    pub refused_for: BTreeMap<RefusedReason, u64>,
    /// Connections closed because nothing came for as long as [`Input::idle_deadline`](super::Input::idle_deadline) says.
    pub idle: u64,
    /// UDP datagrams that the kernel has dropped because the receive buffer was full, as Linux tells in `/proc/net/udp`.
    /// They were never read, and are in no other count. Elsewhere unknown, and 0. For Unix datagrams always 0: there the
    /// sender waits instead.
    pub kernel_dropped: u64,
    /// What the kernel holds of datagrams for this input at most; 0 for connections, and where nobody can tell.
    pub receive_buffer_bytes: u64,
    /// HTTP requests that were answered 503, because an output was full or slow or other bodies took all the room: their
    /// clients have them still.
    pub busy: u64,
    /// HTTP requests that were answered with another refusal than 503; what was no message in them is in `malformed` too.
    pub bad_requests: u64,
    /// Failures of the socket itself: reads, accepts (no file descriptor left), resets.
    pub errors: u64,
}

/// What became of the messages for one output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputCounters {
    /// What it is: `console`, `file:/var/log/x.jsonl`, ...
    pub name: String,
    /// Written and flushed.
    pub delivered: u64,
    /// Not taken, because its queue was full.
    pub dropped: u64,
    /// Could not be written.
    pub failed: u64,
    /// Those of `failed` that an output over a network has lost, by reason.
    pub lost: Losses,
    /// Messages of earlier runs that were found in the output's spool.
    pub inherited: u64,
    /// In the output's spool now: on disk, and not delivered. At the end they are the next start's.
    pub spooled: u64,
    /// Delivered, but cut to fit, and marked `truncated`.
    pub truncated: u64,
    /// In its queue or on its way now; at the end, what it did not get done before the deadline.
    pub queued: u64,
    /// The last error of writing, when there was one.
    pub last_error: Option<String>,
}

impl InputCounters {
    /// Adds what another input of the same address has counted.
    pub(super) fn add(&mut self, other: &InputCounters) {
        let InputCounters {
            address: _,
            received,
            bytes,
            malformed,
            connections,
            open,
            refused,
            refused_for,
            idle,
            kernel_dropped,
            // Not a count: that of the input that is there now.
            receive_buffer_bytes: _,
            busy,
            bad_requests,
            errors,
        } = other;
        self.received += received;
        self.bytes += bytes;
        for (reason, count) in malformed {
            *self.malformed.entry(*reason).or_default() += count;
        }
        self.connections += connections;
        self.open += open;
        self.refused += refused;
        for (reason, count) in refused_for {
            *self.refused_for.entry(*reason).or_default() += count;
        }
        self.idle += idle;
        self.kernel_dropped += kernel_dropped;
        self.busy += busy;
        self.bad_requests += bad_requests;
        self.errors += errors;
    }
}

impl OutputCounters {
    /// Adds what another output of the same name has counted.
    pub(super) fn add(&mut self, other: &OutputCounters) {
        let OutputCounters {
            name: _,
            delivered,
            dropped,
            failed,
            queued,
            last_error,
            lost,
            inherited,
            spooled,
            truncated,
        } = other;
        // What the one left in its spool the other has found there.
        let handed_on = (*spooled).min(self.inherited);
        self.lost = self.lost.plus(lost);
        self.inherited = self.inherited + inherited - handed_on;
        self.spooled += spooled - handed_on;
        self.truncated += truncated;
        self.delivered += delivered;
        self.dropped += dropped;
        self.failed += failed;
        self.queued += queued;
        if self.last_error.is_none() {
            self.last_error.clone_from(last_error);
        }
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "received   {} messages, {} bytes", self.received, self.bytes)?;
        let types: Vec<String> =
            self.types.iter().map(|(name, count)| format!("{} {count}", Escaped(name))).collect();
        if !types.is_empty() {
            writeln!(formatter, "types      {}", types.join(", "))?;
        }
        writeln!(formatter, "malformed  {}", Malformed(&self.malformed))?;
        write!(formatter, "unrouted   {}", self.unrouted)?;
        if self.duplicates > 0 {
            write!(formatter, "\nduplicates {}", self.duplicates)?;
        }
        for input in &self.inputs {
            write!(formatter, "\ninput      {input}")?;
        }
        for output in &self.outputs {
            write!(formatter, "\noutput     {output}")?;
        }
        Ok(())
    }
}

impl fmt::Display for InputCounters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:<27} received {}", self.address, self.received)?;
        if !self.malformed.is_empty() {
            write!(formatter, ", malformed {}", Malformed(&self.malformed))?;
        }
        write_nonzero(formatter, &[("connections", self.connections), ("open", self.open)])?;
        if self.refused > 0 {
            let reasons: Vec<String> =
                self.refused_for.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            write!(formatter, ", refused {} ({})", self.refused, reasons.join(", "))?;
        }
        let rest = [
            ("idle", self.idle),
            ("busy", self.busy),
            ("bad requests", self.bad_requests),
            ("errors", self.errors),
        ];
        write_nonzero(formatter, &rest)?;
        if self.kernel_dropped > 0 {
            let Self { kernel_dropped, receive_buffer_bytes, .. } = self;
            write!(
                formatter,
                ", kernel dropped {kernel_dropped} (receive buffer {receive_buffer_bytes} bytes)"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for OutputCounters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:<27} delivered {}", self.name, self.delivered)?;
        write_nonzero(
            formatter,
            &[("dropped", self.dropped), ("failed", self.failed), ("queued", self.queued)],
        )?;
        if self.lost.total() > 0 {
            write!(formatter, ", lost {}", self.lost)?;
        }
        write_nonzero(
            formatter,
            &[("inherited", self.inherited), ("spooled", self.spooled), ("truncated", self.truncated)],
        )?;
        match &self.last_error {
            Some(error) => write!(formatter, " ({error})"),
            None => Ok(()),
        }
    }
}

fn write_nonzero(formatter: &mut fmt::Formatter<'_>, counts: &[(&str, u64)]) -> fmt::Result {
    for (name, count) in counts.iter().filter(|(_, count)| *count > 0) {
        write!(formatter, ", {name} {count}")?;
    }
    Ok(())
}

struct Malformed<'a>(&'a BTreeMap<MalformedReason, u64>);

impl fmt::Display for Malformed<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0.values().sum::<u64>())?;
        let reasons: Vec<String> = self.0.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        match reasons.is_empty() {
            true => Ok(()),
            false => write!(formatter, " ({})", reasons.join(", ")),
        }
    }
}

/// The live numbers of one input.
#[derive(Debug, Default)]
pub(super) struct InputState {
    pub(super) address: String,
    pub(super) received: AtomicU64,
    pub(super) bytes: AtomicU64,
    malformed: [AtomicU64; MalformedReason::ALL.len()],
    pub(super) connections: AtomicU64,
    pub(super) open: AtomicU64,
    pub(super) refused: Refused,
    pub(super) idle: AtomicU64,
    pub(super) busy: AtomicU64,
    /// Of messages and bodies that have begun and not ended.
    pub(super) unfinished: Arc<Budget>,
    /// Of bodies that requests are worked on with, unpacked.
    #[cfg(feature = "http")]
    pub(super) bodies: Arc<Budget>,
    pub(super) kernel_drops: Option<KernelDrops>,
    pub(super) receive_buffer_bytes: usize,
    pub(super) bad_requests: AtomicU64,
    pub(super) errors: AtomicU64,
}

impl InputState {
    /// Of something that is no socket.
    pub(super) fn new(address: String) -> Self {
        InputState { address, ..InputState::default() }
    }

    /// Of a socket, with its limits.
    pub(super) fn of(address: String, input: &Input) -> Self {
        InputState {
            address,
            unfinished: Budget::of(input.unfinished_bytes()),
            #[cfg(feature = "http")]
            bodies: Budget::of(input.bodies_bytes()),
            ..InputState::default()
        }
    }

    pub(super) fn malformed(&self, reason: MalformedReason) {
        add(&self.malformed[reason as usize], 1);
    }

    pub(super) fn counters(&self) -> InputCounters {
        let refused_for = self.refused.counters();
        InputCounters {
            address: self.address.clone(),
            received: self.received.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            malformed: MalformedReason::ALL
                .into_iter()
                .map(|reason| (reason, self.malformed[reason as usize].load(Relaxed)))
                .filter(|(_, count)| *count > 0)
                .collect(),
            connections: self.connections.load(Relaxed),
            open: self.open.load(Relaxed),
            refused: refused_for.values().sum(),
            refused_for,
            idle: self.idle.load(Relaxed),
            kernel_dropped: self.kernel_drops.as_ref().map_or(0, KernelDrops::count),
            receive_buffer_bytes: self.receive_buffer_bytes as u64,
            busy: self.busy.load(Relaxed),
            bad_requests: self.bad_requests.load(Relaxed),
            errors: self.errors.load(Relaxed),
        }
    }
}

/// The live numbers of one output.
#[derive(Debug, Default)]
pub(super) struct OutputState {
    pub(super) name: String,
    /// Messages its queue has taken.
    pub(super) accepted: AtomicU64,
    pub(super) delivered: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Those of `failed` that could not be drawn, and never will be.
    pub(super) undrawn: AtomicU64,
    pub(super) account: Mutex<Account>,
    pub(super) last_error: Mutex<Option<String>>,
}

/// What an output that delivers over a network knows of its messages besides how many are settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) lost: Losses,
    pub(super) inherited: u64,
    pub(super) spooled: u64,
    pub(super) truncated: u64,
}

impl OutputState {
    /// So many messages were written, or could not be.
    pub(super) fn settle(&self, count: u64, result: std::io::Result<()>) {
        match result {
            Ok(()) => add(&self.delivered, count),
            Err(error) => {
                add(&self.failed, count);
                *lock(&self.last_error) = Some(error.to_string());
            }
        }
    }

    pub(super) fn counters(&self) -> OutputCounters {
        // What is settled is read before what was accepted, so that the difference is never negative.
        let (delivered, failed) = (self.delivered.load(Relaxed), self.failed.load(Relaxed));
        let Account { lost, inherited, spooled, truncated } = *lock(&self.account);
        OutputCounters {
            name: self.name.clone(),
            delivered,
            dropped: self.dropped.load(Relaxed),
            failed,
            lost,
            inherited,
            spooled,
            truncated,
            queued: (self.accepted.load(Relaxed) + inherited).saturating_sub(delivered + failed + spooled),
            last_error: lock(&self.last_error).clone(),
        }
    }
}

impl Account {
    /// What was `before` is now something else.
    pub(super) fn change(&mut self, before: &Account, now: &Account) {
        let moved = |own: u64, before: u64, now: u64| (own + now).saturating_sub(before);
        self.lost = self.lost.plus(&now.lost.since(&before.lost));
        self.inherited = moved(self.inherited, before.inherited, now.inherited);
        self.spooled = moved(self.spooled, before.spooled, now.spooled);
        self.truncated = moved(self.truncated, before.truncated, now.truncated);
    }
}

/// Messages by type, for as many types as are worth a name.
#[derive(Debug, Default)]
pub(super) struct TypeCounters(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl TypeCounters {
    /// The counter of a type. Whoever counts often keeps it, and does not come back for the lock.
    pub(super) fn of(&self, name: &str) -> Arc<AtomicU64> {
        let mut types = lock(&self.0);
        let named = name.len() <= MAX_TYPE_BYTES && (types.len() < MAX_TYPES || types.contains_key(name));
        let name = if named { name } else { OTHER_TYPES };
        Arc::clone(types.entry(name.to_owned()).or_default())
    }

    pub(super) fn counters(&self) -> BTreeMap<String, u64> {
        lock(&self.0).iter().map(|(name, count)| (name.clone(), count.load(Relaxed))).collect()
    }
}

/// Counts: nothing else is ordered by a counter.
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_types_never_fill_the_memory() {
        let types = TypeCounters::default();
        for number in 0..MAX_TYPES * 2 {
            add(&types.of(&format!("type{number}")), 1);
        }
        add(&types.of(&"x".repeat(MAX_TYPE_BYTES + 1)), 1);
        add(&types.of("type0"), 1);
        let counters = types.counters();
        assert_eq!(counters.len(), MAX_TYPES + 1);
        assert_eq!(counters[OTHER_TYPES], MAX_TYPES as u64 + 1);
        assert_eq!(counters["type0"], 2);
    }

    #[test]
    fn the_report_is_readable_and_escapes_what_clients_named() {
        let counters = Counters {
            received: 2,
            bytes: 300,
            malformed: [(MalformedReason::InvalidJson, 1)].into(),
            types: [("a\u{1b}[31m".to_owned(), 2)].into(),
            outputs: vec![OutputCounters { name: "console".into(), delivered: 2, ..Default::default() }],
            ..Counters::default()
        };
        let expected = "received   2 messages, 300 bytes\n\
                        types      a\\u{1b}[31m 2\n\
                        malformed  1 (invalid_json 1)\n\
                        unrouted   0\n\
                        output     console                     delivered 2";
        assert_eq!(counters.to_string(), expected);
    }

    #[test]
    fn every_reason_has_its_own_slot() {
        for (slot, reason) in MalformedReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, slot);
        }
    }
}
