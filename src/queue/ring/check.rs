//! Whether a record that another process left is one that this crate can have written.
//!
//! In: bytes that may be anything: the process that wrote them may have crashed because it wrote where it must not. Out:
//! records that an encoder can take, and how many were none. A record carries no checksum, because a caller would have
//! to pay for it: what is changed and still makes sense is not noticed.

use std::collections::HashMap;

use serde_core::de::IgnoredAny;

use crate::capture::callsite::{Callsite, Role};
use crate::capture::record::{EntryIter, Kind, Name, Part, Record, Texts, Value};

/// Callsites of the process that wrote the records, by id.
pub(crate) type Callsites = HashMap<u64, &'static Callsite>;

/// Shows every sound record to `each`, in order, and gives how many were not. After a record without a length that makes
/// sense nothing is found any more: what follows counts as one.
pub(crate) fn sound_records<'a>(
    mut bytes: &'a [u8],
    callsites: &Callsites,
    mut each: impl FnMut(Record<'a>),
) -> u64 {
    let mut damaged = 0;
    while !bytes.is_empty() {
        match Record::split_first(bytes) {
            Some((record, rest)) if rest.len() < bytes.len() => {
                match is_sound(&record, callsites) {
                    true => each(record),
                    false => damaged += 1,
                }
                bytes = rest;
            }
            _ => {
                damaged += 1;
                bytes = skip(bytes);
            }
        }
    }
    damaged
}

/// What is behind a record that cannot be read, if it has a length at all.
fn skip(bytes: &[u8]) -> &[u8] {
    let length = bytes.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    if length == 0 {
        return &[];
    }
    bytes.get(length..).unwrap_or_default()
}

fn is_sound(record: &Record<'_>, callsites: &Callsites) -> bool {
    let header = &record.header;
    let own = callsites.get(&header.callsite).copied();
    let has_callsite = match header.kind {
        Kind::Event => own.is_some_and(|own| own.description.is_event),
        Kind::Timer => own.is_some(),
        Kind::Log | Kind::Message => header.callsite == 0,
    };
    has_callsite
        && header.severity <= 7
        && is_text(record.thread)
        && are_sound(record.entries(), own)
        && has_as_many_messages(record, own)
        && has_sound_context(record, callsites)
}

/// An event makes a message for each of its metrics, and one if it is a line; everything else makes one.
fn has_as_many_messages(record: &Record<'_>, own: Option<&Callsite>) -> bool {
    let messages = usize::from(record.header.messages);
    let is_metric = |name: Name<'_>| matches!((role(name, own), own), (Some(Role::Metric(..)), Some(_)));
    let metrics = match record.header.kind {
        Kind::Event => record.entries().filter(|(name, _)| is_metric(*name)).count(),
        _ => 0,
    };
    // Of a record that had to be cut, a metric may be gone.
    messages == metrics + usize::from(record.header.line)
        || (record.header.truncated && (1..=metrics + 1).contains(&messages))
}

fn role<'c>(name: Name<'_>, own: Option<&'c Callsite>) -> Option<&'c Role> {
    match name {
        Name::Field(index) => own?.roles.get(index as usize),
        _ => None,
    }
}

fn has_sound_context(record: &Record<'_>, callsites: &Callsites) -> bool {
    let mut context = record.context();
    while !context.is_at_end() {
        let Some(span) = context.next() else { return false };
        let of = callsites.get(&span.callsite).copied();
        // 0 stands for the spans that were left out.
        if (of.is_none() && span.callsite != 0) || !are_sound(span.entries, of) {
            return false;
        }
    }
    true
}

fn are_sound(mut entries: EntryIter<'_>, callsite: Option<&Callsite>) -> bool {
    while !entries.is_at_end() {
        // Nothing is found where there still is something.
        let Some((name, value)) = entries.next() else { return false };
        if !is_name(name, callsite) || !is_value(value, needs_number(name, callsite)) {
            return false;
        }
    }
    true
}

fn is_name(name: Name<'_>, callsite: Option<&Callsite>) -> bool {
    let fields = callsite.map_or(0, |callsite| callsite.description.fields.len());
    match name {
        Name::Field(index) => (index as usize) < fields,
        Name::Inline(name) => is_text(name),
        Name::Part(_) => true,
    }
}

/// Whether a float there is written as a number, which JSON must have.
fn needs_number(name: Name<'_>, callsite: Option<&Callsite>) -> bool {
    name == Name::Part(Part::Rate) || matches!(role(name, callsite), Some(Role::Metric(..)))
}

fn is_value(value: Value<'_>, is_number: bool) -> bool {
    match value {
        Value::Text(text) => is_text(text),
        Value::Json(json) => is_json(json),
        Value::Error(text, sources) => is_text(text) && are_texts(sources),
        Value::F64(number) => number.is_finite() || !is_number,
        _ => true,
    }
}

fn are_texts(mut texts: Texts<'_>) -> bool {
    while !texts.is_at_end() {
        if !texts.next().is_some_and(is_text) {
            return false;
        }
    }
    true
}

fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

fn is_json(bytes: &[u8]) -> bool {
    !bytes.iter().any(|byte| matches!(byte, b'\n' | b'\r'))
        && serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}
