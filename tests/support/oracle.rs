//! What every message must be, whatever it says: asked of every line of every test.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;

use super::json;

const SCHEMA: &str = include_str!("metlog-0.8.schema.json");
const KEYS: [&str; 9] = [
    "env_version",
    "fields",
    "logger",
    "metlog_hostname",
    "metlog_pid",
    "payload",
    "severity",
    "timestamp",
    "type",
];
/// The wall clock is read anew about once a second, and a reading can be held up by other programs.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(500);

/// Checks lines against the schema and against what a schema cannot say.
pub struct Oracle {
    schemas: Schemas,
    schema: SchemaIndex,
}

impl Oracle {
    pub fn new() -> Oracle {
        const LOCATION: &str = "https://metlog.invalid/0.8.json";
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler
            .add_resource(LOCATION, serde_json::from_str(SCHEMA).expect("the schema is JSON"))
            .expect("added");
        let schema = compiler.compile(LOCATION, &mut schemas).expect("the schema is one");
        Oracle { schemas, schema }
    }

    /// The message of a line, if it is a valid one.
    pub fn read(&self, line: &str) -> Value {
        assert!(!line.contains(['\n', '\r']), "more than one line: {line:?}");
        let message = json::read(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if let Err(error) = self.schemas.validate(&message, self.schema) {
            panic!("against the schema: {error:#}\n{line}");
        }
        let keys: Vec<_> = message.as_object().expect("an object").keys().map(String::as_str).collect();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, KEYS, "exactly the nine keys of the envelope: {line}");
        assert!(message["payload"].is_string(), "this crate's payloads are text: {line}");
        microseconds(&message);
        message
    }

    /// The message of a line that was made since `start`, and not in the future.
    pub fn read_fresh(&self, line: &str, start: SystemTime) -> Value {
        let message = self.read(line);
        let made = UNIX_EPOCH + Duration::from_micros(microseconds(&message));
        let window = start - CLOCK_TOLERANCE..=SystemTime::now() + CLOCK_TOLERANCE;
        assert!(window.contains(&made), "made outside of the test's time: {line}");
        message
    }
}

/// A timestamp as microseconds since the Unix epoch; it must have six digits and a `Z`.
pub fn microseconds(message: &Value) -> u64 {
    let text = message["timestamp"].as_str().expect("a text");
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000000Z", "six digits and Z: {text}");
    let number = |range: std::ops::Range<usize>| text[range].parse::<u64>().expect("digits");
    let days = days_since_epoch(number(0..4), number(5..7), number(8..10));
    let seconds = days * 86_400 + number(11..13) * 3_600 + number(14..16) * 60 + number(17..19);
    seconds * 1_000_000 + number(20..26)
}

/// Counted one by one, so that no formula is trusted.
fn days_since_epoch(year: u64, month: u64, day: u64) -> u64 {
    let is_leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let of_years: u64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let february = if is_leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    of_years + months[..month as usize - 1].iter().sum::<u64>() + day - 1
}
