//! Batches to HTTP receivers: our own router, Python's, and checkers of Elasticsearch's and Loki's documented formats.
//! No Elasticsearch and no Loki runs here: what is checked is what their documentation says.
#![cfg(all(feature = "router", feature = "http"))]

mod output_support;

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use output_support::{
    balanced, closed_port, eventually, id, numbered, router, send, tally, try_router, Directory, Receiver,
    PATIENCE,
};
use tracing_metlog::router::{Config, HttpFormat, HttpOutput, Input, Matcher, Output, Route, Router};
use tracing_metlog::LossReason;

fn to(port: u16) -> HttpOutput {
    HttpOutput::new(format!("http://127.0.0.1:{port}")).linger(Duration::from_millis(50))
}

#[test]
fn lines_arrive_at_another_router_as_they_were_in_few_requests_compressed_or_not() {
    for gzip in [true, false] {
        let (output, capture) = Output::capture();
        let config =
            Config::new().input(Input::http("127.0.0.1:0")).route(Route::new(Matcher::any(), output));
        let next = Router::start(config).expect("starts");
        let first =
            router(HttpOutput::new(&next.addresses()[0]).gzip(gzip).linger(Duration::from_millis(300)));
        let sent: Vec<_> = (0..500).map(numbered).collect();
        send(&first, sent.clone());
        assert_eq!(capture.wait_for(500, PATIENCE), sent);
        let output = balanced(&first.shutdown(PATIENCE));
        assert_eq!((output.delivered, output.failed), (500, 0), "{output:?}");
        let counters = next.shutdown(PATIENCE);
        let raw: u64 = sent.iter().map(|message| message.to_json().len() as u64 + 1).sum();
        assert_eq!(counters.inputs[0].bytes < raw / 2, gzip, "{} of {raw} bytes", counters.inputs[0].bytes);
        // A request that came alone for each message would have brought 500 heads besides.
        assert!(gzip || counters.inputs[0].bytes < raw + 10_000, "{} of {raw}", counters.inputs[0].bytes);
    }
}

#[test]
fn a_message_waits_for_others_no_longer_than_linger_and_a_full_batch_does_not_wait() {
    let directory = Directory::new();
    let receiver = Receiver::start("loki", &directory);
    let output =
        to(receiver.port).format(HttpFormat::Loki).linger(Duration::from_secs(1)).batch_bytes(20_000);
    let first = router(output);
    let begun = Instant::now();
    send(&first, [numbered(0)]);
    eventually("it is there", || !receiver.taken().is_empty());
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    drop(first);
    let output = to(receiver.port).format(HttpFormat::Loki).linger(PATIENCE * 10).batch_bytes(20_000);
    let first = router(output);
    send(&first, (1..200).map(numbered));
    eventually("full batches are there", || receiver.taken().len() >= 100);
    assert_eq!(balanced(&first.shutdown(PATIENCE)).delivered, 199);
    assert_eq!(receiver.taken().len(), 200);
}

#[test]
fn elasticsearch_gets_every_document_once_and_what_it_refuses_or_puts_off_is_told_from_the_rest() {
    let directory = Directory::new();
    let receiver = Receiver::start("elasticsearch", &directory);
    let output = to(receiver.port).format(HttpFormat::Elasticsearch).index("logs-shop").batch_bytes(20_000);
    let first = router(output);
    send(&first, (0..500).map(numbered));
    eventually("all are settled", || {
        let output = first.counters().outputs[0].clone();
        output.delivered + output.failed == 500
    });
    let output = balanced(&first.shutdown(PATIENCE));
    assert_eq!((output.delivered, output.failed), (490, 10), "{output:?}");
    assert_eq!(output.lost.count(LossReason::Rejected), 10);
    assert!(output.name.starts_with("elasticsearch:http://127.0.0.1:"), "{}", output.name);
    let taken = receiver.taken();
    let expected = tally((0..500).filter(|number| number % 50 != 7));
    assert_eq!(tally(taken.iter().map(|one| one["number"].as_u64().expect("a number"))), expected);
    for one in &taken {
        let number = one["number"].as_u64().expect("a number") as usize;
        let sent = numbered(number);
        assert_eq!(one["id"], id(number));
        assert_eq!(one["source"]["@timestamp"], sent.timestamp);
        assert_eq!(one["source"]["payload"], sent.payload.to_string());
        assert_eq!(one["source"]["fields"], serde_json::Value::Object(sent.fields));
        assert_eq!(one["source"]["metlog_hostname"], "web-7.example");
        assert_eq!(one["source"]["metlog_pid"], 4_242);
    }
}

#[test]
fn what_elasticsearch_refuses_stands_in_last_error_on_one_line() {
    let directory = Directory::new();
    let receiver = Receiver::start("elasticsearch", &directory);
    let first = router(to(receiver.port).format(HttpFormat::Elasticsearch).index("logs-shop"));
    send(&first, [numbered(7)]);
    eventually("it is refused", || first.counters().outputs[0].failed == 1);
    let error = first.counters().outputs[0].last_error.clone().expect("an error");
    let expected =
        "an item has status 400, mapper_parsing_exception: no such field\\nat all: 1 messages are refused";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn loki_gets_streams_by_label_with_the_messages_own_nanoseconds() {
    let directory = Directory::new();
    let receiver = Receiver::start("loki", &directory);
    let labels = ["type", "logger", "severity", "hostname", "job=metlog"];
    let first = router(to(receiver.port).format(HttpFormat::Loki).labels(labels));
    let sent = (0..300).map(|number| {
        let mut message = numbered(number);
        message.r#type = ["oldstyle", "timer", "sentry"][number % 3].to_owned();
        if number % 2 == 0 {
            message.logger.clear();
        }
        message
    });
    let sent: Vec<_> = sent.collect();
    send(&first, sent.clone());
    eventually("all are there", || receiver.taken().len() == 300);
    let mut taken = receiver.taken();
    taken.sort_by_key(|entry| entry["message"]["fields"]["number"].as_u64());
    for (number, (entry, sent)) in taken.iter().zip(&sent).enumerate() {
        assert_eq!(entry["message"], serde_json::to_value(sent).expect("JSON"));
        // 2012-10-24T22:20:43Z, by GNU date.
        assert_eq!(entry["nanoseconds"], (1_351_117_243_000_000_000_u64 + number as u64 * 1_000).to_string());
        let mut labels = serde_json::json!({
            "type": sent.r#type, "severity": "informational", "hostname": "web-7.example", "job": "metlog",
        });
        if number % 2 == 1 {
            labels["logger"] = "shop".into();
        }
        assert_eq!(entry["labels"], labels);
    }
    assert_eq!(balanced(&first.shutdown(PATIENCE)).delivered, 300);
}

#[test]
fn a_receiver_that_asks_for_a_pause_and_for_less_at_a_time_gets_both_and_every_message_once() {
    let directory = Directory::new();
    let receiver = Receiver::start("moody", &directory);
    let first = router(to(receiver.port).gzip(false));
    let begun = Instant::now();
    send(&first, (0..200).map(numbered));
    eventually("all are there", || receiver.taken().len() == 200);
    assert!(begun.elapsed() >= Duration::from_secs(1), "Retry-After: 1");
    let taken = receiver.taken();
    assert_eq!(tally(taken.iter().map(|one| one["number"].as_u64().expect("a number"))), tally(0..200));
    let output = balanced(&first.shutdown(PATIENCE));
    assert_eq!((output.delivered, output.failed), (200, 0));
    assert!(output.last_error.is_some());
}

#[test]
fn a_refusal_costs_its_messages_and_says_why_but_never_the_credentials() {
    let directory = Directory::new();
    let receiver = Receiver::start("refusing", &directory);
    let file = directory.path().join("headers");
    writeln!(std::fs::File::create(&file).expect("made"), "Authorization: Bearer s3cr3t-token")
        .expect("written");
    std::env::set_var("METLOG_TEST_HTTP_HEADERS", "X-Scope: s3cr3t-scope");
    let output = to(receiver.port).headers_file(&file).header_env("METLOG_TEST_HTTP_HEADERS");
    let shown = format!("{output:?}");
    let first = router(output);
    send(&first, (0..30).map(numbered));
    eventually("they are refused", || first.counters().outputs[0].failed == 30);
    let counters = first.shutdown(PATIENCE);
    let output = balanced(&counters);
    assert_eq!(output.lost.count(LossReason::Rejected), 30);
    let error = output.last_error.clone().expect("an error");
    assert!(error.contains("401 Unauthorized (this key is unknown"), "{error}");
    assert!(!error.contains('\u{1b}') && !error.contains('\n'), "{error}");
    let taken = receiver.taken();
    assert_eq!(taken[0]["authorization"], "Bearer s3cr3t-token");
    assert_eq!(taken[0]["scope"], "s3cr3t-scope");
    for text in [shown, counters.to_string(), format!("{counters:?}")] {
        assert!(!text.contains("s3cr3t"), "{text}");
    }
}

#[test]
fn a_web_server_that_knows_nothing_of_this_is_tried_until_the_deadline_and_the_messages_are_counted() {
    let mut command = Command::new("python3");
    command.args(["-u", "-c", "import http.server as h; s = h.HTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler); print(s.server_port); s.serve_forever()"]);
    command.stderr(Stdio::null());
    let directory = Directory::new();
    let receiver = Receiver::of(command, directory.path().join("none"));
    for format in [HttpFormat::Ndjson, HttpFormat::Elasticsearch, HttpFormat::Loki] {
        let first = router(to(receiver.port).format(format));
        send(&first, (0..20).map(numbered));
        eventually("it has answered", || first.counters().outputs[0].last_error.is_some());
        let error = first.counters().outputs[0].last_error.clone().expect("an error");
        // Python 3.11 cannot POST: 501.
        assert!(error.contains("501"), "{error}");
        let output = balanced(&first.shutdown(Duration::from_millis(500)));
        assert_eq!((output.delivered, output.failed, output.queued), (0, 20, 0), "{output:?}");
        assert_eq!(
            output.lost.count(LossReason::Unreachable) + output.lost.count(LossReason::Unconfirmed),
            20
        );
    }
}

#[test]
fn a_receiver_that_takes_everything_and_is_no_elasticsearch_is_never_believed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut request = [0; 65_536];
                let _ = std::io::Read::read(&mut stream, &mut request);
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
            });
        }
    });
    let first = router(to(port).format(HttpFormat::Elasticsearch));
    send(&first, (0..5).map(numbered));
    eventually("it has answered", || first.counters().outputs[0].last_error.is_some());
    let output = balanced(&first.shutdown(Duration::from_millis(400)));
    assert_eq!(output.delivered, 0, "{output:?}");
    assert!(output
        .last_error
        .is_some_and(|error| error.contains("not _bulk's") || error.contains("unreachable")));
}

#[test]
fn a_receiver_that_never_answers_holds_nobody_up_beyond_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let first = router(to(listener.local_addr().expect("an address").port()));
    send(&first, (0..10).map(numbered));
    eventually("received", || first.counters().received == 10);
    let begun = Instant::now();
    let output = balanced(&first.shutdown(Duration::from_secs(2)));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    // The account is drawn when the deadline comes, and not left to somebody who waits no longer.
    assert_eq!((output.delivered, output.failed, output.queued), (0, 10, 0), "{output:?}");
}

#[test]
fn a_setting_that_cannot_be_used_is_named_with_what_would_be() {
    let base = || HttpOutput::new("http://127.0.0.1:1");
    let refused = [
        (
            HttpOutput::new("tcp://127.0.0.1:1"),
            "http://host:port/path and https://host:port/path are accepted",
        ),
        (HttpOutput::new("http://user:s3cr3t@host/"), "cannot open ndjson:"),
        (base().index("logs"), "index is of another format"),
        (base().labels(["type"]), "labels is of another format"),
        (base().format(HttpFormat::Elasticsearch).index("Logs"), "index \"Logs\": a name in small letters"),
        (base().format(HttpFormat::Loki).labels(["pid"]), "label \"pid\": type, logger"),
        (base().format(HttpFormat::Loki).labels(["1x=y"]), "label \"1x=y\""),
        (base().format(HttpFormat::Loki).labels(["type", "type=x"]), "twice"),
        (base().format(HttpFormat::Loki).labels(Vec::<String>::new()), "labels are empty"),
        (base().batch_bytes(0), "batch_bytes 0"),
        (base().headers_file("/nowhere/headers"), "/nowhere/headers"),
        (base().header_env("METLOG_TEST_NO_SUCH_VARIABLE"), "METLOG_TEST_NO_SUCH_VARIABLE"),
    ];
    for (output, expected) in refused {
        let error = try_router("127.0.0.1:0", output).expect_err("refused").to_string();
        assert!(error.contains(expected) && !error.contains("s3cr3t"), "{expected}: {error}");
    }
    let port = closed_port();
    let config = Config::new()
        .input(Input::http(format!("127.0.0.1:{port}")))
        .route(Route::new(Matcher::any(), to(port).into()));
    let error = Router::start(config).expect_err("a circle").to_string();
    assert!(error.contains("this router's own input"), "{error}");
    assert!("xml".parse::<HttpFormat>().expect_err("no format").contains("ndjson, elasticsearch and loki"));
}
