//! The framings an input takes, told apart. In: the bytes of one connection, or one datagram. Out: messages as JSON, and
//! what was broken.
//!
//! Nothing is lost here; see the splitters. With the feature `heka`, the first byte of a connection or of a datagram says
//! whether it is Heka's (0x1E, which no JSON and no octet count begins with); an input that takes only Heka's frames, or
//! only signed ones, does not ask.

use std::io::{self, Write};

use super::config::Input;
#[cfg(feature = "zmq")]
use super::zmq;
use crate::delivery::framing::{Frame, FrameError, Splitter};
#[cfg(feature = "heka")]
use crate::delivery::heka::split::{HekaSplitter, RECORD_SEPARATOR};

/// The frames of one connection.
pub(super) enum Frames {
    Plain(Splitter),
    /// Nothing has come yet.
    #[cfg(feature = "heka")]
    Unknown(Box<(Splitter, HekaSplitter)>),
    #[cfg(feature = "heka")]
    Heka(Box<HekaSplitter>),
    #[cfg(feature = "zmq")]
    Zmq(Box<zmq::Peer>),
}

impl Frames {
    #[cfg(not(feature = "heka"))]
    pub(super) fn new(input: &Input) -> Self {
        Frames::Plain(Splitter::new(input.max_message_bytes))
    }

    #[cfg(feature = "heka")]
    pub(super) fn new(input: &Input) -> Self {
        let heka = HekaSplitter::new(input.heka.signers.clone(), input.max_message_bytes);
        match input.heka.takes_nothing_else() {
            true => Frames::Heka(Box::new(heka)),
            false => Frames::Unknown(Box::new((Splitter::new(input.max_message_bytes), heka))),
        }
    }

    /// Takes the next bytes of the connection and hands what is in them to `each`.
    pub(super) fn push(&mut self, bytes: &[u8], each: &mut impl FnMut(Frame<'_>)) {
        match self {
            Frames::Plain(plain) => plain.push(bytes, each),
            #[cfg(feature = "heka")]
            Frames::Heka(heka) => heka.push(bytes, each),
            #[cfg(feature = "zmq")]
            Frames::Zmq(peer) => peer.push(bytes, each),
            #[cfg(feature = "heka")]
            Frames::Unknown(_) => {
                self.decide(bytes);
                self.push_decided(bytes, each);
            }
        }
    }

    /// Says what the other end must hear before it goes on. Most framings have nothing to say.
    pub(super) fn answer(&mut self, stream: &mut impl Write) -> io::Result<()> {
        let _ = stream;
        match self {
            #[cfg(feature = "zmq")]
            Frames::Zmq(peer) => peer.answer(stream),
            _ => Ok(()),
        }
    }

    /// Whether the connection makes no sense any more.
    pub(super) fn is_over(&self) -> bool {
        match self {
            #[cfg(feature = "zmq")]
            Frames::Zmq(peer) => peer.is_over(),
            _ => false,
        }
    }

    /// Whether no message has begun that did not end.
    pub(super) fn is_between(&self) -> bool {
        match self {
            Frames::Plain(plain) => plain.is_between(),
            #[cfg(feature = "heka")]
            Frames::Heka(heka) => heka.is_between(),
            #[cfg(feature = "heka")]
            Frames::Unknown(_) => true,
            #[cfg(feature = "zmq")]
            Frames::Zmq(peer) => peer.is_between(),
        }
    }

    /// How much of the message that has not ended is held.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Frames::Plain(plain) => plain.held_bytes(),
            #[cfg(feature = "heka")]
            Frames::Heka(heka) => heka.held_bytes(),
            #[cfg(feature = "heka")]
            Frames::Unknown(_) => 0,
            #[cfg(feature = "zmq")]
            Frames::Zmq(peer) => peer.held_bytes(),
        }
    }

    #[cfg(feature = "heka")]
    fn decide(&mut self, bytes: &[u8]) {
        let Some(&first) = bytes.first() else { return };
        let decided = std::mem::replace(self, Frames::Plain(Splitter::new(0)));
        *self = match decided {
            Frames::Unknown(both) if first == RECORD_SEPARATOR => Frames::Heka(Box::new(both.1)),
            Frames::Unknown(both) => Frames::Plain(both.0),
            other => other,
        };
    }

    #[cfg(feature = "heka")]
    fn push_decided(&mut self, bytes: &[u8], each: &mut impl FnMut(Frame<'_>)) {
        match self {
            Frames::Plain(plain) => plain.push(bytes, each),
            Frames::Heka(heka) => heka.push(bytes, each),
            _ => {}
        }
    }

    /// The connection has ended.
    pub(super) fn finish(&mut self, each: &mut impl FnMut(Frame<'_>)) {
        match self {
            Frames::Plain(plain) => plain.finish(each),
            #[cfg(feature = "heka")]
            Frames::Heka(heka) => heka.finish(each),
            #[allow(unreachable_patterns)]
            _ => {}
        }
    }
}

/// The frames of datagrams: each stands for itself, so that one sender never spoils what another has sent.
pub(super) struct Datagrams {
    max_message_bytes: usize,
    #[cfg(feature = "heka")]
    takes_only_heka: bool,
    #[cfg(feature = "heka")]
    heka: HekaSplitter,
}

impl Datagrams {
    pub(super) fn new(input: &Input) -> Self {
        Datagrams {
            max_message_bytes: input.max_message_bytes,
            #[cfg(feature = "heka")]
            takes_only_heka: input.heka.takes_nothing_else(),
            #[cfg(feature = "heka")]
            heka: HekaSplitter::new(input.heka.signers.clone(), input.max_message_bytes),
        }
    }

    /// Hands what is in one datagram to `each`.
    pub(super) fn take(&mut self, datagram: &[u8], each: &mut impl FnMut(Frame<'_>)) {
        if datagram.len() > self.max_message_bytes {
            return each(Err(FrameError::TooLong));
        }
        #[cfg(feature = "heka")]
        if self.takes_only_heka || datagram.first() == Some(&RECORD_SEPARATOR) {
            self.heka.push(datagram, each);
            return self.heka.finish(each);
        }
        each(Ok(datagram));
    }
}

/// What an input is told about Heka's frames.
#[cfg(feature = "heka")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HekaInput {
    pub(super) is_only: bool,
    pub(super) signers: crate::delivery::heka::split::Signers,
}

#[cfg(feature = "heka")]
impl HekaInput {
    /// JSON cannot be signed: where a signature is asked for, it is no way around that.
    fn takes_nothing_else(&self) -> bool {
        self.is_only || self.signers.is_required
    }
}
