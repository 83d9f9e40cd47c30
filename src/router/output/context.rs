//! What a writer knows of the router around it: the account of its messages, and how long it may still take.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::router::counters::OutputState;

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
    deadline: Cell<Option<Instant>>,
    reopen: Cell<bool>,
}

impl Context {
    pub(super) fn new(state: Arc<OutputState>, control: Receiver<Control>) -> Self {
        Context { state, control, deadline: Cell::new(None), reopen: Cell::new(false) }
    }

    /// So many messages were delivered, or could not be.
    pub(super) fn settle(&self, count: u64, result: io::Result<()>) {
        self.state.settle(count, result);
    }

    /// Until when everything must be done, once the router ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline.get()
    }

    // For outputs over a network.
    #[allow(dead_code)]
    /// Waits before another attempt, no longer than the router lives. `false`: there is no time for another one.
    pub(super) fn pause(&self, duration: Duration) -> bool {
        let until = Instant::now() + duration;
        loop {
            let end = self.deadline().map_or(until, |deadline| deadline.min(until));
            match self.control.recv_deadline(end) {
                Ok(control) => self.note(control),
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => {
                    return self.deadline().is_none_or(|deadline| Instant::now() < deadline)
                }
            }
        }
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
