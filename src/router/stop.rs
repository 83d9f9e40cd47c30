//! The end of a router, as its inputs see it. In: one request with a deadline. Out: threads that wake from waiting
//! for a socket and know how long they may still read.

use std::io;
#[cfg(unix)]
use std::os::fd::AsFd;
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A request to stop that threads can wait for together with a socket.
pub(super) struct Stop {
    deadline: OnceLock<Instant>,
    /// Shutting one end down makes the other readable, for every thread that polls it, and for ever.
    #[cfg(unix)]
    wake: (UnixStream, UnixStream),
}

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
            deadline: OnceLock::new(),
            #[cfg(unix)]
            wake: UnixStream::pair()?,
        })
    }

    /// Stop: finish what there is, but not beyond `deadline`. The first request counts.
    pub(super) fn request(&self, deadline: Instant) {
        let _ = self.deadline.set(deadline);
        #[cfg(unix)]
        let _ = self.wake.0.shutdown(std::net::Shutdown::Both);
    }

    pub(super) fn is_requested(&self) -> bool {
        self.deadline.get().is_some()
    }

    pub(super) fn is_overdue(&self) -> bool {
        self.deadline.get().is_some_and(|&deadline| Instant::now() >= deadline)
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
