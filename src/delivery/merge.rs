//! The chunks in hand: their records in the order of their times, each encoded once.
//!
//! In: chunks from the queue. Out: records, one after the other. A record stays here until it is encoded, so that a
//! worker that fails in the middle of one can begin again where it was. Lost here: a record that cannot be read
//! (`worker_failed`), which is one that was damaged in memory.

use crate::capture::record::{self, Record};
use crate::queue::Chunk;

/// Chunks that are taken and not encoded to their end.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// In the order they were taken, and how many bytes of each are encoded.
    chunks: Vec<(Chunk, usize)>,
    /// Messages of these chunks that are encoded.
    encoded: u64,
    /// Messages of the next record that are encoded: some make several.
    of_record: u8,
}

impl Work {
    pub(crate) fn len(&self) -> usize {
        self.chunks.len()
    }

    pub(crate) fn add(&mut self, chunk: Chunk) {
        self.chunks.push((chunk, 0));
    }

    /// Messages that are not encoded yet.
    pub(crate) fn messages(&self) -> u64 {
        let all: u64 = self.chunks.iter().map(|(chunk, _)| chunk.messages).sum();
        all.saturating_sub(self.encoded)
    }

    /// Gives every message to `encode`, as its record and its number in it: records of one lane in their order, those
    /// of several by their times. If `encode` panics, the next call begins with that message.
    pub(crate) fn encode_all(&mut self, mut encode: impl FnMut(&Record<'_>, u8)) {
        let mut lanes = self.lanes();
        while !lanes.is_empty() {
            let mut lane = lanes.swap_remove(self.earliest(&lanes));
            let until = lanes.iter().filter_map(|rest| self.time(rest)).min();
            if !self.encode_until(&mut lane, until.unwrap_or(u64::MAX), &mut encode) {
                lanes.push(lane);
            }
        }
    }

    /// Empties it: gives the chunks back, and how many of their messages could not be read.
    pub(crate) fn finish(&mut self, give_back: impl FnMut(Chunk)) -> u64 {
        let unread = self.messages();
        self.chunks.drain(..).map(|(chunk, _)| chunk).for_each(give_back);
        self.encoded = 0;
        self.of_record = 0;
        unread
    }

    /// The chunks of each lane, by their places, the next one last.
    fn lanes(&self) -> Vec<Vec<usize>> {
        let mut lanes: Vec<Vec<usize>> = Vec::with_capacity(self.chunks.len());
        for (place, (chunk, _)) in self.chunks.iter().enumerate().rev() {
            match lanes.iter_mut().find(|places| self.chunks[places[0]].0.lane == chunk.lane) {
                Some(places) => places.push(place),
                None => lanes.push(vec![place]),
            }
        }
        lanes
    }

    fn rest(&self, place: usize) -> &[u8] {
        let (chunk, done) = &self.chunks[place];
        &chunk.records()[*done..]
    }

    fn time(&self, lane: &[usize]) -> Option<u64> {
        record::time_of(self.rest(*lane.last()?))
    }

    /// The lane whose next record is the oldest.
    fn earliest(&self, lanes: &[Vec<usize>]) -> usize {
        let time = |&index: &usize| self.time(&lanes[index]).unwrap_or(0);
        (0..lanes.len()).min_by_key(time).unwrap_or(0)
    }

    /// Encodes the records of one lane that are not younger than `until`, at least one. Whether that was all.
    fn encode_until(
        &mut self,
        lane: &mut Vec<usize>,
        until: u64,
        encode: &mut impl FnMut(&Record<'_>, u8),
    ) -> bool {
        let mut is_first = true;
        while let Some(&place) = lane.last() {
            let (chunk, done) = &mut self.chunks[place];
            let Some((record, rest)) = Record::split_first(&chunk.records()[*done..]) else {
                lane.pop();
                continue;
            };
            if record.header.time > until && !is_first {
                return false;
            }
            is_first = false;
            for index in self.of_record..record.header.messages {
                encode(&record, index);
                self.of_record = index + 1;
                self.encoded += 1;
            }
            self.of_record = 0;
            *done = chunk.records().len() - rest.len();
        }
        true
    }
}
