//! Any bytes are a crash ring or none, and every message that comes out of one is JSON on one line. What is fuzzed is a
//! small ring with some of its bytes changed: whole files would be too long to get anywhere.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tracing_metlog::fuzzing::{crash_ring, put_records, ring_record, small_crash_ring};

fuzz_target!(|input: (Vec<(u16, u8)>, Option<Vec<u8>>, Option<u16>)| {
    static WHOLE: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    let (ring, sound) = WHOLE.get_or_init(|| (small_crash_ring(), [ring_record(), ring_record()].concat()));
    let mut ring = ring.clone();
    let (changes, records, end) = input;
    // Records of the fuzzer's own making, or sound ones, which are changed below.
    put_records(&mut ring, records.as_ref().unwrap_or(sound));
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
