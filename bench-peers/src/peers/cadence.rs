//! `cadence` for the timer alone: its queuing sink in front of one that counts and forgets.

use std::io;

use ::cadence::{MetricSink, QueuingMetricSink, StatsdClient, Timed};

use super::{queue_length, Arrived, Running};
use crate::workload::Workload;

pub fn start(workload: Workload) -> Option<Running> {
    if workload != Workload::Timer {
        return None;
    }
    let arrived = Arrived::default();
    let sink = QueuingMetricSink::with_capacity(Forget(arrived.clone()), queue_length());
    let client = StatsdClient::from_sink("bench", sink);
    Some(arrived.running(move |calls| {
        for id in 0..calls {
            // Whole milliseconds: cadence has no others.
            let _ = client.time("query", 7 + id);
        }
    }))
}

/// A sink that counts and forgets.
struct Forget(Arrived);

impl MetricSink for Forget {
    fn emit(&self, metric: &str) -> io::Result<usize> {
        self.0.add(1);
        Ok(metric.len())
    }
}
