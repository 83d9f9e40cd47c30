//! tracing-metlog with its defaults, in front of a transport that delivers to nowhere: once as a layer or a logger
//! that a program puts together itself, once as the one line. A third form sends to a router.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing_metlog::{Batch, Builder, Guard, Transport};
use tracing_subscriber::layer::SubscriberExt;

use super::{log_calls, queue_length, tracing_calls, Arrived, Running, DEFAULT_ROOM};
use crate::workload::Workload;

/// A layer or a logger.
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

/// The one line.
pub fn start_with_init(workload: Workload) -> Option<Running> {
    if workload == Workload::Timer {
        // There is no subscriber or logger on this one's way: it would be the same figure twice.
        return None;
    }
    let arrived = Arrived::default();
    let guard = builder(&arrived).filter("info").init();
    running(&arrived, guard, workload)
}

/// A layer whose messages go to the router that the environment names (`METLOG_ROUTER`).
pub fn start_to_router(workload: Workload) -> Option<Running> {
    let (layer, guard) = sized(tracing_metlog::builder().logger("bench")).build().expect("a layer");
    tracing_calls::install(tracing_subscriber::registry().with(LevelFilter::INFO).with(layer));
    let guard = Rc::new(guard);
    let delivered = Rc::clone(&guard);
    Some(Running {
        calls: tracing_calls::calls(workload)?,
        flush: Box::new(move || {
            guard.flush(PATIENCE);
        }),
        arrived: Box::new(move || delivered.stats().delivered),
    })
}

/// How long a flush may take.
const PATIENCE: Duration = Duration::from_secs(30);

fn builder(arrived: &Arrived) -> Builder {
    sized(tracing_metlog::builder().logger("bench").transport(Discard(arrived.clone())))
}

/// With its default queue unless room was asked for.
fn sized(builder: Builder) -> Builder {
    const BYTES_PER_MESSAGE: usize = 256;
    match queue_length() {
        DEFAULT_ROOM => builder,
        messages => builder.queue_bytes(messages * BYTES_PER_MESSAGE),
    }
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
        guard.flush(PATIENCE);
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
