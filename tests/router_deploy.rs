//! What `deploy/` has for those who install the router works as it stands there.
#![cfg(all(unix, feature = "sentry"))]

mod router_support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::mpsc::{channel, Receiver};

use router_support::{command, Directory, Program, PATIENCE};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/metlog-router.toml");

/// A Sentry that takes everything; the first line of each request and its DSN.
fn sentry() -> (Receiver<String>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let dsn = format!("http://s3cr3t@{}/7", listener.local_addr().expect("bound"));
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                while let Some(request) = request(&mut reader) {
                    let _ = sender.send(request);
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                    if reader.get_mut().write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (requests, dsn)
}

fn request(reader: &mut impl BufRead) -> Option<String> {
    let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut first).ok().filter(|count| *count > 0)?;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    Some(first.trim_end().to_owned())
}

#[test]
fn the_reference_backend_runs_and_every_type_is_where_it_belongs() {
    let directory = Directory::new();
    let statsd = UdpSocket::bind("127.0.0.1:0").expect("binds");
    statsd.set_read_timeout(Some(PATIENCE)).expect("set");
    let (requests, dsn) = sentry();
    let mut command = command(&["--config", FILE]);
    command
        .env("METLOG_ADDRESS", "127.0.0.1:0")
        .env("METLOG_ADMIN", "127.0.0.1:0")
        .env("METLOG_DIRECTORY", directory.path())
        .env("STATSD", statsd.local_addr().expect("bound").to_string())
        .env("SENTRY_DSN", &dsn);
    let program = Program::of(command);
    for (message_type, payload, more) in [
        ("oldstyle", "it\\nruns", ""),
        ("counter", "3", r#", "fields": {"name": "hits", "rate": 1.0}"#),
        ("timer", "12", r#", "fields": {"name": "took", "rate": 1.0}"#),
        ("gauge", "7", r#", "fields": {"name": "depth", "rate": 1.0}"#),
        ("panic", "it broke", r#", "severity": 1"#),
        ("cef", "CEF:0|mozilla|weave|3|xx\\\\|x|xx\\\\|x|5|a=b", ""),
        ("procinfo", "1", r#", "fields": {"a": {"b": 1}}"#),
    ] {
        program.send(&format!(
            r#"{{"timestamp": "2026-01-02T03:04:05.000000Z", "type": "{message_type}", "logger": "shop",
                "payload": "{payload}", "env_version": "0.8"{more}}}"#
        ));
    }
    let expected = ["shop.hits:3|c", "shop.took:12|ms", "shop.depth:7|g"];
    let mut metrics = BTreeSet::new();
    let mut datagram = [0; 65_536];
    while !expected.iter().all(|metric| metrics.contains(*metric)) {
        let length =
            statsd.recv(&mut datagram).unwrap_or_else(|_| panic!("of {expected:?} only {metrics:?}"));
        let text = String::from_utf8(datagram[..length].to_vec()).expect("text");
        metrics.extend(text.lines().map(str::to_owned));
    }
    let request = requests.recv_timeout(PATIENCE).expect("an event");
    assert!(request.starts_with("POST /api/7/"), "{request}");
    let report = program.terminate();
    assert!(!report.contains("s3cr3t"), "{report}");
    assert!(requests.try_recv().is_err(), "one event");
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).expect(name);
    assert_eq!(read("text.log"), "2026-01-02T03:04:05.000000Z it\\nruns\n");
    assert_eq!(read("cef.log"), "CEF:0|mozilla|weave|3|xx\\|x|xx\\|x|5|a=b\n");
    let files = std::fs::read_dir(directory.path()).expect("there").flatten();
    let mut files: Vec<_> = files.map(|file| file.file_name().into_string().expect("text")).collect();
    files.sort();
    let rest =
        files.iter().find(|name| name.starts_with("metrics-20") && name.ends_with(".jsonl")).expect("there");
    let types: Vec<String> = read(rest)
        .lines()
        .map(|line| line.parse::<tracing_metlog::Message>().expect("a message").r#type)
        .collect();
    assert_eq!(types, ["panic", "procinfo"]);
    assert_eq!(files.len(), 3, "{files:?}");
}

#[test]
fn the_reference_backend_without_its_variables_says_which_are_missing() {
    let mut command = command(&["--config", FILE, "--check"]);
    let output = command.env_remove("SENTRY_DSN").output().expect("runs");
    let error = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1));
    for name in ["METLOG_ADDRESS", "METLOG_ADMIN", "METLOG_DIRECTORY", "STATSD", "SENTRY_DSN"] {
        assert!(error.contains(&format!("the environment variable {name} is not set")), "{name}: {error}");
    }
}

/// What the service gives the program is what the file asks for.
#[test]
fn the_service_and_the_image_set_the_variables_of_the_file() {
    let read = |name: &str| {
        std::fs::read_to_string(format!("{}/deploy/{name}", env!("CARGO_MANIFEST_DIR"))).expect(name)
    };
    let file = read("metlog-router.toml");
    let asked: BTreeSet<&str> = file
        .split("\"")
        .filter_map(|text| text.split_once("${")?.1.split_once('}'))
        .map(|(name, _)| name)
        .collect();
    for given in ["metlog-router.service", "Dockerfile"] {
        let text = read(given);
        for name in asked.iter().filter(|name| **name != "SENTRY_DSN") {
            assert!(text.contains(&format!("{name}=")), "{given} does not set {name}");
        }
        assert!(text.contains("SENTRY_DSN"), "{given}");
    }
}
