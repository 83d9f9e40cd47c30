//! Threads that make events as fast as they can: what an event costs them in CPU time, and how many were lost.
//!
//! In: a candidate, a number of threads and of calls. Out: CPU time of the calling threads alone, so that waiting for
//! a processor is not in it. Queues have room for everything: a lost event would be a cheap one, and is counted.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::candidates::Candidate;
use crate::clock;
use crate::peers::{self, Running};
use crate::workload::Workload;

/// Calls of each thread before anything counts.
const WARM_UP: u64 = 100;
/// A queue that has not moved for this long does not move any more.
const PATIENCE: Duration = Duration::from_secs(5);

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Hammered {
    /// CPU time of the calling threads, in nanoseconds for each event.
    pub nanoseconds: f64,
    /// Events that never came out.
    pub lost: f64,
}

/// Has each of `threads` threads make `calls` events.
///
/// # Errors
///
/// If the candidate cannot be started.
pub fn run(candidate: &Candidate, threads: u64, calls: u64) -> Result<Hammered, String> {
    let messages = threads * (calls + WARM_UP);
    peers::make_room_for(messages as usize);
    let mut running = candidate.start(Workload::Event)?;
    let nanoseconds = cpu_time(candidate.event, threads, calls) / (threads * calls) as f64;
    let lost = if candidate.hands_over { missing(&mut running, messages) } else { 0.0 };
    Ok(Hammered { nanoseconds, lost })
}

fn cpu_time(event: fn(u64), threads: u64, calls: u64) -> f64 {
    let begin_together = Barrier::new(threads as usize);
    let work = || {
        event(WARM_UP);
        begin_together.wait();
        let before = clock::thread_cpu();
        event(calls);
        clock::thread_cpu() - before
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread that logs does not panic")).sum()
    })
}

/// How many of the messages have not come out when nothing comes any more.
fn missing(running: &mut Running, expected: u64) -> f64 {
    (running.flush)();
    let (mut arrived, mut moved) = (0, Instant::now());
    while arrived < expected && moved.elapsed() < PATIENCE {
        let now = (running.arrived)();
        if now > arrived {
            (arrived, moved) = (now, Instant::now());
        }
        thread::sleep(Duration::from_millis(1));
    }
    expected as f64 - arrived as f64
}
