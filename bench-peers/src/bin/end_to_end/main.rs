//! A million events from one thread until the last byte is read: messages per second, and what they cost in CPU
//! time, ours beside `tracing-subscriber`'s JSON with `tracing_appender::non_blocking` over a buffered writer.
//!
//! `cargo run --release --bin end_to_end` runs each way of both in turn, ours, theirs, ours, theirs, and prints the
//! medians, and then those of every peer over TCP; `--write` puts them into `docs/performance.md` too. A full queue
//! makes the caller wait, so nothing is lost on the way to a stream or a file. The
//! sink is a process of its own: its CPU time is not counted. `sink WAY` and `send PEER WAY ADDRESS` are the two
//! ends of one run.

mod send;
mod sink;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use bench_peers::document;

use send::PEERS;

const MESSAGES: u64 = 1_000_000;
const PAIRS: usize = 5;
const BUFFER: usize = 256 * 1024;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => compare(false),
        ["--write"] => compare(true),
        ["sink", way] => sink::sink(Way::named(way)?),
        ["send", peer, way, address] => send::send(peer, Way::named(way)?, address),
        _ => Err("usage: end_to_end [--write | sink WAY | send PEER WAY ADDRESS]".into()),
    }
}

/// How the bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Tcp,
    Unix,
    Udp,
    File,
}

impl Way {
    const ALL: [Way; 4] = [Way::Tcp, Way::Unix, Way::File, Way::Udp];

    fn name(self) -> &'static str {
        match self {
            Way::Tcp => "tcp",
            Way::Unix => "unix",
            Way::Udp => "udp",
            Way::File => "file",
        }
    }

    fn named(name: &str) -> Result<Way, Failure> {
        let known = Way::ALL.into_iter().find(|way| way.name() == name);
        known.ok_or_else(|| format!("no way is called `{name}`").into())
    }
}

// ---------------------------------------------------------------------------------------------- the comparison

/// What came of one run.
#[derive(Clone, Copy)]
struct Run {
    messages_per_second: f64,
    cpu_seconds_per_million: f64,
    received: f64,
}

fn compare(write: bool) -> Result<(), Failure> {
    let mut table = String::from(
        "| way | messages/s | theirs | to theirs | CPU s per million | theirs | theirs to ours | received |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for way in Way::ALL {
        eprintln!("{}", way.name());
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..PAIRS {
            ours.push(run("ours", way)?);
            // Nobody writes lines to UDP with it.
            if way != Way::Udp {
                theirs.push(run("json", way)?);
            }
        }
        table += &row(way, median(&ours).ok_or("no run")?, median(&theirs));
    }
    table += "\n";
    table += &all_peers()?;
    print!("{table}");
    if write {
        document::write(document::PERFORMANCE, "end-to-end", &table)?;
    }
    Ok(())
}

/// Every peer over TCP.
fn all_peers() -> Result<String, Failure> {
    eprintln!("tcp, every peer");
    let mut runs = PEERS.each_ref().map(|_| Vec::new());
    for _ in 0..PAIRS {
        for (peer, runs) in PEERS.iter().zip(&mut runs) {
            runs.push(run(peer.key, Way::Tcp)?);
        }
    }
    let medians: Option<Vec<Run>> = runs.iter().map(|runs| median(runs)).collect();
    let medians = medians.ok_or("no run")?;
    let mut table = String::from(
        "| over TCP | messages/s | CPU s per million | to ours |\n\
         |---|--:|--:|--:|\n",
    );
    for (peer, run) in PEERS.iter().zip(&medians) {
        let (rate, cpu) = (run.messages_per_second, run.cpu_seconds_per_million);
        let ratio = cpu / medians[0].cpu_seconds_per_million;
        let _ = writeln!(table, "| {} | {rate:.0} | {cpu:.2} | {ratio:.1}x |", peer.name);
    }
    Ok(table)
}

fn row(way: Way, ours: Run, theirs: Option<Run>) -> String {
    let column = |of: &dyn Fn(Run) -> f64, digits| {
        theirs.map_or(String::from("-"), |theirs| format!("{:.digits$}", of(theirs)))
    };
    let mut row = String::new();
    let _ = writeln!(
        row,
        "| {} | {:.0} | {} | {}x | {:.2} | {} | {}x | {:.1} % |",
        way.name(),
        ours.messages_per_second,
        column(&|theirs| theirs.messages_per_second, 0),
        column(&|theirs| ours.messages_per_second / theirs.messages_per_second, 1),
        ours.cpu_seconds_per_million,
        column(&|theirs| theirs.cpu_seconds_per_million, 2),
        column(&|theirs| theirs.cpu_seconds_per_million / ours.cpu_seconds_per_million, 1),
        100.0 * ours.received / MESSAGES as f64,
    );
    row.replace("| -x |", "| - |")
}

fn median(runs: &[Run]) -> Option<Run> {
    let middle = |of: fn(&Run) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    Some(Run {
        messages_per_second: middle(|run| run.messages_per_second)?,
        cpu_seconds_per_million: middle(|run| run.cpu_seconds_per_million)?,
        received: middle(|run| run.received)?,
    })
}

/// A sink, a sender, and what both say.
fn run(peer: &str, way: Way) -> Result<Run, Failure> {
    let this = std::env::current_exe()?;
    let mut sink = Command::new(&this).args(["sink", way.name()]).stdout(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(sink.stdout.take().ok_or("a sink without an output")?);
    let mut address = String::new();
    said.read_line(&mut address)?;
    let address = address.trim();
    let sender = Command::new(&this).args(["send", peer, way.name(), address]).output()?;
    if !sender.status.success() {
        let _ = sink.kill();
        return Err(String::from_utf8_lossy(&sender.stderr).into_owned().into());
    }
    let [began, ended, cpu] = numbers(&String::from_utf8(sender.stdout)?)?;
    let [received, last] = result_of(way, address, &mut sink, said, ended)?;
    Ok(Run {
        messages_per_second: received / (last - began),
        cpu_seconds_per_million: cpu * 1e6 / MESSAGES as f64,
        received,
    })
}

/// How many messages arrived, and when the last one did.
fn result_of(
    way: Way,
    address: &str,
    sink: &mut Child,
    mut said: impl BufRead,
    ended: f64,
) -> Result<[f64; 2], Failure> {
    let mut line = String::new();
    said.read_line(&mut line)?;
    sink.wait()?;
    match way {
        Way::File => {
            let received = sink::count_lines(File::open(address)?)?;
            std::fs::remove_file(address)?;
            Ok([received as f64, ended])
        }
        Way::Unix => {
            std::fs::remove_file(address)?;
            numbers(&line)
        }
        Way::Tcp | Way::Udp => numbers(&line),
    }
    .and_then(|[received, last]| {
        let complete = way == Way::Udp || received == MESSAGES as f64;
        complete.then_some([received, last]).ok_or_else(|| format!("{received} messages arrived").into())
    })
}

fn numbers<const N: usize>(line: &str) -> Result<[f64; N], Failure> {
    let numbers: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
    numbers?.try_into().map_err(|_| format!("unexpected: {line}").into())
}

/// Seconds; the same clock in every process.
fn now() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64()
}
