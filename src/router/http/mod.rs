//! Requests whose bodies are messages, one a line. In: a connection. Out: messages in the queues of the outputs, and
//! an answer to each request.
//!
//! | answer | when |
//! |---|---|
//! | 200 | every message of the body has been written by every output that it is for, or is counted there as `failed`; outputs to HTTP receivers and Sentry, which may be away for long, have it in their queues or count it as `dropped` |
//! | 400 | not HTTP, or a line of the body is no message: the answer names the first; none of the body is taken |
//! | 405, 411, 415, 417, 431, 501 | not a POST with a body that is understood |
//! | 408 | the request took too long to arrive |
//! | 413 | the body, unpacked, or one of its lines is too long |
//! | 429 | the client has too many connections |
//! | 503 | a queue is full, or an output needs more than 5 s to write, or too many connections, or too many bytes of bodies |
//!
//! 429 and 503 come with `Retry-After`. How often a client asks is not limited: what its requests cost is, by the room for
//! bodies and by the queues, and who finds none there is told 503.
//!
//! Nothing is lost here without an answer that says so to the client, which has the messages still. After a 503 that
//! was given because an output was slow, messages may be written twice.

mod request;
#[cfg(any(test, fuzzing))]
pub(crate) mod script;
mod unread;

use std::io::{self, ErrorKind, Read};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;

use super::budget::Share;
use super::connection::Conversation;
use super::counters::{add, MalformedReason};
use super::dispatch::Intake;
use super::received::Received;
use super::refused::RefusedReason;
use super::stop::Stop;
use request::{Head, Length, Refusal, MAX_HEAD_BYTES};
use unread::Unread;

/// What one read takes at most.
const READ_BYTES: usize = 64 * 1024;
/// How long a read waits before it is asked again whether the router ends.
const SLICE: Duration = Duration::from_millis(100);
/// How long an idle connection is looked at once more before a router that ends closes it.
const LAST_LOOK: Duration = Duration::from_millis(1);
/// A body whose bytes come at least as fast, per second, is waited for to its end.
const SLOWEST_BODY_BYTES: u64 = 64 * 1024;
/// What each connection may hold of a request that is arriving without asking for room.
const OWN_BYTES: usize = 64 * 1024;
/// How long an answer waits for the outputs.
const WRITE_TIME: Duration = Duration::from_secs(5);
/// How much of a body that is too long is read and thrown away, so that its client gets to read the answer.
const DISCARDED_BYTES: u64 = 64 * 1024 * 1024;
/// The longest line between two chunks, with their extensions.
const MAX_CHUNK_LINE: usize = 1024;

/// What is told to a client whose connection is not taken; nothing to one that is not allowed.
pub(super) fn turned_away(reason: RefusedReason) -> Option<&'static [u8]> {
    match reason {
        RefusedReason::NotAllowed => None,
        RefusedReason::TooManyFromPeer => Some(
            b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        ),
        _ => Some(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        ),
    }
}

/// What is told to a client whose body finds too many others in work.
const NO_ROOM_FOR_BODY: End = End::Busy("too many bytes of other requests are in work");

/// What a request may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) body_bytes: usize,
    pub(super) message_bytes: usize,
    /// How long a head may take from its first byte, and a body for a start.
    pub(super) message: Duration,
    /// How long a connection may wait for its next request.
    pub(super) idle: Duration,
}

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// Nothing is owed to anyone.
    Quiet,
    /// The client is told, and then it ends, if the refusal says so.
    Refused(Refusal),
    /// The client is told to come again, and why; the connection goes on.
    Busy(&'static str),
    /// The same, of a request that has not arrived yet: nobody knows where the next one begins.
    Full,
    /// The client is told that it took too long.
    Slow,
    Broken,
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        End::Refused(refusal)
    }
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        End::Broken
    }
}

/// Serves one connection to its end. `has_spoken` is set when a request was taken.
pub(super) fn serve(
    conversation: &mut dyn Conversation,
    mut intake: Intake,
    stop: &Stop,
    limits: Limits,
    has_spoken: &AtomicBool,
) {
    let share = Share::beyond(OWN_BYTES, &intake.input.unfinished);
    let mut client =
        Client { conversation, stop, unread: Unread::default(), bytes: 0, share, chunks: 0, has_spoken };
    loop {
        let outcome = client.request(&mut intake, limits);
        intake.read(std::mem::take(&mut client.bytes));
        match outcome {
            Ok(true) => {}
            Ok(false) | Err(End::Quiet | End::Busy(_)) => return,
            Err(End::Broken) => return add(&intake.input.errors, 1),
            Err(End::Refused(refusal)) => {
                add(&intake.input.bad_requests, 1);
                return client.dismiss(refusal.status, &refusal.text);
            }
            Err(End::Slow) => {
                add(&intake.input.bad_requests, 1);
                intake.input.refused.count(RefusedReason::TooSlow);
                return client.dismiss("408 Request Timeout", "the request took too long");
            }
            Err(End::Full) => {
                add(&intake.input.busy, 1);
                intake.input.refused.count(RefusedReason::NoRoom);
                return client.dismiss(UNAVAILABLE, "too many bytes of other requests are arriving");
            }
        }
    }
}

/// The status of a refusal that will not last.
const UNAVAILABLE: &str = "503 Service Unavailable\r\nRetry-After: 1";

struct Client<'a> {
    conversation: &'a mut dyn Conversation,
    stop: &'a Stop,
    /// What was read and not yet used.
    unread: Unread,
    /// Bytes read since they were counted.
    bytes: usize,
    /// What the request that is arriving takes.
    share: Share,
    /// Bytes of its chunks that have been put together.
    chunks: usize,
    has_spoken: &'a AtomicBool,
}

impl Client<'_> {
    /// One request and its answer; whether another may follow.
    fn request(&mut self, intake: &mut Intake, limits: Limits) -> Result<bool, End> {
        let head = self.head(intake, limits)?;
        let goes_on = !head.last && !self.stop.is_requested();
        match self.take(&head, intake, limits) {
            Ok(()) => {
                self.has_spoken.store(true, Relaxed);
                self.answer("200 OK", "", !goes_on)?;
            }
            Err(End::Busy(text)) => {
                add(&intake.input.busy, 1);
                self.answer(UNAVAILABLE, text, !goes_on)?;
            }
            Err(End::Refused(refusal)) if !refusal.closes => {
                add(&intake.input.bad_requests, 1);
                self.answer(refusal.status, &refusal.text, !goes_on)?;
            }
            Err(end) => return Err(end),
        }
        Ok(goes_on)
    }

    fn head(&mut self, intake: &Intake, limits: Limits) -> Result<Head, End> {
        let mut deadline = Instant::now() + limits.idle;
        let mut has_begun = false;
        loop {
            if !has_begun && !self.unread.rest().is_empty() {
                has_begun = true;
                deadline = Instant::now() + limits.message;
            }
            if let Some((head, length)) = request::parse(self.unread.rest())? {
                self.unread.skip(length);
                return Ok(head);
            }
            match self.fill(deadline, !has_begun) {
                Err(End::Broken) if !has_begun => return Err(End::Quiet),
                Err(End::Slow) if !has_begun => {
                    add(&intake.input.idle, 1);
                    return Err(End::Quiet);
                }
                outcome => outcome?,
            }
        }
    }

    /// Hands over every message of the body, or none.
    fn take(&mut self, head: &Head, intake: &mut Intake, limits: Limits) -> Result<(), End> {
        let body = self.body(head, limits)?;
        self.chunks = 0;
        self.hold(0)?;
        // Given back before the answer, which a client may be slow to read.
        let mut share = Share::beyond(0, &intake.input.bodies);
        let body = match head.gzip {
            true => unpacked(&body, limits.body_bytes, &mut share)?,
            false if share.grow(body.len()) => body,
            false => return Err(NO_ROOM_FOR_BODY),
        };
        let messages = messages(&body, intake, limits.message_bytes)?;
        let taken = intake.request(&messages, Instant::now() + WRITE_TIME);
        taken.map_err(|_| End::Busy("an output is full or slow"))
    }

    /// The body as it is sent, without its chunks.
    fn body(&mut self, head: &Head, limits: Limits) -> Result<Vec<u8>, End> {
        if !head.post {
            return Err(Refusal::last("405 Method Not Allowed\r\nAllow: POST", "POST is accepted").into());
        }
        if head.waits {
            let too_long = matches!(head.length, Length::Bytes(length) if length > limits.body_bytes as u64);
            if too_long {
                return Err(Refusal::last("413 Content Too Large", too_long_text(limits.body_bytes)).into());
            }
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let deadline = Deadline { begun: Instant::now(), patience: limits.message, before: self.bytes };
        match head.length {
            Length::Bytes(length) => self.counted(length, limits.body_bytes, deadline),
            Length::Chunked => self.chunked(limits.body_bytes, deadline),
        }
    }

    fn counted(&mut self, length: u64, most: usize, deadline: Deadline) -> Result<Vec<u8>, End> {
        if length > most as u64 {
            self.discard(length, most, deadline)?;
            return Err(Refusal::of("413 Content Too Large", too_long_text(most)).into());
        }
        let length = length as usize;
        while self.unread.rest().len() < length {
            self.fill_body(deadline)?;
            self.hold(self.unread.rest().len())?;
        }
        Ok(self.unread.take(length))
    }

    /// Reads a body that nobody wants: a client that has not sent all of it does not read the answer.
    fn discard(&mut self, length: u64, most: usize, deadline: Deadline) -> Result<(), End> {
        if length > DISCARDED_BYTES {
            return Err(Refusal::last("413 Content Too Large", too_long_text(most)).into());
        }
        let mut left = length;
        loop {
            let here = left.min(self.unread.rest().len() as u64);
            self.unread.skip(here as usize);
            left -= here;
            if left == 0 {
                return Ok(());
            }
            self.fill_body(deadline)?;
        }
    }

    /// Takes room for what has arrived of a request.
    fn hold(&mut self, unread: usize) -> Result<(), End> {
        match self.share.hold(self.chunks + unread) {
            true => Ok(()),
            false => Err(End::Full),
        }
    }

    fn chunked(&mut self, most: usize, deadline: Deadline) -> Result<Vec<u8>, End> {
        let bad = || Refusal::last("400 Bad Request", "a chunk that is none");
        let mut body = Vec::new();
        loop {
            let line = self.line(deadline)?;
            let digits = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
            let digits = std::str::from_utf8(digits).unwrap_or_default();
            if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit())
            {
                return Err(bad().into());
            }
            let length = usize::from_str_radix(digits, 16).map_err(|_| bad())?;
            if length == 0 {
                // What may follow here, and a blank line after it, are of no use.
                while !self.line(deadline)?.is_empty() {}
                return Ok(body);
            }
            if body.len() + length > most {
                return Err(Refusal::last("413 Content Too Large", too_long_text(most)).into());
            }
            body.append(&mut self.counted(length as u64, most, deadline)?);
            self.chunks = body.len();
            if !self.line(deadline)?.is_empty() {
                return Err(bad().into());
            }
        }
    }

    /// The next line, without its end.
    fn line(&mut self, deadline: Deadline) -> Result<Vec<u8>, End> {
        loop {
            let end = self.unread.rest().iter().position(|&byte| byte == b'\n');
            // However it came: what is refused must not depend on the pieces.
            if let Some(end) = end.filter(|&end| end <= MAX_CHUNK_LINE) {
                let mut line = self.unread.take(end + 1);
                line.truncate(line.strip_suffix(b"\r\n").map_or(end, <[u8]>::len));
                return Ok(line);
            }
            if self.unread.rest().len() > MAX_CHUNK_LINE {
                return Err(
                    Refusal::last("400 Bad Request", "a line between chunks that does not end").into()
                );
            }
            self.fill_body(deadline)?;
        }
    }

    /// Reads some more of a body.
    fn fill_body(&mut self, deadline: Deadline) -> Result<(), End> {
        self.fill(deadline.after(self.bytes), false)
    }

    /// Reads some more. A router that ends waits for a request that has begun, and for no other.
    fn fill(&mut self, deadline: Instant, is_idle: bool) -> Result<(), End> {
        let mut space = [0; READ_BYTES];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(End::Slow);
            }
            if self.stop.is_overdue() {
                return Err(End::Quiet);
            }
            // Asked before reading: a request that was begun before the stop is then sure to be seen.
            let is_leaving = is_idle && self.stop.is_requested();
            self.conversation.set_patience(if is_leaving { LAST_LOOK } else { left.min(SLICE) })?;
            match self.conversation.read(&mut space) {
                Ok(0) => return Err(End::Broken),
                Ok(count) => {
                    self.bytes += count;
                    self.unread.push(&space[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if is_leaving {
                        return Err(End::Quiet);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn answer(&mut self, status: &str, text: &str, closes: bool) -> Result<(), End> {
        let connection = if closes { "Connection: close\r\n" } else { "" };
        let (length, end) = (text.len(), if text.is_empty() { "" } else { "\n" });
        let length = length + end.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
             {connection}\r\n{text}{end}"
        );
        self.write(answer.as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.conversation.write_all(bytes)?;
        Ok(self.conversation.flush()?)
    }

    /// The last answer of a connection whose client may be sending still.
    fn dismiss(&mut self, status: &str, text: &str) {
        let _ = self.answer(status, text, true);
        self.linger();
    }

    /// Reads a little of what a refused client still sends: closing at once would take the answer from it.
    fn linger(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(1);
        for _ in 0..MAX_HEAD_BYTES {
            self.unread.skip(usize::MAX);
            if self.fill(deadline, true).is_err() {
                return;
            }
        }
    }
}

/// The time of a body: some for a start, and more with every byte that comes. One that trickles has an end, and one that
/// is long and comes over a slow network gets what it needs.
#[derive(Clone, Copy)]
struct Deadline {
    begun: Instant,
    patience: Duration,
    /// Bytes that had come before.
    before: usize,
}

impl Deadline {
    /// When it is over, if so many bytes have come by now.
    fn after(&self, bytes: usize) -> Instant {
        let come = bytes.saturating_sub(self.before) as u64;
        self.begun + self.patience + Duration::from_millis(come * 1000 / SLOWEST_BODY_BYTES)
    }
}

fn too_long_text(most: usize) -> String {
    format!("a body of up to {most} bytes is accepted")
}

/// The messages of a body, each with its length; the first line that is none refuses them all.
fn messages<'a>(body: &'a [u8], intake: &Intake, most: usize) -> Result<Vec<(Received<'a>, usize)>, Refusal> {
    let mut messages = Vec::new();
    for (index, line) in body.split(|&byte| byte == b'\n').enumerate() {
        let number = index + 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        if line.len() > most {
            intake.input.malformed(MalformedReason::TooLong);
            let text = format!("line {number}: a message of up to {most} bytes is accepted");
            return Err(Refusal::of("413 Content Too Large", text));
        }
        match Received::decode(line) {
            Ok(message) => messages.push((message, line.len())),
            Err(error) => {
                intake.input.malformed(MalformedReason::from(&error));
                return Err(Refusal::of("400 Bad Request", format!("line {number}: {error}")));
            }
        }
    }
    Ok(messages)
}

/// What gzip has packed; no more than may be, and than there is room for, is ever unpacked.
fn unpacked(body: &[u8], most: usize, share: &mut Share) -> Result<Vec<u8>, End> {
    let mut unpacked = Vec::new();
    let mut decoder = MultiGzDecoder::new(body);
    loop {
        let count = match decoder.by_ref().take(READ_BYTES as u64).read_to_end(&mut unpacked) {
            Ok(0) => return Ok(unpacked),
            Ok(count) => count,
            Err(error) => return Err(Refusal::of("400 Bad Request", format!("not gzip: {error}")).into()),
        };
        if unpacked.len() > most {
            return Err(Refusal::of("413 Content Too Large", too_long_text(most)).into());
        }
        if !share.grow(count) {
            return Err(NO_ROOM_FOR_BODY);
        }
    }
}
