//! The file output: JSON lines. In: messages. Out: one line each, in one `write` for many.
//!
//! Lost here: what cannot be written, for instance on a full disk; it is counted, and the file goes on with a
//! line of its own when there is room again.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

use super::Sink;
use crate::Message;

/// What the buffer shrinks back to after a large batch.
const KEPT_BYTES: usize = 256 * 1024;

/// A file being appended to.
pub(super) struct File {
    file: std::fs::File,
    buffer: Vec<u8>,
    /// A write failed, maybe in the middle of a line: the next one must not continue that line.
    torn: bool,
}

impl File {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(File { file, buffer: Vec::new(), torn: false })
    }
}

impl Sink for File {
    fn write(&mut self, message: &Message) -> io::Result<()> {
        if std::mem::take(&mut self.torn) {
            self.buffer.push(b'\n');
        }
        serde_json::to_writer(&mut self.buffer, message)?;
        self.buffer.push(b'\n');
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = self.file.write_all(&self.buffer);
        self.torn |= written.is_err();
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BYTES);
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_and_the_next_line_starts_afresh() {
        let mut file = File::open(Path::new("/dev/full")).expect("opens");
        file.write(&Message::new("x", "")).expect("kept");
        file.flush().expect_err("the disk is full");
        file.write(&Message::new("x", "")).expect("kept");
        assert_eq!(file.buffer[0], b'\n');
    }
}
