//! Damaged segments that are kept for people, and how many of them.
//!
//! In: segments in which something was damaged. Out: `.bad` files. Their messages are counted as lost already; a file
//! that goes to make room is told on stderr.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::fs::Disk;

#[derive(Debug)]
struct BadFile {
    path: PathBuf,
    bytes: u64,
    written: SystemTime,
}

/// The `.bad` files of one slot, the oldest first.
#[derive(Debug, Default)]
pub(super) struct BadFiles {
    files: VecDeque<BadFile>,
    trouble: Option<String>,
}

impl BadFiles {
    /// Those that are there.
    pub(super) fn find(disk: &dyn Disk, slot: &Path, names: &[String]) -> Self {
        let paths = names.iter().filter(|name| name.ends_with(".bad")).map(|name| slot.join(name));
        let mut files: Vec<_> = paths
            .filter_map(|path| {
                let (bytes, written) = disk.stat(&path).ok()?;
                Some(BadFile { path, bytes, written })
            })
            .collect();
        files.sort_by_key(|file| file.written);
        BadFiles { files: files.into(), trouble: None }
    }

    /// Gives a damaged segment its new name; the oldest go if all of them are more than `most` bytes.
    /// `now` is of the clock that [`expire`](BadFiles::expire) is asked with: by another one they would age too fast, or never.
    pub(super) fn keep(
        &mut self,
        disk: &dyn Disk,
        segment: &Path,
        path: PathBuf,
        (bytes, most): (u64, u64),
        now: SystemTime,
    ) {
        if let Err(error) = disk.rename(segment, &path) {
            // Gone already, or not to be moved: then it stays where it is, and is below what was confirmed.
            if error.kind() != io::ErrorKind::NotFound {
                self.trouble = Some(format!("damaged, and not to be renamed: {segment:?}: {error}"));
            }
            return;
        }
        self.trouble = Some(format!("damaged, kept as {path:?}"));
        self.files.push_back(BadFile { path, bytes, written: now });
        while self.bytes() > most {
            self.remove_oldest(disk, "to make room");
        }
    }

    /// Removes those that are too old.
    pub(super) fn expire(&mut self, disk: &dyn Disk, now: SystemTime, max_age: Duration) {
        while self
            .files
            .front()
            .is_some_and(|file| now.duration_since(file.written).is_ok_and(|age| age > max_age))
        {
            self.remove_oldest(disk, "it was too old");
        }
    }

    fn remove_oldest(&mut self, disk: &dyn Disk, why: &str) {
        let Some(file) = self.files.pop_front() else { return };
        self.trouble = Some(match disk.remove(&file.path) {
            Ok(()) => format!("{:?} was damaged and is removed: {why}", file.path),
            Err(error) => format!("{:?} is damaged and not to be removed: {error}", file.path),
        });
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// What was done and nobody was told.
    pub(super) fn trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }
}
