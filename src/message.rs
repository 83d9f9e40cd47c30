//! The Metlog envelope, version 0.8: [`Message`], [`Severity`], [`Payload`].
//!
//! This is the *read* side and the router's side of a message: what a capture hands to a test, what the
//! router decodes and routes. The generator's hot path never builds a `Message`; it goes from a captured
//! record straight to bytes (see `delivery::encode`).

use std::fmt;

use serde_core::de::{Deserialize, Deserializer, Error as _};
use serde_core::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Number, Value};

/// The version every message carries in `env_version`. A string, not a number.
pub const ENVELOPE_VERSION: &str = "0.8";

/// How bad it is: the eight severities of RFC 5424, as Metlog uses them.
///
/// Lower is worse, and the order of the enum follows the number: `Severity::Error < Severity::Debug`.
///
/// ```
/// use tracing_metlog::Severity;
/// assert_eq!(Severity::Warning.number(), 4);
/// assert_eq!(Severity::from_number(3), Some(Severity::Error));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Severity {
    /// 0: the system is unusable.
    Emergency = 0,
    /// 1: action must be taken at once. Metlog gives it to exceptions, this crate to panics.
    Alert = 1,
    /// 2: critical conditions.
    Critical = 2,
    /// 3: errors. `tracing` and `log` level `error`.
    Error = 3,
    /// 4: warnings. `tracing` and `log` level `warn`.
    Warning = 4,
    /// 5: normal but significant.
    Notice = 5,
    /// 6: informational, the default of every message. `tracing` and `log` level `info`.
    Informational = 6,
    /// 7: debugging. `tracing` and `log` levels `debug` and `trace`.
    Debug = 7,
}

impl Severity {
    /// All eight, worst first.
    pub const ALL: [Severity; 8] = [
        Severity::Emergency,
        Severity::Alert,
        Severity::Critical,
        Severity::Error,
        Severity::Warning,
        Severity::Notice,
        Severity::Informational,
        Severity::Debug,
    ];

    /// The number on the wire, 0 to 7.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The severity of a number on the wire; `None` above 7.
    pub const fn from_number(number: u8) -> Option<Severity> {
        if number < 8 {
            Some(Severity::ALL[number as usize])
        } else {
            None
        }
    }

    /// The lower-case name: `emergency`, `alert`, `critical`, `error`, `warning`, `notice`,
    /// `informational`, `debug`.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Emergency => "emergency",
            Severity::Alert => "alert",
            Severity::Critical => "critical",
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Notice => "notice",
            Severity::Informational => "informational",
            Severity::Debug => "debug",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl Serialize for Severity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.number())
    }
}

impl<'de> Deserialize<'de> for Severity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(deserializer)?;
        Severity::from_number(number).ok_or_else(|| {
            D::Error::custom(format_args!("severity {number}: a number from 0 to 7 is accepted"))
        })
    }
}

/// What a message says: text for every type but metlog-psutils' `procinfo`, whose payload is a number.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Text, possibly empty.
    Text(String),
    /// A bare JSON number.
    Number(Number),
}

impl Payload {
    /// The text, or `None` for a number.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Payload::Text(text) => Some(text),
            Payload::Number(_) => None,
        }
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Text(text) => formatter.pad(text),
            Payload::Number(number) => write!(formatter, "{number}"),
        }
    }
}

impl PartialEq<str> for Payload {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == Some(other)
    }
}

impl PartialEq<&str> for Payload {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == Some(*other)
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Payload::Text(text.to_owned())
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Payload::Text(text)
    }
}

/// One Metlog message, envelope 0.8.
///
/// Serializes to exactly the nine keys of the envelope. Deserializes from them and from the early
/// seven-key form (no `metlog_pid`, no `metlog_hostname`); unknown keys are refused with their name.
///
/// ```
/// use tracing_metlog::{Message, Severity};
///
/// let line = r#"{"timestamp": "2012-10-24T22:20:43.000000Z", "logger": "app", "type": "counter",
///     "severity": 6, "payload": "1", "fields": {"name": "hits", "rate": 1.0}, "env_version": "0.8"}"#;
/// let message: Message = line.parse()?;
/// assert_eq!(message.r#type, "counter");
/// assert_eq!(message.payload, "1");
/// assert_eq!(message.severity, Severity::Informational);
/// assert_eq!(message.fields["name"], "hits");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// When it was made: UTC, RFC 3339, as it stood on the wire (`2012-10-24T22:20:43.000000Z`).
    pub timestamp: String,
    /// Who made it; the application's name. May be empty.
    pub logger: String,
    /// What kind it is, the key a router decides by: `oldstyle`, `timer`, `counter`, ...
    pub r#type: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it says.
    pub payload: Payload,
    /// Everything else, typed.
    pub fields: Map<String, Value>,
    /// The envelope's version, [`ENVELOPE_VERSION`] from every client ever made.
    pub env_version: String,
    /// The process that made it; `None` in seven-key messages.
    pub pid: Option<i64>,
    /// The host that made it; `None` in seven-key messages.
    pub hostname: Option<String>,
}

impl Message {
    /// A message with the given type and payload, informational, everything else empty.
    pub fn new(message_type: impl Into<String>, payload: impl Into<Payload>) -> Self {
        Message {
            timestamp: String::from("1970-01-01T00:00:00.000000Z"),
            logger: String::new(),
            r#type: message_type.into(),
            severity: Severity::Informational,
            payload: payload.into(),
            fields: Map::new(),
            env_version: ENVELOPE_VERSION.to_owned(),
            pid: None,
            hostname: None,
        }
    }

    /// The message as one line of JSON, without a newline.
    pub fn to_json(&self) -> String {
        // Strings, numbers and maps with string keys: nothing in here can fail to serialize.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl std::str::FromStr for Message {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", &self.timestamp)?;
        map.serialize_entry("type", &self.r#type)?;
        map.serialize_entry("logger", &self.logger)?;
        map.serialize_entry("severity", &self.severity)?;
        match &self.payload {
            Payload::Text(text) => map.serialize_entry("payload", text)?,
            Payload::Number(number) => map.serialize_entry("payload", number)?,
        }
        map.serialize_entry("fields", &self.fields)?;
        map.serialize_entry("env_version", &self.env_version)?;
        if let Some(pid) = self.pid {
            map.serialize_entry("metlog_pid", &pid)?;
        }
        if let Some(hostname) = &self.hostname {
            map.serialize_entry("metlog_hostname", hostname)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Message::from_map(Map::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Message {
    /// Takes the envelope apart; the error names the key and what is accepted there.
    fn from_map(mut map: Map<String, Value>) -> Result<Self, String> {
        let message = Message {
            timestamp: text(&mut map, "timestamp")?,
            logger: text(&mut map, "logger")?,
            r#type: text(&mut map, "type")?,
            severity: severity(&mut map)?,
            payload: match take(&mut map, "payload")? {
                Value::String(text) => Payload::Text(text),
                Value::Number(number) => Payload::Number(number),
                other => return Err(format!("payload: a string or a number is accepted, not {other}")),
            },
            fields: match take(&mut map, "fields")? {
                Value::Object(fields) => fields,
                other => return Err(format!("fields: an object is accepted, not {other}")),
            },
            env_version: text(&mut map, "env_version")?,
            pid: match map.remove("metlog_pid") {
                None | Some(Value::Null) => None,
                Some(value) => Some(
                    value
                        .as_i64()
                        .ok_or_else(|| format!("metlog_pid: an integer is accepted, not {value}"))?,
                ),
            },
            hostname: match map.remove("metlog_hostname") {
                None | Some(Value::Null) => None,
                Some(Value::String(text)) => Some(text),
                Some(other) => return Err(format!("metlog_hostname: a string is accepted, not {other}")),
            },
        };
        match map.keys().next() {
            None => Ok(message),
            Some(key) => {
                Err(format!("unknown key {key:?}: the envelope has nine keys, data goes into fields"))
            }
        }
    }
}

fn take(map: &mut Map<String, Value>, key: &str) -> Result<Value, String> {
    map.remove(key).ok_or_else(|| format!("{key}: missing"))
}

fn text(map: &mut Map<String, Value>, key: &str) -> Result<String, String> {
    match take(map, key)? {
        Value::String(text) => Ok(text),
        other => Err(format!("{key}: a string is accepted, not {other}")),
    }
}

fn severity(map: &mut Map<String, Value>) -> Result<Severity, String> {
    let value = take(map, "severity")?;
    value
        .as_u64()
        .and_then(|number| u8::try_from(number).ok())
        .and_then(Severity::from_number)
        .ok_or_else(|| format!("severity: a number from 0 to 7 is accepted, not {value}"))
}
