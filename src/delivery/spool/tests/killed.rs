//! A process that is killed, by SIGKILL, before or after any operation on a real disk.

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use super::super::fs::{Disk, DiskFile, Lock, RealDisk};
use super::*;
use crate::delivery::transport::support::Directory;
use crate::fault_report::record;

const DIRECTORY: &str = "METLOG_TEST_SPOOL";
const KILL_AT: &str = "METLOG_TEST_KILL_AT";
/// Messages that are read in one batch, at most: five of 60 kB are more than 256 KiB.
const BATCH: u64 = 5;
const ROUNDS: u64 = 4;
const EACH: u64 = 8;

/// The real disk, until it ends the process.
#[derive(Clone)]
struct KillingDisk {
    left: Arc<AtomicUsize>,
}

impl KillingDisk {
    fn count(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
        }
    }

    /// Dies before it or after it.
    fn act<T>(&self, act: impl FnOnce() -> T) -> T {
        self.count();
        let result = act();
        self.count();
        result
    }
}

impl Disk for KillingDisk {
    fn make_dir(&self, path: &Path) -> std::io::Result<()> {
        self.act(|| RealDisk.make_dir(path))
    }

    fn list(&self, path: &Path) -> std::io::Result<Vec<String>> {
        RealDisk.list(path)
    }

    fn read(&self, path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
        self.act(|| RealDisk.read(path, most))
    }

    fn stat(&self, path: &Path) -> std::io::Result<(u64, SystemTime)> {
        RealDisk.stat(path)
    }

    fn create(&self, path: &Path) -> std::io::Result<Box<dyn DiskFile>> {
        let file = self.act(|| RealDisk.create(path))?;
        Ok(Box::new(KillingFile { disk: self.clone(), file }))
    }

    fn open(&self, path: &Path) -> std::io::Result<Box<dyn DiskFile>> {
        let file = self.act(|| RealDisk.open(path))?;
        Ok(Box::new(KillingFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.act(|| RealDisk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> std::io::Result<()> {
        self.act(|| RealDisk.remove(path))
    }

    fn remove_dir(&self, path: &Path) -> std::io::Result<()> {
        self.act(|| RealDisk.remove_dir(path))
    }

    fn sync_dir(&self, path: &Path) -> std::io::Result<()> {
        self.act(|| RealDisk.sync_dir(path))
    }

    fn lock(&self, path: &Path) -> std::io::Result<Option<Lock>> {
        self.act(|| RealDisk.lock(path))
    }
}

struct KillingFile {
    disk: KillingDisk,
    file: Box<dyn DiskFile>,
}

impl DiskFile for KillingFile {
    /// Half of it first, so that there is a moment in between.
    fn append(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.disk.count();
        let half = self.file.append(&bytes[..bytes.len().div_ceil(2)])?;
        self.disk.count();
        Ok(half)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        let (one, two) = bytes.split_at(bytes.len() / 2);
        self.disk.count();
        self.file.write_at(offset, one)?;
        self.disk.act(|| self.file.write_at(offset + one.len() as u64, two))
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.disk.act(|| self.file.sync())
    }

    fn truncate(&mut self, length: u64) -> std::io::Result<()> {
        self.disk.act(|| self.file.truncate(length))
    }
}

fn at(directory: &Path) -> Settings {
    Settings { directory: directory.join("spool"), ..settings(2 << 20) }
}

fn process(disk: Arc<dyn Disk + Sync>, directory: &Path) -> Process {
    let counters = Arc::new(Counters::default());
    let spool = Spool::open_on(disk, at(directory), &counters).unwrap();
    Process { spool, counters, put: 0, delivered: 0, in_flight: VecDeque::new() }
}

/// What the child does: writes, syncs, reads and confirms, and says in two files how far it has got.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let left = std::env::var(KILL_AT).unwrap().parse().unwrap();
    let disk = KillingDisk { left: Arc::new(AtomicUsize::new(left)) };
    let mut process = process(Arc::new(disk.clone()), &directory);
    let say = |name: &str, number: u64| std::fs::write(directory.join(name), number.to_string()).unwrap();
    for round in 0..ROUNDS {
        process.put(round * EACH + 1..=(round + 1) * EACH, 60_000);
        process.spool.sync();
        say("spooled", (round + 1) * EACH);
        process.read();
        process.confirm();
        say("confirmed", process.delivered);
    }
    while !process.read().is_empty() {
        process.confirm();
        say("confirmed", process.delivered);
    }
    process.spool.close();
    say("operations", (left - disk.left.load(Ordering::SeqCst)) as u64);
}

fn run_child(directory: &Path, kill_at: usize) -> std::process::ExitStatus {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "delivery::spool::tests::killed::child", "--test-threads=1"]);
    command.env(DIRECTORY, directory).env(KILL_AT, kill_at.to_string());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status().unwrap()
}

fn number(directory: &Path, name: &str) -> u64 {
    std::fs::read_to_string(directory.join(name)).map_or(0, |text| text.parse().unwrap())
}

#[test]
fn a_process_killed_before_or_after_any_operation_loses_nothing_synced_and_repeats_one_batch_at_most() {
    let whole = Directory::new();
    assert!(run_child(&whole.file(""), usize::MAX).success());
    let operations = number(&whole.file(""), "operations") as usize;
    assert!(operations > 60, "{operations}");
    let (mut killed, mut most_repeated) = (0, 0);
    let (mut synced, mut repeated) = (0, 0);
    for kill_at in 1..=operations {
        let directory = Directory::new();
        let status = run_child(&directory.file(""), kill_at);
        assert_eq!(status.signal(), Some(libc::SIGKILL), "at {kill_at}");
        killed += 1;
        let (spooled, confirmed) =
            (number(&directory.file(""), "spooled"), number(&directory.file(""), "confirmed"));
        let mut after = process(Arc::new(RealDisk), &directory.file(""));
        let got = after.drain();
        let first = got.first().copied().unwrap_or(spooled + 1);
        // Between a commit and the note of it the child may have confirmed one batch more.
        assert!(
            first <= confirmed + BATCH + 1,
            "killed at {kill_at}: {first} is the first, {confirmed} confirmed"
        );
        most_repeated = most_repeated.max((confirmed + 1).saturating_sub(first));
        repeated += (confirmed + 1).saturating_sub(first);
        synced += got.last().copied().unwrap_or(0).max(confirmed);
        let expected: Vec<u64> = (first..=spooled.max(first - 1)).collect();
        assert!(got.starts_with(&expected), "killed at {kill_at}: {got:?} of {spooled}");
    }
    assert!(most_repeated <= BATCH, "{most_repeated} came twice");
    let (fault, promise) = (
        format!("SIGKILL before and after each of a spool's {operations} operations"),
        format!("0 lost of what was synced; at most a batch comes twice (at most {most_repeated} here)"),
    );
    let emitted = ROUNDS * EACH * killed;
    record(&fault, &promise, emitted, synced, &[("not synced yet", emitted - synced)], repeated);
}
