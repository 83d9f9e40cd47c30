//! What a connection has sent and nobody has used yet. In: what was read. Out: the same bytes, in pieces of any length.
//! Nothing can be lost here.
//!
//! A piece costs what it is long, not what follows it: bodies may come as many small chunks.

/// An empty buffer that could hold more is given up: idle connections are to keep no bodies.
const KEPT_BYTES: usize = 2 * super::READ_BYTES;

#[derive(Default)]
pub(super) struct Unread {
    bytes: Vec<u8>,
    /// Where the unused ones begin.
    start: usize,
}

impl Unread {
    /// All of it.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Adds what was read. Only here the rest moves to the front.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The first `length` bytes, or all.
    pub(super) fn take(&mut self, length: usize) -> Vec<u8> {
        let length = length.min(self.rest().len());
        let end = self.start + length;
        if self.bytes.len() - end > length {
            let taken = self.bytes[self.start..end].to_vec();
            self.skip(length);
            return taken;
        }
        // Of a long piece the buffer itself is handed over, and the little that follows is copied.
        let rest = self.bytes.split_off(end);
        let mut taken = std::mem::replace(&mut self.bytes, rest);
        taken.drain(..std::mem::take(&mut self.start));
        taken
    }

    /// Uses up the first `length` bytes, or all.
    pub(super) fn skip(&mut self, length: usize) {
        self.start += length.min(self.rest().len());
        if self.rest().is_empty() {
            self.start = 0;
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_what_was_sent_whatever_the_lengths_of_reads_and_pieces() {
        let sent: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
        let (mut unread, mut got) = (Unread::default(), Vec::new());
        for (turn, read) in sent.chunks(3_001).enumerate() {
            unread.push(read);
            for length in [turn % 7, 0, turn * 97 % 4_000] {
                got.extend(unread.take(length));
            }
            let skipped = unread.rest().len().min(turn % 3);
            got.extend_from_slice(&unread.rest()[..skipped]);
            unread.skip(skipped);
        }
        got.extend(unread.take(usize::MAX));
        assert!(got == sent && unread.rest().is_empty() && unread.take(1).is_empty());
    }

    #[test]
    fn small_pieces_leave_what_follows_where_it_is_and_long_ones_are_not_kept() {
        let mut unread = Unread::default();
        unread.push(&vec![b'x'; 10 * KEPT_BYTES]);
        let begin = unread.rest().as_ptr() as usize;
        for taken in 1..1_000 {
            assert_eq!(unread.take(1), b"x");
            assert_eq!(unread.rest().as_ptr() as usize, begin + taken, "nothing was copied");
        }
        let long = unread.take(9 * KEPT_BYTES);
        assert_eq!((long.as_ptr() as usize, long.len()), (begin, 9 * KEPT_BYTES), "nor was this");
        unread.push(&vec![b'x'; 10 * KEPT_BYTES]);
        unread.skip(usize::MAX);
        assert!(unread.bytes.capacity() <= KEPT_BYTES);
    }
}
