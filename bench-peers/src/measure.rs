//! One peer doing one workload in this process: blocks of calls, and the queue emptied between them.
//!
//! Every message that goes in must come out: a peer that drops some would look cheaper than it is, so that is an
//! error and not a figure.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use crate::peers::{Peer, Running};
use crate::workload::Workload;
use crate::{alloc, clock, number};

/// Calls in a block: few enough for every peer's queue.
const BLOCK: u64 = 1_000;
/// Blocks before anything counts: buffers have grown, callsites are registered.
const WARM_UP: u64 = 3;
/// Blocks that are timed.
const TIMED: usize = 101;
/// Blocks whose instructions are counted; they differ little, and valgrind is slow.
const COUNTED: u64 = 5;
/// How long a peer may take to hand on a block.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many calls [`run_for_callgrind`] makes in [`MEASURED_FUNCTION`].
pub const COUNTED_CALLS: u64 = BLOCK * COUNTED;

/// How many blocks [`count_blocks`] makes in [`MEASURED_FUNCTION`].
pub const COUNTED_BLOCKS: u64 = COUNTED;

/// The function that callgrind is told to look at, and only while it runs.
pub const MEASURED_FUNCTION: &str = "measured_block";

/// What a call costs on the calling thread.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// The median over blocks of the time a call takes.
    pub nanoseconds: f64,
    /// Requests for memory.
    pub allocations: f64,
}

/// Runs a workload as it is; nothing if the peer cannot do it.
///
/// # Errors
///
/// If not every message came out.
pub fn run(peer: &Peer, workload: Workload) -> Result<Option<Cost>, String> {
    let Some(running) = (peer.start)(workload) else { return Ok(None) };
    let mut bench = Bench::start(running, BLOCK, workload.messages())?;
    let mut times = Vec::with_capacity(TIMED);
    let mut allocations = 0;
    for _ in 0..TIMED {
        let (before, start) = (alloc::count(), Instant::now());
        measured_block(&mut *bench.running.calls, BLOCK);
        times.push(start.elapsed());
        allocations += alloc::count() - before;
        bench.empty_queue()?;
    }
    let times = times.iter().map(|time| time.as_nanos() as f64);
    Ok(Some(Cost {
        nanoseconds: number::median(times) / BLOCK as f64,
        allocations: allocations as f64 / (TIMED as u64 * BLOCK) as f64,
    }))
}

/// Runs a workload for callgrind, which does the counting; `false` if the peer cannot do it.
///
/// # Errors
///
/// If not every message came out.
pub fn run_for_callgrind(peer: &Peer, workload: Workload) -> Result<bool, String> {
    let Some(running) = (peer.start)(workload) else { return Ok(false) };
    count_blocks(running, BLOCK, workload.messages()).map(|()| true)
}

/// The calling thread's CPU time for a call, in nanoseconds: the median over blocks of `block` calls.
///
/// # Errors
///
/// If not `messages` messages came out for each call.
pub fn time_blocks(running: Running, block: u64, messages: u64) -> Result<f64, String> {
    let mut bench = Bench::start(running, block, messages)?;
    let mut times = Vec::with_capacity(TIMED);
    for _ in 0..TIMED {
        let before = clock::thread_cpu();
        measured_block(&mut *bench.running.calls, block);
        times.push(clock::thread_cpu() - before);
        bench.empty_queue()?;
    }
    Ok(number::median(times) / block as f64)
}

/// Runs [`COUNTED_BLOCKS`] blocks for callgrind, which does the counting.
///
/// # Errors
///
/// If not `messages` messages came out for each call.
pub fn count_blocks(running: Running, block: u64, messages: u64) -> Result<(), String> {
    let mut bench = Bench::start(running, block, messages)?;
    for _ in 0..COUNTED {
        measured_block(&mut *bench.running.calls, block);
        bench.empty_queue()?;
    }
    Ok(())
}

/// Keeps its name in the program, and is not inlined, so that callgrind finds it.
#[no_mangle]
#[inline(never)]
fn measured_block(calls: &mut dyn FnMut(u64), count: u64) {
    calls(black_box(count));
    // The call above must return here: a jump out of it would never switch the counting off.
    black_box(count);
}

struct Bench {
    running: Running,
    messages_per_block: u64,
    expected: u64,
}

impl Bench {
    fn start(running: Running, block: u64, messages: u64) -> Result<Bench, String> {
        let mut bench = Bench { running, messages_per_block: messages * block, expected: 0 };
        for _ in 0..WARM_UP {
            (bench.running.calls)(block);
            bench.empty_queue()?;
        }
        Ok(bench)
    }

    /// Waits until every message has come out, and no more than that.
    fn empty_queue(&mut self) -> Result<(), String> {
        self.expected += self.messages_per_block;
        (self.running.flush)();
        let start = Instant::now();
        loop {
            let arrived = (self.running.arrived)();
            if arrived == self.expected {
                return Ok(());
            }
            if arrived > self.expected || start.elapsed() > PATIENCE {
                return Err(format!("{arrived} messages came out where {} went in", self.expected));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}
