//! How far into a batch a stream of bytes has got, across short writes and deadlines.
//!
//! In: a batch and something that takes bytes. Out: every byte once and in order. Nothing is lost here: what
//! was not taken is written by the next call.

use std::io;
use std::time::Instant;

use super::super::batch::Batch;

/// Takes bytes, perhaps fewer than it is given.
pub(super) trait Sink {
    /// Takes some of `bytes` without waiting; `WouldBlock` when it cannot take any now.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Waits until [`write`](Sink::write) may take some.
    fn wait(&mut self, deadline: Instant) -> io::Result<()>;
}

/// A place in a batch's remaining bytes.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    written: usize,
    /// The remaining bytes of the batch that `written` counts into.
    of: usize,
}

impl Cursor {
    /// Whether nothing of the batch is written: the only moment to change the connection or the file.
    pub(super) fn is_at_start(&self) -> bool {
        self.written == 0
    }

    pub(super) fn reset(&mut self) {
        self.written = 0;
    }

    /// Whether `batch` is the one this cursor stopped in. It is, unless the worker gave that one up.
    pub(super) fn is_in(&self, batch: &Batch) -> bool {
        self.is_at_start() || self.of == batch.remaining().len()
    }

    /// Writes the rest of `batch` from where the last call stopped. Settles nothing.
    pub(super) fn write(&mut self, batch: &Batch, sink: &mut impl Sink, deadline: Instant) -> io::Result<()> {
        self.of = batch.remaining().len();
        while let Some(rest @ [_, ..]) = batch.remaining().get(self.written..) {
            match sink.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sink.wait(deadline)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Settles the frames that are written to their last byte, and stays inside the one that is not.
    pub(super) fn settle(&mut self, batch: &mut Batch) {
        let (mut frames, mut bytes) = (0, 0);
        for frame in batch.frames() {
            if bytes + frame.len() > self.written {
                break;
            }
            frames += 1;
            bytes += frame.len();
        }
        batch.delivered(frames);
        self.written -= bytes;
        self.of -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::{batch_of, soon};
    use super::*;
    use crate::Framing;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Take(usize),
        Block,
        Interrupt,
        Fail,
        Late,
    }

    /// Does what its script says, then takes everything.
    struct Scripted {
        script: std::vec::IntoIter<Step>,
        late: bool,
        taken: Vec<u8>,
    }

    impl Sink for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let step = self.script.next().unwrap_or(Step::Take(usize::MAX));
            self.late = matches!(step, Step::Late);
            match step {
                Step::Take(most) => {
                    let count = bytes.len().min(most);
                    self.taken.extend_from_slice(&bytes[..count]);
                    Ok(count)
                }
                Step::Block | Step::Late => Err(io::ErrorKind::WouldBlock.into()),
                Step::Interrupt => Err(io::ErrorKind::Interrupted.into()),
                Step::Fail => Err(io::ErrorKind::Other.into()),
            }
        }

        fn wait(&mut self, _: Instant) -> io::Result<()> {
            match self.late {
                true => Err(io::ErrorKind::TimedOut.into()),
                false => Ok(()),
            }
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1usize..20).prop_map(Step::Take),
            1 => Just(Step::Block),
            1 => Just(Step::Interrupt),
            1 => Just(Step::Fail),
            1 => Just(Step::Late),
        ]
    }

    proptest! {
        #[test]
        fn no_script_of_short_writes_and_failures_loses_or_repeats_a_byte(
            script in prop::collection::vec(step(), 0..40),
            messages in prop::collection::vec("[a-z]{0,30}", 1..10),
            settling in any::<bool>(),
        ) {
            let mut batch = batch_of(Framing::Newline, &messages);
            let sent = batch.remaining().to_vec();
            let mut sink = Scripted { script: script.into_iter(), late: false, taken: Vec::new() };
            let mut cursor = Cursor::default();
            loop {
                prop_assert!(cursor.is_in(&batch));
                let outcome = cursor.write(&batch, &mut sink, soon());
                if settling {
                    cursor.settle(&mut batch);
                    let whole = sink.taken.iter().filter(|&&byte| byte == b'\n').count();
                    prop_assert_eq!(batch.len(), messages.len() - whole);
                }
                if outcome.is_ok() {
                    break;
                }
            }
            prop_assert_eq!(sink.taken, sent);
        }
    }
}
