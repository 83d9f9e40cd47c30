//! What each kind of destination gets, byte for byte, and what becomes of messages when it goes away.
#![cfg(all(unix, feature = "tracing"))]

mod process_support;

use std::fs;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use process_support::child;
use process_support::oracle::{assert_accounted, assert_balanced, send, send_all, text, Got};
use process_support::receiver::Receiver;
use process_support::{built, lines_of, Directory, LONG};
use serde_json::Value;
use tracing_metlog::{Batch, Capture, Framing, LossReason, Transport};

/// Everything there and accounted for.
fn arrives(address: &str, received: impl FnOnce(usize) -> Vec<String>) {
    let guard = built(tracing_metlog::builder().router(address).flush_timeout(LONG));
    send_all(&guard.client(), 2, 100);
    let stats = guard.finish();
    let got = Got::read(&received(200));
    got.assert_complete(2, 100);
    got.assert_ordered();
    assert_accounted(&stats, &got, 2, 100);
    assert_eq!(stats.destinations[0].address, address);
}

/// The receiver of datagrams fails on one that holds a newline or is no message.
#[test]
fn udp_sends_one_message_a_datagram_without_a_newline() {
    let receiver = Receiver::udp();
    arrives(&receiver.address.clone(), |count| receiver.wait_for(count));
}

#[test]
fn unixgram_sends_one_message_a_datagram_without_a_newline() {
    let directory = Directory::new();
    let receiver = Receiver::unixgram(&directory.file("router"));
    arrives(&receiver.address.clone(), |count| receiver.wait_for(count));
}

#[test]
fn tcp_ends_each_message_with_a_newline() {
    let receiver = Receiver::tcp();
    arrives(&receiver.address.clone(), |_| receiver.close_at_end());
}

#[test]
fn tcp_sends_the_length_before_each_message_if_asked_to() {
    let receiver = Receiver::tcp_counted();
    arrives(&receiver.address.clone(), |_| receiver.close_at_end());
}

#[test]
fn a_unix_socket_gets_one_message_a_line() {
    let directory = Directory::new();
    let receiver = Receiver::unix(&directory.file("router"));
    arrives(&receiver.address.clone(), |_| receiver.close_at_end());
}

#[test]
fn a_host_name_is_as_good_as_an_address() {
    let receiver = Receiver::tcp();
    arrives(&format!("tcp://localhost:{}", receiver.port()), |_| receiver.close_at_end());
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).expect("JSON")
}

#[test]
fn a_message_over_the_limit_of_a_datagram_is_cut_between_characters_and_marked() {
    let receiver = Receiver::udp();
    let guard = built(tracing_metlog::builder().router(&receiver.address));
    // 35,000 bytes, and 98,000 as JSON; its characters have several sizes, so that one stands across the limit.
    let long = "é→\u{1}\u{1}".repeat(5_000);
    for shift in ["", "a", "ab", "abc", "abcd"] {
        guard.client().message("oldstyle").payload(format!("{shift}{long}").as_str()).field("kept", 7).send();
    }
    assert_eq!(guard.flush(LONG).pending, 0);
    for (line, shift) in receiver.wait_for(5).iter().zip(["", "a", "ab", "abc", "abcd"]) {
        assert!((59_990..=60_000).contains(&line.len()), "{} bytes", line.len());
        assert!(!line.contains(char::REPLACEMENT_CHARACTER));
        let message = parsed(line);
        assert_eq!((&message["fields"]["truncated"], &message["fields"]["kept"]), (&true.into(), &7.into()));
        let payload = message["payload"].as_str().expect("text");
        assert!(format!("{shift}{long}").starts_with(payload) && payload.len() > 20_000);
    }
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!((stats.delivered, stats.truncated, stats.lost.total()), (5, 5, 0));
}

#[test]
fn the_payload_is_cut_first_and_then_the_largest_field() {
    let receiver = Receiver::udp();
    let guard = built(tracing_metlog::builder().router(&receiver.address).max_message_bytes(2_000));
    let client = guard.client();
    let [payload, large, small] =
        [("p", 1_500), ("l", 1_400), ("s", 300)].map(|(text, times)| text.repeat(times));
    let message = |payload: &str, large: &str| {
        let message = client.message("oldstyle").payload(payload);
        message.field("small", small.as_str()).field("large", large).send();
    };
    message(&payload, "l");
    message(&payload, &large);
    message(&payload, &large.repeat(2));
    message("p", "l");
    let lines = receiver.wait_for(4);
    let of =
        |line: usize, pointer: &str| parsed(&lines[line]).pointer(pointer).cloned().unwrap_or(Value::Null);
    let length = |line, pointer| of(line, pointer).as_str().expect("text").len();
    assert!(length(0, "/payload") > 1_000 && length(0, "/fields/large") == 1 && lines[0].len() <= 2_000);
    assert!(length(1, "/payload") < 300 && length(1, "/fields/large") <= 1_400 && lines[1].len() <= 2_000);
    assert!(length(2, "/payload") == 0 && (1_000..2_000).contains(&length(2, "/fields/large")));
    for line in 0..4 {
        assert_eq!(length(line, "/fields/small"), 300);
        assert_eq!(of(line, "/fields/truncated"), if line < 3 { Value::Bool(true) } else { Value::Null });
    }
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!((stats.delivered, stats.truncated), (4, 3));
}

#[test]
fn a_message_that_cannot_be_cut_to_fit_is_counted_and_stalls_nothing() {
    let receiver = Receiver::udp();
    let guard = built(tracing_metlog::builder().router(&receiver.address).max_message_bytes(300));
    let client = guard.client();
    client.message("oldstyle").metric(&"n".repeat(1_000), 1.0).payload(1).send();
    client.message("oldstyle").payload("short").send();
    assert_eq!(guard.flush(LONG).pending, 0);
    receiver.wait_for(1);
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!(stats.lost.count(LossReason::TooLarge), stats.lost.total());
    assert!(stats.lost.total() >= 1, "{stats}");
    assert!(receiver.close().iter().any(|line| parsed(line)["payload"] == "short"));
}

#[test]
fn a_long_message_is_not_cut_on_a_stream() {
    let receiver = Receiver::tcp();
    let guard = built(tracing_metlog::builder().router(&receiver.address));
    let long = "é→\u{1}\u{1}".repeat(5_000);
    guard.client().message("oldstyle").payload(long.as_str()).send();
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!((stats.delivered, stats.truncated), (1, 0));
    let lines = receiver.close_at_end();
    assert!(lines[0].len() > 60_000 && parsed(&lines[0])["payload"] == long, "{} bytes", lines[0].len());
}

/// What was made while the router was away arrives when it is back, and the account knows of the trouble.
fn survives_a_restart(address: &str, first: Receiver, again: impl FnOnce() -> Receiver) {
    let guard = built(tracing_metlog::builder().router(address).flush_timeout(LONG));
    let client = guard.client();
    (0..100).for_each(|n| send(&client, 0, n));
    assert_eq!(guard.flush(LONG).pending, 0);
    first.wait_for(100);
    let mut lines = first.close();
    assert_eq!(lines.len(), 100);

    (0..100).for_each(|n| send(&client, 1, n));
    process_support::eventually("the failure is noticed", || guard.stats().destinations[0].failures > 0);
    let stats = guard.stats();
    assert_balanced(&stats);
    assert!(stats.destinations[0].problem.is_some(), "{stats:?}");
    assert_eq!((stats.delivered, stats.pending), (100, 100));

    let second = again();
    (0..100).for_each(|n| send(&client, 2, n));
    process_support::eventually("the router is found again", || guard.stats().pending == 0);
    assert_eq!(guard.stats().destinations[0].problem, None);
    let stats = guard.finish();
    lines.extend(second.wait_for(200));
    let got = Got::read(&lines);
    got.assert_complete(3, 100);
    got.assert_ordered();
    assert_accounted(&stats, &got, 3, 100);
}

#[test]
fn a_tcp_router_that_restarts_gets_what_was_made_meanwhile() {
    let first = Receiver::tcp();
    let (address, port) = (first.address.clone(), first.port());
    survives_a_restart(&address, first, || Receiver::tcp_at(port));
}

#[test]
fn a_unix_router_that_restarts_gets_what_was_made_meanwhile() {
    let directory = Directory::new();
    let path = directory.file("router");
    let first = Receiver::unix(&path);
    survives_a_restart(&first.address.clone(), first, || {
        fs::remove_file(&path).expect("removed");
        Receiver::unix(&path)
    });
}

#[test]
fn a_unixgram_router_that_restarts_gets_what_was_made_meanwhile() {
    let directory = Directory::new();
    let path = directory.file("router");
    let first = Receiver::unixgram(&path);
    survives_a_restart(&first.address.clone(), first, || {
        fs::remove_file(&path).expect("removed");
        Receiver::unixgram(&path)
    });
}

#[test]
fn a_file_that_is_renamed_or_removed_is_made_anew_and_no_line_is_lost() {
    let directory = Directory::new();
    let (path, rotated) = (directory.file("log"), directory.file("log.1"));
    let guard = built(tracing_metlog::builder().router(format!("file://{}", path.display())));
    let client = guard.client();
    let flushed = |t| {
        (0..100).for_each(|n| send(&client, t, n));
        assert_eq!(guard.flush(LONG).pending, 0);
    };
    flushed(0);
    fs::rename(&path, &rotated).expect("renamed");
    flushed(1);
    let mut lines = lines_of(&rotated);
    lines.extend(lines_of(&path));
    fs::remove_file(&path).expect("removed");
    flushed(2);
    let stats = guard.finish();
    lines.extend(lines_of(&path));
    let got = Got::read(&lines);
    got.assert_complete(3, 100);
    assert_accounted(&stats, &got, 3, 100);
    assert_eq!([&rotated, &path].map(|path| lines_of(path).len()), [100, 100]);
}

#[test]
fn a_file_whose_directory_is_missing_gets_everything_when_it_is_made() {
    let directory = Directory::new();
    let missing = directory.file("missing");
    let path = missing.join("log");
    let guard = built(tracing_metlog::builder().router(format!("file://{}", path.display())));
    (0..10).for_each(|n| send(&guard.client(), 0, n));
    process_support::eventually("it is noticed", || guard.stats().destinations[0].failures > 0);
    let problem = guard.stats().destinations[0].problem.clone().unwrap_or_default();
    assert!(problem.contains("does not exist"), "{problem}");
    fs::create_dir(&missing).expect("made");
    let stats = guard.finish();
    let got = Got::read(&lines_of(&path));
    got.assert_complete(1, 10);
    assert_accounted(&stats, &got, 1, 10);
}

/// What the child of this file does; nothing when it is run as a test.
#[test]
fn child() {
    let Some(mode) = child::mode() else { return };
    if let "nobody reads stderr" | "stderr is stuck" = mode.as_str() {
        return troubled_stderr(mode == "stderr is stuck");
    }
    // The test runner has begun a line of its own.
    println!();
    let guard = tracing_metlog::builder().router(child::router()).init();
    for n in 0..1_000 {
        tracing::info!(t = 0, n, "{}", text(0, n));
        if n % 100 == 0 {
            println!("the program's own line {n}");
            eprintln!("the program's own line {n}");
        }
    }
    drop(guard);
}

/// The router is down until the trouble with it has been told, to somebody who has gone, or who has stopped reading.
fn troubled_stderr(is_stuck: bool) {
    let (mut writer, reader) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let _reader = is_stuck.then_some(reader);
    if is_stuck {
        writer.set_nonblocking(true).expect("set");
        while std::io::Write::write(&mut writer, &[b'x'; 4096]).is_ok() {}
        writer.set_nonblocking(false).expect("set");
    }
    // SAFETY: it takes numbers, of two files that are open.
    #[allow(unsafe_code)]
    let _ = unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&writer), 2) };
    let path = child::router();
    let guard = tracing_metlog::builder().router(&path).panics(false).init();
    send(&guard.client(), 0, 0);
    process_support::eventually("the problem is told", || guard.stats().destinations[0].failures > 1);
    let directory = path.strip_prefix("file://").and_then(|path| std::path::Path::new(path).parent());
    fs::create_dir(directory.expect("a file in one")).expect("made");
    send(&guard.client(), 0, 1);
    drop(guard);
}

#[test]
fn a_problem_that_nobody_reads_on_stderr_costs_nothing() {
    let directory = Directory::new();
    let path = directory.file("made later").join("log");
    let address = format!("file://{}", path.display());
    let ended = child::run(child::command("child", "nobody reads stderr", &address));
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    Got::read(&lines_of(&path)).assert_complete(1, 2);
}

#[test]
fn a_reader_of_stderr_who_has_stopped_reading_holds_nothing_up() {
    let directory = Directory::new();
    let path = directory.file("made later").join("log");
    let address = format!("file://{}", path.display());
    let ended = child::run(child::command("child", "stderr is stuck", &address));
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    Got::read(&lines_of(&path)).assert_complete(1, 2);
}

#[test]
fn stdout_and_stderr_get_one_message_a_line_beside_what_the_program_prints() {
    for router in ["stdout:", "stderr:"] {
        let ended = child::run(child::command("child", "log", router));
        assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
        let streams =
            if router == "stdout:" { [&ended.stdout, &ended.stderr] } else { [&ended.stderr, &ended.stdout] };
        let lines: Vec<_> = streams[0].lines().filter(|line| line.starts_with('{')).collect();
        Got::read(&lines).assert_complete(1, 1_000);
        let own =
            |stream: &str| stream.lines().filter(|line| line.starts_with("the program's own line")).count();
        assert_eq!(streams.map(|stream| own(stream)), [10, 10]);
        assert!(!streams[1].contains(r#""payload""#));
    }
}

#[test]
fn off_sends_nothing_and_makes_nothing() {
    let guard = built(tracing_metlog::builder().router("off"));
    send_all(&guard.client(), 1, 100);
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!((stats.emitted, stats.destinations.len()), (0, 0));
}

/// A transport of a user's, which does what its script says of its first calls and then its work.
struct Scripted<F> {
    calls: Arc<AtomicU32>,
    first: F,
    then: Capture,
}

impl<F: FnMut(u32, &mut Batch) -> Option<io::Result<()>> + Send> Transport for Scripted<F> {
    fn framing(&self) -> Framing {
        Framing::Datagram
    }

    fn send(&mut self, batch: &mut Batch, deadline: Instant) -> io::Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        match (self.first)(call, batch) {
            Some(result) => result,
            None => self.then.send(batch, deadline),
        }
    }
}

/// Runs a hundred messages through such a transport; all must arrive, with this many failures.
fn scripted(
    failures: u64,
    problem: &str,
    first: impl FnMut(u32, &mut Batch) -> Option<io::Result<()>> + Send + 'static,
) {
    let (calls, capture) = (Arc::new(AtomicU32::new(0)), Capture::new());
    let transport = Scripted { calls: Arc::clone(&calls), first, then: capture.clone() };
    let guard = built(tracing_metlog::builder().transport(transport).flush_timeout(LONG));
    send_all(&guard.client(), 1, 100);
    if failures > 0 {
        let noticed =
            || guard.stats().destinations[0].problem.as_ref().is_some_and(|text| text.contains(problem));
        process_support::eventually("the problem is told", noticed);
    }
    let stats = guard.finish();
    let got = Got::read(&capture.lines());
    got.assert_complete(1, 100);
    got.assert_ordered();
    assert_accounted(&stats, &got, 1, 100);
    assert_eq!(stats.destinations[0].failures, failures);
}

#[test]
fn a_transport_of_ones_own_gets_everything() {
    scripted(0, "", |_, _| None);
}

#[test]
fn a_transport_that_panics_is_tried_again() {
    scripted(3, "panicked", |call, _| {
        assert!(call >= 3, "a bug in somebody's transport");
        None
    });
}

#[test]
fn a_transport_that_fails_is_tried_again() {
    scripted(3, "no route", |call, _| (call < 3).then(|| Err(io::Error::other("no route"))));
}

#[test]
fn a_transport_that_settles_nothing_and_says_all_is_well_is_tried_again() {
    scripted(3, "sent nothing", |call, _| (call < 3).then_some(Ok(())));
}

/// One that never waits for anything, as a socket that does not block.
#[test]
fn a_transport_that_is_slow_at_once_is_not_asked_without_a_pause() {
    struct Busy(Arc<AtomicU32>, Instant);
    impl Transport for Busy {
        fn send(&mut self, batch: &mut Batch, _: Instant) -> io::Result<()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            if Instant::now() < self.1 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            batch.delivered(batch.len());
            Ok(())
        }
    }
    let calls = Arc::new(AtomicU32::new(0));
    let busy = Busy(Arc::clone(&calls), Instant::now() + Duration::from_millis(300));
    let guard = built(tracing_metlog::builder().transport(busy).flush_timeout(LONG));
    send_all(&guard.client(), 1, 1);
    assert_eq!(guard.finish().delivered, 1);
    // At most one each millisecond, and as many again while the end waits for it.
    let calls = calls.load(Ordering::Relaxed);
    assert!(calls <= 1_000, "{calls} calls");
}

#[test]
fn a_transport_that_takes_one_message_at_a_time_gets_the_next_one_then() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let theirs = Arc::clone(&seen);
    struct OneByOne(Arc<std::sync::Mutex<Vec<String>>>);
    impl Transport for OneByOne {
        fn framing(&self) -> Framing {
            Framing::Datagram
        }
        fn send(&mut self, batch: &mut Batch, _: Instant) -> io::Result<()> {
            let first = batch.frames().next().expect("never asked to send nothing");
            self.0.lock().expect("whole").push(String::from_utf8(first.to_vec()).expect("UTF-8"));
            batch.delivered(1);
            Ok(())
        }
    }
    let guard = built(tracing_metlog::builder().transport(OneByOne(theirs)).flush_timeout(LONG));
    send_all(&guard.client(), 1, 500);
    let stats = guard.finish();
    let got = Got::read(&seen.lock().expect("whole"));
    got.assert_complete(1, 500);
    got.assert_ordered();
    assert_accounted(&stats, &got, 1, 500);
}

#[test]
fn a_transport_may_lose_messages_with_a_reason() {
    type Lines = Arc<std::sync::Mutex<Vec<String>>>;
    struct Picky(Lines);
    impl Transport for Picky {
        fn framing(&self) -> Framing {
            Framing::Datagram
        }
        fn send(&mut self, batch: &mut Batch, _: Instant) -> io::Result<()> {
            loop {
                let Some(frame) = batch.frames().next().map(<[u8]>::to_vec) else { return Ok(()) };
                let line = String::from_utf8(frame).expect("UTF-8");
                if parsed(&line)["fields"]["n"] == 3 {
                    batch.lost(LossReason::TooLarge);
                } else {
                    self.0.lock().expect("whole").push(line);
                    batch.delivered(1);
                }
            }
        }
    }
    let lines = Lines::default();
    let guard = built(tracing_metlog::builder().transport(Picky(Arc::clone(&lines))).flush_timeout(LONG));
    send_all(&guard.client(), 1, 10);
    let stats = guard.finish();
    let got = Got::read(&lines.lock().expect("whole"));
    assert_accounted(&stats, &got, 1, 10);
    assert_eq!(got.missing(1, 10).collect::<Vec<_>>(), [(0, 3)]);
    assert_eq!(stats.lost.count(LossReason::TooLarge), 1);
}

#[test]
fn what_a_transport_logs_itself_is_counted_and_goes_nowhere() {
    struct Chatty(Capture, Arc<std::sync::OnceLock<tracing_metlog::Client>>);
    impl Transport for Chatty {
        fn framing(&self) -> Framing {
            Framing::Datagram
        }
        fn send(&mut self, batch: &mut Batch, deadline: Instant) -> io::Result<()> {
            self.1.get().expect("set").incr("batches");
            self.0.send(batch, deadline)
        }
    }
    let (capture, client) = (Capture::new(), Arc::new(std::sync::OnceLock::new()));
    let builder = tracing_metlog::builder().transport(Chatty(capture.clone(), Arc::clone(&client)));
    let guard = built(builder.flush_timeout(LONG));
    assert!(client.set(guard.client()).is_ok());
    send_all(&guard.client(), 1, 10);
    assert_eq!(guard.flush(LONG).pending, 0);
    let stats = guard.finish();
    assert_balanced(&stats);
    let got = Got::read(&capture.lines());
    got.assert_complete(1, 10);
    assert!(stats.lost.count(LossReason::Recursive) > 0, "{stats}");
    assert_eq!((stats.delivered, stats.pending), (got.count(), 0), "{stats}");
}

#[test]
fn a_router_that_never_answers_a_connection_attempt_costs_the_end_no_more_than_its_timeout() {
    // TEST-NET-1: packets to it go nowhere, or are refused at once; both are fine.
    let guard = built(
        tracing_metlog::builder().router("tcp://192.0.2.1:5565").flush_timeout(Duration::from_millis(300)),
    );
    send_all(&guard.client(), 1, 10);
    let (took, stats) = process_support::timed(|| guard.finish());
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_balanced(&stats);
    assert_eq!((stats.emitted - stats.lost.total(), stats.pending), (0, 0), "{stats}");
}
