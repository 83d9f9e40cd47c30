//! From a message to a Sentry event. In: a message and what its process said before. Out: the event as one line of JSON.
//!
//! What was an error becomes an exception with its causes (`error` and `error.chain`, or any field with a `.chain`), a
//! panic an exception that nobody handled, a Python traceback an exception with its stack; what is left of the fields
//! goes into `extra`. A DSN never does. Source of the format: "Event Payloads", develop.sentry.dev, protocol version 7.
//!
//! Nothing is lost here but what makes an event too long for Sentry: then `extra` and the breadcrumbs are left out, and
//! the tag `metlog.cut` says so.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sentry_types::protocol::v7::{Breadcrumb, Event, Exception, Level, Mechanism, Stacktrace, Thread};
use sentry_types::Uuid;
use serde_json::{Map, Value};

use super::stack;
use crate::delivery::encode::ids;
use crate::router::matcher::nanoseconds;
use crate::{Message, Severity};

/// Sentry refuses events over 1 MB.
const MOST_BYTES: usize = 900_000;
const MOST_TEXT_CHARACTERS: usize = 8_192;
/// What Sentry keeps of a tag's value.
const MOST_TAG_CHARACTERS: usize = 200;
const MOST_CAUSES: usize = 50;
/// Fields that are said elsewhere in the event, or must not be said at all.
const TAKEN: [&str; 9] =
    ["dsn", "backtrace", "thread", "span", "spans", "target", "release", "environment", "metlog_id"];

/// What is the same in every event.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    pub(super) environment: Option<String>,
    pub(super) release: Option<String>,
}

/// The event that `message` is.
pub(super) fn of(message: &Message, crumbs: Vec<Breadcrumb>, surroundings: &Surroundings) -> Vec<u8> {
    let mut event = Event {
        event_id: id(message),
        level: if message.r#type == "panic" { Level::Fatal } else { level(message.severity) },
        logger: some(&message.logger).map(|logger| tag(&logger)),
        timestamp: time(message),
        server_name: message.hostname.as_deref().and_then(some).map(|name| tag(&name).into()),
        release: release(message, surroundings).map(Into::into),
        environment: environment(message, surroundings).map(Into::into),
        tags: tags(message),
        extra: extra(message),
        message: Some(cut(&message.payload.to_string())),
        ..Event::default()
    };
    event.breadcrumbs.values = crumbs;
    add_exception(message, &mut event);
    let line = serde_json::to_vec(&event).unwrap_or_default();
    if line.len() <= MOST_BYTES {
        return line;
    }
    event.extra.clear();
    event.breadcrumbs.values.clear();
    event.tags.insert(String::from("metlog.cut"), String::from("yes"));
    serde_json::to_vec(&event).unwrap_or_default()
}

/// What metlog-raven sent, with what it left out.
pub(super) fn of_raven(
    mut event: Map<String, Value>,
    message: &Message,
    crumbs: Vec<Breadcrumb>,
    surroundings: &Surroundings,
) -> Vec<u8> {
    let is_id = |id: &Value| id.as_str().is_some_and(|id| id.parse::<Uuid>().is_ok());
    if !event.get("event_id").is_some_and(is_id) {
        event.insert(String::from("event_id"), id(message).simple().to_string().into());
    }
    let mut default = |key: &str, value: Option<Value>| {
        if let Some(value) = value.filter(|_| event.get(key).is_none_or(Value::is_null)) {
            event.insert(key.to_owned(), value);
        }
    };
    default("server_name", message.hostname.as_deref().and_then(some).map(|name| tag(&name).into()));
    default("logger", some(&message.logger).map(|logger| tag(&logger).into()));
    default("level", serde_json::to_value(level(message.severity)).ok());
    default("release", release(message, surroundings).map(Value::from));
    default("environment", environment(message, surroundings).map(Value::from));
    let crumbs = serde_json::json!({ "values": crumbs });
    default("breadcrumbs", Some(crumbs).filter(|crumbs| crumbs["values"] != Value::Array(Vec::new())));
    // Maps with string keys into memory: nothing in here can fail.
    serde_json::to_vec(&event).unwrap_or_default()
}

/// The same for a message that comes again, and another one for every other message.
pub(super) fn id(message: &Message) -> Uuid {
    let own = message.fields.get(ids::FIELD).and_then(Value::as_str).filter(|id| ids::parse(id).is_some());
    let hash = match own {
        Some(id) => hash(id.as_bytes()),
        None => hash(message.to_json().as_bytes()),
    };
    // RFC 9562: version 8, somebody's own.
    let mut bytes = hash.to_be_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Uuid::from_bytes(bytes)
}

/// FNV-1a of 128 bits: the same in every version of this program, which the standard library's is not.
fn hash(bytes: &[u8]) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

pub(super) fn level(severity: Severity) -> Level {
    match severity {
        Severity::Emergency | Severity::Alert | Severity::Critical => Level::Fatal,
        Severity::Error => Level::Error,
        Severity::Warning => Level::Warning,
        Severity::Notice | Severity::Informational => Level::Info,
        Severity::Debug => Level::Debug,
    }
}

/// The message's own time; the router's when that is none.
pub(super) fn time(message: &Message) -> SystemTime {
    let since = nanoseconds(&message.timestamp).and_then(|nanoseconds| u64::try_from(nanoseconds).ok());
    since.map_or_else(SystemTime::now, |since| UNIX_EPOCH + Duration::from_nanos(since))
}

fn release(message: &Message, surroundings: &Surroundings) -> Option<String> {
    let own = || text(message, "release").filter(|release| is_release(release)).map(str::to_owned);
    surroundings.release.clone().or_else(own)
}

fn environment(message: &Message, surroundings: &Surroundings) -> Option<String> {
    let own = || text(message, "environment").filter(|name| is_environment(name)).map(str::to_owned);
    surroundings.environment.clone().or_else(own)
}

/// What Sentry takes for a release.
pub(super) fn is_release(release: &str) -> bool {
    let is_bad = |c: char| c.is_control() || c.is_whitespace() || "/\\".contains(c);
    let is_reserved = [".", ".."].contains(&release) || release.eq_ignore_ascii_case("latest");
    !release.is_empty() && release.chars().count() <= 200 && !release.contains(is_bad) && !is_reserved
}

/// What Sentry takes for an environment.
pub(super) fn is_environment(name: &str) -> bool {
    let is_bad = |c: char| c.is_control() || c.is_whitespace() || c == '/';
    !name.is_empty()
        && name.chars().count() <= 64
        && !name.contains(is_bad)
        && !name.eq_ignore_ascii_case("none")
}

fn tags(message: &Message) -> sentry_types::protocol::v7::Map<String, String> {
    let pid = message.pid.map(|pid| pid.to_string());
    let severity = message.severity.name();
    let values = [
        ("metlog.type", Some(message.r#type.as_str())),
        ("metlog.severity", Some(severity)),
        ("pid", pid.as_deref()),
        ("thread", text(message, "thread")),
        ("span", text(message, "spans").or_else(|| text(message, "span"))),
        ("target", text(message, "target")),
    ];
    let given = |(name, value): (&str, Option<&str>)| Some((String::from(name), tag(&some(value?)?)));
    values.into_iter().filter_map(given).collect()
}

/// The value of a tag has one line, and ends somewhere.
fn tag(value: &str) -> String {
    let clean = value.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(MOST_TAG_CHARACTERS).collect()
}

fn extra(message: &Message) -> sentry_types::protocol::v7::Map<String, Value> {
    let fields = message.fields.iter().filter(|(name, _)| !TAKEN.contains(&name.as_str()));
    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn add_exception(message: &Message, event: &mut Event<'static>) {
    let payload = message.payload.to_string();
    let trace = stack::of(text(message, "backtrace").map(stack::of_rust).unwrap_or_default());
    if message.r#type == "panic" {
        let mut panic = exception("panic", &payload, trace.or_else(|| stack::of(place(message))));
        let mechanism = Mechanism { ty: String::from("panic"), handled: Some(false), ..Mechanism::default() };
        panic.mechanism = Some(mechanism);
        event.exception.values.push(panic);
    } else if let Some((error, causes)) = error(message) {
        // The first cause first.
        event.exception.values.extend(causes.iter().rev().map(|cause| exception("Error", cause, None)));
        event.exception.values.push(exception("Error", &error, trace));
    } else if let Some(traceback) = stack::of_python(&payload) {
        let trace = stack::of(traceback.frames);
        event.exception.values.push(exception(&traceback.class, &traceback.value, trace));
        event.message = some(&traceback.before).or_else(|| event.message.take());
    } else if let Some(trace) = trace {
        let thread = Thread { current: true, stacktrace: Some(trace), ..Thread::default() };
        event.threads.values.push(thread);
    }
}

fn exception(class: &str, value: &str, stacktrace: Option<Stacktrace>) -> Exception {
    Exception { ty: tag(class), value: Some(cut(value)), stacktrace, ..Exception::default() }
}

fn place(message: &Message) -> Vec<sentry_types::protocol::v7::Frame> {
    let line = message.fields.get("line").and_then(Value::as_u64);
    text(message, "file").map(|file| stack::place(file, line)).into_iter().collect()
}

/// The text of the error that the message is about, and of what is behind it, from the outermost on: the field `error`,
/// or another one whose chain says that it is an error.
fn error(message: &Message) -> Option<(String, Vec<String>)> {
    let chained = || message.fields.keys().find_map(|name| name.strip_suffix(".chain"));
    let name = if message.fields.contains_key("error") { "error" } else { chained()? };
    let error = text(message, name)?.to_owned();
    let chain = message.fields.get(&format!("{name}.chain")).and_then(Value::as_array);
    let causes = chain.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    Some((error, causes.take(MOST_CAUSES).collect()))
}

fn text<'m>(message: &'m Message, name: &str) -> Option<&'m str> {
    message.fields.get(name).and_then(Value::as_str)
}

fn some(text: &str) -> Option<String> {
    (!text.trim().is_empty()).then(|| text.to_owned())
}

fn cut(text: &str) -> String {
    text.chars().take(MOST_TEXT_CHARACTERS).collect()
}
