//! On the calling thread: what the program says, copied out and handed over.
//!
//! In: events, spans, log records, explicit calls. Out: one record each into the queue. Values that borrow
//! (`Debug`, `Display`, `Error`) are formatted here; everything else is left to the background thread.

pub(crate) mod bytes;
#[cfg(feature = "tracing")]
pub(crate) mod callsite;
pub(crate) mod client;
pub(crate) mod clock;
#[cfg(feature = "tracing")]
pub(crate) mod envelope;
#[cfg(feature = "tracing")]
pub(crate) mod layer;
#[cfg(feature = "log")]
pub(crate) mod logger;
pub(crate) mod panic;
pub(crate) mod record;
#[cfg(feature = "tracing")]
pub(crate) mod span;
pub(crate) mod thread;
#[cfg(feature = "tracing")]
pub(crate) mod timers;
#[cfg(feature = "tracing")]
pub(crate) mod version;
#[cfg(feature = "tracing")]
pub(crate) mod visit;

use crate::pipeline::Pipeline;
use crate::stats::LossReason;
#[cfg(feature = "tracing")]
use record::Record;
use record::{Entries, Header, Kind};
use thread::Buffer;

/// One message being captured on the calling thread: first its context, then its values, then its header.
pub(crate) struct Draft<'p, 's> {
    pipeline: &'p Pipeline,
    buffer: &'s mut Buffer,
    time: u64,
}

impl<'p, 's> Draft<'p, 's> {
    /// A message that begins now.
    #[inline]
    pub(crate) fn new(pipeline: &'p Pipeline, buffer: &'s mut Buffer) -> Draft<'p, 's> {
        Draft { pipeline, buffer, time: clock::now() }
    }

    /// Captures a message with `capture`. Where nothing can be captured it is counted, and `None`.
    #[inline]
    pub(crate) fn capture<R>(pipeline: &'p Pipeline, capture: impl FnOnce(Draft<'p, '_>) -> R) -> Option<R> {
        // Before anything that takes a lock.
        if !pipeline.takes_messages() {
            pipeline.turn_away();
            return None;
        }
        let Some(mut buffer) = thread::take() else {
            pipeline.queue.counters.turned_away(LossReason::Recursive, 1);
            return None;
        };
        let result = capture(Draft::new(pipeline, &mut buffer));
        thread::put_back(buffer);
        Some(result)
    }

    /// When the message began to be captured.
    pub(crate) fn time(&self) -> u64 {
        self.time
    }

    /// What is in front of the message's values: the thread's name, and the context of its span.
    #[cfg(feature = "tracing")]
    #[inline(always)]
    pub(crate) fn buffer(&mut self) -> &mut Buffer {
        self.buffer
    }

    /// Where the message's values go.
    #[inline]
    pub(crate) fn entries(&mut self) -> Entries<'_> {
        Entries::new(&mut self.buffer.bytes)
    }

    /// Completes the record, so that it can be read and sent.
    #[inline(always)]
    pub(crate) fn finish(&mut self, outline: Outline) {
        let Outline { kind, severity, messages, line, truncated, callsite } = outline;
        let header = Header { kind, severity, messages, line, truncated, time: self.time, callsite };
        let (thread, context) = self.buffer.lengths();
        record::finish(&mut self.buffer.bytes, header, thread, context);
    }

    /// Takes the line away again, and leaves the metrics; after [`finish`](Draft::finish).
    #[cfg(feature = "tracing")]
    pub(crate) fn drop_line(&mut self, metrics: u8) {
        record::drop_line(&mut self.buffer.bytes, metrics);
    }

    /// The record as it will be read; after [`finish`](Draft::finish).
    #[cfg(feature = "tracing")]
    pub(crate) fn record(&self) -> Option<Record<'_>> {
        Record::split_first(&self.buffer.bytes).map(|(record, _)| record)
    }

    /// Hands the record over.
    #[inline(always)]
    pub(crate) fn send(self, severity: u8, messages: u8) {
        self.pipeline.queue.push(self.buffer.thread, &self.buffer.bytes, severity, u64::from(messages));
    }
}

/// What a record's header says, but for the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outline {
    pub(crate) kind: Kind,
    pub(crate) severity: u8,
    pub(crate) messages: u8,
    pub(crate) line: bool,
    pub(crate) truncated: bool,
    pub(crate) callsite: u64,
}

/// A random number, uniform in 0..1: decides what a sampled timer or counter keeps.
pub(crate) fn random() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    // The standard library keys every new hasher differently; 53 bits are what a float holds.
    (RandomState::new().hash_one(()) >> 11) as f64 / (1u64 << 53) as f64
}
