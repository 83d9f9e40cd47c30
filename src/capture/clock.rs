//! One clock for everything: monotonic nanoseconds.
//!
//! In: nothing. Out: readings the caller can afford. A reading becomes wall-clock time on the background thread
//! ([`WallClock`]), so a step of the wall clock can make a timestamp jump, as it should, but never a duration.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Monotonic nanoseconds since some moment before the program: the same clock as `Instant`, without the arithmetic
/// that makes an `Instant` out of a reading and a duration out of two (60 of 90 instructions).
#[cfg(unix)]
#[inline]
pub(crate) fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

/// Monotonic nanoseconds since the first call in this process.
#[cfg(not(unix))]
pub(crate) fn now() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static BASE: OnceLock<Instant> = OnceLock::new();
    let elapsed = BASE.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

/// Turns readings into nanoseconds since the Unix epoch, by an anchor taken now and then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WallClock {
    reading: u64,
    wall: u64,
}

impl WallClock {
    /// An anchor that holds from now on: the best of a few, because a thread that is put aside between its two
    /// readings would make time step back at the next anchor.
    pub(crate) fn new() -> Self {
        const ATTEMPTS: usize = 4;
        let attempt = |_| {
            let before = now();
            let wall = since_epoch(SystemTime::now());
            let gap = now().saturating_sub(before);
            (gap, WallClock { reading: before + gap / 2, wall })
        };
        let best = (0..ATTEMPTS).map(attempt).min_by_key(|(gap, _)| *gap);
        best.map_or(WallClock { reading: 0, wall: 0 }, |(_, anchor)| anchor)
    }

    /// Takes the anchor anew when it is older than a second, so that corrections of the wall clock come through.
    pub(crate) fn refresh(&mut self) {
        if now().saturating_sub(self.reading) > Duration::from_secs(1).as_nanos() as u64 {
            *self = WallClock::new();
        }
    }

    /// What must be added to a reading, by this anchor: what another process needs to understand it.
    #[cfg(feature = "ring")]
    pub(crate) fn offset(&self) -> u64 {
        self.wall.wrapping_sub(self.reading)
    }

    /// The clock of another process, by its [`offset`](WallClock::offset).
    #[cfg(feature = "ring")]
    pub(crate) fn of_offset(offset: u64) -> Self {
        WallClock { reading: 0, wall: offset }
    }

    /// Nanoseconds since the Unix epoch at a reading, which may be older or newer than the anchor.
    pub(crate) fn at(&self, reading: u64) -> u64 {
        self.wall.wrapping_add(reading).saturating_sub(self.reading)
    }
}

/// Nanoseconds since the Unix epoch; a time before it counts as the epoch.
pub(crate) fn since_epoch(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map(|elapsed| u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_becomes_the_wall_clock_time_it_was_taken_at() {
        let clock = WallClock::new();
        let before = since_epoch(SystemTime::now());
        let reading = now();
        let after = since_epoch(SystemTime::now());
        let millisecond = 1_000_000;
        assert!(clock.at(reading) + millisecond >= before && clock.at(reading) <= after + millisecond);
    }

    #[test]
    fn a_reading_older_than_the_anchor_lies_before_it() {
        let reading = now();
        let clock = WallClock::new();
        assert!(clock.at(reading) <= clock.wall);
    }
}
