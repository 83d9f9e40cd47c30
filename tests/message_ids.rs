//! A message that is sent again carries the id it had, so that a receiver can tell; the router of this crate drops it.
#![cfg(all(unix, feature = "tracing", feature = "router"))]

mod process_support;

use std::collections::BTreeSet;
use std::io::{Read, Write};

use process_support::oracle::{send, Got};
use process_support::receiver::Receiver;
use process_support::{built, eventually, fault_report, Directory, LONG};
use serde_json::Value;
use tracing_metlog::router::{Config, Input, Matcher, Output, Route, Router};

fn id(line: &str) -> String {
    let message: Value = serde_json::from_str(line).expect("JSON");
    message["fields"]["metlog_id"].as_str().unwrap_or_else(|| panic!("no id in {line}")).to_owned()
}

#[test]
fn every_message_has_an_id_of_its_own_and_the_same_at_every_destination() {
    let (one, other) = (Receiver::tcp(), Receiver::tcp());
    let builder = tracing_metlog::builder().router(&one.address).router(&other.address).message_ids(true);
    let guard = built(builder.flush_timeout(LONG));
    // A report about losses is a message too.
    guard.client().gauge("temperature", f64::NAN);
    (0..200).for_each(|n| send(&guard.client(), 0, n));
    assert_eq!(guard.finish().pending, 0);
    let ids = |receiver: Receiver| receiver.close_at_end().iter().map(|line| id(line)).collect::<Vec<_>>();
    let (one, other) = (ids(one), ids(other));
    assert_eq!(one, other);
    let different: BTreeSet<_> = one.iter().collect();
    assert_eq!((one.len(), different.len()), (201, 201));
}

#[test]
fn a_field_of_the_same_name_does_not_hide_the_id_and_without_the_option_there_is_none() {
    let receiver = Receiver::tcp();
    let guard = built(tracing_metlog::builder().logger("app").router(&receiver.address).message_ids(true));
    guard.client().message("oldstyle").field("metlog_id", "mine").field("message_id", "order-42").send();
    drop(guard);
    let lines = receiver.close_at_end();
    assert!(lines[0].contains(r#""message_id":"order-42""#), "a program's own ids stay: {lines:?}");
    assert!(id(&lines[0]) != "mine" && lines[0].matches("metlog_id").count() == 1, "{lines:?}");

    let receiver = Receiver::tcp();
    let guard = built(tracing_metlog::builder().logger("app").router(&receiver.address));
    guard.client().message("oldstyle").send();
    drop(guard);
    assert!(!receiver.close_at_end()[0].contains("metlog_id"));
}

#[test]
fn a_message_that_is_sent_again_has_the_id_it_had() {
    let directory = Directory::new();
    let path = directory.file("router");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("binds");
    let builder = tracing_metlog::builder().router(format!("unix://{}", path.display())).message_ids(true);
    let guard = built(builder.flush_timeout(LONG));
    (0..10).for_each(|n| send(&guard.client(), 0, n));
    eventually("all is written", || guard.stats().unconfirmed == 10);
    let mut first = listener.accept().expect("connected").0;
    let mut bytes = vec![0; 1_000];
    first.read_exact(&mut bytes).expect("read");
    drop(first);
    let mut text = String::new();
    let again = std::thread::spawn(move || {
        listener.accept().expect("connected").0.read_to_string(&mut text).expect("UTF-8");
        text
    });
    assert_eq!(guard.finish().delivered, 10);
    let again = again.join().expect("read");
    Got::read(&again.lines().collect::<Vec<_>>()).assert_complete(1, 10);
    assert!(
        bytes.contains(&b'\n') && again.as_bytes().starts_with(&bytes),
        "the same bytes, and so the same ids"
    );
}

#[test]
fn the_router_drops_what_comes_twice_and_counts_it() {
    let receiver = Receiver::tcp();
    let builder = tracing_metlog::builder().router(&receiver.address).message_ids(true);
    let guard = built(builder.flush_timeout(LONG));
    (0..40).for_each(|n| send(&guard.client(), 0, n));
    drop(guard);
    let lines = receiver.close_at_end();

    let (output, capture) = Output::capture();
    let config = Config::new().input(Input::tcp("127.0.0.1:0")).route(Route::new(Matcher::any(), output));
    let router = Router::start(config).expect("starts");
    let address = router.addresses()[0].trim_start_matches("tcp://").to_owned();
    // A connection that broke, and what followed on the next one.
    for part in [&lines[..30], &lines[12..]] {
        let mut stream = std::net::TcpStream::connect(&address).expect("connects");
        stream.write_all((part.join("\n") + "\n").as_bytes()).expect("sent");
    }
    eventually("all is read", || router.counters().received == 58);
    let counters = router.shutdown(LONG);
    assert_eq!((counters.received, counters.duplicates), (58, 18), "{counters}");
    assert!(counters.to_string().contains("\nduplicates 18"), "{counters}");
    let got: Vec<String> = capture.messages().iter().map(|message| message.to_json()).collect();
    Got::read(&got).assert_complete(1, 40);
    let promise = "each is taken once, and the others are counted";
    fault_report::record("18 of 40 messages sent twice, with ids, to the router", promise, 40, 40, &[], 0);
}

#[test]
fn fields_of_a_program_that_look_like_ids_make_no_message_a_duplicate() {
    let (output, capture) = Output::capture();
    let config = Config::new().input(Input::tcp("127.0.0.1:0")).route(Route::new(Matcher::any(), output));
    let router = Router::start(config).expect("starts");
    let address = router.addresses()[0].trim_start_matches("tcp://").to_owned();
    let mut stream = std::net::TcpStream::connect(&address).expect("connects");
    for (field, id) in [
        ("message_id", "order-42"),
        ("metlog_id", "order-42"),
        ("metlog_id", "boot-1-start-7"),
        ("message_id", "0123456789abcdef-1-0123456789abcdef-7"),
    ] {
        for n in 0..3 {
            let line =
                format!(r#"{{"type": "x", "payload": "{field} {id} {n}", "fields": {{"{field}": "{id}"}}}}"#);
            writeln!(stream, "{line}").expect("sent");
        }
    }
    drop(stream);
    eventually("all is read", || router.counters().received == 12);
    assert_eq!(router.shutdown(LONG).duplicates, 0);
    let payloads: BTreeSet<_> =
        capture.messages().iter().map(|message| message.payload.to_string()).collect();
    assert_eq!(payloads.len(), 12, "{payloads:?}");
}
