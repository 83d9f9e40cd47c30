//! Heka's form of a message: protobuf, framed and perhaps signed. Feature `heka`.
//!
//! In: a message as JSON, and what of its record JSON does not say exactly. Out: a frame. The way back, for the router
//! and the spool: frames from a stream, checked against the keys that are known, as JSON again.
//!
//! ```text
//! frame   = 0x1E | length of the header, 1 byte | header | 0x1F | message
//! header  = length of the message; if it is signed: signer, version of its key, hash function, HMAC of the message
//! ```
//!
//! Why from JSON and not from the record: which value stands under which name is one rule, in one place
//! (`encode/json.rs`), and what waits in a spool can be sent to a receiver of either form.
//!
//! Lost here is where the dots of a name come from (`a.b` may have been `{"a": {"b": ..}}`), and of what has waited in a
//! spool or a crash ring the nanoseconds below a microsecond and the type of bytes, which are hexadecimal text then.

mod deep;
mod encode;
mod envelope;
mod fields;
mod frame;
mod time;
mod wire;

pub(crate) mod decode;
#[cfg(feature = "router")]
pub(crate) mod split;
#[cfg(test)]
mod tests;

use std::fmt;

pub(crate) use encode::{Exact, Writer, Written};
pub(crate) use frame::{message_of, write_unsigned};

use super::address::{Address, AddressError, HekaKey, HmacHash, KeyPlace};

/// The longest frame that is sent as one datagram unless told otherwise: hekad's buffer begins with this size, and a
/// longer datagram damages itself and the next one.
pub(crate) const MAX_DATAGRAM_BYTES: usize = 8_192;

/// The longest message: hekad skips longer ones.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Heka's form of messages, for [`Encoding::Heka`](crate::Encoding::Heka): unsigned, or signed by a [`HekaSigner`].
///
/// ```no_run
/// use tracing_metlog::{Encoding, Heka, HekaSigner, HmacHash};
///
/// let key = std::fs::read("/run/secrets/heka")?;
/// let _metlog = tracing_metlog::builder()
///     .router("tcp://127.0.0.1:5565")
///     .encoding(Encoding::Heka(Heka::signed(HekaSigner::new("ops", 1, HmacHash::Sha1, key))))
///     .init();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heka {
    pub(crate) signer: Option<HekaSigner>,
}

impl Heka {
    /// Messages that nobody signs. hekad takes them, unless a `message_signer` is configured there.
    pub fn unsigned() -> Self {
        Heka { signer: None }
    }

    /// Messages with an HMAC, so that a receiver that has the key knows who made them and that nobody changed them. A
    /// copy that is sent again by somebody else it does not know: nothing in Heka tells.
    pub fn signed(signer: HekaSigner) -> Self {
        Heka { signer: Some(signer) }
    }
}

impl Heka {
    /// What an address says, or `otherwise` where it names no signer. `None`: it is no receiver of Heka's frames.
    ///
    /// # Errors
    /// The key cannot be read.
    pub(crate) fn of(address: &Address, otherwise: Option<&Heka>) -> Result<Option<Heka>, AddressError> {
        const ACCEPTED: &str =
            "a file that this program may read, or a variable that is set, with a key in it";
        let Address::Heka { options, .. } = address else { return Ok(None) };
        match &options.signer {
            None => Ok(Some(otherwise.cloned().unwrap_or_default())),
            Some(key) => HekaSigner::read(key)
                .map(|signer| Some(Heka::signed(signer)))
                .map_err(|problem| AddressError::unusable(address, problem, ACCEPTED)),
        }
    }
}

/// Who signs messages, and with which key: to send, or in a router to check.
///
/// A receiver finds the key by the name and the version: hekad's `[splitter.signer.NAME_VERSION]`. The key is never
/// printed.
#[derive(Clone, PartialEq, Eq)]
pub struct HekaSigner {
    name: String,
    key_version: u32,
    hash: HmacHash,
    key: Vec<u8>,
}

impl HekaSigner {
    /// The longest name: a frame's header has 255 bytes for all it says.
    pub const MAX_NAME_BYTES: usize = 200;

    /// A signer. A name longer than [`MAX_NAME_BYTES`](Self::MAX_NAME_BYTES) is cut to that. A router that checks
    /// signatures goes by the hash function that the message names, not by `hash`.
    pub fn new(name: impl Into<String>, key_version: u32, hash: HmacHash, key: impl Into<Vec<u8>>) -> Self {
        let mut name = name.into();
        while name.len() > Self::MAX_NAME_BYTES {
            name.pop();
        }
        HekaSigner { name, key_version, hash, key: key.into() }
    }

    fn read(key: &HekaKey) -> Result<Self, String> {
        let (place, read) = match &key.place {
            KeyPlace::File(path) => {
                let read = std::fs::read(path).map(without_newline).map_err(|error| error.to_string());
                (format!("key-file {path:?}"), read)
            }
            KeyPlace::Variable(name) => {
                let set = std::env::var_os(name).map(|value| value.into_encoded_bytes());
                (format!("key-env {name}"), set.ok_or_else(|| String::from("it is not set")))
            }
        };
        match read {
            Ok(bytes) if bytes.is_empty() => Err(format!("{place}: it is empty")),
            Ok(bytes) => Ok(HekaSigner::new(key.name.clone(), key.version, key.hash, bytes)),
            Err(problem) => Err(format!("{place}: {problem}")),
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version of the key.
    pub fn key_version(&self) -> u32 {
        self.key_version
    }
}

/// Editors end a file with a newline, which nobody means to be part of a key.
fn without_newline(mut key: Vec<u8>) -> Vec<u8> {
    if key.ends_with(b"\n") {
        key.pop();
        if key.ends_with(b"\r") {
            key.pop();
        }
    }
    key
}

impl fmt::Debug for HekaSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HekaSigner")
            .field("name", &self.name)
            .field("key_version", &self.key_version)
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}
