//! What the router lets its clients do, and that one client cannot do it at the cost of another. Every client is a real
//! socket.
#![cfg(all(feature = "router", unix))]

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use tracing_metlog::router::{
    Capture, Config, Input, Matcher, Network, Output, RefusedReason, Route, Router,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// A deadline that passes soon.
const SOON: Duration = Duration::from_millis(300);

fn start(input: Input) -> (Router, Capture) {
    let (output, capture) = Output::capture();
    let config = Config::new().input(input).route(Route::new(Matcher::any(), output));
    (Router::start(config).expect("starts"), capture)
}

fn tcp() -> Input {
    Input::tcp("127.0.0.1:0")
}

fn connect(router: &Router) -> TcpStream {
    let address = router.addresses()[0].split_once("://").expect("a URL").1;
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream
}

fn message(payload: impl std::fmt::Display) -> String {
    format!("{{\"type\": \"oldstyle\", \"payload\": \"{payload}\"}}\n")
}

fn payloads(capture: &Capture, count: usize) -> Vec<String> {
    capture.wait_for(count, PATIENCE).iter().map(|message| message.payload.to_string()).collect()
}

fn network(text: &str) -> Network {
    text.parse().expect(text)
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn refused(router: &Router, reason: RefusedReason) -> u64 {
    router.counters().inputs[0].refused_for.get(&reason).copied().unwrap_or(0)
}

/// Whether the other side has ended the connection, be it with a reset.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    }
}

#[test]
fn only_allowed_peers_are_read_over_tcp_and_the_others_are_closed_and_counted() {
    let (router, capture) = start(tcp().allow(network("127.0.0.2")).allow(network("10.0.0.0/8")));
    let mut stranger = connect(&router);
    assert!(is_closed(&mut stranger));
    assert_eq!(refused(&router, RefusedReason::NotAllowed), 1);
    let friend = bound("127.0.0.2", &router);
    (&friend).write_all(message("friend").as_bytes()).expect("sent");
    assert_eq!(payloads(&capture, 1), ["friend"]);
    drop(friend);
    let counters = router.shutdown(PATIENCE);
    assert_eq!((counters.inputs[0].connections, counters.inputs[0].refused, counters.received), (2, 1, 1));
    assert!(counters.to_string().contains("refused 1 (not_allowed 1)"), "{counters}");
}

/// A connection from that address of the loopback network.
fn bound(from: &str, router: &Router) -> TcpStream {
    use rustix::net::{bind, connect, socket, AddressFamily, SocketAddrV4, SocketType};
    let to: SocketAddrV4 = router.addresses()[0].split_once("://").expect("a URL").1.parse().expect("IPv4");
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("made");
    bind(&socket, &SocketAddrV4::new(from.parse().expect("IPv4"), 0)).expect("bound");
    connect(&socket, &to).expect("connects");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream
}

#[test]
fn only_allowed_peers_are_read_over_udp_and_each_datagram_of_others_is_counted() {
    let (router, capture) = start(Input::udp("127.0.0.1:0").allow(network("127.0.0.2/31")));
    let address = router.addresses()[0].strip_prefix("udp://").expect("udp").to_owned();
    for (from, payload) in [("127.0.0.1", 1), ("127.0.0.2", 2), ("127.0.0.3", 3), ("127.0.0.4", 4)] {
        let socket = UdpSocket::bind((from, 0)).expect("binds");
        socket.send_to(message(payload).as_bytes(), &address).expect("sent");
    }
    assert_eq!(payloads(&capture, 2), ["2", "3"]);
    eventually("both strangers are counted", || refused(&router, RefusedReason::NotAllowed) == 2);
    assert_eq!(router.shutdown(PATIENCE).received, 2);
}

#[test]
fn a_peer_of_ipv4_is_known_as_such_by_a_socket_of_ipv6() {
    for (allowed, is_served) in [("127.0.0.0/8", true), ("::/0", false), ("::ffff:127.0.0.1", true)] {
        let (router, capture) = start(Input::udp("[::]:0").allow(network(allowed)));
        let port = router.addresses()[0].rsplit_once(':').expect("a port").1.to_owned();
        let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
        socket.send_to(message("mapped").as_bytes(), format!("127.0.0.1:{port}")).expect("sent");
        match is_served {
            true => assert_eq!(payloads(&capture, 1), ["mapped"], "{allowed}"),
            false => eventually("it is refused", || refused(&router, RefusedReason::NotAllowed) == 1),
        }
    }
    let (router, capture) = start(Input::tcp("[::1]:0").allow(network("::1")));
    connect(&router).write_all(message("six").as_bytes()).expect("sent");
    assert_eq!(payloads(&capture, 1), ["six"]);
}

#[test]
fn a_limit_that_an_input_has_no_use_for_is_an_error_that_names_it() {
    let path = std::env::temp_dir().join(format!("metlog-limits-{}", std::process::id()));
    let everybody = network("0.0.0.0/0");
    for (input, key) in [
        (Input::unix(&path).allow(everybody), "allow"),
        (Input::unixgram(&path).allow(everybody), "allow"),
        (Input::unix(&path).max_connections_per_peer(1), "max_connections_per_peer"),
        (Input::udp("127.0.0.1:0").max_connections_per_peer(1), "max_connections_per_peer"),
        (Input::udp("127.0.0.1:0").message_deadline(SOON), "message_deadline"),
        (Input::unixgram(&path).idle_deadline(SOON), "idle_deadline"),
        (Input::udp("127.0.0.1:0").max_unfinished_bytes(1), "max_unfinished_bytes"),
        (tcp().receive_buffer_bytes(1), "receive_buffer_bytes"),
    ] {
        let expected = format!("cannot listen on {input}: {key}: ");
        let error = Router::start(Config::new().input(input)).expect_err(key).to_string();
        assert!(error.starts_with(&expected), "{error}");
        assert!(!path.exists());
    }
}

#[test]
fn a_message_that_never_ends_is_closed_at_the_deadline_and_a_quiet_connection_is_not() {
    let (router, capture) = start(tcp().message_deadline(SOON));
    let (mut quiet, mut silent, mut counted) = (connect(&router), connect(&router), connect(&router));
    quiet.write_all(message("before").as_bytes()).expect("sent");
    silent.write_all(b"{\"type\": \"never").expect("sent");
    counted.write_all(b"100 {\"type\": \"never").expect("sent");
    // One that sends something all the time has no more time than one that is silent.
    let trickle = connect(&router);
    let begun = Instant::now();
    let trickling = std::thread::spawn(move || {
        let mut trickle = trickle;
        while trickle.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
        begun.elapsed()
    });
    assert!(is_closed(&mut silent) && is_closed(&mut counted));
    assert!(begun.elapsed() >= SOON, "{:?}", begun.elapsed());
    let took = trickling.join().expect("no panic");
    assert!(took >= SOON && took < PATIENCE, "{took:?}");
    eventually("three are counted", || refused(&router, RefusedReason::TooSlow) == 3);
    quiet.write_all(message("after").as_bytes()).expect("sent");
    assert_eq!(payloads(&capture, 2), ["before", "after"], "long after the deadline");
    drop(quiet);
    let counters = router.shutdown(PATIENCE);
    assert_eq!((counters.received, counters.malformed_total()), (2, 3), "{counters}");
}

#[test]
fn a_connection_that_has_a_long_message_to_send_keeps_its_time_with_each_message() {
    let (router, capture) = start(tcp().message_deadline(SOON));
    let mut client = connect(&router);
    // Each message takes two thirds of the time, all of them much more.
    for number in 0..6 {
        let message = message(number);
        let (start, end) = message.split_at(10);
        client.write_all(start.as_bytes()).expect("sent");
        std::thread::sleep(SOON * 2 / 3);
        client.write_all(end.as_bytes()).expect("sent");
    }
    assert_eq!(payloads(&capture, 6).len(), 6);
    assert_eq!(refused(&router, RefusedReason::TooSlow), 0);
}

#[test]
fn a_message_without_its_newline_is_taken_at_the_deadline() {
    let (router, capture) = start(tcp().message_deadline(SOON));
    let mut client = connect(&router);
    client.write_all(message("whole").trim_end().as_bytes()).expect("sent");
    assert_eq!(payloads(&capture, 1), ["whole"]);
    assert!(is_closed(&mut client));
}

#[test]
fn the_idle_deadline_counts_from_the_last_byte_and_is_counted() {
    let (router, capture) = start(tcp().idle_deadline(SOON));
    let mut client = connect(&router);
    for number in 0..3 {
        std::thread::sleep(SOON / 2);
        client.write_all(message(number).as_bytes()).expect("sent");
    }
    assert!(is_closed(&mut client));
    assert_eq!(payloads(&capture, 3).len(), 3);
    let counters = router.counters();
    assert_eq!((counters.inputs[0].idle, counters.inputs[0].refused), (1, 0), "{counters}");
}

#[test]
fn who_only_connects_gives_way_to_a_newcomer_and_who_has_sent_a_message_does_not() {
    let (router, capture) = start(tcp().max_connections(3));
    let mut speaker = connect(&router);
    speaker.write_all(message("speaker").as_bytes()).expect("sent");
    assert_eq!(payloads(&capture, 1), ["speaker"]);
    let mut silent: Vec<TcpStream> = Vec::new();
    for open in [2, 3] {
        silent.push(connect(&router));
        eventually("it is in", || router.counters().inputs[0].open == open);
    }
    let mut newcomer = connect(&router);
    assert!(is_closed(&mut silent[0]), "the oldest that has said nothing goes");
    newcomer.write_all(message("newcomer").as_bytes()).expect("sent");
    assert_eq!(payloads(&capture, 2), ["speaker", "newcomer"]);
    silent[1].write_all(message("late").as_bytes()).expect("sent");
    assert_eq!(payloads(&capture, 3).last().map(String::as_str), Some("late"));
    // All have spoken now: there is no place.
    assert!(is_closed(&mut connect(&router)));
    speaker.write_all(message("still here").as_bytes()).expect("sent");
    assert_eq!(payloads(&capture, 4).last().map(String::as_str), Some("still here"));
    let refused_for = router.counters().inputs[0].refused_for.clone();
    assert_eq!(
        refused_for,
        [(RefusedReason::GaveWay, 1), (RefusedReason::TooManyConnections, 1)].into(),
        "{refused_for:?}"
    );
}

#[test]
fn one_peer_has_no_more_connections_than_it_may_and_another_one_finds_its_place() {
    let (router, capture) = start(tcp().max_connections_per_peer(2));
    let mut mine: Vec<TcpStream> = (0..2).map(|_| connect(&router)).collect();
    for (number, stream) in mine.iter_mut().enumerate() {
        stream.write_all(message(number).as_bytes()).expect("sent");
    }
    assert_eq!(payloads(&capture, 2).len(), 2);
    assert!(is_closed(&mut connect(&router)));
    assert_eq!(refused(&router, RefusedReason::TooManyFromPeer), 1);
    (&bound("127.0.0.9", &router)).write_all(message("other").as_bytes()).expect("sent");
    assert_eq!(payloads(&capture, 3)[2], "other");
    drop(mine);
    eventually("the places are free again", || router.counters().inputs[0].open == 0);
    connect(&router).write_all(message("again").as_bytes()).expect("sent");
    assert_eq!(payloads(&capture, 4)[3], "again");
}

#[test]
fn unfinished_messages_share_their_room_and_short_ones_always_fit() {
    const LONGEST: usize = 100_000;
    let input = tcp().max_message_bytes(LONGEST).max_unfinished_bytes(LONGEST);
    let (router, capture) = start(input);
    let greedy: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut stream = connect(&router);
            // Up to what each has of its own, and 40,000 bytes more.
            let _ = stream.write_all(&[b'x'; 16 * 1024 + 40_000]);
            stream
        })
        .collect();
    eventually("two of four find no room", || refused(&router, RefusedReason::NoRoom) == 2);
    let mut short = connect(&router);
    let (text, half) = (message("s".repeat(15_000)), 14_000);
    short.write_all(&text.as_bytes()[..half]).expect("sent");
    short.write_all(&text.as_bytes()[half..]).expect("sent");
    assert_eq!(payloads(&capture, 1).len(), 1);
    drop(greedy);
    eventually("all have gone", || router.counters().inputs[0].open <= 1);
    let long = message("l".repeat(LONGEST - 100));
    let (start, end) = long.as_bytes().split_at(LONGEST - 200);
    short.write_all(start).expect("sent");
    short.write_all(end).expect("sent");
    assert_eq!(payloads(&capture, 2).len(), 2, "the room was given back");
    drop(short);
    let counters = router.shutdown(PATIENCE);
    assert_eq!((counters.received, counters.malformed_total()), (2, 4), "{counters}");
}

#[cfg(target_os = "linux")]
#[test]
fn what_the_kernel_drops_is_counted_and_all_that_was_sent_is_accounted_for() {
    let input = Input::udp("127.0.0.1:0").receive_buffer_bytes(16 * 1024);
    // An output that stands still holds nothing up: it takes a router that does not read.
    let config = Config::new().input(input).route(Route::new(Matcher::any(), Output::null()));
    let router = Router::start(config).expect("starts");
    let address = router.addresses()[0].strip_prefix("udp://").expect("udp").to_owned();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let long = message("x".repeat(8_000));
    let mut sent = 0_u64;
    let deadline = Instant::now() + PATIENCE;
    while router.counters().inputs[0].kernel_dropped < 10 {
        assert!(Instant::now() < deadline, "the kernel has room for everything");
        for _ in 0..200 {
            socket.send_to(long.as_bytes(), &address).expect("sent");
        }
        sent += 200;
    }
    let counters = router.shutdown(PATIENCE);
    let input = &counters.inputs[0];
    assert_eq!(counters.received + input.kernel_dropped, sent, "{counters}");
    assert!((16 * 1024..64 * 1024).contains(&input.receive_buffer_bytes), "{counters}");
    assert!(counters
        .to_string()
        .contains(&format!(", kernel dropped {} (receive buffer ", input.kernel_dropped)));
}

#[cfg(feature = "http")]
mod http {
    use super::*;

    fn http() -> Input {
        Input::http("127.0.0.1:0")
    }

    fn post(body: &str) -> String {
        format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    /// Everything up to the end of the connection.
    fn rest(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        // A reset after the answer is an end too.
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8(bytes).expect("text")
    }

    fn status(stream: &mut TcpStream) -> String {
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("an answer");
        String::from_utf8_lossy(&head[9..]).into_owned()
    }

    #[test]
    fn a_head_or_a_body_that_never_ends_is_answered_408() {
        let (router, capture) = start(http().message_deadline(SOON));
        let whole = post(&message("x"));
        for end in [1, 20, whole.len() - 1] {
            let mut stream = connect(&router);
            let begun = Instant::now();
            stream.write_all(&whole.as_bytes()[..end]).expect("sent");
            let answer = rest(&mut stream);
            assert!(answer.starts_with("HTTP/1.1 408 "), "{end}: {answer}");
            assert!(begun.elapsed() >= SOON);
        }
        assert_eq!(refused(&router, RefusedReason::TooSlow), 3);
        let mut stream = connect(&router);
        stream.write_all(whole.as_bytes()).expect("sent");
        assert_eq!((status(&mut stream).as_str(), payloads(&capture, 1).len()), ("200", 1));
    }

    #[test]
    fn a_body_that_comes_at_64_kib_a_second_is_taken_however_long_it_is() {
        let (router, capture) = start(http().message_deadline(SOON));
        let mut stream = connect(&router);
        let body = message("x".repeat(100)).repeat(800);
        let request = post(&body);
        assert!(request.len() > 90 * 1024);
        let begun = Instant::now();
        // Twice as fast as it must be.
        for piece in request.as_bytes().chunks(4 * 1024) {
            stream.write_all(piece).expect("sent");
            std::thread::sleep(Duration::from_millis(30));
        }
        assert!(begun.elapsed() > SOON * 2);
        assert_eq!((status(&mut stream).as_str(), payloads(&capture, 800).len()), ("200", 800));
    }

    #[test]
    fn a_peer_with_too_many_connections_is_answered_429_and_others_503_and_who_is_not_allowed_nothing() {
        let (router, capture) =
            start(http().max_connections_per_peer(1).max_connections(2).allow(network("127.0.0.0/30")));
        let mut first = connect(&router);
        first.write_all(post(&message("first")).as_bytes()).expect("sent");
        assert_eq!(status(&mut first), "200");
        let answer = rest(&mut connect(&router));
        assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
        let mut second = bound("127.0.0.2", &router);
        second.write_all(post(&message("second")).as_bytes()).expect("sent");
        assert_eq!(status(&mut second), "200");
        let answer = rest(&mut bound("127.0.0.3", &router));
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
        assert_eq!(rest(&mut bound("127.0.0.4", &router)), "");
        assert_eq!(payloads(&capture, 2), ["first", "second"]);
        let refused_for = router.counters().inputs[0].refused_for.clone();
        let expected =
            [RefusedReason::NotAllowed, RefusedReason::TooManyConnections, RefusedReason::TooManyFromPeer];
        assert_eq!(refused_for, expected.map(|reason| (reason, 1)).into());
    }

    #[test]
    fn bodies_that_are_still_arriving_share_their_room_and_who_finds_none_is_answered_503() {
        const LONGEST: usize = 200_000;
        let (router, capture) = start(http().max_body_bytes(LONGEST).max_unfinished_bytes(LONGEST));
        let head = format!("POST / HTTP/1.1\r\nContent-Length: {LONGEST}\r\n\r\n");
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
        // Up to what each has of its own, and 90,000 bytes more.
        let half = vec![b' '; 64 * 1024 + 90_000];
        let mut clients: Vec<TcpStream> = Vec::new();
        for (head, chunk) in
            [(&head, String::new()), (&chunked, format!("{:x}\r\n", half.len())), (&head, String::new())]
        {
            let mut stream = connect(&router);
            // One of them may be told in the middle of it.
            let _ = stream.write_all(&[head.as_bytes(), chunk.as_bytes(), &half].concat());
            clients.push(stream);
        }
        eventually("one of three finds no room", || refused(&router, RefusedReason::NoRoom) == 1);
        clients.iter().for_each(|client| client.set_nonblocking(true).expect("set"));
        let is_answered = |client: &&mut TcpStream| client.peek(&mut [0]).is_ok();
        eventually("it is told", || clients.iter_mut().any(|client| is_answered(&client)));
        let mut answered: Vec<&mut TcpStream> = clients.iter_mut().filter(is_answered).collect();
        assert_eq!(answered.len(), 1);
        let mut answer = [0; 60];
        let length = answered[0].read(&mut answer).expect("an answer");
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After"), "{answer}");
        let mut small = connect(&router);
        small.write_all(post(&message("s".repeat(50_000))).as_bytes()).expect("sent");
        assert_eq!((status(&mut small).as_str(), payloads(&capture, 1).len()), ("200", 1));
    }
}

#[cfg(feature = "tls")]
mod tls {
    use std::path::PathBuf;
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::CertificateDer;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

    use super::*;

    /// A certificate that signs itself, and its key, in files that are gone at the end.
    struct Files(PathBuf, PathBuf);

    impl Files {
        fn make(name: &str) -> Self {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
            let path = |kind| {
                std::env::temp_dir().join(format!("metlog-limits-{name}-{kind}-{}", std::process::id()))
            };
            let files = Files(path("cert"), path("key"));
            std::fs::write(&files.0, made.cert.pem()).expect("written");
            std::fs::write(&files.1, made.signing_key.serialize_pem()).expect("written");
            files
        }

        /// An encrypted connection to the router.
        fn connect(&self, router: &Router) -> StreamOwned<ClientConnection, TcpStream> {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(&self.0).expect("read")).expect("a certificate");
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider);
            let config = config.with_safe_default_protocol_versions().expect("versions");
            let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
            let name = "localhost".try_into().expect("a name");
            StreamOwned::new(ClientConnection::new(config, name).expect("made"), connect(router))
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = (std::fs::remove_file(&self.0), std::fs::remove_file(&self.1));
        }
    }

    /// Sends a byte now and then until the other side has had enough; how long that took.
    fn trickle(mut stream: TcpStream) -> Duration {
        let begun = Instant::now();
        while stream.write_all(&[0]).is_ok() {
            assert!(begun.elapsed() < PATIENCE, "the router keeps the connection");
            std::thread::sleep(Duration::from_millis(20));
        }
        begun.elapsed()
    }

    #[test]
    fn a_handshake_or_a_record_that_never_ends_is_closed_at_the_deadline_and_a_quiet_connection_is_not() {
        let files = Files::make("slow");
        let (router, capture) = start(tcp().tls(&files.0, &files.1).message_deadline(SOON));
        let mut quiet = files.connect(&router);
        quiet.write_all(message("before").as_bytes()).expect("sent");
        assert_eq!(payloads(&capture, 1), ["before"]);

        assert!(is_closed(&mut connect(&router)), "it says nothing");
        let mut hello = connect(&router);
        // The beginning of a record of a handshake, of 512 bytes.
        hello.write_all(&[22, 3, 1, 2, 0]).expect("sent");
        trickle(hello);
        let mut record = files.connect(&router);
        record.write_all(message("whole").as_bytes()).expect("sent");
        assert_eq!(payloads(&capture, 2)[1], "whole");
        // The beginning of a record of data, of 16,000 bytes.
        let mut record = record.sock;
        record.write_all(&[23, 3, 3, 0x3e, 0x80]).expect("sent");
        assert!(trickle(record) >= SOON);
        eventually("three are counted", || refused(&router, RefusedReason::TooSlow) == 3);

        quiet.write_all(message("after").as_bytes()).expect("sent");
        assert_eq!(payloads(&capture, 3)[2], "after");
    }

    #[test]
    fn who_is_not_allowed_sees_nothing_of_the_handshake() {
        let files = Files::make("allow");
        let (router, _capture) = start(tcp().tls(&files.0, &files.1).allow(network("10.0.0.0/8")));
        let mut stranger = files.connect(&router);
        assert!(
            stranger.write_all(b"x").and_then(|()| stranger.flush()).is_err()
                || stranger.read(&mut [0]).is_err()
        );
        assert_eq!(refused(&router, RefusedReason::NotAllowed), 1);
    }
}
