//! The callsite dictionary: what a callsite's id in a record means.
//!
//! In: `&'static Metadata` of `tracing`. Out: an id, which is the metadata's address, and on the background thread
//! the way back from it. A callsite is entered once, at its first use; from then on a caller finds it with one
//! load in a small table. Nothing can be lost: an id is in the dictionary before it can be in a record.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use tracing::{Level, Metadata};

use crate::queue::fork;

/// What the value of a callsite's field is for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Role {
    /// A field like any other.
    Plain,
    /// The text of the event.
    Message,
    /// `type`, `r#type`, `metlog.type`: the message's type.
    Type,
    /// `metlog.logger`.
    Logger,
    /// `metlog.severity`.
    Severity,
    /// `metlog.payload`.
    Payload,
    /// `counter.NAME` and its kin.
    Metric(Metric, Box<str>),
    /// `log.target` and its kin, written by `tracing-log` when it turns a `log` record into an event.
    LogTarget,
    LogModule,
    LogFile,
    LogLine,
}

/// The metric a field's prefix asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    /// `monotonic_counter.`: counts up only.
    MonotonicCounter,
    /// `counter.`: counts up and down.
    Counter,
    /// `gauge.`: the value as it is now.
    Gauge,
    /// `histogram.`: one observation.
    Histogram,
}

impl Metric {
    /// The message type it makes.
    pub(crate) fn message_type(self) -> &'static str {
        match self {
            Metric::MonotonicCounter | Metric::Counter => "counter",
            Metric::Gauge => "gauge",
            Metric::Histogram => "histogram",
        }
    }

    fn split(name: &str) -> Option<(Metric, &str)> {
        let (prefix, rest) = name.split_once('.')?;
        let metric = match prefix {
            "monotonic_counter" => Metric::MonotonicCounter,
            "counter" => Metric::Counter,
            "gauge" => Metric::Gauge,
            "histogram" => Metric::Histogram,
            _ => return None,
        };
        (!rest.is_empty()).then_some((metric, rest))
    }
}

/// What a callsite says of itself. Of a callsite of this process everything is borrowed from its metadata; of one that
/// a crash ring tells about, owned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Description {
    pub(crate) name: Cow<'static, str>,
    pub(crate) target: Cow<'static, str>,
    pub(crate) module: Option<Cow<'static, str>>,
    pub(crate) file: Option<Cow<'static, str>>,
    pub(crate) line: Option<u32>,
    /// 0 for ERROR to 4 for TRACE.
    pub(crate) level: u8,
    /// An event, not a span.
    pub(crate) is_event: bool,
    /// The names of its fields, by index.
    pub(crate) fields: Vec<Cow<'static, str>>,
}

impl Description {
    fn of(metadata: &'static Metadata<'static>) -> Self {
        Description {
            name: metadata.name().into(),
            target: metadata.target().into(),
            module: metadata.module_path().map(Cow::from),
            file: metadata.file().map(Cow::from),
            line: metadata.line(),
            level: level(metadata),
            is_event: metadata.is_event(),
            fields: metadata.fields().iter().map(|field| field.name().into()).collect(),
        }
    }
}

/// What is known of a callsite.
#[derive(Debug)]
pub(crate) struct Callsite {
    pub(crate) description: Description,
    /// Of an event's fields, by index. All plain for a span: nothing in a span can touch an envelope.
    pub(crate) roles: Box<[Role]>,
}

impl Callsite {
    fn new(description: Description) -> Self {
        let bridged =
            description.target == "log" && description.fields.iter().any(|name| name == "log.target");
        let role = |name: &str| match description.is_event {
            true => role_of(name, bridged),
            false => Role::Plain,
        };
        let roles = description.fields.iter().map(|name| role(name)).collect();
        Callsite { description, roles }
    }

    /// A callsite of another process. Kept for ever, like those of this one, but no two of them alike.
    #[cfg(feature = "ring")]
    pub(crate) fn of_another_process(description: Description) -> &'static Callsite {
        static KNOWN: RwLock<Option<HashMap<Description, &'static Callsite>>> = RwLock::new(None);
        let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_with(HashMap::new);
        if let Some(callsite) = known.get(&description) {
            return callsite;
        }
        let callsite: &'static Callsite = Box::leak(Box::new(Callsite::new(description.clone())));
        known.insert(description, callsite);
        callsite
    }

    /// Whether the event is only a message and fields, so that nothing but its level says what it becomes.
    pub(crate) fn is_plain(&self) -> bool {
        self.roles.iter().all(|role| matches!(role, Role::Plain | Role::Message))
    }
}

fn role_of(name: &str, bridged: bool) -> Role {
    match name {
        "message" => Role::Message,
        "type" | "r#type" | "metlog.type" => Role::Type,
        "metlog.logger" => Role::Logger,
        "metlog.severity" => Role::Severity,
        "metlog.payload" => Role::Payload,
        "log.target" if bridged => Role::LogTarget,
        "log.module_path" if bridged => Role::LogModule,
        "log.file" if bridged => Role::LogFile,
        "log.line" if bridged => Role::LogLine,
        _ => match Metric::split(name) {
            Some((metric, name)) => Role::Metric(metric, name.into()),
            None => Role::Plain,
        },
    }
}

/// Entries of [`SEEN`]; enough for the callsites a program is busy with at a time.
const SEEN_ENTRIES: usize = 4096;
/// The lowest three bits of an entry, free because metadata is aligned to eight bytes: 0 for a callsite that is not
/// plain, else the number of its level and one.
const LEVEL: usize = 7;

/// Addresses of callsites that are in the dictionary, each with its [`LEVEL`] bits. A callsite that finds another
/// in its place takes the slow way and puts itself there.
static SEEN: [AtomicUsize; SEEN_ENTRIES] = [const { AtomicUsize::new(0) }; SEEN_ENTRIES];

/// The dictionary, and the crash rings that keep a copy of it.
struct Dictionary {
    /// By id; `None` while it is empty, because a static cannot hold a map.
    callsites: Option<HashMap<u64, &'static Callsite>>,
    #[cfg(feature = "ring")]
    keepers: Vec<std::sync::Weak<dyn Keeper>>,
}

static DICTIONARY: RwLock<Dictionary> = RwLock::new(Dictionary {
    callsites: None,
    #[cfg(feature = "ring")]
    keepers: Vec::new(),
});

/// Somebody who keeps a copy of the dictionary for readers in other processes.
#[cfg(feature = "ring")]
pub(crate) trait Keeper: Send + Sync {
    /// Keeps what an id means. Called under the dictionary's lock, before the id can be in a record.
    fn keep(&self, id: u64, callsite: &Callsite);
}

/// Has `keeper` keep what is in the dictionary and all that comes into it.
#[cfg(feature = "ring")]
pub(crate) fn add_keeper(keeper: std::sync::Weak<dyn Keeper>) {
    let mut dictionary = DICTIONARY.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(keeper) = keeper.upgrade() {
        for (&id, callsite) in dictionary.callsites.iter().flatten() {
            keeper.keep(id, callsite);
        }
    }
    dictionary.keepers.retain(|keeper| keeper.strong_count() > 0);
    dictionary.keepers.push(keeper);
}

/// A callsite's id, and what a caller must know of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Id {
    pub(crate) id: u64,
    seen: usize,
}

impl Id {
    /// The number of the level and one, if the event is only a message and fields; else 0.
    #[inline]
    pub(crate) fn plain_level(self) -> usize {
        self.seen & LEVEL
    }
}

/// The number of a level: 0 for ERROR to 4 for TRACE.
pub(crate) fn level(metadata: &Metadata<'_>) -> u8 {
    match *metadata.level() {
        Level::ERROR => 0,
        Level::WARN => 1,
        Level::INFO => 2,
        Level::DEBUG => 3,
        Level::TRACE => 4,
    }
}

/// The id of a callsite, entered into the dictionary if it is new.
#[inline]
pub(crate) fn id(metadata: &'static Metadata<'static>) -> Id {
    let address = std::ptr::from_ref(metadata) as usize;
    let seen = SEEN[slot(address)].load(Ordering::Acquire);
    if seen & !LEVEL == address {
        return Id { id: address as u64, seen };
    }
    enter(metadata, address)
}

#[inline]
fn slot(address: usize) -> usize {
    // Fibonacci hashing: the high bits of the product are well mixed.
    (address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_shr(52) as usize % SEEN_ENTRIES
}

#[cold]
#[inline(never)]
fn enter(metadata: &'static Metadata<'static>, address: usize) -> Id {
    // In a forked child whose dictionary nobody will ever unlock nothing is remembered, and nothing captured.
    let Some(callsite) = look_up(address as u64).or_else(|| add(metadata, address)) else {
        return Id { id: address as u64, seen: 0 };
    };
    let level = if callsite.is_plain() { usize::from(level(metadata)) + 1 } else { 0 };
    if address & LEVEL == 0 {
        SEEN[slot(address)].store(address | level, Ordering::Release);
    }
    Id { id: address as u64, seen: level }
}

fn add(metadata: &'static Metadata<'static>, address: usize) -> Option<&'static Callsite> {
    let mut dictionary = fork::unless_dead(
        || DICTIONARY.write().unwrap_or_else(PoisonError::into_inner),
        || fork::available(DICTIONARY.try_write()),
    )?;
    if let Some(callsite) = dictionary.callsites.as_ref().and_then(|known| known.get(&(address as u64))) {
        return Some(callsite);
    }
    // Kept for ever, like the metadata itself: there are as many as the program has callsites.
    let callsite: &'static Callsite = Box::leak(Box::new(Callsite::new(Description::of(metadata))));
    #[cfg(feature = "ring")]
    for keeper in dictionary.keepers.iter().filter_map(std::sync::Weak::upgrade) {
        keeper.keep(address as u64, callsite);
    }
    dictionary.callsites.get_or_insert_with(HashMap::new).insert(address as u64, callsite);
    Some(callsite)
}

/// What an id means; `None` for what no record can hold.
pub(crate) fn look_up(id: u64) -> Option<&'static Callsite> {
    let dictionary = fork::unless_dead(
        || DICTIONARY.read().unwrap_or_else(PoisonError::into_inner),
        || fork::available(DICTIONARY.try_read()),
    )?;
    dictionary.callsites.as_ref()?.get(&id).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_ask_for_metrics_and_a_bare_prefix_does_not() {
        assert_eq!(role_of("counter.http.hits", false), Role::Metric(Metric::Counter, "http.hits".into()));
        assert_eq!(role_of("monotonic_counter.x", false), Role::Metric(Metric::MonotonicCounter, "x".into()));
        assert_eq!(role_of("counter.", false), Role::Plain);
        assert_eq!(role_of("counter", false), Role::Plain);
        assert_eq!(role_of("my.counter.x", false), Role::Plain);
    }

    #[test]
    fn log_fields_are_special_only_when_tracing_log_wrote_them() {
        assert_eq!(role_of("log.target", false), Role::Plain);
        assert_eq!(role_of("log.target", true), Role::LogTarget);
    }
}
