//! `udp://host:port`: Metlog's default, one datagram a message.
//!
//! In: batches. Out: datagrams the kernel took. See [`datagram`](super::datagram) for what can be lost.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::super::framing::Framing;
use super::datagram::{widen, DatagramSocket, Datagrams, Open};
use super::resolve::Resolver;

/// How long a name's address is used before the name is looked up again: nothing else tells that a router
/// behind a silent firewall has moved.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The same when datagrams are refused.
const LOOK_AGAIN_REFUSED: Duration = Duration::from_secs(1);

/// Messages as UDP datagrams.
pub(super) type Udp = Datagrams<Opener>;

impl Udp {
    pub(super) fn to(host: &str, port: u16, framing: Framing, max_message_bytes: usize) -> Self {
        let opener = Opener { resolver: Resolver::new(host, port), turn: 0 };
        Datagrams::new(opener, framing, max_message_bytes)
    }
}

#[derive(Debug)]
pub(super) struct Opener {
    resolver: Resolver,
    /// Which of a name's addresses is next.
    turn: usize,
}

impl Open for Opener {
    type Socket = UdpSocket;

    const ERRORS_ARE_OLD: bool = true;

    const HAS_SEGMENTS: bool = true;

    fn open(&mut self, deadline: Instant) -> io::Result<UdpSocket> {
        let mut addresses = self.resolver.resolve(deadline)?;
        // Metlog's receivers bind to IPv4, and over UDP nothing tells at once that ::1 was the wrong localhost.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let first = self.turn % addresses.len();
        addresses.rotate_left(first);
        let mut failure = None;
        for address in addresses {
            match connected(address) {
                Ok(socket) => return Ok(socket),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    }

    /// A name is looked up again from time to time, and its next address taken when this one refuses.
    fn is_stale(&mut self, age: Duration, refused: bool) -> bool {
        let limit = if refused { LOOK_AGAIN_REFUSED } else { LOOK_AGAIN };
        let stale = self.resolver.literal().is_none() && age > limit;
        if stale && refused {
            self.turn = self.turn.wrapping_add(1);
        }
        stale
    }
}

fn connected(address: SocketAddr) -> io::Result<UdpSocket> {
    let any = match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    widen(&socket);
    Ok(socket)
}

impl DatagramSocket for UdpSocket {
    fn take_error(&self) -> io::Result<Option<io::Error>> {
        UdpSocket::take_error(self)
    }

    #[cfg(not(unix))]
    fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        UdpSocket::send(self, datagram)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::batch::Batch;
    use super::super::datagram::MAX_MESSAGE_BYTES;
    use super::super::socket;
    use super::super::support::{batch_of, deliver, soon};
    use super::super::Transport;
    use super::*;
    use crate::LossReason;

    fn router() -> (UdpSocket, Udp) {
        let router = UdpSocket::bind("127.0.0.1:0").unwrap();
        router.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let port = router.local_addr().unwrap().port();
        (router, Udp::to("127.0.0.1", port, Framing::Datagram, MAX_MESSAGE_BYTES))
    }

    fn received(router: &UdpSocket) -> String {
        let mut space = vec![0; 70_000];
        let bytes = router.recv(&mut space).unwrap();
        String::from_utf8_lossy(&space[..bytes]).into_owned()
    }

    fn sent(transport: &mut Udp, messages: &[&str]) -> Batch {
        let mut batch = batch_of(transport.framing(), messages);
        deliver(transport, &mut batch);
        batch
    }

    #[test]
    fn each_message_is_one_datagram_without_a_newline() {
        let (router, mut transport) = router();
        assert_eq!(transport.framing(), Framing::Datagram);
        let messages: Vec<_> = (0..100).map(|number| format!("{{\"number\":{number}}}")).collect();
        let texts: Vec<_> = messages.iter().map(String::as_str).collect();
        assert_eq!(sent(&mut transport, &texts).take_account(), (100, vec![]));
        for message in messages {
            // Blanks may follow: see `segments`.
            assert_eq!(received(&router).trim_end_matches(' '), message);
        }
    }

    #[test]
    fn a_message_of_60_000_bytes_arrives_and_is_the_longest_asked_for() {
        let (router, mut transport) = router();
        assert_eq!(transport.max_message_bytes(), 60_000);
        let longest = "x".repeat(60_000);
        sent(&mut transport, &[&longest]);
        assert!(received(&router) == longest);
    }

    #[test]
    fn a_message_too_large_for_a_datagram_costs_itself_only() {
        let (router, mut transport) = router();
        let huge = "x".repeat(70_000);
        let mut batch = sent(&mut transport, &[&huge, "one", &huge, &huge, "two", &huge]);
        assert_eq!(batch.take_account(), (2, vec![(LossReason::TooLarge, 4)]));
        assert_eq!([received(&router), received(&router)], ["one", "two"]);
    }

    #[test]
    fn what_is_refused_stays_and_is_sent_again_when_somebody_is_there() {
        let (router, mut transport) = router();
        let address = router.local_addr().unwrap();
        drop(router);
        let messages: Vec<_> = (0..200).map(|number| number.to_string()).collect();
        let mut batch = batch_of(Framing::Datagram, &messages);
        for _ in 0..3 {
            let deadline = soon();
            // The refusal may take a moment.
            let error = loop {
                match transport.send(&mut batch, deadline) {
                    Ok(()) => socket::nap(deadline).unwrap(),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            assert_eq!((batch.len(), batch.unconfirmed()), (200, 0));
        }
        let router = UdpSocket::bind(address).unwrap();
        router.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        deliver(&mut transport, &mut batch);
        assert_eq!(batch.take_account(), (200, vec![]));
        let came: Vec<_> = (0..200).map(|_| received(&router)).collect();
        assert!(came == messages, "{came:?}");
    }

    #[test]
    fn a_single_datagram_that_is_refused_a_moment_later_is_not_settled() {
        let (router, mut transport) = router();
        drop(router);
        let mut batch = batch_of(Framing::Datagram, &["one"]);
        transport.send(&mut batch, soon()).unwrap();
        assert_eq!((batch.len(), batch.unconfirmed()), (1, 1));
        socket::wait(transport.socket().unwrap(), socket::Ready::Read, soon()).unwrap();
        let error = transport.send(&mut batch, soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!((batch.len(), batch.unconfirmed()), (1, 0));
    }

    #[test]
    fn a_refusal_of_what_is_settled_costs_the_next_nothing() {
        let (router, mut transport) = router();
        let address = router.local_addr().unwrap();
        sent(&mut transport, &["one"]);
        drop(router);
        // A datagram that this transport knows nothing of is refused on its socket.
        let socket = transport.socket().unwrap();
        rustix::net::send(socket, b"zero", rustix::net::SendFlags::empty()).unwrap();
        socket::wait(socket, socket::Ready::Read, soon()).unwrap();
        let router = UdpSocket::bind(address).unwrap();
        router.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        sent(&mut transport, &["two", "three"]);
        assert_eq!([received(&router), received(&router)], ["two", "three"]);
    }

    #[test]
    fn localhost_means_ipv4_first_and_the_next_address_when_it_refuses() {
        let mut opener = Opener { resolver: Resolver::new("localhost", 9), turn: 0 };
        assert!(opener.open(soon()).unwrap().peer_addr().unwrap().is_ipv4());
        assert!(!opener.is_stale(Duration::ZERO, true), "one look-up a second is enough");
        assert!(opener.is_stale(Duration::from_secs(2), true));
        assert_eq!(opener.turn, 1);
        assert!(!opener.is_stale(Duration::from_secs(2), false));
        assert!(opener.is_stale(Duration::from_secs(61), false));
        assert_eq!(opener.turn, 1, "an address that refuses nothing is kept");
    }

    #[test]
    fn a_literal_address_is_never_looked_up_again() {
        let mut opener = Opener { resolver: Resolver::new("127.0.0.1", 9), turn: 0 };
        assert!(!opener.is_stale(Duration::from_secs(3600), true));
    }
}
