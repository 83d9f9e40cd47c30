//! `file:///path`: one message a line, appended to a file that others may rotate.
//!
//! In: batches. Out: whole lines, with the kernel when `send` returns. There is no fsync: what the disk did not
//! have yet is lost when the machine (not the process) dies. While the disk is full the rest waits.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::super::batch::Batch;
use super::cursor::{Cursor, Sink};
use super::socket;
use super::Transport;

/// Lines appended to one path, wherever the file of that name is at the moment.
#[derive(Debug)]
pub(super) struct LineFile {
    path: PathBuf,
    file: Option<File>,
    cursor: Cursor,
}

impl LineFile {
    pub(super) fn at(path: &Path) -> Self {
        LineFile { path: path.to_owned(), file: None, cursor: Cursor::default() }
    }

    /// The file to write to: the one that is open, unless it was renamed or removed. In the middle of a line
    /// only removal counts, because half a line in a renamed file would be read by someone.
    fn current(&mut self, batch: &Batch) -> io::Result<File> {
        if !self.cursor.is_in(batch) {
            self.leave();
        }
        if let Some(file) = self.file.take() {
            let gone = if self.cursor.is_at_start() { !is_at(&file, &self.path) } else { is_removed(&file) };
            if !gone {
                return Ok(file);
            }
            self.cursor.reset();
        }
        open(&self.path)
    }

    /// Starts anew with the next line; opening ends one that was left half written.
    fn leave(&mut self) {
        self.file = None;
        self.cursor.reset();
    }
}

impl Transport for LineFile {
    fn send(&mut self, batch: &mut Batch, deadline: Instant) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut file = self.current(batch)?;
        let outcome = self.cursor.write(batch, &mut Appended(&mut file), deadline);
        self.cursor.settle(batch);
        let keep = outcome.as_ref().err().is_none_or(socket::is_deadline) || is_regular(&file);
        self.file = Some(file);
        if !keep {
            // A named pipe without a reader: the next reader begins with a whole line.
            self.leave();
        }
        outcome
    }
}

struct Appended<'a>(&'a mut File);

impl Sink for Appended<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(socket::as_down)
    }

    /// Only what is not a regular file (a named pipe, a terminal) makes anyone wait.
    fn wait(&mut self, deadline: Instant) -> io::Result<()> {
        socket::wait(self.0, socket::Ready::Write, deadline)
    }
}

/// Opens for appending, makes the file if need be, and ends a last line that a crash cut short.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    never_waiting(&mut options);
    let mut file = options.open(path).map_err(|error| explained(path, error))?;
    if is_regular(&file) && ends_in_mid_line(path) {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// Opening a named pipe waits for its reader, and writing to it for room, unless told not to.
#[cfg(unix)]
fn never_waiting(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
}

#[cfg(not(unix))]
fn never_waiting(_: &mut OpenOptions) {}

/// The error, with the directory that is missing if that is the matter: it is not made here, because a
/// mistyped path should not go unnoticed.
fn explained(path: &Path, error: io::Error) -> io::Error {
    match path.parent() {
        Some(directory) if error.kind() == io::ErrorKind::NotFound && !directory.exists() => {
            let problem = format!("directory {directory:?} does not exist and is not made");
            io::Error::new(io::ErrorKind::NotFound, problem)
        }
        _ => {
            let problem = format!("{path:?}: {error}");
            io::Error::new(socket::as_down(error).kind(), problem)
        }
    }
}

fn is_regular(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file())
}

/// Whether the file's last byte is there and is no newline. A file that may not be read counts as whole.
fn ends_in_mid_line(path: &Path) -> bool {
    let last_byte = || -> io::Result<u8> {
        let mut file = File::open(path)?;
        let mut byte = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut byte)?;
        Ok(byte[0])
    };
    // An empty file has no last byte: seeking before its beginning fails.
    last_byte().is_ok_and(|byte| byte != b'\n')
}

/// Whether `path` still leads to `file`. When that cannot be told, it does.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (_, Err(error)) => error.kind() != io::ErrorKind::NotFound,
        (Err(_), _) => true,
        (Ok(open), Ok(named)) => is_same(&open, &named),
    }
}

#[cfg(unix)]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Elsewhere an open file can be neither renamed nor removed.
#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    true
}

#[cfg(unix)]
fn is_removed(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 0)
}

#[cfg(not(unix))]
fn is_removed(_: &File) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::super::super::framing::Framing;
    use super::super::support::{batch_of, soon, Directory};
    use super::*;

    fn send(transport: &mut LineFile, lines: &[&str]) {
        let mut batch = batch_of(Framing::Newline, lines);
        transport.send(&mut batch, soon()).unwrap();
        assert!(batch.is_empty());
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn lines_are_appended_to_what_is_there() {
        let directory = Directory::new();
        let path = directory.file("log");
        fs::write(&path, "zero\n").unwrap();
        let mut transport = LineFile::at(&path);
        send(&mut transport, &["one", "two"]);
        send(&mut transport, &["three"]);
        assert_eq!(text(&path), "zero\none\ntwo\nthree\n");
    }

    #[test]
    fn a_last_line_that_a_crash_cut_short_is_ended_first() {
        let directory = Directory::new();
        let path = directory.file("log");
        fs::write(&path, "{\"half").unwrap();
        send(&mut LineFile::at(&path), &["one"]);
        assert_eq!(text(&path), "{\"half\none\n");
    }

    #[test]
    fn a_new_file_starts_with_its_first_line() {
        let directory = Directory::new();
        let path = directory.file("log");
        send(&mut LineFile::at(&path), &["one"]);
        assert_eq!(text(&path), "one\n");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_renamed_or_removed_is_made_anew() {
        let directory = Directory::new();
        let (path, rotated) = (directory.file("log"), directory.file("log.1"));
        let mut transport = LineFile::at(&path);
        send(&mut transport, &["one"]);
        fs::rename(&path, &rotated).unwrap();
        send(&mut transport, &["two"]);
        assert_eq!((text(&rotated).as_str(), text(&path).as_str()), ("one\n", "two\n"));
        fs::remove_file(&path).unwrap();
        send(&mut transport, &["three"]);
        assert_eq!(text(&path), "three\n");
    }

    #[test]
    fn a_file_cut_by_copytruncate_goes_on_from_its_new_end() {
        let directory = Directory::new();
        let path = directory.file("log");
        let mut transport = LineFile::at(&path);
        send(&mut transport, &["one"]);
        OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
        send(&mut transport, &["two"]);
        assert_eq!(text(&path), "two\n");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let directory = Directory::new();
        let path = directory.file("missing").join("log");
        let mut batch = batch_of(Framing::Newline, &["one"]);
        let error = LineFile::at(&path).send(&mut batch, soon()).unwrap_err();
        assert!(error.to_string().contains("missing\" does not exist"), "{error}");
        assert_eq!(batch.len(), 1);
    }

    #[test]
    fn a_line_stopped_half_way_is_continued_and_one_given_up_is_ended() {
        let directory = Directory::new();
        let path = directory.file("log");
        let mut transport = LineFile::at(&path);
        let mut batch = batch_of(Framing::Newline, &["zero", "one"]);
        // As a full disk leaves it: the first line and three bytes of the second are written.
        stop_after(&mut transport, &mut batch, 8);
        assert_eq!((text(&path).as_str(), batch.len()), ("zero\none", 1));
        transport.send(&mut batch, soon()).unwrap();
        assert_eq!(text(&path), "zero\none\n");

        stop_after(&mut transport, &mut batch_of(Framing::Newline, &["three"]), 2);
        send(&mut transport, &["another batch"]);
        assert_eq!(text(&path), "zero\none\nth\nanother batch\n");
    }

    #[cfg(unix)]
    #[test]
    fn a_line_stopped_half_way_in_a_file_then_removed_starts_over_in_the_new_one() {
        let directory = Directory::new();
        let path = directory.file("log");
        let mut transport = LineFile::at(&path);
        let mut batch = batch_of(Framing::Newline, &["one"]);
        stop_after(&mut transport, &mut batch, 2);
        fs::remove_file(&path).unwrap();
        transport.send(&mut batch, soon()).unwrap();
        assert_eq!(text(&path), "one\n");
    }

    /// Lets `transport` write `room` bytes of `batch`, to the real file, and then fail as a full disk does.
    fn stop_after(transport: &mut LineFile, batch: &mut Batch, room: usize) {
        struct Full<'a>(&'a mut File, usize);
        impl Sink for Full<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if self.1 == 0 {
                    return Err(io::Error::other("the disk is full"));
                }
                let count = self.0.write(&bytes[..bytes.len().min(self.1)])?;
                self.1 -= count;
                Ok(count)
            }

            fn wait(&mut self, _: Instant) -> io::Result<()> {
                Ok(())
            }
        }
        let mut file = transport.current(batch).unwrap();
        let error = transport.cursor.write(batch, &mut Full(&mut file, room), soon()).unwrap_err();
        assert_eq!(error.to_string(), "the disk is full");
        transport.cursor.settle(batch);
        transport.file = Some(file);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_device_is_an_error_and_settles_nothing() {
        let mut transport = LineFile::at(Path::new("/dev/full"));
        let mut batch = batch_of(Framing::Newline, &["one"]);
        let error = transport.send(&mut batch, soon()).unwrap_err();
        assert_eq!(rustix::io::Errno::from_io_error(&error), Some(rustix::io::Errno::NOSPC));
        assert_eq!(batch.len(), 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_named_pipe_is_never_waited_for_past_the_deadline() {
        use super::super::support::at_once;
        let directory = Directory::new();
        let path = directory.file("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let mut transport = LineFile::at(&path);
        let line = "x".repeat(1 << 20);
        let mut batch = batch_of(Framing::Newline, &[line.as_str()]);
        assert!(transport.send(&mut batch, soon()).is_err(), "nobody reads: down");

        let mut reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        assert!(socket::is_deadline(&transport.send(&mut batch, at_once()).unwrap_err()));
        let read = std::thread::spawn(move || {
            let mut read = vec![0; (1 << 20) + 1];
            reader.read_exact(&mut read).map(|()| read)
        });
        transport.send(&mut batch, soon()).unwrap();
        assert!(read.join().unwrap().unwrap() == format!("{line}\n").into_bytes());
    }
}
