//! Movers of bytes. In: a [`Batch`] of framed messages and a deadline. Out: the batch's account.
//!
//! A transport never waits past its deadline, connects when it first has something to send, and says of each
//! message whether it was delivered or lost. What it says nothing of is offered again.

mod cursor;
mod datagram;
mod file;
mod resolve;
mod socket;
mod stdio;
mod stream;
#[cfg(test)]
mod support;
mod tcp;
mod udp;
#[cfg(unix)]
mod unix;

use std::io;
use std::time::Instant;

use super::batch::Batch;
use super::framing::Framing;

/// Moves framed messages to one destination. Implement it to send messages your own way; see
/// `examples/custom_transport.rs`.
///
/// Runs on a background thread. Whatever it logs through `tracing` or `log` is dropped and counted
/// (`recursive`), so it cannot feed itself.
pub trait Transport: Send {
    /// How messages must be framed for this transport.
    fn framing(&self) -> Framing {
        Framing::Newline
    }

    /// The longest message, in bytes before framing, that this transport takes. A longer one is cut: first its
    /// payload, then its largest field, and marked `fields.truncated = true`.
    fn max_message_bytes(&self) -> usize {
        usize::MAX
    }

    /// Sends as much of `batch` as it can before `deadline`, and settles it with
    /// [`Batch::delivered`] and [`Batch::lost`].
    ///
    /// # Errors
    /// [`TimedOut`](io::ErrorKind::TimedOut) when the deadline came first: the destination is slow, and the rest
    /// is offered again at once. Any other error: the destination is down, and the rest is offered again after a
    /// pause that grows up to 5 s.
    fn send(&mut self, batch: &mut Batch, deadline: Instant) -> io::Result<()>;

    /// Nothing more will come: says goodbye to the other side so that what was sent is not lost.
    ///
    /// # Errors
    /// What was sent may not have arrived.
    fn close(&mut self, deadline: Instant) -> io::Result<()> {
        let _ = deadline;
        Ok(())
    }
}
