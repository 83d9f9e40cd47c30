//! A message counts as delivered when its destination has confirmed it, and not before: what a connection that breaks
//! had not confirmed is sent again, and the account tells written from confirmed.
#![cfg(all(target_os = "linux", feature = "tracing"))]

mod process_support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use process_support::oracle::{assert_accounted, assert_balanced, send, Got};
use process_support::receiver::Receiver;
use process_support::{built, eventually, fault_report, timed, Directory, LONG};
use tracing_metlog::{Guard, LossReason};

/// A router on a Unix socket that does nothing by itself, and a generator that sends there.
fn on_unix(directory: &Directory) -> (UnixListener, Guard) {
    let path = directory.file("router");
    let listener = UnixListener::bind(&path).expect("binds");
    let builder = tracing_metlog::builder().router(format!("unix://{}", path.display()));
    (listener, built(builder.flush_timeout(LONG)))
}

fn on_tcp() -> (TcpListener, Guard) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = format!("tcp://{}", listener.local_addr().expect("bound"));
    (listener, built(tracing_metlog::builder().router(address).flush_timeout(LONG)))
}

/// Everything until the peer ends, as lines.
fn read_to_end(mut stream: impl Read) -> Vec<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("UTF-8");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn what_a_unix_router_has_not_read_is_unconfirmed_and_pending_and_delivered_when_it_is_read() {
    let directory = Directory::new();
    let (listener, guard) = on_unix(&directory);
    (0..10).for_each(|n| send(&guard.client(), 0, n));
    eventually("all is written", || guard.stats().unconfirmed == 10);
    let (took, flushed) = timed(|| guard.flush(Duration::from_millis(300)));
    assert!((300..2_000).contains(&took.as_millis()), "a flush waits for the confirmation: {took:?}");
    assert_eq!((flushed.delivered, flushed.pending, flushed.unconfirmed), (0, 10, 10));
    let stats = guard.stats();
    assert_balanced(&stats);
    assert_eq!((stats.delivered, stats.pending, stats.destinations[0].unconfirmed), (0, 10, 10));

    let stream = listener.accept().expect("connected").0;
    let reader = std::thread::spawn(move || read_to_end(stream));
    let flushed = guard.flush(LONG);
    assert_eq!((flushed.delivered, flushed.pending, flushed.unconfirmed), (10, 0, 0));
    let stats = guard.finish();
    let got = Got::read(&reader.join().expect("read"));
    got.assert_complete(1, 10);
    assert_accounted(&stats, &got, 1, 10);
}

#[test]
fn what_a_unix_router_had_not_read_when_it_died_arrives_at_the_next_one() {
    let directory = Directory::new();
    let (listener, guard) = on_unix(&directory);
    for n in 0..10 {
        send(&guard.client(), 0, n);
        eventually("it is written", || guard.stats().unconfirmed == n + 1);
        // Accepted, and gone without reading.
        drop(listener.accept().expect("connected"));
        eventually("it is noticed", || guard.stats().destinations[0].failures > n);
    }
    let stream = listener.accept().expect("connected").0;
    let reader = std::thread::spawn(move || read_to_end(stream));
    let stats = guard.finish();
    let got = Got::read(&reader.join().expect("read"));
    got.assert_complete(1, 10);
    assert_accounted(&stats, &got, 1, 10);
    fault_report::record_stats("Unix router gone 10 times with everything unread", "0 lost", &stats, 0);
}

#[test]
fn what_is_unconfirmed_at_the_deadline_of_the_end_is_lost_by_that_name() {
    let directory = Directory::new();
    let path = directory.file("router");
    let listener = UnixListener::bind(&path).expect("binds");
    let builder = tracing_metlog::builder().router(format!("unix://{}", path.display()));
    let guard = built(builder.flush_timeout(Duration::from_millis(200)));
    (0..10).for_each(|n| send(&guard.client(), 0, n));
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!((stats.delivered, stats.lost.count(LossReason::Unconfirmed), stats.pending), (0, 10, 0));
    drop(listener);
}

fn closed_while_idle<S: Read>(guard: Guard, mut accept: impl FnMut() -> S, name: &str) {
    const ROUNDS: u64 = 20;
    let mut lines = Vec::new();
    for n in 0..ROUNDS {
        send(&guard.client(), 0, n);
        let mut stream = accept();
        let mut bytes = Vec::new();
        while bytes.last() != Some(&b'\n') {
            let mut one = [0; 4096];
            let count = stream.read(&mut one).expect("read");
            bytes.extend_from_slice(&one[..count]);
        }
        lines.extend(String::from_utf8(bytes).expect("UTF-8").lines().map(str::to_owned));
        assert_eq!(guard.flush(LONG).pending, 0);
        // Closed while nothing is on its way; the next message is the first to notice.
        drop(stream);
    }
    let stats = guard.finish();
    let got = Got::read(&lines);
    got.assert_complete(1, ROUNDS);
    assert_accounted(&stats, &got, 1, ROUNDS);
    assert_eq!(stats.destinations[0].failures, 0, "noticed before the next write, not after: {stats:?}");
    fault_report::record_stats(
        &format!("{name} peer closed while idle, then one message"),
        "0 lost",
        &stats,
        0,
    );
}

#[test]
fn a_message_after_a_tcp_peer_closed_an_idle_connection_is_not_lost() {
    let (listener, guard) = on_tcp();
    closed_while_idle(guard, || listener.accept().expect("connected").0, "TCP");
}

#[test]
fn a_message_after_a_unix_peer_closed_an_idle_connection_is_not_lost() {
    let directory = Directory::new();
    let (listener, guard) = on_unix(&directory);
    closed_while_idle(guard, || listener.accept().expect("connected").0, "Unix");
}

/// The beginning of a stream: at least `count` bytes.
fn read_some(stream: &mut impl Read, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).expect("read");
    bytes
}

/// The whole lines at the front.
fn whole_lines(bytes: &[u8]) -> Vec<String> {
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    String::from_utf8(bytes[..whole].to_vec()).expect("UTF-8").lines().map(str::to_owned).collect()
}

/// A peer that reads half a frame and resets the connection: nothing of that frame is used twice or left out.
#[test]
fn a_frame_that_a_reset_cut_in_two_is_sent_again_whole() {
    let (listener, guard) = on_tcp();
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 4096).expect("set");
    const EACH: u64 = 2_000;
    let client = guard.client();
    let long = "x".repeat(2_000);
    let mut lines = Vec::new();
    for n in 0..EACH {
        client
            .message("oldstyle")
            .payload(process_support::oracle::text(0, n).as_str())
            .field("t", 0)
            .field("n", n)
            .field("long", long.as_str())
            .send();
    }
    // More than both buffers take: the rest of the frame is still to come.
    let mut first = listener.accept().expect("connected").0;
    let bytes = read_some(&mut first, 3_000);
    lines.extend(whole_lines(&bytes));
    rustix::net::sockopt::set_socket_linger(&first, Some(Duration::ZERO)).expect("set");
    let before = guard.stats();
    drop(first);
    let second = listener.accept().expect("connected again").0;
    let reader = std::thread::spawn(move || read_to_end(second));
    let stats = guard.finish();
    lines.extend(reader.join().expect("read"));
    let got = Got::read(&lines);
    // What the first peer's kernel had acknowledged, and the peer had not read, is what TCP cannot promise.
    let missing = got.missing(1, EACH).count() as u64;
    assert!(missing <= stats.delivered.min(40), "{missing} missing, {before} before");
    let duplicates = got.count() - got.ids.len() as u64;
    assert_eq!(stats.delivered + duplicates, got.count() + missing, "{stats}");
    assert_balanced(&stats);
    assert_eq!(stats.lost.total(), 0);
    fault_report::record(
        "RST in the middle of a frame",
        "the frame is sent again whole; lost at most what the peer's kernel had acknowledged and it had not read",
        stats.emitted,
        got.ids.len() as u64,
        &[("acknowledged, not read", missing)],
        duplicates,
    );
}

#[test]
fn several_destinations_each_confirm_for_themselves() {
    let directory = Directory::new();
    let path = directory.file("router");
    let listener = UnixListener::bind(&path).expect("binds");
    let receiver = Receiver::tcp();
    let builder = tracing_metlog::builder().router(format!("unix://{}", path.display()));
    let guard = built(builder.router(&receiver.address).flush_timeout(LONG));
    (0..50).for_each(|n| send(&guard.client(), 0, n));
    receiver.wait_for(50);
    eventually("one has confirmed all, the other nothing", || {
        let stats = guard.stats();
        assert_balanced(&stats);
        let [unix, tcp] = &stats.destinations[..] else { panic!("two") };
        (unix.delivered, unix.unconfirmed, tcp.delivered, tcp.unconfirmed) == (0, 50, 50, 0)
    });
    let flushed = guard.flush(Duration::from_millis(100));
    assert_eq!((flushed.pending, flushed.unconfirmed), (50, 50));
    let stream: UnixStream = listener.accept().expect("connected").0;
    let reader = std::thread::spawn(move || read_to_end(stream));
    assert_eq!(guard.flush(LONG).pending, 0);
    assert_balanced(&guard.finish());
    Got::read(&reader.join().expect("read")).assert_complete(1, 50);
    Got::read(&receiver.close_at_end()).assert_complete(1, 50);
}

#[test]
fn a_busy_program_cannot_keep_a_flush_from_being_complete() {
    let receiver = Receiver::tcp();
    let guard = built(tracing_metlog::builder().router(&receiver.address).flush_timeout(LONG));
    let client = guard.client();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let mut n = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                send(&client, 0, n);
                n += 1;
            }
            n
        });
        for _ in 0..10 {
            assert_eq!(guard.flush(LONG).pending, 0);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        busy.join().expect("sent")
    });
    let stats = guard.finish();
    assert_balanced(&stats);
    assert!(stats.emitted >= sent);
}

/// A peer that writes all the time, and reads: it is heard, and does not stop anything.
#[test]
fn a_peer_that_talks_confirms_like_any_other() {
    let (listener, guard) = on_tcp();
    (0..100).for_each(|n| send(&guard.client(), 0, n));
    let stream = listener.accept().expect("connected").0;
    let mut talker: TcpStream = stream.try_clone().expect("cloned");
    let talk = std::thread::spawn(move || while talker.write_all(&[b'!'; 65_536]).is_ok() {});
    let reader = std::thread::spawn(move || {
        let lines = read_to_end(&stream);
        stream.shutdown(std::net::Shutdown::Both).expect("closed");
        lines
    });
    assert_eq!(guard.flush(LONG).pending, 0);
    let stats = guard.finish();
    let got = Got::read(&reader.join().expect("read"));
    talk.join().expect("ended");
    got.assert_complete(1, 100);
    assert_accounted(&stats, &got, 1, 100);
}
