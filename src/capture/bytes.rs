//! The memory a message is captured in: a vector of bytes for which writing is one comparison.
//!
//! In: pieces of a record. Out: the same bytes, in order. Nothing can be lost; what does not fit makes it grow.
//!
//! `Vec<u8>` keeps memory that is not written yet, so each piece that is appended is asked for twice, by the caller
//! who wants no function call on the usual way and by the vector itself. Here all memory is written once, when there
//! is more of it, and a piece is put into a slice of it.

use std::io;
use std::ops::{Deref, DerefMut};

/// Bytes, and room for more.
#[derive(Debug, Default)]
pub(crate) struct Bytes {
    memory: Box<[u8]>,
    /// Those written. Never more than there is memory.
    length: usize,
}

impl Bytes {
    /// Bytes of memory, used or not.
    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// Bytes written.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The next `length` bytes of memory, if there are as many.
    #[inline(always)]
    fn room(&mut self, length: usize) -> Option<&mut [u8]> {
        self.memory.get_mut(self.length..self.length.wrapping_add(length))
    }

    /// Writes over four bytes; nothing if there are none at `position`.
    #[inline(always)]
    pub(crate) fn set(&mut self, position: usize, bytes: [u8; 4]) {
        if let Some(place) = self.memory.get_mut(position..position.wrapping_add(4)) {
            place.copy_from_slice(&bytes);
        }
    }

    /// The first bytes, to be written over: as many as the compiler knows.
    #[inline(always)]
    pub(crate) fn beginning<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        self.memory.first_chunk_mut()
    }

    /// Back to a length it has had: forgets all bytes behind it.
    #[inline(always)]
    pub(crate) fn rewind(&mut self, length: usize) {
        debug_assert!(length <= self.length);
        self.length = length;
    }

    /// Appends a piece whose length the compiler knows.
    #[inline(always)]
    pub(crate) fn push<const N: usize>(&mut self, piece: [u8; N]) {
        match self.room(N) {
            Some(place) => {
                place.copy_from_slice(&piece);
                self.length += N;
            }
            None => self.push_growing(&piece),
        }
    }

    /// Appends a number of four bytes and one of eight.
    #[inline(always)]
    pub(crate) fn push_numbers(&mut self, first: u32, second: u64) {
        match self.room(12) {
            Some(place) => {
                let (four, eight) = place.split_at_mut(4);
                four.copy_from_slice(&first.to_le_bytes());
                eight.copy_from_slice(&second.to_le_bytes());
                self.length += 12;
            }
            None => self.push_numbers_growing(first, second),
        }
    }

    /// Appends a number and a text.
    #[inline(always)]
    pub(crate) fn push_number_and_text(&mut self, number: u64, text: &[u8]) {
        let room = self.length..self.length.wrapping_add(8 + text.len());
        match self.memory.get_mut(room) {
            Some(place) => {
                let (eight, rest) = place.split_at_mut(8);
                eight.copy_from_slice(&number.to_le_bytes());
                // Before the copy, which then is the last thing to do.
                self.length += 8 + text.len();
                rest.copy_from_slice(text);
            }
            None => self.push_number_and_text_growing(number, text),
        }
    }

    /// Appends `text`, if there is room for it.
    #[inline(always)]
    pub(crate) fn push_if_room(&mut self, text: &[u8]) -> bool {
        match self.memory.get_mut(self.length..).and_then(|room| room.get_mut(..text.len())) {
            Some(place) => {
                self.length += text.len();
                place.copy_from_slice(text);
                true
            }
            None => false,
        }
    }

    #[inline]
    pub(crate) fn extend_from_slice(&mut self, piece: &[u8]) {
        if !self.push_if_room(piece) {
            self.push_growing(piece);
        }
    }

    #[cold]
    #[inline(never)]
    fn push_numbers_growing(&mut self, first: u32, second: u64) {
        self.push_growing(&first.to_le_bytes());
        self.push_growing(&second.to_le_bytes());
    }

    #[cold]
    #[inline(never)]
    fn push_number_and_text_growing(&mut self, number: u64, text: &[u8]) {
        self.push_growing(&number.to_le_bytes());
        self.push_growing(text);
    }

    #[cold]
    #[inline(never)]
    fn push_growing(&mut self, piece: &[u8]) {
        self.reserve(piece.len());
        self.push_if_room(piece);
    }

    /// Sees to it that there is room for `additional` bytes: at least twice as much memory as before, so that growing
    /// stays rare.
    fn reserve(&mut self, additional: usize) {
        const SMALLEST: usize = 256;
        let needed = self.length + additional;
        if needed > self.memory.len() {
            self.resize(needed.max(2 * self.memory.len()).max(SMALLEST));
        }
    }

    fn resize(&mut self, capacity: usize) {
        let mut memory = vec![0; capacity].into_boxed_slice();
        memory[..self.length].copy_from_slice(&self.memory[..self.length]);
        self.memory = memory;
    }

    /// Forgets all bytes behind the first `length`.
    #[inline]
    pub(crate) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Gives memory back beyond `capacity` bytes, as far as it is not used.
    pub(crate) fn shrink_to(&mut self, capacity: usize) {
        let capacity = capacity.max(self.length);
        if capacity < self.memory.len() {
            self.resize(capacity);
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl DerefMut for Bytes {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.length]
    }
}

impl io::Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Piece {
        Four([u8; 4]),
        Numbers(u32, u64),
        Text(u64, Vec<u8>),
        Slice(Vec<u8>),
        Truncate(usize),
        Shrink(usize),
    }

    fn piece() -> impl Strategy<Value = Piece> {
        let slice = || proptest::collection::vec(any::<u8>(), 0..600);
        prop_oneof![
            any::<[u8; 4]>().prop_map(Piece::Four),
            any::<(u32, u64)>().prop_map(|(first, second)| Piece::Numbers(first, second)),
            (any::<u64>(), slice()).prop_map(|(number, text)| Piece::Text(number, text)),
            slice().prop_map(Piece::Slice),
            (0usize..2000).prop_map(Piece::Truncate),
            (0usize..2000).prop_map(Piece::Shrink),
        ]
    }

    proptest! {
        /// The oracle is the vector this stands in for.
        #[test]
        fn holds_what_a_vector_would_hold(pieces in proptest::collection::vec(piece(), 0..40)) {
            let (mut bytes, mut vector) = (Bytes::default(), Vec::new());
            for piece in pieces {
                match piece {
                    Piece::Four(four) => {
                        bytes.push(four);
                        vector.extend_from_slice(&four);
                    }
                    Piece::Numbers(first, second) => {
                        bytes.push_numbers(first, second);
                        vector.extend_from_slice(&first.to_le_bytes());
                        vector.extend_from_slice(&second.to_le_bytes());
                    }
                    Piece::Text(number, text) => {
                        bytes.push_number_and_text(number, &text);
                        vector.extend_from_slice(&number.to_le_bytes());
                        vector.extend_from_slice(&text);
                    }
                    Piece::Slice(slice) => {
                        bytes.extend_from_slice(&slice);
                        vector.extend_from_slice(&slice);
                    }
                    Piece::Truncate(length) => {
                        bytes.truncate(length);
                        vector.truncate(length);
                    }
                    Piece::Shrink(capacity) => bytes.shrink_to(capacity),
                }
                prop_assert_eq!(&*bytes, &*vector);
                prop_assert!(bytes.capacity() >= vector.len());
            }
        }
    }
}
