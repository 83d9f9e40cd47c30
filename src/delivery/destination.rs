//! One destination: a transport, the batch it is sending, and what to do when it does not answer.
//!
//! In: batches. Out: a settled account. A message stays here until its transport has settled it: a stream that has
//! written it settles it when its peer has confirmed it, and writes it again if the connection breaks before that. Lost
//! here is only what is given up at the end of the program (`unreachable`, and `unconfirmed` if it is written).

use std::fmt;
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::batch::Batch;
use super::framing::Framing;
use super::transport::{stdio, Transport};
use crate::stats::{DestinationCounters, LossReason};

/// A transport is left alone with its batch for no longer than this at a time, so that calls are heard.
const SLICE: Duration = Duration::from_millis(200);
/// At the end of the program: what a transport gets at least, so that one that needs no time delivers after any deadline.
const LEAST_SLICE: Duration = Duration::from_millis(10);
/// A transport that calls itself slow and has settled nothing is asked again after this: one that does not wait itself
/// must not keep a processor busy.
const BREATH: Duration = Duration::from_millis(1);
/// Messages are sent while no more bytes than this wait for their confirmation. As much as Linux' largest send buffer
/// for TCP: with less, the background thread would wait while it could encode. It is also all that a connection that
/// breaks can bring twice, and to a router far away the limit of the rate, 4 MiB for each round trip.
const WINDOW_BYTES: usize = 4 << 20;
/// After a batch was written its confirmation is asked for at once, after this, and then after twice as long each time.
const FIRST_LOOK: Duration = Duration::from_millis(1);
/// The longest time between two questions for a confirmation.
const LONGEST_LOOK: Duration = Duration::from_millis(100);
/// Between two words about the same trouble on stderr.
const REMINDER: Duration = Duration::from_secs(60);

/// A transport and the batch it is sending.
pub(crate) struct Destination {
    transport: Box<dyn Transport>,
    pub(crate) counters: Arc<DestinationCounters>,
    /// What is being sent or waits for its confirmation; empty when there is nothing to do.
    pub(crate) batch: Batch,
    backoff: Backoff,
    retry_at: Option<Instant>,
    /// When to ask whether what is written has arrived, and how long to wait after that.
    look_at: Instant,
    look_again: Duration,
    failing_since: Option<Instant>,
    /// Since when there is something to send and nothing of it was settled.
    stuck_since: Option<Instant>,
    /// When something was last said about trouble, and whether that still holds.
    complained: Option<Instant>,
    is_troubled: bool,
}

impl Destination {
    pub(crate) fn new(transport: Box<dyn Transport>, counters: Arc<DestinationCounters>) -> Self {
        Destination {
            transport,
            counters,
            batch: Batch::default(),
            backoff: Backoff::new(),
            retry_at: None,
            look_at: Instant::now(),
            look_again: FIRST_LOOK,
            failing_since: None,
            stuck_since: None,
            complained: None,
            is_troubled: false,
        }
    }

    /// How its messages must be framed, and how long they may be.
    pub(crate) fn form(&self) -> (Framing, usize) {
        (self.transport.framing(), self.transport.max_message_bytes())
    }

    /// Whether it is time for more: everything is written, and little of it unconfirmed.
    pub(crate) fn has_room(&self) -> bool {
        !self.batch.has_unwritten() && self.batch.unconfirmed_bytes() < WINDOW_BYTES
    }

    /// Sends what there is to send, if it is time to, and asks what has arrived.
    pub(crate) fn attempt(&mut self) {
        self.attempt_for(SLICE);
    }

    /// The same for no longer than until `deadline`, or a moment if that is over.
    pub(crate) fn attempt_before(&mut self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        self.attempt_for(left.clamp(LEAST_SLICE, SLICE));
    }

    fn attempt_for(&mut self, slice: Duration) {
        let Some(due) = self.due() else { return };
        let now = Instant::now();
        if now < due {
            return;
        }
        self.note_waiting(now, false);
        let before = self.batch.len();
        let (transport, batch) = (&mut self.transport, &mut self.batch);
        // A user's own transport may panic; it costs a pause, and the batch is tried again.
        let sent = catch_unwind(AssertUnwindSafe(|| transport.send(batch, now + slice)))
            .unwrap_or_else(|_| Err(io::Error::other("the transport panicked")));
        let has_moved = self.batch.len() < before;
        let is_written = !self.batch.has_unwritten();
        self.settle();
        self.note_waiting(Instant::now(), has_moved);
        if has_moved {
            self.succeeded();
        }
        match sent {
            Ok(()) if is_written => self.look_later(has_moved),
            Ok(()) if has_moved => {}
            Ok(()) => self.failed(&io::Error::other("the transport sent nothing, and gave no error")),
            Err(error) if is_slow(&error) => {
                self.retry_at = (!has_moved).then(|| Instant::now() + BREATH);
            }
            Err(error) => {
                if self.batch.len() < before {
                    // It took something first: it is not as far gone as its failures in a row would say.
                    self.backoff.reset();
                    self.failing_since = None;
                }
                self.failed(&error);
            }
        }
    }

    /// Keeps the time for which nothing was settled although something waits, for the account and for a word about it.
    /// A transport that does not come back is seen in the account too: the time was noted before it was called.
    fn note_waiting(&mut self, now: Instant, has_moved: bool) {
        if has_moved || self.batch.is_empty() {
            self.stuck_since = None;
        }
        if !self.batch.is_empty() {
            self.stuck_since.get_or_insert(now);
        }
        self.counters.note_stuck(self.stuck_since);
        if self.failing_since.is_none() {
            if let Some(stuck) = self.counters.stuck() {
                self.complain_about(&stuck);
            }
        }
    }

    fn complain_about(&mut self, problem: &dyn fmt::Display) {
        let now = Instant::now();
        if self.complained.is_none_or(|last| now.duration_since(last) >= REMINDER) {
            self.complained = Some(now);
            self.is_troubled = true;
            let address = self.counters.address();
            complain(format_args!("{address}: {problem}; messages are kept for it as long as there is room"));
        }
    }

    /// Everything is written, and what has not arrived yet is asked for later.
    fn look_later(&mut self, has_moved: bool) {
        self.retry_at = None;
        if has_moved {
            self.look_again = FIRST_LOOK;
        }
        self.look_at = Instant::now() + self.look_again;
        self.look_again = (self.look_again * 2).min(LONGEST_LOOK);
    }

    fn settle(&mut self) {
        let (delivered, lost) = self.batch.take_account();
        self.counters.deliver(delivered, self.batch.unconfirmed() as u64);
        for (reason, count) in lost {
            self.counters.lose(reason, count);
        }
        if self.batch.is_empty() {
            self.batch.clear();
        }
    }

    /// Something has arrived. Only that says that a destination works again: one that takes everything and confirms
    /// nothing would be hurried for ever.
    fn succeeded(&mut self) {
        self.backoff.reset();
        if self.failing_since.take().is_some() {
            self.counters.note(None);
        }
        // The moment stays: one that comes and goes is talked about no more often than one that stays away.
        if std::mem::take(&mut self.is_troubled) {
            complain(format_args!("{} answers again", self.counters.address()));
        }
    }

    #[cold]
    fn failed(&mut self, error: &io::Error) {
        let now = Instant::now();
        self.retry_at = Some(now + self.backoff.pause());
        self.failing_since.get_or_insert(now);
        self.counters.note(Some(error.to_string()));
        self.complain_about(error);
    }

    /// When there is something to do here again: `None` when nothing waits.
    pub(crate) fn due(&self) -> Option<Instant> {
        if self.batch.is_empty() {
            return None;
        }
        match self.batch.has_unwritten() {
            true => Some(self.retry_at.unwrap_or_else(Instant::now)),
            false => Some(self.look_at),
        }
    }

    /// The next attempt is made at once, and those after it begin from the shortest pause.
    pub(crate) fn retry_now(&mut self) {
        self.retry_at = None;
        self.backoff.reset();
    }

    /// Somebody waits: no more pauses, and short ones between two questions for a confirmation.
    pub(crate) fn hurry(&mut self) {
        self.retry_now();
        self.look_again = FIRST_LOOK;
        self.look_at = self.look_at.min(Instant::now() + FIRST_LOOK);
    }

    /// How long it has not answered. One that has taken everything at last may still answer.
    pub(crate) fn failing_for(&self) -> Duration {
        match self.failing_since {
            Some(since) if self.batch.has_unwritten() => since.elapsed(),
            _ => Duration::ZERO,
        }
    }

    /// Takes the batch away, with what is not settled of it: somebody else will see to it.
    pub(crate) fn take_back(&mut self) -> Batch {
        let batch = std::mem::take(&mut self.batch);
        self.settle();
        self.stuck_since = None;
        self.counters.note_stuck(None);
        batch
    }

    /// What is left is lost; `more` messages never got here.
    pub(crate) fn give_up(&mut self, more: u64) {
        for _ in 0..self.batch.unconfirmed() {
            self.batch.lost(LossReason::Unconfirmed);
        }
        while !self.batch.is_empty() {
            self.batch.lost(LossReason::Unreachable);
        }
        self.settle();
        self.counters.lose(LossReason::Unreachable, more);
    }

    /// Who sends here has failed: what is at hand is lost, and the account says why.
    pub(crate) fn fail(&mut self) {
        while !self.batch.is_empty() {
            self.batch.lost(LossReason::WorkerFailed);
        }
        self.settle();
        self.stuck_since = None;
        self.counters.note_stuck(None);
        self.counters.note(Some(String::from("the thread that sends there has failed twice")));
    }

    /// Says goodbye, so that what was sent is not lost on the way.
    pub(crate) fn close(&mut self, deadline: Instant) {
        let transport = &mut self.transport;
        let closed = catch_unwind(AssertUnwindSafe(|| transport.close(deadline)));
        if let Ok(Err(error)) = closed {
            self.counters.note(Some(format!("closing: {error}")));
        }
    }
}

/// A word on stderr, or none: delivery must not wait for a reader there who has stopped reading, nor for a thread of
/// the program that does, nor end, like `eprintln!`, when there is none any more.
pub(super) fn complain(problem: fmt::Arguments<'_>) {
    stdio::say(&format!("tracing-metlog: {problem}\n"));
}

fn is_slow(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}
