//! What an event can say about its own envelope, and who else cannot.
#![cfg(feature = "tracing")]

mod support;

use serde_json::json;
use tracing::{info, warn};

use support::{bare, traced};

#[test]
fn the_type_can_be_set_in_each_of_its_spellings_and_is_no_field_then() {
    let messages = traced(bare, || {
        info!(r#type = "one", kept = 1);
        info!("type" = "two", kept = 1);
        info!(metlog.r#type = "three", kept = 1);
        info!("metlog.type" = "four", kept = 1);
    });
    let types: Vec<_> = messages.iter().map(|message| message["type"].as_str().expect("text")).collect();
    assert_eq!(types, ["one", "two", "three", "four"]);
    assert!(messages.iter().all(|message| message["fields"] == json!({"kept": 1})), "{messages:?}");
}

#[test]
fn an_empty_type_is_no_type() {
    let messages = traced(bare, || info!("type" = "", "text"));
    assert_eq!((&messages[0]["type"], &messages[0]["payload"]), (&json!("oldstyle"), &json!("text")));
}

#[test]
fn logger_severity_and_payload_can_be_set() {
    let messages = traced(bare, || {
        info!(metlog.logger = "other", metlog.severity = 2, metlog.payload = "the payload", kept = 1);
    });
    let message = &messages[0];
    assert_eq!(message["logger"], "other");
    assert_eq!(message["severity"], 2);
    assert_eq!(message["payload"], "the payload");
    assert_eq!(message["fields"], json!({"kept": 1}));
}

#[test]
fn a_severity_is_a_number_or_a_name() {
    let messages = traced(bare, || {
        info!(metlog.severity = 0);
        info!(metlog.severity = 7_u8);
        info!(metlog.severity = "alert");
        info!(metlog.severity = "WARN");
        info!(metlog.severity = %"notice");
    });
    let severities: Vec<_> = messages.iter().map(|message| message["severity"].as_u64()).collect();
    assert_eq!(severities, [0, 7, 1, 4, 5].map(Some));
    assert!(messages.iter().all(|message| message["fields"] == json!({})));
}

#[test]
fn a_severity_that_is_none_stays_a_field_and_the_level_counts() {
    let messages = traced(bare, || {
        warn!(metlog.severity = 8);
        warn!(metlog.severity = -1);
        warn!(metlog.severity = "loud");
        warn!(metlog.severity = 2.5);
        warn!(metlog.severity = true);
    });
    assert!(messages.iter().all(|message| message["severity"] == 4));
    let fields: Vec<_> =
        messages.iter().map(|message| message["fields"]["metlog.severity"].clone()).collect();
    assert_eq!(fields, [json!(8), json!(-1), json!("loud"), json!(2.5), json!(true)]);
}

#[test]
fn a_payload_of_its_own_leaves_the_message_a_field() {
    let messages = traced(bare, || info!(metlog.payload = "payload", "text"));
    assert_eq!(messages[0]["payload"], "payload");
    assert_eq!(messages[0]["fields"], json!({"message": "text"}));
}

#[test]
fn a_payload_can_be_any_value() {
    let messages = traced(bare, || {
        info!(metlog.payload = 5);
        info!(metlog.payload = ?[1, 2]);
        info!(metlog.payload = false);
    });
    assert_eq!(support::payloads(&messages), ["5", "[1, 2]", "false"]);
}

#[test]
fn a_type_does_not_touch_the_metrics_of_its_event() {
    let messages = traced(bare, || info!("type" = "special", counter.a = 1, "text"));
    let mut types: Vec<_> = messages.iter().map(|message| message["type"].as_str().expect("text")).collect();
    types.sort_unstable();
    assert_eq!(types, ["counter", "special"]);
}

#[test]
fn other_names_that_begin_with_metlog_are_fields() {
    let messages = traced(bare, || info!(metlog.other = 1, metlog = 2, typed = 3, "text"));
    assert_eq!(messages[0]["fields"], json!({"metlog.other": 1, "metlog": 2, "typed": 3}));
}

#[test]
fn a_span_field_called_type_is_context_and_never_the_type() {
    let messages = traced(bare, || {
        let _span = tracing::info_span!("span", "type" = "evil", "metlog.logger" = "evil").entered();
        info!("plain");
        info!("type" = "own", "special");
    });
    assert_eq!((&messages[0]["type"], &messages[0]["logger"]), (&json!("oldstyle"), &json!("tests")));
    assert_eq!((&messages[1]["type"], &messages[1]["logger"]), (&json!("own"), &json!("tests")));
    assert!(messages.iter().all(|message| message["fields"]["type"] == "evil"));
}

#[test]
fn no_value_breaks_out_of_the_envelope() {
    let evil = "\",\"severity\":0,\"x\":\"\\\n";
    let messages = traced(
        |builder| bare(builder).logger(evil).hostname(evil),
        || {
            info!("type" = evil, "text");
            info!(metlog.logger = evil, "text");
            info!("text");
        },
    );
    assert_eq!(messages[0]["type"], evil);
    assert_eq!(messages[1]["logger"], evil);
    assert_eq!((&messages[2]["logger"], &messages[2]["metlog_hostname"]), (&json!(evil), &json!(evil)));
    assert!(messages.iter().all(|message| message["severity"] == 6));
}
