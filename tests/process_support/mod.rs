//! What the tests of processes and networks share: messages that carry their own number, the oracle that checks
//! them, receivers of our own, and children of the running test.
#![allow(dead_code)]

pub mod child;
pub mod fault_report;
#[path = "../support/json.rs"]
pub mod json;
pub mod oracle;
pub mod receiver;
#[path = "../support/oracle.rs"]
pub mod schema;
pub mod size;
pub mod stalled;
#[cfg(target_os = "linux")]
pub mod tally;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tracing_metlog::{Builder, Guard};

/// A limit no healthy step comes near, on a machine that is busy with other things too.
pub const LONG: Duration = Duration::from_secs(60);

/// A generator without a subscriber: its messages come from [`Guard::client`].
pub fn built(builder: Builder) -> Guard {
    builder.build().expect("builds").1
}

/// Asks until `condition` holds; the limit is there to fail, not to wait.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LONG, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A flush of a second, which may take a tenth of a second more. A machine that is busy with other tests may take its
/// time once: then it is asked again, twice at most.
pub fn flush_of_a_second(guard: &tracing_metlog::Guard) -> (Duration, tracing_metlog::Flushed) {
    const ONE: Duration = Duration::from_secs(1);
    let mut took = Vec::new();
    for _ in 0..3 {
        let (last, flushed) = timed(|| guard.flush(ONE));
        if last < Duration::from_millis(1_100) {
            return (last, flushed);
        }
        took.push(last);
    }
    panic!("flush(1 s) took {took:?}");
}

/// How long `work` took, and what it gave.
pub fn timed<R>(work: impl FnOnce() -> R) -> (Duration, R) {
    let begun = Instant::now();
    let result = work();
    (begun.elapsed(), result)
}

/// Does something when it is dropped, also by a failing test: threads that wait for it end, and the test does too.
pub struct AtEnd<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A directory of its own, gone with the test.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("metlog-test-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("made");
        Directory(path)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The lines of a file that may not be there.
pub fn lines_of(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A port of this host where nobody listens: what connects is refused.
pub fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.local_addr().expect("bound").port()
}
