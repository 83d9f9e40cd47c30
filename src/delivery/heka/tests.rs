//! The golden frames, made by the Go client, and the way there and back.

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use serde_json::{json, Map, Value};

#[cfg(feature = "router")]
use super::split::{HekaSplitter, Signers};
use super::wire::{Field, Message as WireMessage, Values};
use super::*;
use crate::{Message, Payload, Severity};

const UNSIGNED: &str = "1e0308ac011f0a1000112233445566778899aabbccddeeff10959a8781afdbc1ea121a0574696d657222056d796170702806320234323a03302e3840d2094a0c686f73742e6578616d706c6552140a046e616d6510001a00220864622e717565727952140a047261746510031a003a08000000000000f03f521c0a05636f756e7410021a05636f756e74320afdffffffffffffffff01520b0a026f6b10041a00420101520d0a0372617710011a002a0200ff";
const SHA1: &str = "1e2208ac01180122036f70732801321494926e46eabe665742a4b117ad97b39ad27ff0fb1f0a1000112233445566778899aabbccddeeff10959a8781afdbc1ea121a0574696d657222056d796170702806320234323a03302e3840d2094a0c686f73742e6578616d706c6552140a046e616d6510001a00220864622e717565727952140a047261746510031a003a08000000000000f03f521c0a05636f756e7410021a05636f756e74320afdffffffffffffffff01520b0a026f6b10041a00420101520d0a0372617710011a002a0200ff";
const MD5: &str = "1e1c08ac0122036f707328013210fe5879ee7fe5ddd89becf15b09dae68f1f0a1000112233445566778899aabbccddeeff10959a8781afdbc1ea121a0574696d657222056d796170702806320234323a03302e3840d2094a0c686f73742e6578616d706c6552140a046e616d6510001a00220864622e717565727952140a047261746510031a003a08000000000000f03f521c0a05636f756e7410021a05636f756e74320afdffffffffffffffff01520b0a026f6b10041a00420101520d0a0372617710011a002a0200ff";

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digit = |digit: u8| (digit as char).to_digit(16).expect("a digit") as u8;
    hexadecimal.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn uuid() -> Vec<u8> {
    bytes("00112233445566778899aabbccddeeff")
}

fn signer(hash: HmacHash) -> HekaSigner {
    HekaSigner::new("ops", 1, hash, "s3cr3t")
}

/// The inputs of the golden frames, as this crate has them: JSON, and what it does not say.
fn golden_inputs() -> (Vec<u8>, Exact) {
    let json = br#"{"timestamp":"2013-01-01T00:00:00.123456Z","type":"timer","logger":"myapp","severity":6,
        "payload":"42","fields":{"name":"db.query","rate":1,"count":-3,"ok":true,"raw":"00ff"},
        "env_version":"0.8","metlog_pid":1234,"metlog_hostname":"host.example"}"#;
    let raw = (String::from("raw"), vec![0x00, 0xFF]);
    (json.to_vec(), Exact { nanoseconds: 1_356_998_400_123_456_789, bytes: vec![raw] })
}

fn golden(signer: Option<HekaSigner>) -> Vec<u8> {
    let (json, exact) = golden_inputs();
    let mut message = envelope::read(&json).expect("a message");
    exact.apply(&mut message);
    message.uuid = uuid();
    // The one thing that a Metlog message has no place for.
    message.fields[2].representation = Some(String::from("count"));
    let mut frame = Vec::new();
    frame::write(&message.encode_to_vec(), signer.as_ref(), &mut frame);
    frame
}

#[test]
fn the_golden_frames_come_out_byte_for_byte_from_the_same_inputs() {
    assert_eq!(golden(None), bytes(UNSIGNED));
    assert_eq!(golden(Some(signer(HmacHash::Sha1))), bytes(SHA1));
    assert_eq!(golden(Some(signer(HmacHash::Md5))), bytes(MD5));
}

#[test]
fn the_message_of_a_golden_frame_is_read_with_every_value_in_its_type() {
    for frame in [UNSIGNED, SHA1, MD5] {
        let message = decode::message(message_of(&bytes(frame))).expect("a message");
        let expected: Message = r#"{"timestamp":"2013-01-01T00:00:00.123456789Z","type":"timer","logger":"myapp",
            "severity":6,"payload":"42","fields":{"name":"db.query","rate":1.0,"count":-3,"ok":true,"raw":"00ff"},
            "env_version":"0.8","metlog_pid":1234,"metlog_hostname":"host.example"}"#
            .parse()
            .expect("a message");
        assert_eq!(message, expected);
    }
}

#[test]
fn the_go_decoders_rules_hold_for_what_is_nested_and_json_says_what_heka_cannot() {
    let mut fields = Vec::new();
    let value = json!({
        "b": {"c": 1, "d": {"e": "x"}}, "f": [1, 2], "g": [{"h": true}, {"h": false}], "i": [1.5],
        "j": null, "k": [1, "x"], "l": [], "m": {}, "n": u64::MAX,
    });
    fields::add(String::from("a"), value, &mut fields);
    let integers = |name: &str, values: &[i64], representation: &str| {
        Field::new(name.to_owned(), Values::Integers(values.to_vec()), representation)
    };
    let texts = |name: &str, text: &str, representation: &str| {
        Field::new(name.to_owned(), Values::Strings(vec![text.to_owned()]), representation)
    };
    let bools = |name: &str, value| Field::new(name.to_owned(), Values::Bools(vec![value]), "");
    let expected = [
        integers("a.b.c", &[1], ""),
        texts("a.b.d.e", "x", ""),
        integers("a.f", &[1, 2], ""),
        bools("a.g.0.h", true),
        bools("a.g.1.h", false),
        Field::new(String::from("a.i"), Values::Doubles(vec![1.5]), "array"),
        texts("a.j", "null", "json"),
        texts("a.k", "[1,\"x\"]", "json"),
        texts("a.l", "[]", "json"),
        texts("a.m", "{}", "json"),
        texts("a.n", "18446744073709551615", "json"),
    ];
    assert_eq!(fields, expected);
}

#[test]
fn fields_of_one_name_which_only_heka_knows_become_an_array() {
    let field = |values| Field::new(String::from("n"), values, "");
    let members = fields::members(vec![
        field(Values::Integers(vec![1])),
        field(Values::Strings(vec![String::from("x"), String::from("y")])),
        field(Values::Doubles(vec![f64::NAN])),
    ]);
    assert_eq!(members, json!({"n": [1, "x", "y", "NaN"]}).as_object().cloned());
}

#[test]
fn what_a_sender_left_out_has_the_value_that_heka_says_and_what_is_no_message_is_none() {
    let message = decode::message(&WireMessage { uuid: uuid(), ..WireMessage::default() }.encode_to_vec());
    let message = message.expect("a message");
    assert_eq!((message.severity.number(), message.timestamp.as_str()), (7, "1970-01-01T00:00:00.000000Z"));
    assert_eq!((message.r#type.as_str(), message.pid, message.hostname), ("", None, None));
    for severity in [-1, 8, 300] {
        let wire = WireMessage { severity: Some(severity), ..WireMessage::default() };
        assert_eq!(decode::message(&wire.encode_to_vec()), None, "severity {severity}");
    }
    assert_eq!(decode::message(b"{\"type\": \"x\"}"), None);
    let mut unknown = Field::new(String::from("n"), Values::Integers(vec![1]), "");
    unknown.value_type = Some(9);
    let wire = WireMessage { fields: vec![unknown], ..WireMessage::default() };
    assert_eq!(decode::message(&wire.encode_to_vec()), None);
}

#[test]
fn each_message_has_a_uuid_of_its_own_of_version_4() {
    let (json, exact) = golden_inputs();
    let mut writer = Writer::new(Heka::unsigned(), usize::MAX);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..1_000 {
        let mut frame = Vec::new();
        writer.write(&json, Some(&exact), &mut frame).expect("written");
        let uuid = WireMessage::decode(message_of(&frame)).expect("protobuf").uuid;
        assert_eq!((uuid.len(), uuid[6] >> 4, uuid[8] >> 6), (16, 4, 2));
        assert!(seen.insert(uuid));
    }
}

#[test]
fn a_key_is_never_shown() {
    let shown = format!("{:?}", crate::Encoding::Heka(Heka::signed(signer(HmacHash::Md5))));
    assert!(shown.contains("ops") && !shown.contains("s3cr3t") && !shown.contains("115"), "{shown}");
}

/// What nesting becomes, and nothing else: the oracle of the way there and back.
fn flat(fields: &Map<String, Value>) -> Map<String, Value> {
    fn put(name: String, value: &Value, into: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(members) if !members.is_empty() => {
                members.iter().for_each(|(member, value)| put(format!("{name}.{member}"), value, into));
            }
            Value::Array(values)
                if !values.is_empty()
                    && values.iter().all(|value| value.as_object().is_some_and(|one| !one.is_empty())) =>
            {
                values
                    .iter()
                    .enumerate()
                    .for_each(|(index, value)| put(format!("{name}.{index}"), value, into));
            }
            value => into.push((name, value.clone())),
        }
    }
    let mut flat = Vec::new();
    for (name, value) in fields {
        match (name.as_str(), value.as_f64()) {
            ("rate", Some(rate)) => flat.push((name.clone(), json!(rate))),
            _ => put(name.clone(), value, &mut flat),
        }
    }
    flat.into_iter().collect()
}

fn value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("a number", |value| value.is_finite()).prop_map(Value::from),
    ];
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        any::<String>().prop_map(Value::from),
        "[0-9a-f]{0,6}".prop_map(Value::from),
    ];
    scalar.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            // Names without dots: where dots come from is the one thing that is lost.
            vec(("[a-c]{1,2}", inner), 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn message() -> impl Strategy<Value = Message> {
    let fields = vec((prop_oneof![Just(String::from("rate")), "[a-f_]{1,3}"], value()), 0..6);
    let envelope = (any::<String>(), any::<String>(), 0..8u8, any::<String>(), any::<String>());
    let process = (any::<Option<i32>>(), any::<Option<String>>(), any::<i64>());
    (envelope, fields, process).prop_map(
        |((message_type, logger, severity, payload, env), fields, process)| {
            let (pid, hostname, time) = process;
            Message {
                timestamp: time::timestamp(time),
                logger,
                r#type: message_type,
                severity: Severity::from_number(severity).expect("0 to 7"),
                payload: Payload::Text(payload),
                fields: fields.into_iter().collect(),
                env_version: env,
                pid: pid.map(i64::from),
                hostname,
            }
        },
    )
}

proptest! {
    #[test]
    fn every_message_is_read_as_it_was_written_but_for_its_nesting(message in message()) {
        let mut frame = Vec::new();
        let mut writer = Writer::new(Heka::signed(signer(HmacHash::Sha1)), usize::MAX);
        prop_assert!(matches!(writer.write(message.to_json().as_bytes(), None, &mut frame), Ok(Written::Whole)));
        let read = decode::message(message_of(&frame)).expect("a message");
        prop_assert_eq!(read, Message { fields: flat(&message.fields), ..message });
    }

    #[test]
    fn what_was_read_and_is_written_again_is_the_same_bytes(message in message()) {
        let write = |message: &Message| {
            let mut wire = envelope::read(message.to_json().as_bytes()).expect("a message");
            wire.uuid = uuid();
            wire.encode_to_vec()
        };
        let first = write(&message);
        // The second message has its fields sorted, and so has what it is written as.
        let second = write(&decode::message(&first).expect("a message"));
        let third = write(&decode::message(&second).expect("a message"));
        prop_assert_eq!(&third, &second);
        prop_assert_eq!(decode::message(&second), decode::message(&first));
    }

    #[test]
    fn a_frame_is_never_longer_than_its_limit_and_what_is_cut_says_so(
        payload in "[a-zé]{0,300}",
        field in "[a-z\"\\x01é]{0,300}",
        limit in 200usize..500,
        is_signed in any::<bool>(),
    ) {
        let heka = if is_signed { Heka::signed(signer(HmacHash::Sha1)) } else { Heka::unsigned() };
        let message = Message {
            fields: json!({"text": field, "metlog_id": "kept"}).as_object().cloned().expect("an object"),
            ..Message::new("oldstyle", payload.as_str())
        };
        prop_assume!(!crate::delivery::encode::limit::is_number(&payload));
        let mut frame = Vec::new();
        let written = Writer::new(heka, limit).write(message.to_json().as_bytes(), None, &mut frame);
        prop_assert!(written.is_ok() && frame.len() <= limit, "{} > {limit}", frame.len());
        let read = decode::message(message_of(&frame)).expect("a message");
        prop_assert_eq!(&read.fields["metlog_id"], "kept");
        let read_payload = read.payload.as_str().expect("text");
        prop_assert!(payload.starts_with(read_payload));
        if read_payload == payload && read.fields["text"] == message.fields["text"] {
            prop_assert!(matches!(written, Ok(Written::Whole)) && !read.fields.contains_key("truncated"));
        } else {
            prop_assert!(matches!(written, Ok(Written::Cut)));
            prop_assert_eq!(&read.fields["truncated"], true);
            prop_assert!(read_payload.is_empty() || read.fields["text"] == message.fields["text"]);
            prop_assert!(frame.len() + 12 > limit, "no more is cut than must be: {} of {limit}", frame.len());
        }
    }
}

#[test]
fn a_message_of_64_kib_is_the_longest_and_one_with_nothing_to_cut_is_too_large() {
    let mut frame = Vec::new();
    let long = Message::new("oldstyle", "x".repeat(100_000));
    let written =
        Writer::new(Heka::unsigned(), usize::MAX).write(long.to_json().as_bytes(), None, &mut frame);
    assert!(matches!(written, Ok(Written::Cut)));
    assert!(message_of(&frame).len() <= 65_536 && frame.len() > 65_530, "{}", frame.len());
    let mut nothing = Vec::new();
    let name = Message::new("n".repeat(1_000), "");
    let written = Writer::new(Heka::unsigned(), 500).write(name.to_json().as_bytes(), None, &mut nothing);
    assert!(written.is_err() && nothing.is_empty());
}

#[cfg(feature = "router")]
mod splitting {
    use super::*;
    use crate::delivery::framing::FrameError;

    type Owned = Result<String, FrameError>;

    fn split(signers: Signers, chunks: &[&[u8]], most: usize) -> Vec<Owned> {
        let mut splitter = HekaSplitter::new(signers, most);
        let mut found = Vec::new();
        let mut each = |frame: Result<&[u8], FrameError>| {
            found.push(frame.map(|json| {
                let message: Message = std::str::from_utf8(json).expect("UTF-8").parse().expect("a message");
                message.payload.to_string()
            }));
        };
        chunks.iter().for_each(|chunk| splitter.push(chunk, &mut each));
        splitter.finish(&mut each);
        found
    }

    fn frame_of(payload: &str, signer: Option<HekaSigner>) -> Vec<u8> {
        let mut frame = Vec::new();
        let heka = Heka { signer };
        let message = Message::new("oldstyle", payload).to_json();
        Writer::new(heka, usize::MAX).write(message.as_bytes(), None, &mut frame).expect("written");
        frame
    }

    fn payload(text: &str) -> Owned {
        Ok(text.to_owned())
    }

    #[test]
    fn a_bad_frame_costs_itself_and_the_next_separator_begins_the_next() {
        let (one, two) = (frame_of("one", None), frame_of("two", None));
        let mut no_separator = one.clone();
        no_separator[usize::from(one[1]) + 2] = b'x';
        let no_protobuf = [&[0x1E, 2, 8, 5, 0x1F][..], b"{bad}"].concat();
        let empty = [0x1E, 0, 0x1F];
        for (bad, reason) in [
            (&b"{\"type\": \"x\"}\n"[..], FrameError::BadHeader),
            (&no_separator, FrameError::BadHeader),
            (&empty, FrameError::BadHeader),
            (&[0x1E, 0x1E, 0x1E], FrameError::BadHeader),
            (&no_protobuf, FrameError::InvalidProtobuf),
        ] {
            let stream = [&one, bad, &two].concat();
            let expected = [payload("one"), Err(reason), payload("two")];
            assert_eq!(split(Signers::default(), &[&stream], 1_000), expected, "{bad:?}");
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(split(Signers::default(), &bytes, 1_000), expected, "{bad:?}");
        }
    }

    #[test]
    fn a_frame_inside_a_message_that_is_skipped_is_never_taken_for_one() {
        let inner = frame_of("forged", None);
        let mut outer = Vec::new();
        let mut body = vec![b' '; 200];
        body.extend_from_slice(&inner);
        frame::write(&body, None, &mut outer);
        let stream = [outer, frame_of("next", None)].concat();
        for (most, reason) in [(100, FrameError::TooLong), (1_000, FrameError::InvalidProtobuf)] {
            assert_eq!(split(Signers::default(), &[&stream], most), [Err(reason), payload("next")]);
        }
    }

    #[test]
    fn a_frame_that_the_end_cuts_is_reported() {
        let frame = frame_of("one", None);
        for end in 1..frame.len() {
            let found = split(Signers::default(), &[&frame[..end]], 1_000);
            assert_eq!(found, [Err(FrameError::Truncated)], "{end} bytes");
        }
    }

    fn knowing(is_required: bool) -> Signers {
        let other = HekaSigner::new("ops", 2, HmacHash::Md5, "other");
        Signers { known: vec![other, signer(HmacHash::Md5)], is_required }
    }

    #[test]
    fn only_what_a_known_signer_has_signed_with_that_version_of_its_key_is_taken() {
        for hash in [HmacHash::Md5, HmacHash::Sha1] {
            let taken = frame_of("x", Some(signer(hash)));
            assert_eq!(split(knowing(true), &[&taken], 1_000), [payload("x")]);
            let mut altered = taken.clone();
            let last = altered.len() - 1;
            altered[last] ^= 1;
            let wrong = [
                altered,
                frame_of("x", Some(HekaSigner::new("ops", 1, hash, "s3cr3T"))),
                frame_of("x", Some(HekaSigner::new("ops", 3, hash, "s3cr3t"))),
                frame_of("x", Some(HekaSigner::new("dev", 1, hash, "s3cr3t"))),
                frame_of("x", Some(HekaSigner::new("ops", 2, hash, "s3cr3t"))),
            ];
            for frame in wrong {
                for is_required in [true, false] {
                    assert_eq!(
                        split(knowing(is_required), &[&frame], 1_000),
                        [Err(FrameError::BadSignature)]
                    );
                }
            }
        }
    }

    #[test]
    fn an_unsigned_message_is_refused_only_where_a_signature_is_asked_for() {
        let frame = frame_of("x", None);
        assert_eq!(split(knowing(true), &[&frame], 1_000), [Err(FrameError::Unsigned)]);
        assert_eq!(split(knowing(false), &[&frame], 1_000), [payload("x")]);
    }

    #[test]
    fn a_signature_of_a_function_that_nobody_knows_or_of_no_bytes_is_none() {
        let message = WireMessage::default();
        let body = WireMessage { uuid: uuid(), ..message }.encode_to_vec();
        for (function, hmac) in [(Some(7), Some(vec![0; 20])), (None, Some(vec![])), (None, None)] {
            let header = wire::Header {
                message_length: body.len() as u32,
                hmac_hash_function: function,
                hmac_signer: Some(String::from("ops")),
                hmac_key_version: Some(1),
                hmac,
            }
            .encode_to_vec();
            let stream = [&[0x1E, header.len() as u8], &header[..], &[0x1F], &body[..]].concat();
            assert_eq!(split(knowing(false), &[&stream], 1_000), [Err(FrameError::BadSignature)]);
        }
    }

    /// Bytes that lead into every corner far more often than random ones.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            "[a-z]{0,5}".prop_map(|payload| frame_of(&payload, None)),
            Just(frame_of("signed", Some(signer(HmacHash::Md5)))),
            Just(vec![0x1E]),
            Just(vec![0x1F]),
            Just(vec![0x1E, 2, 8, 3, 0x1F]),
            Just(vec![0x1E, 3, 8, 255, 7, 0x1F]),
            vec(any::<u8>(), 0..20),
        ];
        vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn a_stream_is_split_in_the_same_way_however_it_comes(
            stream in stream(),
            cuts in vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            ends.extend([0, stream.len()]);
            ends.sort_unstable();
            let chunks: Vec<&[u8]> = ends.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            prop_assert_eq!(split(knowing(false), &chunks, 500), split(knowing(false), &[&stream], 500));
        }
    }
}

#[test]
fn bytes_are_put_only_where_a_single_text_is_theirs() {
    let json = br#"{"type":"x","fields":{"raw":"00ff","a":{"raw":["00ff","x"]},"b":{"raw":["00ff"]}}}"#;
    let mut message = envelope::read(json).expect("a message");
    let exact = Exact { nanoseconds: 0, bytes: vec![(String::from("raw"), vec![0x00, 0xFF])] };
    exact.apply(&mut message);
    let are_bytes: Vec<_> = message.fields.iter().map(|field| field.value_bytes.len()).collect();
    assert_eq!(are_bytes, [1, 0, 0]);
}

#[test]
fn what_is_nested_too_deep_is_kept_as_the_text_of_its_json() {
    let deep = format!("{}\"}}\\\"é\"{}", "[{\"a\":".repeat(200), "}]".repeat(200));
    let json =
        format!(r#"{{"type":"x","payload":"{{[","fields":{{"b":{{"c":[1]}},"deep":{deep},"d":"]"}}}}"#);
    let mut frame = Vec::new();
    let written = Writer::new(Heka::unsigned(), usize::MAX).write(json.as_bytes(), None, &mut frame);
    assert_eq!(written, Ok(Written::Whole));
    let message = WireMessage::decode(message_of(&frame)).expect("protobuf");
    assert_eq!(message.payload.as_deref(), Some("{["));
    let names: Vec<_> =
        message.fields.iter().map(|field| (field.name.as_str(), field.representation())).collect();
    assert_eq!(names, [("b.c", "array"), ("deep", "json"), ("d", "")]);
    assert_eq!(message.fields[1].value_string, [deep]);
}
