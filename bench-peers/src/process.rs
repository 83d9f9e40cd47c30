//! Programs run beside this one: each measurement is a process of its own, because a program has one `tracing`
//! subscriber and one `log` logger, and because no peer's threads should run while another is measured.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs a command.
///
/// # Errors
///
/// Gives what the command said about why it failed.
pub fn output_of(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } =
        command.output().map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if status.success() {
        Ok(text(&stdout))
    } else {
        Err(format!("{program}: {status}\n{}", text(&stderr)))
    }
}

/// This program again, with other arguments.
///
/// # Errors
///
/// If the system does not say where this program's file is.
pub fn this_program(arguments: &[&str]) -> Result<Command, String> {
    let path = std::env::current_exe().map_err(|error| format!("this program's file: {error}"))?;
    let mut command = Command::new(path);
    command.args(arguments);
    Ok(command)
}

/// Runs this program with other arguments; the numbers it printed.
///
/// # Errors
///
/// If it fails, or prints something else.
pub fn numbers_of<const N: usize>(command: &mut Command) -> Result<[f64; N], String> {
    let printed = output_of(command)?;
    let numbers: Option<Vec<f64>> = printed.split_whitespace().map(|number| number.parse().ok()).collect();
    let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
    numbers.ok_or_else(|| format!("expected {N} numbers, not `{printed}`"))
}

/// Prints numbers for [`numbers_of`].
pub fn print_numbers(numbers: &[f64]) {
    let numbers: Vec<_> = numbers.iter().map(f64::to_string).collect();
    println!("{}", numbers.join(" "));
}

/// A directory for temporary files; gone at the end.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// If the temporary directory is not writable.
    pub fn new() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("bench-peers-{}", std::process::id()));
        let made: io::Result<()> = fs::create_dir_all(&path);
        made.map_err(|error| format!("no temporary directory {}: {error}", path.display()))?;
        Ok(Scratch(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
