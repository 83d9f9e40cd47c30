//! The statsd output: counters, timers and gauges. In: messages. Out: datagrams of statsd lines, each message in one of
//! them, once.
//!
//! Lost here, and counted as `failed`: what is no metric that statsd can take (`line.rs` says why), and datagrams that the
//! kernel refuses or that the other side is known to have refused. UDP knows of little else: what a network or a full
//! receive buffer drops was `delivered`.

pub(crate) mod line;
mod sender;

use std::io;
use std::net::ToSocketAddrs as _;
use std::sync::Arc;

use super::{Endpoint, Output, Place};
use crate::router::received::Received;
use sender::Sender;

/// What fits an Ethernet frame whatever the route: 1,500 bytes less 40 for IPv6, 8 for UDP, 20 for tunnels on the way.
const DATAGRAM_BYTES: usize = 1_432;

/// Less holds no line worth sending.
const MIN_DATAGRAM_BYTES: usize = 64;

/// The most that UDP can carry over IPv4.
const MAX_DATAGRAM_BYTES: usize = 65_507;

/// Counters, timers and gauges, to a statsd server over UDP.
///
/// | type | line | a message that is refused |
/// |---|---|---|
/// | `counter` | `LOGGER.NAME:3\|c`, `LOGGER.NAME:3\|c\|@0.25` | its payload is no decimal number |
/// | `timer` | `LOGGER.NAME:12.75\|ms`, also with a rate | the same, or its payload is negative |
/// | `gauge` | `LOGGER.NAME:42.5\|g` | its payload is no decimal number |
/// | any other | | always: route such messages elsewhere |
///
/// The name is `fields.name`, and a message without one is refused. Before it stands `fields.logger`, or if there is none
/// the message's logger, if there is one. Of both only ASCII letters, digits, `_`, `-` and `.` come through: `::` becomes
/// `.`, white space `_`, `/` becomes `-`, anything else `_`, and dots neither begin nor end a name nor follow each other.
/// So a message is one metric, whatever it says. A name on its own that would break statsd's tables (`constructor`,
/// `__proto__`, ...) is refused.
///
/// `fields.rate` says which part of all events the client has sent: below 1 it becomes `@RATE` and statsd scales by it,
/// once. This output samples nothing itself, so no rate is applied twice. A rate of 1 or more, or none, is left out; one
/// that is not above 0 is refused. A gauge has no rate: its value is not a sum. A gauge below zero is two lines, `0` and
/// the value, because statsd takes a signed value for a change.
///
/// Lines wait up to 10 ms for others to share a datagram.
///
/// ```
/// use tracing_metlog::router::{Matcher, Route, StatsdOutput};
///
/// let output = StatsdOutput::new("127.0.0.1:8125").prefix("shop");
/// let route = Route::new(Matcher::types(["counter", "timer", "gauge"]), output.into());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsdOutput {
    address: String,
    prefix: String,
    datagram_bytes: usize,
}

impl StatsdOutput {
    /// To the server at `HOST:PORT`. A name is looked up when the first line is sent, again every minute, and when the
    /// server refuses; what comes while it leads nowhere is `failed`.
    pub fn new(address: impl Into<String>) -> Self {
        StatsdOutput { address: address.into(), prefix: String::new(), datagram_bytes: DATAGRAM_BYTES }
    }

    /// Stands before every name, with a dot behind it: ASCII letters, digits, `_`, `-` and `.`. Default: nothing.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The longest datagram, 64 to 65,507 bytes. A metric that would be longer alone is refused. Default: 1,432, which
    /// passes Ethernet whole.
    #[must_use]
    pub fn datagram_bytes(mut self, bytes: usize) -> Self {
        self.datagram_bytes = bytes;
        self
    }

    fn check(&self) -> Result<(), String> {
        let has_port = self
            .address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
        if !has_port {
            return Err(format!("address: {:?}: accepted is HOST:PORT", self.address));
        }
        if line::key(&[&self.prefix]) != self.prefix {
            return Err(format!(
                "prefix: {:?}: accepted are ASCII letters, digits, _, - and single dots between them",
                self.prefix
            ));
        }
        match self.datagram_bytes {
            MIN_DATAGRAM_BYTES..=MAX_DATAGRAM_BYTES => Ok(()),
            bytes => Err(format!(
                "datagram_bytes: {bytes}: accepted is {MIN_DATAGRAM_BYTES} to {MAX_DATAGRAM_BYTES}"
            )),
        }
    }
}

impl From<StatsdOutput> for Output {
    fn from(settings: StatsdOutput) -> Self {
        Output::new(settings)
    }
}

impl Endpoint for StatsdOutput {
    fn name(&self) -> String {
        format!("statsd:{}", self.address)
    }

    fn check(&self) -> io::Result<()> {
        let checked = StatsdOutput::check(self);
        checked.map_err(|problem| io::Error::new(io::ErrorKind::InvalidInput, problem))
    }

    fn settings(&self) -> String {
        format!("{self:?}")
    }

    fn open(self: Box<Self>) -> io::Result<Place> {
        Endpoint::check(&*self)?;
        let resolve = |address: &str| address.to_socket_addrs().map(Iterator::collect);
        let writer = Box::new(Sender::new(self.address, self.datagram_bytes, Box::new(resolve)));
        let (prefix, limit) = (self.prefix, self.datagram_bytes);
        let draw = move |message: &Received<'_>, out: &mut Vec<u8>| {
            sender::frame(&line::lines(&prefix, message.message(), limit)?, out)
        };
        Ok(Place { draw: Some(Arc::new(draw)), writer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_refused_and_say_what_is_accepted() {
        for (output, expected) in [
            (StatsdOutput::new("localhost"), "address: \"localhost\": accepted is HOST:PORT"),
            (StatsdOutput::new("localhost:0"), "address: \"localhost:0\": accepted is HOST:PORT"),
            (StatsdOutput::new("h:1").prefix("a."), "prefix: \"a.\": accepted are ASCII letters"),
            (StatsdOutput::new("h:1").prefix("a:b"), "prefix: \"a:b\": accepted are ASCII letters"),
            (StatsdOutput::new("h:1").datagram_bytes(63), "datagram_bytes: 63: accepted is 64 to 65507"),
        ] {
            let error = Box::new(output).open().err().expect(expected).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
