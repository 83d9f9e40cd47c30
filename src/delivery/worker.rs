//! The background thread: takes chunks, merges the lanes, encodes, and sees to it that batches are sent.
//!
//! In: chunks of records, and calls (flush, close). Out: messages into outlets or the spool, loss reports as messages.
//! Lost here: at the end of the program, what neither a destination nor the spool took in time (`unreachable`).
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

use super::encode::json::JsonEncoder;
use super::outlet::Outlet;
use super::spool::Spool;
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

/// How often the next chunks are set aside before calls are heard again: 16 MiB of records.
const MOST_SET_ASIDE: usize = 64;

/// The background thread's state.
pub(crate) struct Worker {
    queue: Arc<Queue>,
    calls: Receiver<Call>,
    encoder: JsonEncoder,
    outlets: Vec<Outlet>,
    spool: Option<Spool>,
    /// The next messages go to the spool.
    is_aside: bool,
    /// A batch of new messages was sent: the next one is the spool's.
    is_spools_turn: bool,
    /// Messages encoded, ever.
    encoded: u64,
    message: Vec<u8>,
    chunks: Vec<Chunk>,
    /// Chunks taken, ever.
    taken: u64,
    sealed_at: Instant,
    idle_visits: u32,
    flushes: Vec<PendingFlush>,
    losses: LossWatch,
    reported_at: Option<Instant>,
}

/// Where the worker takes messages to in one visit, and from where.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// New ones to the destinations.
    Outlets,
    /// New ones to the spool.
    Spool,
    /// Those of the spool to the destinations.
    FromSpool,
    /// None: the queue keeps them.
    Nowhere,
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
        spool: Option<Spool>,
    ) -> io::Result<()> {
        let worker = Worker {
            queue,
            calls,
            encoder,
            outlets,
            spool,
            is_aside: false,
            is_spools_turn: true,
            encoded: 0,
            message: Vec::new(),
            chunks: Vec::new(),
            taken: 0,
            sealed_at: Instant::now(),
            idle_visits: 0,
            flushes: Vec::new(),
            losses: LossWatch::default(),
            reported_at: None,
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
            self.spool.iter_mut().for_each(Spool::close);
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
        self.tend_spool();
        let moved = match self.way() {
            Way::Outlets => self.take_and_encode() || self.pass_turn(),
            Way::Spool => self.set_aside_all(),
            Way::FromSpool => self.send_from_spool(),
            Way::Nowhere => false,
        };
        self.outlets.iter_mut().for_each(Outlet::send);
        self.complete_flushes();
        moved
    }

    /// What to do next. New messages go to the spool when no destination answers, or when none has room and the queue
    /// fills. When one answers, batches of new messages and of the spool take turns, so that neither starves the other.
    fn way(&self) -> Way {
        let has_room = self.outlets.iter().any(Outlet::has_room);
        let Some(spool) = &self.spool else { return if has_room { Way::Outlets } else { Way::Nowhere } };
        let all_fail = self.outlets.iter().all(Outlet::is_failing);
        if has_room && !spool.is_sending() {
            // A batch of the spool is sent alone, so that all of it is known to be on disk.
            let is_clear = self.outlets.iter().any(Outlet::is_settled);
            match spool.has_backlog() {
                true if is_clear && (self.is_spools_turn || all_fail) => return Way::FromSpool,
                true if self.is_spools_turn && !all_fail && !self.queue.is_low() => return Way::Nowhere,
                _ if !all_fail => return Way::Outlets,
                _ => {}
            }
        }
        match (all_fail || self.queue.is_low()) && spool.has_room() {
            true => Way::Spool,
            false => Way::Nowhere,
        }
    }

    /// Tells the spool what has arrived and what has not.
    fn tend_spool(&mut self) {
        let Some(spool) = &mut self.spool else { return };
        if spool.is_sending() {
            let outlets = &self.outlets;
            let some_have_it = outlets.iter().any(Outlet::is_settled);
            if some_have_it && outlets.iter().all(|outlet| outlet.is_settled() || outlet.is_failing()) {
                spool.confirm();
                self.is_spools_turn = false;
            }
        } else if let [only] = &mut self.outlets[..] {
            if only.is_failing() && !only.is_settled() && spool.has_room() {
                only.take_back(|message| spool.put(message));
            }
        }
        spool.tick();
    }

    /// Takes what is queued to the spool, as long as that is the way: a destination that stands still keeps this thread
    /// for a while before it comes by again.
    fn set_aside_all(&mut self) -> bool {
        let mut moved = false;
        for _ in 0..MOST_SET_ASIDE {
            if !self.set_aside() {
                break;
            }
            moved = true;
            if self.way() != Way::Spool {
                break;
            }
        }
        moved
    }

    /// Takes the next chunks and encodes them into the spool. `false` when there were none.
    fn set_aside(&mut self) -> bool {
        self.is_aside = true;
        let moved = self.take_and_encode();
        self.is_aside = false;
        self.spool.iter_mut().for_each(Spool::write);
        moved
    }

    /// No new messages are there: the spool need not wait for some.
    fn pass_turn(&mut self) -> bool {
        self.is_spools_turn = true;
        self.way() == Way::FromSpool && self.send_from_spool()
    }

    /// Puts the next batch of the spool into the outlets. `false` when there is none.
    fn send_from_spool(&mut self) -> bool {
        let Some(spool) = &mut self.spool else { return false };
        let outlets = &mut self.outlets;
        self.is_spools_turn = false;
        spool.read(|message| outlets.iter_mut().for_each(|outlet| outlet.put(message)))
    }

    /// Whether a destination that fails holds nothing but what the spool holds too.
    fn all_is_on_disk(&self) -> bool {
        let is_sending = self.spool.as_ref().is_some_and(Spool::is_sending);
        is_sending && matches!(&self.outlets[..], [only] if only.is_failing())
    }

    /// At the end: what the only destination has not got goes to the spool, or stays there.
    fn give_back_to_spool(&mut self, deadline: Instant) {
        let (Some(spool), [only]) = (&mut self.spool, &mut self.outlets[..]) else { return };
        only.finish_batch(deadline);
        match spool.is_sending() {
            true if only.is_settled() => spool.confirm(),
            true => {
                let left = only.take_back(|_| {});
                spool.keep(left);
            }
            false => drop(only.take_back(|message| spool.put(message))),
        }
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
        chunks.drain(..).for_each(|chunk| self.queue.give_back(chunk));
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
                Some((_, rest)) => rest.push(&chunk.bytes),
                None => lanes.push((chunk.lane, vec![&chunk.bytes])),
            }
        }
        let before = self.encoded;
        while !lanes.is_empty() {
            let mut lane = lanes.swap_remove(earliest(&lanes));
            let until = lanes.iter().filter_map(|(_, rest)| record::time_of(rest.last()?)).min();
            if !self.encode_until(&mut lane.1, until.unwrap_or(u64::MAX)) {
                lanes.push(lane);
            }
        }
        let encoded = self.encoded - before;
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
        self.encoded += 1;
        match &mut self.spool {
            // What is being sent from the spool must not be mixed with anything else: it is on disk still.
            Some(spool) if self.is_aside || spool.is_sending() => return spool.put(&self.message),
            _ => {}
        }
        self.is_spools_turn = true;
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
        let has_room = self.way() != Way::Nowhere;
        let idle = if moved { self.pause_when_busy(has_room) } else { self.pause_when_idle(has_room) };
        let spool = self.spool.as_ref().and_then(Spool::due);
        let due = self.outlets.iter().filter_map(Outlet::due).chain(spool).min();
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
        self.spool.iter_mut().for_each(Spool::hurry);
    }

    fn complete_flushes(&mut self) {
        if self.flushes.is_empty() {
            return;
        }
        let processed = self.taken + self.queue.handed_over().1;
        let all_is_on_disk = self.all_is_on_disk();
        let (outlets, spool) = (&self.outlets, &mut self.spool);
        self.flushes.retain_mut(|flush| {
            // Nobody waits any more: the deadline is the caller's.
            if flush.done.is_alone() {
                return false;
            }
            if flush.marks.is_none() && processed >= flush.chunks {
                flush.marks = Some(outlets.iter().map(Outlet::mark).collect());
            }
            let is_complete = flush.marks.as_ref().is_some_and(|marks| {
                all_is_on_disk || outlets.iter().zip(marks).all(|(outlet, &mark)| outlet.has_settled(mark))
            });
            if is_complete {
                spool.iter_mut().for_each(Spool::sync);
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
        while self.queue.handed_over().0 > 0 && Instant::now() < deadline {
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
        self.give_back_to_spool(deadline);
        let closing: Vec<_> =
            self.outlets.iter_mut().filter_map(|outlet| outlet.begin_close(deadline)).collect();
        self.outlets.iter_mut().for_each(|outlet| outlet.close(deadline, left));
        for done in closing {
            done.wait(deadline + GRACE);
        }
        self.spool.iter_mut().for_each(Spool::close);
        self.flushes.clear();
    }

    /// Messages that are still queued, and will not be sent.
    fn give_up_queue(&mut self) -> u64 {
        while self.spool.is_some() && self.set_aside() {}
        let mut left = 0;
        while let Some(chunk) = self.queue.take() {
            left += chunk.messages;
            self.queue.give_back(chunk);
        }
        left
    }
}

/// The lane whose next record is the oldest.
fn earliest(lanes: &[(usize, Vec<&[u8]>)]) -> usize {
    let time = |(_, (_, rest)): &(usize, &(usize, Vec<&[u8]>))| {
        rest.last().and_then(|bytes| record::time_of(bytes)).unwrap_or(0)
    };
    lanes.iter().enumerate().min_by_key(time).map_or(0, |(index, _)| index)
}
