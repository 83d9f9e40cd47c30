//! What the worker does for the crash ring: it keeps chunks until their messages are settled, and delivers what
//! processes have left that crashed.
//!
//! In: chunks whose records are encoded; rings of dead processes. Out: chunks back into the pool, and messages into the
//! outlets. Lost here: damaged records (`damaged`); a message that was delivered and not settled yet when the process
//! dies is delivered again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::encode::json::JsonEncoder;
use super::outlet::Outlet;
use crate::capture::record::Record;
use crate::queue::ring::check;
use crate::queue::ring::dead::DeadRing;
use crate::queue::{Chunk, Queue};
use crate::stats::LossReason;

/// How often it is looked whether something is settled while nothing else happens.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// By outlet: what must be settled.
type Marks = Vec<u64>;

fn marks(outlets: &[Outlet]) -> Marks {
    outlets.iter().map(Outlet::mark).collect()
}

fn are_settled(outlets: &[Outlet], marks: &[u64]) -> bool {
    outlets.iter().zip(marks).all(|(outlet, &mark)| outlet.has_settled(mark))
}

/// Chunks that were encoded and whose messages are on their way.
#[derive(Debug, Default)]
pub(crate) struct Held(VecDeque<(Chunk, Marks)>);

impl Held {
    /// Holds a chunk that was encoded just now, with the marks of all outlets.
    ///
    /// While few messages flow a chunk holds little when it is taken. Then its records are copied behind those of the
    /// chunk before it, so that what is on its way takes no more of the pool than it must. Copied first, given back
    /// after: if the process dies between the two they are delivered twice, and not never.
    pub(crate) fn hold(&mut self, queue: &Queue, mut chunk: Chunk, outlets: &[Outlet]) {
        let marks = marks(outlets);
        if let Some((last, its_marks)) = self.0.back_mut() {
            if last.merge(&chunk) {
                *its_marks = marks;
                return queue.give_back(chunk);
            }
        }
        queue.note_taken(&mut chunk);
        self.0.push_back((chunk, marks));
    }

    /// Gives back what is settled.
    pub(crate) fn release(&mut self, queue: &Queue, outlets: &[Outlet]) {
        while self.0.front().is_some_and(|(_, marks)| are_settled(outlets, marks)) {
            if let Some((chunk, _)) = self.0.pop_front() {
                queue.give_back(chunk);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Rings of dead processes, delivered one after the other, slot by slot.
#[derive(Default)]
pub(crate) struct Replay(VecDeque<Replayed>);

struct Replayed {
    ring: DeadRing,
    encoder: JsonEncoder,
    /// Slots whose messages are on their way.
    on_their_way: VecDeque<(u32, Marks)>,
    has_damage: bool,
    message: Vec<u8>,
}

impl Replay {
    pub(crate) fn new(rings: Vec<DeadRing>) -> Replay {
        Replay(rings.into_iter().map(Replayed::new).collect())
    }

    /// Puts the messages of one slot into the outlets. `false` when there was none.
    pub(crate) fn next(&mut self, queue: &Queue, outlets: &mut [Outlet]) -> bool {
        self.0.iter_mut().find(|one| !one.ring.image.is_read()).is_some_and(|one| one.next(queue, outlets))
    }

    /// Whether there is more to put.
    pub(crate) fn has_more(&self) -> bool {
        self.0.iter().any(|one| !one.ring.image.is_read())
    }

    /// Settles slots, and takes away rings of which all is settled.
    pub(crate) fn release(&mut self, outlets: &[Outlet]) {
        self.0.iter_mut().for_each(|one| one.release(outlets));
        while let Some(done) = self.0.iter().position(Replayed::is_done) {
            self.0.remove(done).map(Replayed::finish);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Replayed {
    fn new(ring: DeadRing) -> Replayed {
        let image = &ring.image;
        let encoder =
            JsonEncoder::of_crash_ring(image.style.clone(), image.clock, Arc::clone(&image.callsites));
        Replayed { ring, encoder, on_their_way: VecDeque::new(), has_damage: false, message: Vec::new() }
    }

    fn next(&mut self, queue: &Queue, outlets: &mut [Outlet]) -> bool {
        let Some((slot, records)) = self.ring.next() else { return false };
        let mut messages = 0;
        let Replayed { encoder, message, .. } = self;
        encoder.tick();
        let each = |record: Record<'_>| messages += put(&record, encoder, message, outlets);
        let damaged = check::sound_records(&records, &self.ring.image.callsites, each);
        queue.counters.replay(messages);
        if damaged > 0 {
            queue.counters.turned_away(LossReason::Damaged, damaged);
            self.has_damage = true;
        } else {
            self.on_their_way.push_back((slot, marks(outlets)));
        }
        true
    }

    fn release(&mut self, outlets: &[Outlet]) {
        while self.on_their_way.front().is_some_and(|(_, marks)| are_settled(outlets, marks)) {
            if let Some((slot, _)) = self.on_their_way.pop_front() {
                self.ring.settle(slot);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.ring.image.is_read() && self.on_their_way.is_empty()
    }

    fn finish(self) {
        self.ring.finish(self.has_damage);
    }
}

/// Every message of a record, into every outlet. How many there were.
fn put(record: &Record<'_>, encoder: &mut JsonEncoder, message: &mut Vec<u8>, outlets: &mut [Outlet]) -> u64 {
    for index in 0..record.header.messages {
        message.clear();
        encoder.encode(record, index, message);
        outlets.iter_mut().for_each(|outlet| outlet.put(message));
    }
    u64::from(record.header.messages)
}
