//! A loss is told: by a `metlog.loss` message, the first one at once, with how many were lost and why.
#![cfg(all(unix, feature = "tracing"))]

mod process_support;

use process_support::oracle::{assert_accounted, assert_balanced, send, Got};
use process_support::receiver::Receiver;
use process_support::stalled::Gate;
use process_support::{built, timed};
use std::time::Duration;
use tracing_metlog::{LossReason, Severity};

#[test]
fn the_first_loss_is_told_at_once() {
    let receiver = Receiver::tcp();
    let guard = built(tracing_metlog::builder().logger("app").router(&receiver.address));
    // Not a number: no metric.
    guard.client().gauge("temperature", f64::NAN);
    send(&guard.client(), 0, 0);
    let (took, lines) = timed(|| receiver.wait_for(2));
    assert!(took < Duration::from_secs(10), "{took:?}");
    let got = Got::read(&lines);
    let [report] = &got.loss_reports[..] else { panic!("{:?}", got.loss_reports) };
    assert_eq!(report["severity"], Severity::Warning.number());
    assert_eq!(report["logger"], "app");
    let payload = report["payload"].as_str().expect("text");
    assert!(
        payload
            .starts_with("lost 1 (invalid_metric 1) messages since the last report; invalid_metric from 20"),
        "{payload}"
    );
    let [first, last] = ["first", "last"].map(|end| {
        let name = format!("invalid_metric.{end}");
        report["fields"][name.as_str()].as_str().expect("a time").to_owned()
    });
    assert!(first <= last && payload.contains(&format!("from {first} to {last}: ")), "{report}");
    // A clock that is read for nothing else ticks every few milliseconds.
    assert!(last.as_str() <= report["timestamp"].as_str().expect("a time"), "{report}");
    assert_eq!(report["fields"]["invalid_metric.advice"], LossReason::InvalidMetric.advice());
    assert!(payload.ends_with(LossReason::InvalidMetric.advice()), "{payload}");
    assert_eq!(report["fields"]["total"], 1);
    assert_eq!(report["fields"]["invalid_metric"], 1);
    let stats = guard.finish();
    assert_balanced(&stats);
    // The gauge, the message, the report.
    assert_eq!((stats.emitted, stats.delivered, stats.lost.total()), (3, 2, 1));
}

#[test]
fn a_report_says_how_many_were_lost_for_each_reason() {
    let gate = Gate::shut();
    let guard = built(tracing_metlog::builder().transport(gate.clone()).queue_bytes(1));
    let client = guard.client();
    // Once the worker stands before the gate it takes nothing more: what is full stays full.
    send(&client, 0, 0);
    process_support::eventually("the first is being sent", || gate.is_asked());
    let mut n = 1;
    while guard.stats().lost.count(LossReason::QueueFull) < 10 {
        send(&client, 0, n);
        n += 1;
    }
    guard.client().message("oldstyle").severity(Severity::Debug).send();
    let before = guard.stats();
    gate.release();
    let stats = guard.finish();
    let got = Got::read(&gate.capture.lines());
    let sum = |name: &str| {
        got.loss_reports.iter().filter_map(|report| report["fields"][name].as_u64()).sum::<u64>()
    };
    assert_eq!(sum("queue_full"), before.lost.count(LossReason::QueueFull), "{:?}", got.loss_reports);
    assert_eq!(sum("shed"), 1, "{:?}", got.loss_reports);
    assert_eq!(sum("total"), stats.lost.total(), "{:?}", got.loss_reports);
    assert_balanced(&stats);
    assert_eq!(stats.delivered, got.count());
}

#[test]
fn without_a_loss_there_is_no_report() {
    let receiver = Receiver::tcp();
    let guard = built(tracing_metlog::builder().router(&receiver.address));
    (0..100).for_each(|n| send(&guard.client(), 0, n));
    let stats = guard.finish();
    let got = Got::read(&receiver.close_at_end());
    got.assert_complete(1, 100);
    assert!(got.loss_reports.is_empty());
    assert_accounted(&stats, &got, 1, 100);
}

#[test]
fn losses_that_follow_within_the_minute_are_told_at_the_end_at_the_latest() {
    let receiver = Receiver::tcp();
    let guard = built(tracing_metlog::builder().router(&receiver.address));
    for n in 0..5 {
        guard.client().gauge("temperature", f64::INFINITY);
        send(&guard.client(), 0, n);
        receiver.wait_for(n as usize + 2);
    }
    let stats = guard.finish();
    assert_balanced(&stats);
    let got = Got::read(&receiver.close_at_end());
    let told: u64 = got.loss_reports.iter().filter_map(|report| report["fields"]["total"].as_u64()).sum();
    assert_eq!((told, stats.lost.total()), (5, 5));
    assert_eq!(got.loss_reports.len(), 2, "the first, and a summary: {:?}", got.loss_reports);
}

#[test]
fn the_last_losses_are_told_at_the_end_also_when_another_destination_is_dead() {
    let (receiver, dead) = (Receiver::tcp(), Gate::shut());
    let builder = tracing_metlog::builder().router(&receiver.address).transport(dead.clone());
    let guard = built(builder.flush_timeout(Duration::from_millis(500)));
    guard.client().gauge("temperature", f64::INFINITY);
    // One batch each: more than wait for the dead one.
    for n in 0..30 {
        send(&guard.client(), 0, n);
        receiver.wait_for(n as usize + 1);
    }
    guard.client().gauge("temperature", f64::INFINITY);
    let stats = guard.finish();
    assert_balanced(&stats);
    dead.release();
    let got = Got::read(&receiver.close_at_end());
    let told: u64 =
        got.loss_reports.iter().filter_map(|report| report["fields"]["invalid_metric"].as_u64()).sum();
    assert_eq!(told, 2, "{:?}", got.loss_reports);
}
