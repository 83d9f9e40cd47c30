//! A flush delivers what was made before it and keeps its time: under a busy producer, with a receiver that is
//! stuck or gone, from several threads, and when there is nothing to do.
#![cfg(all(unix, feature = "tracing", feature = "log"))]

mod process_support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use process_support::oracle::{assert_accounted, assert_balanced, send, send_all, Got};
use process_support::receiver::Receiver;
use process_support::stalled::{Gate, NeverReads};
use process_support::{built, closed_port, timed, AtEnd, LONG};

/// What a busy machine may add to a deadline.
const MARGIN: Duration = Duration::from_secs(2);

#[test]
fn a_busy_producer_does_not_hold_a_flush_up() {
    const PRODUCERS: u64 = 3;
    let receiver = Receiver::tcp();
    let guard = built(tracing_metlog::builder().router(&receiver.address).queue_bytes(1 << 20));
    let client = guard.client();
    let go = AtomicBool::new(true);
    let made: Vec<AtomicU64> = (0..=PRODUCERS).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for t in 1..=PRODUCERS {
            let (client, go, made) = (&client, &go, &made[t as usize]);
            scope.spawn(move || {
                let mut n = 0;
                while go.load(Ordering::Relaxed) {
                    send(client, t, n);
                    n += 1;
                    made.store(n, Ordering::Release);
                }
            });
        }
        let _end = AtEnd(|| go.store(false, Ordering::Relaxed));
        for n in 0..10 {
            send(&client, 0, n);
            let made: u64 = n + 1 + made.iter().map(|made| made.load(Ordering::Acquire)).sum::<u64>();
            let (took, flushed) = timed(|| guard.flush(LONG));
            assert_eq!(flushed.pending, 0);
            assert!(flushed.delivered + flushed.lost >= made, "{flushed:?} of {made}");
            assert!(took < Duration::from_secs(10), "flush {n} took {took:?}");
        }
    });
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!(stats.pending, 0, "{stats}");
    assert_eq!(stats.delivered, receiver.close_at_end().len() as u64);
}

#[test]
fn a_flush_keeps_its_time_when_the_receiver_is_stuck() {
    let gate = Gate::shut();
    let guard = built(tracing_metlog::builder().transport(gate.clone()).flush_timeout(LONG));
    send_all(&guard.client(), 1, 100);
    for timeout in [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(500)] {
        let (took, flushed) = timed(|| guard.flush(timeout));
        assert_eq!((flushed.delivered, flushed.lost, flushed.pending), (0, 0, 100));
        assert!(took >= timeout && took < timeout + MARGIN, "{took:?} of {timeout:?}");
    }
    gate.release();
    let flushed = guard.flush(LONG);
    assert_eq!((flushed.delivered, flushed.lost, flushed.pending), (100, 0, 0));
    let stats = guard.finish();
    let got = Got::read(&gate.capture.lines());
    got.assert_complete(1, 100);
    assert_accounted(&stats, &got, 1, 100);
}

#[test]
fn a_flush_keeps_its_time_when_a_tcp_router_does_not_read() {
    let router = NeverReads::start();
    let builder = tracing_metlog::builder().router(&router.address).flush_timeout(Duration::from_millis(300));
    let guard = built(builder.queue_bytes(16 << 20));
    send_all(&guard.client(), 2, 30_000);
    let (took, flushed) = timed(|| guard.flush(Duration::from_millis(300)));
    assert!(took < Duration::from_millis(300) + MARGIN, "{took:?}");
    assert!(flushed.pending > 0, "{flushed:?}");
    let (took, stats) = timed(|| guard.finish());
    assert!(took < Duration::from_millis(300) + MARGIN, "{took:?}");
    assert_balanced(&stats);
    assert_eq!(stats.pending, 0, "at the end nothing is pending: {stats}");
}

#[test]
fn a_flush_keeps_its_time_when_the_router_is_down() {
    let router = format!("tcp://127.0.0.1:{}", closed_port());
    let guard = built(tracing_metlog::builder().router(router));
    send_all(&guard.client(), 1, 10);
    let (took, flushed) = timed(|| guard.flush(Duration::from_millis(200)));
    assert!(took >= Duration::from_millis(200) && took < Duration::from_millis(200) + MARGIN, "{took:?}");
    assert_eq!((flushed.delivered, flushed.lost, flushed.pending), (0, 0, 10));
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!((stats.emitted, stats.pending), (10, 0));
}

#[test]
fn flushes_of_many_threads_at_once_all_complete() {
    let receiver = Receiver::tcp();
    let guard = built(tracing_metlog::builder().router(&receiver.address));
    let client = guard.client();
    std::thread::scope(|scope| {
        for t in 0..100 {
            let (client, guard) = (&client, &guard);
            scope.spawn(move || {
                for n in 0..20 {
                    send(client, t, n);
                    assert_eq!(guard.flush(LONG).pending, 0);
                }
            });
        }
    });
    let stats = guard.finish();
    let got = Got::read(&receiver.close_at_end());
    got.assert_complete(100, 20);
    assert_accounted(&stats, &got, 100, 20);
}

#[test]
fn a_flush_of_the_whole_process_reaches_every_pipeline() {
    let receivers = [Receiver::tcp(), Receiver::udp()];
    let guards =
        receivers.each_ref().map(|receiver| built(tracing_metlog::builder().router(&receiver.address)));
    for guard in &guards {
        send_all(&guard.client(), 1, 10);
    }
    // Other tests of this process have pipelines too, some of them stuck; the limit is for those.
    let flushed = tracing_metlog::flush(Duration::from_secs(2));
    assert!(flushed.delivered >= 20, "{flushed:?}");
    for (guard, receiver) in guards.into_iter().zip(receivers) {
        let stats = guard.stats();
        assert_eq!((stats.delivered, stats.pending), (10, 0));
        let got = Got::read(&receiver.wait_for(10));
        got.assert_complete(1, 10);
        assert_accounted(&guard.finish(), &got, 1, 10);
    }
}

#[test]
fn a_flush_after_the_end_returns_at_once() {
    let receiver = Receiver::tcp();
    let (logger, guard) =
        tracing_metlog::builder().router(&receiver.address).filter("info").build_logger().expect("builds");
    let client = guard.client();
    send_all(&client, 1, 10);
    drop(guard);
    let (took, ()) = timed(|| {
        log::Log::flush(&logger);
        tracing_metlog::flush(Duration::ZERO);
    });
    assert!(took < MARGIN, "{took:?}");
    Got::read(&receiver.close_at_end()).assert_complete(1, 10);
}

#[test]
fn a_flush_in_the_middle_of_which_the_guard_is_dropped_returns() {
    for _ in 0..50 {
        let gate = Gate::shut();
        let builder = tracing_metlog::builder().transport(gate.clone());
        let (logger, guard) =
            builder.flush_timeout(Duration::from_secs(20)).filter("info").build_logger().expect("builds");
        send_all(&guard.client(), 1, 10);
        gate.release();
        std::thread::scope(|scope| {
            let flusher = scope.spawn(|| timed(|| (0..20).for_each(|_| log::Log::flush(&logger))).0);
            drop(guard);
            let took = flusher.join().expect("fine");
            assert!(took < Duration::from_secs(10), "waited for a flush that nobody does any more: {took:?}");
        });
        Got::read(&gate.capture.lines()).assert_complete(1, 10);
    }
}

#[test]
fn the_flush_of_the_log_crate_really_flushes() {
    let receiver = Receiver::tcp();
    let (logger, guard) =
        tracing_metlog::builder().router(&receiver.address).filter("info").build_logger().expect("builds");
    send_all(&guard.client(), 1, 100);
    log::Log::flush(&logger);
    let stats = guard.stats();
    assert_eq!((stats.delivered, stats.pending), (100, 0));
    let stats = guard.finish();
    let got = Got::read(&receiver.close_at_end());
    got.assert_complete(1, 100);
    assert_accounted(&stats, &got, 1, 100);
}

#[test]
fn a_flush_of_nothing_returns_at_once_although_the_router_is_down() {
    let guard = built(tracing_metlog::builder().router(format!("tcp://127.0.0.1:{}", closed_port())));
    let (took, flushed) = timed(|| guard.flush(LONG));
    assert!(took < MARGIN, "{took:?}");
    assert_eq!((flushed.delivered, flushed.lost, flushed.pending), (0, 0, 0));
    let (took, flushed) = timed(|| built(tracing_metlog::builder().router("off")).flush(LONG));
    assert!(took < MARGIN, "{took:?}");
    assert_eq!((flushed.delivered, flushed.lost, flushed.pending), (0, 0, 0));
}

#[test]
fn a_flush_reports_what_several_destinations_have_not_got() {
    let gate = Gate::shut();
    let receiver = Receiver::tcp();
    let builder = tracing_metlog::builder().transport(gate.clone()).router(&receiver.address);
    let guard = built(builder);
    send_all(&guard.client(), 1, 10);
    let timeout = Duration::from_millis(300);
    let (took, flushed) = timed(|| guard.flush(timeout));
    assert!(took >= timeout, "one destination has nothing yet: the flush is not complete");
    assert_eq!(flushed.pending, 10, "and says so, whatever the other one has got");
    gate.release();
    let (took, flushed) = timed(|| guard.flush(LONG));
    assert!(took < LONG / 2 && flushed.pending == 0, "{took:?} {flushed:?}");
    Got::read(&gate.capture.lines()).assert_complete(1, 10);
    let stats = guard.finish();
    let got = Got::read(&receiver.close_at_end());
    got.assert_complete(1, 10);
    assert_accounted(&stats, &got, 1, 10);
}
