//! Knows a forked child. The child has the memory of its parent but not its threads: nobody would ever take what
//! it queued, and a lock some other thread held stays locked for ever. So nothing is queued there at all.
//!
//! Also the other hook into the C library, `atexit`: both are `unsafe` to call, and both calls are in this file.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::TryLockError;

/// How many forks lie between the first process and this one.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The process something was made in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    generation: u32,
}

/// Whether this process is a child of one that this crate was at work in: a lock may be held by a thread that is not
/// here.
pub(crate) fn is_child() -> bool {
    GENERATION.load(Ordering::Relaxed) > 0
}

/// What a lock guards. In a forked child, where a thread that did not come along may have held it at the fork, it is
/// tried for a moment only, and then `None`: nobody would ever let go of it.
pub(crate) fn unless_dead<G>(lock: impl FnOnce() -> G, attempt: impl Fn() -> Option<G>) -> Option<G> {
    const ATTEMPTS: usize = 100;
    if !is_child() {
        return Some(lock());
    }
    (0..ATTEMPTS).find_map(|_| {
        let guard = attempt();
        if guard.is_none() {
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
        guard
    })
}

/// What a lock guards, unless somebody else has it.
pub(crate) fn available<G>(attempt: Result<G, TryLockError<G>>) -> Option<G> {
    match attempt {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Process {
    /// The calling process, watched for forks from now on.
    pub(crate) fn current() -> Process {
        watch();
        Process { generation: GENERATION.load(Ordering::Relaxed) }
    }

    /// No process: the calling one is always another.
    pub(crate) const fn none() -> Process {
        Process { generation: u32::MAX }
    }

    /// Whether the calling process was forked since.
    #[inline]
    pub(crate) fn was_forked(self) -> bool {
        self.generation != GENERATION.load(Ordering::Relaxed)
    }
}

#[cfg(unix)]
#[allow(unsafe_code)]
mod hooks {
    use super::{AtomicU32, Ordering, GENERATION};
    use std::ffi::c_int;
    use std::sync::Once;

    type Handler = extern "C" fn();

    extern "C" {
        fn pthread_atfork(prepare: Option<Handler>, parent: Option<Handler>, child: Option<Handler>)
            -> c_int;
        fn atexit(handler: Handler) -> c_int;
    }

    extern "C" fn in_child() {
        let generation: &AtomicU32 = &GENERATION;
        generation.fetch_add(1, Ordering::Relaxed);
        #[cfg(feature = "ring")]
        super::super::map::close_in_child();
    }

    pub(super) fn watch() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: the declaration is POSIX's; the handler is a plain function that lives as long as the
            // program, and does nothing but add to an atomic and make system calls, which is safe in a child of a
            // threaded process.
            unsafe { pthread_atfork(None, None, Some(in_child)) };
        });
    }

    pub(super) fn at_exit(handler: Handler) {
        // SAFETY: the declaration is C's; the handler is a plain function that lives as long as the program and
        // catches its own panics.
        unsafe { atexit(handler) };
    }
}

#[cfg(unix)]
fn watch() {
    hooks::watch();
}

/// There is no fork to watch for.
#[cfg(not(unix))]
fn watch() {}

/// Has `handler` called when the program exits by `exit` or by returning from `main`.
#[cfg(unix)]
pub(crate) fn at_exit(handler: extern "C" fn()) {
    hooks::at_exit(handler);
}

/// Nothing calls back there; the guard is what flushes.
#[cfg(not(unix))]
pub(crate) fn at_exit(_handler: extern "C" fn()) {}
