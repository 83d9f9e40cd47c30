//! Lanes: where a thread puts its records. A thread always uses the same lane, so its records stay in order.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crossbeam_utils::CachePadded;

use super::Chunk;

/// What is under a lane's lock.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) index: usize,
    /// What records are appended to; [`Chunk::none`] before the first record and after the worker took it.
    pub(crate) chunk: Chunk,
    /// The worker waits to be called.
    pub(crate) armed: bool,
    /// Nothing is taken any more. A closed lane has no chunk.
    pub(crate) closed: bool,
    /// Messages put here, ever.
    pub(crate) emitted: u64,
}

/// A few lanes for each processor: enough that two running threads rarely share one.
pub(crate) struct Lanes {
    /// As many as there can be, so that no index needs a check.
    lanes: Box<[CachePadded<Mutex<Lane>>; MOST]>,
    /// Those in use.
    count: usize,
}

/// A power of two.
const MOST: usize = 64;

impl Lanes {
    /// How many there are in this process: found once, because the system may answer differently later.
    pub(crate) fn count() -> usize {
        const PER_PROCESSOR: usize = 2;
        static COUNT: OnceLock<usize> = OnceLock::new();
        *COUNT.get_or_init(|| {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            (processors * PER_PROCESSOR).next_power_of_two().min(MOST)
        })
    }

    pub(crate) fn new() -> Lanes {
        let count = Lanes::count();
        let lane = |index| {
            let chunk = Chunk::none();
            CachePadded::new(Mutex::new(Lane { index, chunk, armed: false, closed: false, emitted: 0 }))
        };
        Lanes { lanes: Box::new(std::array::from_fn(lane)), count }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The lane of the thread with this index. The count is a power of two.
    #[inline]
    pub(crate) fn of(&self, thread: usize) -> MutexGuard<'_, Lane> {
        self.at(thread & self.count.wrapping_sub(1))
    }

    #[inline]
    pub(crate) fn at(&self, index: usize) -> MutexGuard<'_, Lane> {
        // No code that could panic runs under the lock.
        self.lanes[index % MOST].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All lanes, each locked while it is looked at.
    pub(crate) fn iter(&self) -> impl Iterator<Item = MutexGuard<'_, Lane>> {
        (0..self.len()).map(|index| self.at(index))
    }

    /// Those that are not locked. In a forked child a lock that another thread held at the fork is never released.
    pub(crate) fn iter_unlocked(&self) -> impl Iterator<Item = MutexGuard<'_, Lane>> {
        self.lanes.iter().take(self.count).filter_map(|lane| lane.try_lock().ok())
    }
}
