//! Delivery over HTTP, to receivers that are not ours, to our own router while it is killed, and to enemies.
#![cfg(all(unix, feature = "http"))]

mod process_support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use process_support::child;
use process_support::fault_report;
use process_support::oracle::{assert_accounted, assert_balanced, send, send_all, Got};
use process_support::stalled::NeverReads;
use process_support::{built, eventually, lines_of, timed, Directory, LONG};
use tracing_metlog::{LossReason, WhenFull};

/// A process that is killed when its test ends.
struct Program(Child);

impl Program {
    /// Starts it and reads its first line.
    fn start(command: &mut Command, line_of: impl FnOnce(&mut Child) -> Box<dyn Read>) -> (Program, String) {
        let mut child = command.stdin(Stdio::null()).spawn().expect("starts");
        let mut lines = BufReader::new(line_of(&mut child));
        let mut line = String::new();
        lines.read_line(&mut line).expect("says where it listens");
        (Program(child), line.trim_end().to_owned())
    }

    fn kill(mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("ended");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Python's own server; see `http_receiver.py`.
fn python(path: &Path, credentials: &str, plan: &str) -> (Program, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process_support/http_receiver.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(path).args([credentials, plan]).stdout(Stdio::piped());
    let (program, port) = Program::start(&mut command, |child| Box::new(child.stdout.take().expect("piped")));
    (program, format!("http://127.0.0.1:{port}/in"))
}

/// Everything there, once and in order, although the receiver gives the statuses of `plan` in turn.
fn arrives(plan: &str, options: &str) {
    let directory = Directory::new();
    let path = directory.file("received");
    let (_program, address) = python(&path, "", plan);
    let guard = built(tracing_metlog::builder().router(format!("{address}{options}")).flush_timeout(LONG));
    send_all(&guard.client(), 2, 1_000);
    assert_eq!(guard.flush(LONG).pending, 0);
    let stats = guard.finish();
    let got = Got::read(&lines_of(&path));
    got.assert_complete(2, 1_000);
    got.assert_ordered();
    assert_accounted(&stats, &got, 2, 1_000);
}

#[test]
fn a_receiver_that_is_not_ours_gets_every_message_once_and_in_order() {
    arrives("200", "");
}

#[test]
fn a_receiver_that_is_not_ours_unpacks_what_was_packed() {
    arrives("200", "?gzip=true&batch=20000");
}

#[test]
fn refusals_that_ask_for_another_try_cost_no_message_and_make_no_duplicate() {
    arrives("503,200,429,408,200", "?batch=20000");
}

#[test]
fn credentials_come_from_a_file_and_a_wrong_one_costs_messages_that_are_counted() {
    let directory = Directory::new();
    let (path, token) = (directory.file("received"), directory.file("token"));
    let (_program, address) = python(&path, "Bearer right", "200");
    std::fs::write(&token, "Authorization: Bearer wrong\n").expect("written");
    let address = format!("{address}?header-file={}", token.display());
    let guard = built(tracing_metlog::builder().router(&address).flush_timeout(LONG));
    let client = guard.client();
    (0..10).for_each(|n| send(&client, 0, n));
    guard.flush(LONG);
    eventually("they are refused", || guard.stats().pending == 0);
    let stats = guard.stats();
    assert!(stats.lost.count(LossReason::Rejected) >= 10, "{stats}");
    let problem = stats.destinations[0].problem.clone().expect("a problem");
    assert!(problem.starts_with("401 Unauthorized") && !problem.contains("wrong"), "{problem}");

    std::fs::write(&token, "Authorization: Bearer right\n").expect("written");
    (0..10).for_each(|n| send(&client, 1, n));
    eventually("they are taken", || guard.stats().pending == 0);
    let stats = guard.finish();
    assert_balanced(&stats);
    let got = Got::read(&lines_of(&path));
    assert_eq!(got.ids.keys().filter(|(t, _)| *t == 1).count(), 10);
    assert_eq!((stats.delivered, stats.lost.total()), (got.count(), stats.emitted - got.count()));
}

#[test]
fn a_name_without_an_address_holds_nothing_up_and_loses_nothing_before_the_end() {
    let begun =
        tracing_metlog::builder().router("http://router.invalid/in").flush_timeout(Duration::from_secs(2));
    let (building, guard) = timed(|| built(begun));
    assert!(building < Duration::from_millis(500), "{building:?}");
    (0..100).for_each(|n| send(&guard.client(), 0, n));
    let (flushing, flushed) = timed(|| guard.flush(Duration::from_secs(1)));
    assert!(flushing < Duration::from_millis(1_500) && flushed.pending >= 100, "{flushing:?}: {flushed:?}");
    let (ending, stats) = timed(|| guard.finish());
    assert!(ending < Duration::from_secs(5), "{ending:?}");
    assert_balanced(&stats);
    assert_eq!(stats.lost.count(LossReason::Unreachable), stats.emitted);
    let promise = "the program is never held up; what is left at its end is counted";
    fault_report::record_stats("HTTP: the router's name has no address", promise, &stats, 0);
}

#[test]
fn a_receiver_that_never_answers_holds_no_call_and_no_flush_up_and_what_it_may_have_got_is_counted_apart() {
    let receiver = NeverReads::start();
    let address = format!("{}/in?batch=2000", receiver.address.replace("tcp://", "http://"));
    let guard = built(tracing_metlog::builder().router(&address).flush_timeout(Duration::from_secs(1)));
    let client = guard.client();
    let mut slowest = Duration::ZERO;
    for n in 0..1_000 {
        let (took, ()) = timed(|| send(&client, 0, n));
        slowest = slowest.max(took);
    }
    assert!(slowest < Duration::from_millis(500), "the slowest call took {slowest:?}");
    let (flushing, flushed) = timed(|| guard.flush(Duration::from_secs(1)));
    assert!(flushing < Duration::from_millis(1_500), "{flushing:?}");
    assert_eq!(flushed.pending, 1_000);
    let (ending, stats) = timed(|| guard.finish());
    assert!(ending < Duration::from_secs(5), "{ending:?}");
    assert_balanced(&stats);
    let (written, left) =
        (stats.lost.count(LossReason::Unconfirmed), stats.lost.count(LossReason::Unreachable));
    assert!((1..50).contains(&written), "one request was made: {stats}");
    assert_eq!((stats.delivered, written + left), (0, stats.emitted), "{stats}");
    let promise = "no call waits; at the end what may have arrived is told from what has not";
    fault_report::record_stats("HTTP: receiver that never answers", promise, &stats, 0);
}

/// What a child of the next test does: it sends, in a process whose variables name a proxy.
#[test]
fn child_that_sends() {
    let Some(_) = child::mode() else { return };
    let guard = built(tracing_metlog::builder().router(child::router()).flush_timeout(LONG));
    (0..10).for_each(|n| send(&guard.client(), 0, n));
    child::say("account", guard.finish());
}

#[test]
fn a_proxy_that_the_variables_name_gets_no_message() {
    let directory = Directory::new();
    let path = directory.file("received");
    let (_program, address) = python(&path, "", "200");
    let mut command = child::command("child_that_sends", "send", &address);
    let nobody = format!("http://127.0.0.1:{}", process_support::closed_port());
    for variable in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
        command.env(variable, &nobody);
    }
    let ended = child::run(command);
    assert!(ended.said("account").contains("delivered 10 + lost 0"), "{ended:#?}");
    Got::read(&lines_of(&path)).assert_complete(1, 10);
}

/// Sends numbered messages from a thread of its own until it is told to stop; how many it sent.
struct Producer {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Producer {
    fn start(client: tracing_metlog::Client) -> Producer {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut n = 0;
            while !stopped.load(Ordering::Relaxed) {
                send(&client, 0, n);
                n += 1;
                if n % 50 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            n
        });
        Producer { stop, thread }
    }

    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it sends")
    }
}

/// None is missing and none is made up; how many came more than once, counted as often as they came again.
#[track_caller]
fn duplicates(got: &Got, sent: u64) -> u64 {
    let missing: Vec<_> = got.missing(1, sent).take(5).collect();
    assert!(missing.is_empty(), "of {sent}, {} came; missing {missing:?}, ..", got.ids.len());
    assert!(got.ids.keys().all(|&(t, n)| t == 0 && n < sent), "one was never sent");
    got.ids.values().map(|&times| u64::from(times) - 1).sum()
}

#[cfg(feature = "router")]
#[test]
fn a_router_that_is_killed_fifty_times_in_the_middle_of_the_stream_loses_nothing_that_it_has_confirmed() {
    const RESTARTS: u64 = 50;
    let directory = Directory::new();
    let path = directory.file("received");
    let route = format!("*=file:{}", path.display());
    let start = |port: u16| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metlog-router"));
        command.args(["--http", &format!("127.0.0.1:{port}"), "--route", &route]).stderr(Stdio::piped());
        let (program, line) =
            Program::start(&mut command, |child| Box::new(child.stderr.take().expect("piped")));
        let port = line.strip_prefix("metlog-router listens on http://127.0.0.1:").expect(&line).to_owned();
        (program, port.parse::<u16>().expect("a port"))
    };
    let (mut router, port) = start(0);
    let address = format!("http://127.0.0.1:{port}/?batch=50000");
    let builder = tracing_metlog::builder().router(&address).when_full(WhenFull::Block).flush_timeout(LONG);
    let guard = built(builder);
    let producer = Producer::start(guard.client());
    for restart in 1..=RESTARTS {
        let before = guard.stats().delivered;
        eventually("it goes on", || guard.stats().delivered > before);
        // Anywhere between two answers, and not always at the same place.
        let moment = std::time::Instant::now() + Duration::from_micros(restart * 137 % 4_000);
        while std::time::Instant::now() < moment {
            std::hint::spin_loop();
        }
        router.kill();
        (router, _) = start(port);
    }
    let sent = producer.finish();
    let stats = guard.finish();
    let reading = std::fs::read(&path).expect("readable");
    // A line that was cut by a kill was not confirmed, and came again.
    let text = String::from_utf8_lossy(&reading).into_owned();
    let (whole, cut): (Vec<_>, Vec<_>) =
        text.lines().partition(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
    assert!(cut.len() as u64 <= RESTARTS, "{} lines are cut", cut.len());
    let got = Got::read(&whole);
    let again = duplicates(&got, sent);
    assert_balanced(&stats);
    assert_eq!((stats.lost.total(), stats.pending, stats.delivered), (0, 0, stats.emitted));
    assert!(stats.emitted >= sent);
    let promise = "nothing lost; what was not confirmed is sent again";
    fault_report::record_stats("HTTP: router killed (-9) 50 times in mid-stream", promise, &stats, again);
}

/// A receiver that is different each time. What it confirms it has kept.
struct Enemy {
    port: u16,
    kept: Arc<Mutex<Vec<String>>>,
    tricks: Arc<AtomicU64>,
}

impl Enemy {
    fn start() -> Enemy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = listener.local_addr().expect("bound").port();
        let kept = Arc::new(Mutex::new(Vec::new()));
        let tricks = Arc::new(AtomicU64::new(0));
        let (keeping, counting) = (Arc::clone(&kept), Arc::clone(&tricks));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.expect("accepted"));
                while Enemy::plays(&mut stream, &keeping, &counting).is_some() {}
            }
        });
        Enemy { port, kept, tricks }
    }

    /// One request, or what becomes of it; `None` ends the connection.
    fn plays(stream: &mut BufReader<TcpStream>, kept: &Mutex<Vec<String>>, tricks: &AtomicU64) -> Option<()> {
        let trick = tricks.fetch_add(1, Ordering::Relaxed);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if trick % 11 == 3 && head.len() > 20 {
                return None;
            }
            (stream.read_line(&mut head).ok()? > 0).then_some(())?;
        }
        let length = head.to_lowercase();
        let length = length.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
        let mut body = vec![0; if trick % 11 == 5 { length / 2 } else { length }];
        stream.read_exact(&mut body).ok()?;
        let endless = "HTTP/1.1 200 OK\r\n".to_owned() + &"X: y\r\n".repeat(20_000);
        let (answer, goes_on) = match trick % 11 {
            0 => ("garbage\r\n\r\n", false),
            1 => ("HTTP/1.1 2000 OK\r\n\r\n", false),
            2 => (endless.as_str(), false),
            // It has them and does not say so: they come again.
            4 => {
                Enemy::keep(&body, kept);
                ("", false)
            }
            5 => return None,
            6 => ("HTTP/1.1 503 Busy\r\nRetry-After: soon\r\nContent-Length: 0\r\n\r\n", true),
            7 => ("HTTP/1.1 500 \u{1}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", false),
            8 => {
                let answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                Enemy::keep(&body, kept);
                (answer, true)
            }
            9 => {
                Enemy::keep(&body, kept);
                ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", false)
            }
            _ => {
                Enemy::keep(&body, kept);
                ("HTTP/1.1 204 No Content\r\n\r\n", true)
            }
        };
        stream.get_mut().write_all(answer.as_bytes()).ok()?;
        goes_on.then_some(())
    }

    fn keep(body: &[u8], kept: &Mutex<Vec<String>>) {
        let text = std::str::from_utf8(body).expect("text");
        kept.lock().expect("whole").extend(text.lines().map(str::to_owned));
    }
}

#[test]
fn a_receiver_that_talks_nonsense_and_closes_when_it_likes_costs_time_and_no_message() {
    let enemy = Enemy::start();
    let address = format!("http://127.0.0.1:{}/?batch=3000&timeout=5", enemy.port);
    let guard =
        built(tracing_metlog::builder().router(&address).when_full(WhenFull::Block).flush_timeout(LONG));
    let client = guard.client();
    let sent = 500;
    (0..sent).for_each(|n| send(&client, 0, n));
    eventually("every message is confirmed", || {
        guard.flush(Duration::from_millis(100));
        guard.stats().pending == 0
    });
    assert!(enemy.tricks.load(Ordering::Relaxed) > 22, "each trick was played");
    let stats = guard.finish();
    assert_balanced(&stats);
    let got = Got::read(&enemy.kept.lock().expect("whole"));
    let again = duplicates(&got, sent);
    assert!(again > 0, "what it had taken without a word came again");
    assert_eq!((stats.lost.total(), stats.delivered), (0, stats.emitted));
    let promise = "nothing lost: only a status from 200 to 299 confirms";
    fault_report::record_stats("HTTP: receiver that talks nonsense", promise, &stats, again);
}
