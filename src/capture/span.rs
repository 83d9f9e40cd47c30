//! What is remembered of a live span: its context, ready to be copied into an event, and its times.
//!
//! In: a span's values and its parent, then enter, exit, record, close. Out: context bytes for events and logs, and
//! at the end the [`Closed`] span. The table is this crate's own, keyed by the span's id, because a lookup in it
//! costs a fraction of one through the `Registry`'s extensions (figures in DESIGN.md). No code of the program runs
//! under its locks: values are formatted before, into scratch. A span made before the layer existed, or one that a
//! filter hid from it, is not in here; that is normal, and means "no context".

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use crossbeam_utils::CachePadded;

use super::bytes::Bytes;
use super::record;
use super::thread::Entered;
use super::version::{self, Version};
use crate::queue::fork;

/// Places for live spans. A span that finds its place taken by another goes to the overflow.
const PLACES: usize = 512;
const OVERFLOW_SHARDS: usize = 64;
/// Trees of spans that are told apart when one of their spans records a value.
const TREES: usize = 256;
/// A buffer larger than this is not kept for the next span.
const KEEP_BYTES: usize = 4096;

/// A live span, as one layer sees it.
#[derive(Debug, Default)]
struct Live {
    /// 0 when the place is free; no span has that id.
    id: u64,
    /// This span's part, then those of its parents: the innermost first. The buffer stays for the next span.
    context: Vec<u8>,
    /// 0 when there is none.
    parent: u64,
    /// The number of the tree it is in, which it has from its root.
    tree: usize,
    /// The tree's epoch when the parents' parts were copied.
    epoch: u64,
    /// Rate at which it is timed; 0 when it is not.
    rate: f64,
    created: u64,
    entered_at: u64,
    busy: u64,
    /// Threads inside it now.
    inside: u32,
    /// Some child has copied this context.
    copied: bool,
}

/// What a timed span leaves behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closed<'a> {
    pub(crate) context: &'a [u8],
    pub(crate) rate: f64,
    pub(crate) created: u64,
    pub(crate) busy: u64,
}

type Overflow = HashMap<u64, Live, BuildHasherDefault<IdHasher>>;

/// The live spans of one layer.
pub(crate) struct SpanTable {
    layer: u32,
    places: Box<[CachePadded<Mutex<Live>>; PLACES]>,
    overflow: Box<[Mutex<Overflow>]>,
    /// Spans in the overflow.
    overflown: AtomicUsize,
    /// By tree: raised whenever a span whose context others have copied records a new value. Trees share a few of
    /// these, which costs a needless look now and then, and nothing else.
    epochs: Box<[AtomicU64]>,
    process: fork::Process,
}

/// Every table there is, by the number of its layer, for those who only know a thread's current span.
static TABLES: RwLock<Vec<Weak<SpanTable>>> = RwLock::new(Vec::new());

impl SpanTable {
    pub(crate) fn new() -> Arc<SpanTable> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let table = Arc::new(SpanTable {
            layer: NEXT.fetch_add(1, Ordering::Relaxed),
            places: Box::new(std::array::from_fn(|_| CachePadded::default())),
            overflow: (0..OVERFLOW_SHARDS).map(|_| Mutex::default()).collect(),
            overflown: AtomicUsize::new(0),
            epochs: (0..TREES).map(|_| AtomicU64::new(0)).collect(),
            process: fork::Process::current(),
        });
        let mut tables = TABLES.write().unwrap_or_else(PoisonError::into_inner);
        tables.retain(|table| table.strong_count() > 0);
        tables.push(Arc::downgrade(&table));
        table
    }

    /// The number that tells this layer's spans from those of others in a thread's list.
    pub(crate) fn layer(&self) -> u32 {
        self.layer
    }

    /// `None` only in a forked child: a lock that another thread held at the fork is never released there, and what
    /// is under it is not known any more.
    #[inline]
    fn lock<'m, T>(&self, mutex: &'m Mutex<T>) -> Option<MutexGuard<'m, T>> {
        if self.process.was_forked() {
            return try_lock(mutex);
        }
        Some(mutex.lock().unwrap_or_else(PoisonError::into_inner))
    }

    #[inline]
    fn place(&self, id: u64) -> Option<MutexGuard<'_, Live>> {
        let index = (id.wrapping_mul(MIX) >> 55) as usize % PLACES;
        self.lock(&self.places[index])
    }

    fn overflow(&self, id: u64) -> Option<MutexGuard<'_, Overflow>> {
        let index = (id.wrapping_mul(MIX) >> 58) as usize % OVERFLOW_SHARDS;
        self.lock(&self.overflow[index])
    }

    /// Looks at a live span, under its lock.
    #[inline]
    fn with<R>(&self, id: u64, visit: impl FnOnce(&mut Live) -> R) -> Option<R> {
        let mut place = self.place(id)?;
        if place.id == id {
            return Some(visit(&mut place));
        }
        drop(place);
        if self.overflown.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.overflow(id)?.get_mut(&id).map(visit)
    }

    /// A span begins, with `own` as its part of the context.
    #[inline]
    pub(crate) fn insert(
        &self,
        id: u64,
        parent: Option<u64>,
        rate: f64,
        now: u64,
        own: &mut Bytes,
        start: usize,
    ) {
        // What is copied of the parent is at least as new as this epoch: see `record`.
        let copied = parent.and_then(|parent| Some((parent, self.append(parent, own, true)?)));
        let (parent, (tree, epoch)) = copied.unwrap_or((0, (tree_of(id), 0)));
        let Some(mut place) = self.place(id) else { return };
        if place.id != 0 {
            drop(place);
            let mut context = own[start..].to_vec();
            record::limit_context(&mut context);
            return self.insert_into_overflow(Live {
                id,
                context,
                parent,
                tree,
                epoch,
                rate,
                created: now,
                ..Live::default()
            });
        }
        let Live { context, .. } = &mut *place;
        context.extend_from_slice(own.get(start..).unwrap_or_default());
        record::limit_context(context);
        place.begin(id, now, rate, parent, tree, epoch);
    }

    #[cold]
    fn insert_into_overflow(&self, live: Live) {
        let Some(mut overflow) = self.overflow(live.id) else { return };
        self.overflown.fetch_add(1, Ordering::AcqRel);
        if overflow.insert(live.id, live).is_some() {
            self.overflown.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Appends a span's context to `out`, if the span is known here, and says of what version it is.
    #[inline]
    pub(crate) fn append_context(&self, id: u64, out: &mut Bytes) -> Option<Version> {
        let version = Version::of(self.with(id, |live| live.tree)?);
        self.append(id, out, false)?;
        Some(version)
    }

    /// Appends a span's context to `out`. Gives its tree and the epoch the context is of; `None` when the span is not
    /// known here.
    #[inline]
    fn append(&self, id: u64, out: &mut Bytes, for_child: bool) -> Option<(usize, u64)> {
        let copy = |live: &mut Live| {
            live.copied |= for_child;
            let epoch = self.epoch(live.tree);
            let is_fresh = live.parent == 0 || live.epoch == epoch;
            if is_fresh {
                out.extend_from_slice(&live.context);
            }
            (is_fresh, (live.tree, epoch))
        };
        match self.with(id, copy)? {
            (true, of) => Some(of),
            (false, _) => self.append_renewed(id, out),
        }
    }

    #[cold]
    fn append_renewed(&self, id: u64, out: &mut Bytes) -> Option<(usize, u64)> {
        self.renew(id);
        self.with(id, |live| {
            out.extend_from_slice(&live.context);
            (live.tree, live.epoch)
        })
    }

    #[inline]
    fn epoch(&self, tree: usize) -> u64 {
        self.epochs[tree % TREES].load(Ordering::Acquire)
    }

    /// Collects the parents' parts of a span's context anew: one of them has recorded a value since.
    #[cold]
    fn renew(&self, id: u64) {
        let Some((tree, parent)) = self.with(id, |live| (live.tree, live.parent)) else { return };
        let epoch = self.epoch(tree);
        let mut parents = Vec::new();
        let mut next = parent;
        while next != 0 {
            let own_part = |live: &mut Live| {
                parents.extend_from_slice(&live.context[..record::first_span_len(&live.context)]);
                live.parent
            };
            next = self.with(next, own_part).unwrap_or(0);
        }
        self.with(id, |live| {
            live.context.truncate(record::first_span_len(&live.context));
            live.context.extend_from_slice(&parents);
            record::limit_context(&mut live.context);
            live.epoch = epoch;
        });
    }

    /// A span records new values, given as entries. The epoch and the version are raised after the values are there,
    /// so that who copied older ones finds an older one.
    pub(crate) fn record(&self, id: u64, newer: &[u8], is_cut: bool) {
        let copied = self.with(id, |live| {
            let own = record::first_span_len(&live.context);
            let mut context = Vec::with_capacity(live.context.len() + newer.len());
            record::merge_span(&mut context, &live.context[..own], newer, is_cut);
            context.extend_from_slice(&live.context[own..]);
            live.context = context;
            (live.tree, live.copied)
        });
        let Some((tree, is_copied)) = copied else { return };
        if is_copied {
            self.epochs[tree % TREES].fetch_add(1, Ordering::AcqRel);
        }
        version::raise(tree);
    }

    /// A thread enters the span; `now` is asked for the time only if the span is timed.
    /// `false` when the span is not known here.
    #[inline]
    pub(crate) fn enter(&self, id: u64, now: impl FnOnce() -> u64) -> bool {
        let entered = self.with(id, |live| {
            if live.rate > 0.0 {
                live.inside += 1;
                if live.inside == 1 {
                    live.entered_at = now();
                }
            }
        });
        entered.is_some()
    }

    /// A thread leaves the span.
    #[inline]
    pub(crate) fn exit(&self, id: u64, now: impl FnOnce() -> u64) {
        self.with(id, |live| {
            if live.inside > 0 {
                live.inside -= 1;
                if live.inside == 0 {
                    live.busy += now().saturating_sub(live.entered_at);
                }
            }
        });
    }

    /// The span is over; what it leaves is shown to `closed`, under its lock.
    #[inline]
    pub(crate) fn remove<R>(&self, id: u64, closed: impl FnOnce(Closed<'_>) -> R) -> Option<R> {
        let mut place = self.place(id)?;
        if place.id != id {
            drop(place);
            return self.remove_from_overflow(id, closed);
        }
        if place.parent != 0 && place.epoch != self.epoch(place.tree) {
            drop(place);
            self.renew(id);
            // Nobody else removes the span, so it is still there.
            place = self.place(id)?;
        }
        let result = closed(place.closed());
        place.id = 0;
        place.context.clear();
        place.context.shrink_to(KEEP_BYTES);
        Some(result)
    }

    #[cold]
    fn remove_from_overflow<R>(&self, id: u64, closed: impl FnOnce(Closed<'_>) -> R) -> Option<R> {
        if self.with(id, |live| live.parent != 0 && live.epoch != self.epoch(live.tree))? {
            self.renew(id);
        }
        let live = self.overflow(id)?.remove(&id)?;
        self.overflown.fetch_sub(1, Ordering::AcqRel);
        Some(closed(live.closed()))
    }

    /// Whether the span is known here.
    pub(crate) fn contains(&self, id: u64) -> bool {
        self.with(id, |_| ()).is_some()
    }
}

#[cold]
fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    fork::available(mutex.try_lock())
}

impl Live {
    /// A span begins here, whose context is there already.
    #[inline(always)]
    fn begin(&mut self, id: u64, now: u64, rate: f64, parent: u64, tree: usize, epoch: u64) {
        (self.id, self.created, self.rate) = (id, now, rate);
        (self.parent, self.tree, self.epoch) = (parent, tree, epoch);
        (self.entered_at, self.busy, self.inside, self.copied) = (0, 0, 0, false);
    }

    fn closed(&self) -> Closed<'_> {
        Closed { context: &self.context, rate: self.rate, created: self.created, busy: self.busy }
    }
}

/// Appends the context of a span of any layer.
#[cfg_attr(not(feature = "log"), allow(dead_code))]
pub(crate) fn append_context(of: Entered, out: &mut Bytes) -> Option<Version> {
    let table = {
        let tables = TABLES.read().unwrap_or_else(PoisonError::into_inner);
        tables.iter().filter_map(Weak::upgrade).find(|table| table.layer == of.layer)
    };
    table?.append_context(of.span, out)
}

/// The tree of a root.
#[inline]
fn tree_of(id: u64) -> usize {
    (id.wrapping_mul(MIX) >> 56) as usize
}

const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

/// Span ids are small, distinct numbers: mixing their bits is hashing enough.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    #[inline]
    fn write_u64(&mut self, id: u64) {
        self.0 = (self.0 ^ id).wrapping_mul(MIX).rotate_left(26);
    }
}
