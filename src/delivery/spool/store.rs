//! One slot of a spool: segments that one process writes, reads and removes. docs/spool-format.md says how they look.
//!
//! In: messages. Out: the same, in order, until they are confirmed. Lost here, and told to the caller: what is damaged,
//! what is too old, and what has to make room.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::bad::BadFiles;
use super::commit::Commit;
use super::fs::{Disk, DiskFile, Lock};
use super::record;
use crate::delivery::batch::Batch;
use crate::stats::LossReason;

/// What one slot may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of segments and `.bad` files.
    pub(crate) bytes: u64,
    /// How old a message may become.
    pub(crate) max_age: Duration,
}

impl Limits {
    const SEGMENT_BYTES: (u64, u64) = (64 * 1024, 4 << 20);

    /// For who only reads: nothing is given up.
    #[cfg(feature = "router")]
    pub(crate) const NONE: Limits = Limits { bytes: u64::MAX, max_age: Duration::MAX };

    fn segment_bytes(self) -> u64 {
        (self.bytes / 8).clamp(Self::SEGMENT_BYTES.0, Self::SEGMENT_BYTES.1)
    }

    fn segment_age(self) -> Duration {
        self.max_age / 8
    }
}

/// Times a segment that cannot be read is tried.
const READ_ATTEMPTS: u32 = 3;
/// Sequence numbers are below this: no sum of counts that follow from them can overflow.
const HIGHEST: u64 = 1 << 48;
/// More is not read of one segment: nothing of ours is longer.
pub(super) const MOST_READ: u64 = Limits::SEGMENT_BYTES.1 + record::MAX_MESSAGE_BYTES as u64 + 4096;

/// A segment that is not written any more.
#[derive(Clone, Copy, Debug)]
struct Segment {
    first: u64,
    bytes: u64,
    written: SystemTime,
}

/// The segment that is being written.
struct Writing {
    segment: Segment,
    file: Box<dyn DiskFile>,
    begun: SystemTime,
    /// Since when something in it has not been synced.
    unsynced: Option<Instant>,
    is_named: bool,
}

/// The oldest segment, in memory.
struct Reading {
    first: u64,
    bytes: Vec<u8>,
    at: usize,
    /// The number of the first message after it.
    bound: u64,
    is_damaged: bool,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Messages that are whole.
    pub(crate) whole: u64,
    /// Messages before, between and after them that are damaged or missing.
    pub(crate) damaged: u64,
}

/// Why nothing more is written for now.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The quota is reached.
    Full,
    /// The disk says no.
    Disk(io::Error),
}

/// One slot, locked.
pub(crate) struct Store {
    disk: Arc<dyn Disk + Sync>,
    path: PathBuf,
    limits: Limits,
    commit: Commit,
    commit_file: Option<Box<dyn DiskFile>>,
    segments: VecDeque<Segment>,
    writing: Option<Writing>,
    reading: Option<Reading>,
    read_attempts: u32,
    /// Everything below this number has arrived; the commit may be behind if it could not be written.
    confirmed: u64,
    /// The number of the next message that is read.
    cursor: u64,
    /// Messages that were read and are not confirmed.
    in_flight: u64,
    /// Whether those are still on disk too.
    in_flight_is_kept: bool,
    /// The number of the next message that is written.
    next: u64,
    bad: BadFiles,
    /// Confirmed segments that could not be removed.
    leftover: Vec<PathBuf>,
    records: Vec<u8>,
    trouble: Option<String>,
    _lock: Lock,
}

/// Opening.
impl Store {
    /// The slot at `path`, which is locked.
    ///
    /// # Errors
    /// The directory or its last segment cannot be read.
    pub(crate) fn open(
        disk: Arc<dyn Disk + Sync>,
        path: PathBuf,
        lock: Lock,
        limits: Limits,
    ) -> io::Result<Store> {
        let names = disk.list(&path)?;
        let bad = BadFiles::find(&*disk, &path, &names);
        let mut store = Store {
            disk,
            path,
            limits,
            commit: Commit::default(),
            commit_file: None,
            segments: VecDeque::new(),
            writing: None,
            reading: None,
            read_attempts: 0,
            confirmed: 1,
            cursor: 1,
            in_flight: 0,
            in_flight_is_kept: true,
            next: 1,
            bad,
            leftover: Vec::new(),
            records: Vec::new(),
            trouble: None,
            _lock: lock,
        };
        store.find_segments(&names)?;
        store.read_commit(&names)?;
        store.begin()?;
        Ok(store)
    }

    fn find_segments(&mut self, names: &[String]) -> io::Result<()> {
        let mut firsts: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
        firsts.sort_unstable();
        for first in firsts {
            let (bytes, written) = self.disk.stat(&segment_path(&self.path, first))?;
            self.segments.push_back(Segment { first, bytes, written });
        }
        Ok(())
    }

    fn read_commit(&mut self, names: &[String]) -> io::Result<()> {
        if !names.iter().any(|name| name == "commit") {
            return Ok(());
        }
        let bytes = self.disk.read(&self.path.join("commit"), 4096)?;
        match Commit::read(&bytes) {
            Some(commit) => self.commit = commit,
            // Made and not written yet, as a crash leaves it.
            None if bytes.iter().all(|&byte| byte == 0) => {}
            None => {
                let kept = self.path.join(format!("commit.{}.bad", milliseconds(SystemTime::now())));
                self.disk.rename(&self.path.join("commit"), &kept)?;
                self.trouble =
                    Some(format!("nothing in it is whole; kept as {kept:?}, all messages are sent"));
            }
        }
        Ok(())
    }

    /// Works out where reading and writing go on.
    fn begin(&mut self) -> io::Result<()> {
        let end = self.end()?;
        self.next = end.max(self.commit.next).max(1);
        while self.segments.front().is_some_and(|_| self.end_of_front() <= self.commit.next) {
            self.remove_front(None);
        }
        self.sync_last();
        let oldest = self.segments.front().map_or(self.next, |segment| segment.first);
        self.cursor = self.commit.next.max(oldest);
        self.confirmed = self.cursor;
        Ok(())
    }
}

/// Opening, the end.
impl Store {
    /// The number after the last record there is.
    fn end(&mut self) -> io::Result<u64> {
        let Some(last) = self.segments.back().copied() else { return Ok(1) };
        let end = end_of_last(&self.load(last.first)?, last.first);
        if end > last.first {
            return Ok(end);
        }
        // Made and never written: it is in the way of the next one, which has the same number.
        match self.disk.remove(&segment_path(&self.path, last.first)) {
            Ok(()) => {
                self.segments.pop_back();
                Ok(end)
            }
            Err(_) => Ok(end + 1),
        }
    }

    /// What a process that was killed has written it may not have synced.
    fn sync_last(&mut self) {
        let Some(last) = self.segments.back() else { return };
        let path = segment_path(&self.path, last.first);
        let synced = self.disk.open(&path).and_then(|mut file| file.sync());
        if let Err(error) = synced.and_then(|()| self.disk.sync_dir(&self.path)) {
            self.trouble = Some(format!("{path:?} is not synced: {error}"));
        }
    }
}

/// Writing.
impl Store {
    /// Writes messages, and settles in `batch` those that are written. Not synced yet.
    ///
    /// # Errors
    /// Those that are left in `batch` are not written.
    pub(crate) fn append(&mut self, batch: &mut Batch, now: SystemTime) -> Result<(), Refusal> {
        while !batch.is_empty() {
            self.seal_if_due(now);
            let (count, is_full) = self.frame(batch, now);
            let wrote = self.write_records(now);
            let written = match &wrote {
                Ok(()) => count,
                Err((whole, _)) => *whole,
            };
            batch.delivered(written);
            self.next += written as u64;
            wrote.map_err(|(_, error)| Refusal::Disk(error))?;
            if is_full && written == 0 {
                return Err(Refusal::Full);
            }
            if count == 0 && !is_full {
                // Longer than any record: nothing this crate encodes is.
                batch.lost(LossReason::TooLarge);
            }
        }
        Ok(())
    }

    /// Makes records of as many messages as the segment and the quota have room for. How many, and whether it was the
    /// quota that ended it.
    fn frame(&mut self, batch: &Batch, now: SystemTime) -> (usize, bool) {
        self.records.clear();
        let begun = self.writing.as_ref().map(|writing| writing.segment.bytes);
        if begun.is_none() {
            self.records.extend_from_slice(&record::segment_head(self.next, milliseconds(now)));
        }
        let room = self.limits.bytes.saturating_sub(self.bytes());
        let segment_room = self.limits.segment_bytes().saturating_sub(begun.unwrap_or(0));
        let mut count = 0;
        for frame in batch.frames() {
            if (self.records.len() + record::RECORD_HEAD_BYTES + frame.len()) as u64 > room {
                return (count, true);
            }
            if !record::write(self.next + count as u64, frame, &mut self.records) {
                break;
            }
            count += 1;
            if self.records.len() as u64 >= segment_room {
                break;
            }
        }
        (count, false)
    }

    /// Writes what was framed. With an error, how many records are whole in the file nevertheless.
    fn write_records(&mut self, now: SystemTime) -> Result<(), (usize, io::Error)> {
        let head = if self.writing.is_none() { record::HEAD_BYTES } else { 0 };
        if self.records.len() <= head {
            return Ok(());
        }
        let mut writing = match self.writing.take() {
            Some(writing) => writing,
            None => self.create(now).map_err(|error| (0, error))?,
        };
        let before = writing.segment.bytes;
        let (written, outcome) = append_all(&mut *writing.file, &self.records);
        let (whole, end) = match outcome {
            Ok(()) => (0, written),
            Err(_) => whole_records(&self.records, head, written),
        };
        writing.segment.bytes = before + end as u64;
        writing.segment.written = now;
        writing.unsynced.get_or_insert_with(Instant::now);
        match outcome {
            Ok(()) => {
                self.writing = Some(writing);
                Ok(())
            }
            Err(error) => {
                self.cut_back(writing, whole > 0 || before > 0);
                Err((whole, error))
            }
        }
    }

    fn create(&self, now: SystemTime) -> io::Result<Writing> {
        let segment = Segment { first: self.next, bytes: 0, written: now };
        let file = self.disk.create(&segment_path(&self.path, segment.first))?;
        Ok(Writing { segment, file, begun: now, unsynced: None, is_named: false })
    }

    /// A write has failed half way. What is whole stays, in a segment that is not written again.
    fn cut_back(&mut self, mut writing: Writing, holds_records: bool) {
        let path = segment_path(&self.path, writing.segment.first);
        if holds_records {
            // If this fails too, the next segment's number says that the half record is none.
            let _ = writing.file.truncate(writing.segment.bytes);
            self.seal_writing(writing);
        } else if self.disk.remove(&path).is_err() {
            // It is in the way of the next one of this name.
            self.leftover.push(path);
        }
    }

    fn seal_if_due(&mut self, now: SystemTime) {
        let is_due = self.writing.as_ref().is_some_and(|writing| {
            let age = now.duration_since(writing.begun).unwrap_or_default();
            writing.segment.bytes >= self.limits.segment_bytes() || age >= self.limits.segment_age()
        });
        if is_due {
            self.seal();
        }
    }

    fn seal(&mut self) {
        if let Some(writing) = self.writing.take() {
            self.seal_writing(writing);
        }
    }

    fn seal_writing(&mut self, mut writing: Writing) {
        if let Err(error) = self.sync_segment(&mut writing) {
            self.trouble = Some(format!("not synced: {error}"));
        }
        self.segments.push_back(writing.segment);
    }

    fn sync_segment(&self, writing: &mut Writing) -> io::Result<()> {
        if writing.unsynced.take().is_some() {
            writing.file.sync()?;
        }
        if !writing.is_named {
            self.disk.sync_dir(&self.path)?;
            writing.is_named = true;
        }
        Ok(())
    }

    /// Makes everything written survive the machine.
    ///
    /// # Errors
    /// It may not. What the disk refused once it is not asked for again.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        let Some(mut writing) = self.writing.take() else { return Ok(()) };
        let outcome = self.sync_segment(&mut writing);
        match outcome {
            Ok(()) => self.writing = Some(writing),
            // What the kernel says of this file from now on means nothing.
            Err(_) => self.segments.push_back(writing.segment),
        }
        outcome
    }

    /// Since when something has been written and not synced.
    pub(crate) fn unsynced_since(&self) -> Option<Instant> {
        self.writing.as_ref().and_then(|writing| writing.unsynced)
    }
}

/// Reading.
impl Store {
    /// Reads the next messages, about `most` bytes of them and all of one segment; they stay until they are
    /// [confirmed](Store::confirm).
    ///
    /// # Errors
    /// The segment cannot be read. After three times its messages are given up, and the next call goes on.
    pub(crate) fn read(&mut self, most: usize, mut each: impl FnMut(&[u8])) -> io::Result<Taken> {
        let Some(mut reading) = self.reading()? else {
            // Nothing is there, and nothing should be.
            let damaged = self.len();
            self.cursor = self.next;
            return Ok(Taken { whole: 0, damaged });
        };
        let (mut taken, mut bytes, begun) = (Taken::default(), 0, self.cursor);
        while bytes < most && self.cursor < reading.bound {
            let Some(read) = record::next(&reading.bytes, reading.at, self.cursor, reading.bound) else {
                self.cursor = reading.bound;
                break;
            };
            each(read.message);
            taken.whole += 1;
            bytes += read.message.len();
            (reading.at, self.cursor) = (read.end, read.sequence + 1);
        }
        taken.damaged = self.cursor - begun - taken.whole;
        reading.is_damaged |= taken.damaged > 0;
        self.reading = Some(reading);
        (self.in_flight, self.in_flight_is_kept) = (taken.whole, true);
        Ok(taken)
    }

    /// The oldest segment.
    fn reading(&mut self) -> io::Result<Option<Reading>> {
        if let Some(reading) = self.reading.take() {
            return Ok(Some(reading));
        }
        if self.segments.is_empty() {
            self.seal();
        }
        let Some(front) = self.segments.front().copied() else { return Ok(None) };
        let (bytes, is_damaged) = match self.load(front.first) {
            Ok(bytes) => (bytes, false),
            Err(error) => {
                self.read_attempts += 1;
                if self.read_attempts < READ_ATTEMPTS {
                    return Err(error);
                }
                (Vec::new(), true)
            }
        };
        self.read_attempts = 0;
        let at = record::after_head(&bytes, front.first).0;
        self.cursor = self.cursor.max(front.first);
        Ok(Some(Reading { first: front.first, bytes, at, bound: self.end_of_front(), is_damaged }))
    }

    /// What was read last has arrived.
    ///
    /// # Errors
    /// That could not be written: after a crash it is sent again.
    pub(crate) fn confirm(&mut self, now: SystemTime) -> io::Result<()> {
        self.in_flight = 0;
        self.confirmed = self.cursor;
        let outcome = self.write_commit();
        let is_read = self.reading.as_ref().is_some_and(|reading| self.cursor >= reading.bound);
        if is_read {
            let is_damaged = self.reading.take().is_some_and(|reading| reading.is_damaged);
            // Only in this order: a segment that is gone was confirmed.
            let synced = self.commit_file.as_mut().map_or(Ok(()), |file| file.sync());
            self.remove_front(is_damaged.then_some(now));
            return outcome.and(synced);
        }
        outcome
    }

    fn write_commit(&mut self) -> io::Result<()> {
        let file = match &mut self.commit_file {
            Some(file) => file,
            none => none.insert(self.disk.open(&self.path.join("commit"))?),
        };
        self.commit.advance(self.confirmed, &mut **file)
    }

    /// What was read last has not arrived, and is read again. How many messages that are: those that were given up
    /// meanwhile are not on disk any more.
    pub(crate) fn rewind(&mut self) -> u64 {
        let count = std::mem::take(&mut self.in_flight);
        if !self.in_flight_is_kept {
            return 0;
        }
        if let Some(reading) = self.reading.take() {
            self.cursor = self.confirmed.max(reading.first);
        }
        count
    }
}

/// Removing.
impl Store {
    /// Gives the oldest segment up to make room. How many messages that costs; those that were read already it does not.
    /// `None` when there is none.
    pub(crate) fn evict_oldest(&mut self) -> Option<u64> {
        if self.segments.is_empty() {
            self.seal();
        }
        let bound = self.segments.front().map(|_| self.end_of_front())?;
        let lost = bound - self.cursor.clamp(self.segments[0].first, bound);
        self.in_flight_is_kept = false;
        self.reading = None;
        self.cursor = self.cursor.max(bound);
        self.remove_front(None);
        Some(lost)
    }

    /// Gives up what is too old. How many messages that costs.
    pub(crate) fn expire(&mut self, now: SystemTime) -> u64 {
        let mut lost = 0;
        self.seal_if_due(now);
        while self.segments.front().is_some_and(|oldest| {
            now.duration_since(oldest.written).is_ok_and(|age| age > self.limits.max_age)
        }) {
            lost += self.evict_oldest().unwrap_or(0);
        }
        self.bad.expire(&*self.disk, now, self.limits.max_age);
        self.remove_leftovers();
        lost
    }

    /// The oldest segment is not needed any more. One that is damaged is kept, with when that was.
    fn remove_front(&mut self, damaged: Option<SystemTime>) {
        let Some(segment) = self.segments.pop_front() else { return };
        let path = segment_path(&self.path, segment.first);
        if let Some(now) = damaged {
            let name = format!("{:020}.{}.bad", segment.first, milliseconds(now));
            let bytes = (segment.bytes, self.limits.bytes / 4);
            return self.bad.keep(&*self.disk, &path, self.path.join(name), bytes, now);
        }
        if let Err(error) = self.disk.remove(&path) {
            if error.kind() != io::ErrorKind::NotFound {
                self.trouble = Some(format!("{path:?} is not removed: {error}"));
                self.leftover.push(path);
            }
        }
    }

    fn remove_leftovers(&mut self) {
        let disk = &self.disk;
        let is_left =
            |path: &PathBuf| disk.remove(path).is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
        self.leftover.retain(is_left);
    }

    /// Removes the slot itself, if nothing is in it that anybody may want.
    pub(crate) fn remove(self) {
        if self.len() == 0 && self.bad.is_empty() {
            let _ = self.disk.remove_dir(&self.path);
        }
    }
}

/// Asking.
impl Store {
    /// Messages that are on disk and not read.
    pub(crate) fn len(&self) -> u64 {
        self.next - self.cursor
    }

    /// What went wrong and nobody was told.
    pub(crate) fn trouble(&mut self) -> Option<String> {
        let trouble = self.trouble.take().or_else(|| self.bad.trouble())?;
        Some(format!("{}: {trouble}", self.path.display()))
    }

    fn bytes(&self) -> u64 {
        let sealed: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
        sealed + self.writing.as_ref().map_or(0, |writing| writing.segment.bytes) + self.bad.bytes()
    }

    fn load(&self, first: u64) -> io::Result<Vec<u8>> {
        self.disk.read(&segment_path(&self.path, first), MOST_READ)
    }

    /// The number of the first message after the oldest segment.
    fn end_of_front(&self) -> u64 {
        let second = self.segments.get(1).map(|segment| segment.first);
        let written = self.writing.as_ref().map(|writing| writing.segment.first);
        second.or(written).unwrap_or(self.next)
    }
}

pub(super) fn segment_path(slot: &Path, first: u64) -> PathBuf {
    slot.join(format!("{first:020}.segment"))
}

/// The number in a segment's name.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".segment")?;
    let is_ours = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|&first| is_ours && first > 0 && first < HIGHEST)
}

/// The number after the last record of the last segment, with those counted that were cut short.
pub(crate) fn end_of_last(bytes: &[u8], first: u64) -> u64 {
    let (mut at, mut next) = (record::after_head(bytes, first).0, first);
    while let Some(read) = record::next(bytes, at, next, HIGHEST) {
        (at, next) = (read.end, read.sequence + 1);
    }
    next + record::broken_at_end(&bytes[at..])
}

/// Of `written` bytes of `records`, which begin with `head` bytes of something else: whole records, and where the last
/// one ends.
fn whole_records(records: &[u8], head: usize, written: usize) -> (usize, usize) {
    let (mut whole, mut end) = (0, head.min(written));
    while let Some(read) = record::next(&records[..written], end, 0, u64::MAX) {
        (whole, end) = (whole + 1, read.end);
    }
    (whole, end)
}

/// How much was written, and why not all.
fn append_all(file: &mut dyn DiskFile, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.append(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

pub(super) fn milliseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
