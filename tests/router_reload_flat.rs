//! Reloads cost nothing that stays: no memory, no descriptors, no threads. Alone in its process, which it measures.
#![cfg(all(feature = "router", target_os = "linux"))]

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tracing_metlog::router::{Config, Input, Matcher, Output, Route, Router};

const PATIENCE: Duration = Duration::from_secs(60);

fn config(turn: usize) -> Config {
    let path = std::env::temp_dir().join(format!("metlog-flat-{}-{}.jsonl", std::process::id(), turn % 2));
    let socket = std::env::temp_dir().join(format!("metlog-flat-{}.socket", std::process::id()));
    let config = Config::new()
        .input(Input::tcp("127.0.0.1:0").max_message_bytes(10_000 + turn % 2))
        .input(Input::udp("127.0.0.1:0"))
        .route(Route::new(Matcher::any(), Output::file(path)))
        .route(Route::new(Matcher::any(), Output::capture().0));
    match turn % 2 {
        0 => config.input(Input::unix(socket)),
        _ => config,
    }
}

fn entries(directory: &str) -> usize {
    fs::read_dir(directory).expect("readable").count()
}

fn resident_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("known");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn two_hundred_reloads_leave_memory_descriptors_and_threads_as_they_were() {
    let mut router = Router::start(config(0)).expect("starts");
    let address = router.addresses()[0].strip_prefix("tcp://").expect("a tcp address").to_owned();
    let mut received = 0;
    let mut reload = |router: &mut Router, turn: usize| {
        let mut client = TcpStream::connect(&address).expect("connects");
        client.write_all(b"{\"type\": \"x\"}\n").expect("sent");
        received += 1;
        eventually("it is received", || router.counters().received == received);
        router.reload(config(turn)).expect("reloaded");
        // Its connection ends, and with it the input that was succeeded.
        drop(client);
    };
    (1..=40).for_each(|turn| reload(&mut router, turn));
    let idle = || (entries("/proc/self/fd"), entries("/proc/self/task"));
    eventually("what was removed has ended", || idle().1 <= 8);
    let (before, memory) = (idle(), resident_kib());
    (41..=240).for_each(|turn| reload(&mut router, turn));
    eventually("descriptors and threads are as they were", || {
        let now = idle();
        now.0 <= before.0 && now.1 <= before.1
    });
    let grown = resident_kib().saturating_sub(memory);
    assert!(grown < 2_048, "{grown} KiB more after 200 reloads, of {memory}");
    let counters = router.shutdown(PATIENCE);
    assert_eq!((counters.received, counters.outputs.len()), (240, 4), "{counters}");
    let delivered: u64 = counters.outputs.iter().map(|output| output.delivered).sum();
    assert_eq!(delivered, 480, "{counters}");
    for turn in 0..2 {
        let _ = fs::remove_file(
            std::env::temp_dir().join(format!("metlog-flat-{}-{turn}.jsonl", std::process::id())),
        );
    }
}
