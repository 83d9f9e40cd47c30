//! What UDP and Unix datagram sockets share: one datagram a message.
//!
//! In: batches. Out: datagrams the kernel took. A Unix receiver then has it. Over UDP nothing says so; but that nobody
//! is there is said (ICMP), by the next call on the socket, so what was sent stays in the batch until that was asked a
//! moment later, and is sent again if it was refused. One too large for a datagram is lost and said so; one that the
//! network or a full receiver drops is lost and nobody says so, and so is one whose refusal comes later than a moment.

use std::io;
use std::time::{Duration, Instant};

use super::super::batch::Batch;
use super::super::framing::Framing;
#[cfg(target_os = "linux")]
use super::segments::Segments;
use super::socket::{self, Waitable};
use super::Transport;
use crate::stats::LossReason;

/// The longest message sent as one datagram unless told otherwise: Metlog's own receivers read 60,000 bytes,
/// and the router of 2012 ends its decoder at the first longer one.
pub(super) const MAX_MESSAGE_BYTES: usize = 60_000;

/// Datagrams handed to the kernel in one call.
const AT_ONCE: usize = if cfg!(target_os = "linux") { 64 } else { 1 };

/// How often one datagram is offered again to a socket that refuses each time.
const OFFERS: u32 = 8;

/// The send buffer to ask for; the system may grant less. Room for a whole batch, so that a burst does not
/// have to wait for the network card.
#[cfg(unix)]
const SEND_BUFFER_BYTES: usize = 1 << 20;

/// A connected, non-blocking datagram socket.
pub(super) trait DatagramSocket: Waitable + Send {
    /// What went wrong with a datagram sent before.
    fn take_error(&self) -> io::Result<Option<io::Error>>;

    /// Sends one datagram; only where there is no `send` of the kernel's own to call.
    #[cfg(not(unix))]
    fn send(&self, datagram: &[u8]) -> io::Result<usize>;
}

/// Makes sockets connected to one destination.
pub(super) trait Open: Send {
    type Socket: DatagramSocket;

    /// Whether an error like "refused" tells of a datagram sent before, and has nothing to do with this one.
    const ERRORS_ARE_OLD: bool;

    /// Whether the kernel may be given many datagrams as one to cut.
    const HAS_SEGMENTS: bool;

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
    framing: Framing,
    max_message_bytes: usize,
    current: Option<Current<O::Socket>>,
}

#[derive(Debug)]
struct Current<S> {
    socket: S,
    since: Instant,
    refused: bool,
    /// Frames of the batch that were sent and not asked after yet.
    sent: usize,
    #[cfg(target_os = "linux")]
    segments: Option<Segments>,
}

impl<S> Current<S> {
    fn new<O: Open<Socket = S>>(socket: S) -> Self {
        Current {
            socket,
            since: Instant::now(),
            refused: false,
            sent: 0,
            #[cfg(target_os = "linux")]
            segments: O::HAS_SEGMENTS.then(Segments::new),
        }
    }
}

impl<O: Open> Datagrams<O> {
    pub(super) fn new(opener: O, framing: Framing, max_message_bytes: usize) -> Self {
        Datagrams { opener, framing, max_message_bytes, current: None }
    }

    #[cfg(test)]
    pub(super) fn socket(&self) -> Option<&O::Socket> {
        self.current.as_ref().map(|current| &current.socket)
    }

    /// The socket to send on. One that cannot be replaced (the name server is down) goes on being used.
    fn opened(&mut self, deadline: Instant) -> io::Result<Current<O::Socket>> {
        match self.current.take() {
            None => self.opener.open(deadline).map(Current::new::<O>),
            Some(old) if self.opener.is_stale(old.since.elapsed(), old.refused) => {
                // Of the old socket too nothing is known but that it is there.
                Ok(Current::new::<O>(self.opener.open(deadline).unwrap_or(old.socket)))
            }
            Some(current) => Ok(current),
        }
    }
}

impl<O: Open> Transport for Datagrams<O> {
    fn framing(&self) -> Framing {
        self.framing
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
        current.sent = batch.unconfirmed();
        let is_usable =
            |error: &io::Error| socket::is_deadline(error) || O::ERRORS_ARE_OLD && is_refused(error);
        if outcome.as_ref().err().is_none_or(is_usable) {
            self.current = Some(current);
        }
        outcome
    }
}

fn is_refused(error: &io::Error) -> bool {
    matches!(Trouble::of(error), Trouble::Refused)
}

fn send_all<O: Open>(
    current: &mut Current<O::Socket>,
    batch: &mut Batch,
    deadline: Instant,
) -> io::Result<()> {
    if O::ERRORS_ARE_OLD {
        ask_after(current, batch)?;
    }
    // How often the first datagram was turned away.
    let mut rejections = 0;
    // `sendmmsg` says how many were sent, and keeps to itself what became of the next one: that one goes alone.
    let mut at_once = AT_ONCE;
    while batch.has_unwritten() {
        match send_some(current, batch, at_once) {
            Ok(Sent { count, tried }) => {
                batch.wrote_frames(count);
                rejections = 0;
                if !O::ERRORS_ARE_OLD {
                    batch.confirm_all_but(0);
                } else if at_once == 1 {
                    current.sent = batch.unconfirmed();
                    ask_after(current, batch)?;
                }
                at_once = if count < tried && batch.has_unwritten() { 1 } else { AT_ONCE };
            }
            Err(error) => overcome::<O>(error, current, batch, &mut rejections, deadline)?,
        }
    }
    Ok(())
}

/// Settles what was sent if nobody has refused it. What was refused is sent again, and everything else that was sent
/// with it and not asked after: nobody says which one it was.
fn ask_after(current: &mut Current<impl DatagramSocket>, batch: &mut Batch) -> io::Result<()> {
    let is_of_this_batch = current.sent > 0 && current.sent == batch.unconfirmed();
    match current.socket.take_error()? {
        Some(error) if is_of_this_batch && is_refused(&error) => {
            current.refused = true;
            batch.rewind();
            Err(error)
        }
        // Nothing, or about one that is settled already, or nothing that would be better the next time.
        _ if is_of_this_batch => {
            batch.confirm_all_but(0);
            Ok(())
        }
        _ => {
            batch.rewind();
            Ok(())
        }
    }
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
        // It is about those that were sent before and not asked after, if there are any.
        Trouble::Refused if O::ERRORS_ARE_OLD && batch.unconfirmed() > 0 => {
            current.refused = true;
            batch.rewind();
            return Err(error);
        }
        Trouble::Refused if O::ERRORS_ARE_OLD && *rejections < OFFERS => {
            current.refused = true;
            *rejections += 1;
        }
        // The first time it may be a gateway's complaint about a datagram sent before.
        Trouble::TooLarge if O::ERRORS_ARE_OLD && *rejections == 0 => *rejections += 1,
        Trouble::TooLarge => {
            // Messages are settled in their order.
            batch.confirm_all_but(0);
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

/// How many datagrams the kernel took, of how many.
struct Sent {
    count: usize,
    tried: usize,
}

/// Sends the next few datagrams; an error is about the first of them, or about one sent before.
#[cfg(target_os = "linux")]
fn send_some(current: &mut Current<impl DatagramSocket>, batch: &Batch, at_once: usize) -> io::Result<Sent> {
    use rustix::net::{sendmmsg, MMsgHdr, SendAncillaryBuffer};
    let Current { socket, segments, .. } = current;
    if let Some(segments) = segments {
        if let Some(sent) = segments.send(socket, batch, at_once) {
            return sent.map(|count| Sent { count, tried: count });
        }
    }
    let slices: Vec<_> =
        batch.unwritten_frames().take(at_once).map(|frame| [io::IoSlice::new(frame)]).collect();
    let mut controls: Vec<_> = slices.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut headers: Vec<_> =
        slices.iter().zip(&mut controls).map(|(slice, control)| MMsgHdr::new(slice, control)).collect();
    let tried = headers.len();
    let count = sendmmsg(socket, &mut headers, socket::without_signal())?;
    Ok(Sent { count, tried })
}

#[cfg(not(target_os = "linux"))]
fn send_some(current: &mut Current<impl DatagramSocket>, batch: &Batch, _: usize) -> io::Result<Sent> {
    let datagram = batch.unwritten_frames().next().unwrap_or_default();
    #[cfg(unix)]
    socket::send(&current.socket, datagram)?;
    #[cfg(not(unix))]
    current.socket.send(datagram)?;
    Ok(Sent { count: 1, tried: 1 })
}

/// Raises the send buffer towards [`SEND_BUFFER_BYTES`]; never lowers what the administrator gave.
#[cfg(unix)]
pub(super) fn widen(socket: &impl Waitable) {
    use rustix::net::sockopt::{set_socket_send_buffer_size, socket_send_buffer_size};
    if socket_send_buffer_size(socket).is_ok_and(|bytes| bytes < SEND_BUFFER_BYTES) {
        let _ = set_socket_send_buffer_size(socket, SEND_BUFFER_BYTES);
    }
}

#[cfg(not(unix))]
pub(super) fn widen(_: &impl Waitable) {}
