//! The file output: JSON lines. In: messages. Out: one line each, in one `write` for many.
//!
//! Lost here: what cannot be written, for instance on a full disk; it is counted, and the file goes on with a
//! line of its own when there is room again.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Batch, Context, Endpoint, Place, Writer};
use crate::router::received::Received;

/// Which file.
pub(super) struct Settings {
    pub(super) path: PathBuf,
}

impl Endpoint for Settings {
    fn name(&self) -> String {
        format!("file:{}", self.path.display())
    }

    fn open(self: Box<Self>) -> io::Result<Place> {
        Ok(Place { draw: Some(Arc::new(draw)), writer: Box::new(File::open(&self.path)?) })
    }
}

/// A message as a line of JSON.
fn draw(message: &Received<'_>, lines: &mut Vec<u8>) -> Result<(), String> {
    message.write_json(lines);
    lines.push(b'\n');
    Ok(())
}

/// A file being appended to.
struct File {
    path: PathBuf,
    file: std::fs::File,
    /// A write failed, maybe in the middle of a line: the next one must not continue that line.
    torn: bool,
}

impl File {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(File { path: path.to_owned(), file, torn: ends_in_mid_line(path) })
    }
}

/// Whether somebody was killed in the middle of a line. A file that may not be read, or that is none, counts as whole.
fn ends_in_mid_line(path: &Path) -> bool {
    let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    let last_byte = || -> io::Result<u8> {
        let mut file = std::fs::File::open(path)?;
        let mut byte = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut byte)?;
        Ok(byte[0])
    };
    // An empty file has no last byte: seeking before its beginning fails.
    is_file && last_byte().is_ok_and(|byte| byte != b'\n')
}

impl Writer for File {
    fn write(&mut self, batch: &Batch, context: &Context) {
        context.settle(batch.count, self.append(&batch.lines));
    }

    /// What cannot be opened goes on where it was: a file that was moved away still takes lines.
    fn reopen(&mut self, context: &Context) {
        match File::open(&self.path) {
            Ok(new) => *self = new,
            Err(error) => context.settle(0, Err(error)),
        }
    }
}

impl File {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        let written = self.file.write_all(lines);
        self.torn = written.is_err();
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failure_the_next_line_starts_afresh() {
        let path = std::env::temp_dir().join(format!("metlog-torn-{}", std::process::id()));
        let mut file = File::open(&path).expect("opens");
        file.append(b"{\"type\": \"cut").expect("written");
        // As after a disk that was full in the middle of the write.
        file.torn = true;
        file.append(b"{}\n").expect("written");
        file.append(b"{}\n").expect("written");
        let text = std::fs::read_to_string(&path).expect("readable");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(text, "{\"type\": \"cut\n{}\n{}\n");
    }

    #[test]
    fn a_line_that_a_killed_router_left_half_written_is_ended_by_the_next_one() {
        let path = std::env::temp_dir().join(format!("metlog-killed-{}", std::process::id()));
        for (before, after) in
            [("{\"type\": \"cut", "{\"type\": \"cut\n{}\n"), ("{}\n", "{}\n{}\n"), ("", "{}\n")]
        {
            std::fs::write(&path, before).expect("written");
            File::open(&path).expect("opens").append(b"{}\n").expect("written");
            assert_eq!(std::fs::read_to_string(&path).expect("readable"), after);
        }
        std::fs::remove_file(&path).expect("removed");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_and_not_an_end() {
        let mut file = File::open(Path::new("/dev/full")).expect("opens");
        for _ in 0..2 {
            file.append(b"{}\n").expect_err("the disk is full");
            assert!(file.torn);
        }
    }
}
