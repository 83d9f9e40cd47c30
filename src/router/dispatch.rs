//! From frames to queues, on the thread of the input. In: the frames of one connection or socket. Out: messages in
//! the queues of the outputs whose routes match.
//!
//! Lost here: frames that are no message (`malformed`), messages that came before (`duplicates`), messages that no route
//! matches (`unrouted`).

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
#[cfg(feature = "http")]
use std::time::Instant;

use super::counters::{add, InputState, MalformedReason, TypeCounters};
use super::duplicates::Seen;
use super::lock;
use super::matcher::{MatcherSet, Matches};
use super::output::{Batch, Queue};
use super::received::Received;
use crate::delivery::framing::Frame;

/// How many types one connection remembers; then it forgets them all, so that its memory stays small.
const KNOWN_TYPES: usize = 256;

/// How many types are looked for without a hash.
const KNOWN_AT_SIGHT: usize = 8;

/// After so many frames, whatever they were, the messages in them are handed over without waiting for the end of what
/// there is to read: under a flood of datagrams there is none, and the few messages for a quiet output would wait for it.
const FRAMES_AT_ONCE: u64 = 1_024;

/// All routes at one time: each output once, and in the same order what leads to it.
pub(super) struct Routes {
    pub(super) matchers: MatcherSet,
    pub(super) outputs: Vec<Arc<Queue>>,
}

/// What all inputs share.
pub(super) struct Dispatch {
    /// Replaced as a whole. Who holds them may put messages into the queues of their outputs; so nobody holds them while
    /// he waits for a client, and an output that has been removed knows when nothing more can come.
    routes: Mutex<Arc<Routes>>,
    pub(super) types: TypeCounters,
    pub(super) unrouted: AtomicU64,
    pub(super) seen: Seen,
    pub(super) duplicates: AtomicU64,
}

/// Why the messages of a request were not taken: none of them were, or they were not written in time.
#[cfg(feature = "http")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy;

impl Routes {
    /// Takes all messages, each with its length on the wire, or none, and waits until the outputs have written them. For
    /// an output that may be away for long nobody waits: it gets them last, as far as its queue has room, so that a
    /// client has its answer, and the other outputs do not get its messages again.
    #[cfg(feature = "http")]
    fn deliver(&self, messages: &[&(Received<'_>, usize)], deadline: Instant) -> Result<(), Busy> {
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
        let parcels = parcels.filter(|(_, batch)| !batch.is_empty());
        let (far, parcels): (Vec<_>, Vec<_>) = parcels.partition(|(queue, _)| queue.is_far);
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
        (0..count).try_for_each(|_| all_done.recv_deadline(deadline)).map_err(|_| Busy)?;
        far.into_iter().for_each(|(queue, mut batch)| queue.hand_over(&mut batch));
        Ok(())
    }

    #[cfg(feature = "http")]
    fn is_routed(&self, message: &Received<'_>) -> bool {
        let mut matches = Matches::default();
        self.matchers.judge(message, &mut matches);
        !matches.is_empty()
    }

    /// Puts the message into the batch of each output that it is for; whether there is one.
    fn route(
        &self,
        message: &Received<'_>,
        bytes: usize,
        batches: &mut [Batch],
        matches: &mut Matches,
    ) -> bool {
        self.matchers.judge(message, matches);
        for index in matches.iter() {
            if let (Some(queue), Some(batch)) = (self.outputs.get(index), batches.get_mut(index)) {
                queue.add(batch, message, bytes);
            }
        }
        !matches.is_empty()
    }
}

impl Dispatch {
    pub(super) fn new(routes: Routes) -> Self {
        Dispatch {
            routes: Mutex::new(Arc::new(routes)),
            types: TypeCounters::default(),
            unrouted: AtomicU64::new(0),
            seen: Seen::default(),
            duplicates: AtomicU64::new(0),
        }
    }

    /// The routes of now.
    pub(super) fn routes(&self) -> Arc<Routes> {
        Arc::clone(&lock(&self.routes))
    }

    /// From the next batch on these routes hold; those before.
    pub(super) fn replace(&self, routes: Arc<Routes>) -> Arc<Routes> {
        std::mem::replace(&mut lock(&self.routes), routes)
    }

    /// Whether the message says who it is, and that one was taken before.
    #[cfg(any(feature = "http", feature = "ring"))]
    fn came_before(&self, message: &Received<'_>) -> bool {
        message.id().is_some_and(|id| self.seen.knows(id))
    }

    /// Whether the message says who it is, and that one came before.
    fn is_duplicate(&self, message: &Received<'_>) -> bool {
        message.id().is_some_and(|id| self.seen.is_duplicate(id))
    }
}

/// A type that was seen on this thread, and how often since its counter was told.
struct Kind {
    name: String,
    counter: Arc<AtomicU64>,
    uncounted: u64,
}

/// The way of one thread's frames into the router.
pub(super) struct Intake {
    dispatch: Arc<Dispatch>,
    pub(super) input: Arc<InputState>,
    /// The types seen here, and where each is, so that counting takes no lock.
    kinds: Vec<Kind>,
    places: HashMap<String, usize>,
    /// Messages since the counter was told.
    received: u64,
    /// Frames since the last time that messages were handed over, whatever they were.
    passed: u64,
    /// Messages that an output's queue had no room for.
    dropped: u64,
    /// The ids of messages that may still have to come again, which are seen only when it is said so.
    #[cfg(feature = "ring")]
    unsettled: Option<Vec<String>>,
    /// From the first message of a batch to its end.
    routes: Option<Arc<Routes>>,
    /// What was read and not handed over, for each output.
    batches: Vec<Batch>,
    /// For the message at hand, kept for its memory.
    matches: Matches,
}

impl Intake {
    pub(super) fn new(dispatch: Arc<Dispatch>, input: Arc<InputState>) -> Self {
        Intake {
            dispatch,
            input,
            kinds: Vec::new(),
            places: HashMap::new(),
            received: 0,
            passed: 0,
            dropped: 0,
            #[cfg(feature = "ring")]
            unsettled: None,
            routes: None,
            batches: Vec::new(),
            matches: Matches::default(),
        }
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
        match frame.map(|bytes| (bytes.len(), Received::decode(bytes))) {
            Ok((bytes, Ok(message))) => self.message(&message, bytes),
            Ok((_, Err(error))) => self.input.malformed(MalformedReason::from(&error)),
            Err(error) => self.input.malformed(MalformedReason::from(error)),
        }
        self.passed();
    }

    /// Something has come. What is no message counts too: a flood of it must not hold back the few messages in it.
    pub(super) fn passed(&mut self) {
        self.passed += 1;
        if self.passed >= FRAMES_AT_ONCE {
            self.hand_over();
        }
    }

    /// The same way for messages that come again if an output fails: none counts as seen before it is settled.
    #[cfg(feature = "ring")]
    pub(super) fn of_unsettled(dispatch: Arc<Dispatch>, input: Arc<InputState>) -> Self {
        let mut intake = Intake::new(dispatch, input);
        intake.unsettled = Some(Vec::new());
        intake
    }

    /// What has come so far will not come again.
    #[cfg(feature = "ring")]
    pub(super) fn settle(&mut self) {
        for id in self.unsettled.iter_mut().flat_map(|ids| ids.drain(..)) {
            self.dispatch.seen.is_duplicate(&id);
        }
    }

    /// How many messages were dropped since the last time, because an output's queue was full.
    #[cfg(feature = "ring")]
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Takes all messages of a request, each with its length on the wire, or none: then its client has them still.
    #[cfg(feature = "http")]
    pub(super) fn request(
        &mut self,
        messages: &[(Received<'_>, usize)],
        deadline: Instant,
    ) -> Result<(), Busy> {
        let routes = self.dispatch.routes();
        let new: Vec<_> =
            messages.iter().filter(|(message, _)| !self.dispatch.came_before(message)).collect();
        routes.deliver(&new, deadline)?;
        add(&self.input.received, messages.len() as u64);
        add(&self.dispatch.duplicates, (messages.len() - new.len()) as u64);
        for (message, _) in new {
            // Known only from here on: what is refused now is not a duplicate when it comes again.
            self.dispatch.is_duplicate(message);
            self.count_type(message.r#type());
            if !routes.is_routed(message) {
                add(&self.dispatch.unrouted, 1);
            }
        }
        self.count();
        Ok(())
    }

    /// Hands over what was read. Called before every wait for more, so that nothing waits for the next message.
    pub(super) fn hand_over(&mut self) {
        self.count();
        self.passed = 0;
        let Some(routes) = self.routes.take() else { return };
        for (queue, batch) in routes.outputs.iter().zip(&mut self.batches) {
            queue.hand_over(batch);
            self.dropped += batch.take_dropped();
        }
    }

    /// Tells the counters what has come since the last time.
    fn count(&mut self) {
        if self.received > 0 {
            add(&self.input.received, std::mem::take(&mut self.received));
        }
        for kind in self.kinds.iter_mut().filter(|kind| kind.uncounted > 0) {
            add(&kind.counter, std::mem::take(&mut kind.uncounted));
        }
    }

    fn message(&mut self, message: &Received<'_>, bytes: usize) {
        self.received += 1;
        if self.came_before(message) {
            return add(&self.dispatch.duplicates, 1);
        }
        self.count_type(message.r#type());
        let routes = self.routes.get_or_insert_with(|| {
            let routes = self.dispatch.routes();
            // Each is empty: the last batch was handed over.
            self.batches.resize_with(routes.outputs.len(), Batch::default);
            routes
        });
        if !routes.route(message, bytes, &mut self.batches, &mut self.matches) {
            add(&self.dispatch.unrouted, 1);
        }
    }

    /// Whether this very message came before; it has from now on.
    #[cfg(not(feature = "ring"))]
    fn came_before(&mut self, message: &Received<'_>) -> bool {
        self.dispatch.is_duplicate(message)
    }

    /// Whether this very message came before; it has from now on, or when it is [settled](Intake::settle).
    #[cfg(feature = "ring")]
    fn came_before(&mut self, message: &Received<'_>) -> bool {
        let Some(unsettled) = &mut self.unsettled else { return self.dispatch.is_duplicate(message) };
        let came_before = self.dispatch.came_before(message);
        if !came_before {
            unsettled.extend(message.id().map(str::to_owned));
        }
        came_before
    }

    fn count_type(&mut self, name: &str) {
        // Most threads see few types: to compare lengths first is cheaper than a hash.
        let known = self.kinds.iter().take(KNOWN_AT_SIGHT).position(|kind| kind.name == name);
        let place = known.or_else(|| self.places.get(name).copied()).unwrap_or_else(|| self.new_type(name));
        self.kinds[place].uncounted += 1;
    }

    #[cold]
    fn new_type(&mut self, name: &str) -> usize {
        if self.kinds.len() == KNOWN_TYPES {
            self.count();
            self.kinds.clear();
            self.places.clear();
        }
        let place = self.kinds.len();
        self.kinds.push(Kind { name: name.to_owned(), counter: self.dispatch.types.of(name), uncounted: 0 });
        self.places.insert(name.to_owned(), place);
        place
    }
}

/// However a thread ends, what it has read is handed over.
impl Drop for Intake {
    fn drop(&mut self) {
        self.hand_over();
    }
}

#[cfg(test)]
mod tests {
    use super::super::matcher::Matcher;
    use super::super::output::{self, Output};
    use super::*;

    #[test]
    fn a_flood_of_what_is_no_message_holds_no_message_back() {
        let (output, capture) = Output::capture();
        let (queue, _running) = output::start(output).expect("starts");
        let matchers = [Matcher::any()].into_iter().map(|matcher| Matcher::any_of(vec![matcher])).collect();
        let dispatch = Arc::new(Dispatch::new(Routes { matchers, outputs: vec![Arc::new(queue)] }));
        let mut intake = Intake::new(dispatch, Arc::new(InputState::new(String::from("x"))));
        intake.frame(Ok(br#"{"type": "x", "payload": "good", "fields": {}}"#));
        (0..FRAMES_AT_ONCE).for_each(|_| intake.frame(Ok(b"no message")));
        assert_eq!(capture.wait_for(1, std::time::Duration::from_secs(20)).len(), 1);
    }
}
