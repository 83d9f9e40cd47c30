//! Several destinations: each gets everything it can take, and one that is dead or stuck costs the others nothing.
#![cfg(all(unix, feature = "tracing"))]

mod process_support;

use std::time::Duration;

use process_support::oracle::{assert_accounted, assert_balanced, send, send_all, Got};
use process_support::receiver::Receiver;
use process_support::stalled::{Gate, NeverReads};
use process_support::{built, closed_port, timed, Directory, LONG};
use tracing_metlog::{DestinationStats, LossReason, Stats, WhenFull};

fn of<'s>(stats: &'s Stats, address: &str) -> &'s DestinationStats {
    stats.destinations.iter().find(|one| one.address == address).expect("known")
}

#[test]
fn two_live_destinations_get_everything() {
    let directory = Directory::new();
    let [tcp, unix] = [Receiver::tcp(), Receiver::unix(&directory.file("router"))];
    let guard = built(tracing_metlog::builder().router(&tcp.address).router(&unix.address));
    for round in 0..20 {
        for n in 0..500 {
            send(&guard.client(), round, n);
        }
        assert_eq!(guard.flush(LONG).pending, 0);
    }
    let stats = guard.finish();
    for receiver in [tcp, unix] {
        let address = receiver.address.clone();
        let got = Got::read(&receiver.close_at_end());
        got.assert_complete(20, 500);
        got.assert_ordered();
        assert_accounted(&stats, &got, 20, 500);
        assert_eq!((of(&stats, &address).delivered, of(&stats, &address).lost.total()), (10_000, 0));
    }
}

#[test]
fn a_live_destination_gets_everything_at_once_while_others_are_dead_and_stuck() {
    let (stuck, live) = (NeverReads::start(), Receiver::tcp());
    let dead = format!("tcp://127.0.0.1:{}", closed_port());
    let builder = tracing_metlog::builder().router(&dead).router(&stuck.address).router(&live.address);
    let guard = built(builder.flush_timeout(Duration::from_secs(2)));
    for round in 0..10 {
        let (took, ()) = timed(|| {
            (0..1_000).for_each(|n| send(&guard.client(), round, n));
            let there = || of(&guard.stats(), &live.address).delivered >= (round + 1) * 1_000;
            process_support::eventually("the live one has them", there);
        });
        assert!(took < Duration::from_secs(10), "round {round}: {took:?}");
    }
    let (took, stats) = timed(|| guard.finish());
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_balanced(&stats);
    let got = Got::read(&live.close_at_end());
    got.assert_complete(10, 1_000);
    got.assert_ordered();
    assert_eq!(of(&stats, &dead).delivered, 0);
    assert!(of(&stats, &dead).failures > 0 && of(&stats, &dead).problem.is_some(), "{stats:?}");
    for one in &stats.destinations {
        assert_eq!(one.pending, 0, "at the end nothing is pending: {stats:?}");
    }
    assert_accounted(&stats, &got, 10, 1_000);
}

#[test]
fn a_destination_that_is_stuck_for_a_moment_loses_nothing_while_there_is_memory() {
    const MESSAGES: u64 = 300;
    let (gate, live) = (Gate::shut(), Receiver::tcp());
    let builder = tracing_metlog::builder().transport(gate.clone()).router(&live.address);
    let guard = built(builder.flush_timeout(LONG));
    // One at a time, as a program that logs a little does; each is on its way before the next is made.
    for n in 0..MESSAGES {
        send(&guard.client(), 0, n);
        live.wait_for(n as usize + 1);
    }
    assert_eq!(of(&guard.stats(), "transport").lost.total(), 0, "a few kilobytes are not far behind");
    gate.release();
    let stats = guard.finish();
    assert_balanced(&stats);
    Got::read(&gate.capture.lines()).assert_complete(1, MESSAGES);
    Got::read(&live.close_at_end()).assert_complete(1, MESSAGES);
}

#[test]
fn a_destination_that_stays_stuck_loses_its_oldest_and_each_account_balances() {
    let (gate, live) = (Gate::shut(), Receiver::tcp());
    let builder = tracing_metlog::builder().transport(gate.clone()).router(&live.address);
    let guard = built(builder.when_full(WhenFull::Block).flush_timeout(LONG));
    const EACH: u64 = 60_000;
    send_all(&guard.client(), 1, EACH);
    let there = || of(&guard.stats(), &live.address).delivered >= EACH;
    process_support::eventually("the live one is not held up", there);
    let lagging = of(&guard.stats(), "transport").lost;
    assert_balanced(&guard.stats());
    assert!(lagging.total() > 0 && lagging.count(LossReason::Lagging) == lagging.total(), "{lagging}");
    gate.release();
    let stats = guard.finish();
    assert_balanced(&stats);
    let got = Got::read(&gate.capture.lines());
    got.assert_genuine(1, EACH);
    got.assert_ordered();
    let theirs = of(&stats, "transport");
    assert_eq!((theirs.delivered, theirs.pending), (got.count(), 0));
    assert!(got.ids.contains_key(&(0, EACH - 1)), "the newest are kept");
    let reports = stats.emitted - EACH;
    assert_eq!(
        got.missing(1, EACH).count() as u64 + reports - got.loss_reports.len() as u64,
        theirs.lost.total()
    );
    Got::read(&live.close_at_end()).assert_complete(1, EACH);
}

/// What is lost of the later messages must not pass for the earlier one that is still being sent.
#[test]
fn a_flush_is_not_complete_before_the_stuck_destination_has_settled_what_was_flushed() {
    let (gate, live) = (Gate::shut(), Receiver::tcp());
    let builder = tracing_metlog::builder().transport(gate.clone()).router(&live.address);
    let guard = built(builder.when_full(WhenFull::Block));
    let client = guard.client();
    send(&client, 0, 0);
    process_support::eventually("the first is being sent", || gate.is_asked());
    let patience = Duration::from_millis(500);
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| timed(|| guard.flush(patience)));
        (1..60_000).for_each(|n| send(&client, 0, n));
        let (took, _) = flush.join().expect("no panic");
        assert!(took >= patience, "the gate is still shut, and the flush took {took:?}");
    });
    gate.release();
    assert_balanced(&guard.finish());
    drop(live);
}

#[test]
fn the_end_is_bounded_when_every_destination_is_dead() {
    let dead = [(); 3].map(|()| format!("tcp://127.0.0.1:{}", closed_port()));
    let builder = dead.iter().fold(tracing_metlog::builder(), |builder, dead| builder.router(dead));
    let guard = built(builder);
    send_all(&guard.client(), 2, 1_000);
    let (took, stats) = timed(|| guard.finish());
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_balanced(&stats);
    assert_eq!((stats.emitted - stats.lost.total(), stats.pending), (0, 0), "{stats:?}");
}

#[test]
fn the_end_is_bounded_by_the_flush_timeout_when_one_destination_is_stuck() {
    let (stuck, live) = (NeverReads::start(), Receiver::tcp());
    let builder = tracing_metlog::builder().router(&stuck.address).router(&live.address);
    let guard = built(builder.flush_timeout(Duration::from_millis(500)).queue_bytes(32 << 20));
    send_all(&guard.client(), 1, 20_000);
    process_support::eventually("the live one has them", || {
        of(&guard.stats(), &live.address).delivered == 20_000
    });
    let (took, stats) = timed(|| guard.finish());
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_balanced(&stats);
    for one in &stats.destinations {
        assert_eq!(one.pending, 0, "{stats:?}");
    }
    Got::read(&live.close_at_end()).assert_complete(1, 20_000);
}
