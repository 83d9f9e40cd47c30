//! Messages that came before: a client whose connection breaks sends again what nobody has confirmed.
//!
//! In: the `metlog_id` of each message that has one. Out: whether it is new. Lost here: nothing. A message is called a
//! duplicate only if its very id was seen and a client of ours wrote it; one that is too old to be remembered passes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::delivery::encode::ids::parse;

/// Clients that are remembered; the one that was heard last the longest ago makes room.
const MAX_CLIENTS: usize = 1_024;
/// How far back numbers of one client are remembered: more messages than a client sends again. 8 KiB each.
const NUMBERS: u64 = 64 * 1024;
/// Numbers that one word remembers.
const WORD: u64 = u64::BITS as u64;

/// The ids that were seen lately.
#[derive(Default)]
pub(super) struct Seen {
    clients: Mutex<Clients>,
}

#[derive(Default)]
struct Clients {
    by_name: HashMap<String, Window>,
    /// Counts ids, to tell which client was heard last.
    now: u64,
}

/// The newest number of a client, and which of those before it came.
struct Window {
    newest: u64,
    came: Box<[u64]>,
    heard: u64,
}

impl Seen {
    /// Whether `id` was seen before; it is from now on. What is no id of a client of ours never was.
    pub(super) fn is_duplicate(&self, id: &str) -> bool {
        parse(id).is_some_and(|(client, number)| self.locked().take(client, number))
    }

    /// Whether `id` was seen before, without seeing it now: for messages that may still be turned down.
    #[cfg(any(feature = "http", feature = "ring"))]
    pub(super) fn knows(&self, id: &str) -> bool {
        let Some((client, number)) = parse(id) else { return false };
        self.locked().by_name.get(client).is_some_and(|window| window.knows(number))
    }

    fn locked(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clients {
    fn take(&mut self, client: &str, number: u64) -> bool {
        self.now += 1;
        if let Some(window) = self.by_name.get_mut(client) {
            window.heard = self.now;
            return window.take(number);
        }
        if self.by_name.len() == MAX_CLIENTS {
            self.forget_one();
        }
        let mut window =
            Window { newest: number, came: vec![0; (NUMBERS / WORD) as usize].into(), heard: self.now };
        window.take(number);
        self.by_name.insert(client.to_owned(), window);
        false
    }

    #[cold]
    fn forget_one(&mut self) {
        let oldest = self.by_name.iter().min_by_key(|(_, window)| window.heard).map(|(name, _)| name.clone());
        oldest.map(|name| self.by_name.remove(&name));
    }
}

impl Window {
    fn take(&mut self, number: u64) -> bool {
        if number > self.newest {
            self.make_place(number);
            self.newest = number;
        }
        if self.newest - number >= NUMBERS {
            return false;
        }
        let (word, bit) = place(number);
        let came = self.came[word] & bit != 0;
        self.came[word] |= bit;
        came
    }

    #[cfg(any(feature = "http", feature = "ring"))]
    fn knows(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        number <= self.newest && self.newest - number < NUMBERS && self.came[word] & bit != 0
    }

    /// What falls out of the window makes place for the numbers up to `number`. A word at a time: one message that leaps
    /// ahead must not hold up every other client for a step a number.
    fn make_place(&mut self, number: u64) {
        let mut left = number - self.newest;
        if left >= NUMBERS {
            return self.came.fill(0);
        }
        let mut next = self.newest;
        while left > 0 {
            next += 1;
            let (word, bit) = place(next);
            let count = left.min(WORD - next % WORD);
            // `count` ones from `bit` on.
            self.came[word] &= !((u64::MAX >> (WORD - count)) * bit);
            left -= count;
            next += count - 1;
        }
    }
}

fn place(number: u64) -> (usize, u64) {
    let place = number % NUMBERS;
    ((place / WORD) as usize, 1 << (place % WORD))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the ids of one client have in common.
    fn client(number: usize) -> String {
        format!("0123456789abcdef-{number}-18ab000000000000")
    }

    #[test]
    fn the_same_id_is_a_duplicate_and_every_other_is_not() {
        let seen = Seen::default();
        for client in [client(1), client(2), client(3)] {
            for number in [0, 1, 2, 63, 64, 65, 5, 1_000, 999] {
                #[cfg(feature = "http")]
                assert!(!seen.knows(&format!("{client}-{number}")), "{client}-{number}");
                assert!(!seen.is_duplicate(&format!("{client}-{number}")), "{client}-{number}");
            }
            for number in [0, 5, 63, 64, 65, 999, 1_000] {
                #[cfg(feature = "http")]
                assert!(seen.knows(&format!("{client}-{number}")), "{client}-{number}");
                assert!(seen.is_duplicate(&format!("{client}-{number}")), "{client}-{number}");
            }
        }
    }

    #[test]
    fn what_is_too_old_to_be_known_passes_and_what_took_its_place_is_no_duplicate() {
        let seen = Seen::default();
        let id = |number: u64| format!("{}-{number}", client(1));
        (0..10).for_each(|number| assert!(!seen.is_duplicate(&id(number))));
        assert!(!seen.is_duplicate(&id(NUMBERS + 5)));
        for number in 0..=5 {
            assert!(!seen.is_duplicate(&id(number)), "{number} is out of sight");
        }
        (6..10).for_each(|number| assert!(seen.is_duplicate(&id(number)), "{number} is still in sight"));
        for number in 10..NUMBERS + 5 {
            assert!(!seen.is_duplicate(&id(number)), "{number} did not come yet");
        }
        assert!(!seen.is_duplicate(&id(u64::MAX)));
        assert!(seen.is_duplicate(&id(u64::MAX)));
    }

    #[test]
    fn after_leaps_of_any_length_the_window_knows_what_a_set_of_all_numbers_knows() {
        let seen = Seen::default();
        let (mut came, mut newest) = (std::collections::HashSet::new(), 0);
        for leap in
            (0..200).chain([NUMBERS - 65, NUMBERS - 64, NUMBERS - 63, NUMBERS - 2, NUMBERS - 1, NUMBERS])
        {
            newest += leap;
            for back in [0, 1, 2, 31, 63, 64, 65, 128, leap, NUMBERS - 1] {
                let number = u64::saturating_sub(newest, back);
                let is_known = came.contains(&number) && newest - number < NUMBERS;
                assert_eq!(seen.is_duplicate(&format!("{}-{number}", client(1))), is_known, "{leap} {back}");
                came.insert(number);
            }
        }
    }

    #[test]
    fn one_message_that_leaps_ahead_costs_less_than_a_step_a_number() {
        use std::time::{Duration, Instant};
        let mut window = Window { newest: 0, came: vec![0; (NUMBERS / WORD) as usize].into(), heard: 0 };
        let mut quickest = |step: u64, times: u64| {
            let timed = |_| {
                let begun = Instant::now();
                (0..times).for_each(|_| assert!(!window.take(window.newest + step)));
                begun.elapsed()
            };
            (0..20).map(timed).min().unwrap_or(Duration::MAX)
        };
        let (leap, steps) = (quickest(NUMBERS - 1, 1), quickest(1, NUMBERS / 8));
        assert!(leap < steps, "{leap:?} for a leap, {steps:?} for an eighth of its numbers");
    }

    #[test]
    fn what_is_no_id_is_never_a_duplicate() {
        let seen = Seen::default();
        for id in ["", "-", "7", "order-42", "boot-1-start-7"] {
            assert!(!seen.is_duplicate(id) && !seen.is_duplicate(id), "{id:?}");
        }
        assert!(seen.clients.lock().unwrap().by_name.is_empty());
    }

    #[test]
    fn a_thousand_and_more_clients_are_remembered_and_the_one_heard_last_the_longest_ago_is_forgotten() {
        let seen = Seen::default();
        let is_duplicate = |number: usize| seen.is_duplicate(&format!("{}-0", client(number)));
        (0..MAX_CLIENTS).for_each(|number| assert!(!is_duplicate(number)));
        assert!(is_duplicate(0));
        assert!(!is_duplicate(MAX_CLIENTS));
        assert!(is_duplicate(0) && is_duplicate(MAX_CLIENTS));
        assert!(!is_duplicate(1), "it was forgotten");
        assert_eq!(seen.clients.lock().unwrap().by_name.len(), MAX_CLIENTS);
    }
}
