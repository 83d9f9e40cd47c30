//! How one message is told from the next on the way to a router: written here, split here.
//!
//! In: encoded messages. Out: frames. Nothing can be lost; a frame is the message plus, at most, a few bytes.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "router")]
mod split;
#[cfg(feature = "router")]
pub(crate) use split::{Frame, FrameError, Splitter};

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
        }
    }

    /// The name in an address (`tcp://host:port?framing=octet-count`) and in configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Framing::Newline => "newline",
            Framing::OctetCount => "octet-count",
            Framing::Datagram => "datagram",
        }
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
            other => Err(format!("framing {other:?}: newline, octet-count and datagram are accepted")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_a_frame_is_the_one_that_was_framed() {
        for framing in [Framing::Newline, Framing::OctetCount, Framing::Datagram] {
            for message in [&b"{\"a\": 1}"[..], b"", b"5 x\r"] {
                let mut frame = Vec::new();
                framing.write(message, &mut frame);
                assert_eq!(framing.message(&frame), message, "{framing}");
            }
        }
    }
}
