//! Accepted connections, whatever their family. In: a client's connection. Out: its bytes, within a time, and a way to
//! answer. Nothing can be lost here.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a client gets to make room for an answer.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// A client: its connection, and its address if its family has any.
pub(super) type Client = (Arc<dyn Stream>, Option<IpAddr>);

/// A listening socket, whatever its family.
pub(super) trait Listener: super::stop::Waitable {
    fn accept_one(&self) -> io::Result<Client>;
}

/// An accepted connection, whatever its family. Shared, not cloned: a clone would cost a second descriptor.
pub(super) trait Stream: Send + Sync {
    /// Blocking, with an end to the patience of writing.
    fn prepare(&self) -> io::Result<()>;
    /// How long a read may wait.
    fn set_patience(&self, patience: Option<Duration>) -> io::Result<()>;
    fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Never waits for longer than a client that reads at all needs.
    fn write_some(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Ends the reading from another thread.
    fn close(&self);
    /// Whether something has come that nobody has read yet.
    fn has_unread(&self) -> bool;
}

/// An address of a socket, whatever its family.
trait PeerAddress {
    fn ip_address(&self) -> Option<IpAddr>;
}

impl PeerAddress for SocketAddr {
    fn ip_address(&self) -> Option<IpAddr> {
        Some(self.ip())
    }
}

#[cfg(unix)]
impl PeerAddress for std::os::unix::net::SocketAddr {
    fn ip_address(&self) -> Option<IpAddr> {
        None
    }
}

macro_rules! stream {
    ($listener:ty, $stream:ty) => {
        impl Listener for $listener {
            fn accept_one(&self) -> io::Result<Client> {
                let (stream, address) = self.accept()?;
                Ok((Arc::new(stream), address.ip_address()))
            }
        }

        impl Stream for $stream {
            fn prepare(&self) -> io::Result<()> {
                self.set_nonblocking(false)?;
                self.set_write_timeout(Some(WRITE_PATIENCE))
            }

            fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
                self.set_read_timeout(patience)
            }

            fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
                let mut stream = self;
                stream.read(buffer)
            }

            fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
                let mut stream = self;
                stream.write(bytes)
            }

            fn close(&self) {
                // Fails when the client was faster.
                let _ = self.shutdown(Shutdown::Both);
            }

            #[cfg(unix)]
            fn has_unread(&self) -> bool {
                rustix::io::ioctl_fionread(self).is_ok_and(|bytes| bytes > 0)
            }

            #[cfg(not(unix))]
            fn has_unread(&self) -> bool {
                false
            }
        }
    };
}

stream!(TcpListener, TcpStream);
#[cfg(unix)]
stream!(UnixListener, UnixStream);

/// What a client may be talked to with.
pub(super) trait Conversation: Read + Write {
    /// How long the next read may wait, however many pieces it needs.
    fn set_patience(&mut self, patience: Duration) -> io::Result<()>;

    /// Whether bytes have come since then, of which a read that failed may have made nothing.
    fn has_heard(&self) -> bool;
}

/// A connection, as something that can be read and written.
pub(super) struct Plain {
    stream: Arc<dyn Stream>,
    /// What the operating system was told, so that it is not told again.
    patience: Option<Duration>,
    /// The read in progress does not wait beyond it.
    until: Option<Instant>,
    has_heard: bool,
}

impl Plain {
    pub(super) fn over(stream: Arc<dyn Stream>) -> Self {
        Plain { stream, patience: None, until: None, has_heard: false }
    }

    fn wait_at_most(&mut self, patience: Duration) -> io::Result<()> {
        if self.patience != Some(patience) {
            self.stream.set_patience(Some(patience))?;
            self.patience = Some(patience);
        }
        Ok(())
    }
}

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // An encrypted record may come in many pieces, and all of them together have that time.
        if let Some(until) = self.until.filter(|_| self.has_heard) {
            match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Err(ErrorKind::TimedOut.into()),
                left => self.wait_at_most(left)?,
            }
        }
        let count = self.stream.read_some(buffer)?;
        self.has_heard = true;
        Ok(count)
    }
}

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write_some(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Conversation for Plain {
    fn set_patience(&mut self, patience: Duration) -> io::Result<()> {
        self.until = Instant::now().checked_add(patience);
        self.has_heard = false;
        self.wait_at_most(patience)
    }

    fn has_heard(&self) -> bool {
        self.has_heard
    }
}
