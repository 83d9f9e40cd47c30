//! Faults of the process that makes messages: signals, exec, limits, and a guard that is used in every wrong way.
#![cfg(all(target_os = "linux", feature = "tracing", feature = "log"))]

mod process_support;

use std::process::Command;
use std::sync::Barrier;
use std::time::Duration;

use process_support::child;
use process_support::oracle::{assert_accounted, assert_balanced, send, send_all, Got};
use process_support::receiver::Receiver;
use process_support::tally::{Counter, Speech};
use process_support::{built, eventually, fault_report, LONG};

/// What the children of this file do; nothing when it is run as a test.
#[test]
fn child() {
    match child::mode().as_deref() {
        None => {}
        Some("SIGPIPE kills") => sigpipe(),
        Some("no threads") => no_threads(),
        Some("no more threads") => no_more_threads(),
        Some("exec") => exec(),
        Some("init twice") => init_twice(),
        Some(other) => match other.strip_prefix("SIGPIPE kills ") {
            Some(way) => sigpipe_over(way),
            None => panic!("mode {other}"),
        },
    }
}

/// Writes to peers that are gone, with SIGPIPE as command line tools set it.
fn sigpipe() {
    let_sigpipe_kill();
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
    let stats = guard.finish();
    assert_balanced(&stats);
    for (name, count) in
        [("emitted", stats.emitted), ("delivered", stats.delivered), ("lost", stats.lost.total())]
    {
        child::say(name, count);
    }
    child::say("alive", "yes");
}

#[allow(unsafe_code)]
fn let_sigpipe_kill() {
    // SAFETY: the default action is no function of this program.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// The same where a peer must first be spoken to: it reads one line or one request, and closes with the rest unread.
fn sigpipe_over(way: &str) {
    let_sigpipe_kill();
    const PLENTY: (u64, u64) = (1, 2_000_000);
    let directory = process_support::Directory::new();
    let counter = match way {
        #[cfg(feature = "tls")]
        "TLS" => Counter::tls(PLENTY, &directory.file("ca"), Speech::LinesOnce),
        #[cfg(all(feature = "tls", feature = "http"))]
        "HTTPS" => Counter::tls(PLENTY, &directory.file("ca"), Speech::HttpOnce),
        #[cfg(feature = "http")]
        "HTTP" => Counter::tcp(PLENTY, Speech::HttpOnce),
        other => panic!("way {other}, with {}", directory.file("").display()),
    };
    let builder = tracing_metlog::builder().router(&counter.address);
    let guard = built(builder.flush_timeout(Duration::from_millis(100)));
    let mut sent = 0;
    eventually("many connections were closed in the middle", || {
        (0..2_000).for_each(|n| send(&guard.client(), 0, sent + n));
        sent += 2_000;
        // One that confirms and closes is no failure; over HTTP each connection confirms.
        guard.stats().destinations[0].failures >= 3 || counter.look(|tally| tally.distinct) > 20_000
    });
    let stats = guard.finish();
    assert_balanced(&stats);
    child::say("emitted", stats.emitted);
    child::say("delivered", stats.delivered);
    child::say("lost", stats.lost.total());
    child::say("alive", "yes");
}

#[cfg(all(feature = "tls", feature = "http"))]
#[test]
fn a_program_with_the_default_of_sigpipe_lives_over_tls_and_http_too() {
    for way in ["TLS", "HTTPS", "HTTP"] {
        let ended = child::run(child::command("child", &format!("SIGPIPE kills {way}"), ""));
        assert_eq!((ended.status.code(), ended.said("alive")), (Some(0), "yes"), "{ended:#?}");
        let [emitted, delivered, lost] =
            ["emitted", "delivered", "lost"].map(|name| ended.said(name).parse::<u64>().expect("a number"));
        let fault = format!("SIGPIPE at its default, a peer that closes ({way})");
        fault_report::record(
            &fault,
            "the process lives",
            emitted,
            delivered,
            &[("queue full, or at the end", lost)],
            0,
        );
    }
}

#[test]
fn a_program_with_the_default_of_sigpipe_lives_when_its_routers_close_in_the_middle() {
    let ended = child::run(child::command("child", "SIGPIPE kills", ""));
    assert_eq!((ended.status.code(), ended.said("alive")), (Some(0), "yes"), "{ended:#?}");
    let [emitted, delivered, lost] =
        ["emitted", "delivered", "lost"].map(|name| ended.said(name).parse::<u64>().expect("a number"));
    let (fault, promise) = ("SIGPIPE at its default, peers that close (TCP, Unix)", "the process lives");
    fault_report::record(fault, promise, emitted, delivered, &[("at the end, both routers gone", lost)], 0);
}

/// No thread can be had: an error that says so, and no panic.
fn no_threads() {
    allow_no_more_threads();
    let one = tracing_metlog::builder().router("udp://127.0.0.1:9").build();
    child::say("error", one.map(|_| ()).expect_err("no thread can be had"));
    let two = tracing_metlog::builder().router("udp://127.0.0.1:9").router("tcp://127.0.0.1:9").build();
    child::say("with two", two.map(|_| ()).expect_err("no thread can be had"));
}

/// A name is looked up, and a request made, by a thread that is started when there is something to send.
fn no_more_threads() {
    let mut addresses = vec!["tcp://localhost:9"];
    if cfg!(feature = "http") {
        addresses.push("http://127.0.0.1:9/in");
    }
    let guards: Vec<_> = addresses
        .iter()
        .map(|address| {
            built(tracing_metlog::builder().router(*address).flush_timeout(Duration::from_millis(200)))
        })
        .collect();
    allow_no_more_threads();
    for (guard, address) in guards.into_iter().zip(addresses) {
        send(&guard.client(), 0, 0);
        let problem = || guard.stats().destinations[0].problem.clone();
        eventually("it is noticed", || problem().is_some());
        child::say(&format!("problem of {address}"), problem().expect("noticed"));
        let stats = guard.finish();
        assert_balanced(&stats);
        assert_eq!((stats.lost.total(), stats.pending), (1, 0), "{stats}");
    }
}

#[allow(unsafe_code)]
fn allow_no_more_threads() {
    let none = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
    // SAFETY: gives up rights, and reads one structure of numbers. Threads are counted by user, and root is not bound
    // by the limit: another user is, and it has more than one thread here.
    unsafe {
        if libc::getuid() == 0 {
            assert_eq!(libc::setuid(65_534), 0);
        }
        assert_eq!(libc::setrlimit(libc::RLIMIT_NPROC, &none), 0);
    }
}

#[test]
fn a_background_thread_that_cannot_be_had_is_an_error_that_says_so() {
    let ended = child::run(child::command("child", "no threads", ""));
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    assert!(ended.said("error").contains("thread"), "{ended:#?}");
    assert!(ended.said("with two").contains("thread"), "{ended:#?}");
}

#[test]
fn a_thread_that_cannot_be_had_later_is_a_problem_of_its_destination_and_its_messages_are_counted() {
    let ended = child::run(child::command("child", "no more threads", ""));
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    let problems = ended.stdout.lines().filter(|line| line.starts_with("problem of"));
    let problems: Vec<_> = problems.collect();
    let is_told = |line: &&str| line.contains("no thread can be had");
    assert!(!problems.is_empty() && problems.iter().all(is_told), "{problems:?}");
}

/// What a process has open: descriptors, and what each is.
const OPEN: &str = "for one in /proc/self/fd/*; do echo \"open: $(readlink $one)\"; done";

/// Becomes another program, which says what it has open.
fn exec() {
    use std::os::unix::process::CommandExt;
    let directory = std::env::var("TEST_DIRECTORY").expect("given");
    let mut builder = tracing_metlog::builder().router(format!("file://{directory}/log"));
    for router in child::router().split(' ') {
        builder = builder.router(router);
    }
    #[cfg(feature = "spool")]
    let builder = builder.spool(format!("{directory}/spool"));
    #[cfg(feature = "ring")]
    let builder = builder.ring(format!("{directory}/ring").as_str());
    let guard = built(builder.router("udp://127.0.0.1:9"));
    send(&guard.client(), 0, 0);
    let all =
        |stats: &tracing_metlog::Stats| stats.destinations.iter().all(|one| one.delivered + one.failures > 0);
    eventually("all are connected", || all(&guard.stats()));
    for entry in std::fs::read_dir("/proc/self/fd").expect("proc") {
        let open = std::fs::read_link(entry.expect("an entry").path());
        child::say("had", open.map_or(String::new(), |open| open.display().to_string()));
    }
    let error = Command::new("sh").args(["-c", OPEN]).exec();
    panic!("{error}");
}

#[test]
fn a_program_that_execs_another_leaves_it_no_descriptor_of_ours() {
    let (directory, size) = (process_support::Directory::new(), (1, 1));
    let tcp = Receiver::tcp();
    let unix = Receiver::unix(&directory.file("router"));
    let unixgram = Receiver::unixgram(&directory.file("datagrams"));
    let mut addresses = vec![tcp.address.clone(), unix.address.clone(), unixgram.address.clone()];
    let counters: Vec<Counter> = [
        #[cfg(feature = "http")]
        Counter::tcp(size, Speech::Http),
        #[cfg(feature = "tls")]
        Counter::tls(size, &directory.file("ca"), Speech::Lines),
    ]
    .into();
    addresses.extend(counters.iter().map(|counter| counter.address.clone()));
    let mut command = child::command("child", "exec", &addresses.join(" "));
    let ended = child::run({
        command.env("TEST_DIRECTORY", directory.file(""));
        command
    });
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    let of = |prefix: &str| {
        let lines = ended.stdout.lines().filter_map(|line| line.strip_prefix(prefix).map(str::to_owned));
        lines.collect::<Vec<_>>()
    };
    let (had, open) = (of("had: "), of("open: "));
    let is_ours =
        |path: &&String| path.contains("socket:") || path.starts_with(&*directory.file("").to_string_lossy());
    let count = |name: &str| had.iter().filter(|path| path.contains(name)).count();
    assert!(count("socket:") >= addresses.len() && count("/log") == 1, "all of it was open: {had:?}");
    let (ring, spool) = (cfg!(feature = "ring"), cfg!(feature = "spool"));
    assert_eq!((count("/ring/") > 0, count("/spool/") > 0), (ring, spool), "{had:?}");
    assert!(open.len() >= 3, "it says what it has: {ended:#?}");
    assert_eq!(open.iter().filter(is_ours).count(), 0, "{open:?}");
    Got::read(&tcp.close_at_end()).assert_complete(1, 1);
    let fault = format!(
        "exec with {} descriptors open: file, sockets, spool, ring",
        had.iter().filter(is_ours).count()
    );
    fault_report::record(&fault, "none is left to the other program", 1, 1, &[], 0);
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
