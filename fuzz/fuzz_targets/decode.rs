//! Any bytes are a message or an error; a message that is written and read again is the same. What the router sees at a
//! glance is what is there when it is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracing_metlog::fuzzing::looked;
use tracing_metlog::router::decode;
use tracing_metlog::Message;

fuzz_target!(|bytes: &[u8]| {
    let looked = looked(bytes);
    let message = match decode(bytes) {
        Ok(message) => message,
        Err(error) => {
            let other = looked.expect_err("not a message").to_string();
            return assert_eq!(other, error.to_string());
        }
    };
    let again = decode(message.to_json().as_bytes()).expect("what was written is read");
    assert_eq!(again, message);

    let looked = looked.expect("a message");
    assert_eq!(looked.message, message);
    assert_eq!(looked.message_type, message.r#type);
    assert_eq!(looked.id.as_deref(), message.fields.get("metlog_id").and_then(|id| id.as_str()));
    assert_eq!(looked.payload, message.payload.to_string());
    assert!(!looked.line.contains(&b'\n'));
    let line: Message = serde_json::from_slice(&looked.line).expect("a line is a message");
    assert_eq!(line, message);
});
