//! The hand-over: from the threads that log to the one that delivers.
//!
//! In: records, appended to a lane under a lock that is as good as never contended. Out: chunks of records, in the
//! order they were filled. The memory is a fixed pool of chunks; what happens when it is used up is [`WhenFull`].
//! Every record is counted as emitted when it comes in; one that is turned away is counted with its reason.
//!
//! ```text
//! caller -> lane (one chunk each) -- full or sealed --> full channel -> worker
//!              ^------------------- free channel <---------------------'
//! ```

pub(crate) mod fork;
#[cfg(not(feature = "ring"))]
mod heap;
mod lane;
#[cfg(feature = "ring")]
pub(crate) mod map;
#[cfg(all(test, feature = "ring"))]
pub(crate) mod points;
#[cfg(feature = "ring")]
pub(crate) mod ring;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::capture::record::MAX_RECORD;
use crate::stats::{Counters, LossReason};
#[cfg(not(feature = "ring"))]
use heap::Buffer;
use lane::{Lane, Lanes};
#[cfg(feature = "ring")]
use map::Buffer;

/// Bytes of a chunk: as many as the longest record has.
pub(crate) const CHUNK_BYTES: usize = MAX_RECORD;
/// The smallest pool: a chunk for each lane, as many free, so that lanes in use alone are no reason to shed, and two
/// on their way.
const SPARE_CHUNKS: usize = 2;
/// How long a blocked caller waits at a time before it looks whether there is still somebody to wait for.
const BLOCKED_STEP: Duration = Duration::from_millis(50);

/// What to do with a message when the queue is full: the router is slow or gone, or a burst was too large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// Drop the message that was just made. What is queued is older, and stays. The default: a log call never waits.
    #[default]
    DropNewest,
    /// Drop the oldest that are queued, 64 KiB of them at a time. A log call never waits, and the newest arrive.
    DropOldest,
    /// Wait until there is room. Nothing is lost; a log call takes as long as the router does.
    Block,
    /// Wait until there is room, but at most this long; then drop the message.
    BlockFor(Duration),
}

/// Records on their way to the worker.
#[derive(Debug)]
pub(crate) struct Chunk {
    bytes: Buffer,
    /// Messages the records make; more than records when an event holds several metrics.
    pub(crate) messages: u64,
    /// The lane it was filled in: records of one lane are in order.
    pub(crate) lane: usize,
}

impl Chunk {
    fn new(bytes: Buffer) -> Chunk {
        Chunk { bytes, messages: 0, lane: 0 }
    }

    /// What stands where there is no chunk: it has no memory, and so no room for any record.
    fn none() -> Chunk {
        Chunk { bytes: Buffer::none(), messages: 0, lane: 0 }
    }

    fn is_none(&self) -> bool {
        self.bytes.is_none()
    }

    /// Appends a record; `false`, and nothing is done, when there is no room for it.
    #[inline(always)]
    fn try_append(&mut self, record: &[u8], messages: u64) -> bool {
        let has_room = self.bytes.try_append(record);
        if has_room {
            self.messages += messages;
        }
        has_room
    }

    /// The records, one behind the other.
    pub(crate) fn records(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.messages = 0;
    }
}

/// How the worker is called.
#[derive(Debug)]
pub(crate) enum Call {
    /// A lane the worker found empty has a record again.
    Wake,
    /// Deliver what is queued now, then say so.
    Flush(Waiter),
    /// The same, and then end. `give_up` is when to give up on destinations that do not answer.
    Close { done: Waiter, deadline: Instant },
}

/// Somebody waits for this latch. It is opened at the latest when this is dropped: also when the worker ends, and
/// never comes to a call that was made a moment before.
#[derive(Debug)]
pub(crate) struct Waiter(pub(crate) Arc<Latch>);

impl Waiter {
    /// Whether the one who waits has given up.
    pub(crate) fn is_alone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.open_with(false);
    }
}

/// Opened once, waited for with a deadline. No more than a lock and a condition, because it is also waited for in
/// an `atexit` handler, when a thread has little else left.
#[derive(Debug, Default)]
pub(crate) struct Latch {
    /// Whether what was waited for came about, once that is known.
    open: Mutex<Option<bool>>,
    opened: std::sync::Condvar,
}

impl Latch {
    pub(crate) fn open(&self) {
        self.open_with(true);
    }

    fn open_with(&self, outcome: bool) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(outcome);
        self.opened.notify_all();
    }

    /// Whether it was opened before `deadline`, and not because nobody was left to do what is waited for.
    pub(crate) fn wait(&self, deadline: Instant) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = *open {
                return outcome;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            open = self.opened.wait_timeout(open, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Chunks that were taken back from the worker's side to make room, see [`WhenFull::DropOldest`].
#[derive(Debug, Default)]
struct Stolen {
    chunks: u64,
}

/// The queue: lanes, pool and the two channels between them and the worker.
pub(crate) struct Queue {
    lanes: Lanes,
    when_full: WhenFull,
    /// DEBUG and TRACE are turned away, because little room is left.
    shedding: AtomicBool,
    chunks: usize,
    free: (Sender<Chunk>, Receiver<Chunk>),
    full: (Sender<Chunk>, Receiver<Chunk>),
    stolen: Mutex<Stolen>,
    calls: Sender<Call>,
    /// Threads that wait for room: the worker must not linger.
    waiting: AtomicUsize,
    pub(crate) counters: Arc<Counters>,
    process: fork::Process,
    #[cfg(feature = "ring")]
    ring: Option<Arc<ring::LiveRing>>,
    /// Rings of dead processes, for the worker to deliver.
    #[cfg(feature = "ring")]
    pub(crate) adopted: Mutex<Vec<ring::dead::DeadRing>>,
}

impl Queue {
    /// A queue that holds `bytes` bytes of records, rounded to whole chunks, and the calls made to its worker.
    pub(crate) fn new(bytes: usize, when_full: WhenFull, counters: Arc<Counters>) -> (Queue, Receiver<Call>) {
        Queue::of(Buffer::of_heap(Queue::chunks(bytes)), when_full, counters)
    }

    /// How many chunks a queue of `bytes` bytes has.
    pub(crate) fn chunks(bytes: usize) -> usize {
        (bytes / CHUNK_BYTES).max(2 * Lanes::count() + SPARE_CHUNKS)
    }

    /// A queue with these chunks.
    fn of(buffers: Vec<Buffer>, when_full: WhenFull, counters: Arc<Counters>) -> (Queue, Receiver<Call>) {
        let lanes = Lanes::new();
        let chunks = buffers.len();
        let free = crossbeam_channel::bounded(chunks);
        let full = crossbeam_channel::bounded(chunks);
        for buffer in buffers {
            // There is room for exactly as many.
            let _ = free.0.try_send(Chunk::new(buffer));
        }
        // Never full; and of this kind only, calls nobody answered are dropped with the receiver, not with the sender.
        let (calls, called) = crossbeam_channel::unbounded();
        let queue = Queue {
            lanes,
            when_full,
            shedding: AtomicBool::new(false),
            chunks,
            free,
            full,
            stolen: Mutex::default(),
            calls,
            waiting: AtomicUsize::new(0),
            counters,
            process: fork::Process::current(),
            #[cfg(feature = "ring")]
            ring: None,
            #[cfg(feature = "ring")]
            adopted: Mutex::default(),
        };
        (queue, called)
    }

    /// A queue whose chunks are in a crash ring.
    #[cfg(feature = "ring")]
    pub(crate) fn in_ring(
        (ring, buffers): (Arc<ring::LiveRing>, Vec<Buffer>),
        when_full: WhenFull,
        counters: Arc<Counters>,
    ) -> (Queue, Receiver<Call>) {
        let (queue, calls) = Queue::of(buffers, when_full, counters);
        (Queue { ring: Some(ring), ..queue }, calls)
    }

    /// Takes a record of this thread that makes `messages` messages of this severity, or counts why not. Not to be
    /// called in a forked child: a lane may be locked there for ever.
    #[inline(always)]
    pub(crate) fn push(&self, thread: usize, record: &[u8], severity: u8, messages: u64) {
        if severity >= SHED_SEVERITY && self.shedding.load(Ordering::Relaxed) && self.is_shed() {
            return self.counters.turned_away(LossReason::Shed, messages);
        }
        let mut lane = self.lanes.of(thread);
        // A lane that is armed or closed has no chunk: see `arm` and `close`.
        if !lane.chunk.try_append(record, messages) {
            return self.push_to_fresh_chunk(lane, record, messages);
        }
        lane.emitted += messages;
    }

    /// Wakes the worker, unless it has a call to answer anyway: a busy producer's calls must leave room for a flush.
    fn ring_bell(&self) {
        if self.calls.is_empty() {
            let _ = self.calls.try_send(Call::Wake);
        }
    }

    /// The lane has no chunk, or a full one.
    #[cold]
    #[inline(never)]
    fn push_to_fresh_chunk(&self, mut lane: MutexGuard<'_, Lane>, record: &[u8], messages: u64) {
        if lane.closed {
            drop(lane);
            return self.counters.turned_away(LossReason::Closed, messages);
        }
        self.seal(&mut lane);
        let armed = std::mem::take(&mut lane.armed);
        let fresh = self.fresh_chunk();
        self.note_room(fresh.is_none());
        let lost = match fresh {
            Some(chunk) => {
                self.start(&mut lane, chunk, record, messages);
                drop(lane);
                None
            }
            None => {
                let index = lane.index;
                drop(lane);
                self.push_when_full(index, record, messages)
            }
        };
        if armed || self.is_low() {
            self.ring_bell();
        }
        if let Some(reason) = lost {
            self.counters.turned_away(reason, messages);
        }
    }

    fn start(&self, lane: &mut Lane, mut chunk: Chunk, record: &[u8], messages: u64) {
        chunk.lane = lane.index;
        chunk.bytes.begin(lane.index);
        // No record is longer than an empty chunk.
        chunk.try_append(record, messages);
        lane.chunk = chunk;
        lane.emitted += messages;
    }

    /// Hands the lane's chunk over. Under the lane's lock, so that its chunks stay in order.
    fn seal(&self, lane: &mut Lane) {
        if !lane.chunk.is_none() {
            // There is room for every chunk there is; only a queue without a worker is disconnected.
            let _ = self.full.0.try_send(std::mem::replace(&mut lane.chunk, Chunk::none()));
        }
    }

    fn fresh_chunk(&self) -> Option<Chunk> {
        self.free.1.try_recv().ok().or_else(|| match self.when_full {
            WhenFull::DropOldest => self.steal_oldest(),
            _ => None,
        })
    }

    /// Takes the oldest chunk back from the worker's side; its messages are lost.
    fn steal_oldest(&self) -> Option<Chunk> {
        let mut stolen = self.stolen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chunk = self.full.1.try_recv().ok()?;
        stolen.chunks += 1;
        drop(stolen);
        self.counters.lose(LossReason::QueueFull, chunk.messages);
        chunk.clear();
        Some(chunk)
    }

    /// No chunk is free: drops the record, or waits for one. Returns why it is lost, if it is.
    fn push_when_full(&self, lane: usize, record: &[u8], messages: u64) -> Option<LossReason> {
        let deadline = match self.when_full {
            WhenFull::DropNewest | WhenFull::DropOldest => return Some(LossReason::QueueFull),
            WhenFull::Block => None,
            // A patience too long to be added has no end.
            WhenFull::BlockFor(patience) => Instant::now().checked_add(patience),
        };
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.ring_bell();
        let outcome = self.wait_for_chunk(lane, record, messages, deadline);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        outcome.err()
    }

    fn wait_for_chunk(
        &self,
        index: usize,
        record: &[u8],
        messages: u64,
        deadline: Option<Instant>,
    ) -> Result<(), LossReason> {
        loop {
            let step = Instant::now() + BLOCKED_STEP;
            let chunk = self.free.1.recv_deadline(deadline.map_or(step, |deadline| deadline.min(step)));
            let mut lane = self.lanes.at(index);
            if lane.closed {
                chunk.map(|chunk| self.give_back(chunk)).ok();
                return Err(LossReason::Closed);
            }
            if lane.chunk.try_append(record, messages) {
                // Another thread of this lane got one meanwhile.
                lane.emitted += messages;
                chunk.map(|chunk| self.give_back(chunk)).ok();
                return Ok(());
            }
            if let Ok(chunk) = chunk {
                self.seal(&mut lane);
                self.start(&mut lane, chunk, record, messages);
                return Ok(());
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(LossReason::QueueFull);
            }
        }
    }

    /// Sheds DEBUG and TRACE from now on if less than an eighth of the room is left.
    fn note_room(&self, none_left: bool) {
        if none_left || self.free.1.len() * 8 < self.chunks {
            self.shedding.store(self.when_full != WhenFull::Block, Ordering::Relaxed);
        }
    }

    /// Whether DEBUG and TRACE are still to be shed. Looks for itself: the chunk whose return would have ended it may
    /// have come back between another caller's look at the room and the note it made of that, and a program that
    /// only says DEBUG would never fill another.
    #[cold]
    fn is_shed(&self) -> bool {
        self.end_shedding_if_roomy();
        self.shedding.load(Ordering::Relaxed)
    }

    fn end_shedding_if_roomy(&self) {
        if self.free.1.len() * 2 >= self.chunks {
            self.shedding.store(false, Ordering::Relaxed);
        }
    }

    /// Less than half of the room is left: the worker is called even if it would come by itself in a moment, and brings
    /// what comes next to its spool, if it has one.
    pub(crate) fn is_low(&self) -> bool {
        self.free.1.len() * 2 < self.chunks
    }

    /// Calls the worker. `false` when it is gone.
    pub(crate) fn call(&self, call: Call, deadline: Instant) -> bool {
        self.calls.send_deadline(call, deadline).is_ok()
    }

    /// Calls the worker if that can be done at once.
    pub(crate) fn call_now(&self, call: Call) -> bool {
        !matches!(self.calls.try_send(call), Err(TrySendError::Disconnected(_)))
    }

    /// Whether what is in the queue can be delivered by the next start.
    pub(crate) fn outlives_the_process(&self) -> bool {
        #[cfg(feature = "ring")]
        return self.ring.is_some();
        #[cfg(not(feature = "ring"))]
        false
    }

    /// Whether this is a child that was forked after the queue was made.
    pub(crate) fn was_forked(&self) -> bool {
        self.process.was_forked()
    }

    /// Messages that were made so far, those turned away included.
    pub(crate) fn emitted(&self) -> u64 {
        self.emitted_in_lanes() + self.counters.emitted_elsewhere()
    }

    /// Messages that lanes have taken so far.
    pub(crate) fn emitted_in_lanes(&self) -> u64 {
        match self.was_forked() {
            false => self.lanes.iter().map(|lane| lane.emitted).sum(),
            true => self.lanes.iter_unlocked().map(|lane| lane.emitted).sum(),
        }
    }
}

/// The severity that is shed first: DEBUG, and TRACE which has the same number.
const SHED_SEVERITY: u8 = 7;

/// The worker's side.
impl Queue {
    /// The next chunk that is full or sealed.
    pub(crate) fn take(&self) -> Option<Chunk> {
        self.full.1.try_recv().ok()
    }

    /// Gives an emptied chunk back to the pool.
    pub(crate) fn give_back(&self, mut chunk: Chunk) {
        chunk.clear();
        let _ = self.free.0.try_send(chunk);
        if self.shedding.load(Ordering::Relaxed) {
            self.end_shedding_if_roomy();
        }
    }

    /// Hands over what the lanes hold, however little.
    pub(crate) fn seal_all(&self) {
        for mut lane in self.lanes.iter() {
            self.seal(&mut lane);
        }
    }

    /// Hands over what the lanes hold and takes nothing more.
    pub(crate) fn close(&self) {
        for mut lane in self.lanes.iter() {
            self.seal(&mut lane);
            lane.closed = true;
        }
    }

    /// Asks to be called when a record comes in. `false` when one is there already.
    pub(crate) fn arm(&self) -> bool {
        let mut all_empty = true;
        for mut lane in self.lanes.iter() {
            lane.armed = lane.chunk.is_none();
            all_empty &= lane.armed;
        }
        all_empty && self.full.1.is_empty()
    }

    /// Whether threads wait for room.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Chunks handed over and not taken yet, and chunks ever stolen, at one moment.
    pub(crate) fn handed_over(&self) -> (usize, u64) {
        let stolen = self.stolen.lock().unwrap_or_else(PoisonError::into_inner);
        (self.full.1.len(), stolen.chunks)
    }
}

/// What the worker does for the crash ring.
#[cfg(feature = "ring")]
impl Queue {
    /// The ring, if the queue is in one: then a chunk is given back only when its messages are settled.
    pub(crate) fn ring(&self) -> Option<&ring::LiveRing> {
        self.ring.as_deref()
    }

    /// Rings of dead processes that are to be delivered.
    pub(crate) fn take_adopted(&self) -> Vec<ring::dead::DeadRing> {
        std::mem::take(&mut *self.adopted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes, for whoever reads the ring, that a chunk was taken after those before it.
    pub(crate) fn note_taken(&self, chunk: &mut Chunk) {
        if let Some(ring) = &self.ring {
            chunk.bytes.note_taken(ring.next_taken());
        }
    }
}

#[cfg(feature = "ring")]
impl Chunk {
    /// Appends the records of another; `false`, and nothing is done, when they do not fit.
    pub(crate) fn merge(&mut self, other: &Chunk) -> bool {
        self.try_append(other.records(), other.messages)
    }
}

#[cfg(test)]
mod tests;
