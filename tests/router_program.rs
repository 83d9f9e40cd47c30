//! `metlog-router` as people run it: a process with arguments, signals and an exit code.
#![cfg(all(unix, feature = "router"))]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metlog-router"));
    command.args(arguments).env_remove("NO_COLOR");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A running router, killed if its test fails. What it waits for is bounded by the router itself: it prints where
/// it listens or ends.
struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
    client: UdpSocket,
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        Program::of(command(&[&["--listen", "udp://127.0.0.1:0"], arguments].concat()))
    }

    fn of(mut command: Command) -> Self {
        let mut child = command.spawn().expect("starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let line = line(&mut stderr);
        let address = line.strip_prefix("metlog-router listens on udp://").expect("says where it listens");
        let client = UdpSocket::bind("127.0.0.1:0").expect("binds");
        client.connect(address).expect("connects");
        Program { child, stdout, stderr, client }
    }

    fn send(&self, message: &str) {
        self.client.send(message.as_bytes()).expect("sent");
    }

    /// Ends it as a service manager does; what it said to standard error.
    fn terminate(mut self, signal: Signal) -> String {
        signal::send(&self.child, signal);
        let mut report = String::new();
        self.stderr.read_to_string(&mut report).expect("text");
        assert_eq!(self.child.wait().expect("ends").code(), Some(0), "{report}");
        report
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("text");
    line.trim_end_matches('\n').to_owned()
}

/// Sending a signal to a child, by the one program every Unix has for it.
mod signal {
    pub enum Signal {
        Terminate,
        Interrupt,
    }

    pub fn send(child: &std::process::Child, signal: Signal) {
        let name = match signal {
            Signal::Terminate => "-TERM",
            Signal::Interrupt => "-INT",
        };
        let status = std::process::Command::new("kill").args([name, &child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }
}

use signal::Signal;

const MESSAGE: &str = r#"{"timestamp": "2012-10-24T22:20:43.123456Z", "logger": "app", "type": "oldstyle",
    "severity": 3, "payload": "it broke", "fields": {"user": "bob"}, "env_version": "0.8"}"#;

#[test]
fn a_message_is_on_standard_output_at_once_and_counted_at_the_end() {
    let mut program = Program::start(&[]);
    program.send(MESSAGE);
    assert_eq!(line(&mut program.stdout), "22:20:43.123 error  oldstyle app  it broke  user=bob");
    program.send("{");
    let report = program.terminate(Signal::Terminate);
    assert!(report.starts_with("received   1 messages, "), "{report}");
    assert!(
        report.contains("types      oldstyle 1\nmalformed  1 (invalid_json 1)\nunrouted   0\n"),
        "{report}"
    );
    assert!(report.contains("output     console                     delivered 1\n"), "{report}");
}

#[test]
fn an_interrupt_is_a_clean_end_too_and_quiet_is_quiet() {
    let program = Program::start(&[]);
    assert!(program.terminate(Signal::Interrupt).starts_with("received   0 messages"));
}

#[test]
fn a_second_signal_does_not_wait_for_clients() {
    let mut child = command(&["--listen", "tcp://127.0.0.1:0"]).spawn().expect("starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let address = line(&mut stderr).strip_prefix("metlog-router listens on tcp://").map(str::to_owned);
    let mut client = TcpStream::connect(address.expect("says where it listens")).expect("connects");
    // The message on standard output says that the connection is open, and stays so.
    client.write_all(b"{\"type\": \"x\"}\n").expect("sent");
    line(&mut BufReader::new(child.stdout.take().expect("piped")));
    // Two that come close together count as one, so it is asked until it ends.
    let status = loop {
        signal::send(&child, Signal::Terminate);
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
    };
    assert!(line(&mut stderr).contains("ended by a second signal"));
    assert_eq!(status.code(), Some(1));
}

#[test]
fn running_out_of_file_descriptors_neither_ends_it_nor_makes_it_spin() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 20; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_metlog-router")]);
    shell.args(["--listen", "udp://127.0.0.1:0", "--listen", "tcp://127.0.0.1:0"]);
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = Program::of(shell);
    let address =
        line(&mut program.stderr).strip_prefix("metlog-router listens on tcp://").map(str::to_owned);
    let address = address.expect("says where it listens");
    let clients: Vec<TcpStream> =
        (0..40).map(|_| TcpStream::connect(&address).expect("the kernel connects")).collect();
    program.send(MESSAGE);
    assert!(line(&mut program.stdout).contains("it broke"));
    // The message may be faster than the connections.
    let descriptors = format!("/proc/{}/fd", program.child.id());
    let begun = std::time::Instant::now();
    while std::fs::read_dir(&descriptors).is_ok_and(|open| open.count() < 20) {
        assert!(begun.elapsed().as_secs() < 30, "it has descriptors left");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    drop(clients);
    let report = program.terminate(Signal::Terminate);
    let (_, errors) = report.split_once(", errors ").expect("failed accepts are counted");
    let errors: u64 = errors.lines().next().expect("a line").parse().expect("a number");
    assert!(errors < 100, "{report}");
}

#[test]
fn colour_is_for_terminals_unless_it_is_asked_for() {
    let mut program = Program::start(&["--color", "always"]);
    program.send(MESSAGE);
    assert!(line(&mut program.stdout).contains("\x1b[31merror \x1b[0m"));
}

#[test]
fn an_escape_sequence_in_a_message_does_not_reach_the_terminal() {
    let mut program = Program::start(&["--color", "never"]);
    program
        .send(r#"{"type": "x\u001b[2J", "payload": "\u001b]0;owned\u0007\r\nroot logged in\u009b1m\u202e"}"#);
    let line = line(&mut program.stdout);
    assert!(!line.chars().any(char::is_control), "{line:?}");
    assert!(line.ends_with(r"\u{1b}]0;owned\u{7}\r\nroot logged in\u{9b}1m\u{202e}"), "{line}");
}

#[test]
fn routes_send_types_to_files_and_the_rest_is_unrouted() {
    let path = std::env::temp_dir().join(format!("metlog-program-{}.jsonl", std::process::id()));
    let route = format!("timer,counter=file:{}", path.display());
    let program = Program::start(&["--route", &route, "--route", "oldstyle=null"]);
    for message_type in ["timer", "counter", "oldstyle", "other"] {
        program.send(&format!(r#"{{"type": "{message_type}", "payload": "1"}}"#));
    }
    let report = program.terminate(Signal::Terminate);
    let types: Vec<String> = std::fs::read_to_string(&path)
        .expect("readable")
        .lines()
        .map(|line| line.parse::<tracing_metlog::Message>().expect("a message").r#type)
        .collect();
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(types, ["timer", "counter"]);
    assert!(report.contains("unrouted   1\n"), "{report}");
}

fn run(arguments: &[&str]) -> (Output, String) {
    let output = command(arguments).output().expect("runs");
    let error = String::from_utf8(output.stderr.clone()).expect("text");
    (output, error)
}

#[test]
fn a_bad_argument_is_an_error_that_names_flag_value_and_what_is_accepted() {
    for (arguments, expected) in [
        (["--listen", "gopher://x:1"], ["--listen", "gopher://x:1", "udp://HOST:PORT"]),
        (["--route", "nowhere"], ["--route", "nowhere", "TYPES=OUTPUT"]),
        (["--color", "blue"], ["--color", "blue", "auto, always or never"]),
    ] {
        let (output, error) = run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{error}");
        expected.into_iter().for_each(|part| assert!(error.contains(part), "{part} is not in: {error}"));
    }
}

#[test]
fn an_address_in_use_ends_it_with_a_message_and_code_1() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let url = format!("udp://{}", taken.local_addr().expect("bound"));
    let (output, error) = run(&["--listen", &url]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.starts_with(&format!("metlog-router: cannot listen on {url}: ")), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn it_takes_as_many_file_descriptors_as_the_system_lets_it_have() {
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "ulimit -S -n 64 && ulimit -H -n 500 && exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_metlog-router"),
    ]);
    shell.args(["--listen", "udp://127.0.0.1:0"]);
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = Program::of(shell);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.child.id())).expect("readable");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("listed");
    assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["500", "500"]);
}
