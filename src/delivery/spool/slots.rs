//! Which slot of a spool a process writes, and which ones it adopts: docs/spool-format.md, "Directories".
//!
//! In: the spool's directory. Out: locked slots. Nothing can be lost here.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fs::{Disk, Lock};
use super::store::{segment_number, Limits, Store};

/// Processes that can share a directory.
const MOST_SLOTS: u32 = 1024;

/// The slots that nobody else has: those with messages of processes that have ended, and last this process' own.
///
/// # Errors
/// The directory cannot be made or read, or no slot in it can be locked.
pub(crate) fn open(disk: &Arc<dyn Disk + Sync>, directory: &Path, limits: Limits) -> io::Result<Vec<Store>> {
    disk.make_dir(directory)?;
    let there = numbers(&**disk, directory)?;
    let mut own = None;
    let mut problem = None;
    for number in 0..MOST_SLOTS {
        let path = directory.join(number.to_string());
        let Some(lock) = make_and_lock(&**disk, &path)? else { continue };
        match Store::open(Arc::clone(disk), path, lock, limits) {
            Ok(store) => {
                own = Some((number, store));
                break;
            }
            // What is wrong with this one need not be wrong with the next.
            Err(error) => problem = Some(error),
        }
    }
    let Some((number, own)) = own else {
        let all_taken = || io::Error::other(format!("all {MOST_SLOTS} slots are locked by other processes"));
        return Err(problem.unwrap_or_else(all_taken));
    };
    let mut slots = adopt(disk, directory, there.into_iter().filter(|&one| one != number), limits);
    slots.push(own);
    Ok(slots)
}

/// Slots with messages that nobody has locked.
pub(crate) fn adopt(
    disk: &Arc<dyn Disk + Sync>,
    directory: &Path,
    numbers: impl Iterator<Item = u32>,
    limits: Limits,
) -> Vec<Store> {
    let paths = numbers.map(|number| directory.join(number.to_string()));
    paths.filter_map(|path| adopt_one(disk, path, limits)).collect()
}

fn adopt_one(disk: &Arc<dyn Disk + Sync>, path: PathBuf, limits: Limits) -> Option<Store> {
    // The processes that come next find what cannot be opened now.
    let holds_messages = |path: &Path| {
        disk.list(path).is_ok_and(|names| names.iter().any(|name| segment_number(name).is_some()))
    };
    if !holds_messages(&path) {
        return None;
    }
    let lock = disk.lock(&path.join("lock")).ok()??;
    Store::open(Arc::clone(disk), path, lock, limits).ok()
}

fn make_and_lock(disk: &dyn Disk, path: &Path) -> io::Result<Option<Lock>> {
    disk.make_dir(path)?;
    match disk.lock(&path.join("lock")) {
        // Removed by its last owner a moment ago.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        outcome => outcome,
    }
}

/// The slots there are.
pub(crate) fn numbers(disk: &dyn Disk, directory: &Path) -> io::Result<Vec<u32>> {
    let is_number = |name: &String| {
        name.parse().ok().filter(|number: &u32| *number < MOST_SLOTS && number.to_string() == *name)
    };
    let mut numbers: Vec<u32> = disk.list(directory)?.iter().filter_map(is_number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}
