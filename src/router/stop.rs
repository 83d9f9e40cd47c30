//! The end of a router, as its inputs see it. In: one request with a deadline. Out: threads that wake from waiting
//! for a socket and know how long they may still read.

use std::io;
#[cfg(unix)]
use std::os::fd::AsFd;
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// A request to stop that threads can wait for together with a socket.
pub(super) struct Stop {
    /// What the deadline is counted from: readers ask for it with every datagram, and a number needs no lock.
    made: Instant,
    /// In nanoseconds since then; [`NONE`] until the first request.
    deadline: AtomicU64,
    is_superseded: AtomicBool,
    /// Shutting one end down makes the other readable, for every thread that polls it, and for ever.
    #[cfg(unix)]
    wake: (UnixStream, UnixStream),
}

/// No deadline: nobody has asked for the end.
const NONE: u64 = u64::MAX;

/// A socket one can wait for.
#[cfg(unix)]
pub(super) trait Waitable: AsFd {}
#[cfg(unix)]
impl<T: AsFd> Waitable for T {}

/// A socket one can wait for.
#[cfg(not(unix))]
pub(super) trait Waitable {}
#[cfg(not(unix))]
impl<T> Waitable for T {}

impl Stop {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Stop {
            made: Instant::now(),
            deadline: AtomicU64::new(NONE),
            is_superseded: AtomicBool::new(false),
            #[cfg(unix)]
            wake: UnixStream::pair()?,
        })
    }

    /// Stop: finish what there is, but not beyond `deadline`. Of several the earliest counts: what a reload has given a
    /// year ends with the router all the same.
    pub(super) fn request(&self, deadline: Instant) {
        let after = deadline.saturating_duration_since(self.made).as_nanos();
        self.deadline.fetch_min(u64::try_from(after).unwrap_or(NONE).min(NONE - 1), SeqCst);
        #[cfg(unix)]
        let _ = self.wake.0.shutdown(std::net::Shutdown::Both);
    }

    /// Stop, and leave what is in the socket to a successor, which reads the same one. Connections may go on until
    /// `deadline`.
    pub(super) fn supersede(&self, deadline: Instant) {
        self.is_superseded.store(true, SeqCst);
        self.request(deadline);
    }

    pub(super) fn is_superseded(&self) -> bool {
        self.is_superseded.load(Relaxed)
    }

    pub(super) fn is_requested(&self) -> bool {
        self.deadline.load(SeqCst) != NONE
    }

    pub(super) fn is_overdue(&self) -> bool {
        let deadline = self.deadline.load(Relaxed);
        deadline != NONE && self.made.elapsed() >= Duration::from_nanos(deadline)
    }

    /// Waits until there may be something to read, or the stop is requested.
    #[cfg(unix)]
    pub(super) fn wait_readable(&self, socket: &impl Waitable) {
        use rustix::event::{poll, PollFd, PollFlags};
        let mut sockets = [PollFd::new(socket, PollFlags::IN), PollFd::new(&self.wake.1, PollFlags::IN)];
        // An error is a signal, or no memory: the caller reads, finds nothing and comes back.
        let _ = poll(&mut sockets, None);
    }

    /// Waits a moment, or less if the stop is requested.
    #[cfg(unix)]
    pub(super) fn pause(&self, duration: Duration) {
        use rustix::event::{poll, PollFd, PollFlags, Timespec};
        let timeout = Timespec {
            tv_sec: duration.as_secs().try_into().unwrap_or(1),
            tv_nsec: duration.subsec_nanos().into(),
        };
        let _ = poll(&mut [PollFd::new(&self.wake.1, PollFlags::IN)], Some(&timeout));
        if self.is_requested() {
            // The wake-up does not wait any more, and an error that stays must not spin until the deadline.
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Without `poll`, waiting is asking again soon.
    #[cfg(not(unix))]
    pub(super) fn wait_readable(&self, _: &impl Waitable) {
        std::thread::sleep(Duration::from_millis(5));
    }

    #[cfg(not(unix))]
    pub(super) fn pause(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_deadlines_the_earliest_counts() {
        let stop = Stop::new().expect("a pair of sockets");
        assert!(!stop.is_requested() && !stop.is_overdue());
        stop.supersede(Instant::now() + Duration::from_secs(365 * 86_400));
        assert!(stop.is_requested() && stop.is_superseded() && !stop.is_overdue());
        stop.request(Instant::now());
        assert!(stop.is_overdue());
        stop.request(Instant::now() + Duration::from_secs(60));
        assert!(stop.is_overdue(), "a later one does not prolong it");
    }
}
