//! One destination: a transport, the batch it is sending, and what to do when it does not answer.
//!
//! In: batches. Out: a settled account. A batch stays here until its transport has settled every message of it;
//! lost here is only what is given up at the end of the program (`unreachable`).

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
/// A transport that calls itself slow and has settled nothing is asked again after this: one that does not wait itself
/// must not keep a processor busy.
const BREATH: Duration = Duration::from_millis(1);
/// Between two words about the same trouble on stderr.
const REMINDER: Duration = Duration::from_secs(60);

/// A transport and the batch it is sending.
pub(crate) struct Destination {
    transport: Box<dyn Transport>,
    pub(crate) counters: Arc<DestinationCounters>,
    /// What is being sent; empty when there is nothing to do.
    pub(crate) batch: Batch,
    backoff: Backoff,
    retry_at: Option<Instant>,
    failing_since: Option<Instant>,
    complained: Option<Instant>,
}

impl Destination {
    pub(crate) fn new(transport: Box<dyn Transport>, counters: Arc<DestinationCounters>) -> Self {
        Destination {
            transport,
            counters,
            batch: Batch::default(),
            backoff: Backoff::new(),
            retry_at: None,
            failing_since: None,
            complained: None,
        }
    }

    /// How its messages must be framed, and how long they may be.
    pub(crate) fn form(&self) -> (Framing, usize) {
        (self.transport.framing(), self.transport.max_message_bytes())
    }

    /// Sends what there is to send, if it is time to.
    pub(crate) fn attempt(&mut self) {
        let now = Instant::now();
        if self.batch.is_empty() || self.retry_at.is_some_and(|retry_at| now < retry_at) {
            return;
        }
        let before = self.batch.len();
        let (transport, batch) = (&mut self.transport, &mut self.batch);
        // A user's own transport may panic; it costs a pause, and the batch is tried again.
        let sent = catch_unwind(AssertUnwindSafe(|| transport.send(batch, now + SLICE)))
            .unwrap_or_else(|_| Err(io::Error::other("the transport panicked")));
        self.settle();
        match sent {
            Ok(()) if self.batch.is_empty() => self.succeeded(),
            Ok(()) if self.batch.len() < before => {}
            Ok(()) => self.failed(&io::Error::other("the transport sent nothing, and gave no error")),
            Err(error) if is_slow(&error) => {
                let has_moved = self.batch.len() < before;
                self.retry_at = (!has_moved).then(|| Instant::now() + BREATH);
            }
            Err(error) => self.failed(&error),
        }
    }

    fn settle(&mut self) {
        let (delivered, lost) = self.batch.take_account();
        self.counters.deliver(delivered);
        for (reason, count) in lost {
            self.counters.lose(reason, count);
        }
        if self.batch.is_empty() {
            self.batch.clear();
        }
    }

    fn succeeded(&mut self) {
        self.backoff.reset();
        self.retry_at = None;
        if self.failing_since.take().is_some() {
            self.counters.note(None);
            if self.complained.take().is_some() {
                complain(format_args!("{} answers again", self.counters.address()));
            }
        }
    }

    #[cold]
    fn failed(&mut self, error: &io::Error) {
        let now = Instant::now();
        self.retry_at = Some(now + self.backoff.pause());
        self.failing_since.get_or_insert(now);
        self.counters.note(Some(error.to_string()));
        if self.complained.is_none_or(|last| now.duration_since(last) >= REMINDER) {
            self.complained = Some(now);
            let address = self.counters.address();
            complain(format_args!("{address}: {error}; messages are kept for it as long as there is room"));
        }
    }

    /// When there is something to do here again: `None` when nothing waits.
    pub(crate) fn due(&self) -> Option<Instant> {
        (!self.batch.is_empty()).then(|| self.retry_at.unwrap_or_else(Instant::now))
    }

    /// The next attempt is made at once, and those after it begin from the shortest pause.
    pub(crate) fn hurry(&mut self) {
        self.retry_at = None;
        self.backoff.reset();
    }

    /// How long it has not answered.
    pub(crate) fn failing_for(&self) -> Duration {
        self.failing_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Takes the batch away, with what is not settled of it: somebody else will see to it.
    pub(crate) fn take_back(&mut self) -> Batch {
        let batch = std::mem::take(&mut self.batch);
        self.settle();
        batch
    }

    /// What is left is lost; `more` messages never got here.
    pub(crate) fn give_up(&mut self, more: u64) {
        while !self.batch.is_empty() {
            self.batch.lost(LossReason::Unreachable);
        }
        self.settle();
        self.counters.lose(LossReason::Unreachable, more);
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
