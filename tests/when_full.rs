//! What happens to messages when the receiver is stuck and the queue full: each policy keeps what it says it keeps,
//! and every message is delivered or counted.
#![cfg(all(unix, feature = "tracing"))]

mod process_support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use process_support::oracle::{assert_accounted, assert_balanced, send, send_all, send_at, Got};
use process_support::stalled::{Gate, NeverReads};
use process_support::{built, timed, AtEnd, LONG};
use tracing_metlog::{Client, Guard, LossReason, Severity, WhenFull};

/// The smallest queue there is holds a few thousand of the messages here.
const FEW: usize = 1;
/// Far more than it holds.
const MANY: u64 = 40_000;

fn stuck(when_full: WhenFull, queue_bytes: usize) -> (Gate, Guard) {
    let gate = Gate::shut();
    let builder = tracing_metlog::builder().transport(gate.clone()).when_full(when_full);
    (gate, built(builder.queue_bytes(queue_bytes).flush_timeout(LONG / 3)))
}

/// Sends message 0/0 and waits until the background thread is stuck with it: from then on it takes nothing out of
/// the queue.
fn stick(gate: &Gate, client: &Client) {
    send(client, 0, 0);
    process_support::eventually("the transport is asked", || gate.is_asked());
}

/// Lets everything through, and gives what came; the account must agree with it.
fn released(gate: Gate, guard: Guard, producers: u64, each: u64) -> Got {
    gate.release();
    let stats = guard.finish();
    let got = Got::read(&gate.capture.lines());
    assert_accounted(&stats, &got, producers, each);
    assert_eq!(stats.pending, 0, "{stats}");
    got.assert_ordered();
    got
}

#[test]
fn drop_newest_keeps_the_oldest() {
    let (gate, guard) = stuck(WhenFull::DropNewest, FEW);
    let client = guard.client();
    stick(&gate, &client);
    let (took, ()) = timed(|| (1..MANY).for_each(|n| send(&client, 0, n)));
    assert!(took < LONG / 2, "a log call never waits: {took:?}");
    let stats = guard.stats();
    assert_balanced(&stats);
    assert_eq!(stats.lost.count(LossReason::QueueFull), stats.lost.total(), "{stats}");
    let lost = stats.lost.total();
    let got = released(gate, guard, 1, MANY);
    let kept = MANY - lost;
    assert!(kept > 0 && lost > 0);
    assert!(got.orders[&0].iter().copied().eq(0..kept), "exactly the oldest");
    assert_eq!(got.loss_reports.len(), 1);
}

#[test]
fn drop_oldest_keeps_the_newest() {
    let (gate, guard) = stuck(WhenFull::DropOldest, FEW);
    let client = guard.client();
    stick(&gate, &client);
    let (took, ()) = timed(|| (1..MANY).for_each(|n| send(&client, 0, n)));
    assert!(took < LONG / 2, "a log call never waits: {took:?}");
    let stats = guard.stats();
    assert_balanced(&stats);
    assert_eq!(stats.lost.count(LossReason::QueueFull), stats.lost.total(), "{stats}");
    let lost = stats.lost.total();
    assert!(lost > 0 && lost < MANY, "{stats}");
    let got = released(gate, guard, 1, MANY);
    assert!(got.ids.contains_key(&(0, MANY - 1)), "the very newest");
    // What the stuck transport held already came first; between that and the newest is one gap.
    let order = &got.orders[&0];
    let gaps = order.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    assert!(gaps <= 1 && (order[0] == 0 || gaps == 0), "{gaps} gaps, from {}", order[0]);
}

#[test]
fn block_loses_nothing_once_the_receiver_goes_on() {
    const EACH: u64 = 8_000;
    let (gate, guard) = stuck(WhenFull::Block, FEW);
    let client = guard.client();
    std::thread::scope(|scope| {
        let _end = AtEnd(|| gate.release());
        let sender = scope.spawn(|| send_all(&client, 4, EACH));
        // The producers have come to a stop: nothing more is emitted, and not all was.
        let last = AtomicU64::new(0);
        let stopped = || {
            std::thread::sleep(Duration::from_millis(100));
            let emitted = guard.stats().emitted;
            emitted > 0 && emitted == last.swap(emitted, Ordering::Relaxed)
        };
        process_support::eventually("the queue is full", stopped);
        assert!(!sender.is_finished(), "there is no room for all of them");
        assert_eq!(guard.stats().lost.total(), 0);
        gate.release();
    });
    released(gate, guard, 4, EACH).assert_complete(4, EACH);
}

#[test]
fn block_sheds_nothing() {
    let (gate, guard) = stuck(WhenFull::Block, FEW);
    let client = guard.client();
    std::thread::scope(|scope| {
        let _end = AtEnd(|| gate.release());
        let sender = scope.spawn(|| (0..MANY).for_each(|n| send_at(&client, Severity::Debug, 0, n)));
        process_support::eventually("most of the room is used", || guard.stats().emitted > 1_000);
        gate.release();
        sender.join().expect("fine");
    });
    released(gate, guard, 1, MANY).assert_complete(1, MANY);
}

#[test]
fn block_for_waits_as_long_as_it_says_and_then_drops() {
    const PATIENCE: Duration = Duration::from_millis(100);
    let (gate, guard) = stuck(WhenFull::BlockFor(PATIENCE), FEW);
    let client = guard.client();
    stick(&gate, &client);
    let mut n = 1;
    while guard.stats().lost.total() == 0 {
        send(&client, 0, n);
        n += 1;
    }
    for _ in 0..5 {
        let (took, ()) = timed(|| send(&client, 0, n));
        n += 1;
        assert!(took >= PATIENCE && took < PATIENCE + Duration::from_secs(2), "{took:?}");
    }
    let stats = guard.stats();
    assert_balanced(&stats);
    assert_eq!((stats.lost.count(LossReason::QueueFull), stats.lost.total()), (6, 6), "{stats}");
    let got = released(gate, guard, 1, n);
    assert!(got.orders[&0].iter().copied().eq(0..n - 6));
}

#[test]
fn block_for_loses_nothing_when_there_is_room_in_time() {
    let (gate, guard) = stuck(WhenFull::BlockFor(LONG), FEW);
    let client = guard.client();
    std::thread::scope(|scope| {
        let _end = AtEnd(|| gate.release());
        let sender = scope.spawn(|| (0..MANY).for_each(|n| send(&client, 0, n)));
        process_support::eventually("there is something to be stuck on", || guard.stats().emitted > 1_000);
        gate.release();
        sender.join().expect("fine");
    });
    released(gate, guard, 1, MANY).assert_complete(1, MANY);
}

#[test]
fn the_longest_patience_there_is_is_no_panic() {
    let (gate, guard) = stuck(WhenFull::BlockFor(Duration::MAX), FEW);
    let client = guard.client();
    std::thread::scope(|scope| {
        let _end = AtEnd(|| gate.release());
        let sender = scope.spawn(|| (0..MANY).for_each(|n| send(&client, 0, n)));
        process_support::eventually("there is something to be stuck on", || guard.stats().emitted > 1_000);
        gate.release();
        sender.join().expect("no panic");
    });
    released(gate, guard, 1, MANY).assert_complete(1, MANY);
}

#[test]
fn debug_is_shed_before_info_is_dropped() {
    let (gate, guard) = stuck(WhenFull::DropNewest, 2 << 20);
    let client = guard.client();
    stick(&gate, &client);
    send_at(&client, Severity::Informational, 1, 0);
    let mut n = 1;
    while guard.stats().lost.total() == 0 {
        send_at(&client, Severity::Debug, 0, n);
        send_at(&client, Severity::Informational, 1, n);
        n += 1;
        assert!(n < MANY, "nothing is ever shed");
    }
    let stats = guard.stats();
    assert_eq!(stats.lost.count(LossReason::Shed), 1, "DEBUG goes first: {stats}");
    let first_shed = n - 1;
    // There is room left for as much INFO as fits into a chunk at least.
    for _ in 0..200 {
        send_at(&client, Severity::Debug, 0, n);
        send_at(&client, Severity::Informational, 1, n);
        n += 1;
    }
    let stats = guard.stats();
    assert_balanced(&stats);
    assert_eq!((stats.lost.count(LossReason::Shed), stats.lost.total()), (201, 201), "{stats}");
    let got = released(gate, guard, 2, n);
    assert!(got.orders[&0].iter().copied().eq(0..first_shed));
    assert!(got.orders[&1].iter().copied().eq(0..n));
}

#[test]
fn debug_is_taken_again_when_there_is_room_again() {
    let (gate, guard) = stuck(WhenFull::DropNewest, FEW);
    let client = guard.client();
    let mut n = 0;
    while guard.stats().lost.count(LossReason::Shed) == 0 {
        send_at(&client, Severity::Debug, 0, n);
        n += 1;
    }
    gate.release();
    assert_eq!(guard.flush(LONG).pending, 0);
    send_at(&client, Severity::Debug, 0, n);
    let got = released(gate, guard, 1, n + 1);
    assert!(got.ids.contains_key(&(0, n)));
}

#[test]
fn a_queue_of_many_bytes_holds_more_than_one_of_few() {
    let kept = |queue_bytes| {
        let (gate, guard) = stuck(WhenFull::DropNewest, queue_bytes);
        let client = guard.client();
        stick(&gate, &client);
        (1..MANY).for_each(|n| send(&client, 0, n));
        let lost = guard.stats().lost.total();
        released(gate, guard, 1, MANY);
        MANY - lost
    };
    let [few, many] = [kept(FEW), kept(4 << 20)];
    assert!(few < MANY && few * 2 < many, "{few} and {many}");
}

#[test]
fn a_tcp_router_that_does_not_read_costs_what_does_not_fit_and_no_time() {
    let router = NeverReads::start();
    let builder = tracing_metlog::builder().router(&router.address).queue_bytes(FEW);
    let guard = built(builder.flush_timeout(Duration::from_millis(200)));
    let (took, ()) = timed(|| send_all(&guard.client(), 4, MANY));
    assert!(took < LONG / 2, "{took:?}");
    let stats = guard.stats();
    assert_balanced(&stats);
    assert!(stats.lost.count(LossReason::QueueFull) > 0, "{stats}");
    let (took, stats) = timed(|| guard.finish());
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_balanced(&stats);
    assert_eq!(stats.pending, 0, "{stats}");
}
