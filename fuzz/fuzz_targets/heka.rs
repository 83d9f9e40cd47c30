//! Any stream of Heka's frames is split without a panic, and into the same messages however it comes; a message that is
//! framed again is read as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracing_metlog::fuzzing::{heka_frame, heka_frames};
use tracing_metlog::router::decode;

fuzz_target!(|input: (u8, &[u8])| {
    let (chunk, stream) = input;
    let frames = heka_frames(stream, stream.len());
    assert_eq!(heka_frames(stream, usize::from(chunk)), frames);
    for message in frames.into_iter().flatten() {
        // Fields that hold JSON may be nested deeper than the router reads.
        let Ok(message) = decode(&message) else { continue };
        let flat = read(&heka_frame(message.to_json().as_bytes()).expect("framed"));
        let Some(flat) = flat else { continue };
        // What was nested is flat now, and stays as it is.
        let again = read(&heka_frame(flat.to_json().as_bytes()).expect("framed")).expect("read");
        assert_eq!(again, flat);
    }
});

/// `None` if it has become longer than the splitter takes.
fn read(frame: &[u8]) -> Option<tracing_metlog::Message> {
    match &heka_frames(frame, frame.len())[..] {
        [Some(message)] => Some(decode(message).expect("what was framed is a message")),
        [None] => None,
        other => panic!("one frame became {}", other.len()),
    }
}
