//! What a writer knows of the router around it: the account of its messages, and how long it may still take.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::queue::Room;
use crate::router::counters::{Account, OutputState};
use crate::router::lock;

/// What the router tells the thread of an output.
pub(super) enum Control {
    /// Files may have been moved away.
    Reopen,
    /// Nothing more will come; what is queued is to be written until then.
    Stop(Instant),
}

/// See the module. One for each output's thread.
pub(in crate::router) struct Context {
    state: Arc<OutputState>,
    control: Receiver<Control>,
    room: Arc<Room>,
    deadline: Cell<Option<Instant>>,
    reopen: Cell<bool>,
}

impl Context {
    pub(super) fn new(state: Arc<OutputState>, control: Receiver<Control>, room: Arc<Room>) -> Self {
        Context { state, control, room, deadline: Cell::new(None), reopen: Cell::new(false) }
    }

    /// One that is told nothing.
    #[cfg(test)]
    pub(super) fn alone(state: Arc<OutputState>) -> Self {
        Context::new(state, crossbeam_channel::never(), Room::of(usize::MAX))
    }

    /// So many messages were delivered, or could not be.
    pub(super) fn settle(&self, count: u64, result: io::Result<()>) {
        self.state.settle(count, result);
    }

    /// Messages for this output that are lost, for whatever reason.
    pub(super) fn lost(&self) -> u64 {
        let counters = self.state.counters();
        counters.dropped + counters.failed
    }

    /// Until when everything must be done, once the router ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline.get()
    }

    /// Waits before another attempt, no longer than the router lives. `false`: there is no time for another one.
    pub(super) fn pause(&self, duration: Duration) -> bool {
        let until = Instant::now() + duration;
        loop {
            let end = self.deadline().map_or(until, |deadline| deadline.min(until));
            match self.control.recv_deadline(end) {
                Ok(control) => self.note(control),
                // The router has said until when, and listens no more; or it has not, because there is no time.
                Err(RecvTimeoutError::Disconnected) if self.deadline().is_none() => return false,
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(end.saturating_duration_since(Instant::now()));
                    return self.has_time();
                }
                Err(RecvTimeoutError::Timeout) => return self.has_time(),
            }
        }
    }

    fn has_time(&self) -> bool {
        self.deadline().is_none_or(|deadline| Instant::now() < deadline)
    }

    /// Whether half of the room for messages that wait for this output is taken.
    pub(super) fn is_filling(&self) -> bool {
        self.room.is_half_taken()
    }

    /// What an output, or one of several deliveries of it, knows of its messages besides how many are settled has
    /// changed.
    pub(super) fn account(&self, before: &Account, now: &Account) {
        lock(&self.state.account).change(before, now);
    }

    /// Something does not work; it costs no message, or those are settled on their own.
    pub(super) fn trouble(&self, problem: String) {
        *lock(&self.state.last_error) = Some(problem);
    }

    pub(super) fn control(&self) -> &Receiver<Control> {
        &self.control
    }

    pub(super) fn note(&self, control: Control) {
        match control {
            Control::Reopen => self.reopen.set(true),
            Control::Stop(deadline) => self.deadline.set(Some(deadline)),
        }
    }

    /// Whether files are to be opened anew; told once.
    pub(super) fn must_reopen(&self) -> bool {
        self.reopen.take()
    }
}
