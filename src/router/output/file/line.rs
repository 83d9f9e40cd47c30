//! How a message becomes a line. In: a message. Out: bytes with exactly one newline, at their end, so that lines can be
//! counted as messages and no message can forge one.
//!
//! Lost here, of the formats for people: everything but timestamp and payload, and whether `\n` was a newline or stood so.

use std::fmt::{self, Write as _};

use super::FileFormat;
use crate::{Message, Payload};

/// The function that draws in this format.
pub(super) fn draw(format: FileFormat) -> fn(&Message, &mut Vec<u8>) -> Result<(), String> {
    match format {
        FileFormat::Json => json,
        FileFormat::Text => text,
        FileFormat::Payload => payload,
    }
}

fn json(message: &Message, line: &mut Vec<u8>) -> Result<(), String> {
    // Strings, numbers and maps with string keys into memory: nothing in here can fail.
    let _ = serde_json::to_writer(&mut *line, message);
    line.push(b'\n');
    Ok(())
}

fn text(message: &Message, line: &mut Vec<u8>) -> Result<(), String> {
    match message.timestamp.is_empty() {
        true => line.push(b'-'),
        false => escape(&message.timestamp, |character| character.is_whitespace(), line),
    }
    line.push(b' ');
    payload(message, line)
}

fn payload(message: &Message, line: &mut Vec<u8>) -> Result<(), String> {
    match &message.payload {
        Payload::Text(text) => escape(text, |_| false, line),
        Payload::Number(number) => line.extend_from_slice(number.to_string().as_bytes()),
    }
    line.push(b'\n');
    Ok(())
}

/// `text` as part of one line; `is_blank` says what becomes `_` there.
fn escape(text: &str, is_blank: impl Fn(char) -> bool, line: &mut Vec<u8>) {
    let mut plain = 0;
    for (start, character) in text.char_indices() {
        let blank = is_blank(character);
        if !blank && !is_control(character) {
            continue;
        }
        line.extend_from_slice(&text.as_bytes()[plain..start]);
        plain = start + character.len_utf8();
        match blank {
            true => line.push(b'_'),
            // Into memory: cannot fail.
            false => drop(write!(Bytes(line), "{}", character.escape_default())),
        }
    }
    line.extend_from_slice(&text.as_bytes()[plain..]);
}

/// What ends a line somewhere, or does something to a terminal. A tab does neither, and tables are made of it.
fn is_control(character: char) -> bool {
    (character.is_control() && character != '\t') || matches!(character, '\u{2028}' | '\u{2029}')
}

struct Bytes<'a>(&'a mut Vec<u8>);

impl fmt::Write for Bytes<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drawn(format: FileFormat, message: &Message) -> String {
        let mut line = Vec::new();
        draw(format)(message, &mut line).expect("any message is a line");
        String::from_utf8(line).expect("text")
    }

    fn message(timestamp: &str, payload: impl Into<Payload>) -> Message {
        let mut message = Message::new("oldstyle", payload);
        message.timestamp = timestamp.to_owned();
        message
    }

    #[test]
    fn a_line_of_text_is_the_timestamp_and_the_payload() {
        let timestamp = "2012-10-24T22:20:43.123456Z";
        assert_eq!(
            drawn(FileFormat::Text, &message(timestamp, "it works é")),
            format!("{timestamp} it works é\n")
        );
        assert_eq!(drawn(FileFormat::Payload, &message(timestamp, "CEF:0|a\\|b\tc")), "CEF:0|a\\|b\tc\n");
        let number = serde_json::Number::from(7);
        assert_eq!(drawn(FileFormat::Text, &message("", Payload::Number(number))), "- 7\n");
    }

    #[test]
    fn newlines_and_escapes_in_a_message_forge_no_line_and_reach_no_terminal() {
        let line =
            drawn(FileFormat::Text, &message("a b\nc", "x\n2026 forged\r\u{1b}[2J\u{85}\u{2028}\u{2029}\0"));
        assert_eq!(line, "a_b_c x\\n2026 forged\\r\\u{1b}[2J\\u{85}\\u{2028}\\u{2029}\\u{0}\n");
    }

    proptest! {
        #[test]
        fn any_message_is_exactly_one_line_in_any_format(timestamp: String, payload: String, name: String) {
            let mut message = message(&timestamp, payload.as_str());
            message.r#type.clone_from(&name);
            message.fields.insert(name, payload.into());
            for format in [FileFormat::Json, FileFormat::Text, FileFormat::Payload] {
                let line = drawn(format, &message);
                prop_assert_eq!(line.matches('\n').count(), 1);
                prop_assert!(line.ends_with('\n'));
                let bare = ['\r', '\0', '\u{1b}'];
                prop_assert!(!line.contains(bare));
            }
            let line = drawn(FileFormat::Text, &message);
            let (first, _) = line.split_once(' ').expect("a blank");
            prop_assert!(!first.is_empty() && !first.contains(char::is_whitespace));
        }
    }
}
