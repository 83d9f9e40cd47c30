//! What reaches the router over real sockets, from friends and from enemies.
#![cfg(feature = "router")]

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use tracing_metlog::router::{Capture, Config, Input, MalformedReason, Matcher, Output, Route, Router};
use tracing_metlog::Framing;

const PATIENCE: Duration = Duration::from_secs(20);

fn start(inputs: impl IntoIterator<Item = Input>) -> (Router, Capture) {
    let (output, capture) = Output::capture();
    let config = inputs.into_iter().fold(Config::new(), Config::input);
    let router = Router::start(config.route(Route::new(Matcher::any(), output))).expect("starts");
    (router, capture)
}

fn tcp(router: &Router) -> TcpStream {
    let address = router.addresses()[0].strip_prefix("tcp://").expect("a tcp address");
    TcpStream::connect(address).expect("connects")
}

fn udp(router: &Router) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    socket.connect(router.addresses()[0].strip_prefix("udp://").expect("a udp address")).expect("connects");
    socket
}

fn message(payload: impl std::fmt::Display) -> String {
    format!(r#"{{"type": "oldstyle", "payload": "{payload}", "fields": {{"n": 1}}}}"#)
}

fn payloads(capture: &Capture, count: usize) -> Vec<String> {
    capture.wait_for(count, PATIENCE).iter().map(|message| message.payload.to_string()).collect()
}

/// Waits for something that only the counters show.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

fn golden() -> Vec<serde_json::Value> {
    include_str!("support/metlog-py-0.10.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["message"].take())
        .collect()
}

#[test]
fn every_message_of_metlog_py_arrives_as_it_was_sent() {
    let (router, capture) = start([Input::udp("127.0.0.1:0")]);
    let client = udp(&router);
    for (count, message) in golden().iter().enumerate() {
        client.send(message.to_string().as_bytes()).expect("sent");
        let received = capture.wait_for(count + 1, PATIENCE);
        assert_eq!(serde_json::to_value(&received[count]).expect("JSON"), *message);
    }
    let counters = router.shutdown(PATIENCE);
    assert_eq!((counters.received, counters.malformed_total()), (golden().len() as u64, 0));
}

#[test]
fn a_pretty_printed_message_over_a_datagram_is_one_message() {
    let (router, capture) = start([Input::udp("127.0.0.1:0")]);
    let pretty = format!("{:#}\n", golden()[0]);
    assert!(pretty.lines().count() > 5);
    udp(&router).send(pretty.as_bytes()).expect("sent");
    assert_eq!(capture.wait_for(1, PATIENCE).len(), 1);
}

#[test]
fn newlines_and_octet_counts_are_told_apart_for_each_connection() {
    let (router, capture) = start([Input::tcp("127.0.0.1:0")]);
    for framing in [Framing::Newline, Framing::OctetCount] {
        let mut bytes = Vec::new();
        (0..100).for_each(|n| framing.write(message(format_args!("{framing} {n}")).as_bytes(), &mut bytes));
        tcp(&router).write_all(&bytes).expect("sent");
    }
    let mut received = payloads(&capture, 200);
    let of = |name: &str| (0..100).map(|n| format!("{name} {n}")).collect::<Vec<_>>();
    // Order holds within a connection, not between two.
    received.sort_by_key(|payload| payload.starts_with("octet"));
    assert_eq!(received, [of("newline"), of("octet-count")].concat());
}

#[test]
fn a_last_line_without_a_newline_arrives() {
    let (router, capture) = start([Input::tcp("127.0.0.1:0")]);
    tcp(&router).write_all(message("last").as_bytes()).expect("sent");
    assert_eq!(payloads(&capture, 1), ["last"]);
}

#[cfg(unix)]
#[test]
fn unix_sockets_take_streams_and_datagrams_and_leave_no_file_behind() {
    use std::os::unix::net::{UnixDatagram, UnixStream};

    let directory = Directory::new("unix");
    let (stream, datagrams) = (directory.path("stream"), directory.path("datagrams"));
    // What a router that was killed leaves behind is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&stream).expect("binds"));
    let (router, capture) = start([Input::unix(&stream), Input::unixgram(&datagrams)]);
    assert_eq!(router.addresses()[0], format!("unix://{}", stream.display()));

    UnixStream::connect(&stream).expect("connects").write_all(message("a").as_bytes()).expect("sent");
    assert_eq!(payloads(&capture, 1), ["a"]);
    let sender = UnixDatagram::unbound().expect("made");
    sender.send_to(message("b").as_bytes(), &datagrams).expect("sent");
    assert_eq!(payloads(&capture, 2), ["a", "b"]);

    let error = Router::start(Config::new().input(Input::unix(&stream))).expect_err("in use").to_string();
    assert!(error.starts_with(&format!("cannot listen on unix://{}: ", stream.display())), "{error}");
    router.shutdown(PATIENCE);
    assert!(!stream.exists() && !datagrams.exists());
}

#[test]
fn an_address_in_use_is_an_error_that_names_the_input() {
    let (router, _capture) = start([Input::tcp("127.0.0.1:0")]);
    let taken: Input = router.addresses()[0].parse().expect("an address is an input");
    let error = Router::start(Config::new().input(taken)).expect_err("in use").to_string();
    assert!(error.starts_with(&format!("cannot listen on {}: ", router.addresses()[0])), "{error}");
}

#[test]
fn hostile_datagrams_are_counted_and_the_next_message_arrives() {
    let (router, capture) = start([Input::udp("127.0.0.1:0").max_message_bytes(20_000)]);
    let client = udp(&router);
    let hostile: [(&[u8], MalformedReason); 8] = [
        (b"", MalformedReason::Empty),
        (b"\0\0\0\0", MalformedReason::UnknownDecoder),
        (b"\0msgpack::\x80", MalformedReason::UnknownDecoder),
        (b"{\"type\": \"\xff\xfe\"}", MalformedReason::InvalidUtf8),
        (b"{\"type\": \"x\"", MalformedReason::InvalidJson),
        (&[b'['; 20_000], MalformedReason::InvalidJson),
        (&[b' '; 20_001], MalformedReason::TooLong),
        (b"{\"type\": \"x\", \"severity\": -1}", MalformedReason::InvalidValue),
    ];
    for (number, (bytes, reason)) in hostile.into_iter().enumerate() {
        let before = router.counters().malformed.get(&reason).copied().unwrap_or(0);
        client.send(bytes).expect("sent");
        client.send(message(number).as_bytes()).expect("sent");
        assert_eq!(payloads(&capture, number + 1)[number], number.to_string());
        assert_eq!(router.counters().malformed[&reason], before + 1, "{reason}");
    }
}

#[test]
fn hostile_streams_are_counted_and_the_same_stream_goes_on() {
    let (router, capture) = start([Input::tcp("127.0.0.1:0").max_message_bytes(10_000)]);
    let good = message("good");
    let counted = format!("{} {good}", good.len());
    let cases = [
        (b"{".repeat(50_000), format!("\n{good}\n"), MalformedReason::TooLong),
        (b"\x00\xff\x1b[31m\x07".to_vec(), format!("\n{good}\n"), MalformedReason::UnknownDecoder),
        ([b"50000 ".to_vec(), b"x".repeat(50_000)].concat(), counted.clone(), MalformedReason::TooLong),
        (b"12x {bad}".to_vec(), counted.clone(), MalformedReason::BadCount),
        (b"99999999999999999999999 {}".to_vec(), counted.clone(), MalformedReason::BadCount),
        ([counted.as_bytes(), b"0 "].concat(), counted.clone(), MalformedReason::BadCount),
    ];
    let mut expected = 0;
    for (hostile, after, reason) in cases {
        let before = router.counters().malformed.get(&reason).copied().unwrap_or(0);
        let mut client = tcp(&router);
        client.write_all(&hostile).expect("sent");
        client.write_all(after.as_bytes()).expect("sent");
        expected += 1 + usize::from(hostile.starts_with(counted.as_bytes()));
        assert_eq!(payloads(&capture, expected).len(), expected, "{reason}");
        assert_eq!(router.counters().malformed[&reason], before + 1, "{reason}");
    }
}

#[test]
fn garbage_on_one_connection_does_not_disturb_another() {
    let (router, capture) = start([Input::tcp("127.0.0.1:0")]);
    let mut friend = tcp(&router);
    let mut state = 1_u32;
    let garbage: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(1_000_000)
    .collect();
    for count in 1..=10 {
        tcp(&router).write_all(&garbage[count * 7..]).expect("sent");
        friend.write_all(format!("{}\n", message(count)).as_bytes()).expect("sent");
        assert_eq!(payloads(&capture, count).len(), count);
    }
}

#[test]
fn connections_beyond_the_limit_are_closed_at_once_and_counted() {
    let (router, capture) = start([Input::tcp("127.0.0.1:0").max_connections(1)]);
    let mut first = tcp(&router);
    first.write_all(format!("{}\n", message("first")).as_bytes()).expect("sent");
    assert_eq!(payloads(&capture, 1), ["first"]);

    let mut second = tcp(&router);
    second.set_read_timeout(Some(PATIENCE)).expect("set");
    assert_eq!(second.read(&mut [0; 1]).expect("closed"), 0);
    assert_eq!(router.counters().inputs[0].refused, 1);

    drop(first);
    eventually("the first connection is gone", || router.counters().inputs[0].open == 0);
    tcp(&router).write_all(message("third").as_bytes()).expect("sent");
    assert_eq!(payloads(&capture, 2), ["first", "third"]);
}

#[test]
fn a_connection_that_says_nothing_is_closed_at_the_idle_deadline() {
    let (router, _capture) = start([Input::tcp("127.0.0.1:0").idle_deadline(Duration::from_millis(20))]);
    let mut client = tcp(&router);
    client.set_read_timeout(Some(PATIENCE)).expect("set");
    assert_eq!(client.read(&mut [0; 1]).expect("closed"), 0);
}

#[test]
fn a_shutdown_takes_everything_that_was_sent_before_it() {
    let (router, capture) = start([Input::tcp("127.0.0.1:0"), Input::udp("127.0.0.1:0")]);
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let address = router.addresses()[1].strip_prefix("udp://").expect("a udp address").to_owned();
    let mut streams: Vec<TcpStream> = (0..5).map(|_| tcp(&router)).collect();
    for n in 0..20 {
        for stream in &mut streams {
            stream.write_all(format!("{}\n", message(n)).as_bytes()).expect("sent");
        }
        datagrams.send_to(message(n).as_bytes(), &address).expect("sent");
    }
    drop(streams);
    let counters = router.shutdown(PATIENCE);
    assert_eq!((counters.received, capture.messages().len()), (120, 120));
    assert_eq!(counters.outputs[0].delivered, 120);
}

#[test]
fn a_shutdown_reads_a_connection_until_its_client_closes_it() {
    let (router, capture) = start([Input::tcp("127.0.0.1:0")]);
    let mut client = tcp(&router);
    client.write_all(format!("{}\n", message("before")).as_bytes()).expect("sent");
    assert_eq!(payloads(&capture, 1), ["before"]);
    let shutdown = std::thread::spawn(move || router.shutdown(PATIENCE));
    let address = client.peer_addr().expect("connected");
    eventually("nobody listens any more", || TcpStream::connect(address).is_err());
    client.write_all(message("after").as_bytes()).expect("sent");
    drop(client);
    assert!(shutdown.join().expect("no panic").received >= 2);
    assert_eq!(payloads(&capture, 2), ["before", "after"]);
}

#[test]
fn a_shutdown_does_not_wait_beyond_its_deadline_for_a_client_that_stays() {
    let (router, _capture) = start([Input::tcp("127.0.0.1:0")]);
    let client = tcp(&router);
    eventually("the connection is open", || router.counters().inputs[0].open == 1);
    let began = Instant::now();
    let counters = router.shutdown(Duration::from_millis(50));
    assert!(began.elapsed() < PATIENCE);
    assert_eq!(counters.inputs[0].open, 0);
    drop(client);
}

/// A directory for one test, removed at its end.
#[cfg(unix)]
struct Directory(std::path::PathBuf);

#[cfg(unix)]
impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("metlog-inputs-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("made");
        Directory(path)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }
}

#[cfg(unix)]
impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
