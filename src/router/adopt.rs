//! Messages of programs that have crashed. In: a directory of crash rings. Out: their messages in the queues of the
//! outputs whose routes match, as if they had come from a client.
//!
//! A ring is emptied slot by slot, each only when every output has written what was in it: a router that is killed in
//! between finds it again. Lost here: records that were damaged, which are counted, and of which the ring is kept.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::counters::{InputState, OutputState};
use super::dispatch::Intake;
use super::Router;
use crate::delivery::crash::{Found, RingReader};
use crate::queue::ring::dead::DeadRing;

/// How long an output may take to write a slot before the ring is left for later.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What was found in a directory of crash rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Adopted {
    /// Rings whose programs are dead, and which are empty now.
    pub rings: u64,
    /// Messages that every output has written whose routes match.
    pub messages: u64,
    /// Records, and whole files, that could not be read; they are kept as `*.ring.bad`.
    pub damaged: u64,
    /// Rings that outputs could not take all of, and those behind the first of them; nothing of what is left is lost, and the next call finds it.
    pub left: u64,
}

impl Router {
    /// Takes the messages that crashed programs have left in a directory of crash rings
    /// ([`Builder::ring`](crate::Builder::ring)), of whatever program, and returns when they are written. Rings of
    /// programs that live are left alone. What was being written when a router was killed is written again.
    pub fn adopt(&self, directory: impl AsRef<Path>) -> Adopted {
        let directory = directory.as_ref();
        let (rings, bad) = DeadRing::adopt_all(directory, None);
        let mut adopted = Adopted { damaged: bad, ..Adopted::default() };
        let state = Arc::new(InputState::new(format!("ring:{}", directory.display())));
        let found = rings.len() as u64;
        for ring in rings {
            // Whatever keeps an output from writing one keeps it from the next, and a caller who has signals and a
            // watchdog to serve would wait for each: the rest is there when he looks again.
            if adopted.left > 0 {
                adopted.left = found - adopted.rings;
                break;
            }
            match self.adopt_ring(ring, &state, &mut adopted) {
                true => adopted.rings += 1,
                false => adopted.left += 1,
            }
        }
        adopted
    }

    /// Whether all of it was written.
    fn adopt_ring(&self, mut ring: DeadRing, state: &Arc<InputState>, adopted: &mut Adopted) -> bool {
        let mut intake = Intake::of_unsettled(Arc::clone(&self.dispatch), Arc::clone(state));
        let mut reader = RingReader::new(&ring.image);
        let mut has_damage = false;
        while let Some((slot, records)) = ring.next() {
            let before = self.failures();
            let Found { messages, damaged } =
                reader.read(&ring.image, &records, |message| intake.frame(Ok(message)));
            intake.hand_over();
            // Only its own: what others send may be dropped for as long as it likes.
            if intake.take_dropped() > 0 || !self.is_written(before) {
                return false;
            }
            intake.settle();
            adopted.messages += messages;
            adopted.damaged += damaged;
            match damaged {
                0 => ring.settle(slot),
                _ => has_damage = true,
            }
        }
        ring.finish(has_damage);
        true
    }

    fn states(&self) -> impl Iterator<Item = &OutputState> {
        self.outputs.iter().map(|output| &*output.queue.state)
    }

    /// How many messages outputs could not write so far. Those that they could not draw they never will: to try again
    /// would have no end.
    fn failures(&self) -> u64 {
        let failed = |output: &OutputState| {
            let undrawn = output.undrawn.load(Relaxed);
            output.failed.load(Relaxed).saturating_sub(undrawn)
        };
        self.states().map(failed).sum()
    }

    /// Waits until all that outputs have taken so far is written. `false` if that takes too long, or something since
    /// `failures` was not: perhaps another's, but then the slot is written twice, and not never.
    fn is_written(&self, failures: u64) -> bool {
        let taken: Vec<_> = self.states().map(|output| (output, output.accepted.load(Relaxed))).collect();
        let deadline = Instant::now() + PATIENCE;
        for (output, taken) in taken {
            while output.delivered.load(Relaxed) + output.failed.load(Relaxed) < taken {
                if Instant::now() > deadline {
                    return false;
                }
                std::thread::sleep(LOOK_AGAIN);
            }
        }
        self.failures() == failures
    }
}
