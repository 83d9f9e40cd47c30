//! The background thread: takes chunks, merges the lanes, encodes, and sees to it that batches are sent.
//!
//! In: chunks of records, and calls (flush, close). Out: messages into outlets, loss reports as messages. Lost
//! here: at the end of the program, what no destination took in time (`unreachable`).
//!
//! While messages flow it comes by every millisecond, so that no caller pays for waking it; when none do it comes
//! by less and less often, and after a second asks to be called and sleeps.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

#[cfg(feature = "ring")]
use super::crash::{self, Held, Replay};
use super::encode::json::JsonEncoder;
use super::outlet::Outlet;
use crate::capture::record::{self, Record};
use crate::capture::thread as own_thread;
use crate::message::Severity;
use crate::pipeline::LossWatch;
use crate::queue::{Call, Chunk, Queue, Waiter};
use crate::stats::{LossReason, Losses};

/// How long a record stays in a lane that is not full while messages flow.
const LINGER: Duration = Duration::from_millis(1);
/// Visits without a message, and the pause after each, before the next step; after the last it sleeps.
const IDLE_STEPS: [(u32, Duration); 3] =
    [(10, Duration::from_millis(1)), (30, Duration::from_millis(5)), (70, Duration::from_millis(20))];
/// The longest sleep: losses that nothing else wakes it for are reported within this.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Between two loss reports.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// At the end, what a destination gets to draw its account after its deadline.
const GRACE: Duration = Duration::from_millis(500);
/// While closing, between two attempts that moved nothing.
const CLOSING_PAUSE: Duration = Duration::from_millis(10);
/// Chunks encoded at a time: bounds the memory of a batch.
const CHUNKS_AT_A_TIME: usize = 4;

/// The background thread's state.
pub(crate) struct Worker {
    queue: Arc<Queue>,
    calls: Receiver<Call>,
    encoder: JsonEncoder,
    outlets: Vec<Outlet>,
    message: Vec<u8>,
    chunks: Vec<Chunk>,
    /// Chunks taken, ever.
    taken: u64,
    sealed_at: Instant,
    idle_visits: u32,
    flushes: Vec<PendingFlush>,
    losses: LossWatch,
    reported_at: Option<Instant>,
    #[cfg(feature = "ring")]
    held: Held,
    #[cfg(feature = "ring")]
    replay: Replay,
}

/// A flush that is not complete yet: first the chunks of its time must be taken, then their messages settled.
struct PendingFlush {
    done: Waiter,
    /// Complete when this many chunks have been taken or stolen.
    chunks: u64,
    /// By outlet: complete when this much is settled.
    marks: Option<Vec<u64>>,
}

/// Whatever ends the thread: nobody waits for it any more, and nothing is taken that it would not deliver.
struct OnExit(Arc<Queue>);

impl Drop for OnExit {
    fn drop(&mut self) {
        self.0.close();
        while let Some(chunk) = self.0.take() {
            self.0.counters.lose(LossReason::WorkerFailed, chunk.messages);
            self.0.give_back(chunk);
        }
    }
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread could be had.
    pub(crate) fn start(
        queue: Arc<Queue>,
        calls: Receiver<Call>,
        encoder: JsonEncoder,
        outlets: Vec<Outlet>,
    ) -> io::Result<()> {
        #[cfg(feature = "ring")]
        let replay = Replay::new(queue.take_adopted());
        let worker = Worker {
            queue,
            calls,
            encoder,
            outlets,
            message: Vec::new(),
            chunks: Vec::new(),
            taken: 0,
            sealed_at: Instant::now(),
            idle_visits: 0,
            flushes: Vec::new(),
            losses: LossWatch::default(),
            reported_at: None,
            #[cfg(feature = "ring")]
            held: Held::default(),
            #[cfg(feature = "ring")]
            replay,
        };
        thread::Builder::new().name(String::from("metlog")).spawn(move || worker.run()).map(drop)
    }

    fn run(mut self) {
        own_thread::mark_as_own();
        let _on_exit = OnExit(Arc::clone(&self.queue));
        // Nothing in here should panic. If ever it does, what was encoded is given up by the account, not forgotten.
        if catch_unwind(AssertUnwindSafe(|| self.serve())).is_err() {
            let now = Instant::now();
            self.outlets.iter_mut().for_each(|outlet| outlet.close(now, 0));
        }
    }

    /// Until it is told to close.
    fn serve(&mut self) {
        loop {
            let moved = self.visit();
            match self.wait(moved) {
                Ok(Call::Wake) => self.idle_visits = 0,
                Ok(Call::Flush(done)) => self.begin_flush(done),
                Ok(Call::Close { done, deadline }) => {
                    self.close(deadline);
                    return done.0.open();
                }
                // The other end is in the queue, which this thread holds too: it is never disconnected.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    /// Does what there is to do. Whether messages moved.
    fn visit(&mut self) -> bool {
        let has_room = self.outlets.iter().any(Outlet::has_room);
        let replayed = has_room && self.replay_next();
        let moved = has_room && self.take_and_encode();
        self.outlets.iter_mut().for_each(Outlet::send);
        self.complete_flushes();
        self.release_settled();
        moved || replayed
    }

    /// Takes the next chunks and encodes them into the outlets' batches. `false` when there were none.
    fn take_and_encode(&mut self) -> bool {
        if self.sealed_at.elapsed() >= LINGER {
            self.seal();
        }
        self.take_chunks();
        if self.chunks.is_empty() {
            return false;
        }
        self.encoder.tick();
        let mut chunks = std::mem::take(&mut self.chunks);
        self.encode_merged(&chunks);
        chunks.drain(..).for_each(|chunk| self.keep_or_give_back(chunk));
        self.chunks = chunks;
        true
    }

    fn seal(&mut self) {
        self.queue.seal_all();
        self.sealed_at = Instant::now();
    }

    fn take_chunks(&mut self) {
        while self.chunks.len() < CHUNKS_AT_A_TIME {
            let Some(chunk) = self.queue.take() else { return };
            self.taken += 1;
            self.chunks.push(chunk);
        }
    }

    /// Encodes the records of several chunks in the order of their times; those of one lane in their own order.
    fn encode_merged(&mut self, chunks: &[Chunk]) {
        let mut messages = 0;
        let mut lanes: Vec<(usize, Vec<&[u8]>)> = Vec::with_capacity(chunks.len());
        for chunk in chunks.iter().rev() {
            messages += chunk.messages;
            match lanes.iter_mut().find(|(lane, _)| *lane == chunk.lane) {
                Some((_, rest)) => rest.push(chunk.records()),
                None => lanes.push((chunk.lane, vec![chunk.records()])),
            }
        }
        let before = self.outlets.first().map_or(0, Outlet::mark);
        while !lanes.is_empty() {
            let mut lane = lanes.swap_remove(earliest(&lanes));
            let until = lanes.iter().filter_map(|(_, rest)| record::time_of(rest.last()?)).min();
            if !self.encode_until(&mut lane.1, until.unwrap_or(u64::MAX)) {
                lanes.push(lane);
            }
        }
        let encoded = self.outlets.first().map_or(messages, Outlet::mark) - before;
        // Records are read as they were written; if ever one is not, it is counted.
        self.queue.counters.lose(LossReason::WorkerFailed, messages.saturating_sub(encoded));
    }

    /// Encodes the records of one lane that are not younger than `until`, at least one. Whether that was all.
    fn encode_until(&mut self, lane: &mut Vec<&[u8]>, until: u64) -> bool {
        let mut is_first = true;
        while let Some(bytes) = lane.pop() {
            let Some((record, rest)) = Record::split_first(bytes) else { continue };
            if record.header.time > until && !is_first {
                lane.push(bytes);
                return false;
            }
            is_first = false;
            self.encode(&record);
            lane.push(rest);
        }
        true
    }

    fn encode(&mut self, record: &Record<'_>) {
        for index in 0..record.header.messages {
            self.message.clear();
            if self.encoder.encode(record, index, &mut self.message) {
                self.queue.counters.truncated.fetch_add(1, Ordering::Relaxed);
            }
            self.put_message();
        }
    }

    fn put_message(&mut self) {
        self.outlets.iter_mut().for_each(|outlet| outlet.put(&self.message));
    }

    /// Waits for a call, for as long as there is nothing else to do.
    fn wait(&mut self, moved: bool) -> Result<Call, RecvTimeoutError> {
        self.report_losses();
        let pause = self.pause(moved);
        if pause.is_zero() {
            return self.calls.try_recv().map_err(|_| RecvTimeoutError::Timeout);
        }
        self.calls.recv_timeout(pause)
    }

    fn pause(&mut self, moved: bool) -> Duration {
        let has_room = self.outlets.iter().any(Outlet::has_room);
        let idle = if moved { self.pause_when_busy(has_room) } else { self.pause_when_idle(has_room) };
        #[cfg(feature = "ring")]
        let idle = if self.awaits_settling() { idle.min(crash::LOOK_AGAIN) } else { idle };
        let due = self.outlets.iter().filter_map(Outlet::due).min();
        due.map_or(idle, |due| due.saturating_duration_since(Instant::now()).min(idle))
    }

    fn pause_when_busy(&mut self, has_room: bool) -> Duration {
        self.idle_visits = 0;
        let more_is_there = self.queue.handed_over().0 > 0 || self.queue.is_waited_for();
        if has_room && more_is_there {
            Duration::ZERO
        } else {
            LINGER
        }
    }

    fn pause_when_idle(&mut self, has_room: bool) -> Duration {
        // The only destination says when it is due; of several, one that has room again says nothing.
        if !has_room && self.outlets.len() == 1 {
            return LONGEST_SLEEP;
        }
        if !has_room || !self.flushes.is_empty() || self.queue.is_waited_for() {
            return LINGER;
        }
        self.idle_visits = self.idle_visits.saturating_add(1);
        match IDLE_STEPS.iter().find(|(visits, _)| self.idle_visits <= *visits) {
            Some(&(_, pause)) => pause,
            None if self.queue.arm() => LONGEST_SLEEP,
            None => LINGER,
        }
    }

    fn begin_flush(&mut self, done: Waiter) {
        self.seal();
        let (waiting, stolen) = self.queue.handed_over();
        self.flushes.push(PendingFlush { done, chunks: self.taken + stolen + waiting as u64, marks: None });
        self.outlets.iter_mut().for_each(Outlet::hurry);
    }

    fn complete_flushes(&mut self) {
        if self.flushes.is_empty() {
            return;
        }
        let processed = self.taken + self.queue.handed_over().1;
        let outlets = &self.outlets;
        self.flushes.retain_mut(|flush| {
            // Nobody waits any more: the deadline is the caller's.
            if flush.done.is_alone() {
                return false;
            }
            if flush.marks.is_none() && processed >= flush.chunks {
                flush.marks = Some(outlets.iter().map(Outlet::mark).collect());
            }
            let is_complete = flush.marks.as_ref().is_some_and(|marks| {
                outlets.iter().zip(marks).all(|(outlet, &mark)| outlet.has_settled(mark))
            });
            if is_complete {
                flush.done.0.open();
            }
            !is_complete
        });
    }

    /// Says what was lost since the last report, if it is time to.
    fn report_losses(&mut self) {
        let is_time = self.reported_at.is_none_or(|last| last.elapsed() >= REPORT_EVERY);
        if is_time && self.outlets.iter().any(Outlet::has_room) {
            self.report_losses_now();
        }
    }

    fn report_losses_now(&mut self) {
        let losses = self.losses.news(self.queue.counters.all_losses());
        if losses.total() > 0 {
            self.reported_at = Some(Instant::now());
            self.send_report(&losses);
        }
    }

    #[cold]
    fn send_report(&mut self, losses: &Losses) {
        let payload = format!("lost {losses} messages since the last report");
        let mut fields = format!("\"total\":{},", losses.total());
        losses.iter().for_each(|(reason, count)| fields.push_str(&format!("\"{reason}\":{count},")));
        self.message.clear();
        let severity = Severity::Warning.number();
        self.encoder.encode_own("metlog.loss", severity, &payload, fields.as_bytes(), &mut self.message);
        self.queue.counters.emit_own();
        self.put_message();
        self.outlets.iter_mut().for_each(Outlet::send);
    }

    /// Delivers what there is, until `deadline`, and ends.
    fn close(&mut self, deadline: Instant) {
        self.queue.close();
        self.outlets.iter_mut().for_each(Outlet::hurry);
        while (self.queue.handed_over().0 > 0 || self.has_more_to_replay()) && Instant::now() < deadline {
            if self.outlets.iter().all(Outlet::is_hopeless) {
                break;
            }
            if !self.visit() {
                self.outlets.iter_mut().for_each(Outlet::hurry);
                thread::sleep(CLOSING_PAUSE);
            }
        }
        // A report must not get into a batch that is half sent.
        self.outlets.iter_mut().for_each(|outlet| outlet.finish_batch(deadline));
        if self.outlets.iter().all(Outlet::is_between_batches) {
            self.report_losses_now();
        }
        let left = self.give_up_queue();
        let closing: Vec<_> =
            self.outlets.iter_mut().filter_map(|outlet| outlet.begin_close(deadline)).collect();
        self.outlets.iter_mut().for_each(|outlet| outlet.close(deadline, left));
        for done in closing {
            done.wait(deadline + GRACE);
        }
        self.leave_ring();
        self.flushes.clear();
    }

    /// Messages that are still queued, and will not be sent.
    fn give_up_queue(&mut self) -> u64 {
        let mut left = 0;
        while let Some(chunk) = self.queue.take() {
            left += chunk.messages;
            self.queue.give_back(chunk);
        }
        left
    }
}

/// What the crash ring asks for; see `delivery/crash.rs`.
#[cfg(feature = "ring")]
impl Worker {
    /// A chunk was encoded. In a ring it stays until its messages are settled.
    fn keep_or_give_back(&mut self, chunk: Chunk) {
        match self.queue.ring() {
            Some(_) => self.held.hold(&self.queue, chunk, &self.outlets),
            None => self.queue.give_back(chunk),
        }
    }

    fn replay_next(&mut self) -> bool {
        self.replay.next(&self.queue, &mut self.outlets)
    }

    fn has_more_to_replay(&self) -> bool {
        self.replay.has_more()
    }

    fn release_settled(&mut self) {
        self.held.release(&self.queue, &self.outlets);
        self.replay.release(&self.outlets);
        if let Some(ring) = self.queue.ring() {
            ring.note_clock();
        }
    }

    fn awaits_settling(&self) -> bool {
        !self.held.is_empty() || !self.replay.is_empty()
    }

    /// At the end: what is settled goes, and the ring with it if that was all.
    fn leave_ring(&mut self) {
        self.release_settled();
        if let Some(ring) = self.queue.ring().filter(|_| self.held.is_empty()) {
            ring.remove();
        }
    }
}

#[cfg(not(feature = "ring"))]
impl Worker {
    fn keep_or_give_back(&mut self, chunk: Chunk) {
        self.queue.give_back(chunk);
    }

    fn replay_next(&mut self) -> bool {
        false
    }

    fn has_more_to_replay(&self) -> bool {
        false
    }

    fn release_settled(&mut self) {}

    fn leave_ring(&mut self) {}
}

/// The lane whose next record is the oldest.
fn earliest(lanes: &[(usize, Vec<&[u8]>)]) -> usize {
    let time = |(_, (_, rest)): &(usize, &(usize, Vec<&[u8]>))| {
        rest.last().and_then(|bytes| record::time_of(bytes)).unwrap_or(0)
    };
    lanes.iter().enumerate().min_by_key(time).map_or(0, |(index, _)| index)
}
