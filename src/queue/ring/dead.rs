//! Rings that nobody lives in any more: what a process left that crashed.
//!
//! In: files of a directory, or any bytes. Out: chunks of records, in the order in which they were handed over, each to
//! be settled when its messages are. Lost here: records that were damaged, which are counted, and the file is kept as
//! `*.ring.bad` for whoever wants to see; nothing is deleted that was not delivered.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{fallocate, FallocateFlags};

use super::check::Callsites;
use super::directory::{self, BAD, RING};
use super::layout::{self, Details, Layout};
use crate::capture::callsite::Callsite;
use crate::capture::clock::WallClock;
use crate::delivery::encode::Style;
use crate::delivery::transport::stdio;
use crate::queue::map::SLOT_HEAD;

/// No dictionary is longer; a file that says so is damaged.
const MOST_DICTIONARY: u64 = 64 << 20;

/// Where a ring is read from.
pub(crate) trait Source {
    /// Its length.
    fn length(&self) -> u64;
    /// The bytes from `at` on; `None` when there are not as many.
    fn read(&self, at: u64, length: usize) -> Option<Vec<u8>>;
}

impl Source for File {
    fn length(&self) -> u64 {
        self.metadata().map_or(0, |metadata| metadata.len())
    }

    fn read(&self, at: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    }
}

impl Source for &[u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, at: u64, length: usize) -> Option<Vec<u8>> {
        let at = usize::try_from(at).ok()?;
        self.get(at..at.checked_add(length)?).map(<[u8]>::to_vec)
    }
}

/// What a ring tells of its process, and which slots hold something.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) style: Style,
    pub(crate) clock: WallClock,
    pub(crate) callsites: Arc<Callsites>,
    layout: Layout,
    /// Where the dictionary ends.
    end: u64,
    /// Slots that hold records, and how many bytes, the oldest last.
    slots: Vec<(u32, usize)>,
    /// Slots whose head makes no sense, or a dictionary or clock that does not.
    pub(crate) is_damaged: bool,
}

impl Image {
    /// Reads all but the records.
    ///
    /// # Errors
    /// What is wrong with the header, without which nothing can be read.
    pub(crate) fn read(source: &impl Source) -> Result<Image, &'static str> {
        let header = layout::read_header(source.length(), |at, length| source.read(at, length))?;
        let layout = header.layout;
        if layout.slot_bytes as usize <= SLOT_HEAD {
            return Err("its header is damaged");
        }
        let Details { style, clock } = Details::from_json(&header.details).ok_or("its header is damaged")?;
        let dictionary_bytes = (source.length() - layout.dictionary_at).min(MOST_DICTIONARY) as usize;
        let dictionary = source.read(layout.dictionary_at, dictionary_bytes).unwrap_or_default();
        let dictionary = layout::read_dictionary(&dictionary);
        let known = |(id, description)| (id, Callsite::of_another_process(description));
        let mut image = Image {
            style,
            clock: WallClock::of_offset(header.clock.unwrap_or(clock)),
            callsites: Arc::new(dictionary.callsites.into_iter().map(known).collect()),
            layout,
            end: layout.dictionary_at + dictionary.length as u64,
            slots: Vec::new(),
            is_damaged: dictionary.is_damaged || header.clock.is_none(),
        };
        image.find_slots(source);
        Ok(image)
    }

    fn find_slots(&mut self, source: &impl Source) {
        let mut found = Vec::new();
        for index in 0..self.layout.slots {
            let Some(head) = source.read(self.layout.slot(index), SLOT_HEAD) else { continue };
            let number = |at: usize| head[at..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
            let order = head[8..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
            let most = self.layout.slot_bytes as usize - SLOT_HEAD;
            match number(0) as usize {
                0 => {}
                length if length <= most => found.push((order, index, length)),
                _ => self.is_damaged = true,
            }
        }
        found.sort_unstable();
        self.slots = found.into_iter().rev().map(|(_, index, length)| (index, length)).collect();
    }

    /// The records of the oldest slot that was not read yet, and its number.
    pub(crate) fn next(&mut self, source: &impl Source) -> Option<(u32, Vec<u8>)> {
        let (index, length) = self.slots.pop()?;
        let records = source.read(self.layout.slot(index) + SLOT_HEAD as u64, length);
        self.is_damaged |= records.is_none();
        Some((index, records.unwrap_or_default()))
    }

    /// Where in a file of `length` bytes nothing is, as long stretches: only whole pages can be given back.
    fn empty(&self, length: u64) -> Vec<Range<u64>> {
        let slot = |&(index, length): &(u32, usize)| {
            let at = self.layout.slot(index);
            at..at + (SLOT_HEAD + length) as u64
        };
        let mut used: Vec<_> = self.slots.iter().map(slot).collect();
        used.push(self.layout.dictionary_at..self.end);
        used.push(length..length);
        used.sort_by_key(|range| range.start);
        let mut from = self.layout.slots_at;
        let mut empty = Vec::new();
        for range in used {
            if range.start > from {
                empty.push(from..range.start);
            }
            from = from.max(range.end);
        }
        empty
    }

    /// Whether every slot was read.
    pub(crate) fn is_read(&self) -> bool {
        self.slots.is_empty()
    }
}

/// A ring whose process is dead, locked: it is this process' to deliver.
#[derive(Debug)]
pub(crate) struct DeadRing {
    pub(crate) image: Image,
    file: File,
    path: PathBuf,
}

impl DeadRing {
    /// Adopts every ring of a directory that nobody lives in, of this program or, without one, of any; the oldest
    /// first. A file that is no ring is counted in the second number, and put aside.
    pub(crate) fn adopt_all(directory: &Path, program: Option<&str>) -> (Vec<DeadRing>, u64) {
        let mut bad = 0;
        let is_wanted = |name: &String| program.is_none_or(|program| directory::is_of(name, program));
        let names = directory::names(directory, RING).into_iter().filter(is_wanted);
        let rings = names.filter_map(|name| match DeadRing::adopt(directory.join(name)) {
            Ok(ring) => ring,
            Err(problem) => {
                say(format_args!("{problem}"));
                bad += 1;
                None
            }
        });
        (rings.collect(), bad)
    }

    /// Adopts one ring. `None` when its process lives, or it is gone.
    fn adopt(path: PathBuf) -> Result<Option<DeadRing>, String> {
        let locked = directory::lock(&path);
        let Some(file) = locked.map_err(|error| format!("{}: {error}", path.display()))? else {
            return Ok(None);
        };
        match Image::read(&file) {
            Ok(image) if image.is_read() && !image.is_damaged => {
                fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                Ok(None)
            }
            Ok(image) => {
                for part in image.empty(file.length()) {
                    give_back(&file, part.start, part.end - part.start);
                }
                Ok(Some(DeadRing { image, file, path }))
            }
            Err(problem) => {
                let kept = keep_as_bad(&path)
                    .map_or_else(|error| error.to_string(), |kept| kept.display().to_string());
                Err(format!("{}: {problem}; it is kept as {kept}", path.display()))
            }
        }
    }

    /// The records of the next slot, and its number.
    pub(crate) fn next(&mut self) -> Option<(u32, Vec<u8>)> {
        self.image.next(&self.file)
    }

    /// The messages of a slot are settled, and are not delivered again. A slot with damaged records stays in the file.
    pub(crate) fn settle(&self, slot: u32) {
        let at = self.image.layout.slot(slot);
        // A write that fails costs a second delivery, should this process crash too.
        let _ = self.file.write_all_at(&0u32.to_ne_bytes(), at);
        #[cfg(test)]
        crate::queue::points::pass("a slot of a dead ring is settled");
        give_back(&self.file, at, u64::from(self.image.layout.slot_bytes));
    }

    /// How much memory, or room on a disk, it takes.
    pub(crate) fn bytes(&self) -> u64 {
        const BLOCK: u64 = 512;
        self.file.metadata().map_or(0, |metadata| metadata.blocks() * BLOCK)
    }

    /// All of it is settled. The file goes, or is put aside if something in it was damaged.
    pub(crate) fn finish(self, has_damage: bool) {
        #[cfg(test)]
        crate::queue::points::pass("a dead ring is delivered");
        let outcome = match has_damage || self.image.is_damaged {
            false => fs::remove_file(&self.path).map(|()| None),
            true => keep_as_bad(&self.path).map(Some),
        };
        match outcome {
            Ok(None) => {}
            Ok(Some(kept)) => say(format_args!("{} was damaged, and is kept", kept.display())),
            // It is found again at the next start, and has nothing in it but what is damaged.
            Err(error) => say(format_args!("{}: {error}", self.path.display())),
        }
    }
}

/// Gives back the memory of a part of the file that nobody will read; where that is not to be had it goes with the file.
fn give_back(file: &File, at: u64, length: u64) {
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let _ = fallocate(file, hole, at, length);
}

fn say(what: std::fmt::Arguments<'_>) {
    stdio::say(&format!("tracing-metlog: {what}\n"));
}

fn keep_as_bad(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let kept = path.with_file_name(format!("{}{BAD}", name.strip_suffix(RING).unwrap_or(&name)));
    fs::rename(path, &kept)?;
    Ok(kept)
}
