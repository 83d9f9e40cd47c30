//! What the worker does with its spool: when new messages go there, and when those that are there are sent.
//!
//! In: encoded messages, and how the destinations do. Out: messages into outlets or into the spool. Nothing is lost
//! here; without a spool all messages go into the outlets.

use std::time::Instant;

use super::outlet::Outlet;
use super::spool::Spool;

/// Where the worker takes messages to in one visit, and from where.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// New ones to the destinations.
    Outlets,
    /// New ones to the spool.
    Spool,
    /// Those of the spool to the destinations.
    FromSpool,
    /// None: the queue keeps them.
    Nowhere,
}

/// The spool, if there is one, and whose turn it is.
pub(crate) struct Aside {
    spool: Option<Spool>,
    /// New messages go to the spool now.
    is_chosen: bool,
    /// A batch of new messages was sent: the next one is the spool's.
    is_spools_turn: bool,
}

impl Aside {
    pub(crate) fn new(spool: Option<Spool>) -> Self {
        Aside { spool, is_chosen: false, is_spools_turn: true }
    }

    /// Puts one new message where new messages go now.
    #[inline]
    pub(crate) fn put(&mut self, outlets: &mut [Outlet], message: &[u8]) {
        match &mut self.spool {
            // What is being sent from the spool is mixed with nothing else: all of it is on disk still.
            Some(spool) if self.is_chosen || spool.is_sending() => spool.put(message),
            _ => {
                self.is_spools_turn = true;
                outlets.iter_mut().for_each(|outlet| outlet.put(message));
            }
        }
    }

    /// The same for outlets that can say more than its JSON does.
    #[cfg(feature = "heka")]
    pub(super) fn put_exactly(&mut self, outlets: &mut [Outlet], message: &[u8], exact: &super::heka::Exact) {
        match &self.spool {
            Some(spool) if self.is_chosen || spool.is_sending() => self.put(outlets, message),
            _ => {
                self.is_spools_turn = true;
                outlets.iter_mut().for_each(|outlet| outlet.put_exactly(message, exact));
            }
        }
    }

    /// What to do next. New messages go to the spool when no destination answers, or when none has room and the queue
    /// fills. When one answers, batches of new messages and of the spool take turns, so that neither starves the other.
    pub(crate) fn way(&self, outlets: &[Outlet], queue_is_low: bool) -> Way {
        let has_room = outlets.iter().any(Outlet::has_room);
        let Some(spool) = &self.spool else { return if has_room { Way::Outlets } else { Way::Nowhere } };
        let all_fail = outlets.iter().all(Outlet::is_failing);
        if has_room && !spool.is_sending() {
            if spool.has_backlog() && (self.is_spools_turn || all_fail) {
                // A batch of the spool is sent alone.
                let is_clear = outlets.iter().any(Outlet::is_settled);
                if is_clear {
                    return Way::FromSpool;
                } else if !all_fail && !queue_is_low {
                    return Way::Nowhere;
                }
            }
            if !all_fail {
                return Way::Outlets;
            }
        }
        match (all_fail || queue_is_low) && spool.has_room() {
            true => Way::Spool,
            false => Way::Nowhere,
        }
    }

    /// After the destinations have sent what they can: tells the spool what has arrived, and takes from a destination that has failed what it has not
    /// got. What several destinations hold stays with them. Whether there is more to do now than before.
    pub(crate) fn tend(&mut self, outlets: &mut [Outlet]) -> bool {
        self.is_chosen = false;
        let Some(spool) = &mut self.spool else { return false };
        let mut has_tended = false;
        if spool.is_sending() {
            if has_arrived(outlets) {
                spool.confirm();
                self.is_spools_turn = false;
                has_tended = true;
            }
        } else if let [only] = outlets {
            if only.is_failing() && !only.is_settled() && spool.has_room() {
                has_tended = only.take_back(|message| spool.put(message)) > 0;
            }
        }
        spool.tick();
        has_tended
    }

    /// New messages go to the spool until [`write`](Aside::write). `false` when there is none.
    pub(crate) fn choose(&mut self) -> bool {
        self.is_chosen = self.spool.is_some();
        self.is_chosen
    }

    /// Brings to disk what was put in.
    pub(crate) fn write(&mut self) {
        self.is_chosen = false;
        self.spool.iter_mut().for_each(Spool::write);
    }

    /// No new messages are there: the spool need not wait for some.
    pub(crate) fn pass_turn(&mut self) {
        self.is_spools_turn = true;
    }

    /// Puts the next batch of the spool into the outlets. `false` when there is none.
    pub(crate) fn send(&mut self, outlets: &mut [Outlet]) -> bool {
        self.is_spools_turn = false;
        let Some(spool) = &mut self.spool else { return false };
        spool.read(|message| outlets.iter_mut().for_each(|outlet| outlet.put(message)))
    }

    /// Whether a destination that fails holds nothing but what the spool holds too: a flush need not wait for it.
    pub(crate) fn holds_all(&self, outlets: &[Outlet]) -> bool {
        let is_sending = self.spool.as_ref().is_some_and(Spool::is_sending);
        is_sending && matches!(outlets, [only] if only.is_failing())
    }

    /// Whether the spool has messages that could be sent now.
    #[cfg(feature = "router")]
    pub(crate) fn has_backlog(&self) -> bool {
        self.spool.as_ref().is_some_and(Spool::has_backlog)
    }

    /// Whether messages of the spool are with the destinations.
    #[cfg(feature = "router")]
    pub(crate) fn is_sending(&self) -> bool {
        self.spool.as_ref().is_some_and(Spool::is_sending)
    }

    /// Somebody waits for a flush.
    pub(crate) fn hurry(&mut self) {
        self.spool.iter_mut().for_each(Spool::hurry);
    }

    /// A flush is complete when this is done.
    pub(crate) fn sync(&mut self) {
        self.spool.iter_mut().for_each(Spool::sync);
    }

    /// Whether messages were put into the spool that are not on disk.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.spool.as_ref().is_some_and(Spool::has_unwritten)
    }

    /// When there is something to do here again without being told.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.spool.as_ref().and_then(Spool::due)
    }

    /// Whether there is a spool.
    pub(crate) fn is_there(&self) -> bool {
        self.spool.is_some()
    }

    /// At the end: what the destinations have not got goes to the spool, or stays there.
    pub(crate) fn close(&mut self, outlets: &mut [Outlet]) {
        let Some(spool) = &mut self.spool else { return };
        match spool.is_sending() {
            true if has_arrived(outlets) => spool.confirm(),
            true => {
                let left = take_back_all(outlets, |_| {});
                spool.keep(left);
            }
            false => drop(take_back_all(outlets, |message| spool.put(message))),
        }
        spool.close();
    }
}

/// Whether a batch of the spool has arrived: every destination that answers has it, and at least one does. One that
/// takes nothing and gives no error must not hold the others up.
fn has_arrived(outlets: &[Outlet]) -> bool {
    let is_done = |outlet: &Outlet| outlet.is_settled() || outlet.is_failing() || outlet.is_stuck();
    outlets.iter().any(Outlet::is_settled) && outlets.iter().all(is_done)
}

/// Takes back what none of the destinations has got: what the one that has got furthest has not. What another one has
/// not got beyond that is lost to it.
fn take_back_all(outlets: &mut [Outlet], each: impl FnMut(&[u8])) -> u64 {
    let furthest = outlets.iter().enumerate().min_by_key(|(_, outlet)| outlet.left());
    let Some((furthest, _)) = furthest else { return 0 };
    let count = outlets[furthest].take_back(each);
    for (index, outlet) in outlets.iter_mut().enumerate() {
        if index != furthest {
            let left = outlet.take_back(|_| {});
            outlet.give_up(left.saturating_sub(count));
        }
    }
    count
}
