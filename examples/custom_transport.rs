//! A [`Transport`] of your own: messages go where no address leads. This one keeps the newest messages in memory,
//! as a program does that shows its last words on a status page. Every third call it refuses, to show that what
//! was refused is offered again and nothing is lost.
//!
//! `cargo run --example custom_transport`

use std::collections::VecDeque;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing_metlog::{Batch, Framing, Transport};

/// Keeps the newest messages.
#[derive(Clone, Default)]
struct Newest {
    lines: Arc<Mutex<VecDeque<String>>>,
    calls: u32,
}

const KEPT: usize = 5;
/// A transport settles as much as it likes in one call; what it leaves is offered again at once.
const AT_A_TIME: usize = 10;

impl Transport for Newest {
    /// One message a frame, without the newline a stream needs.
    fn framing(&self) -> Framing {
        Framing::Datagram
    }

    /// Longer messages are cut before they get here.
    fn max_message_bytes(&self) -> usize {
        4096
    }

    fn send(&mut self, batch: &mut Batch, _deadline: Instant) -> io::Result<()> {
        self.calls += 1;
        if self.calls % 3 == 0 {
            println!("call {}: refused, {} messages wait", self.calls, batch.len());
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "not today"));
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for frame in batch.frames().take(AT_A_TIME) {
            if lines.len() == KEPT {
                lines.pop_front();
            }
            lines.push_back(String::from_utf8_lossy(frame).into_owned());
            count += 1;
        }
        // What is not reported, as delivered or lost, was not sent as far as anybody knows.
        batch.delivered(count);
        println!("call {}: took {count}", self.calls);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let newest = Newest::default();
    let metlog =
        tracing_metlog::builder().logger("custom").transport(newest.clone()).filter("info").try_init()?;

    for number in 1..=40 {
        tracing::info!(number, "message");
    }
    let flushed = metlog.flush(Duration::from_secs(5));
    println!(
        "flushed: {} delivered, {} lost, {} pending\n",
        flushed.delivered, flushed.lost, flushed.pending
    );

    let stats = metlog.finish();
    println!("The newest {KEPT}:");
    for line in newest.lines.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        println!("{line}");
    }
    for destination in &stats.destinations {
        println!("{}: tried again {} times", destination.address, destination.failures);
    }
    println!("{stats}");
    Ok(())
}
