//! Faults of routers and networks: what is promised of each, with ids, and the account beside what really came.
#![cfg(all(unix, feature = "tracing"))]

mod process_support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use process_support::oracle::{assert_accounted, assert_balanced, send, send_all, Got};
use process_support::receiver::Receiver;
use process_support::stalled::Gate;
use process_support::{built, closed_port, eventually, fault_report, flush_of_a_second, timed, LONG};
use tracing_metlog::{LossReason, WhenFull};

#[test]
fn a_router_that_is_down_at_the_start_costs_no_time_and_gets_everything_later() {
    let port = closed_port();
    let builder = tracing_metlog::builder().router(format!("tcp://127.0.0.1:{port}")).flush_timeout(LONG);
    let (took, guard) = timed(|| built(builder));
    assert!(took < Duration::from_millis(50), "{took:?}");
    send_all(&guard.client(), 4, 2_000);
    eventually("it is noticed", || guard.stats().destinations[0].failures > 0);
    let receiver = Receiver::tcp_at(port);
    let stats = guard.finish();
    let got = Got::read(&receiver.close_at_end());
    got.assert_complete(4, 2_000);
    got.assert_ordered();
    assert_accounted(&stats, &got, 4, 2_000);
    let promise = "build < 50 ms, everything is delivered later";
    fault_report::record_stats("router down at the start (TCP)", promise, &stats, 0);
}

#[test]
fn a_udp_router_that_is_down_at_the_start_gets_everything_later() {
    let port = closed_port();
    let builder = tracing_metlog::builder().router(format!("udp://127.0.0.1:{port}")).flush_timeout(LONG);
    let (took, guard) = timed(|| built(builder));
    assert!(took < Duration::from_millis(50), "{took:?}");
    (0..100).for_each(|n| send(&guard.client(), 0, n));
    eventually("it is noticed", || guard.stats().destinations[0].failures > 0);
    assert_eq!(guard.stats().delivered, 0, "refused is not delivered");
    let router = std::net::UdpSocket::bind(("127.0.0.1", port)).expect("binds");
    router.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    let mut space = vec![0; 70_000];
    let lines: Vec<_> = (0..100)
        .map(|_| {
            let length = router.recv(&mut space).expect("comes");
            String::from_utf8(space[..length].to_vec()).expect("UTF-8")
        })
        .collect();
    let stats = guard.finish();
    let got = Got::read(&lines);
    got.assert_complete(1, 100);
    assert_accounted(&stats, &got, 1, 100);
    let promise = "what the host refuses (ICMP) is sent again";
    fault_report::record_stats("router down at the start (UDP, same host)", promise, &stats, 0);
}

#[test]
fn a_destination_that_is_stuck_is_named_in_the_account_and_no_more_when_it_moves() {
    let gate = Gate::shut();
    let builder = tracing_metlog::builder().transport(gate.clone()).stuck_after(Duration::from_millis(100));
    let guard = built(builder);
    send(&guard.client(), 0, 0);
    eventually("it is reported", || guard.stats().destinations[0].problem.is_some());
    let stats = guard.stats();
    let problem = stats.destinations[0].problem.clone().expect("there is one");
    assert!(
        problem.starts_with("nothing was confirmed for 0.") && problem.contains("messages wait"),
        "{problem}"
    );
    assert_eq!((stats.destinations[0].failures, stats.pending), (0, 1), "stuck is not failed");
    gate.release();
    assert_eq!(guard.flush(LONG).pending, 0);
    assert_eq!(guard.stats().destinations[0].problem, None);
    assert_eq!(gate.capture.len(), 1);
}

#[test]
fn a_destination_that_does_not_come_back_is_named_in_the_account() {
    struct Hangs(std::sync::mpsc::Receiver<()>);
    impl tracing_metlog::Transport for Hangs {
        fn send(&mut self, batch: &mut tracing_metlog::Batch, _: Instant) -> std::io::Result<()> {
            let _ = self.0.recv();
            batch.delivered(batch.len());
            Ok(())
        }
    }
    let (end, hangs) = std::sync::mpsc::channel();
    let builder = tracing_metlog::builder().transport(Hangs(hangs)).stuck_after(Duration::from_millis(100));
    let guard = built(builder);
    send(&guard.client(), 0, 0);
    eventually("it is reported", || guard.stats().destinations[0].problem.is_some());
    drop(end);
    assert_eq!(guard.finish().delivered, 1);
}

/// Peers that do what they should not, one after the other, until they are told to behave.
fn hostile(listener: TcpListener, behave: Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let mut text = String::new();
        for turn in 0_u64.. {
            let mut stream = listener.accept().expect("connected").0;
            if behave.load(Ordering::Acquire) {
                stream.read_to_string(&mut text).expect("UTF-8");
                break;
            }
            misbehave(&mut stream, turn);
        }
        text.lines().map(str::to_owned).collect()
    })
}

/// What it reads it has read in vain: none of it is a delivery that the test would count.
fn misbehave(stream: &mut TcpStream, turn: u64) {
    let mut space = [0; 65_536];
    match turn % 5 {
        // Garbage, and the end.
        0 => drop(stream.write_all(&[0xff; 10_000])),
        // Nonsense of another protocol, and a reset.
        1 => {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
        }
        // Reads a little, and closes with the rest unread.
        2 => drop(stream.read(&mut space[..100])),
        // Says that it is done talking, reads a little, and closes.
        3 => {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read(&mut space[..7]);
        }
        // Closes at once.
        _ => {}
    }
}

#[test]
fn a_hostile_receiver_stops_nothing_and_the_account_says_what_its_kernel_took() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = format!("tcp://{}", listener.local_addr().expect("bound"));
    let behave = Arc::new(AtomicBool::new(false));
    let receiver = hostile(listener, Arc::clone(&behave));
    let builder = tracing_metlog::builder().router(address).when_full(WhenFull::Block);
    let guard = built(builder.flush_timeout(LONG));
    let client = guard.client();
    let mut sent = 0;
    eventually("it was met 20 times", || {
        (0..20).for_each(|n| send(&client, 0, sent + n));
        sent += 20;
        guard.stats().destinations[0].failures >= 20
    });
    // What follows goes to one that behaves, whole: at the latest after the one that is connected now.
    behave.store(true, Ordering::Release);
    let before = guard.flush(LONG);
    assert_eq!(before.pending, 0);
    (0..100).for_each(|n| send(&client, 1, n));
    let stats = guard.finish();
    assert_balanced(&stats);
    let got = Got::read(&receiver.join().expect("read"));
    assert_eq!((stats.pending, stats.lost.total()), (0, 0), "{stats}");
    assert_eq!(got.ids.keys().filter(|(t, _)| *t == 1).count(), 100, "what came to one that behaves");
    // The hostile ones' kernels acknowledged what they never used: TCP cannot tell.
    let missing = stats.emitted - got.ids.len() as u64;
    let duplicates = got.count() - got.ids.len() as u64;
    fault_report::record(
        "hostile receiver: garbage, resets, closes at random, 20 times and more (TCP)",
        "nothing stops; lost at most what its kernel had acknowledged",
        stats.emitted,
        got.ids.len() as u64,
        &[("acknowledged, not read", missing)],
        duplicates,
    );
}

#[test]
fn a_name_that_nobody_knows_keeps_deadlines() {
    let guard = built(tracing_metlog::builder().router("tcp://router.invalid").flush_timeout(LONG / 20));
    send(&guard.client(), 0, 0);
    let (_, flushed) = flush_of_a_second(&guard);
    assert_eq!(flushed.pending, 1);
    let (took, stats) = timed(move || guard.finish());
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_balanced(&stats);
    assert_eq!(stats.lost.count(LossReason::Unreachable), 1, "{stats}");
    fault_report::record_stats("a name that does not resolve", "flush(1 s) within 1.1 s", &stats, 0);
}
