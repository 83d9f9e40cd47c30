//! Any bytes are read as a segment of the spool to their end, without a panic; every message that comes out stands in
//! them as a whole record, with a number that goes up and stays within its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracing_metlog::fuzzing::{spool_record, segment};

fuzz_target!(|input: (u16, u16, Vec<(bool, Vec<u8>)>)| {
    let (first, count, pieces) = input;
    let first = u64::from(first) + 1;
    let bound = first + u64::from(count);
    // Whole records between anything else: nothing alone would ever find one.
    let (mut bytes, mut sequence, mut whole) = (Vec::new(), first, Vec::new());
    for (is_message, piece) in &pieces {
        match is_message {
            true => {
                whole.push(sequence);
                bytes.extend(spool_record(sequence, piece));
                sequence += 1;
            }
            false => bytes.extend_from_slice(piece),
        }
    }
    let read = segment(&bytes, first, bound);
    assert!(read.windows(2).all(|pair| pair[0].0 < pair[1].0));
    for (sequence, message) in &read {
        assert!((first..bound).contains(sequence));
        let record = spool_record(*sequence, message);
        assert!(bytes.windows(record.len()).any(|window| window == record));
    }
    // What stands between bytes that hold no marker is found.
    let has_marker = pieces.iter().any(|(_, piece)| piece.contains(&0xF5));
    if !has_marker {
        let found: Vec<_> = read.iter().map(|(sequence, _)| *sequence).collect();
        assert_eq!(found, whole.into_iter().filter(|sequence| *sequence < bound).collect::<Vec<_>>());
    }
});
