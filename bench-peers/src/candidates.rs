//! Who is compared where threads and single calls matter: peers whose call any thread may make, since the subscriber
//! or logger is the whole process's.

use crate::peers::{self, floor, fmt_json, log_calls, logforth, opentelemetry, ours, tracing_calls, Running};
use crate::workload::Workload;

/// One way to get an event out of a thread, and the call.
#[derive(Debug)]
pub struct Candidate {
    /// The name on the command line.
    pub key: &'static str,
    /// The name in tables and pictures.
    pub name: &'static str,
    start: fn(Workload) -> Option<Running>,
    /// Makes this many calls of the workload "event".
    pub event: fn(u64),
    /// Every event is handed to another thread, and can be lost on the way.
    pub hands_over: bool,
}

/// No call at all: what the measurement itself costs, and what the machine does to it.
pub const NOTHING: Candidate =
    Candidate { key: "nothing", name: "nothing", start: nothing, event: no_event, hands_over: false };

/// What `tracing` costs by itself.
pub const FLOOR: Candidate = Candidate {
    key: "floor",
    name: peers::FLOOR,
    start: floor::start,
    event: tracing_calls::event,
    hands_over: false,
};

/// Ours, to nowhere.
pub const OURS: Candidate = Candidate {
    key: "ours",
    name: peers::OURS,
    start: ours::start,
    event: tracing_calls::event,
    hands_over: true,
};

/// Ours, to the router in `METLOG_ROUTER`.
pub const OURS_TO_ROUTER: Candidate = Candidate {
    key: "ours-tcp",
    name: "tracing-metlog, TCP to a sink",
    start: ours::start_to_router,
    event: tracing_calls::event,
    hands_over: true,
};

/// What most programs have.
pub const FMT_JSON: Candidate = Candidate {
    key: "json",
    name: peers::FMT_JSON,
    start: fmt_json::start,
    event: tracing_calls::event,
    hands_over: true,
};

/// The bridge and a batch processor.
pub const OPENTELEMETRY: Candidate = Candidate {
    key: "opentelemetry",
    name: peers::OPENTELEMETRY,
    start: opentelemetry::start,
    event: tracing_calls::event,
    hands_over: true,
};

/// A logger with an asynchronous appender.
pub const LOGFORTH: Candidate = Candidate {
    key: "logforth",
    name: peers::LOGFORTH,
    start: logforth::start,
    event: log_calls::event,
    hands_over: true,
};

/// All of them, in the order of the tables.
pub const ALL: [Candidate; 7] = [NOTHING, FLOOR, OURS, OURS_TO_ROUTER, FMT_JSON, OPENTELEMETRY, LOGFORTH];

impl Candidate {
    /// The one with this key.
    ///
    /// # Errors
    ///
    /// Names the keys there are.
    pub fn named(key: &str) -> Result<Candidate, String> {
        let keys = || ALL.map(|candidate| candidate.key).join(", ");
        let found = ALL.into_iter().find(|candidate| candidate.key == key);
        found.ok_or_else(|| format!("no candidate is called `{key}`; there are {}", keys()))
    }

    /// Sets it up as the whole process's.
    ///
    /// # Errors
    ///
    /// If it cannot do events.
    pub fn start(&self, workload: Workload) -> Result<Running, String> {
        (self.start)(workload).ok_or_else(|| format!("{} cannot do `{}`", self.name, workload.name()))
    }
}

fn nothing(_workload: Workload) -> Option<Running> {
    Some(Running { calls: Box::new(no_event), flush: Box::new(|| ()), arrived: Box::new(|| 0) })
}

fn no_event(calls: u64) {
    std::hint::black_box(calls);
}
