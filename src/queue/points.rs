//! The points at which a process can die, for tests that look what would be left.
//!
//! In: code that passes one. Out: the test of this thread is asked, if it is one that wants to be. Nothing of this is in
//! a program.

use std::cell::RefCell;

type Look = Box<dyn FnMut(&'static str)>;

thread_local! {
    static LOOK: RefCell<Option<Look>> = const { RefCell::new(None) };
}

/// The thread is at this point: what it does next has not been done.
pub(crate) fn pass(point: &'static str) {
    // Taken out meanwhile: what a look does passes points too.
    let Ok(Some(mut look)) = LOOK.try_with(|kept| kept.take()) else { return };
    look(point);
    LOOK.with(|kept| kept.replace(Some(look)));
}

/// Has `look` asked at each point that `work` passes.
pub(crate) fn at_each<R>(look: impl FnMut(&'static str) + 'static, work: impl FnOnce() -> R) -> R {
    LOOK.with(|kept| kept.replace(Some(Box::new(look))));
    let result = work();
    LOOK.with(RefCell::take);
    result
}
