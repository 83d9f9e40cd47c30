//! A test that needs a process of its own runs itself again in one: the same program, the same test, and a
//! variable that says which half this is.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::oracle::Oracle;

const ROLE: &str = "METLOG_TEST_CHILD";
const PATH: &str = "METLOG_TEST_FILE";
const PATIENCE: Duration = Duration::from_secs(60);

/// What a child left behind.
pub struct Child {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    /// Everything it sent, checked, but for reports of losses.
    pub messages: Vec<Value>,
    /// What it reported as lost.
    pub losses: Vec<Value>,
}

/// Runs `body` in a child process, and gives the parent what came of it; `None` in the child, when it is done.
/// `test` is the name of the calling test. `body` is given the router that the parent reads.
pub fn child(test: &str, variables: &[(&str, &str)], body: impl FnOnce(&str)) -> Option<Child> {
    if env::var(ROLE).is_ok_and(|role| role == test) {
        body(&format!("file://{}", env::var(PATH).expect("the parent sets it")));
        return None;
    }
    let path = file(test);
    let _ = std::fs::remove_file(&path);
    let start = SystemTime::now();
    let mut child = run(test, variables, &path);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let oracle = Oracle::new();
    let lines = text.lines().map(|line| oracle.read_fresh(line, start));
    (child.losses, child.messages) = lines.partition(|message| message["type"] == "metlog.loss");
    let _ = std::fs::remove_file(&path);
    Some(child)
}

fn file(test: &str) -> PathBuf {
    let name = test.replace("::", "-");
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.jsonl", std::process::id()))
}

fn run(test: &str, variables: &[(&str, &str)], path: &Path) -> Child {
    let mut command = Command::new(env::current_exe().expect("this program has a path"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("METLOG_") || name.starts_with("RUST_") {
            command.env_remove(&*name);
        }
    }
    command.env(ROLE, test).env(PATH, path).envs(variables.iter().copied());
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let id = child.id();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
        panic!("the child of {test} hangs")
    });
    let output = output.expect("waited for");
    Child {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        messages: Vec::new(),
        losses: Vec::new(),
    }
}
