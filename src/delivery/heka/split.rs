//! A stream of Heka frames taken apart again. In: the bytes of one stream, in any chunks. Out: messages as JSON, and what
//! was broken.
//!
//! Lost here, each counted by its reason: what stands where a frame should begin, up to the next record separator; a
//! message that is too long, that no known key has signed or that is no message, up to its own end; one that the end of
//! the stream cuts. What is inside a message that is skipped is never taken for a frame, so nobody who can write a
//! payload can forge a message with it.

use prost::Message as _;

pub(crate) use super::frame::RECORD_SEPARATOR;
use super::frame::{is_signed, UNIT_SEPARATOR};
use super::wire::Header;
use super::{decode, HekaSigner};
use crate::delivery::framing::{Frame, FrameError};

/// Whose messages are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signers {
    pub(crate) known: Vec<HekaSigner>,
    /// Whether a message must be signed by one of them.
    pub(crate) is_required: bool,
}

impl Signers {
    fn check(&self, header: &Header, message: &[u8]) -> Result<(), FrameError> {
        if header.hmac_signer.is_none() && header.hmac.is_none() {
            return if self.is_required { Err(FrameError::Unsigned) } else { Ok(()) };
        }
        let (name, version) = (header.hmac_signer(), header.hmac_key_version());
        let signer = self.known.iter().find(|known| known.name == name && known.key_version == version);
        match signer {
            Some(signer) if is_signed(header, &signer.key, message) => Ok(()),
            _ => Err(FrameError::BadSignature),
        }
    }
}

/// Takes a stream of frames apart, whatever its chunks. Holds at most one incomplete frame and one chunk.
#[derive(Debug)]
pub(crate) struct HekaSplitter {
    signers: Signers,
    max_message_bytes: usize,
    /// The start of a frame whose end has not come yet.
    partial: Vec<u8>,
    /// Bytes of a message that is too long.
    to_skip: usize,
    /// Looking for a record separator, and it was said why.
    is_lost: bool,
}

/// What the bytes at hand begin with.
enum Next<'b> {
    /// Nothing that could be told yet.
    Incomplete,
    /// So many bytes that are no frame.
    Garbage(usize),
    /// A message of more bytes than are taken, behind a header that ends here.
    TooLong {
        header_end: usize,
        message: usize,
    },
    Frame {
        header: Header,
        message: &'b [u8],
        end: usize,
    },
}

impl HekaSplitter {
    /// What a connection's memory shrinks back to after a long message.
    const KEPT_BYTES: usize = 64 * 1024;

    pub(crate) fn new(signers: Signers, max_message_bytes: usize) -> Self {
        HekaSplitter { signers, max_message_bytes, partial: Vec::new(), to_skip: 0, is_lost: false }
    }

    /// Takes the next bytes of the stream and hands every message that ends in them to `each`.
    pub(crate) fn push(&mut self, bytes: &[u8], each: &mut impl FnMut(Frame<'_>)) {
        if self.partial.is_empty() {
            let taken = self.take(bytes, each);
            self.partial.extend_from_slice(&bytes[taken..]);
            return;
        }
        let mut held = std::mem::take(&mut self.partial);
        held.extend_from_slice(bytes);
        let taken = self.take(&held, each);
        held.drain(..taken);
        if held.len() <= Self::KEPT_BYTES {
            held.shrink_to(Self::KEPT_BYTES);
        }
        self.partial = held;
    }

    /// Whether no message has begun that did not end.
    pub(crate) fn is_between(&self) -> bool {
        self.partial.is_empty() && self.to_skip == 0
    }

    /// How much of the message that has not ended is held.
    pub(crate) fn held_bytes(&self) -> usize {
        self.partial.len()
    }

    /// The stream has ended.
    pub(crate) fn finish(&mut self, each: &mut impl FnMut(Frame<'_>)) {
        // Of one that is too long it was said already.
        if !self.partial.is_empty() {
            each(Err(FrameError::Truncated));
        }
        self.partial.clear();
        (self.to_skip, self.is_lost) = (0, false);
    }

    /// Takes every whole frame from the beginning of `bytes`; how many bytes that were.
    fn take(&mut self, bytes: &[u8], each: &mut impl FnMut(Frame<'_>)) -> usize {
        let mut at = 0;
        loop {
            let skipped = self.to_skip.min(bytes.len() - at);
            self.to_skip -= skipped;
            at += skipped;
            match next(&bytes[at..], self.max_message_bytes) {
                Next::Incomplete => return at,
                Next::Garbage(length) => {
                    at += length;
                    if !std::mem::replace(&mut self.is_lost, true) {
                        each(Err(FrameError::BadHeader));
                    }
                }
                Next::TooLong { header_end, message } => {
                    at += header_end;
                    (self.to_skip, self.is_lost) = (message, false);
                    each(Err(FrameError::TooLong));
                }
                Next::Frame { header, message, end } => {
                    at += end;
                    self.is_lost = false;
                    self.message(&header, message, each);
                }
            }
        }
    }

    fn message(&self, header: &Header, message: &[u8], each: &mut impl FnMut(Frame<'_>)) {
        let checked = self.signers.check(header, message);
        match checked.and_then(|()| decode::message(message).ok_or(FrameError::InvalidProtobuf)) {
            Ok(message) => each(Ok(message.to_json().as_bytes())),
            Err(error) => each(Err(error)),
        }
    }
}

fn next(bytes: &[u8], max_message_bytes: usize) -> Next<'_> {
    let garbage = bytes.iter().position(|&byte| byte == RECORD_SEPARATOR).unwrap_or(bytes.len());
    if garbage > 0 {
        return Next::Garbage(garbage);
    }
    let Some(&header_bytes) = bytes.get(1) else { return Next::Incomplete };
    let header_end = usize::from(header_bytes) + 3;
    let Some(&separator) = bytes.get(header_end - 1) else { return Next::Incomplete };
    // Only the separator itself is given up: a frame may begin behind it.
    let header = match Header::decode(&bytes[2..header_end - 1]) {
        Ok(header) if separator == UNIT_SEPARATOR && header.message_length > 0 => header,
        _ => return Next::Garbage(1),
    };
    let message = header.message_length as usize;
    if message > max_message_bytes {
        return Next::TooLong { header_end, message };
    }
    let end = header_end + message;
    match bytes.get(header_end..end) {
        Some(message) => Next::Frame { header, message, end },
        None => Next::Incomplete,
    }
}
