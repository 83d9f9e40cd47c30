//! Accepted connections, whatever their family. In: a client's connection. Out: its bytes, within a time, and a way to
//! answer. Nothing can be lost here.

use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a client gets to make room for an answer.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// A listening socket, whatever its family.
pub(super) trait Listener: super::stop::Waitable {
    fn accept_one(&self) -> io::Result<Arc<dyn Stream>>;
}

/// An accepted connection, whatever its family. Shared, not cloned: a clone would cost a second descriptor.
pub(super) trait Stream: Send + Sync {
    /// Blocking, and waiting for `idle` at most.
    fn prepare(&self, idle: Option<Duration>) -> io::Result<()>;
    fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Never waits for longer than a client that reads at all needs.
    #[cfg(any(feature = "http", feature = "tls", feature = "zmq"))]
    fn write_some(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Ends the reading from another thread.
    fn close(&self);
}

macro_rules! stream {
    ($listener:ty, $stream:ty) => {
        impl Listener for $listener {
            fn accept_one(&self) -> io::Result<Arc<dyn Stream>> {
                Ok(Arc::new(self.accept()?.0))
            }
        }

        impl Stream for $stream {
            fn prepare(&self, idle: Option<Duration>) -> io::Result<()> {
                self.set_nonblocking(false)?;
                self.set_write_timeout(Some(WRITE_PATIENCE))?;
                self.set_read_timeout(idle)
            }

            fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
                let mut stream = self;
                stream.read(buffer)
            }

            #[cfg(any(feature = "http", feature = "tls", feature = "zmq"))]
            fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
                let mut stream = self;
                io::Write::write(&mut stream, bytes)
            }

            fn close(&self) {
                // Fails when the client was faster.
                let _ = self.shutdown(Shutdown::Both);
            }
        }
    };
}

stream!(TcpListener, TcpStream);
#[cfg(unix)]
stream!(UnixListener, UnixStream);

/// A connection, as something that can be read and written.
pub(super) struct Plain {
    stream: Arc<dyn Stream>,
    /// No read waits beyond it.
    deadline: Option<Instant>,
}

impl Plain {
    pub(super) fn over(stream: Arc<dyn Stream>) -> Self {
        Plain { stream, deadline: None }
    }

    #[cfg(feature = "tls")]
    pub(super) fn set_deadline(
        &mut self,
        deadline: Option<Instant>,
        idle: Option<Duration>,
    ) -> io::Result<()> {
        self.deadline = deadline;
        self.stream.prepare(idle)
    }

    #[cfg(feature = "http")]
    pub(super) fn set_patience(&mut self, patience: Duration) -> io::Result<()> {
        self.stream.prepare(Some(patience))
    }
}

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(deadline) = self.deadline {
            match deadline.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Err(ErrorKind::TimedOut.into()),
                left => self.stream.prepare(Some(left))?,
            }
        }
        self.stream.read_some(buffer)
    }
}

#[cfg(any(feature = "http", feature = "tls", feature = "zmq"))]
impl io::Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write_some(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(feature = "http")]
impl super::http::Conversation for Plain {
    fn set_patience(&mut self, patience: Duration) -> io::Result<()> {
        Plain::set_patience(self, patience)
    }
}
