//! What a thread keeps between two calls: its scratch buffer, its name, its lane, the spans it is inside.
//!
//! In: nothing but calls from one thread. Out: memory that is reused, so that a call allocates nothing.
//! Everything is reached with `try_with`: in a thread-local destructor of the program a call finds none of it,
//! and falls back to fresh memory. A call nested too deep (a `Debug` that logs) finds [`Scratch::take`] closed.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::record::HEADER;

/// How deep a `Debug` that logs may nest into itself before its messages are dropped and counted.
const MAX_DEPTH: u8 = 4;
/// The depth of a thread of this crate: nothing it logs is captured.
const OWN_THREAD: u8 = u8::MAX;
/// A scratch buffer that has grown past this is given back to the allocator.
const KEEP_BYTES: usize = 64 * 1024;

/// A span some layer has entered on this thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entered {
    pub(crate) layer: u32,
    pub(crate) span: u64,
}

struct Local {
    /// Taken out while a message is captured.
    scratch: Cell<Option<Box<Buffer>>>,
    /// A message has been captured on this thread, so an empty `scratch` is one in use.
    has_begun: Cell<bool>,
    buffer: Cell<Vec<u8>>,
    /// The span entered last.
    current: Cell<Option<Entered>>,
    /// Those entered before it.
    outer: RefCell<Vec<Entered>>,
}

thread_local! {
    // Neither of these two has a destructor, so both work until the very end of a thread.
    static DEPTH: Cell<u8> = const { Cell::new(0) };
    static INDEX: Cell<usize> = const { Cell::new(usize::MAX) };
    static BRIDGING: Cell<bool> = const { Cell::new(false) };
    static LOCAL: Local = const {
        Local {
            scratch: Cell::new(None),
            has_begun: Cell::new(false),
            buffer: Cell::new(Vec::new()),
            current: Cell::new(None),
            outer: RefCell::new(Vec::new()),
        }
    };
}

/// Marks the calling thread as one of this crate's own.
pub(crate) fn mark_as_own() {
    // Its scratch buffer stays empty for ever, so that every capture asks for the depth.
    DEPTH.set(OWN_THREAD);
}

/// Whether the calling thread is one of this crate's own.
pub(crate) fn is_own() -> bool {
    DEPTH.get() == OWN_THREAD
}

/// Whether the calling thread is in the middle of capturing a message: its scratch buffer is in use.
pub(crate) fn is_capturing() -> bool {
    let is_taken = LOCAL.try_with(|local| {
        let buffer = local.scratch.take();
        let is_taken = buffer.is_none() && local.has_begun.get();
        local.scratch.set(buffer);
        is_taken
    });
    DEPTH.get() != 0 || is_taken.unwrap_or(false)
}

/// Runs `show`, which shows a `log` record that is captured already to the other layers of the stack.
#[cfg(feature = "log")]
pub(crate) fn bridging(show: impl FnOnce()) {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            BRIDGING.set(self.0);
        }
    }
    let _reset = Reset(BRIDGING.replace(true));
    show();
}

/// Whether the calling thread is in [`bridging`].
#[cfg(feature = "tracing")]
pub(crate) fn is_bridging() -> bool {
    BRIDGING.get()
}

/// A small number of the calling thread, the same for as long as it lives.
#[inline]
pub(crate) fn index() -> usize {
    match INDEX.get() {
        usize::MAX => assign_index(),
        index => index,
    }
}

#[cold]
fn assign_index() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let index = NEXT.fetch_add(1, Ordering::Relaxed) % usize::MAX;
    INDEX.set(index);
    index
}

/// What a message is captured in. It begins with what every record of the thread begins with, room for the header
/// and the thread's name; the message goes behind that.
struct Buffer {
    bytes: Vec<u8>,
    prefix: usize,
    /// The thread's [`index`], at hand without another look at a thread-local.
    thread: usize,
    /// It stays with the thread while it has no more memory than this: nothing at all if it is nested in another.
    keep_bytes: usize,
}

/// A buffer one message is captured in: the calling thread's own, or a fresh one when that is in use.
///
/// To be [put back](Scratch::put_back). No `Drop` does that, because it would not be inlined; if ever a panic of this
/// crate's own comes in between, the thread goes on with fresh buffers.
pub(crate) struct Scratch(Box<Buffer>);

impl Scratch {
    /// `None` on this crate's own threads and when nested too deep.
    #[inline]
    pub(crate) fn take() -> Option<Scratch> {
        match LOCAL.try_with(|local| local.scratch.take()) {
            Ok(Some(buffer)) => Some(Scratch(buffer)),
            _ => Scratch::fresh(),
        }
    }

    /// The first of the thread, or one nested in another: its own is in use.
    #[cold]
    #[inline(never)]
    fn fresh() -> Option<Scratch> {
        let depth = DEPTH.get();
        if depth >= MAX_DEPTH {
            return None;
        }
        let is_nested = LOCAL.try_with(|local| local.has_begun.replace(true)).unwrap_or(true);
        DEPTH.set(depth + u8::from(is_nested));
        let mut bytes = vec![0; HEADER];
        bytes.extend_from_slice(thread_name().as_bytes());
        let keep_bytes = if is_nested { 0 } else { KEEP_BYTES };
        Some(Scratch(Box::new(Buffer { prefix: bytes.len(), bytes, thread: index(), keep_bytes })))
    }

    /// What is captured so far, and where it begins.
    #[inline]
    pub(crate) fn parts(&mut self) -> (&mut Vec<u8>, usize) {
        let Buffer { bytes, prefix, .. } = &mut *self.0;
        (bytes, *prefix)
    }

    /// The calling thread's [`index`].
    #[inline]
    pub(crate) fn thread(&self) -> usize {
        self.0.thread
    }

    /// Ready for the next message.
    #[inline(always)]
    pub(crate) fn put_back(self) {
        let Scratch(mut buffer) = self;
        if buffer.bytes.capacity() > buffer.keep_bytes {
            return put_back_rarely(buffer);
        }
        buffer.bytes.truncate(buffer.prefix);
        put_back(buffer);
    }
}

/// A nested buffer goes; one that has grown large gets small again.
#[cold]
#[inline(never)]
fn put_back_rarely(mut buffer: Box<Buffer>) {
    if buffer.keep_bytes == 0 {
        DEPTH.set(DEPTH.get().saturating_sub(1));
    } else {
        buffer.bytes.truncate(buffer.prefix);
        buffer.bytes.shrink_to(buffer.keep_bytes);
        put_back(buffer);
    }
}

#[inline]
fn put_back(buffer: Box<Buffer>) {
    let _ = LOCAL.try_with(|local| local.scratch.set(Some(buffer)));
}

/// A buffer for values that are put together over several calls, without being in the middle of a message.
#[inline]
pub(crate) fn take_buffer() -> Vec<u8> {
    LOCAL.try_with(|local| local.buffer.take()).unwrap_or_default()
}

/// Gives a buffer back for the next message.
#[inline]
pub(crate) fn put_buffer(mut bytes: Vec<u8>) {
    if bytes.capacity() <= KEEP_BYTES {
        bytes.clear();
        let _ = LOCAL.try_with(|local| local.buffer.set(bytes));
    }
}

/// The calling thread's name: its own, else `ThreadId(7)`.
fn thread_name() -> Box<str> {
    const LONGEST: usize = 64;
    let thread = std::thread::current();
    let name = match thread.name() {
        Some(name) => name.to_owned(),
        None => format!("{:?}", thread.id()),
    };
    cut(&name, LONGEST).into()
}

/// At most `longest` bytes of `text`, cut between two characters.
pub(crate) fn cut(text: &str, longest: usize) -> &str {
    if text.len() <= longest {
        return text;
    }
    let end = (0..=longest).rev().find(|&index| text.is_char_boundary(index)).unwrap_or(0);
    &text[..end]
}

/// The span a layer has entered last on this thread and not left yet.
#[inline]
pub(crate) fn current_span(layer: u32) -> Option<u64> {
    match current_of_any() {
        Some(current) if current.layer == layer => Some(current.span),
        None => None,
        Some(_) => current_among_others(layer),
    }
}

/// Several layers enter the same spans.
#[cold]
fn current_among_others(layer: u32) -> Option<u64> {
    let find = |local: &Local| {
        let outer = local.outer.try_borrow().ok()?;
        outer.iter().rev().find(|one| one.layer == layer).map(|one| one.span)
    };
    LOCAL.try_with(find).unwrap_or(None)
}

/// The span any layer has entered last on this thread and not left yet.
#[inline]
pub(crate) fn current_of_any() -> Option<Entered> {
    LOCAL.try_with(|local| local.current.get()).unwrap_or(None)
}

/// A layer enters a span.
#[inline]
pub(crate) fn enter(one: Entered) {
    let _ = LOCAL.try_with(|local| {
        if let Some(outer) = local.current.replace(Some(one)) {
            if let Ok(mut others) = local.outer.try_borrow_mut() {
                others.push(outer);
            }
        }
    });
}

/// A layer leaves a span, as a rule the last one it entered.
#[inline]
pub(crate) fn exit(one: Entered) {
    let _ = LOCAL.try_with(|local| {
        let Ok(mut outer) = local.outer.try_borrow_mut() else { return };
        if local.current.get() == Some(one) {
            local.current.set(outer.pop());
        } else if let Some(position) = outer.iter().rposition(|&other| other == one) {
            outer.remove(position);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_captures_get_a_buffer_each_until_they_are_too_deep() {
        let mut held: Vec<_> = (0..=MAX_DEPTH).map(|_| Scratch::take().expect("not too deep")).collect();
        held[0].parts().0.push(1);
        let (second, start) = held[1].parts();
        assert_eq!(second.len(), start);
        assert!(Scratch::take().is_none());
        assert!(is_capturing());
        held.into_iter().rev().for_each(Scratch::put_back);
        assert!(!is_capturing());
        let mut again = Scratch::take().expect("not nested");
        let (bytes, start) = again.parts();
        assert_eq!(bytes.len(), start);
    }

    #[test]
    fn this_crates_own_threads_capture_nothing() {
        std::thread::spawn(|| {
            mark_as_own();
            assert!(is_own());
            assert!(Scratch::take().is_none());
        })
        .join()
        .expect("no panic");
    }

    #[test]
    fn spans_are_left_in_any_order_and_each_layer_sees_its_own() {
        let [a, b] = [Entered { layer: 1, span: 10 }, Entered { layer: 2, span: 10 }];
        enter(a);
        enter(b);
        enter(Entered { layer: 1, span: 11 });
        exit(a);
        assert_eq!(current_span(1), Some(11));
        assert_eq!(current_span(2), Some(10));
        assert_eq!(current_of_any(), Some(Entered { layer: 1, span: 11 }));
        exit(Entered { layer: 9, span: 9 });
        exit(b);
        assert_eq!(current_span(2), None);
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("abcdef", 3), "abc");
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("é", 1), "");
        assert_eq!(cut("ok", 9), "ok");
    }
}
