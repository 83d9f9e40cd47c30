//! What the fuzz targets reach that nobody else needs to.

use crate::delivery::framing::Splitter;

/// The messages of a stream that comes in chunks of `chunk` bytes; `None` stands for a stretch that is none.
pub fn frames(stream: &[u8], chunk: usize) -> Vec<Option<Vec<u8>>> {
    const LONGEST: usize = 1024;
    let mut frames = Vec::new();
    let mut splitter = Splitter::new(LONGEST);
    let mut each = |frame: Result<&[u8], _>| frames.push(frame.ok().map(<[u8]>::to_vec));
    stream.chunks(chunk.max(1)).for_each(|bytes| splitter.push(bytes, &mut each));
    splitter.finish(&mut each);
    frames
}

/// One message as a record of the spool.
#[cfg(feature = "spool")]
pub fn record(sequence: u64, message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    crate::delivery::spool::record::write(sequence, message, &mut bytes);
    bytes
}

/// The messages of a segment of the spool, each with its number.
#[cfg(feature = "spool")]
pub fn segment(bytes: &[u8], first: u64, bound: u64) -> Vec<(u64, Vec<u8>)> {
    use crate::delivery::spool::{record, store};
    let (mut at, mut lowest, mut found) = (record::after_head(bytes, first).0, first, Vec::new());
    while let Some(read) = record::next(bytes, at, lowest, bound) {
        found.push((read.sequence, read.message.to_vec()));
        (at, lowest) = (read.end, read.sequence + 1);
    }
    store::end_of_last(bytes, first);
    found
}
