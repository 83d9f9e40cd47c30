//! `MetlogLogger` by itself, called directly: nothing in here touches the process's global logger but the children.
#![cfg(feature = "log")]

mod support;

use std::sync::{Arc, Mutex};

use log::kv::{ToValue, Value as KvValue};
use log::{Level, LevelFilter, Log, Record};
use serde_json::{json, Value};
use tracing_metlog::MetlogLogger;

use support::child::child;
use support::{bare, payloads, plain, Pipe};

fn say(logger: &dyn Log, level: Level, target: &str, text: &str) {
    logger.log(&Record::builder().level(level).target(target).args(format_args!("{text}")).build());
}

fn with_pairs(pairs: &[(&str, KvValue<'_>)]) -> Value {
    let (logger, pipe) = Pipe::logger(bare);
    logger.log(&Record::builder().level(Level::Info).key_values(&pairs).build());
    pipe.finish().messages[0]["fields"].clone()
}

#[test]
fn a_record_becomes_an_oldstyle_message_that_says_its_origin() {
    let (logger, pipe) = Pipe::logger(plain);
    logger.log(
        &Record::builder()
            .level(Level::Warn)
            .target("shop::till")
            .module_path(Some("shop::inner"))
            .file(Some("src/till.rs"))
            .line(Some(42))
            .args(format_args!("low on {}", "ink"))
            .build(),
    );
    say(&logger, Level::Info, "bare", "nothing known");
    let messages = pipe.finish().messages;
    assert_eq!((&messages[0]["type"], &messages[0]["severity"]), (&json!("oldstyle"), &json!(4)));
    assert_eq!((&messages[0]["payload"], &messages[0]["logger"]), (&json!("low on ink"), &json!("tests")));
    let thread = std::thread::current().name().expect("a test has one").to_owned();
    assert_eq!(
        messages[0]["fields"],
        json!({
            "target": "shop::till", "module": "shop::inner", "file": "src/till.rs", "line": 42, "thread": thread
        })
    );
    assert_eq!(messages[1]["fields"], json!({"target": "bare", "thread": thread}));
}

#[test]
fn levels_have_the_documented_severities() {
    let (logger, pipe) = Pipe::logger(|builder| builder.filter("trace"));
    for level in Level::iter() {
        say(&logger, level, "t", "x");
    }
    let messages = pipe.finish().messages;
    let severities: Vec<_> = messages.iter().map(|message| message["severity"].as_u64()).collect();
    assert_eq!(severities, [3, 4, 6, 7, 7].map(Some));
}

#[test]
fn key_values_keep_their_types() {
    let fields = with_pairs(&[
        ("u", 1_u64.to_value()),
        ("i", (-1_i64).to_value()),
        ("wide", u128::MAX.to_value()),
        ("f", 1.5.to_value()),
        ("nan", f64::NAN.to_value()),
        ("yes", true.to_value()),
        ("text", "t".to_value()),
        ("char", 'c'.to_value()),
        ("none", None::<u64>.to_value()),
        ("some", Some(5).to_value()),
        ("debug", KvValue::from_debug(&[1, 2])),
        ("display", KvValue::from_display(&"d")),
    ]);
    assert_eq!(
        fields,
        json!({
            "u": 1, "i": -1, "wide": u128::MAX.to_string(), "f": 1.5, "nan": "NaN", "yes": true, "text": "t",
            "char": "c", "none": null, "some": 5, "debug": "[1, 2]", "display": "d"
        })
    );
}

#[cfg(feature = "log-serde")]
#[test]
fn nested_key_values_are_json() {
    let nested = json!({"list": [1, {"deep": null}], "text": "\"\n"});
    let fields = with_pairs(&[("nested", KvValue::from_serde(&nested)), ("after", 1.to_value())]);
    assert_eq!(fields, json!({"nested": nested, "after": 1}));
}

#[test]
fn no_key_value_can_touch_the_envelope_or_be_there_twice() {
    let fields = with_pairs(&[
        ("type", "evil".to_value()),
        ("metlog.type", "evil".to_value()),
        ("severity", 0.to_value()),
        ("payload", "evil".to_value()),
        ("counter.x", 1.to_value()),
        ("type", "second".to_value()),
    ]);
    let expected =
        json!({"type": "evil", "metlog.type": "evil", "severity": 0, "payload": "evil", "counter.x": 1});
    assert_eq!(fields, expected);
}

#[test]
fn a_key_value_wins_over_what_is_added() {
    let (logger, pipe) = Pipe::logger(plain);
    let pairs = [("target", "own"), ("thread", "own")];
    logger.log(&Record::builder().level(Level::Info).target("true").key_values(&pairs.as_slice()).build());
    assert_eq!(pipe.finish().messages[0]["fields"], json!({"target": "own", "thread": "own"}));
}

#[cfg(feature = "tracing")]
#[test]
fn a_record_in_a_tracing_span_has_its_context_as_the_layer_knows_it() {
    use tracing_subscriber::layer::SubscriberExt;
    let (logger, pipe) = Pipe::logger(|builder| bare(builder).spans(true));
    let (layer, _other_pipe) = Pipe::layer(plain);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        say(&logger, Level::Info, "t", "outside");
        let outer = tracing::info_span!("outer", a = 1, later = tracing::field::Empty).entered();
        let inner = tracing::info_span!("inner", b = 2).entered();
        outer.record("later", 3);
        say(&logger, Level::Info, "t", "inside");
        drop(inner);
        say(&logger, Level::Info, "t", "outer only");
        drop(outer);
        say(&logger, Level::Info, "t", "outside again");
    });
    let messages = pipe.finish().messages;
    let fields: Vec<_> = messages.iter().map(|message| message["fields"].clone()).collect();
    let inside = json!({"a": 1, "later": 3, "b": 2, "spans": "outer:inner"});
    assert_eq!(fields, [json!({}), inside, json!({"a": 1, "later": 3, "spans": "outer"}), json!({})]);
}

/// Payloads of one record of every level, of two targets, that pass a filter.
fn passing(directives: &str) -> (Vec<String>, LevelFilter) {
    let (logger, pipe) = Pipe::logger(|builder| builder.filter(directives));
    for target in ["app", "hyper::proto"] {
        for level in Level::iter() {
            let metadata = log::Metadata::builder().level(level).target(target).build();
            let before = logger.enabled(&metadata);
            say(&logger, level, target, &format!("{target} {level} {before}"));
        }
    }
    let level = logger.max_level();
    (payloads(&pipe.finish().messages), level)
}

#[test]
fn the_filter_rules_records_and_says_the_most_verbose_level() {
    let (passed, level) = passing("info,hyper=error");
    assert_eq!(passed, ["app ERROR true", "app WARN true", "app INFO true", "hyper::proto ERROR true"]);
    assert_eq!(level, LevelFilter::Info);
    assert_eq!(passing("warn,hyper=trace").1, LevelFilter::Trace);
    assert_eq!(passing("off"), (vec![], LevelFilter::Off));
}

#[test]
fn directives_with_spans_are_for_tracing_and_are_left_out_here() {
    let (passed, level) = passing("error,[request{id=1,user=2}]=trace,hyper=warn");
    assert_eq!(passed, ["app ERROR true", "hyper::proto ERROR true", "hyper::proto WARN true"]);
    assert_eq!(level, LevelFilter::Warn);
}

#[test]
fn a_filter_that_is_none_is_an_error_that_names_it() {
    let error = Pipe::builder(|builder| builder.filter("info,=loud=")).0.build_logger().map(drop);
    let error = error.expect_err("refused").to_string();
    assert!(error.contains("Builder::filter") && error.contains("info,=loud="), "{error}");
}

#[test]
fn flush_delivers_what_was_logged_before_it() {
    let (logger, pipe) = Pipe::logger(plain);
    for round in 1..=50 {
        say(&logger, Level::Info, "t", "x");
        logger.flush();
        assert_eq!(pipe.capture().len(), round, "delivered when flush returns");
    }
    pipe.finish();
}

/// Notes what it is given.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Log for Notes {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target() == "debugged"
    }

    fn log(&self, record: &Record<'_>) {
        self.0.lock().expect("no panic").push(record.args().to_string());
    }

    fn flush(&self) {
        self.0.lock().expect("no panic").push("flushed".into());
    }
}

#[test]
fn a_wrapped_logger_gets_every_record_and_every_flush() {
    let notes = Notes::default();
    let (logger, pipe) = Pipe::logger(|builder| builder.filter("warn"));
    let logger: MetlogLogger = logger.wrap(Box::new(notes.clone()));
    say(&logger, Level::Warn, "t", "sent and shown");
    say(&logger, Level::Debug, "t", "shown");
    logger.flush();
    assert_eq!(*notes.0.lock().expect("no panic"), ["sent and shown", "shown", "flushed"]);
    assert_eq!(logger.max_level(), LevelFilter::Trace, "what the wrapped one takes is its own business");
    let enabled =
        |target| logger.enabled(&log::Metadata::builder().level(Level::Debug).target(target).build());
    assert!(enabled("debugged") && !enabled("other"));
    assert_eq!(payloads(&pipe.finish().messages), ["sent and shown"]);
}

#[test]
fn installed_it_is_the_program_s_logger_at_its_filter_s_level() {
    let child = child("installed_it_is_the_program_s_logger_at_its_filter_s_level", &[], |router| {
        let build = || tracing_metlog::builder().router(router).filter("debug,quiet=warn").build_logger();
        let (logger, _guard) = build().expect("builds");
        logger.install().expect("the first");
        assert_eq!(log::max_level(), LevelFilter::Debug);
        log::debug!(user = 7, text = "t"; "typed");
        log::info!(target: "quiet", "not this");
        log::trace!("nor this");
        log::logger().flush();
        assert!(build().expect("builds").0.install().is_err(), "there is one already");
    });
    let Some(child) = child else { return };
    assert!(child.status.success(), "{}\n{}", child.stdout, child.stderr);
    assert_eq!(payloads(&child.messages), ["typed"]);
    let fields = &child.messages[0]["fields"];
    assert_eq!((&fields["user"], &fields["text"]), (&json!(7), &json!("t")));
    assert_eq!(
        (&fields["target"], &fields["module"], &fields["file"]),
        (&json!("logger"), &json!("logger"), &json!(file!()))
    );
}

#[test]
fn without_rust_log_only_info_and_worse_is_sent() {
    let child = child("without_rust_log_only_info_and_worse_is_sent", &[], |router| {
        let (logger, _guard) = tracing_metlog::builder().router(router).build_logger().expect("builds");
        assert_eq!(logger.max_level(), LevelFilter::Info);
    });
    let Some(child) = child else { return };
    assert!(child.status.success(), "{}\n{}", child.stdout, child.stderr);
}

#[cfg(feature = "tracing")]
mod both {
    //! The two halves together, and `tracing-log` between them.

    use std::time::Duration;

    use tracing_metlog::{Capture, InitError};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn after_init_rust_log_rules_records_and_events_and_spans_are_the_context_of_both() {
        let test = "both::after_init_rust_log_rules_records_and_events_and_spans_are_the_context_of_both";
        let variables = [("RUST_LOG", "warn,logger::both=info,[verbose]=debug")];
        let child = child(test, &variables, |router| {
            let _metlog = tracing_metlog::builder().router(router).disabled_timers(["*"]).init();
            let _span = tracing::info_span!("request", id = 7).entered();
            log::info!("a record");
            tracing::info!("an event");
            log::debug!("a record too verbose");
            tracing::debug!("an event too verbose");
            log::info!(target: "other", "a record of another target");
            tracing::info!(target: "other", "an event of another target");
            log::warn!(target: "other", "warned by a record");
            tracing::warn!(target: "other", "warned by an event");
            let _verbose = tracing::info_span!("verbose").entered();
            tracing::debug!("an event in a verbose span");
        });
        let Some(child) = child else { return };
        assert!(child.status.success(), "{}\n{}", child.stdout, child.stderr);
        let expected = [
            "a record",
            "an event",
            "warned by a record",
            "warned by an event",
            "an event in a verbose span",
        ];
        assert_eq!(payloads(&child.messages), expected);
        for message in &child.messages {
            assert_eq!(message["fields"]["id"], 7, "{message}");
        }
    }

    #[test]
    fn a_second_init_says_which_slot_is_taken() {
        let child = child("both::a_second_init_says_which_slot_is_taken", &[], |router| {
            let builder = || tracing_metlog::builder().router(router);
            let _metlog = builder().try_init().expect("the first");
            let error = builder().try_init().expect_err("the second");
            assert!(matches!(error, InitError::TracingTaken), "{error:?}");
            assert!(error.to_string().contains("tracing"), "{error}");
            tracing::info!("the first still works");
        });
        let Some(child) = child else { return };
        assert!(child.status.success(), "{}\n{}", child.stdout, child.stderr);
        assert_eq!(payloads(&child.messages), ["the first still works"]);
    }

    #[test]
    fn an_init_after_a_subscriber_that_held_for_a_while_is_the_first() {
        let test = "both::an_init_after_a_subscriber_that_held_for_a_while_is_the_first";
        let child = child(test, &[], |router| {
            tracing::subscriber::with_default(tracing_subscriber::registry(), || tracing::info!("nowhere"));
            let _metlog = tracing_metlog::builder().router(router).try_init().expect("no other is there");
            tracing::info!("an event");
        });
        let Some(child) = child else { return };
        assert!(child.status.success(), "{}\n{}", child.stdout, child.stderr);
        assert_eq!(payloads(&child.messages), ["an event"]);
    }

    #[test]
    fn a_layer_and_a_logger_that_are_built_together_share_one_account() {
        let test = "both::a_layer_and_a_logger_that_are_built_together_share_one_account";
        let child = child(test, &[], |router| {
            let (layer, logger, guard) =
                tracing_metlog::builder().router(router).disabled_timers(["*"]).build_both().expect("builds");
            let stack = tracing_subscriber::registry().with(layer);
            tracing::subscriber::set_global_default(stack).expect("none is installed");
            logger.install().expect("none is installed");
            let _span = tracing::info_span!("request", id = 7).entered();
            tracing::info!("an event");
            log::info!("a record");
            assert_eq!(guard.finish().delivered, 2);
        });
        let Some(child) = child else { return };
        assert!(child.status.success(), "{}\n{}", child.stdout, child.stderr);
        assert_eq!(payloads(&child.messages), ["an event", "a record"]);
        assert!(child.messages.iter().all(|message| message["fields"]["id"] == 7));
    }

    #[test]
    fn an_init_after_another_logger_says_so_and_installs_nothing() {
        let child = child("both::an_init_after_another_logger_says_so_and_installs_nothing", &[], |router| {
            log::set_boxed_logger(Box::new(Notes::default())).expect("the first");
            let error = tracing_metlog::builder().router(router).try_init().expect_err("taken");
            assert!(matches!(error, InitError::LogTaken), "{error:?}");
            assert!(error.to_string().contains("`log`"), "{error}");
            assert!(!tracing::dispatcher::has_been_set(), "nothing is installed");
        });
        let Some(child) = child else { return };
        assert!(child.status.success(), "{}\n{}", child.stdout, child.stderr);
    }

    #[test]
    fn a_bad_variable_is_an_error_that_names_it() {
        let variables = [("RUST_LOG", "info"), ("METLOG_WHEN_FULL", "perhaps")];
        let child = child("both::a_bad_variable_is_an_error_that_names_it", &variables, |_| {
            let error = tracing_metlog::try_init().expect_err("refused").to_string();
            for part in ["METLOG_WHEN_FULL", "perhaps", "drop-oldest"] {
                assert!(error.contains(part), "{error}");
            }
        });
        let Some(child) = child else { return };
        assert!(child.status.success(), "{}\n{}", child.stdout, child.stderr);
    }

    /// A stack with a `MetlogLayer` and a `fmt` layer whose text is the child's standard output.
    fn stack(router: &str) -> tracing_metlog::Guard {
        let builder = tracing_metlog::builder().router(router).disabled_timers(["*"]);
        let (layer, guard) = builder.build().expect("builds");
        let format = tracing_subscriber::fmt::layer().without_time().with_writer(std::io::stdout);
        let stack = tracing_subscriber::registry().with(layer).with(format);
        tracing::subscriber::set_global_default(stack).expect("the first");
        guard
    }

    #[test]
    fn a_logger_around_log_tracer_beside_the_layer_sends_once_and_shows_to_the_others() {
        let test = "both::a_logger_around_log_tracer_beside_the_layer_sends_once_and_shows_to_the_others";
        let child = child(test, &[], |router| {
            let _layer_guard = stack(router);
            // A second pipeline to the same file would do as well; one in memory shows who sends what.
            let capture = Capture::new();
            let builder = tracing_metlog::builder().transport(capture.clone()).filter("info");
            let (logger, guard) = builder.build_logger().expect("builds");
            logger.wrap(Box::new(tracing_log::LogTracer::new())).install().expect("the first");
            let _span = tracing::info_span!("request", id = 7).entered();
            log::warn!(user = 5; "a record");
            tracing::info!("an event");
            tracing::info!(target: "log", "an event that is no record");
            assert_eq!(guard.flush(Duration::from_secs(30)).pending, 0);
            let messages = capture.messages();
            assert_eq!(messages.len(), 1, "{messages:?}");
            assert_eq!((&messages[0].fields["user"], &messages[0].fields["id"]), (&json!(5), &json!(7)));
            log::info!("another record");
        });
        let Some(child) = child else { return };
        assert!(child.status.success(), "{}\n{}", child.stdout, child.stderr);
        assert_eq!(payloads(&child.messages), ["an event", "an event that is no record"]);
        for shown in ["a record", "an event", "another record"] {
            assert!(child.stdout.contains(shown), "{shown}: {}", child.stdout);
        }
    }

    #[cfg(feature = "console")]
    #[test]
    fn the_console_shows_records_and_events_and_the_router_gets_each_once() {
        let test = "both::the_console_shows_records_and_events_and_the_router_gets_each_once";
        let child = child(test, &[("RUST_LOG", "info"), ("METLOG_CONSOLE", "true")], |router| {
            let _metlog = tracing_metlog::builder().router(router).init();
            log::info!(user = 5; "a record");
            tracing::info!("an event");
            log::debug!("a verbose record");
        });
        let Some(child) = child else { return };
        assert!(child.status.success(), "{}\n{}", child.stdout, child.stderr);
        assert_eq!(payloads(&child.messages), ["a record", "an event"]);
        assert_eq!(child.messages[0]["fields"]["user"], 5, "typed");
        assert!(child.stderr.contains("a record") && child.stderr.contains("an event"), "{}", child.stderr);
        assert!(!child.stderr.contains("verbose"), "{}", child.stderr);
    }

    #[test]
    fn log_tracer_alone_gives_records_their_true_origin() {
        let test = "both::log_tracer_alone_gives_records_their_true_origin";
        let mut line = 0;
        let line_in_child = line!() + 5;
        let child = child(test, &[], |router| {
            let _guard = stack(router);
            tracing_log::LogTracer::init().expect("the first");
            let _span = tracing::info_span!("request", id = 7).entered();
            log::warn!(target: "shop::till", "a record");
            log::info!("another");
            line = 1;
        });
        let Some(child) = child else { return };
        assert_eq!(line, 0, "only the child logs");
        assert!(child.status.success(), "{}\n{}", child.stdout, child.stderr);
        assert_eq!(payloads(&child.messages), ["a record", "another"]);
        let message = &child.messages[0];
        let fields = message["fields"].as_object().expect("an object");
        assert_eq!((&message["type"], &message["severity"]), (&json!("oldstyle"), &json!(4)));
        assert_eq!((&fields["target"], &fields["module"]), (&json!("shop::till"), &json!("logger::both")));
        assert_eq!((&fields["file"], &fields["line"]), (&json!(file!()), &json!(line_in_child)));
        assert_eq!(fields["id"], 7);
        assert!(fields.keys().all(|key| !key.starts_with("log.")), "{fields:?}");
        assert_eq!(child.messages[1]["fields"]["target"], "logger::both");
    }
}
