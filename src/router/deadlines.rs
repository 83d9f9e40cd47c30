//! How long a client may take. In: when something came, and whether it was the end of a message. Out: how long the next
//! read may wait, or that the time is over. Nothing is lost here.
//!
//! A client that has begun a message and does not end it holds memory, so that time is short; one that has ended its
//! last message costs little, and may keep silent for as long as the input says.

use std::time::{Duration, Instant};

/// What the operating system takes as a time at all: zero means "for ever" to it.
const SHORTEST: Duration = Duration::from_millis(1);

/// Which time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// A message has begun and did not end.
    Slow,
    /// Nothing came.
    Idle,
}

/// The clock of one connection.
pub(super) struct Deadlines {
    idle: Option<Duration>,
    message: Duration,
    /// When something came last.
    heard: Instant,
    /// When the message that has not ended began.
    begun: Option<Instant>,
    /// Whether the last read brought nothing.
    in_vain: bool,
}

impl Deadlines {
    pub(super) fn new(idle: Option<Duration>, message: Duration, now: Instant) -> Self {
        Deadlines { idle, message, heard: now, begun: None, in_vain: false }
    }

    /// How long to wait for more. While messages come and end it is always the same, which costs no call.
    pub(super) fn left(&self, now: Instant) -> Result<Duration, Over> {
        let usual = self.idle.map_or(self.message, |idle| idle.min(self.message));
        let is_late = self.in_vain || self.begun.is_some_and(|begun| begun < self.heard);
        let rest = |since: Instant, most: Duration| most.saturating_sub(now.saturating_duration_since(since));
        let message = self.begun.filter(|_| is_late).map(|begun| rest(begun, self.message));
        let idle = self.idle.filter(|_| self.in_vain).map(|idle| rest(self.heard, idle));
        match (message, idle) {
            (Some(Duration::ZERO), _) => Err(Over::Slow),
            (_, Some(Duration::ZERO)) => Err(Over::Idle),
            _ => Ok([message, idle].into_iter().flatten().fold(usual, Duration::min).max(SHORTEST)),
        }
    }

    /// Bytes came. `has_ended`: the end of a message was among them. `is_between`: no message is unfinished behind them.
    pub(super) fn heard(&mut self, now: Instant, has_ended: bool, is_between: bool) {
        (self.heard, self.in_vain) = (now, false);
        self.begun = match self.begun {
            _ if is_between => None,
            Some(begun) if !has_ended => Some(begun),
            _ => Some(now),
        };
    }

    /// A read has waited in vain since `began`; `heard`: bytes came all the same, of which nothing can be made yet.
    pub(super) fn waited(&mut self, began: Instant, heard: bool) {
        self.in_vain = true;
        if heard {
            self.begun.get_or_insert(began);
            self.heard = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_message_that_has_begun_must_end_in_time_however_often_a_byte_of_it_comes() {
        let start = Instant::now();
        let mut clock = Deadlines::new(None, 10 * SECOND, start);
        assert_eq!(clock.left(start + 1000 * SECOND), Ok(10 * SECOND), "nothing has begun");
        clock.heard(start, false, false);
        assert_eq!(clock.left(start), Ok(10 * SECOND));
        for second in 1..10 {
            clock.heard(start + second * SECOND, false, false);
            assert_eq!(clock.left(start + second * SECOND), Ok((10 - second) * SECOND));
        }
        assert_eq!(clock.left(start + 10 * SECOND), Err(Over::Slow));
        clock.heard(start + 10 * SECOND, true, false);
        assert_eq!(clock.left(start + 10 * SECOND), Ok(10 * SECOND), "it ended, and another one began");
        clock.waited(start + 10 * SECOND, false);
        assert_eq!(clock.left(start + 20 * SECOND), Err(Over::Slow));
        clock.heard(start + 20 * SECOND, true, true);
        assert_eq!(clock.left(start + 99 * SECOND), Ok(10 * SECOND), "between two messages is no hurry");
        clock.waited(start + 30 * SECOND, false);
        assert_eq!(clock.left(start + 99 * SECOND), Ok(10 * SECOND));
        clock.waited(start + 40 * SECOND, true);
        assert_eq!(clock.left(start + 50 * SECOND), Err(Over::Slow), "of what came nothing could be made");
    }

    #[test]
    fn silence_is_over_after_the_idle_time_and_not_before() {
        let start = Instant::now();
        let mut clock = Deadlines::new(Some(15 * SECOND), 10 * SECOND, start);
        assert_eq!(clock.left(start), Ok(10 * SECOND));
        clock.waited(start, false);
        assert_eq!(clock.left(start + 10 * SECOND), Ok(5 * SECOND));
        assert_eq!(clock.left(start + 15 * SECOND), Err(Over::Idle));
        clock.heard(start + 15 * SECOND, true, true);
        assert_eq!(clock.left(start + 15 * SECOND), Ok(10 * SECOND));
        let mut clock = Deadlines::new(Some(Duration::ZERO), 10 * SECOND, start);
        assert_eq!(clock.left(start), Ok(SHORTEST));
        clock.waited(start, false);
        assert_eq!(clock.left(start), Err(Over::Idle));
    }
}
