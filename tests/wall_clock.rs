//! The wall clock is set back an hour and forward a year while a program runs: its messages say the new time, nothing
//! waits an hour for it, and nothing is taken for too old.
//!
//! The program is a child with a clock of its own: a small library, compiled here and preloaded, adds what a file says
//! to the system's wall clock. Other clocks stay as they are, as when somebody sets a machine's.
#![cfg(all(target_os = "linux", feature = "tracing", feature = "spool"))]

mod process_support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use process_support::child;
use process_support::fault_report::record;
use process_support::oracle::{assert_balanced, send, Got};
use process_support::receiver::Receiver;
use process_support::{built, closed_port, eventually, timed, Directory, LONG};

const FILE: &str = "TEST_WALL_CLOCK";
const HOUR: i64 = 3_600;
const YEAR: i64 = 365 * 24 * HOUR;
/// What is added to the clock, one after the other.
const STEPS: [i64; 4] = [0, -HOUR, YEAR, 0];
const EACH: u64 = 100;

/// What the children of this file do; nothing when it is run as a test.
#[test]
fn child() {
    match child::mode().as_deref() {
        None => {}
        Some("router is up") => while_the_router_is_up(),
        Some("router is down") => while_the_router_is_down(),
        Some(other) => panic!("mode {other}"),
    }
}

fn variable(name: &str) -> PathBuf {
    std::env::var_os(name).expect("given").into()
}

/// Sets this process' wall clock.
fn set_clock(seconds: i64) {
    let before = SystemTime::now();
    std::fs::write(variable(FILE), seconds.to_ne_bytes()).expect("written");
    let stepped = match SystemTime::now().duration_since(before) {
        Ok(forward) => forward.as_secs() as i64,
        Err(back) => -(back.duration().as_secs() as i64),
    };
    assert!(seconds == 0 || stepped.abs() > HOUR / 2, "the clock is set: {stepped}");
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("later").as_secs()
}

fn while_the_router_is_up() {
    let guard = built(tracing_metlog::builder().router(child::router()).flush_timeout(LONG));
    let mut slowest = Duration::ZERO;
    for (step, &seconds) in STEPS.iter().enumerate() {
        set_clock(seconds);
        let first = step as u64 * EACH;
        let client = guard.client();
        // The clock is read anew once a second, while messages flow: some are made before that.
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(1_200) {
            client.message("before").payload("1").field("t", 1).field("n", 0).send();
            assert_eq!(guard.flush(LONG).pending, 0);
            std::thread::sleep(Duration::from_millis(10));
        }
        let from = seconds_now();
        (first..first + EACH).for_each(|n| send(&client, 0, n));
        let (took, flushed) = timed(|| guard.flush(LONG));
        slowest = slowest.max(took);
        assert_eq!(flushed.pending, 0);
        child::say(&format!("step {step}"), format!("{from} {}", seconds_now()));
    }
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!((stats.delivered, stats.lost.total()), (stats.emitted, 0), "{stats}");
    child::say("slowest", slowest.as_millis());
}

fn while_the_router_is_down() {
    let builder = tracing_metlog::builder().router(child::router()).spool(variable("TEST_SPOOL"));
    let guard = built(builder.spool_max_age(Duration::from_secs(600)).flush_timeout(LONG));
    let client = guard.client();
    for (step, &seconds) in STEPS.iter().enumerate() {
        set_clock(seconds);
        let first = step as u64 * EACH;
        (first..first + EACH).for_each(|n| send(&client, 0, n));
        guard.flush(LONG);
        // Longer than the spool needs to look for what is too old.
        std::thread::sleep(Duration::from_millis(1_500));
        let stats = guard.stats();
        // What is being tried is on disk too, and counts as pending.
        assert_eq!(
            (stats.spooled + stats.pending, stats.lost.total()),
            (first + EACH, 0),
            "step {step}: {stats}"
        );
    }
    set_clock(YEAR);
    let port = child::router().rsplit(':').next().expect("a port").parse().expect("a number");
    let router = Receiver::tcp_at(port);
    // No pause between two attempts is longer than 5 s, whatever the clock says.
    let (took, ()) =
        timed(|| eventually("it is delivered", || guard.stats().spooled + guard.stats().pending == 0));
    assert!(took < Duration::from_secs(20), "{took:?}");
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!(stats.lost.total(), 0, "{stats}");
    Got::read(&router.close_at_end()).assert_complete(1, STEPS.len() as u64 * EACH);
    child::say("delivered", stats.delivered);
    child::say("took", took.as_millis());
}

/// A child with a wall clock of its own.
fn with_its_own_clock(directory: &Directory, mode: &str, router: &str) -> Command {
    let (library, file) = (directory.file("wall_clock.so"), directory.file("clock"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process_support/wall_clock.c");
    let mut compiler = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    let compiled = compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
    assert!(compiled.expect("the compiler that Rust links with").success());
    std::fs::write(&file, 0_i64.to_ne_bytes()).expect("written");
    let mut command = child::command("child", mode, router);
    command.env("LD_PRELOAD", library).env(FILE, file).env("TEST_SPOOL", directory.file("spool"));
    command
}

#[test]
fn messages_follow_a_clock_that_is_set_and_nothing_waits_for_it() {
    let (directory, receiver) = (Directory::new(), Receiver::tcp());
    let ended = child::run(with_its_own_clock(&directory, "router is up", &receiver.address));
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    let lines: Vec<_> =
        receiver.close_at_end().into_iter().filter(|line| !line.contains(r#""type":"before""#)).collect();
    Got::read(&lines).assert_complete(1, STEPS.len() as u64 * EACH);
    for (step, made) in lines.chunks(EACH as usize).enumerate() {
        let said = ended.said(&format!("step {step}"));
        let (from, to) = said.split_once(' ').expect("two times");
        for line in made {
            let message: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let time = message["timestamp"].as_str().expect("text");
            // `date` knows what a timestamp means.
            let in_time = |at: &str, add: i64| {
                let at = at.parse::<i64>().expect("a number") + add;
                let date =
                    Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S", "-d", &format!("@{at}")]).output();
                String::from_utf8(date.expect("runs").stdout).expect("text").trim().to_owned()
            };
            let (earliest, latest) = (in_time(from, -1), in_time(to, 2));
            assert!(*earliest <= *time && *time <= *latest, "step {step}: {earliest}, {time}, {latest}");
            if message["fields"]["n"].as_u64().expect("a number") % EACH == 1 {
                break;
            }
        }
    }
    record(
        "clock set back an hour, forward a year, and right again (TCP)",
        &format!("timestamps follow within 1 s, 0 lost, a flush takes {} ms at most", ended.said("slowest")),
        STEPS.len() as u64 * EACH,
        lines.len() as u64,
        &[],
        0,
    );
}

#[test]
fn what_waits_in_a_spool_is_no_older_and_is_sent_no_later_because_the_clock_is_set() {
    let directory = Directory::new();
    let address = format!("tcp://127.0.0.1:{}", closed_port());
    let ended = child::run(with_its_own_clock(&directory, "router is down", &address));
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    record(
        "clock set back an hour, forward a year, while the router is down (spool of 10 minutes)",
        &format!("0 lost; delivered {} ms after the router is back", ended.said("took")),
        STEPS.len() as u64 * EACH,
        ended.said("delivered").parse().expect("a number"),
        &[],
        0,
    );
}
