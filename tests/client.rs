//! Explicit messages, and the filters that messages from everywhere pass through.
#![cfg(all(feature = "tracing", feature = "log"))]

mod support;

use std::time::{Duration, Instant, UNIX_EPOCH};

use log::Log;
use serde_json::{json, Value};
use tracing::{error, info, info_span};
use tracing_metlog::{Builder, Client, Json, LossReason, Severity};
use tracing_subscriber::layer::SubscriberExt;

use support::{number, plain, Outcome, Pipe};

fn client(configure: impl FnOnce(Builder) -> Builder, work: impl FnOnce(&Client)) -> Outcome {
    let (_layer, pipe) = Pipe::layer(configure);
    work(&pipe.client());
    pipe.finish()
}

fn sent(work: impl FnOnce(&Client)) -> Vec<Value> {
    client(plain, work).messages
}

#[test]
fn a_message_is_what_it_is_given_and_nothing_else() {
    let messages = sent(|client| {
        client
            .message("audit")
            .severity(Severity::Critical)
            .logger("vault")
            .payload("key rotated")
            .field("key", 7)
            .field("old", None::<u8>)
            .field("names", Json(["a", "b"]))
            .field("took", Duration::from_micros(1_500))
            .send();
    });
    let message = &messages[0];
    assert_eq!((&message["type"], &message["severity"]), (&json!("audit"), &json!(2)));
    assert_eq!((&message["logger"], &message["payload"]), (&json!("vault"), &json!("key rotated")));
    assert_eq!(message["fields"], json!({"key": 7, "old": null, "names": ["a", "b"], "took": 1.5}));
}

#[test]
fn a_message_that_is_given_nothing_has_metlog_s_defaults() {
    let messages = sent(|client| {
        client.message("bare").send();
        client.message("").send();
    });
    for (message, message_type) in messages.iter().zip(["bare", "oldstyle"]) {
        assert_eq!((&message["type"], &message["severity"]), (&json!(message_type), &json!(6)));
        assert_eq!((&message["logger"], &message["payload"]), (&json!("tests"), &json!("")));
        assert_eq!(message["fields"], json!({}));
    }
}

#[test]
fn a_payload_is_the_text_of_any_value() {
    let messages = sent(|client| {
        client.message("m").payload(5).send();
        client.message("m").payload(-2.5).send();
        client.message("m").payload(true).send();
        client.message("m").payload(Duration::from_micros(12_750)).send();
        client.message("m").payload(format_args!("{}!", "x")).send();
        client.message("m").payload(Json(json!({"a": [1]}))).send();
        client.message("m").payload("first").payload("second").send();
    });
    assert_eq!(support::payloads(&messages), ["5", "-2.5", "true", "12.75", "x!", "{\"a\":[1]}", "first"]);
}

#[test]
fn a_timestamp_is_the_one_it_is_given_to_the_microsecond() {
    let (_layer, pipe) = Pipe::layer(plain);
    let client = pipe.client();
    let times = [0, 951_782_399_999_999, 951_868_800_000_000, 1_351_117_243_000_001, 4_102_444_800_123_456];
    for time in times {
        client.message("m").timestamp(UNIX_EPOCH + Duration::from_micros(time)).send();
    }
    let messages = pipe.finish_at_any_time().messages;
    assert_eq!(messages.iter().map(support::oracle::microseconds).collect::<Vec<_>>(), times);
    // 29 February of a year that is divisible by 400, said by somebody else's calendar.
    assert_eq!(messages[1]["timestamp"], "2000-02-28T23:59:59.999999Z");
    assert_eq!(messages[2]["timestamp"], "2000-03-01T00:00:00.000000Z");
}

#[test]
fn counters_count_and_gauges_say_how_much() {
    let messages = sent(|client| {
        client.incr("a");
        client.counter("b", 10_u8);
        client.counter("b", -3);
        client.counter("b", 4.0);
        client.counter("b", u128::MAX);
        client.gauge("c", 12.5);
        client.gauge("c", -7);
    });
    let expected = [
        ("counter", "a", "1"),
        ("counter", "b", "10"),
        ("counter", "b", "-3"),
        ("counter", "b", "4"),
        ("counter", "b", "340282366920938463463374607431768211455"),
        ("gauge", "c", "12.5"),
        ("gauge", "c", "-7"),
    ];
    for (message, (message_type, name, payload)) in messages.iter().zip(expected) {
        assert_eq!((&message["type"], &message["payload"]), (&json!(message_type), &json!(payload)));
        assert_eq!(message["fields"], json!({"name": name, "rate": 1.0}));
        assert_eq!(message["severity"], 6);
    }
    assert_eq!(messages.len(), expected.len());
}

#[test]
fn what_cannot_be_counted_is_refused_and_accounted_for() {
    let outcome = client(plain, |client| {
        client.counter("a", 0.5);
        client.counter("a", f64::NAN);
        client.counter("a", f64::INFINITY);
        client.gauge("b", f64::NAN);
        client.gauge("b", f32::NEG_INFINITY);
    });
    assert!(outcome.messages.is_empty(), "{:?}", outcome.messages);
    assert_eq!(outcome.stats.lost.count(LossReason::InvalidMetric), 5);
}

#[test]
fn timers_say_how_long_it_took() {
    let before = Instant::now();
    let messages = sent(|client| {
        {
            let _timer = client.timer("guard");
            std::thread::sleep(Duration::from_millis(5));
        }
        client.timer_send("sent", Duration::from_micros(12_750));
        client.timer_send("whole", Duration::from_millis(320));
        assert_eq!(client.time("time", || 42), 42);
        client.timer(String::from("discarded")).discard();
    });
    let most = before.elapsed().as_secs_f64() * 1_000.0;
    let names: Vec<_> =
        messages.iter().map(|message| message["fields"]["name"].as_str().expect("text")).collect();
    assert_eq!(names, ["guard", "sent", "whole", "time"]);
    assert!(messages.iter().all(|message| message["type"] == "timer" && message["fields"]["rate"] == 1.0));
    assert!((5.0..most).contains(&number(&messages[0]["payload"])));
    assert_eq!((&messages[1]["payload"], &messages[2]["payload"]), (&json!("12.75"), &json!("320")));
}

#[test]
fn work_that_panics_is_timed_too() {
    let messages = sent(|client| {
        let work = || client.time("panics", || panic!("on purpose"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err());
    });
    assert_eq!(messages[0]["fields"]["name"], "panics");
}

#[test]
fn disabled_timers_are_not_sent() {
    let work = |client: &Client| {
        drop(client.timer("off"));
        client.timer_send("off", Duration::ZERO);
        client.time("off", || ());
        client.timer_send("on", Duration::ZERO);
        client.incr("off");
    };
    let named = client(|builder| builder.disabled_timers(["off"]), work).messages;
    assert_eq!(named.iter().map(|message| &message["fields"]["name"]).collect::<Vec<_>>(), ["on", "off"]);
    let star = client(|builder| builder.disabled_timers(["*"]), work).messages;
    assert_eq!(star.iter().map(|message| &message["type"]).collect::<Vec<_>>(), ["counter"]);
}

#[test]
fn a_sampled_metric_keeps_its_share_and_carries_its_rate() {
    const COUNT: f64 = 4_000.0;
    const RATE: f64 = 0.25;
    let messages = sent(|client| {
        for _ in 0..COUNT as u32 {
            client.message("counter").payload(1).metric("sampled", RATE).send();
            client.message("counter").payload(1).metric("never", 0.0).send();
        }
        client.message("counter").payload(1).metric("always", 1.0).send();
    });
    let of = |name| messages.iter().filter(|message| message["fields"]["name"] == name).collect::<Vec<_>>();
    let sampled = of("sampled");
    assert!(sampled.iter().all(|message| message["fields"]["rate"] == RATE));
    let five_sigma = 5.0 * (COUNT * RATE * (1.0 - RATE)).sqrt();
    assert!((sampled.len() as f64 - COUNT * RATE).abs() < five_sigma, "{} of {COUNT}", sampled.len());
    assert_eq!((of("never").len(), of("always").len()), (0, 1));
}

#[test]
fn a_client_knows_neither_span_nor_origin() {
    let (layer, pipe) = Pipe::layer(|builder| builder.disabled_timers(["*"]));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let _span = info_span!("span", a = 1).entered();
        pipe.client().message("m").send();
    });
    assert_eq!(pipe.finish().messages[0]["fields"], json!({}));
}

#[test]
fn a_message_that_is_not_sent_is_nothing() {
    let outcome = client(plain, |client| drop(client.message("m").field("a", 1)));
    assert_eq!(outcome.stats.emitted, 0);
}

/// One of everything, and `type severity` of what came through. The log half has a pipeline of its own.
fn filtered(configure: impl Fn(Builder) -> Builder) -> Vec<String> {
    let (layer, pipe) = Pipe::layer(&configure);
    let client = pipe.client();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        error!("an event");
        info!("an event");
        info!("type" = "audit", metlog.severity = 5, metlog.logger = "vault");
        info!(counter.a = 1, gauge.b = 2, "a line");
        info_span!("a span");
        client.incr("a");
        client.timer_send("b", Duration::ZERO);
        client.message("audit").severity(Severity::Alert).logger("vault").send();
    });
    let mut messages = pipe.finish().messages;
    let (logger, pipe) = Pipe::logger(&configure);
    for level in [log::Level::Error, log::Level::Info] {
        logger.log(&log::Record::builder().level(level).args(format_args!("a record")).build());
    }
    messages.extend(pipe.finish().messages);
    messages
        .iter()
        .map(|message| format!("{} {}", message["type"].as_str().expect("text"), message["severity"]))
        .collect()
}

const EVERYTHING: [&str; 12] = [
    "oldstyle 3",
    "oldstyle 6",
    "audit 5",
    "counter 6",
    "gauge 6",
    "oldstyle 6",
    "timer 6",
    "counter 6",
    "timer 6",
    "audit 1",
    "oldstyle 3",
    "oldstyle 6",
];

/// What is left of everything, whichever way the metrics of one event are ordered.
fn kept(passes: impl Fn(&str) -> bool) -> Vec<&'static str> {
    EVERYTHING.into_iter().filter(|message| passes(message)).collect()
}

#[test]
fn without_filters_everything_passes() {
    assert_eq!(filtered(plain), EVERYTHING);
}

#[test]
fn severity_max_keeps_what_is_as_bad_or_worse() {
    assert_eq!(
        filtered(|builder| builder.severity_max(Severity::Notice)),
        ["oldstyle 3", "audit 5", "audit 1", "oldstyle 3"]
    );
}

#[test]
fn a_type_on_the_blacklist_is_not_sent() {
    let expected = kept(|message| !message.starts_with("timer") && !message.starts_with("counter"));
    assert_eq!(filtered(|builder| builder.type_blacklist(["timer", "counter"])), expected);
}

#[test]
fn only_types_on_the_whitelist_are_sent() {
    let expected = kept(|message| message.starts_with("gauge") || message.starts_with("audit"));
    assert_eq!(filtered(|builder| builder.type_whitelist(["gauge", "audit"])), expected);
}

#[test]
fn type_severity_max_rules_the_types_it_names() {
    let rules = [("oldstyle", Severity::Error), ("audit", Severity::Alert)];
    let expected = kept(|message| !["oldstyle 6", "audit 5"].contains(&message));
    assert_eq!(filtered(|builder| builder.type_severity_max(rules)), expected);
}

#[test]
fn a_message_filter_sees_type_severity_and_logger() {
    let by_logger = filtered(|builder| builder.message_filter(|message| message.logger == "vault"));
    assert_eq!(by_logger, ["audit 5", "audit 1"]);
    let by_both = filtered(|builder| {
        builder.message_filter(|m| m.r#type == "counter" || m.severity <= Severity::Alert)
    });
    assert_eq!(by_both, ["counter 6", "counter 6", "audit 1"]);
}

#[test]
fn all_filters_must_pass_and_what_they_stop_is_no_loss() {
    let both = filtered(|builder| builder.severity_max(Severity::Error).type_blacklist(["oldstyle"]));
    assert_eq!(both, ["audit 1"]);
    let outcome = client(|builder| builder.type_whitelist(["nothing"]), |client| client.incr("a"));
    assert_eq!((outcome.stats.emitted, outcome.stats.lost.total()), (0, 0));
}

#[test]
fn a_message_filter_that_panics_costs_no_message() {
    let outcome =
        client(|builder| builder.message_filter(|_| panic!("on purpose")), |client| client.incr("a"));
    assert_eq!(outcome.messages.len(), 1);
}
