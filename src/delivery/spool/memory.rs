//! A disk in memory that fails when it is told to, and forgets what was not synced when the machine stops. For tests.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use super::fs::{Disk, DiskFile, Lock};

/// What is asked of a disk, each by its name.
pub(super) const OPERATIONS: [&str; 15] = [
    "make_dir",
    "list",
    "read",
    "stat",
    "create",
    "open",
    "rename",
    "remove",
    "remove_dir",
    "sync_dir",
    "lock",
    "append",
    "write_at",
    "sync",
    "truncate",
];

/// What becomes of one operation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// It fails with this number and does nothing.
    Error(i32),
    /// It does a part, of this many bytes, and then fails with this number; for writes.
    Short(usize, i32),
    /// It does what it should and then fails with this number.
    After(i32),
}

type Plan = Box<dyn FnMut(&'static str) -> Option<Fault> + Send>;

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    is_named: bool,
    written: Option<SystemTime>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, Content>,
    directories: HashSet<PathBuf>,
    locked: HashSet<PathBuf>,
    /// Locks and files of a process that has died do nothing any more.
    life: u64,
    plan: Option<Plan>,
    short: Option<(usize, i32)>,
    after: Option<i32>,
}

/// Clones are the same disk.
#[derive(Clone, Default)]
pub(super) struct MemoryDisk(Arc<Mutex<State>>);

impl MemoryDisk {
    pub(super) fn new(root: &Path) -> Self {
        let disk = MemoryDisk::default();
        disk.state().directories.insert(root.to_owned());
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// What becomes of each operation from now on.
    pub(super) fn plan(&self, plan: impl FnMut(&'static str) -> Option<Fault> + Send + 'static) {
        self.state().plan = Some(Box::new(plan));
    }

    pub(super) fn heal(&self) {
        self.state().plan = None;
    }

    /// The process dies: its locks go, what it wrote stays.
    pub(super) fn kill(&self) {
        let mut state = self.state();
        state.locked.clear();
        state.life += 1;
    }

    /// The machine stops: of what was not synced, of each file a part stays that `chance` says.
    pub(super) fn cut_power(&self, mut chance: impl FnMut() -> usize) {
        self.kill();
        let mut state = self.state();
        state.files.retain(|_, content| content.is_named || chance() % 2 == 0);
        for content in state.files.values_mut() {
            if chance() % 2 == 0 && content.bytes.starts_with(&content.synced) {
                let extra = chance() % (content.bytes.len() - content.synced.len() + 1);
                content.bytes.truncate(content.synced.len() + extra);
            } else {
                content.bytes.clone_from(&content.synced);
            }
        }
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.state().files.keys().map(|path| path.display().to_string()).collect()
    }

    pub(super) fn bytes_of(&self, path: &Path) -> Vec<u8> {
        self.state().files[path].bytes.clone()
    }

    pub(super) fn set_bytes(&self, path: &Path, bytes: Vec<u8>) {
        self.state().files.get_mut(path).unwrap().bytes = bytes;
    }

    /// Looks at the plan, then does it.
    fn act<T>(&self, name: &'static str, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state();
        let fault = state.plan.as_mut().and_then(|plan| plan(name));
        match fault {
            Some(Fault::Error(number)) => return Err(io::Error::from_raw_os_error(number)),
            Some(Fault::Short(bytes, number)) => state.short = Some((bytes, number)),
            Some(Fault::After(number)) => state.after = Some(number),
            None => {}
        }
        let outcome = act(&mut state);
        state.short = None;
        let after = state.after.take();
        // What is dropped here may be a lock, which asks for the state.
        drop(state);
        match after {
            Some(number) => outcome.and(Err(io::Error::from_raw_os_error(number))),
            None => outcome,
        }
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for MemoryDisk {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.act("make_dir", |state| {
            let has_parent = state.directories.contains(path.parent().unwrap());
            state.directories.insert(path.to_owned());
            has_parent.then_some(()).ok_or_else(missing)
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.act("list", |state| {
            let all = state.files.keys().chain(&state.directories);
            let inside = all.filter(|one| one.parent() == Some(path));
            Ok(inside.map(|one| one.file_name().unwrap().to_str().unwrap().to_owned()).collect())
        })
    }

    fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        self.act("read", |state| {
            let bytes = &state.files.get(path).ok_or_else(missing)?.bytes;
            Ok(bytes[..bytes.len().min(most as usize)].to_vec())
        })
    }

    fn stat(&self, path: &Path) -> io::Result<(u64, SystemTime)> {
        self.act("stat", |state| {
            let content = state.files.get(path).ok_or_else(missing)?;
            Ok((content.bytes.len() as u64, content.written.unwrap()))
        })
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.act("create", |state| match state.files.contains_key(path) {
            true => Err(io::ErrorKind::AlreadyExists.into()),
            false => Ok(self.file(state, path)),
        })
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.act("open", |state| Ok(self.file(state, path)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.act("rename", |state| {
            let content = state.files.remove(from).ok_or_else(missing)?;
            state.files.insert(to.to_owned(), content);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.act("remove", |state| state.files.remove(path).map(drop).ok_or_else(missing))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.act("remove_dir", |state| {
            state.files.retain(|file, _| !file.starts_with(path));
            state.directories.remove(path).then_some(()).ok_or_else(missing)
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.act("sync_dir", |state| {
            let inside = state.files.iter_mut().filter(|(file, _)| file.parent() == Some(path));
            inside.for_each(|(_, content)| content.is_named = true);
            Ok(())
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        self.act("lock", |state| {
            let life = state.life;
            let is_new = state.locked.insert(path.to_owned());
            Ok(is_new.then(|| Box::new(Held { disk: self.clone(), path: path.to_owned(), life }) as Lock))
        })
    }
}

impl MemoryDisk {
    fn file(&self, state: &mut State, path: &Path) -> Box<dyn DiskFile> {
        state.files.entry(path.to_owned()).or_default().written.get_or_insert_with(SystemTime::now);
        Box::new(InMemory { disk: self.clone(), path: path.to_owned(), life: state.life })
    }
}

struct Held {
    disk: MemoryDisk,
    path: PathBuf,
    life: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locked.remove(&self.path);
        }
    }
}

struct InMemory {
    disk: MemoryDisk,
    path: PathBuf,
    life: u64,
}

impl InMemory {
    fn act(
        &mut self,
        name: &'static str,
        act: impl FnOnce(&mut Content, Option<(usize, i32)>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.disk.act(name, |state| {
            let short = state.short;
            match state.files.get_mut(&self.path) {
                Some(content) if state.life == self.life => act(content, short),
                _ => Ok(0),
            }
        })
    }
}

impl DiskFile for InMemory {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.act("append", |content, short| {
            // A short write is no error; the next one is.
            let count = short.map_or(bytes.len(), |(most, _)| bytes.len().min(most.max(1)));
            content.bytes.extend_from_slice(&bytes[..count]);
            content.written = Some(SystemTime::now());
            Ok(count)
        })
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.act("write_at", |content, short| {
            let count = short.map_or(bytes.len(), |(most, _)| bytes.len().min(most));
            let end = offset as usize + count;
            content.bytes.resize(content.bytes.len().max(end), 0);
            content.bytes[offset as usize..end].copy_from_slice(&bytes[..count]);
            short.map_or(Ok(count), |(_, number)| Err(io::Error::from_raw_os_error(number)))
        })
        .map(drop)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.act("sync", |content, _| {
            content.synced.clone_from(&content.bytes);
            Ok(0)
        })
        .map(drop)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.act("truncate", |content, _| {
            content.bytes.truncate(length as usize);
            Ok(0)
        })
        .map(drop)
    }
}
