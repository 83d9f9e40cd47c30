//! Where messages go, and that one output never depends on another.
#![cfg(feature = "router")]

use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use tracing_metlog::router::{Config, Input, Matcher, Output, Route, Router};
use tracing_metlog::{Message, Severity};

const PATIENCE: Duration = Duration::from_secs(20);

fn start(routes: impl IntoIterator<Item = Route>) -> (Router, UdpSocket) {
    let config = Config::new().input(Input::udp("127.0.0.1:0"));
    let router = Router::start(routes.into_iter().fold(config, Config::route)).expect("starts");
    let client = UdpSocket::bind("127.0.0.1:0").expect("binds");
    client.connect(router.addresses()[0].strip_prefix("udp://").expect("a udp address")).expect("connects");
    (router, client)
}

fn send(client: &UdpSocket, message_type: &str, payload: &str) -> Message {
    let mut message = Message::new(message_type, payload);
    message.logger = "test".to_owned();
    message.fields.insert("text".to_owned(), "a\nb \u{1f600} \"c\"".into());
    message.fields.insert("rate".to_owned(), 1.0.into());
    client.send(message.to_json().as_bytes()).expect("sent");
    message
}

#[test]
fn a_message_goes_to_every_route_that_matches_and_is_unrouted_if_none_does() {
    let (metrics, metrics_capture) = Output::capture();
    let (bad, bad_capture) = Output::capture();
    let (router, client) = start([
        Route::new(Matcher::types(["timer", "counter"]), metrics),
        Route::new(Matcher::severity_at_most(Severity::Error), bad),
    ]);
    let timer = send(&client, "timer", "1");
    let mut alarm = send(&client, "counter", "2");
    alarm.severity = Severity::Alert;
    client.send(alarm.to_json().as_bytes()).expect("sent");
    send(&client, "oldstyle", "nobody wants it");
    assert_eq!(metrics_capture.wait_for(3, PATIENCE)[0], timer);
    assert_eq!(bad_capture.wait_for(1, PATIENCE), [alarm]);
    let counters = router.shutdown(PATIENCE);
    assert_eq!((counters.received, counters.unrouted), (4, 1));
    assert_eq!(counters.types["counter"], 2);
}

#[test]
fn a_file_holds_a_line_for_each_message_that_reads_back_equal() {
    let file = File::new("equal");
    let (router, client) = start([Route::new(Matcher::any(), Output::file(&file.0))]);
    let sent: Vec<Message> = (0..100).map(|n| send(&client, "oldstyle", &n.to_string())).collect();
    let counters = router.shutdown(PATIENCE);
    assert_eq!(file.messages(), sent);
    assert_eq!(counters.outputs[0].delivered, 100);
    assert_eq!(counters.outputs[0].name, format!("file:{}", file.0.display()));
}

#[test]
fn a_file_is_appended_to_and_shared_by_the_routes_that_name_it() {
    let file = File::new("shared");
    for run in 1..=2 {
        let (router, client) = start([
            Route::new(Matcher::type_is("timer"), Output::file(&file.0)),
            Route::new(Matcher::any(), Output::file(&file.0)),
        ]);
        send(&client, "timer", "matches both, is written once");
        let counters = router.shutdown(PATIENCE);
        assert_eq!(counters.outputs.len(), 1);
        assert_eq!(file.messages().len(), run);
    }
}

#[test]
fn a_message_is_in_the_file_without_waiting_for_the_next() {
    let file = File::new("flushed");
    let (router, client) = start([Route::new(Matcher::any(), Output::file(&file.0))]);
    send(&client, "oldstyle", "alone");
    let deadline = std::time::Instant::now() + PATIENCE;
    while file.messages().is_empty() {
        assert!(std::time::Instant::now() < deadline, "never written");
        std::thread::yield_now();
    }
    drop(router);
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_that_names_it() {
    let config = Config::new()
        .input(Input::udp("127.0.0.1:0"))
        .route(Route::new(Matcher::any(), Output::file("/nowhere/at/all.jsonl")));
    let error = Router::start(config).expect_err("cannot be opened").to_string();
    assert!(error.starts_with("cannot open file:/nowhere/at/all.jsonl: "), "{error}");
}

#[test]
fn an_output_that_is_stuck_does_not_slow_another() {
    let (release, blocked) = mpsc::channel::<()>();
    let stuck = Output::function(move |_| {
        let _ = blocked.recv();
    });
    let (output, capture) = Output::capture();
    let (router, client) = start([Route::new(Matcher::any(), stuck), Route::new(Matcher::any(), output)]);
    for count in 1..=500 {
        send(&client, "oldstyle", "x");
        assert_eq!(capture.wait_for(count, PATIENCE).len(), count);
    }
    let counters = router.counters();
    assert_eq!((counters.outputs[0].delivered, counters.outputs[0].queued), (0, 500));
    drop(release);
    let counters = router.shutdown(PATIENCE);
    assert_eq!((counters.outputs[0].delivered, counters.outputs[1].delivered), (500, 500));
}

/// A path for one test's file, removed at its end.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        File(std::env::temp_dir().join(format!("metlog-outputs-{name}-{}.jsonl", std::process::id())))
    }

    fn messages(&self) -> Vec<Message> {
        let text = std::fs::read_to_string(&self.0).expect("readable");
        assert!(text.is_empty() || text.ends_with('\n'), "a line is torn");
        text.lines().map(|line| line.parse().expect("a message")).collect()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
