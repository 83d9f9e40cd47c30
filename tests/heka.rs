//! Heka's frames over real sockets: what the client sends, byte for byte, and what the router takes.
#![cfg(all(unix, feature = "heka", feature = "router", feature = "tracing"))]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tracing_metlog::router::{Capture, Config, Input, MalformedReason, Matcher, Output, Route, Router};
use tracing_metlog::{Builder, Client, Encoding, Guard, Heka, HekaSigner, HmacHash, Severity};
use tracing_subscriber::layer::SubscriberExt;

const PATIENCE: Duration = Duration::from_secs(30);

/// What the Go client sent, without what only it can say (a field's `representation`) and without the bytes, which
/// a `Client` has no word for: unsigned, from the message's second key on.
const GOLDEN_BEFORE_PID: &str = "10959a8781afdbc1ea121a0574696d657222056d796170702806320234323a03302e3840";
const GOLDEN_AFTER_PID: &str = "4a0c686f73742e6578616d706c6552140a046e616d6510001a00220864622e71756572795214\
    0a047261746510031a003a08000000000000f03f52170a05636f756e7410021a00320afdffffffffffffffff01520b0a026f6b1004\
    1a00420101";

struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("metlog-heka-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("made");
        Directory(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn start(inputs: impl IntoIterator<Item = Input>) -> (Router, Capture) {
    let (output, capture) = Output::capture();
    let config = inputs.into_iter().fold(Config::new(), Config::input);
    let router = Router::start(config.route(Route::new(Matcher::any(), output))).expect("starts");
    (router, capture)
}

fn signer(hash: HmacHash) -> HekaSigner {
    HekaSigner::new("ops", 1, hash, "s3cr3t")
}

fn client(builder: Builder) -> (Client, Guard) {
    builder.hostname("host.example").logger("tests").build_client().expect("builds")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn varint(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn bound() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    let address = format!("udp://{}", socket.local_addr().expect("bound"));
    (socket, address)
}

fn received(socket: &UdpSocket) -> Vec<u8> {
    let mut space = vec![0; 70_000];
    let length = socket.recv(&mut space).expect("a datagram");
    space.truncate(length);
    space
}

/// The message of a frame, by its header; the frame is all there is.
fn message_of(frame: &[u8]) -> &[u8] {
    let header_end = usize::from(frame[1]) + 3;
    assert_eq!((frame[0], frame[2], frame[header_end - 1]), (0x1E, 0x08, 0x1F), "{}", hexadecimal(frame));
    // The length, two bytes long here, is the header's first value.
    let length = usize::from(frame[3] & 0x7F) | usize::from(frame[4]) << 7;
    assert_eq!(frame.len(), header_end + length, "a frame and nothing behind it");
    &frame[header_end..]
}

#[test]
fn a_message_of_a_client_is_the_go_clients_byte_for_byte_but_for_its_uuid() {
    let (socket, address) = bound();
    let (client, guard) = client(tracing_metlog::builder().router(format!("{address}?framing=heka")));
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_356_998_400_123_456_789);
    client
        .message("timer")
        .timestamp(time)
        .logger("myapp")
        .severity(Severity::Informational)
        .payload(42)
        .metric("db.query", 1.0)
        .field("count", -3)
        .field("ok", true)
        .send();
    assert_eq!(guard.flush(PATIENCE).pending, 0);
    let frame = received(&socket);
    let (uuid, rest) = message_of(&frame).split_at(18);
    assert_eq!((&uuid[..2], uuid[8] >> 4, uuid[10] >> 6), (&[0x0A, 16][..], 4, 2), "a UUID of version 4");
    let pid = hexadecimal(&varint(std::process::id()));
    assert_eq!(hexadecimal(rest), format!("{GOLDEN_BEFORE_PID}{pid}{}", GOLDEN_AFTER_PID));
}

#[test]
fn bytes_are_bytes_and_an_integer_rate_is_a_double() {
    let (socket, address) = bound();
    let builder = tracing_metlog::builder().router(address).encoding(Encoding::Heka(Heka::unsigned()));
    let (layer, guard) = builder.build().expect("builds");
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::info!(raw = &[0x00_u8, 0xFF][..], rate = 1, "said");
    });
    assert_eq!(guard.flush(PATIENCE).pending, 0);
    let frame = received(&socket);
    let has = |bytes: &[u8]| frame.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(b"\x0a\x03raw\x10\x01\x1a\x00\x2a\x02\x00\xff"), "{}", hexadecimal(&frame));
    assert!(has(b"\x0a\x04rate\x10\x03\x1a\x00\x3a\x08\0\0\0\0\0\0\xf0\x3f"), "{}", hexadecimal(&frame));
}

#[test]
fn datagrams_are_frames_alone_and_of_8192_bytes_at_most() {
    let (socket, address) = bound();
    let heka = Encoding::Heka(Heka::signed(signer(HmacHash::Sha1)));
    let (client, guard) = client(tracing_metlog::builder().router(address).encoding(heka));
    // Lengths close to each other: as JSON, these would be padded with blanks to be equally long.
    (0..64)
        .for_each(|number| client.message("oldstyle").payload("x".repeat(900 + number % 7).as_str()).send());
    client.message("oldstyle").payload("y".repeat(20_000).as_str()).field("kept", "k").send();
    assert_eq!(guard.flush(PATIENCE).pending, 0);
    for _ in 0..64 {
        message_of(&received(&socket));
    }
    let longest = received(&socket);
    message_of(&longest);
    assert!((8_180..=8_192).contains(&longest.len()), "{}", longest.len());
    let has = |bytes: &[u8]| longest.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(b"\x0a\x09truncated\x10\x04") && has(b"\x0a\x04kept"));
    assert_eq!(guard.finish().lost.total(), 0);
}

#[test]
fn what_arrives_in_frames_is_what_arrives_as_json_over_every_socket() {
    let directory = Directory::new();
    let known = |input: Input| input.signer(signer(HmacHash::Sha1)).require_signature(true);
    let inputs = || {
        [
            Input::udp("127.0.0.1:0"),
            Input::tcp("127.0.0.1:0"),
            Input::unix(directory.path("stream")),
            Input::unixgram(directory.path("datagrams")),
        ]
    };
    for number in 0..4 {
        let input = inputs().into_iter().nth(number).expect("an input");
        let (router, capture) = start([known(input)]);
        let (plain_router, plain) = start([Input::tcp("127.0.0.1:0")]);
        let key = directory.path("key");
        std::fs::write(&key, "s3cr3t\n").expect("written");
        let heka = format!("{}?framing=heka&signer=ops&key-file={}", router.addresses()[0], key.display());
        let (client, guard) = client(
            tracing_metlog::builder()
                .message_ids(true)
                .router(heka)
                .router(plain_router.addresses()[0].clone()),
        );
        const COUNT: usize = 500;
        for number in 0..COUNT as u64 {
            client
                .message("t")
                .payload(number)
                .field("number", number)
                .field("text", "é\n\u{1f600}")
                .field("list", tracing_metlog::Json([1, 2, 3]))
                .field("one", tracing_metlog::Json([1]))
                .field("nothing", Option::<u32>::None)
                .field("wide", u64::MAX)
                .field("half", 0.5)
                .send();
        }
        assert_eq!(guard.flush(PATIENCE).pending, 0);
        let json = |capture: &Capture| {
            let messages = capture.wait_for(COUNT, PATIENCE);
            messages.iter().map(|message| serde_json::to_value(message).expect("JSON")).collect::<Vec<_>>()
        };
        let (mut framed, plain) = (json(&capture), json(&plain));
        for (framed, plain) in framed.iter_mut().zip(&plain) {
            // To the nanosecond in a frame, to the microsecond in JSON.
            let time = framed["timestamp"].as_str().expect("text").to_owned();
            let microseconds = format!("{}Z", &time[.."2013-01-01T00:00:00.123456".len()]);
            assert_eq!(plain["timestamp"], microseconds, "{time}");
            framed["timestamp"] = plain["timestamp"].clone();
        }
        assert_eq!(framed, plain, "{}", router.addresses()[0]);
        let stats = guard.finish();
        assert_eq!(
            (stats.emitted, stats.delivered, stats.lost.total()),
            (COUNT as u64, COUNT as u64, 0),
            "{stats}"
        );
        let counters = router.shutdown(PATIENCE);
        assert_eq!((counters.received, counters.malformed_total()), (COUNT as u64, 0), "{counters}");
        plain_router.shutdown(PATIENCE);
    }
}

fn frame(builder_options: &str, payload: &str) -> Vec<u8> {
    let (socket, address) = bound();
    let (client, guard) =
        client(tracing_metlog::builder().router(format!("{address}?framing=heka{builder_options}")));
    client.message("oldstyle").payload(payload).send();
    assert_eq!(guard.flush(PATIENCE).pending, 0);
    received(&socket)
}

fn payloads(capture: &Capture, count: usize) -> Vec<String> {
    capture.wait_for(count, PATIENCE).iter().map(|message| message.payload.to_string()).collect()
}

fn connected(router: &Router) -> TcpStream {
    TcpStream::connect(router.addresses()[0].strip_prefix("tcp://").expect("a tcp address"))
        .expect("connects")
}

#[test]
fn frames_and_lines_are_told_apart_by_the_first_byte_of_a_connection_or_datagram() {
    let (router, capture) = start([Input::tcp("127.0.0.1:0"), Input::udp("127.0.0.1:0")]);
    let (framed, line) = (frame("", "framed"), b"{\"type\": \"oldstyle\", \"payload\": \"line\"}\n");
    for (count, bytes) in [&framed[..], line].into_iter().enumerate() {
        connected(&router).write_all(bytes).expect("sent");
        capture.wait_for(count + 1, PATIENCE);
    }
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    socket.connect(router.addresses()[1].strip_prefix("udp://").expect("udp")).expect("connects");
    // Two frames in a datagram are two messages.
    for (count, bytes) in [(2, &[&framed[..], &framed[..]].concat()[..]), (4, line)] {
        socket.send(bytes).expect("sent");
        capture.wait_for(count + 1, PATIENCE);
    }
    assert_eq!(payloads(&capture, 5), ["framed", "line", "framed", "framed", "line"]);
    assert_eq!(router.shutdown(PATIENCE).malformed_total(), 0);
}

#[test]
fn a_router_that_asks_for_signatures_takes_nothing_else_counts_why_and_goes_on() {
    let directory = Directory::new();
    let (keys, key) = (directory.path("keys"), directory.path("key"));
    std::fs::write(&keys, "# who may send\nops 1 s3cr3t\nops 2 another key\n").expect("written");
    std::fs::write(&key, "s3cr3t").expect("written");
    let input = format!("tcp://127.0.0.1:0?signers={}&require-signature=true", keys.display());
    let (router, capture) = start([input.parse::<Input>().expect("an input")]);
    let key = key.display();
    let good = frame(&format!("&signer=ops&key-file={key}"), "good");
    let md5 = frame(&format!("&signer=ops&hmac=md5&key-file={key}"), "md5");
    let old = frame(&format!("&signer=ops&key-version=2&key-file={key}"), "old");
    let unsigned = frame("", "unsigned");
    let line = b"{\"type\": \"oldstyle\", \"payload\": \"line\"}\n";
    let stream = [&good[..], &unsigned, line, &md5, &old, &good].concat();
    connected(&router).write_all(&stream).expect("sent");
    assert_eq!(payloads(&capture, 3), ["good", "md5", "good"]);
    // JSON would be a way around the signature.
    connected(&router).write_all(line).expect("sent");
    let counters = router.shutdown(PATIENCE);
    let (header, signature) = (MalformedReason::BadHeader, MalformedReason::BadSignature);
    assert_eq!(
        counters.malformed,
        [(header, 2), (signature, 1), (MalformedReason::Unsigned, 1)].into(),
        "{counters}"
    );
}

#[test]
fn a_key_in_a_variable_signs_and_one_that_cannot_be_read_is_named_and_not_shown() {
    // No other test of this program reads or writes it.
    std::env::set_var("METLOG_TEST_HEKA_KEY", "s3cr3t");
    let (router, capture) =
        start([Input::udp("127.0.0.1:0").signer(signer(HmacHash::Md5)).require_signature(true)]);
    let address =
        format!("{}?framing=heka&signer=ops&hmac=md5&key-env=METLOG_TEST_HEKA_KEY", router.addresses()[0]);
    let (client, guard) = client(tracing_metlog::builder().router(&address));
    client.message("oldstyle").payload("signed").send();
    assert_eq!(guard.flush(PATIENCE).pending, 0);
    assert_eq!(payloads(&capture, 1), ["signed"]);
    assert_eq!(guard.stats().destinations[0].address, address);
    let missing = "udp://127.0.0.1:9?framing=heka&signer=ops&key-env=METLOG_TEST_NO_KEY";
    let error =
        tracing_metlog::builder().router(missing).build_client().map(drop).expect_err("no key").to_string();
    assert!(error.contains("key-env METLOG_TEST_NO_KEY: it is not set; accepted: "), "{error}");
}

#[test]
fn an_address_that_takes_no_frames_is_an_error_and_not_ignored() {
    let heka = Encoding::Heka(Heka::unsigned());
    let error = tracing_metlog::builder().router("stdout:").encoding(heka).build_client();
    let error = error.map(drop).expect_err("no frames there").to_string();
    assert_eq!(
        error,
        "Builder::encoding=\"stdout:\": Encoding::Heka with udp, tcp, tls, unix and unixgram addresses is accepted"
    );
}

#[test]
fn a_stream_of_frames_goes_on_where_it_was_when_its_router_comes_back() {
    let first = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = first.local_addr().expect("bound");
    let (client, guard) = client(tracing_metlog::builder().router(format!("tcp://{address}?framing=heka")));
    client.message("oldstyle").payload("one").send();
    // The first router closes with the message unread: the connection is reset.
    let (stream, _) = first.accept().expect("a connection");
    let mut peeked = [0; 1];
    stream.peek(&mut peeked).expect("something came");
    assert_eq!(peeked, [0x1E]);
    drop((stream, first));
    client.message("oldstyle").payload("two").send();
    let mut second = None;
    // The kernel may hold the port for a moment yet.
    eventually("it binds again", || {
        second = TcpListener::bind(address).ok();
        second.is_some()
    });
    let second = second.expect("bound");
    let (mut stream, _) = second.accept().expect("a connection");
    let (mut bytes, mut space) = (Vec::new(), [0; 4_096]);
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    while !bytes.windows(5).any(|window| window == b"\x32\x03two") {
        let length = stream.read(&mut space).expect("bytes");
        assert!(length > 0, "closed too early");
        bytes.extend_from_slice(&space[..length]);
    }
    assert_eq!(bytes[0], 0x1E, "from the beginning of a frame");
    drop(stream);
    guard.finish();
}

#[cfg(feature = "spool")]
#[test]
fn what_waited_on_disk_for_a_router_of_frames_arrives_and_could_go_to_one_of_json() {
    let directory = Directory::new();
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        listener.local_addr().expect("bound")
    };
    let build = || {
        let spool = directory.path("spool");
        client(tracing_metlog::builder().router(format!("tcp://{closed}?framing=heka")).spool(spool))
    };
    let (client, guard) = build();
    for number in 0..1_000 {
        client.message("oldstyle").payload(number).field("number", number).send();
    }
    let stats = guard.finish();
    assert_eq!((stats.emitted, stats.spooled, stats.lost.total()), (1_000, 1_000, 0), "{stats}");
    let mut slots = Vec::new();
    let spool = directory.path("spool");
    tracing_metlog::spool::messages(&spool, |message| {
        slots.push(serde_json::from_slice::<Value>(message).expect("JSON on disk"));
        Ok(())
    })
    .expect("readable");
    assert_eq!(slots.len(), 1_000);

    let (router, capture) = start([Input::tcp(closed.to_string()).only_heka()]);
    let (_client, guard) = build();
    let expected: Vec<_> = (0..1_000).map(|number: u32| number.to_string()).collect();
    assert_eq!(payloads(&capture, 1_000), expected);
    let stats = guard.finish();
    assert_eq!((stats.inherited, stats.delivered, stats.spooled), (1_000, 1_000, 0), "{stats}");
    assert_eq!(router.shutdown(PATIENCE).malformed_total(), 0);
}

#[cfg(feature = "spool")]
#[test]
fn what_is_sent_from_disk_by_hand_is_framed_and_signed_too() {
    let directory = Directory::new();
    let (spool, key) = (directory.path("spool"), directory.path("key"));
    std::fs::write(&key, "s3cr3t").expect("written");
    let (client, guard) = client(tracing_metlog::builder().router("tcp://127.0.0.1:9").spool(&spool));
    (0..100).for_each(|number| client.message("oldstyle").payload(number).send());
    let stats = guard.finish();
    assert_eq!(stats.spooled, 100, "{stats}");
    let (router, capture) =
        start([Input::tcp("127.0.0.1:0").signer(signer(HmacHash::Sha1)).require_signature(true)]);
    let to = format!("{}?framing=heka&signer=ops&key-file={}", router.addresses()[0], key.display());
    let sent = tracing_metlog::spool::send(&spool, &to.parse().expect("an address"), PATIENCE).expect("sent");
    assert_eq!((sent.delivered, sent.lost), (100, 0));
    assert_eq!(payloads(&capture, 100), (0..100).map(|number: u32| number.to_string()).collect::<Vec<_>>());
    assert_eq!(router.shutdown(PATIENCE).malformed_total(), 0);
}
