//! What UDP and Unix datagram sockets share: one datagram a message.
//!
//! In: batches. Out: datagrams the kernel took, which is all that can be known. One too large for a datagram is
//! lost and said so; one the receiver has no room for, or that nobody waits for, is lost and nobody says so.

use std::io;
use std::time::{Duration, Instant};

use super::super::batch::Batch;
use super::super::framing::Framing;
use super::socket::{self, Waitable};
use super::Transport;
use crate::stats::LossReason;

/// The longest message sent as one datagram unless told otherwise: Metlog's own receivers read 60,000 bytes,
/// and the router of 2012 ends its decoder at the first longer one.
pub(super) const MAX_MESSAGE_BYTES: usize = 60_000;

/// Datagrams handed to the kernel in one call.
#[cfg(target_os = "linux")]
const AT_ONCE: usize = 64;

/// How often one datagram is offered again to a socket that refuses each time.
const OFFERS: u32 = 8;

/// The send buffer to ask for; the system may grant less. Room for a whole batch, so that a burst does not
/// have to wait for the network card.
#[cfg(unix)]
const SEND_BUFFER_BYTES: usize = 1 << 20;

/// A connected, non-blocking datagram socket.
pub(super) trait DatagramSocket: Waitable + Send {
    /// Sends one datagram; only where there is no `send` of the kernel's own to call.
    #[cfg(not(unix))]
    fn send(&self, datagram: &[u8]) -> io::Result<usize>;
}

/// Makes sockets connected to one destination.
pub(super) trait Open: Send {
    type Socket: DatagramSocket;

    /// Whether an error like "refused" tells of a datagram sent before, and has nothing to do with this one.
    const ERRORS_ARE_OLD: bool;

    fn open(&mut self, deadline: Instant) -> io::Result<Self::Socket>;

    /// Whether a socket should be replaced: it is `age` old, and `refused` says nobody was at the other end.
    fn is_stale(&mut self, age: Duration, refused: bool) -> bool {
        let _ = (age, refused);
        false
    }
}

/// A transport over one datagram socket at a time.
#[derive(Debug)]
pub(super) struct Datagrams<O: Open> {
    opener: O,
    max_message_bytes: usize,
    current: Option<Current<O::Socket>>,
}

#[derive(Debug)]
struct Current<S> {
    socket: S,
    since: Instant,
    refused: bool,
}

impl<S> Current<S> {
    fn new(socket: S) -> Self {
        Current { socket, since: Instant::now(), refused: false }
    }
}

impl<O: Open> Datagrams<O> {
    pub(super) fn new(opener: O, max_message_bytes: usize) -> Self {
        Datagrams { opener, max_message_bytes, current: None }
    }

    /// The socket to send on. One that cannot be replaced (the name server is down) goes on being used.
    fn opened(&mut self, deadline: Instant) -> io::Result<Current<O::Socket>> {
        match self.current.take() {
            None => self.opener.open(deadline).map(Current::new),
            Some(old) if self.opener.is_stale(old.since.elapsed(), old.refused) => {
                Ok(Current::new(self.opener.open(deadline).unwrap_or(old.socket)))
            }
            Some(current) => Ok(current),
        }
    }
}

impl<O: Open> Transport for Datagrams<O> {
    fn framing(&self) -> Framing {
        Framing::Datagram
    }

    fn max_message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    fn send(&mut self, batch: &mut Batch, deadline: Instant) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut current = self.opened(deadline)?;
        let outcome = send_all::<O>(&mut current, batch, deadline);
        if outcome.as_ref().err().is_none_or(socket::is_deadline) {
            self.current = Some(current);
        }
        outcome
    }
}

fn send_all<O: Open>(
    current: &mut Current<O::Socket>,
    batch: &mut Batch,
    deadline: Instant,
) -> io::Result<()> {
    // How often the first datagram was turned away.
    let mut rejections = 0;
    while !batch.is_empty() {
        match send_some(&current.socket, batch) {
            Ok(count) => {
                batch.delivered(count);
                rejections = 0;
            }
            Err(error) => overcome::<O>(error, current, batch, &mut rejections, deadline)?,
        }
    }
    Ok(())
}

/// Makes it worth while to try again, or gives up.
fn overcome<O: Open>(
    error: io::Error,
    current: &mut Current<O::Socket>,
    batch: &mut Batch,
    rejections: &mut u32,
    deadline: Instant,
) -> io::Result<()> {
    match Trouble::of(&error) {
        Trouble::Full => socket::wait(&current.socket, socket::Ready::Write, deadline)?,
        Trouble::NoBuffers => socket::nap(deadline)?,
        Trouble::Interrupted => {}
        Trouble::Refused if O::ERRORS_ARE_OLD && *rejections < OFFERS => {
            current.refused = true;
            *rejections += 1;
        }
        // The first time it may be a gateway's complaint about a datagram sent before.
        Trouble::TooLarge if O::ERRORS_ARE_OLD && *rejections == 0 => *rejections += 1,
        Trouble::TooLarge => {
            batch.lost(LossReason::TooLarge);
            *rejections = 0;
        }
        Trouble::Refused | Trouble::Down => return Err(socket::as_down(error)),
    }
    Ok(())
}

/// What an error of a datagram socket means for the datagram at hand.
enum Trouble {
    /// Nobody is there.
    Refused,
    TooLarge,
    /// The socket's own buffer, or a Unix receiver's queue, is full: the kernel says when it no longer is.
    Full,
    /// The network card's queue is full: nobody says when it no longer is.
    NoBuffers,
    Interrupted,
    Down,
}

impl Trouble {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Trouble::Refused,
            io::ErrorKind::WouldBlock => Trouble::Full,
            io::ErrorKind::Interrupted => Trouble::Interrupted,
            _ => Trouble::by_number(error),
        }
    }

    #[cfg(unix)]
    fn by_number(error: &io::Error) -> Self {
        match rustix::io::Errno::from_io_error(error) {
            Some(rustix::io::Errno::MSGSIZE) => Trouble::TooLarge,
            Some(rustix::io::Errno::NOBUFS) => Trouble::NoBuffers,
            _ => Trouble::Down,
        }
    }

    #[cfg(not(unix))]
    fn by_number(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(10040) => Trouble::TooLarge,
            Some(10055) => Trouble::NoBuffers,
            _ => Trouble::Down,
        }
    }
}

/// Sends the next few datagrams; an error is about the first of them, or about one sent before.
#[cfg(target_os = "linux")]
fn send_some(socket: &impl DatagramSocket, batch: &Batch) -> io::Result<usize> {
    use rustix::net::{sendmmsg, MMsgHdr, SendAncillaryBuffer};
    let slices: Vec<_> = batch.frames().take(AT_ONCE).map(|frame| [io::IoSlice::new(frame)]).collect();
    let mut controls: Vec<_> = slices.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut headers: Vec<_> =
        slices.iter().zip(&mut controls).map(|(slice, control)| MMsgHdr::new(slice, control)).collect();
    Ok(sendmmsg(socket, &mut headers, socket::without_signal())?)
}

#[cfg(not(target_os = "linux"))]
fn send_some(socket: &impl DatagramSocket, batch: &Batch) -> io::Result<usize> {
    let datagram = batch.frames().next().unwrap_or_default();
    #[cfg(unix)]
    socket::send(socket, datagram)?;
    #[cfg(not(unix))]
    socket.send(datagram)?;
    Ok(1)
}

/// Raises the send buffer towards [`SEND_BUFFER_BYTES`]; never lowers what the administrator gave.
#[cfg(unix)]
pub(super) fn widen(socket: &impl DatagramSocket) {
    use rustix::net::sockopt::{set_socket_send_buffer_size, socket_send_buffer_size};
    if socket_send_buffer_size(socket).is_ok_and(|bytes| bytes < SEND_BUFFER_BYTES) {
        let _ = set_socket_send_buffer_size(socket, SEND_BUFFER_BYTES);
    }
}

#[cfg(not(unix))]
pub(super) fn widen(_: &impl DatagramSocket) {}
