//! Any stream is split without a panic, and into the same messages however it comes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracing_metlog::fuzzing::frames;

fuzz_target!(|input: (u8, &[u8])| {
    let (chunk, stream) = input;
    assert_eq!(frames(stream, usize::from(chunk)), frames(stream, stream.len()));
});
