//! The console on a real terminal: a pseudo-terminal, and one that understands no more than it must.
#![cfg(all(target_os = "linux", feature = "router"))]

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{channel, Receiver};
use std::time::{Duration, Instant};

use rustix::pty::{grantpt, openpt, ptsname, unlockpt, OpenptFlags};
use rustix::termios::{tcsetwinsize, Winsize};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(20);

/// `metlog-router`, with a terminal as its standard output.
struct Program {
    child: Child,
    stderr: BufReader<ChildStderr>,
    client: UdpSocket,
    written: Receiver<Vec<u8>>,
    screen: Screen,
}

impl Program {
    fn start(columns: u16, term: &str) -> Self {
        let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&main).and_then(|()| unlockpt(&main)).expect("usable");
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&main, size).expect("a size");
        let name = ptsname(&main, Vec::new()).expect("a name");
        let terminal = File::options().write(true).open(name.to_str().expect("text")).expect("the other end");
        let mut child = Command::new(env!("CARGO_BIN_EXE_metlog-router"))
            .args(["--listen", "udp://127.0.0.1:0", "--color", "always"])
            .env("TERM", term)
            .stdin(Stdio::null())
            .stdout(terminal)
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("text");
        let address =
            line.trim().strip_prefix("metlog-router listens on udp://").expect("says where it listens");
        let client = UdpSocket::bind("127.0.0.1:0").expect("binds");
        client.connect(address).expect("connects");
        let (write, written) = channel();
        std::thread::spawn(move || {
            let mut main = File::from(main);
            let mut bytes = [0; 65_536];
            // The end of a terminal whose other end is closed is an error.
            while let Ok(count) = main.read(&mut bytes) {
                if count == 0 || write.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Program { child, stderr, client, written, screen: Screen::default() }
    }

    fn send(&self, message_type: &str, payload: &str) {
        let message = json!({"type": message_type, "payload": payload, "timestamp": "2026-11-22T17:00:00Z"});
        self.client.send(message.to_string().as_bytes()).expect("sent");
    }

    /// Takes what is written until the screen looks so.
    fn wait(&mut self, what: &str, mut looks: impl FnMut(&Screen) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !looks(&self.screen) {
            let patience = deadline.saturating_duration_since(Instant::now());
            match self.written.recv_timeout(patience) {
                Ok(bytes) => self.screen.take(&bytes),
                Err(_) => panic!("never {what}: {:?}", self.screen.lines),
            }
        }
    }

    /// Ends it as a service manager does; the screen at the end.
    fn end(mut self) -> Screen {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill");
        assert!(killed.success());
        let mut report = String::new();
        self.stderr.read_to_string(&mut report).expect("text");
        assert_eq!(self.child.wait().expect("ends").code(), Some(0), "{report}");
        while let Ok(bytes) = self.written.recv_timeout(PATIENCE) {
            self.screen.take(&bytes);
        }
        std::mem::take(&mut self.screen)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A terminal that knows carriage return, newline, colours and how to erase a line. Anything else is a mistake.
#[derive(Default)]
struct Screen {
    lines: Vec<String>,
    column: usize,
    /// An escape sequence that has begun.
    escape: Option<String>,
    /// Bytes of a character that has begun.
    partial: Vec<u8>,
    /// Every text that the last line has had, summaries only, each as often as it changed.
    summaries: Vec<String>,
}

impl Screen {
    fn take(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        let bytes = std::mem::take(&mut self.partial);
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(error) => {
                self.partial = bytes[error.valid_up_to()..].to_vec();
                std::str::from_utf8(&bytes[..error.valid_up_to()]).expect("valid up to there")
            }
        };
        text.chars().for_each(|character| self.put(character));
        let last = self.last().to_owned();
        if last.contains("/s  lost ") && self.summaries.last() != Some(&last) {
            self.summaries.push(last);
        }
    }

    fn put(&mut self, character: char) {
        if self.lines.is_empty() {
            self.lines.push(String::new());
        }
        if let Some(mut escape) = self.escape.take() {
            escape.push(character);
            match escape.as_str() {
                "[2K" => self.lines.last_mut().expect("a line").clear(),
                _ if character == 'm' => {}
                _ if escape.len() < 10 && !escape.ends_with(char::is_alphabetic) => {
                    self.escape = Some(escape)
                }
                _ => panic!("what is {escape:?}?"),
            }
            return;
        }
        match character {
            '\r' => self.column = 0,
            '\n' => self.lines.push(String::new()),
            '\u{1b}' => self.escape = Some(String::new()),
            character if character.is_control() => panic!("what is {character:?}?"),
            character => {
                let line = self.lines.last_mut().expect("a line");
                let before: String = line.chars().take(self.column).collect();
                let behind: String = line.chars().skip(self.column + 1).collect();
                *line = format!("{before}{character}{behind}");
                self.column += 1;
            }
        }
    }

    fn last(&self) -> &str {
        self.lines.last().map_or("", String::as_str)
    }

    /// What messages were said, in order.
    fn said(&self) -> Vec<String> {
        let end = |line: &String| line.rsplit_once(' ').map(|(_, said)| said.to_owned());
        self.lines[..self.lines.len().saturating_sub(1)].iter().filter_map(end).collect()
    }
}

#[test]
fn a_terminal_shows_every_message_above_one_line_of_numbers_which_is_gone_at_the_end() {
    let mut program = Program::start(80, "xterm");
    let expected: Vec<String> = (0..50).map(|number| format!("n{number}")).collect();
    expected.iter().for_each(|text| program.send("oldstyle", text));
    program.wait("a summary with a rate", |screen| {
        screen.said() == expected && screen.last().contains("/s  lost 0  oldstyle ")
    });
    program.wait("a summary of nothing", |screen| screen.last() == "0/s  lost 0");
    program.send("a\u{1b}[2J\u{9b}type", "after");
    program.wait("the message, and the summary below it", |screen| {
        screen.said().last().is_some_and(|said| said == "after") && screen.last() == "0/s  lost 0"
    });
    let screen = program.end();
    assert_eq!(screen.last(), "", "something is left of the summary");
    assert_eq!(screen.said().len(), 51);
    assert!(!screen.lines.iter().any(|line| line.contains("/s  lost")), "a summary was left behind");
}

#[test]
fn the_numbers_change_twice_a_second_at_most_and_the_line_fits_a_narrow_terminal() {
    let mut program = Program::start(20, "xterm");
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < Duration::from_millis(2_600) {
        sent += 1;
        program.send("oldstyle", &format!("n{sent}"));
        // As fast as the terminal takes it, so that the numbers are others at each look.
        program.wait("the line", |screen| screen.said().last() == Some(&format!("n{sent}")));
    }
    let seconds = start.elapsed().as_secs_f64();
    let screen = program.end();
    assert_eq!(screen.said(), (1..=sent).map(|number| format!("n{number}")).collect::<Vec<_>>());
    let changes = screen.summaries.len();
    assert!(changes >= 2, "{:?}", screen.summaries);
    assert!(changes as f64 <= seconds * 2.0 + 1.0, "{changes} in {seconds} s");
    assert!(screen.summaries.iter().all(|summary| summary.len() < 20), "{:?}", screen.summaries);
}

#[test]
fn a_dumb_terminal_gets_lines_and_nothing_else() {
    let mut program = Program::start(80, "dumb");
    program.send("oldstyle", "first");
    program.wait("a line", |screen| screen.said() == ["first"]);
    // A summary would be there by the time the second message is.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1_200) {
        program.send("oldstyle", "more");
        let more = program.written.recv_timeout(PATIENCE).expect("a line");
        program.screen.take(&more);
    }
    let screen = program.end();
    assert!(screen.summaries.is_empty() && screen.last().is_empty(), "{:?}", screen.lines);
}

#[test]
fn what_is_no_terminal_gets_lines_and_nothing_else() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_metlog-router"))
        .args(["--listen", "udp://127.0.0.1:0"])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut line = String::new();
    BufReader::new(child.stderr.take().expect("piped")).read_line(&mut line).expect("text");
    let address = line.trim().rsplit_once('/').expect("an address").1.to_owned();
    let client = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1_200) {
        client.send_to(br#"{"type": "oldstyle", "payload": "x"}"#, &address).expect("sent");
        line.clear();
        stdout.read_line(&mut line).expect("a line");
        assert!(line.ends_with(" x\n") && !line.contains(['\r', '\u{1b}']), "{line:?}");
    }
    child.kill().and_then(|()| child.wait()).expect("ends");
}
