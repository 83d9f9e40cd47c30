//! Whether a call stays as cheap as the work grows: its cost along the depth of spans, the number of fields, the size
//! of the text, the number of threads and of live spans.
//!
//! `cargo run --release --bin axes` measures each size of each axis in processes of their own and prints tables;
//! `--write` puts them into `docs/performance.md`, and draws a picture of each axis into `docs/axes/`. Instructions are
//! counted by callgrind on the calling thread; CPU time is the calling thread's own. Threads are measured in CPU time
//! only: valgrind runs one thread at a time. `time AXIS CANDIDATE SIZE` and `count AXIS CANDIDATE SIZE` are one
//! measurement; `--only NUMBER` takes one axis.

mod calls;
mod picture;

use std::fmt::Write as _;
use std::path::Path;

use bench_peers::candidates::{self, Candidate};
use bench_peers::measure::{self, COUNTED_BLOCKS};
use bench_peers::number::{median, whole};
use bench_peers::options::Options;
use bench_peers::peers::Running;
use bench_peers::process::{numbers_of, print_numbers, this_program, Scratch};
use bench_peers::workload::Workload;
use bench_peers::{callgrind, document, hammer};

use calls::Calls;
use picture::{Line, Panel};

const COMPARED: [Candidate; 3] = [candidates::FLOOR, candidates::OURS, candidates::FMT_JSON];

/// All axes.
const ALL: u64 = u64::MAX;
const DEFAULTS: &[(&str, u64)] = &[("rounds", 3), ("only", ALL)];

/// What grows.
struct Axis {
    /// On the command line, and the name of the picture.
    name: &'static str,
    title: &'static str,
    /// What is counted along it.
    sizes_are: &'static str,
    sizes: &'static [u64],
    what: What,
}

/// What is called.
enum What {
    /// Calls of the calling thread, of this workload's kind.
    Calls(Workload, fn(u64) -> Calls),
    /// Events by so many threads.
    Threads,
}

const AXES: [Axis; 6] = [
    Axis {
        name: "depth",
        title: "An event inside nested spans",
        sizes_are: "spans around the event",
        sizes: &[1, 2, 4, 8, 16, 32, 64],
        what: What::Calls(Workload::Event, calls::event_in_spans),
    },
    Axis {
        name: "depth-of-span",
        title: "The life of one more span inside nested spans",
        sizes_are: "spans around the span",
        sizes: &[1, 2, 4, 8, 16, 32, 64],
        what: What::Calls(Workload::Span, calls::span_in_spans),
    },
    Axis {
        name: "fields",
        title: "An event with integer fields",
        sizes_are: "fields",
        sizes: calls::FIELDS,
        what: What::Calls(Workload::Event, calls::event_with_fields),
    },
    Axis {
        name: "payload",
        title: "An event with a long text",
        sizes_are: "bytes of text",
        sizes: &[10, 100, 1_000, 10_000, 50_000],
        what: What::Calls(Workload::Event, calls::event_with_payload),
    },
    Axis {
        name: "threads",
        title: "Events by several threads as fast as they can",
        sizes_are: "threads",
        sizes: &[1, 2, 4, 8, 16, 32, 64, 128, 256],
        what: What::Threads,
    },
    Axis {
        name: "live-spans",
        title: "The life of one more span beside others",
        sizes_are: "other spans that live",
        sizes: &[1, 10, 100, 1_000, 10_000, 100_000],
        what: What::Calls(Workload::Span, calls::span_beside_spans),
    },
];

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [way @ ("time" | "count"), axis, candidate, size] => {
            let size = size.parse().map_err(|_| format!("`{size}` is no size"))?;
            run(way, named(axis)?, &Candidate::named(candidate)?, size)
        }
        _ => compare(&Options::parse(&arguments, DEFAULTS)?),
    }
}

fn named(name: &str) -> Result<&'static Axis, String> {
    let names = || AXES.map(|axis| axis.name).join(", ");
    let found = AXES.iter().find(|axis| axis.name == name);
    found.ok_or_else(|| format!("no axis is called `{name}`; there are {}", names()))
}

// ---------------------------------------------------------------------------------------------- the comparison

fn compare(options: &Options) -> Result<(), String> {
    let only = options.count("only");
    if options.write && only != ALL {
        return Err(String::from("--write makes the block of all axes anew: it does not go with --only"));
    }
    callgrind::require()?;
    let mut block = String::new();
    let wanted = AXES.iter().enumerate().filter(|(index, _)| only == ALL || *index as u64 + 1 == only);
    for (_, axis) in wanted {
        let panels = measure_axis(axis, options.count("rounds"))?;
        let file = format!("{}.svg", axis.name);
        if options.write {
            std::fs::create_dir_all(document::PICTURES).map_err(|error| error.to_string())?;
            let path = Path::new(document::PICTURES).join(&file);
            picture::draw(&path, axis.title, axis.sizes_are, &panels)?;
        }
        let _ = write!(block, "\n![{}](axes/{file})\n\n{}", axis.title, table(axis, &panels));
    }
    print!("{block}");
    if options.write {
        document::write(document::PERFORMANCE, "axes", &block)?;
    }
    Ok(())
}

fn measure_axis(axis: &Axis, rounds: u64) -> Result<Vec<Panel>, String> {
    let scratch = Scratch::new()?;
    let mut instructions = Panel { measure: "instructions a call", lines: Vec::new() };
    let mut times = Panel { measure: "CPU ns a call", lines: Vec::new() };
    for candidate in &COMPARED {
        let mut counted = Line { name: candidate.name, points: Vec::new() };
        let mut timed = Line { name: candidate.name, points: Vec::new() };
        for &size in axis.sizes {
            eprintln!("axes: {}, {}, {size}", axis.name, candidate.key);
            timed.points.push((size as f64, time(axis, candidate, size, rounds)?));
            if let What::Calls(..) = axis.what {
                counted.points.push((size as f64, count(axis, candidate, size, &scratch)?));
            }
        }
        instructions.lines.push(counted);
        times.lines.push(timed);
    }
    Ok(match axis.what {
        What::Calls(..) => vec![instructions, times],
        What::Threads => vec![times],
    })
}

fn time(axis: &Axis, candidate: &Candidate, size: u64, rounds: u64) -> Result<f64, String> {
    let arguments = ["time", axis.name, candidate.key, &size.to_string()];
    let runs: Result<Vec<f64>, String> =
        (0..rounds).map(|_| numbers_of(&mut this_program(&arguments)?).map(|[time]| time)).collect();
    Ok(median(runs?))
}

fn count(axis: &Axis, candidate: &Candidate, size: u64, scratch: &Scratch) -> Result<f64, String> {
    let arguments = ["count", axis.name, candidate.key, &size.to_string()];
    let instructions = callgrind::instructions(&arguments, scratch)?;
    Ok(instructions as f64 / (COUNTED_BLOCKS * block_of(size)) as f64)
}

/// A row for each candidate and measure, a column for each size.
fn table(axis: &Axis, panels: &[Panel]) -> String {
    let sizes: Vec<_> = axis.sizes.iter().map(|&size| whole(size as f64)).collect();
    let mut table = format!(
        "| {} | | {} |\n|---|---|{}\n",
        axis.sizes_are,
        sizes.join(" | "),
        "--:|".repeat(axis.sizes.len())
    );
    for panel in panels {
        for (row, line) in panel.lines.iter().enumerate() {
            let measure = if row == 0 { panel.measure } else { "" };
            let costs: Vec<_> = line.points.iter().map(|&(_, cost)| whole(cost)).collect();
            let _ = writeln!(table, "| {measure} | {} | {} |", line.name, costs.join(" | "));
        }
    }
    table
}

// --------------------------------------------------------------------------------------------- one measurement

/// Calls between two moments at which the queue is empty: few where each call is long.
fn block_of(size: u64) -> u64 {
    const BYTES: u64 = 1 << 20;
    (BYTES / size.max(1)).clamp(20, 100)
}

/// Events of all threads together, however many they are.
const EVENTS: u64 = 1 << 18;

fn run(way: &str, axis: &Axis, candidate: &Candidate, size: u64) -> Result<(), String> {
    let (workload, prepare) = match axis.what {
        What::Threads => return hammer_with(candidate, size),
        What::Calls(workload, prepare) => (workload, prepare),
    };
    let running = candidate.start(workload)?;
    let running = Running { calls: prepare(size), ..running };
    if way == "count" {
        return measure::count_blocks(running, block_of(size), 1);
    }
    print_numbers(&[measure::time_blocks(running, block_of(size), 1)?]);
    Ok(())
}

fn hammer_with(candidate: &Candidate, threads: u64) -> Result<(), String> {
    let hammered = hammer::run(candidate, threads, EVENTS / threads)?;
    if hammered.lost > 0.0 {
        return Err(format!("{} events were lost: the figure would be of something else", hammered.lost));
    }
    print_numbers(&[hammered.nanoseconds]);
    Ok(())
}
