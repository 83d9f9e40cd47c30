//! From bytes to a [`Message`]. In: any bytes at all. Out: a message, or an error that is counted.
//!
//! Lost here: what is not a JSON object with a `type`. Everything else that any Metlog client has sent since 2011
//! is taken:
//!
//! | it may | because |
//! |---|---|
//! | lack `metlog_pid` and `metlog_hostname` | clients before metlog-py 0.9 |
//! | have a timestamp without `Z` or fraction, or a number | metlog-py before 0.10; kept as it stood |
//! | have a number as payload, text as rate | metlog-psutils |
//! | end in a newline, hold newlines between its keys | metlog-node; `indent=4` |
//! | start with `\0json::` | clients of routers with several decoders |
//! | lack anything but `type`, or have `null` there | written by hand; takes the value a client has by default |
//! | have other keys (`uuid` from Heka, `tags` from 2011) | moved into `fields`, unless a field has that name |

use std::fmt;
use std::str::Utf8Error;

use serde_core::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::{Message, Payload, Severity, ENVELOPE_VERSION};

/// What stands before the name of a decoder (`\0json::{...}`).
const PREFIX: u8 = 0;

/// Why bytes are not a message.
#[derive(Debug)]
#[non_exhaustive]
pub enum DecodeError {
    /// Nothing but white space.
    Empty,
    /// Not UTF-8.
    InvalidUtf8(Utf8Error),
    /// Not JSON, or nested deeper than 128 levels.
    InvalidJson(serde_json::Error),
    /// JSON, but not an object.
    NotAnObject,
    /// An object without a `type`: nothing to route by.
    MissingType,
    /// A key of the envelope has a value that it cannot have.
    InvalidValue {
        /// The key.
        key: &'static str,
        /// What is accepted there.
        accepted: &'static str,
    },
    /// A `\0NAME::` prefix with a name other than `json`.
    UnknownDecoder,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Empty => formatter.write_str("empty"),
            DecodeError::InvalidUtf8(error) => write!(formatter, "not UTF-8: {error}"),
            DecodeError::InvalidJson(error) => write!(formatter, "not JSON: {error}"),
            DecodeError::NotAnObject => formatter.write_str("not a JSON object"),
            DecodeError::MissingType => formatter.write_str("type: missing"),
            DecodeError::InvalidValue { key, accepted } => write!(formatter, "{key}: {accepted} is accepted"),
            DecodeError::UnknownDecoder => formatter.write_str("a decoder other than json is asked for"),
        }
    }
}

impl std::error::Error for DecodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            DecodeError::InvalidUtf8(error) => Some(error),
            DecodeError::InvalidJson(error) => Some(error),
            _ => None,
        }
    }
}

/// The message that `bytes` are. Never panics, and never recurses deeper than 128 levels.
///
/// ```
/// use tracing_metlog::router::decode;
///
/// let message = decode(br#"{"type": "counter", "payload": "1", "fields": {"name": "hits"}}"#)?;
/// assert_eq!(message.r#type, "counter");
/// assert!(decode(b"{\"type\"").is_err());
/// # Ok::<(), tracing_metlog::router::DecodeError>(())
/// ```
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
    let text = text_of(bytes)?;
    match text.trim_ascii_start().as_bytes().first() {
        None => Err(DecodeError::Empty),
        Some(b'{') => parse(text)?.into_message(),
        // What is not JSON either is more useful to name than what it is not.
        Some(_) => Err(serde_json::from_str::<IgnoredAny>(text)
            .map_or_else(DecodeError::InvalidJson, |_| DecodeError::NotAnObject)),
    }
}

/// The text without the prefix that names a decoder.
pub(super) fn text_of(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(without_prefix(bytes)?).map_err(DecodeError::InvalidUtf8)
}

fn without_prefix(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    match bytes.split_first() {
        Some((&PREFIX, rest)) => rest.strip_prefix(b"json::").ok_or(DecodeError::UnknownDecoder),
        _ => Ok(bytes),
    }
}

fn parse(text: &str) -> Result<Envelope, DecodeError> {
    serde_json::from_str(text).or_else(|error| match repair(text) {
        Some(repaired) => serde_json::from_str(&repaired).map_err(DecodeError::InvalidJson),
        None => Err(DecodeError::InvalidJson(error)),
    })
}

/// Makes JSON of what Python's `json.dumps` writes and JSON does not know: `NaN`, `Infinity` and `-Infinity`
/// become `null`, and half of a surrogate pair becomes U+FFFD. `None` when there is nothing of the kind.
#[cold]
fn repair(text: &str) -> Option<String> {
    let mut repaired = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some(next) = rest.chars().next() {
        let (replacement, taken) = if in_string { in_text(rest) } else { outside_text(rest) };
        in_string ^= next == '"';
        match replacement {
            Some(replacement) => repaired.push_str(replacement),
            None => repaired.push_str(&rest[..taken]),
        }
        rest = &rest[taken..];
    }
    (repaired != text).then_some(repaired)
}

/// What to write for the start of `rest`, inside a string, and how long that start is; `None` is "as it stands".
fn in_text(rest: &str) -> (Option<&'static str>, usize) {
    match (surrogate(rest), rest.get(6..).and_then(surrogate)) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (None, 12),
        (Some(_), _) => (Some("\\ufffd"), 6),
        (None, _) if rest.starts_with('\\') => (None, 1 + rest[1..].chars().next().map_or(0, char::len_utf8)),
        (None, _) => (None, rest.chars().next().map_or(0, char::len_utf8)),
    }
}

fn outside_text(rest: &str) -> (Option<&'static str>, usize) {
    for word in ["NaN", "Infinity", "-Infinity"] {
        if rest.starts_with(word) {
            return (Some("null"), word.len());
        }
    }
    (None, rest.chars().next().map_or(0, char::len_utf8))
}

/// The number of the `\uXXXX` that `text` starts with, when it is half of a surrogate pair.
fn surrogate(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let number = u16::from_str_radix(digits, 16).ok()?;
    (0xd800..=0xdfff).contains(&number).then_some(number)
}

/// A JSON object whose known keys are sorted out and not looked at yet. Of a key that comes twice the last counts.
#[derive(Default)]
struct Envelope {
    timestamp: Value,
    logger: Value,
    r#type: Value,
    severity: Value,
    payload: Value,
    fields: Value,
    env_version: Value,
    pid: Value,
    hostname: Value,
    unknown: Vec<(String, Value)>,
}

impl Envelope {
    fn into_message(self) -> Result<Message, DecodeError> {
        let mut message = Message {
            r#type: message_type(self.r#type)?,
            timestamp: text("timestamp", self.timestamp)?.unwrap_or_default(),
            logger: text("logger", self.logger)?.unwrap_or_default(),
            severity: severity(&self.severity)?,
            payload: payload(self.payload)?,
            fields: fields(self.fields)?,
            env_version: text("env_version", self.env_version)?
                .unwrap_or_else(|| ENVELOPE_VERSION.to_owned()),
            pid: pid(&self.pid)?,
            hostname: text("metlog_hostname", self.hostname)?,
        };
        for (key, value) in self.unknown {
            message.fields.entry(key).or_insert(value);
        }
        Ok(message)
    }
}

fn message_type(value: Value) -> Result<String, DecodeError> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null => Err(DecodeError::MissingType),
        _ => Err(DecodeError::InvalidValue { key: "type", accepted: "a string" }),
    }
}

fn text(key: &'static str, value: Value) -> Result<Option<String>, DecodeError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) => Ok(Some(number.to_string())),
        _ => Err(DecodeError::InvalidValue { key, accepted: "a string" }),
    }
}

fn severity(value: &Value) -> Result<Severity, DecodeError> {
    if value.is_null() {
        return Ok(Severity::Informational);
    }
    integer(value)
        .and_then(|number| u8::try_from(number).ok())
        .and_then(Severity::from_number)
        .ok_or(DecodeError::InvalidValue { key: "severity", accepted: "a number from 0 to 7" })
}

fn payload(value: Value) -> Result<Payload, DecodeError> {
    match value {
        Value::Null => Ok(Payload::Text(String::new())),
        Value::String(text) => Ok(Payload::Text(text)),
        Value::Number(number) => Ok(Payload::Number(number)),
        _ => Err(DecodeError::InvalidValue { key: "payload", accepted: "a string or a number" }),
    }
}

fn fields(value: Value) -> Result<Map<String, Value>, DecodeError> {
    match value {
        Value::Null => Ok(Map::new()),
        Value::Object(fields) => Ok(fields),
        _ => Err(DecodeError::InvalidValue { key: "fields", accepted: "an object" }),
    }
}

fn pid(value: &Value) -> Result<Option<i64>, DecodeError> {
    match integer(value) {
        None if !value.is_null() => {
            Err(DecodeError::InvalidValue { key: "metlog_pid", accepted: "an integer" })
        }
        pid => Ok(pid),
    }
}

/// An integer, also one written with a fraction of zero: Lua and JavaScript know no other numbers.
fn integer(value: &Value) -> Option<i64> {
    // Casts of floats saturate, and comparing back catches whatever was no integer of that range.
    let whole = |number: f64| Some(number as i64).filter(|&integer| integer as f64 == number);
    value.as_i64().or_else(|| value.as_f64().and_then(whole))
}

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EnvelopeVisitor)
    }
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope, A::Error> {
        let mut envelope = Envelope::default();
        while let Some(key) = map.next_key::<Key>()? {
            let value = map.next_value()?;
            match key {
                Key::Timestamp => envelope.timestamp = value,
                Key::Logger => envelope.logger = value,
                Key::Type => envelope.r#type = value,
                Key::Severity => envelope.severity = value,
                Key::Payload => envelope.payload = value,
                Key::Fields => envelope.fields = value,
                Key::EnvVersion => envelope.env_version = value,
                Key::Pid => envelope.pid = value,
                Key::Hostname => envelope.hostname = value,
                Key::Unknown(key) => envelope.unknown.push((key, value)),
            }
        }
        Ok(envelope)
    }
}

/// A key of the envelope, known without an allocation.
enum Key {
    Timestamp,
    Logger,
    Type,
    Severity,
    Payload,
    Fields,
    EnvVersion,
    Pid,
    Hostname,
    Unknown(String),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(match key {
            "timestamp" => Key::Timestamp,
            "logger" => Key::Logger,
            "type" => Key::Type,
            "severity" => Key::Severity,
            "payload" => Key::Payload,
            "fields" => Key::Fields,
            "env_version" => Key::EnvVersion,
            "metlog_pid" => Key::Pid,
            "metlog_hostname" => Key::Hostname,
            unknown => Key::Unknown(unknown.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn accepted(bytes: impl AsRef<[u8]>) -> Message {
        decode(bytes.as_ref()).expect("accepted")
    }

    fn refused(bytes: impl AsRef<[u8]>) -> String {
        decode(bytes.as_ref()).expect_err("refused").to_string()
    }

    #[test]
    fn a_message_of_2012_with_seven_keys_is_taken_as_it_stands() {
        let message = accepted(
            r#"{"timestamp": "2012-10-24T22:20:43", "logger": "app", "type": "counter", "severity": 6,
                "payload": "1", "fields": {"name": "hits", "rate": "1"}, "env_version": "0.8"}"#,
        );
        assert_eq!(message.timestamp, "2012-10-24T22:20:43");
        assert_eq!(message.fields["rate"], "1");
        assert_eq!((message.pid, message.hostname), (None, None));
    }

    #[test]
    fn a_type_is_all_that_a_message_needs() {
        let message = accepted(r#"{"type": "x", "logger": null}"#);
        assert_eq!(message.severity, Severity::Informational);
        assert_eq!(message.env_version, ENVELOPE_VERSION);
        assert_eq!(message.payload, "");
    }

    #[test]
    fn prefix_trailing_newline_and_escapes_are_understood() {
        assert_eq!(accepted(b"\0json::{\"type\": \"x\"}\n").r#type, "x");
        assert_eq!(accepted(r#"{"type": "\u00e9\ud83d\ude00é😀"}"#).r#type, "é😀é😀");
        assert_eq!(refused(b"\0msgpack::\x80"), "a decoder other than json is asked for");
    }

    #[test]
    fn numbers_are_taken_where_old_clients_sent_them() {
        let message = accepted(
            r#"{"type": "procinfo", "payload": 1.5, "timestamp": 0, "severity": 4.0, "metlog_pid": 7.0}"#,
        );
        assert_eq!(message.payload, Payload::Number(serde_json::Number::from_f64(1.5).expect("finite")));
        assert_eq!((message.timestamp.as_str(), message.severity), ("0", Severity::Warning));
        assert_eq!(message.pid, Some(7));
    }

    #[test]
    fn unknown_keys_move_into_fields_but_never_over_a_field() {
        let message = accepted(r#"{"uuid": "u", "tags": [1], "type": "x", "fields": {"uuid": "mine"}}"#);
        assert_eq!(Value::Object(message.fields), json!({"uuid": "mine", "tags": [1]}));
    }

    #[test]
    fn what_python_writes_and_json_does_not_know_is_understood() {
        let message = accepted(
            r#"{"type": "x\ud83d", "fields": {"a": NaN, "b": -Infinity, "c": "\"NaN\ud83d\ude00"}}"#,
        );
        assert_eq!(message.r#type, "x\u{fffd}");
        assert_eq!(Value::Object(message.fields), json!({"a": null, "b": null, "c": "\"NaN😀"}));
    }

    #[test]
    fn errors_name_the_key_and_what_is_accepted() {
        assert_eq!(refused(r#"{"type": "x", "severity": 8}"#), "severity: a number from 0 to 7 is accepted");
        assert_eq!(refused(r#"{"type": "x", "fields": []}"#), "fields: an object is accepted");
        assert_eq!(refused(r#"{"type": 1}"#), "type: a string is accepted");
        assert_eq!(refused("{}"), "type: missing");
        assert_eq!(refused("[1]"), "not a JSON object");
        assert_eq!(refused(" \n"), "empty");
        assert!(refused(b"{\"type\": \"\xff\"}").starts_with("not UTF-8: "));
        assert!(refused(r#"{"type": "x"} {"#).starts_with("not JSON: "));
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
        for open in ["[", "{\"a\":"] {
            let deep = format!("{{\"type\": \"x\", \"fields\": {}", open.repeat(200_000));
            assert!(refused(deep).starts_with("not JSON: recursion limit exceeded"));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn any_text_close_to_json_is_a_message_or_an_error(
            text in r#"\{"(type|severity|payload|fields)": ?("x\\u[d8-f]{4}|\{\}|NaN|-?[0-9]{1,30}(\.0)?|"é)"?[,}]?.{0,9}"#,
        ) {
            let _ = decode(text.as_bytes());
        }
    }
}
