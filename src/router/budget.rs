//! Memory that all connections of an input share. In: how much one of them needs. Out: whether there is room for it.
//! Nothing can be lost here: who finds no room is turned down and told so, as far as its protocol has words for that.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

/// So many bytes, and how many of them are taken.
#[derive(Debug, Default)]
pub(super) struct Budget {
    most: usize,
    taken: AtomicUsize,
}

impl Budget {
    pub(super) fn of(most: usize) -> Arc<Self> {
        Arc::new(Budget { most, taken: AtomicUsize::new(0) })
    }

    fn take(&self, bytes: usize) -> bool {
        let fitting = |taken: usize| taken.checked_add(bytes).filter(|&all| all <= self.most);
        self.taken.fetch_update(Relaxed, Relaxed, fitting).is_ok()
    }
}

/// What one connection holds of a budget; given back when it is dropped, however that comes.
pub(super) struct Share {
    budget: Arc<Budget>,
    /// What it may hold and not take from the others.
    own: usize,
    bytes: usize,
}

impl Share {
    /// Nothing yet, and `own` bytes for which nobody has to be asked.
    pub(super) fn beyond(own: usize, budget: &Arc<Budget>) -> Self {
        Share { budget: Arc::clone(budget), own, bytes: 0 }
    }

    /// Takes so many bytes more. `false`: others have them.
    #[cfg(feature = "http")]
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let fits = self.budget.take(bytes);
        if fits {
            self.bytes += bytes;
        }
        fits
    }

    /// Holds so many bytes in all, its own among them, be it more or less than before. `false`: others have them.
    pub(super) fn hold(&mut self, bytes: usize) -> bool {
        let bytes = bytes.saturating_sub(self.own);
        if bytes > self.bytes && !self.budget.take(bytes - self.bytes) {
            return false;
        }
        self.budget.taken.fetch_sub(self.bytes.saturating_sub(bytes), Relaxed);
        self.bytes = bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_hold_more_than_the_budget_beyond_what_is_their_own_and_give_all_back() {
        let budget = Budget::of(100);
        let (mut one, mut other) = (Share::beyond(10, &budget), Share::beyond(10, &budget));
        assert!(one.hold(70) && other.hold(50), "10 + 60 and 10 + 40");
        assert!(!one.hold(71) && !other.hold(usize::MAX) && other.hold(10));
        assert!(one.hold(110) && !other.hold(11) && other.hold(10), "its own is always there");
        assert!(one.hold(20));
        assert_eq!(budget.taken.load(Relaxed), 10);
        drop((one, other));
        assert_eq!(budget.taken.load(Relaxed), 0);
    }
}
