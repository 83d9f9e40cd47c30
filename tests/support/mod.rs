//! What all tests of the front ends share: a pipeline into memory, and the oracle every message is shown to.
// No test program uses all of it.
#![allow(dead_code)]

pub mod child;
pub mod json;
pub mod oracle;

use std::time::{Duration, SystemTime};

use serde_json::Value;
use tracing_metlog::{Builder, Capture, Client, Guard, Stats};

use oracle::Oracle;

/// Long enough for any machine; what takes this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A pipeline into memory, with whatever front end.
pub struct Pipe {
    capture: Capture,
    guard: Guard,
    start: SystemTime,
}

/// What came out of a pipeline.
pub struct Outcome {
    /// Every message but reports of losses, each shown to the oracle.
    pub messages: Vec<Value>,
    /// Reports of losses.
    pub losses: Vec<Value>,
    pub stats: Stats,
}

impl Pipe {
    /// Begins a configuration whose messages are kept in memory.
    pub fn builder(configure: impl FnOnce(Builder) -> Builder) -> (Builder, Capture) {
        let capture = Capture::new();
        let builder = tracing_metlog::builder().logger("tests").transport(capture.clone());
        (configure(builder), capture)
    }

    #[cfg(feature = "tracing")]
    pub fn layer(configure: impl FnOnce(Builder) -> Builder) -> (tracing_metlog::MetlogLayer, Pipe) {
        let start = SystemTime::now();
        let (builder, capture) = Pipe::builder(configure);
        let (layer, guard) = builder.build().expect("builds");
        (layer, Pipe { capture, guard, start })
    }

    #[cfg(feature = "log")]
    pub fn logger(configure: impl FnOnce(Builder) -> Builder) -> (tracing_metlog::MetlogLogger, Pipe) {
        let start = SystemTime::now();
        let (builder, capture) = Pipe::builder(configure);
        let (logger, guard) = builder.build_logger().expect("builds");
        (logger, Pipe { capture, guard, start })
    }

    pub fn client(&self) -> Client {
        self.guard.client()
    }

    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    pub fn capture(&self) -> &Capture {
        &self.capture
    }

    /// What has come out so far.
    pub fn flushed(&self) -> Vec<Value> {
        assert_eq!(self.guard.flush(PATIENCE).pending, 0, "flushed");
        let oracle = Oracle::new();
        self.capture.lines().iter().map(|line| oracle.read_fresh(line, self.start)).collect()
    }

    /// Ends it: everything is delivered, accounted for, valid, and of now.
    pub fn finish(self) -> Outcome {
        let start = self.start;
        self.finish_with(|oracle, line| oracle.read_fresh(line, start))
    }

    /// The same, for messages whose time the test sets.
    pub fn finish_at_any_time(self) -> Outcome {
        self.finish_with(Oracle::read)
    }

    fn finish_with(self, read: impl Fn(&Oracle, &str) -> Value) -> Outcome {
        let stats = self.guard.finish();
        let lines = self.capture.lines();
        let oracle = Oracle::new();
        let (losses, messages) = lines
            .iter()
            .map(|line| read(&oracle, line))
            .partition(|message| message["type"] == "metlog.loss");
        assert_eq!(stats.emitted, stats.delivered + stats.lost.total() + stats.pending, "{stats}");
        assert_eq!(stats.pending, 0, "{stats}");
        assert_eq!(stats.delivered, lines.len() as u64, "{stats}");
        Outcome { messages, losses, stats }
    }
}

/// What `work` makes a layer in a stack of its own send.
#[cfg(feature = "tracing")]
pub fn traced(configure: impl FnOnce(Builder) -> Builder, work: impl FnOnce()) -> Vec<Value> {
    let outcome = outcome(configure, work);
    assert_eq!(outcome.stats.lost.total(), 0, "{}", outcome.stats);
    outcome.messages
}

/// The same, with its account.
#[cfg(feature = "tracing")]
pub fn outcome(configure: impl FnOnce(Builder) -> Builder, work: impl FnOnce()) -> Outcome {
    use tracing_subscriber::layer::SubscriberExt;
    let (layer, pipe) = Pipe::layer(configure);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
    pipe.finish()
}

/// No configuration of its own.
pub fn plain(builder: Builder) -> Builder {
    builder
}

/// Only what the program itself says, and no timers: for tests of contents.
pub fn bare(builder: Builder) -> Builder {
    builder
        .target(false)
        .module(false)
        .file(false)
        .line(false)
        .thread(false)
        .span(false)
        .spans(false)
        .disabled_timers(["*"])
}

/// The messages of one type.
pub fn of_type(messages: &[Value], message_type: &str) -> Vec<Value> {
    messages.iter().filter(|message| message["type"] == message_type).cloned().collect()
}

/// The message with this payload; there must be one.
pub fn with_payload(messages: &[Value], payload: &str) -> Value {
    let mut found = messages.iter().filter(|message| message["payload"] == payload);
    let first = found.next().unwrap_or_else(|| panic!("no {payload:?} in {messages:#?}"));
    assert!(found.next().is_none(), "one {payload:?} only");
    first.clone()
}

/// The payloads, in order.
pub fn payloads(messages: &[Value]) -> Vec<String> {
    messages.iter().map(|message| message["payload"].as_str().expect("text").to_owned()).collect()
}

/// A number that stands in a text.
pub fn number(value: &Value) -> f64 {
    value.as_str().and_then(|text| text.parse().ok()).or_else(|| value.as_f64()).expect("a number")
}
