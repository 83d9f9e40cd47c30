//! The spool: messages that no destination takes wait on disk, within bounds, and are sent when one is back.
//!
//! In: encoded messages, while every destination has failed, or while none has room and the queue is half full. Out:
//! the same messages, the oldest first, a batch of them after each batch of new ones. Lost here: what is damaged
//! (`spool_damaged`), too old (`spool_expired`), or has to make room (`spool_full`). The format is in
//! docs/spool-format.md.

mod bad;
mod commit;
pub(crate) mod fs;
#[cfg(feature = "router")]
pub(crate) mod inspect;
#[cfg(test)]
mod memory;
pub(crate) mod record;
pub(crate) mod slots;
pub(crate) mod store;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use self::fs::{Disk, RealDisk};
use self::store::{Limits, Refusal, Store};
use super::batch::Batch;
use super::destination::complain;
use crate::stats::{Counters, LossReason};

/// About so much is read, sent and confirmed at a time: what may be sent twice after a crash.
const BATCH_BYTES: usize = 256 * 1024;
/// What is written is synced within this.
const SYNC_AFTER: Duration = Duration::from_millis(50);
/// A disk that refuses is asked again after this.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often ages are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two words about trouble on stderr.
const REMINDER: Duration = Duration::from_secs(60);

/// What a spool is told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) directory: PathBuf,
    pub(crate) limits: Limits,
    /// At the quota, the oldest messages make room for the newest.
    pub(crate) drops_oldest: bool,
}

/// The wall clock as it was at the start, and the time since then by a clock that nobody sets: whoever sets the wall clock
/// forward must not make everything too old at once. What earlier processes left is as old as the wall clock says at the
/// start.
struct SteadyClock {
    wall: SystemTime,
    since: Instant,
}

impl SteadyClock {
    fn start() -> Self {
        SteadyClock { wall: SystemTime::now(), since: Instant::now() }
    }

    fn now(&self) -> SystemTime {
        self.wall + self.since.elapsed()
    }
}

/// The worker's spool.
pub(crate) struct Spool {
    settings: Settings,
    disk: Arc<dyn Disk + Sync>,
    counters: Arc<Counters>,
    /// Slots of processes that have ended, and last this process' own. Empty as long as the disk refuses.
    slots: Vec<Store>,
    /// Messages that are not on disk yet.
    waiting: Batch,
    /// Whether a batch from the first slot is with the destinations.
    is_sending: bool,
    /// The disk refuses writes until then.
    write_again_at: Option<Instant>,
    /// The same for reading.
    read_again_at: Option<Instant>,
    look_at: Instant,
    clock: SteadyClock,
    /// The last problem, and when it was told.
    told: Option<(String, Instant)>,
}

impl Spool {
    /// Opens the spool of a program.
    ///
    /// # Errors
    /// The directory cannot be what it is meant for. A full or failing disk is no error: it is tried again later.
    pub(crate) fn open(settings: Settings, counters: &Arc<Counters>) -> io::Result<Spool> {
        Spool::open_on(Arc::new(RealDisk), settings, counters)
    }

    pub(crate) fn open_on(
        disk: Arc<dyn Disk + Sync>,
        settings: Settings,
        counters: &Arc<Counters>,
    ) -> io::Result<Spool> {
        let mut spool = Spool {
            settings,
            disk,
            counters: Arc::clone(counters),
            slots: Vec::new(),
            waiting: Batch::default(),
            is_sending: false,
            write_again_at: None,
            read_again_at: None,
            look_at: Instant::now(),
            clock: SteadyClock::start(),
            told: None,
        };
        match spool.open_slots() {
            Err(error) if !is_passing(&error) => Err(error),
            Err(error) => {
                spool.refused(&error.to_string());
                Ok(spool)
            }
            Ok(()) => Ok(spool),
        }
    }

    fn open_slots(&mut self) -> io::Result<()> {
        self.slots = slots::open(&self.disk, &self.settings.directory, self.settings.limits)?;
        self.counters.inherit(self.slots.iter().map(Store::len).sum());
        Ok(())
    }
}

/// Writing.
impl Spool {
    /// Whether a message that is put in here now would soon be on disk.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.is_empty() && self.write_again_at.is_none_or(|at| at <= Instant::now())
    }

    /// Whether something was put in that is not on disk.
    pub(crate) fn has_unwritten(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes one encoded message; [`write`](Spool::write) brings it to disk.
    pub(crate) fn put(&mut self, message: &[u8]) {
        self.waiting.push(|out| out.extend_from_slice(message));
    }

    /// Brings what was put in here to disk, as far as the disk takes it.
    pub(crate) fn write(&mut self) {
        let now = Instant::now();
        if self.waiting.is_empty() || self.write_again_at.is_some_and(|at| now < at) {
            return;
        }
        self.write_now();
    }

    fn write_now(&mut self) {
        let outcome = self.append();
        let (spooled, lost) = self.waiting.take_account();
        self.counters.spool(spooled);
        lost.into_iter().for_each(|(reason, count)| self.counters.lose(reason, count));
        match outcome {
            Ok(()) => {
                self.waiting.clear();
                if self.write_again_at.take().is_some() {
                    self.recovered();
                }
            }
            Err(Refusal::Full) => {
                let limit = self.settings.limits.bytes;
                self.refused(&format!("the limit of {limit} bytes is reached"));
            }
            Err(Refusal::Disk(error)) => self.refused(&error.to_string()),
        }
    }

    fn append(&mut self) -> Result<(), Refusal> {
        if self.slots.is_empty() {
            self.open_slots().map_err(Refusal::Disk)?;
        }
        let counters = &self.counters;
        let Some(own) = self.slots.last_mut() else { return Ok(()) };
        loop {
            match own.append(&mut self.waiting, self.clock.now()) {
                Err(Refusal::Full) if self.settings.drops_oldest => match own.evict_oldest() {
                    Some(lost) => counters.lose_spooled(LossReason::SpoolFull, lost),
                    None => return Err(Refusal::Full),
                },
                outcome => return outcome,
            }
        }
    }

    /// Makes everything that is written survive the machine.
    pub(crate) fn sync(&mut self) {
        self.write();
        if let Some(Err(error)) = self.slots.last_mut().map(Store::sync) {
            self.tell(&format!("not synced, a machine that stops now may lose messages: {error}"));
        }
    }

    #[cold]
    fn refused(&mut self, problem: &str) {
        self.write_again_at = Some(Instant::now() + RETRY_AFTER);
        self.tell(&format!("{problem}; messages stay in memory as long as there is room"));
    }

    #[cold]
    fn recovered(&mut self) {
        if self.told.take().is_some() {
            complain(format_args!("spool {}: takes messages again", self.settings.directory.display()));
        }
    }

    /// A word on stderr, unless it was said a moment ago.
    #[cold]
    fn tell(&mut self, problem: &str) {
        let is_news = |(last, at): &(String, Instant)| last != problem || at.elapsed() >= REMINDER;
        if self.told.as_ref().is_none_or(is_news) {
            self.told = Some((problem.to_owned(), Instant::now()));
            complain(format_args!("spool {}: {problem}", self.settings.directory.display()));
        }
    }
}

/// Sending.
impl Spool {
    /// Whether there is something to send.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.is_sending && (self.is_on_disk() || self.is_stuck()) && self.may_read()
    }

    fn is_on_disk(&self) -> bool {
        self.slots.iter().any(|slot| slot.len() > 0)
    }

    /// Whether the disk does not take what it should.
    fn is_stuck(&self) -> bool {
        !self.waiting.is_empty() && self.write_again_at.is_some()
    }

    fn may_read(&self) -> bool {
        self.read_again_at.is_none_or(|at| at <= Instant::now())
    }

    /// Whether a batch is with the destinations that [`confirm`](Spool::confirm) or [`keep`](Spool::keep) must follow.
    pub(crate) fn is_sending(&self) -> bool {
        self.is_sending
    }

    /// Reads the next batch: each message is put into the outlets. What the disk has not taken comes last and from
    /// memory. Whether there was any.
    pub(crate) fn read(&mut self, mut each: impl FnMut(&[u8])) -> bool {
        while self.is_on_disk() {
            match self.read_slot(&mut each) {
                Ok(0) => self.confirm(),
                Ok(_) => {
                    self.is_sending = true;
                    return true;
                }
                Err(error) => {
                    self.read_again_at = Some(Instant::now() + RETRY_AFTER);
                    self.tell(&format!("not readable: {error}"));
                    return false;
                }
            }
        }
        let is_any = self.is_stuck();
        if is_any {
            self.waiting.frames().for_each(each);
            self.waiting.clear();
        }
        is_any
    }

    fn read_slot(&mut self, each: impl FnMut(&[u8])) -> io::Result<u64> {
        self.drop_empty_slots();
        let Some(slot) = self.slots.first_mut() else { return Ok(0) };
        let taken = slot.read(BATCH_BYTES, each)?;
        self.read_again_at = None;
        self.counters.unspool(taken.whole);
        self.counters.lose_spooled(LossReason::SpoolDamaged, taken.damaged);
        Ok(taken.whole)
    }

    /// The batch that was read last has arrived.
    pub(crate) fn confirm(&mut self) {
        self.is_sending = false;
        let Some(slot) = self.slots.first_mut() else { return };
        let outcome = slot.confirm(self.clock.now());
        let trouble = slot.trouble();
        if let Err(error) = outcome {
            self.tell(&format!("what has arrived is not noted and may be sent again: {error}"));
        } else if let Some(trouble) = trouble {
            self.tell(&trouble);
        }
        self.drop_empty_slots();
    }

    /// Of the batch that was read last `left` messages have not arrived, and will be sent by the next start.
    pub(crate) fn keep(&mut self, left: u64) {
        self.is_sending = false;
        let kept = self.slots.first_mut().map_or(0, Store::rewind).min(left);
        self.counters.spool(kept);
        self.counters.lose(LossReason::SpoolFull, left - kept);
    }

    /// Adopted slots that have nothing more.
    fn drop_empty_slots(&mut self) {
        while !self.is_sending && self.slots.len() > 1 && self.slots[0].len() == 0 {
            self.slots.remove(0).remove();
        }
    }
}

/// Time.
impl Spool {
    /// Does what is due.
    pub(crate) fn tick(&mut self) {
        let now = Instant::now();
        self.write();
        if self.slots.last().and_then(Store::unsynced_since).is_some_and(|since| now >= since + SYNC_AFTER) {
            self.sync();
        }
        if now >= self.look_at {
            self.look_at = now + LOOK_EVERY;
            self.look();
        }
    }

    fn look(&mut self) {
        let now = self.clock.now();
        let lost = self.slots.iter_mut().map(|slot| slot.expire(now)).sum();
        self.counters.lose_spooled(LossReason::SpoolExpired, lost);
        let trouble = self.slots.iter_mut().find_map(Store::trouble);
        if let Some(trouble) = trouble {
            self.tell(&trouble);
        }
        let may_open = self.write_again_at.is_none_or(|at| at <= Instant::now());
        if self.slots.is_empty() && may_open && self.waiting.is_empty() {
            match self.open_slots() {
                Ok(()) => {
                    self.write_again_at = None;
                    self.recovered();
                }
                Err(error) => self.refused(&error.to_string()),
            }
        }
    }

    /// Somebody waits: a disk that refused is asked again at once.
    pub(crate) fn hurry(&mut self) {
        let now = Instant::now();
        [&mut self.write_again_at, &mut self.read_again_at].into_iter().flatten().for_each(|at| *at = now);
    }

    /// When there is something to do here again without being told.
    pub(crate) fn due(&self) -> Option<Instant> {
        let sync = self.slots.last().and_then(Store::unsynced_since).map(|since| since + SYNC_AFTER);
        let write = self.write_again_at.filter(|_| !self.waiting.is_empty() || self.slots.is_empty());
        let read = self.read_again_at.filter(|_| self.is_on_disk());
        [sync, write, read].into_iter().flatten().min()
    }

    /// The program ends: what can be brought to disk is.
    pub(crate) fn close(&mut self) {
        if !self.waiting.is_empty() {
            self.write_now();
        }
        self.counters.lose(LossReason::SpoolFull, self.waiting.len() as u64);
        self.waiting.clear();
        self.sync();
        self.slots.drain(..).for_each(Store::remove);
    }
}

/// Whether an error says that the disk is full or fails, not that the directory is the wrong one.
fn is_passing(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        let passing =
            [Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::INTR, Errno::NFILE, Errno::MFILE, Errno::STALE];
        passing.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
    }
    #[cfg(not(unix))]
    {
        let _ = error;
        false
    }
}
