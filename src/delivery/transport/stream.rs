//! What TCP and Unix stream sockets share: connect when needed, write a batch, and go on until it is confirmed.
//!
//! In: batches. Out: their bytes on a connection, each message at least once. A message is delivered when the peer's
//! kernel has acknowledged its last byte (TCP) or the peer has read it (Unix socket), see
//! [`unconfirmed`](super::unconfirmed), and no error was there after that. What is not confirmed when a connection
//! breaks is written again on the next one, from the beginning of its first message: the receiver may see it twice.
//! Lost without notice is what a TCP peer's kernel had acknowledged and the peer had not read when it died.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::super::batch::Batch;
use super::super::framing::Framing;
use super::socket::{self, Waitable};
use super::unconfirmed;
use super::Transport;

/// Reads of what a peer says, at most so many at a time: no router has anything to say.
const READS: usize = 16;

/// A peer that has acknowledged nothing for so long, and answered nothing, has lost its power or its network.
const SILENCE: Duration = Duration::from_secs(8);

/// A connected, non-blocking stream socket.
pub(super) trait StreamSocket: Waitable + Read + Write + Send + Sized {
    /// Says that nothing more will be written.
    fn finish(&mut self) -> io::Result<()>;

    /// Takes some of `bytes` without waiting, and without raising SIGPIPE.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        socket::send(self, bytes)
    }

    /// Waits until there is room to write or something to read.
    fn wait(&self, ready: socket::Ready, deadline: Instant) -> io::Result<()> {
        socket::wait(self, ready, deadline)
    }

    /// Bytes written that have not arrived yet.
    fn unconfirmed(&self) -> io::Result<usize> {
        unconfirmed::unconfirmed(self)
    }

    /// Whether nothing has come back for `at_least`, although something should have.
    fn is_silent(&self, at_least: Duration) -> bool {
        let _ = at_least;
        false
    }
}

/// Makes connections to one destination.
pub(super) trait Connect: Send {
    type Socket: StreamSocket;

    fn connect(&mut self, deadline: Instant) -> io::Result<Self::Socket>;
}

/// A transport over one connection at a time.
#[derive(Debug)]
pub(super) struct Stream<C: Connect> {
    connector: C,
    framing: Framing,
    /// Messages that may be written and not confirmed.
    window: usize,
    socket: Option<C::Socket>,
    /// What the connection holds of the batch: bytes written and not confirmed.
    outstanding: usize,
    /// Since when the same bytes wait for their confirmation.
    waiting_since: Option<Instant>,
}

impl<C: Connect> Stream<C> {
    pub(super) fn new(connector: C, framing: Framing) -> Self {
        Stream { connector, framing, window: usize::MAX, socket: None, outstanding: 0, waiting_since: None }
    }

    /// The same, with at most `messages` written and not confirmed.
    #[cfg(feature = "zmq")]
    pub(super) fn with_window(mut self, messages: usize) -> Self {
        self.window = messages;
        self
    }

    /// Settles what has arrived of what this connection holds of `batch`, and writes nothing.
    #[cfg(feature = "zmq")]
    pub(super) fn settle(&mut self, batch: &mut Batch) {
        if self.outstanding != batch.unconfirmed_bytes() {
            return;
        }
        let Some(socket) = &mut self.socket else { return };
        if confirm(socket, batch).is_err() {
            // An error is told once only: the next call would take this connection for a good one.
            self.socket = None;
            batch.rewind();
        }
        self.outstanding = batch.unconfirmed_bytes();
    }

    fn advance(&mut self, batch: &mut Batch, deadline: Instant) -> io::Result<()> {
        let before = batch.len();
        // A connection that holds something else is left behind: that batch was given up.
        let old = self.socket.take().filter(|_| self.outstanding == batch.unconfirmed_bytes());
        let mut socket = match still_open(old, batch, deadline)? {
            Some(socket) => socket,
            None if batch.is_empty() => return Ok(()),
            None => {
                batch.rewind();
                self.waiting_since = None;
                self.connector.connect(deadline)?
            }
        };
        let outcome = write(&mut socket, batch, self.window, deadline);
        if outcome.as_ref().err().is_some_and(|error| !socket::is_deadline(error)) {
            return outcome;
        }
        // An end that is heard here is for the next call: it looks again before it writes.
        confirm(&mut socket, batch)?;
        self.note_progress(&socket, batch, before)?;
        self.socket = Some(socket);
        outcome
    }

    /// Gives up a connection at whose other end nobody is any more, which TCP itself does after a quarter of an hour.
    fn note_progress(&mut self, socket: &C::Socket, batch: &Batch, before: usize) -> io::Result<()> {
        if batch.unconfirmed_bytes() == 0 || batch.len() < before {
            self.waiting_since = None;
            return Ok(());
        }
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        match since.elapsed() >= SILENCE && socket.is_silent(SILENCE) {
            true => Err(io::Error::new(io::ErrorKind::NotConnected, "the router does not answer any more")),
            false => Ok(()),
        }
    }
}

/// The connection, if its peer is still there. The first write to one that has closed succeeds and is lost, so this is
/// asked before each. A connection that breaks while it holds something is an error, and makes the worker pause: a
/// peer that accepts everything and keeps nothing must not be connected to in a loop.
fn still_open<S: StreamSocket>(
    socket: Option<S>,
    batch: &mut Batch,
    deadline: Instant,
) -> io::Result<Option<S>> {
    let Some(mut socket) = socket else { return Ok(None) };
    let holds_nothing = batch.unconfirmed_bytes() == 0;
    loop {
        match confirm(&mut socket, batch) {
            Ok(Heard::Nothing | Heard::More) => return Ok(Some(socket)),
            Ok(Heard::End) if batch.unconfirmed() == 0 => return Ok(None),
            // It said goodbye and may still be reading. A while later it is taken for dead.
            Ok(Heard::End) => socket::nap(deadline).map_err(|_| ended())?,
            Err(_) if holds_nothing => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

fn ended() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the router closed the connection before it had confirmed everything",
    )
}

/// Writes what is not written yet.
fn write(
    socket: &mut impl StreamSocket,
    batch: &mut Batch,
    window: usize,
    deadline: Instant,
) -> io::Result<()> {
    while batch.has_unwritten() {
        let fitting = batch.unwritten_within(window);
        if fitting.is_empty() {
            wait_for_confirmation(socket, batch, deadline)?;
            continue;
        }
        match socket.send(fitting) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => batch.wrote(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(socket, batch, deadline)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The kernel is short of memory for a moment, and will not say when it no longer is.
            Err(error) if socket::is_short_of_memory(&error) => socket::nap(deadline)?,
            Err(error) => return Err(socket::as_down(error)),
        }
    }
    Ok(())
}

/// While the window is full. Nobody says when the kernel has heard from the peer, so it is asked again and again.
#[cold]
fn wait_for_confirmation(
    socket: &mut impl StreamSocket,
    batch: &mut Batch,
    deadline: Instant,
) -> io::Result<()> {
    let before = batch.unconfirmed();
    confirm(socket, batch)?;
    match batch.unconfirmed() < before {
        true => Ok(()),
        false => socket::nap(deadline),
    }
}

/// While there is no room: settles what has arrived, so that a connection that breaks now does not bring it again. A peer
/// that talks and is never heard stops reading, so it is heard. An error is told once only, and what
/// was not confirmed before it never is. Whether one that ended is gone is for the write to say: one that only stopped
/// talking still reads.
fn wait(socket: &mut impl StreamSocket, batch: &mut Batch, deadline: Instant) -> io::Result<()> {
    match confirm(socket, batch)? {
        Heard::Nothing | Heard::More => socket.wait(socket::Ready::Either, deadline),
        Heard::End => socket.wait(socket::Ready::Write, deadline),
    }
}

/// Settles what has arrived, and tells what the peer had to say. In this order: a socket whose peer died has nothing
/// left to confirm, and an error to tell.
fn confirm(socket: &mut impl StreamSocket, batch: &mut Batch) -> io::Result<Heard> {
    let outstanding = match batch.unconfirmed_bytes() {
        0 => 0,
        _ => socket.unconfirmed().map_err(socket::as_down)?,
    };
    let heard = heard(socket)?;
    batch.confirm_all_but(outstanding);
    Ok(heard)
}

impl<C: Connect> Transport for Stream<C> {
    fn framing(&self) -> Framing {
        self.framing
    }

    fn send(&mut self, batch: &mut Batch, deadline: Instant) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let outcome = self.advance(batch, deadline);
        if self.socket.is_none() {
            // Nobody knows how much of the rest was read: it goes out again.
            batch.rewind();
        }
        self.outstanding = batch.unconfirmed_bytes();
        outcome
    }

    /// Half-closes and waits for the peer to do the same: then it has read everything.
    fn close(&mut self, deadline: Instant) -> io::Result<()> {
        let Some(mut socket) = self.socket.take() else { return Ok(()) };
        socket.finish().map_err(socket::as_down)?;
        loop {
            match heard(&mut socket)? {
                Heard::End => return Ok(()),
                Heard::Nothing | Heard::More => socket.wait(socket::Ready::Read, deadline)?,
            }
        }
    }
}

/// What a peer had to say.
enum Heard {
    Nothing,
    More,
    End,
}

/// Reads what the peer has said, a bounded part of it, and throws it away.
fn heard(socket: &mut impl Read) -> io::Result<Heard> {
    let mut space = [0; 4096];
    for _ in 0..READS {
        match socket.read(&mut space) {
            Ok(0) => return Ok(Heard::End),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Heard::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(socket::as_down(error)),
        }
    }
    Ok(Heard::More)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    #[cfg(unix)]
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;
    use std::time::Duration;

    use super::super::support::Directory;
    use super::super::support::{at_once, batch_of, deliver, soon};
    use super::super::tcp::Tcp;
    #[cfg(unix)]
    use super::super::unix::Unix;
    use super::*;

    /// A router's end that keeps what it read, byte for byte, until its peer ends.
    fn reading(mut peer: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
        std::thread::spawn(move || {
            let mut read = Vec::new();
            peer.read_to_end(&mut read).unwrap();
            read
        })
    }

    fn listening() -> (TcpListener, Tcp) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let transport = Tcp::to("127.0.0.1", listener.local_addr().unwrap().port(), Framing::Newline);
        (listener, transport)
    }

    fn accepted(listener: &TcpListener) -> TcpStream {
        let stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn numbered(count: usize, of: &str) -> Vec<String> {
        (0..count).map(|number| format!("{number} {of}")).collect()
    }

    /// More than the buffers of a stalled connection take.
    fn large() -> Vec<String> {
        numbered(200, &"x".repeat(60_000))
    }

    /// A router that has accepted and does not read, with little room, and a batch stuck half way to it.
    fn stalled() -> (TcpListener, Tcp, TcpStream, Batch, Vec<u8>) {
        let (listener, mut transport) = listening();
        #[cfg(unix)]
        rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 4096).unwrap();
        let mut batch = batch_of(Framing::Newline, &large());
        let sent = batch.remaining().to_vec();
        // A busy machine may need more than one deadline to connect.
        while batch.unconfirmed_bytes() == 0 {
            let begun = Instant::now();
            let error = transport.send(&mut batch, at_once()).unwrap_err();
            assert!(socket::is_deadline(&error), "{error}");
            assert!(
                begun.elapsed() < Duration::from_secs(5),
                "the deadline was 50 ms: {:?}",
                begun.elapsed()
            );
        }
        assert!(batch.has_unwritten());
        let peer = accepted(&listener);
        (listener, transport, peer, batch, sent)
    }

    #[test]
    fn a_batch_arrives_byte_for_byte_and_close_waits_until_it_is_read() {
        let (listener, mut transport) = listening();
        let mut batch = batch_of(transport.framing(), &numbered(3, "hello"));
        deliver(&mut transport, &mut batch);
        assert_eq!(batch.take_account(), (3, vec![]));
        let reader = reading(accepted(&listener));
        transport.close(soon()).unwrap();
        assert_eq!(reader.join().unwrap(), b"0 hello\n1 hello\n2 hello\n");
    }

    #[test]
    fn octet_counts_go_out_as_they_are() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut transport = Tcp::to("localhost", port, Framing::OctetCount);
        let mut batch = batch_of(transport.framing(), &["{}", "{\"a\":1}"]);
        transport.send(&mut batch, soon()).unwrap();
        drop(transport);
        assert_eq!(reading(accepted(&listener)).join().unwrap(), b"2 {}7 {\"a\":1}");
    }

    #[test]
    fn a_reader_that_stalls_and_resumes_gets_every_byte_once() {
        let (_listener, mut transport, peer, mut batch, sent) = stalled();
        let reader = reading(peer);
        deliver(&mut transport, &mut batch);
        assert_eq!(batch.take_account(), (200, vec![]));
        transport.close(soon()).unwrap();
        assert!(reader.join().unwrap() == sent);
    }

    #[test]
    fn of_a_connection_broken_in_mid_batch_everything_unconfirmed_is_sent_again_whole() {
        let (listener, mut transport, mut peer, mut batch, sent) = stalled();
        peer.read_exact(&mut [0; 1000]).unwrap();
        drop(peer);
        let error = transport.send(&mut batch, soon()).unwrap_err();
        assert!(!socket::is_deadline(&error), "{error}");
        assert!(batch.len() > 190 && batch.unconfirmed_bytes() == 0, "nothing of it counts as written");
        let again = batch.remaining().to_vec();
        assert!(sent.ends_with(&again));
        let reader = std::thread::spawn(move || reading(accepted(&listener)).join().unwrap());
        deliver(&mut transport, &mut batch);
        transport.close(soon()).unwrap();
        assert!(reader.join().unwrap() == again);
    }

    #[cfg(feature = "zmq")]
    #[test]
    fn no_more_messages_are_written_than_the_window_holds_until_some_are_confirmed() {
        let directory = Directory::new();
        let path = directory.file("router");
        let listener = UnixListener::bind(&path).unwrap();
        let mut transport = Unix::at(&path, Framing::Newline).with_window(2);
        let mut batch = batch_of(Framing::Newline, &["one", "two", "three", "four", "five"]);
        let error = transport.send(&mut batch, at_once()).unwrap_err();
        assert!(socket::is_deadline(&error), "slow, and not down: {error}");
        assert_eq!((batch.len(), batch.unconfirmed()), (5, 2));
        let reader = reading(listener.accept().unwrap().0);
        deliver(&mut transport, &mut batch);
        transport.close(soon()).unwrap();
        assert_eq!(reader.join().unwrap(), b"one\ntwo\nthree\nfour\nfive\n");
    }

    #[test]
    fn what_a_broken_connection_held_unread_is_sent_again_over_a_unix_socket() {
        let directory = Directory::new();
        let path = directory.file("router");
        let listener = UnixListener::bind(&path).unwrap();
        let mut transport = Unix::at(&path, Framing::Newline);
        let mut batch = batch_of(Framing::Newline, &["one", "two"]);
        for _ in 0..3 {
            transport.send(&mut batch, soon()).unwrap();
            assert_eq!((batch.len(), batch.unconfirmed()), (2, 2), "written, and nobody has read it");
            // It is looked at again, and stays what it is.
            transport.send(&mut batch, soon()).unwrap();
            assert_eq!((batch.len(), batch.unconfirmed()), (2, 2));
            drop(listener.accept().unwrap().0);
            let error = transport.send(&mut batch, soon()).unwrap_err();
            assert!(!socket::is_deadline(&error), "{error}");
            assert_eq!((batch.len(), batch.unconfirmed()), (2, 0));
        }
        transport.send(&mut batch, soon()).unwrap();
        let mut peer = listener.accept().unwrap().0;
        peer.read_exact(&mut [0; 8]).unwrap();
        transport.send(&mut batch, soon()).unwrap();
        assert_eq!(batch.take_account(), (2, vec![]));
    }

    #[test]
    fn a_message_read_in_part_is_not_confirmed_over_a_unix_socket() {
        let directory = Directory::new();
        let path = directory.file("router");
        let listener = UnixListener::bind(&path).unwrap();
        let mut transport = Unix::at(&path, Framing::Newline);
        let mut batch = batch_of(Framing::Newline, &["one"]);
        transport.send(&mut batch, soon()).unwrap();
        let mut peer = listener.accept().unwrap().0;
        peer.read_exact(&mut [0; 3]).unwrap();
        transport.send(&mut batch, soon()).unwrap();
        assert_eq!((batch.len(), batch.unconfirmed()), (1, 1));
        drop(peer);
        transport.send(&mut batch, soon()).unwrap_err();
        assert_eq!((batch.len(), batch.unconfirmed()), (1, 0));
    }

    #[test]
    fn half_a_batch_that_was_given_up_is_not_glued_to_the_next() {
        let (listener, mut transport, peer, _, sent) = stalled();
        let reader = reading(peer);
        let mut next = batch_of(Framing::Newline, &["next"]);
        transport.send(&mut next, soon()).unwrap();
        let read = reader.join().unwrap();
        assert!(read.len() < sent.len() && sent.starts_with(&read));
        drop(transport);
        assert_eq!(reading(accepted(&listener)).join().unwrap(), b"next\n");
    }

    #[test]
    fn a_batch_after_the_peer_closed_an_idle_connection_arrives_on_a_new_one() {
        let (listener, mut transport) = listening();
        deliver(&mut transport, &mut batch_of(Framing::Newline, &["one"]));
        let first = accepted(&listener);
        // The end of the connection is there to be read before the next batch is sent.
        first.shutdown(std::net::Shutdown::Both).unwrap();
        socket::wait(transport.socket.as_ref().unwrap(), socket::Ready::Read, soon()).unwrap();
        drop(first);
        let mut batch = batch_of(Framing::Newline, &["two"]);
        transport.send(&mut batch, soon()).unwrap();
        assert!(batch.is_empty());
        drop(transport);
        assert_eq!(reading(accepted(&listener)).join().unwrap(), b"two\n");
    }

    #[test]
    fn what_the_peer_says_is_thrown_away_and_does_no_harm() {
        let (listener, mut transport) = listening();
        deliver(&mut transport, &mut batch_of(Framing::Newline, &["one"]));
        let mut peer = accepted(&listener);
        peer.write_all(&[b'!'; 50_000]).unwrap();
        socket::wait(transport.socket.as_ref().unwrap(), socket::Ready::Read, soon()).unwrap();
        transport.send(&mut batch_of(Framing::Newline, &["two"]), soon()).unwrap();
        let reader = reading(peer);
        transport.close(soon()).unwrap();
        assert_eq!(reader.join().unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn a_peer_that_echoes_everything_does_not_stop_the_stream() {
        let (listener, mut transport) = listening();
        let echo = std::thread::spawn(move || {
            let mut peer = accepted(&listener);
            let mut from = peer.try_clone().unwrap();
            io::copy(&mut from, &mut peer).unwrap()
        });
        let mut batch = batch_of(Framing::Newline, &large());
        let length = batch.remaining().len();
        deliver(&mut transport, &mut batch);
        transport.close(soon()).unwrap();
        assert_eq!(echo.join().unwrap(), length as u64);
    }

    #[test]
    fn a_router_that_is_not_there_is_down_and_not_slow() {
        let (listener, mut transport) = listening();
        drop(listener);
        let mut batch = batch_of(Framing::Newline, &["one"]);
        let error = transport.send(&mut batch, soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(batch.len(), 1);
    }

    #[test]
    fn close_gives_up_on_a_peer_that_does_not() {
        let (listener, mut transport) = listening();
        transport.send(&mut batch_of(Framing::Newline, &["one"]), soon()).unwrap();
        let _peer = accepted(&listener);
        assert!(socket::is_deadline(&transport.close(at_once()).unwrap_err()));
    }

    #[test]
    fn a_timeout_of_the_kernel_is_not_taken_for_the_deadline() {
        let kernel = io::Error::from_raw_os_error(if cfg!(windows) { 10060 } else { 110 });
        assert!(!socket::is_deadline(&socket::as_down(kernel)));
        assert!(socket::is_deadline(&socket::timed_out()));
    }

    /// A connection that stays a moment behind: short writes, as the kernel makes them under memory pressure.
    #[test]
    fn a_trickle_of_short_writes_arrives_whole() {
        let (listener, mut transport) = listening();
        let reader = std::thread::spawn(move || {
            let mut peer = accepted(&listener);
            let (mut read, mut space) = (Vec::new(), [0; 777]);
            while let Ok(count @ 1..) = peer.read(&mut space) {
                read.extend_from_slice(&space[..count]);
            }
            read
        });
        let mut batch = batch_of(Framing::Newline, &large());
        let sent = batch.remaining().to_vec();
        deliver(&mut transport, &mut batch);
        transport.close(soon()).unwrap();
        assert!(reader.join().unwrap() == sent);
    }
}
