//! One file that is appended to. In: whole lines. Out: how many bytes of them are in the file.
//!
//! It follows its path: when somebody has moved the file away, it is made anew; when somebody has cut it, the next line
//! begins at the new end. A line that was left half written is ended, never removed: what follows it must be whole.
//! Lost here: what the file system does not take. Also what is written between a removal and the next look, which
//! is before each write.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file, open.
pub(super) struct Appender {
    pub(super) path: PathBuf,
    /// Whether nothing but a file is to be there: no link, no pipe.
    is_strict: bool,
    file: fs::File,
    /// Which file it is; `None` where that means nothing: pipes and devices.
    identity: Option<Identity>,
    pub(super) bytes: u64,
    /// When it was last written to, as the file system says; when it was opened, from then on.
    pub(super) since: SystemTime,
    /// It ends in the middle of a line, which the next one must not continue.
    torn: bool,
}

/// What tells a file from another one that was put in its place.
#[cfg(unix)]
type Identity = (u64, u64);
#[cfg(not(unix))]
type Identity = ();

impl Appender {
    /// Opens or makes the file. `is_strict` refuses links and whatever else is no file.
    pub(super) fn open(path: &Path, is_strict: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        if is_strict {
            strictly(&mut options, path)?;
        }
        let file = options.open(path)?;
        let metadata = file.metadata()?;
        if is_strict && !metadata.is_file() {
            return Err(not_a_file());
        }
        Ok(Appender {
            is_strict,
            identity: metadata.is_file().then(|| identity(&metadata)),
            bytes: metadata.len(),
            since: metadata.modified().unwrap_or_else(|_| SystemTime::now()),
            torn: metadata.is_file() && ends_in_mid_line(path),
            path: path.to_owned(),
            file,
        })
    }

    /// Whether it is a file, which can be renamed and measured.
    pub(super) fn is_file(&self) -> bool {
        self.identity.is_some()
    }

    /// Looks whether the path still leads here, and where the end of the file is now.
    ///
    /// # Errors
    /// What prevents a look. Then the file is as good as any.
    pub(super) fn is_in_place(&mut self) -> io::Result<bool> {
        if !self.is_file() {
            return Ok(true);
        }
        let found = if self.is_strict { fs::symlink_metadata(&self.path) } else { fs::metadata(&self.path) };
        let found = match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            found => found?,
        };
        if self.identity != Some(identity(&found)) {
            return Ok(false);
        }
        if found.len() != self.bytes {
            self.bytes = found.len();
            self.torn = ends_in_mid_line(&self.path);
        }
        Ok(true)
    }

    /// Whether what is written can still be found somewhere: the file was moved away, and not removed.
    pub(super) fn has_name(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| has_name(&metadata))
    }

    /// How long the file is when the next line begins.
    pub(super) fn next_line_at(&self) -> u64 {
        self.bytes + u64::from(self.torn)
    }

    /// Appends lines. How many bytes of them are in the file, and what prevented the rest.
    pub(super) fn append(&mut self, lines: &[u8]) -> (usize, io::Result<()>) {
        if self.torn {
            let (_, ended) = self.write(b"\n");
            if ended.is_err() {
                return (0, ended);
            }
            self.torn = false;
        }
        let (written, result) = self.write(lines);
        if let Some(&last) = lines[..written].last() {
            self.torn = last != b'\n';
        }
        (written, result)
    }

    /// As `write_all`, which does not say how much it has written.
    fn write(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    written += count;
                    self.bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }
}

fn not_a_file() -> io::Error {
    io::Error::other("there is something that is no file")
}

/// How many lines are in the file after so many bytes of them. One that lacks its newline only is: whoever writes next
/// ends it, and nobody could tell it from a written one.
pub(super) fn lines_within(lines: &[u8], written: usize) -> u64 {
    let whole = lines[..written].iter().filter(|&&byte| byte == b'\n').count() as u64;
    let is_begun = written > 0 && lines[written - 1] != b'\n';
    whole + u64::from(is_begun && lines.get(written) == Some(&b'\n'))
}

/// Whether somebody was killed in the middle of a line. A file that may not be read counts as whole.
fn ends_in_mid_line(path: &Path) -> bool {
    let last_byte = || -> io::Result<u8> {
        let mut file = fs::File::open(path)?;
        let mut byte = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut byte)?;
        Ok(byte[0])
    };
    // An empty file has no last byte: seeking before its beginning fails.
    last_byte().is_ok_and(|byte| byte != b'\n')
}

/// A link is not followed, and a pipe without a reader is an error and no wait.
#[cfg(unix)]
fn strictly(options: &mut OpenOptions, _: &Path) -> io::Result<()> {
    use rustix::fs::OFlags;
    use std::os::unix::fs::OpenOptionsExt;
    options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    Ok(())
}

#[cfg(unix)]
fn identity(metadata: &fs::Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

/// Whether the file can still be found under some name.
#[cfg(unix)]
fn has_name(metadata: &fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(metadata) > 0
}

/// Where the system cannot be told not to follow a link, a look before must do.
#[cfg(not(unix))]
fn strictly(_: &mut OpenOptions, path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(not_a_file()),
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> Identity {}

#[cfg(not(unix))]
fn has_name(_: &fs::Metadata) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("metlog-appender-{name}-{}", std::process::id()))
    }

    fn appended(appender: &mut Appender, lines: &[u8]) {
        let (written, result) = appender.append(lines);
        result.expect("written");
        assert_eq!(written, lines.len());
    }

    #[test]
    fn after_a_failure_the_next_line_starts_afresh() {
        let path = path("torn");
        let mut file = Appender::open(&path, false).expect("opens");
        // As after a disk that was full in the middle of the write.
        appended(&mut file, b"{\"type\": \"cut");
        appended(&mut file, b"{}\n");
        appended(&mut file, b"{}\n");
        let text = fs::read_to_string(&path).expect("readable");
        fs::remove_file(&path).expect("removed");
        assert_eq!(text, "{\"type\": \"cut\n{}\n{}\n");
    }

    #[test]
    fn a_line_that_a_killed_router_left_half_written_is_ended_by_the_next_one() {
        let path = path("killed");
        for (before, after) in
            [("{\"type\": \"cut", "{\"type\": \"cut\n{}\n"), ("{}\n", "{}\n{}\n"), ("", "{}\n")]
        {
            fs::write(&path, before).expect("written");
            appended(&mut Appender::open(&path, true).expect("opens"), b"{}\n");
            assert_eq!(fs::read_to_string(&path).expect("readable"), after);
        }
        fs::remove_file(&path).expect("removed");
    }

    #[test]
    fn a_line_counts_as_written_when_it_can_be_told_from_a_cut_one() {
        let lines = b"ab\n\ncd\n";
        let expected = [0, 0, 1, 1, 2, 2, 3, 3];
        for (written, expected) in expected.into_iter().enumerate() {
            assert_eq!(lines_within(lines, written), expected, "{written} bytes");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_and_not_an_end() {
        let mut file = Appender::open(Path::new("/dev/full"), false).expect("opens");
        for _ in 0..2 {
            let (written, result) = file.append(b"{}\n");
            result.expect_err("the disk is full");
            assert_eq!(written, 0);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_strict_file_is_neither_a_link_nor_a_pipe() {
        let (link, target) = (path("link"), path("target"));
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(&target, &link).expect("linked");
        assert!(Appender::open(&link, true).is_err());
        assert!(!target.exists(), "a link was followed");
        fs::remove_file(&link).expect("removed");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &link, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        assert!(Appender::open(&link, true).is_err());
        fs::remove_file(&link).expect("removed");
    }
}
