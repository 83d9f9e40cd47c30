//! A batch: encoded, framed messages on their way through one transport, and what became of each.
//!
//! In: frames from the encoder. Out: a settled account. A message leaves a batch only by
//! [`delivered`](Batch::delivered) or by [`lost`](Batch::lost) with a reason, in order: what a stream has written and
//! nobody has confirmed yet is still here, to be written again.
//!
//! ```text
//!  settled | written, not confirmed | not written
//!          ^ start                  ^ written        may be inside a frame
//! ```

use crate::stats::LossReason;

/// Encoded, framed messages, and how far a [`Transport`](crate::Transport) has got with them.
///
/// The transport walks from the front: it sends [`remaining`](Batch::remaining) (a stream) or
/// [`frames`](Batch::frames) (datagrams) and reports with [`delivered`](Batch::delivered) and
/// [`lost`](Batch::lost). What it has not reported is offered again.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each frame ends in `bytes`.
    ends: Vec<usize>,
    /// Messages settled so far; `ends[settled - 1]` is where the rest begins.
    settled: usize,
    /// Where the bytes begin that a stream has not written yet. Never before the first unsettled frame.
    written: usize,
    /// Frames written to their last byte, the settled ones included.
    sent: usize,
    delivered: u64,
    lost: Vec<(LossReason, u64)>,
}

impl Batch {
    /// How many messages are not settled yet.
    pub fn len(&self) -> usize {
        self.ends.len() - self.settled
    }

    /// Whether every message is settled.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frames not settled yet as one slice: what a stream writes.
    pub fn remaining(&self) -> &[u8] {
        &self.bytes[self.start()..]
    }

    /// The frames not settled yet, one by one: what a datagram socket sends.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = self.start();
        self.ends[self.settled..].iter().map(move |&end| {
            let frame = &self.bytes[start..end];
            start = end;
            frame
        })
    }

    /// The next `count` messages have arrived as far as this transport can tell.
    /// More than are left counts as all that are left.
    pub fn delivered(&mut self, count: usize) {
        let count = count.min(self.len());
        self.settle(count);
        self.delivered += count as u64;
    }

    /// The next message cannot be delivered, for `reason`.
    pub fn lost(&mut self, reason: LossReason) {
        if !self.is_empty() {
            self.settle(1);
            self.note_lost(reason);
        }
    }

    fn note_lost(&mut self, reason: LossReason) {
        match self.lost.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => self.lost.push((reason, 1)),
        }
    }

    fn settle(&mut self, count: usize) {
        self.settled += count;
        self.sent = self.sent.max(self.settled);
        self.written = self.written.max(self.start());
    }

    fn start(&self) -> usize {
        match self.settled {
            0 => 0,
            settled => self.ends[settled - 1],
        }
    }
}

/// What a stream does, which has bytes written long before it knows that they arrived.
impl Batch {
    /// The bytes that are not written yet.
    pub(crate) fn unwritten(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// The same, of so many frames that no more than `window` are written and not confirmed.
    #[inline]
    pub(crate) fn unwritten_within(&self, window: usize) -> &[u8] {
        let last = self.settled.saturating_add(window);
        match self.ends.get(last) {
            None => self.unwritten(),
            // In front of the first frame that is one too many.
            Some(_) => &self.bytes[self.written..self.ends[last - 1].max(self.written)],
        }
    }

    /// The frames that are not written yet, one by one.
    pub(crate) fn unwritten_frames(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = self.written;
        self.ends[self.sent..].iter().map(move |&end| {
            let frame = &self.bytes[start..end];
            start = end;
            frame
        })
    }

    /// The next `count` frames are written.
    pub(crate) fn wrote_frames(&mut self, count: usize) {
        let last = (self.sent + count).min(self.ends.len());
        if last > self.sent {
            self.sent = last;
            self.written = self.ends[last - 1];
        }
    }

    /// Whether there is anything left to write.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.written < self.bytes.len()
    }

    /// The next `count` bytes are written.
    pub(crate) fn wrote(&mut self, count: usize) {
        self.written = (self.written + count).min(self.bytes.len());
        while self.ends.get(self.sent).is_some_and(|&end| end <= self.written) {
            self.sent += 1;
        }
    }

    /// Bytes that are written and not confirmed.
    pub(crate) fn unconfirmed_bytes(&self) -> usize {
        self.written - self.start()
    }

    /// Messages that are written to their last byte and not confirmed.
    pub(crate) fn unconfirmed(&self) -> usize {
        self.sent - self.settled
    }

    /// Of everything written, all but the last `outstanding` bytes have arrived.
    pub(crate) fn confirm_all_but(&mut self, outstanding: usize) {
        let arrived = self.written.saturating_sub(outstanding);
        let whole = self.ends[self.settled..self.sent].partition_point(|&end| end <= arrived);
        self.delivered(whole);
    }

    /// What is not confirmed is to be written again, from the beginning of its first frame.
    pub(crate) fn rewind(&mut self) {
        self.written = self.start();
        self.sent = self.settled;
    }
}

/// What became of one message of many that a receiver has judged one by one.
#[cfg(feature = "http")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// Receivers of the client alone judge whole requests.
#[cfg_attr(not(feature = "router"), allow(dead_code))]
pub(crate) enum Fate {
    Delivered,
    Lost(LossReason),
    /// It is to be sent again.
    Again,
}

#[cfg(feature = "http")]
impl Batch {
    /// Settles the next messages, each as its fate says. Those that are to be sent again stay, before all the others.
    pub(crate) fn settle_each(&mut self, fates: &[Fate]) {
        let judged = fates.len().min(self.len());
        let mut left =
            Batch { delivered: self.delivered, lost: std::mem::take(&mut self.lost), ..Batch::default() };
        let (mut delivered, mut lost) = (0, Vec::new());
        for (index, frame) in self.frames().enumerate() {
            match fates[..judged].get(index) {
                Some(Fate::Delivered) => delivered += 1,
                Some(Fate::Lost(reason)) => lost.push(*reason),
                Some(Fate::Again) | None => left.push(|out| out.extend_from_slice(frame)),
            }
        }
        left.delivered += delivered;
        for reason in lost {
            left.note_lost(reason);
        }
        *self = left;
    }
}

/// The worker's half: filling a batch, and taking its account.
impl Batch {
    /// Appends one frame, written by `write` at the end of the buffer it is given.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.settled > 0 {
            self.forget_settled();
        }
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// Appends the unsettled frames of `other`, which is left empty. Gives its memory or this one's back in it.
    pub(crate) fn append(&mut self, other: &mut Batch) {
        if self.is_empty() {
            std::mem::swap(self, other);
            return other.clear();
        }
        let (from, to) = (other.start(), self.bytes.len());
        self.bytes.extend_from_slice(other.remaining());
        self.ends.extend(other.ends[other.settled..].iter().map(|end| end - from + to));
        other.clear();
    }

    /// Lets go of the bytes of settled frames once they are the greater half, so that a batch that is added to for
    /// ever does not grow for ever, and every byte is moved once at most.
    fn forget_settled(&mut self) {
        let start = self.start();
        if start * 2 < self.bytes.len() {
            return;
        }
        self.bytes.drain(..start);
        self.ends.drain(..self.settled);
        self.ends.iter_mut().for_each(|end| *end -= start);
        self.written -= start;
        self.sent -= self.settled;
        self.settled = 0;
    }

    /// What was settled since the last call: delivered, and lost by reason.
    pub(crate) fn take_account(&mut self) -> (u64, Vec<(LossReason, u64)>) {
        (std::mem::take(&mut self.delivered), std::mem::take(&mut self.lost))
    }

    /// Empties the batch and keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.settled = 0;
        self.written = 0;
        self.sent = 0;
        self.delivered = 0;
        self.lost.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(frames: &[&str]) -> Batch {
        let mut batch = Batch::default();
        frames.iter().for_each(|frame| batch.push(|out| out.extend_from_slice(frame.as_bytes())));
        batch
    }

    #[test]
    fn what_is_written_stays_until_its_last_byte_is_confirmed() {
        let mut batch = of(&["one", "two", "three"]);
        batch.wrote(7);
        assert_eq!((batch.unwritten(), batch.unconfirmed(), batch.unconfirmed_bytes()), (&b"hree"[..], 2, 7));
        batch.confirm_all_but(2);
        assert_eq!((batch.len(), batch.unconfirmed(), batch.unconfirmed_bytes()), (2, 1, 4));
        batch.wrote(4);
        assert!(!batch.has_unwritten());
        batch.rewind();
        assert_eq!((batch.unwritten(), batch.unconfirmed()), (&b"twothree"[..], 0));
        batch.wrote(8);
        batch.confirm_all_but(0);
        assert!(batch.is_empty());
        assert_eq!(batch.take_account(), (3, vec![]));
    }

    #[test]
    fn a_batch_that_is_added_to_while_it_is_confirmed_keeps_its_place_and_little_memory() {
        let (mut batch, mut seen) = (Batch::default(), Vec::new());
        for number in 0..1_000 {
            let frame = format!("{number};");
            batch.push(|out| out.extend_from_slice(frame.as_bytes()));
            seen.extend_from_slice(batch.unwritten());
            batch.wrote(frame.len());
            batch.confirm_all_but(frame.len());
            assert!(batch.bytes.len() < 20, "{batch:?}");
            assert_eq!((batch.len(), batch.unconfirmed()), (1, 1));
        }
        let numbers: String = (0..1_000).map(|number| format!("{number};")).collect();
        assert_eq!(String::from_utf8_lossy(&seen), numbers);
    }

    #[cfg(feature = "zmq")]
    #[test]
    fn a_window_ends_in_front_of_the_first_frame_that_is_one_too_many() {
        let mut batch = of(&["one", "two", "three"]);
        assert_eq!(batch.unwritten_within(2), b"onetwo");
        assert_eq!(batch.unwritten_within(3), b"onetwothree");
        assert_eq!(batch.unwritten_within(usize::MAX), b"onetwothree");
        batch.wrote(4);
        assert_eq!(batch.unwritten_within(1), b"");
        assert_eq!(batch.unwritten_within(2), b"wo");
        batch.confirm_all_but(1);
        assert_eq!(batch.unwritten_within(1), b"wo");
        batch.wrote(2);
        assert_eq!((batch.unwritten_within(1), batch.unwritten_within(2)), (&b""[..], &b"three"[..]));
    }

    #[test]
    fn batches_appended_are_one_with_nothing_settled_in_it() {
        let (mut batch, mut other) = (of(&["settled", "one"]), of(&["this is settled too", "two", "three"]));
        batch.delivered(1);
        batch.wrote(3);
        other.delivered(1);
        batch.append(&mut other);
        assert!(other.is_empty());
        assert_eq!(batch.frames().collect::<Vec<_>>(), [&b"one"[..], b"two", b"three"]);
        assert_eq!((batch.unwritten(), batch.unconfirmed()), (&b"twothree"[..], 1));
    }

    #[cfg(feature = "http")]
    #[test]
    fn messages_that_were_judged_one_by_one_are_settled_so_and_those_to_be_sent_again_come_first() {
        let mut batch = of(&["zero", "one", "two", "three", "four", "five"]);
        batch.delivered(1);
        batch.wrote(20);
        batch.settle_each(&[Fate::Delivered, Fate::Again, Fate::Lost(LossReason::Rejected), Fate::Again]);
        assert_eq!(batch.frames().collect::<Vec<_>>(), [&b"two"[..], b"four", b"five"]);
        assert_eq!((batch.unwritten(), batch.unconfirmed()), (&b"twofourfive"[..], 0));
        assert_eq!(batch.take_account(), (2, vec![(LossReason::Rejected, 1)]));
        batch.settle_each(&[Fate::Delivered; 9]);
        assert!(batch.is_empty());
        assert_eq!(batch.take_account(), (3, vec![]));
    }

    #[test]
    fn every_message_is_settled_once_and_in_order() {
        let mut batch = Batch::default();
        for frame in ["one", "two", "three"] {
            batch.push(|out| out.extend_from_slice(frame.as_bytes()));
        }
        batch.delivered(1);
        assert_eq!(batch.remaining(), b"twothree");
        batch.lost(LossReason::TooLarge);
        assert_eq!(batch.frames().collect::<Vec<_>>(), [b"three"]);
        batch.delivered(99);
        batch.lost(LossReason::TooLarge);
        assert!(batch.is_empty());
        assert_eq!(batch.take_account(), (2, vec![(LossReason::TooLarge, 1)]));
    }
}
