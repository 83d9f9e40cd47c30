//! Metrics in the fields of events: which messages they become, and which values are refused.
#![cfg(feature = "tracing")]

mod support;

use serde_json::{json, Value};
use tracing::info;
use tracing_metlog::LossReason;

use support::{bare, of_type, outcome, traced, Outcome};

/// Type, name and payload.
fn metrics(messages: &[Value]) -> Vec<(&str, &str, &str)> {
    let text = |value: &'static str| move |message: &Value| message[value].as_str().map(str::to_owned);
    assert!(messages.iter().all(|message| text("payload")(message).is_some()));
    messages
        .iter()
        .map(|message| {
            assert_eq!(message["fields"]["rate"].to_string(), "1.0");
            let parts = [&message["type"], &message["fields"]["name"], &message["payload"]];
            let [a, b, c] = parts.map(|part| part.as_str().expect("text"));
            (a, b, c)
        })
        .collect()
}

#[test]
fn each_prefix_makes_a_message_of_its_type() {
    let messages = traced(bare, || {
        info!(monotonic_counter.requests = 1_u64);
        info!(counter.balance = -3);
        info!(gauge.depth = 12.5);
        info!(histogram.size = 100);
    });
    let expected = [
        ("counter", "requests", "1"),
        ("counter", "balance", "-3"),
        ("gauge", "depth", "12.5"),
        ("histogram", "size", "100"),
    ];
    assert_eq!(metrics(&messages), expected);
    assert!(messages.iter().all(|message| message["severity"] == 6));
}

#[test]
fn a_name_may_have_dots_and_a_prefix_alone_or_inside_is_a_field() {
    let messages = traced(bare, || info!(counter.http.hits = 2));
    assert_eq!(metrics(&messages), [("counter", "http.hits", "2")]);
    let messages = traced(bare, || info!(counter = 1, my.counter.x = 2, "text"));
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0]["fields"], json!({"counter": 1, "my.counter.x": 2}));
}

#[test]
fn every_integer_and_float_type_counts() {
    let messages = traced(bare, || {
        info!(counter.v = 1_u8);
        info!(counter.v = 2_u16);
        info!(counter.v = 3_u32);
        info!(counter.v = u64::MAX);
        info!(counter.v = u128::MAX);
        info!(counter.v = 6_usize);
        info!(counter.v = -1_i8);
        info!(counter.v = -2_i16);
        info!(counter.v = -3_i32);
        info!(counter.v = i64::MIN);
        info!(counter.v = i128::MIN);
        info!(counter.v = -6_isize);
        info!(counter.v = 7.0_f32);
        info!(counter.v = -8.0_f64);
        info!(counter.v = 1e20);
        info!(counter.v = -0.0);
        info!(monotonic_counter.v = 9.0);
        info!(monotonic_counter.v = 10_i64);
        info!(monotonic_counter.v = 11_i128);
    });
    let (u64_max, u128_max) = (u64::MAX.to_string(), u128::MAX.to_string());
    let (i64_min, i128_min) = (i64::MIN.to_string(), i128::MIN.to_string());
    let expected = [
        "1",
        "2",
        "3",
        &u64_max,
        &u128_max,
        "6",
        "-1",
        "-2",
        "-3",
        &i64_min,
        &i128_min,
        "-6",
        "7",
        "-8",
        "100000000000000000000",
        "0",
        "9",
        "10",
        "11",
    ];
    assert_eq!(support::payloads(&messages), expected);
}

#[test]
fn gauges_and_histograms_take_fractions_and_negatives() {
    let messages = traced(bare, || {
        info!(gauge.g = -1.25, histogram.h = -0.5);
        info!(gauge.g = 1e300);
        info!(gauge.g = u64::MAX);
        info!(gauge.g = 0.1_f32);
    });
    let values: Vec<f64> = messages.iter().map(|message| support::number(&message["payload"])).collect();
    assert_eq!(values, [-1.25, -0.5, 1e300, u64::MAX as f64, f64::from(0.1_f32)]);
}

#[test]
fn several_metrics_of_one_event_are_a_message_each_with_the_remaining_fields() {
    let messages =
        traced(bare, || info!(counter.a = 1, route = "/", counter.b = 2, gauge.c = 3, histogram.d = 4));
    let expected =
        [("counter", "a", "1"), ("counter", "b", "2"), ("gauge", "c", "3"), ("histogram", "d", "4")];
    assert_eq!(metrics(&messages), expected);
    for message in &messages {
        let name = message["fields"]["name"].clone();
        assert_eq!(message["fields"], json!({"name": name, "rate": 1.0, "route": "/"}));
    }
}

#[test]
fn the_context_of_spans_goes_along_and_cannot_take_a_metric_s_name() {
    let messages = traced(bare, || {
        let _span = tracing::info_span!("span", user = 7, name = "evil").entered();
        info!(counter.a = 1, rate = "evil");
    });
    assert_eq!(messages[0]["fields"], json!({"name": "a", "rate": 1.0, "user": 7}));
}

#[test]
fn an_event_with_metrics_and_no_message_is_no_line_and_with_one_it_is() {
    let silent = traced(bare, || info!(counter.a = 1, extra = 2));
    assert!(of_type(&silent, "oldstyle").is_empty());
    let spoken = traced(bare, || info!(counter.a = 1, extra = 2, "text"));
    let line = &of_type(&spoken, "oldstyle")[0];
    assert_eq!((&line["payload"], &line["fields"]), (&json!("text"), &json!({"extra": 2})));
    assert_eq!(of_type(&spoken, "counter").len(), 1);
}

/// The account of an event all of whose metrics are refused.
fn refused(count: u64, work: impl FnOnce()) -> Outcome {
    let outcome = outcome(bare, work);
    assert_eq!(outcome.stats.lost.count(LossReason::InvalidMetric), count, "{}", outcome.stats);
    assert_eq!(outcome.stats.lost.total(), count);
    assert!(!outcome.losses.is_empty(), "the first loss is reported");
    outcome
}

#[test]
fn what_cannot_be_counted_is_refused_and_accounted_for() {
    let outcome = refused(10, || {
        info!(monotonic_counter.negative = -1);
        info!(monotonic_counter.negative = i128::MIN);
        info!(monotonic_counter.negative = -1.0);
        info!(monotonic_counter.fraction = 0.5);
        info!(counter.fraction = -0.5);
        info!(counter.nan = f64::NAN);
        info!(gauge.infinite = f64::INFINITY);
        info!(histogram.text = "12");
        info!(gauge.flag = true);
        info!(counter.debug = ?1);
    });
    assert!(outcome.messages.is_empty(), "{:?}", outcome.messages);
}

#[test]
fn a_refused_metric_costs_neither_the_others_of_its_event_nor_its_line() {
    let outcome = refused(1, || info!(counter.good = 1, counter.bad = "x", gauge.good = 2, "text"));
    let types: Vec<_> = outcome.messages.iter().map(|message| message["type"].clone()).collect();
    assert_eq!(types.len(), 3, "{types:?}");
    assert_eq!(of_type(&outcome.messages, "counter")[0]["fields"]["name"], "good");
    assert_eq!(of_type(&outcome.messages, "oldstyle")[0]["payload"], "text");
}

#[test]
fn every_metric_is_one_message_of_the_account() {
    let outcome = refused(1_000, || {
        for n in 0..1_000_u64 {
            info!(counter.a = n, gauge.b = n, histogram.c = "no number", "text");
        }
    });
    assert_eq!(outcome.messages.len(), 3_000);
    // The losses, and the reports of them, are emitted as well.
    assert_eq!(outcome.stats.emitted, 3_000 + 1_000 + outcome.losses.len() as u64);
}

#[test]
fn an_absent_metric_is_none() {
    let messages = traced(bare, || info!(counter.a = None::<u64>, counter.b = Some(2)));
    assert_eq!(metrics(&messages), [("counter", "b", "2")]);
}

#[test]
fn an_event_too_long_for_a_record_whose_line_a_filter_refuses_keeps_its_metric_and_harms_no_other() {
    let text = "x".repeat(40_000);
    let (a, b) = (text.as_str(), text.as_str());
    let messages = traced(
        |builder| bare(builder).type_blacklist(["oldstyle"]),
        || {
            info!(counter.before = 1);
            info!(counter.long = 2, a, b, "text");
            info!(counter.after = 3);
        },
    );
    let expected = [("counter", "before", "1"), ("counter", "long", "2"), ("counter", "after", "3")];
    assert_eq!(metrics(&messages), expected);
    assert_eq!(messages[1]["fields"]["truncated"], true);
}
