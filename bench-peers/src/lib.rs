//! What the measurements share: peers and their calls, clocks, child processes, callgrind, and the documents that
//! the figures go into. Each program in `src/main.rs` and `src/bin/` is one measurement.

pub mod alloc;
pub mod callgrind;
pub mod candidates;
pub mod clock;
pub mod document;
pub mod hammer;
pub mod measure;
pub mod number;
pub mod options;
pub mod peers;
pub mod process;
pub mod workload;
