//! What `tracing` and `log` cost by themselves: a layer that looks at every field, a logger that looks at the
//! arguments, and neither keeps anything. What has "arrived" is counted for each thread on its own: one count for all
//! would be a place where threads meet, and that is not part of a floor.

use std::cell::Cell;
use std::fmt::{self, Write};
use std::hint::black_box;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use super::{log_calls, tracing_calls, Running};
use crate::workload::Workload;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Sets it up for a workload.
pub fn start(workload: Workload) -> Option<Running> {
    let calls = if workload == Workload::Log {
        log::set_boxed_logger(Box::new(Visitor)).expect("the only logger of this process");
        log::set_max_level(log::LevelFilter::Info);
        log_calls::calls(workload)?
    } else {
        tracing_calls::install(tracing_subscriber::registry().with(LevelFilter::INFO).with(Visitor));
        tracing_calls::calls(workload)?
    };
    Some(Running { calls, flush: Box::new(|| ()), arrived: Box::new(|| COUNT.get()) })
}

struct Visitor;

fn count_one() {
    COUNT.set(COUNT.get() + 1);
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Visitor {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        event.record(&mut Looks);
        count_one();
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, _id: &Id, _context: Context<'_, S>) {
        attributes.record(&mut Looks);
    }

    fn on_close(&self, id: Id, _context: Context<'_, S>) {
        // The two spans around the events are not closed before the process ends.
        black_box(id);
        count_one();
    }
}

impl log::Log for Visitor {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let _ = Looks.write_fmt(*record.args());
        count_one();
    }

    fn flush(&self) {}
}

/// Looks at values.
struct Looks;

impl Visit for Looks {
    fn record_debug(&mut self, _field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self, "{value:?}");
    }

    fn record_u64(&mut self, _field: &Field, value: u64) {
        black_box(value);
    }

    fn record_f64(&mut self, _field: &Field, value: f64) {
        black_box(value);
    }

    fn record_str(&mut self, _field: &Field, value: &str) {
        black_box(value);
    }
}

impl Write for Looks {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        black_box(text);
        Ok(())
    }
}
