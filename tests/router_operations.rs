//! What a running `metlog-router` tells those who operate it: monitors, the service manager, and itself.
#![cfg(all(unix, feature = "router"))]

mod router_support;

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use router_support::{command, Directory, Program, PATIENCE};

const SERVED: &[&str] =
    &["--listen", "udp://127.0.0.1:0", "--listen", "tcp://127.0.0.1:0", "--route", "*=null"];

#[cfg(feature = "http")]
mod monitors {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::process::{Command, Stdio};

    use super::*;

    fn served() -> (Program, String) {
        let program = Program::of(command(&[SERVED, &["--admin", "127.0.0.1:0"]].concat()));
        let address = program.address("metlog-router serves http://").replace("/metrics and /healthz", "");
        (program, address)
    }

    /// The whole answer; empty if the server is not there.
    fn get(address: &str, path: &str) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(address) {
            let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    }

    /// The metrics as Prometheus' own client reads them: NAME KIND LABELS VALUE.
    fn parsed(text: &str) -> Vec<String> {
        let python = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python/bin/python");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/router_support/metrics.py");
        let mut parser = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{python}: {error}; .ci/test makes it"));
        parser.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
        let output = parser.wait_with_output().expect("waited for");
        assert!(output.status.success(), "not taken:\n{text}");
        String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_client_of_prometheus_reads_every_metric_and_finds_what_was_sent() {
        let (program, address) = served();
        let udp = format!("udp://{}", program.address("metlog-router listens on udp://"));
        for _ in 0..3 {
            program.send(r#"{"type": "timer", "payload": "1"}"#);
        }
        program.send(r#"{"type": "a\"} 1\n\\\u001b b", "payload": "1"}"#);
        program.send("{");
        let malformed = format!("{{\"input\": \"{udp}\", \"reason\": \"invalid_json\"}} 1.0");
        let delivered =
            "metlog_router_output_delivered_messages_total counter {\"output\": \"null\"} 4.0".to_owned();
        let mut metrics = Vec::new();
        program.wait_until("everything is counted", || {
            let answer = get(&address, "/metrics");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
            assert!(
                head.contains("200 OK") && head.contains("text/plain; version=0.0.4; charset=utf-8"),
                "{head}"
            );
            metrics = parsed(body);
            metrics.iter().any(|metric| metric.ends_with(&malformed)) && metrics.contains(&delivered)
        });
        for expected in [
            "metlog_router_received_messages_total counter {} 4.0".to_owned(),
            "metlog_router_messages_total counter {\"type\": \"timer\"} 3.0".to_owned(),
            r#"metlog_router_messages_total counter {"type": "a\"} 1\\n\\\\u{1b} b"} 1.0"#.to_owned(),
            format!("metlog_router_input_messages_total counter {{\"input\": \"{udp}\"}} 4.0"),
            "metlog_router_output_queued_messages gauge {\"output\": \"null\"} 0.0".to_owned(),
        ] {
            assert!(metrics.contains(&expected), "{expected} is not in {metrics:#?}");
        }
        program.terminate();
    }

    #[test]
    fn it_is_healthy_while_it_serves_and_not_while_it_drains() {
        let (program, address) = served();
        assert!(get(&address, "/healthz").starts_with("HTTP/1.1 200 OK\r\n"));
        // A client that has not ended holds up the end.
        let tcp = program.address("metlog-router listens on tcp://");
        let mut client = TcpStream::connect(&tcp).expect("connects");
        client.write_all(b"{\"type\": \"x\"}\n").expect("sent");
        program.wait_until("the client is served", || {
            get(&address, "/metrics").contains("metlog_router_received_messages_total 1\n")
        });
        program.signal("-TERM");
        program.wait_until("it says that it ends", || {
            get(&address, "/healthz").starts_with("HTTP/1.1 503 Service Unavailable\r\n")
        });
        client.write_all(b"{\"type\": \"x\"}\n").expect("sent");
        drop(client);
        let report = program.ended();
        assert!(report.starts_with("received   2 messages"), "{report}");
    }

    #[test]
    fn monitors_that_say_nothing_hold_up_neither_messages_nor_the_end() {
        let (program, address) = served();
        let silent: Vec<_> = (0..100).filter_map(|_| TcpStream::connect(&address).ok()).collect();
        program.send(r#"{"type": "x"}"#);
        let begun = std::time::Instant::now();
        let report = program.terminate();
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        assert!(report.starts_with("received   1 messages"), "{report}");
        drop(silent);
    }
}

#[test]
fn its_own_counters_come_through_its_own_routes_and_are_not_counted_as_received() {
    let directory = Directory::new();
    directory.write(
        "router.toml",
        r#"
        [router]
        report_every = "100ms"
        [[input]]
        url = "udp://127.0.0.1:0"
        [output.metrics]
        type = "file"
        path = "metrics.jsonl"
        [output.rest]
        type = "null"
        [[route]]
        types = ["counter", "gauge"]
        to = "metrics"
        [[route]]
        type = "oldstyle"
        to = "rest"
        "#,
    );
    let mut command = command(&["--config", "router.toml"]);
    let program = Program::of({
        command.current_dir(directory.path());
        command
    });
    for _ in 0..7 {
        program.send(r#"{"type": "oldstyle", "payload": "x"}"#);
    }
    let path = directory.path().join("metrics.jsonl");
    let start = std::time::SystemTime::now();
    let read = || -> Vec<tracing_metlog::Message> {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.lines().map(|line| line.parse().expect("a message")).collect()
    };
    let sum = |messages: &[tracing_metlog::Message], name: &str| -> u64 {
        let named = messages.iter().filter(|message| message.fields["name"] == name);
        named.map(|message| message.payload.to_string().parse::<u64>().expect("a number")).sum()
    };
    program.wait_until("reports have come", || read().len() > 30);
    let report = program.terminate();
    let messages = read();
    assert_eq!(sum(&messages, "received"), 7, "the last report has the rest");
    assert_eq!(sum(&messages, "output.null.delivered"), 7);
    assert!(report.starts_with("received   7 messages"), "{report}");
    let gauges = messages.iter().filter(|message| message.r#type == "gauge").count();
    assert!(gauges > 0 && gauges < messages.len());
    for message in &messages {
        assert_eq!((message.logger.as_str(), &message.fields["rate"]), ("metlog-router", &1.0.into()));
        assert_eq!(year(&message.timestamp), year_of(start), "{}", message.timestamp);
    }
    assert!(report.contains("unrouted   0\n"), "{report}");
}

fn year(timestamp: &str) -> String {
    timestamp[..4].to_owned()
}

/// Right but for the hours around New Year, in which the test may be run again.
fn year_of(time: std::time::SystemTime) -> String {
    let days = time.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs() / 86_400;
    (1970 + days * 10_000 / 3_652_425).to_string()
}

/// What the service manager is told, one datagram after the other.
struct Manager(UnixDatagram);

impl Manager {
    fn hears(&self) -> String {
        self.0.set_read_timeout(Some(PATIENCE)).expect("set");
        let mut text = [0; 4096];
        let length = self.0.recv(&mut text).expect("told");
        String::from_utf8(text[..length].to_vec()).expect("text")
    }
}

fn told(manager: &Manager, name: &str) {
    let directory = Directory::new();
    directory.write("router.toml", "[[input]]\nurl = \"udp://127.0.0.1:0\"\n");
    let mut command = command(&["--config", "router.toml"]);
    command.current_dir(directory.path()).env("NOTIFY_SOCKET", name);
    let program = Program::of(command);
    let address = program.address("listens on ");
    assert_eq!(manager.hears(), format!("READY=1\nSTATUS=listens on {address}"));
    program.hang_up();
    let reloading = manager.hears();
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("with the time");
    time.parse::<u64>().expect("a number");
    assert!(manager.hears().starts_with("READY=1\n"));
    program.signal("-TERM");
    assert_eq!(manager.hears(), "STOPPING=1");
    program.ended();
}

#[test]
fn the_service_manager_hears_when_it_is_ready_reloads_and_ends() {
    let directory = Directory::new();
    let path = directory.path().join("notify");
    told(&Manager(UnixDatagram::bind(&path).expect("binds")), path.to_str().expect("text"));
}

#[cfg(target_os = "linux")]
#[test]
fn the_service_manager_may_have_an_abstract_name() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("metlog-notify-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
    told(&Manager(UnixDatagram::bind_addr(&address).expect("binds")), &format!("@{name}"));
}

#[test]
fn a_watchdog_hears_of_it_again_and_again_until_it_ends() {
    let directory = Directory::new();
    let path = directory.path().join("notify");
    let manager = Manager(UnixDatagram::bind(&path).expect("binds"));
    let mut command = command(SERVED);
    let program = Program::of({
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000");
        command
    });
    assert!(manager.hears().starts_with("READY=1\n"));
    for _ in 0..5 {
        assert_eq!(manager.hears(), "WATCHDOG=1");
    }
    program.signal("-TERM");
    while manager.hears() != "STOPPING=1" {}
    program.ended();
}

#[test]
fn a_service_manager_that_is_not_there_is_named_and_changes_nothing() {
    for name in ["/nonexistent/notify", "vsock:2:1234"] {
        let mut command = command(&["--listen", "udp://127.0.0.1:0", "--listen", "tcp://127.0.0.1:0"]);
        let mut child = command.env("NOTIFY_SOCKET", name).spawn().expect("starts");
        let mut stderr = std::io::BufReader::new(child.stderr.take().expect("piped"));
        let said = router_support::line(&mut stderr);
        assert!(said.starts_with(&format!("metlog-router: NOTIFY_SOCKET {name}: ")), "{said}");
        assert!(router_support::line(&mut stderr).starts_with("metlog-router listens on udp://"));
        child.kill().expect("ended");
        child.wait().expect("waited for");
    }
}
