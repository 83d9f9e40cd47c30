//! A panic becomes a message that arrives, whatever becomes of the program.
#![cfg(all(feature = "tracing", feature = "log"))]

mod support;

use std::fmt;
use std::panic::catch_unwind;

use serde_json::{json, Value};

use support::child::{child, Child};
use support::{of_type, with_payload};

/// The panic of a child, and the child.
fn panicked(child: Child) -> (Value, Child) {
    let panics = of_type(&child.messages, "panic");
    assert_eq!(panics.len(), 1, "{:?}\n{}", child.messages, child.stderr);
    (panics[0].clone(), child)
}

#[test]
fn a_panic_is_sent_with_all_that_is_known_of_it() {
    let line = line!() + 7;
    let test = "a_panic_is_sent_with_all_that_is_known_of_it";
    let child = child(test, &[], |router| {
        let _metlog = tracing_metlog::builder().logger("app").router(router).init();
        let work = || {
            let _outer = tracing::info_span!("outer", a = 1).entered();
            let _inner = tracing::info_span!("inner", b = 2).entered();
            panic!("on {}", "purpose");
        };
        let thread = std::thread::Builder::new().name("worker".into()).spawn(work).expect("starts");
        assert!(thread.join().is_err());
    });
    let Some(child) = child else { return };
    assert!(child.status.success(), "{}", child.stderr);
    assert!(child.stderr.contains("on purpose"), "the hook that was there before is called too");
    let (message, _) = panicked(child);
    assert_eq!((&message["severity"], &message["payload"]), (&json!(1), &json!("on purpose")));
    assert_eq!(message["logger"], "app");
    let fields = &message["fields"];
    let location = fields["location"].as_str().expect("text");
    assert!(location.starts_with(&format!("{}:{line}:", file!())), "{location}, line {line}");
    assert_eq!((&fields["file"], &fields["line"]), (&json!(file!()), &json!(line)));
    assert_eq!(fields["thread"], "worker");
    assert_eq!((&fields["a"], &fields["b"], &fields["spans"]), (&json!(1), &json!(2), &json!("outer:inner")));
    let backtrace = fields["backtrace"].as_str().expect("text");
    assert!(backtrace.contains(test), "the frames of this test are in it: {backtrace}");
}

#[test]
fn a_panic_that_ends_the_program_arrives() {
    let child = child("a_panic_that_ends_the_program_arrives", &[], |router| {
        std::mem::forget(tracing_metlog::builder().router(router).init());
        tracing::info!("before");
        panic!("the end");
    });
    let Some(child) = child else { return };
    assert!(!child.status.success());
    let (message, child) = panicked(child);
    assert_eq!(message["payload"], "the end");
    with_payload(&child.messages, "before");
}

#[test]
fn a_panic_before_an_abort_arrives() {
    let child = child("a_panic_before_an_abort_arrives", &[], |router| {
        std::mem::forget(tracing_metlog::builder().router(router).init());
        extern "C" fn no_way_out() {
            panic!("aborts");
        }
        no_way_out();
    });
    let Some(child) = child else { return };
    assert!(!child.status.success());
    // The abort is a second panic, "panic in a function that cannot unwind".
    assert_eq!(of_type(&child.messages, "panic")[0]["payload"], "aborts", "{}", child.stderr);
}

#[test]
fn a_hook_installed_before_is_still_called_and_a_payload_of_any_type_is_no_trouble() {
    let test = "a_hook_installed_before_is_still_called_and_a_payload_of_any_type_is_no_trouble";
    let child = child(test, &[], |router| {
        std::panic::set_hook(Box::new(|_| println!("the program's own hook")));
        let _metlog = tracing_metlog::builder().router(router).init();
        assert!(catch_unwind(|| std::panic::panic_any(5)).is_err());
    });
    let Some(child) = child else { return };
    assert!(child.stdout.contains("the program's own hook"), "{}", child.stdout);
    assert_eq!(panicked(child).0["payload"], "Box<dyn Any>");
}

#[test]
fn panics_are_not_sent_when_they_are_not_wanted() {
    let child = child("panics_are_not_sent_when_they_are_not_wanted", &[], |router| {
        let _metlog = tracing_metlog::builder().router(router).panics(false).init();
        assert!(catch_unwind(|| panic!("private")).is_err());
        tracing::info!("after");
    });
    let Some(child) = child else { return };
    assert_eq!(support::payloads(&child.messages), ["after"]);
}

#[test]
fn a_panic_inside_a_value_being_formatted_is_caught_and_holds_nobody_up() {
    struct Panics;
    impl fmt::Debug for Panics {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("in Debug")
        }
    }
    let test = "a_panic_inside_a_value_being_formatted_is_caught_and_holds_nobody_up";
    let child = child(test, &[], |router| {
        let _metlog = tracing_metlog::builder().router(router).init();
        for n in 0..100 {
            tracing::info!(n, value = ?Panics, after = true, "kept");
        }
    });
    let Some(child) = child else { return };
    assert!(child.status.success(), "{}", child.stderr);
    let lines = of_type(&child.messages, "oldstyle");
    assert_eq!(lines.len(), 100);
    for (n, line) in lines.iter().enumerate() {
        assert_eq!((&line["payload"], &line["fields"]["n"]), (&json!("kept"), &json!(n)));
        assert_eq!(line["fields"]["after"], true);
        assert!(line["fields"]["value"].as_str().expect("text").contains("panicked"));
    }
    assert!(of_type(&child.messages, "panic").iter().all(|message| message["payload"] == "in Debug"));
}

#[test]
fn a_panic_while_a_panic_unwinds_does_not_hang() {
    struct LogsWhenDropped;
    impl Drop for LogsWhenDropped {
        fn drop(&mut self) {
            tracing::info!("while unwinding");
        }
    }
    let child = child("a_panic_while_a_panic_unwinds_does_not_hang", &[], |router| {
        let _metlog = tracing_metlog::builder().router(router).init();
        let work = || {
            let _logs = LogsWhenDropped;
            panic!("first");
        };
        assert!(catch_unwind(work).is_err());
    });
    let Some(child) = child else { return };
    with_payload(&child.messages, "while unwinding");
    assert_eq!(panicked(child).0["payload"], "first");
}
