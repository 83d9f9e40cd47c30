//! Any stream of requests is answered without a panic, and in the same way whatever pieces it comes in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracing_metlog::fuzzing::http_answers;

fuzz_target!(|input: (u8, &[u8])| {
    let (chunk, stream) = input;
    assert_eq!(http_answers(stream, usize::from(chunk)), http_answers(stream, usize::MAX));
});
