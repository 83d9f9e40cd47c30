//! A message as it came: looked through once, read only as far as somebody asks. In: any bytes at all. Out: a
//! [`Received`] that borrows them, or an error that is counted. Lost here: what [`decode`] refuses, and nothing else.
//!
//! Most messages go from an input to a file and are asked for their type, severity and id. To make a [`Message`] of each
//! of them, a tree of texts and values, cost three quarters of the router's time.

mod scan;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cell::OnceCell;

use serde_json::{Map, Value};

use super::decode::{decode, text_of, DecodeError};
use super::matcher::{nanoseconds, NumberVariable, Subject, TextVariable};
use crate::delivery::encode::ids;
use crate::{Message, Payload, Severity, ENVELOPE_VERSION};
use scan::{scan, Envelope, Id, Scalar, Text};

/// A message that was received, whatever is known of it so far.
pub(crate) struct Received<'a> {
    /// What was found in its bytes. Without it they were peculiar, and `message` is there from the start.
    envelope: Option<Envelope<'a>>,
    message: OnceCell<Box<Message>>,
    fields: OnceCell<Map<String, Value>>,
    /// What it says, without escapes.
    payload: OnceCell<String>,
}

impl<'a> Received<'a> {
    /// The message that `bytes` are: the one that [`decode`] makes of them, whatever they are.
    ///
    /// # Errors
    /// The error that [`decode`] gives.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        match scan(text_of(bytes)?) {
            Some(envelope) => Ok(Received { envelope: Some(envelope), ..Received::unread() }),
            None => Ok(Received::from(decode(bytes)?)),
        }
    }

    fn unread() -> Self {
        Received {
            envelope: None,
            message: OnceCell::new(),
            fields: OnceCell::new(),
            payload: OnceCell::new(),
        }
    }

    /// The whole message. Made when it is asked for the first time.
    pub(crate) fn message(&self) -> &Message {
        self.message.get_or_init(|| Box::new(self.envelope.as_ref().map_or_else(nothing, built)))
    }

    /// What kind it is.
    pub(crate) fn r#type(&self) -> &str {
        let plain = self.envelope.as_ref().and_then(|envelope| envelope.r#type.plain());
        plain.unwrap_or_else(|| &self.message().r#type)
    }

    /// How bad it is.
    pub(crate) fn severity(&self) -> Severity {
        self.envelope.as_ref().map_or_else(|| self.message().severity, |envelope| envelope.severity)
    }

    /// The text of its field `metlog_id`.
    pub(crate) fn id(&self) -> Option<&str> {
        match self.envelope.as_ref().map(|envelope| envelope.id) {
            Some(Id::None) => None,
            Some(Id::Plain(id)) => Some(id),
            Some(Id::Unclear) | None => self.fields().get(ids::FIELD).and_then(Value::as_str),
        }
    }

    /// Everything that is not in the envelope. Read when it is asked for the first time.
    pub(crate) fn fields(&self) -> &Map<String, Value> {
        match (&self.envelope, self.message.get()) {
            (Some(envelope), None) => self.fields.get_or_init(|| fields(envelope)),
            _ => &self.message().fields,
        }
    }

    /// The message as one line of JSON, without its newline.
    ///
    /// It is written as it came if that is one line with every key of the envelope, `metlog_pid` and `metlog_hostname`
    /// excepted, each once, none of them `null` or of another type than clients send, and no other key: so it reads back
    /// as the same message. Blanks, escapes, digits of numbers and the order of keys are the sender's then, and what is in
    /// `fields` is as it was, also a key that comes twice, of which the last counts. All else is written anew.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        match &self.envelope {
            Some(envelope) if envelope.is_canonical => out.extend_from_slice(envelope.object.as_bytes()),
            // Strings, numbers and maps with string keys into memory: nothing in here can fail.
            _ => drop(serde_json::to_writer(out, self.message())),
        }
    }
}

impl Received<'_> {
    /// When it was made, as it stood on the wire.
    pub(crate) fn timestamp(&self) -> &str {
        self.text_of(|envelope| envelope.timestamp, "", |message| &message.timestamp)
    }

    /// Who made it.
    pub(crate) fn logger(&self) -> &str {
        self.text_of(|envelope| envelope.logger, "", |message| &message.logger)
    }

    /// The envelope's version.
    pub(crate) fn env_version(&self) -> &str {
        self.text_of(|envelope| envelope.env_version, ENVELOPE_VERSION, |message| &message.env_version)
    }

    /// The host that made it.
    pub(crate) fn hostname(&self) -> Option<&str> {
        match &self.envelope {
            Some(Envelope { hostname: None, .. }) => None,
            Some(Envelope { hostname: Some(text), .. }) => {
                text.plain().or_else(|| self.message().hostname.as_deref())
            }
            None => self.message().hostname.as_deref(),
        }
    }

    /// The process that made it.
    pub(crate) fn pid(&self) -> Option<i64> {
        self.envelope.as_ref().map_or_else(|| self.message().pid, |envelope| envelope.pid)
    }

    /// What it says; a number as `Payload`'s `Display` writes it.
    pub(crate) fn payload(&self) -> Cow<'_, str> {
        let read = |text: Text<'_>| self.payload.get_or_init(|| unescaped(text));
        match self.envelope.as_ref().map(|envelope| envelope.payload) {
            Some(None | Some(Scalar::Null)) => "".into(),
            Some(Some(Scalar::Text(text))) => text.plain().unwrap_or_else(|| read(text)).into(),
            Some(Some(Scalar::Number(_))) | None => match &self.message().payload {
                Payload::Text(text) => text.into(),
                Payload::Number(number) => number.to_string().into(),
            },
        }
    }

    fn text_of<'s>(
        &'s self,
        value: impl FnOnce(&Envelope<'s>) -> Option<Text<'s>>,
        missing: &'s str,
        read: impl FnOnce(&'s Message) -> &'s str,
    ) -> &'s str {
        match self.envelope.as_ref().map(value) {
            Some(None) => missing,
            Some(Some(text)) => text.plain().unwrap_or_else(|| read(self.message())),
            None => read(self.message()),
        }
    }
}

/// What matchers ask, and the same answers that a [`Message`] gives.
impl Subject for Received<'_> {
    fn text(&self, variable: TextVariable) -> Option<Cow<'_, str>> {
        let text = match variable {
            TextVariable::Uuid => return None,
            TextVariable::Type => self.r#type(),
            TextVariable::Logger => self.logger(),
            TextVariable::Payload => return Some(self.payload()),
            TextVariable::EnvVersion => self.env_version(),
            TextVariable::Hostname => self.hostname()?,
        };
        Some(text.into())
    }

    fn number(&self, variable: NumberVariable) -> Option<f64> {
        match variable {
            NumberVariable::Timestamp => nanoseconds(self.timestamp()).map(|time| time as f64),
            NumberVariable::Severity => Some(f64::from(self.severity().number())),
            NumberVariable::Pid => self.pid().map(|pid| pid as f64),
        }
    }

    fn field(&self, name: &str) -> Option<Cow<'_, Value>> {
        self.fields().get(name).map(Cow::Borrowed)
    }
}

/// A message that is there already.
impl From<Message> for Received<'_> {
    fn from(message: Message) -> Self {
        Received { message: OnceCell::from(Box::new(message)), ..Received::unread() }
    }
}

/// Never asked for: there is an envelope or a message.
#[cold]
fn nothing() -> Message {
    Message::new("", "")
}

/// What [`decode`] makes of the same bytes. What was scanned is known to be JSON: reading it cannot fail.
fn built(envelope: &Envelope<'_>) -> Message {
    let text = |text: Option<Text<'_>>| text.map(unescaped);
    Message {
        timestamp: text(envelope.timestamp).unwrap_or_default(),
        logger: text(envelope.logger).unwrap_or_default(),
        r#type: unescaped(envelope.r#type),
        severity: envelope.severity,
        payload: match envelope.payload {
            Some(Scalar::Text(text)) => Payload::Text(unescaped(text)),
            Some(Scalar::Number(number)) => {
                serde_json::from_str(number).map_or_else(|_| "".into(), Payload::Number)
            }
            Some(Scalar::Null) | None => Payload::Text(String::new()),
        },
        fields: fields(envelope),
        env_version: text(envelope.env_version).unwrap_or_else(|| ENVELOPE_VERSION.to_owned()),
        pid: envelope.pid,
        hostname: text(envelope.hostname),
    }
}

fn unescaped(text: Text<'_>) -> String {
    match text.plain() {
        Some(plain) => plain.to_owned(),
        None => serde_json::from_str(text.quoted).unwrap_or_default(),
    }
}

fn fields(envelope: &Envelope<'_>) -> Map<String, Value> {
    envelope.fields.map(|fields| serde_json::from_str(fields).unwrap_or_default()).unwrap_or_default()
}
