//! `tcp://host:port`: a stream of frames to a router that may be slow, restart or move.
//!
//! In: batches. Out: bytes on a connection. See [`stream`](super::stream) for what can be lost.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::super::framing::Framing;
use super::resolve::Resolver;
use super::socket;
use super::stream::{Connect, Stream, StreamSocket};
use super::unconfirmed;

/// The shortest time an address is given to answer when there are several.
const SHORTEST_TRY: Duration = Duration::from_millis(1);

/// Frames over TCP.
pub(super) type Tcp = Stream<Connector>;

impl Tcp {
    pub(super) fn to(host: &str, port: u16, framing: Framing) -> Self {
        Stream::new(Connector::to(host, port), framing)
    }
}

#[derive(Debug)]
pub(super) struct Connector {
    resolver: Resolver,
}

impl Connector {
    pub(super) fn to(host: &str, port: u16) -> Self {
        Connector { resolver: Resolver::new(host, port) }
    }
}

impl Connect for Connector {
    type Socket = TcpStream;

    /// Tries every address of the name; each gets its share of the time that is left, so that one which
    /// swallows packets does not hide one that answers.
    fn connect(&mut self, deadline: Instant) -> io::Result<TcpStream> {
        let addresses = self.resolver.resolve(deadline)?;
        let mut failure = socket::timed_out();
        for (tried, address) in addresses.iter().enumerate() {
            let share = socket::time_left(deadline)? / (addresses.len() - tried) as u32;
            match connect_to(address, share.max(SHORTEST_TRY)) {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(socket::as_down(failure))
    }
}

fn connect_to(address: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(address, timeout)?;
    // Connecting to a free port of this host can meet itself (TCP's simultaneous open): nobody is there.
    if stream.local_addr().ok() == stream.peer_addr().ok() {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nonblocking(true)?;
    // A batch is as much as there is to say; holding its tail back for an acknowledgement gains nothing.
    let _ = stream.set_nodelay(true);
    keep_alive(&stream);
    Ok(stream)
}

/// An idle connection that a firewall forgot or whose peer lost power is noticed in a few minutes, not with the
/// first batch after it. A peer that is alive and does not read is waited for.
#[cfg(target_os = "linux")]
fn keep_alive(stream: &TcpStream) {
    use rustix::net::sockopt;
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, Duration::from_secs(60));
    let _ = sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10));
}

#[cfg(not(target_os = "linux"))]
fn keep_alive(_: &TcpStream) {}

impl StreamSocket for TcpStream {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn is_silent(&self, at_least: Duration) -> bool {
        unconfirmed::is_silent(self, at_least)
    }
}
