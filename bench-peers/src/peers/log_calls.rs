//! The calls of a program that uses `log`, the same for every peer that is a `log` logger.

use crate::workload::{ratio, user, Workload};

/// The calls of a workload; fields are `log`'s key-values.
pub fn calls(workload: Workload) -> Option<Box<dyn FnMut(u64)>> {
    Some(match workload {
        Workload::Disabled => Box::new(disabled),
        Workload::Event => Box::new(event),
        Workload::Log => Box::new(formatted),
        Workload::EventInSpans | Workload::Span | Workload::Timer => return None,
    })
}

fn disabled(calls: u64) {
    for id in 0..calls {
        log::debug!(id, user = user(), ratio = ratio(); "request served");
    }
}

/// The workload `event`.
pub fn event(calls: u64) {
    for id in 0..calls {
        log::info!(id, user = user(), ratio = ratio(); "request served");
    }
}

/// The workload `log`: two formatted arguments, no key-values.
pub fn formatted(calls: u64) {
    for id in 0..calls {
        log::info!("request {} of {} served", id, user());
    }
}
