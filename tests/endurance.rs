//! Nothing grows: in a long time under load, and in a thousand connections that the router ends, the process holds as
//! many descriptors and threads and as much memory as before. Ten minutes when `METLOG_TEST_SIZE=full` asks for it.
//!
//! Each runs in a process of its own, because what other tests hold would be counted too.
#![cfg(all(target_os = "linux", feature = "tracing"))]

mod process_support;

use std::time::{Duration, Instant};

use process_support::child;
use process_support::fault_report::record;
use process_support::oracle::{assert_balanced, send, text};
use process_support::size::{sized, thousands, Holdings};
use process_support::tally::{Counter, Speech};
use process_support::{built, eventually, Directory, LONG};
use tracing_metlog::WhenFull;
use tracing_subscriber::layer::SubscriberExt;

const THREADS: u64 = 8;
/// Messages a second, of all threads.
const RATE: u64 = 50_000;
/// Between two looks at what is held.
const LOOK: Duration = Duration::from_millis(200);

fn soak_time() -> Duration {
    sized(Duration::from_secs(4), Duration::from_secs(600))
}

/// What the children of this file do; nothing when it is run as a test.
#[test]
fn child() {
    match child::mode().as_deref() {
        None => {}
        Some("soak") => soak(),
        Some(way) => reconnect(way),
    }
}

/// Logs events of one thread in spans, at its share of the rate, for the time; the number of events.
fn log_for(t: u64, time: Duration) -> u64 {
    let (begun, mut n) = (Instant::now(), 0);
    while begun.elapsed() < time {
        let due = (begun.elapsed().as_secs_f64() * (RATE / THREADS) as f64) as u64;
        if n < due {
            // Its end is a message too.
            let _span = tracing::info_span!("work", of = t, upto = due).entered();
            while n + 1 < due {
                tracing::info!(t, n, "{}", text(t, n));
                n += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    n
}

fn soak() {
    let time = soak_time();
    // Memory that is used from the beginning.
    let counter = Counter::tcp((THREADS, time.as_secs() * RATE / THREADS), Speech::Lines);
    let builder = tracing_metlog::builder().router(&counter.address).when_full(WhenFull::Block);
    let (layer, guard) = builder.filter("info").flush_timeout(LONG).build().expect("builds");
    let subscriber = tracing::Dispatch::new(tracing_subscriber::registry().with(layer));
    let mut looks = Vec::with_capacity(10_000);
    let events: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|t| {
                let subscriber = &subscriber;
                scope.spawn(move || tracing::dispatcher::with_default(subscriber, || log_for(t, time)))
            })
            .collect();
        while !threads.iter().all(|thread| thread.is_finished()) {
            std::thread::sleep(LOOK);
            looks.push(Holdings::now());
        }
        threads.into_iter().map(|thread| thread.join().expect("logs")).sum()
    });
    let stats = guard.finish();
    assert_balanced(&stats);
    let tally = counter.finish();
    tally.assert_genuine();
    assert_eq!((tally.distinct, tally.duplicates, tally.loss_reports), (events, 0, 0), "{stats}");
    assert_eq!((stats.emitted, stats.lost.total()), (events + tally.timers, 0), "{stats}");
    assert!(events > time.as_secs() * RATE * 9 / 10, "the rate is kept: {events}");
    child::say("emitted", stats.emitted);
    child::say("delivered", tally.count());
    say_held(&looks[..looks.len() - 1]);
}

/// Compares what was held after a fifth of the time, when everything is warm, with the end.
fn say_held(looks: &[Holdings]) {
    let fifth = looks.len() / 5;
    let [before, after] = [&looks[fifth..2 * fifth], &looks[looks.len() - fifth..]].map(at_rest);
    child::say("descriptors", after.descriptors.saturating_sub(before.descriptors));
    child::say("threads", after.threads.saturating_sub(before.threads));
    child::say("kib", after.kib.saturating_sub(before.kib));
    let Holdings { kib, descriptors, threads } = after;
    child::say("holds", format!("{kib} KiB, {descriptors} descriptors, {threads} threads"));
}

/// The least of several looks: without what comes and goes, as a name that is being looked up.
fn at_rest(looks: &[Holdings]) -> Holdings {
    let least = |of: fn(&Holdings) -> usize| looks.iter().map(of).min().expect("some");
    Holdings {
        descriptors: least(|one| one.descriptors),
        threads: least(|one| one.threads),
        kib: least(|one| one.kib),
    }
}

fn number(ended: &child::Ended, name: &str) -> u64 {
    ended.said(name).parse().expect("a number")
}

/// Nothing is held at the end that was not held before.
#[track_caller]
fn assert_flat(ended: &child::Ended, kib: u64) {
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    assert_eq!((number(ended, "descriptors"), number(ended, "threads")), (0, 0), "{ended:#?}");
    assert!(number(ended, "kib") <= kib, "{ended:#?}");
}

#[test]
fn ten_minutes_under_load_lose_nothing_and_hold_no_more_at_the_end_than_at_the_beginning() {
    let ended = child::run_within(soak_time() + 2 * LONG, child::command("child", "soak", ""));
    // Ten minutes make 30 million messages: a byte that is left of each would be 29 MiB. In a few seconds buffers still
    // grow to what they need.
    assert_flat(&ended, sized(16 * 1_024, 1_024));
    record(
        &format!(
            "{} s under {} messages/s of {THREADS} threads, TCP",
            soak_time().as_secs(),
            thousands(RATE)
        ),
        &format!(
            "0 lost; memory grows by {} KiB, nothing else does ({})",
            ended.said("kib"),
            ended.said("holds")
        ),
        number(&ended, "emitted"),
        number(&ended, "delivered"),
        &[],
        0,
    );
}

fn rounds() -> u64 {
    sized(200, 1_000)
}

/// A message over each of many connections, which the router ends.
fn reconnect(way: &str) {
    let (directory, size) = (Directory::new(), (1, rounds()));
    let counter = match way {
        "TCP" => Counter::tcp(size, Speech::LinesOnce),
        "Unix socket" => Counter::unix(size, &directory.file("router"), Speech::LinesOnce),
        #[cfg(feature = "http")]
        "HTTP" => Counter::tcp(size, Speech::HttpOnce),
        #[cfg(feature = "tls")]
        "TLS" => Counter::tls(size, &directory.file("ca"), Speech::LinesOnce),
        other => panic!("way {other}"),
    };
    let guard = built(tracing_metlog::builder().router(&counter.address).flush_timeout(LONG));
    let client = guard.client();
    let mut looks = Vec::with_capacity(1_000);
    for n in 0..rounds() {
        send(&client, 0, n);
        assert_eq!(guard.flush(LONG).pending, 0);
        eventually("it has come", || counter.look(|tally| tally.distinct) > n);
        // Those of the router's that are ending are not this crate's.
        eventually("the router has ended the connection", || counter.connections() == 0);
        looks.push(Holdings::now());
    }
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!(stats.lost.total(), 0, "{stats}");
    let tally = counter.finish();
    tally.assert_complete();
    child::say("emitted", stats.emitted);
    child::say("delivered", tally.count());
    say_held(&looks);
}

fn a_thousand_connections_leave_nothing_behind(way: &str) {
    let ended = child::run_within(4 * LONG, child::command("child", way, ""));
    assert_flat(&ended, 512);
    record(
        &format!("{} connections one after the other, {way}", thousands(rounds())),
        &format!(
            "0 lost; memory grows by {} KiB, nothing else does ({})",
            ended.said("kib"),
            ended.said("holds")
        ),
        number(&ended, "emitted"),
        number(&ended, "delivered"),
        &[],
        0,
    );
}

#[test]
fn a_thousand_tcp_connections_leave_no_descriptor_no_thread_and_no_memory_behind() {
    a_thousand_connections_leave_nothing_behind("TCP");
}

#[test]
fn a_thousand_unix_connections_leave_no_descriptor_no_thread_and_no_memory_behind() {
    a_thousand_connections_leave_nothing_behind("Unix socket");
}

#[cfg(feature = "http")]
#[test]
fn a_thousand_http_connections_leave_no_descriptor_no_thread_and_no_memory_behind() {
    a_thousand_connections_leave_nothing_behind("HTTP");
}

#[cfg(feature = "tls")]
#[test]
fn a_thousand_tls_connections_leave_no_descriptor_no_thread_and_no_memory_behind() {
    a_thousand_connections_leave_nothing_behind("TLS");
}
