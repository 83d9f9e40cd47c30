//! Conformance with metlog-py 0.10: for each message it was captured sending, the same call here gives the same
//! type, logger, severity, payload and fields.
//!
//! Known differences: metlog-psutils' `procinfo` has a bare JSON number as its payload, where a payload of this
//! crate is always text; the test checks that it is the same number. metlog-py's extensions for Sentry, CEF and
//! psutil have no call of their own here; their messages are made with `client.message`.
#![cfg(feature = "tracing")]

mod support;

use std::time::Duration;

use serde_json::Value;
use tracing_metlog::{Builder, Client, Outgoing, Severity};
use tracing_subscriber::layer::SubscriberExt;

use support::{plain, Pipe};

const GOLDEN: &str = include_str!("support/metlog-py-0.10.jsonl");

fn golden(builder: Builder) -> Builder {
    builder.logger("golden").target(false).module(false).file(false).line(false).thread(false)
}

/// What `call` sends; `filter` configures the filters metlog-py has too.
fn sent(filter: impl FnOnce(Builder) -> Builder, call: impl FnOnce(&Client)) -> Vec<Value> {
    let (layer, pipe) = Pipe::layer(|builder| filter(golden(builder)));
    let client = pipe.client();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || call(&client));
    assert_eq!(pipe.guard().flush(support::PATIENCE).pending, 0);
    let read = |line: &String| support::json::read(line).expect("JSON, no key twice");
    pipe.capture().lines().iter().map(read).collect()
}

fn severity(message: &Value) -> Severity {
    let number = message["severity"].as_u64().expect("a number");
    Severity::from_number(number as u8).expect("a severity")
}

/// The golden message, spelled out: type, severity, logger if it is not the default, payload and fields.
fn spelled_out<'c>(client: &'c Client, golden: &Value) -> Outgoing<'c> {
    let mut message = client.message(golden["type"].as_str().expect("text")).severity(severity(golden));
    if golden["logger"] != "golden" {
        message = message.logger(golden["logger"].as_str().expect("text"));
    }
    for (name, value) in golden["fields"].as_object().expect("an object") {
        message = message.field(name, value);
    }
    message.payload(&golden["payload"])
}

/// An event of the golden message's severity, by the macro a Rust program would use.
fn event(golden: &Value) {
    let text = golden["payload"].as_str().expect("text");
    match golden["severity"].as_u64() {
        Some(7) => tracing::debug!("{text}"),
        Some(6) => tracing::info!("{text}"),
        Some(4) => tracing::warn!("{text}"),
        Some(3) => tracing::error!("{text}"),
        // `tracing` has no level for these.
        Some(2) => tracing::error!(metlog.severity = "critical", "{text}"),
        Some(1) => tracing::error!(metlog.severity = "alert", "{text}"),
        other => panic!("no level for {other:?}"),
    }
}

fn name(golden: &Value) -> String {
    golden["fields"]["name"].as_str().expect("text").to_owned()
}

/// A payload in milliseconds as a duration, without a float in between.
fn elapsed(golden: &Value) -> Duration {
    let payload = golden["payload"].as_str().expect("text");
    let (whole, fraction) = payload.split_once('.').unwrap_or((payload, ""));
    let micros: u64 = format!("{fraction:0<3}").parse().expect("digits");
    Duration::from_millis(whole.parse().expect("digits")) + Duration::from_micros(micros)
}

/// The same call as metlog-py's `api`, and what it sends here.
fn same_call(api: &str, golden: &Value) -> Vec<Value> {
    let rate = golden["fields"]["rate"].as_f64().unwrap_or(1.0);
    match api {
        "metlog" | "metlog logger= severity=" | "raven" | "raven payload=" | "cef" | "procinfo" => {
            sent(plain, |client| spelled_out(client, golden).send())
        }
        "incr" => sent(plain, |client| client.incr(&name(golden))),
        // `Client::counter` takes no further fields: the general form does.
        "incr count fields severity" => sent(plain, |client| {
            let message = client.message("counter").severity(severity(golden)).payload(10);
            message.field("extra", "e").metric(&name(golden), 1.0).send();
        }),
        "incr rate=.25 (first of the kept; the ring buffer keeps 100)" => {
            let kept = sent(plain, |client| {
                for _ in 0..200 {
                    client.message("counter").payload(1).metric(&name(golden), rate).send();
                }
            });
            kept.into_iter().take(1).collect()
        }
        // How long they took is chance; `time` and the guard are timed here, and their payload is a number.
        "timer contextmanager" | "timer decorator" => {
            let timed = |client: &Client| match api {
                "timer decorator" => client.time(&name(golden), || ()),
                _ => drop(client.timer(name(golden))),
            };
            let mut messages = sent(|builder| builder.whole_milliseconds(true), timed);
            let payload = messages[0]["payload"].as_str().expect("text");
            payload.parse::<u64>().expect("whole milliseconds, like metlog-py's");
            messages[0]["payload"] = golden["payload"].clone();
            messages
        }
        "timer_send rate" => {
            // One in 0.18 is kept: among so many there is one, but for one chance in 10^17.
            let kept = sent(plain, |client| {
                for _ in 0..200 {
                    client.message("timer").payload(elapsed(golden)).metric(&name(golden), rate).send();
                }
            });
            kept.into_iter().take(1).collect()
        }
        "timer_send float elapsed" => sent(plain, |client| client.timer_send(&name(golden), elapsed(golden))),
        "debug"
        | "info"
        | "warn"
        | "error"
        | "critical"
        | "warn mapping arg"
        | "info without args"
        | "exception / error exc_info"
        | "logging handler" => sent(plain, |_| event(golden)),
        "filter severity_max 4" => sent(
            |builder| builder.severity_max(Severity::Warning),
            |_| {
                tracing::info!("stopped");
                event(golden);
            },
        ),
        "filter whitelist timer" => sent(
            |builder| builder.type_whitelist(["timer"]),
            |client| {
                client.incr("x");
                client.timer_send(&name(golden), elapsed(golden));
            },
        ),
        "filter blacklist timer" => sent(
            |builder| builder.type_blacklist(["timer"]),
            |client| {
                client.timer_send("y", Duration::ZERO);
                client.incr(&name(golden));
            },
        ),
        "filter type_severity_max" => sent(
            |builder| builder.type_severity_max([("oldstyle", Severity::Error)]),
            |client| {
                tracing::warn!("stopped");
                match golden["type"].as_str() {
                    Some("counter") => client.incr(&name(golden)),
                    _ => event(golden),
                }
            },
        ),
        other => panic!("metlog-py's {other:?} has no counterpart in this test"),
    }
}

/// `procinfo` must have a number as its payload, which only metlog-py sends; and metlog-py itself lets a `sentry`
/// message through whose payload is given, although it is none that Sentry reads.
fn fits_the_schema(api: &str) -> bool {
    !["procinfo", "raven payload="].contains(&api)
}

#[test]
fn the_same_call_gives_the_same_message_as_metlog_py() {
    let oracle = support::oracle::Oracle::new();
    let mut compared = 0;
    for line in GOLDEN.lines() {
        let entry: Value = serde_json::from_str(line).expect("JSON");
        let (api, golden) = (entry["api"].as_str().expect("text"), &entry["message"]);
        let messages = same_call(api, golden);
        assert_eq!(messages.len(), 1, "{api}: {messages:?}");
        let message = &messages[0];
        if fits_the_schema(api) {
            oracle.read(&message.to_string());
        }
        for key in ["type", "logger", "severity", "fields", "env_version"] {
            assert_eq!(message[key], golden[key], "{api}: {key}");
        }
        match &golden["payload"] {
            Value::Number(number) => assert_eq!(message["payload"], number.to_string(), "{api}"),
            text => assert_eq!(&message["payload"], text, "{api}"),
        }
        let keys = |message: &Value| message.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>());
        assert_eq!(keys(message), keys(golden), "{api}: the same keys");
        compared += 1;
    }
    assert_eq!(compared, GOLDEN.lines().count());
    assert!(compared >= 46, "the golden file is whole");
}

#[test]
fn the_golden_messages_pass_the_oracle_that_ours_pass() {
    let oracle = support::oracle::Oracle::new();
    for line in GOLDEN.lines() {
        let entry: Value = serde_json::from_str(line).expect("JSON");
        if fits_the_schema(entry["api"].as_str().expect("text")) {
            oracle.read(&entry["message"].to_string());
        }
    }
}
