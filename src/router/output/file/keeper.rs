//! What becomes of finished files: they are packed, and the oldest removed, on a thread of its own, because packing takes
//! longer than lines can wait. In: families of files. Out: fewer or smaller ones.
//!
//! Lost here: the files that `keep` says are too many; only such as this output has finished. A packed file is on the disk
//! under its name before the plain one is removed. What was interrupted is done again at the next start.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{bounded, Receiver, Sender};
use flate2::write::GzEncoder;
use flate2::Compression;

use super::path::{hour_now, Family};
use super::rotation::{find, Found, Packing, Rotation, PACKED, PARTLY_PACKED};
use crate::router::spawn;

/// Families that wait. More than that many finish a file while one is packed only if something is badly wrong; those
/// left out are looked after when they finish their next one.
const WAITING: usize = 1_024;

/// Problems that wait to be reported; of more the reader learns no more.
const PROBLEMS: usize = 16;

/// How much is packed between two looks whether the router ends.
const CHUNK_BYTES: usize = 64 * 1024;

/// The thread, as its output sees it.
pub(super) struct Keeper {
    families: Sender<Family>,
    problems: Receiver<io::Error>,
    ended: Receiver<()>,
    is_abandoned: Arc<AtomicBool>,
}

impl Keeper {
    pub(super) fn start(rotation: Rotation) -> io::Result<Self> {
        let (families, waiting) = bounded::<Family>(WAITING);
        let (problem, problems) = bounded(PROBLEMS);
        let (end, ended) = bounded(0);
        let is_abandoned = Arc::new(AtomicBool::new(false));
        let duty = Duty { rotation, is_abandoned: Arc::clone(&is_abandoned) };
        spawn("metlog-files", move || {
            for family in waiting {
                if let Err(error) = duty.look_after(&family) {
                    let _ = problem.try_send(error);
                }
            }
            drop(end);
        })?;
        Ok(Keeper { families, problems, ended, is_abandoned })
    }

    /// Has the finished files of a family looked after, some time.
    pub(super) fn look_after(&self, family: &Family) {
        let _ = self.families.try_send(family.clone());
    }

    /// What went wrong meanwhile.
    pub(super) fn problems(&self) -> impl Iterator<Item = io::Error> + '_ {
        self.problems.try_iter()
    }

    /// Lets it finish what waits until the deadline, and leaves the rest to the next start. What went wrong.
    pub(super) fn close(self, deadline: Instant) -> Vec<io::Error> {
        drop(self.families);
        if let Err(crossbeam_channel::RecvTimeoutError::Timeout) = self.ended.recv_deadline(deadline) {
            self.is_abandoned.store(true, Relaxed);
        }
        self.problems.try_iter().collect()
    }
}

struct Duty {
    rotation: Rotation,
    is_abandoned: Arc<AtomicBool>,
}

impl Duty {
    /// Removes what is too much, and packs the rest. Goes on after an error, and reports the first.
    fn look_after(&self, family: &Family) -> io::Result<()> {
        if self.is_abandoned.load(Relaxed) {
            return Ok(());
        }
        let hour = hour_now();
        let mut found: Vec<Found> = find(family)?.into_iter().filter(|found| found.is_past(hour)).collect();
        found.sort_by(|one, other| one.age().cmp(&other.age()));
        let mut first_error = Ok(());
        let mut note = |result: io::Result<()>| {
            if first_error.is_ok() {
                first_error = result;
            }
        };
        let leftovers = leftovers(&mut found);
        let excess = self.rotation.keep.map_or(0, |keep| found.len().saturating_sub(keep));
        for path in leftovers.into_iter().chain(found.drain(..excess).map(|found| found.path)) {
            note(remove(&path, &family.base));
        }
        let plain = |found: &Found| {
            found.finished.as_ref().is_some_and(|finished| finished.packing == Packing::Plain)
        };
        for found in found.iter().filter(|found| self.rotation.gzip && plain(found)) {
            note(self.pack(&found.path).map_err(|error| named(&found.path, &error)));
        }
        first_error
    }

    fn pack(&self, path: &Path) -> io::Result<()> {
        let partly = with_suffix(path, PARTLY_PACKED);
        let packed = self.pack_into(path, &partly);
        let renamed = packed.and_then(|is_whole| match is_whole {
            true => fs::rename(&partly, with_suffix(path, PACKED)).and_then(|()| fs::remove_file(path)),
            false => fs::remove_file(&partly),
        });
        if renamed.is_err() {
            let _ = fs::remove_file(&partly);
        }
        renamed
    }

    /// Whether it was done: the end of the router interrupts it.
    fn pack_into(&self, path: &Path, partly: &Path) -> io::Result<bool> {
        let mut plain = fs::File::open(path)?;
        let file = OpenOptions::new().write(true).create_new(true).open(partly)?;
        // Who may not read the lines may not read them packed.
        file.set_permissions(plain.metadata()?.permissions())?;
        let mut encoder = GzEncoder::new(file, Compression::default());
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            if self.is_abandoned.load(Relaxed) {
                return Ok(false);
            }
            match plain.read(&mut chunk)? {
                0 => break,
                count => encoder.write_all(&chunk[..count])?,
            }
        }
        encoder.finish()?.sync_all()?;
        Ok(true)
    }
}

/// Takes out what an interruption has left: files packed in part, and plain ones whose packed copy is whole.
fn leftovers(found: &mut Vec<Found>) -> Vec<PathBuf> {
    let packed: Vec<PathBuf> = found.iter().map(|found| found.path.clone()).collect();
    let is_leftover = |found: &Found| match found.finished.as_ref().map(|finished| finished.packing) {
        Some(Packing::Partly) => true,
        Some(Packing::Plain) => packed.contains(&with_suffix(&found.path, PACKED)),
        _ => false,
    };
    let leftovers = found.iter().filter(|found| is_leftover(found)).map(|found| found.path.clone()).collect();
    found.retain(|found| !is_leftover(found));
    leftovers
}

/// Removes a file, and the directories below `base` that are empty then.
fn remove(path: &Path, base: &Path) -> io::Result<()> {
    fs::remove_file(path).map_err(|error| named(path, &error))?;
    let mut directories = path.ancestors().skip(1).take_while(|directory| *directory != base);
    // One that is not empty, the usual case, cannot be removed, and ends this.
    let _ = directories.try_for_each(fs::remove_dir);
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

pub(super) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
