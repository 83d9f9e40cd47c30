//! The workloads whose cost is watched, and a destination that costs nothing.
//!
//! "event" is a literal message and three fields: a `u64`, a text of 20 characters and an `f64`. "event in 2 spans" is
//! the same inside two spans of two fields each. "span" is a span of two fields made, entered, left and closed.
//! "log" is a `log` record with two formatted arguments. "disabled" is an event below the filter's level.

use std::hint::black_box;
use std::io;
use std::time::Instant;

use tracing_metlog::{Batch, Guard, Transport};

/// Takes everything and keeps nothing, so that the calling thread is all that is measured.
pub struct Discard;

impl Transport for Discard {
    fn send(&mut self, batch: &mut Batch, _deadline: Instant) -> io::Result<()> {
        batch.delivered(batch.len());
        Ok(())
    }
}

/// The one line, with room for every message of a measurement.
pub fn install() -> Guard {
    builder().init()
}

/// The same with the queue in a crash ring.
#[cfg(feature = "ring")]
#[allow(dead_code)]
pub fn install_in_ring() -> Guard {
    builder().logger("cost-in-ring").ring(tracing_metlog::Ring::Default).init()
}

fn builder() -> tracing_metlog::Builder {
    tracing_metlog::builder().transport(Discard).queue_bytes(64 << 20).filter("info").panics(false)
}

/// Names of all workloads.
pub const WORKLOADS: [&str; 5] = ["disabled", "event", "event in 2 spans", "span", "log"];

/// Runs a workload `calls` times.
#[inline(never)]
pub fn measured(workload: &str, calls: u64) {
    match workload {
        "disabled" => (0..calls).for_each(disabled),
        "event" => (0..calls).for_each(event),
        "event in 2 spans" => {
            let _outer = tracing::info_span!("request", request = 7u64, user = "amy").entered();
            let _inner = tracing::info_span!("query", table = "orders", shard = 3u64).entered();
            (0..calls).for_each(event);
        }
        "span" => (0..calls).for_each(span),
        "log" => (0..calls).for_each(log),
        other => unreachable!("{other:?} is none of {WORKLOADS:?}"),
    }
}

#[inline]
fn disabled(id: u64) {
    tracing::debug!(
        id,
        name = black_box("a name of 20 letters"),
        ratio = black_box(0.25),
        "something happened"
    );
}

#[inline]
fn event(id: u64) {
    tracing::info!(
        id,
        name = black_box("a name of 20 letters"),
        ratio = black_box(0.25),
        "something happened"
    );
}

#[inline]
fn span(shard: u64) {
    let _span = tracing::info_span!("query", table = black_box("orders"), shard).entered();
}

#[inline]
fn log(id: u64) {
    log::info!("request {} took {} ms", id, black_box(12));
}
