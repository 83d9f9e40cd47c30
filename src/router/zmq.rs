//! ZeroMQ at the router: a SUB socket that binds, and the REP socket of metlog-py's handshake beside it.
//!
//! In: connections of PUB sockets, and of REQ sockets. Out: frames, each part of a message one; and an empty answer to
//! each question. Lost here: what a PUB drops before it has heard of the subscription (its own rule: the slow joiner), and
//! the rest of a connection on which something else than ZMTP 3 is spoken or a message is too long, both counted.

use std::io::{ErrorKind, Read, Write};

use bytes::Bytes;
use omq_proto::proto::connection::{Connection, ConnectionConfig, Event, Role};
use omq_proto::proto::Command;
use omq_proto::{Error, Message, SocketType};

use super::counters::add;
use super::dispatch::Intake;
use super::stop::Stop;
use crate::delivery::framing::FrameError;

/// What one read of a connection takes at most.
const READ_BYTES: usize = 64 * 1024;

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

/// Why a connection ends before its client does.
enum End {
    TooLong,
    /// Not ZMTP 3, or not a socket that fits.
    Stranger,
    /// The socket itself.
    Failed,
}

/// Serves one connection to its end, or to the deadline of a shutdown.
pub(super) fn serve(
    stream: &mut (impl Read + Write),
    mut intake: Intake,
    stop: &Stop,
    side: Side,
    most: usize,
) {
    let mut peer = Peer::new(side, most);
    match peer.talk(stream, &mut intake, stop) {
        Ok(()) => {}
        Err(End::TooLong) => intake.frame(Err(FrameError::TooLong)),
        Err(End::Stranger) => intake.frame(Err(FrameError::BadCount)),
        Err(End::Failed) => add(&intake.input.errors, 1),
    }
}

struct Peer {
    codec: Connection,
    side: Side,
    max_message_bytes: usize,
}

impl Peer {
    fn new(side: Side, most: usize) -> Self {
        let socket_type = match side {
            Side::Messages => SocketType::Sub,
            Side::Handshake => SocketType::Rep,
        };
        let config = ConnectionConfig::new(Role::Server, socket_type);
        let config = config.max_message_size(most.saturating_add(PART_BYTES));
        Peer { codec: Connection::new(config), side, max_message_bytes: most }
    }

    fn talk(
        &mut self,
        stream: &mut (impl Read + Write),
        intake: &mut Intake,
        stop: &Stop,
    ) -> Result<(), End> {
        let mut buffer = vec![0; READ_BYTES];
        while !stop.is_overdue() {
            self.answer(stream)?;
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    intake.read(length);
                    let heard = self.codec.handle_input(Bytes::copy_from_slice(&buffer[..length]));
                    // What came before something wrong is a message all the same.
                    let told = self.events(intake);
                    intake.hand_over();
                    heard.map_err(end)?;
                    told?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(());
                }
                Err(_) => return Err(End::Failed),
            }
        }
        Ok(())
    }

    /// Says what the codec has to say.
    fn answer(&mut self, stream: &mut impl Write) -> Result<(), End> {
        while self.codec.has_pending_transmit() {
            let bytes = self.codec.poll_transmit();
            match stream.write(&bytes) {
                Ok(0) => return Err(End::Failed),
                Ok(count) => self.codec.advance_transmit(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(End::Failed),
            }
        }
        Ok(())
    }

    fn events(&mut self, intake: &mut Intake) -> Result<(), End> {
        while let Some(event) = self.codec.poll_event() {
            if matches!((event, self.side), (Event::HandshakeSucceeded { .. }, Side::Messages)) {
                // Everything.
                self.codec.send_command(&Command::Subscribe(Bytes::new())).map_err(end)?;
            }
        }
        while let Some(message) = self.codec.poll_message() {
            match self.side {
                Side::Messages => message.iter().for_each(|part| self.part(&part, intake)),
                Side::Handshake => {
                    // As a REP socket answers: the empty part in front, and an empty answer.
                    let answer = Message::multipart([Bytes::new(), Bytes::new()]);
                    self.codec.send_message(&answer).map_err(end)?;
                }
            }
        }
        Ok(())
    }

    fn part(&self, part: &[u8], intake: &mut Intake) {
        intake.frame(match part.len() > self.max_message_bytes {
            true => Err(FrameError::TooLong),
            false => Ok(part),
        });
    }
}

fn end(error: Error) -> End {
    match error {
        Error::MessageTooLarge { .. } => End::TooLong,
        _ => End::Stranger,
    }
}
