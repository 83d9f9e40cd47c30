//! Clients that mean harm, one and a thousand at once, at the real `metlog-router`; and beside them an ordinary one, whose
//! every message must arrive, once and unchanged, whatever the others do. The router's memory is bounded, and its own
//! account says what became of everything.
#![cfg(all(target_os = "linux", feature = "router", feature = "http"))]

mod process_support;
#[path = "process_support/security_report.rs"]
mod security_report;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use process_support::oracle::{send, Got};
use process_support::{built, eventually, lines_of, timed, Directory, LONG};
use security_report::Row;

/// What the router may take whatever is done to it. A thousand connections are a thousand threads, about 40 KiB each;
/// unfinished messages have 16 MiB and 16 KiB each, bodies of requests 16 MiB and 64 KiB each, and those in work another
/// 16 MiB. A buffer that grows may be twice as large as what is in it, and bodies take more while they are decoded.
const MOST_KIB: u64 = 200 * 1024;

/// Which way the attack and the ordinary client take.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Udp,
    Tcp,
    Http,
}

/// The router; an optimised one if that is what is to be measured (`.ci/security`).
fn router_program() -> Command {
    let built = env!("CARGO_BIN_EXE_metlog-router").into();
    Command::new(std::env::var_os("METLOG_TEST_PROGRAM").unwrap_or(built))
}

/// A router with all three inputs, whose ordinary messages go to one file and those of a flood to another.
struct Program {
    child: Child,
    stderr: BufReader<ChildStderr>,
    addresses: Vec<String>,
    directory: Directory,
}

impl Program {
    fn start() -> Self {
        let directory = Directory::new();
        let route = |types: &str, name: &str| format!("{types}=file:{}", directory.file(name).display());
        let mut command = router_program();
        command.args([
            "--listen",
            "udp://127.0.0.1:0",
            "--listen",
            "tcp://127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
        ]);
        command.args(["--route", &route("oldstyle", "ordinary"), "--route", &route("flood", "flood")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let addresses = (0..3).map(|_| {
            let mut line = String::new();
            stderr.read_line(&mut line).expect("text");
            line.trim_end()
                .strip_prefix("metlog-router listens on ")
                .expect("says where it listens")
                .to_owned()
        });
        let addresses = addresses.collect();
        Program { child, stderr, addresses, directory }
    }

    fn address(&self, way: Way) -> &str {
        self.addresses[way as usize].split_once("://").expect("a URL").1
    }

    /// The most memory it has had.
    fn peak_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("listed");
        line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
    }

    /// Ends it; what it says of everything.
    fn terminate(&mut self) -> String {
        let kill = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(kill.expect("kill runs").success());
        let mut report = String::new();
        self.stderr.read_to_string(&mut report).expect("text");
        assert_eq!(self.child.wait().expect("ends").code(), Some(0), "{report}");
        report
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number behind this word in the router's report, or 0.
fn count(report: &str, word: &str) -> u64 {
    let Some((_, rest)) = report.split_once(&format!("{word} ")) else { return 0 };
    rest.split(|letter: char| !letter.is_ascii_digit())
        .next()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

/// One attack at a time: they would take each other's processor and be slow for no reason of the router's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all).expect("raised");
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is left when all is over.
struct Outcome {
    /// The whole report.
    report: String,
    /// What it says of the input that was attacked.
    input: String,
    program: Program,
    sent: u64,
}

/// Runs `harm` in so many clients at once, each told its number, with an ordinary client beside them on the same input
/// (over TCP, if the attack is one of datagrams).
fn attack(name: &str, way: Way, clients: usize, harm: impl Fn(usize, &str) + Sync) -> Outcome {
    let _alone = alone();
    let mut program = Program::start();
    let url = program.addresses[if way == Way::Udp { Way::Tcp } else { way } as usize].clone();
    let guard = built(tracing_metlog::builder().router(url).flush_timeout(LONG));
    let (ready, is_over) = (Barrier::new(clients + 1), AtomicBool::new(false));
    let (mut sent, mut slowest) = (0, Duration::ZERO);
    std::thread::scope(|scope| {
        let attackers: Vec<_> = (0..clients)
            .map(|number| {
                let (ready, harm, program) = (&ready, &harm, &program);
                let builder = std::thread::Builder::new().stack_size(128 * 1024);
                let run = move || {
                    ready.wait();
                    harm(number, program.address(way));
                };
                builder.spawn_scoped(scope, run).expect("starts")
            })
            .collect();
        let is_over = &is_over;
        scope.spawn(move || {
            let failed = attackers.into_iter().filter_map(|attacker| attacker.join().err()).count();
            is_over.store(true, Ordering::Release);
            assert_eq!(failed, 0, "attackers that failed");
        });
        ready.wait();
        let client = guard.client();
        while !is_over.load(Ordering::Acquire) || sent < 500 {
            (0..50).for_each(|number| send(&client, 0, sent + number));
            sent += 50;
            let (took, flushed) = timed(|| guard.flush(LONG));
            assert_eq!(flushed.pending, 0, "{flushed:?}");
            slowest = slowest.max(took);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let stats = guard.finish();
    assert_eq!((stats.delivered, stats.lost.total()), (sent, 0), "{stats:?}");
    let ordinary = program.directory.file("ordinary");
    eventually("all is written", || lines_of(&ordinary).len() as u64 >= sent);
    let peak_kib = program.peak_kib();
    let report = program.terminate();
    let got = Got::read(&lines_of(&ordinary));
    got.assert_complete(1, sent);
    got.assert_ordered();
    let input = report.lines().find(|line| line.contains(&program.addresses[way as usize])).expect("listed");
    let input = input.split_once("received ").map_or("", |(_, rest)| rest).to_owned();
    let counters = format!("received {input}");
    let arrived = got.count();
    assert!(peak_kib < MOST_KIB, "{peak_kib} KiB\n{report}");
    security_report::record(&Row {
        attack: name,
        clients,
        sent,
        arrived,
        slowest,
        peak_kib,
        counters: &counters,
    });
    Outcome { report, input, program, sent }
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the kernel connects");
    stream.set_read_timeout(Some(LONG)).expect("set");
    stream.set_write_timeout(Some(LONG)).expect("set");
    stream
}

/// Sends what it can: a router that closes the connection meanwhile is in its right.
fn push(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

/// Waits until the router has closed the connection, or answered and closed it.
fn wait_for_end(stream: &mut TcpStream) {
    let begun = Instant::now();
    let _ = std::io::copy(stream, &mut std::io::sink());
    assert!(begun.elapsed() < LONG, "the router keeps the connection");
}

/// Ends the sending, and waits until the router has read all of it.
fn finish(mut stream: TcpStream) {
    let _ = stream.shutdown(std::net::Shutdown::Write);
    wait_for_end(&mut stream);
}

const GARBAGE: [&[u8]; 8] = [
    b"{",
    b"nonsense",
    b"{\"type\": 1}",
    b"[1, 2, 3]",
    b"{\"type\": \"x\", \"severity\": 99}",
    b"\xff\xfe\x00",
    b"{\"type\": \"x\", \"fields\": {\"a\": 1e999, \"b\": }}",
    b"\0msgpack::\x81",
];

fn malformed(clients: usize) {
    const ROUNDS: usize = 20;
    let outcome = attack("malformed JSON in lines", Way::Tcp, clients, |_, address| {
        let mut stream = connect(address);
        for _ in 0..ROUNDS {
            push(&mut stream, &GARBAGE.map(|line| [line, b"\n"].concat()).concat());
        }
        finish(stream);
    });
    let expected = (clients * ROUNDS * GARBAGE.len()) as u64;
    assert_eq!(count(&outcome.input, "malformed"), expected, "{}", outcome.report);
    assert_eq!(count(&outcome.report, "received  "), outcome.sent);
}

#[test]
fn malformed_json_of_one_client_costs_the_others_nothing() {
    malformed(1);
}

#[test]
fn malformed_json_of_a_thousand_clients_costs_the_others_nothing() {
    malformed(1_000);
}

fn deep(clients: usize) {
    let deep = format!("{{\"type\": \"x\", \"fields\": {{\"a\": {}\n", "[".repeat(30_000));
    let outcome = attack("JSON nested 30,000 deep", Way::Tcp, clients, |_, address| {
        let mut stream = connect(address);
        (0..3).for_each(|_| push(&mut stream, deep.as_bytes()));
        finish(stream);
    });
    assert_eq!(count(&outcome.input, "invalid_json"), clients as u64 * 3, "{}", outcome.report);
}

#[test]
fn deep_json_of_one_client_and_of_a_thousand_is_counted() {
    deep(1);
    deep(1_000);
}

#[test]
fn an_endless_line_is_skipped_and_half_messages_of_a_thousand_find_their_bound() {
    let outcome = attack("one line of 64 MiB", Way::Tcp, 1, |_, address| {
        let mut stream = connect(address);
        (0..64).for_each(|_| push(&mut stream, &vec![b'x'; 1024 * 1024]));
        finish(stream);
    });
    assert_eq!(count(&outcome.input, "too_long"), 1, "{}", outcome.report);
    let all_have_sent = Barrier::new(1_000);
    let outcome = attack("half a message of 512 KiB, and no more of it", Way::Tcp, 1_000, |_, address| {
        let mut stream = connect(address);
        push(&mut stream, &vec![b'x'; 512 * 1024]);
        all_have_sent.wait();
        finish(stream);
    });
    assert!(count(&outcome.input, "no_room") > 0, "{}", outcome.report);
    assert_eq!(count(&outcome.input, "malformed"), 1_000, "every one is counted: {}", outcome.report);
}

fn bad_counts(clients: usize) {
    let outcome = attack("octet counts that are wrong", Way::Tcp, clients, |number, address| {
        let mut stream = connect(address);
        for _ in 0..20 {
            let text: &[u8] = match number % 4 {
                0 => b"999999999 {}",
                1 => b"5{\"type\": \"x\"}",
                2 => b"00000000000000000000001 {",
                _ => b"3 {\"type\": \"x\"}",
            };
            push(&mut stream, text);
        }
        finish(stream);
    });
    assert!(count(&outcome.input, "malformed") >= clients as u64, "{}", outcome.report);
}

#[test]
fn bad_octet_counts_of_one_client_and_of_a_thousand_are_counted() {
    bad_counts(1);
    bad_counts(1_000);
}

fn slow(clients: usize) {
    let outcome = attack("slowloris: a message that goes on for ever", Way::Tcp, clients, |_, address| {
        let mut stream = connect(address);
        stream.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
        push(&mut stream, b"{\"type\": \"");
        let begun = Instant::now();
        // A byte twice a second, until the router has had enough.
        while !matches!(stream.read(&mut [0]), Ok(0)) && stream.write_all(b"x").is_ok() {
            assert!(begun.elapsed() < LONG, "the router keeps the connection");
        }
    });
    assert_eq!(count(&outcome.input, "too_slow"), clients as u64, "{}", outcome.report);
}

#[test]
fn slow_messages_of_one_client_and_of_a_thousand_are_ended() {
    slow(1);
    slow(1_000);
}

#[test]
fn slow_requests_of_a_thousand_clients_are_ended_and_leave_room_for_others() {
    let name = "slowloris: heads and bodies of requests that go on for ever";
    let outcome = attack(name, Way::Http, 1_000, |number, address| {
        let mut stream = connect(address);
        stream.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
        let head: &[u8] = match number % 2 {
            0 => b"POST / HTTP/1.1\r\nX: ",
            _ => b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n",
        };
        push(&mut stream, head);
        let begun = Instant::now();
        while !matches!(stream.read(&mut [0; 64]), Ok(0)) && stream.write_all(b"x").is_ok() {
            assert!(begun.elapsed() < LONG, "the router keeps the connection");
        }
    });
    let refused = count(&outcome.input, "refused");
    assert!(refused >= 1_000 && count(&outcome.input, "gave_way") > 0, "{}", outcome.report);
}

#[test]
fn three_thousand_connections_that_say_nothing_shut_nobody_out() {
    for way in [Way::Tcp, Way::Http] {
        let name = match way {
            Way::Tcp => "3 connections of each client that say nothing (TCP)",
            _ => "3 connections of each client that say nothing (HTTP)",
        };
        let all_are_in = Barrier::new(1_000);
        let outcome = attack(name, way, 1_000, |_, address| {
            let streams: Vec<TcpStream> = (0..3).map(|_| connect(address)).collect();
            all_are_in.wait();
            std::thread::sleep(Duration::from_secs(1));
            drop(streams);
        });
        let turned_out = count(&outcome.input, "gave_way") + count(&outcome.input, "too_many_connections");
        // Who found no place waited in the kernel until the others had gone.
        assert!(turned_out > 0, "{}", outcome.report);
    }
}

fn flood(clients: usize, each: usize) {
    let outcome = attack("a flood of messages", Way::Tcp, clients, |number, address| {
        let line = format!("{{\"type\": \"flood\", \"payload\": \"{number}\", \"fields\": {{\"n\": 1}}}}\n");
        let mut stream = connect(address);
        (0..each / 100).for_each(|_| push(&mut stream, line.repeat(100).as_bytes()));
        finish(stream);
    });
    let total = outcome.sent + (clients * each) as u64;
    assert_eq!(count(&outcome.report, "received  "), total, "{}", outcome.report);
    let written = lines_of(&outcome.program.directory.file("flood")).len() as u64;
    let flooded = outcome.report.lines().find(|line| line.contains("/flood ")).expect("listed");
    let account = count(flooded, "delivered") + count(flooded, "dropped");
    assert_eq!((written, account), (count(flooded, "delivered"), total - outcome.sent), "{}", outcome.report);
}

#[test]
fn a_flood_of_one_client_and_of_a_thousand_is_accounted_for() {
    flood(1, 100_000);
    flood(1_000, 300);
}

fn datagrams(clients: usize, each: usize) {
    let outcome = attack("a flood of datagrams, one in eight a message", Way::Udp, clients, |_, address| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
        for round in 0..each {
            let bytes = match round % 8 {
                0 => &b"{\"type\": \"flood\"}"[..],
                kind => GARBAGE[kind],
            };
            socket.send_to(bytes, address).expect("sent");
        }
    });
    let input = &outcome.input;
    let received: u64 = input
        .split(|letter: char| !letter.is_ascii_digit())
        .next()
        .expect("a number")
        .parse()
        .expect("a number");
    let account = received + count(input, "malformed") + count(input, "kernel dropped");
    assert_eq!(account, (clients * each) as u64, "{}", outcome.report);
}

#[test]
fn a_flood_of_datagrams_is_accounted_for_with_what_the_kernel_dropped() {
    datagrams(1, 200_000);
    datagrams(1_000, 200);
}

/// The processor time that the process has used.
fn processor_time(program: &Program) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", program.child.id())).expect("it runs");
    let words: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    // What every Linux counts processor time in for the outside, whatever it does inside.
    const TICKS: u64 = 100;
    let ticks: u64 = words[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

#[test]
#[ignore = "a measurement, which means something for an optimised router: .ci/security"]
fn a_hundred_thousand_datagrams_a_second_lose_none() {
    const SECONDS: u64 = 5;
    const EACH_MILLISECOND: u64 = 100;
    let _alone = alone();
    let mut program = Program::start();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    socket.connect(program.address(Way::Udp)).expect("connects");
    let line = r#"{"timestamp": "2026-01-01T00:00:00.000000Z", "logger": "app", "type": "flood", "severity": 6, "payload": "an ordinary message of an ordinary length", "fields": {"user": "bob", "n": 12345}, "env_version": "0.8", "metlog_pid": 1, "metlog_hostname": "host"}"#;
    let (begun, before) = (Instant::now(), processor_time(&program));
    let mut slowest = Duration::ZERO;
    for millisecond in 0..SECONDS * 1000 {
        let due = begun + Duration::from_millis(millisecond);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        slowest = slowest.max(due.elapsed());
        for _ in 0..EACH_MILLISECOND {
            socket.send(line.as_bytes()).expect("sent");
        }
    }
    let took = begun.elapsed();
    let sent = SECONDS * 1000 * EACH_MILLISECOND;
    let flood = program.directory.file("flood");
    let mut settled = 0;
    eventually("nothing more is written", || {
        let before = std::mem::replace(&mut settled, std::fs::metadata(&flood).map_or(0, |file| file.len()));
        std::thread::sleep(Duration::from_millis(200));
        settled > 0 && settled == before
    });
    let used = processor_time(&program) - before;
    let peak_kib = program.peak_kib();
    let report = program.terminate();
    let arrived = lines_of(&flood).len() as u64;
    let counters = format!(
        "kernel dropped {}; sent in {took:.2?}, latest burst {slowest:.0?} late; the router's processor time {used:.2?}",
        count(&report, "kernel dropped"),
    );
    assert_eq!(arrived + count(&report, "kernel dropped"), sent, "{report}");
    let attack = "none: 100,000 datagrams a second, paced";
    security_report::record(&Row {
        attack,
        clients: 1,
        sent,
        arrived,
        slowest,
        peak_kib,
        counters: &counters,
    });
    assert_eq!(arrived, sent, "{report}");
}

fn bomb() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    (0..256).for_each(|_| encoder.write_all(&vec![b'\n'; 1024 * 1024]).expect("packed"));
    let packed = encoder.finish().expect("packed");
    assert!(packed.len() < 300 * 1024, "256 MiB in {} bytes", packed.len());
    packed
}

fn bombs(clients: usize) {
    let bomb = bomb();
    let head = format!("POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", bomb.len());
    let request = [head.as_bytes(), &bomb].concat();
    let outcome = attack("256 MiB packed into 260 KB of gzip", Way::Http, clients, |_, address| {
        let mut stream = connect(address);
        push(&mut stream, &request);
        finish(stream);
    });
    let told = ["busy", "bad requests", "refused"].map(|word| count(&outcome.input, word));
    assert!(told.iter().sum::<u64>() >= clients as u64, "{}", outcome.report);
    assert_eq!(count(&outcome.report, "received  "), outcome.sent);
}

#[test]
fn compression_bombs_of_one_client_and_of_a_thousand_are_not_unpacked() {
    bombs(1);
    bombs(1_000);
}

#[test]
fn a_payload_with_line_ends_and_escapes_is_one_line_of_a_file_and_of_the_console() {
    let _alone = alone();
    let directory = Directory::new();
    let file = directory.file("lines");
    let mut command = router_program();
    command.args(["--listen", "tcp://127.0.0.1:0", "--route", "*=console", "--color", "always"]);
    command.args(["--route", &format!("*=file:{}", file.display())]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("text");
    let address =
        line.trim_end().strip_prefix("metlog-router listens on tcp://").expect("an address").to_owned();
    let evil = [
        "a\n{\"type\": \"forged\"}\n",
        "a\r\n2026-01-01T00:00:00Z root logged in",
        "\u{1b}[2J\u{1b}]0;owned\u{7}",
        "\u{9b}31m\u{85}\u{2028}\u{2029}\u{202e}",
        "\0\u{8}\u{7f}\u{b}\u{c}",
    ];
    let mut stream = connect(&address);
    for evil in evil {
        let message = serde_json::json!({
            "type": format!("x{evil}"), "logger": evil, "payload": evil, "fields": {evil: evil}, "metlog_hostname": evil,
        });
        stream.write_all(format!("{message}\n").as_bytes()).expect("sent");
    }
    drop(stream);
    eventually("all is written", || lines_of(&file).len() >= evil.len());
    let kill = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(kill.expect("kill runs").success());
    let mut console = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut console).expect("text");
    assert!(child.wait().expect("ends").success());
    let lines = lines_of(&file);
    assert_eq!((lines.len(), console.matches('\n').count()), (evil.len(), evil.len()), "{console:?}");
    for (line, evil) in lines.iter().zip(evil) {
        let message: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!((&message["payload"], &message["logger"]), (&evil.into(), &evil.into()));
    }
    // The router's own colours begin with `ESC [` and end in `m`; nothing else may be there that a terminal obeys.
    let mut rest = console.replace('\n', "");
    while let Some(start) = rest.find("\u{1b}[") {
        let end = start + rest[start..].find('m').expect("a colour");
        assert!(
            rest[start + 2..end].chars().all(|letter| letter.is_ascii_digit() || letter == ';'),
            "{rest:?}"
        );
        rest.replace_range(start..=end, "");
    }
    let obeyed = |letter: char| letter.is_control() || ('\u{2028}'..='\u{202e}').contains(&letter);
    assert!(!rest.contains(obeyed), "{rest:?}");
}
