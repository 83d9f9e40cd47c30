//! Sending on a socket and waiting for it, without ever blocking past a deadline or raising SIGPIPE.
//!
//! In: bytes and a deadline. Out: how many the kernel took. Nothing is lost here: what was not taken is the
//! caller's.

use std::io;
use std::time::{Duration, Instant};

/// What can be waited for. Without `poll` (not Unix) everything can: the wait is a nap.
#[cfg(unix)]
pub(super) use std::os::fd::AsFd as Waitable;

#[cfg(not(unix))]
pub(super) trait Waitable {}

#[cfg(not(unix))]
impl<T> Waitable for T {}

/// How long to nap where the kernel cannot tell when it has room again.
const NAP: Duration = Duration::from_millis(1);

/// The deadline came first. Told from the kernel's ETIMEDOUT (a dead peer) by its lack of an OS error.
pub(super) fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the deadline came first")
}

/// Whether `error` is [`timed_out`]: slow, not broken.
pub(super) fn is_deadline(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none()
}

/// `error` as one that can never be taken for [`timed_out`]: the worker backs off from a dead destination
/// and asks a slow one again at once.
pub(super) fn as_down(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::TimedOut => io::Error::new(io::ErrorKind::NotConnected, error),
        _ => error,
    }
}

/// A thread that cannot be had, as an error that makes the worker pause: the system calls it `WouldBlock`, which would be
/// slow, and tried again a thousand times a second.
pub(super) fn no_thread(error: io::Error) -> io::Error {
    io::Error::other(format!("no thread can be had: {error}"))
}

/// Whether the kernel could not take anything for want of memory: nothing is wrong with the connection.
#[cfg(unix)]
pub(super) fn is_short_of_memory(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::NOBUFS | Errno::NOMEM))
}

#[cfg(not(unix))]
pub(super) fn is_short_of_memory(_: &io::Error) -> bool {
    false
}

/// What is left until `deadline`; never zero.
pub(super) fn time_left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(timed_out()),
        left => Ok(left),
    }
}

/// Waits a moment, for want of anything better to wait for.
pub(super) fn nap(deadline: Instant) -> io::Result<()> {
    std::thread::sleep(time_left(deadline)?.min(NAP));
    Ok(())
}

/// What a socket is waited for.
#[derive(Clone, Copy)]
pub(super) enum Ready {
    Read,
    Write,
    Either,
}

/// Waits until `socket` is ready, or has an end or an error to tell.
#[cfg(unix)]
pub(super) fn wait(socket: &impl Waitable, ready: Ready, deadline: Instant) -> io::Result<()> {
    use rustix::event::{poll, PollFd, PollFlags, Timespec};
    let flags = match ready {
        Ready::Read => PollFlags::IN,
        Ready::Write => PollFlags::OUT,
        Ready::Either => PollFlags::IN | PollFlags::OUT,
    };
    loop {
        // A deadline too far for the kernel is no deadline.
        let left = Timespec::try_from(time_left(deadline)?).ok();
        match poll(&mut [PollFd::new(socket, flags)], left.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(not(unix))]
pub(super) fn wait(_: &impl Waitable, _: Ready, deadline: Instant) -> io::Result<()> {
    nap(deadline)
}

/// Sends on a connected, non-blocking socket. `write(2)` on a socket whose peer is gone raises SIGPIPE, which
/// ends a program that has put its default back (as most command line tools do).
#[cfg(unix)]
pub(super) fn send(socket: &impl Waitable, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, bytes, without_signal())?)
}

#[cfg(not(unix))]
pub(super) fn send(socket: &mut impl io::Write, bytes: &[u8]) -> io::Result<usize> {
    socket.write(bytes)
}

#[cfg(all(unix, not(target_vendor = "apple")))]
pub(super) fn without_signal() -> rustix::net::SendFlags {
    rustix::net::SendFlags::NOSIGNAL
}

/// Apple has no such flag; there the standard library makes every socket with SO_NOSIGPIPE.
#[cfg(all(unix, target_vendor = "apple"))]
pub(super) fn without_signal() -> rustix::net::SendFlags {
    rustix::net::SendFlags::empty()
}
