//! What stands for the spool in a build without the feature: nothing. There is none, so nothing of it is ever called.
//!
//! In: nothing. Out: nothing. Nothing can be lost here.

use std::time::Instant;

/// There is none.
pub(crate) enum Spool {}

impl Spool {
    pub(crate) fn has_room(&self) -> bool {
        match *self {}
    }

    pub(crate) fn has_unwritten(&self) -> bool {
        match *self {}
    }

    pub(crate) fn put(&mut self, _: &[u8]) {
        match *self {}
    }

    pub(crate) fn write(&mut self) {
        match *self {}
    }

    pub(crate) fn sync(&mut self) {
        match *self {}
    }

    pub(crate) fn has_backlog(&self) -> bool {
        match *self {}
    }

    pub(crate) fn is_sending(&self) -> bool {
        match *self {}
    }

    pub(crate) fn read(&mut self, _: impl FnMut(&[u8])) -> bool {
        match *self {}
    }

    pub(crate) fn confirm(&mut self) {
        match *self {}
    }

    pub(crate) fn keep(&mut self, _: u64) {
        match *self {}
    }

    pub(crate) fn tick(&mut self) {
        match *self {}
    }

    pub(crate) fn hurry(&mut self) {
        match *self {}
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        match *self {}
    }

    pub(crate) fn close(&mut self) {
        match *self {}
    }
}
