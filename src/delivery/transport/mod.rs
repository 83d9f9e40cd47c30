//! Movers of bytes. In: a [`Batch`] of framed messages and a deadline. Out: the batch's account.
//!
//! A transport never waits past its deadline, connects when it first has something to send, and says of each
//! message whether it was delivered or lost. What it says nothing of is offered again.

pub(crate) mod capture;
mod cursor;
mod datagram;
#[cfg(all(test, unix))]
mod faulty;
mod file;
#[cfg(feature = "http")]
pub(crate) mod http;
mod resolve;
#[cfg(target_os = "linux")]
mod segments;
mod socket;
pub(crate) mod stdio;
mod stream;
#[cfg(test)]
pub(super) mod support;
mod tcp;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod trust;
mod udp;
mod unconfirmed;
#[cfg(unix)]
mod unix;
#[cfg(feature = "zmq")]
mod zmq;

use std::io;
use std::time::Instant;

use super::address::{Address, AddressError};
use super::batch::Batch;
use super::framing::Framing;

/// Moves framed messages to one destination. Implement it to send messages your own way; see
/// `examples/custom_transport.rs`.
///
/// Runs on a background thread. Whatever it logs through `tracing` or `log` is dropped and counted
/// (`recursive`), so it cannot feed itself.
pub trait Transport: Send {
    /// How messages must be framed for this transport.
    fn framing(&self) -> Framing {
        Framing::Newline
    }

    /// The longest message, in bytes before framing, that this transport takes. A longer one is cut: first its
    /// payload, then its largest field, and marked `fields.truncated = true`.
    fn max_message_bytes(&self) -> usize {
        usize::MAX
    }

    /// Sends as much of `batch` as it can before `deadline`, and settles it with
    /// [`Batch::delivered`] and [`Batch::lost`].
    ///
    /// # Errors
    /// [`TimedOut`](io::ErrorKind::TimedOut) or [`WouldBlock`](io::ErrorKind::WouldBlock) when the deadline came
    /// first: the destination is slow, and the rest is offered again at once. Any other error: the destination is down, and the rest is offered again after a
    /// pause that grows up to 5 s.
    fn send(&mut self, batch: &mut Batch, deadline: Instant) -> io::Result<()>;

    /// Nothing more will come: says goodbye to the other side so that what was sent is not lost.
    ///
    /// # Errors
    /// What was sent may not have arrived.
    fn close(&mut self, deadline: Instant) -> io::Result<()> {
        let _ = deadline;
        Ok(())
    }
}

/// What every transport opened from an address is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The longest message sent as one datagram.
    pub(crate) max_datagram_bytes: usize,
    /// The longest of Heka's frames sent as one.
    #[cfg(feature = "heka")]
    pub(crate) max_heka_datagram_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_datagram_bytes: datagram::MAX_MESSAGE_BYTES,
            #[cfg(feature = "heka")]
            max_heka_datagram_bytes: super::heka::MAX_DATAGRAM_BYTES,
        }
    }
}

impl Address {
    /// What moves bytes there; none for `off`. Nothing is connected or opened before there is something to send.
    ///
    /// # Errors
    /// A file or a variable that the address names is not what it should be.
    pub(crate) fn open(&self, limits: Limits) -> Result<Option<Box<dyn Transport>>, AddressError> {
        Ok(Some(match self {
            Address::Udp { host, port } => {
                Box::new(udp::Udp::to(host, *port, Framing::Datagram, limits.max_datagram_bytes))
            }
            Address::Tcp { host, port, framing } => Box::new(tcp::Tcp::to(host, *port, *framing)),
            #[cfg(unix)]
            Address::Unix { path, framing } => Box::new(unix::Unix::at(path, *framing)),
            #[cfg(unix)]
            Address::UnixDatagram { path } => {
                Box::new(unix::UnixDatagrams::at(path, Framing::Datagram, limits.max_datagram_bytes))
            }
            // Nobody can name one: no text is read as one, and nobody else can build one.
            #[cfg(not(unix))]
            Address::Unix { .. } | Address::UnixDatagram { .. } => return Ok(None),
            Address::Stdout => Box::new(stdio::Stdio::out()),
            Address::Stderr => Box::new(stdio::Stdio::error()),
            Address::File { path } => Box::new(file::LineFile::at(path)),
            #[cfg(feature = "http")]
            Address::Http { options, .. } => Box::new(http::Http::to(self, options)?),
            #[cfg(not(feature = "http"))]
            Address::Http { .. } => return Ok(None),
            #[cfg(feature = "tls")]
            Address::Tls { host, port, framing, tls } => {
                Box::new(tls::Tls::to(self, (host, *port), *framing, tls)?)
            }
            // Nobody can name one without its feature: no text is read as one, and nobody else can build one.
            #[cfg(not(feature = "tls"))]
            Address::Tls { .. } => return Ok(None),
            #[cfg(feature = "zmq")]
            Address::Zmq { host, port, options } => Box::new(zmq::Zmq::to(host, *port, options)),
            #[cfg(not(feature = "zmq"))]
            Address::Zmq { .. } => return Ok(None),
            #[cfg(feature = "heka")]
            Address::Heka { over, .. } => return over.open_for_heka(limits),
            #[cfg(not(feature = "heka"))]
            Address::Heka { .. } => return Ok(None),
            Address::Off => return Ok(None),
        }))
    }

    /// What moves Heka's frames there.
    #[cfg(feature = "heka")]
    fn open_for_heka(&self, limits: Limits) -> Result<Option<Box<dyn Transport>>, AddressError> {
        let (framing, most) = (Framing::Heka, limits.max_heka_datagram_bytes);
        Ok(Some(match self {
            Address::Udp { host, port } => Box::new(udp::Udp::to(host, *port, framing, most)),
            Address::Tcp { host, port, .. } => Box::new(tcp::Tcp::to(host, *port, framing)),
            #[cfg(feature = "tls")]
            Address::Tls { host, port, tls, .. } => {
                Box::new(tls::Tls::to(self, (host, *port), framing, tls)?)
            }
            #[cfg(unix)]
            Address::Unix { path, .. } => Box::new(unix::Unix::at(path, framing)),
            #[cfg(unix)]
            Address::UnixDatagram { path } => Box::new(unix::UnixDatagrams::at(path, framing, most)),
            // No other kind is read or made.
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_opens_with_its_framing_and_limit_and_off_opens_nothing() {
        let opened = |address: &str| address.parse::<Address>().unwrap().open(Limits::default()).unwrap();
        let expected = [
            ("udp://router.invalid", Framing::Datagram, 60_000),
            ("tcp://router.invalid", Framing::Newline, usize::MAX),
            ("tcp://router.invalid?framing=octet-count", Framing::OctetCount, usize::MAX),
            #[cfg(unix)]
            ("unix:///nowhere?framing=octet-count", Framing::OctetCount, usize::MAX),
            #[cfg(unix)]
            ("unixgram:///nowhere", Framing::Datagram, 60_000),
            #[cfg(feature = "http")]
            ("http://router.invalid/in", Framing::Newline, usize::MAX),
            ("file:///nowhere/file", Framing::Newline, usize::MAX),
            ("stdout:", Framing::Newline, usize::MAX),
            ("stderr:", Framing::Newline, usize::MAX),
        ];
        for (address, framing, limit) in expected {
            let mut transport = opened(address).unwrap();
            assert_eq!((transport.framing(), transport.max_message_bytes()), (framing, limit), "{address}");
            // Nothing to send and nothing to close: no destination is needed for that.
            transport.send(&mut Batch::default(), support::soon()).unwrap();
            transport.close(support::soon()).unwrap();
        }
        assert!(opened("off").is_none());
    }
}
