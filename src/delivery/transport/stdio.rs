//! `stdout:` and `stderr:`: one message a line, for whoever runs the program.
//!
//! In: batches. Out: whole lines, with the kernel when `send` returns. The stream is locked while a batch is
//! written, so lines of `println!` are not mixed into those of a batch; a reader that stalls makes them wait,
//! as it would without this. What is in a pipe whose reader dies is lost and nobody says so.

use std::io::{self, Write};
use std::time::Instant;

use super::super::batch::Batch;
use super::cursor::{Cursor, Sink};
use super::socket::{self, Waitable};
use super::Transport;

/// What a pipe that has any room takes without blocking: PIPE_BUF, of which POSIX grants 512 bytes.
#[cfg(unix)]
const PIECE_BYTES: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

/// Which of the two.
#[derive(Clone, Copy, Debug)]
enum Which {
    Out,
    Error,
}

/// Lines on standard output or standard error.
#[derive(Debug)]
pub(super) struct Stdio {
    which: Which,
    cursor: Cursor,
}

impl Stdio {
    pub(super) fn out() -> Self {
        Stdio { which: Which::Out, cursor: Cursor::default() }
    }

    pub(super) fn error() -> Self {
        Stdio { which: Which::Error, cursor: Cursor::default() }
    }
}

impl Transport for Stdio {
    /// A reader that has gone is an error here. In a program that has put SIGPIPE's default back it is the end of
    /// the program, as with any other line it prints.
    fn send(&mut self, batch: &mut Batch, deadline: Instant) -> io::Result<()> {
        if !self.cursor.is_in(batch) {
            self.cursor.reset();
        }
        let outcome = match self.which {
            Which::Out => self.cursor.write(batch, &mut Locked::new(io::stdout().lock()), deadline),
            Which::Error => self.cursor.write(batch, &mut Locked::new(io::stderr().lock()), deadline),
        };
        self.cursor.settle(batch);
        outcome
    }
}

/// A stream that nobody else in this process writes to for now.
struct Locked<L> {
    stream: L,
    flushed: bool,
}

impl<L: Write> Locked<L> {
    fn new(stream: L) -> Self {
        Locked { stream, flushed: false }
    }

    /// What the program printed before comes first, even if it is only half a line.
    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()?;
        self.flushed = true;
        Ok(())
    }
}

#[cfg(unix)]
impl<L: Write + Waitable> Sink for Locked<L> {
    /// Past the standard library's buffer, which would not say how much of a line got out. Standard output is
    /// shared with whoever else has it open, so it is not made non-blocking: it is asked first, and given no more
    /// than fits. (Another process that fills the pipe in between can still make it wait.)
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !is_writable(&self.stream)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if !self.flushed {
            self.flush()?;
            // That may have taken the room there was.
            return self.write(bytes);
        }
        let piece = &bytes[..bytes.len().min(PIECE_BYTES)];
        rustix::io::write(&self.stream, piece).map_err(|error| socket::as_down(error.into()))
    }

    fn wait(&mut self, deadline: Instant) -> io::Result<()> {
        socket::wait(&self.stream, socket::Ready::Write, deadline)
    }
}

/// Writes a line to stderr if that can be done at once.
#[cfg(unix)]
pub(crate) fn say(line: &str) {
    let stderr = io::stderr();
    if is_writable(&stderr).unwrap_or(false) {
        let _ = rustix::io::write(&stderr, line.as_bytes());
    }
}

/// Writes a line to stderr; whether that can be done at once is not known here.
#[cfg(not(unix))]
pub(crate) fn say(line: &str) {
    let _ = io::stderr().write_all(line.as_bytes());
}

#[cfg(unix)]
fn is_writable(stream: &impl Waitable) -> io::Result<bool> {
    use rustix::event::{poll, PollFd, PollFlags, Timespec};
    let ready = poll(&mut [PollFd::new(stream, PollFlags::OUT)], Some(&Timespec::default()))?;
    Ok(ready > 0)
}

#[cfg(not(unix))]
impl<L: Write + Waitable> Sink for Locked<L> {
    /// All or nothing: a write that fails in between is repeated whole.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write_all(bytes)?;
        self.flush()?;
        Ok(bytes.len())
    }

    fn wait(&mut self, deadline: Instant) -> io::Result<()> {
        socket::wait(&self.stream, socket::Ready::Write, deadline)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::process::Command;

    use super::super::super::framing::Framing;
    use super::super::support::{at_once, batch_of, soon};
    use super::*;

    #[test]
    fn a_reader_that_stalls_and_resumes_gets_every_byte_once() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let messages: Vec<_> = (0..100).map(|number| format!("{number} {}", "x".repeat(20_000))).collect();
        let mut batch = batch_of(Framing::Newline, &messages);
        let sent = batch.remaining().to_vec();
        let mut cursor = Cursor::default();
        // The writer's end blocks, as standard output does.
        let mut stream = Locked::new(writer);
        assert!(socket::is_deadline(&cursor.write(&batch, &mut stream, at_once()).unwrap_err()));
        cursor.settle(&mut batch);
        assert!((1..100).contains(&batch.len()), "the lines that fit are settled: {}", batch.len());
        let read = std::thread::spawn(move || {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).map(|_| read)
        });
        cursor.write(&batch, &mut stream, soon()).unwrap();
        cursor.settle(&mut batch);
        assert!(batch.is_empty());
        drop(stream);
        assert!(read.join().unwrap().unwrap() == sent);
    }

    #[test]
    fn a_reader_that_has_gone_is_down_and_not_slow() {
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        let batch = batch_of(Framing::Newline, &["one"]);
        let error = Cursor::default().write(&batch, &mut Locked::new(writer), soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    const CHILD: &str = "TRACING_METLOG_TEST_STDIO_CHILD";

    #[test]
    fn lines_reach_the_streams_of_a_real_process_after_what_it_printed_before() {
        if std::env::var_os(CHILD).is_some() {
            return in_the_child();
        }
        let name = "lines_reach_the_streams_of_a_real_process_after_what_it_printed_before";
        let test = format!("{}::{name}", module_path!().split_once("::").unwrap().1);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &test, "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let (out, error) =
            (String::from_utf8(child.stdout).unwrap(), String::from_utf8(child.stderr).unwrap());
        assert!(out.contains("half a line, one\ntwo\n"), "{out}");
        assert!(error.contains("three\n"), "{error}");
    }

    fn in_the_child() {
        print!("half a line, ");
        Stdio::out().send(&mut batch_of(Framing::Newline, &["one", "two"]), soon()).unwrap();
        Stdio::error().send(&mut batch_of(Framing::Newline, &["three"]), soon()).unwrap();
    }
}
