//! The function output: somebody's code is called with each message. And [`Capture`], which is one such function.
//!
//! Lost here: a message that the function panics at (`failed`); the next one is tried all the same.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::{Batch, Context, Endpoint, Place, Writer};
use crate::router::lock;
use crate::Message;

/// A function to call.
pub(super) struct Settings {
    pub(super) name: &'static str,
    pub(super) function: Box<dyn FnMut(&Message) + Send>,
}

impl Endpoint for Settings {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    /// What a function does nobody can compare.
    fn is_of_its_own(&self) -> bool {
        true
    }

    fn open(self: Box<Self>) -> io::Result<Place> {
        Ok(Place { draw: None, writer: self })
    }
}

impl Writer for Settings {
    fn write(&mut self, batch: &Batch, context: &Context) {
        for message in &batch.messages {
            let called = catch_unwind(AssertUnwindSafe(|| (self.function)(message)));
            context.settle(1, called.map_err(|_| io::Error::other("the function panicked")));
        }
    }
}

/// The messages an [`Output::capture`](super::Output::capture) has got so far. Clones see the same ones.
#[derive(Clone, Debug, Default)]
pub struct Capture(Arc<(Mutex<Vec<Message>>, Condvar)>);

impl Capture {
    /// All messages so far, in the order of their arrival.
    pub fn messages(&self) -> Vec<Message> {
        lock(&self.0 .0).clone()
    }

    /// Waits until there are at least `count` messages, but not longer than `patience`; all messages so far.
    pub fn wait_for(&self, count: usize, patience: Duration) -> Vec<Message> {
        let (messages, arrived) = &*self.0;
        let guard = lock(messages);
        match arrived.wait_timeout_while(guard, patience, |messages| messages.len() < count) {
            Ok((messages, _)) => messages.clone(),
            Err(poisoned) => poisoned.into_inner().0.clone(),
        }
    }

    pub(super) fn push(&self, message: Message) {
        lock(&self.0 .0).push(message);
        self.0 .1.notify_all();
    }
}
