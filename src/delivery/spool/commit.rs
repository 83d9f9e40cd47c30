//! How far delivery was confirmed, in two slots of one file: docs/spool-format.md, "Commit".
//!
//! In: the sequence number that is next to be confirmed. Out: the same, after any crash, or the one before. Nothing is
//! lost by damage here: what was delivered is then sent again.

use std::io;

use super::fs::DiskFile;
use super::record::{read_sealed_block, sealed_block};

const MAGIC: &[u8; 8] = b"MLCOMIT1";
const SLOT_BYTES: usize = 32;

/// What a commit file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Commit {
    generation: u64,
    /// Everything below this number is confirmed.
    pub(crate) next: u64,
}

impl Commit {
    /// What the file's bytes say; `None` when no slot is whole.
    pub(crate) fn read(bytes: &[u8]) -> Option<Commit> {
        let slots = bytes.chunks(SLOT_BYTES).take(2);
        slots
            .filter_map(|slot| read_sealed_block(MAGIC, slot))
            .map(|(generation, next)| Commit { generation, next })
            .max_by_key(|commit| commit.generation)
    }

    /// Overwrites the older slot.
    ///
    /// # Errors
    /// The file may hold half a slot now. This commit still stands for what the other slot says: the next write goes to
    /// the half one again.
    pub(crate) fn advance(&mut self, next: u64, file: &mut dyn DiskFile) -> io::Result<()> {
        // A damaged file may hold any number.
        let generation = self.generation.wrapping_add(1);
        let slot = sealed_block(MAGIC, generation, next);
        file.write_at((generation % 2) * SLOT_BYTES as u64, &slot)?;
        *self = Commit { generation, next };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct InMemory(Vec<u8>);

    impl DiskFile for InMemory {
        fn append(&mut self, _: &[u8]) -> io::Result<usize> {
            unreachable!("a commit is overwritten in place")
        }

        fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            let end = offset as usize + bytes.len();
            self.0.resize(self.0.len().max(end), 0);
            self.0[offset as usize..end].copy_from_slice(bytes);
            Ok(())
        }

        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn truncate(&mut self, _: u64) -> io::Result<()> {
            unreachable!("a commit is overwritten in place")
        }
    }

    proptest! {
        #[test]
        fn a_commit_torn_at_any_byte_leaves_the_one_before(
            steps in prop::collection::vec(1u64..1000, 1..6), torn in 0..=SLOT_BYTES,
        ) {
            let (mut file, mut commit, mut before) = (InMemory(Vec::new()), Commit::default(), InMemory(Vec::new()));
            let (mut last, mut next) = (None, 0);
            for step in steps {
                before.0.clone_from(&file.0);
                last = Commit::read(&file.0).map(|commit| commit.next);
                next += step;
                commit.advance(next, &mut file).unwrap();
                prop_assert_eq!(Commit::read(&file.0), Some(commit));
            }
            // Of the last slot the first `torn` bytes were written.
            let at = (commit.generation % 2) as usize * SLOT_BYTES;
            let mut bytes = before.0;
            bytes.resize(file.0.len(), 0);
            bytes[at..at + torn].copy_from_slice(&file.0[at..at + torn]);
            let read = Commit::read(&bytes).map(|commit| commit.next);
            prop_assert!(read == last || read == Some(next), "{:?}", read);
        }

        #[test]
        fn a_flipped_byte_never_makes_up_a_commit(at in 0..2 * SLOT_BYTES, change in 1u8..) {
            let (mut file, mut commit) = (InMemory(Vec::new()), Commit::default());
            commit.advance(10, &mut file).unwrap();
            commit.advance(20, &mut file).unwrap();
            file.0[at] ^= change;
            let expected = if at / SLOT_BYTES == 0 { 10 } else { 20 };
            prop_assert_eq!(Commit::read(&file.0).map(|commit| commit.next), Some(expected));
        }

        #[test]
        fn any_bytes_are_a_commit_or_none(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(Commit::read(&bytes), None);
        }
    }
}
