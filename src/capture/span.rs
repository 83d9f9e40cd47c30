//! What is remembered of a live span: its context, ready to be copied into an event, and its times.
//!
//! In: a span's values and its parent, then enter, exit, record, close. Out: context bytes for events and logs, and
//! at the end the [`Closed`] span. The table is this crate's own, keyed by the span's id, because a lookup in it
//! costs a fraction of one through the `Registry`'s extensions (figures in DESIGN.md). No code of the program runs
//! under its locks: values are formatted before, into scratch. A span made before the layer existed, or one that a
//! filter hid from it, is not in here; that is normal, and means "no context".

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use crossbeam_utils::CachePadded;

use super::record;
use super::thread;

const SHARDS: usize = 64;
/// Buffers a shard keeps for its next spans.
const SPARE_BUFFERS: usize = 32;
/// A buffer larger than this is not kept.
const SPARE_BYTES: usize = 4096;

/// A live span, as one layer sees it.
#[derive(Debug, Default)]
struct Live {
    /// This span's part, then those of its parents: the innermost first.
    context: Vec<u8>,
    parent: Option<u64>,
    /// Some child has copied this context.
    copied: bool,
    /// The table's epoch when the parents' parts were copied.
    epoch: u64,
    /// Rate at which it is timed; 0 when it is not.
    rate: f64,
    created: u64,
    entered_at: u64,
    busy: u64,
    /// Threads inside it now.
    inside: u32,
}

/// What a timed span leaves behind.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) context: Vec<u8>,
    pub(crate) rate: f64,
    pub(crate) created: u64,
    pub(crate) busy: u64,
}

#[derive(Default)]
struct Shard {
    live: HashMap<u64, Live, BuildHasherDefault<IdHasher>>,
    spare: Vec<Vec<u8>>,
}

/// The live spans of one layer.
pub(crate) struct SpanTable {
    layer: u32,
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    /// Raised whenever a span whose context others have copied records a new value.
    epoch: AtomicU64,
}

/// Every table there is, by the number of its layer, for those who only know a thread's current span.
static TABLES: RwLock<Vec<Weak<SpanTable>>> = RwLock::new(Vec::new());

impl SpanTable {
    pub(crate) fn new() -> Arc<SpanTable> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let layer = NEXT.fetch_add(1, Ordering::Relaxed);
        let shards = (0..SHARDS).map(|_| CachePadded::default()).collect();
        let table = Arc::new(SpanTable { layer, shards, epoch: AtomicU64::new(0) });
        let mut tables = TABLES.write().unwrap_or_else(PoisonError::into_inner);
        tables.retain(|table| table.strong_count() > 0);
        tables.push(Arc::downgrade(&table));
        table
    }

    /// The number that tells this layer's spans from those of others in a thread's list.
    pub(crate) fn layer(&self) -> u32 {
        self.layer
    }

    #[inline]
    fn shard(&self, id: u64) -> MutexGuard<'_, Shard> {
        let index = (id.wrapping_mul(MIX) >> 58) as usize % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A span begins. `scratch` holds its own part; its parents' parts are added.
    #[inline]
    pub(crate) fn insert(&self, id: u64, parent: Option<u64>, rate: f64, now: u64, scratch: &mut Vec<u8>) {
        let epoch = self.epoch.load(Ordering::Acquire);
        let parent = parent.filter(|&parent| self.append(parent, scratch, true));
        record::limit_context(scratch);
        let shard = &mut *self.shard(id);
        let mut context = shard.spare.pop().unwrap_or_default();
        context.extend_from_slice(scratch);
        let live = Live { context, parent, epoch, rate, created: now, ..Live::default() };
        shard.live.insert(id, live);
    }

    /// Appends a span's context to `out`; `false` when the span is not known here.
    #[inline]
    pub(crate) fn append_context(&self, id: u64, out: &mut Vec<u8>) -> bool {
        self.append(id, out, false)
    }

    #[inline]
    fn append(&self, id: u64, out: &mut Vec<u8>, for_child: bool) -> bool {
        let mut shard = self.shard(id);
        let Some(live) = shard.live.get_mut(&id) else { return false };
        live.copied |= for_child;
        if live.epoch != self.epoch.load(Ordering::Acquire) && live.parent.is_some() {
            drop(shard);
            self.renew(id);
            return self.append_as_is(id, out);
        }
        out.extend_from_slice(&live.context);
        true
    }

    fn append_as_is(&self, id: u64, out: &mut Vec<u8>) -> bool {
        self.shard(id).live.get(&id).map(|live| out.extend_from_slice(&live.context)).is_some()
    }

    /// Collects the parents' parts of a span's context anew: one of them has recorded a value since.
    #[cold]
    fn renew(&self, id: u64) {
        let epoch = self.epoch.load(Ordering::Acquire);
        let mut context = Vec::new();
        let mut next = Some(id);
        while let Some(id) = next {
            let shard = self.shard(id);
            let Some(live) = shard.live.get(&id) else { break };
            context.extend_from_slice(&live.context[..record::first_span_len(&live.context)]);
            next = live.parent;
        }
        record::limit_context(&mut context);
        if let Some(live) = self.shard(id).live.get_mut(&id) {
            // A value the span has recorded itself meanwhile must not be undone; the next reader comes here again.
            let own = record::first_span_len(&live.context);
            if live.context.get(..own) == context.get(..own) {
                live.context = context;
                live.epoch = epoch;
            }
        }
    }

    /// A span records new values, given as entries.
    pub(crate) fn record(&self, id: u64, newer: &[u8]) {
        let mut shard = self.shard(id);
        let Shard { live, spare } = &mut *shard;
        let Some(live) = live.get_mut(&id) else { return };
        let mut context = spare.pop().unwrap_or_default();
        let own = record::first_span_len(&live.context);
        record::merge_span(&mut context, &live.context[..own], newer);
        context.extend_from_slice(&live.context[own..]);
        let older = std::mem::replace(&mut live.context, context);
        give_back(spare, older);
        if live.copied {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// A thread enters the span; `now` is asked for the time only if the span is timed.
    /// `false` when the span is not known here.
    #[inline]
    pub(crate) fn enter(&self, id: u64, now: impl FnOnce() -> u64) -> bool {
        let mut shard = self.shard(id);
        let Some(live) = shard.live.get_mut(&id) else { return false };
        if live.rate > 0.0 {
            live.inside += 1;
            if live.inside == 1 {
                live.entered_at = now();
            }
        }
        true
    }

    /// A thread leaves the span.
    #[inline]
    pub(crate) fn exit(&self, id: u64, now: impl FnOnce() -> u64) {
        if let Some(live) = self.shard(id).live.get_mut(&id) {
            if live.inside > 0 {
                live.inside -= 1;
                if live.inside == 0 {
                    live.busy += now().saturating_sub(live.entered_at);
                }
            }
        }
    }

    /// The span is over. What a timed one leaves goes to `closed`, which gives the buffer back.
    #[inline]
    pub(crate) fn remove(&self, id: u64, closed: impl FnOnce(&Closed)) {
        if self.is_stale(id) {
            self.renew(id);
        }
        let Some(live) = self.shard(id).live.remove(&id) else { return };
        let Live { context, rate, created, busy, .. } = live;
        let span = Closed { context, rate, created, busy };
        if rate > 0.0 {
            closed(&span);
        }
        give_back(&mut self.shard(id).spare, span.context);
    }

    #[inline]
    fn is_stale(&self, id: u64) -> bool {
        let epoch = self.epoch.load(Ordering::Acquire);
        epoch != 0
            && self.shard(id).live.get(&id).is_some_and(|live| live.epoch != epoch && live.parent.is_some())
    }

    /// Whether the span is known here.
    pub(crate) fn contains(&self, id: u64) -> bool {
        self.shard(id).live.contains_key(&id)
    }
}

fn give_back(spare: &mut Vec<Vec<u8>>, mut buffer: Vec<u8>) {
    if spare.len() < SPARE_BUFFERS && buffer.capacity() <= SPARE_BYTES {
        buffer.clear();
        spare.push(buffer);
    }
}

/// Appends the context of the calling thread's current span, whichever layer knows it.
#[cfg_attr(not(feature = "log"), allow(dead_code))]
pub(crate) fn append_current_context(out: &mut Vec<u8>) {
    let Some(current) = thread::current_of_any() else { return };
    let table = {
        let tables = TABLES.read().unwrap_or_else(PoisonError::into_inner);
        tables.iter().filter_map(Weak::upgrade).find(|table| table.layer == current.layer)
    };
    if let Some(table) = table {
        table.append_context(current.span, out);
    }
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
