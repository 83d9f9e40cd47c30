//! `tls://host:port`: the stream of `tcp://`, encrypted, to a receiver that has shown who it is.
//!
//! In: batches. Out: bytes on a connection, and never one of them in the clear. See [`stream`](super::stream) for what can
//! be lost: a message is delivered when the peer's kernel has acknowledged all of the encrypted bytes it is in.
//!
//! A receiver may refuse this program's certificate after this side of a TLS 1.3 handshake is done, and bytes that are
//! written until then would be acknowledged by its kernel and read by nobody. So the first word of the receiver after the
//! handshake, usually a session ticket, is waited for, though not for long, because some never say one.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ProtocolVersion};

use super::super::address::{Address, AddressError, TlsFiles};
use super::super::framing::Framing;
use super::socket::{self, Ready};
use super::stream::{Connect, Stream, StreamSocket};
use super::tcp::Connector;
use super::trust::{self, Trust};
use super::unconfirmed;

/// How long a connection and its handshake may take, in as many calls as that is.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// How long the receiver's first word after the handshake is waited for.
const FIRST_WORD_TIME: Duration = Duration::from_millis(500);
/// What is encrypted at a time: little enough that a connection which breaks has little to repeat.
const AT_A_TIME: usize = 64 * 1024;

/// Frames over TLS.
pub(super) type Tls = Stream<TlsConnector>;

impl Tls {
    /// What `address` says.
    ///
    /// # Errors
    /// A file that it names is not what it should be, or its host cannot be the name in a certificate.
    pub(super) fn to(
        address: &Address,
        (host, port): (&str, u16),
        framing: Framing,
        files: &TlsFiles,
    ) -> Result<Self, AddressError> {
        Ok(Stream::new(TlsConnector::to(address, (host, port), files)?, framing))
    }
}

/// Makes encrypted connections, each in as many calls as it takes.
#[derive(Debug)]
pub(super) struct TlsConnector {
    tcp: Connector,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// A connection that a deadline came before.
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    socket: TlsSocket,
    at: Instant,
    /// When the handshake was done.
    agreed: Option<Instant>,
}

impl Connect for TlsConnector {
    type Socket = TlsSocket;

    fn connect(&mut self, deadline: Instant) -> io::Result<TlsSocket> {
        let mut begun = match self.begun.take() {
            Some(begun) => begun,
            None => self.begin(deadline)?,
        };
        match begun.go_on(deadline) {
            Ok(()) => Ok(begun.socket),
            Err(error) if !socket::is_deadline(&error) => Err(error),
            Err(_) if begun.at.elapsed() >= HANDSHAKE_TIME => {
                let problem = format!("no TLS handshake within {} s", HANDSHAKE_TIME.as_secs());
                Err(io::Error::new(io::ErrorKind::NotConnected, problem))
            }
            Err(error) => {
                self.begun = Some(begun);
                Err(error)
            }
        }
    }
}

impl TlsConnector {
    fn to(address: &Address, (host, port): (&str, u16), files: &TlsFiles) -> Result<Self, AddressError> {
        let unusable = |problem| AddressError::unusable(address, problem, trust::ACCEPTED);
        let config = Trust::read(files).and_then(|trust| trust.client_config()).map_err(unusable)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            AddressError::unusable(address, format!("host {host:?}"), "a name or an IP address")
        })?;
        let tcp = Connector::to(host, port);
        Ok(TlsConnector { tcp, config: Arc::new(config), name, begun: None })
    }

    fn begin(&mut self, deadline: Instant) -> io::Result<Begun> {
        let tcp = self.tcp.connect(deadline)?;
        let tls = ClientConnection::new(Arc::clone(&self.config), self.name.clone()).map_err(failed)?;
        let socket = TlsSocket { tcp, tls, out: Vec::new(), taken: 0, is_finishing: false };
        Ok(Begun { socket, at: Instant::now(), agreed: None })
    }
}

impl Begun {
    fn go_on(&mut self, deadline: Instant) -> io::Result<()> {
        while self.socket.tls.is_handshaking() {
            self.socket.exchange(deadline)?;
        }
        // The last flight of the handshake is ours, and is still to go out.
        self.socket.push()?;
        let until = *self.agreed.get_or_insert_with(Instant::now) + FIRST_WORD_TIME;
        while self.socket.may_be_refused() && Instant::now() < until {
            match self.socket.exchange(deadline.min(until)) {
                Err(error) if socket::is_deadline(&error) && Instant::now() < until => return Err(error),
                Err(error) if socket::is_deadline(&error) => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }
}

/// A connection that is encrypted or not there.
pub(super) struct TlsSocket {
    tcp: TcpStream,
    tls: ClientConnection,
    /// Encrypted bytes, of which the kernel has taken the first so many.
    out: Vec<u8>,
    taken: usize,
    /// Once all of them are taken, the connection is closed in this direction.
    is_finishing: bool,
}

impl fmt::Debug for TlsSocket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TlsSocket").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

impl TlsSocket {
    /// Gives the kernel what it takes of the encrypted bytes.
    fn push(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.out)?;
        }
        while self.taken < self.out.len() {
            match send_on(&self.tcp, &self.out[self.taken..]) {
                Ok(count) => self.taken += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(socket::as_down(error)),
            }
        }
        self.out.clear();
        self.taken = 0;
        if self.is_finishing {
            self.is_finishing = false;
            self.tcp.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    /// Takes what has come, and answers what TLS itself was asked. Whether anything came; `false` is the end.
    fn pull(&mut self) -> io::Result<bool> {
        let count = self.tls.read_tls(&mut self.tcp)?;
        let outcome = self.tls.process_new_packets();
        // An alert of ours is worth sending, and not worth waiting for.
        let pushed = self.push();
        outcome.map_err(failed)?;
        pushed.map(|()| count > 0)
    }

    /// One step of a handshake, or of what follows it: sends, waits, and hears.
    fn exchange(&mut self, deadline: Instant) -> io::Result<()> {
        self.push()?;
        match self.pull() {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the router closed the connection during the TLS handshake",
            )),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(Ready::Read, deadline),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(socket::as_down(error)),
        }
    }

    /// Whether the other side may still refuse what it was shown. Before TLS 1.3 the handshake itself tells.
    fn may_be_refused(&self) -> bool {
        self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3)
            && self.tls.tls13_tickets_received() == 0
    }

    fn has_to_push(&self) -> bool {
        self.taken < self.out.len()
    }
}

impl Read for TlsSocket {
    /// What the peer has said; 0 is its end, whether it said goodbye or not: nothing that it says is used.
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        self.push()?;
        loop {
            match self.tls.reader().read(space) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                outcome => return outcome,
            }
            if !self.pull()? {
                return Ok(0);
            }
        }
    }
}

impl Write for TlsSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push()?;
        if self.has_to_push() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.tls.writer().write(&bytes[..bytes.len().min(AT_A_TIME)])?;
        self.push()?;
        match count {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

#[cfg(unix)]
impl AsFd for TlsSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

impl StreamSocket for TlsSocket {
    /// Says goodbye, and closes this direction as soon as that is out.
    fn finish(&mut self) -> io::Result<()> {
        self.tls.send_close_notify();
        self.is_finishing = true;
        self.push()
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }

    fn wait(&self, ready: Ready, deadline: Instant) -> io::Result<()> {
        // Whatever is waited for, what is left to push may be what the other side waits for.
        let ready = if self.has_to_push() { Ready::Either } else { ready };
        socket::wait(&self.tcp, ready, deadline)
    }

    /// Encrypted bytes that have not arrived. A message has no fewer of them than bytes of its own, so that what is
    /// before so many bytes of messages has arrived.
    fn unconfirmed(&self) -> io::Result<usize> {
        Ok(self.out.len() - self.taken + unconfirmed::unconfirmed(&self.tcp)?)
    }
}

#[cfg(unix)]
fn send_on(tcp: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    socket::send(tcp, bytes)
}

#[cfg(not(unix))]
fn send_on(mut tcp: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    socket::send(&mut tcp, bytes)
}

fn failed(error: rustls::Error) -> io::Error {
    io::Error::other(format!("TLS: {error}"))
}

#[cfg(test)]
mod tests;
