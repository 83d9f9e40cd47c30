//! Every peer with every workload, each in processes of its own: one as it is, one under callgrind.
//!
//! A process each, because a program has one `tracing` subscriber and one `log` logger, and because no peer's
//! threads should run while another is measured.

use bench_peers::measure::COUNTED_CALLS;
use bench_peers::process::{output_of, this_program, Scratch};
use bench_peers::workload::Workload;
use bench_peers::{callgrind, peers};

/// What one peer's call of one workload costs the calling thread.
pub struct Figure {
    pub workload: Workload,
    pub peer: &'static str,
    pub instructions: f64,
    pub allocations: f64,
    pub nanoseconds: f64,
}

/// Measures everything; says what is being measured on stderr.
pub fn measure_all() -> Result<Vec<Figure>, String> {
    let scratch = Scratch::new()?;
    callgrind::require()?;
    let mut figures = Vec::new();
    for workload in Workload::ALL {
        for peer in &peers::ALL {
            eprintln!("{}: {}", workload.name(), peer.name);
            let failed = |problem| format!("{}, {}: {problem}", peer.name, workload.name());
            figures.extend(measure(peer.name, workload, &scratch).map_err(failed)?);
        }
    }
    Ok(figures)
}

/// How often instructions are counted. The least is taken: how often a peer's threads meet differs from run to run
/// under valgrind, and with it what waking and waiting cost.
const COUNTS: usize = 3;

fn measure(peer: &'static str, workload: Workload, scratch: &Scratch) -> Result<Option<Figure>, String> {
    let run = ["run", peer, workload.name()];
    let printed = output_of(this_program(&run)?.env("TMPDIR", scratch.path()))?;
    let mut numbers = printed.split_whitespace().filter_map(|number| number.parse().ok());
    let (Some(nanoseconds), Some(allocations)) = (numbers.next(), numbers.next()) else { return Ok(None) };
    let run = ["run-for-callgrind", peer, workload.name()];
    let counts = (0..COUNTS).map(|_| callgrind::instructions(&run, scratch));
    let least = counts.reduce(|least, count| Ok(least?.min(count?))).unwrap_or(Ok(0))?;
    Ok(Some(Figure {
        workload,
        peer,
        instructions: least as f64 / COUNTED_CALLS as f64,
        allocations,
        nanoseconds,
    }))
}
