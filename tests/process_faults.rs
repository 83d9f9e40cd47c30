//! Faults of the process that makes messages: signals, exec, limits, and a guard that is used in every wrong way.
#![cfg(all(target_os = "linux", feature = "tracing", feature = "log"))]

mod process_support;

use std::process::Command;
use std::sync::Barrier;
use std::time::Duration;

use process_support::child;
use process_support::oracle::{assert_accounted, assert_balanced, send, send_all, Got};
use process_support::receiver::Receiver;
use process_support::{built, eventually, fault_report, LONG};

/// What the children of this file do; nothing when it is run as a test.
#[test]
fn child() {
    match child::mode().as_deref() {
        None => {}
        Some("SIGPIPE kills") => sigpipe(),
        Some("no threads") => no_threads(),
        Some("exec") => exec(),
        Some("init twice") => init_twice(),
        Some(other) => panic!("mode {other}"),
    }
}

/// Writes to peers that are gone, with SIGPIPE as command line tools set it.
#[allow(unsafe_code)]
fn sigpipe() {
    // SAFETY: the default action is no function of this program.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = format!("tcp://{}", listener.local_addr().expect("bound"));
    let directory = process_support::Directory::new();
    let path = directory.file("router");
    let unix = std::os::unix::net::UnixListener::bind(&path).expect("binds");
    let builder = tracing_metlog::builder().router(address).router(format!("unix://{}", path.display()));
    let guard = built(builder.flush_timeout(Duration::from_millis(100)));
    listener.set_nonblocking(true).expect("set");
    unix.set_nonblocking(true).expect("set");
    let mut sent = 0;
    eventually("both have failed often, in the middle of a write too", || {
        (0..2_000).for_each(|n| send(&guard.client(), 0, sent + n));
        sent += 2_000;
        drop(listener.accept());
        drop(unix.accept());
        guard.stats().destinations.iter().all(|one| one.failures >= 3)
    });
    child::say("alive", "yes");
}

#[test]
fn a_program_with_the_default_of_sigpipe_lives_when_its_routers_close_in_the_middle() {
    let ended = child::run(child::command("child", "SIGPIPE kills", ""));
    assert_eq!((ended.status.code(), ended.said("alive")), (Some(0), "yes"), "{ended:#?}");
    fault_report::record(
        "SIGPIPE at its default, peers that close (TCP, Unix)",
        "the process lives",
        5_000,
        0,
        &[],
        0,
    );
}

/// No thread can be had: an error that says so, and no panic.
#[allow(unsafe_code)]
fn no_threads() {
    let none = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
    // SAFETY: gives up rights, and reads one structure of numbers. Threads are counted by user, and root is not bound
    // by the limit: another user is, and it has more than one thread here.
    unsafe {
        if libc::getuid() == 0 {
            assert_eq!(libc::setuid(65_534), 0);
        }
        assert_eq!(libc::setrlimit(libc::RLIMIT_NPROC, &none), 0);
    }
    let built = tracing_metlog::builder().router("udp://127.0.0.1:9").build();
    child::say("error", built.map(|_| ()).expect_err("no thread can be had"));
}

#[test]
fn a_background_thread_that_cannot_be_had_is_an_error_that_says_so() {
    let ended = child::run(child::command("child", "no threads", ""));
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    assert!(ended.said("error").contains("thread"), "{ended:#?}");
}

/// Becomes another program, which says what it has open.
fn exec() {
    use std::os::unix::process::CommandExt;
    let router = child::router();
    let guard = built(tracing_metlog::builder().router(router).router("udp://127.0.0.1:9"));
    send(&guard.client(), 0, 0);
    eventually("it is connected", || guard.stats().destinations[0].delivered == 1);
    println!();
    let error = Command::new("ls").args(["-l", "/proc/self/fd"]).exec();
    panic!("{error}");
}

#[test]
fn a_program_that_execs_another_leaves_it_no_descriptor_of_ours() {
    let receiver = Receiver::tcp();
    let ended = child::run(child::command("child", "exec", &receiver.address));
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    assert!(ended.stdout.contains("/proc/"), "it says what it has: {ended:#?}");
    assert!(!ended.stdout.contains("socket:"), "{ended:#?}");
    Got::read(&receiver.close_at_end()).assert_complete(1, 1);
}

fn init_twice() {
    let first = tracing_metlog::builder().router(child::router()).init();
    let second = tracing_metlog::builder().router(child::router()).try_init();
    child::say("second", second.err().map_or(String::from("none"), |error| error.to_string()));
    tracing::info!(t = 0, n = 0, "{}", process_support::oracle::text(0, 0));
    drop(first);
}

#[test]
fn init_called_twice_is_an_error_and_the_first_goes_on() {
    let receiver = Receiver::tcp();
    let ended = child::run(child::command("child", "init twice", &receiver.address));
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    assert!(!ended.said("second").contains("none"), "{ended:#?}");
    Got::read(&receiver.close_at_end()).assert_complete(1, 1);
}

#[test]
fn guards_dropped_at_the_same_time_and_flushed_meanwhile_lose_nothing() {
    let receiver = Receiver::tcp();
    let guards: Vec<_> = (0..8)
        .map(|t| {
            let guard = built(tracing_metlog::builder().router(&receiver.address).flush_timeout(LONG));
            (0..500).for_each(|n| send(&guard.client(), t, n));
            guard
        })
        .collect();
    let start = Barrier::new(guards.len() + 1);
    std::thread::scope(|scope| {
        for guard in guards {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                let stats = guard.finish();
                assert_balanced(&stats);
                assert_eq!((stats.delivered, stats.lost.total()), (500, 0), "{stats}");
            });
        }
        start.wait();
        // Of the whole process, while its parts end.
        let _ = tracing_metlog::flush(LONG);
    });
    let got = Got::read(&receiver.close_at_end());
    got.assert_complete(8, 500);
    fault_report::record("8 generators ended at the same time", "0 lost", 4_000, got.count(), &[], 0);
}

#[test]
fn a_client_that_outlives_its_guard_a_second_end_and_a_late_flush_are_harmless() {
    let receiver = Receiver::tcp();
    let guard = built(tracing_metlog::builder().router(&receiver.address).flush_timeout(LONG));
    let client = guard.client();
    send_all(&client, 2, 100);
    let stats = guard.finish();
    send(&client, 0, 100);
    let (took, flushed) = process_support::timed(|| tracing_metlog::flush(LONG));
    assert!(took < LONG / 2, "{took:?} {flushed:?}");
    let got = Got::read(&receiver.close_at_end());
    got.assert_complete(2, 100);
    assert_accounted(&stats, &got, 2, 100);
}
