//! What tests of outputs over a network share: a router with a TCP input, a client that writes bytes, messages that can
//! be told apart, and the account that must balance.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tracing_metlog::router::{
    Config, Counters, Input, Matcher, Output, OutputCounters, Route, Router, RouterError,
};
use tracing_metlog::Message;

/// Longer than anything takes that works.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A router with one TCP input whose messages all go to `output`.
pub fn router(output: impl Into<Output>) -> Router {
    try_router("127.0.0.1:0", output).expect("starts")
}

pub fn try_router(address: &str, output: impl Into<Output>) -> Result<Router, RouterError> {
    let config = Config::new().input(Input::tcp(address)).route(Route::new(Matcher::any(), output.into()));
    Router::start(config)
}

/// Where it listens, without the scheme.
pub fn place(router: &Router) -> &str {
    router.addresses()[0].split("://").nth(1).expect("an address")
}

/// Sends every message, one a line, over a connection of its own.
pub fn send(router: &Router, messages: impl IntoIterator<Item = Message>) {
    let mut stream = TcpStream::connect(place(router)).expect("connects");
    for message in messages {
        stream.write_all(format!("{}\n", message.to_json()).as_bytes()).expect("sent");
    }
}

/// A message that is no other's twin.
pub fn numbered(number: usize) -> Message {
    let mut message = Message::new("oldstyle", format!("text \"{number}\"\nand more \u{1f600}"));
    message.timestamp = format!("2012-10-24T22:20:43.{:06}Z", number % 1_000_000);
    message.logger = String::from("shop");
    message.hostname = Some(String::from("web-7.example"));
    message.pid = Some(4_242);
    message.fields.insert(String::from("number"), number.into());
    message.fields.insert(String::from("rate"), 1.0.into());
    message.fields.insert(String::from("metlog_id"), id(number).into());
    message
}

/// The id of one, as this crate's client writes them.
pub fn id(number: usize) -> String {
    format!("00000000000000aa-4242-00000000000000bb-{number}")
}

pub fn numbers(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.fields["number"].as_u64().expect("a number")).collect()
}

/// How often each number came.
pub fn tally(numbers: impl IntoIterator<Item = u64>) -> BTreeMap<u64, usize> {
    let mut tally = BTreeMap::new();
    numbers.into_iter().for_each(|number| *tally.entry(number).or_default() += 1);
    tally
}

/// Waits until `is_so`, and fails with `what` if it never is.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The only output's account, which must balance.
pub fn balanced(counters: &Counters) -> OutputCounters {
    let [output] = counters.outputs.as_slice() else { panic!("one output: {counters}") };
    let taken = counters.received - counters.unrouted - counters.duplicates + output.inherited;
    let settled = output.delivered + output.failed + output.dropped + output.spooled + output.queued;
    assert_eq!(taken, settled, "{counters}");
    output.clone()
}

/// A port that nobody listens on.
pub fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.local_addr().expect("an address").port()
}

/// A directory that is removed at the end of its test.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("metlog-network-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("made");
        Directory(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A Python program that receives, ended with its test.
pub struct Receiver {
    child: Child,
    pub port: u16,
    file: PathBuf,
}

impl Receiver {
    /// `receivers.py` in one of its modes.
    pub fn start(mode: &str, directory: &Directory) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/output_support/receivers.py");
        let file = directory.path().join("received.jsonl");
        let mut command = Command::new("python3");
        command.arg(script).arg(mode).arg(&file);
        Receiver::of(command, file)
    }

    /// A program that prints its port first.
    pub fn of(mut command: Command, file: PathBuf) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("python3 starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("text");
        let port = line.trim().parse().expect("its port");
        Receiver { child, port, file }
    }

    /// What it took so far.
    pub fn taken(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let taken: Vec<Value> =
            whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        for line in &taken {
            assert!(line.get("violation").is_none(), "{line}");
        }
        taken
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
