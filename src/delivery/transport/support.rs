//! What the tests of transports share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::super::batch::Batch;
use super::super::framing::Framing;
use super::Transport;

/// A batch of `messages`.
pub(super) fn batch_of(framing: Framing, messages: &[impl AsRef<str>]) -> Batch {
    let mut batch = Batch::default();
    for message in messages {
        batch.push(|out| framing.write(message.as_ref().as_bytes(), out));
    }
    batch
}

/// Sends `batch` and asks until all of it is confirmed.
pub(super) fn deliver(transport: &mut impl Transport, batch: &mut Batch) {
    let deadline = soon();
    while !batch.is_empty() {
        transport.send(batch, deadline).unwrap();
        super::socket::nap(deadline).unwrap();
    }
}

/// A deadline no healthy step comes near.
pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// A deadline for what is expected to miss it.
pub(super) fn at_once() -> Instant {
    Instant::now() + Duration::from_millis(50)
}

/// A directory of its own, gone with the test.
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("metlog-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Directory(path)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
