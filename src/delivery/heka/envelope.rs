//! A message's JSON read into Heka's message, in one pass and with the fields in their order.
//!
//! In: one JSON object with the envelope's keys. Out: everything but the `uuid`. A key that is missing is missing there
//! too; one that the envelope does not have is left out.

use std::fmt;

use serde_core::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::wire::{Field, Message};
use super::{deep, fields, time};

/// Reads a message of this crate. What is not one is an error.
pub(super) fn read(json: &[u8]) -> serde_json::Result<Message> {
    parse(json).or_else(|error| read_deep(json).unwrap_or(Err(error)))
}

/// A message in which something is nested too deep. It is not too large: that is kept, as the text of its JSON.
#[cold]
fn read_deep(json: &[u8]) -> Option<serde_json::Result<Message>> {
    let shallow = deep::shallow(json)?;
    Some(parse(&shallow.json).map(|mut message| {
        let is_json =
            |field: &&mut Field| shallow.texts.iter().any(|text| field.value_string == [text.as_str()]);
        for field in message.fields.iter_mut().filter(is_json) {
            field.representation = Some(String::from(fields::JSON));
        }
        message
    }))
}

fn parse(json: &[u8]) -> serde_json::Result<Message> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let message = reader.deserialize_map(EnvelopeVisitor)?;
    reader.end()?;
    Ok(message)
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Message;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a Metlog message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Message, A::Error> {
        let mut message = Message::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "fields" => map.next_value_seed(FieldsSeed(&mut message.fields))?,
                "timestamp" => {
                    let timestamp = map.next_value::<Value>()?;
                    message.timestamp = timestamp.as_str().and_then(time::nanoseconds).unwrap_or_default();
                }
                "severity" => message.severity = whole(&map.next_value()?),
                "metlog_pid" => message.pid = whole(&map.next_value()?),
                "type" => message.r#type = text(map.next_value()?),
                "logger" => message.logger = text(map.next_value()?),
                "payload" => message.payload = text(map.next_value()?),
                "env_version" => message.env_version = text(map.next_value()?),
                "metlog_hostname" => message.hostname = text(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(message)
    }
}

fn whole(value: &Value) -> Option<i32> {
    value.as_i64().and_then(|number| i32::try_from(number).ok())
}

/// A number, as metlog-psutils' payloads are, is its digits.
fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

struct FieldsSeed<'m>(&'m mut Vec<Field>);

impl<'de> DeserializeSeed<'de> for FieldsSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldsSeed<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            fields::add(name, value, self.0);
        }
        Ok(())
    }
}
