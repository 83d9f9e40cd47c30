//! Skeleton; the pipeline's documentation comes with the pipeline.

mod delivery;
mod message;
#[cfg(feature = "router")]
pub mod router;
mod stats;

pub use delivery::address::{Address, AddressError};
pub use delivery::batch::Batch;
pub use delivery::framing::Framing;
pub use delivery::transport::capture::Capture;
pub use delivery::transport::Transport;
pub use message::{Message, Payload, Severity, ENVELOPE_VERSION};
pub use stats::LossReason;
