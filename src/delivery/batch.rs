//! A batch: encoded, framed messages on their way through one transport, and what became of each.
//!
//! In: frames from the encoder. Out: a settled account. A message leaves a batch only by
//! [`delivered`](Batch::delivered) or by [`lost`](Batch::lost) with a reason, in order.

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
        self.settled += count;
        self.delivered += count as u64;
    }

    /// The next message cannot be delivered, for `reason`.
    pub fn lost(&mut self, reason: LossReason) {
        if !self.is_empty() {
            self.settled += 1;
            match self.lost.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, count)) => *count += 1,
                None => self.lost.push((reason, 1)),
            }
        }
    }

    fn start(&self) -> usize {
        match self.settled {
            0 => 0,
            settled => self.ends[settled - 1],
        }
    }
}

/// The worker's half: filling a batch, and taking its account.
impl Batch {
    /// Appends one frame, written by `write` at the end of the buffer it is given.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
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
        self.delivered = 0;
        self.lost.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
