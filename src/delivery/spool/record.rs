//! Records and the heads of segments, as bytes: what docs/spool-format.md says, and nothing about files.
//!
//! In: messages, or the bytes of a segment. Out: the bytes of a segment, or its messages. Lost here: what is damaged,
//! as told by the sequence numbers around it.

/// What a segment begins with.
const SEGMENT_MAGIC: &[u8; 8] = b"MLSPOOL1";
/// Bytes before the first record of a segment.
pub(crate) const HEAD_BYTES: usize = 32;
/// What a record begins with. No UTF-8 text contains the first byte.
const MARKER: [u8; 4] = [0xF5, b'M', b'L', b'R'];
/// Bytes of a record before its message.
pub(crate) const RECORD_HEAD_BYTES: usize = 20;
/// The longest message: a length above it is not read as one.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// The head of a segment whose first record has this number.
pub(crate) fn segment_head(first: u64, milliseconds: u64) -> [u8; HEAD_BYTES] {
    sealed_block(SEGMENT_MAGIC, first, milliseconds)
}

/// 32 bytes: a name, two numbers, and a sum over them.
pub(super) fn sealed_block(magic: &[u8; 8], one: u64, two: u64) -> [u8; 32] {
    let mut block = [0; 32];
    block[..8].copy_from_slice(magic);
    block[8..16].copy_from_slice(&one.to_le_bytes());
    block[16..24].copy_from_slice(&two.to_le_bytes());
    let sum = crc32c::crc32c(&block[..28]);
    block[28..].copy_from_slice(&sum.to_le_bytes());
    block
}

/// The two numbers, if the block is whole.
pub(super) fn read_sealed_block(magic: &[u8; 8], bytes: &[u8]) -> Option<(u64, u64)> {
    let block = bytes.get(..32)?;
    let is_whole = block.starts_with(magic) && crc32c::crc32c(&block[..28]) == u32_at(block, 28)?;
    is_whole.then_some((u64_at(block, 8)?, u64_at(block, 16)?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Appends one message as a record. `false`, and nothing appended, when it is too long for any.
pub(crate) fn write(sequence: u64, message: &[u8], out: &mut Vec<u8>) -> bool {
    if message.len() > MAX_MESSAGE_BYTES {
        return false;
    }
    let mut numbers = [0; 12];
    numbers[..4].copy_from_slice(&(message.len() as u32).to_le_bytes());
    numbers[4..].copy_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&numbers);
    out.extend_from_slice(&sum(&numbers, message).to_le_bytes());
    out.extend_from_slice(message);
    true
}

fn sum(numbers: &[u8], message: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(numbers), message)
}

/// A message as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Read<'b> {
    pub(crate) sequence: u64,
    pub(crate) message: &'b [u8],
    /// Where the next record begins.
    pub(crate) end: usize,
    /// Bytes before it were no whole record.
    pub(crate) after_damage: bool,
}

/// Where in a segment its first record is to be looked for, and whether its head is whole.
pub(crate) fn after_head(segment: &[u8], first: u64) -> (usize, bool) {
    match read_sealed_block(SEGMENT_MAGIC, segment) {
        Some((stated, _)) if stated == first => (HEAD_BYTES, true),
        // A head cut short or damaged: records are found by their markers.
        _ => (0, false),
    }
}

/// The next whole record from `start` on whose number is at least `lowest` and below `bound`. `None` when there is no
/// further one.
pub(crate) fn next(segment: &[u8], start: usize, lowest: u64, bound: u64) -> Option<Read<'_>> {
    let mut at = start;
    loop {
        if let Some((sequence, message)) = at_exactly(segment, at, lowest, bound) {
            let end = at + RECORD_HEAD_BYTES + message.len();
            return Some(Read { sequence, message, end, after_damage: at != start });
        }
        at = find_marker(segment, at + 1)?;
    }
}

fn at_exactly(segment: &[u8], at: usize, lowest: u64, bound: u64) -> Option<(u64, &[u8])> {
    let record = segment.get(at..)?;
    let length = u32_at(record, 4).filter(|_| record.starts_with(&MARKER))? as usize;
    let sequence = u64_at(record, 8)?;
    if length > MAX_MESSAGE_BYTES || !(lowest..bound).contains(&sequence) {
        return None;
    }
    let message = record.get(RECORD_HEAD_BYTES..RECORD_HEAD_BYTES + length)?;
    (sum(&record[4..16], message) == u32_at(record, 16)?).then_some((sequence, message))
}

fn find_marker(segment: &[u8], from: usize) -> Option<usize> {
    let rest = segment.get(from..)?;
    rest.windows(MARKER.len()).position(|window| window == MARKER).map(|found| from + found)
}

/// How many records the last segment holds bytes of after its last whole one: what was cut short or damaged where no
/// later number tells. At least one, unless nothing but zeros is there, which a file system leaves after a power loss.
pub(crate) fn broken_at_end(tail: &[u8]) -> u64 {
    if tail.iter().all(|&byte| byte == 0) {
        return 0;
    }
    let mut found = 0;
    let mut at = 0;
    while let Some(marker) = find_marker(tail, at) {
        found += 1;
        at = marker + MARKER.len();
    }
    found.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment_of(messages: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = segment_head(1, 0).to_vec();
        let mut starts = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            starts.push(bytes.len());
            assert!(write(index as u64 + 1, message, &mut bytes));
        }
        starts.push(bytes.len());
        (bytes, starts)
    }

    fn all(segment: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let (mut at, _) = after_head(segment, 1);
        let (mut lowest, mut found) = (1, Vec::new());
        while let Some(read) = next(segment, at, lowest, u64::MAX) {
            found.push((read.sequence, read.message.to_vec()));
            (at, lowest) = (read.end, read.sequence + 1);
        }
        found
    }

    fn numbered(messages: &[Vec<u8>]) -> Vec<(u64, Vec<u8>)> {
        messages.iter().enumerate().map(|(index, message)| (index as u64 + 1, message.clone())).collect()
    }

    fn messages() -> impl Strategy<Value = Vec<Vec<u8>>> {
        // UTF-8, as messages are; some hold most of a marker.
        prop::collection::vec("(\\PC{0,40}|MLR)".prop_map(String::into_bytes), 1..8)
    }

    #[test]
    fn a_record_is_laid_out_as_the_document_says() {
        let mut bytes = Vec::new();
        write(0x0102, b"{}", &mut bytes);
        assert_eq!(&bytes[..16], b"\xF5MLR\x02\0\0\0\x02\x01\0\0\0\0\0\0");
        // The sum as another implementation computes it, bit by bit.
        let mut sum = u32::MAX;
        for byte in b"\x02\0\0\0\x02\x01\0\0\0\0\0\0{}" {
            sum ^= u32::from(*byte);
            for _ in 0..8 {
                sum = (sum >> 1) ^ (0x82F6_3B78 & (sum & 1).wrapping_neg());
            }
        }
        assert_eq!(bytes[16..20], (!sum).to_le_bytes());
        assert_eq!(&bytes[20..], b"{}");
    }

    #[test]
    fn a_message_too_long_for_any_record_is_refused() {
        let mut bytes = Vec::new();
        assert!(!write(1, &vec![b'x'; MAX_MESSAGE_BYTES + 1], &mut bytes));
        assert!(bytes.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(messages in messages()) {
            prop_assert_eq!(all(&segment_of(&messages).0), numbered(&messages));
        }

        #[test]
        fn every_flipped_byte_costs_the_record_it_is_in_and_no_other(messages in messages(), change in 1u8..) {
            let (bytes, starts) = segment_of(&messages);
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= change;
                let mut expected = numbered(&messages);
                if let Some(hit) = starts.windows(2).position(|pair| (pair[0]..pair[1]).contains(&at)) {
                    expected.remove(hit);
                }
                prop_assert_eq!(all(&damaged), expected, "byte {}", at);
            }
        }

        #[test]
        fn every_truncation_costs_what_was_cut_and_no_more(messages in messages()) {
            let (bytes, starts) = segment_of(&messages);
            for length in 0..bytes.len() {
                let whole = starts[1..].iter().filter(|&&end| end <= length).count();
                prop_assert_eq!(all(&bytes[..length]), &numbered(&messages)[..whole], "cut to {}", length);
            }
        }

        #[test]
        fn any_bytes_are_read_to_their_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            all(&bytes);
            broken_at_end(&bytes);
        }

        #[test]
        fn a_record_out_of_its_place_is_none(messages in messages(), lowest in 1u64..10, bound in 1u64..10) {
            let (bytes, _) = segment_of(&messages);
            let read = next(&bytes, HEAD_BYTES, lowest, bound);
            let expected = (1..=messages.len() as u64).find(|sequence| (lowest..bound).contains(sequence));
            prop_assert_eq!(read.map(|read| read.sequence), expected);
        }
    }
}
