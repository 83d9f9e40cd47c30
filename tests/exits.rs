//! However a program ends, what it said has arrived: 20,000 of 20,000, over a TCP and over a Unix socket, from a
//! child process to a receiver in this one.
#![cfg(all(unix, feature = "tracing"))]

mod process_support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use process_support::child::{self, Ended};
use process_support::oracle::{assert_balanced, text, Got};
use process_support::receiver::Receiver;
use process_support::{closed_port, Directory};
use tracing_metlog::{Builder, Guard, LossReason};

const EACH: u64 = 20_000;

fn builder() -> Builder {
    tracing_metlog::builder().router(child::router()).logger("exits").filter("info").queue_bytes(64 << 20)
}

fn say_all() {
    for n in 0..EACH {
        tracing::info!(t = 0, n, "{}", text(0, n));
    }
}

/// What the children of this file do; nothing when it is run as a test.
#[test]
fn child() {
    let Some(mode) = child::mode() else { return };
    let guard = builder().init();
    match mode.as_str() {
        "return" => {
            say_all();
            drop(guard);
        }
        "leak" => {
            say_all();
            std::mem::forget(guard);
        }
        "exit" => {
            say_all();
            std::process::exit(7);
        }
        "exit in a thread" => {
            say_all();
            std::thread::spawn(|| std::process::exit(7)).join().expect("never ends");
        }
        "exit while the guard is dropped" => exit_while_dropped(guard),
        "unwind" => {
            say_all();
            panic!("out of main");
        }
        "abort" => {
            abort_after_the_hook();
            say_all();
            panic!("under panic = abort");
        }
        "panic while panicking" => {
            say_all();
            let _second = PanicsWhenDropped;
            panic!("the first");
        }
        "panic in a thread, then exit" => {
            std::thread::spawn(|| {
                say_all();
                panic!("in a thread");
            })
            .join()
            .expect_err("it panics");
            std::process::exit(7);
        }
        "exit while others log" => exit_while_others_log(guard),
        "router down" => router_down(guard),
        other => panic!("mode {other}"),
    }
}

/// What `panic = "abort"` does: the hook, then the end.
fn abort_after_the_hook() {
    let ours = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        ours(info);
        std::process::abort();
    }));
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("the second, which ends the process");
    }
}

/// One thread is in the middle of dropping the guard when another one exits.
fn exit_while_dropped(guard: Guard) {
    say_all();
    let dropping = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&dropping);
    std::thread::spawn(move || {
        theirs.store(true, Ordering::SeqCst);
        drop(guard);
    });
    while !dropping.load(Ordering::SeqCst) {
        std::hint::spin_loop();
    }
    // With the drop all but begun, and 20,000 messages to deliver in it.
    std::thread::yield_now();
    std::process::exit(7);
}

/// Four threads log and go on until the process is gone; each says up to where it has got.
fn exit_while_others_log(guard: Guard) {
    let go = Arc::new(AtomicBool::new(true));
    let loggers: Vec<_> = (1..=4u64)
        .map(|t| {
            let go = Arc::clone(&go);
            std::thread::spawn(move || {
                for n in 0.. {
                    tracing::info!(t, n, "{}", text(t, n));
                    if !go.load(Ordering::Relaxed) {
                        break;
                    }
                    std::thread::sleep(Duration::from_micros(20));
                }
            })
        })
        .collect();
    say_all();
    std::mem::forget((guard, loggers));
    std::process::exit(7);
}

fn router_down(guard: Guard) {
    for n in 0..100 {
        tracing::info!(t = 0, n, "{}", text(0, n));
    }
    let stats = guard.finish();
    assert_balanced(&stats);
    child::say("stats", &stats);
    child::say("unreachable", stats.lost.count(LossReason::Unreachable));
}

fn over_tcp(mode: &str) -> (Ended, Vec<String>) {
    let receiver = Receiver::tcp();
    let ended = child::run(child::command("child", mode, &receiver.address));
    (ended, receiver.close_at_end())
}

fn over_unix(mode: &str) -> (Ended, Vec<String>) {
    let directory = Directory::new();
    let receiver = Receiver::unix(&directory.file("router"));
    let ended = child::run(child::command("child", mode, &receiver.address));
    (ended, receiver.close_at_end())
}

/// Runs both; the messages must all be there, and the child must have ended as it would without this crate.
#[track_caller]
fn assert_delivered(mode: &str, ends: impl Fn(&Ended) -> bool) {
    for (ended, lines) in [over_tcp(mode), over_unix(mode)] {
        assert!(ends(&ended), "{ended:#?}");
        assert_eq!(ended.complaints(), [] as [&str; 0], "{mode}");
        Got::read(&lines).assert_complete(1, EACH);
    }
}

fn code(expected: i32) -> impl Fn(&Ended) -> bool {
    move |ended| ended.status.code() == Some(expected)
}

fn aborted(ended: &Ended) -> bool {
    use std::os::unix::process::ExitStatusExt;
    ended.status.signal() == Some(libc::SIGABRT)
}

#[test]
fn everything_arrives_when_main_returns_and_the_guard_is_dropped() {
    assert_delivered("return", code(0));
}

#[test]
fn everything_arrives_when_main_returns_and_the_guard_was_leaked() {
    assert_delivered("leak", code(0));
}

#[test]
fn everything_arrives_when_the_program_exits_with_a_live_guard() {
    assert_delivered("exit", code(7));
}

#[test]
fn everything_arrives_when_another_thread_exits() {
    assert_delivered("exit in a thread", code(7));
}

#[test]
fn everything_arrives_when_one_thread_exits_while_another_drops_the_guard() {
    assert_delivered("exit while the guard is dropped", code(7));
}

/// The messages, and one more about each panic with its text.
#[track_caller]
fn assert_delivered_with_panics(mode: &str, panics: &[&str], ends: impl Fn(&Ended) -> bool) {
    for (ended, lines) in [over_tcp(mode), over_unix(mode)] {
        assert!(ends(&ended), "{ended:#?}");
        assert_eq!(ended.complaints(), [] as [&str; 0], "{mode}");
        let (said, others): (Vec<_>, Vec<_>) =
            lines.into_iter().partition(|line| line.contains(r#""type":"panic""#));
        Got::read(&others).assert_complete(1, EACH);
        let said: Vec<serde_json::Value> =
            said.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let texts: Vec<_> = said.iter().map(|panic| panic["payload"].as_str().expect("text")).collect();
        // The standard library may add a panic of its own about panicking while panicking.
        assert_eq!(&texts[..panics.len()], panics);
        for panic in &said {
            assert_eq!(panic["severity"], 1);
            assert!(panic["fields"]["location"].as_str().expect("text").contains(".rs:"), "{panic}");
            assert!(panic["fields"]["backtrace"].is_string(), "{panic}");
        }
        for text in panics {
            assert!(ended.stderr.contains(text), "the hook that was there before is called too: {ended:#?}");
        }
    }
}

#[test]
fn everything_arrives_when_a_panic_unwinds_out_of_main() {
    assert_delivered_with_panics("unwind", &["out of main"], code(101));
}

#[test]
fn everything_arrives_when_a_panic_aborts() {
    assert_delivered_with_panics("abort", &["under panic = abort"], aborted);
}

#[test]
fn everything_arrives_when_a_panic_while_panicking_aborts() {
    let panics = ["the first", "the second, which ends the process"];
    assert_delivered_with_panics("panic while panicking", &panics, aborted);
}

#[test]
fn everything_arrives_when_a_thread_panics_before_the_exit() {
    assert_delivered_with_panics("panic in a thread, then exit", &["in a thread"], code(7));
}

#[test]
fn everything_said_before_the_exit_arrives_while_other_threads_go_on_logging() {
    for (ended, lines) in [over_tcp("exit while others log"), over_unix("exit while others log")] {
        assert_eq!(ended.status.code(), Some(7), "{ended:#?}");
        let got = Got::read(&lines);
        assert!(got.orders[&0].iter().copied().eq(0..EACH), "all of the thread that exits");
        // Of the others all up to some moment: no gaps, nothing twice.
        for t in 1..=4 {
            let numbers = got.orders.get(&t).map(Vec::as_slice).unwrap_or_default();
            assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "thread {t}");
        }
    }
}

#[test]
fn a_router_that_is_down_at_the_end_costs_less_than_two_seconds_and_it_and_the_loss_are_told_once() {
    let router = format!("tcp://127.0.0.1:{}", closed_port());
    let ended = child::run(child::command("child", "router down", &router));
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    assert!(ended.took < Duration::from_secs(2), "{ended:#?}");
    assert_eq!(ended.said("unreachable"), "100");
    assert_eq!(ended.said("stats"), "emitted 100 = delivered 0 + lost 100 (unreachable 100) + pending 0");
    let complaints = ended.complaints();
    let [trouble, loss] = complaints[..] else { panic!("{ended:#?}") };
    assert!(trouble.starts_with(&format!("tracing-metlog: {router}: ")), "{trouble}");
    assert!(trouble.contains("refused"), "{trouble}");
    let told =
        "tracing-metlog: lost 100 (unreachable 100) messages since the last report; unreachable from 20";
    assert!(loss.starts_with(told) && loss.ends_with(LossReason::Unreachable.advice()), "{loss}");
}
