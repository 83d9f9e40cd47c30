//! Tells a thread whether the context it keeps of a span is still the newest.
//!
//! In: a word whenever a span records a value. Out: a comparison of two numbers, without a lock and without the
//! table the span is in. Nothing can be lost.

use std::sync::atomic::{AtomicU64, Ordering};

/// Trees of spans that are told apart; those that share a number cost each other a needless look.
const TREES: usize = 256;

/// By tree, of all layers: how often one of its spans has recorded a value.
static VERSIONS: [AtomicU64; TREES] = [const { AtomicU64::new(0) }; TREES];

/// What the values of a tree's spans were at some moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Version {
    tree: usize,
    number: u64,
}

impl Version {
    /// To be asked for before the values are looked at.
    #[inline]
    pub(crate) fn of(tree: usize) -> Version {
        Version { tree, number: VERSIONS[tree % TREES].load(Ordering::Acquire) }
    }

    /// Whether nothing was recorded since.
    #[inline]
    pub(crate) fn is_current(self) -> bool {
        self.number == Version::of(self.tree).number
    }
}

/// A span of the tree has recorded a value; to be called when it is there to be seen.
pub(crate) fn raise(tree: usize) {
    VERSIONS[tree % TREES].fetch_add(1, Ordering::AcqRel);
}
