//! How long to leave a destination alone after it failed.
//!
//! In: failures and successes. Out: pauses. Nothing can be lost here.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

/// The shortest pause there is.
const SHORTEST: Duration = Duration::from_millis(50);
/// The longest: a router that is back is noticed within this.
const LONGEST: Duration = Duration::from_secs(5);

/// Pauses that double from 50 ms to 5 s, the upper half of each left to chance ("equal jitter"), so that a
/// fleet whose router restarts does not come back in step.
#[derive(Debug)]
pub(crate) struct Backoff {
    ceiling: Duration,
    random: RandomState,
    drawn: u64,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Backoff { ceiling: SHORTEST * 2, random: RandomState::new(), drawn: 0 }
    }

    /// It failed: the pause before the next attempt.
    pub(crate) fn pause(&mut self) -> Duration {
        let half = self.ceiling / 2;
        self.ceiling = (self.ceiling * 2).min(LONGEST);
        half + half.mul_f64(self.fraction())
    }

    /// It worked: the next failure starts from the shortest pause.
    pub(crate) fn reset(&mut self) {
        self.ceiling = SHORTEST * 2;
    }

    /// A pause that somebody else has asked for, and up to a quarter more of it: others have been asked for the same.
    #[cfg(feature = "http")]
    pub(crate) fn stretched(&mut self, pause: Duration) -> Duration {
        pause + pause.mul_f64(self.fraction() / 4.0)
    }

    /// From 0 up to 1. The standard library seeds its hash tables with the system's randomness; that is
    /// random enough to keep processes out of step and saves a dependency.
    fn fraction(&mut self) -> f64 {
        self.drawn = self.drawn.wrapping_add(1);
        self.random.hash_one(self.drawn) as f64 / u64::MAX as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pause_is_within_50_ms_and_5_s() {
        for _ in 0..200 {
            let mut backoff = Backoff::new();
            for _ in 0..20 {
                let pause = backoff.pause();
                assert!((SHORTEST..=LONGEST).contains(&pause), "{pause:?}");
            }
        }
    }

    #[test]
    fn the_pause_doubles_until_5_s() {
        let mut backoff = Backoff::new();
        for milliseconds in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let ceiling = Duration::from_millis(milliseconds);
            let pause = backoff.pause();
            assert!((ceiling / 2..=ceiling).contains(&pause), "{pause:?} is not about {ceiling:?}");
        }
    }

    #[test]
    fn success_starts_it_over() {
        let mut backoff = Backoff::new();
        for _ in 0..10 {
            backoff.pause();
        }
        backoff.reset();
        assert!(backoff.pause() <= SHORTEST * 2);
    }

    #[test]
    fn two_processes_do_not_pause_in_step() {
        let pauses = |mut backoff: Backoff| (0..8).map(|_| backoff.pause()).collect::<Vec<_>>();
        assert_ne!(pauses(Backoff::new()), pauses(Backoff::new()));
    }
}
