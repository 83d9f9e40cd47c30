//! A Heka message as a Metlog message again.
//!
//! In: the bytes between two frames' headers, whatever they are. Out: a message, or that it is none. Lost: the `uuid`,
//! for which Metlog has no place. What the sender left out has the value that Heka says it has.

use prost::Message as _;

use super::wire::Message as WireMessage;
use super::{fields, time};
use crate::{Message, Payload, Severity, ENVELOPE_VERSION};

/// The severity of a message that names none.
const DEFAULT_SEVERITY: i32 = 7;

/// Reads one message.
///
/// `None`: it is no protobuf, or no message of Heka's, or has a severity beyond 0 to 7.
pub(crate) fn message(bytes: &[u8]) -> Option<Message> {
    let wire = WireMessage::decode(bytes).ok()?;
    let severity = u8::try_from(wire.severity.unwrap_or(DEFAULT_SEVERITY)).ok()?;
    Some(Message {
        timestamp: time::timestamp(wire.timestamp),
        logger: wire.logger.unwrap_or_default(),
        r#type: wire.r#type.unwrap_or_default(),
        severity: Severity::from_number(severity)?,
        payload: Payload::Text(wire.payload.unwrap_or_default()),
        fields: fields::members(wire.fields)?,
        env_version: wire.env_version.unwrap_or_else(|| ENVELOPE_VERSION.to_owned()),
        pid: wire.pid.map(i64::from),
        hostname: wire.hostname,
    })
}
