//! Faults of routers, disks and processes, against a program with a spool: each with ids, a figure and the account.
#![cfg(all(target_os = "linux", feature = "spool", feature = "tracing"))]

mod process_support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use process_support::child;
use process_support::fault_report::{record, record_stats};
use process_support::oracle::send;
use process_support::receiver::Receiver;
use process_support::size::{left_out, sized};
use process_support::tally::Tally;
use process_support::{built, closed_port, eventually, lines_of, AtEnd, Directory, LONG};
use tracing_metlog::{Builder, Guard, Stats};

fn builder(address: &str, spool: &Path) -> Builder {
    tracing_metlog::builder().router(address).spool(spool).flush_timeout(Duration::from_secs(10))
}

/// Sends messages `from..` at 10,000 a second, for this long; the number of the next one.
fn send_for(guard: &Guard, from: u64, time: Duration) -> u64 {
    let (client, begun, mut n) = (guard.client(), Instant::now(), from);
    while begun.elapsed() < time {
        let due = from + (begun.elapsed().as_secs_f64() * 10_000.0) as u64;
        while n < due {
            send(&client, 0, n);
            n += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    n
}

/// All came, and nothing else; how many came again, from several receivers.
#[track_caller]
fn assert_all_came(lines: &[String], count: u64) -> u64 {
    let tally = Tally::of(lines, (1, count));
    tally.assert_all();
    tally.duplicates
}

#[track_caller]
fn assert_balanced(stats: &Stats) {
    let Stats { emitted, inherited, delivered, lost, spooled, pending, .. } = stats;
    assert_eq!(emitted + inherited, delivered + lost.total() + spooled + pending, "{stats}");
}

#[test]
fn an_outage_under_ten_thousand_a_second_and_a_second_one_while_replaying_lose_nothing() {
    let directory = Directory::new();
    // What has arrived over a Unix socket was read: over TCP a router that ends with unread bytes loses those.
    let path = directory.file("router");
    let listen = || {
        let _ = std::fs::remove_file(&path);
        Receiver::unix(&path)
    };
    let first = listen();
    let guard = built(builder(&first.address, &directory.file("spool")));
    let mut lines = Vec::new();
    let mut n = send_for(&guard, 0, Duration::from_millis(500));
    first.wait_for(1);
    lines.extend(first.close());
    let outages = sized([4, 3], [60, 20]).map(Duration::from_secs);
    n = send_for(&guard, n, outages[0]);
    assert!(guard.stats().spooled > 20_000, "{}", guard.stats());
    // Back, and gone again in the middle of what it is sent from disk.
    let second = listen();
    second.wait_for(5_000);
    lines.extend(second.close());
    n = send_for(&guard, n, outages[1]);
    let third = listen();
    n = send_for(&guard, n, Duration::from_millis(500));
    eventually("all is delivered", || guard.stats().spooled + guard.stats().pending == 0);
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!((stats.lost.total(), stats.spooled, stats.pending), (0, 0, 0), "{stats}");
    lines.extend(third.close_at_end());
    let repeated = assert_all_came(&lines, n);
    assert!(repeated < 20_000, "{repeated} of {n} came twice");
    record_stats(
        &format!(
            "router down for {} s and {} s under 10,000 messages/s, the second time while the spool is sent",
            outages[0].as_secs(),
            outages[1].as_secs()
        ),
        "nothing lost",
        &stats,
        repeated,
    );
}

/// What the children of this file do; nothing when it is run as a test.
#[test]
fn child() {
    let Some(mode) = child::mode() else { return };
    let spool = std::env::var("METLOG_TEST_SPOOL").expect("given");
    let guard = built(builder(&child::router(), Path::new(&spool)));
    match mode.as_str() {
        "spool, flush, be killed" => {
            (0..5_000).for_each(|n| send(&guard.client(), 0, n));
            guard.flush(LONG);
            child::say("stats", guard.stats());
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .expect("sent");
        }
        other => panic!("mode {other}"),
    }
}

#[test]
fn what_was_flushed_into_the_spool_survives_a_kill_and_is_delivered_by_the_next_start() {
    let directory = Directory::new();
    let (spool, port) = (directory.file("spool"), closed_port());
    let address = format!("tcp://127.0.0.1:{port}");
    let mut command = child::command("child", "spool, flush, be killed", &address);
    command.env("METLOG_TEST_SPOOL", &spool);
    let ended = child::run(command);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended.status), Some(9), "{ended:#?}");
    let receiver = Receiver::tcp_at(port);
    let guard = built(builder(&address, &spool));
    eventually("all is delivered", || guard.stats().delivered == 5_000);
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!((stats.inherited, stats.lost.total()), (5_000, 0), "{stats}");
    let lines = receiver.close_at_end();
    let repeated = assert_all_came(&lines, 5_000);
    record(
        "SIGKILL with a spool after a flush, the router down; the next start delivers",
        "nothing lost that was flushed",
        5_000,
        stats.delivered,
        &[],
        repeated,
    );
}

/// A file system of this many bytes; `None` for who may not mount one.
fn tmpfs(path: &Path, bytes: u64) -> Option<AtEnd<impl FnMut()>> {
    std::fs::create_dir(path).expect("made");
    let size = format!("size={bytes}");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "metlog-test"]).arg(path).output();
    let path = path.to_owned();
    mounted
        .is_ok_and(|output| output.status.success())
        .then(|| AtEnd(move || drop(Command::new("umount").arg("-l").arg(&path).output())))
}

#[test]
fn a_full_disk_leaves_messages_in_memory_says_so_and_is_used_again_when_there_is_room() {
    let directory = Directory::new();
    let disk = directory.file("disk");
    let Some(_mounted) = tmpfs(&disk, 1 << 20) else { return left_out("no tmpfs can be mounted") };
    let ballast = disk.join("ballast");
    std::fs::write(&ballast, vec![0; 900 << 10]).expect("fits");
    let port = closed_port();
    let guard = built(builder(&format!("tcp://127.0.0.1:{port}"), &disk.join("spool")));
    let mut n = send_for(&guard, 0, Duration::from_secs(2));
    // Far more than the disk holds; the queue holds the rest.
    let full = guard.stats();
    assert_balanced(&full);
    assert_eq!(full.lost.total(), 0, "{full}");
    assert!(full.pending > 5_000 && full.spooled < 1_000, "{full}");
    std::fs::remove_file(&ballast).expect("there");
    eventually("the disk is used again", || guard.stats().spooled > 1_000);
    n = send_for(&guard, n, Duration::from_millis(200));
    let receiver = Receiver::tcp_at(port);
    eventually("all is delivered", || guard.stats().spooled + guard.stats().pending == 0);
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!(stats.lost.total(), 0, "{stats}");
    let lines = receiver.close_at_end();
    let repeated = assert_all_came(&lines, n);
    record_stats(
        "the spool's disk full for 2 s under 10,000 messages/s, then not",
        "nothing lost",
        &stats,
        repeated,
    );
}

/// Waits until `path` has the message, and says how long that took.
fn comes_to(path: &Path, text: &str) -> Duration {
    let begun = Instant::now();
    eventually(text, || lines_of(path).iter().any(|line| line.contains(text)));
    begun.elapsed()
}

#[test]
fn an_output_file_that_is_renamed_deleted_or_cut_is_reopened_within_a_second_and_loses_nothing() {
    let directory = Directory::new();
    let path = directory.file("log");
    let guard = built(tracing_metlog::builder().router(format!("file://{}", path.display())));
    let (mut n, mut slowest) = (0, Duration::ZERO);
    let mut seen = BTreeMap::new();
    let mut next = |guard: &Guard| {
        (n..n + 100).for_each(|n| send(&guard.client(), 0, n));
        n += 100;
        format!("message 0/{} ", n - 1)
    };
    let keep = |seen: &mut BTreeMap<String, u32>, path: &Path| {
        lines_of(path).into_iter().for_each(|line| *seen.entry(line).or_default() += 1);
    };
    let text = next(&guard);
    comes_to(&path, &text);
    for change in ["rename", "delete", "cut"] {
        keep(&mut seen, &path);
        match change {
            "rename" => std::fs::rename(&path, directory.file("old")).expect("renamed"),
            "delete" => std::fs::remove_file(&path).expect("deleted"),
            _ => std::fs::OpenOptions::new().write(true).open(&path).expect("there").set_len(0).expect("cut"),
        }
        let text = next(&guard);
        slowest = slowest.max(comes_to(&path, &text));
    }
    keep(&mut seen, &path);
    let stats = guard.finish();
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    assert_balanced(&stats);
    let lines: Vec<String> = seen.into_keys().collect();
    assert_all_came(&lines, 400);
    assert_eq!((stats.delivered, stats.lost.total()), (400, 0), "{stats}");
    record_stats(
        "an output file renamed, deleted, cut to nothing",
        "reopened within 1 s, nothing lost",
        &stats,
        0,
    );
}
