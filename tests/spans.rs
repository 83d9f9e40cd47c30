//! What spans give to the messages made in them, and the timers they become themselves.
#![cfg(feature = "tracing")]

mod support;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{json, Value};
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing::{debug_span, info, info_span, Instrument, Span};
use tracing_metlog::{Builder, SpanContext, WhenFull};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer, SubscriberExt};

use support::{bare, number, of_type, outcome, payloads, plain, traced, with_payload, Pipe};

/// An event in two spans, in one shape of context.
fn shaped(configure: impl FnOnce(Builder) -> Builder) -> Value {
    let messages = traced(
        |builder| configure(bare(builder)),
        || {
            let _outer = info_span!("outer", a = "outer", b = "outer", c = "outer").entered();
            let _inner = info_span!("inner", b = "inner", c = "inner", n = 1).entered();
            info!(c = "event", own = true, "text");
        },
    );
    messages[0]["fields"].clone()
}

#[test]
fn the_context_is_flat_and_inner_wins_over_outer_and_the_event_over_both() {
    assert_eq!(shaped(plain), json!({"a": "outer", "b": "inner", "c": "event", "n": 1, "own": true}));
}

#[test]
fn a_nested_context_is_one_object_in_which_inner_wins() {
    let expected = json!({
        "c": "event", "own": true, "context": {"a": "outer", "b": "inner", "c": "inner", "n": 1}
    });
    assert_eq!(shaped(|builder| builder.span_context(SpanContext::Nested)), expected);
}

#[test]
fn a_list_context_has_every_span_the_outermost_first() {
    let expected = json!({
        "c": "event", "own": true, "context": [
            {"name": "outer", "fields": {"a": "outer", "b": "outer", "c": "outer"}},
            {"name": "inner", "fields": {"b": "inner", "c": "inner", "n": 1}},
        ]
    });
    assert_eq!(shaped(|builder| builder.span_context(SpanContext::List)), expected);
}

#[test]
fn no_context_leaves_the_fields_of_spans_out() {
    assert_eq!(shaped(|builder| builder.span_context(SpanContext::None)), json!({"c": "event", "own": true}));
}

#[test]
fn an_allow_list_keeps_only_its_keys_of_spans_and_all_of_the_event_in_every_shape() {
    let keys = |builder: Builder| builder.span_keys(["a", "n"]);
    assert_eq!(shaped(keys), json!({"a": "outer", "n": 1, "c": "event", "own": true}));
    assert_eq!(
        shaped(|builder| keys(builder).span_context(SpanContext::Nested)),
        json!({"context": {"a": "outer", "n": 1}, "c": "event", "own": true})
    );
    assert_eq!(
        shaped(|builder| keys(builder).span_context(SpanContext::List)),
        json!({"c": "event", "own": true, "context": [
            {"name": "outer", "fields": {"a": "outer"}}, {"name": "inner", "fields": {"n": 1}}
        ]})
    );
}

#[test]
fn a_field_called_context_is_not_overwritten_by_the_context() {
    for shape in [SpanContext::Nested, SpanContext::List] {
        let messages = traced(
            |builder| bare(builder).span_context(shape),
            || {
                let _span = info_span!("span", a = 1).entered();
                info!(context = "own", "text");
            },
        );
        assert_eq!(messages[0]["fields"], json!({"context": "own"}));
    }
}

#[test]
fn an_event_is_in_the_span_it_names_and_not_in_the_one_it_is_made_in() {
    let messages = traced(
        |builder| bare(builder).spans(true),
        || {
            let named = info_span!("named", a = 1);
            let _current = info_span!("current", b = 2).entered();
            info!(parent: &named, "named");
            info!(parent: named.id(), "by id");
            info!(parent: None, "none");
            info!("current");
        },
    );
    assert_eq!(with_payload(&messages, "named")["fields"], json!({"a": 1, "spans": "named"}));
    assert_eq!(with_payload(&messages, "by id")["fields"], json!({"a": 1, "spans": "named"}));
    assert_eq!(with_payload(&messages, "none")["fields"], json!({}));
    assert_eq!(with_payload(&messages, "current")["fields"], json!({"b": 2, "spans": "current"}));
}

#[test]
fn a_span_is_in_the_span_it_names_and_not_in_the_one_it_is_made_in() {
    let messages = traced(
        |builder| bare(builder).spans(true),
        || {
            let parent = info_span!("parent", a = 1);
            let _current = info_span!("current", b = 2).entered();
            info_span!(parent: &parent, "child", c = 3).in_scope(|| info!("child"));
            info_span!(parent: None, "root", d = 4).in_scope(|| info!("root"));
            info_span!("contextual", e = 5).in_scope(|| info!("contextual"));
        },
    );
    assert_eq!(with_payload(&messages, "child")["fields"], json!({"a": 1, "c": 3, "spans": "parent:child"}));
    assert_eq!(with_payload(&messages, "root")["fields"], json!({"d": 4, "spans": "root"}));
    let contextual = json!({"b": 2, "e": 5, "spans": "current:contextual"});
    assert_eq!(with_payload(&messages, "contextual")["fields"], contextual);
}

#[test]
fn a_span_that_is_none_is_no_context() {
    let messages = traced(plain, || {
        let _none = Span::none().entered();
        info!("in none");
        let none = Span::none();
        info!(parent: &none, "named none");
        info_span!(parent: &none, "child", a = 1).in_scope(|| info!("in a child of none"));
    });
    assert!(with_payload(&messages, "in none")["fields"].get("span").is_none());
    assert!(with_payload(&messages, "named none")["fields"].get("span").is_none());
    assert_eq!(with_payload(&messages, "in a child of none")["fields"]["spans"], "child");
    assert_eq!(of_type(&messages, "timer").len(), 1, "the span that is none is not timed");
}

#[test]
fn a_value_recorded_later_counts_from_then_on() {
    let messages = traced(bare, || {
        let span = info_span!("span", empty = Empty, changed = "before", kept = 1);
        let _entered = span.enter();
        info!("before");
        span.record("empty", 7_u64).record("changed", "after");
        info!("after");
        span.record("empty", true);
        info!("again");
        span.record("no such field", 1);
        info!("unknown");
    });
    let fields: Vec<_> = messages.iter().map(|message| message["fields"].clone()).collect();
    assert_eq!(fields[0], json!({"changed": "before", "kept": 1}));
    assert_eq!(fields[1], json!({"empty": 7, "changed": "after", "kept": 1}));
    assert_eq!(fields[2], json!({"empty": true, "changed": "after", "kept": 1}));
    assert_eq!(fields[3], fields[2]);
}

#[test]
fn a_value_an_outer_span_records_reaches_children_that_exist_already() {
    let messages = traced(bare, || {
        let outer = info_span!("outer", user = Empty);
        let middle = info_span!(parent: &outer, "middle", m = 1);
        let inner = info_span!(parent: &middle, "inner", own = Empty);
        inner.in_scope(|| info!("before"));
        outer.record("user", "amy");
        inner.in_scope(|| info!("after"));
        inner.record("own", 2);
        outer.record("user", "bob");
        middle.record("m", 3);
        inner.in_scope(|| info!("again"));
        info_span!(parent: &inner, "new").in_scope(|| info!("in a new child"));
    });
    assert_eq!(with_payload(&messages, "before")["fields"], json!({"m": 1}));
    assert_eq!(with_payload(&messages, "after")["fields"], json!({"m": 1, "user": "amy"}));
    let again = json!({"m": 3, "user": "bob", "own": 2});
    assert_eq!(with_payload(&messages, "again")["fields"], again);
    assert_eq!(with_payload(&messages, "in a new child")["fields"], again);
}

#[test]
fn a_timer_has_what_was_recorded_until_the_span_closed() {
    let messages = traced(plain, || {
        let outer = info_span!("outer", status = Empty);
        let inner = info_span!(parent: &outer, "inner", rows = Empty);
        outer.record("status", 200);
        inner.record("rows", 12);
        drop(inner);
        outer.record("status", 500);
    });
    let [inner, outer] = [&messages[0]["fields"], &messages[1]["fields"]];
    assert_eq!(
        (&inner["name"], &inner["rows"], &inner["status"]),
        (&json!("inner"), &json!(12), &json!(200))
    );
    assert_eq!((&outer["name"], &outer["status"]), (&json!("outer"), &json!(500)));
}

#[test]
fn a_value_recorded_by_another_thread_counts_for_a_thread_inside_the_span() {
    let messages = traced(bare, || {
        let span = info_span!("span", by_other = Empty);
        let _entered = span.enter();
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                tracing::dispatcher::with_default(&dispatch, || span.record("by_other", "yes"));
            });
            other.join().expect("ends");
        });
        info!("text");
    });
    assert_eq!(messages[0]["fields"], json!({"by_other": "yes"}));
}

#[test]
fn values_recorded_while_other_threads_log_are_never_seen_half() {
    const ROUNDS: u64 = 2_000;
    let messages = traced(bare, || {
        let outer = info_span!("outer", value = 0_u64);
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let start = Barrier::new(4);
        thread::scope(|scope| {
            for thread in 0..3_u64 {
                let (dispatch, outer, start) = (&dispatch, &outer, &start);
                scope.spawn(move || {
                    tracing::dispatcher::with_default(dispatch, || {
                        let _inner = info_span!(parent: outer, "inner", thread).entered();
                        start.wait();
                        (0..ROUNDS).for_each(|n| info!(n));
                    });
                });
            }
            start.wait();
            for value in 1..=ROUNDS {
                outer.record("value", value);
            }
        });
        info!(parent: &outer, "end");
    });
    let mut newest: HashMap<u64, u64> = HashMap::new();
    for message in messages.iter().filter(|message| message["payload"] == "") {
        let fields = &message["fields"];
        let (thread, value) = (fields["thread"].as_u64(), fields["value"].as_u64());
        let newest = newest.entry(thread.expect("its own")).or_default();
        let value = value.expect("the outer span's");
        assert!(*newest <= value && value <= ROUNDS, "a thread sees values in their order");
        *newest = value;
    }
    assert_eq!(messages.len() as u64, 3 * ROUNDS + 1);
    assert_eq!(with_payload(&messages, "end")["fields"]["value"], ROUNDS);
}

#[test]
fn a_span_carried_to_another_thread_is_the_context_there_and_only_while_it_is_entered() {
    let messages = traced(
        |builder| bare(builder).spans(true),
        || {
            let outer = info_span!("outer", a = 1).entered();
            let carried = info_span!("carried", b = 2);
            drop(outer);
            let dispatch = tracing::dispatcher::get_default(Clone::clone);
            thread::spawn(move || {
                tracing::dispatcher::with_default(&dispatch, || {
                    info!("outside");
                    carried.in_scope(|| info!("inside"));
                    info!("outside again");
                    drop(carried);
                });
            })
            .join()
            .expect("ends");
        },
    );
    assert_eq!(with_payload(&messages, "outside")["fields"], json!({}));
    assert_eq!(
        with_payload(&messages, "inside")["fields"],
        json!({"a": 1, "b": 2, "spans": "outer:carried"})
    );
    assert_eq!(with_payload(&messages, "outside again")["fields"], json!({}));
}

#[test]
fn a_span_closed_in_another_thread_is_timed_once() {
    let messages = traced(plain, || {
        let span = info_span!("carried", b = 2);
        span.in_scope(|| ());
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let close = move || tracing::dispatcher::with_default(&dispatch, || drop(span));
        thread::Builder::new().name("closer".into()).spawn(close).expect("starts").join().expect("ends");
    });
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0]["fields"]["thread"], "closer");
    assert_eq!(messages[0]["fields"]["b"], 2);
}

/// Payload, `busy_ms` and `idle_ms` of a timer, whose sum must be right to the microsecond each is rounded to.
fn times(timer: &Value) -> (f64, f64, f64) {
    let fields = &timer["fields"];
    let (elapsed, busy, idle) =
        (number(&timer["payload"]), number(&fields["busy_ms"]), number(&fields["idle_ms"]));
    assert!((busy + idle - elapsed).abs() < 0.0021, "{busy} + {idle} = {elapsed}");
    (elapsed, busy, idle)
}

#[test]
fn a_closed_span_becomes_a_timer() {
    let before = Instant::now();
    let messages = traced(plain, || {
        let _outer = info_span!("outer", a = 1).entered();
        let _inner = info_span!("inner", b = 2).entered();
        thread::sleep(Duration::from_millis(20));
    });
    let most = before.elapsed().as_secs_f64() * 1_000.0;
    assert_eq!(
        messages.iter().map(|message| &message["fields"]["name"]).collect::<Vec<_>>(),
        ["inner", "outer"]
    );
    let timer = &messages[0];
    assert_eq!((&timer["type"], &timer["severity"]), (&json!("timer"), &json!(6)));
    let (elapsed, busy, _) = times(timer);
    assert!((20.0..most).contains(&elapsed) && busy >= 20.0);
    let fields = timer["fields"].as_object().expect("an object");
    assert!(fields["rate"].is_f64() && fields["rate"] == 1.0, "1.0, as metlog-py writes it");
    assert_eq!((&fields["a"], &fields["b"]), (&json!(1), &json!(2)));
    assert_eq!(fields["spans"], "outer:inner");
    assert_eq!(fields["span"], "inner");
    assert!(fields["busy_ms"].is_number() && fields["idle_ms"].is_number());
    assert_eq!(fields["target"], "spans");
    assert_eq!(fields["file"], file!());
}

#[test]
fn a_span_s_fields_cannot_take_the_names_a_timer_needs() {
    let messages = traced(plain, || {
        info_span!("true name", name = "evil", rate = 0.1, busy_ms = "evil", idle_ms = "evil", kept = 1);
    });
    let fields = &messages[0]["fields"];
    assert_eq!(
        (&fields["name"], &fields["rate"], &fields["kept"]),
        (&json!("true name"), &json!(1.0), &json!(1))
    );
    times(&messages[0]);
}

#[test]
fn a_timer_can_be_rounded_to_whole_milliseconds() {
    let messages = traced(
        |builder| builder.whole_milliseconds(true),
        || {
            let _span = info_span!("span").entered();
            thread::sleep(Duration::from_millis(3));
        },
    );
    let milliseconds: u64 = messages[0]["payload"].as_str().expect("text").parse().expect("whole");
    assert!(milliseconds >= 3);
}

#[test]
fn time_outside_of_a_span_is_idle_and_inside_it_is_busy() {
    let messages = traced(plain, || {
        let span = info_span!("span");
        thread::sleep(Duration::from_millis(15));
        span.in_scope(|| thread::sleep(Duration::from_millis(10)));
        thread::sleep(Duration::from_millis(15));
        span.in_scope(|| thread::sleep(Duration::from_millis(10)));
    });
    let (elapsed, busy, idle) = times(&messages[0]);
    assert!(busy >= 20.0 && idle >= 30.0, "{elapsed} = {busy} + {idle}");
}

#[test]
fn a_span_entered_twice_by_one_thread_is_busy_once() {
    let messages = traced(plain, || {
        let span = info_span!("span", a = 1);
        {
            let _outer = span.enter();
            {
                let _again = span.enter();
                thread::sleep(Duration::from_millis(30));
            }
            info!("still inside");
        }
        thread::sleep(Duration::from_millis(40));
    });
    assert_eq!(messages[0]["fields"]["a"], 1);
    let (_, busy, idle) = times(&messages[1]);
    assert!(busy >= 30.0 && idle >= 40.0, "busy {busy}, idle {idle}");
}

#[test]
fn two_threads_in_one_span_at_once_count_the_time_once() {
    let messages = traced(plain, || {
        let span = info_span!("shared", a = 1);
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let both = Barrier::new(2);
        let work = || {
            tracing::dispatcher::with_default(&dispatch, || {
                let _entered = span.enter();
                both.wait();
                thread::sleep(Duration::from_millis(20));
                info!("inside");
                both.wait();
            });
        };
        thread::scope(|scope| {
            scope.spawn(work);
            scope.spawn(work);
        });
        thread::sleep(Duration::from_millis(30));
    });
    assert!(messages[..2].iter().all(|message| message["fields"]["a"] == 1));
    let timers = of_type(&messages, "timer");
    assert_eq!(timers.len(), 1);
    let (_, busy, idle) = times(&timers[0]);
    assert!(busy >= 20.0 && idle >= 30.0, "busy {busy}, idle {idle}");
}

/// Polls a future to its end on this thread; `between` runs after each time it was not ready.
fn block_on<F: Future>(future: F, mut between: impl FnMut()) -> F::Output {
    struct Nothing;
    impl Wake for Nothing {
        fn wake(self: Arc<Self>) {}
    }
    let waker = Waker::from(Arc::new(Nothing));
    let mut future = Box::pin(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        between();
    }
}

/// Not ready for so many times.
struct Later(u32);

impl Future for Later {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        match self.0 {
            0 => Poll::Ready(()),
            _ => {
                self.0 -= 1;
                Poll::Pending
            }
        }
    }
}

#[test]
fn an_instrumented_future_is_idle_while_nobody_polls_it_and_is_no_context_then() {
    let messages = traced(plain, || {
        let work = async {
            info!("first");
            thread::sleep(Duration::from_millis(10));
            Later(1).await;
            thread::sleep(Duration::from_millis(10));
            info!("second");
        };
        block_on(work.instrument(info_span!("request", id = 7)), || {
            info!("between");
            thread::sleep(Duration::from_millis(30));
        });
    });
    assert_eq!(with_payload(&messages, "first")["fields"]["id"], 7);
    assert_eq!(with_payload(&messages, "second")["fields"]["id"], 7);
    assert!(with_payload(&messages, "between")["fields"].get("id").is_none());
    let timers = of_type(&messages, "timer");
    assert_eq!(timers.len(), 1, "one life, one timer");
    let (_, busy, idle) = times(&timers[0]);
    assert!(busy >= 20.0 && idle >= 30.0, "busy {busy}, idle {idle}");
}

#[test]
fn interleaved_futures_each_keep_their_own_context() {
    async fn step(name: &'static str) {
        for round in 0..3 {
            info!(name, round);
            Later(1).await;
        }
    }
    let messages = traced(bare, || {
        let mut futures: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .map(|name| Box::pin(step(name).instrument(info_span!("task", task = name))))
            .collect();
        let waker = Waker::noop();
        let mut context = Context::from_waker(waker);
        while !futures.is_empty() {
            futures.retain_mut(|future| future.as_mut().poll(&mut context).is_pending());
        }
    });
    assert_eq!(messages.len(), 9);
    assert!(
        messages.iter().all(|message| message["fields"]["name"] == message["fields"]["task"]),
        "{messages:?}"
    );
}

#[test]
fn timers_that_are_disabled_by_name_are_not_sent_and_the_others_are() {
    let names = |builder: Builder| builder.disabled_timers(["poll", "tick"]);
    let messages = traced(names, || {
        info_span!("poll", a = 1).in_scope(|| info!("in poll"));
        info_span!("tick");
        info_span!("polls");
    });
    assert_eq!(with_payload(&messages, "in poll")["fields"]["a"], 1, "it stays a context");
    let timers = of_type(&messages, "timer");
    assert_eq!(timers.iter().map(|timer| &timer["fields"]["name"]).collect::<Vec<_>>(), ["polls"]);
}

#[test]
fn a_star_disables_all_timers() {
    let messages = traced(
        |builder| builder.disabled_timers(["*"]),
        || {
            info_span!("a");
            info_span!("b");
        },
    );
    assert!(messages.is_empty(), "{messages:?}");
}

fn names_of_timers(configure: impl FnOnce(Builder) -> Builder, work: impl FnOnce()) -> Vec<Value> {
    let messages = traced(configure, work);
    messages.iter().map(|message| message["fields"]["name"].clone()).collect()
}

#[test]
fn spans_more_verbose_than_the_timer_level_are_not_timed() {
    let work = || {
        tracing::error_span!("error");
        info_span!("info");
        debug_span!("debug");
    };
    assert_eq!(names_of_timers(|builder| builder.timer_level(LevelFilter::INFO), work), ["error", "info"]);
    assert!(names_of_timers(|builder| builder.timer_level(LevelFilter::OFF), work).is_empty());
}

#[test]
fn only_spans_of_timer_targets_and_of_modules_inside_them_are_timed() {
    let names = names_of_timers(
        |builder| builder.timer_targets(["shop", "bank::till"]),
        || {
            info_span!(target: "shop", "shop");
            info_span!(target: "shop::door", "door");
            info_span!(target: "shopping", "shopping");
            info_span!(target: "bank", "bank");
            info_span!(target: "bank::till", "till");
        },
    );
    assert_eq!(names, ["shop", "door", "till"]);
}

#[test]
fn a_timer_rate_keeps_its_share_and_is_written_as_it_is() {
    const COUNT: f64 = 4_000.0;
    const RATE: f64 = 0.25;
    let messages = traced(
        |builder| builder.timer_rate("sampled", RATE).timer_rate("never", 0.0),
        || {
            for _ in 0..COUNT as u32 {
                info_span!("sampled");
                info_span!("never");
            }
            info_span!("other");
        },
    );
    let by_name =
        |name| messages.iter().filter(|message| message["fields"]["name"] == name).collect::<Vec<_>>();
    let sampled = by_name("sampled");
    assert!(sampled.iter().all(|message| message["fields"]["rate"] == RATE));
    let five_sigma = 5.0 * (COUNT * RATE * (1.0 - RATE)).sqrt();
    assert!((sampled.len() as f64 - COUNT * RATE).abs() < five_sigma, "{} of {COUNT}", sampled.len());
    assert_eq!(by_name("other")[0]["fields"]["rate"], 1.0);
    assert!(by_name("never").is_empty());
}

/// Events in and around a span that a per-layer filter hides from this layer.
fn with_middle_hidden(work: impl FnOnce()) -> Vec<Value> {
    let (layer, pipe) = Pipe::layer(|builder| bare(builder).spans(true));
    let filtered = layer.with_filter(filter_fn(|metadata| metadata.name() != "middle"));
    // Another layer that sees everything, so that the hidden span exists.
    let everything = tracing_subscriber::fmt::layer().with_writer(std::io::sink);
    let subscriber = tracing_subscriber::registry().with(filtered).with(everything);
    tracing::subscriber::with_default(subscriber, work);
    pipe.finish().messages
}

#[test]
fn a_span_that_a_filter_hides_is_left_out_of_the_context_and_its_parents_are_not() {
    let messages = with_middle_hidden(|| {
        let _outer = info_span!("outer", a = 1).entered();
        let _middle = info_span!("middle", b = 2).entered();
        info!("in middle");
        let _inner = info_span!("inner", c = 3).entered();
        info!("in inner");
    });
    assert_eq!(with_payload(&messages, "in middle")["fields"], json!({"a": 1, "spans": "outer"}));
    let inner = json!({"a": 1, "c": 3, "spans": "outer:inner"});
    assert_eq!(with_payload(&messages, "in inner")["fields"], inner);
}

#[test]
fn a_span_whose_explicit_parent_a_filter_hides_has_the_parents_of_that_one() {
    let messages = with_middle_hidden(|| {
        let outer = info_span!("outer", a = 1);
        let middle = info_span!(parent: &outer, "middle", b = 2);
        let inner = info_span!(parent: &middle, "inner", c = 3);
        info!(parent: &inner, "in inner");
    });
    let inner = json!({"a": 1, "c": 3, "spans": "outer:inner"});
    assert_eq!(with_payload(&messages, "in inner")["fields"], inner);
}

#[test]
fn an_event_whose_explicit_parent_a_filter_hides_is_sent_without_a_context() {
    // `tracing-subscriber` shows a layer no way past a span that the layer's filter hides.
    let messages = with_middle_hidden(|| {
        let _outer = info_span!("outer", a = 1).entered();
        let middle = info_span!("middle", b = 2);
        info!(parent: &middle, "in middle");
    });
    assert_eq!(with_payload(&messages, "in middle")["fields"], json!({}));
}

#[test]
fn an_event_whose_explicit_parent_the_builders_filter_hides_has_the_parents_of_that_one() {
    let (layer, pipe) = Pipe::layer(|builder| bare(builder).spans(true).filter("info"));
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || {
        let outer = info_span!("outer", a = 1);
        let middle = tracing::debug_span!(parent: &outer, "middle", b = 2);
        info!(parent: &middle, "in middle");
    });
    let messages = pipe.finish().messages;
    assert_eq!(with_payload(&messages, "in middle")["fields"], json!({"a": 1, "spans": "outer"}));
}

#[test]
fn ten_thousand_spans_deep_every_span_is_timed_with_its_own_fields_and_memory_stays_in_bounds() {
    const DEPTH: u64 = 10_000;
    fn descend(level: u64) {
        let _span = info_span!("level", level, outermost = (level == 0).then_some("here")).entered();
        match level + 1 {
            DEPTH => info!("bottom"),
            next => descend(next),
        }
    }
    let outcome = outcome(
        |builder| builder.spans(false).when_full(WhenFull::Block),
        || {
            let dispatch = tracing::dispatcher::get_default(Clone::clone);
            let descent = move || tracing::dispatcher::with_default(&dispatch, || descend(0));
            thread::Builder::new()
                .stack_size(256 << 20)
                .spawn(descent)
                .expect("starts")
                .join()
                .expect("ends");
        },
    );
    assert_eq!(outcome.stats.lost.total(), 0, "{}", outcome.stats);
    let bottom = with_payload(&outcome.messages, "bottom");
    assert_eq!(bottom["fields"]["level"], DEPTH - 1);
    assert_eq!(bottom["fields"]["truncated"], true, "not all of its context fits into a message");
    let timers = of_type(&outcome.messages, "timer");
    let levels = timers.iter().map(|timer| timer["fields"]["level"].as_u64());
    assert!(levels.eq((0..DEPTH).rev().map(Some)), "each once, the innermost first");
    let is_whole = |timer: &Value| timer["fields"]["outermost"] == "here";
    assert!(timers.iter().all(|timer| is_whole(timer) != (timer["fields"]["truncated"] == true)));
    assert!(timers[DEPTH as usize - 500..].iter().all(is_whole), "five hundred spans are no trouble");
    // What a span keeps of its parents is bounded: else so deep a nest would take more than a gigabyte.
    assert!(!timers[..DEPTH as usize - 2_000].iter().any(is_whole));
}

#[test]
fn a_context_too_long_for_a_message_keeps_its_innermost_spans_and_says_so() {
    let large = "x".repeat(30_000);
    for shape in [SpanContext::Flat, SpanContext::Nested, SpanContext::List] {
        let messages = traced(
            |builder| bare(builder).spans(true).span_context(shape),
            || {
                let _a = info_span!("a", a = large).entered();
                let _b = info_span!("b", b = large).entered();
                let _c = info_span!("c", c = large).entered();
                info!("text");
            },
        );
        let fields = &messages[0]["fields"];
        let context = match shape {
            SpanContext::Flat => fields.clone(),
            SpanContext::Nested => fields["context"].clone(),
            _ => {
                fields["context"].as_array().and_then(|spans| spans.last()).expect("a span")["fields"].clone()
            }
        };
        assert_eq!(context["c"], large, "{shape:?}");
        assert!(context.get("a").is_none(), "{shape:?}");
        assert_eq!(fields["truncated"], true, "{shape:?}");
        let path = fields["spans"].as_str().expect("text");
        assert!(path.starts_with("...:") && path.ends_with(":c"), "{path}");
    }
}

#[test]
fn a_hundred_thousand_live_spans_each_keep_their_own_context() {
    const COUNT: u64 = 100_000;
    let messages = traced(
        |builder| bare(builder).queue_bytes(128 << 20),
        || {
            let spans: Vec<_> = (0..COUNT).map(|id| info_span!("live", id)).collect();
            for (n, span) in spans.iter().enumerate().rev() {
                info!(parent: span, n, "text");
            }
        },
    );
    assert_eq!(messages.len() as u64, COUNT);
    assert!(messages.iter().all(|message| message["fields"]["id"] == message["fields"]["n"]));
}

#[test]
fn spans_that_are_older_than_the_layer_are_no_context_and_no_trouble() {
    let (reloadable, handle) = tracing_subscriber::reload::Layer::new(None::<tracing_metlog::MetlogLayer>);
    let subscriber = tracing_subscriber::registry().with(reloadable);
    let (layer, pipe) =
        Pipe::layer(|builder| builder.target(false).module(false).file(false).line(false).thread(false));
    tracing::subscriber::with_default(subscriber, || {
        let old = info_span!("old", a = 1, later = Empty);
        let entered = old.enter();
        handle.reload(Some(layer)).expect("reloaded");
        info!("in old");
        old.record("later", 2);
        info!(parent: &old, "old named");
        info_span!("new", b = 2).in_scope(|| info!("in new"));
        info_span!(parent: &old, "new", b = 3).in_scope(|| info!("in new, old named"));
        drop(entered);
        old.in_scope(|| info!("in old again"));
        drop(old);
        info!("outside");
    });
    let messages = pipe.finish().messages;
    for payload in ["in old", "old named", "in old again", "outside"] {
        assert_eq!(with_payload(&messages, payload)["fields"], json!({}), "{payload}");
    }
    let new = json!({"b": 2, "span": "new", "spans": "new"});
    assert_eq!(with_payload(&messages, "in new")["fields"], new);
    let new = json!({"b": 3, "span": "new", "spans": "new"});
    assert_eq!(with_payload(&messages, "in new, old named")["fields"], new);
    assert_eq!(of_type(&messages, "timer").len(), 2, "of the new ones");
}

#[test]
fn what_a_span_follows_from_is_not_its_context() {
    let messages = traced(bare, || {
        let cause = info_span!("cause", a = 1);
        let effect = info_span!("effect", b = 2);
        effect.follows_from(&cause);
        effect.in_scope(|| info!("text"));
    });
    assert_eq!(messages[0]["fields"], json!({"b": 2}));
}

#[test]
fn spans_left_in_another_order_than_they_were_entered_in_do_not_mix_up_the_context() {
    let messages = traced(bare, || {
        let (a, b) = (info_span!("a", a = 1), info_span!(parent: None, "b", b = 2));
        let in_a = a.enter();
        let in_b = b.enter();
        info!("b");
        drop(in_a);
        info!("still b");
        drop(in_b);
        info!("none");
    });
    assert_eq!(payloads(&messages), ["b", "still b", "none"]);
    let fields: Vec<_> = messages.iter().map(|message| message["fields"].clone()).collect();
    assert_eq!(fields, [json!({"b": 2}), json!({"b": 2}), json!({})]);
}

#[test]
fn a_span_field_that_was_cut_is_marked_in_every_message_that_carries_it() {
    let long = "x".repeat(60_000);
    let outcome = outcome(plain, || {
        let given = info_span!("given", text = long.as_str()).entered();
        info!("in given");
        drop(given);
        let recorded = info_span!("recorded", text = Empty).entered();
        info!("before");
        recorded.record("text", long.as_str());
        info!("in recorded");
    });
    let is_cut = |message: &Value| message["fields"]["truncated"] == true;
    for payload in ["in given", "in recorded"] {
        let message = with_payload(&outcome.messages, payload);
        assert!(
            is_cut(&message) && message["fields"]["text"].as_str().is_some_and(|text| text.len() < 60_000)
        );
    }
    assert!(!is_cut(&with_payload(&outcome.messages, "before")));
    assert_eq!(of_type(&outcome.messages, "timer").iter().filter(|timer| is_cut(timer)).count(), 2);
    assert_eq!(outcome.stats.truncated, 4);
}

#[test]
fn a_value_recorded_while_children_log_on_other_threads_is_seen_by_all_of_them_from_then_on() {
    const ROUNDS: u64 = 300;
    let outcome = outcome(plain, || {
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let outer = info_span!("outer", round = 0u64);
        let child = info_span!(parent: &outer, "child");
        let recorded = Barrier::new(3);
        thread::scope(|scope| {
            for thread in 0..2u64 {
                let (dispatch, child, recorded) = (&dispatch, &child, &recorded);
                scope.spawn(move || {
                    tracing::dispatcher::with_default(dispatch, || {
                        let _child = child.enter();
                        for round in 1..=ROUNDS {
                            recorded.wait();
                            info!(thread_number = thread, seen_from = round, "look");
                        }
                    });
                });
            }
            for round in 1..=ROUNDS {
                outer.record("round", round);
                recorded.wait();
            }
        });
    });
    let looks: Vec<_> = outcome.messages.iter().filter(|message| message["payload"] == "look").collect();
    assert_eq!(looks.len() as u64, 2 * ROUNDS);
    for look in looks {
        assert!(number(&look["fields"]["round"]) >= number(&look["fields"]["seen_from"]), "{look}");
    }
}

#[test]
fn a_message_that_had_to_be_cut_leaves_the_context_of_the_next_one_whole() {
    let (in_span, in_event) = ("s".repeat(55_000), "e".repeat(1024));
    let messages = traced(plain, || {
        let _span = info_span!("large", text = in_span.as_str()).entered();
        info!("before");
        let e = in_event.as_str();
        info!(a = e, b = e, c = e, d = e, f = e, g = e, h = e, i = e, j = e, k = e, l = e, m = e, "cut");
        info!("after");
    });
    assert_eq!(with_payload(&messages, "cut")["fields"]["truncated"], true);
    let (before, after) = (with_payload(&messages, "before"), with_payload(&messages, "after"));
    assert_eq!(before["fields"]["text"], in_span.as_str());
    for kept in ["text", "thread", "spans"] {
        assert!(after["fields"][kept] == before["fields"][kept], "{kept}");
    }
}
