//! Children of the running test: this very program again, told to run one of its own tests and what to do in it.
//!
//! A test that is meant for a child asks [`mode`] first and returns when there is none, so that it passes, and does
//! nothing, when the test runner comes across it. With one test and one test thread the runner runs it on the main
//! thread, and returns from `main` after it: what the child does is what a program does.

use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const MODE: &str = "METLOG_TEST_CHILD";
const ROUTER: &str = "METLOG_TEST_ROUTER";

/// What this process was started for, if it is a child.
pub fn mode() -> Option<String> {
    std::env::var(MODE).ok()
}

/// Where the child is to send to.
pub fn router() -> String {
    std::env::var(ROUTER).expect("given by the parent")
}

/// A child that runs the test `name` in `mode`, with none of this process' own configuration.
pub fn command(name: &str, mode: &str, router: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("known"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        // What is asked of the tests holds for their children too.
        let is_ours = name.starts_with("METLOG_") && name != super::size::SIZE;
        if is_ours || variable == "RUST_LOG" {
            command.env_remove(variable);
        }
    }
    command.env(MODE, mode).env(ROUTER, router).env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// How a child ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub took: Duration,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a child to its end; kills it, and fails, if it takes longer than anything may.
pub fn run(command: Command) -> Ended {
    run_within(super::LONG, command)
}

/// The same for a child that is asked to take long.
pub fn run_within(limit: Duration, mut command: Command) -> Ended {
    let begun = Instant::now();
    let mut child = command.spawn().expect("starts");
    let stdout = collect(child.stdout.take().expect("piped"));
    let stderr = collect(child.stderr.take().expect("piped"));
    let status = loop {
        if let Some(status) = child.try_wait().expect("waited for") {
            break status;
        }
        if begun.elapsed() > limit {
            child.kill().expect("killed");
            child.wait().expect("waited for");
            panic!("the child hangs; it said {:?}", stderr.join());
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let took = begun.elapsed();
    Ended { status, took, stdout: stdout.join().expect("text"), stderr: stderr.join().expect("text") }
}

fn collect(mut stream: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Ended {
    /// What the child printed in a line of its own after `key: `.
    #[track_caller]
    pub fn said(&self, key: &str) -> &str {
        let lines = self.stdout.lines();
        let mut found = lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        found.next().unwrap_or_else(|| panic!("no {key:?} in {self:#?}"))
    }

    /// What this crate printed.
    pub fn complaints(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| line.contains("tracing-metlog")).collect()
    }
}

/// Says something to the parent. The test runner has begun a line of its own.
pub fn say(key: &str, value: impl std::fmt::Display) {
    println!("\n{key}: {value}");
}
