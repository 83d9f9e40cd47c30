//! ZeroMQ at the router: a SUB socket that binds, and the REP socket of metlog-py's handshake beside it.
//!
//! In: the bytes of connections of PUB sockets, and of REQ sockets. Out: frames, each part of a message one; what must be
//! said to go on; and an empty answer to each question. Lost here: what a PUB drops before it has heard of the
//! subscription (its own rule: the slow joiner), and the rest of a connection on which something else than ZMTP 3 is
//! spoken (`bad_header`) or a message is too long (`too_long`).

use std::io::{self, ErrorKind, Write};

use bytes::Bytes;
use omq_proto::proto::connection::{Connection, ConnectionConfig, Event, Role};
use omq_proto::proto::Command;
use omq_proto::{Error, Message, SocketType};

use crate::delivery::framing::{Frame, FrameError};

/// What the codec counts for a part besides its bytes, and then some.
const PART_BYTES: usize = 256;

/// Which socket of ours a connection has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// SUB: messages.
    Messages,
    /// REP: the handshake.
    Handshake,
}

/// What is known of the other end of one connection.
pub(super) struct Peer {
    codec: Connection,
    side: Side,
    max_message_bytes: usize,
    is_over: bool,
}

impl Peer {
    pub(super) fn new(side: Side, max_message_bytes: usize) -> Self {
        let socket_type = match side {
            Side::Messages => SocketType::Sub,
            Side::Handshake => SocketType::Rep,
        };
        let config = ConnectionConfig::new(Role::Server, socket_type);
        let config = config.max_message_size(max_message_bytes.saturating_add(PART_BYTES));
        Peer { codec: Connection::new(config), side, max_message_bytes, is_over: false }
    }

    /// Takes the next bytes, and hands every message that ends in them to `each`.
    pub(super) fn push(&mut self, bytes: &[u8], each: &mut impl FnMut(Frame<'_>)) {
        let heard = self.codec.handle_input(Bytes::copy_from_slice(bytes));
        // What came before something wrong is a message all the same.
        let told = self.tell(each);
        if let Err(error) = heard.and(told) {
            self.is_over = true;
            each(Err(match error {
                Error::MessageTooLarge { .. } => FrameError::TooLong,
                _ => FrameError::BadHeader,
            }));
        }
    }

    fn tell(&mut self, each: &mut impl FnMut(Frame<'_>)) -> Result<(), Error> {
        while let Some(event) = self.codec.poll_event() {
            if matches!((event, self.side), (Event::HandshakeSucceeded { .. }, Side::Messages)) {
                // Everything.
                self.codec.send_command(&Command::Subscribe(Bytes::new()))?;
            }
        }
        while let Some(message) = self.codec.poll_message() {
            match self.side {
                Side::Messages => message.iter().for_each(|part| self.part(&part, each)),
                Side::Handshake => {
                    // As a REP socket answers: the empty part in front, and an empty answer.
                    self.codec.send_message(&Message::multipart([Bytes::new(), Bytes::new()]))?;
                }
            }
        }
        Ok(())
    }

    fn part(&self, part: &[u8], each: &mut impl FnMut(Frame<'_>)) {
        each(match part.len() > self.max_message_bytes {
            true => Err(FrameError::TooLong),
            false => Ok(part),
        });
    }

    /// Says what the codec has to say.
    pub(super) fn answer(&mut self, stream: &mut impl Write) -> io::Result<()> {
        while self.codec.has_pending_transmit() {
            let bytes = self.codec.poll_transmit();
            match stream.write(&bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.codec.advance_transmit(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Who does not read what it asked for is no slow sender.
                Err(error) => return Err(io::Error::new(ErrorKind::BrokenPipe, error)),
            }
        }
        Ok(())
    }

    /// Whether nothing more can be understood.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether no message has begun that did not end; before the two ends know each other, none may.
    pub(super) fn is_between(&self) -> bool {
        self.codec.is_ready() && self.held_bytes() == 0
    }

    /// How much of the part that has not ended is held. The whole parts before it are not in this, which together are
    /// never longer than a message may be.
    pub(super) fn held_bytes(&self) -> usize {
        let begun = self.codec.peek_next_frame_payload_size().ok().flatten();
        begun.map_or(0, |begun| begun.header_len + begun.buffered_payload_prefix)
    }
}
