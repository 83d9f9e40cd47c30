//! What the router answers to HTTP requests, from friends and from enemies. Requests are bytes on a socket, and
//! answers are read byte by byte.
#![cfg(all(feature = "router", feature = "http"))]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tracing_metlog::router::{
    Capture, Config, HttpOutput, Input, MalformedReason, Matcher, Output, Route, Router,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn start(input: Input) -> (Router, Capture) {
    let (output, capture) = Output::capture();
    let config = Config::new().input(input).route(Route::new(Matcher::any(), output));
    (Router::start(config).expect("starts"), capture)
}

fn http() -> Input {
    Input::http("127.0.0.1:0")
}

fn connect(router: &Router) -> TcpStream {
    let address = router.addresses()[0].strip_prefix("http://").expect("an http address");
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream
}

fn message(n: usize) -> String {
    format!(r#"{{"type": "oldstyle", "payload": "{n}"}}"#)
}

fn post(body: &[u8], headers: &str) -> Vec<u8> {
    let head =
        format!("POST /any/path HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The next answer: its status, its head and its body.
fn answer(stream: &mut TcpStream) -> (u16, String, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).expect("an answer in time"), 1, "it ends after {head:?}");
        head.push(byte[0] as char);
    }
    let length = head.to_lowercase();
    let length = length
        .split("content-length: ")
        .nth(1)
        .map_or("0", |rest| rest.split("\r\n").next().expect("a line"));
    let mut body = vec![0; length.parse().expect("a number")];
    stream.read_exact(&mut body).expect("the body");
    (head[9..12].parse().expect("a status"), head, String::from_utf8(body).expect("text"))
}

fn ask(stream: &mut TcpStream, request: &[u8]) -> (u16, String, String) {
    stream.write_all(request).expect("sent");
    answer(stream)
}

fn payloads(capture: &Capture) -> Vec<String> {
    capture.messages().iter().map(|message| message.payload.to_string()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("packed");
    encoder.finish().expect("packed")
}

#[test]
fn an_answer_200_says_that_every_message_of_the_body_is_at_its_output() {
    let (router, capture) = start(http());
    let mut stream = connect(&router);
    for request in 0..3 {
        let body = format!("{}\n{}\r\n\n", message(request * 2), message(request * 2 + 1));
        assert_eq!(ask(&mut stream, &post(body.as_bytes(), "")).0, 200);
        let expected: Vec<_> = (0..=request * 2 + 1).map(|n| n.to_string()).collect();
        assert_eq!(payloads(&capture), expected, "at once, without waiting");
    }
    drop(stream);
    let counters = router.shutdown(PATIENCE);
    assert_eq!((counters.received, counters.inputs[0].connections, counters.types["oldstyle"]), (6, 1, 6));
    assert_eq!((counters.outputs[0].delivered, counters.inputs[0].errors), (6, 0));
}

#[test]
fn chunks_gzip_and_requests_sent_without_waiting_for_answers_are_understood() {
    let (router, capture) = start(http());
    let mut stream = connect(&router);
    let chunked = format!(
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\n{}\r\n{:X}\r\n{}\r\n0\r\nTrailer: x\r\n\r\n",
        &message(0)[..5],
        message(0).len() - 5,
        &message(0)[5..],
    );
    let packed =
        post(&gzip(format!("{}\n{}", message(1), message(2)).as_bytes()), "Content-Encoding: gzip\r\n");
    stream
        .write_all(&[chunked.as_bytes(), &packed, &post(message(3).as_bytes(), "")].concat())
        .expect("sent");
    for _ in 0..3 {
        assert_eq!(answer(&mut stream).0, 200);
    }
    assert_eq!(payloads(&capture), ["0", "1", "2", "3"]);
}

#[test]
fn a_client_that_waits_for_a_word_before_it_sends_the_body_gets_one() {
    let (router, capture) = start(http().max_body_bytes(1000));
    let mut stream = connect(&router);
    let request = post(message(0).as_bytes(), "Expect: 100-continue\r\n");
    let (head, body) = request.split_at(request.len() - message(0).len());
    assert_eq!(ask(&mut stream, head).0, 100);
    assert_eq!(ask(&mut stream, body).0, 200);
    assert_eq!(payloads(&capture), ["0"]);
    let head = "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n";
    assert_eq!(ask(&mut stream, head.as_bytes()).0, 413, "and no word if the body would be too long");
}

#[test]
fn one_bad_line_refuses_the_whole_body_and_is_named() {
    let (router, capture) = start(http());
    let mut stream = connect(&router);
    let body = format!("{}\n\n{{\"no\": \"type\"}}\n{}\n", message(0), message(1));
    let (status, _, text) = ask(&mut stream, &post(body.as_bytes(), ""));
    assert_eq!((status, text.as_str()), (400, "line 3: type: missing\n"));
    assert_eq!(ask(&mut stream, &post(message(2).as_bytes(), "")).0, 200, "the connection goes on");
    assert_eq!(payloads(&capture), ["2"]);
    let counters = router.counters();
    assert_eq!((counters.received, counters.inputs[0].bad_requests), (1, 1));
    assert_eq!(counters.malformed[&MalformedReason::MissingType], 1);
}

#[test]
fn what_is_too_long_is_refused_with_413_after_it_was_read_and_a_bomb_is_not_unpacked() {
    let (router, capture) = start(http().max_body_bytes(10_000).max_message_bytes(100));
    let mut stream = connect(&router);
    let bomb = gzip(&vec![b'\n'; 100_000_000]);
    assert!(bomb.len() > 10_000);
    let bomb = gzip(&vec![b'\n'; 5_000_000]);
    assert!(bomb.len() < 10_000);
    for (body, headers) in [
        (vec![b'x'; 1_000_000], ""),
        (bomb, "Content-Encoding: gzip\r\n"),
        (format!("{}\n{}", message(0), "x".repeat(101)).into_bytes(), ""),
    ] {
        assert_eq!(ask(&mut stream, &post(&body, headers)).0, 413);
    }
    assert_eq!(ask(&mut stream, &post(message(1).as_bytes(), "")).0, 200);
    let chunk = format!("1388\r\n{}\r\n", "\n".repeat(0x1388));
    let chunks = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(3));
    assert_eq!(ask(&mut stream, chunks.as_bytes()).0, 413);
    assert_eq!(payloads(&capture), ["1"]);
}

#[test]
fn a_client_with_a_bad_request_is_told_and_the_next_client_is_served() {
    let (router, capture) = start(http());
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        ("garbage\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\n\r\n", 411),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx", 415),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nxxxx", 400),
    ] {
        let mut stream = connect(&router);
        assert_eq!(ask(&mut stream, request.as_bytes()).0, status, "{request:?}");
    }
    // Its answer reaches a client that goes on sending.
    let long = format!("POST / HTTP/1.1\r\n\r\n{}", "x".repeat(500_000));
    assert_eq!(ask(&mut connect(&router), long.as_bytes()).0, 411);
    let endless = format!("POST / HTTP/1.1\r\n{}", "X-More: and more\r\n".repeat(3_000));
    let mut stream = connect(&router);
    assert_eq!(ask(&mut stream, endless.as_bytes()).0, 431);
    for end in [0, 1, 30, 60] {
        let request = post(message(0).as_bytes(), "");
        connect(&router).write_all(&request[..end]).expect("sent");
    }
    assert_eq!(ask(&mut connect(&router), &post(message(1).as_bytes(), "")).0, 200);
    assert_eq!(payloads(&capture), ["1"]);
}

/// An output that stands still until it is told to go on.
fn gate() -> (Output, impl Fn()) {
    let open = Arc::new((Mutex::new(false), Condvar::new()));
    let opened = Arc::clone(&open);
    let output = Output::function(move |_| {
        let guard = open.0.lock().expect("whole");
        drop(open.1.wait_while(guard, |open| !*open).expect("whole"));
    });
    (output, move || {
        *opened.0.lock().expect("whole") = true;
        opened.1.notify_all();
    })
}

#[test]
fn an_output_that_stands_still_means_503_and_a_later_try_is_taken() {
    let (output, open) = gate();
    let (other, capture) = Output::capture();
    let config = Config::new().input(http().max_body_bytes(10_000_000));
    let config = config.route(Route::new(Matcher::any(), output)).route(Route::new(Matcher::any(), other));
    let router = Router::start(config).expect("starts");
    let body = (0..8).map(|n| format!("{{\"type\":\"x\",\"payload\":\"{n}{}\"}}\n", "y".repeat(1_000_000)));
    let body: String = body.collect();
    let request = post(body.as_bytes(), "");
    let begun = Instant::now();
    let (status, head, _) = ask(&mut connect(&router), &request);
    assert_eq!(status, 503);
    assert!(head.contains("Retry-After: 1\r\n"), "{head}");
    assert!(begun.elapsed() >= Duration::from_secs(4), "it was waited for");
    // Two such bodies fill the queue; from then on nothing is taken, by no output.
    assert_eq!(ask(&mut connect(&router), &request).0, 503);
    let others = capture.messages().len();
    let begun = Instant::now();
    assert_eq!(ask(&mut connect(&router), &request).0, 503);
    assert!(begun.elapsed() < Duration::from_secs(4), "a full queue is not waited for");
    assert_eq!(capture.messages().len(), others, "all outputs or none");
    open();
    let deadline = Instant::now() + PATIENCE;
    while ask(&mut connect(&router), &request).0 != 200 {
        assert!(Instant::now() < deadline, "never taken");
    }
    let counters = router.shutdown(PATIENCE);
    assert_eq!((counters.received, counters.outputs[0].dropped, counters.outputs[1].dropped), (8, 0, 0));
    assert!(counters.inputs[0].busy >= 3);
}

#[test]
fn an_output_that_is_away_holds_no_client_up_and_gives_the_others_nothing_twice() {
    let (output, capture) = Output::capture();
    // Nobody listens there: the socket that had the port is closed.
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("binds").port();
    let away = HttpOutput::new(format!("http://127.0.0.1:{port}"));
    let config = Config::new().input(http()).route(Route::new(Matcher::any(), output));
    let router = Router::start(config.route(Route::new(Matcher::any(), away.into()))).expect("starts");
    let begun = Instant::now();
    for n in 0..3 {
        assert_eq!(ask(&mut connect(&router), &post(message(n).as_bytes(), "")).0, 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(payloads(&capture).len(), 3);
    let counters = router.shutdown(Duration::ZERO);
    assert_eq!((counters.received, counters.outputs[0].delivered, counters.outputs[1].delivered), (3, 3, 0));
}

#[test]
fn a_message_that_was_refused_is_no_duplicate_when_it_comes_again_and_one_that_was_taken_is() {
    let (output, open) = gate();
    let (other, capture) = Output::capture();
    let config = Config::new().input(http()).route(Route::new(Matcher::type_is("slow"), output));
    let router = Router::start(config.route(Route::new(Matcher::any(), other))).expect("starts");
    let body = |kind: &str, number: u64| {
        let fields = format!(r#"{{"metlog_id": "0123456789abcdef-1-18ab000000000000-{number}"}}"#);
        post(format!(r#"{{"type": "{kind}", "payload": "{number}", "fields": {fields}}}"#).as_bytes(), "")
    };
    let mut stream = connect(&router);
    assert_eq!(ask(&mut stream, &body("slow", 1)).0, 503);
    open();
    for (kind, number) in [("slow", 1), ("slow", 1), ("quick", 2), ("quick", 2), ("quick", 3)] {
        assert_eq!(ask(&mut stream, &body(kind, number)).0, 200);
    }
    // The first was written although its client was told to come again.
    assert_eq!(payloads(&capture), ["1", "1", "2", "3"]);
    let counters = router.shutdown(PATIENCE);
    assert_eq!((counters.received, counters.duplicates, counters.types["quick"]), (5, 2, 2));
}

#[test]
fn bodies_share_their_room_unpacked_and_who_finds_none_is_told_to_come_again() {
    const ROOM: usize = 16 * 1024 * 1024;
    let (entered, has_entered) = std::sync::mpsc::channel();
    let (open, is_open) = std::sync::mpsc::channel::<()>();
    let output = Output::function(move |_| {
        let _ = (entered.send(()), is_open.recv());
    });
    let config = Config::new().input(http().max_body_bytes(ROOM)).route(Route::new(Matcher::any(), output));
    let router = Router::start(config).expect("starts");
    // One message and blanks: little on the wire and in the queue, and all of the room.
    let mut body = (message(0) + "\n").into_bytes();
    body.resize(ROOM, b' ');
    let whole = post(&gzip(&body), "Content-Encoding: gzip\r\n");
    let small = post(message(1).as_bytes(), "");
    let small_packed = post(&gzip(message(2).as_bytes()), "Content-Encoding: gzip\r\n");
    let (mut first, mut second) = (connect(&router), connect(&router));
    first.write_all(&whole).expect("sent");
    has_entered.recv_timeout(PATIENCE).expect("the output has the message, and the request all of the room");
    for request in [&small, &small_packed] {
        let (status, head, text) = ask(&mut second, request);
        assert_eq!((status, text.as_str()), (503, "too many bytes of other requests are in work\n"));
        assert!(head.contains("Retry-After: 1\r\n"), "{head}");
    }
    drop(open);
    assert_eq!(answer(&mut first).0, 200);
    for request in [&post(b"{}", ""), &small, &whole, &small_packed] {
        let expected = if request.ends_with(b"{}") { 400 } else { 200 };
        assert_eq!(ask(&mut second, request).0, expected, "its room was given back");
    }
    let counters = router.shutdown(PATIENCE);
    assert_eq!((counters.received, counters.inputs[0].busy, counters.outputs[0].dropped), (4, 2, 0));
}

#[test]
fn one_connection_too_many_is_answered_503() {
    let (router, _) = start(http().max_connections(1));
    let mut first = connect(&router);
    assert_eq!(ask(&mut first, &post(message(0).as_bytes(), "")).0, 200);
    assert_eq!(answer(&mut connect(&router)).0, 503);
    assert_eq!(ask(&mut first, &post(message(0).as_bytes(), "")).0, 200);
}

#[test]
fn a_client_that_says_nothing_is_closed_and_holds_no_shutdown_up() {
    let (router, _) = start(http().idle_deadline(Duration::from_millis(50)));
    let mut silent = connect(&router);
    assert_eq!(silent.read(&mut [0]).expect("an end"), 0);
    drop(router);

    let (router, capture) = start(http());
    let (mut idle, mut begun) = (connect(&router), connect(&router));
    assert_eq!(ask(&mut idle, &post(message(0).as_bytes(), "")).0, 200);
    let request = post(message(1).as_bytes(), "");
    begun.write_all(&request[..40]).expect("sent");
    let ending = std::thread::spawn(move || {
        let begun = Instant::now();
        router.shutdown(PATIENCE);
        begun.elapsed()
    });
    assert_eq!(idle.read(&mut [0]).expect("an end"), 0, "an idle connection is closed at once");
    let (status, head, _) = ask(&mut begun, &request[40..]);
    assert_eq!(status, 200, "a request that has begun is taken");
    assert!(head.contains("Connection: close"), "{head}");
    assert!(ending.join().expect("ends") < PATIENCE / 2);
    assert_eq!(payloads(&capture), ["0", "1"]);
}
