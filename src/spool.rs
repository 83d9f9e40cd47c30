//! Looking into the spool of a program, and sending by hand what is in it: what the program `metlog-router spool` does.
//!
//! In: a spool's directory. Out: what is in it. Nothing is lost here but what `send` finds damaged, and counts.
//!
//! ```no_run
//! for slot in tracing_metlog::spool::slots("/var/spool/shop".as_ref())? {
//!     println!("slot {}: {} messages, {} damaged", slot.number, slot.messages, slot.damaged);
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

pub use crate::delivery::spool::inspect::{messages, send, slots, Sent, Slot};
