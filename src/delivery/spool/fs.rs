//! The file system as the spool sees it: a trait, so that tests can put one in its place that fails, and the real one.
//!
//! In: bytes. Out: files that only their owner can read. Nothing is lost here that an error does not tell.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::SystemTime;

/// What the spool does with files and directories.
pub(crate) trait Disk: Send {
    /// Makes a directory, which may exist already; its parent must.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// The first `most` bytes of a file.
    fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>>;
    /// A file's length, and when it was last written.
    fn stat(&self, path: &Path) -> io::Result<(u64, SystemTime)>;
    /// A new file; one of this name must not exist.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// A file to be overwritten in place, made if it is missing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and the files in it.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory survive the machine.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Locks a file, made if it is missing, as long as what is returned lives; `None` when another process has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>>;
}

/// A file that is being written.
pub(crate) trait DiskFile: Send {
    /// Writes some of `bytes` at the end; how many.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at a place.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was written survive the machine.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts it.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// A lock that ends with this, or with the process.
pub(crate) type Lock = Box<dyn Send>;

/// The disk of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            outcome => outcome,
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        // A name that is no text is none of the spool's.
        names.filter_map(io::Result::transpose).collect()
    }

    fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn stat(&self, path: &Path) -> io::Result<(u64, SystemTime)> {
        let metadata = fs::metadata(path)?;
        Ok((metadata.len(), metadata.modified()?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(private().append(true).create_new(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(private().write(true).create(true).truncate(false).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    #[cfg(unix)]
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Elsewhere a directory cannot be opened, and its names are the system's to keep.
    #[cfg(not(unix))]
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    #[cfg(unix)]
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        use rustix::fs::{flock, FlockOperation};
        let file = private().write(true).create(true).truncate(false).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // The file may have been removed, and made anew by another process, before the lock was had.
            Ok(()) => Ok(is_at(&file, path).then(|| Box::new(file) as Lock)),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(unix))]
    fn lock(&self, _: &Path) -> io::Result<Option<Lock>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a spool needs `flock`, which only Unix has"))
    }
}

#[cfg(feature = "router")]
impl RealDisk {
    /// Whether another process has a lock. Nothing is made, and the lock is let go at once.
    pub(crate) fn is_locked(self, path: &Path) -> bool {
        #[cfg(unix)]
        {
            use rustix::fs::{flock, FlockOperation};
            let Ok(file) = File::open(path) else { return false };
            flock(&file, FlockOperation::NonBlockingLockShared).is_err()
        }
        #[cfg(not(unix))]
        {
            let _ = path;
            false
        }
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

impl DiskFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        use std::io::Seek;
        self.seek(io::SeekFrom::Start(offset))?;
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::delivery::transport::support::Directory;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn directories_and_files_are_for_their_owner_alone() {
        let directory = Directory::new();
        let (inner, file, lock) = (directory.file("0"), directory.file("0/new"), directory.file("0/lock"));
        RealDisk.make_dir(&inner).unwrap();
        RealDisk.create(&file).unwrap();
        RealDisk.open(&directory.file("0/commit")).unwrap();
        let _held = RealDisk.lock(&lock).unwrap().unwrap();
        assert_eq!(mode(&inner), 0o700);
        for path in [file, lock, directory.file("0/commit")] {
            assert_eq!(mode(&path), 0o600, "{path:?}");
        }
    }

    #[test]
    fn a_lock_is_had_once_and_again_when_it_was_let_go() {
        let directory = Directory::new();
        let path = directory.file("lock");
        let held = RealDisk.lock(&path).unwrap();
        assert!(held.is_some());
        assert!(RealDisk.lock(&path).unwrap().is_none());
        drop(held);
        assert!(RealDisk.lock(&path).unwrap().is_some());
    }

    #[test]
    fn a_directory_that_is_there_is_no_error_and_a_file_in_its_place_is() {
        let directory = Directory::new();
        RealDisk.make_dir(&directory.file("one")).unwrap();
        RealDisk.make_dir(&directory.file("one")).unwrap();
        fs::write(directory.file("two"), "").unwrap();
        RealDisk.make_dir(&directory.file("two")).unwrap_err();
    }
}
