//! A router that does not read for a while, under each policy for a full queue: what a call costs meanwhile, what a flush
//! does, and that everything that was kept arrives when the router reads again. For a minute when
//! `METLOG_TEST_SIZE=full` asks for it.
#![cfg(all(target_os = "linux", feature = "tracing"))]

mod process_support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use process_support::fault_report::record_stats;
use process_support::oracle::{assert_balanced, send};
use process_support::size::{patience, sized, thousands};
use process_support::tally::{Counter, Tally};
use process_support::{built, eventually, flush_of_a_second, timed, AtEnd};
use tracing_metlog::{Client, Guard, LossReason, Stats, WhenFull};

/// Calls a second under the policies that drop.
const RATE: u64 = 10_000;

fn stall() -> Duration {
    sized(Duration::from_secs(1), Duration::from_secs(60))
}

/// A router that stalls, and a generator with the smallest queue there is.
struct Stalled {
    guard: Option<Guard>,
    counter: Option<Counter>,
    may_read: Arc<AtomicBool>,
}

impl Drop for Stalled {
    /// Also for a test that fails: the end of the generator waits for the router.
    fn drop(&mut self) {
        self.may_read.store(true, Ordering::Release);
    }
}

impl Stalled {
    fn with(when_full: WhenFull, size: (u64, u64)) -> Stalled {
        let may_read = Arc::new(AtomicBool::new(false));
        let counter = Counter::tcp_that_waits(size, &may_read);
        let builder = tracing_metlog::builder().router(&counter.address).when_full(when_full);
        let guard = built(builder.queue_bytes(1).flush_timeout(patience()));
        Stalled { guard: Some(guard), counter: Some(counter), may_read }
    }

    fn guard(&self) -> &Guard {
        self.guard.as_ref().expect("there until it resumes")
    }

    /// A flush of a second in front of the stalled router: how long it took.
    fn flush(&self) -> Duration {
        let (took, flushed) = flush_of_a_second(self.guard());
        assert!(took >= Duration::from_secs(1), "{took:?}");
        assert!(flushed.pending > 0 && flushed.unconfirmed <= flushed.pending, "{flushed:?}");
        took
    }

    /// The router reads again: what came, and the account.
    fn resumed(mut self) -> (Stats, Tally) {
        self.may_read.store(true, Ordering::Release);
        let stats = self.guard.take().expect("there").finish();
        assert_balanced(&stats);
        let tally = self.counter.take().expect("there").finish();
        tally.assert_genuine();
        assert_eq!((stats.pending, tally.duplicates), (0, 0), "{stats}");
        assert_eq!(stats.delivered, tally.count(), "{stats}");
        (stats, tally)
    }
}

/// Far more messages than any test here makes.
const PLENTY: u64 = 2_000_000;

/// Sends until nothing has got on for a while: the queue is full, and what the connection holds. How many that took.
fn fill(guard: &Guard, client: &Client) -> u64 {
    let mut n = 0;
    let mut delivered = u64::MAX;
    eventually("it is full", || {
        let lost = guard.stats().lost.total();
        (0..2_000).for_each(|more| send(client, 0, n + more));
        n += 2_000;
        std::thread::sleep(Duration::from_millis(20));
        let stats = guard.stats();
        stats.lost.total() > lost && delivered == std::mem::replace(&mut delivered, stats.delivered)
    });
    n
}

/// Calls at the rate, with numbers from `first`, and how long each took, the shortest first.
fn calls_for(time: Duration, first: u64, client: &Client) -> Vec<Duration> {
    let (begun, mut took) = (Instant::now(), Vec::new());
    let all = (time.as_secs_f64() * RATE as f64) as u64;
    while (took.len() as u64) < all {
        let due = ((begun.elapsed().as_secs_f64() * RATE as f64) as u64).min(all);
        while (took.len() as u64) < due {
            took.push(timed(|| send(client, 0, first + took.len() as u64)).0);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // Calls that wait would have come to no end, or to far fewer in the time.
    assert!(begun.elapsed() < time * 2 + Duration::from_secs(5), "{:?}", begun.elapsed());
    took.sort_unstable();
    took
}

fn no_call_waits_under(when_full: WhenFull) {
    let stalled = Stalled::with(when_full, (1, PLENTY));
    let client = stalled.guard().client();
    let first = fill(stalled.guard(), &client);
    let took = calls_for(stall(), first, &client);
    let each = first + took.len() as u64;
    let of = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    let (median, most, slowest) = (of(0.5), of(0.99), of(1.0));
    // A scheduler on a busy machine may take a thread away for a while; a wait for the router would be for ever.
    assert!(most < Duration::from_millis(5) && slowest < Duration::from_secs(1), "{most:?}, {slowest:?}");
    let flush = stalled.flush();
    let (stats, tally) = stalled.resumed();
    assert!(stats.lost.count(LossReason::QueueFull) > 0, "{stats}");
    assert_eq!(stats.lost.count(LossReason::QueueFull), stats.lost.total(), "{stats}");
    assert_eq!(stats.emitted, each + tally.loss_reports, "every call is counted: {stats}");
    record_stats(
        &format!(
            "reader stalls for {} s under {} messages/s, {when_full:?}",
            stall().as_secs(),
            thousands(RATE)
        ),
        &format!(
            "no call waits (median {:.1} µs, 99 % {:.1} µs, slowest {:.1} ms), flush(1 s) in {} ms",
            median.as_secs_f64() * 1e6,
            most.as_secs_f64() * 1e6,
            slowest.as_secs_f64() * 1e3,
            flush.as_millis()
        ),
        &stats,
        0,
    );
}

#[test]
fn no_call_waits_for_a_reader_that_stalls_when_the_newest_are_dropped() {
    no_call_waits_under(WhenFull::DropNewest);
}

#[test]
fn no_call_waits_for_a_reader_that_stalls_when_the_oldest_are_dropped() {
    no_call_waits_under(WhenFull::DropOldest);
}

#[test]
fn under_block_callers_wait_for_a_reader_that_stalls_and_go_on_when_it_reads_and_nothing_is_lost() {
    const SIZE: (u64, u64) = (2, 40_000);
    let stalled = Stalled::with(WhenFull::Block, SIZE);
    let client = stalled.guard().client();
    let may_read = Arc::clone(&stalled.may_read);
    let flush = std::thread::scope(|scope| {
        // Also for a test that fails: those who wait must come to an end.
        let _end = AtEnd(|| may_read.store(true, Ordering::Release));
        let callers: Vec<_> = (0..SIZE.0)
            .map(|t| {
                let client = &client;
                scope.spawn(move || (0..SIZE.1).for_each(|n| send(client, t, n)))
            })
            .collect();
        // Emitted is what a call has returned from, or is about to.
        let mut last = u64::MAX;
        eventually("the queue is full, and nobody gets on", || {
            std::thread::sleep(Duration::from_millis(100));
            last == std::mem::replace(&mut last, stalled.guard().stats().emitted)
        });
        let flush = stalled.flush();
        std::thread::sleep(stall());
        assert!(callers.iter().all(|caller| !caller.is_finished()), "they wait");
        let now = stalled.guard().stats();
        assert!(now.emitted < SIZE.0 * SIZE.1 && now.lost.total() == 0, "{now}");
        flush
    });
    let (stats, tally) = stalled.resumed();
    tally.assert_complete();
    assert_eq!((stats.emitted, stats.lost.total()), (SIZE.0 * SIZE.1, 0), "{stats}");
    record_stats(
        &format!("reader stalls for {} s with a full queue, Block", stall().as_secs()),
        &format!("callers wait, go on when it reads, 0 lost; flush(1 s) in {} ms", flush.as_millis()),
        &stats,
        0,
    );
}

#[test]
fn under_block_for_a_call_waits_for_a_reader_that_stalls_as_long_as_it_says_and_no_longer() {
    const PATIENCE: Duration = Duration::from_millis(100);
    let stalled = Stalled::with(WhenFull::BlockFor(PATIENCE), (1, PLENTY));
    let client = stalled.guard().client();
    let (mut n, mut lost_in_a_row) = (0, 0);
    // The connection takes more for a while; three that waited in vain say that it does not any more.
    while lost_in_a_row < 3 {
        let lost = stalled.guard().stats().lost.total();
        send(&client, 0, n);
        n += 1;
        lost_in_a_row = if stalled.guard().stats().lost.total() > lost { lost_in_a_row + 1 } else { 0 };
    }
    let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
    let lost = stalled.guard().stats().lost.total();
    let mut in_vain = 0;
    while begun.elapsed() < stall() {
        let lost = stalled.guard().stats().lost.total();
        let (took, ()) = timed(|| send(&client, 0, n));
        n += 1;
        slowest = slowest.max(took);
        // The kernel may find some more room yet: then the call had to wait less.
        if stalled.guard().stats().lost.total() > lost {
            in_vain += 1;
            assert!(took >= PATIENCE, "{took:?}");
        }
        assert!(took < PATIENCE + Duration::from_secs(1), "{took:?}");
    }
    assert!(in_vain > 0, "nobody waited in vain");
    let flush = stalled.flush();
    let (stats, tally) = stalled.resumed();
    assert_eq!(stats.lost.count(LossReason::QueueFull), lost + in_vain, "{stats}");
    assert_eq!((tally.distinct + stats.lost.total(), stats.emitted), (n, n + tally.loss_reports), "{stats}");
    let promise = format!(
        "each call waits 100 ms and no longer (slowest {} ms), flush(1 s) in {} ms",
        slowest.as_millis(),
        flush.as_millis()
    );
    let fault = format!("reader stalls for {} s with a full queue, BlockFor(100 ms)", stall().as_secs());
    record_stats(&fault, &promise, &stats, 0);
}

/// On a machine that has more to do than it can, too.
#[test]
fn a_flush_of_a_second_is_over_after_eleven_tenths_however_busy_the_machine_is() {
    let flushes = sized(2, 20);
    let stalled = Stalled::with(WhenFull::DropNewest, (1, PLENTY));
    let client = stalled.guard().client();
    let sent = fill(stalled.guard(), &client) + flushes;
    let stop = AtomicBool::new(false);
    let mut slowest = Duration::ZERO;
    std::thread::scope(|scope| {
        let _end = AtEnd(|| stop.store(true, Ordering::Relaxed));
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        for n in sent - flushes..sent {
            send(&client, 0, n);
            slowest = slowest.max(stalled.flush());
        }
    });
    let (stats, tally) = stalled.resumed();
    assert_eq!(stats.emitted, sent + tally.loss_reports, "{stats}");
    record_stats(
        &format!("{flushes} flushes of 1 s in front of a reader that stalls, four threads spinning"),
        &format!("each within 1.1 s (slowest {} ms)", slowest.as_millis()),
        &stats,
        0,
    );
}
