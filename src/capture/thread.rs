//! What a thread keeps between two calls: its scratch buffer with its name and the context of the span it is in, its
//! lane, the spans it is inside.
//!
//! In: nothing but calls from one thread. Out: memory that is reused, so that a call allocates nothing.
//! Everything is reached with `try_with`: in a thread-local destructor of the program a call finds none of it,
//! and falls back to fresh memory. A call nested too deep (a `Debug` that logs) finds [`take`] closed.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::bytes::Bytes;
use super::record::{HEADER, MAX_RECORD};
#[cfg(feature = "tracing")]
use super::version::Version;

/// How deep a `Debug` that logs may nest into itself before its messages are dropped and counted.
const MAX_DEPTH: u8 = 4;
/// The depth of a thread of this crate: nothing it logs is captured.
const OWN_THREAD: u8 = u8::MAX;
/// A scratch buffer that has grown past this is made small again, and its context forgotten. So no context is kept of
/// a record that had to be shortened, because that one was longer.
const KEEP_BYTES: usize = MAX_RECORD;

/// A span some layer has entered on this thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entered {
    pub(crate) layer: u32,
    /// Spans entered before it and not left when it was entered, at least as far as it matters whether there are any.
    depth: u32,
    pub(crate) span: u64,
    /// Which entering of a span it was, on this thread: 0 stands for no span at all.
    number: u64,
}

impl Entered {
    /// In no span.
    pub(crate) const NONE: Entered = Entered { layer: u32::MAX, depth: 0, span: 0, number: 0 };

    /// The layer and the span are these.
    fn is_of(self, layer: u32, span: u64) -> bool {
        (self.layer, self.span) == (layer, span)
    }
}

/// The number of an entering that is none: what is in front of the entries must be written anew.
const NO_CONTEXT: u64 = u64::MAX;

struct Local {
    /// Taken out while a message is captured.
    scratch: Cell<Option<Box<Buffer>>>,
    /// A message has been captured on this thread, so an empty `scratch` is one in use.
    has_begun: Cell<bool>,
    buffer: Cell<Option<Bytes>>,
    /// The spans entered before the [current](CURRENT) one and not left yet.
    outer: RefCell<Vec<Entered>>,
}

thread_local! {
    // None of these has a destructor, so they work until the very end of a thread, and need no look whether they do.
    /// The span entered last, and not left yet.
    static CURRENT: Cell<Entered> = const { Cell::new(Entered::NONE) };
    /// Spans ever entered.
    #[cfg(feature = "tracing")]
    static ENTERED: Cell<u64> = const { Cell::new(0) };
    static DEPTH: Cell<u8> = const { Cell::new(0) };
    static INDEX: Cell<usize> = const { Cell::new(usize::MAX) };
    static BRIDGING: Cell<bool> = const { Cell::new(false) };
    static LOCAL: Local = const {
        Local {
            scratch: Cell::new(None),
            has_begun: Cell::new(false),
            buffer: Cell::new(None),
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

/// What a message is captured in. It begins with what the next message is likely to begin with too: room for the
/// header, the thread's name, the context of the span the thread was in. The message's own values go behind that.
pub(crate) struct Buffer {
    pub(crate) bytes: Bytes,
    /// Where the thread's name ends and the context begins.
    name_end: usize,
    /// Where the context ends, and values begin.
    context_end: usize,
    /// The [number](Entered::number) of the entering whose context that is.
    context_of: u64,
    #[cfg(feature = "tracing")]
    version: Version,
    /// The thread's [`index`], at hand without another look at a thread-local.
    pub(crate) thread: usize,
    /// It stays with the thread while it has no more memory than this: nothing at all if it is nested in another.
    keep_bytes: usize,
}

impl Buffer {
    /// How long the thread's name and the context are.
    #[inline]
    pub(crate) fn lengths(&self) -> (usize, usize) {
        let Buffer { name_end, context_end, .. } = *self;
        (name_end.wrapping_sub(HEADER), context_end.wrapping_sub(name_end))
    }

    /// Whether the context is that of the span this layer has entered last on this thread.
    #[cfg(feature = "tracing")]
    #[inline(always)]
    pub(crate) fn has_context_of_current(&self, layer: u32) -> bool {
        let Entered { number, layer: of, .. } = CURRENT.get();
        self.context_of == number && (number == 0 || (of == layer && self.version.is_current()))
    }

    /// Sees to it that the context is that of the span `of`; before any value. `append` appends it, and says of what
    /// version it is: only if it is not there from the message before.
    #[cfg(feature = "tracing")]
    #[inline]
    pub(crate) fn set_context(
        &mut self,
        of: Entered,
        append: impl FnOnce(Entered, &mut Bytes) -> Option<Version>,
    ) {
        let is_there = self.context_of == of.number && (of.number == 0 || self.version.is_current());
        if is_there {
            return;
        }
        self.forget_context();
        if of.number == 0 {
            self.context_of = 0;
        } else if let Some(version) = self.set_other_context(|bytes| append(of, bytes)) {
            self.version = version;
            self.context_of = of.number;
        }
    }

    /// The context is what `append` appends; before any value, and for this message only.
    #[cfg(feature = "tracing")]
    #[inline]
    pub(crate) fn set_other_context<R>(&mut self, append: impl FnOnce(&mut Bytes) -> R) -> R {
        self.forget_context();
        let result = append(&mut self.bytes);
        self.context_end = self.bytes.len();
        result
    }

    /// The message is in no span, wherever it is made.
    #[cfg(feature = "tracing")]
    pub(crate) fn clear_context(&mut self) {
        self.set_context(Entered::NONE, |_, _| None);
    }

    /// The context is none; the next message writes its own.
    fn forget_context(&mut self) {
        self.bytes.truncate(self.name_end);
        self.context_end = self.name_end;
        self.context_of = NO_CONTEXT;
    }
}

/// A buffer one message is captured in: the calling thread's own, or a fresh one when that is in use.
///
/// To be [put back](put_back). No `Drop` does that, because it would not be inlined; if ever a panic of this crate's
/// own comes in between, the thread goes on with fresh buffers. `None` on this crate's own threads and when nested too
/// deep.
#[inline]
pub(crate) fn take() -> Option<Box<Buffer>> {
    match LOCAL.try_with(|local| local.scratch.take()) {
        Ok(Some(buffer)) => Some(buffer),
        _ => fresh(),
    }
}

/// The first of the thread, or one nested in another: its own is in use.
#[cold]
#[inline(never)]
fn fresh() -> Option<Box<Buffer>> {
    let depth = DEPTH.get();
    if depth >= MAX_DEPTH {
        return None;
    }
    let is_nested = LOCAL.try_with(|local| local.has_begun.replace(true)).unwrap_or(true);
    DEPTH.set(depth + u8::from(is_nested));
    let mut bytes = Bytes::default();
    bytes.push([0; HEADER]);
    bytes.extend_from_slice(thread_name().as_bytes());
    let name_end = bytes.len();
    Some(Box::new(Buffer {
        bytes,
        name_end,
        context_end: name_end,
        context_of: Entered::NONE.number,
        #[cfg(feature = "tracing")]
        version: Version::default(),
        thread: index(),
        keep_bytes: if is_nested { 0 } else { KEEP_BYTES },
    }))
}

/// Makes a buffer ready for the next message of the thread.
#[inline(always)]
pub(crate) fn put_back(mut buffer: Box<Buffer>) {
    if buffer.bytes.capacity() > buffer.keep_bytes {
        return put_back_rarely(buffer);
    }
    let context_end = buffer.context_end;
    buffer.bytes.rewind(context_end);
    let _ = LOCAL.try_with(|local| local.scratch.set(Some(buffer)));
}

/// A nested buffer goes; one that has grown large gets small again.
#[cold]
#[inline(never)]
fn put_back_rarely(mut buffer: Box<Buffer>) {
    if buffer.keep_bytes == 0 {
        DEPTH.set(DEPTH.get().saturating_sub(1));
        return;
    }
    buffer.forget_context();
    let keep_bytes = buffer.keep_bytes;
    buffer.bytes.shrink_to(keep_bytes);
    let _ = LOCAL.try_with(|local| local.scratch.set(Some(buffer)));
}

/// A buffer for values that are put together over several calls, without being in the middle of a message.
#[inline]
pub(crate) fn take_buffer() -> Bytes {
    LOCAL.try_with(|local| local.buffer.take()).ok().flatten().unwrap_or_default()
}

/// Gives a buffer back for the next message.
#[inline]
pub(crate) fn put_buffer(mut bytes: Bytes) {
    if bytes.capacity() <= KEEP_BYTES {
        bytes.truncate(0);
        let _ = LOCAL.try_with(|local| local.buffer.set(Some(bytes)));
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

/// The span a layer has entered last on this thread and not left yet, or [`Entered::NONE`].
#[cfg(feature = "tracing")]
#[inline]
pub(crate) fn current_span(layer: u32) -> Entered {
    let current = current_of_any();
    if current.layer == layer || current.number == 0 {
        return current;
    }
    current_among_others(layer)
}

/// The number of that span; 0 if there is none.
#[cfg(feature = "tracing")]
#[inline]
pub(crate) fn current_span_number(layer: u32) -> u64 {
    let Entered { number, layer: of, span, .. } = CURRENT.get();
    match number == 0 || of == layer {
        true => span,
        false => current_among_others(layer).span,
    }
}

/// Several layers enter the same spans.
#[cfg(feature = "tracing")]
#[cold]
fn current_among_others(layer: u32) -> Entered {
    let find = |local: &Local| {
        let outer = local.outer.try_borrow().ok()?;
        outer.iter().rev().find(|one| one.layer == layer).copied()
    };
    LOCAL.try_with(find).ok().flatten().unwrap_or(Entered::NONE)
}

/// The span any layer has entered last on this thread and not left yet, or [`Entered::NONE`].
#[inline]
pub(crate) fn current_of_any() -> Entered {
    CURRENT.get()
}

/// A layer enters a span.
#[cfg(feature = "tracing")]
#[inline]
pub(crate) fn enter(layer: u32, span: u64) {
    let number = ENTERED.get() + 1;
    ENTERED.set(number);
    let outer = CURRENT.get();
    let depth = if outer.number == 0 { 0 } else { outer.depth.saturating_add(1) };
    CURRENT.set(Entered { layer, depth, span, number });
    if depth > 0 {
        let _ = LOCAL.try_with(|local| {
            if let Ok(mut others) = local.outer.try_borrow_mut() {
                others.push(outer);
            }
        });
    }
}

/// A layer leaves a span, as a rule the last one it entered.
#[cfg(feature = "tracing")]
#[inline]
pub(crate) fn exit(layer: u32, span: u64) {
    let current = CURRENT.get();
    let is_current = current.is_of(layer, span);
    if is_current && current.depth == 0 {
        return CURRENT.set(Entered::NONE);
    }
    let next = LOCAL.try_with(|local| {
        let Ok(mut outer) = local.outer.try_borrow_mut() else { return Entered::NONE };
        if is_current {
            return outer.pop().unwrap_or(Entered::NONE);
        }
        if let Some(position) = outer.iter().rposition(|other| other.is_of(layer, span)) {
            outer.remove(position);
        }
        Entered::NONE
    });
    if is_current {
        CURRENT.set(next.unwrap_or(Entered::NONE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_captures_get_a_buffer_each_until_they_are_too_deep() {
        let mut held: Vec<_> = (0..=MAX_DEPTH).map(|_| take().expect("not too deep")).collect();
        held[0].bytes.push([1]);
        let (name, _) = held[1].lengths();
        assert_eq!(held[1].bytes.len(), HEADER + name);
        assert!(take().is_none());
        assert!(is_capturing());
        held.into_iter().rev().for_each(put_back);
        assert!(!is_capturing());
        let again = take().expect("not nested");
        let (name, _) = again.lengths();
        assert_eq!(again.bytes.len(), HEADER + name);
    }

    #[test]
    fn this_crates_own_threads_capture_nothing() {
        std::thread::spawn(|| {
            mark_as_own();
            assert!(is_own());
            assert!(take().is_none());
        })
        .join()
        .expect("no panic");
    }

    #[cfg(feature = "tracing")]
    #[test]
    fn spans_are_left_in_any_order_and_each_layer_sees_its_own() {
        enter(1, 10);
        enter(2, 10);
        enter(1, 11);
        exit(1, 10);
        assert_eq!(current_span(1).span, 11);
        assert_eq!(current_span(2).span, 10);
        assert!(current_of_any().is_of(1, 11));
        exit(9, 9);
        exit(2, 10);
        assert_eq!(current_span(2), Entered::NONE);
    }

    #[cfg(feature = "tracing")]
    #[test]
    fn a_context_is_asked_for_once_while_a_span_is_entered_and_again_when_a_value_was_recorded() {
        const TREE: usize = 77;
        let captured = |append: &str| {
            let mut scratch = take().expect("not nested");
            scratch.set_context(current_of_any(), |_, bytes| {
                let version = Version::of(TREE);
                bytes.extend_from_slice(append.as_bytes());
                Some(version)
            });
            let context = scratch.bytes[HEADER + scratch.lengths().0..].to_vec();
            put_back(scratch);
            String::from_utf8(context).expect("text")
        };
        assert_eq!(captured("none is asked for"), "");
        enter(1, 10);
        assert_eq!(captured("a"), "a");
        assert_eq!(captured("b"), "a");
        enter(1, 11);
        assert_eq!(captured("c"), "c");
        exit(1, 11);
        assert_eq!(captured("d"), "d", "what was kept of the outer span was written over");
        assert_eq!(captured("e"), "d");
        crate::capture::version::raise(TREE);
        assert_eq!(captured("f"), "f");
        exit(1, 10);
        assert_eq!(captured("g"), "");
        enter(1, 10);
        assert_eq!(captured("h"), "h", "a span with the same number may be another by now");
        exit(1, 10);
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("abcdef", 3), "abc");
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("é", 1), "");
        assert_eq!(cut("ok", 9), "ok");
    }
}
