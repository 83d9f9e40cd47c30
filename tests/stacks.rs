//! The layer in every kind of stack, beside other layers, under other filters.
#![cfg(feature = "tracing")]

mod support;

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{json, Value};
use tracing::subscriber::with_default;
use tracing::{debug, info, info_span, warn};
use tracing_metlog::MetlogLayer;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::{fmt, registry, reload, EnvFilter, Registry};

use support::{bare, payloads, plain, with_payload, Pipe};

fn spanned() {
    let _span = info_span!("span", a = 1).entered();
    info!(b = 2, "text");
}

fn assert_spanned(pipe: Pipe) {
    let messages = pipe.finish().messages;
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert_eq!((&messages[0]["payload"], &messages[0]["fields"]), (&json!("text"), &json!({"a": 1, "b": 2})));
}

#[test]
fn the_layer_works_in_an_option_a_box_and_a_list() {
    let (layer, pipe) = Pipe::layer(bare);
    with_default(registry().with(Some(layer)), spanned);
    assert_spanned(pipe);

    let (layer, pipe) = Pipe::layer(bare);
    with_default(registry().with(Some(layer)).with(None::<MetlogLayer>), spanned);
    assert_spanned(pipe);

    let (layer, pipe) = Pipe::layer(bare);
    let boxed: Box<dyn Layer<Registry> + Send + Sync> = Box::new(layer);
    with_default(registry().with(boxed), spanned);
    assert_spanned(pipe);

    let (first, first_pipe) = Pipe::layer(bare);
    let (second, second_pipe) = Pipe::layer(bare);
    with_default(registry().with(vec![first.boxed(), second.boxed()]), spanned);
    assert_spanned(first_pipe);
    assert_spanned(second_pipe);
}

#[test]
fn a_layer_swapped_by_reload_gets_what_comes_after_and_the_old_one_what_came_before() {
    let (first, first_pipe) = Pipe::layer(plain);
    let (second, second_pipe) = Pipe::layer(plain);
    let (layer, handle) = reload::Layer::new(first);
    with_default(registry().with(layer), || {
        let _outer = info_span!("outer", a = 1).entered();
        info!("to the first");
        handle.reload(second).expect("swapped");
        info!("to the second");
        let _inner = info_span!("inner", b = 2).entered();
        info!("in a new span");
    });
    let messages = first_pipe.finish().messages;
    assert_eq!(payloads(&messages), ["to the first"]);
    assert_eq!(messages[0]["fields"]["a"], 1);
    let messages = second_pipe.finish().messages;
    assert_eq!(messages.len(), 3, "two lines and a timer: {messages:?}");
    assert_eq!(with_payload(&messages, "to the second")["fields"].get("a"), None);
    assert_eq!(with_payload(&messages, "in a new span")["fields"]["spans"], "inner");
    assert_eq!(messages[2]["fields"]["name"], "inner");
}

#[test]
fn two_layers_in_one_stack_each_keep_their_settings() {
    let (first, first_pipe) = Pipe::layer(|builder| bare(builder).logger("first"));
    let (second, second_pipe) = Pipe::layer(|builder| {
        bare(builder).logger("second").span_context(tracing_metlog::SpanContext::Nested).spans(true)
    });
    with_default(registry().with(first).with(second), || {
        let outer = info_span!("outer", a = 1);
        let _inner = info_span!(parent: &outer, "inner", b = 2).entered();
        outer.record("a", 3);
        info!("text");
    });
    let messages = first_pipe.finish().messages;
    assert_eq!(messages[0]["logger"], "first");
    assert_eq!(messages[0]["fields"], json!({"a": 3, "b": 2}));
    let messages = second_pipe.finish().messages;
    assert_eq!(messages[0]["logger"], "second");
    assert_eq!(messages[0]["fields"], json!({"context": {"a": 3, "b": 2}, "spans": "outer:inner"}));
}

#[test]
fn each_layer_has_its_own_filter_for_events_and_spans() {
    let (quiet, quiet_pipe) = Pipe::layer(|builder| bare(builder).spans(true));
    let (loud, loud_pipe) = Pipe::layer(|builder| bare(builder).spans(true));
    let subscriber = registry()
        .with(quiet.with_filter(EnvFilter::new("warn,stacks::shop=info")))
        .with(loud.with_filter(EnvFilter::new("trace")));
    with_default(subscriber, || {
        let _seen_by_one = info_span!("hidden", a = 1).entered();
        let _seen_by_both = info_span!(target: "stacks::shop", "shop", b = 2).entered();
        warn!("warn");
        info!("info");
        info!(target: "stacks::shop::till", "till");
        debug!(target: "stacks::shop", "debug");
    });
    let messages = quiet_pipe.finish().messages;
    assert_eq!(payloads(&messages), ["warn", "till"]);
    assert!(messages.iter().all(|message| message["fields"] == json!({"b": 2, "spans": "shop"})));
    let messages = loud_pipe.finish().messages;
    assert_eq!(payloads(&messages), ["warn", "info", "till", "debug"]);
    let fields = json!({"a": 1, "b": 2, "spans": "hidden:shop"});
    assert!(messages.iter().all(|message| message["fields"] == fields));
}

#[test]
fn a_filter_in_front_of_the_stack_rules_the_layer_too() {
    let (layer, pipe) = Pipe::layer(bare);
    let filter = EnvFilter::new("warn,[request{id=7}]=debug");
    with_default(registry().with(filter).with(layer), || {
        info!("filtered out");
        warn!("warned");
        let _request = info_span!("request", id = 7).entered();
        debug!("in the request");
    });
    let messages = pipe.finish().messages;
    assert_eq!(payloads(&messages), ["warned", "in the request"]);
    assert_eq!(messages[1]["fields"], json!({"id": 7}));
}

/// What a `fmt` layer writes.
#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Text {
    fn lines(&self) -> Vec<Value> {
        let bytes = self.0.lock().expect("no panic").clone();
        let text = String::from_utf8(bytes).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn messages(&self) -> Vec<Value> {
        self.lines().iter().map(|line| line["fields"]["message"].clone()).collect()
    }
}

impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A `fmt` layer and what it writes, as JSON so that it can be read.
fn formatter<S>() -> (impl Layer<S>, Text)
where
    S: tracing::Subscriber + for<'a> registry::LookupSpan<'a>,
{
    let text = Text::default();
    let writer = text.clone();
    (fmt::layer().json().with_writer(move || writer.clone()), text)
}

#[test]
fn beside_a_fmt_layer_both_get_everything_in_either_order() {
    let (layer, pipe) = Pipe::layer(bare);
    let (format, text) = formatter();
    with_default(registry().with(layer).with(format), spanned);
    assert_spanned(pipe);
    assert_eq!(text.lines()[0]["span"], json!({"a": 1, "name": "span"}));

    let (layer, pipe) = Pipe::layer(bare);
    let (format, text) = formatter();
    with_default(registry().with(format).with(layer), spanned);
    assert_spanned(pipe);
    assert_eq!(text.lines()[0]["span"], json!({"a": 1, "name": "span"}));
}

#[test]
fn the_builder_s_filter_rules_its_layer_and_no_other() {
    let (filtered, filtered_pipe) = Pipe::layer(|builder| bare(builder).filter("warn,stacks::shop=info"));
    let (whole, whole_pipe) = Pipe::layer(bare);
    let (format, text) = formatter();
    with_default(registry().with(filtered).with(whole).with(format), || {
        for round in 0..2 {
            let _span = info_span!("hidden", a = 1).entered();
            let _shop = info_span!(target: "stacks::shop", "shop", b = 2).entered();
            info!(round, "info");
            warn!(round, "warn");
            info!(target: "stacks::shop", round, "shop");
        }
    });
    let all = ["info", "warn", "shop", "info", "warn", "shop"];
    assert_eq!(text.messages(), all);
    assert_eq!(payloads(&whole_pipe.finish().messages), all);
    let messages = filtered_pipe.finish().messages;
    assert_eq!(payloads(&messages), ["warn", "shop", "warn", "shop"]);
    assert_eq!(messages[0]["fields"], json!({"b": 2, "round": 0}), "a span it hides is no context");
}

#[test]
fn a_builder_s_filter_with_spans_is_refused_with_advice() {
    let builder = Pipe::builder(|builder| builder.filter("info,[request]=debug")).0;
    let error = builder.build().map(drop).expect_err("refused").to_string();
    assert!(
        error.contains("Builder::filter") && error.contains("[request]") && error.contains("EnvFilter"),
        "{error}"
    );
}

#[test]
fn nested_subscribers_each_have_their_own_layer_and_spans() {
    let (outer, outer_pipe) = Pipe::layer(bare);
    let (inner, inner_pipe) = Pipe::layer(bare);
    with_default(registry().with(outer), || {
        let _a = info_span!("a", a = 1).entered();
        info!("outer");
        with_default(registry().with(inner), || {
            info!("inner, in no span");
            let _b = info_span!("b", b = 2).entered();
            info!("inner");
        });
        info!("outer again");
    });
    let messages = outer_pipe.finish().messages;
    assert_eq!(payloads(&messages), ["outer", "outer again"]);
    assert!(messages.iter().all(|message| message["fields"] == json!({"a": 1})));
    let messages = inner_pipe.finish().messages;
    assert_eq!(payloads(&messages), ["inner, in no span", "inner"]);
    assert_eq!((&messages[0]["fields"], &messages[1]["fields"]), (&json!({}), &json!({"b": 2})));
}

#[test]
fn a_layer_whose_router_is_off_costs_the_stack_nothing() {
    let (layer, guard) = tracing_metlog::builder().router("off").build().expect("builds");
    let (format, text) = formatter();
    with_default(registry().with(layer).with(format), spanned);
    assert_eq!(text.messages(), ["text"]);
    assert_eq!(guard.finish().emitted, 0);
}
