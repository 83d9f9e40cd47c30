//! What keeps a generator going, and what makes sure that nothing is left behind when the program ends.
//!
//! In: the end of the program, in any of its forms. Out: delivery of what is queued, with a deadline. Lost here:
//! nothing; what cannot be delivered in time is counted by the worker.

use std::panic::catch_unwind;
use std::sync::{Arc, Once};
use std::time::Duration;

use crate::capture::client::Client;
use crate::capture::panic;
use crate::pipeline::{self, Flushed, Pipeline};
use crate::queue::fork;
use crate::stats::Stats;

/// Keeps messages flowing; dropping it delivers what is queued, waits for that up to the
/// [flush timeout](crate::Builder::flush_timeout), and ends the background thread. What is logged after that is
/// counted as lost (`closed`).
///
/// Keep it until the end of `main`: `let _metlog = tracing_metlog::init();`. (`let _ = ..` drops it at once.)
/// A guard that is leaked, or a program that ends by [`std::process::exit`], delivers too, on Unix: an `atexit`
/// handler sees to it.
#[must_use = "dropping the guard ends delivery; bind it to a name: `let _metlog = ..`"]
pub struct Guard {
    pipeline: Arc<Pipeline>,
}

impl Guard {
    pub(crate) fn new(pipeline: Arc<Pipeline>) -> Self {
        static EXIT: Once = Once::new();
        EXIT.call_once(|| fork::at_exit(close_at_exit));
        if pipeline.panics {
            panic::install_hook();
        }
        Guard { pipeline }
    }

    /// Makes messages of any type through the same queue.
    pub fn client(&self) -> Client {
        Client::new(Arc::clone(&self.pipeline))
    }

    /// Delivers what was made before this call, as far as `timeout` goes. A producer that goes on meanwhile does
    /// not hold it up.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tracing_metlog::Capture;
    ///
    /// let capture = Capture::new();
    /// let (_layer, guard) = tracing_metlog::builder().transport(capture.clone()).build()?;
    /// guard.client().incr("hits");
    /// let flushed = guard.flush(Duration::from_secs(5));
    /// assert_eq!((flushed.delivered, flushed.lost, flushed.pending), (1, 0, 0));
    /// # Ok::<(), tracing_metlog::BuildError>(())
    /// ```
    pub fn flush(&self, timeout: Duration) -> Flushed {
        self.pipeline.flush(timeout)
    }

    /// The account at this moment: what was emitted, delivered, lost and why, and what is on its way.
    pub fn stats(&self) -> Stats {
        self.pipeline.stats()
    }

    /// Delivers and ends like dropping, and then gives the final account.
    pub fn finish(self) -> Stats {
        self.pipeline.close(self.pipeline.flush_timeout);
        self.pipeline.stats()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.pipeline.close(self.pipeline.flush_timeout);
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Guard").field("stats", &self.stats()).finish()
    }
}

extern "C" fn close_at_exit() {
    // A panic must not cross into the C library.
    let _ = catch_unwind(pipeline::close_all);
}
