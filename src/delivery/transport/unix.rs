//! `unix:///path` and `unixgram:///path`: a router on the same host.
//!
//! In: batches. Out: bytes or datagrams at a socket in the file system. See [`stream`](super::stream) and
//! [`datagram`](super::datagram) for what can be lost; a full receiver is waited for, so a Unix datagram the
//! kernel took is one the receiver can read.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::super::framing::Framing;
use super::datagram::{widen, DatagramSocket, Datagrams, Open};
#[cfg(target_os = "linux")]
use super::socket;
use super::stream::{Connect, Stream, StreamSocket};

/// A socket in the file system.
#[derive(Debug)]
pub(super) struct SocketPath(PathBuf);

/// Frames over a Unix stream socket.
pub(super) type Unix = Stream<SocketPath>;

impl Unix {
    pub(super) fn at(path: &Path, framing: Framing) -> Self {
        Stream::new(SocketPath(path.to_owned()), framing)
    }
}

impl Connect for SocketPath {
    type Socket = UnixStream;

    fn connect(&mut self, deadline: Instant) -> io::Result<UnixStream> {
        let stream = connected(&self.0, deadline)?;
        // The fewer times the router and this thread wake each other, the better.
        widen(&stream);
        Ok(stream)
    }
}

/// On Linux a connection waits while the backlog of a router that does not accept is full, and only a
/// non-blocking socket can be given a deadline.
#[cfg(target_os = "linux")]
fn connected(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    use rustix::io::Errno;
    use rustix::net::{connect, socket_with, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match connect(&stream, &address) {
            Ok(()) => return Ok(UnixStream::from(stream)),
            Err(Errno::AGAIN) => socket::nap(deadline)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Elsewhere a full backlog refuses.
#[cfg(not(target_os = "linux"))]
fn connected(path: &Path, _: Instant) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

impl StreamSocket for UnixStream {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// Messages as Unix datagrams.
pub(super) type UnixDatagrams = Datagrams<SocketPath>;

impl UnixDatagrams {
    pub(super) fn at(path: &Path, framing: Framing, max_message_bytes: usize) -> Self {
        Datagrams::new(SocketPath(path.to_owned()), framing, max_message_bytes)
    }
}

impl Open for SocketPath {
    type Socket = UnixDatagram;

    /// Here "refused" is about this very datagram: the router that had the socket is gone.
    const ERRORS_ARE_OLD: bool = false;

    const HAS_SEGMENTS: bool = false;

    fn open(&mut self, _: Instant) -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(&self.0)?;
        socket.set_nonblocking(true)?;
        widen(&socket);
        Ok(socket)
    }
}

impl DatagramSocket for UnixDatagram {
    fn take_error(&self) -> io::Result<Option<io::Error>> {
        UnixDatagram::take_error(self)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    use super::super::super::batch::Batch;
    use super::super::socket;
    use super::super::support::{at_once, batch_of, deliver, soon, Directory};
    use super::super::Transport;
    use super::*;
    use crate::LossReason;

    #[test]
    fn a_batch_arrives_over_a_stream_socket_and_again_after_a_restart() {
        let directory = Directory::new();
        let path = directory.file("router");
        let mut transport = Unix::at(&path, Framing::Newline);
        for _ in 0..2 {
            let listener = UnixListener::bind(&path).unwrap();
            let mut batch = batch_of(Framing::Newline, &["one", "two"]);
            let reader = std::thread::spawn(move || {
                let mut read = String::new();
                // A moment's reading: as much as one batch has, then the router goes away.
                listener.accept().unwrap().0.take(8).read_to_string(&mut read).unwrap();
                read
            });
            deliver(&mut transport, &mut batch);
            assert_eq!(reader.join().unwrap(), "one\ntwo\n");
            std::fs::remove_file(&path).unwrap();
        }
    }

    // Elsewhere a full backlog refuses at once.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_router_that_does_not_accept_is_waited_for_no_longer_than_the_deadline() {
        let directory = Directory::new();
        let path = directory.file("router");
        let _listener = UnixListener::bind(&path).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            let mut transport = Unix::at(&path, Framing::Newline);
            match transport.send(&mut batch_of(Framing::Newline, &["one"]), at_once()) {
                Ok(()) => waiting.push(transport),
                Err(error) => break error,
            }
            assert!(waiting.len() < 10_000, "the backlog never fills");
        };
        assert!(socket::is_deadline(&error), "{error}");
    }

    #[test]
    fn a_missing_socket_is_down() {
        let directory = Directory::new();
        let mut batch = batch_of(Framing::Newline, &["one"]);
        let path = directory.file("none");
        let stream = Unix::at(&path, Framing::Newline).send(&mut batch, soon()).unwrap_err();
        let datagram =
            UnixDatagrams::at(&path, Framing::Datagram, 60_000).send(&mut batch, soon()).unwrap_err();
        assert_eq!([stream.kind(), datagram.kind()], [io::ErrorKind::NotFound; 2]);
        assert_eq!(batch.len(), 1);
    }

    fn received(router: &UnixDatagram, count: usize) -> Vec<String> {
        router.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let mut space = vec![0; 70_000];
        (0..count)
            .map(|_| {
                router.recv(&mut space).map(|bytes| String::from_utf8_lossy(&space[..bytes]).into_owned())
            })
            .collect::<Result<_, _>>()
            .unwrap()
    }

    #[test]
    fn more_datagrams_than_the_receiver_has_room_for_wait_for_it() {
        let directory = Directory::new();
        let path = directory.file("router");
        let router = UnixDatagram::bind(&path).unwrap();
        let messages: Vec<_> = (0..3000).map(|number| format!("{number} {}", "x".repeat(500))).collect();
        let mut batch = batch_of(Framing::Datagram, &messages);
        let mut transport = UnixDatagrams::at(&path, Framing::Datagram, 60_000);
        let error = transport.send(&mut batch, at_once()).unwrap_err();
        assert!(socket::is_deadline(&error), "{error}");
        let reader = std::thread::spawn(move || received(&router, 3000));
        transport.send(&mut batch, soon()).unwrap();
        assert_eq!(batch.take_account(), (3000, vec![]));
        assert!(reader.join().unwrap() == messages);
    }

    #[test]
    fn a_datagram_router_that_restarts_is_found_again() {
        let directory = Directory::new();
        let path = directory.file("router");
        let mut transport = UnixDatagrams::at(&path, Framing::Datagram, 60_000);
        let send = |transport: &mut UnixDatagrams, batch: &mut Batch| transport.send(batch, soon());

        let router = UnixDatagram::bind(&path).unwrap();
        send(&mut transport, &mut batch_of(Framing::Datagram, &["one"])).unwrap();
        assert_eq!(received(&router, 1), ["one"]);
        drop(router);
        std::fs::remove_file(&path).unwrap();

        let mut batch = batch_of(Framing::Datagram, &["two"]);
        send(&mut transport, &mut batch).unwrap_err();
        assert_eq!(batch.len(), 1, "refused here is about this very datagram");
        let router = UnixDatagram::bind(&path).unwrap();
        send(&mut transport, &mut batch).unwrap();
        assert_eq!(received(&router, 1), ["two"]);
    }

    #[test]
    fn a_datagram_larger_than_the_socket_takes_costs_itself_only() {
        let directory = Directory::new();
        let path = directory.file("router");
        let router = UnixDatagram::bind(&path).unwrap();
        let huge = "x".repeat(8 << 20);
        let mut batch = batch_of(Framing::Datagram, &["one", &huge, "two"]);
        UnixDatagrams::at(&path, Framing::Datagram, usize::MAX).send(&mut batch, soon()).unwrap();
        assert_eq!(batch.take_account(), (2, vec![(LossReason::TooLarge, 1)]));
        assert_eq!(received(&router, 2), ["one", "two"]);
    }
}
