//! Every dialect of Metlog that clients have spoken since 2011, over every kind of input: each message arrives as it was
//! meant, through a real socket.
#![cfg(all(feature = "router", unix))]

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{json, Value};
use tracing_metlog::router::{Config, Input, Matcher, Output, Route, Router};
use tracing_metlog::Framing;

const PATIENCE: Duration = Duration::from_secs(30);

/// What a client sends, and what must arrive of it.
struct Dialect {
    name: &'static str,
    bytes: Vec<u8>,
    expected: Value,
}

fn dialect(name: &'static str, bytes: impl Into<Vec<u8>>, expected: Value) -> Dialect {
    Dialect { name, bytes: bytes.into(), expected }
}

/// A message with all nine keys, and these instead of its own.
fn with(keys: Value) -> Value {
    let mut message = json!({
        "timestamp": "2012-10-24T22:20:43.123456Z", "logger": "app", "type": "oldstyle", "severity": 6, "payload": "text",
        "fields": {"n": 1}, "env_version": "0.8", "metlog_pid": 99, "metlog_hostname": "host",
    });
    for (key, value) in keys.as_object().expect("an object") {
        message[key] = value.clone();
    }
    message
}

/// What a newline in it does not cut.
fn dialects() -> Vec<Dialect> {
    let as_sent = |name, keys| {
        let message = with(keys);
        dialect(name, message.to_string(), message)
    };
    let mut early = with(json!({}));
    let keys = early.as_object_mut().expect("an object");
    let _ = keys.remove("metlog_pid");
    let _ = keys.remove("metlog_hostname");
    let text = "é😀\u{1}";
    let quoted = |quoted: &str| with(json!({})).to_string().replace("\"text\"", quoted);
    let mut all = vec![
        dialect("seven keys, before metlog-py 0.9", early.to_string(), early),
        as_sent("a timestamp without Z", json!({"timestamp": "2012-10-24T22:20:43.123456"})),
        as_sent("a timestamp without Z and fraction", json!({"timestamp": "2012-10-24T22:20:43"})),
        as_sent("a timestamp of whole seconds, metlog-node", json!({"timestamp": "2012-10-24T22:20:43Z"})),
        dialect(
            "a timestamp that is a number",
            with(json!({"timestamp": 0})).to_string(),
            with(json!({"timestamp": "0"})),
        ),
        as_sent("a number as payload, metlog-psutils", json!({"type": "procinfo", "payload": 17})),
        as_sent("a fraction as payload", json!({"type": "procinfo", "payload": 0.25})),
        as_sent(
            "rate 1, metlog-node",
            json!({"type": "counter", "payload": "1", "fields": {"name": "x", "rate": 1}}),
        ),
        as_sent("rate 1.0", json!({"type": "counter", "payload": "1", "fields": {"name": "x", "rate": 1.0}})),
        as_sent(
            "rate \"1\"",
            json!({"type": "counter", "payload": "1", "fields": {"name": "x", "rate": "1"}}),
        ),
        as_sent(
            "no rate, an old message",
            json!({"type": "counter", "payload": "-1", "fields": {"name": "x"}}),
        ),
        as_sent(
            "a decimal timer",
            json!({"type": "timer", "payload": "12.75", "fields": {"name": "x", "rate": 1}}),
        ),
        as_sent(
            "nested fields and null",
            json!({"fields": {"cef_meta": {"syslog_ident": null, "l": [1, [2]]}}}),
        ),
        as_sent(
            "no logger, wsgi",
            json!({"type": "wsgi", "logger": "", "payload": "", "fields": {"threadlocal": null}}),
        ),
        dialect(
            "ASCII escapes, Python",
            quoted(r#""\u00e9\ud83d\ude00\u0001""#),
            with(json!({"payload": text})),
        ),
        dialect("raw UTF-8", quoted("\"é😀\\u0001\""), with(json!({"payload": text}))),
        dialect(
            "half of a surrogate pair, Python 2",
            quoted(r#""a\ud83d""#),
            with(json!({"payload": "a\u{fffd}"})),
        ),
        dialect(
            "NaN and Infinity, Python",
            with(json!({"fields": {"a": "A", "b": "B"}}))
                .to_string()
                .replace("\"A\"", "NaN")
                .replace("\"B\"", "-Infinity"),
            with(json!({"fields": {"a": null, "b": null}})),
        ),
        dialect(
            "a decoder's name before it",
            [&b"\0json::"[..], with(json!({})).to_string().as_bytes()].concat(),
            with(json!({})),
        ),
        dialect("blanks around it", format!("  {} \r", with(json!({}))), with(json!({}))),
        dialect(
            "uuid and tags, Heka and 2011",
            with(json!({"uuid": "u", "tags": {"a": 1}})).to_string(),
            with(json!({"fields": {"n": 1, "uuid": "u", "tags": {"a": 1}}})),
        ),
    ];
    for line in include_str!("support/metlog-py-0.10.jsonl").lines() {
        let message = serde_json::from_str::<Value>(line).expect("JSON")["message"].take();
        // Python's separators, and its escapes.
        all.push(dialect(
            "metlog-py 0.10",
            message.to_string().replace("\":", "\": ").replace(",\"", ", \""),
            message,
        ));
    }
    all
}

/// What only senders that mark the length of a message can send.
fn with_newlines() -> Vec<Dialect> {
    let message = with(json!({"fields": {"nested": {"deep": [1, 2, {"x": "y"}]}}}));
    vec![
        dialect("a newline at its end, metlog-node", format!("{message}\n"), message.clone()),
        dialect("printed over many lines, StdOutSender", format!("{message:#}\n"), message),
    ]
}

/// Sends every dialect through `send`, one after the other, and compares what arrives.
fn arrive(input: Input, dialects: &[Dialect], mut connect: impl FnMut(&str) -> SendFrame) {
    let (output, capture) = Output::capture();
    let config = Config::new().input(input).route(Route::new(Matcher::any(), output));
    let router = Router::start(config).expect("starts");
    let address = router.addresses()[0].clone();
    let mut send = connect(address.split_once("://").expect("a URL").1);
    for (count, Dialect { name, bytes, expected }) in dialects.iter().enumerate() {
        send(bytes);
        let received = capture.wait_for(count + 1, PATIENCE);
        let got =
            serde_json::to_value(received.get(count).unwrap_or_else(|| panic!("{address}: {name}: lost")));
        assert_eq!(got.expect("JSON"), *expected, "{address}: {name}");
    }
    drop(send);
    let counters = router.shutdown(PATIENCE);
    assert_eq!((counters.received, counters.malformed_total()), (dialects.len() as u64, 0), "{counters}");
}

fn every_dialect() -> Vec<Dialect> {
    dialects().into_iter().chain(with_newlines()).collect()
}

/// Sends one message, framed.
type SendFrame = Box<dyn FnMut(&[u8])>;

fn framed(framing: Framing, mut stream: impl Write + 'static) -> SendFrame {
    Box::new(move |bytes| {
        let mut frame = Vec::new();
        framing.write(bytes, &mut frame);
        stream.write_all(&frame).expect("sent");
    })
}

/// A path for a socket, removed at the end.
struct Path(PathBuf);

impl Path {
    fn new(name: &str) -> Self {
        Path(std::env::temp_dir().join(format!("metlog-dialects-{name}-{}", std::process::id())))
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn every_dialect_arrives_over_udp() {
    arrive(Input::udp("127.0.0.1:0"), &every_dialect(), |address| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
        socket.connect(address).expect("connects");
        Box::new(move |bytes| assert_eq!(socket.send(bytes).expect("sent"), bytes.len()))
    });
}

#[test]
fn every_dialect_arrives_over_unix_datagrams() {
    let path = Path::new("datagrams");
    arrive(Input::unixgram(&path.0), &every_dialect(), |address| {
        let socket = UnixDatagram::unbound().expect("made");
        socket.connect(address).expect("connects");
        Box::new(move |bytes| assert_eq!(socket.send(bytes).expect("sent"), bytes.len()))
    });
}

#[test]
fn every_dialect_arrives_over_tcp_in_lines_and_with_octet_counts() {
    let connect =
        |framing| move |address: &str| framed(framing, TcpStream::connect(address).expect("connects"));
    // A line that begins with the decoder's name is no octet count.
    arrive(Input::tcp("127.0.0.1:0"), &dialects(), connect(Framing::Newline));
    arrive(Input::tcp("127.0.0.1:0"), &every_dialect(), connect(Framing::OctetCount));
}

#[test]
fn every_dialect_arrives_over_unix_streams_in_lines_and_with_octet_counts() {
    let path = Path::new("stream");
    let connect =
        |framing| move |address: &str| framed(framing, UnixStream::connect(address).expect("connects"));
    arrive(Input::unix(&path.0), &dialects(), connect(Framing::Newline));
    arrive(Input::unix(&path.0), &every_dialect(), connect(Framing::OctetCount));
}

#[cfg(feature = "http")]
#[test]
fn every_dialect_arrives_over_http() {
    arrive(Input::http("127.0.0.1:0"), &dialects(), |address| {
        let mut stream = TcpStream::connect(address).expect("connects");
        Box::new(move |bytes| {
            let head = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", bytes.len());
            stream.write_all(&[head.as_bytes(), bytes].concat()).expect("sent");
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).expect("an answer");
            assert_eq!(&answer, b"HTTP/1.1 200");
            let mut rest = Vec::new();
            while !rest.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("the head");
                rest.push(byte[0]);
            }
        })
    });
}
