//! What metlog-raven sends: a whole Sentry event in the payload of a message of type `sentry`, as base64 of zlib of JSON
//! (raven's `encode`). In: such payloads. Out: the event, with what it says left as it is.
//!
//! Refused here, and counted by whoever asked: a payload that unpacks to more than [`MOST_BYTES`].

use std::io::Read;

use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use base64::{alphabet, Engine};
use flate2::read::ZlibDecoder;
use serde_json::{Map, Value};

/// Sentry takes events up to 1 MB; raven's, with the source around every line of a stack, are a tenth of that.
pub(super) const MOST_BYTES: usize = 2 << 20;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a payload holds.
#[derive(Debug, PartialEq)]
pub(super) enum Unpacked {
    Event(Map<String, Value>),
    /// Text that somebody gave for a payload: metlog-raven sends it as it is.
    NoEvent,
    /// It unpacks to more than anybody needs.
    TooLarge,
}

/// The event in `payload`.
pub(super) fn unpack(payload: &str) -> Unpacked {
    let text: String = payload.split_ascii_whitespace().collect();
    // Python's base64 of old had a newline after every 76 characters; what is left is not shorter than what it packs.
    if text.len() > MOST_BYTES {
        return Unpacked::TooLarge;
    }
    let Ok(packed) = BASE64.decode(text) else { return Unpacked::NoEvent };
    let mut json = Vec::new();
    let most = MOST_BYTES as u64 + 1;
    if ZlibDecoder::new(packed.as_slice()).take(most).read_to_end(&mut json).is_err() {
        return Unpacked::NoEvent;
    }
    if json.len() > MOST_BYTES {
        return Unpacked::TooLarge;
    }
    match serde_json::from_slice(&json) {
        Ok(Value::Object(event)) => Unpacked::Event(event),
        _ => Unpacked::NoEvent,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::ZlibEncoder;
    use flate2::Compression;

    use super::*;

    fn packed(bytes: &[u8]) -> String {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        BASE64.encode(encoder.finish().unwrap())
    }

    #[test]
    fn an_event_is_unpacked_with_and_without_line_breaks_and_padding() {
        // By Python 3: base64.encodebytes(zlib.compress(b'{"message": "hi", "level": 40}')).
        let python = "eJyrVspNLS5OTE9VslJQyshUUtBRyklNSs0BCZgYAACOawfD\n";
        let expected = serde_json::json!({"message": "hi", "level": 40});
        for text in [packed(expected.to_string().as_bytes()), packed(b"{\"message\": \"hi\", \"level\": 40}")]
        {
            let broken =
                text.as_bytes().chunks(7).map(|part| String::from_utf8_lossy(part)).collect::<Vec<_>>();
            for text in [text.clone(), text.trim_end_matches('=').to_owned(), broken.join("\n")] {
                assert_eq!(Unpacked::Event(expected.as_object().unwrap().clone()), unpack(&text));
            }
        }
        assert!(!matches!(unpack(python), Unpacked::TooLarge));
    }

    #[test]
    fn a_bomb_is_refused_and_text_is_text() {
        assert_eq!(unpack(&packed(&vec![b' '; MOST_BYTES * 20])), Unpacked::TooLarge);
        assert_eq!(unpack(&"A".repeat(MOST_BYTES + 1)), Unpacked::TooLarge);
        for text in ["", "no such user", "AAAA", &packed(b"[1, 2]"), &packed(b"{\"cut\": ")] {
            assert_eq!(unpack(text), Unpacked::NoEvent, "{text}");
        }
    }
}
