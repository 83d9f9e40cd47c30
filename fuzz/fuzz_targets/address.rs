//! Any text is an address or an error; an address that is written and read again is the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracing_metlog::Address;

fuzz_target!(|text: &str| {
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.to_string().parse::<Address>().expect("what was written is read"), address);
    }
});
