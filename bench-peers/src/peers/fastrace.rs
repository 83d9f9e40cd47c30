//! `fastrace`: events and local spans below a root span, collected in the thread and handed over when the root
//! ends. A root per block of calls is the kindest case for it.
//!
//! An event is attached to its span, whose fields are sent once and not with every event; property values are
//! text, made by the caller. There are no levels, so nothing is "disabled".

use ::fastrace::collector::{Config, Reporter, SpanContext, SpanRecord};
use ::fastrace::local::LocalSpan;
use ::fastrace::{Event, Span};

use super::{Arrived, Running};
use crate::workload::{ratio, user, Workload, MESSAGE};

pub fn start(workload: Workload) -> Option<Running> {
    let arrived = Arrived::default();
    let count: fn(&[SpanRecord]) -> usize = match workload {
        Workload::Event | Workload::EventInSpans => |spans| spans.iter().map(|span| span.events.len()).sum(),
        Workload::Span => |spans| spans.iter().filter(|span| span.name == "query").count(),
        Workload::Disabled | Workload::Log | Workload::Timer => return None,
    };
    ::fastrace::set_reporter(Forget { arrived: arrived.clone(), count }, Config::default());
    let calls: fn(u64) = match workload {
        Workload::Event => |calls| in_trace(|| events(calls)),
        Workload::EventInSpans => |calls| {
            in_trace(|| {
                let _request = LocalSpan::enter_with_local_parent("request")
                    .with_properties(|| [("method", "GET".into()), ("id", 7u64.to_string())]);
                let _query = LocalSpan::enter_with_local_parent("query")
                    .with_properties(|| [("table", "orders".into()), ("rows", 3u64.to_string())]);
                events(calls);
            });
        },
        _ => |calls| in_trace(|| spans(calls)),
    };
    Some(arrived.running_with_flush(calls, ::fastrace::flush))
}

fn in_trace(work: impl FnOnce()) {
    let root = Span::root("root", SpanContext::random());
    let _inside = root.set_local_parent();
    work();
}

fn events(calls: u64) {
    for id in 0..calls {
        LocalSpan::add_event(Event::new(MESSAGE).with_properties(|| {
            [("id", id.to_string()), ("user", user().to_string()), ("ratio", ratio().to_string())]
        }));
    }
}

fn spans(calls: u64) {
    for id in 0..calls {
        let _inside = LocalSpan::enter_with_local_parent("query")
            .with_properties(|| [("table", user().to_string()), ("id", id.to_string())]);
    }
}

/// A reporter that counts and forgets.
struct Forget {
    arrived: Arrived,
    count: fn(&[SpanRecord]) -> usize,
}

impl Reporter for Forget {
    fn report(&mut self, spans: Vec<SpanRecord>) {
        self.arrived.add((self.count)(&spans));
    }
}
