//! A running `metlog-router`, as tests of the program use it, and a directory for its files.
// No test program uses all of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Long enough for any machine; what takes this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metlog-router"));
    command.args(arguments).env_remove("NO_COLOR").env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit code, standard output and standard error of a program that ends by itself.
pub fn output(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command(arguments).output().expect("runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

pub fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("text");
    line.trim_end_matches('\n').to_owned()
}

/// A directory of one test, removed with it.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("router-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).expect("made");
        Directory(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("written");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running router, killed if its test fails. The first line it says must be that of a UDP input.
pub struct Program {
    pub child: Child,
    pub stdout: BufReader<ChildStdout>,
    pub stderr: BufReader<ChildStderr>,
    /// What it said at its start, until it said no more of where it listens.
    addresses: Vec<String>,
    client: UdpSocket,
}

impl Program {
    /// Started, and told of all its addresses.
    pub fn of(mut command: Command) -> Self {
        let mut child = command.spawn().expect("starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut addresses = Vec::new();
        // It says them with one write each, one after the other: the last is known by asking for it.
        let first = line(&mut stderr);
        let address = first.strip_prefix("metlog-router listens on udp://").unwrap_or_else(|| {
            let _ = child.kill();
            let mut rest = String::new();
            let _ = stderr.read_to_string(&mut rest);
            panic!("says where it listens, not {first}\n{rest}")
        });
        let client = UdpSocket::bind("127.0.0.1:0").expect("binds");
        client.connect(address).expect("connects");
        addresses.push(first.clone());
        let inputs = command_inputs(&command);
        while addresses.len() < inputs {
            addresses.push(line(&mut stderr));
        }
        Program { child, stdout, stderr, addresses, client }
    }

    /// What stands after `scheme` in the address it said.
    pub fn address(&self, scheme: &str) -> String {
        let said = self.addresses.iter().find_map(|said| said.split_once(scheme));
        said.unwrap_or_else(|| panic!("no {scheme} in {:?}", self.addresses)).1.to_owned()
    }

    pub fn send(&self, message: &str) {
        self.client.send(message.as_bytes()).expect("sent");
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    pub fn hang_up(&self) {
        self.signal("-HUP");
    }

    /// Ends it as a service manager does; what it said to standard error since.
    pub fn terminate(self) -> String {
        self.signal("-TERM");
        self.ended()
    }

    /// Waits for its end, which must be a good one; what it said to standard error since.
    pub fn ended(mut self) -> String {
        let mut report = String::new();
        self.stderr.read_to_string(&mut report).expect("text");
        assert_eq!(self.child.wait().expect("ends").code(), Some(0), "{report}");
        report
    }

    pub fn wait_until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many lines it will say of where it listens: one for each input of its file, and one for its admin server.
fn command_inputs(command: &Command) -> usize {
    let arguments: Vec<_> =
        command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let file =
        arguments.iter().position(|argument| argument == "--config").map(|place| &arguments[place + 1]);
    let directory = command.get_current_dir().unwrap_or(Path::new("."));
    let text = file.and_then(|file| std::fs::read_to_string(directory.join(file)).ok()).unwrap_or_default();
    let begins = |start: &str| text.lines().filter(|line| line.trim_start().starts_with(start)).count();
    let listens = arguments.iter().filter(|argument| *argument == "--listen").count();
    let admins = begins("admin = ") + usize::from(arguments.iter().any(|argument| argument == "--admin"));
    (begins("[[input]]") + listens).max(1) + admins
}
