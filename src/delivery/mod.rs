//! On the background thread: from captured records to bytes at a destination.
//!
//! In: chunks of records. Out: bytes at every destination, or a counted reason why not.

pub(crate) mod address;
pub(crate) mod aside;
pub(crate) mod backoff;
pub(crate) mod batch;
#[cfg(feature = "ring")]
pub(crate) mod crash;
pub(crate) mod destination;
pub(crate) mod encode;
pub(crate) mod framing;
#[cfg(feature = "heka")]
pub(crate) mod heka;
pub(crate) mod loss_report;
pub(crate) mod merge;
pub(crate) mod outlet;
#[cfg(feature = "spool")]
pub(crate) mod spool;
#[cfg(not(feature = "spool"))]
#[path = "no_spool.rs"]
pub(crate) mod spool;
pub(crate) mod transport;
pub(crate) mod worker;
