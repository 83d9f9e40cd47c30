//! The spool of a running program: what goes to disk and when, and that all of it arrives, in this run or the next.
#![cfg(all(unix, feature = "spool", feature = "tracing"))]

mod process_support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use process_support::child;
use process_support::oracle::{send, send_all, Got};
use process_support::receiver::Receiver;
use process_support::stalled::Gate;
use process_support::{built, closed_port, eventually, Directory, LONG};
use tracing_metlog::{Builder, LossReason, Stats, WhenFull};

fn builder(address: &str, spool: &Path) -> Builder {
    tracing_metlog::builder().router(address).spool(spool).flush_timeout(Duration::from_secs(10))
}

/// Files with messages, anywhere below.
fn segments(spool: &Path) -> Vec<PathBuf> {
    files(spool).into_iter().filter(|path| path.extension().is_some_and(|end| end == "segment")).collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[track_caller]
fn assert_balanced(stats: &Stats) {
    let Stats { emitted, inherited, spooled, .. } = stats;
    for one in &stats.destinations {
        assert_eq!(
            emitted + inherited,
            one.delivered + one.lost.total() + spooled + one.pending,
            "{stats}: {stats:?}"
        );
    }
}

#[test]
fn nothing_goes_to_disk_while_all_goes_well_and_nothing_is_left_at_the_end() {
    let directory = Directory::new();
    let (spool, receiver) = (directory.file("spool"), Receiver::tcp());
    let guard = built(builder(&receiver.address, &spool));
    for round in 0..20 {
        send_all(&guard.client(), 4, 500);
        assert_eq!(guard.flush(LONG).pending, 0, "round {round}");
        assert_eq!(segments(&spool), [] as [PathBuf; 0]);
    }
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!((stats.delivered, stats.spooled, stats.inherited), (40_000, 0, 0));
    assert_eq!(files(&spool), [] as [PathBuf; 0]);
}

#[test]
fn what_a_dead_router_did_not_get_is_on_disk_at_once_and_delivered_when_it_is_back() {
    let directory = Directory::new();
    let (spool, port) = (directory.file("spool"), closed_port());
    let guard = built(builder(&format!("tcp://127.0.0.1:{port}"), &spool));
    send_all(&guard.client(), 1, 5_000);
    let flushed = guard.flush(LONG);
    assert_eq!((flushed.pending, flushed.lost), (0, 0), "{flushed:?}");
    // What is being tried is on disk too, and counted as pending.
    let stats = guard.stats();
    assert_balanced(&stats);
    assert_eq!(stats.spooled + stats.pending, 5_000, "{stats}");
    assert!(!segments(&spool).is_empty());
    let receiver = Receiver::tcp_at(port);
    receiver.wait_for(5_000);
    eventually("all is delivered", || guard.stats().delivered == 5_000);
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!((stats.delivered, stats.lost.total(), stats.spooled), (5_000, 0, 0), "{stats}");
    let got = Got::read(&receiver.close_at_end());
    got.assert_complete(1, 5_000);
    got.assert_ordered();
    assert_eq!(files(&spool), [] as [PathBuf; 0]);
}

#[test]
fn what_is_left_at_the_end_of_a_program_is_spooled_and_delivered_by_the_next_one() {
    let directory = Directory::new();
    let (spool, port) = (directory.file("spool"), closed_port());
    let address = format!("tcp://127.0.0.1:{port}");
    let guard = built(builder(&address, &spool));
    send_all(&guard.client(), 1, 3_000);
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!((stats.spooled, stats.pending, stats.lost.total()), (3_000, 0, 0), "{stats}");
    assert_eq!(stats.to_string(), "emitted 3000 = delivered 0 + lost 0 + spooled 3000 + pending 0");

    let receiver = Receiver::tcp_at(port);
    let guard = built(builder(&address, &spool));
    assert_eq!(guard.stats().inherited, 3_000);
    (3_000..3_500).for_each(|n| send(&guard.client(), 1, n));
    eventually("all is delivered", || guard.stats().delivered == 3_500);
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!((stats.inherited, stats.delivered, stats.lost.total()), (3_000, 3_500, 0), "{stats}");
    let lines = receiver.close_at_end();
    assert_eq!(lines.len(), 3_500);
    assert_eq!(files(&spool), [] as [PathBuf; 0]);
}

#[test]
fn new_messages_and_those_on_disk_take_turns_so_that_neither_starves_the_other() {
    let directory = Directory::new();
    let (spool, port) = (directory.file("spool"), closed_port());
    let address = format!("tcp://127.0.0.1:{port}");
    let guard = built(builder(&address, &spool));
    (0..60_000).for_each(|n| {
        send(&guard.client(), 0, n);
        if n % 10_000 == 0 {
            guard.flush(LONG);
        }
    });
    drop(guard);
    let receiver = Receiver::tcp_at(port);
    let guard = built(builder(&address, &spool));
    let mut n = 0;
    while guard.stats().delivered < 60_000 + n {
        (n < 2_000).then(|| send(&guard.client(), 1, n));
        n = (n + 1).min(2_000);
        std::thread::sleep(Duration::from_micros(20));
    }
    guard.finish();
    let lines = receiver.close_at_end();
    let got = Got::read(&lines);
    got.assert_ordered();
    assert_eq!((got.orders[&0].len(), got.orders[&1].len()), (60_000, 2_000));
    let first_new = lines.iter().position(|line| line.contains("message 1/")).expect("there");
    assert!(first_new < 30_000, "the first new message came after {first_new} old ones");
    let last_new = lines.iter().rposition(|line| line.contains("message 1/")).expect("there");
    let last_old = lines.iter().rposition(|line| line.contains("message 0/")).expect("there");
    assert!(last_old > first_new && last_new > 0, "the old ones went on");
}

#[test]
fn a_router_that_stands_still_with_a_full_queue_sends_what_comes_to_disk_and_not_away() {
    let directory = Directory::new();
    let spool = directory.file("spool");
    let gate = Gate::shut();
    let builder =
        tracing_metlog::builder().transport(gate.clone()).spool(&spool).when_full(WhenFull::DropNewest);
    let guard = built(builder.queue_bytes(8 << 20));
    for n in 0..100_000 {
        send(&guard.client(), 0, n);
        // Several times what the queue holds: with the gate shut, only the disk makes room in it.
        if n % 500 == 0 {
            eventually("the disk takes them", || guard.stats().pending < 35_000);
        }
    }
    assert_eq!(guard.stats().lost.total(), 0, "{}", guard.stats());
    assert!(guard.stats().spooled > 20_000, "{}", guard.stats());
    gate.release();
    eventually("all is delivered", || guard.stats().delivered == 100_000);
    assert_balanced(&guard.finish());
    let got = Got::read(&gate.capture.lines());
    got.assert_complete(1, 100_000);
}

#[test]
fn with_several_destinations_only_what_none_takes_goes_to_disk() {
    let directory = Directory::new();
    let (spool, dead, receiver) = (directory.file("spool"), closed_port(), Receiver::tcp());
    let address = format!("tcp://127.0.0.1:{dead}");
    let both = builder(&address, &spool).router(&receiver.address).flush_timeout(Duration::from_secs(2));
    let guard = built(both);
    send_all(&guard.client(), 1, 2_000);
    receiver.wait_for(2_000);
    assert_eq!(segments(&spool), [] as [PathBuf; 0]);
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!((stats.delivered, stats.spooled), (2_000, 0), "{stats:?}");
    Got::read(&receiver.close_at_end()).assert_complete(1, 2_000);
}

#[test]
fn with_several_destinations_that_are_all_dead_nothing_is_lost_and_the_next_program_delivers() {
    let directory = Directory::new();
    let (spool, ports) = (directory.file("spool"), [closed_port(), closed_port()]);
    let addresses = ports.map(|port| format!("tcp://127.0.0.1:{port}"));
    let guard = built(builder(&addresses[0], &spool).router(&addresses[1]));
    for n in 0..20_000 {
        send(&guard.client(), 0, n);
        (n % 100 == 0).then(|| std::thread::sleep(Duration::from_millis(1)));
    }
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!((stats.spooled, stats.pending, stats.lost.total()), (20_000, 0, 0), "{stats:?}");
    let receivers = ports.map(Receiver::tcp_at);
    let guard = built(builder(&addresses[0], &spool).router(&addresses[1]));
    eventually("all is delivered", || guard.stats().destinations.iter().all(|one| one.delivered == 20_000));
    assert_balanced(&guard.finish());
    for receiver in receivers {
        let got = Got::read(&receiver.close_at_end());
        // Not in order: what the destinations held when they failed was brought to disk at the end.
        got.assert_complete(1, 20_000);
    }
}

#[test]
fn two_programs_with_one_directory_never_share_and_files_are_for_their_owner_alone() {
    let directory = Directory::new();
    let (spool, port) = (directory.file("spool"), closed_port());
    let address = format!("tcp://127.0.0.1:{port}");
    let guards = [0, 1].map(|t| {
        let guard = built(builder(&address, &spool));
        (0..1_000).for_each(|n| send(&guard.client(), t, n));
        assert_eq!(guard.flush(LONG).pending, 0);
        guard
    });
    assert!(!segments(&spool.join("0")).is_empty() && !segments(&spool.join("1")).is_empty());
    for path in files(&spool) {
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600, "{path:?}");
    }
    for path in [spool.clone(), spool.join("0"), spool.join("1")] {
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700, "{path:?}");
    }
    drop(guards);
    let receiver = Receiver::tcp_at(port);
    let guard = built(builder(&address, &spool));
    assert_eq!(guard.stats().inherited, 2_000, "one start adopts both");
    eventually("all is delivered", || guard.stats().delivered == 2_000);
    drop(guard);
    Got::read(&receiver.close_at_end()).assert_complete(2, 1_000);
    assert_eq!(files(&spool), [] as [PathBuf; 0]);
}

#[test]
fn at_the_quota_when_full_decides_and_the_account_says_what_was_lost() {
    for policy in [WhenFull::DropNewest, WhenFull::DropOldest] {
        let directory = Directory::new();
        let (spool, port) = (directory.file("spool"), closed_port());
        let address = format!("tcp://127.0.0.1:{port}");
        let limited = builder(&address, &spool).spool_limit(1 << 20).queue_bytes(1 << 20).when_full(policy);
        let guard = built(limited);
        for n in 0..30_000 {
            send(&guard.client(), 0, n);
            (n % 1_000 == 0).then(|| guard.flush(Duration::from_millis(20)));
        }
        let on_disk: u64 =
            files(&spool).iter().map(|path| std::fs::metadata(path).map_or(0, |one| one.len())).sum();
        assert!(on_disk <= (1 << 20) + 64, "{policy:?}: {on_disk} bytes");
        let stats = guard.finish();
        assert_balanced(&stats);
        let (full, queue_full) =
            (stats.lost.count(LossReason::SpoolFull), stats.lost.count(LossReason::QueueFull));
        assert_eq!(stats.pending, 0, "{stats}");
        assert!(full + queue_full > 10_000 && stats.spooled > 1_000, "{policy:?}: {stats}");
        assert!(policy == WhenFull::DropOldest || queue_full > 1_000, "{policy:?}: {stats}");
        let receiver = Receiver::tcp_at(port);
        let guard = built(builder(&address, &spool));
        let spooled = stats.spooled;
        eventually("the rest is delivered", || guard.stats().delivered >= spooled);
        drop(guard);
        let got = Got::read(&receiver.close_at_end());
        got.assert_ordered();
        let has_last = got.ids.contains_key(&(0, 29_999));
        assert_eq!(has_last, policy == WhenFull::DropOldest, "the newest stay under drop-oldest only");
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_an_error_that_names_it() {
    let directory = Directory::new();
    std::fs::write(directory.file("file"), "").expect("written");
    for wrong in ["file", "missing/spool"] {
        let error =
            builder("tcp://127.0.0.1:1", &directory.file(wrong)).build().map(drop).expect_err("refused");
        let text = error.to_string();
        assert!(text.starts_with("Builder::spool: spool ") && text.contains(wrong), "{text}");
        assert!(text.contains("accepted is a directory"), "{text}");
    }
    let error = builder("tcp://127.0.0.1:1", &directory.file("spool")).spool_limit(10).build().map(drop);
    assert_eq!(
        error.expect_err("refused").to_string(),
        "Builder::spool_limit=\"10\": a number of bytes from 65536 on is accepted"
    );
}

#[test]
fn child() {
    let Some(mode) = child::mode() else { return };
    let outcome = tracing_metlog::builder().router(child::router()).build();
    match mode.as_str() {
        "built" => {
            let guard = outcome.expect("builds").1;
            (0..100).for_each(|n| send(&guard.client(), 0, n));
            child::say("stats", guard.finish());
        }
        "refused" => child::say("error", outcome.map(drop).expect_err("refused")),
        other => panic!("mode {other}"),
    }
}

#[test]
fn the_variables_say_where_and_how_much_and_a_wrong_one_is_an_error() {
    let directory = Directory::new();
    let (spool, address) = (directory.file("spool"), format!("tcp://127.0.0.1:{}", closed_port()));
    let mut command = child::command("child", "built", &address);
    command
        .env("METLOG_SPOOL", &spool)
        .env("METLOG_SPOOL_LIMIT", "1000000")
        .env("METLOG_SPOOL_MAX_AGE_S", "60");
    let ended = child::run(command);
    assert_eq!(ended.said("stats"), "emitted 100 = delivered 0 + lost 0 + spooled 100 + pending 0");
    assert!(!segments(&spool).is_empty());
    for (name, value, accepted) in [
        ("METLOG_SPOOL_LIMIT", "10", "a number of bytes from 65536 on"),
        ("METLOG_SPOOL_LIMIT", "much", "a number of bytes from 65536 on"),
        ("METLOG_SPOOL_MAX_AGE_S", "0", "a number of seconds from 1 on"),
    ] {
        let mut command = child::command("child", "refused", &address);
        command.env("METLOG_SPOOL", &spool).env(name, value);
        assert_eq!(child::run(command).said("error"), format!("{name}={value:?}: {accepted} is accepted"));
    }
}
