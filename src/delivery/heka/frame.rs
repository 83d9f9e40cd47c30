//! Heka's stream framing, written, and its signatures, made and checked.
//!
//! In: a message as protobuf, perhaps a signer. Out: a frame. Nothing can be lost here.

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use prost::Message as _;
use sha1::Sha1;

use super::wire::{HashFunction, Header};
use super::HekaSigner;
use crate::delivery::address::HmacHash;

/// Begins a frame.
pub(crate) const RECORD_SEPARATOR: u8 = 0x1E;
/// Stands between header and message.
pub(super) const UNIT_SEPARATOR: u8 = 0x1F;

/// Appends `message`, which is protobuf already, as an unsigned frame.
pub(crate) fn write_unsigned(message: &[u8], out: &mut Vec<u8>) {
    write(message, None, out);
}

/// Appends `message` as a frame.
pub(super) fn write(message: &[u8], signer: Option<&HekaSigner>, out: &mut Vec<u8>) {
    let header = header(message, signer).encode_to_vec();
    out.push(RECORD_SEPARATOR);
    // A signer's name is never so long that this overflows; see `HekaSigner::MAX_NAME_BYTES`.
    out.push(u8::try_from(header.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(&header);
    out.push(UNIT_SEPARATOR);
    out.extend_from_slice(message);
}

/// The message in a frame that [`write`] made.
pub(crate) fn message_of(frame: &[u8]) -> &[u8] {
    let header_bytes = frame.get(1).copied().map_or(0, usize::from);
    frame.get(header_bytes + 3..).unwrap_or_default()
}

fn header(message: &[u8], signer: Option<&HekaSigner>) -> Header {
    let mut header = Header { message_length: message.len() as u32, ..Header::default() };
    if let Some(signer) = signer {
        let (function, hmac) = match signer.hash {
            // The default, which the Go client does not write.
            HmacHash::Md5 => (None, hmac_md5(&signer.key, message)),
            HmacHash::Sha1 => (Some(HashFunction::Sha1 as i32), hmac_sha1(&signer.key, message)),
        };
        header.hmac_hash_function = function;
        header.hmac_signer = Some(signer.name.clone());
        header.hmac_key_version = Some(signer.key_version);
        header.hmac = Some(hmac);
    }
    header
}

fn hmac_md5(key: &[u8], message: &[u8]) -> Vec<u8> {
    // A key of any length is taken.
    Hmac::<Md5>::new_from_slice(key)
        .map(|hmac| hmac.chain_update(message).finalize().into_bytes().to_vec())
        .unwrap_or_default()
}

fn hmac_sha1(key: &[u8], message: &[u8]) -> Vec<u8> {
    Hmac::<Sha1>::new_from_slice(key)
        .map(|hmac| hmac.chain_update(message).finalize().into_bytes().to_vec())
        .unwrap_or_default()
}

/// Whether `header` holds the right HMAC of `message` under `key`. Takes as long for a wrong one as for the right one.
#[cfg(feature = "router")]
pub(super) fn is_signed(header: &Header, key: &[u8], message: &[u8]) -> bool {
    let hmac = header.hmac.as_deref().unwrap_or_default();
    let function = HashFunction::try_from(header.hmac_hash_function.unwrap_or_default());
    match function {
        Ok(HashFunction::Md5) => Hmac::<Md5>::new_from_slice(key)
            .is_ok_and(|expected| expected.chain_update(message).verify_slice(hmac).is_ok()),
        Ok(HashFunction::Sha1) => Hmac::<Sha1>::new_from_slice(key)
            .is_ok_and(|expected| expected.chain_update(message).verify_slice(hmac).is_ok()),
        Err(_) => false,
    }
}
