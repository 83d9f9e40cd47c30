//! tracing-metlog with its defaults, in front of a transport that delivers to nowhere: once as a layer or a logger
//! that a program puts together itself, once as the one line.

use std::io;
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing_metlog::{Batch, Builder, Guard, Transport};
use tracing_subscriber::layer::SubscriberExt;

use super::{log_calls, tracing_calls, Arrived, Running};
use crate::workload::Workload;

pub fn start(workload: Workload) -> Option<Running> {
    let arrived = Arrived::default();
    let builder = builder(&arrived);
    if workload == Workload::Log {
        let (logger, guard) = builder.filter("info").build_logger().expect("a logger");
        logger.install().expect("the only logger of this process");
        return running(&arrived, guard, workload);
    }
    let (layer, guard) = builder.build().expect("a layer");
    tracing_calls::install(tracing_subscriber::registry().with(LevelFilter::INFO).with(layer));
    running(&arrived, guard, workload)
}

pub fn start_with_init(workload: Workload) -> Option<Running> {
    if workload == Workload::Timer {
        // There is no subscriber or logger on this one's way: it would be the same figure twice.
        return None;
    }
    let arrived = Arrived::default();
    let guard = builder(&arrived).filter("info").init();
    running(&arrived, guard, workload)
}

fn builder(arrived: &Arrived) -> Builder {
    tracing_metlog::builder().logger("bench").transport(Discard(arrived.clone()))
}

fn running(arrived: &Arrived, guard: Guard, workload: Workload) -> Option<Running> {
    let calls: Box<dyn FnMut(u64)> = match workload {
        Workload::Log => log_calls::calls(workload)?,
        Workload::Timer => {
            let client = guard.client();
            Box::new(move |calls| {
                for id in 0..calls {
                    client.timer_send("query", Duration::from_micros(7_000 + id));
                }
            })
        }
        _ => tracing_calls::calls(workload)?,
    };
    let flush = move || {
        guard.flush(Duration::from_secs(30));
    };
    Some(arrived.running_with_flush(calls, flush))
}

/// Delivers to nowhere.
struct Discard(Arrived);

impl Transport for Discard {
    fn send(&mut self, batch: &mut Batch, _deadline: Instant) -> io::Result<()> {
        let messages = batch.len();
        batch.delivered(messages);
        self.0.add(messages);
        Ok(())
    }
}
