//! Very many messages from eight threads at once, over each kind of connection: every one arrives once, as it was made,
//! and the account agrees. A million for each thread when `METLOG_TEST_SIZE=full` asks for it.
#![cfg(all(target_os = "linux", feature = "tracing"))]

mod process_support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use process_support::fault_report::record;
use process_support::oracle::{assert_balanced, send_all};
use process_support::size::{patience, sized, thousands};
use process_support::tally::{Counter, Speech, Tally};
use process_support::{built, eventually, Directory};
use tracing_metlog::{Stats, WhenFull};

const THREADS: u64 = 8;

fn size() -> (u64, u64) {
    (THREADS, sized(4_000, 1_000_000))
}

/// One at a time: each is as busy as the machine.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends everything, and waits for it.
fn sent_to(address: &str) -> Stats {
    let builder = tracing_metlog::builder().router(address).when_full(WhenFull::Block);
    let guard = built(builder.flush_timeout(patience()));
    let (threads, each) = size();
    send_all(&guard.client(), threads, each);
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!((stats.emitted, stats.pending), (threads * each, 0), "{stats}");
    stats
}

fn fault(way: &str) -> String {
    let (threads, each) = size();
    format!("{threads} threads send {} messages each, {way}", thousands(each))
}

/// All of it came, once.
fn complete(way: &str, stats: &Stats, tally: &Tally) {
    tally.assert_complete();
    assert_eq!((stats.delivered, stats.lost.total()), (tally.count(), 0), "{stats}");
    record(&fault(way), "0 lost", stats.emitted, tally.distinct, &[], tally.duplicates);
}

fn counted(way: &str, counter: Counter) {
    let stats = sent_to(&counter.address);
    complete(way, &stats, &counter.finish());
}

#[test]
fn everything_that_eight_threads_send_arrives_over_tcp() {
    let _alone = alone();
    counted("TCP", Counter::tcp(size(), Speech::Lines));
}

#[test]
fn everything_that_eight_threads_send_arrives_over_a_unix_socket() {
    let _alone = alone();
    let directory = Directory::new();
    counted("Unix socket", Counter::unix(size(), &directory.file("router"), Speech::Lines));
}

#[test]
fn everything_that_eight_threads_send_arrives_over_a_unix_datagram_socket() {
    let _alone = alone();
    let directory = Directory::new();
    counted("Unix datagrams", Counter::unixgram(size(), &directory.file("router")));
}

#[cfg(feature = "http")]
#[test]
fn everything_that_eight_threads_send_arrives_over_http() {
    let _alone = alone();
    counted("HTTP", Counter::tcp(size(), Speech::Http));
}

#[cfg(feature = "tls")]
#[test]
fn everything_that_eight_threads_send_arrives_over_tls() {
    let _alone = alone();
    let directory = Directory::new();
    counted("TLS", Counter::tls(size(), &directory.file("ca"), Speech::Lines));
}

#[cfg(all(feature = "http", feature = "tls"))]
#[test]
fn everything_that_eight_threads_send_arrives_over_https() {
    let _alone = alone();
    let directory = Directory::new();
    counted("HTTPS", Counter::tls(size(), &directory.file("ca"), Speech::Http));
}

#[test]
fn everything_that_eight_threads_send_is_in_the_file() {
    let _alone = alone();
    let directory = Directory::new();
    let path = directory.file("log");
    let stats = sent_to(&format!("file://{}", path.display()));
    complete("file", &stats, &Counter::file(size(), &path));
}

/// What a receiver's socket has dropped because its buffer was full, as the system counts it.
fn dropped_by_the_system(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/udp").expect("proc");
    let local = format!("0100007F:{port:04X}");
    let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&local)).expect("the socket");
    line.split_whitespace().last().expect("a column").parse().expect("a number")
}

/// UDP promises that the kernel took each. What the receiver has no room for it may lose, and nothing else is missing.
#[test]
fn of_what_eight_threads_send_over_udp_nothing_is_missing_but_what_the_receivers_socket_dropped() {
    let _alone = alone();
    let (counter, port) = Counter::udp(size());
    let stats = sent_to(&counter.address);
    assert_eq!((stats.delivered, stats.lost.total()), (stats.emitted, 0), "{stats}");
    // All was sent; some is still in its buffer.
    eventually("all came or was dropped", || {
        counter.look(Tally::count) + dropped_by_the_system(port) >= stats.emitted
    });
    let dropped = dropped_by_the_system(port);
    let tally = counter.finish();
    tally.assert_genuine();
    assert_eq!((tally.distinct + dropped, tally.duplicates), (stats.emitted, 0), "{dropped} were dropped");
    record(
        &fault("UDP"),
        "what is missing is what the receiver's full socket dropped, by the system's own count",
        stats.emitted,
        tally.distinct,
        &[("dropped by the receiver's socket", dropped)],
        0,
    );
}
