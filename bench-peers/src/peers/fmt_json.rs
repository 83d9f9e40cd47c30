//! `tracing-subscriber`'s JSON lines through `tracing_appender::non_blocking`: what most programs have.
//!
//! Its lines carry the current span and the list of all spans, with their fields; a span sends a line when it
//! closes. The `log` records come through `tracing-log`, as `fmt().init()` has it.

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::NonBlockingBuilder;
use tracing_subscriber::fmt::format::FmtSpan;

use super::{log_calls, queue_length, tracing_calls, Arrived, Lines, Running};
use crate::workload::Workload;

/// Sets it up for a workload.
pub fn start(workload: Workload) -> Option<Running> {
    let arrived = Arrived::default();
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(queue_length()).finish(Lines(arrived.clone()));
    let span_events = if workload == Workload::Span { FmtSpan::CLOSE } else { FmtSpan::NONE };
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_current_span(true)
        .with_span_list(true)
        .with_span_events(span_events)
        .with_max_level(LevelFilter::INFO)
        .with_writer(writer)
        .finish();
    tracing_calls::install(subscriber);
    let mut calls = if workload == Workload::Log {
        tracing_log::LogTracer::builder()
            .with_max_level(log::LevelFilter::Info)
            .init()
            .expect("the only logger of this process");
        log_calls::calls(workload)?
    } else {
        tracing_calls::calls(workload)?
    };
    Some(arrived.running(move |count| {
        let _writing = &guard;
        calls(count);
    }))
}
