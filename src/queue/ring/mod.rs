//! The crash ring: the queue's chunks in a file that outlives the process, with all that a reader must know.
//!
//! In: chunks, written through a mapping (`queue/map.rs`); callsites, written at their first use. Out: a file from which
//! another process reads every record whose log call has returned and whose message was not settled ([`dead`]). Nothing
//! is synced to a disk: what ends the machine ends the ring. Lost here: nothing; where there is no room for a callsite,
//! that is said, and records that need it do not survive a crash.
//!
//! docs/crash-ring.md: the file, every point at which a process can die, and what holds at each.

pub(crate) mod check;
pub(crate) mod dead;
pub(crate) mod directory;
pub(crate) mod layout;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crossbeam_channel::Receiver;
use rustix::fs::{fallocate, FallocateFlags};

use super::map::{Buffer, OwnFile, SLOT_BYTES};
use super::{Call, Queue, WhenFull};
use crate::capture::callsite::{self, Callsite, Keeper};
use crate::capture::clock::{self, WallClock};
use crate::delivery::encode::Style;
use crate::delivery::transport::stdio;
use crate::stats::{Counters, LossReason};
use dead::DeadRing;
use layout::{Details, Layout};

/// Room for a dictionary that is taken at once, for about a thousand callsites; after that the file grows.
const DICTIONARY_BYTES: u64 = 256 * 1024;
/// Dead rings that nobody could deliver yet: with more of them than this many rings' worth, no new one is made.
const MOST_DEAD_RINGS: u64 = 8;
/// How often the clock is noted.
const CLOCK_EVERY: u64 = 1_000_000_000;

/// Where the crash ring is kept: see [`Builder::ring`](crate::Builder::ring).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ring {
    /// There is none: the queue is in the process' own memory.
    Off,
    /// In `/dev/shm/tracing-metlog-UID`, which is memory. It outlives the process, but not the machine, nor a container
    /// that is replaced.
    Default,
    /// In this directory, which is made if it is not there and must be this user's alone. On tmpfs it costs the program
    /// nothing; on a disk the kernel writes it out now and then.
    In(PathBuf),
}

impl From<&str> for Ring {
    fn from(directory: &str) -> Ring {
        Ring::In(directory.into())
    }
}

impl From<PathBuf> for Ring {
    fn from(directory: PathBuf) -> Ring {
        Ring::In(directory)
    }
}

impl From<&Path> for Ring {
    fn from(directory: &Path) -> Ring {
        Ring::In(directory.into())
    }
}

impl Ring {
    /// What `METLOG_RING` says: `on`, `off` or an absolute path.
    pub(crate) fn parse(text: &str) -> Option<Ring> {
        match text {
            "on" | "true" | "default" => Some(Ring::Default),
            "off" | "false" => Some(Ring::Off),
            path if path.starts_with('/') => Some(Ring::from(path)),
            _ => None,
        }
    }

    /// Whether it can mean the same wherever the program is started.
    pub(crate) fn is_possible(&self) -> bool {
        !matches!(self, Ring::In(directory) if !directory.is_absolute())
    }

    /// The directory, if there is to be a ring.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        match self {
            Ring::Off => None,
            Ring::Default => Some(directory::default_directory()),
            Ring::In(directory) => Some(directory.clone()),
        }
    }
}

/// The ring of this process.
pub(crate) struct LiveRing {
    file: Arc<OwnFile>,
    path: PathBuf,
    /// Where the next callsite goes.
    dictionary_end: Mutex<u64>,
    /// When the clock was noted last.
    clock_noted: AtomicU64,
    /// Chunks the worker has taken, ever.
    taken: AtomicU64,
}

impl LiveRing {
    /// Makes a ring of `chunks` chunks. It comes under its name when it is whole, and before anything is in it.
    ///
    /// # Errors
    /// Names the file, and what is wrong: no room, no rights, a file system that cannot promise its blocks.
    pub(crate) fn create(
        directory: &Path,
        style: &Style,
        chunks: usize,
    ) -> io::Result<(Arc<LiveRing>, Vec<Buffer>)> {
        directory::prepare(directory).map_err(|error| with_path(directory, &error))?;
        directory::clean(directory);
        let begun = clock::since_epoch(std::time::SystemTime::now());
        let name = |end| directory.join(directory::name(&style.logger, begun, style.process_id, end));
        let new = name(directory::NEW);
        let ring = LiveRing::fill(&new, name(directory::RING), style, chunks);
        if ring.is_err() {
            let _ = fs::remove_file(&new);
        }
        ring.map_err(|error| with_path(&new, &error))
    }

    fn fill(
        new: &Path,
        path: PathBuf,
        style: &Style,
        chunks: usize,
    ) -> io::Result<(Arc<LiveRing>, Vec<Buffer>)> {
        let file = directory::create(new)?;
        #[cfg(test)]
        crate::queue::points::pass("the file is made");
        directory::check_file_system(&file)?;
        let clock = WallClock::new().offset();
        let details = Details { style: style.clone(), clock }.to_json();
        let slots = u32::try_from(chunks).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let layout = Layout::new(slots, SLOT_BYTES as u32, details.len());
        // Every block is really there from now on: a write to the mapping finds room, always.
        fallocate(&file, FallocateFlags::empty(), 0, layout.dictionary_at + DICTIONARY_BYTES)?;
        #[cfg(test)]
        crate::queue::points::pass("it has its blocks");
        file.write_all_at(&layout::header(layout, clock, &details), 0)?;
        #[cfg(test)]
        crate::queue::points::pass("it has its header");
        let file = Arc::new(OwnFile::new(file));
        let buffers = Buffer::of_file(&file, layout.slots_at, chunks)?;
        #[cfg(test)]
        crate::queue::points::pass("it is mapped");
        let ring = Arc::new(LiveRing {
            file,
            path,
            dictionary_end: Mutex::new(layout.dictionary_at),
            clock_noted: AtomicU64::new(clock::now()),
            taken: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&ring);
        let weak: Weak<dyn Keeper> = weak;
        callsite::add_keeper(weak);
        fs::rename(new, &ring.path)?;
        #[cfg(test)]
        crate::queue::points::pass("it has its name");
        Ok((ring, buffers))
    }

    /// The number of the chunk the worker takes now.
    pub(crate) fn next_taken(&self) -> u64 {
        self.taken.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes what the clock's readings mean now, if that was not done just before. Called by the worker while messages
    /// flow.
    pub(crate) fn note_clock(&self) {
        let now = clock::now();
        if now.saturating_sub(self.clock_noted.load(Ordering::Relaxed)) >= CLOCK_EVERY {
            self.clock_noted.store(now, Ordering::Relaxed);
            let bytes = layout::clock_bytes(WallClock::new().offset());
            // The file has this block; there is nothing to be done if the write fails all the same.
            let _ = self.file.write_all_at(&bytes, layout::CLOCK_AT);
            #[cfg(test)]
            crate::queue::points::pass("the clock is noted");
        }
    }

    /// So many messages stay in it for the next start.
    pub(crate) fn say_left(&self, messages: u64) {
        let path = self.path.display();
        stdio::say(&format!("tracing-metlog: {messages} messages are kept in {path} for the next start\n"));
    }

    /// Everything in it is settled, and nothing more will be put there.
    pub(crate) fn remove(&self) {
        if !self.file.was_forked() {
            #[cfg(test)]
            crate::queue::points::pass("all is settled at the end");
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Keeper for LiveRing {
    fn keep(&self, id: u64, callsite: &Callsite) {
        if self.file.was_forked() {
            return;
        }
        let bytes = layout::callsite(id, &callsite.description);
        let mut end = self.dictionary_end.lock().unwrap_or_else(PoisonError::into_inner);
        match self.file.write_all_at(&bytes, *end) {
            Ok(()) => {
                *end += bytes.len() as u64;
                #[cfg(test)]
                crate::queue::points::pass("a callsite is written");
            }
            Err(error) => stdio::say(&format!(
                "tracing-metlog: {}: {error}; messages of {}, {}:{} will not survive a crash\n",
                self.path.display(),
                callsite.description.target,
                callsite.description.file.as_deref().unwrap_or("-"),
                callsite.description.line.unwrap_or_default(),
            )),
        }
    }
}

impl fmt::Debug for LiveRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LiveRing").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A queue in a ring, or in memory if there can be no ring, and what earlier processes of the same program left there.
pub(crate) fn queue(
    directory: &Path,
    style: &Style,
    bytes: usize,
    when_full: WhenFull,
    counters: &Arc<Counters>,
) -> (Queue, Receiver<Call>) {
    let counters = Arc::clone(counters);
    let chunks = Queue::chunks(bytes);
    let (rings, bad) = DeadRing::adopt_all(directory, Some(&style.logger));
    let ring = refuse_too_many_dead(directory, &rings, chunks)
        .and_then(|()| LiveRing::create(directory, style, chunks));
    counters.turned_away(LossReason::Damaged, bad);
    let (queue, calls) = match ring {
        Ok(ring) => {
            counters.keep_what_is_left();
            Queue::in_ring(ring, when_full, counters)
        }
        Err(error) => {
            stdio::say(&format!(
                "tracing-metlog: no crash ring: {error}; the queue is in memory, and a crash will lose what is in it\n"
            ));
            Queue::new(bytes, when_full, counters)
        }
    };
    (Queue { adopted: Mutex::new(rings), ..queue }, calls)
}

/// A program that crashes again and again while its router is down must not fill the memory with rings.
fn refuse_too_many_dead(directory: &Path, rings: &[DeadRing], chunks: usize) -> io::Result<()> {
    let most = MOST_DEAD_RINGS * (chunks * SLOT_BYTES) as u64;
    let dead: u64 = rings.iter().map(DeadRing::bytes).sum();
    match dead <= most {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{}: rings of programs that crashed hold {dead} bytes, and no more than {most} are kept; they go when their \
             messages can be delivered",
            directory.display()
        ))),
    }
}

fn with_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
