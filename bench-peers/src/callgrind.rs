//! Instructions of the calling thread, counted by valgrind's callgrind while [`MEASURED_FUNCTION`] runs.

use std::fs;
use std::process::Command;

use crate::measure::MEASURED_FUNCTION;
use crate::process::{output_of, Scratch};

/// Fails unless valgrind can be run.
///
/// # Errors
///
/// Says how to get it.
pub fn require() -> Result<(), String> {
    match Command::new("valgrind").arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(String::from("valgrind is needed to count instructions: apt-get install valgrind")),
    }
}

/// Runs this program with `arguments` under callgrind; the instructions of its first thread in the measured function.
///
/// # Errors
///
/// If the program fails, or callgrind gives no total.
pub fn instructions(arguments: &[&str], scratch: &Scratch) -> Result<u64, String> {
    let this = std::env::current_exe().map_err(|error| format!("this program's file: {error}"))?;
    let out = scratch.path().join("callgrind.out");
    // One file per thread: the calling thread is the first. `fair-sched`, so that background threads get their turn.
    output_of(
        Command::new("valgrind")
            .args(["--tool=callgrind", "--separate-threads=yes", "--fair-sched=try"])
            .arg(format!("--toggle-collect={MEASURED_FUNCTION}"))
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(this)
            .args(arguments)
            .env("TMPDIR", scratch.path()),
    )?;
    let first_thread = scratch.path().join("callgrind.out-01");
    let text =
        fs::read_to_string(&first_thread).map_err(|error| format!("no output of callgrind: {error}"))?;
    total(&text).ok_or_else(|| String::from("callgrind gave no total"))
}

/// The instructions in a callgrind file.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("totals:"))?;
    line.trim().parse().ok()
}
