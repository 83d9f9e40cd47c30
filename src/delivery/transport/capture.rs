//! Messages kept in memory, for tests of programs that send them.
//!
//! In: batches. Out: messages, to whoever asks. Nothing is lost, and nothing bounds the memory.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::batch::Batch;
use super::super::framing::Framing;
use super::Transport;
use crate::message::Message;

/// A transport that keeps what it is given, so that a test can look at it. Clones share what they keep: hand one
/// to the client and ask the other.
///
/// Messages travel on a background thread; [`wait_for`](Capture::wait_for) waits for them with a limit.
///
/// ```
/// use std::time::{Duration, Instant};
/// use tracing_metlog::{Batch, Capture, Transport};
///
/// let capture = Capture::new();
/// let mut transport = capture.clone();
/// transport.send(&mut Batch::default(), Instant::now() + Duration::from_secs(1))?;
///
/// assert!(capture.wait_for(0, Duration::from_secs(1)));
/// assert!(capture.is_empty());
/// assert_eq!(capture.messages(), []);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Capture {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Capture {
    /// One that has kept nothing yet.
    pub fn new() -> Self {
        Capture::default()
    }

    /// Everything kept, as it would have gone over the wire: one text a message, without a newline.
    pub fn lines(&self) -> Vec<String> {
        self.locked().clone()
    }

    /// Everything kept that is a Metlog message; [`lines`](Capture::lines) has the rest too.
    pub fn messages(&self) -> Vec<Message> {
        parsed(&self.locked())
    }

    /// The same as [`messages`](Capture::messages), and keeps nothing of it.
    pub fn take(&self) -> Vec<Message> {
        parsed(&std::mem::take(&mut *self.locked()))
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.locked().len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until at least `count` are kept, for no longer than `limit`; whether they are.
    pub fn wait_for(&self, count: usize, limit: Duration) -> bool {
        let waited = self.shared.grown.wait_timeout_while(self.locked(), limit, |lines| lines.len() < count);
        waited.unwrap_or_else(PoisonError::into_inner).0.len() >= count
    }

    /// A panic of another test while it held the lock leaves the lines whole.
    fn locked(&self) -> MutexGuard<'_, Vec<String>> {
        self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parsed(lines: &[String]) -> Vec<Message> {
    lines.iter().filter_map(|line| line.parse().ok()).collect()
}

impl Transport for Capture {
    fn framing(&self) -> Framing {
        Framing::Datagram
    }

    fn send(&mut self, batch: &mut Batch, _: Instant) -> io::Result<()> {
        self.locked().extend(batch.frames().map(|frame| String::from_utf8_lossy(frame).into_owned()));
        batch.delivered(batch.len());
        self.shared.grown.notify_all();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::{batch_of, soon};
    use super::*;

    fn line(payload: &str) -> String {
        Message::new("oldstyle", payload).to_json()
    }

    #[test]
    fn a_clone_sees_what_another_was_sent_in_order() {
        let capture = Capture::new();
        let mut batch = batch_of(Framing::Datagram, &[line("one"), line("two")]);
        capture.clone().send(&mut batch, soon()).unwrap();
        assert!(batch.is_empty());
        assert_eq!(capture.lines(), [line("one"), line("two")]);
        assert_eq!(capture.messages()[1].payload, "two");
        assert_eq!(capture.len(), 2);
    }

    #[test]
    fn what_is_taken_is_not_kept() {
        let capture = Capture::new();
        capture.clone().send(&mut batch_of(Framing::Datagram, &[line("one")]), soon()).unwrap();
        assert_eq!(capture.take().len(), 1);
        assert!(capture.is_empty());
    }

    #[test]
    fn what_is_no_message_is_a_line_and_no_panic() {
        let capture = Capture::new();
        capture.clone().send(&mut batch_of(Framing::Datagram, &["{}", "\u{fffd}"]), soon()).unwrap();
        assert_eq!(capture.lines(), ["{}", "\u{fffd}"]);
        assert_eq!(capture.messages(), []);
    }

    #[test]
    fn waiting_ends_with_the_message_and_gives_up_at_the_limit() {
        let capture = Capture::new();
        let mut transport = capture.clone();
        let sender = std::thread::spawn(move || {
            transport.send(&mut batch_of(Framing::Datagram, &[line("one")]), soon()).unwrap();
        });
        assert!(capture.wait_for(1, Duration::from_secs(10)));
        assert!(!capture.wait_for(2, Duration::from_millis(10)));
        sender.join().unwrap();
    }
}
