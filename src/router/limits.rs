//! What the clients of an input may do. In: builder calls. Out: limits, or an error if the input has no use for one.

use std::io::{self, ErrorKind};
use std::time::Duration;

use super::config::{Address, Input};
#[cfg(feature = "heka")]
use super::frames::HekaInput;
use super::peers::Network;

/// Much longer than any network takes for a message, and short enough that a thousand clients that never end theirs do
/// not stay.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(10);

/// What unfinished messages, or bodies, of all connections take together, beyond what each has of its own.
const UNFINISHED_BYTES: usize = 16 * 1024 * 1024;

/// Room for 80 ms of 100,000 datagrams a second, as the kernel counts them (about 800 bytes for a short one).
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// A time that every clock can count: the operating system takes zero for "for ever", and nothing can name the end of
/// somebody's `Duration::MAX`.
pub(super) fn waitable(time: Duration) -> Duration {
    time.clamp(Duration::from_millis(1), Duration::from_secs(365 * 86_400))
}

/// Limits that have a default for each kind of input; `None` where nothing was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) allow: Vec<Network>,
    message_deadline: Option<Duration>,
    pub(super) max_connections_per_peer: Option<usize>,
    max_unfinished_bytes: Option<usize>,
    receive_buffer_bytes: Option<usize>,
}

/// Who may send, how much and how long.
impl Input {
    /// Takes messages from this address or network too, and no longer from everybody: for UDP each datagram is looked at,
    /// for TCP and HTTP each connection before a byte of it is read. What comes from elsewhere is dropped or closed without
    /// a word and counted ([`RefusedReason::NotAllowed`](super::RefusedReason::NotAllowed)). May be given more than once.
    /// Default: everybody.
    ///
    /// The address of a datagram can be forged by anybody whose network lets him. Peers of a Unix socket have no address:
    /// there the router does not start with this, and the permissions of the directory say who may connect.
    ///
    /// ```
    /// use tracing_metlog::router::Input;
    ///
    /// let input = Input::udp("0.0.0.0:5565").allow("10.0.0.0/8".parse()?).allow("127.0.0.1".parse()?);
    /// # Ok::<(), tracing_metlog::router::RouterError>(())
    /// ```
    #[must_use]
    pub fn allow(mut self, network: Network) -> Self {
        self.limits.allow.push(network);
        self
    }

    /// How long a message may take from its first byte to its last, and likewise the head of an HTTP request and the start
    /// of an encrypted connection. A body gets as long, and a second more for each 64 KiB of it that have come. Who takes
    /// longer is closed, after an answer 408 if it is a request, and counted
    /// ([`RefusedReason::TooSlow`](super::RefusedReason::TooSlow)). Default: 10 s. Not for datagrams, which come whole.
    #[must_use]
    pub fn message_deadline(mut self, deadline: Duration) -> Self {
        self.limits.message_deadline = Some(waitable(deadline));
        self
    }

    /// Connections that one peer may have at the same time; more are closed at once, after an answer 429 with
    /// `Retry-After` if it is an HTTP input, and counted
    /// ([`RefusedReason::TooManyFromPeer`](super::RefusedReason::TooManyFromPeer)). A peer is an address, of IPv6 the first
    /// 64 bits of one. Default: no limit, because everybody on this machine, and behind a proxy, has one address.
    #[must_use]
    pub fn max_connections_per_peer(mut self, connections: usize) -> Self {
        self.limits.max_connections_per_peer = Some(connections.max(1));
        self
    }

    /// What messages that have begun and not ended may take, those of all connections together, and likewise bodies of
    /// requests that are still arriving. Each connection has 16 KiB of its own beside that, for HTTP 64 KiB, so that clients
    /// with messages of ordinary length are served whatever others do. A connection that needs more than there is is closed,
    /// after an answer 503 if it is a request, and counted ([`RefusedReason::NoRoom`](super::RefusedReason::NoRoom)).
    /// Default: 16 MiB; at least the longest message, or body.
    #[must_use]
    pub fn max_unfinished_bytes(mut self, bytes: usize) -> Self {
        self.limits.max_unfinished_bytes = Some(bytes);
        self
    }

    /// What the kernel is asked to hold of datagrams while the router is busy (`SO_RCVBUF`). Default: 8 MiB. A router that
    /// may (`CAP_NET_ADMIN`) gets it, any other at most the system's limit (`net.core.rmem_max`);
    /// [`InputCounters::receive_buffer_bytes`](super::InputCounters::receive_buffer_bytes) says what it became, and
    /// [`kernel_dropped`](super::InputCounters::kernel_dropped) whether it was too little. Only for UDP and Unix datagrams.
    #[must_use]
    pub fn receive_buffer_bytes(mut self, bytes: usize) -> Self {
        self.limits.receive_buffer_bytes = Some(bytes);
        self
    }

    pub(super) fn message_time(&self) -> Duration {
        self.limits.message_deadline.unwrap_or(MESSAGE_DEADLINE)
    }

    pub(super) fn unfinished_bytes(&self) -> usize {
        let longest = match &self.address {
            #[cfg(feature = "http")]
            Address::Http(_) => self.max_body_bytes,
            _ => self.max_message_bytes,
        };
        self.limits.max_unfinished_bytes.unwrap_or(UNFINISHED_BYTES).max(longest)
    }

    pub(super) fn buffer_bytes(&self) -> usize {
        self.limits.receive_buffer_bytes.unwrap_or(RECEIVE_BUFFER_BYTES)
    }

    /// An error names the first limit that this input has no use for: who sets one means it to hold.
    pub(super) fn check(&self) -> io::Result<()> {
        let is_unix = matches!(self.address, Address::Unix(_) | Address::Unixgram(_));
        let is_datagram = matches!(self.address, Address::Udp(_) | Address::Unixgram(_));
        let Limits {
            allow,
            message_deadline,
            max_connections_per_peer,
            max_unfinished_bytes,
            receive_buffer_bytes,
        } = &self.limits;
        let no_address =
            "peers of a Unix socket have no address; the permissions of its directory say who may connect";
        let whole =
            "datagrams come whole and without a connection; TCP, Unix streams and HTTP have this limit";
        let stream = "a connection has no datagrams; udp and unixgram have this limit";
        #[cfg(feature = "heka")]
        let own = "HTTP and ZeroMQ have a framing of their own; udp, tcp, tls, unix and unixgram take Heka's frames";
        for (key, is_given, is_useless, why) in [
            ("allow", !allow.is_empty(), is_unix, no_address),
            ("max_connections_per_peer", max_connections_per_peer.is_some(), is_unix, no_address),
            ("max_connections_per_peer", max_connections_per_peer.is_some(), is_datagram, whole),
            ("message_deadline", message_deadline.is_some(), is_datagram, whole),
            ("idle_deadline", self.idle_deadline.is_some(), is_datagram, whole),
            ("max_unfinished_bytes", max_unfinished_bytes.is_some(), is_datagram, whole),
            ("receive_buffer_bytes", receive_buffer_bytes.is_some(), !is_datagram, stream),
            #[cfg(feature = "heka")]
            (
                "only_heka, signer and require_signature",
                self.heka != HekaInput::default(),
                self.has_framing(),
                own,
            ),
        ] {
            if is_given && is_useless {
                return Err(io::Error::new(ErrorKind::InvalidInput, format!("{key}: {why}")));
            }
        }
        Ok(())
    }
}
