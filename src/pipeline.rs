//! What the front ends, the guard and the exit hooks share: the way into the queue and the calls to its worker.
//!
//! In: captured records. Out: an account. Lost here: what was made where nothing can be captured (`recursive`).

use std::collections::{HashMap, HashSet};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::capture::thread;
use crate::message::Severity;
use crate::queue::{fork, Call, Latch, Queue, Waiter};
use crate::stats::{DestinationStats, LossReason, Losses, Stats};

/// The account at the end of a flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flushed {
    /// Messages delivered since the start: confirmed, as far as the transport can tell.
    pub delivered: u64,
    /// Messages lost since the start, for any reason; [`Guard::stats`](crate::Guard::stats) has the reasons.
    pub lost: u64,
    /// Messages in the spool: on disk, whatever happens to the machine, and not delivered. A flush does not wait for them.
    pub spooled: u64,
    /// Messages made before the flush that are still on their way, to the destination that is furthest behind if
    /// there are several. 0 when the flush was complete.
    pub pending: u64,
    /// Those of `pending` that are written and not confirmed yet.
    pub unconfirmed: u64,
}

impl Flushed {
    fn plus(self, other: Flushed) -> Flushed {
        Flushed {
            delivered: self.delivered + other.delivered,
            lost: self.lost + other.lost,
            spooled: self.spooled + other.spooled,
            pending: self.pending + other.pending,
            unconfirmed: self.unconfirmed + other.unconfirmed,
        }
    }
}

/// What a message filter decides by: see [`Builder::message_filter`](crate::Builder::message_filter).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Envelope<'m> {
    /// The message's type.
    pub r#type: &'m str,
    /// Its severity.
    pub severity: Severity,
    /// Its logger.
    pub logger: &'m str,
}

/// A user's own decision.
pub(crate) type Predicate = Box<dyn Fn(&Envelope<'_>) -> bool + Send + Sync>;

/// Metlog's client-side filters: applied to every message before it is queued, all of them must pass.
pub(crate) enum MessageFilter {
    SeverityMax(Severity),
    TypeBlacklist(HashSet<String>),
    TypeWhitelist(HashSet<String>),
    TypeSeverityMax(HashMap<String, Severity>),
    Predicate(Predicate),
}

impl MessageFilter {
    fn passes(&self, envelope: &Envelope<'_>) -> bool {
        match self {
            MessageFilter::SeverityMax(most) => envelope.severity <= *most,
            MessageFilter::TypeBlacklist(types) => !types.contains(envelope.r#type),
            MessageFilter::TypeWhitelist(types) => types.contains(envelope.r#type),
            MessageFilter::TypeSeverityMax(most) => {
                most.get(envelope.r#type).is_none_or(|most| envelope.severity <= *most)
            }
            // A filter that panics costs nobody a message.
            MessageFilter::Predicate(predicate) => {
                catch_unwind(AssertUnwindSafe(|| predicate(envelope))).unwrap_or(true)
            }
        }
    }
}

/// The shared half of one configured generator.
pub(crate) struct Pipeline {
    pub(crate) queue: Arc<Queue>,
    /// `false` when the router is `off`: nothing is captured.
    pub(crate) enabled: bool,
    /// The process whose messages are taken: none when there is nothing to be captured.
    taking: fork::Process,
    /// The logger of messages that name none.
    pub(crate) logger: String,
    pub(crate) filters: Vec<MessageFilter>,
    pub(crate) disabled_timers: HashSet<String>,
    /// How long the end of the program waits for delivery.
    pub(crate) flush_timeout: Duration,
    /// Whether panics are sent.
    pub(crate) panics: bool,
    closed: AtomicBool,
    /// What the first call of `close` waits for, and until when.
    closing: OnceLock<(Arc<Latch>, Instant)>,
}

/// What the worker gets to draw its account after the deadline of a close.
const GRACE: Duration = Duration::from_secs(1);

/// Every pipeline of the process, for those that know none: `flush`, exit, panics.
static PIPELINES: Mutex<Vec<Weak<Pipeline>>> = Mutex::new(Vec::new());

/// What a pipeline is made of.
pub(crate) struct Parts {
    pub(crate) queue: Arc<Queue>,
    pub(crate) enabled: bool,
    pub(crate) logger: String,
    pub(crate) filters: Vec<MessageFilter>,
    pub(crate) disabled_timers: HashSet<String>,
    pub(crate) flush_timeout: Duration,
    pub(crate) panics: bool,
}

impl Pipeline {
    pub(crate) fn new(parts: Parts) -> Arc<Pipeline> {
        let Parts { queue, enabled, logger, filters, disabled_timers, flush_timeout, panics } = parts;
        let closed = AtomicBool::new(false);
        let taking = if enabled { fork::Process::current() } else { fork::Process::none() };
        let pipeline = Arc::new(Pipeline {
            queue,
            enabled,
            taking,
            logger,
            filters,
            disabled_timers,
            flush_timeout,
            panics,
            closed,
            closing: OnceLock::new(),
        });
        if let Some(mut pipelines) = lock_pipelines() {
            pipelines.retain(|pipeline| pipeline.strong_count() > 0);
            pipelines.push(Arc::downgrade(&pipeline));
        }
        pipeline
    }

    /// Whether messages are captured at all, in this process: one comparison for both.
    #[inline]
    pub(crate) fn takes_messages(&self) -> bool {
        !self.taking.was_forked()
    }

    /// A message that is not captured: lost in a forked child, and nothing when the router is `off`.
    #[cold]
    pub(crate) fn turn_away(&self) {
        if self.enabled {
            self.queue.counters.turned_away(LossReason::Forked, 1);
        }
    }

    /// Whether the filters let such a message pass.
    #[inline]
    pub(crate) fn passes(&self, message_type: &str, severity: u8, logger: Option<&str>) -> bool {
        self.filters.is_empty() || self.passes_filters(message_type, severity, logger)
    }

    #[cold]
    fn passes_filters(&self, message_type: &str, severity: u8, logger: Option<&str>) -> bool {
        let envelope = Envelope {
            r#type: message_type,
            severity: Severity::from_number(severity).unwrap_or(Severity::Debug),
            logger: logger.unwrap_or(&self.logger),
        };
        self.filters.iter().all(|filter| filter.passes(&envelope))
    }

    /// Whether Metlog's `disabled_timers` names this timer, or all.
    pub(crate) fn is_timer_disabled(&self, name: &str) -> bool {
        !self.disabled_timers.is_empty()
            && (self.disabled_timers.contains("*") || self.disabled_timers.contains(name))
    }

    pub(crate) fn stats(&self) -> Stats {
        self.queue.counters.read(|| self.queue.emitted_in_lanes())
    }

    /// Delivers what was made before this call, as far as `timeout` goes.
    pub(crate) fn flush(&self, timeout: Duration) -> Flushed {
        if self.queue.was_forked() {
            return Flushed::default();
        }
        let emitted = self.queue.emitted();
        let deadline = deadline(timeout);
        let latch = Arc::new(Latch::default());
        let complete = !thread::is_own()
            && self.queue.call(Call::Flush(Waiter(Arc::clone(&latch))), deadline)
            && latch.wait(deadline);
        let stats = self.stats();
        // Of several destinations the one that is furthest behind: the flush has waited for it, and it is not done.
        let taken_on = (emitted + stats.inherited).saturating_sub(stats.spooled);
        let left = |one: &DestinationStats| taken_on.saturating_sub(one.delivered + one.lost.total());
        let last = stats.destinations.iter().max_by_key(|&one| left(one)).filter(|_| !complete);
        let pending = last.map_or(0, left);
        let unconfirmed = last.map_or(0, |one| one.unconfirmed.min(pending));
        let (delivered, lost, spooled) = (stats.delivered, stats.lost.total(), stats.spooled);
        Flushed { delivered, lost, spooled, pending, unconfirmed }
    }

    /// Delivers what there is and ends the worker. A second call waits for the first one: it may come from a thread
    /// that is about to end the process.
    pub(crate) fn close(&self, timeout: Duration) {
        if self.queue.was_forked() || thread::is_own() {
            return;
        }
        let (latch, deadline) = self.closing.get_or_init(|| (Arc::new(Latch::default()), deadline(timeout)));
        if !self.closed.swap(true, Ordering::AcqRel) {
            let done = Waiter(Arc::clone(latch));
            self.queue.call(Call::Close { done, deadline: *deadline }, *deadline);
        }
        // The worker gives up at the deadline, and then draws the account.
        latch.wait(*deadline + GRACE);
    }
}

impl Drop for Pipeline {
    /// Nothing can log any more and the guard was leaked: the worker delivers what it has and ends.
    fn drop(&mut self) {
        if !self.closed.swap(true, Ordering::AcqRel) && !self.queue.was_forked() {
            let deadline = deadline(self.flush_timeout);
            self.queue.call_now(Call::Close { done: Waiter(Arc::default()), deadline });
        }
    }
}

/// The moment `timeout` from now; a timeout too long to be added is a day.
pub(crate) fn deadline(timeout: Duration) -> Instant {
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
    Instant::now() + timeout.min(LONGEST)
}

fn pipelines() -> Vec<Arc<Pipeline>> {
    lock_pipelines().map(|pipelines| pipelines.iter().filter_map(Weak::upgrade).collect()).unwrap_or_default()
}

/// The list of pipelines. `None` only in a forked child, when a thread that did not come along held the list at the
/// fork: nobody would ever let go of it.
fn lock_pipelines() -> Option<MutexGuard<'static, Vec<Weak<Pipeline>>>> {
    let lock = || PIPELINES.lock().unwrap_or_else(PoisonError::into_inner);
    fork::unless_dead(lock, || fork::available(PIPELINES.try_lock()))
}

/// Delivers what was made before this call by any part of the process, as far as `timeout` goes. Returns the sums.
///
/// For code that has no [`Guard`](crate::Guard) at hand: a signal-handling thread, a `panic` hook, a test.
///
/// ```
/// use std::time::Duration;
/// let flushed = tracing_metlog::flush(Duration::from_secs(1));
/// assert_eq!(flushed.pending, 0);
/// ```
pub fn flush(timeout: Duration) -> Flushed {
    let deadline = deadline(timeout);
    pipelines()
        .iter()
        .map(|pipeline| pipeline.flush(deadline.saturating_duration_since(Instant::now())))
        .fold(Flushed::default(), Flushed::plus)
}

/// Closes every pipeline of the process: the program is about to end.
pub(crate) fn close_all() {
    for pipeline in pipelines() {
        pipeline.close(pipeline.flush_timeout);
    }
}

/// The pipelines that want to hear of panics.
pub(crate) fn for_panics() -> Vec<Arc<Pipeline>> {
    pipelines().into_iter().filter(|pipeline| pipeline.panics && pipeline.enabled).collect()
}

/// Losses that are new since the last look.
#[derive(Debug, Default)]
pub(crate) struct LossWatch {
    reported: Losses,
}

impl LossWatch {
    /// What was lost since the last call.
    pub(crate) fn news(&mut self, losses: Losses) -> Losses {
        let news = losses.since(&self.reported);
        self.reported = losses;
        news
    }
}
