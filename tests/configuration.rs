//! Where configuration comes from: code before environment before default, and what a bad value is told.
//!
//! The environment belongs to the whole process, so everything here happens in children.
#![cfg(all(unix, feature = "tracing", feature = "log"))]

mod process_support;

use std::process::Command;
use std::time::Duration;

use process_support::child::{self, Ended};
use process_support::oracle::{assert_balanced, send};
use process_support::receiver::Receiver;
use process_support::{closed_port, lines_of, timed, Directory};
use serde_json::Value;
use tracing_metlog::variables;

/// What the children of this file do; nothing when it is run as a test.
#[test]
fn child() {
    let Some(mode) = child::mode() else { return };
    let builder = tracing_metlog::builder();
    match mode.as_str() {
        "init" => work(builder.init()),
        "code" => {
            let builder = builder.router(child::router()).logger("from code").hostname("code.example");
            let builder = builder.filter("warn").flush_timeout(Duration::from_millis(200));
            let builder = builder.queue_bytes(1 << 20).disabled_timers(["coded"]);
            let builder = builder.when_full(tracing_metlog::WhenFull::DropNewest);
            #[cfg(feature = "console")]
            let builder = builder.console(false);
            work(builder.init());
        }
        "build" => {
            use tracing_subscriber::layer::SubscriberExt;
            let (layer, guard) = builder.build().expect("builds");
            let stack = tracing_subscriber::registry().with(layer);
            tracing::subscriber::set_global_default(stack).expect("the only one");
            work(guard);
        }
        "try" => match builder.try_init() {
            Ok(guard) => drop((guard, child::say("built", ""))),
            Err(error) => child::say("error", error),
        },
        "panic" => drop(tracing_metlog::init()),
        "fill" => fill(builder.build().expect("builds").1),
        "fill from code" => {
            let patience = tracing_metlog::WhenFull::BlockFor(Duration::from_millis(300));
            let builder = builder.queue_bytes(1).when_full(patience).flush_timeout(Duration::ZERO);
            fill(builder.build().expect("builds").1);
        }
        other => panic!("mode {other}"),
    }
}

/// Something of every level and kind.
fn work(guard: tracing_metlog::Guard) {
    {
        let _spans = (tracing::info_span!("coded").entered(), tracing::info_span!("named").entered());
        tracing::error!("error event");
        tracing::info!("info event");
        tracing::debug!("debug event");
        log::warn!("warn record");
        log::debug!("debug record");
    }
    guard.client().timer_send("named", Duration::from_millis(1));
    let stats = guard.finish();
    assert_balanced(&stats);
    child::say("stats", &stats);
    child::say("destinations", stats.destinations.len());
}

/// Sends more than a small queue holds to a router that is down, and says how it went.
fn fill(guard: tracing_metlog::Guard) {
    let (took, ()) = timed(|| {
        let mut n = 0;
        while n < 100_000 && guard.stats().lost.total() == 0 {
            send(&guard.client(), 0, n);
            n += 1;
        }
        child::say("taken", n);
    });
    child::say("filled", took.as_millis());
    let (took, ()) = timed(|| send(&guard.client(), 0, 0));
    child::say("waited", took.as_millis());
    let (took, stats) = timed(|| guard.finish());
    assert_balanced(&stats);
    child::say("ended", took.as_millis());
}

/// A child with these variables.
fn with(mode: &str, router: &str, variables: &[(&str, &str)]) -> Ended {
    let mut command: Command = child::command("child", mode, router);
    command.envs(variables.iter().copied());
    child::run(command)
}

/// What `work` sent to a receiver with these variables; `METLOG_ROUTER` is added.
fn sent(mode: &str, variables: &[(&str, &str)]) -> Vec<Value> {
    let receiver = Receiver::tcp();
    let router = (variables::ROUTER, receiver.address.as_str());
    let ended = with(mode, &receiver.address, &[&[router], variables].concat());
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    let lines = receiver.close_at_end();
    lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn payloads(messages: &[Value]) -> Vec<&str> {
    let texts = messages.iter().filter(|message| message["type"] == "oldstyle");
    texts.map(|message| message["payload"].as_str().expect("text")).collect()
}

fn timers(messages: &[Value]) -> Vec<&str> {
    let timers = messages.iter().filter(|message| message["type"] == "timer");
    timers.map(|message| message["fields"]["name"].as_str().expect("text")).collect()
}

const INFO: [&str; 3] = ["error event", "info event", "warn record"];
const ALL: [&str; 5] = ["error event", "info event", "debug event", "warn record", "debug record"];

#[test]
fn metlog_router_says_where_messages_go() {
    let messages = sent("init", &[]);
    assert_eq!(payloads(&messages), INFO, "info is the default");
    assert_eq!(timers(&messages), ["named", "coded", "named"]);
    let program = std::env::current_exe().expect("known");
    let program = program.file_stem().expect("named").to_string_lossy().into_owned();
    for message in &messages {
        assert_eq!(message["logger"], program, "the program's name is the default");
        assert!(message["metlog_hostname"].as_str().is_some_and(|name| !name.is_empty()));
    }
}

#[test]
fn metlog_router_may_name_several() {
    let directory = Directory::new();
    let path = directory.file("log");
    let [tcp, udp] = [Receiver::tcp(), Receiver::udp()];
    let routers = format!(" {}, file://{} ,{}", tcp.address, path.display(), udp.address);
    let ended = with("init", "", &[(variables::ROUTER, &routers)]);
    assert_eq!(ended.said("destinations"), "3");
    for lines in [udp.wait_for(6), tcp.close_at_end(), lines_of(&path)] {
        assert_eq!(lines.len(), 6);
    }
}

#[test]
fn metlog_router_off_switches_everything_off() {
    let ended = with("init", "", &[(variables::ROUTER, "off")]);
    assert_eq!(ended.said("stats"), "emitted 0 = delivered 0 + lost 0 + pending 0");
}

#[test]
fn metlog_logger_and_metlog_hostname_are_in_every_message() {
    for message in sent("init", &[(variables::LOGGER, "shop"), (variables::HOSTNAME, "web1.example")]) {
        assert_eq!(
            (&message["logger"], &message["metlog_hostname"]),
            (&"shop".into(), &"web1.example".into())
        );
    }
}

#[test]
fn metlog_filter_comes_before_rust_log_and_rust_log_before_info() {
    let (filter, rust_log) = (variables::FILTER, variables::RUST_LOG);
    assert_eq!(payloads(&sent("init", &[(rust_log, "debug")])), ALL);
    assert_eq!(payloads(&sent("init", &[(filter, "error"), (rust_log, "debug")])), ["error event"]);
    assert_eq!(payloads(&sent("init", &[(filter, "debug"), (rust_log, "error")])), ALL);
    assert_eq!(payloads(&sent("init", &[(filter, ""), (rust_log, "error")])), ["error event"]);
}

#[test]
fn a_layer_in_a_stack_of_ones_own_asks_metlog_filter_and_not_rust_log() {
    let (filter, rust_log) = (variables::FILTER, variables::RUST_LOG);
    let events = ["error event", "info event", "debug event"];
    assert_eq!(payloads(&sent("build", &[(rust_log, "error")])), events);
    assert_eq!(payloads(&sent("build", &[(filter, "error")])), ["error event"]);
}

#[test]
fn metlog_disabled_timers_names_timers_and_spans() {
    assert_eq!(timers(&sent("init", &[(variables::DISABLED_TIMERS, "other, named")])), ["coded"]);
    assert_eq!(timers(&sent("init", &[(variables::DISABLED_TIMERS, "*")])), [] as [&str; 0]);
}

#[cfg(feature = "console")]
#[test]
fn metlog_console_shows_everything_on_stderr_too() {
    let receiver = Receiver::tcp();
    let router = (variables::ROUTER, receiver.address.as_str());
    for (value, shown) in [("true", true), ("TRUE", true), ("false", false), ("", false)] {
        let ended = with("init", "", &[router, (variables::CONSOLE, value)]);
        for text in INFO {
            assert_eq!(ended.stderr.contains(text), shown, "{value:?}: {ended:#?}");
        }
        assert!(!ended.stderr.contains("debug event"));
    }
}

#[test]
fn what_code_sets_comes_before_the_environment() {
    let elsewhere = format!("tcp://127.0.0.1:{}", closed_port());
    let messages = sent(
        "code",
        &[
            (variables::ROUTER, &elsewhere),
            (variables::LOGGER, "from environment"),
            (variables::HOSTNAME, "environment.example"),
            (variables::FILTER, "debug"),
            (variables::DISABLED_TIMERS, "named"),
            (variables::CONSOLE, "true"),
            (variables::QUEUE_BYTES, "nonsense"),
            (variables::WHEN_FULL, "nonsense"),
            (variables::FLUSH_TIMEOUT, "nonsense"),
        ],
    );
    assert_eq!(payloads(&messages), ["error event", "warn record"]);
    assert_eq!(
        timers(&messages),
        ["named"],
        "the filter leaves out the spans, and the code the timer `coded`"
    );
    for message in &messages {
        assert_eq!(
            (&message["logger"], &message["metlog_hostname"]),
            (&"from code".into(), &"code.example".into())
        );
    }
}

#[test]
fn empty_variables_are_as_if_they_were_not_there() {
    let empty = [
        variables::LOGGER,
        variables::HOSTNAME,
        variables::FILTER,
        variables::RUST_LOG,
        variables::WHEN_FULL,
        variables::QUEUE_BYTES,
        variables::FLUSH_TIMEOUT,
        variables::DISABLED_TIMERS,
        variables::CONSOLE,
    ];
    for value in ["", "  "] {
        let messages = sent("init", &empty.map(|name| (name, value)));
        assert_eq!(payloads(&messages), INFO);
        assert_eq!(timers(&messages), ["named", "coded", "named"]);
    }
    let ended = with("init", "", &[(variables::ROUTER, "")]);
    assert_eq!(ended.said("destinations"), "1", "the default router");
}

#[test]
fn a_bad_value_is_told_with_the_variable_the_value_and_what_is_accepted() {
    let expected = [
        (variables::ROUTER, "carrier-pigeon://roof", "udp://host:port, tcp://host:port"),
        (variables::ROUTER, "tcp://127.0.0.1:1,nowhere", "unix:///path"),
        (variables::WHEN_FULL, "wait", "drop-newest, drop-oldest, block or block:MILLISECONDS"),
        (variables::WHEN_FULL, "block:soon", "block:MILLISECONDS"),
        (variables::QUEUE_BYTES, "8MB", "a number of bytes"),
        (variables::QUEUE_BYTES, "-1", "a number of bytes"),
        (variables::FLUSH_TIMEOUT, "5s", "a number of milliseconds"),
        (variables::FILTER, "shop=loud", "directives like"),
        (variables::RUST_LOG, "shop=loud", "directives like"),
        #[cfg(feature = "console")]
        (variables::CONSOLE, "maybe", "true or false"),
    ];
    for (name, value, accepted) in expected {
        let ended = with("try", "", &[(name, value)]);
        let error = ended.said("error");
        let bad = value.rsplit(',').next().expect("a part");
        assert!(error.contains(name) && error.contains(bad) && error.contains(accepted), "{error}");
    }
}

#[test]
fn init_panics_with_the_text_of_the_error() {
    let ended = with("panic", "", &[(variables::WHEN_FULL, "wait")]);
    assert_eq!(ended.status.code(), Some(101));
    assert!(ended.stderr.contains("METLOG_WHEN_FULL=\"wait\": drop-newest"), "{ended:#?}");
}

/// How long one call waited when the queue was full, how many it held, and how long the end took.
fn filled(variables: &[(&str, &str)]) -> [u64; 3] {
    filled_by("fill", variables)
}

fn filled_by(mode: &str, variables: &[(&str, &str)]) -> [u64; 3] {
    let router = format!("tcp://127.0.0.1:{}", closed_port());
    let ended = with(mode, "", &[&[(variables::ROUTER, router.as_str())], variables].concat());
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    ["waited", "taken", "ended"].map(|key| ended.said(key).parse().expect("a number"))
}

#[test]
fn metlog_queue_bytes_is_how_much_is_held() {
    let [_, few, _] = filled(&[(variables::QUEUE_BYTES, "1")]);
    let [_, more, _] = filled(&[(variables::QUEUE_BYTES, "2000000")]);
    assert!(few < 10_000 && more > few * 2, "{few} and {more}");
}

#[test]
fn metlog_when_full_says_whether_to_wait() {
    let queue = (variables::QUEUE_BYTES, "1");
    let [waited, ..] = filled(&[queue, (variables::WHEN_FULL, "block:300")]);
    assert!((300..3_000).contains(&waited), "{waited}");
    let [waited, ..] = filled(&[queue, (variables::WHEN_FULL, "drop-newest")]);
    assert!(waited < 300, "{waited}");
    let [waited, ..] = filled(&[queue, (variables::WHEN_FULL, "drop-oldest")]);
    assert!(waited < 300, "{waited}");
}

#[test]
fn metlog_flush_timeout_ms_bounds_the_end() {
    let [.., ended] = filled(&[(variables::QUEUE_BYTES, "1"), (variables::FLUSH_TIMEOUT, "0")]);
    assert!(ended < 300, "{ended}");
}

#[test]
fn the_queue_that_code_sets_is_the_one_that_is_used_whatever_the_environment_says() {
    let environment = [
        (variables::QUEUE_BYTES, "2000000"),
        (variables::WHEN_FULL, "drop-newest"),
        (variables::FLUSH_TIMEOUT, "60000"),
    ];
    let [_, more, _] = filled(&[environment[0]]);
    let [waited, few, ended] = filled_by("fill from code", &environment);
    assert!(few * 2 < more, "{few} and {more}");
    assert!((300..3_000).contains(&waited), "{waited}");
    assert!(ended < 300, "{ended}");
}

/// The first value has no memory on any machine, the second cannot even be counted in.
#[test]
fn a_queue_larger_than_memory_is_an_error_and_no_crash() {
    for value in ["18446744073709551615", "18446744073709551616"] {
        let ended =
            with("try", "", &[(variables::ROUTER, "udp://127.0.0.1:9"), (variables::QUEUE_BYTES, value)]);
        let error = ended.said("error");
        assert!(error.contains(variables::QUEUE_BYTES) && error.contains(value), "{error}");
    }
    let built = tracing_metlog::builder().router("udp://127.0.0.1:9").queue_bytes(usize::MAX).build_client();
    let error = built.expect_err("more than there is").to_string();
    assert!(error.contains("Builder::queue_bytes") && error.contains(&usize::MAX.to_string()), "{error}");
}

#[test]
fn building_with_a_router_that_is_down_takes_no_time_and_is_no_error() {
    // `.invalid` is reserved for names that do not exist.
    let routers = [
        format!("tcp://127.0.0.1:{}", closed_port()),
        String::from("tcp://router.invalid"),
        String::from("unix:///nowhere/router"),
        String::from("file:///nowhere/log"),
    ];
    for router in routers {
        let (took, built) = timed(|| {
            tracing_metlog::builder().router(&router).flush_timeout(Duration::ZERO).build().expect("no error")
        });
        assert!(took < Duration::from_millis(500), "{router}: {took:?}");
        drop(built);
    }
}
