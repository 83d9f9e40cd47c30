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
use crate::queue::ring::dead::{DeadRing, Image};
use crate::queue::{Chunk, Queue};
use crate::stats::LossReason;

/// How often it is looked whether something is settled while nothing else happens.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The worker's part in it: nothing but what is empty, where there is no ring.
#[derive(Default)]
pub(crate) struct Crash {
    held: Held,
    replay: Replay,
    /// At the end: messages that stay in the ring for the next start.
    left: u64,
}

impl Crash {
    pub(crate) fn new(queue: &Queue) -> Crash {
        Crash { replay: Replay::new(queue.take_adopted()), ..Crash::default() }
    }

    /// A chunk was encoded. In a ring it stays until its messages are settled.
    pub(crate) fn keep_or_give_back(&mut self, queue: &Queue, chunk: Chunk, outlets: &[Outlet]) {
        match queue.ring() {
            Some(_) => self.held.hold(queue, chunk, outlets),
            None => queue.give_back(chunk),
        }
    }

    /// Puts the messages of one slot of a dead ring into the outlets. `false` when there was none.
    pub(crate) fn replay_next(&mut self, queue: &Queue, outlets: &mut [Outlet]) -> bool {
        self.replay.next(queue, outlets)
    }

    pub(crate) fn has_more_to_replay(&self) -> bool {
        self.replay.has_more()
    }

    pub(crate) fn awaits_settling(&self) -> bool {
        !self.held.0.is_empty() || !self.replay.0.is_empty()
    }

    pub(crate) fn release_settled(&mut self, queue: &Queue, outlets: &[Outlet]) {
        self.held.release(queue, outlets);
        self.replay.release(outlets);
        if let Some(ring) = queue.ring() {
            ring.note_clock();
        }
    }

    /// At the end: what nobody took in time stays in the ring.
    pub(crate) fn keep_queue(&mut self, queue: &Queue) {
        while let Some(chunk) = queue.ring().and_then(|_| queue.take()) {
            // Dropped, and not emptied.
            self.left += chunk.messages;
        }
    }

    /// At the very end: what is settled goes, and the ring with it if that was all.
    pub(crate) fn leave(&mut self, queue: &Queue, outlets: &[Outlet]) {
        self.release_settled(queue, outlets);
        let Some(ring) = queue.ring() else { return };
        let left = self.left + self.held.0.iter().map(|(chunk, _)| chunk.messages).sum::<u64>();
        match left {
            0 => ring.remove(),
            _ => ring.say_left(left),
        }
    }
}

/// By outlet: what must be settled.
type Marks = Vec<u64>;

fn marks(outlets: &[Outlet]) -> Marks {
    outlets.iter().map(Outlet::mark).collect()
}

fn are_settled(outlets: &[Outlet], marks: &[u64]) -> bool {
    outlets.iter().zip(marks).all(|(outlet, &mark)| outlet.has_settled(mark))
}

fn is_settled_somewhere(outlets: &[Outlet], marks: &[u64]) -> bool {
    outlets.iter().zip(marks).any(|(outlet, &mark)| outlet.has_settled(mark))
}

/// Chunks that were encoded and whose messages are on their way.
#[derive(Debug, Default)]
struct Held(VecDeque<(Chunk, Marks)>);

impl Held {
    /// Holds a chunk that was encoded just now, with the marks of all outlets.
    ///
    /// While few messages flow a chunk holds little when it is taken. Then its records are copied behind those of the
    /// chunk before it, so that what is on its way takes no more of the pool than it must. Copied first, given back
    /// after: if the process dies between the two they are delivered twice, and not never.
    fn hold(&mut self, queue: &Queue, mut chunk: Chunk, outlets: &[Outlet]) {
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

    /// Gives back what is settled. One of several destinations that does not take it must not use up the queue of the
    /// others: when little room is left, one that has it is enough, and the rest is in the other one's own memory.
    fn release(&mut self, queue: &Queue, outlets: &[Outlet]) {
        let may_go = |marks: &[u64]| {
            are_settled(outlets, marks) || (queue.is_low() && is_settled_somewhere(outlets, marks))
        };
        while self.0.front().is_some_and(|(_, marks)| may_go(marks)) {
            if let Some((chunk, _)) = self.0.pop_front() {
                queue.give_back(chunk);
            }
        }
    }
}

/// Rings of dead processes, delivered one after the other, slot by slot.
#[derive(Default)]
struct Replay(VecDeque<Replayed>);

/// What becomes of a slot whose messages have arrived.
enum Settle {
    Empty,
    Keep,
}

struct Replayed {
    ring: DeadRing,
    reader: RingReader,
    /// Slots whose messages are on their way. One with damage in it stays as it is.
    on_their_way: VecDeque<(u32, Marks, Settle)>,
    has_damage: bool,
}

impl Replay {
    fn new(rings: Vec<DeadRing>) -> Replay {
        Replay(rings.into_iter().map(Replayed::new).collect())
    }

    /// Puts the messages of one slot into the outlets. `false` when there was none.
    fn next(&mut self, queue: &Queue, outlets: &mut [Outlet]) -> bool {
        self.0.iter_mut().find(|one| !one.ring.image.is_read()).is_some_and(|one| one.next(queue, outlets))
    }

    /// Whether there is more to put.
    fn has_more(&self) -> bool {
        self.0.iter().any(|one| !one.ring.image.is_read())
    }

    /// Settles slots, and takes away rings of which all is settled.
    fn release(&mut self, outlets: &[Outlet]) {
        self.0.iter_mut().for_each(|one| one.release(outlets));
        while let Some(done) = self.0.iter().position(Replayed::is_done) {
            if let Some(done) = self.0.remove(done) {
                done.finish();
            }
        }
    }
}

impl Replayed {
    fn new(ring: DeadRing) -> Replayed {
        let reader = RingReader::new(&ring.image);
        Replayed { ring, reader, on_their_way: VecDeque::new(), has_damage: false }
    }

    fn next(&mut self, queue: &Queue, outlets: &mut [Outlet]) -> bool {
        let Some((slot, records)) = self.ring.next() else { return false };
        let each = |message: &[u8]| outlets.iter_mut().for_each(|outlet| outlet.put(message));
        let Found { messages, damaged } = self.reader.read(&self.ring.image, &records, each);
        queue.counters.replay(messages);
        if damaged > 0 {
            queue.counters.turned_away(LossReason::Damaged, damaged);
            self.has_damage = true;
        }
        let settle = if damaged > 0 { Settle::Keep } else { Settle::Empty };
        self.on_their_way.push_back((slot, marks(outlets), settle));
        true
    }

    fn release(&mut self, outlets: &[Outlet]) {
        while self.on_their_way.front().is_some_and(|(_, marks, _)| are_settled(outlets, marks)) {
            if let Some((slot, _, Settle::Empty)) = self.on_their_way.pop_front() {
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

/// Makes messages of the records of a dead ring, as its process would have.
pub(crate) struct RingReader {
    encoder: JsonEncoder,
    message: Vec<u8>,
}

/// What was found in a slot: messages, and records that were damaged.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    pub(crate) messages: u64,
    pub(crate) damaged: u64,
}

impl RingReader {
    pub(crate) fn new(image: &Image) -> RingReader {
        let encoder =
            JsonEncoder::of_crash_ring(image.style.clone(), image.clock, Arc::clone(&image.callsites));
        RingReader { encoder, message: Vec::new() }
    }

    /// Shows every message of these records to `each`.
    pub(crate) fn read(&mut self, image: &Image, records: &[u8], mut each: impl FnMut(&[u8])) -> Found {
        let RingReader { encoder, message } = self;
        encoder.tick();
        let mut messages = 0;
        let put = |record: Record<'_>| {
            for index in 0..record.header.messages {
                message.clear();
                encoder.encode(&record, index, message);
                each(message);
                messages += 1;
            }
        };
        let damaged = check::sound_records(records, &image.callsites, put);
        Found { messages, damaged }
    }
}

#[cfg(test)]
mod tests;
