//! From frames to queues, on the thread of the input. In: the frames of one connection or socket. Out: messages in
//! the queues of the outputs whose routes match.
//!
//! Lost here: frames that are no message (`malformed`), messages that came before (`duplicates`), messages that no route
//! matches (`unrouted`).

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::Arc;
#[cfg(feature = "http")]
use std::time::Instant;

use serde_json::Value;

use super::counters::{add, InputState, MalformedReason, TypeCounters};
use super::decode::decode;
use super::duplicates::Seen;
use super::matcher::{MatcherSet, Matches};
use super::output::{Batch, Queue};
use crate::delivery::encode::ids;
use crate::delivery::framing::Frame;
use crate::Message;

/// How many types one connection remembers; then it forgets them all, so that its memory stays small.
const KNOWN_TYPES: usize = 256;

/// All routes: each output once, and in the same order what leads to it.
pub(super) struct Dispatch {
    pub(super) matchers: MatcherSet,
    pub(super) outputs: Vec<Queue>,
    pub(super) types: TypeCounters,
    pub(super) unrouted: AtomicU64,
    pub(super) seen: Seen,
    pub(super) duplicates: AtomicU64,
}

/// Why the messages of a request were not taken: none of them were, or they were not written in time.
#[cfg(feature = "http")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy;

impl Dispatch {
    /// Takes all messages, each with its length on the wire, or none, and waits until the outputs have written them.
    #[cfg(feature = "http")]
    fn deliver(&self, messages: &[&(Message, usize)], deadline: Instant) -> Result<(), Busy> {
        let mut batches: Vec<_> = self.outputs.iter().map(|_| Batch::default()).collect();
        let mut matches = Matches::default();
        for (message, bytes) in messages {
            self.matchers.judge(message, &mut matches);
            for index in matches.iter() {
                if let (Some(queue), Some(batch)) = (self.outputs.get(index), batches.get_mut(index)) {
                    queue.collect(batch, message, *bytes);
                }
            }
        }
        let parcels = self.outputs.iter().zip(batches);
        let parcels: Vec<_> = parcels.filter(|(_, batch)| !batch.is_empty()).collect();
        let fitting = parcels.iter().take_while(|(queue, batch)| queue.reserve(batch)).count();
        if fitting < parcels.len() {
            parcels[..fitting].iter().for_each(|(queue, batch)| queue.release(batch));
            return Err(Busy);
        }
        let (done, all_done) = crossbeam_channel::bounded(parcels.len());
        let count = parcels.len();
        let taken =
            parcels.into_iter().filter_map(|(queue, batch)| queue.commit(batch, done.clone()).then_some(()));
        if taken.count() < count {
            return Err(Busy);
        }
        (0..count).try_for_each(|_| all_done.recv_deadline(deadline)).map_err(|_| Busy)
    }

    #[cfg(feature = "http")]
    fn is_routed(&self, message: &Message) -> bool {
        let mut matches = Matches::default();
        self.matchers.judge(message, &mut matches);
        !matches.is_empty()
    }

    /// Whether the message says who it is, and that one was taken before.
    #[cfg(feature = "http")]
    fn came_before(&self, message: &Message) -> bool {
        id(message).is_some_and(|id| self.seen.knows(id))
    }

    /// Whether the message says who it is, and that one came before.
    fn is_duplicate(&self, message: &Message) -> bool {
        id(message).is_some_and(|id| self.seen.is_duplicate(id))
    }

    fn route(&self, message: &Message, bytes: usize, batches: &mut [Batch], matches: &mut Matches) {
        self.matchers.judge(message, matches);
        if matches.is_empty() {
            add(&self.unrouted, 1);
        }
        for index in matches.iter() {
            if let (Some(queue), Some(batch)) = (self.outputs.get(index), batches.get_mut(index)) {
                queue.add(batch, message, bytes);
            }
        }
    }
}

fn id(message: &Message) -> Option<&str> {
    message.fields.get(ids::FIELD).and_then(Value::as_str)
}

/// The way of one thread's frames into the router.
pub(super) struct Intake {
    dispatch: Arc<Dispatch>,
    pub(super) input: Arc<InputState>,
    /// Counters of the types seen here, so that counting takes no lock.
    types: HashMap<String, Arc<AtomicU64>>,
    /// What was read and not handed over, for each output.
    batches: Vec<Batch>,
    /// For the message at hand, kept for its memory.
    matches: Matches,
}

impl Intake {
    pub(super) fn new(dispatch: Arc<Dispatch>, input: Arc<InputState>) -> Self {
        let batches = dispatch.outputs.iter().map(|_| Batch::default()).collect();
        Intake { dispatch, input, types: HashMap::new(), batches, matches: Matches::default() }
    }

    /// The same way for another thread.
    pub(super) fn another(&self) -> Self {
        Intake::new(Arc::clone(&self.dispatch), Arc::clone(&self.input))
    }

    /// So many bytes were read.
    pub(super) fn read(&self, bytes: usize) {
        add(&self.input.bytes, bytes as u64);
    }

    /// One frame, or what was found in its place.
    pub(super) fn frame(&mut self, frame: Frame<'_>) {
        match frame.map(|bytes| (bytes.len(), decode(bytes))) {
            Ok((bytes, Ok(message))) => self.message(message, bytes),
            Ok((_, Err(error))) => self.input.malformed(MalformedReason::from(&error)),
            Err(error) => self.input.malformed(MalformedReason::from(error)),
        }
    }

    /// Takes all messages of a request, each with its length on the wire, or none: then its client has them still.
    #[cfg(feature = "http")]
    pub(super) fn request(&mut self, messages: &[(Message, usize)], deadline: Instant) -> Result<(), Busy> {
        let new: Vec<_> =
            messages.iter().filter(|(message, _)| !self.dispatch.came_before(message)).collect();
        self.dispatch.deliver(&new, deadline)?;
        add(&self.input.received, messages.len() as u64);
        add(&self.dispatch.duplicates, (messages.len() - new.len()) as u64);
        for (message, _) in new {
            // Known only from here on: what is refused now is not a duplicate when it comes again.
            self.dispatch.is_duplicate(message);
            self.count_type(&message.r#type);
            if !self.dispatch.is_routed(message) {
                add(&self.dispatch.unrouted, 1);
            }
        }
        Ok(())
    }

    /// Hands over what was read. Called before every wait for more, so that nothing waits for the next message.
    pub(super) fn hand_over(&mut self) {
        for (queue, batch) in self.dispatch.outputs.iter().zip(&mut self.batches) {
            queue.hand_over(batch);
        }
    }

    fn message(&mut self, message: Message, bytes: usize) {
        add(&self.input.received, 1);
        if self.dispatch.is_duplicate(&message) {
            return add(&self.dispatch.duplicates, 1);
        }
        self.count_type(&message.r#type);
        self.dispatch.route(&message, bytes, &mut self.batches, &mut self.matches);
    }

    fn count_type(&mut self, name: &str) {
        if let Some(counter) = self.types.get(name) {
            return add(counter, 1);
        }
        let counter = self.dispatch.types.of(name);
        add(&counter, 1);
        if self.types.len() == KNOWN_TYPES {
            self.types.clear();
        }
        self.types.insert(name.to_owned(), counter);
    }
}

/// However a thread ends, what it has read is handed over.
impl Drop for Intake {
    fn drop(&mut self) {
        self.hand_over();
    }
}
