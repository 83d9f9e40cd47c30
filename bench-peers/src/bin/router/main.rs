//! `metlog-router` beside rsyslogd: the same bytes in the same run, through ten rules into a file.
//!
//! `cargo run --release --bin router` builds the router and runs ours over TCP, ours over a Unix socket and rsyslogd over
//! TCP in turn, and prints the medians; `--write` puts them into `docs/performance.md` too. Every message must be in the
//! file at the end, or the run fails. Wants rsyslogd with mmjsonparse (Debian: `rsyslog`).

mod load;
mod program;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bench_peers::document;
use bench_peers::number::{medians, whole};
use bench_peers::options::Options;
use bench_peers::process::{output_of, Scratch};
use load::{Address, DISTINCT};
use program::Program;

const DEFAULTS: &[(&str, u64)] = &[("rounds", 3), ("messages", 2_000_000), ("rsyslog-messages", 500_000)];
const PATIENCE: Duration = Duration::from_secs(120);

/// Who is measured, and over what.
const PEERS: [&str; 3] = ["metlog-router, TCP", "metlog-router, Unix socket", "rsyslogd, TCP"];

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let options = Options::parse(&arguments, DEFAULTS)?;
    let router = built()?;
    let mut runs: [Vec<[f64; 2]>; PEERS.len()] = Default::default();
    for _ in 0..options.count("rounds") {
        for (peer, runs) in runs.iter_mut().enumerate() {
            eprintln!("router: {}", PEERS[peer]);
            runs.push(run(peer, &router, &options)?);
        }
    }
    let mut table = String::from("| router | messages/s | CPU s per million |\n|---|--:|--:|\n");
    for (peer, runs) in PEERS.iter().zip(&runs) {
        let [rate, cpu] = medians(runs);
        let _ = writeln!(table, "| {peer} | {} | {cpu:.2} |", whole(rate));
    }
    print!("{table}");
    if options.write {
        document::write(document::PERFORMANCE, "router", &table)?;
    }
    Ok(())
}

/// The program, built with the release profile's defaults; or another one, if `METLOG_ROUTER_PROGRAM` names it.
fn built() -> Result<PathBuf, String> {
    if let Some(program) = std::env::var_os("METLOG_ROUTER_PROGRAM") {
        return Ok(program.into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--features", "router", "--bin", "metlog-router"]).current_dir(&root);
    output_of(cargo.env("CARGO_INCREMENTAL", "0").env("CARGO_TARGET_DIR", "target"))?;
    Ok(root.join("target/release/metlog-router"))
}

/// Messages a second and CPU seconds per million.
fn run(peer: usize, router: &Path, options: &Options) -> Result<[f64; 2], String> {
    let scratch = Scratch::new()?;
    let program = match peer {
        2 => Program::rsyslog(scratch.path())?,
        _ => Program::ours(router, scratch.path(), &Program::ten_routes())?,
    };
    let address = match (peer, &program.unix) {
        (1, Some(unix)) => unix.clone(),
        _ => program.tcp.clone(),
    };
    rate(program, &address, options.count(if peer == 2 { "rsyslog-messages" } else { "messages" }))
}

fn rate(program: Program, address: &Address, messages: u64) -> Result<[f64; 2], String> {
    let bytes = load::stream(&load::lines());
    let failed = |error| format!("{address:?}: {error}");
    // Once before the clock starts: so it is known what the messages become in the file.
    load::send(address, &bytes, 1).map_err(failed)?;
    let each = settled(&program)?;
    let times = messages.div_ceil(DISTINCT as u64);
    let start = Instant::now();
    load::send(address, &bytes, times).map_err(failed)?;
    program.wait_for(each * (times + 1), PATIENCE)?;
    let seconds = start.elapsed().as_secs_f64();
    let file = program.file.clone();
    let cpu = program.finish()?;
    let (written, expected) = (lines(&file), (times + 1) * DISTINCT as u64);
    if written != expected {
        return Err(format!("{}: {written} lines for {expected} messages", file.display()));
    }
    Ok([(times * DISTINCT as u64) as f64 / seconds, cpu / expected as f64 * 1e6])
}

/// How long the file is once it holds a line for each message.
fn settled(program: &Program) -> Result<u64, String> {
    let deadline = Instant::now() + PATIENCE;
    while lines(&program.file) < DISTINCT as u64 {
        if Instant::now() > deadline {
            return Err(format!("{}: not all messages were written", program.file.display()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(program.written())
}

fn lines(file: &Path) -> u64 {
    let text = std::fs::read(file).unwrap_or_default();
    text.iter().filter(|&&byte| byte == b'\n').count() as u64
}
