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
