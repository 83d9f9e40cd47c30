//! The memory of the queue's chunks, without the feature `ring`: the heap's. Gone with the process.

use super::CHUNK_BYTES;

/// Records behind one another.
#[derive(Debug)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    /// So many empty ones.
    pub(crate) fn of_heap(count: usize) -> Vec<Buffer> {
        let new = || {
            // Written once, so that the first message does not pay for the pages.
            let mut bytes = vec![1; CHUNK_BYTES];
            bytes.clear();
            Buffer(bytes)
        };
        (0..count).map(|_| new()).collect()
    }

    /// One without memory, and so without room.
    pub(crate) fn none() -> Buffer {
        Buffer(Vec::new())
    }

    pub(crate) fn is_none(&self) -> bool {
        self.0.capacity() == 0
    }

    /// Appends a record; `false`, and nothing is done, when it does not fit.
    #[inline(always)]
    pub(crate) fn try_append(&mut self, record: &[u8]) -> bool {
        // The same comparison as the vector's own, which the compiler then leaves out.
        let has_room = record.len() <= self.0.capacity().wrapping_sub(self.0.len());
        if has_room {
            self.0.extend_from_slice(record);
        }
        has_room
    }

    /// Nothing to note where nothing outlives the process.
    #[inline]
    pub(crate) fn begin(&mut self, _lane: usize) {}

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
