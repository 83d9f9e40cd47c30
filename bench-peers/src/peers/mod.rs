//! The peers: one file each, all in the same form.
//!
//! In: a workload. Out: a [`Running`] pipeline that ends in something that counts and forgets, or nothing when the
//! peer cannot do it.

mod cadence;
mod dogstatsd;
mod emit;
mod fastrace;
pub mod floor;
pub mod fmt_json;
mod ftlog;
pub mod log_calls;
pub mod logforth;
pub mod opentelemetry;
pub mod ours;
mod slog;
mod spdlog;
pub mod tracing_calls;

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

use crate::workload::Workload;

/// Room in queues whose length can be chosen, in messages.
static ROOM: AtomicUsize = AtomicUsize::new(DEFAULT_ROOM);

/// For several blocks of calls: nothing is dropped, nobody waits.
const DEFAULT_ROOM: usize = 16_384;

/// Gives peers that are started after this queues for so many messages, so that nothing is dropped and nobody waits
/// while they are made. Ours takes 256 bytes of memory for each, and its default if this is not called.
pub fn make_room_for(messages: usize) {
    ROOM.store(messages, Ordering::Relaxed);
}

fn queue_length() -> usize {
    ROOM.load(Ordering::Relaxed)
}

/// One way to get messages out of a thread.
pub struct Peer {
    /// The name in the table and on the command line.
    pub name: &'static str,
    /// Sets the peer up for a workload, as the whole process's; nothing when it cannot do it.
    pub start: fn(Workload) -> Option<Running>,
}

/// All peers, ours first.
pub const ALL: [Peer; 13] = [
    Peer { name: OURS, start: ours::start },
    Peer { name: "tracing-metlog, init()", start: ours::start_with_init },
    Peer { name: FLOOR, start: floor::start },
    Peer { name: FMT_JSON, start: fmt_json::start },
    Peer { name: OPENTELEMETRY, start: opentelemetry::start },
    Peer { name: "slog-async + slog-json", start: slog::start },
    Peer { name: "fastrace", start: fastrace::start },
    Peer { name: "emit + emit_file", start: emit::start },
    Peer { name: "spdlog-rs", start: spdlog::start },
    Peer { name: LOGFORTH, start: logforth::start },
    Peer { name: "ftlog", start: ftlog::start },
    Peer { name: "cadence", start: cadence::start },
    Peer { name: "metrics-exporter-dogstatsd", start: dogstatsd::start },
];

/// The peer that the others are compared with.
pub const OURS: &str = "tracing-metlog";
/// What `tracing` and `log` cost by themselves.
pub const FLOOR: &str = "floor: a layer that only visits";
/// What most programs have.
pub const FMT_JSON: &str = "tracing-subscriber JSON + tracing-appender";
/// Log bridges and batch processors.
pub const OPENTELEMETRY: &str = "OpenTelemetry, batches";
/// A `log` logger with an asynchronous appender.
pub const LOGFORTH: &str = "logforth";

/// The peer of this name.
pub fn named(name: &str) -> Option<&'static Peer> {
    ALL.iter().find(|peer| peer.name == name)
}

/// A peer at work.
pub struct Running {
    /// Makes this many calls.
    pub calls: Box<dyn FnMut(u64)>,
    /// Makes the peer hand on what it keeps back, if it has to be asked.
    pub flush: Box<dyn FnMut()>,
    /// The messages that have come out at the far end.
    pub arrived: Box<dyn Fn() -> u64>,
}

/// The far end of a peer: how many messages have come out.
#[derive(Clone, Debug, Default)]
struct Arrived(Arc<AtomicU64>);

impl Arrived {
    fn add(&self, messages: usize) {
        self.0.fetch_add(messages as u64, Ordering::Release);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// A pipeline that ends here and needs no flush.
    fn running(&self, calls: impl FnMut(u64) + 'static) -> Running {
        self.running_with_flush(calls, || {})
    }

    fn running_with_flush(&self, calls: impl FnMut(u64) + 'static, flush: impl FnMut() + 'static) -> Running {
        let arrived = self.clone();
        Running { calls: Box::new(calls), flush: Box::new(flush), arrived: Box::new(move || arrived.get()) }
    }
}

/// A writer that counts lines and forgets them.
#[derive(Debug)]
struct Lines(Arrived);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Every peer's line ends where one of its writes does, and JSON has no other line ends.
        self.0.add(usize::from(bytes.ends_with(b"\n")));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
