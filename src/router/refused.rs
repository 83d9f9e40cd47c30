//! Why an input has turned somebody away, and how often. In: one peer each time. Out: counts by reason.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why an input refused a connection, closed it before its client did, or did not read a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RefusedReason {
    /// The peer is none of those that [`Input::allow`](super::Input::allow) names: a connection closed before a byte of it
    /// was read, or a datagram.
    NotAllowed,
    /// There were as many connections as may be ([`Input::max_connections`](super::Input::max_connections)).
    TooManyConnections,
    /// The peer had as many as one may have
    /// ([`Input::max_connections_per_peer`](super::Input::max_connections_per_peer)).
    TooManyFromPeer,
    /// It had not sent a single message when a newcomer found no place
    /// ([`Input::max_connections`](super::Input::max_connections)).
    GaveWay,
    /// A message, a request or the start of an encrypted connection did not end in time
    /// ([`Input::message_deadline`](super::Input::message_deadline)).
    TooSlow,
    /// What it had sent of a message found no room
    /// ([`Input::max_unfinished_bytes`](super::Input::max_unfinished_bytes)).
    NoRoom,
    /// The system gave no thread for it.
    NoThread,
}

impl RefusedReason {
    /// Every reason there is.
    pub const ALL: [RefusedReason; 7] = [
        RefusedReason::NotAllowed,
        RefusedReason::TooManyConnections,
        RefusedReason::TooManyFromPeer,
        RefusedReason::GaveWay,
        RefusedReason::TooSlow,
        RefusedReason::NoRoom,
        RefusedReason::NoThread,
    ];

    /// The name in reports: `not_allowed`, `too_slow`, ...
    pub const fn name(self) -> &'static str {
        match self {
            RefusedReason::NotAllowed => "not_allowed",
            RefusedReason::TooManyConnections => "too_many_connections",
            RefusedReason::TooManyFromPeer => "too_many_from_peer",
            RefusedReason::GaveWay => "gave_way",
            RefusedReason::TooSlow => "too_slow",
            RefusedReason::NoRoom => "no_room",
            RefusedReason::NoThread => "no_thread",
        }
    }
}

impl fmt::Display for RefusedReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// The live numbers.
#[derive(Debug, Default)]
pub(super) struct Refused([AtomicU64; RefusedReason::ALL.len()]);

impl Refused {
    pub(super) fn count(&self, reason: RefusedReason) {
        self.0[reason as usize].fetch_add(1, Relaxed);
    }

    /// Only reasons that occurred.
    pub(super) fn counters(&self) -> BTreeMap<RefusedReason, u64> {
        let counts =
            RefusedReason::ALL.into_iter().map(|reason| (reason, self.0[reason as usize].load(Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_slot_and_name() {
        let names: std::collections::BTreeSet<_> = RefusedReason::ALL.map(RefusedReason::name).into();
        assert_eq!(names.len(), RefusedReason::ALL.len());
        for (slot, reason) in RefusedReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, slot);
        }
    }
}
