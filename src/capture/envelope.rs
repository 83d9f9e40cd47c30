//! What an event's own fields say about its envelope: `type`, `metlog.type`, `metlog.logger`, `metlog.severity`,
//! `metlog.payload`.
//!
//! In: a record and its callsite. Out: the parts of the envelope it sets. Nothing else an event carries can touch
//! the envelope; a value that cannot be used there (a severity of 9) stays an ordinary field.

use std::borrow::Cow;

use super::callsite::{Callsite, Role};
use super::record::{Name, Record, Value};
use crate::message::Severity;

/// The parts of the envelope an event sets itself. The last of two values counts.
#[derive(Debug, Default)]
pub(crate) struct Overrides<'a> {
    pub(crate) message_type: Option<Cow<'a, str>>,
    pub(crate) logger: Option<Cow<'a, str>>,
    pub(crate) severity: Option<u8>,
    pub(crate) payload: Option<Value<'a>>,
}

impl<'a> Overrides<'a> {
    pub(crate) fn of(record: &Record<'a>, callsite: &Callsite) -> Overrides<'a> {
        let mut overrides = Overrides::default();
        for (name, value) in record.entries() {
            let Name::Field(index) = name else { continue };
            match callsite.roles.get(index as usize) {
                Some(Role::Type) => overrides.message_type = text(value).filter(|text| !text.is_empty()),
                Some(Role::Logger) => overrides.logger = text(value),
                Some(Role::Severity) => overrides.severity = severity(value),
                Some(Role::Payload) => overrides.payload = Some(value),
                _ => {}
            }
        }
        overrides
    }
}

/// A value as the text of an envelope's key.
fn text(value: Value<'_>) -> Option<Cow<'_, str>> {
    match value {
        Value::Text(text) => Some(String::from_utf8_lossy(text)),
        Value::U64(number) => Some(number.to_string().into()),
        Value::I64(number) => Some(number.to_string().into()),
        _ => None,
    }
}

/// A number from 0 to 7, or a severity's or level's name.
pub(crate) fn severity(value: Value<'_>) -> Option<u8> {
    match value {
        Value::U64(number) => u8::try_from(number).ok().filter(|&number| number < 8),
        Value::I64(number) => u8::try_from(number).ok().filter(|&number| number < 8),
        Value::Text(name) => severity_named(std::str::from_utf8(name).ok()?),
        _ => None,
    }
}

fn severity_named(name: &str) -> Option<u8> {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "warn" => return Some(Severity::Warning.number()),
        "info" => return Some(Severity::Informational.number()),
        "trace" => return Some(Severity::Debug.number()),
        _ => {}
    }
    let named = Severity::ALL.into_iter().find(|severity| severity.name() == name).map(Severity::number);
    named.or_else(|| name.parse().ok().filter(|&number: &u8| number < 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_severity_is_a_number_or_a_name_and_nothing_else() {
        assert_eq!(severity(Value::U64(0)), Some(0));
        assert_eq!(severity(Value::I64(7)), Some(7));
        assert_eq!(severity(Value::U64(8)), None);
        assert_eq!(severity(Value::I64(-1)), None);
        assert_eq!(severity(Value::Text(b"WARN")), Some(4));
        assert_eq!(severity(Value::Text(b"critical")), Some(2));
        assert_eq!(severity(Value::Text(b"5")), Some(5));
        assert_eq!(severity(Value::Text(b"loud")), None);
        assert_eq!(severity(Value::F64(3.0)), None);
    }
}
