//! What TCP and Unix stream sockets share: connect when needed, write a batch, resume it or send it again.
//!
//! In: batches. Out: their bytes on a connection, each batch at least once. What the kernel took and the peer had
//! not yet read is lost when the peer dies; its kernel alone knows how much that was.

use std::io::{self, Read, Write};
use std::time::Instant;

use super::super::batch::Batch;
use super::super::framing::Framing;
use super::cursor::{Cursor, Sink};
use super::socket::{self, Waitable};
use super::Transport;

/// Reads of what a peer says, at most so many at a time: no router has anything to say.
const READS: usize = 16;

/// A connected, non-blocking stream socket.
pub(super) trait StreamSocket: Waitable + Read + Write + Send {
    /// Says that nothing more will be written.
    fn finish(&self) -> io::Result<()>;
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
    socket: Option<C::Socket>,
    cursor: Cursor,
}

impl<C: Connect> Stream<C> {
    pub(super) fn new(connector: C, framing: Framing) -> Self {
        Stream { connector, framing, socket: None, cursor: Cursor::default() }
    }

    /// The connection to write on: the one there is, unless its peer has gone or it is left with half a frame
    /// of a batch that was given up.
    fn connected(&mut self, batch: &Batch, deadline: Instant) -> io::Result<C::Socket> {
        if !self.cursor.is_in(batch) || (self.cursor.is_at_start() && !self.is_alive()) {
            self.disconnect();
        }
        match self.socket.take() {
            Some(socket) => Ok(socket),
            None => self.connector.connect(deadline),
        }
    }

    /// Whether the peer is still there. The first write to one that has closed succeeds and is lost, so this is
    /// asked before each batch.
    fn is_alive(&mut self) -> bool {
        matches!(self.socket.as_mut().map(heard), Some(Ok(Heard::Nothing | Heard::More)))
    }

    fn disconnect(&mut self) {
        self.socket = None;
        self.cursor.reset();
    }
}

impl<C: Connect> Transport for Stream<C> {
    fn framing(&self) -> Framing {
        self.framing
    }

    fn send(&mut self, batch: &mut Batch, deadline: Instant) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut socket = self.connected(batch, deadline)?;
        match self.cursor.write(batch, &mut Peer(&mut socket), deadline) {
            Ok(()) => {
                batch.delivered(batch.len());
                self.cursor.reset();
            }
            Err(error) if socket::is_deadline(&error) => {
                self.socket = Some(socket);
                return Err(error);
            }
            Err(error) => {
                // Nobody knows how much of it was read: the whole batch goes out again.
                self.disconnect();
                return Err(error);
            }
        }
        self.socket = Some(socket);
        Ok(())
    }

    /// Half-closes and waits for the peer to do the same: then it has read everything.
    fn close(&mut self, deadline: Instant) -> io::Result<()> {
        let Some(mut socket) = self.socket.take() else { return Ok(()) };
        self.cursor.reset();
        socket.finish().map_err(socket::as_down)?;
        loop {
            match heard(&mut socket)? {
                Heard::End => return Ok(()),
                Heard::Nothing | Heard::More => socket::wait(&socket, socket::Ready::Read, deadline)?,
            }
        }
    }
}

/// The other end of a connection, as somewhere to write.
struct Peer<'a, S>(&'a mut S);

impl<S: StreamSocket> Sink for Peer<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        socket::send(self.0, bytes).map_err(socket::as_down)
    }

    /// A peer that talks and is never heard stops reading, so it is heard while waiting. Whether it is gone is
    /// for the write to say: one that only stopped talking still reads.
    fn wait(&mut self, deadline: Instant) -> io::Result<()> {
        match heard(self.0) {
            Ok(Heard::Nothing | Heard::More) => socket::wait(self.0, socket::Ready::Either, deadline),
            Ok(Heard::End) | Err(_) => socket::wait(self.0, socket::Ready::Write, deadline),
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
    use std::thread::JoinHandle;
    use std::time::Duration;

    use super::super::support::{at_once, batch_of, soon};
    use super::super::tcp::Tcp;
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
        while transport.cursor.is_at_start() {
            let begun = Instant::now();
            let error = transport.send(&mut batch, at_once()).unwrap_err();
            assert!(socket::is_deadline(&error), "{error}");
            assert!(
                begun.elapsed() < Duration::from_secs(5),
                "the deadline was 50 ms: {:?}",
                begun.elapsed()
            );
        }
        assert_eq!(batch.len(), 200, "a batch is settled with its last byte");
        let peer = accepted(&listener);
        (listener, transport, peer, batch, sent)
    }

    #[test]
    fn a_batch_arrives_byte_for_byte_and_close_waits_until_it_is_read() {
        let (listener, mut transport) = listening();
        let mut batch = batch_of(transport.framing(), &numbered(3, "hello"));
        transport.send(&mut batch, soon()).unwrap();
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
        transport.send(&mut batch, soon()).unwrap();
        assert_eq!(batch.take_account(), (200, vec![]));
        transport.close(soon()).unwrap();
        assert!(reader.join().unwrap() == sent);
    }

    #[test]
    fn a_connection_broken_in_mid_batch_means_the_whole_batch_again() {
        let (listener, mut transport, mut peer, mut batch, sent) = stalled();
        peer.read_exact(&mut [0; 1000]).unwrap();
        drop(peer);
        let error = transport.send(&mut batch, soon()).unwrap_err();
        assert!(!socket::is_deadline(&error), "{error}");
        assert_eq!(batch.len(), 200);
        let reader = std::thread::spawn(move || reading(accepted(&listener)).join().unwrap());
        transport.send(&mut batch, soon()).unwrap();
        transport.close(soon()).unwrap();
        assert!(reader.join().unwrap() == sent);
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
        transport.send(&mut batch_of(Framing::Newline, &["one"]), soon()).unwrap();
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
        transport.send(&mut batch_of(Framing::Newline, &["one"]), soon()).unwrap();
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
        transport.send(&mut batch, soon()).unwrap();
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
        transport.send(&mut batch, soon()).unwrap();
        transport.close(soon()).unwrap();
        assert!(reader.join().unwrap() == sent);
    }
}
