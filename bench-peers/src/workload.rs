//! What every peer is asked to do: the same five things a program does all day, and a timer on its own.

use std::hint::black_box;

/// One thing a program does. Every call of it is one message out, except for [`Workload::Disabled`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// An event below the level that is let through.
    Disabled,
    /// A literal message and three fields: an integer, a text of 20 characters, a float.
    Event,
    /// The same inside two spans with two fields each, which are part of what is written.
    EventInSpans,
    /// A span with two fields: created, entered, left, closed, and what it took sent.
    Span,
    /// `log::info!` with two formatted arguments.
    Log,
    /// One duration under a name, without a span.
    Timer,
}

impl Workload {
    /// All of them, in the order of the table.
    pub const ALL: [Workload; 6] = [
        Workload::Disabled,
        Workload::Event,
        Workload::EventInSpans,
        Workload::Span,
        Workload::Log,
        Workload::Timer,
    ];

    /// The name in the table and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Disabled => "disabled",
            Workload::Event => "event",
            Workload::EventInSpans => "event in 2 spans",
            Workload::Span => "span",
            Workload::Log => "log",
            Workload::Timer => "timer",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Workload> {
        Workload::ALL.into_iter().find(|workload| workload.name() == name)
    }

    /// How many messages come out for each call.
    pub fn messages(self) -> u64 {
        u64::from(self != Workload::Disabled)
    }
}

/// The text of every event.
pub const MESSAGE: &str = "request served";

/// What an event's text field holds.
pub fn user() -> &'static str {
    black_box("amy.pond@example.org")
}

/// What an event's float field holds.
pub fn ratio() -> f64 {
    black_box(0.725)
}
