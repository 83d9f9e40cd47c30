//! The memory of the queue's chunks, with the feature `ring`: the heap's, or a mapped file that outlives the process.
//!
//! In: records, appended; the owner of a chunk says when it is begun, taken and empty. Out: the same bytes for this
//! process, and in the file for another one, of which those in front of the committed length are always whole
//! records. Lost here: nothing. The memory is the same in both cases and so is the code that writes it, so that a
//! call costs the same and asks nothing.
//!
//! ```text
//! slot = committed u32 | lane u32 | order u64 | unused, to 64 bytes | records, 64 KiB
//! ```
//! `committed` is stored last and with release order: whatever the process dies of, a reader that finds the length
//! finds the bytes. It is 0 before anything else in the slot is written anew, so an old length never holds for new
//! bytes, nor a new one for old bytes. Numbers are of this machine; the reader is on the same.
//!
//! All `unsafe` code of the ring is here. `memmap2` and the like would not make it less: mapping a file is unsafe there
//! too, and a `&mut [u8]` over it has no way to store a length after the bytes and not before.

#![allow(unsafe_code)]

use std::alloc::{alloc, dealloc, handle_alloc_error, Layout};
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

use rustix::mm::{mmap, mmap_anonymous, munmap, MapFlags, ProtFlags};

use super::fork::Process;
use super::CHUNK_BYTES;

/// Bytes of a slot in front of its records.
pub(crate) const SLOT_HEAD: usize = 64;
/// Bytes of a slot.
pub(crate) const SLOT_BYTES: usize = SLOT_HEAD + CHUNK_BYTES;
/// Where in a slot its lane and its order stand.
const LANE_AT: usize = 4;
const ORDER_AT: usize = 8;
/// The bit of an order that says that the chunk has not been taken by the worker. What was taken is older than what was
/// not, and was taken in this order; what was not taken was begun in this order.
const NOT_TAKEN: u64 = 1 << 63;

/// A file of this process alone: in a forked child it was closed at the fork, see [`close_in_child`].
pub(crate) struct OwnFile {
    file: ManuallyDrop<File>,
    process: Process,
}

impl OwnFile {
    pub(crate) fn new(file: File) -> OwnFile {
        OwnFile { file: ManuallyDrop::new(file), process: Process::current() }
    }

    /// Whether this is a child, where the file is not open any more.
    pub(crate) fn was_forked(&self) -> bool {
        self.process.was_forked()
    }
}

impl Deref for OwnFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        // SAFETY: the file is taken out once, here, and not used after.
        let file = unsafe { ManuallyDrop::take(&mut self.file) };
        if self.process.was_forked() {
            // Its number may be another file's by now.
            let _ = file.into_raw_fd();
        }
    }
}

/// Memory that buffers share and that goes with the last of them.
struct Region {
    base: NonNull<u8>,
    backing: Backing,
    /// Chunks begun, ever.
    begun: AtomicU64,
}

enum Backing {
    Heap(Layout),
    /// So many bytes of a file, with the number of its place in [`PLACES`].
    Mapped {
        length: usize,
        place: usize,
        _file: Arc<OwnFile>,
    },
}

// SAFETY: the region itself only keeps the memory and gives it back; each byte of it is reached through the one buffer
// that has it.
unsafe impl Send for Region {}
// SAFETY: as above; `begun` is atomic.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        match self.backing {
            // SAFETY: allocated with this layout, and no buffer is left that would reach it.
            Backing::Heap(layout) => unsafe { dealloc(self.base.as_ptr(), layout) },
            Backing::Mapped { length, place, .. } => {
                PLACES[place].base.store(FREE, Ordering::SeqCst);
                // SAFETY: mapped with this length, and no buffer is left that would reach it.
                let _ = unsafe { munmap(self.base.as_ptr().cast(), length) };
            }
        }
    }
}

/// The head of the slot that buffers without memory have; nobody reads it.
#[repr(align(64))]
struct Nowhere {
    _words: [AtomicU64; SLOT_HEAD / 8],
}

static NOWHERE: Nowhere = Nowhere { _words: [const { AtomicU64::new(0) }; SLOT_HEAD / 8] };

/// Records behind one another in a slot, which is this buffer's alone.
pub(crate) struct Buffer {
    slot: NonNull<u8>,
    /// Never more than `capacity`; all of them are written.
    len: usize,
    /// How many bytes the slot has room for behind its head: [`CHUNK_BYTES`], or 0 if there is no slot.
    capacity: usize,
    /// What keeps the slot's memory; `None` if there is no slot.
    region: Option<Arc<Region>>,
}

// SAFETY: the slot is reached through this buffer only, but for [`NOWHERE`], of which every word is atomic.
unsafe impl Send for Buffer {}

impl Buffer {
    /// So many empty ones on the heap.
    pub(crate) fn of_heap(count: usize) -> Vec<Buffer> {
        let Ok(layout) = Layout::from_size_align(count.max(1) * SLOT_BYTES, SLOT_HEAD) else {
            return Vec::new();
        };
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc(layout) };
        let Some(base) = NonNull::new(memory) else { handle_alloc_error(layout) };
        // SAFETY: the memory is this long and nobody else's. Written, so that the first message does not pay for the
        // pages.
        unsafe { ptr::write_bytes(base.as_ptr(), 0, layout.size()) };
        Buffer::all(Region { base, backing: Backing::Heap(layout), begun: AtomicU64::new(0) }, count)
    }

    /// So many empty ones in `file`, from `offset` on.
    ///
    /// The file must be that long, with every block of it really there: a write into a hole that the file system has no
    /// room for would be SIGBUS. It must be this process' alone.
    ///
    /// # Errors
    /// The file cannot be mapped, or too many are.
    pub(crate) fn of_file(file: &Arc<OwnFile>, offset: u64, count: usize) -> io::Result<Vec<Buffer>> {
        let length = count.max(1) * SLOT_BYTES;
        let place = reserve_place()?;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the system's choice touches no memory there is.
        let mapped = unsafe { mmap(ptr::null_mut(), length, protection, flags, &***file, offset) };
        let base = match mapped.map(|address| NonNull::new(address.cast::<u8>())) {
            Ok(Some(base)) => base,
            outcome => {
                PLACES[place].base.store(FREE, Ordering::SeqCst);
                return Err(outcome.err().map_or_else(|| io::ErrorKind::OutOfMemory.into(), io::Error::from));
            }
        };
        PLACES[place].fill(base, length, file.as_raw_fd());
        // SAFETY: the mapping is this long and nobody else's; the caller has seen to it that the file is as long.
        // Written, so that the first message does not pay for the pages.
        unsafe { ptr::write_bytes(base.as_ptr(), 0, length) };
        let backing = Backing::Mapped { length, place, _file: Arc::clone(file) };
        Ok(Buffer::all(Region { base, backing, begun: AtomicU64::new(0) }, count))
    }

    fn all(region: Region, count: usize) -> Vec<Buffer> {
        let region = Arc::new(region);
        let buffer = |index: usize| {
            // SAFETY: the region has `count` slots, one behind the other.
            let slot = unsafe { region.base.add(index * SLOT_BYTES) };
            Buffer { slot, len: 0, capacity: CHUNK_BYTES, region: Some(Arc::clone(&region)) }
        };
        (0..count).map(buffer).collect()
    }

    /// One without memory, and so without room.
    pub(crate) fn none() -> Buffer {
        let slot = NonNull::from(&NOWHERE).cast();
        Buffer { slot, len: 0, capacity: 0, region: None }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.capacity == 0
    }

    /// Appends a record; `false`, and nothing is done, when it does not fit. Once this has returned the record is in
    /// the file, whatever becomes of the process.
    #[inline(always)]
    pub(crate) fn try_append(&mut self, record: &[u8]) -> bool {
        if record.len() > self.capacity - self.len {
            return false;
        }
        // SAFETY: the slot has room for `capacity` bytes behind its head, and the record ends before that. The record
        // is not in the slot: nobody else has a reference into it while this one is exclusive.
        unsafe {
            let end = self.slot.as_ptr().add(SLOT_HEAD + self.len);
            ptr::copy_nonoverlapping(record.as_ptr(), end, record.len());
        }
        #[cfg(test)]
        crate::queue::points::pass("a record is copied");
        self.len += record.len();
        self.commit();
        #[cfg(test)]
        crate::queue::points::pass("its length is stored");
        true
    }

    /// Another process may read up to here from now on.
    #[inline(always)]
    fn commit(&self) {
        // SAFETY: the slot begins with the committed length, aligned to 64 bytes; it is only reached like this.
        let committed = unsafe { AtomicU32::from_ptr(self.slot.as_ptr().cast()) };
        committed.store(self.len as u32, Ordering::Release);
    }

    /// Notes where the records that follow come from. For an empty buffer.
    #[inline]
    pub(crate) fn begin(&mut self, lane: usize) {
        let Some(region) = &self.region else { return };
        let begun = region.begun.fetch_add(1, Ordering::Relaxed);
        self.set_order(NOT_TAKEN | begun);
        #[cfg(test)]
        crate::queue::points::pass("a chunk has its order");
        // SAFETY: this is inside of the slot's head, aligned to four bytes, and only reached like this.
        let place = unsafe { AtomicU32::from_ptr(self.slot.as_ptr().add(LANE_AT).cast()) };
        place.store(lane as u32, Ordering::Relaxed);
        #[cfg(test)]
        crate::queue::points::pass("a chunk has its lane");
    }

    /// Notes that the worker has taken it, as number `order` of all.
    pub(crate) fn note_taken(&mut self, order: u64) {
        self.set_order(order & !NOT_TAKEN);
        #[cfg(test)]
        crate::queue::points::pass("a chunk is taken");
    }

    fn set_order(&self, order: u64) {
        // SAFETY: this is inside of the slot's head, aligned to eight bytes, and only reached like this.
        let place = unsafe { AtomicU64::from_ptr(self.slot.as_ptr().add(ORDER_AT).cast()) };
        // What is committed after this is of this order also for a reader.
        place.store(order, Ordering::Relaxed);
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: the first `len` bytes behind the head are written, and nobody writes them while this is borrowed.
        unsafe { slice::from_raw_parts(self.slot.as_ptr().add(SLOT_HEAD), self.len) }
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.commit();
        // Nothing that is written into the slot from now on is there before the 0 is.
        std::sync::atomic::fence(Ordering::SeqCst);
        #[cfg(test)]
        crate::queue::points::pass("a chunk is given back");
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Buffer").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Most mapped files of a process at a time.
const MOST_PLACES: usize = 16;
const FREE: usize = 0;
const RESERVED: usize = 1;

/// A mapped file, for the handler that runs in a forked child.
struct Place {
    /// [`FREE`], [`RESERVED`], or where it is mapped.
    base: AtomicUsize,
    length: AtomicUsize,
    file: AtomicI32,
}

static PLACES: [Place; MOST_PLACES] =
    [const { Place { base: AtomicUsize::new(FREE), length: AtomicUsize::new(0), file: AtomicI32::new(-1) } };
        MOST_PLACES];

impl Place {
    fn fill(&self, base: NonNull<u8>, length: usize, file: i32) {
        self.length.store(length, Ordering::SeqCst);
        self.file.store(file, Ordering::SeqCst);
        self.base.store(base.as_ptr() as usize, Ordering::SeqCst);
    }
}

fn reserve_place() -> io::Result<usize> {
    let is_reserved = |place: &Place| {
        place.base.compare_exchange(FREE, RESERVED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    };
    PLACES
        .iter()
        .position(is_reserved)
        .ok_or_else(|| io::Error::other(format!("this process has {MOST_PLACES} crash rings already")))
}

/// Runs in a forked child, at the fork: puts empty memory of the child's own in the place of every mapped file, so that
/// nothing it does reaches the file of its parent, and closes the files, so that it does not hold their locks when the
/// parent is dead. Only makes system calls.
pub(crate) fn close_in_child() {
    for place in &PLACES {
        let base = place.base.load(Ordering::SeqCst);
        if base == FREE || base == RESERVED {
            continue;
        }
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED);
        let address = base as *mut std::ffi::c_void;
        let length = place.length.load(Ordering::SeqCst);
        // SAFETY: this is exactly a mapping of `of_file`, still there because its place is not free. Buffers find zeros
        // where their records were, which are bytes like any others.
        let _ = unsafe { mmap_anonymous(address, length, protection, flags | MapFlags::NORESERVE) };
        // SAFETY: the file is open in the parent, so its number is this file's here too; `OwnFile` neither uses nor
        // closes it in a child.
        unsafe { rustix::io::close(place.file.load(Ordering::SeqCst)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(buffer: &Buffer) -> u32 {
        // SAFETY: as in `commit`.
        unsafe { AtomicU32::from_ptr(buffer.slot.as_ptr().cast()) }.load(Ordering::Acquire)
    }

    #[test]
    fn what_was_appended_is_there_and_committed_and_what_does_not_fit_changes_nothing() {
        let mut buffers = Buffer::of_heap(2);
        let mut buffer = buffers.remove(1);
        buffer.begin(3);
        assert!(buffer.try_append(b"one"));
        assert!(buffer.try_append(&[7; CHUNK_BYTES - 3]));
        assert_eq!(committed(&buffer), CHUNK_BYTES as u32);
        assert!(!buffer.try_append(b"x"));
        assert_eq!(buffer.as_slice()[..3], *b"one");
        assert_eq!((buffer.as_slice().len(), committed(&buffer)), (CHUNK_BYTES, CHUNK_BYTES as u32));
        buffer.clear();
        assert_eq!((buffer.as_slice().len(), committed(&buffer)), (0, 0));
        assert!(!buffer.try_append(&[0; CHUNK_BYTES + 1]));
    }

    #[test]
    fn a_buffer_never_reaches_the_one_beside_it() {
        let mut buffers = Buffer::of_heap(3);
        for (fill, buffer) in buffers.iter_mut().enumerate() {
            buffer.begin(fill);
            assert!(buffer.try_append(&vec![fill as u8; CHUNK_BYTES]));
        }
        for (fill, buffer) in buffers.iter().enumerate() {
            assert!(buffer.as_slice().iter().all(|&byte| byte == fill as u8));
        }
    }

    #[test]
    fn buffers_are_sent_to_another_thread_and_outlive_one_another() {
        let mut buffers = Buffer::of_heap(2);
        let mut last = buffers.pop().expect("two");
        drop(buffers);
        let sent = std::thread::spawn(move || {
            last.try_append(b"there");
            last
        });
        assert_eq!(sent.join().expect("no panic").as_slice(), b"there");
    }
}
