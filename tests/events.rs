//! What becomes of a `tracing` event: its envelope, its fields, where it says it comes from.
#![cfg(feature = "tracing")]

mod support;

use serde_json::{json, Value};
use tracing::{debug, error, info, trace, warn};
use tracing_metlog::{Builder, Severity};

use support::{bare, plain, traced};

#[test]
fn an_event_becomes_an_oldstyle_message_with_its_text_as_payload() {
    let messages = traced(|builder| builder.logger("shop").hostname("here"), || info!("logged in"));
    assert_eq!(messages.len(), 1);
    let message = &messages[0];
    assert_eq!(message["type"], "oldstyle");
    assert_eq!(message["payload"], "logged in");
    assert_eq!(message["logger"], "shop");
    assert_eq!(message["metlog_hostname"], "here");
    assert_eq!(message["metlog_pid"], std::process::id());
    assert_eq!(message["env_version"], "0.8");
    assert_eq!(message["severity"], 6);
}

#[test]
fn an_event_without_a_message_has_an_empty_payload() {
    let messages = traced(bare, || info!(answer = 42));
    assert_eq!(messages[0]["payload"], "");
    assert_eq!(messages[0]["fields"], json!({"answer": 42}));
}

#[test]
fn fields_keep_their_types() {
    let messages = traced(bare, || {
        info!(
            unsigned = 1_u8,
            signed = -2_i16,
            float = 1.5,
            yes = true,
            text = "t",
            debugged = ?vec![1, 2],
            displayed = %"d",
            "formatted {}",
            3
        );
    });
    assert_eq!(messages[0]["payload"], "formatted 3");
    assert_eq!(
        messages[0]["fields"],
        json!({
            "unsigned": 1, "signed": -2, "float": 1.5, "yes": true, "text": "t",
            "debugged": "[1, 2]", "displayed": "d"
        })
    );
}

#[test]
fn levels_have_the_documented_severities() {
    let messages = traced(plain, || {
        error!("error");
        warn!("warn");
        info!("info");
        debug!("debug");
        trace!("trace");
    });
    let severities: Vec<_> = messages.iter().map(|message| message["severity"].as_u64()).collect();
    assert_eq!(severities, [3, 4, 6, 7, 7].map(Some));
}

#[test]
fn levels_have_the_severities_they_are_given() {
    use Severity::{Critical, Emergency, Error, Informational, Notice};
    let severities = [Emergency, Critical, Error, Notice, Informational];
    let messages = traced(
        |builder| builder.severities(severities),
        || {
            error!("error");
            warn!("warn");
            info!("info");
            debug!("debug");
            trace!("trace");
        },
    );
    let found: Vec<_> = messages.iter().map(|message| message["severity"].as_u64()).collect();
    assert_eq!(found, [0, 2, 3, 5, 6].map(Some));
}

/// An event in two spans, and the line it is on.
fn from_a_named_thread(configure: impl FnOnce(Builder) -> Builder + Send) -> (Value, u32) {
    let mut line = 0;
    let messages = traced(configure, || {
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        std::thread::scope(|scope| {
            let work = || {
                tracing::dispatcher::with_default(&dispatch, || {
                    let _outer = tracing::info_span!("outer").entered();
                    let _inner = tracing::info_span!("inner").entered();
                    line = line!() + 1;
                    info!(target: "shop::till", "here");
                });
            };
            std::thread::Builder::new().name("teller".into()).spawn_scoped(scope, work).expect("starts");
        });
    });
    (support::with_payload(&messages, "here"), line)
}

#[test]
fn a_message_says_where_it_comes_from() {
    let (message, line) = from_a_named_thread(plain);
    assert_eq!(
        message["fields"],
        json!({
            "target": "shop::till", "module": "events", "file": file!(), "line": line,
            "thread": "teller", "span": "inner", "spans": "outer:inner"
        })
    );
}

#[test]
fn each_thing_said_about_the_origin_can_be_switched_off_alone() {
    type Switch = fn(Builder) -> Builder;
    let switches: [(&str, Switch); 7] = [
        ("target", |builder| builder.target(false)),
        ("module", |builder| builder.module(false)),
        ("file", |builder| builder.file(false)),
        ("line", |builder| builder.line(false)),
        ("thread", |builder| builder.thread(false)),
        ("span", |builder| builder.span(false)),
        ("spans", |builder| builder.spans(false)),
    ];
    let (all, _) = from_a_named_thread(plain);
    for (name, switch) in switches {
        let (message, _) = from_a_named_thread(switch);
        let mut expected = all["fields"].clone();
        expected.as_object_mut().expect("an object").remove(name).expect("it is there by default");
        assert_eq!(message["fields"], expected, "without {name}");
    }
}

#[test]
fn a_thread_without_a_name_is_known_by_its_id() {
    let messages = traced(plain, || {
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let id = std::thread::scope(|scope| {
            let work = || {
                tracing::dispatcher::with_default(&dispatch, || info!("here"));
                format!("{:?}", std::thread::current().id())
            };
            scope.spawn(work).join().expect("ends")
        });
        info!(id, "main");
    });
    assert_eq!(messages[0]["fields"]["thread"], messages[1]["fields"]["id"]);
}

#[test]
fn no_user_field_can_touch_the_envelope() {
    let messages = traced(
        |builder| bare(builder).hostname("host"),
        || {
            info!(
                timestamp = "never",
                logger = "evil",
                severity = 0,
                payload = "no",
                fields = "none",
                env_version = "9",
                metlog_pid = -1,
                metlog_hostname = "elsewhere",
                "the text"
            );
        },
    );
    let message = &messages[0];
    assert_eq!(message["logger"], "tests");
    assert_eq!(message["severity"], 6);
    assert_eq!(message["payload"], "the text");
    assert_eq!(message["env_version"], "0.8");
    assert_eq!(message["metlog_pid"], std::process::id());
    assert_eq!(message["metlog_hostname"], "host");
    assert_eq!(
        message["fields"],
        json!({
            "timestamp": "never", "logger": "evil", "severity": 0, "payload": "no", "fields": "none",
            "env_version": "9", "metlog_pid": -1, "metlog_hostname": "elsewhere"
        })
    );
}

#[test]
fn no_span_field_can_touch_the_envelope() {
    let messages = traced(bare, || {
        let _span = tracing::info_span!(
            "span",
            r#type = "evil",
            metlog.r#type = "evil",
            metlog.logger = "evil",
            metlog.severity = 0,
            metlog.payload = "evil",
            counter.x = 1,
            message = "evil",
            severity = 0
        )
        .entered();
        info!("the text");
    });
    assert_eq!(messages.len(), 1, "no counter either: {messages:?}");
    let message = &messages[0];
    assert_eq!(message["type"], "oldstyle");
    assert_eq!(message["logger"], "tests");
    assert_eq!(message["severity"], 6);
    assert_eq!(message["payload"], "the text");
    assert_eq!(message["fields"]["counter.x"], 1);
    assert_eq!(message["fields"]["metlog.payload"], "evil");
    assert_eq!(message["fields"]["message"], "evil");
}

#[test]
fn an_event_s_own_field_wins_over_what_is_added_and_a_name_is_there_once() {
    // That no name is twice in an object is asked of every message by the oracle.
    let messages = traced(plain, || {
        let _span = tracing::info_span!("span", user = "outer", span = "the span's", spans = 5).entered();
        info!(target = "own", module = 1, file = 2, line = "three", thread = 4, user = "inner", "text");
    });
    let fields = &support::with_payload(&messages, "text")["fields"];
    assert_eq!(
        *fields,
        json!({
            "target": "own", "module": 1, "file": 2, "line": "three", "thread": 4,
            "span": "the span's", "spans": 5, "user": "inner"
        })
    );
}

#[test]
fn one_name_that_clashes_does_not_cost_the_others() {
    let messages = traced(plain, || info!(line = "own", "text"));
    let fields = &messages[0]["fields"];
    assert_eq!(fields["line"], "own");
    assert_eq!(fields["file"], file!());
    assert_eq!(fields["module"], "events");
    assert_eq!(fields["target"], "events");
}

#[test]
fn a_message_that_is_no_text_is_the_payload_as_text() {
    let messages = traced(bare, || {
        info!(message = 5);
        info!(message = -5);
        info!(message = true);
        info!(message = 2.5);
        info!(message = ?Some("x"));
        info!(message = u128::MAX);
        info!(message = f64::NAN);
    });
    let expected = ["5", "-5", "true", "2.5", "Some(\"x\")", &u128::MAX.to_string(), "NaN"];
    assert_eq!(support::payloads(&messages), expected);
    assert!(messages.iter().all(|message| message["fields"] == json!({})), "{messages:?}");
}

#[test]
fn a_text_of_many_lines_stays_one_message_on_one_line() {
    let messages = traced(bare, || info!(trace = "a\r\nb", "first\nsecond\u{2028}third\u{0}"));
    assert_eq!(messages[0]["payload"], "first\nsecond\u{2028}third\u{0}");
    assert_eq!(messages[0]["fields"]["trace"], "a\r\nb");
}

#[test]
fn messages_of_one_thread_come_in_the_order_they_were_made_in() {
    const COUNT: u64 = 20_000;
    let messages = traced(bare, || (0..COUNT).for_each(|n| info!(n)));
    assert!(messages.iter().map(|message| message["fields"]["n"].as_u64()).eq((0..COUNT).map(Some)));
}

#[test]
fn a_long_text_is_cut_between_characters_and_marked() {
    let long = "é".repeat(60_000);
    let messages = traced(bare, || info!("{long}"));
    let payload = messages[0]["payload"].as_str().expect("text");
    assert!(payload.len() > 50_000 && long.starts_with(payload));
    assert_eq!(messages[0]["fields"], json!({"truncated": true}));
}
