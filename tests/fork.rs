//! A forked child has the memory of its parent and none of its other threads: what it logs is counted and thrown
//! away at once, nothing in it waits for a thread that is not there, and the parent notices nothing of it.
#![cfg(all(unix, feature = "tracing"))]
// `fork` and `_exit` are not to be had otherwise.
#![allow(unsafe_code)]

mod process_support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use process_support::oracle::{assert_accounted, assert_balanced, send, Got};
use process_support::receiver::Receiver;
use process_support::{built, AtEnd, LONG};
use tracing_metlog::{Guard, LossReason};

/// How a child may end.
const FINE: i32 = 42;
const PANICKED: i32 = 99;

/// Runs `work` in a forked child, which then ends by `exit`, as a program does. Gives the status it ended with, and
/// how long it took. The child is killed if it hangs.
fn forked(work: impl FnOnce()) -> (i32, Duration) {
    let begun = Instant::now();
    // SAFETY: the child of a threaded process may call little of the C library before it ends; that this crate
    // keeps to it is what is tested here. glibc makes its allocator safe to use after a fork.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "{}", std::io::Error::last_os_error());
    if child == 0 {
        let status = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
            Ok(()) => FINE,
            Err(_) => PANICKED,
        };
        // SAFETY: it takes a number. It runs the handlers of `atexit`, this crate's too.
        unsafe { libc::exit(status) };
    }
    (wait(child, begun), begun.elapsed())
}

fn wait(child: libc::pid_t, begun: Instant) -> i32 {
    let mut status = 0;
    loop {
        // SAFETY: `status` is there to be written.
        match unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } {
            0 if begun.elapsed() < LONG => std::thread::sleep(Duration::from_millis(1)),
            0 => {
                // SAFETY: it takes numbers; the child is ours and not waited for.
                unsafe { libc::kill(child, libc::SIGKILL) };
                unsafe { libc::waitpid(child, &mut status, 0) };
                panic!("the child hangs");
            }
            ended => {
                assert_eq!(ended, child, "{}", std::io::Error::last_os_error());
                assert!(libc::WIFEXITED(status), "status {status}");
                return libc::WEXITSTATUS(status);
            }
        }
    }
}

/// Runs `test` while four threads log, until it returns; then everything they logged must have arrived.
fn while_threads_log(test: impl FnOnce(&Guard)) {
    const THREADS: u64 = 4;
    let receiver = Receiver::tcp();
    let guard = built(tracing_metlog::builder().router(&receiver.address).queue_bytes(64 << 20));
    let client = guard.client();
    let go = AtomicBool::new(true);
    let each = std::thread::scope(|scope| {
        let log = |t| {
            let (client, go) = (client.clone(), &go);
            move || {
                let mut n = 0;
                while go.load(Ordering::Relaxed) {
                    for _ in 0..50 {
                        send(&client, t, n);
                        n += 1;
                    }
                    std::thread::sleep(Duration::from_micros(500));
                }
                n
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|t| scope.spawn(log(t))).collect();
        let end = AtEnd(|| go.store(false, Ordering::Relaxed));
        test(&guard);
        drop(end);
        threads.into_iter().map(|thread| thread.join().expect("fine")).collect::<Vec<u64>>()
    });
    let stats = guard.finish();
    let got = Got::read(&receiver.close_at_end());
    assert_balanced(&stats);
    assert_eq!((stats.emitted, stats.delivered), (each.iter().sum(), each.iter().sum()), "{stats}");
    for (t, &each) in each.iter().enumerate() {
        assert!(got.orders[&(t as u64)].iter().copied().eq(0..each), "the parent loses nothing");
    }
}

const FORKS: u32 = 30;

#[test]
fn logging_in_the_child_returns_at_once_and_is_counted_and_its_exit_sends_nothing() {
    while_threads_log(|guard| {
        let client = guard.client();
        for _ in 0..FORKS {
            let (status, _) = forked(|| {
                let (before, begun) = (guard.stats().lost.count(LossReason::Forked), Instant::now());
                (0..100).for_each(|n| send(&client, 9, n));
                assert!(begun.elapsed() < Duration::from_secs(1));
                assert_eq!(guard.stats().lost.count(LossReason::Forked) - before, 100);
            });
            assert_eq!(status, FINE);
        }
        assert_eq!(guard.stats().lost.count(LossReason::Forked), 0, "the parent's account is its own");
    });
}

#[test]
fn flushing_in_the_child_returns_at_once() {
    while_threads_log(|guard| {
        for _ in 0..FORKS {
            let (status, took) = forked(|| {
                let begun = Instant::now();
                assert_eq!(guard.flush(LONG).pending, 0);
                tracing_metlog::flush(LONG);
                assert!(begun.elapsed() < Duration::from_secs(1));
            });
            assert_eq!(status, FINE);
            assert!(took < LONG / 2, "{took:?}");
        }
    });
}

/// The list of pipelines is asked for by every flush of the process, also at the moment of the fork.
#[test]
fn the_child_ends_although_a_thread_was_flushing_the_process_at_the_fork() {
    while_threads_log(|_| {
        let go = AtomicBool::new(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while go.load(Ordering::Relaxed) {
                    tracing_metlog::flush(Duration::ZERO);
                }
            });
            let _end = AtEnd(|| go.store(false, Ordering::Relaxed));
            for _ in 0..FORKS {
                let (status, _) = forked(|| assert!(tracing_metlog::flush(LONG).pending == 0));
                assert_eq!(status, FINE);
            }
        });
    });
}

#[test]
fn the_child_ends_at_once_when_it_drops_the_guard_of_its_parent() {
    let receiver = Receiver::tcp();
    let guard = built(tracing_metlog::builder().router(&receiver.address));
    (0..10).for_each(|n| send(&guard.client(), 0, n));
    let mut guard = Some(guard);
    let (status, took) = forked(|| drop(guard.take()));
    assert_eq!(status, FINE);
    assert!(took < Duration::from_secs(2), "{took:?}");
    let stats = guard.take().expect("the parent's own is still there").finish();
    let got = Got::read(&receiver.close_at_end());
    got.assert_complete(1, 10);
    assert_accounted(&stats, &got, 1, 10);
}

#[test]
fn a_pipeline_built_in_the_child_works_and_is_delivered_by_its_exit() {
    let of_child = Receiver::tcp();
    while_threads_log(|_| {
        let (status, _) = forked(|| {
            let guard = built(tracing_metlog::builder().router(&of_child.address));
            (0..1_000).for_each(|n| send(&guard.client(), 0, n));
            // Leaked: its delivery is the exit's matter.
            std::mem::forget(guard);
        });
        assert_eq!(status, FINE);
    });
    Got::read(&of_child.close_at_end()).assert_complete(1, 1_000);
}

#[test]
fn a_grandchild_is_a_child_too() {
    let receiver = Receiver::tcp();
    let guard = built(tracing_metlog::builder().router(&receiver.address));
    let (status, _) = forked(|| {
        let (status, _) = forked(|| {
            send(&guard.client(), 9, 0);
            assert_eq!(guard.stats().lost.count(LossReason::Forked), 1);
        });
        assert_eq!(status, FINE);
        send(&guard.client(), 9, 0);
        assert_eq!(guard.stats().lost.count(LossReason::Forked), 1);
    });
    assert_eq!(status, FINE);
    send(&guard.client(), 0, 0);
    let stats = guard.finish();
    let got = Got::read(&receiver.close_at_end());
    got.assert_complete(1, 1);
    assert_accounted(&stats, &got, 1, 1);
}

/// What is remembered of a span is under a lock too, and every event inside the span takes it.
#[test]
fn an_event_or_a_span_in_the_child_returns_at_once_although_threads_log_in_the_same_span() {
    use tracing_subscriber::layer::SubscriberExt;
    let (layer, guard) = tracing_metlog::builder().router("file:///dev/null").build().expect("builds");
    let dispatch = tracing::Dispatch::new(tracing_subscriber::registry().with(layer));
    let span = tracing::dispatcher::with_default(&dispatch, || tracing::info_span!("shared", a = 1));
    let go = AtomicBool::new(true);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let log = || {
                    while go.load(Ordering::Relaxed) {
                        span.in_scope(|| tracing::info!("parent"));
                    }
                };
                tracing::dispatcher::with_default(&dispatch, log);
            });
        }
        let _end = AtEnd(|| go.store(false, Ordering::Relaxed));
        tracing::dispatcher::with_default(&dispatch, || {
            for _ in 0..FORKS * 5 {
                let (status, _) = forked(|| {
                    let before = guard.stats().lost.count(LossReason::Forked);
                    span.in_scope(|| {
                        tracing::info!("child");
                        let _inner = tracing::info_span!("inner");
                        tracing::info!("child");
                    });
                    assert!(guard.stats().lost.count(LossReason::Forked) - before >= 2);
                });
                assert_eq!(status, FINE);
            }
        });
    });
}

#[test]
fn a_span_of_the_parent_that_ends_in_the_child_is_one_message_lost_there() {
    use tracing_subscriber::layer::SubscriberExt;
    let (layer, guard) = tracing_metlog::builder().router("file:///dev/null").build().expect("builds");
    let dispatch = tracing::Dispatch::new(tracing_subscriber::registry().with(layer));
    let span = tracing::dispatcher::with_default(&dispatch, || tracing::info_span!("shared", a = 1));
    let mut span = Some(span);
    let (status, _) = forked(|| {
        drop(span.take());
        assert_eq!(guard.stats().lost.count(LossReason::Forked), 1);
    });
    assert_eq!(status, FINE);
    drop(span.take());
    let stats = guard.finish();
    assert_eq!((stats.emitted, stats.delivered), (1, 1), "{stats}");
}
