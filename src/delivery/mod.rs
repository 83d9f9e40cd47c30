//! On the background thread: from captured records to bytes at a destination.

pub(crate) mod address;
pub(crate) mod backoff;
pub(crate) mod batch;
pub(crate) mod framing;
pub(crate) mod transport;
