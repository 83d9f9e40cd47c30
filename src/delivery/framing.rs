//! How one message is told from the next on the way to a router: written here, split here.
//!
//! In: encoded messages. Out: frames. Nothing can be lost; a frame is the message plus, at most, a few bytes.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "heka")]
use super::heka;

#[cfg(feature = "router")]
mod split;
#[cfg(feature = "router")]
pub(crate) use split::{Frame, FrameError, Splitter};

#[cfg(feature = "heka")]
const ACCEPTED: &str = "newline, octet-count, datagram and heka";
#[cfg(not(feature = "heka"))]
const ACCEPTED: &str = "newline, octet-count and datagram";

/// How the bytes of one message are told from those of the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Framing {
    /// One message a line, ended by `\n`; a message never holds a raw newline. The default of every stream
    /// and file, and what every router reads.
    #[default]
    Newline,
    /// The length in bytes as decimal text and a blank before each message (RFC 6587, 3.4.1), no ending:
    /// `5 {"a"}`.
    OctetCount,
    /// One message a datagram and nothing else: no newline, no length. The default of `udp://` and
    /// `unixgram://`.
    Datagram,
    /// Heka's: a header with the length, and perhaps a signature, before each message, which is protobuf
    /// ([`Encoding::Heka`](crate::Encoding::Heka)). On streams and in datagrams. Feature `heka`.
    #[cfg(feature = "heka")]
    #[cfg_attr(docsrs, doc(cfg(feature = "heka")))]
    Heka,
    /// ZeroMQ's: one message is one part, a flag and the length before it. Of `zmq+tcp://`. Feature `zmq`.
    #[cfg(feature = "zmq")]
    #[cfg_attr(docsrs, doc(cfg(feature = "zmq")))]
    Zmtp,
}

impl Framing {
    /// Appends `message` to `out` as one frame.
    pub fn write(self, message: &[u8], out: &mut Vec<u8>) {
        match self {
            Framing::Newline => {
                out.extend_from_slice(message);
                out.push(b'\n');
            }
            Framing::OctetCount => {
                out.extend_from_slice(itoa::Buffer::new().format(message.len()).as_bytes());
                out.push(b' ');
                out.extend_from_slice(message);
            }
            Framing::Datagram => out.extend_from_slice(message),
            #[cfg(feature = "heka")]
            Framing::Heka => heka::write_unsigned(message, out),
            #[cfg(feature = "zmq")]
            Framing::Zmtp => write_part(message, out),
        }
    }

    /// The message in a frame that [`write`](Framing::write) made.
    pub(crate) fn message(self, frame: &[u8]) -> &[u8] {
        match self {
            Framing::Newline => frame.strip_suffix(b"\n").unwrap_or(frame),
            Framing::OctetCount => {
                let blank = frame.iter().position(|&byte| byte == b' ');
                blank.map_or(frame, |blank| &frame[blank + 1..])
            }
            Framing::Datagram => frame,
            #[cfg(feature = "heka")]
            Framing::Heka => heka::message_of(frame),
            #[cfg(feature = "zmq")]
            Framing::Zmtp => frame.get(part_header(frame)..).unwrap_or_default(),
        }
    }

    /// The name in an address (`tcp://host:port?framing=octet-count`) and in configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Framing::Newline => "newline",
            Framing::OctetCount => "octet-count",
            Framing::Datagram => "datagram",
            #[cfg(feature = "heka")]
            Framing::Heka => "heka",
            #[cfg(feature = "zmq")]
            Framing::Zmtp => "zmtp",
        }
    }
}

/// The flag of a part whose length takes eight bytes.
#[cfg(feature = "zmq")]
const LONG: u8 = 2;

/// The last part of a message, as ZMTP 3.1 has it (RFC 23 of ZeroMQ).
#[cfg(feature = "zmq")]
fn write_part(message: &[u8], out: &mut Vec<u8>) {
    match u8::try_from(message.len()) {
        Ok(length) => out.extend_from_slice(&[0, length]),
        Err(_) => {
            out.push(LONG);
            out.extend_from_slice(&(message.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(message);
}

/// Bytes before the part itself.
#[cfg(feature = "zmq")]
fn part_header(frame: &[u8]) -> usize {
    if frame.first() == Some(&LONG) {
        9
    } else {
        2
    }
}

impl fmt::Display for Framing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Framing {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "newline" => Ok(Framing::Newline),
            "octet-count" => Ok(Framing::OctetCount),
            "datagram" => Ok(Framing::Datagram),
            #[cfg(feature = "heka")]
            "heka" => Ok(Framing::Heka),
            other => Err(format!("framing {other:?}: {ACCEPTED} are accepted")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_a_frame_is_the_one_that_was_framed() {
        let framings = [
            Framing::Newline,
            Framing::OctetCount,
            Framing::Datagram,
            #[cfg(feature = "heka")]
            Framing::Heka,
            #[cfg(feature = "zmq")]
            Framing::Zmtp,
        ];
        for framing in framings {
            for message in [&b"{\"a\": 1}"[..], b"", b"5 x\r", &[b'x'; 255], &[b'x'; 256], &[b'x'; 70_000]] {
                let mut frame = Vec::new();
                framing.write(message, &mut frame);
                assert_eq!(framing.message(&frame), message, "{framing}");
            }
        }
    }
}
