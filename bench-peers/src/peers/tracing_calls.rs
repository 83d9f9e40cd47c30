//! The calls of a program that uses `tracing`, the same for every peer that is a `tracing` subscriber.

use tracing::Subscriber;

use crate::workload::{ratio, user, Workload};

/// Makes `subscriber` the process's own.
pub fn install(subscriber: impl Subscriber + Send + Sync) {
    tracing::subscriber::set_global_default(subscriber).expect("the only subscriber of this process");
}

/// The calls of a workload.
pub fn calls(workload: Workload) -> Option<Box<dyn FnMut(u64)>> {
    Some(match workload {
        Workload::Disabled => Box::new(disabled),
        Workload::Event => Box::new(event),
        Workload::EventInSpans => {
            let request = tracing::info_span!("request", method = "GET", id = 7u64).entered();
            let query = tracing::info_span!("query", table = "orders", rows = 3u64).entered();
            Box::new(move |calls| {
                let _inside = (&request, &query);
                event(calls);
            })
        }
        Workload::Span => Box::new(span),
        Workload::Log | Workload::Timer => return None,
    })
}

fn disabled(calls: u64) {
    for id in 0..calls {
        tracing::debug!(id, user = user(), ratio = ratio(), "request served");
    }
}

/// The workload `event`.
pub fn event(calls: u64) {
    for id in 0..calls {
        tracing::info!(id, user = user(), ratio = ratio(), "request served");
    }
}

/// The workload `span`.
pub fn span(calls: u64) {
    for id in 0..calls {
        let _inside = tracing::info_span!("query", table = user(), id).entered();
    }
}
