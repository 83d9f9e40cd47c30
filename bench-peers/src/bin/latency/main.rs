//! How long a single call takes when events come at a steady pace, and what the background thread uses when none come.
//!
//! `cargo run --release --bin latency` runs each candidate at each pace, in turn, again and again, and prints the
//! medians of the rounds; `--write` puts them into `docs/performance.md` too. `run CANDIDATE PACE THREADS CALLS` and
//! `idle CANDIDATE SECONDS` are one measurement, in a process of its own.

mod pace;

use std::fmt::Write as _;
use std::io::Read;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use bench_peers::candidates::{self, Candidate};
use bench_peers::number::{medians, short, whole};
use bench_peers::options::Options;
use bench_peers::process::{numbers_of, print_numbers, this_program};
use bench_peers::workload::Workload;
use bench_peers::{clock, document};

/// Calls a second of each thread, and threads.
const PACES: [(u64, u64); 3] = [(50_000, 1), (50_000, 2), (2_000, 1)];

const DEFAULTS: &[(&str, u64)] = &[("rounds", 5), ("seconds", 2), ("idle-seconds", 10)];

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number"));
    match arguments[..] {
        ["run", candidate, pace, threads, calls] => {
            run(&Candidate::named(candidate)?, number(pace)?, number(threads)?, number(calls)?)
        }
        ["idle", candidate, seconds] => idle(&Candidate::named(candidate)?, number(seconds)?),
        _ => compare(&Options::parse(&arguments, DEFAULTS)?),
    }
}

// ---------------------------------------------------------------------------------------------- the comparison

fn compare(options: &Options) -> Result<(), String> {
    let router = draining_sink()?;
    let paces = paces(options, &router)?;
    print!("{paces}");
    let idle = idles(options.count("idle-seconds"), &router)?;
    print!("\n{idle}");
    if options.write {
        document::write(document::PERFORMANCE, "latency", &paces)?;
        document::write(document::PERFORMANCE, "idle", &idle)?;
    }
    Ok(())
}

/// The address of something that reads and forgets, in this process and not in those that are measured.
fn draining_sink() -> Result<String, String> {
    let failed = |error: std::io::Error| format!("a TCP sink on the loopback interface: {error}");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut buffer = vec![0; 256 * 1024];
                while connection.read(&mut buffer).is_ok_and(|read| read > 0) {}
            });
        }
    });
    Ok(format!("tcp://{address}"))
}

/// What one run gives, in the order in which it is printed.
const FIGURES: usize = 8;

fn paces(options: &Options, router: &str) -> Result<String, String> {
    let mut runs = PACES.map(|_| candidates::ALL.map(|_| Vec::new()));
    for round in 0..options.count("rounds") {
        eprintln!("latency: round {}", round + 1);
        for ((pace, threads), runs) in PACES.iter().zip(&mut runs) {
            let calls = (pace * options.count("seconds")).to_string();
            for (candidate, runs) in candidates::ALL.iter().zip(runs) {
                let run = ["run", candidate.key, &pace.to_string(), &threads.to_string(), &calls];
                let figures: [f64; FIGURES] = numbers_of(this_program(&run)?.env("METLOG_ROUTER", router))?;
                runs.push(figures);
            }
        }
    }
    let mut table = String::from(
        "| pace of a thread | what | p50 ns | p99 | p99.9 | longest | held pace | waits per million | kernel ns a call |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for ((pace, threads), runs) in PACES.iter().zip(&runs) {
        let title =
            format!("{}/s, {threads} thread{}", whole(*pace as f64), if *threads > 1 { "s" } else { "" });
        for (row, (candidate, runs)) in candidates::ALL.iter().zip(runs).enumerate() {
            let title = if row == 0 { format!("{title} ") } else { String::new() };
            table += &pace_row(&title, candidate, &medians(runs));
        }
    }
    let clock = medians(&runs.concat().concat())[4];
    let _ = writeln!(table, "\nThe clock's own part of each figure: {} ns.", whole(clock));
    Ok(table)
}

fn pace_row(title: &str, candidate: &Candidate, figures: &[f64; FIGURES]) -> String {
    let [p50, p99, p999, longest, _clock, held, waits, kernel] = figures.map(whole);
    format!(
        "| {title}| {} | {p50} | {p99} | {p999} | {longest} | {held} | {waits} | {kernel} |\n",
        candidate.name
    )
}

fn idles(seconds: u64, router: &str) -> Result<String, String> {
    let mut table = format!(
        "| CPU time of the whole process, ms | the second after 10,000 events | the {seconds} seconds after that |\n|---|--:|--:|\n"
    );
    for candidate in candidates::ALL.iter().filter(|candidate| candidate.hands_over) {
        eprintln!("idle: {}", candidate.key);
        let idle = ["idle", candidate.key, &seconds.to_string()];
        let figures: [f64; 2] = numbers_of(this_program(&idle)?.env("METLOG_ROUTER", router))?;
        let [first, later] = figures.map(|nanoseconds| short(nanoseconds / 1e6));
        let _ = writeln!(table, "| {} | {first} | {later} |", candidate.name);
    }
    Ok(table)
}

// --------------------------------------------------------------------------------------------- one measurement

/// Prints quantiles, the clock's part, the pace, waits and time in the kernel.
fn run(candidate: &Candidate, pace: u64, threads: u64, calls: u64) -> Result<(), String> {
    let _running = candidate.start(Workload::Event)?;
    let times = pace::run(candidate.event, pace, threads, calls);
    let quantiles = [0.5, 0.99, 0.999, 1.0].map(|part| times.quantile(part));
    let rest = [times.clock, times.pace, times.switches_per_million, times.kernel];
    print_numbers(&[quantiles, rest].concat());
    Ok(())
}

/// Prints the CPU time of the second after some events, and of the seconds after that.
fn idle(candidate: &Candidate, seconds: u64) -> Result<(), String> {
    let _running = candidate.start(Workload::Event)?;
    for _ in 0..10 {
        (candidate.event)(1_000);
        thread::sleep(Duration::from_millis(10));
    }
    let used_while_asleep = |seconds| {
        let before = clock::process_cpu();
        thread::sleep(Duration::from_secs(seconds));
        clock::process_cpu() - before
    };
    print_numbers(&[used_while_asleep(1), used_while_asleep(seconds)]);
    Ok(())
}
