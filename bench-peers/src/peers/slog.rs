//! `slog` through `slog-async` to `slog-json`. Spans are child loggers with the span's name and fields; there is
//! nothing to time, so no span workload. The time of a message is taken by the background thread.

use ::slog::{debug, info, o, Drain, FnValue, Level, LevelFilter, Logger, Record};
use slog_async::{Async, OverflowStrategy};
use slog_json::Json;

use super::{queue_length, Arrived, Lines, Running};
use crate::workload::{ratio, user, Workload};

pub fn start(workload: Workload) -> Option<Running> {
    let arrived = Arrived::default();
    let json = Json::new(Lines(arrived.clone()))
        .add_default_keys()
        .add_key_value(o!("module" => FnValue(|record: &Record<'_>| record.module())))
        .build()
        .fuse();
    let drain =
        Async::new(json).chan_size(queue_length()).overflow_strategy(OverflowStrategy::Drop).build().fuse();
    let logger = Logger::root(LevelFilter::new(drain, Level::Info).fuse(), o!());
    Some(match workload {
        Workload::Disabled => arrived.running(move |calls| {
            for id in 0..calls {
                debug!(logger, "request served"; "id" => id, "user" => user(), "ratio" => ratio());
            }
        }),
        Workload::Event => arrived.running(move |calls| events(&logger, calls)),
        Workload::EventInSpans => {
            let request = logger.new(o!("request" => "request", "method" => "GET", "request_id" => 7u64));
            let query = request.new(o!("query" => "query", "table" => "orders", "rows" => 3u64));
            arrived.running(move |calls| events(&query, calls))
        }
        Workload::Log => arrived.running(move |calls| {
            for id in 0..calls {
                info!(logger, "request {} of {} served", id, user());
            }
        }),
        Workload::Span | Workload::Timer => return None,
    })
}

fn events(logger: &Logger, calls: u64) {
    for id in 0..calls {
        info!(logger, "request served"; "id" => id, "user" => user(), "ratio" => ratio());
    }
}
