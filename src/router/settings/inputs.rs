//! The options of inputs.

use super::definition::Default::{Is, Needed, Says};
use super::definition::{Definition, Outcome, Section, Take, Wrong};
use crate::router::config::{Address, Input};

/// No message, body or number of connections may be larger than this: a typing error must not take all memory.
const LARGEST: u64 = 1 << 30;

/// `[[input]]`: a socket.
pub(super) const INPUT: Section<Input> = Section {
    title: "[[input]]",
    kind: None,
    about: "A socket that messages arrive at; as many as you like. Without any: UDP and TCP on 127.0.0.1:5565.",
    begin: None,
    options: &[
        Definition::new(
            "url",
            Take::First(|url| Ok(url.parse::<Input>()?)),
            Needed("\"udp://127.0.0.1:5565\""),
            "`udp://HOST:PORT`, `tcp://HOST:PORT`, `unix:///PATH`, `unixgram:///PATH`; with the feature `http` also \
             `http://HOST:PORT`, with `tls` also `tls://HOST:PORT?cert=/PATH&key=/PATH`, with both also `https://...`, \
             the last two with `&client-ca=/PATH` if clients must show certificates. Port 0 is any free one.",
        ),
        Definition::new(
            "max_message_bytes",
            Take::Size(|input, bytes| Ok(input.max_message_bytes(small(bytes)?))),
            Says("1 MiB, for UDP 65,535 bytes", "\"1MiB\""),
            "The longest message taken; a longer one is skipped and counted (`too_long`).",
        ),
        Definition::new(
            "allow",
            Take::Texts(|input, network| Ok(input.allow(network.parse()?))),
            Says("everybody", "[\"127.0.0.0/8\", \"::1\"]"),
            "Addresses and networks whose messages are taken; what comes from elsewhere is dropped or closed without a \
             word and counted (`not_allowed`). The address of a datagram can be forged. Not for Unix sockets.",
        ),
        Definition::new(
            "max_connections",
            Take::Count(|input, connections| Ok(connected(input)?.max_connections(small(connections)?))),
            Says("1024, for HTTP 256", "1024"),
            "Connections at the same time. When all places are taken, a newcomer gets that of the oldest connection that \
             has never sent a whole message; if all have, it is closed at once. Counted (`too_many_connections`, \
             `gave_way`). Not for datagrams.",
        ),
        Definition::new(
            "max_connections_per_peer",
            Take::Count(|input, connections| Ok(input.max_connections_per_peer(small(connections)?))),
            Says("no limit", "100"),
            "Connections of one address (of IPv6 its first 64 bits) at the same time; more are closed at once and counted \
             (`too_many_from_peer`). Only for TCP and HTTP.",
        ),
        Definition::new(
            "idle_deadline",
            Take::Duration(|input, deadline| Ok(input.idle_deadline(deadline))),
            Says("for ever, for HTTP a minute", "\"60s\""),
            "How long a connection may say nothing before it is closed. Not for datagrams.",
        ),
        Definition::new(
            "message_deadline",
            Take::Duration(|input, deadline| Ok(input.message_deadline(deadline))),
            Is("\"10s\""),
            "How long a message, the head of a request or the start of an encrypted connection may take from its first byte \
             to its last; a body a second more for each 64 KiB. Who takes longer is closed and counted (`too_slow`). Not \
             for datagrams.",
        ),
        Definition::new(
            "max_unfinished_bytes",
            Take::Size(|input, bytes| Ok(input.max_unfinished_bytes(small(bytes)?))),
            Says("16 MiB, for HTTP 32 MiB", "\"16MiB\""),
            "What messages and bodies that have begun and not ended may take, those of all connections together, beyond \
             16 KiB for each (64 KiB for HTTP). Who needs more is closed and counted (`no_room`). Not for datagrams.",
        ),
        Definition::new(
            "receive_buffer_bytes",
            Take::Size(|input, bytes| Ok(input.receive_buffer_bytes(small(bytes)?))),
            Is("\"8MiB\""),
            "What the kernel is asked to hold of datagrams while the router is busy. A router with `CAP_NET_ADMIN` gets it, \
             any other at most the system's `net.core.rmem_max`. Only for datagrams.",
        ),
        Definition::new(
            "max_body_bytes",
            MAX_BODY_BYTES,
            Is("\"4MiB\""),
            "The longest body of an HTTP request, unpacked; a longer one is answered 413. Only for HTTP.",
        ),
    ],
};

#[cfg(feature = "http")]
const MAX_BODY_BYTES: Take<Input> = Take::Size(|input, bytes| match input.address {
    Address::Http(_) => Ok(input.max_body_bytes(small(bytes)?)),
    _ => Err("is for http:// and https:// inputs only".into()),
});
#[cfg(not(feature = "http"))]
const MAX_BODY_BYTES: Take<Input> = Take::Missing("http");

fn small(number: u64) -> Result<usize, Wrong> {
    match usize::try_from(number) {
        Ok(small) if number <= LARGEST => Ok(small),
        _ => Err(format!("accepted is at most {LARGEST}").into()),
    }
}

/// The input, if it has connections.
fn connected(input: Input) -> Outcome<Input> {
    match input.address {
        Address::Udp(_) | Address::Unixgram(_) => {
            Err("is for inputs with connections, not for datagrams".into())
        }
        _ => Ok(input),
    }
}
