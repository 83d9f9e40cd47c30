//! Messages as Heka frames, for one destination.
//!
//! In: a message's JSON, and its record's exact values where they are at hand. Out: a frame. A message that is too long
//! loses the end of its payload, then of its largest field, and says so (`truncated`); one with nothing left to cut is
//! lost, and the caller counts it.

use std::hash::{BuildHasher, RandomState};

use prost::Message as _;

use super::wire::{Field, Message, ValueType, Values};
use super::{envelope, frame, Heka, MAX_MESSAGE_BYTES};
use crate::delivery::encode::limit::{self, TooLarge};

/// What a record says and its JSON does not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exact {
    /// Nanoseconds since the epoch; JSON has microseconds.
    pub(crate) nanoseconds: u64,
    /// Names and values of the fields that are bytes; in JSON they are hexadecimal.
    pub(crate) bytes: Vec<(String, Vec<u8>)>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Whole,
    Cut,
}

/// Writes the frames of one destination.
pub(crate) struct Writer {
    heka: Heka,
    max_frame_bytes: usize,
    uuids: Uuids,
    message: Vec<u8>,
}

impl Writer {
    /// Frames of at most `max_frame_bytes`, and messages of at most 64 KiB in them.
    pub(crate) fn new(heka: Heka, max_frame_bytes: usize) -> Self {
        Writer { heka, max_frame_bytes, uuids: Uuids::default(), message: Vec::new() }
    }

    /// Appends the frame of a message that this crate has encoded.
    ///
    /// # Errors
    /// Nothing is left to cut, and it is still too long. Then nothing was appended.
    pub(crate) fn write(
        &mut self,
        json: &[u8],
        exact: Option<&Exact>,
        out: &mut Vec<u8>,
    ) -> Result<Written, TooLarge> {
        let mut message = envelope::read(json).map_err(|_| TooLarge)?;
        if let Some(exact) = exact {
            exact.apply(&mut message);
        }
        message.uuid = self.uuids.next().to_vec();
        let written = self.cut(&mut message)?;
        self.message.clear();
        message.encode_raw(&mut self.message);
        frame::write(&self.message, self.heka.signer.as_ref(), out);
        Ok(written)
    }

    fn cut(&self, message: &mut Message) -> Result<Written, TooLarge> {
        let most = self.max_message_bytes();
        if message.encoded_len() <= most {
            return Ok(Written::Whole);
        }
        mark(message);
        while let Some(excess) = message.encoded_len().checked_sub(most).filter(|&excess| excess > 0) {
            if !shorten_payload(message, excess) && !shorten_largest_field(message, excess) {
                return Err(TooLarge);
            }
        }
        Ok(Written::Cut)
    }

    /// The header is as long as it can get: its length depends on the message's, and a byte more or less is no loss.
    fn max_message_bytes(&self) -> usize {
        /// Both separators, the header's length, and the message's length with its key.
        const UNSIGNED: usize = 3 + 6;
        /// Keys, lengths, the hash function, the key's version and the longer of the two digests.
        const SIGNATURE: usize = 2 + 2 + 6 + 2 + 20;
        let signature = self.heka.signer.as_ref().map_or(0, |signer| SIGNATURE + signer.name().len() + 1);
        self.max_frame_bytes.saturating_sub(UNSIGNED + signature).min(MAX_MESSAGE_BYTES)
    }
}

impl Exact {
    pub(super) fn apply(&self, message: &mut Message) {
        message.timestamp = i64::try_from(self.nanoseconds).unwrap_or(i64::MAX);
        for (name, bytes) in &self.bytes {
            let text = hexadecimal(bytes);
            // A field that several wanted, or that was nested, is told by its value.
            let is_it = |field: &&mut Field| {
                let is_named = field.name == *name
                    || field.name.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                // Bytes are one text and nothing else: not an array, nor a JSON that happens to look alike.
                is_named && field.representation().is_empty() && field.value_string == [text.as_str()]
            };
            for field in message.fields.iter_mut().filter(is_it) {
                let name = std::mem::take(&mut field.name);
                *field = Field::new(name, Values::Bytes(vec![bytes.clone()]), "");
            }
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn mark(message: &mut Message) {
    const TRUNCATED: &str = "truncated";
    if !message.fields.iter().any(|field| field.name == TRUNCATED) {
        let mark = Field::new(String::from(TRUNCATED), Values::Bools(vec![true]), "");
        message.fields.insert(0, mark);
    }
}

/// Cuts `excess` bytes off the payload, or all of it. `false` when there is nothing to cut.
fn shorten_payload(message: &mut Message, excess: usize) -> bool {
    match &mut message.payload {
        Some(payload) if !payload.is_empty() && !limit::is_number(payload) => {
            shorten(payload, excess);
            true
        }
        _ => false,
    }
}

/// The same for the largest field: a single text is cut, anything else is taken out.
fn shorten_largest_field(message: &mut Message, excess: usize) -> bool {
    let sized =
        message.fields.iter().enumerate().filter(|(_, field)| !limit::KEPT.contains(&field.name.as_str()));
    let Some((largest, _)) = sized.max_by_key(|(_, field)| field.encoded_len()) else { return false };
    let field = &mut message.fields[largest];
    let is_text = field.value_type() == ValueType::String && field.representation() == "";
    match field.value_string.as_mut_slice() {
        [text] if is_text && !text.is_empty() => shorten(text, excess),
        _ => drop(message.fields.remove(largest)),
    }
    true
}

/// Cuts at least `excess` bytes off the end, whole characters.
fn shorten(text: &mut String, excess: usize) {
    let mut end = text.len().saturating_sub(excess);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

/// UUIDs of version 4: a counter hashed under a key that is the system's randomness, 128 bits of it for each process.
/// That is what a generator of random numbers would do, and the standard library has it.
#[derive(Debug, Default)]
struct Uuids {
    keys: RandomState,
    made: u64,
}

impl Uuids {
    fn next(&mut self) -> [u8; 16] {
        self.made += 1;
        let mut uuid = [0; 16];
        for (half, place) in uuid.chunks_mut(8).enumerate() {
            place.copy_from_slice(&self.keys.hash_one((self.made, half)).to_be_bytes());
        }
        uuid[6] = uuid[6] & 0x0F | 0x40;
        uuid[8] = uuid[8] & 0x3F | 0x80;
        uuid
    }
}
