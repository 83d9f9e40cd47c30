//! Every peer with every workload, each in processes of its own: one as it is, one under callgrind.
//!
//! A process each, because a program has one `tracing` subscriber and one `log` logger, and because no peer's
//! threads should run while another is measured.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::measure::{COUNTED_CALLS, MEASURED_FUNCTION};
use crate::peers;
use crate::workload::Workload;

/// What one peer's call of one workload costs the calling thread.
pub struct Figure {
    pub workload: Workload,
    pub peer: &'static str,
    pub instructions: f64,
    pub allocations: f64,
    pub nanoseconds: f64,
}

/// Measures everything; says what is being measured on stderr.
pub fn measure_all() -> Result<Vec<Figure>, String> {
    let scratch = Scratch::new().map_err(|error| format!("no temporary directory: {error}"))?;
    require_valgrind()?;
    let mut figures = Vec::new();
    for workload in Workload::ALL {
        for peer in &peers::ALL {
            eprintln!("{}: {}", workload.name(), peer.name);
            let failed = |problem| format!("{}, {}: {problem}", peer.name, workload.name());
            figures.extend(measure(peer.name, workload, &scratch.0).map_err(failed)?);
        }
    }
    Ok(figures)
}

/// How often instructions are counted. The least is taken: how often a peer's threads meet differs from run to run
/// under valgrind, and with it what waking and waiting cost.
const COUNTS: usize = 3;

fn measure(peer: &'static str, workload: Workload, scratch: &Path) -> Result<Option<Figure>, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let printed = checked(Command::new(&this).args(["run", peer, workload.name()]).env("TMPDIR", scratch))?;
    let mut numbers = printed.split_whitespace().filter_map(|number| number.parse().ok());
    let (Some(nanoseconds), Some(allocations)) = (numbers.next(), numbers.next()) else { return Ok(None) };
    let counts = (0..COUNTS).map(|_| count_instructions(&this, peer, workload, scratch));
    let instructions = counts.reduce(|least, count| Ok(least?.min(count?))).unwrap_or(Ok(f64::NAN))?;
    Ok(Some(Figure { workload, peer, instructions, allocations, nanoseconds }))
}

fn count_instructions(this: &Path, peer: &str, workload: Workload, scratch: &Path) -> Result<f64, String> {
    let out = scratch.join("callgrind.out");
    // One file per thread: the calling thread is the first. `fair-sched`, so that background threads get their turn.
    checked(
        Command::new("valgrind")
            .args(["--tool=callgrind", "--separate-threads=yes", "--fair-sched=try"])
            .arg(format!("--toggle-collect={MEASURED_FUNCTION}"))
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(this)
            .args(["run-for-callgrind", peer, workload.name()])
            .env("TMPDIR", scratch),
    )?;
    let first_thread = scratch.join("callgrind.out-01");
    let text =
        fs::read_to_string(&first_thread).map_err(|error| format!("no output of callgrind: {error}"))?;
    let total = total(&text).ok_or("callgrind gave no total")?;
    Ok(total as f64 / COUNTED_CALLS as f64)
}

/// The instructions in a callgrind file.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("totals:"))?;
    line.trim().parse().ok()
}

/// Runs a command; what it printed, or what it said about why it failed.
fn checked(command: &mut Command) -> Result<String, String> {
    let Output { status, stdout, stderr } = command.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if status.success() {
        Ok(text(&stdout))
    } else {
        Err(format!("{status}\n{}", text(&stderr)))
    }
}

fn require_valgrind() -> Result<(), String> {
    match Command::new("valgrind").arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(String::from("valgrind is needed to count instructions: apt-get install valgrind")),
    }
}

/// A directory for callgrind's files and for the peers that write files; gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("bench-peers-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
