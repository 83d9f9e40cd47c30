//! The account: every counter, every reason a message can be lost for, and the report about losses.
//!
//! `emitted = delivered + Σ lost[reason] + pending` holds at any time, for every destination.

use std::fmt;

/// Why a message did not arrive. Each is counted on its own; see [`Stats`](crate::Stats).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum LossReason {
    /// The queue was full and [`WhenFull`](crate::WhenFull) said to drop.
    QueueFull,
    /// The queue was nearly full, and DEBUG and TRACE are shed first.
    Shed,
    /// Made by this crate's own background thread, or by a `Debug` that logs, nested too deep.
    Recursive,
    /// Made in a forked child, which has no background thread.
    Forked,
    /// Made after shutdown.
    Closed,
    /// A metric whose value cannot be one: not a number, negative where only increments make sense.
    InvalidMetric,
    /// Too large for the destination even after cutting its payload and fields.
    TooLarge,
    /// The destination was down or refused it until the deadline of the shutdown.
    Unreachable,
    /// One of several destinations fell too far behind, and its share of the memory was full.
    Lagging,
    /// The background thread failed (a panic in a user's transport, or no thread could be had).
    WorkerFailed,
}

impl LossReason {
    /// Every reason there is.
    pub const ALL: [LossReason; 10] = [
        LossReason::QueueFull,
        LossReason::Shed,
        LossReason::Recursive,
        LossReason::Forked,
        LossReason::Closed,
        LossReason::InvalidMetric,
        LossReason::TooLarge,
        LossReason::Unreachable,
        LossReason::Lagging,
        LossReason::WorkerFailed,
    ];

    /// The name in reports and `metlog.loss` messages: `queue_full`, `shed`, `recursive`, ...
    pub const fn name(self) -> &'static str {
        match self {
            LossReason::QueueFull => "queue_full",
            LossReason::Shed => "shed",
            LossReason::Recursive => "recursive",
            LossReason::Forked => "forked",
            LossReason::Closed => "closed",
            LossReason::InvalidMetric => "invalid_metric",
            LossReason::TooLarge => "too_large",
            LossReason::Unreachable => "unreachable",
            LossReason::Lagging => "lagging",
            LossReason::WorkerFailed => "worker_failed",
        }
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}
