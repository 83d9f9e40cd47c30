//! Looking into a spool, and sending what is in it by hand: what `metlog-router spool` does.
//!
//! In: a spool's directory. Out: what is in its slots, and messages. To look changes nothing; what is sent is removed
//! when it has arrived. Nothing is lost here but what is damaged, and that is counted.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::commit::Commit;
use super::fs::{Disk, RealDisk};
use super::store::{end_of_last, segment_number, segment_path, Limits, Store, MOST_READ};
use super::{record, slots, BATCH_BYTES};
use crate::delivery::address::Address;
use crate::delivery::batch::Batch;
use crate::delivery::encode::limit;
use crate::delivery::framing::Framing;
#[cfg(feature = "heka")]
use crate::delivery::heka::{self, Heka};
use crate::delivery::transport::{self, Transport};

/// What is in one slot of a spool: the part that one process writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Slot {
    /// Its number, which is the name of its directory.
    pub number: u32,
    /// A process has it locked now: it writes there, or sends from there.
    pub in_use: bool,
    /// Whole messages that are not confirmed.
    pub messages: u64,
    /// Messages that are damaged or missing.
    pub damaged: u64,
    /// Files with messages.
    pub segments: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// Damaged files that are kept for people.
    pub bad_files: usize,
    /// What is not as it should be, file by file.
    pub problems: Vec<String>,
}

/// What is in a spool, slot by slot. Every record is read and checked.
///
/// # Errors
/// The directory cannot be read.
pub fn slots(directory: &Path) -> io::Result<Vec<Slot>> {
    let numbers = slots::numbers(&RealDisk, directory)?;
    numbers.into_iter().map(|number| look(directory, number, &mut |_| Ok(()))).collect()
}

/// Gives every whole message that is not confirmed to `each`, slot by slot and in order.
///
/// # Errors
/// The directory cannot be read, or `each` failed.
pub fn messages(directory: &Path, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    for number in slots::numbers(&RealDisk, directory)? {
        look(directory, number, &mut each)?;
    }
    Ok(())
}

fn look(directory: &Path, number: u32, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<Slot> {
    let path = directory.join(number.to_string());
    let names = RealDisk.list(&path)?;
    let mut slot = Slot { number, in_use: RealDisk.is_locked(&path.join("lock")), ..Slot::default() };
    slot.bad_files = names.iter().filter(|name| name.ends_with(".bad")).count();
    let confirmed = read_commit(&path, &mut slot);
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    firsts.sort_unstable();
    for (index, &first) in firsts.iter().enumerate() {
        let bytes = match RealDisk.read(&segment_path(&path, first), MOST_READ) {
            Ok(bytes) => bytes,
            // Sent meanwhile, by the process that has it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                slot.problems.push(format!("{first:020}.segment: not readable: {error}"));
                Vec::new()
            }
        };
        slot.segments += 1;
        slot.bytes += bytes.len() as u64;
        let bound = firsts.get(index + 1).copied().unwrap_or_else(|| end_of_last(&bytes, first));
        look_at_segment(&bytes, first.max(confirmed), (first, bound), &mut slot, each)?;
    }
    Ok(slot)
}

fn read_commit(path: &Path, slot: &mut Slot) -> u64 {
    match RealDisk.read(&path.join("commit"), 4096) {
        Ok(bytes) => Commit::read(&bytes).map_or_else(
            || {
                slot.problems.push(String::from("commit: nothing in it is whole; all messages are sent"));
                0
            },
            |commit| commit.next,
        ),
        Err(_) => 0,
    }
}

fn look_at_segment(
    bytes: &[u8],
    start: u64,
    (first, bound): (u64, u64),
    slot: &mut Slot,
    each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let (mut at, is_whole) = record::after_head(bytes, first);
    if !is_whole && !bytes.is_empty() {
        slot.problems.push(format!("{first:020}.segment: its head is damaged"));
    }
    let (mut cursor, before) = (start, slot.damaged);
    while let Some(read) = record::next(bytes, at, cursor, bound) {
        slot.damaged += read.sequence - cursor;
        slot.messages += 1;
        (at, cursor) = (read.end, read.sequence + 1);
        each(read.message)?;
    }
    slot.damaged += bound.saturating_sub(cursor);
    let damaged = slot.damaged - before;
    if damaged > 0 {
        let of = bound.saturating_sub(start);
        slot.problems.push(format!("{first:020}.segment: {damaged} of {of} messages are damaged or missing"));
    }
    Ok(())
}

/// What [`send`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// Messages that have arrived.
    pub delivered: u64,
    /// Messages that are damaged, or that the destination cannot take.
    pub lost: u64,
}

/// Sends everything that is in the slots that no process has locked, and removes what has arrived. Damaged messages are
/// left out, and their files kept as `.bad`.
///
/// # Errors
/// The directory cannot be read, or the destination has taken nothing for as long as `patience`. What was not delivered
/// is still there. `off` is no destination.
pub fn send(directory: &Path, to: &Address, patience: Duration) -> io::Result<Sent> {
    #[cfg(feature = "heka")]
    let heka = Heka::of(to, None).map_err(|error| invalid(&error))?;
    let mut transport = to
        .open(transport::Limits::default())
        .map_err(|error| invalid(&error))?
        .ok_or_else(|| invalid(&"nothing is sent to `off`"))?;
    let mut writer = FrameWriter::new(&*transport);
    #[cfg(feature = "heka")]
    writer.speak_heka(heka);
    let disk: Arc<dyn Disk + Sync> = Arc::new(RealDisk);
    let numbers = slots::numbers(&*disk, directory)?;
    let mut sent = Sent::default();
    for mut slot in slots::adopt(&disk, directory, numbers.into_iter(), Limits::NONE) {
        while slot.len() > 0 {
            send_batch(&mut slot, &mut writer, &mut *transport, patience, &mut sent)?;
        }
        slot.remove();
    }
    transport.close(Instant::now() + patience)?;
    Ok(sent)
}

fn invalid(problem: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem.to_string())
}

/// Makes frames of messages as the destination wants them.
struct FrameWriter {
    framing: Framing,
    most: usize,
    #[cfg(feature = "heka")]
    heka: Option<heka::Writer>,
}

impl FrameWriter {
    fn new(transport: &dyn Transport) -> Self {
        FrameWriter {
            framing: transport.framing(),
            most: transport.max_message_bytes(),
            #[cfg(feature = "heka")]
            heka: None,
        }
    }

    #[cfg(feature = "heka")]
    fn speak_heka(&mut self, heka: Option<Heka>) {
        self.heka = heka.map(|heka| heka::Writer::new(heka, self.most));
    }

    fn put(&mut self, message: &[u8], batch: &mut Batch) -> Result<(), limit::TooLarge> {
        let framing = self.framing;
        #[cfg(feature = "heka")]
        if let Some(heka) = &mut self.heka {
            let mut frame = Vec::new();
            heka.write(message, None, &mut frame)?;
            batch.push(|out| out.extend_from_slice(&frame));
            return Ok(());
        }
        if message.len() <= self.most {
            batch.push(|out| framing.write(message, out));
        } else {
            let message = limit::cut(message, self.most)?;
            batch.push(|out| framing.write(&message, out));
        }
        Ok(())
    }
}

fn send_batch(
    slot: &mut Store,
    writer: &mut FrameWriter,
    transport: &mut dyn Transport,
    patience: Duration,
    sent: &mut Sent,
) -> io::Result<()> {
    let (mut batch, mut too_large) = (Batch::default(), 0);
    let taken = slot.read(BATCH_BYTES, |message| {
        if writer.put(message, &mut batch).is_err() {
            too_large += 1;
        }
    })?;
    deliver(&mut batch, transport, patience)?;
    let (delivered, lost) = batch.take_account();
    sent.delivered += delivered;
    sent.lost += taken.damaged + too_large + lost.iter().map(|(_, count)| count).sum::<u64>();
    slot.confirm(std::time::SystemTime::now())
}

/// Until every message is settled.
fn deliver(batch: &mut Batch, transport: &mut dyn Transport, patience: Duration) -> io::Result<()> {
    const PAUSE: Duration = Duration::from_millis(10);
    let (mut moved_at, mut left) = (Instant::now(), batch.len());
    while !batch.is_empty() {
        let outcome = transport.send(batch, Instant::now() + patience);
        if batch.len() < left {
            (moved_at, left) = (Instant::now(), batch.len());
        } else if moved_at.elapsed() >= patience {
            let nothing = || io::Error::new(io::ErrorKind::TimedOut, "the destination confirms nothing");
            return Err(outcome.err().unwrap_or_else(nothing));
        }
        if !batch.is_empty() {
            std::thread::sleep(PAUSE);
        }
    }
    Ok(())
}
