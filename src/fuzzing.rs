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

/// What is made of any bytes as a crash ring: its messages, and how many records were damaged; `None` if it is none.
#[cfg(feature = "ring")]
pub fn crash_ring(bytes: &[u8]) -> Option<(Vec<Vec<u8>>, u64)> {
    use crate::delivery::crash::RingReader;
    use crate::queue::ring::dead::Image;

    let mut image = Image::read(&bytes).ok()?;
    let (mut messages, mut damaged) = (Vec::new(), u64::from(image.is_damaged));
    let mut reader = RingReader::new(&image);
    while let Some((_, records)) = image.next(&bytes) {
        let found = reader.read(&image, &records, |message| messages.push(message.to_vec()));
        damaged += found.damaged;
    }
    Some((messages, damaged))
}

/// A small crash ring with a few records, to begin with, and where the parts of it are that a fuzzer should change.
#[cfg(feature = "ring")]
pub fn small_crash_ring() -> Vec<u8> {
    crate::queue::ring::sample()
}
