//! Names to socket addresses, within a deadline.
//!
//! In: a host and a port. Out: addresses, asked for anew each time. Nothing can be lost here.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{sync_channel, Receiver, RecvTimeoutError};
use std::time::Instant;

use super::socket;

type Answer = io::Result<Vec<SocketAddr>>;

/// Looks one destination up.
#[derive(Debug)]
pub(super) struct Resolver {
    host: String,
    port: u16,
    /// A question the system has not answered yet.
    asked: Option<Receiver<Answer>>,
}

impl Resolver {
    pub(super) fn new(host: &str, port: u16) -> Self {
        Resolver { host: host.to_owned(), port, asked: None }
    }

    /// The address, if the host is one and not a name.
    pub(super) fn literal(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }

    /// At least one address. The system's resolver knows no deadline (a dead name server holds it for half a
    /// minute), so it is asked on a thread of its own; an answer that comes late is used by the next call.
    pub(super) fn resolve(&mut self, deadline: Instant) -> Answer {
        if let Some(address) = self.literal() {
            return Ok(vec![address]);
        }
        let asked = match self.asked.take() {
            Some(asked) => asked,
            None => self.ask()?,
        };
        match asked.recv_timeout(socket::time_left(deadline)?) {
            Ok(answer) => self.at_least_one(answer.map_err(socket::as_down)?),
            Err(RecvTimeoutError::Timeout) => {
                self.asked = Some(asked);
                Err(socket::timed_out())
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(io::Error::other("the look-up ended without an answer"))
            }
        }
    }

    fn ask(&self) -> io::Result<Receiver<Answer>> {
        let (answer, asked) = sync_channel(1);
        let (host, port) = (self.host.clone(), self.port);
        let started = std::thread::Builder::new().name(String::from("metlog-resolve")).spawn(move || {
            // Nobody listens any more when the transport is gone.
            let _ = answer.send((host.as_str(), port).to_socket_addrs().map(Iterator::collect));
        });
        started.map_err(socket::no_thread)?;
        Ok(asked)
    }

    fn at_least_one(&self, addresses: Vec<SocketAddr>) -> Answer {
        match addresses.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, format!("{:?} has no address", self.host))),
            false => Ok(addresses),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::soon;
    use super::*;

    #[test]
    fn a_literal_address_needs_no_look_up_and_no_time() {
        let past = Instant::now();
        assert_eq!(
            Resolver::new("127.0.0.1", 5565).resolve(past).unwrap(),
            ["127.0.0.1:5565".parse().unwrap()]
        );
        assert_eq!(Resolver::new("::1", 1).resolve(past).unwrap(), ["[::1]:1".parse().unwrap()]);
    }

    #[test]
    fn localhost_is_found_again_and_again() {
        let mut resolver = Resolver::new("localhost", 7);
        for _ in 0..2 {
            let found = resolver.resolve(soon()).unwrap();
            assert!(
                found.iter().all(|address| address.ip().is_loopback() && address.port() == 7),
                "{found:?}"
            );
        }
    }

    #[test]
    fn an_answer_later_than_the_deadline_is_used_by_the_next_call() {
        let (answer, asked) = sync_channel(1);
        let mut resolver = Resolver { host: String::from("slow.invalid"), port: 1, asked: Some(asked) };
        let late = resolver.resolve(Instant::now() + std::time::Duration::from_millis(5)).unwrap_err();
        assert!(socket::is_deadline(&late));
        let address = "192.0.2.1:1".parse().unwrap();
        answer.send(Ok(vec![address])).unwrap();
        assert_eq!(resolver.resolve(soon()).unwrap(), [address]);
    }
}
