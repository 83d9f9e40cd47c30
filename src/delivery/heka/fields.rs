//! From a Metlog message's JSON to Heka's fields, and from fields to JSON.
//!
//! | JSON | field |
//! |---|---|
//! | text, integer of 64 bits with a sign, fraction, `true` and `false` | STRING, INTEGER, DOUBLE, BOOL |
//! | `rate`, whatever number it is | DOUBLE: hekad's statsd output takes no other |
//! | an object | a field for each of its members, `object.member` |
//! | an array of values of one of these types | one field with as many values |
//! | an array of objects | a field for each member, `array.0.member` |
//! | anything else: `null`, an array of several types or none, an empty object, a greater integer | STRING, its JSON text |
//! | what is nested too deep to be read (see [`deep`](super::deep)) | STRING, its JSON text |
//!
//! What this would make alike is told apart by Heka's `representation`, a free text: `json` says that a text is JSON,
//! and `array` that a single value was an array of one. So nothing is lost but where the dots of a name come from:
//! fields are not nested again. Fields of one name, which only Heka knows, become an array.

use serde_json::Value;

use super::wire::{Field, Values};

/// The `representation` of a text that is JSON.
pub(crate) const JSON: &str = "json";
/// The `representation` of an array of one value.
pub(crate) const ARRAY: &str = "array";
/// The field that must be a DOUBLE.
const RATE: &str = "rate";

/// Appends what becomes of one member of a message's `fields`.
pub(crate) fn add(name: String, value: Value, fields: &mut Vec<Field>) {
    match (value, name.as_str()) {
        (Value::Number(rate), RATE) if rate.as_f64().is_some() => {
            let rate = rate.as_f64().unwrap_or_default();
            fields.push(Field::new(name, Values::Doubles(vec![rate]), ""));
        }
        (value, _) => flatten(name, value, fields),
    }
}

fn flatten(name: String, value: Value, fields: &mut Vec<Field>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (member, value) in members {
                flatten(format!("{name}.{member}"), value, fields);
            }
        }
        Value::Array(values) if !values.is_empty() && values.iter().all(is_nested) => {
            for (index, value) in values.into_iter().enumerate() {
                flatten(format!("{name}.{index}"), value, fields);
            }
        }
        Value::Array(values) => array(name, values, fields),
        value => single(name, value, fields),
    }
}

fn is_nested(value: &Value) -> bool {
    value.as_object().is_some_and(|members| !members.is_empty())
}

fn array(name: String, values: Vec<Value>, fields: &mut Vec<Field>) {
    let representation = if values.len() == 1 { ARRAY } else { "" };
    match homogeneous(&values) {
        Some(values) => fields.push(Field::new(name, values, representation)),
        None => text(name, &Value::Array(values), fields),
    }
}

fn single(name: String, value: Value, fields: &mut Vec<Field>) {
    match homogeneous(std::slice::from_ref(&value)) {
        Some(values) => fields.push(Field::new(name, values, "")),
        None => text(name, &value, fields),
    }
}

fn text(name: String, value: &Value, fields: &mut Vec<Field>) {
    fields.push(Field::new(name, Values::Strings(vec![value.to_string()]), JSON));
}

/// The values, if there are any and all are of one type that Heka has.
fn homogeneous(values: &[Value]) -> Option<Values> {
    fn all<T>(values: &[Value], of: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
        values.iter().map(of).collect()
    }
    let double = |value: &Value| value.as_f64().filter(|_| value.is_f64());
    match values.first()? {
        Value::String(_) => all(values, |value| value.as_str().map(str::to_owned)).map(Values::Strings),
        Value::Bool(_) => all(values, Value::as_bool).map(Values::Bools),
        Value::Number(number) if number.is_f64() => all(values, double).map(Values::Doubles),
        Value::Number(_) => all(values, Value::as_i64).map(Values::Integers),
        _ => None,
    }
}

/// The way back.
mod back {
    use serde_json::{Map, Value};

    use super::super::wire::{Field, Values};
    use super::{ARRAY, JSON};
    use crate::delivery::encode::text;

    /// The members of a message's `fields`; `None` if one has a type that Heka does not know.
    pub(crate) fn members(fields: Vec<Field>) -> Option<Map<String, Value>> {
        let mut members = Map::new();
        for mut field in fields {
            let name = std::mem::take(&mut field.name);
            let value = value(field)?;
            match members.get_mut(&name) {
                None => drop(members.insert(name, value)),
                Some(earlier) => join(earlier, value),
            }
        }
        Some(members)
    }

    /// Another field of the same name.
    fn join(earlier: &mut Value, value: Value) {
        if !earlier.is_array() {
            *earlier = Value::Array(vec![earlier.take()]);
        }
        match (earlier, value) {
            (Value::Array(values), Value::Array(more)) => values.extend(more),
            (Value::Array(values), value) => values.push(value),
            _ => {}
        }
    }

    fn value(field: Field) -> Option<Value> {
        let is_json = field.representation.as_deref() == Some(JSON);
        let is_array = field.representation.as_deref() == Some(ARRAY);
        let mut values: Vec<Value> = match field.into_values()? {
            Values::Strings(texts) if is_json => texts.into_iter().map(json).collect(),
            Values::Strings(texts) => texts.into_iter().map(Value::String).collect(),
            Values::Bytes(values) => values.iter().map(|bytes| Value::String(hexadecimal(bytes))).collect(),
            Values::Integers(values) => values.into_iter().map(Value::from).collect(),
            Values::Doubles(values) => values.into_iter().map(double).collect(),
            Values::Bools(values) => values.into_iter().map(Value::Bool).collect(),
        };
        Some(match values.len() {
            0 => Value::Null,
            1 if !is_array => values.swap_remove(0),
            _ => Value::Array(values),
        })
    }

    /// A text that says it is JSON and is not stays a text.
    fn json(text: String) -> Value {
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    }

    /// What no JSON number can say is a text, as the client writes it too.
    fn double(value: f64) -> Value {
        serde_json::Number::from_f64(value)
            .map_or_else(|| Value::from(text::non_finite_name(value)), Value::Number)
    }

    pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
        let mut digits = Vec::with_capacity(bytes.len() * 2);
        text::hex(bytes, &mut digits);
        String::from_utf8(digits).unwrap_or_default()
    }
}

pub(crate) use back::members;
