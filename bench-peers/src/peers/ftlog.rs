//! `ftlog`: a `log` logger with a thread of its own. It has no fields: those of an event are part of its text. No
//! spans, no JSON.

use super::{log_calls, queue_length, Arrived, Lines, Running};
use crate::workload::{ratio, user, Workload};

pub fn start(workload: Workload) -> Option<Running> {
    let calls: Box<dyn FnMut(u64)> = match workload {
        Workload::Event => Box::new(event),
        _ => log_calls::calls(workload)?,
    };
    let arrived = Arrived::default();
    let guard = ::ftlog::builder()
        .max_log_level(log::LevelFilter::Info)
        .bounded(queue_length(), false)
        .root(Lines(arrived.clone()))
        .try_init()
        .expect("the only logger of this process");
    let mut calls = calls;
    Some(arrived.running(move |count| {
        let _writing = &guard;
        calls(count);
    }))
}

fn event(calls: u64) {
    for id in 0..calls {
        log::info!("request served id={id} user={} ratio={}", user(), ratio());
    }
}
