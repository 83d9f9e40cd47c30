//! A router gets another configuration while messages come: none is lost, none comes twice, and an error changes nothing.
#![cfg(feature = "router")]

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing_metlog::router::{Config, Counters, Input, Matcher, Output, Route, Router};

const PATIENCE: Duration = Duration::from_secs(30);

/// A directory for one test, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("metlog-reload-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("made");
        Directory(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

fn message(kind: &str, id: u64) -> String {
    format!(r#"{{"type": "{kind}", "payload": "{id}", "fields": {{}}}}"#)
}

/// How often each payload is in these files, by type.
fn written(files: &[PathBuf]) -> BTreeMap<(String, u64), u64> {
    let mut counts = BTreeMap::new();
    for line in files.iter().flat_map(|file| lines(file)) {
        let message: tracing_metlog::Message = line.parse().expect("a message");
        let id = message.payload.to_string().parse().expect("a number");
        *counts.entry((message.r#type, id)).or_default() += 1;
    }
    counts
}

fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn tcp(router: &Router) -> TcpStream {
    let address = router.addresses().iter().find_map(|address| address.strip_prefix("tcp://"));
    TcpStream::connect(address.expect("a tcp address")).expect("connects")
}

fn udp(router: &Router) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let address = router.addresses().iter().find_map(|address| address.strip_prefix("udp://"));
    socket.connect(address.expect("a udp address")).expect("connects");
    socket
}

fn types(kind: &str, output: Output) -> Route {
    Route::new(Matcher::type_is(kind), output)
}

/// One of the configurations that take turns: `a` always goes to one file, `b` to this one or that one. Every third one
/// has other limits for the sockets, so that each gets a successor, and another input.
fn turn(directory: &Directory, turn: u64) -> Config {
    let limit = 10_000 + (turn % 3 / 2) as usize;
    let mut config = Config::new()
        .input(Input::tcp("127.0.0.1:0").max_message_bytes(limit))
        .input(Input::udp("127.0.0.1:0").max_message_bytes(limit))
        .route(types("a", Output::file(directory.file("a"))))
        .route(types("b", Output::file(directory.file(&format!("b{}", turn % 2)))));
    if turn % 3 == 2 {
        config = config.input(Input::unix(directory.file("socket")));
    }
    config
}

/// Sends numbered messages of both types until it is told to stop; how many of each.
///
/// No more than a few hundred are ever on their way: the kernel drops datagrams that a socket's buffer has no room for.
fn load(
    (stop, received): (&Arc<AtomicBool>, Arc<AtomicU64>),
    mut send: impl FnMut(&str) + Send + 'static,
) -> std::thread::JoinHandle<u64> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut sent = 0;
        while !stop.load(SeqCst) {
            eventually("the router keeps up", || 2 * sent < received.load(SeqCst) + 500);
            send(&message("a", sent));
            send(&message("b", sent));
            sent += 1;
        }
        sent
    })
}

fn assert_each_once(written: &BTreeMap<(String, u64), u64>, sent: u64) {
    for kind in ["a", "b"] {
        for id in 0..sent {
            assert_eq!(written.get(&(kind.to_owned(), id)), Some(&1), "{kind} {id} of {sent}");
        }
    }
    assert_eq!(written.len() as u64, 2 * sent, "nothing else");
}

fn assert_settled(counters: &Counters, sent: u64) {
    assert_eq!((counters.received, counters.malformed_total(), counters.unrouted), (2 * sent, 0, 0));
    let delivered: u64 = counters.outputs.iter().map(|output| output.delivered).sum();
    assert_eq!(delivered, 2 * sent, "{counters}");
    let rest =
        |output: &tracing_metlog::router::OutputCounters| output.dropped + output.failed + output.queued;
    assert_eq!(counters.outputs.iter().map(rest).sum::<u64>(), 0, "{counters}");
}

const TURNS: u64 = 60;

/// Sends over one socket while the configuration changes all the time.
fn under_load(
    name: &str,
    start: impl FnOnce(&Router, &Arc<AtomicBool>, Arc<AtomicU64>) -> std::thread::JoinHandle<u64>,
) {
    let directory = Directory::new(name);
    let mut router = Router::start(turn(&directory, 0)).expect("starts");
    let (stop, received) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let sender = start(&router, &stop, Arc::clone(&received));
    for number in 1..=TURNS {
        let before = router.counters().received;
        eventually("messages come", || {
            let now = router.counters().received;
            received.store(now, SeqCst);
            now > before + 50
        });
        router.reload(turn(&directory, number)).expect("reloaded");
    }
    stop.store(true, SeqCst);
    eventually("the sender ends", || {
        received.store(router.counters().received, SeqCst);
        sender.is_finished()
    });
    let sent = sender.join().expect("sent");
    eventually("all have come", || router.counters().received == 2 * sent);
    let counters = router.shutdown(PATIENCE);
    let files = ["a", "b0", "b1"].map(|file| directory.file(file));
    assert_each_once(&written(&files), sent);
    assert_settled(&counters, sent);
    assert!(files.iter().all(|file| !lines(file).is_empty()), "each file got some");
}

#[test]
fn no_message_is_lost_or_doubled_over_tcp_while_the_configuration_changes() {
    under_load("tcp", |router, stop, received| {
        let mut client = tcp(router);
        load((stop, received), move |message| {
            client.write_all(format!("{message}\n").as_bytes()).expect("sent")
        })
    });
}

#[test]
fn no_message_is_lost_or_doubled_over_udp_while_the_configuration_changes() {
    under_load("udp", |router, stop, received| {
        let client = udp(router);
        load((stop, received), move |message| {
            client.send(message.as_bytes()).expect("sent");
        })
    });
}

#[test]
fn what_a_reload_has_kept_opened_and_removed_is_told_and_the_counters_survive() {
    let directory = Directory::new("told");
    let mut router = Router::start(turn(&directory, 0)).expect("starts");
    let mut client = tcp(&router);
    let addresses = router.addresses().to_vec();
    client.write_all(format!("{}\n{}\n", message("a", 0), message("b", 0)).as_bytes()).expect("sent");
    eventually("both are written", || router.counters().outputs.iter().all(|output| output.delivered == 1));

    let reloaded = router.reload(turn(&directory, 0)).expect("reloaded");
    assert_eq!((reloaded.kept, reloaded.opened, reloaded.removed), (4, 0, 0));
    let reloaded = router.reload(turn(&directory, 1)).expect("reloaded");
    assert_eq!((reloaded.kept, reloaded.opened, reloaded.removed), (3, 1, 1));
    assert_eq!(router.addresses(), addresses);

    client.write_all(format!("{}\n{}\n", message("a", 1), message("b", 1)).as_bytes()).expect("sent");
    eventually("both are written", || lines(&directory.file("b1")).len() == 1);
    eventually("all are counted", || {
        let outputs = router.counters().outputs;
        let delivered: Vec<_> = outputs.iter().map(|output| output.delivered).collect();
        delivered == [2, 1, 1] && outputs[2].name.ends_with("b0")
    });
    drop(client);
    let counters = router.shutdown(PATIENCE);
    assert_eq!((counters.received, counters.types["a"], counters.types["b"]), (4, 2, 2));
}

#[test]
fn an_input_with_other_limits_takes_over_the_socket_and_the_connections_go_on() {
    let directory = Directory::new("successor");
    let mut router = Router::start(turn(&directory, 0)).expect("starts");
    let addresses = router.addresses().to_vec();
    let mut before = tcp(&router);
    before.write_all(format!("{}\n", message("a", 0)).as_bytes()).expect("sent");
    eventually("the connection is read", || router.counters().received == 1);
    let reloaded = router.reload(turn(&directory, 2)).expect("reloaded");
    assert_eq!((reloaded.kept, reloaded.opened, reloaded.removed), (2, 3, 2));
    assert_eq!(router.addresses()[..2], addresses);

    let mut after = tcp(&router);
    after.write_all(format!("{}\n", message("a", 1)).as_bytes()).expect("sent");
    before.write_all(format!("{}\n", message("a", 2)).as_bytes()).expect("sent");
    eventually("both connections are read", || lines(&directory.file("a")).len() == 3);
    assert_eq!(router.counters().inputs.len(), 3);
    assert_eq!((router.counters().inputs[0].connections, router.counters().inputs[0].open), (2, 2));
    // A third successor, while a client of the first has stayed.
    router.reload(turn(&directory, 0)).expect("reloaded");
    before.write_all(format!("{}\n", message("a", 3)).as_bytes()).expect("sent");
    eventually("the first connection is read", || lines(&directory.file("a")).len() == 4);
    drop((before, after));
    assert_eq!(router.shutdown(PATIENCE).received, 4);
}

#[test]
fn an_input_that_is_removed_is_read_to_the_end_of_its_connections() {
    let directory = Directory::new("removed");
    let mut router = Router::start(turn(&directory, 2)).expect("starts");
    let mut client = std::os::unix::net::UnixStream::connect(directory.file("socket")).expect("connects");
    client.write_all(format!("{}\n", message("a", 0)).as_bytes()).expect("sent");
    eventually("the connection is read", || router.counters().received == 1);
    router.reload(turn(&directory, 1)).expect("reloaded");
    client.write_all(format!("{}\n", message("a", 1)).as_bytes()).expect("sent");
    drop(client);
    eventually("both are written", || lines(&directory.file("a")).len() == 2);
    eventually("nobody listens any more", || !directory.file("socket").exists());
    let counters = router.shutdown(PATIENCE);
    assert_eq!((counters.received, counters.inputs[2].received), (2, 2));
}

#[test]
fn a_reload_that_fails_changes_nothing() {
    let directory = Directory::new("fails");
    let mut router = Router::start(turn(&directory, 0)).expect("starts");
    let mut client = tcp(&router);
    let addresses = router.addresses().to_vec();
    let taken: Input = Router::start(Config::new().input(Input::udp("127.0.0.1:0")))
        .map(|other| {
            let address = other.addresses()[0].parse().expect("an input");
            std::mem::forget(other);
            address
        })
        .expect("starts");
    let bad = [
        (turn(&directory, 1).input(taken), "cannot listen on udp://"),
        (
            turn(&directory, 1).route(types("c", Output::file("/nowhere/at/all"))),
            "cannot open file:/nowhere/at/all",
        ),
        (Config::new(), "no input"),
    ];
    for (number, (config, expected)) in (0..).zip(bad) {
        let error = router.reload(config).expect_err("refused").to_string();
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(router.addresses(), addresses);
        client.write_all(format!("{}\n", message("b", number)).as_bytes()).expect("sent");
        udp(&router).send(message("a", number).as_bytes()).expect("sent");
        eventually("written where it was before", || {
            lines(&directory.file("b0")).len() as u64 == number + 1
                && lines(&directory.file("a")).len() as u64 == number + 1
        });
    }
    assert!(lines(&directory.file("b1")).is_empty());
    drop(client);
    let counters = router.shutdown(PATIENCE);
    assert_eq!((counters.received, counters.outputs.len()), (6, 2));
}

#[test]
fn a_function_that_was_replaced_gets_what_was_read_before_and_its_successor_the_rest() {
    let captured = |address: Option<String>| {
        let (output, capture) = Output::capture();
        let input =
            address.map_or_else(|| Input::tcp("127.0.0.1:0"), |address| address.parse().expect("an input"));
        (Config::new().input(input).route(Route::new(Matcher::any(), output)), capture)
    };
    let (config, first) = captured(None);
    let mut router = Router::start(config).expect("starts");
    let mut client = tcp(&router);
    client.write_all(format!("{}\n", message("a", 0)).as_bytes()).expect("sent");
    assert_eq!(first.wait_for(1, PATIENCE).len(), 1);
    // Its text names the port that it got, so it is another input, and its address is taken.
    router.reload(captured(Some(router.addresses()[0].clone())).0).expect_err("the address is in use");
    let (output, second) = Output::capture();
    let config = Config::new().input(Input::tcp("127.0.0.1:0")).route(Route::new(Matcher::any(), output));
    router.reload(config).expect("reloaded");
    client.write_all(format!("{}\n", message("a", 1)).as_bytes()).expect("sent");
    assert_eq!(second.wait_for(1, PATIENCE)[0].payload, "1");
    assert_eq!(first.messages().len(), 1);
    drop(client);
    let counters = router.shutdown(PATIENCE);
    let delivered: Vec<_> = counters.outputs.iter().map(|output| output.delivered).collect();
    assert_eq!(delivered, [1, 1]);
}
