//! Any bytes are a message or an error; a message that is written and read again is the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracing_metlog::router::decode;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = decode(bytes) {
        let again = decode(message.to_json().as_bytes()).expect("what was written is read");
        assert_eq!(again, message);
    }
});
