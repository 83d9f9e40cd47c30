//! The directory of crash rings: whose files are in it, which of them nobody lives in any more, and whether a ring can
//! be kept there at all.
//!
//! In: a directory. Out: files, locked. A ring is its owner's for as long as the lock is held, and the kernel lets go
//! of it when the process ends, in whatever way. Lost here: nothing; what is not understood is left alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{flock, fstatfs, FlockOperation};

/// The end of a ring's name.
pub(crate) const RING: &str = ".ring";
/// The end of its name while it is made.
pub(crate) const NEW: &str = ".ring.new";
/// The end of the name of a ring that could not be read whole.
pub(crate) const BAD: &str = ".ring.bad";

/// Of all users of the machine, only the one this process runs as may reach its rings.
const OWNER_ONLY: u32 = 0o700;
const GROUP_OR_OTHERS_WRITE: u32 = 0o022;

/// Where rings are if nobody says where: memory that outlives a process. Every Linux has `/dev/shm`, for services too;
/// `$XDG_RUNTIME_DIR` goes when its user logs out, and services have none.
pub(crate) fn default_directory() -> PathBuf {
    PathBuf::from(format!("/dev/shm/tracing-metlog-{}", rustix::process::geteuid().as_raw()))
}

/// Makes the directory if it is not there.
///
/// # Errors
/// It cannot be made, is none, or others may put files into it.
pub(crate) fn prepare(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(OWNER_ONLY).create(directory)?;
    // The default lies where everybody may make directories, and links.
    let found = fs::symlink_metadata(directory)?;
    let found = match found.is_symlink() && directory != default_directory() {
        true => fs::metadata(directory)?,
        false => found,
    };
    if !found.is_dir() {
        return Err(io::Error::other("it is not a directory"));
    }
    let is_own = found.uid() == rustix::process::geteuid().as_raw();
    if !is_own || found.mode() & GROUP_OR_OTHERS_WRITE != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "other users may write into it; a directory of this user alone is accepted",
        ));
    }
    Ok(())
}

/// A file of this process alone, locked, and removed again if what is made of it fails.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// Opens and locks a file that nobody lives in. `None` when somebody does, or it is gone.
///
/// # Errors
/// It is there and cannot be opened.
pub(crate) fn lock(path: &Path) -> io::Result<Option<File>> {
    const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let file = match OpenOptions::new().read(true).write(true).custom_flags(NOFOLLOW).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        locked => locked?,
    }
    // Somebody may have adopted it, and removed it, between the two.
    let metadata = file.metadata()?;
    Ok((metadata.is_file() && metadata.nlink() > 0).then_some(file))
}

/// The names of all files that end like this, in order: a program's older rings before its newer ones.
pub(crate) fn names(directory: &Path, end: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let name = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let mut names: Vec<_> = entries.filter_map(name).filter(|name| name.ends_with(end)).collect();
    names.sort_by_key(|name| (begun(name), name.clone()));
    names
}

/// `shop-1700000000000000000-4711.ring`
pub(crate) fn name(program: &str, begun: u64, process_id: u32, end: &str) -> String {
    format!("{}-{begun}-{process_id}{end}", in_name(program))
}

/// Whether a file with this name is a ring of this program.
pub(crate) fn is_of(name: &str, program: &str) -> bool {
    let mut parts = name.rsplitn(3, '-');
    parts.nth(2).is_some_and(|of| of == in_name(program))
}

fn begun(name: &str) -> u64 {
    name.rsplit('-').nth(1).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// A program's name as part of a file's name.
fn in_name(program: &str) -> String {
    const LONGEST: usize = 64;
    let fine = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '-');
    let name: String = program.chars().take(LONGEST).map(|one| if fine(one) { one } else { '_' }).collect();
    match name.is_empty() {
        true => String::from("program"),
        false => name,
    }
}

/// Removes what is left of rings that were never finished: their makers are dead, and nothing was in them.
pub(crate) fn clean(directory: &Path) {
    for name in names(directory, NEW) {
        let path = directory.join(name);
        if let Ok(Some(_locked)) = lock(&path) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Whether the file's system keeps the blocks it has given once: elsewhere a write to mapped memory may find no room,
/// which is SIGBUS.
///
/// # Errors
/// It is not known to.
pub(crate) fn check_file_system(file: &File) -> io::Result<()> {
    /// tmpfs, ramfs, ext2 to ext4, XFS, F2FS, and overlayfs, which passes mapped files on to one of them.
    const KEEPING: [u32; 6] = [0x0102_1994, 0x8584_58f6, 0xEF53, 0x5846_5342, 0xF2F5_2010, 0x794C_7630];
    let kind = fstatfs(file)?.f_type as u32;
    match KEEPING.contains(&kind) {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("its file system (type {kind:#x}) may run out of room for blocks it has given; tmpfs, ext4 and XFS are accepted"),
        )),
    }
}
