//! A message as a line for people. In: a message. Out: text that is aligned, coloured where that shows, and can do nothing
//! to a terminal.
//!
//! Lost here: the end of a payload or field of more than 8 KiB, or of more than 256 bytes without a blank, marked
//! with `…`.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde_json::Value;

use crate::{Message, Severity};

/// Longer texts are cut: nobody reads them on a screen.
const MAX_TEXT_BYTES: usize = 8 * 1024;

/// A word this long is no word but an encoded something (metlog-raven's payload): its start is enough.
const MAX_WORD_BYTES: usize = 256;

/// What is shown of such a word.
const WORD_START_BYTES: usize = 64;

/// Columns of the type to begin with; the commonest, `oldstyle`, fits.
const TYPE_WIDTH: usize = 8;

/// How wide the columns of type and logger become for longer ones. Beyond, a line steps out of the columns.
const MAX_WIDTH: usize = 20;

const DIM: &str = "2";
const BOLD: &str = "1";

/// Draws lines, in columns that grow with what comes.
pub(super) struct Painter {
    colored: bool,
    type_width: AtomicUsize,
    logger_width: AtomicUsize,
}

impl Painter {
    pub(super) fn new(colored: bool) -> Self {
        Painter { colored, type_width: TYPE_WIDTH.into(), logger_width: 0.into() }
    }

    /// One message as one line, without its newline.
    pub(super) fn line(&self, message: &Message, out: &mut String) -> fmt::Result {
        let (severity, color) = severity(message.severity);
        self.paint(DIM, format_args!("{:<12}", Escaped(time(&message.timestamp))), out)?;
        out.push(' ');
        self.paint(color, format_args!("{severity:<6}"), out)?;
        let width = widen(&self.type_width, &message.r#type);
        write!(out, " {:<width$} ", Escaped(&message.r#type))?;
        let width = widen(&self.logger_width, &message.logger);
        if width > 0 {
            self.paint(BOLD, format_args!("{:<width$}", Escaped(&message.logger)), out)?;
            out.push_str("  ");
        }
        let shown = Shown::of(message);
        write!(out, "{}", Escaped(&shown.text))?;
        for (key, value) in message.fields.iter().filter(|(key, value)| !shown.includes(key, value)) {
            out.push_str("  ");
            self.paint(DIM, format_args!("{}={}", Escaped(key), FieldValue(value)), out)?;
        }
        out.truncate(out.trim_end_matches(' ').len());
        Ok(())
    }

    fn paint(&self, color: &str, text: fmt::Arguments<'_>, out: &mut String) -> fmt::Result {
        match self.colored {
            true => write!(out, "\x1b[{color}m{text}\x1b[0m"),
            false => out.write_fmt(text),
        }
    }
}

/// The width of a column that is to hold `text` too.
fn widen(width: &AtomicUsize, text: &str) -> usize {
    let wanted = text.chars().take(MAX_WIDTH).count();
    wanted.max(width.fetch_max(wanted, Relaxed))
}

/// A short name and a colour.
fn severity(severity: Severity) -> (&'static str, &'static str) {
    match severity {
        Severity::Emergency => ("emerg", "1;97;41"),
        Severity::Alert => ("alert", "1;31"),
        Severity::Critical => ("crit", "1;31"),
        Severity::Error => ("error", "31"),
        Severity::Warning => ("warn", "33"),
        Severity::Notice => ("notice", "36"),
        Severity::Informational => ("info", "32"),
        Severity::Debug => ("debug", "34"),
    }
}

/// The time of day with milliseconds, `HH:MM:SS.mmm`; as much of the timestamp as fits when it has none.
fn time(timestamp: &str) -> &str {
    let of_day = timestamp.split_once(['T', ' ']).map_or(timestamp, |(_, of_day)| of_day);
    let of_day = of_day.trim_end_matches(['Z', 'z']);
    let end = of_day.char_indices().nth(12).map_or(of_day.len(), |(index, _)| index);
    &of_day[..end]
}

/// What a message says, and which fields are said with it.
struct Shown<'a> {
    text: std::borrow::Cow<'a, str>,
    metric: bool,
}

impl<'a> Shown<'a> {
    fn of(message: &'a Message) -> Self {
        metric(message).map_or_else(
            || Shown {
                text: match &message.payload {
                    crate::Payload::Text(text) => text.into(),
                    crate::Payload::Number(number) => number.to_string().into(),
                },
                metric: false,
            },
            |text| Shown { text: text.into(), metric: true },
        )
    }

    /// The name of a metric stands in the text, and a rate of 1 goes without saying.
    fn includes(&self, key: &str, value: &Value) -> bool {
        let said = match key {
            "name" => true,
            "rate" => value.as_f64() == Some(1.0),
            _ => false,
        };
        self.metric && said
    }
}

/// `12.3 ms  name`, `+1  name`, `= 42.5  name`; nothing for what is no metric with a value and a name.
fn metric(message: &Message) -> Option<String> {
    let value = message.payload.to_string();
    let number: f64 = value.parse().ok()?;
    let name = message.fields.get("name")?.as_str()?;
    match message.r#type.as_str() {
        "timer" => Some(format!("{value} ms  {name}")),
        "counter" if number < 0.0 || value.starts_with('+') => Some(format!("{value}  {name}")),
        "counter" => Some(format!("+{value}  {name}")),
        "gauge" => Some(format!("= {value}  {name}")),
        _ => None,
    }
}

/// A field: bare where that is unambiguous, otherwise JSON.
struct FieldValue<'a>(&'a Value);

impl fmt::Display for FieldValue<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::String(text) if is_bare(text) => Escaped(text).fmt(formatter),
            other => Escaped(&other.to_string()).fmt(formatter),
        }
    }
}

fn is_bare(text: &str) -> bool {
    !text.is_empty() && !text.contains([' ', '"', '=', '\\', '\n'])
}

/// Text that can do nothing to a terminal. Pads like a string.
pub(in crate::router) struct Escaped<'a>(pub(in crate::router) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = cut(self.0);
        if text.len() == self.0.len() && !text.contains(is_dangerous) {
            return formatter.pad(text);
        }
        let mut escaped = String::with_capacity(text.len() + 16);
        for character in text.chars() {
            match is_dangerous(character) {
                true => escaped.extend(character.escape_default()),
                false => escaped.push(character),
            }
        }
        if text.len() < self.0.len() {
            write!(escaped, "… ({} bytes more)", self.0.len() - text.len())?;
        }
        formatter.pad(&escaped)
    }
}

fn cut(text: &str) -> &str {
    let limit = match text.len() {
        0..=MAX_WORD_BYTES => return text,
        _ if !text.contains(char::is_whitespace) => WORD_START_BYTES,
        _ => MAX_TEXT_BYTES.min(text.len()),
    };
    let end = (0..=limit).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

/// Control characters, and those that turn the direction of writing, separate lines or cannot be seen.
pub(super) fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn message(message_type: &str, payload: &str, fields: Value) -> Message {
        let mut message = Message::new(message_type, payload);
        message.timestamp = "2012-10-24T22:20:43.123456Z".to_owned();
        message.logger = "app".to_owned();
        message.fields = fields.as_object().cloned().expect("an object");
        message
    }

    fn line(message: &Message, colored: bool) -> String {
        let mut out = String::new();
        Painter::new(colored).line(message, &mut out).expect("a line");
        out
    }

    #[test]
    fn log_lines_and_metrics_are_readable_and_aligned() {
        let cases = [
            (
                message("oldstyle", "it works", json!({"user": "bob", "n": 1, "text": "a b"})),
                "22:20:43.123 info   oldstyle app  it works  n=1  text=\"a b\"  user=bob",
            ),
            (
                message("timer", "12.75", json!({"name": "db.query", "rate": 1.0})),
                "22:20:43.123 info   timer    app  12.75 ms  db.query",
            ),
            (
                message("counter", "10", json!({"name": "hits", "rate": 0.25})),
                "22:20:43.123 info   counter  app  +10  hits  rate=0.25",
            ),
            (
                message("counter", "-1", json!({"name": "hits", "rate": 1})),
                "22:20:43.123 info   counter  app  -1  hits",
            ),
            (
                message("gauge", "42.5", json!({"name": "load", "rate": 1})),
                "22:20:43.123 info   gauge    app  = 42.5  load",
            ),
            (
                message("timer", "soon", json!({"name": "db"})),
                "22:20:43.123 info   timer    app  soon  name=db",
            ),
        ];
        for (message, expected) in cases {
            assert_eq!(line(&message, false), expected);
        }
    }

    #[test]
    fn odd_timestamps_keep_the_columns() {
        for (timestamp, expected) in [
            ("2012-10-24T22:20:43", "22:20:43     "),
            ("2012-10-24T22:20:43Z", "22:20:43     "),
            ("", "             "),
            ("0", "0            "),
            ("é".repeat(40).as_str(), &format!("{} ", "é".repeat(12))),
        ] {
            let mut message = message("oldstyle", "x", json!({}));
            message.timestamp = timestamp.to_owned();
            assert_eq!(line(&message, false), format!("{expected}info   oldstyle app  x"), "{timestamp}");
        }
    }

    #[test]
    fn colours_wrap_the_columns_and_not_the_text() {
        let mut message = message("oldstyle", "x", json!({"a": 1}));
        message.severity = Severity::Error;
        assert_eq!(
            line(&message, true),
            "\x1b[2m22:20:43.123\x1b[0m \x1b[31merror \x1b[0m oldstyle \x1b[1mapp\x1b[0m  x  \x1b[2ma=1\x1b[0m"
        );
    }

    #[test]
    fn a_long_payload_is_cut_and_says_so() {
        let text = line(&message("x", &" é ".repeat(MAX_TEXT_BYTES / 2), json!({})), false);
        assert!(text.ends_with("é … (8192 bytes more)"), "{text}");
        let text = line(&message("sentry", &"eJzlWgtv".repeat(100), json!({})), false);
        assert!(text.ends_with("eJzlWgtv… (736 bytes more)") && text.len() < 150, "{text}");
    }

    #[test]
    fn columns_grow_with_what_comes() {
        let painter = Painter::new(false);
        let mut lines = String::new();
        for (message_type, logger) in [("timer", "long.name"), ("longer.than.usual", "a"), ("timer", "")] {
            let mut message = message(message_type, "x", json!({}));
            message.logger = logger.to_owned();
            painter.line(&message, &mut lines).expect("a line");
            lines.push('\n');
        }
        let expected = "22:20:43.123 info   timer    long.name  x\n\
                        22:20:43.123 info   longer.than.usual a          x\n\
                        22:20:43.123 info   timer                        x\n";
        assert_eq!(lines, expected);
    }

    proptest! {
        #[test]
        fn nothing_in_a_message_reaches_the_terminal_raw(
            text in "([\u{0}-\u{a0}]|[\u{2000}-\u{2070}]|.){0,20}",
        ) {
            let mut message = message(&text, &text, json!({text.clone(): text, "b": [text]}));
            (message.logger, message.timestamp) = (text.clone(), text);
            prop_assert!(!line(&message, false).contains(is_dangerous));
        }
    }
}
