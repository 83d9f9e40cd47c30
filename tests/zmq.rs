//! ZeroMQ with pyzmq at the other end: nothing of this crate, and what metlog-py and its routers used.
//!
//! The interpreter with pyzmq is made by `.ci/test`; without it these tests fail, and say so.
#![cfg(all(unix, feature = "zmq", feature = "router", feature = "tracing"))]

mod process_support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use process_support::child;
use process_support::oracle::{assert_accounted, send_all, Got};
use process_support::{built, closed_port, eventually, lines_of, timed, Directory, LONG};
use tracing_metlog::router::{Capture, Config, Input, MalformedReason, Matcher, Output, Route, Router};
use tracing_metlog::{Builder, LossReason};

/// A peer in Python, ended with the test.
struct Peer {
    process: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Peer {
    fn start(arguments: &[&str]) -> Peer {
        let python = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python/bin/python");
        assert!(Path::new(python).exists(), "no {python}: .ci/test makes it, with pyzmq in it");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process_support/zmq_peer.py");
        let mut command = Command::new(python);
        command.arg(script).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("starts");
        let said = BufReader::new(process.stdout.take().expect("piped"));
        Peer { process, said }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("text");
        assert!(!line.is_empty(), "pyzmq's program has ended: its error is above");
        line.trim_end().to_owned()
    }

    /// A SUB socket, the address of it, and that of its REP socket.
    fn receiver(path: &Path, ports: &[&str]) -> (Peer, String, String) {
        let path = path.to_str().expect("text");
        let mut peer = Peer::start(&[&["receive", path][..], ports].concat());
        let line = peer.line();
        let (port, handshake) = line.split_once(' ').expect("two ports");
        (peer, format!("zmq+tcp://127.0.0.1:{port}"), format!("127.0.0.1:{handshake}"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn builder(address: &str) -> Builder {
    tracing_metlog::builder().router(address).flush_timeout(LONG)
}

/// What a subscriber has written, once all of it is there: it is asked for no confirmation of what it has read.
fn got(path: &Path, count: usize) -> Got {
    eventually("all is received", || lines_of(path).len() >= count);
    Got::read(&lines_of(path))
}

#[test]
fn pyzmqs_sub_gets_every_message_once_in_order_and_as_one_part() {
    let directory = Directory::new();
    let path = directory.file("received");
    let (_peer, address, _) = Peer::receiver(&path, &[]);
    let guard = built(builder(&address));
    send_all(&guard.client(), 4, 5_000);
    assert_eq!(guard.flush(LONG).pending, 0);
    let got = got(&path, 20_000);
    got.assert_complete(4, 5_000);
    got.assert_ordered();
    assert_accounted(&guard.finish(), &got, 4, 5_000);
}

#[test]
fn messages_of_every_length_arrive_whole() {
    let directory = Directory::new();
    let path = directory.file("received");
    let (_peer, address, _) = Peer::receiver(&path, &[]);
    let guard = built(builder(&address));
    let lengths: Vec<usize> = (0..300).chain([1_000, 10_000, 50_000]).collect();
    for length in &lengths {
        guard.client().message("oldstyle").payload("é".repeat(*length / 2).as_str()).send();
    }
    assert_eq!(guard.flush(LONG).pending, 0);
    eventually("all is received", || lines_of(&path).len() == lengths.len());
    for (line, length) in lines_of(&path).iter().zip(&lengths) {
        let message: serde_json::Value = serde_json::from_str(line).expect("JSON in one part");
        assert_eq!(message["payload"].as_str().map(str::len), Some(length / 2 * 2));
    }
}

#[test]
fn nothing_is_written_before_there_is_a_subscription_so_a_late_receiver_gets_all() {
    let directory = Directory::new();
    let path = directory.file("received");
    let port = closed_port().to_string();
    let guard = built(builder(&format!("zmq+tcp://127.0.0.1:{port}")));
    send_all(&guard.client(), 2, 1_000);
    assert_eq!(guard.flush(Duration::from_millis(50)).pending, 2_000);
    let (_peer, ..) = Peer::receiver(&path, &[&port]);
    assert_eq!(guard.flush(LONG).pending, 0);
    let got = got(&path, 2_000);
    got.assert_complete(2, 1_000);
    assert_accounted(&guard.finish(), &got, 2, 1_000);
}

#[test]
fn a_receiver_that_speaks_and_subscribes_late_gets_what_was_made_before() {
    let directory = Directory::new();
    let path = directory.file("received");
    let (mut peer, address, _) = Peer::receiver(&path, &["", "", "late"]);
    let guard = built(builder(&address));
    send_all(&guard.client(), 1, 1_000);
    assert_eq!(guard.flush(Duration::from_millis(500)).pending, 1_000);
    peer.process.stdin.as_mut().expect("piped").write_all(b"subscribe\n").expect("said");
    assert_eq!(guard.flush(LONG).pending, 0);
    got(&path, 1_000).assert_complete(1, 1_000);
}

#[test]
fn a_receiver_that_accepts_and_never_subscribes_gets_nothing_and_nothing_is_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = format!("zmq+tcp://{}", listener.local_addr().expect("bound"));
    let guard = built(tracing_metlog::builder().router(address).flush_timeout(Duration::from_millis(50)));
    guard.client().incr("x");
    let (mut stream, _) = listener.accept().expect("a connection");
    let mut greeting = [0; 64];
    stream.read_exact(&mut greeting).expect("a greeting");
    assert_eq!((greeting[0], greeting[9], greeting[10]), (0xFF, 0x7F, 3));
    assert_eq!(guard.flush(Duration::from_millis(300)).pending, 1);
    let stats = guard.finish();
    assert_eq!(stats.delivered, 0, "{stats}");
    assert_eq!(stats.lost.count(LossReason::Unreachable), 1, "{stats}");
}

#[test]
fn what_was_not_acknowledged_goes_to_the_next_receiver_when_one_is_killed() {
    let directory = Directory::new();
    let path = directory.file("received");
    let (mut peer, address, _) = Peer::receiver(&path, &[]);
    let port = address.rsplit_once(':').expect("a port").1.to_owned();
    let guard = built(builder(&format!("{address}?hwm=1")));
    send_all(&guard.client(), 1, 1_000);
    assert_eq!(guard.flush(LONG).pending, 0);
    eventually("the first are received", || lines_of(&path).len() == 1_000);
    peer.process.kill().expect("killed");
    peer.process.wait().expect("waited for");
    let client = guard.client();
    for number in 0..1_000 {
        client.message("second").payload(number).send();
    }
    let (_next, ..) = Peer::receiver(&path, &[&port]);
    assert_eq!(guard.flush(LONG).pending, 0);
    // What its kernel had acknowledged when it was killed is gone: nothing was sent then.
    eventually("the others are received", || lines_of(&path).len() >= 2_000);
    let lines = lines_of(&path);
    let payloads: Vec<_> = lines[1_000..]
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["payload"].clone())
        .collect();
    assert_eq!(payloads, (0..1_000).map(|number| number.to_string()).collect::<Vec<_>>());
    let stats = guard.finish();
    assert_eq!((stats.delivered, stats.lost.total()), (2_000, 0), "{stats}");
}

#[test]
fn a_handshake_that_is_answered_lets_messages_pass_and_one_that_is_not_keeps_them() {
    let directory = Directory::new();
    let path = directory.file("received");
    let (_peer, address, handshake) = Peer::receiver(&path, &[]);
    let guard = built(builder(&format!("{address}?handshake={handshake}")));
    send_all(&guard.client(), 1, 100);
    assert_eq!(guard.flush(LONG).pending, 0);
    got(&path, 100).assert_complete(1, 100);
    drop(guard);

    // Somebody who listens and does not speak.
    let silent = TcpListener::bind("127.0.0.1:0").expect("binds");
    let handshake = format!("handshake={}&handshake-timeout=300", silent.local_addr().expect("bound"));
    let guard = built(
        tracing_metlog::builder().router(format!("{address}?{handshake}")).flush_timeout(Duration::ZERO),
    );
    guard.client().incr("kept");
    eventually("it is said", || {
        let _ = guard.flush(Duration::from_millis(10));
        let problem = guard.stats().destinations[0].problem.clone();
        problem
            .is_some_and(|problem| problem.contains("no answer to the ZeroMQ handshake: none within 300 ms"))
    });
    assert_eq!(guard.stats().pending, 1);
    assert_eq!(lines_of(&path).len(), 100);
}

#[test]
fn a_livecheck_asks_again_and_notices_that_nobody_answers_any_more() {
    let directory = Directory::new();
    let (path, other) = (directory.file("received"), directory.file("other"));
    let (_peer, address, _) = Peer::receiver(&path, &[]);
    // Its handshake is another program's, which can end alone.
    let (answering, _, handshake) = Peer::receiver(&other, &[]);
    let guard = built(
        tracing_metlog::builder()
            .router(format!("{address}?handshake={handshake}&livecheck=1"))
            .flush_timeout(Duration::ZERO),
    );
    guard.client().message("first").send();
    assert_eq!(guard.flush(LONG).pending, 0);
    drop(answering);
    eventually("somebody notices", || {
        guard.client().message("later").send();
        guard.flush(Duration::from_millis(100)).pending > 0
    });
    let problem = guard.stats().destinations[0].problem.clone().expect("a problem");
    assert!(problem.contains("no answer to the ZeroMQ handshake"), "{problem}");
}

/// Runs in a process of its own, whose stderr is read.
#[test]
fn spilling_child() {
    if child::mode().is_none() {
        return;
    }
    let guard = built(tracing_metlog::builder().router(child::router()).flush_timeout(LONG));
    for number in 0..200 {
        guard.client().message("spilled").payload(number).send();
    }
    assert_eq!(guard.flush(LONG).pending, 0);
    let stats = guard.finish();
    // A loss report follows what it reports, and is spilled too.
    println!("\nspilled: {}", stats.lost.count(LossReason::Spilled));
    println!("balance: {} = {} + {}", stats.emitted, stats.delivered, stats.lost.total());
}

#[test]
fn with_spill_what_finds_no_receiver_is_a_line_on_stderr_and_counted_as_spilled() {
    let nobody = closed_port();
    let ended = child::run(child::command(
        "spilling_child",
        "spill",
        &format!("zmq+tcp://127.0.0.1:{nobody}?spill=stderr"),
    ));
    assert!(ended.status.success(), "{ended:#?}");
    let lines: Vec<serde_json::Value> =
        ended.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let payloads: Vec<_> =
        lines.iter().filter(|line| line["type"] == "spilled").map(|line| line["payload"].clone()).collect();
    assert_eq!(payloads, (0..200).map(|number| number.to_string()).collect::<Vec<_>>());
    let reports = lines.len() - 200;
    let spilled: usize = ended.said("spilled").parse().expect("a number");
    assert_eq!(spilled, 200 + reports, "{ended:#?}");
    let total = 200 + reports;
    assert_eq!(ended.said("balance"), format!("{total} = 0 + {total}"));
}

fn start(input: Input) -> (Router, Capture) {
    let (output, capture) = Output::capture();
    let config = Config::new().input(input).route(Route::new(Matcher::any(), output));
    (Router::start(config).expect("starts"), capture)
}

/// `tcp://` of the two addresses of a ZeroMQ input, as pyzmq calls them.
fn endpoints(router: &Router) -> (String, String) {
    let address = router.addresses()[0].strip_prefix("zmq+tcp://").expect("a ZeroMQ input");
    let (messages, handshake) = address.split_once("?handshake=").expect("a handshake");
    (format!("tcp://{messages}"), format!("tcp://{handshake}"))
}

#[test]
fn pyzmqs_pub_finds_the_router_by_its_handshake_and_every_message_arrives_in_order() {
    const COUNT: usize = 20_000;
    let input: Input = "zmq+tcp://127.0.0.1:0?handshake=127.0.0.1:0".parse().expect("an input");
    let (router, capture) = start(input);
    let (messages, handshake) = endpoints(&router);
    let mut peer = Peer::start(&["send", &messages, &handshake, &COUNT.to_string(), "20000"]);
    assert_eq!(peer.line(), "answer b''");
    // A PUB drops what it sends before it has heard of the subscription: the slow joiner.
    capture.wait_for(1, LONG);
    peer.process.stdin.take().expect("piped").write_all(b"go\n").expect("sent");
    let numbered = || -> Vec<String> {
        let messages = capture.messages();
        messages.iter().filter(|one| one.r#type == "numbered").map(|one| one.payload.to_string()).collect()
    };
    eventually("all have arrived", || numbered().len() >= COUNT);
    assert_eq!(numbered(), (0..COUNT).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(capture.messages().iter().all(|message| message.logger == "pyé"));
    assert!(peer.process.wait().expect("ends").success());
    let counters = router.shutdown(LONG);
    assert_eq!((counters.malformed_total(), counters.inputs[0].errors), (0, 0), "{counters}");
}

#[test]
fn pyzmqs_handshake_gets_no_answer_where_there_is_no_router() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = format!("tcp://{}", silent.local_addr().expect("bound"));
    let mut peer = Peer::start(&["send", &address, &address, "1", "200"]);
    assert_eq!(peer.line(), "no answer");
}

#[test]
fn the_client_and_the_router_understand_each_other_with_a_handshake_and_close_without_loss() {
    let (router, capture) = start(Input::zmq("127.0.0.1:0").handshake("127.0.0.1:0"));
    let guard = built(builder(&router.addresses()[0]));
    for number in 0..5_000 {
        guard.client().message("oldstyle").payload(number).send();
    }
    let stats = guard.finish();
    assert_eq!((stats.emitted, stats.delivered, stats.lost.total()), (5_000, 5_000, 0), "{stats}");
    let payloads: Vec<_> =
        capture.wait_for(5_000, LONG).iter().map(|message| message.payload.to_string()).collect();
    assert_eq!(payloads, (0..5_000).map(|number| number.to_string()).collect::<Vec<_>>());
    let (took, counters) = timed(|| router.shutdown(LONG));
    assert_eq!(counters.malformed_total(), 0, "{counters}");
    assert!(took < LONG / 2, "{took:?}");
}

#[test]
fn strangers_are_counted_cost_themselves_only_and_a_message_that_is_too_long_is_told() {
    let (router, capture) = start(Input::zmq("127.0.0.1:0").max_message_bytes(10_000));
    let address = router.addresses()[0].strip_prefix("zmq+tcp://").expect("ZeroMQ").to_owned();
    for stranger in
        [&b"GET / HTTP/1.1\r\nHost: router\r\n\r\n".repeat(4)[..], &[0xFF; 200], b"{\"type\": \"x\"}\n"]
    {
        let mut stream = TcpStream::connect(&address).expect("connects");
        stream.write_all(stranger).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("said");
        // It is closed, whatever was said before.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let guard = built(tracing_metlog::builder().router(&router.addresses()[0]).flush_timeout(Duration::ZERO));
    guard.client().message("oldstyle").payload("short").send();
    assert_eq!(guard.flush(LONG).pending, 0);
    guard.client().message("oldstyle").payload("x".repeat(20_000).as_str()).send();
    assert_eq!(capture.wait_for(1, LONG)[0].payload, "short");
    let too_long = || router.counters().malformed.get(&MalformedReason::TooLong).copied().unwrap_or_default();
    eventually("it is counted", || {
        let _ = guard.flush(Duration::from_millis(10));
        too_long() >= 1
    });
    drop(guard);
    let counters = router.shutdown(LONG);
    assert!(counters.malformed[&MalformedReason::BadHeader] >= 1, "{counters}");
    assert_eq!(counters.received, 1, "{counters}");
}
