//! The options of inputs.

use super::definition::Default::{Needed, Says};
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
            "max_connections",
            Take::Count(|input, connections| Ok(connected(input)?.max_connections(small(connections)?))),
            Says("1024, for HTTP 256", "1024"),
            "Connections at the same time; more are closed at once and counted (`refused`). Not for datagrams.",
        ),
        Definition::new(
            "idle_deadline",
            Take::Duration(|input, deadline| Ok(connected(input)?.idle_deadline(deadline))),
            Says("for ever, for HTTP a minute", "\"60s\""),
            "How long a connection may say nothing before it is closed. Not for datagrams.",
        ),
        Definition::new(
            "max_body_bytes",
            MAX_BODY_BYTES,
            Says("4 MiB", "\"4MiB\""),
            "The longest body of an HTTP request, unpacked; a longer one is answered 413. For HTTP only.",
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
