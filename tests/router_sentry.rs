//! Errors as Sentry events, judged by Sentry's own code: `sentry_ingest.py` takes envelopes apart with `sentry-sdk` and
//! has `sentry-relay` normalise every event without an error. The Python for it is in `target/python`, which
//! `.ci/test` makes, or named by `METLOG_TEST_SENTRY_PYTHON`.
#![cfg(all(feature = "router", feature = "sentry", feature = "tracing"))]

mod output_support;

use std::error::Error;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use output_support::{
    balanced, closed_port, eventually, id, numbered, place, router, send, try_router, Directory, Receiver,
    PATIENCE,
};
use serde_json::{json, Value};
use tracing_metlog::router::{Router, SentryOutput};
use tracing_metlog::{LossReason, Message, Payload, Severity};

const KEY: &str = "5ecre7aaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A check that cannot run is a failure.
fn python() -> PathBuf {
    let given = std::env::var_os("METLOG_TEST_SENTRY_PYTHON").map(PathBuf::from);
    let python =
        given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python"));
    assert!(python.exists(), "{}: no such program; .ci/test makes it", python.display());
    python
}

fn ingest(mode: &str, directory: &Directory) -> Receiver {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/output_support/sentry_ingest.py");
    let file = directory.path().join("received.jsonl");
    let mut command = Command::new(python());
    command.arg(script).arg(mode).arg(&file);
    Receiver::of(command, file)
}

fn dsn(port: u16) -> String {
    format!("http://{KEY}@127.0.0.1:{port}/42")
}

fn to(receiver: &Receiver) -> SentryOutput {
    SentryOutput::new(dsn(receiver.port))
}

/// Like `numbered`, of now: Sentry refuses what is a month old.
fn fresh(number: usize) -> Message {
    let mut message = numbered(number);
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let days = now / 86_400;
    // Only the form matters, and that it is of this month: the day comes from the C library.
    let date = Command::new("date")
        .args(["-u", "-d", &format!("@{}", days * 86_400), "+%F"])
        .output()
        .expect("date");
    let date = String::from_utf8(date.stdout).expect("text");
    message.timestamp = format!("{}T00:00:00.{:06}Z", date.trim(), number % 1_000_000);
    message
}

fn error(number: usize) -> Message {
    Message { severity: Severity::Error, ..fresh(number) }
}

/// The events that were taken, when there are so many.
fn events(receiver: &Receiver, count: usize) -> Vec<Value> {
    eventually("all events are there", || receiver.taken().len() >= count);
    receiver.taken().into_iter().map(|one| one["event"].clone()).collect()
}

#[test]
fn an_error_is_an_event_with_everything_that_sentry_has_a_place_for() {
    let directory = Directory::new();
    let receiver = ingest("takes", &directory);
    let first = router(to(&receiver).environment("test").release("shop@1.2.3"));
    let mut message = error(7);
    message.payload = Payload::from("cannot pay");
    for (name, value) in [
        ("error", json!("request failed")),
        ("error.chain", json!(["cannot connect", "refused"])),
        ("thread", json!("worker-1")),
        ("spans", json!("request:pay")),
        ("target", json!("shop::pay")),
        ("dsn", json!("http://leaked-key@example/1")),
        ("nested", json!({"a": [1, null, "x"]})),
    ] {
        message.fields.insert(name.to_owned(), value);
    }
    send(&first, [message.clone()]);
    let event = events(&receiver, 1).remove(0);
    assert_eq!(event["message"], "cannot pay");
    assert!(event["level"].is_null(), "the default, which is error");
    assert_eq!(receiver.taken()[0]["normal"]["level"], "error");
    assert_eq!((&event["logger"], &event["server_name"]), (&json!("shop"), &json!("web-7.example")));
    assert_eq!((&event["environment"], &event["release"]), (&json!("test"), &json!("shop@1.2.3")));
    let exceptions = event["exception"]["values"].as_array().expect("exceptions");
    let values: Vec<_> = exceptions.iter().map(|one| one["value"].as_str().expect("text")).collect();
    assert_eq!(values, ["refused", "cannot connect", "request failed"], "the first cause first");
    let tags = json!({
        "metlog.type": "oldstyle", "metlog.severity": "error", "pid": "4242", "thread": "worker-1",
        "span": "request:pay", "target": "shop::pay",
    });
    assert_eq!(event["tags"], tags);
    assert_eq!(event["extra"]["nested"], json!({"a": [1, null, "x"]}));
    assert!(!event.to_string().contains("leaked-key"), "{event}");
    assert_eq!(receiver.taken()[0]["key"], KEY);
    assert_eq!(receiver.taken()[0]["project"], "42");
    let output = balanced(&first.shutdown(PATIENCE));
    assert_eq!((output.delivered, output.failed), (1, 0));
}

#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("refused by the bank")
    }
}

impl Error for Refused {}

#[test]
fn what_this_crates_client_says_of_errors_and_panics_is_an_exception_with_chain_stack_and_breadcrumbs() {
    let directory = Directory::new();
    let receiver = ingest("takes", &directory);
    let first = router(to(&receiver));
    let builder = tracing_metlog::builder().router(&first.addresses()[0]).logger("shop").panics(true);
    let (layer, guard) = builder.build().expect("builds");
    let subscriber = tracing_subscriber::layer::SubscriberExt::with(tracing_subscriber::registry(), layer);
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(name = "basket", "three things");
        let wrapped = std::io::Error::other(Refused);
        tracing::error!(error = &wrapped as &dyn Error, "cannot pay");
        let _ = std::panic::catch_unwind(|| panic!("no money left"));
    });
    guard.finish();
    let events = events(&receiver, 2);
    let exception = &events[0]["exception"]["values"][0];
    assert_eq!(exception["value"], "refused by the bank", "{}", events[0]);
    assert_eq!(events[0]["breadcrumbs"]["values"][0]["message"], "basket: three things");
    let panic = &events[1]["exception"]["values"][0];
    assert_eq!((&panic["type"], &panic["value"]), (&json!("panic"), &json!("no money left")));
    assert_eq!(panic["mechanism"], json!({"type": "panic", "handled": false}));
    assert_eq!(events[1]["level"], "fatal");
    let frames = panic["stacktrace"]["frames"].as_array().expect("frames");
    let is_here =
        |frame: &Value| frame["function"].as_str().is_some_and(|name| name.contains("router_sentry"));
    assert!(frames.iter().any(is_here), "{frames:?}");
    let crumbs = events[1]["breadcrumbs"]["values"].as_array().expect("breadcrumbs");
    assert_eq!(crumbs.len(), 2, "what went before, the error too");
    let ids: Vec<_> = events.iter().map(|event| event["event_id"].as_str().expect("an id")).collect();
    assert_ne!(ids[0], ids[1]);
    first.shutdown(PATIENCE);
}

#[test]
fn every_kind_of_message_is_an_event_that_sentrys_own_normaliser_takes_without_an_error() {
    let directory = Directory::new();
    let receiver = ingest("takes", &directory);
    let first = router(to(&receiver).breadcrumbs(100));
    let hostile = "a\u{0}b\n\r\u{1b}[31m\u{202e} /\\ \u{1f600}".repeat(30);
    let mut sent = Vec::new();
    for number in 0..60 {
        let mut message = error(number);
        message.severity =
            [Severity::Emergency, Severity::Alert, Severity::Critical, Severity::Error][number % 4];
        match number % 12 {
            0 => message.payload = Payload::from(""),
            1 => message.payload = Payload::from(hostile.as_str()),
            2 => message.payload = Payload::Number(17.into()),
            3 => message.logger = hostile.clone(),
            4 => message.r#type = hostile.clone(),
            5 => message.hostname = Some(hostile.clone()),
            6 => (message.hostname, message.pid) = (None, None),
            7 => {
                for name in
                    ["release", "environment", "thread", "spans", "target", "error", "backtrace", "file"]
                {
                    message.fields.insert(name.to_owned(), hostile.as_str().into());
                }
            }
            8 => {
                message.fields.insert(String::from("why"), "it broke".into());
                message.fields.insert(String::from("why.chain"), json!(["a", 7, null, hostile]));
            }
            9 => message.timestamp = String::from("no time at all"),
            10 => {
                let text = "it broke\nTraceback (most recent call last):\n  File \"shop.py\", line 3, in pay\n    x()\nValueError: no";
                message.payload = Payload::from(text);
            }
            _ => {
                // A little less than the router takes, and more than Sentry does.
                let long = "x".repeat(31_000);
                (0..28)
                    .for_each(|n| drop(message.fields.insert(format!("{hostile}{n}"), long.as_str().into())));
            }
        }
        sent.push(message);
    }
    send(&first, sent);
    let events = events(&receiver, 60);
    assert_eq!(events.len(), 60);
    let python = events.iter().find(|event| event["message"] == "it broke").expect("a Python traceback");
    assert_eq!(python["exception"]["values"][0]["type"], "ValueError");
    assert_eq!(python["exception"]["values"][0]["stacktrace"]["frames"][0]["lineno"], 3);
    assert!(events.iter().any(|event| event["tags"]["metlog.cut"] == "yes"), "over 1 MB is cut");
    let output = balanced(&first.shutdown(PATIENCE));
    assert_eq!((output.delivered, output.failed, output.last_error), (60, 0, None));
}

#[test]
fn only_errors_are_events_and_what_the_same_process_said_before_is_with_them() {
    let directory = Directory::new();
    let receiver = ingest("takes", &directory);
    let first = router(to(&receiver).breadcrumbs(3));
    let mut sent: Vec<Message> = (0..10).map(fresh).collect();
    sent[8].pid = Some(1);
    sent.push(error(10));
    sent.push(Message { r#type: String::from("panic"), ..fresh(11) });
    send(&first, sent);
    let events = events(&receiver, 2);
    let texts = |event: &Value| -> Vec<String> {
        let crumbs = event["breadcrumbs"]["values"].as_array().expect("breadcrumbs").clone();
        crumbs.iter().map(|crumb| crumb["message"].as_str().expect("text").to_owned()).collect()
    };
    let text = |number: usize| numbered(number).payload.to_string();
    assert_eq!(texts(&events[0]), [text(6), text(7), text(9)]);
    assert_eq!(texts(&events[1]), [text(7), text(9), text(10)]);
    let output = balanced(&first.shutdown(PATIENCE));
    assert_eq!((output.delivered, receiver.taken().len()), (12, 2));
}

#[test]
fn an_event_has_the_same_id_however_often_and_by_whatever_router_it_is_sent() {
    let directory = Directory::new();
    let receiver = ingest("takes", &directory);
    let mut anonymous = error(2);
    anonymous.fields.remove("metlog_id");
    let mut twin = error(3);
    twin.fields.insert(String::from("metlog_id"), id(1).into());
    for _ in 0..2 {
        let first = router(to(&receiver));
        send(&first, [error(1), anonymous.clone(), error(4)]);
        assert_eq!(balanced(&first.shutdown(PATIENCE)).delivered, 3);
    }
    let first = router(to(&receiver));
    send(&first, [twin]);
    first.shutdown(PATIENCE);
    let ids: Vec<_> = events(&receiver, 7).iter().map(|event| event["event_id"].to_string()).collect();
    assert_eq!(ids[..3], ids[3..6]);
    assert_eq!(ids[6], ids[0], "the message's own id decides");
    assert!(ids[0] != ids[1] && ids[1] != ids[2]);
}

#[test]
fn sentry_is_left_alone_for_as_long_as_it_asks_and_then_gets_every_event_once() {
    let directory = Directory::new();
    let receiver = ingest("limits", &directory);
    let first = router(to(&receiver));
    send(&first, (0..5).map(error));
    eventually("all are there", || receiver.taken().iter().filter(|one| one["status"] == 200).count() == 5);
    let taken = receiver.taken();
    let at = |index: usize| taken[index]["at"].as_f64().expect("a time");
    assert_eq!(taken.len(), 6);
    assert!(at(1) - at(0) >= 0.99, "X-Sentry-Rate-Limits: 1 s");
    assert!(at(2) - at(1) >= 0.99, "Retry-After: 1 s");
    assert_eq!(taken[1]["event"], taken[2]["event"], "the same event again");
    let output = balanced(&first.shutdown(PATIENCE));
    assert_eq!((output.delivered, output.failed), (5, 0));
}

#[test]
fn metlog_ravens_payload_is_unpacked_and_forwarded_as_it_is_and_a_bomb_is_refused() {
    let directory = Directory::new();
    let receiver = ingest("takes", &directory);
    let first = router(to(&receiver).environment("test"));
    // As raven 3.1.16 makes it, encoded by Python.
    let script = "import base64, json, sys, time, zlib\n\
        event = {'event_id': 'ab' * 16, 'message': 'ValueError: no', 'level': 40, 'project': '1', 'culprit': 'shop.pay',\n\
        'timestamp': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()), 'checksum': 'c' * 32, 'modules': {'raven': '3.1.16'},\n\
        'server_name': 'old.example', 'tags': [], 'extra': {'msg': 'x', 'sys.argv': ['a']}, 'time_spent': None, 'platform': 'python',\n\
        'sentry.interfaces.Exception': {'type': 'ValueError', 'value': 'no', 'module': 'exceptions'},\n\
        'sentry.interfaces.Stacktrace': {'frames': [{'abs_path': '/shop.py', 'filename': 'shop.py', 'module': 'shop',\n\
        'function': 'pay', 'lineno': 3, 'vars': {'x': '1'}, 'pre_context': [], 'context_line': 'raise', 'post_context': []}]}}\n\
        pack = lambda data: print(base64.b64encode(zlib.compress(data, 9)).decode())\n\
        pack(json.dumps(event).encode()); pack(b' ' * (64 << 20))";
    let packed = Command::new(python()).args(["-c", script]).output().expect("python runs");
    let packed = String::from_utf8(packed.stdout).expect("text");
    let (event, bomb) = packed.trim().split_once('\n').expect("two lines");
    let raven = |number: usize, payload: &str| {
        let mut message = error(number);
        message.r#type = String::from("sentry");
        message.payload = Payload::from(payload);
        let dsn = format!("http://{KEY}@127.0.0.1:{}/7", receiver.port);
        message.fields.insert(String::from("dsn"), dsn.into());
        message
    };
    send(&first, [raven(1, event), raven(2, bomb), raven(3, "only text")]);
    eventually("all are settled", || {
        let output = first.counters().outputs[0].clone();
        output.delivered + output.failed == 3
    });
    let output = balanced(&first.shutdown(PATIENCE));
    assert_eq!((output.delivered, output.failed), (2, 1));
    assert!(output.last_error.is_some_and(|error| error.contains("unpacks to over 2097152 bytes")));
    let taken = receiver.taken();
    let event = &taken[0]["event"];
    assert_eq!(event["event_id"], "ab".repeat(16));
    assert_eq!((&event["level"], &event["server_name"]), (&json!(40), &json!("old.example")));
    assert_eq!(event["sentry.interfaces.Stacktrace"]["frames"][0]["lineno"], 3);
    assert_eq!(event["environment"], "test");
    assert_eq!(taken[0]["normal"]["exception"]["values"][0]["value"], "no");
    assert_eq!(taken[1]["event"]["message"], "only text");
    // Nobody has allowed that messages choose.
    assert!(taken.iter().all(|one| one["project"] == "42"), "{taken:?}");
}

#[test]
fn a_message_may_name_its_project_when_that_is_allowed_and_a_dead_one_holds_up_nobody_else() {
    let directory = Directory::new();
    let receiver = ingest("takes", &directory);
    let first = router(to(&receiver).allow_message_dsn(true));
    let named = |number: usize, dsn: String| {
        let mut message = error(number);
        message.fields.insert(String::from("dsn"), dsn.into());
        message
    };
    let other = format!("http://0ther@127.0.0.1:{}/7", receiver.port);
    let dead = format!("http://{KEY}@127.0.0.1:{}/1", closed_port());
    let messages = [
        named(0, dead.clone()),
        named(1, other.clone()),
        named(2, String::from("udp://user:s3cr3t@host:9001/2")),
        named(3, other),
        error(4),
        named(5, dead),
    ];
    send(&first, messages);
    eventually("four are there", || receiver.taken().len() == 4);
    let counters = first.shutdown(Duration::from_secs(2));
    let mut seen: Vec<_> = receiver
        .taken()
        .iter()
        .map(|one| {
            let number = one["event"]["extra"]["number"].as_u64().expect("a number");
            (number, one["project"].as_str().expect("a project").to_owned())
        })
        .collect();
    seen.sort();
    let expected =
        [(1, "7"), (2, "42"), (3, "7"), (4, "42")].map(|(number, project)| (number, project.to_owned()));
    assert_eq!(seen, expected);
    let output = balanced(&counters);
    assert_eq!((output.delivered, output.failed), (4, 2), "{output:?}");
    assert_eq!(output.lost.count(LossReason::Unreachable), 2);
    assert!(!counters.to_string().contains("s3cr3t") && !counters.to_string().contains(KEY), "{counters}");
}

#[test]
fn a_key_is_never_shown_not_even_when_sentry_repeats_it() {
    let directory = Directory::new();
    let receiver = ingest("refuses", &directory);
    let output = to(&receiver);
    let shown = format!("{output:?}");
    let first = router(output);
    send(&first, (0..3).map(error));
    eventually("they are refused", || first.counters().outputs[0].failed == 3);
    let counters = first.shutdown(PATIENCE);
    let account = balanced(&counters);
    assert_eq!(account.lost.count(LossReason::Rejected), 3);
    assert!(account.last_error.clone().is_some_and(|error| error.contains("403 Forbidden")), "{account:?}");
    assert_eq!(account.name, format!("sentry:127.0.0.1:{}/42", receiver.port));
    for text in [shown, counters.to_string(), format!("{counters:?}")] {
        assert!(!text.contains(KEY), "{text}");
    }
    for output in [
        SentryOutput::new(format!("udp://{KEY}@host/1")),
        SentryOutput::new(format!("https://{KEY}@host/")),
        SentryOutput::new(dsn(1)).release("a b"),
        SentryOutput::new(dsn(1)).environment("none"),
        SentryOutput::new(dsn(1)).breadcrumbs(101),
    ] {
        let error = try_router("127.0.0.1:0", output).expect_err("refused").to_string();
        assert!(error.starts_with("cannot open sentry") && !error.contains(KEY), "{error}");
        assert!(error.contains("accepted"), "{error}");
    }
}

#[test]
fn a_sentry_that_is_away_costs_what_was_not_sent_by_the_deadline_and_memory_stays_bounded() {
    let away = SentryOutput::new(dsn(closed_port())).queue_bytes(64 * 1024);
    let first: Router = router(away);
    let mut stream = std::net::TcpStream::connect(place(&first)).expect("connects");
    let long = "x".repeat(4_000);
    for number in 0..2_000 {
        let mut message = numbered(number);
        message.severity = Severity::Critical;
        message.fields.insert(String::from("text"), long.as_str().into());
        stream.write_all(format!("{}\n", message.to_json()).as_bytes()).expect("sent");
    }
    drop(stream);
    eventually("received", || first.counters().received == 2_000);
    let begun = Instant::now();
    let output = balanced(&first.shutdown(Duration::from_secs(1)));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!((output.delivered, output.queued), (0, 0), "{output:?}");
    assert_eq!(output.failed, output.lost.count(LossReason::Unreachable), "{output:?}");
    // 1 MiB of events, with their breadcrumbs, and a little in the queue.
    assert!(output.dropped >= 1_500 && output.failed > 20, "{output:?}");
}
