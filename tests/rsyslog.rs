//! A receiver that nobody here wrote: rsyslogd takes every message of a mixed workload, over UDP and over TCP, and
//! its JSON parser reads each of them.
#![cfg(all(unix, feature = "tracing", feature = "log"))]

mod process_support;

use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use process_support::oracle::assert_balanced;
use process_support::{closed_port, lines_of, Directory, LONG};
use serde_json::Value;
use tracing_metlog::{Builder, Severity};
use tracing_subscriber::layer::SubscriberExt;

/// An rsyslogd of this test's own, which writes what it has parsed to a file.
struct Rsyslog {
    child: Child,
    directory: Directory,
    port: u16,
}

impl Rsyslog {
    fn start() -> Rsyslog {
        let directory = Directory::new();
        let port = closed_port();
        let out = directory.file("out");
        fs::write(directory.file("conf"), configuration(port, &out)).expect("written");
        let mut rsyslog = Rsyslog { child: spawn(&directory), directory, port };
        // The datagram socket is bound by the same configuration, before anything is accepted.
        process_support::eventually("rsyslogd listens", || {
            let ended = rsyslog.child.try_wait().expect("asked");
            assert!(ended.is_none(), "rsyslogd ended: {}", rsyslog.said());
            TcpStream::connect(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_err()
        });
        rsyslog
    }

    fn said(&self) -> String {
        fs::read_to_string(self.directory.file("log")).unwrap_or_default()
    }

    /// What it has parsed, once there are as many as expected.
    fn parsed(&self, count: u64) -> Vec<Value> {
        let out = self.directory.file("out");
        process_support::eventually(&format!("{count} messages; {}", self.said()), || {
            lines_of(&out).len() as u64 >= count
        });
        let read = |line: String| {
            serde_json::from_str::<Value>(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
        };
        let lines: Vec<_> = lines_of(&out).into_iter().map(read).collect();
        for line in &lines {
            assert_eq!(line["parsed"], "OK", "{line}");
        }
        lines.into_iter().map(|mut line| line["message"].take()).collect()
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(directory: &Directory) -> Child {
    let program = ["/usr/sbin/rsyslogd", "/sbin/rsyslogd"].into_iter().find(|path| Path::new(path).exists());
    let program = program.unwrap_or("rsyslogd");
    let log = fs::File::create(directory.file("log")).expect("made");
    let mut command = Command::new(program);
    command.arg("-n").arg("-f").arg(directory.file("conf")).arg("-i").arg(directory.file("pid"));
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("cloned")).stderr(log);
    command.spawn().unwrap_or_else(|error| {
        panic!("rsyslogd is needed for this test and cannot be run ({error}): apt-get install -y rsyslog")
    })
}

fn configuration(port: u16, out: &Path) -> String {
    let out = out.display();
    format!(
        r#"
global(maxMessageSize="64k")
module(load="imudp")
module(load="imtcp")
module(load="mmjsonparse")
template(name="parsed" type="list") {{
    constant(value="{{\"parsed\":\"")
    property(name="parsesuccess")
    constant(value="\",\"message\":")
    property(name="$!")
    constant(value="}}\n")
}}
ruleset(name="metlog") {{
    action(type="mmjsonparse" cookie="" useRawMsg="on")
    action(type="omfile" file="{out}" template="parsed")
}}
input(type="imudp" address="127.0.0.1" port="{port}" ruleset="metlog" rcvbufSize="4m")
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="metlog" supportOctetCountedFraming="on")
"#
    )
}

#[derive(Debug)]
struct Refused(std::io::Error);

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the card was refused")
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Text that has what parsers stumble over, the longer the larger `n`.
fn difficult(n: u64) -> String {
    let pieces = ["é→🦀", "\n", "\t", "\"", "\\", "{\"a\":1}", "\u{1}", "\u{2028}", "%", "'", "\u{7f}", " "];
    let text: String =
        pieces.iter().cycle().skip((n % 12) as usize).take((n % 30) as usize).copied().collect();
    format!("message {n} {text}")
}

const ROUNDS: u64 = 200;
/// Messages a round makes.
const EACH: u64 = 7;

/// One round of a service's day. Each of its messages has an `id` of its own.
fn round(n: u64, client: &tracing_metlog::Client, logger: &dyn log::Log) {
    let id = |of: u64| n * EACH + of;
    {
        let _span = tracing::info_span!("request", id = id(0), path = "/é \"quoted\"").entered();
        tracing::info!(
            id = id(1),
            ratio = 0.1 + n as f64,
            large = u64::MAX,
            negative = -1,
            ok = true,
            "{}",
            difficult(n)
        );
        let error = Refused(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer\nat all"));
        tracing::error!(id = id(2), error = &error as &dyn std::error::Error, "failed");
        tracing::info!(id = id(3), monotonic_counter.requests = 1u64);
    }
    let pairs = [("id", log::kv::Value::from(id(4))), ("text", log::kv::Value::from("a \\ b"))];
    let text = difficult(n + 1);
    let mut record = log::Record::builder();
    record.level(log::Level::Warn).target("library").key_values(&pairs);
    logger.log(&record.args(format_args!("{text}")).build());
    client
        .message("audit")
        .severity(Severity::Notice)
        .payload(difficult(n).as_str())
        .field("id", id(5))
        .send();
    // Up to 20 kB, most of it not ASCII.
    let long = "é".repeat((n % 11) as usize * 1_000);
    client.message("oldstyle").payload(long.as_str()).field("id", id(6)).send();
}

fn builders(address: &str) -> [Builder; 2] {
    [(); 2].map(|()| tracing_metlog::builder().router(address).logger("rsyslog-test").flush_timeout(LONG))
}

/// Sends the workload, `pace` asked after each round with the number of messages so far, and checks what came.
fn understood(rsyslog: &Rsyslog, address: &str, pace: impl Fn(u64, &dyn Fn())) {
    let [builder, for_log] = builders(address);
    let (layer, guard) = builder.build().expect("builds");
    let (logger, log_guard) = for_log.filter("info").build_logger().expect("builds");
    let client = guard.client();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        for n in 0..ROUNDS {
            round(n, &client, &logger);
            pace((n + 1) * EACH, &|| {
                assert_eq!((guard.flush(LONG).pending, log_guard.flush(LONG).pending), (0, 0));
            });
        }
    });
    for stats in [guard.finish(), log_guard.finish()] {
        assert_balanced(&stats);
        assert_eq!((stats.lost.total(), stats.pending), (0, 0), "{stats}");
    }
    check(&rsyslog.parsed(ROUNDS * EACH));
}

fn check(messages: &[Value]) {
    let mut ids = BTreeSet::new();
    for message in messages {
        assert_eq!((&message["env_version"], &message["logger"]), (&"0.8".into(), &"rsyslog-test".into()));
        let id = message["fields"]["id"].as_u64().unwrap_or_else(|| panic!("no id: {message}"));
        assert!(id < ROUNDS * EACH && ids.insert(id), "{id} came twice, or was never sent");
        let (n, of) = (id / EACH, id % EACH);
        let (kind, payload) = (&message["type"], message["payload"].as_str().expect("text"));
        match of {
            0 => assert_eq!((kind, &message["fields"]["name"]), (&"timer".into(), &"request".into())),
            1 => {
                assert_eq!((kind, payload), (&"oldstyle".into(), difficult(n).as_str()));
                assert_eq!(message["fields"]["path"], "/é \"quoted\"");
                assert_eq!(
                    (&message["fields"]["negative"], &message["fields"]["ok"]),
                    (&(-1).into(), &true.into())
                );
            }
            2 => {
                assert_eq!((payload, &message["severity"]), ("failed", &3.into()));
                assert_eq!(message["fields"]["error.chain"][0], "no answer\nat all", "{message}");
            }
            3 => assert_eq!((kind, payload), (&"counter".into(), "1")),
            4 => assert_eq!(
                (payload, &message["fields"]["text"]),
                (difficult(n + 1).as_str(), &"a \\ b".into())
            ),
            5 => assert_eq!((kind, payload), (&"audit".into(), difficult(n).as_str())),
            _ => assert_eq!(payload.chars().count() as u64, n % 11 * 1_000),
        }
    }
    assert_eq!(ids.len() as u64, ROUNDS * EACH);
}

#[test]
fn rsyslog_parses_every_message_over_tcp() {
    let rsyslog = Rsyslog::start();
    understood(&rsyslog, &format!("tcp://127.0.0.1:{}", rsyslog.port), |_, _| {});
}

#[test]
fn rsyslog_parses_every_message_over_tcp_with_octet_counts() {
    let rsyslog = Rsyslog::start();
    understood(&rsyslog, &format!("tcp://127.0.0.1:{}?framing=octet-count", rsyslog.port), |_, _| {});
}

/// UDP promises nothing once the kernel has a datagram: the workload is paced by what rsyslogd has written.
#[test]
fn rsyslog_parses_every_message_over_udp() {
    let rsyslog = Rsyslog::start();
    understood(&rsyslog, &format!("udp://127.0.0.1:{}", rsyslog.port), |count, flush| {
        if count % (EACH * 10) == 0 {
            flush();
            let out = rsyslog.directory.file("out");
            process_support::eventually("rsyslogd has written them", || lines_of(&out).len() as u64 >= count);
        }
    });
}

#[test]
fn rsyslog_gets_what_was_made_while_it_restarted() {
    let first = Rsyslog::start();
    let address = format!("tcp://127.0.0.1:{}", first.port);
    let guard = process_support::built(tracing_metlog::builder().router(&address).flush_timeout(LONG));
    let send = |id: u64| guard.client().message("oldstyle").field("id", id).send();
    send(0);
    assert_eq!(guard.flush(LONG).pending, 0);
    first.parsed(1);
    let port = first.port;
    drop(first);
    send(1);
    let directory = Directory::new();
    fs::write(directory.file("conf"), configuration(port, &directory.file("out"))).expect("written");
    let second = Rsyslog { child: spawn(&directory), directory, port };
    assert_eq!(guard.flush(LONG).pending, 0);
    send(2);
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!((stats.delivered, stats.lost.total()), (3, 0));
    let ids: Vec<_> = second.parsed(2).iter().map(|message| message["fields"]["id"].clone()).collect();
    assert_eq!(ids, [1, 2]);
}
