//! A message that is too long for its destination: cut, and marked, never dropped silently.
//!
//! In: a complete message and a limit in bytes. Out: the message within the limit, with `fields.truncated = true`:
//! first its payload is cut, then its largest field, again and again. Lost: the ends of those texts; the message
//! only when nothing is left to cut.

use serde_json::{Map, Value};

/// Fields a message is not what it says it is without.
pub(crate) const KEPT: [&str; 4] = ["truncated", "name", "rate", super::ids::FIELD];

/// A message that cannot be made to fit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// Cuts a JSON message to at most `limit` bytes.
#[cold]
pub(crate) fn cut(message: &[u8], limit: usize) -> Result<Vec<u8>, TooLarge> {
    let mut message: Map<String, Value> = serde_json::from_slice(message).map_err(|_| TooLarge)?;
    mark(&mut message)?;
    while length(&message) > limit {
        let excess = length(&message) - limit;
        if !shorten_payload(&mut message, excess) && !shorten_largest_field(&mut message, excess) {
            return Err(TooLarge);
        }
    }
    serde_json::to_vec(&message).map_err(|_| TooLarge)
}

fn mark(message: &mut Map<String, Value>) -> Result<(), TooLarge> {
    fields(message).ok_or(TooLarge)?.insert(String::from("truncated"), Value::Bool(true));
    Ok(())
}

fn fields(message: &mut Map<String, Value>) -> Option<&mut Map<String, Value>> {
    message.get_mut("fields")?.as_object_mut()
}

fn length(value: &impl serde_core::Serialize) -> usize {
    serde_json::to_vec(value).map_or(0, |json| json.len())
}

/// Cuts `excess` bytes of JSON off the payload, or all of it. `false` when there is nothing to cut.
fn shorten_payload(message: &mut Map<String, Value>, excess: usize) -> bool {
    match message.get_mut("payload") {
        Some(Value::String(payload)) if !payload.is_empty() && !is_number(payload) => {
            shorten(payload, excess);
            true
        }
        _ => false,
    }
}

/// A metric's payload must stay a number.
pub(crate) fn is_number(payload: &str) -> bool {
    payload.len() < 64 && payload.parse::<f64>().is_ok()
}

/// The same for the largest field: a text is cut, anything else is taken out.
fn shorten_largest_field(message: &mut Map<String, Value>, excess: usize) -> bool {
    let Some(fields) = fields(message) else { return false };
    let sized = fields.iter().filter(|(key, _)| !KEPT.contains(&key.as_str()));
    let Some(largest) =
        sized.max_by_key(|(key, value)| key.len() + length(value)).map(|(key, _)| key.clone())
    else {
        return false;
    };
    match fields.get_mut(&largest) {
        Some(Value::String(text)) if !text.is_empty() => shorten(text, excess),
        _ => drop(fields.remove(&largest)),
    }
    true
}

/// Cuts characters off the end until the JSON of the text is `excess` bytes shorter.
fn shorten(text: &mut String, excess: usize) {
    let mut saved = 0;
    while saved < excess {
        let Some(last) = text.pop() else { return };
        saved += match last {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            control if control < ' ' => 6,
            other => other.len_utf8(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn message(payload: &str, fields: Value) -> Vec<u8> {
        serde_json::to_vec(&json!({"type": "oldstyle", "payload": payload, "fields": fields})).expect("JSON")
    }

    proptest! {
        #[test]
        fn a_cut_message_fits_exactly_and_its_texts_are_beginnings(
            payload in any::<String>(),
            field in "[a-zé\\n\"\\x01]{0,400}",
            limit in 120usize..400,
        ) {
            let whole = message(&payload, json!({"text": field, "number": 7}));
            prop_assume!(whole.len() > limit);
            prop_assume!(!is_number(&payload));
            let cut = cut(&whole, limit).expect("there is enough to cut");
            prop_assert!(cut.len() <= limit);
            let cut: Value = serde_json::from_slice(&cut).expect("JSON");
            prop_assert_eq!(&cut["fields"]["truncated"], true);
            let cut_payload = cut["payload"].as_str().expect("text");
            prop_assert!(payload.starts_with(cut_payload));
            if let Some(cut_field) = cut["fields"]["text"].as_str() {
                prop_assert!(field.starts_with(cut_field));
                prop_assert!(cut_field == field || cut_payload.is_empty(), "the payload goes first");
            }
        }
    }

    #[test]
    fn no_more_is_cut_than_must_be() {
        let whole = message(&"x".repeat(1_000), json!({}));
        let cut = cut(&whole, 500).expect("cut");
        assert_eq!(cut.len(), 500);
    }

    #[test]
    fn a_metric_keeps_its_value_its_name_and_its_rate() {
        let whole = message("12", json!({"name": "n", "rate": 1.0, "list": vec![1; 1_000], "text": "kept"}));
        let cut: Value = serde_json::from_slice(&cut(&whole, 200).expect("cut")).expect("JSON");
        assert_eq!(cut["payload"], "12");
        assert_eq!(cut["fields"], json!({"name": "n", "rate": 1.0, "text": "kept", "truncated": true}));
    }

    #[test]
    fn a_message_with_nothing_to_cut_is_too_large() {
        assert_eq!(cut(&message("", json!({"name": "n".repeat(100), "rate": 1.0})), 50), Err(TooLarge));
    }
}
