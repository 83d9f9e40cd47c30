//! The quick way and the slow way are one: whatever the bytes, a [`Received`] says what [`decode`] says.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Compares all that a [`Received`] says with the message or error of [`decode`]; whether the quick way was taken.
fn compare(bytes: &[u8]) -> bool {
    let (received, message) = match (Received::decode(bytes), decode(bytes)) {
        (Ok(received), Ok(message)) => (received, message),
        (Err(quick), Err(slow)) => {
            assert_eq!(quick.to_string(), slow.to_string());
            return false;
        }
        (quick, slow) => panic!("{:?} {slow:?}", quick.map(|received| received.message().clone())),
    };
    let is_quick = received.envelope.is_some();
    assert_eq!(received.id(), message.fields.get("metlog_id").and_then(Value::as_str));
    assert_eq!((received.r#type(), received.severity()), (&*message.r#type, message.severity));
    assert_eq!((received.timestamp(), received.logger()), (&*message.timestamp, &*message.logger));
    assert_eq!((received.env_version(), received.pid()), (&*message.env_version, message.pid));
    assert_eq!(
        (received.hostname(), received.payload()),
        (message.hostname.as_deref(), message.payload.to_string().into())
    );
    assert_eq!(*received.fields(), message.fields);
    assert_eq!(*received.message(), message);
    assert_eq!(*received.fields(), message.fields);
    for text in [
        TextVariable::Uuid,
        TextVariable::Type,
        TextVariable::Logger,
        TextVariable::Payload,
        TextVariable::EnvVersion,
        TextVariable::Hostname,
    ] {
        let fresh = Received::decode(bytes).expect("as before");
        assert_eq!(Subject::text(&fresh, text), Subject::text(&message, text), "{text:?}");
    }
    for number in [NumberVariable::Timestamp, NumberVariable::Severity, NumberVariable::Pid] {
        assert_eq!(Subject::number(&received, number), Subject::number(&message, number), "{number:?}");
    }
    for name in ["a", "metlog_id", "uuid", "name"] {
        assert_eq!(Subject::field(&received, name), Subject::field(&message, name), "{name}");
    }
    let mut line = Vec::new();
    Received::decode(bytes).expect("as before").write_json(&mut line);
    assert!(!line.contains(&b'\n') && !line.contains(&b'\r'), "a message is one line");
    let read: Message = serde_json::from_slice(&line).expect("a line is a message");
    assert_eq!(read, message);
    is_quick
}

/// What is written for `text`.
fn written(text: &str) -> String {
    let mut line = Vec::new();
    Received::decode(text.as_bytes()).expect("a message").write_json(&mut line);
    String::from_utf8(line).expect("text")
}

const WHOLE: &str = r#"{"timestamp": "2012-10-24T22:20:43.000000Z", "logger": "a\"b", "type": "counter", "severity": 6, "payload": "1\n\u00e9", "fields": {"name": "hits", "rate": 1.0, "deep": [{"a": [1e5, -0.5, true, null]}]}, "env_version": "0.8", "metlog_pid": 7, "metlog_hostname": "here"}"#;

#[test]
fn a_message_with_all_keys_is_written_as_it_came_and_every_other_anew() {
    assert!(compare(WHOLE.as_bytes()));
    assert_eq!(written(WHOLE), WHOLE);
    assert_eq!(written(&format!("\0json:: {WHOLE}\n")), WHOLE);
    let seven = WHOLE.replace(r#", "metlog_pid": 7, "metlog_hostname": "here""#, "");
    assert_eq!(written(&seven), seven);
    for (from, to) in [
        (r#""severity": 6, "#, ""),
        (r#""severity": 6"#, r#""severity": null"#),
        (r#""severity": 6"#, r#""severity": 6.0"#),
        (r#""severity": 6"#, "\"severity\":\n6"),
        (r#""severity": 6"#, "\"severity\":\r6"),
        (r#""severity": 6"#, r#""severity": 6, "severity": 6"#),
        (r#""severity": 6"#, r#""severity": 6, "uuid": "u""#),
        (r#""metlog_pid": 7"#, r#""metlog_pid": null"#),
        (r#""metlog_pid": 7"#, r#""metlog_pid": -0"#),
        (r#""metlog_pid": 7"#, r#""metlog_pid": 7.0"#),
        (r#""metlog_pid": 7"#, r#""metlog\u005fpid": 7"#),
        (r#""env_version": "0.8""#, r#""env_version": 0.8"#),
        (r#""here""#, "null"),
        (r#"-0.5"#, "NaN"),
        (r#"\u00e9"#, r#"\ud800"#),
    ] {
        let other = WHOLE.replacen(from, to, 1);
        assert_ne!(other, WHOLE);
        compare(other.as_bytes());
        assert_eq!(written(&other), decode(other.as_bytes()).expect("a message").to_json(), "{to}");
    }
}

#[test]
fn what_clients_send_takes_the_quick_way() {
    for line in include_str!("../../../tests/support/metlog-py-0.10.jsonl").lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        assert!(compare(line["message"].to_string().as_bytes()), "{line}");
        let pretty = serde_json::to_string_pretty(&line["message"]).expect("text");
        assert!(compare(pretty.as_bytes()), "{line}");
    }
}

#[test]
fn every_dialect_is_the_same_message_on_both_ways() {
    for bytes in [
        &br#"{"timestamp": "2012-10-24T22:20:43", "logger": "", "type": "x", "severity": 6, "payload": 1.5, "fields": {}}"#[..],
        b"{\"type\": \"x\"}",
        b"\0json::{\"type\": \"x\"}\r\n",
        b"\0msgpack::\x80",
        br#"{"type": "x", "logger": null, "timestamp": 0, "severity": 4.0, "metlog_pid": 7.0}"#,
        br#"{"type": "x", "metlog_pid": 123456789012345678, "payload": 1e400}"#,
        br#"{"type": "x", "metlog_pid": 9223372036854775808}"#,
        br#"{"uuid": "u", "metlog_id": "i", "type": "x", "fields": {"uuid": "mine"}}"#,
        br#"{"type": "x", "type": "y", "fields": {"a": 1, "a": 2}}"#,
        br#"{"type": "x", "fields": {"metlog_id": "a", "metlog_id": 1}}"#,
        br#"{"type": "x", "fields": {"metlog_id": 1, "metlog_id": "a"}}"#,
        br#"{"type": "x", "fields": {"metlog_id": "a\u0041"}}"#,
        br#"{"type": "x", "fields": {"metlog\u005fid": "a", "b": 1}}"#,
        br#"{"type": "x", "fields": {"a": {"metlog_id": "a"}}}"#,
        br#"{"type": "x", "fields": {"a": NaN, "b": -Infinity, "c": "\ud83d"}}"#,
        br#"{"type": "\ud83d\ude00", "logger": "\ude00\ud83d"}"#,
        br#"{"type": "x", "fields": []}"#,
        br#"{"type": "x", "fields": null, "payload": null}"#,
        br#"{"type": "x", "payload": {}}"#,
        br#"{"type": "x",}"#,
        br#"{"type": "x", "fields": {"a": [1,]}}"#,
        br#"{"type": "x", "payload": 01}"#,
        br#"{"type": "x", "payload": 1.}"#,
        br#"{"type": "x", "payload": -}"#,
        br#"{"type": "x", "payload": 1e}"#,
        br#"{"type": "x", "payload": 12345678901234567890123456789012345678901234567890}"#,
        b"\x0c{\"type\": \"x\"}",
        b"{\"type\": \"x\x1f\"}",
        b"{\"type\": \"\xc3\xa9\"}",
        b"{\"type\": \"\xc3\"}",
        b"{\"type\": \"x\"} x",
        b"",
        b"{}",
        b"[1]",
    ] {
        compare(bytes);
    }
}

#[test]
fn nesting_is_the_same_error_on_both_ways_at_every_depth() {
    for depth in 1..140 {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let value = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let bytes = format!("{{\"type\": \"x\", \"fields\": {{\"a\": {value}}}}}");
            assert_eq!(compare(bytes.as_bytes()), depth < 99, "{depth}");
        }
    }
    for open in ["[", "{\"a\":"] {
        compare(format!("{{\"type\": \"x\", \"fields\": {}", open.repeat(200_000)).as_bytes());
    }
}

#[test]
fn what_is_asked_for_is_read_once_and_no_more_than_that() {
    let received = Received::decode(WHOLE.as_bytes()).expect("a message");
    let _ = (received.r#type(), received.severity(), received.id(), received.hostname(), received.pid());
    received.write_json(&mut Vec::new());
    assert!(received.message.get().is_none() && received.fields.get().is_none());
    assert!(std::ptr::eq(received.fields(), received.fields()));
    assert!(received.message.get().is_none());
    assert!(std::ptr::eq(received.message(), received.message()));
}

/// JSON values of any shape, as text, with blanks and spellings that `serde_json` would not write.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        Just("NaN".to_owned()),
        "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?",
        "-?[0-9.eE+-]{0,8}",
        text(),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let member = (key(), inner.clone()).prop_map(|(key, value)| format!("{key}: {value}"));
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(|all| format!("[{}]", all.join(" ,"))),
            proptest::collection::vec(member, 0..4).prop_map(|all| format!("{{{}}}", all.join(","))),
        ]
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "\"[a-zA-Z0-9 _./-]{0,30}\"",
        r#""([a-z\u{e9}\u{1f600}]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}|\\ud83d\\ude00|\\u[dD][89abcdef][0-9a-f]{2}){0,12}""#,
        r#""[\u{0}-\u{7f}]{0,12}""#,
    ]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "timestamp", "logger", "type", "severity", "payload", "fields", "env_version", "metlog_pid",
            "metlog_hostname", "metlog_id", "uuid",
        ])
        .prop_map(|key| format!("\"{key}\"")),
        1 => text(),
    ]
}

/// A value that the key may have, more often than not.
fn entry() -> impl Strategy<Value = String> {
    let fitting = prop_oneof![
        text().prop_map(|text| format!("\"type\": {text}")),
        text().prop_map(|text| format!("\"payload\":{text}")),
        text().prop_map(|text| format!("\"logger\" : {text}")),
        text().prop_map(|text| format!("\"timestamp\" : {text}")),
        Just("\"env_version\": \"0.8\"".to_owned()),
        text().prop_map(|text| format!("\"metlog_hostname\":{text}")),
        "\"severity\": ?-?[0-9]{1,2}(\\.0)?",
        "\"metlog_pid\":-?[0-9]{1,20}",
        proptest::collection::vec((key(), value()), 0..5).prop_map(|fields| {
            let fields: Vec<_> = fields.iter().map(|(key, value)| format!("{key}: {value}")).collect();
            format!("\"fields\": {{{}}}", fields.join(", "))
        }),
    ];
    let any = (key(), value()).prop_map(|(key, value)| format!("{key}: {value}"));
    prop_oneof![9 => fitting, 1 => any]
}

proptest! {
    #[test]
    fn any_bytes_say_the_same_on_both_ways(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        compare(&bytes);
    }

    #[test]
    fn any_object_says_the_same_on_both_ways(
        entries in proptest::collection::vec(entry(), 0..12),
        (before, between, after) in ("[ \n\t]{0,2}", ",[ \r\n]{0,2}", "[ \n}]{0,2}"),
    ) {
        compare(format!("{before}{{{}}}{after}", entries.join(&between)).as_bytes());
    }

    #[test]
    fn a_message_of_a_client_with_one_byte_changed_says_the_same_on_both_ways(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = WHOLE.as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if cut {
            bytes.truncate(at);
        }
        compare(&bytes);
    }

    #[test]
    fn any_message_that_serde_json_writes_is_read_the_quick_way(fields in value()) {
        let fields: Option<Value> = serde_json::from_str(&fields).ok();
        let message = json!({"type": "x", "fields": {"a": fields}}).to_string();
        // Numbers of a hundred digits and more are left to the slow way.
        prop_assert!(compare(message.as_bytes()) || message.contains('e'));
    }
}
