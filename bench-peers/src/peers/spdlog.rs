//! `spdlog-rs`: its own macros, an asynchronous pool sink, JSON lines to a writer. No spans.

use std::num::NonZeroUsize;
use std::sync::Arc;

use ::spdlog::formatter::JsonFormatter;
use ::spdlog::sink::{AsyncPoolSink, WriteSink};
use ::spdlog::{debug, info, Level, LevelFilter, Logger, ThreadPool};

use super::{queue_length, Arrived, Lines, Running};
use crate::workload::{ratio, user, Workload};

pub fn start(workload: Workload) -> Option<Running> {
    let arrived = Arrived::default();
    let logger = logger(&arrived).expect("a logger");
    Some(match workload {
        Workload::Disabled => arrived.running(move |calls| {
            for id in 0..calls {
                debug!(logger: logger, "request served", kv: { id, user = user(), ratio = ratio() });
            }
        }),
        Workload::Event => arrived.running(move |calls| {
            for id in 0..calls {
                info!(logger: logger, "request served", kv: { id, user = user(), ratio = ratio() });
            }
        }),
        Workload::Log => arrived.running(move |calls| {
            for id in 0..calls {
                info!(logger: logger, "request {} of {} served", id, user());
            }
        }),
        Workload::EventInSpans | Workload::Span | Workload::Timer => return None,
    })
}

fn logger(arrived: &Arrived) -> ::spdlog::Result<Arc<Logger>> {
    let capacity = NonZeroUsize::new(queue_length()).expect("a length");
    let pool = ThreadPool::builder().capacity(capacity).build_arc()?;
    let lines =
        WriteSink::builder().target(Lines(arrived.clone())).formatter(JsonFormatter::new()).build_arc()?;
    let sink = AsyncPoolSink::builder().thread_pool(pool).sink(lines).build_arc()?;
    Logger::builder().sink(sink).level_filter(LevelFilter::MoreSevereEqual(Level::Info)).build_arc()
}
