//! The router's HTTP input, asked by clients that are not ours: curl, and Python's http.client.
#![cfg(all(feature = "router", feature = "http"))]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use tracing_metlog::router::{Capture, Config, Input, Matcher, Output, Route, Router};

const PATIENCE: Duration = Duration::from_secs(60);

fn start() -> (Router, Capture, String) {
    let (output, capture) = Output::capture();
    let config = Config::new().input(Input::http("127.0.0.1:0")).route(Route::new(Matcher::any(), output));
    let router = Router::start(config).expect("starts");
    let address = router.addresses()[0].strip_prefix("http://").expect("an http address").to_owned();
    (router, capture, address)
}

fn line(payload: &str) -> String {
    format!("{{\"type\": \"oldstyle\", \"payload\": \"{payload}\"}}\n")
}

/// The statuses that curl saw, and what it printed before them.
fn curl(address: &str, arguments: &[&str], body: &[u8]) -> (String, String) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "60", "--write-out", " %{http_code}"]);
    command.args(arguments).args(["--data-binary", "@-", &format!("http://{address}/metlog")]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("curl is installed");
    child.stdin.take().expect("piped").write_all(body).expect("read");
    let output = child.wait_with_output().expect("ends");
    let text = String::from_utf8(output.stdout).expect("text");
    let (text, status) = text.rsplit_once(' ').expect("a status");
    (status.to_owned(), text.to_owned())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("packed");
    encoder.finish().expect("packed")
}

#[test]
fn curl_is_answered_as_the_table_of_answers_says() {
    let (router, capture, address) = start();
    let (one, two) = (line("one"), line("two"));
    // Over 1 MiB: curl waits for `100 Continue` before it sends so much.
    let long: String = (0..30_000).map(|number| line(&number.to_string())).collect();
    assert!(long.len() > 1024 * 1024);
    let chunked = ["--header", "Transfer-Encoding: chunked"];
    for (arguments, body, status, text) in [
        (&[][..], (one.clone() + &two).into_bytes(), "200", ""),
        (&chunked, one.clone().into_bytes(), "200", ""),
        (&["--header", "Content-Encoding: gzip"], gzip(one.as_bytes()), "200", ""),
        (&["--http1.0"], one.clone().into_bytes(), "200", ""),
        (&["--header", "Expect: 100-continue"], long.clone().into_bytes(), "200", ""),
        (
            &[],
            (one.clone() + "{").into_bytes(),
            "400",
            "line 2: not JSON: EOF while parsing an object at line 1 column 1\n",
        ),
        (
            &["--header", "Content-Encoding: br"],
            vec![1],
            "415",
            "Content-Encoding: gzip is accepted, or none\n",
        ),
        (&["--request", "PUT"], vec![1], "405", "POST is accepted\n"),
        (
            &["--header", "Expect: 100-continue"],
            vec![b'\n'; 5_000_000],
            "413",
            "a body of up to 4194304 bytes is accepted\n",
        ),
        (&[], one.clone().into_bytes(), "200", ""),
    ] {
        assert_eq!(curl(&address, arguments, &body), (status.to_owned(), text.to_owned()), "{arguments:?}");
    }
    let payloads: Vec<String> =
        capture.messages().iter().map(|message| message.payload.to_string()).collect();
    assert_eq!(payloads[..5], ["one", "two", "one", "one", "one"]);
    let counters = router.shutdown(PATIENCE);
    assert_eq!((counters.received, payloads.len()), (30_006, 30_006), "{counters}");
    assert_eq!(counters.inputs[0].errors, 0, "{counters}");
}

#[test]
fn curl_keeps_one_connection_for_several_requests() {
    let (router, capture, address) = start();
    let url = format!("http://{address}/");
    let message = line("again");
    let mut command = Command::new("curl");
    command.args(["--silent", "--write-out", "%{http_code} %{num_connects}\n"]);
    command.args(["--data-binary", &message, &url, &url, &url]);
    let output = command.output().expect("curl is installed");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200 1\n200 0\n200 0\n");
    assert_eq!(capture.messages().len(), 3);
    assert_eq!(router.shutdown(PATIENCE).inputs[0].connections, 1);
}

#[test]
fn pythons_http_client_is_answered_as_the_table_of_answers_says() {
    let (router, capture, address) = start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process_support/http_client.py");
    let output = Command::new("python3").args([script, &address]).output().expect("python3 is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let taken: usize = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
    assert_eq!((taken, capture.messages().len()), (56, 56));
    let counters = router.shutdown(PATIENCE);
    assert_eq!(counters.received, 56, "{counters}");
    assert_eq!(counters.inputs[0].bad_requests, 9, "{counters}");
}
