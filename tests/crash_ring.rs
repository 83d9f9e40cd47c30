//! What a log call has returned from survives the process, however it dies: child processes say which calls have
//! returned, one by one, and die; the next one, or the router, delivers what they left.
#![cfg(all(feature = "ring", target_os = "linux"))]
// To die like a broken program.
#![allow(unsafe_code)]

mod process_support;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use process_support::fault_report::record;
use process_support::oracle::{assert_balanced, text, Got};
use process_support::{child, closed_port, eventually, Directory, LONG};
use tracing_metlog::{Builder, LossReason, WhenFull};

const RING: &str = "METLOG_TEST_RING";
#[cfg(feature = "spool")]
const SPOOL: &str = "METLOG_TEST_SPOOL";
const PRODUCER: &str = "METLOG_TEST_PRODUCER";
const LIMIT: &str = "METLOG_TEST_LIMIT";

/// What the oracle of one process says: each call that has returned, as eight bytes, by a pipe.
fn tell(n: u64) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(&n.to_le_bytes()).and_then(|()| out.flush());
}

fn number(name: &str) -> u64 {
    std::env::var(name).expect("given by the parent").parse().expect("a number")
}

fn builder() -> Builder {
    let builder = tracing_metlog::builder().logger("crash").filter("info").panics(false);
    let builder = child::router().split(',').fold(builder, Builder::router);
    let builder = match child::mode().as_deref() {
        Some("timers") => builder,
        _ => builder.disabled_timers(["*"]),
    };
    let builder = builder.when_full(WhenFull::Block).queue_bytes(4 << 20).flush_timeout(LONG);
    #[cfg(feature = "spool")]
    let builder = match std::env::var(SPOOL) {
        Ok(directory) => builder.spool(directory),
        Err(_) => builder,
    };
    match std::env::var(RING) {
        Ok(directory) => builder.ring(Path::new(&directory)),
        Err(_) => builder,
    }
}

/// What the children of this file do; nothing when it is run as a test.
#[test]
fn child() {
    let Some(mode) = child::mode() else { return };
    println!();
    if mode == "late" {
        log_before_the_ring();
    }
    let guard = builder().init();
    match mode.as_str() {
        "deliver" => {
            // What is still in a spool at the end of a program stays there, and is the next start's.
            eventually("the spool is empty", || guard.stats().spooled == 0);
            let stats = guard.finish();
            assert_balanced(&stats);
            println!("stats: {} {} {}", stats.inherited, stats.delivered, stats.lost.total());
            println!("damaged: {}", stats.lost.count(LossReason::Damaged));
            return;
        }
        "ends" => {
            (0..number(LIMIT)).for_each(|n| tracing::info!(t = 0, n, "{}", text(0, n)));
            let stats = guard.finish();
            assert_balanced(&stats);
            println!("stats: {} {} {}", stats.delivered, stats.lost.total(), stats.pending);
            return;
        }
        _ => log_and_die(&mode),
    }
    drop(guard);
}

/// Logs until it dies; in three shapes, so that callsites, spans and their fields are needed to read what is left.
fn log_and_die(mode: &str) {
    let (t, limit) = (number(PRODUCER), number(LIMIT));
    tell(u64::MAX);
    for n in 0..u64::MAX {
        log_one(t, n);
        tell(n);
        if n >= limit {
            die(mode);
        }
    }
}

fn log_one(t: u64, n: u64) {
    match n % 3 {
        0 => tracing::info!(t, n, "{}", text(t, n)),
        1 => tracing::info_span!("inside", t, number = n).in_scope(|| log::info!(n; "{}", text(t, n))),
        _ => tracing::info_span!("request", t).in_scope(|| tracing::warn!(n, "{}", text(t, n))),
    }
}

/// All callsites are known before there is a ring.
fn log_before_the_ring() {
    use tracing_subscriber::layer::SubscriberExt;
    let (layer, _guard) = tracing_metlog::builder().router("off").build().expect("builds");
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        (0..3).for_each(|n| log_one(9, n));
    });
}

fn die(mode: &str) {
    match mode {
        "abort" => std::process::abort(),
        // SAFETY: it is not; that is what it is for.
        "segv" => unsafe { std::ptr::null_mut::<u8>().write_volatile(1) },
        // SAFETY: it takes a number and does not return.
        "_exit" => unsafe { libc::_exit(3) },
        // SAFETY: as above.
        "timers" | "late" => unsafe { libc::_exit(3) },
        "oom" => use_up_the_memory(),
        "fork" => fork_and_die(),
        // The parent kills it, some time.
        "killed" => {}
        other => panic!("mode {other}"),
    }
}

/// A `Debug` that forks: the child is in the middle of a log call, behind everything that asks for a fork.
struct Forks;

impl std::fmt::Debug for Forks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // SAFETY: the child calls nothing but what this crate does in a log call, sleeps and ends.
        if unsafe { libc::fork() } > 0 {
            // SAFETY: it takes a number and does not return.
            unsafe { libc::_exit(3) };
        }
        formatter.write_str("forked")
    }
}

/// The process dies, and a child of it lives on that has just logged a message of its own.
fn fork_and_die() {
    tracing::info!(t = 0, n = 4711, value = ?Forks);
    // SAFETY: these take numbers. Nobody waits for this process: it has closed what it had from its parent.
    unsafe {
        (0..3).for_each(|file| assert_eq!(libc::close(file), 0));
        libc::sleep(20);
        libc::_exit(0);
    }
}

/// Takes whole lines over TCP from processes that may die in the middle of one; what comes after the last newline of a
/// connection is left out, as every receiver of lines does.
struct Sink {
    address: String,
    lines: Arc<Mutex<Vec<String>>>,
    /// Connections that are read.
    open: Arc<AtomicUsize>,
}

impl Sink {
    fn start() -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = format!("tcp://{}", listener.local_addr().expect("bound"));
        let (lines, open) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let (shared, counted) = (Arc::clone(&lines), Arc::clone(&open));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, counted) = (Arc::clone(&shared), Arc::clone(&counted));
                counted.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    read_lines(stream, &shared);
                    counted.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Sink { address, lines, open }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("whole").clone()
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

fn read_lines(mut stream: impl Read, shared: &Mutex<Vec<String>>) {
    let (mut bytes, mut space) = (Vec::new(), vec![0; 1 << 16]);
    while let Ok(count @ 1..) = stream.read(&mut space) {
        bytes.extend_from_slice(&space[..count]);
        let Some(end) = bytes.iter().rposition(|&byte| byte == b'\n') else { continue };
        let whole = String::from_utf8(bytes.drain(..=end).collect()).expect("UTF-8");
        shared.lock().expect("whole").extend(whole.lines().map(str::to_owned));
    }
}

/// A child that logs.
struct Logging {
    child: Child,
    told: ChildStdout,
}

impl Logging {
    fn start(mode: &str, router: &str, ring: Option<&Path>, t: u64, limit: u64) -> Logging {
        Logging::start_with(mode, router, ring, t, limit, &[])
    }

    fn start_with(
        mode: &str,
        router: &str,
        ring: Option<&Path>,
        t: u64,
        limit: u64,
        variables: &[(&str, &Path)],
    ) -> Logging {
        let mut command = child::command("child", mode, router);
        command.envs(variables.iter().copied());
        command.env(PRODUCER, t.to_string()).env(LIMIT, limit.to_string());
        command.stderr(std::process::Stdio::null());
        if let Some(ring) = ring {
            let complaints =
                OpenOptions::new().create(true).append(true).open(complaints(ring)).expect("opens");
            command.env(RING, ring).stderr(complaints);
        }
        let mut child = command.spawn().expect("starts");
        let mut told = child.stdout.take().expect("piped");
        // The test runner says something first; what is told begins with a number that no call has.
        let mut last = [0u8; 8];
        let mut one = [0];
        while last != [0xFF; 8] {
            told.read_exact(&mut one).expect("the child begins");
            last.rotate_left(1);
            last[7] = one[0];
        }
        Logging { child, told }
    }

    /// Waits until so many calls have returned.
    fn wait_for(&mut self, calls: u64) {
        let mut number = [0; 8];
        (0..calls).for_each(|_| self.told.read_exact(&mut number).expect("it goes on"));
    }

    /// Waits for its end, and gives how many calls have returned in all.
    fn ended(self, already: u64) -> u64 {
        already + self.ended_how().0
    }

    /// Waits for its end, and gives how many more calls have returned, and how it ended.
    fn ended_how(mut self) -> (u64, std::process::ExitStatus) {
        let mut rest = Vec::new();
        self.told.read_to_end(&mut rest).expect("read");
        let status = self.child.wait().expect("waited for");
        ((rest.len() / 8) as u64, status)
    }

    fn killed_after(mut self, calls: u64) -> u64 {
        self.wait_for(calls);
        self.child.kill().expect("SIGKILL");
        self.ended(calls)
    }
}

/// Where children that have a ring there write what they have to complain of.
fn complaints(ring: &Path) -> PathBuf {
    ring.with_extension("complaints")
}

/// Every child had its ring, and found nothing wrong with others.
fn assert_content(ring: &Path) {
    let complaints = std::fs::read_to_string(complaints(ring)).unwrap_or_default();
    let about_rings: Vec<_> = complaints.lines().filter(|line| !line.contains("refused")).collect();
    assert!(about_rings.is_empty(), "{} in all, {:?}", about_rings.len(), about_rings[0]);
}

/// Starts a program of the same name, which delivers what is left, and ends it. What it said: messages replayed,
/// delivered, lost.
fn deliver(router: &str, ring: &Path) -> child::Ended {
    deliver_with(router, ring, &[])
}

fn deliver_with(router: &str, ring: &Path, variables: &[(&str, &Path)]) -> child::Ended {
    let mut command = child::command("child", "deliver", router);
    command.env(RING, ring).envs(variables.iter().copied());
    let ended = child::run(command);
    assert!(ended.status.success(), "{ended:#?}");
    ended
}

/// Numbers that follow from `seed`, for moments to die at.
fn chances(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    })
}

/// What came of what was told: every returned call, nothing that was not made; how many came more than once.
fn check(lines: &[String], returned: &BTreeMap<u64, u64>) -> (u64, u64) {
    let got = Got::read(lines);
    let (mut delivered, mut duplicates) = (0, 0);
    for (&t, &calls) in returned {
        let missing: Vec<_> = (0..calls).filter(|&n| !got.ids.contains_key(&(t, n))).collect();
        assert!(missing.is_empty(), "of process {t}, {calls} calls returned; missing {missing:?}");
        delivered += calls;
    }
    for (&(t, n), &times) in &got.ids {
        // One more may be in the ring whose call had not returned, or not told.
        assert!(n <= returned[&t], "message {t}/{n} was never sent: {} calls returned", returned[&t]);
        duplicates += u64::from(times - 1);
    }
    (delivered, duplicates)
}

#[test]
fn every_call_that_returned_is_delivered_after_200_kills_at_random_points() {
    const KILLS: u64 = 200;
    let (sink, directory) = (Sink::start(), Directory::new());
    let ring = directory.file("ring");
    let down = format!("tcp://127.0.0.1:{}", closed_port());
    let mut returned = BTreeMap::new();
    for (t, chance) in (0..KILLS).zip(chances(7)) {
        // Every third of them finds the router down, and what it leaves waits for one that does not.
        let router = if t % 3 == 2 { &down } else { &sink.address };
        let child = Logging::start("killed", router, Some(&ring), t, u64::MAX);
        returned.insert(t, child.killed_after(chance % 400));
    }
    deliver(&sink.address, &ring);
    eventually("every connection is read to its end", || sink.open() == 0);
    assert_content(&ring);
    let (delivered, duplicates) = check(&sink.lines(), &returned);
    record(
        "SIGKILL at 200 random points, ring",
        "every returned call",
        delivered,
        delivered,
        &[],
        duplicates,
    );
    assert_eq!(rings(&ring), Vec::<String>::new(), "nothing is left");
}

/// What a ring held goes to the spool and is settled there, in the ring's own order: killed in between, a message may
/// be in both, and never in neither.
#[cfg(feature = "spool")]
#[test]
fn every_call_that_returned_is_delivered_after_kills_with_a_ring_and_a_spool_while_the_router_comes_and_goes()
{
    const KILLS: u64 = 40;
    let (sink, directory) = (Sink::start(), Directory::new());
    let (ring, spool) = (directory.file("ring"), directory.file("spool"));
    let down = format!("tcp://127.0.0.1:{}", closed_port());
    // Read by the children, one after the other, all of which are of this test.
    let with_spool = |router: &str, t, calls| {
        Logging::start_with("killed", router, Some(&ring), t, u64::MAX, &[(SPOOL, spool.as_path())])
            .killed_after(calls)
    };
    let mut returned = BTreeMap::new();
    for (t, chance) in (0..KILLS).zip(chances(11)) {
        // Most find the router down: long enough for their messages to go to disk, and some to come from there.
        let router = if t % 4 == 3 { &sink.address } else { &down };
        returned.insert(t, with_spool(router, t, chance % 6000));
    }
    deliver_with(&sink.address, &ring, &[(SPOOL, spool.as_path())]);
    eventually("every connection is read to its end", || sink.open() == 0);
    let (delivered, duplicates) = check(&sink.lines(), &returned);
    let fault = "SIGKILL at 40 random points, ring and spool, router mostly down";
    record(fault, "every returned call", delivered, delivered, &[], duplicates);
    assert_eq!(rings(&ring), Vec::<String>::new(), "nothing is left");
}

/// What a spool has no room for is nowhere but in the ring.
#[cfg(feature = "spool")]
#[test]
fn every_call_that_returned_is_delivered_after_a_kill_with_a_ring_and_a_spool_that_is_full() {
    let (sink, directory) = (Sink::start(), Directory::new());
    let (ring, spool) = (directory.file("ring"), directory.file("spool"));
    let down = format!("tcp://127.0.0.1:{}", closed_port());
    let variables = [(SPOOL, spool.as_path()), ("METLOG_SPOOL_LIMIT", Path::new("131072"))];
    let child = Logging::start_with("killed", &down, Some(&ring), 0, u64::MAX, &variables);
    eventually("the spool says that it is full", || {
        std::fs::read_to_string(complaints(&ring)).is_ok_and(|said| said.contains("stay in memory"))
    });
    let returned = BTreeMap::from([(0, child.killed_after(1))]);
    deliver_with(&sink.address, &ring, &[(SPOOL, spool.as_path())]);
    eventually("every connection is read to its end", || sink.open() == 0);
    let (delivered, duplicates) = check(&sink.lines(), &returned);
    let fault = "SIGKILL, ring and a full spool, router down";
    record(fault, "every returned call", delivered, delivered, &[], duplicates);
}

/// More than the queue holds.
#[test]
fn a_destination_that_is_down_does_not_use_up_the_ring_of_the_others() {
    const CALLS: u64 = 60_000;
    let (sink, directory) = (Sink::start(), Directory::new());
    let down = format!("tcp://127.0.0.1:{}", closed_port());
    let mut command = child::command("child", "ends", &format!("{},{down}", sink.address));
    command.env(RING, directory.file("ring")).env(LIMIT, CALLS.to_string());
    let ended = child::run(command);
    assert!(ended.status.success(), "{ended:#?}");
    eventually("every connection is read to its end", || sink.open() == 0);
    let got = Got::read(&sink.lines());
    assert_eq!((got.missing(1, CALLS).count(), got.ids.len() as u64), (0, CALLS));
}

/// Where a child finds its memory cgroup.
const CGROUP: &str = "TEST_CGROUP";

/// Goes into a cgroup with little memory, and takes more.
fn use_up_the_memory() {
    let cgroup = PathBuf::from(std::env::var_os(CGROUP).expect("given"));
    std::fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).expect("moved");
    let mut taken = Vec::new();
    for _ in 0..1_024 {
        taken.push(vec![1_u8; 1 << 20]);
    }
    panic!("{} MiB, and nobody was killed", std::hint::black_box(taken).len());
}

/// A memory cgroup with 16 MiB, gone with the test.
struct Cgroup(PathBuf);

impl Cgroup {
    /// `None` where none can be made. Of version 2 or 1, whichever there is.
    fn make() -> Option<Cgroup> {
        let name = format!("metlog-test-{}", std::process::id());
        [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")]
            .into_iter()
            .find_map(|(root, limit)| {
                let cgroup = Cgroup(Path::new(root).join(&name));
                std::fs::create_dir(&cgroup.0).ok()?;
                // Where no such cgroups are, this is a directory like any other, and empty.
                let mut limit = OpenOptions::new().write(true).open(cgroup.0.join(limit)).ok()?;
                std::io::Write::write_all(&mut limit, b"16777216").ok()?;
                Some(cgroup)
            })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Not before the kernel has taken the last process out of it.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// The out-of-memory killer sends SIGKILL, which other tests send too; here it is its own.
#[test]
fn every_call_that_returned_is_delivered_after_the_out_of_memory_killer() {
    let Some(cgroup) = Cgroup::make() else {
        // Containers have none, even for root, so this is no failure. A kill by another is tested in any case.
        return println!("no memory cgroup can be made here: the out-of-memory killer is not tested");
    };
    let (sink, directory) = (Sink::start(), Directory::new());
    let ring = directory.file("ring");
    let down = format!("tcp://127.0.0.1:{}", closed_port());
    let mut returned = BTreeMap::new();
    for t in 0..5 {
        let variables = [(CGROUP, cgroup.0.as_path())];
        let child = Logging::start_with("oom", &down, Some(&ring), t, 500 + t * 300, &variables);
        let (calls, status) = child.ended_how();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status:?}");
        returned.insert(t, calls);
    }
    deliver(&sink.address, &ring);
    eventually("every connection is read to its end", || sink.open() == 0);
    let (delivered, duplicates) = check(&sink.lines(), &returned);
    record("out-of-memory killer x 5, ring", "every returned call", delivered, delivered, &[], duplicates);
}

fn rings(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("there");
    entries.map(|entry| entry.expect("read").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_call_that_returned_is_delivered_after_abort_a_segmentation_fault_and_an_exit_without_handlers() {
    for mode in ["abort", "segv", "_exit"] {
        let (sink, directory) = (Sink::start(), Directory::new());
        let ring = directory.file("ring");
        let down = format!("tcp://127.0.0.1:{}", closed_port());
        let mut returned = BTreeMap::new();
        for (t, chance) in (0..10).zip(chances(3)) {
            let router = if t % 2 == 1 { &down } else { &sink.address };
            let child = Logging::start(mode, router, Some(&ring), t, chance % 3000);
            returned.insert(t, child.ended(0));
        }
        deliver(&sink.address, &ring);
        eventually("every connection is read to its end", || sink.open() == 0);
        assert_content(&ring);
        let (delivered, duplicates) = check(&sink.lines(), &returned);
        record(&format!("{mode}, ring"), "every returned call", delivered, delivered, &[], duplicates);
    }
}

#[test]
fn without_the_ring_a_killed_program_loses_at_most_what_the_guarantee_says_and_nothing_else_goes_wrong() {
    let sink = Sink::start();
    let (mut returned, mut lost) = (0, 0);
    for (t, chance) in (0..20).zip(chances(11)) {
        let child = Logging::start("killed", &sink.address, None, t, u64::MAX);
        returned += child.killed_after(chance % 400);
    }
    // Connections end with their processes; what was in them is read.
    eventually("every connection is read to its end", || sink.open() == 0);
    let got = Got::read(&sink.lines());
    assert!(got.ids.values().all(|&times| times == 1), "without the ring nothing comes twice");
    lost += returned.saturating_sub(got.ids.len() as u64);
    record("SIGKILL, no ring", "what was queued is lost", returned, returned - lost, &[("killed", lost)], 0);
}

#[test]
fn a_message_of_a_dead_process_says_what_it_would_have_said() {
    let (sink, directory) = (Sink::start(), Directory::new());
    let ring = directory.file("ring");
    let down = format!("tcp://127.0.0.1:{}", closed_port());
    let before = now();
    let child = Logging::start("timers", &down, Some(&ring), 0, 5);
    let process = child.child.id();
    assert_eq!(child.ended(0), 6);
    let after = now();
    let ended = deliver(&sink.address, &ring);
    assert_eq!(ended.said("stats"), "10 10 0", "six lines and four timers");
    eventually("all is there", || sink.lines().len() >= 10);
    let messages: Vec<serde_json::Value> =
        sink.lines().iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for message in &messages {
        assert_eq!((&message["metlog_pid"], &message["logger"]), (&process.into(), &"crash".into()));
        let time = &message["timestamp"].as_str().expect("text")[..19];
        assert!(before.as_str() <= time && time <= after.as_str(), "{before} {time} {after}");
        assert_eq!(message["fields"]["thread"], "child");
        assert_eq!(message["fields"]["file"], file!());
    }
    let timers = messages.iter().filter(|message| message["type"] == "timer");
    let names: Vec<_> = timers.map(|timer| timer["fields"]["name"].as_str().expect("text")).collect();
    assert_eq!(names, ["inside", "request", "inside", "request"]);
    let warned = messages.iter().find(|message| message["severity"] == 4).expect("a warning");
    assert_eq!(warned["fields"]["spans"], "request");
    assert_eq!((&warned["fields"]["t"], &warned["fields"]["n"]), (&0.into(), &2.into()));
}

/// This moment to the second, by somebody else's clockwork.
fn now() -> String {
    let date = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S"]).output().expect("runs");
    String::from_utf8(date.stdout).expect("text").trim().to_owned()
}

#[test]
fn callsites_that_were_known_before_there_was_a_ring_are_in_it() {
    let (sink, directory) = (Sink::start(), Directory::new());
    let ring = directory.file("ring");
    let down = format!("tcp://127.0.0.1:{}", closed_port());
    assert_eq!(Logging::start("late", &down, Some(&ring), 0, 5).ended(0), 6);
    assert_eq!(deliver(&sink.address, &ring).said("stats"), "6 6 0");
    eventually("every connection is read to its end", || sink.open() == 0);
    check(&sink.lines(), &BTreeMap::from([(0, 6)]));
}

#[test]
fn a_program_that_ends_well_leaves_nothing() {
    let (sink, directory) = (Sink::start(), Directory::new());
    let ring = directory.file("ring");
    deliver(&sink.address, &ring);
    assert_eq!(rings(&ring), Vec::<String>::new());
}

#[test]
fn what_nobody_took_when_a_program_ended_is_not_lost_but_kept_for_the_next_start() {
    let (sink, directory) = (Sink::start(), Directory::new());
    let ring = directory.file("ring");
    let down = format!("tcp://127.0.0.1:{}", closed_port());
    let two = format!("{down},{}", sink.address);
    // The first are more than are ever taken out of the queue while nobody listens.
    for (routers, calls, account) in [(down, 20_000, "0 0 20000"), (two, 100, "100 0 0")] {
        let mut command = child::command("child", "ends", &routers);
        command.env(RING, &ring).env(LIMIT, calls.to_string());
        let ended = child::run(command);
        assert_eq!(ended.said("stats"), account, "of the destination that has got most");
        let kept = format!("{calls} messages are kept");
        assert!(ended.complaints().iter().any(|line| line.contains(&kept)), "{ended:?}");
        assert_eq!(deliver(&sink.address, &ring).said("stats"), format!("{calls} {calls} 0"));
        assert_eq!(rings(&ring), Vec::<String>::new());
    }
    eventually("every connection is read to its end", || sink.open() == 0);
    let got = Got::read(&sink.lines());
    // The first hundred numbers came from both: once from the first, twice from the second.
    assert!((0..20_000).all(|n| got.ids[&(0, n)] == if n < 100 { 3 } else { 1 }));
}

#[test]
fn of_two_destinations_each_gets_every_call_that_returned_before_a_kill() {
    let (one, other, directory) = (Sink::start(), Sink::start(), Directory::new());
    let ring = directory.file("ring");
    let down = format!("tcp://127.0.0.1:{}", closed_port());
    let routers = format!("{},{down}", one.address);
    let calls = Logging::start("killed", &routers, Some(&ring), 0, u64::MAX).killed_after(2000);
    deliver(&format!("{},{}", one.address, other.address), &ring);
    for sink in [one, other] {
        eventually("every connection is read to its end", || sink.open() == 0);
        check(&sink.lines(), &BTreeMap::from([(0, calls)]));
    }
}

#[test]
fn two_programs_in_one_directory_have_a_ring_each_and_neither_takes_the_others() {
    let (sink, directory) = (Sink::start(), Directory::new());
    let ring = directory.file("ring");
    let down = format!("tcp://127.0.0.1:{}", closed_port());
    let mut alive = Logging::start("killed", &down, Some(&ring), 0, u64::MAX);
    alive.wait_for(100);
    assert_eq!(deliver(&sink.address, &ring).said("stats"), "0 0 0", "the other one lives");
    let other = Logging::start("killed", &down, Some(&ring), 1, u64::MAX).killed_after(50);
    let alive = alive.killed_after(100);
    deliver(&sink.address, &ring);
    eventually("all is there", || sink.lines().len() as u64 >= alive + 100 + other);
    check(&sink.lines(), &BTreeMap::from([(0, alive + 100), (1, other)]));
}

#[test]
fn a_ring_that_cannot_be_made_is_no_error_and_the_queue_is_in_memory() {
    let (sink, directory) = (Sink::start(), Directory::new());
    let file = directory.file("no directory");
    std::fs::write(&file, "").expect("written");
    let ended = deliver(&sink.address, &file);
    let complaints = ended.complaints().join("\n");
    assert!(complaints.contains("no crash ring") && complaints.contains("no directory"), "{complaints}");
    let mut child = Logging::start("killed", &sink.address, Some(&file), 0, u64::MAX);
    child.wait_for(50);
    eventually("it delivers", || sink.lines().len() >= 50);
    child.killed_after(0);
}

/// A small tmpfs, gone with the test.
struct SmallFileSystem(PathBuf);

impl SmallFileSystem {
    /// `None` for who may not mount one.
    fn mount(path: PathBuf) -> Option<SmallFileSystem> {
        std::fs::create_dir(&path).expect("made");
        let mut mount = std::process::Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"])
            .arg(&path)
            .stderr(std::process::Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(SmallFileSystem(path))
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_ring_that_finds_no_room_is_no_error_and_leaves_nothing() {
    let (sink, directory) = (Sink::start(), Directory::new());
    let Some(small) = SmallFileSystem::mount(directory.file("small")) else {
        return process_support::size::left_out("no tmpfs can be mounted");
    };
    let ring = small.0.join("ring");
    let ended = deliver(&sink.address, &ring);
    assert!(ended.complaints()[0].contains("No space left"), "{ended:?}");
    assert_eq!(rings(&ring), Vec::<String>::new());
}

#[test]
fn a_ring_with_damage_gives_what_is_whole_and_is_kept() {
    let (sink, directory) = (Sink::start(), Directory::new());
    let ring = directory.file("ring");
    let down = format!("tcp://127.0.0.1:{}", closed_port());
    Logging::start("_exit", &down, Some(&ring), 0, 99).ended(0);
    let name = rings(&ring).pop().expect("a ring");
    let mut bytes = std::fs::read(ring.join(&name)).expect("read");
    let wanted = text(0, 60).into_bytes();
    let at = bytes.windows(wanted.len()).position(|window| window == wanted).expect("message 60");
    // No UTF-8 any more.
    bytes[at] = 0xFF;
    std::fs::write(ring.join(&name), bytes).expect("written");
    let ended = deliver(&sink.address, &ring);
    assert_eq!((ended.said("stats"), ended.said("damaged")), ("99 100 1", "1"), "99 and a report");
    eventually("the rest is there", || sink.lines().len() >= 100);
    let (reports, lines): (Vec<_>, Vec<_>) =
        sink.lines().into_iter().partition(|line| line.contains("\"metlog.loss\""));
    assert!(reports[0].contains("\"damaged\":1"), "{reports:?}");
    let got = Got::read(&lines);
    assert!(!got.ids.contains_key(&(0, 60)) && got.ids.len() == 99);
    assert_eq!(rings(&ring), [name.replace(".ring", ".ring.bad")]);
    std::fs::write(ring.join("crash-1-1.ring"), "not a ring").expect("written");
    assert_eq!(deliver(&sink.address, &ring).said("damaged"), "1");
    assert!(rings(&ring).contains(&String::from("crash-1-1.ring.bad")));
}

#[test]
fn a_forked_child_writes_nothing_into_the_ring_and_does_not_hold_it() {
    let (sink, directory) = (Sink::start(), Directory::new());
    let ring = directory.file("ring");
    let down = format!("tcp://127.0.0.1:{}", closed_port());
    let child = Logging::start("fork", &down, Some(&ring), 0, 10);
    assert_eq!(child.ended(0), 11);
    // The grandchild is alive, and sleeps.
    assert_eq!(deliver(&sink.address, &ring).said("stats"), "11 11 0");
    eventually("all is there", || sink.lines().len() >= 11);
    check(&sink.lines(), &BTreeMap::from([(0, 11)]));
}

#[cfg(feature = "router")]
#[test]
fn the_router_adopts_what_dead_programs_left_whatever_they_are_called() {
    use tracing_metlog::router::{Config, Input, Matcher, Output, Route, Router};
    let directory = Directory::new();
    let ring = directory.file("ring");
    let down = format!("tcp://127.0.0.1:{}", closed_port());
    let file = directory.file("all.jsonl");
    let route = Route::new(Matcher::any(), Output::file(&file));
    let router = Router::start(Config::new().input(Input::udp("127.0.0.1:0")).route(route)).expect("starts");
    let mut returned = BTreeMap::new();
    // First, because a program adopts what it finds of its own name.
    let mut alive = Logging::start("killed", &down, Some(&ring), 3, u64::MAX);
    alive.wait_for(100);
    for (t, mode) in (0..).zip(["abort", "segv", "_exit"]) {
        returned.insert(t, Logging::start(mode, &down, Some(&ring), t, 500).ended(0));
    }
    let adopted = router.adopt(&ring);
    assert_eq!((adopted.rings, adopted.messages, adopted.damaged, adopted.left), (3, 1503, 0, 0));
    // They are in the file already: that is when a ring is let go.
    check(&process_support::lines_of(&file), &returned);
    assert_eq!(rings(&ring).len(), 1, "the one that lives");
    returned.insert(3, alive.killed_after(0) + 100);
    router.adopt(&ring);
    let (delivered, duplicates) = check(&process_support::lines_of(&file), &returned);
    record(
        "crashed programs, metlog-router --adopt",
        "every returned call",
        delivered,
        delivered,
        &[],
        duplicates,
    );
    assert_eq!(rings(&ring), Vec::<String>::new());
    router.shutdown(LONG);
}

#[cfg(feature = "router")]
#[test]
fn the_router_leaves_in_a_ring_what_an_output_cannot_write() {
    use tracing_metlog::router::{Config, Input, Matcher, Output, Route, Router};
    let directory = Directory::new();
    let ring = directory.file("ring");
    let down = format!("tcp://127.0.0.1:{}", closed_port());
    let calls = Logging::start("_exit", &down, Some(&ring), 0, 100).ended(0);
    let adopt_with = |output| {
        let config = Config::new().input(Input::udp("127.0.0.1:0")).route(Route::new(Matcher::any(), output));
        let router = Router::start(config).expect("starts");
        let adopted = router.adopt(&ring);
        router.shutdown(LONG);
        (adopted.rings, adopted.messages, adopted.left)
    };
    assert_eq!(adopt_with(Output::file("/dev/full")), (0, 0, 1));
    assert_eq!(rings(&ring).len(), 1);
    let (output, capture) = Output::capture();
    assert_eq!(adopt_with(output), (1, calls, 0));
    assert_eq!(capture.messages().len() as u64, calls);
}

#[cfg(feature = "router")]
#[test]
fn the_routers_program_adopts_programs_that_crash_while_it_runs() {
    let directory = Directory::new();
    let (ring, file) = (directory.file("ring"), directory.file("all.jsonl"));
    std::fs::create_dir(&ring).expect("made");
    let mut router = std::process::Command::new(env!("CARGO_BIN_EXE_metlog-router"))
        .args(["--quiet", "--listen", "udp://127.0.0.1:0", "--adopt"])
        .arg(&ring)
        .args(["--route", &format!("*=file:{}", file.display())])
        .spawn()
        .expect("starts");
    let down = format!("tcp://127.0.0.1:{}", closed_port());
    let returned = BTreeMap::from([(0, Logging::start("segv", &down, Some(&ring), 0, 200).ended(0))]);
    eventually("it is adopted", || process_support::lines_of(&file).len() >= 201);
    router.kill().expect("killed");
    router.wait().expect("waited for");
    check(&process_support::lines_of(&file), &returned);
}
