//! `logforth`: a `log` logger with its asynchronous appender; the background thread makes JSON and forgets it.
//! No spans.

use ::logforth::append::asynchronous::AsyncBuilder;
use ::logforth::append::Append;
use ::logforth::bridge::log::LogBridge;
use ::logforth::layout::JsonLayout;
use ::logforth::record::{Level, LevelFilter, Record};
use ::logforth::{Diagnostic, Error, Layout};

use super::{log_calls, queue_length, Arrived, Running};
use crate::workload::Workload;

/// Sets it up for a workload.
pub fn start(workload: Workload) -> Option<Running> {
    let calls = log_calls::calls(workload)?;
    let arrived = Arrived::default();
    let forget = Forget { layout: JsonLayout::default(), arrived: arrived.clone() };
    let append = AsyncBuilder::new("logforth")
        .buffered_lines_limit(Some(queue_length()))
        .overflow_drop_incoming()
        .append(forget)
        .build();
    let logger = ::logforth::core::builder()
        .dispatch(|dispatch| dispatch.filter(LevelFilter::MoreSevereEqual(Level::Info)).append(append))
        .build();
    log::set_boxed_logger(Box::new(LogBridge::new(logger))).expect("the only logger of this process");
    log::set_max_level(log::LevelFilter::Info);
    Some(arrived.running(calls))
}

/// Makes a JSON line, counts and forgets it.
#[derive(Debug)]
struct Forget {
    layout: JsonLayout,
    arrived: Arrived,
}

impl Append for Forget {
    fn append(&self, record: &Record, diagnostics: &[Box<dyn Diagnostic>]) -> Result<(), Error> {
        std::hint::black_box(self.layout.format(record, diagnostics)?);
        self.arrived.add(1);
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }
}
