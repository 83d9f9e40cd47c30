//! Logging from where one does not log: inside a value being formatted, inside a transport, at a thread's end.
#![cfg(all(feature = "tracing", feature = "log"))]

mod support;

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use serde_json::json;
use tracing::{info, info_span};
use tracing_metlog::{Batch, Capture, LossReason, Transport};
use tracing_subscriber::layer::SubscriberExt;

use support::child::child;
use support::{bare, outcome, payloads, with_payload};

/// Does something while it is formatted.
struct Formatted<F>(F);

impl<F: Fn()> fmt::Debug for Formatted<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)();
        formatter.write_str("formatted")
    }
}

/// `tracing` drops what is logged inside a subscriber that is the default of one thread, not what is logged inside
/// the global one. These tests run under the global one, in a process of their own.
fn under_the_global_default(
    test: &str,
    work: impl FnOnce(&tracing_metlog::Guard),
) -> Option<support::child::Child> {
    child(test, &[], |router| {
        let (layer, guard) = bare(tracing_metlog::builder()).router(router).build().expect("builds");
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
            .expect("the first");
        work(&guard);
        let stats = guard.finish();
        assert_eq!(stats.emitted, stats.delivered + stats.lost.total(), "{stats}");
    })
    .inspect(|child| assert!(child.status.success(), "{}\n{}", child.stdout, child.stderr))
}

#[test]
fn a_debug_that_logs_gets_both_messages_through() {
    let test = "a_debug_that_logs_gets_both_messages_through";
    let child = under_the_global_default(test, |_| {
        let logs = Formatted(|| info!(inside = 1, "inner"));
        let _span = info_span!("span", from_span = ?logs).entered();
        info!(before = "b", value = ?logs, after = "a", "outer");
    });
    let Some(child) = child else { return };
    let outer = &with_payload(&child.messages, "outer")["fields"];
    let expected = json!({"before": "b", "value": "formatted", "after": "a", "from_span": "formatted"});
    assert_eq!(*outer, expected);
    let inner: Vec<_> = child.messages.iter().filter(|message| message["payload"] == "inner").collect();
    assert_eq!(inner.len(), 2, "one from the span, one from the event: {:?}", child.messages);
    assert!(inner.iter().all(|message| message["fields"]["inside"] == 1));
}

#[test]
fn a_debug_that_panics_costs_its_value_only() {
    let outcome = outcome(bare, || {
        let panics = Formatted(|| panic!("on purpose"));
        let span = info_span!("span", from_span = ?panics, kept = 1);
        let _entered = span.enter();
        info!(before = "b", value = ?panics, after = "a", "outer");
        span.record("kept", tracing::field::debug(&panics));
        info!("recorded");
        info!("{:?}", panics);
    });
    assert_eq!(outcome.stats.lost.total(), 0);
    let note = "<panicked while it was formatted>";
    let messages = &outcome.messages;
    let expected = json!({"before": "b", "value": note, "after": "a", "from_span": note, "kept": 1});
    assert_eq!(messages[0]["fields"], expected);
    assert_eq!(messages[1]["fields"], json!({"from_span": note, "kept": note}));
    assert_eq!(messages[2]["payload"], note);
}

#[test]
fn a_debug_that_logs_itself_without_end_is_cut_off_and_counted() {
    /// Logs itself, fifty deep: without a limit, as deep as the stack goes.
    struct Endless(u32);
    impl fmt::Debug for Endless {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            info!(depth = self.0 + 1, value = ?Endless(self.0 + 1), "nested");
            formatter.write_str("end")
        }
    }
    let test = "a_debug_that_logs_itself_without_end_is_cut_off_and_counted";
    let child = under_the_global_default(test, |guard| {
        info!(depth = 0, value = ?Endless(0), "nested");
        let stats = guard.stats();
        assert_eq!(stats.lost.count(LossReason::Recursive), 1, "{stats}");
        info!("afterwards");
    });
    let Some(child) = child else { return };
    assert!(child.losses.iter().any(|loss| loss.to_string().contains("recursive")), "{:?}", child.losses);
    assert_eq!(payloads(&child.messages).last().map(String::as_str), Some("afterwards"));
    let mut depths: Vec<_> =
        child.messages.iter().filter_map(|message| message["fields"]["depth"].as_u64()).collect();
    depths.sort_unstable();
    assert!((2..=10).contains(&depths.len()), "a few, and then no more: {depths:?}");
    assert!(depths.iter().copied().eq(0..depths.len() as u64), "the outer ones");
}

#[test]
fn a_value_that_logs_in_a_log_record_gets_both_messages_through() {
    let test = "a_value_that_logs_in_a_log_record_gets_both_messages_through";
    let child = child(test, &[("RUST_LOG", "info")], |router| {
        let _metlog = bare(tracing_metlog::builder()).router(router).init();
        log::info!("outer {:?}", Formatted(|| log::info!("inner {:?}", Formatted(|| info!("innermost")))));
    });
    let Some(child) = child else { return };
    assert!(child.status.success(), "{}", child.stderr);
    let mut payloads = payloads(&child.messages);
    payloads.sort_unstable();
    assert_eq!(payloads, ["inner formatted", "innermost", "outer formatted"]);
}

/// Logs with every message it sends.
struct Chatty(Capture);

impl Transport for Chatty {
    fn framing(&self) -> tracing_metlog::Framing {
        self.0.framing()
    }

    fn send(&mut self, batch: &mut Batch, deadline: Instant) -> io::Result<()> {
        info!(messages = batch.len(), "tracing from a transport");
        log::info!("log from a transport");
        let _span = info_span!("a span of a transport").entered();
        self.0.send(batch, deadline)
    }
}

#[test]
fn what_a_transport_logs_is_counted_and_feeds_nobody() {
    let test = "what_a_transport_logs_is_counted_and_feeds_nobody";
    let child = child(test, &[("RUST_LOG", "info")], |_| {
        let capture = Capture::new();
        let guard = bare(tracing_metlog::builder()).transport(Chatty(capture.clone())).init();
        for n in 0..10_u64 {
            info!(n, "from the program");
            assert_eq!(guard.flush(Duration::from_secs(30)).pending, 0);
        }
        let stats = guard.finish();
        let recursive = stats.lost.count(LossReason::Recursive);
        assert!(recursive >= 20, "a line and a record for each of ten batches: {stats}");
        assert_eq!(stats.emitted, stats.delivered + stats.lost.total(), "{stats}");
        assert_eq!(stats.delivered, capture.len() as u64, "{stats}");
        let oracle = support::oracle::Oracle::new();
        let messages: Vec<_> = capture.lines().iter().map(|line| oracle.read(line)).collect();
        let (reports, lines): (Vec<_>, Vec<_>) =
            messages.into_iter().partition(|message| message["type"] == "metlog.loss");
        assert_eq!(payloads(&lines), ["from the program"; 10]);
        assert!((1..10).contains(&reports.len()), "reports are rare: {reports:?}");
    });
    let Some(child) = child else { return };
    assert!(child.status.success(), "{}\n{}", child.stdout, child.stderr);
}

#[test]
fn a_thread_local_s_destructor_can_log() {
    struct LogsAtTheEnd(&'static str);
    impl Drop for LogsAtTheEnd {
        fn drop(&mut self) {
            info!(who = self.0, "at the end");
            log::info!("{} at the end", self.0);
            if self.0 == "early" {
                // `tracing-subscriber`'s own registry takes no span once its thread-locals are gone.
                info_span!("at the end", inside = 1).in_scope(|| info!("in a span at the end"));
            }
        }
    }
    thread_local! {
        // One that is gone before this crate's own thread-locals, and one that is gone after them.
        static EARLY: RefCell<Option<LogsAtTheEnd>> = const { RefCell::new(None) };
        static LATE: RefCell<Option<LogsAtTheEnd>> = const { RefCell::new(None) };
    }
    let child = child("a_thread_local_s_destructor_can_log", &[("RUST_LOG", "info")], |router| {
        let guard = bare(tracing_metlog::builder()).router(router).init();
        std::thread::spawn(|| {
            LATE.with(|late| *late.borrow_mut() = Some(LogsAtTheEnd("late")));
            info!("the thread's first");
            EARLY.with(|early| *early.borrow_mut() = Some(LogsAtTheEnd("early")));
        })
        .join()
        .expect("no destructor panics");
        info!("joined");
        let stats = guard.finish();
        assert_eq!(stats.emitted, stats.delivered, "{stats}");
    });
    let Some(child) = child else { return };
    assert!(child.status.success(), "{}\n{}", child.stdout, child.stderr);
    assert_eq!(with_payload(&child.messages, "in a span at the end")["fields"], json!({"inside": 1}));
    let payloads = payloads(&child.messages);
    assert!(payloads.iter().any(|payload| payload == "joined"), "{payloads:?}");
    for who in ["early", "late"] {
        // `tracing` itself may be past its end in a late destructor; `log` never is.
        assert!(payloads.contains(&format!("{who} at the end")), "{who}: {payloads:?}");
    }
}
