//! The memory of all bodies that one input works on at the same time. In: a body, as it is unpacked. Out: whether there
//! is room for it. Nothing can be lost here: a client that finds no room is told to come again.
//!
//! A body becomes many times its length while its messages are decoded, and each connection may have one.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use crate::router::counters::InputState;

/// What one request holds of the room; given back when its messages are written or refused, however that ends.
pub(super) struct Share {
    input: Arc<InputState>,
    most: usize,
    bytes: usize,
}

impl Share {
    /// Nothing yet, of `most` bytes that all requests of `input` have together.
    pub(super) fn of(input: &Arc<InputState>, most: usize) -> Self {
        Share { input: Arc::clone(input), most, bytes: 0 }
    }

    /// Takes so many bytes more. `false`: others have them.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let fitting = |taken: usize| taken.checked_add(bytes).filter(|&all| all <= self.most);
        let fits = self.input.body_bytes.fetch_update(Relaxed, Relaxed, fitting).is_ok();
        if fits {
            self.bytes += bytes;
        }
        fits
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.input.body_bytes.fetch_sub(self.bytes, Relaxed);
    }
}
