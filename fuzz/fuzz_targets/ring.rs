//! Any bytes are a crash ring or none, and every message that comes out of one is JSON on one line. What is fuzzed is a
//! small ring with some of its bytes changed: whole files would be too long to get anywhere.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tracing_metlog::fuzzing::{crash_ring, small_crash_ring};

fuzz_target!(|input: (Vec<(u16, u8)>, Vec<u8>, Option<u16>)| {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    let mut ring = WHOLE.get_or_init(small_crash_ring).clone();
    let (changes, records, end) = input;
    // Records of the fuzzer's own making in place of those in the first slot.
    tracing_metlog::fuzzing::put_records(&mut ring, &records);
    for (at, value) in changes {
        let at = usize::from(at) % ring.len();
        ring[at] ^= value;
    }
    ring.truncate(end.map_or(ring.len(), usize::from));
    for message in crash_ring(&ring).map(|found| found.0).unwrap_or_default() {
        assert!(!message.contains(&b'\n'));
        serde_json::from_slice::<serde_json::Value>(&message).expect("JSON");
    }
});
