//! The account: every counter, every reason a message can be lost for, and the report about losses.
//!
//! `emitted = delivered + Σ lost[reason] + pending` holds at any time, for every destination. With a spool it is
//! `emitted + inherited = delivered + Σ lost[reason] + spooled + pending`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Why a message did not arrive. Each is counted on its own; see [`Stats`](crate::Stats).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum LossReason {
    /// The queue was full and [`WhenFull`](crate::WhenFull) said to drop.
    QueueFull,
    /// The queue was nearly full, and DEBUG and TRACE are shed first.
    Shed,
    /// Made by this crate's own background thread, or by a `Debug` that logs, nested too deep.
    Recursive,
    /// Made in a forked child, which has no background thread.
    Forked,
    /// Made after shutdown.
    Closed,
    /// A metric whose value cannot be one: not a number, negative where only increments make sense.
    InvalidMetric,
    /// Too large for the destination even after cutting its payload and fields.
    TooLarge,
    /// The destination was down or refused it until the deadline of the shutdown.
    Unreachable,
    /// It was written to the destination, which had not confirmed it by the deadline of the shutdown: it may have
    /// arrived all the same.
    Unconfirmed,
    /// One of several destinations fell too far behind, and its share of the memory was full.
    Lagging,
    /// Found in what a process left that crashed (the crash ring), and not whole.
    Damaged,
    /// The receiver refused it (an HTTP status that says that sending it again would not help).
    Rejected,
    /// Written to stderr instead, because its ZeroMQ receiver was not there (`spill=stderr`).
    Spilled,
    /// The background thread failed (a panic in a user's transport, or no thread could be had).
    WorkerFailed,
    /// The spool's disk or its quota was full: an old message made room for a new one
    /// ([`WhenFull::DropOldest`](crate::WhenFull::DropOldest)), or the program ended and the disk took no more.
    SpoolFull,
    /// It waited in the spool for longer than the greatest age.
    SpoolExpired,
    /// The spool's file was damaged where it stood, or removed.
    SpoolDamaged,
}

impl LossReason {
    /// Every reason there is.
    pub const ALL: [LossReason; 17] = [
        LossReason::QueueFull,
        LossReason::Shed,
        LossReason::Recursive,
        LossReason::Forked,
        LossReason::Closed,
        LossReason::InvalidMetric,
        LossReason::TooLarge,
        LossReason::Unreachable,
        LossReason::Unconfirmed,
        LossReason::Lagging,
        LossReason::Damaged,
        LossReason::Rejected,
        LossReason::Spilled,
        LossReason::WorkerFailed,
        LossReason::SpoolFull,
        LossReason::SpoolExpired,
        LossReason::SpoolDamaged,
    ];

    /// The name in reports and `metlog.loss` messages: `queue_full`, `shed`, `recursive`, ...
    pub const fn name(self) -> &'static str {
        match self {
            LossReason::QueueFull => "queue_full",
            LossReason::Shed => "shed",
            LossReason::Recursive => "recursive",
            LossReason::Forked => "forked",
            LossReason::Closed => "closed",
            LossReason::InvalidMetric => "invalid_metric",
            LossReason::TooLarge => "too_large",
            LossReason::Unreachable => "unreachable",
            LossReason::Unconfirmed => "unconfirmed",
            LossReason::Lagging => "lagging",
            LossReason::Damaged => "damaged",
            LossReason::Rejected => "rejected",
            LossReason::Spilled => "spilled",
            LossReason::WorkerFailed => "worker_failed",
            LossReason::SpoolFull => "spool_full",
            LossReason::SpoolExpired => "spool_expired",
            LossReason::SpoolDamaged => "spool_damaged",
        }
    }
}

impl LossReason {
    /// What to do about it, as loss reports say it.
    pub const fn advice(self) -> &'static str {
        match self {
            LossReason::QueueFull => {
                "the router is too slow or gone: see to it, or give the queue more memory (METLOG_QUEUE_BYTES) or let \
                 callers wait (METLOG_WHEN_FULL)"
            }
            LossReason::Shed => {
                "the queue was nearly full, and DEBUG and TRACE go first: filter them (METLOG_FILTER), or see to the router"
            }
            LossReason::Recursive => "something logs while it is being logged: look for a `Debug` that logs",
            LossReason::Forked => "a forked child has no background thread: let it exec, or build a generator of its own",
            LossReason::Closed => "something logs after the end of delivery: keep the guard for longer",
            LossReason::InvalidMetric => "a metric was no number, or none that its kind can be: correct the call",
            LossReason::TooLarge => {
                "a message could not be cut to fit a datagram, or was too long for an HTTP receiver: use tcp:// or \
                 unix://, let the receiver take more, or say less"
            }
            LossReason::Unreachable => {
                "the program ended while the destination was down: start it, or give it longer (METLOG_FLUSH_TIMEOUT_MS)"
            }
            LossReason::Unconfirmed => {
                "the program ended before the destination had confirmed what was sent: it may have it; see whether it \
                 reads, or give it longer (METLOG_FLUSH_TIMEOUT_MS)"
            }
            LossReason::Lagging => "one of several destinations is slower than the others: see to it",
            LossReason::SpoolFull => {
                "the spool was full: give it more room (METLOG_SPOOL_LIMIT), look at its disk, and see to the router"
            }
            LossReason::SpoolExpired => {
                "it waited in the spool for too long: see to the router, or let it wait longer (METLOG_SPOOL_MAX_AGE_S)"
            }
            LossReason::SpoolDamaged => {
                "files of the spool are damaged, or somebody removed them: look at the disk, and at the *.bad files"
            }
            LossReason::Damaged => {
                "a crash ring was not whole: it is kept as *.ring.bad; the program that left it may have written where \
                 it must not"
            }
            LossReason::Rejected => {
                "an HTTP receiver refused them for good: its answer stands in the destination's problem and on stderr; \
                 correct the address, the credentials or the receiver"
            }
            LossReason::Spilled => {
                "a ZeroMQ receiver was not there, and they stand on stderr, as spill=stderr asks for: start the receiver, \
                 or take the option away"
            }
            LossReason::WorkerFailed => "the background thread failed: please report what it said on stderr",
        }
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

const REASONS: usize = LossReason::ALL.len();

/// Messages lost, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses([u64; REASONS]);

impl Losses {
    /// Messages lost for one reason.
    pub fn count(&self, reason: LossReason) -> u64 {
        self.0[reason as usize]
    }

    /// Messages lost for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that have cost messages, and how many each.
    pub fn iter(&self) -> impl Iterator<Item = (LossReason, u64)> + '_ {
        LossReason::ALL.into_iter().map(|reason| (reason, self.count(reason))).filter(|&(_, count)| count > 0)
    }

    pub(crate) fn plus(&self, other: &Losses) -> Losses {
        Losses(std::array::from_fn(|index| self.0[index] + other.0[index]))
    }

    pub(crate) fn since(&self, earlier: &Losses) -> Losses {
        Losses(std::array::from_fn(|index| self.0[index].saturating_sub(earlier.0[index])))
    }
}

/// `0`, or `12 (queue_full 10, shed 2)`.
impl fmt::Display for Losses {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.total())?;
        for (index, (reason, count)) in self.iter().enumerate() {
            write!(formatter, "{}{reason} {count}", if index == 0 { " (" } else { ", " })?;
        }
        formatter.write_str(if self.total() == 0 { "" } else { ")" })
    }
}

/// The account at one moment; from [`Guard::stats`](crate::Guard::stats).
///
/// `emitted == delivered + lost.total() + pending`, and with a spool
/// `emitted + inherited == delivered + lost.total() + spooled + pending`. With several destinations every one has an account of its own
/// in [`destinations`](Stats::destinations), and the figures here are those of the one that has got most.
///
/// Prints as `emitted 12 = delivered 10 + lost 2 (queue_full 2) + pending 0`; with messages in a spool as
/// `emitted 12 + inherited 5 = delivered 10 + lost 2 (queue_full 2) + spooled 5 + pending 0`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages the program made that passed the filters.
    pub emitted: u64,
    /// Messages of earlier runs that were found in the spool or in a crash ring.
    pub inherited: u64,
    /// Messages that have arrived, confirmed as far as the transport can tell: see the guarantees in the README.
    pub delivered: u64,
    /// Messages that will not arrive, by reason.
    pub lost: Losses,
    /// Messages that wait in the spool, on disk. Those that are being sent from it are `pending`.
    pub spooled: u64,
    /// Messages on their way.
    pub pending: u64,
    /// Those of `pending` that are written and not confirmed yet. If the connection breaks they are written again.
    pub unconfirmed: u64,
    /// Messages that were cut to fit, and marked `truncated`.
    pub truncated: u64,
    /// The account of each destination.
    pub destinations: Vec<DestinationStats>,
}

impl fmt::Display for Stats {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { emitted, inherited, delivered, lost, spooled, pending, .. } = self;
        write!(formatter, "emitted {emitted}")?;
        if *inherited > 0 {
            write!(formatter, " + inherited {inherited}")?;
        }
        write!(formatter, " = delivered {delivered} + lost {lost}")?;
        if inherited + spooled > 0 {
            write!(formatter, " + spooled {spooled}")?;
        }
        write!(formatter, " + pending {pending}")
    }
}

/// One destination's account.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DestinationStats {
    /// Its address.
    pub address: String,
    /// Messages that have arrived there, confirmed as far as the transport can tell.
    pub delivered: u64,
    /// Messages that will not arrive there, by reason; what was lost before it got here included.
    pub lost: Losses,
    /// Messages on their way.
    pub pending: u64,
    /// Those of `pending` that are written and not confirmed yet.
    pub unconfirmed: u64,
    /// Times that sending failed and was tried again.
    pub failures: u64,
    /// What went wrong last, if it has not gone well since; or that nothing has moved for
    /// [too long](crate::Builder::stuck_after).
    pub problem: Option<String>,
}

/// The counters behind [`Stats`], shared by everything that can lose or deliver a message.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Messages that never got into a lane: made and lost at once. One figure for both sides of the account, so that
    /// it balances also while more are turned away.
    turned_away: AtomicLosses,
    /// Messages the worker made itself.
    own: AtomicU64,
    /// Messages of earlier runs that were found in the spool or in a crash ring.
    inherited: AtomicU64,
    /// Messages in the spool, those excepted that are being sent.
    spooled: AtomicU64,
    /// What no destination has got at the end is in a crash ring, and not lost.
    #[cfg(feature = "ring")]
    keeps: std::sync::atomic::AtomicBool,
    lost: AtomicLosses,
    pub(crate) truncated: AtomicU64,
    destinations: OnceLock<Vec<Arc<DestinationCounters>>>,
}

#[derive(Debug, Default)]
struct AtomicLosses([AtomicLoss; REASONS]);

/// How many were lost for one reason, and when: the first since somebody asked for that (0: none), and the last one, in
/// nanoseconds since 1970.
#[derive(Debug, Default)]
struct AtomicLoss {
    count: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
}

impl AtomicLosses {
    fn add(&self, reason: LossReason, count: u64) {
        if count == 0 {
            return;
        }
        let loss = &self.0[reason as usize];
        let now = now();
        if loss.first.load(Ordering::Relaxed) == 0 {
            let _ = loss.first.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
        loss.last.store(now, Ordering::Relaxed);
        loss.count.fetch_add(count, Ordering::Relaxed);
    }

    fn read(&self) -> Losses {
        Losses(std::array::from_fn(|index| self.0[index].count.load(Ordering::Relaxed)))
    }

    /// Adds when they were lost, and begins anew.
    fn take_times(&self, times: &mut LossTimes) {
        for (loss, (first, last)) in self.0.iter().zip(&mut times.0) {
            let taken = loss.first.swap(0, Ordering::Relaxed);
            if taken != 0 {
                *first = if *first == 0 { taken } else { taken.min(*first) };
                *last = loss.last.load(Ordering::Relaxed).max(*last);
            }
        }
    }
}

/// For each reason when the first and the last message were lost, in nanoseconds since 1970; 0 if none was.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LossTimes([(u64, u64); REASONS]);

impl LossTimes {
    pub(crate) fn of(&self, reason: LossReason) -> (u64, u64) {
        self.0[reason as usize]
    }
}

/// The time to a few milliseconds: a flood of messages that are turned away must not cost a clock reading each.
#[cfg(target_os = "linux")]
fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(not(target_os = "linux"))]
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |time| time.as_nanos() as u64)
}

/// The counters of one destination.
#[derive(Debug)]
pub(crate) struct DestinationCounters {
    address: String,
    delivered: AtomicU64,
    unconfirmed: AtomicU64,
    lost: AtomicLosses,
    failures: AtomicU64,
    problem: Mutex<Option<String>>,
    /// Since when something waits and nothing is settled, and after how long that is a problem.
    stuck_since: Mutex<Option<Instant>>,
    stuck_after: Duration,
}

impl DestinationCounters {
    pub(crate) fn new(address: String, stuck_after: Duration) -> Self {
        DestinationCounters {
            address,
            delivered: AtomicU64::new(0),
            unconfirmed: AtomicU64::new(0),
            lost: AtomicLosses::default(),
            failures: AtomicU64::new(0),
            problem: Mutex::new(None),
            stuck_since: Mutex::new(None),
            stuck_after,
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// `count` more have arrived, and `unconfirmed` others are written by now and may have.
    pub(crate) fn deliver(&self, count: u64, unconfirmed: u64) {
        self.delivered.fetch_add(count, Ordering::Relaxed);
        self.unconfirmed.store(unconfirmed, Ordering::Relaxed);
    }

    pub(crate) fn lose(&self, reason: LossReason, count: u64) {
        self.lost.add(reason, count);
    }

    /// Whether the last attempt to send has failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Notes what went wrong, or that nothing does any more.
    pub(crate) fn note(&self, problem: Option<String>) {
        self.failures.fetch_add(u64::from(problem.is_some()), Ordering::Relaxed);
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// Messages that have arrived, and failures, ever.
    #[cfg(feature = "router")]
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.delivered.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }

    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn note_stuck(&self, since: Option<Instant>) {
        *self.stuck_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// How long a destination has had something to do and has not moved, if that is too long.
    pub(crate) fn stuck_for(&self) -> Option<Duration> {
        let since = *self.stuck_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map(|since| since.elapsed()).filter(|stuck| *stuck >= self.stuck_after)
    }

    /// What to say of a destination that has something to do and has not moved for too long.
    pub(crate) fn stuck(&self) -> Option<String> {
        let stuck = self.stuck_for()?;
        Some(format!("nothing was confirmed for {:.1} s although messages wait", stuck.as_secs_f64()))
    }

    /// The account, as long as nobody knows how many are pending.
    fn read(&self, lost_before: &Losses) -> DestinationStats {
        DestinationStats {
            address: self.address.clone(),
            delivered: self.delivered.load(Ordering::Relaxed),
            lost: lost_before.plus(&self.lost.read()),
            pending: 0,
            unconfirmed: self.unconfirmed.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            problem: self.problem().or_else(|| self.stuck()),
        }
    }
}

impl Counters {
    /// Messages were made and turned away at once.
    #[cold]
    pub(crate) fn turned_away(&self, reason: LossReason, count: u64) {
        self.turned_away.add(reason, count);
    }

    /// Messages that were counted as emitted are lost to every destination.
    pub(crate) fn lose(&self, reason: LossReason, count: u64) {
        self.lost.add(reason, count);
    }

    /// A message was made by the worker itself.
    pub(crate) fn emit_own(&self) {
        self.own.fetch_add(1, Ordering::Relaxed);
    }

    /// Messages of earlier runs were found in the spool.
    #[cfg(feature = "spool")]
    pub(crate) fn inherit(&self, count: u64) {
        self.inherited.fetch_add(count, Ordering::Relaxed);
        self.spool(count);
    }

    /// Messages were put on disk, or are left there.
    #[cfg(feature = "spool")]
    pub(crate) fn spool(&self, count: u64) {
        self.spooled.fetch_add(count, Ordering::Relaxed);
    }

    /// Messages were read from disk, and are on their way again.
    #[cfg(feature = "spool")]
    pub(crate) fn unspool(&self, count: u64) {
        self.spooled.fetch_sub(count, Ordering::Relaxed);
    }

    /// Messages that were on disk are lost to every destination.
    #[cfg(feature = "spool")]
    pub(crate) fn lose_spooled(&self, reason: LossReason, count: u64) {
        // In this order: in between they are on their way.
        self.unspool(count);
        self.lose(reason, count);
    }

    /// Messages of earlier runs, and messages in the spool.
    pub(crate) fn on_disk(&self) -> (u64, u64) {
        let spooled = self.spooled.load(Ordering::Relaxed);
        (self.inherited.load(Ordering::Relaxed), spooled)
    }

    /// From now on what no destination has got at the end is not lost.
    #[cfg(feature = "ring")]
    pub(crate) fn keep_what_is_left(&self) {
        self.keeps.store(true, Ordering::Relaxed);
    }

    /// Whether what no destination has got at the end is kept for the next start.
    pub(crate) fn keeps_what_is_left(&self) -> bool {
        #[cfg(feature = "ring")]
        return self.keeps.load(Ordering::Relaxed);
        #[cfg(not(feature = "ring"))]
        false
    }

    /// Messages were found that an earlier process made.
    #[cfg(feature = "ring")]
    pub(crate) fn replay(&self, count: u64) {
        self.inherited.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn emitted_elsewhere(&self) -> u64 {
        self.own.load(Ordering::Relaxed) + self.turned_away.read().total()
    }

    /// Messages lost for one reason before they reached any destination.
    #[cfg(test)]
    pub(crate) fn lost(&self, reason: LossReason) -> u64 {
        self.lost.read().plus(&self.turned_away.read()).count(reason)
    }

    /// Names the destinations, once.
    pub(crate) fn set_destinations(&self, destinations: Vec<Arc<DestinationCounters>>) {
        let _ = self.destinations.set(destinations);
    }

    fn destinations(&self) -> &[Arc<DestinationCounters>] {
        self.destinations.get().map_or(&[], Vec::as_slice)
    }

    /// All losses, those of every destination included: what a loss report is about.
    pub(crate) fn all_losses(&self) -> Losses {
        let before = self.lost.read().plus(&self.turned_away.read());
        self.destinations().iter().fold(before, |sum, one| sum.plus(&one.lost.read()))
    }

    /// When messages were lost since this was asked last.
    pub(crate) fn take_loss_times(&self) -> LossTimes {
        let mut times = LossTimes::default();
        self.turned_away.take_times(&mut times);
        self.lost.take_times(&mut times);
        self.destinations().iter().for_each(|one| one.lost.take_times(&mut times));
        times
    }

    /// Whether there is a destination that nothing is wrong with.
    pub(crate) fn is_any_well(&self) -> bool {
        self.destinations().iter().any(|one| one.problem().is_none() && one.stuck().is_none())
    }

    /// The account. What the lanes have taken is asked last, so that nothing is settled that was not emitted.
    pub(crate) fn read(&self, in_lanes: impl FnOnce() -> u64) -> Stats {
        let turned_away = self.turned_away.read();
        let lost_before = self.lost.read().plus(&turned_away);
        let settled: Vec<_> = self.destinations().iter().map(|one| one.read(&lost_before)).collect();
        let (inherited, spooled) = self.on_disk();
        let emitted = turned_away.total() + self.own.load(Ordering::Relaxed) + in_lanes();
        let taken_on = (emitted + inherited).saturating_sub(spooled);
        let destinations: Vec<_> = settled
            .into_iter()
            .map(|one| {
                let pending = taken_on.saturating_sub(one.delivered + one.lost.total());
                DestinationStats { pending, unconfirmed: one.unconfirmed.min(pending), ..one }
            })
            .collect();
        let truncated = self.truncated.load(Ordering::Relaxed);
        match destinations.iter().max_by_key(|one| one.delivered).cloned() {
            Some(best) => Stats {
                emitted,
                inherited,
                delivered: best.delivered,
                lost: best.lost,
                spooled,
                pending: best.pending,
                unconfirmed: best.unconfirmed,
                truncated,
                destinations,
            },
            None => {
                let pending = taken_on.saturating_sub(lost_before.total());
                let (delivered, unconfirmed, lost) = (0, 0, lost_before);
                Stats {
                    emitted,
                    inherited,
                    delivered,
                    lost,
                    spooled,
                    pending,
                    unconfirmed,
                    truncated,
                    destinations,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_balances_for_every_destination_and_shows_the_best() {
        let counters = Counters::default();
        let destinations: Vec<_> = ["a", "b"]
            .iter()
            .map(|address| Arc::new(DestinationCounters::new(address.to_string(), Duration::MAX)))
            .collect();
        counters.set_destinations(destinations.clone());
        counters.turned_away(LossReason::Shed, 2);
        destinations[0].deliver(5, 0);
        destinations[1].deliver(7, 3);
        destinations[1].lose(LossReason::TooLarge, 1);
        let stats = counters.read(|| 18);
        for one in &stats.destinations {
            assert_eq!(20, one.delivered + one.lost.total() + one.pending);
        }
        assert_eq!((stats.pending, stats.unconfirmed), (10, 3));
        assert_eq!(stats.to_string(), "emitted 20 = delivered 7 + lost 3 (shed 2, too_large 1) + pending 10");
    }

    #[test]
    fn times_of_losses_are_those_since_they_were_asked_for() {
        let counters = Counters::default();
        let destination = Arc::new(DestinationCounters::new(String::from("a"), Duration::MAX));
        counters.set_destinations(vec![Arc::clone(&destination)]);
        let before = now();
        counters.lose(LossReason::QueueFull, 1);
        destination.lose(LossReason::QueueFull, 1);
        counters.lose(LossReason::Shed, 0);
        let times = counters.take_loss_times();
        let (first, last) = times.of(LossReason::QueueFull);
        assert!(before <= first && first <= last && last <= now(), "{before} {times:?}");
        assert_eq!(times.of(LossReason::Shed), (0, 0), "nothing was lost");
        assert_eq!(counters.take_loss_times().of(LossReason::QueueFull), (0, 0), "nothing since");
    }

    #[test]
    fn every_reason_stands_at_its_own_number() {
        for (index, reason) in LossReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
