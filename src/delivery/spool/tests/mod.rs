//! The spool against a disk in memory: a model, faults at every operation, crashes, damage, bounds.

mod bounds;
mod damage;
mod faults;
mod killed;
mod model;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::memory::MemoryDisk;
use super::store::Limits;
use super::{Settings, Spool};
use crate::stats::{Counters, LossReason, Losses};

fn root() -> &'static Path {
    Path::new("/spool")
}

fn settings(bytes: u64) -> Settings {
    let limits = Limits { bytes, max_age: Duration::from_secs(3600) };
    Settings { directory: root().join("dir"), limits, drops_oldest: false }
}

fn roomy() -> Settings {
    settings(1 << 30)
}

/// The text of message `id`.
fn text(id: u64, length: usize) -> Vec<u8> {
    format!("{id:08}{}", "x".repeat(length)).into_bytes()
}

fn id_of(message: &[u8]) -> u64 {
    std::str::from_utf8(&message[..8]).unwrap().parse().unwrap()
}

/// A process with a spool, and what must be true of its account.
struct Process {
    spool: Spool,
    counters: Arc<Counters>,
    put: u64,
    delivered: u64,
    /// Read and not confirmed.
    in_flight: VecDeque<u64>,
}

impl Process {
    fn start(disk: &MemoryDisk, settings: Settings) -> Process {
        Process::try_start(disk, settings).unwrap()
    }

    fn try_start(disk: &MemoryDisk, settings: Settings) -> std::io::Result<Process> {
        let counters = Arc::new(Counters::default());
        let spool = Spool::open_on(Arc::new(disk.clone()), settings, &counters)?;
        Ok(Process { spool, counters, put: 0, delivered: 0, in_flight: VecDeque::new() })
    }

    fn put(&mut self, ids: impl IntoIterator<Item = u64>, length: usize) {
        for id in ids {
            self.spool.put(&text(id, length));
            self.put += 1;
        }
        self.spool.write();
        self.assert_balanced();
    }

    /// Reads the next batch; its messages.
    fn read(&mut self) -> Vec<u64> {
        let mut ids = Vec::new();
        if self.spool.has_backlog() {
            self.spool.read(|message| ids.push(id_of(message)));
        }
        match self.spool.is_sending() {
            true => self.in_flight.extend(&ids),
            // From memory: the spool has nothing to do with them any more.
            false => self.delivered += ids.len() as u64,
        }
        self.assert_balanced();
        ids
    }

    fn confirm(&mut self) {
        if self.spool.is_sending() {
            self.delivered += self.in_flight.drain(..).len() as u64;
            self.spool.confirm();
        }
        self.assert_balanced();
    }

    /// Reads and confirms all there is.
    fn drain(&mut self) -> Vec<u64> {
        let mut all = Vec::new();
        // A disk that fails is given up by the segment after three attempts.
        for _ in 0..1000 {
            self.spool.hurry();
            self.spool.tick();
            let ids = self.read();
            self.confirm();
            if ids.is_empty() && !self.spool.is_on_disk() && self.spool.waiting.is_empty() {
                return all;
            }
            all.extend(ids);
        }
        panic!("the spool does not end; {} read", all.len());
    }

    fn lost(&self) -> Losses {
        self.counters.all_losses()
    }

    fn lost_for(&self, reason: LossReason) -> u64 {
        self.lost().count(reason)
    }

    fn spooled(&self) -> u64 {
        self.counters.on_disk().1
    }

    #[track_caller]
    fn assert_balanced(&self) {
        let (inherited, spooled) = self.counters.on_disk();
        let pending = self.in_flight.len() as u64 + self.spool.waiting.len() as u64;
        let lost = self.lost().total();
        assert_eq!(
            self.put + inherited,
            self.delivered + lost + spooled + pending,
            "put {} + inherited {inherited} = delivered {} + lost {lost} + spooled {spooled} + pending {pending}",
            self.put,
            self.delivered
        );
        let on_disk: u64 = self.spool.slots.iter().map(super::Store::len).sum();
        assert_eq!(on_disk, spooled, "on disk is what is counted as spooled");
    }
}

/// The only segment of slot 0.
fn only_segment(disk: &MemoryDisk) -> PathBuf {
    let segments: Vec<_> = disk.names().into_iter().filter(|name| name.ends_with(".segment")).collect();
    assert_eq!(segments.len(), 1, "{segments:?}");
    PathBuf::from(&segments[0])
}
