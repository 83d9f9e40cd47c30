//! A receiver made of a socket and a script: what it is sent is kept byte for byte, and what it answers may be anything.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::super::super::framing::Framing;
use super::super::support::{at_once, batch_of, soon, Directory};
use super::super::Limits;
use super::*;

/// A request as it came: its connection's number, its head and its body.
#[derive(Debug)]
struct Seen {
    connection: usize,
    head: String,
    body: Vec<u8>,
    at: Instant,
}

impl Seen {
    fn lines(&self) -> Vec<&str> {
        std::str::from_utf8(&self.body).unwrap().lines().collect()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

struct Server {
    port: u16,
    seen: Receiver<Seen>,
}

impl Server {
    /// Gives each request the answer that `script` has for it; `None` closes the connection instead.
    fn answering(mut script: impl FnMut(&Seen) -> Option<Vec<u8>> + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, seen) = crossbeam_channel::unbounded();
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let mut stream = BufReader::new(stream.unwrap());
                while let Some(request) = read(&mut stream, connection) {
                    let answer = script(&request);
                    let closes = answer.as_deref().is_some_and(is_last);
                    if tell.send(request).is_err() {
                        return;
                    }
                    match answer {
                        Some(answer) if stream.get_mut().write_all(&answer).is_ok() && !closes => {}
                        _ => break,
                    }
                }
            }
        });
        Server { port, seen }
    }

    /// Gives the answers in turn, and 200 from then on.
    fn with(answers: &[&str]) -> Server {
        let mut answers: Vec<_> = answers.iter().rev().map(|answer| answer.to_string()).collect();
        Server::answering(move |_| Some(answers.pop().unwrap_or_else(ok).into_bytes()))
    }

    fn client(&self, options: &str) -> Box<dyn Transport> {
        client(&format!("http://127.0.0.1:{}/in/put{options}", self.port))
    }

    fn next(&self) -> Seen {
        self.seen.recv_timeout(Duration::from_secs(20)).expect("a request")
    }
}

/// Whether nothing can follow this answer on its connection.
fn is_last(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    text.contains("Connection: close") || text.contains("HTTP/1.0") || text.contains("short")
}

fn client(address: &str) -> Box<dyn Transport> {
    address.parse::<Address>().unwrap().open(Limits::default()).unwrap().unwrap()
}

fn ok() -> String {
    status("200 OK")
}

fn status(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
}

fn read(stream: &mut BufReader<TcpStream>, connection: usize) -> Option<Seen> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut seen = Seen { connection, head, body: Vec::new(), at: Instant::now() };
    let length: usize = seen.header("content-length").expect("a length").parse().unwrap();
    seen.body = vec![0; length];
    stream.read_exact(&mut seen.body).ok()?;
    Some(seen)
}

fn numbered(count: usize) -> Batch {
    batch_of(Framing::Newline, &(0..count).map(|number| format!("{{\"n\":{number}}}")).collect::<Vec<_>>())
}

#[test]
fn each_batch_is_one_request_of_lines_and_all_use_one_connection() {
    let server = Server::with(&[]);
    let mut transport = server.client("");
    for _ in 0..3 {
        let mut batch = numbered(3);
        transport.send(&mut batch, soon()).unwrap();
        assert_eq!(batch.take_account(), (3, vec![]));
        let seen = server.next();
        assert_eq!(
            (seen.connection, seen.body.as_slice()),
            (0, b"{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n".as_slice())
        );
        assert!(seen.head.starts_with("POST /in/put HTTP/1.1\r\n"), "{}", seen.head);
        assert_eq!(seen.header("content-type"), Some("application/x-ndjson"));
        assert_eq!((seen.header("content-encoding"), seen.header("expect")), (None, None));
    }
}

#[test]
fn gzip_and_another_type_are_used_when_asked_for_and_say_so() {
    let server = Server::with(&[]);
    let mut batch = numbered(1000);
    let sent = batch.remaining().to_vec();
    server.client("?gzip=true&content-type=json").send(&mut batch, soon()).unwrap();
    let seen = server.next();
    assert_eq!(seen.header("content-encoding"), Some("gzip"));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(seen.body.as_slice()).read_to_end(&mut unpacked).unwrap();
    assert!(unpacked == sent && seen.body.len() < sent.len() / 3);
}

#[test]
fn a_batch_larger_than_a_request_may_be_goes_in_several_and_a_long_message_alone() {
    let server = Server::with(&[]);
    let long = "x".repeat(100);
    let mut batch = batch_of(Framing::Newline, &["1234567", "1234567", "12345678", &long, "1"]);
    server.client("?batch=16").send(&mut batch, soon()).unwrap();
    assert_eq!(batch.take_account().0, 5);
    let sizes: Vec<_> = (0..4).map(|_| server.next().lines().len()).collect();
    assert_eq!(sizes, [2, 1, 1, 1]);
}

#[test]
fn a_receiver_that_is_in_trouble_gets_the_same_request_again() {
    for trouble in ["408 Request Timeout", "429 Too Many Requests", "500 Oh", "502 Bad Gateway", "503 Wait"] {
        let server = Server::with(&[&status(trouble)]);
        let (mut transport, mut batch) = (server.client(""), numbered(3));
        let error = transport.send(&mut batch, soon()).unwrap_err();
        assert!(error.to_string().starts_with(&trouble[..3]) && !socket::is_deadline(&error), "{error}");
        assert_eq!((batch.len(), batch.take_account()), (3, (0, vec![])));
        assert_eq!(batch.unconfirmed(), 0, "to be written again");
        transport.send(&mut batch, soon()).unwrap();
        assert_eq!(batch.take_account(), (3, vec![]));
        assert_eq!(server.next().body, server.next().body);
    }
}

#[test]
fn retry_after_is_respected_whoever_is_in_a_hurry() {
    let answer = "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    let server = Server::with(&[answer]);
    let (mut transport, mut batch) = (server.client(""), numbered(1));
    let error = transport.send(&mut batch, soon()).unwrap_err();
    assert!(error.to_string().contains("pause of 1 s"), "{error}");
    assert!(socket::is_deadline(&transport.send(&mut batch, at_once()).unwrap_err()), "slow, not down");
    transport.send(&mut batch, soon()).unwrap();
    let (first, second) = (server.next().at, server.next().at);
    assert!(second - first >= Duration::from_secs(1), "{:?}", second - first);
}

#[test]
fn a_request_that_takes_longer_than_a_call_is_waited_for_and_not_made_twice() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let server = Server::answering(move |_| {
        let _ = released.recv();
        Some(ok().into_bytes())
    });
    let (mut transport, mut batch) = (server.client(""), numbered(3));
    for _ in 0..4 {
        assert!(socket::is_deadline(&transport.send(&mut batch, at_once()).unwrap_err()));
        assert_eq!((batch.len(), batch.unconfirmed()), (3, 3), "written, and not confirmed");
    }
    drop(release);
    transport.send(&mut batch, soon()).unwrap();
    assert_eq!(batch.take_account(), (3, vec![]));
    server.next();
    assert!(server.seen.try_recv().is_err(), "one request");
}

#[test]
fn a_late_answer_for_a_batch_that_was_given_up_is_not_taken_for_the_next_ones() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let mut first = true;
    let server = Server::answering(move |_| {
        if !std::mem::take(&mut first) {
            return Some(status("503 Busy").into_bytes());
        }
        let _ = released.recv();
        Some(ok().into_bytes())
    });
    let mut transport = server.client("");
    assert!(socket::is_deadline(&transport.send(&mut numbered(2), at_once()).unwrap_err()));
    let mut next = batch_of(Framing::Newline, &["{\"other\":1}", "{\"other\":2}"]);
    assert!(socket::is_deadline(&transport.send(&mut next, at_once()).unwrap_err()));
    drop(release);
    let error = transport.send(&mut next, soon()).unwrap_err();
    assert!(error.to_string().starts_with("503"), "{error}");
    assert_eq!(next.take_account(), (0, vec![]));
}

#[test]
fn a_413_splits_the_batch_until_it_fits_and_costs_only_the_message_that_never_does() {
    let server = Server::answering(|seen| {
        Some(if seen.body.len() > 50 { status("413 Content Too Large") } else { ok() }.into_bytes())
    });
    let long = "x".repeat(60);
    let messages: Vec<_> =
        (0..20).map(|n| if n == 7 { long.clone() } else { format!("message {n:02}") }).collect();
    let mut batch = batch_of(Framing::Newline, &messages);
    server.client("").send(&mut batch, soon()).unwrap();
    assert_eq!(batch.take_account(), (19, vec![(LossReason::TooLarge, 1)]));
    let mut taken = Vec::new();
    for seen in server.seen.try_iter().filter(|seen| seen.body.len() <= 50) {
        taken.extend(seen.lines().iter().map(|line| line.to_string()));
    }
    let expected: Vec<_> = messages.into_iter().filter(|message| message.len() < 60).collect();
    assert_eq!(taken, expected, "each once and in order");
}

#[test]
fn a_413_for_two_messages_costs_neither() {
    let server = Server::answering(|seen| {
        Some(if seen.lines().len() > 1 { status("413 Content Too Large") } else { ok() }.into_bytes())
    });
    let mut batch = numbered(2);
    server.client("").send(&mut batch, soon()).unwrap();
    assert_eq!(batch.take_account(), (2, vec![]));
}

#[test]
fn a_size_that_was_halved_is_tried_again_after_a_while() {
    let mut size = Size { most: 1000, now: 1000, taken: 0 };
    size.was_too_large(900);
    assert_eq!(size.now, 450);
    (0..PROBE_AFTER - 1).for_each(|_| size.was_taken());
    assert_eq!(size.now, 450);
    size.was_taken();
    assert_eq!(size.now, 900);
    (0..PROBE_AFTER).for_each(|_| size.was_taken());
    assert_eq!(size.now, 1000);
    size.was_too_large(1);
    assert_eq!(size.now, 1);
}

#[test]
fn a_refused_request_costs_its_messages_and_says_why() {
    for refusal in
        ["400 Bad Request", "401 Unauthorized", "403 Forbidden", "404 Not Found", "415 What", "302 Found"]
    {
        let answer = format!("HTTP/1.1 {refusal}\r\nContent-Length: 9\r\nLocation: /x\r\n\r\nnot\x1b[31m!");
        let server = Server::with(&[&answer]);
        let (mut transport, mut batch) = (server.client(""), numbered(3));
        let error = transport.send(&mut batch, soon()).unwrap_err().to_string();
        assert!(
            error.starts_with(&refusal[..3]) && error.contains("3 messages are refused and lost (rejected)"),
            "{error}"
        );
        assert!(error.contains("not\\u{1b}[31m!"), "what it said, and no colours: {error}");
        assert_eq!(batch.take_account(), (0, vec![(LossReason::Rejected, 3)]));
        let mut next = numbered(2);
        transport.send(&mut next, soon()).unwrap();
        assert_eq!(next.take_account(), (2, vec![]));
        assert_eq!(
            (server.next().lines().len(), server.next().lines().len()),
            (3, 2),
            "no redirect is followed"
        );
    }
}

#[test]
fn headers_come_from_a_file_that_is_read_for_each_request_and_their_values_are_never_told() {
    let directory = Directory::new();
    let path = directory.file("headers");
    std::fs::write(&path, "Authorization: Bearer first-secret\nX-Scope: a\n").unwrap();
    let refusal = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 27\r\n\r\nbad token: second-secret ..";
    let server = Server::with(&[&ok(), refusal]);
    let mut transport = server.client(&format!("?header-file={}", path.display()));
    transport.send(&mut numbered(1), soon()).unwrap();
    let seen = server.next();
    assert_eq!(
        (seen.header("authorization"), seen.header("x-scope")),
        (Some("Bearer first-secret"), Some("a"))
    );
    std::fs::write(&path, "Authorization: Bearer second-secret\n").unwrap();
    let error = transport.send(&mut numbered(1), soon()).unwrap_err().to_string();
    assert_eq!(server.next().header("authorization"), Some("Bearer second-secret"));
    assert!(error.starts_with("401 Unauthorized:") && !error.contains("secret"), "{error}");

    std::fs::remove_file(&path).unwrap();
    let mut batch = numbered(1);
    let error = transport.send(&mut batch, soon()).unwrap_err().to_string();
    assert!(error.contains("header-file") && error.contains("headers\""), "{error}");
    assert_eq!(batch.len(), 1, "a token that is being changed costs no message");
}

#[test]
fn a_header_file_that_is_not_there_is_an_error_before_anything_is_sent() {
    let address: Address = "http://127.0.0.1:1/?header-file=/nowhere/token".parse().unwrap();
    let error = address.open(Limits::default()).err().expect("an error").to_string();
    assert!(
        error.contains("header-file \"/nowhere/token\"") && error.contains("Authorization: Bearer"),
        "{error}"
    );
    let address: Address = "http://127.0.0.1:1/?header-env=METLOG_TEST_NOT_SET".parse().unwrap();
    let error = address.open(Limits::default()).err().expect("an error").to_string();
    assert!(error.contains("header-env METLOG_TEST_NOT_SET"), "{error}");
}

#[test]
fn nonsense_for_an_answer_means_that_nothing_was_confirmed_and_the_same_batch_again() {
    let endless = format!("HTTP/1.1 200 OK\r\n{}", "X-More: and more\r\n".repeat(10_000));
    for nonsense in [
        "garbage\r\n\r\n",
        "HTTP/1.1 20x OK\r\n\r\n",
        "HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        "\0\u{1}\u{2}\u{3}",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "",
        &endless,
    ] {
        let (mut answers, nonsense) = (0, nonsense.as_bytes().to_vec());
        let told = String::from_utf8_lossy(&nonsense[..nonsense.len().min(40)]).into_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                while read(&mut stream, 0).is_some() {
                    answers += 1;
                    let answer = if answers == 1 { nonsense.clone() } else { ok().into_bytes() };
                    let _ = stream.get_mut().write_all(&answer);
                    if answers == 1 {
                        break;
                    }
                }
            }
        });
        let mut transport = client(&format!("http://127.0.0.1:{port}/?timeout=5"));
        let mut batch = numbered(2);
        match transport.send(&mut batch, soon()) {
            Err(error) => {
                assert!(!socket::is_deadline(&error), "{told:?}: {error}");
                assert_eq!((batch.len(), batch.take_account()), (2, (0, vec![])), "{told:?}");
                transport.send(&mut batch, soon()).unwrap_or_else(|error| panic!("{told:?}: {error}"));
            }
            Ok(()) => panic!("{told:?} was taken for a confirmation"),
        }
        assert_eq!(batch.take_account(), (2, vec![]), "{told:?}");
    }
}

#[test]
fn answers_that_come_before_the_answer_and_broken_bodies_after_it_do_no_harm() {
    for answer in [
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\nnonsense\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nuntil the end",
    ] {
        let mut answers = vec![answer];
        let server = Server::answering(move |_| match answers.pop() {
            Some(answer) => Some(answer.as_bytes().to_vec()),
            None => Some(ok().into_bytes()),
        });
        let mut transport = server.client("?timeout=5");
        let mut batch = numbered(2);
        transport.send(&mut batch, soon()).unwrap_or_else(|error| panic!("{answer:?}: {error}"));
        assert_eq!(batch.take_account(), (2, vec![]), "{answer:?}");
    }
}

#[test]
fn a_body_that_never_comes_after_its_status_holds_the_next_request_up_for_little() {
    let server = Server::with(&["HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"]);
    let mut transport = server.client("?timeout=3600");
    for connection in 0..2 {
        let mut batch = numbered(1);
        transport.send(&mut batch, soon()).unwrap();
        assert_eq!((batch.take_account().0, server.next().connection), (1, connection));
    }
}

#[test]
fn a_receiver_that_never_answers_is_down_when_the_timeout_is_over() {
    let (_release, released) = crossbeam_channel::bounded::<()>(0);
    let server = Server::answering(move |_| {
        let _ = released.recv();
        None
    });
    let (mut transport, mut batch) = (server.client("?timeout=1"), numbered(2));
    let begun = Instant::now();
    let error = transport.send(&mut batch, soon()).unwrap_err();
    assert!(!socket::is_deadline(&error) && error.to_string().contains("no answer in time"), "{error}");
    assert!((Duration::from_millis(900)..Duration::from_secs(10)).contains(&begun.elapsed()));
    assert_eq!(batch.len(), 2);
}

#[test]
fn a_receiver_that_is_not_there_and_a_name_without_address_are_down_and_named() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = client(&format!("http://127.0.0.1:{port}/")).send(&mut numbered(1), soon()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    let error = client("http://router.invalid/?timeout=10").send(&mut numbered(1), soon()).unwrap_err();
    assert!(!socket::is_deadline(&error), "{error}");
}

#[test]
fn a_receiver_that_closes_its_connections_gets_new_ones_without_a_failure() {
    let closing = Server::answering(|seen| {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        (seen.connection < 9).then(|| answer.as_bytes().to_vec())
    });
    let mut transport = closing.client("");
    for connection in 0..3 {
        transport.send(&mut numbered(1), soon()).unwrap();
        assert_eq!(closing.next().connection, connection);
    }
}
