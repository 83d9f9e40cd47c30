//! Panics: a message of type `panic`, severity 1, before anything else happens.
//!
//! In: what the panic hook is told. Out: a record for every pipeline that wants panics, flushed with a deadline,
//! so that it arrives also when the program aborts. The hook that was installed before is called first.

use std::backtrace::Backtrace;
use std::panic::PanicHookInfo;
use std::sync::Once;

use super::record::{Entries, Kind, Name, Part};
use super::{thread, Draft, Outline};
use crate::message::Severity;
use crate::pipeline::{self, Pipeline};

/// Installs the hook, once in a process.
pub(crate) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            before(info);
            report(info);
        }));
    });
}

fn report(info: &PanicHookInfo<'_>) {
    // One of our own threads would wait for itself.
    if thread::is_own() {
        return;
    }
    for pipeline in pipeline::for_panics() {
        send(&pipeline, info);
        // A value that panicked while it was captured is caught, and costs no more than itself: nobody must wait.
        if !thread::is_capturing() {
            pipeline.flush(pipeline.flush_timeout);
        }
    }
}

fn send(pipeline: &Pipeline, info: &PanicHookInfo<'_>) {
    let severity = Severity::Alert.number();
    if pipeline.queue.was_forked() || !pipeline.passes("panic", severity, None) {
        return;
    }
    Draft::capture(pipeline, |mut draft| {
        #[cfg(feature = "tracing")]
        draft.buffer().set_context(thread::current_of_any(), super::span::append_context);
        let mut entries = draft.entries();
        write(info, &mut entries);
        let truncated = entries.truncated();
        let kind = Kind::Log;
        draft.finish(Outline { kind, severity, messages: 1, line: true, truncated, callsite: 0 });
        draft.send(severity, 1);
    });
}

fn write(info: &PanicHookInfo<'_>, entries: &mut Entries<'_>) {
    const LONGEST_BACKTRACE: usize = 16 * 1024;
    entries.text(Name::Part(Part::Type), "panic");
    entries.text(Name::Part(Part::Payload), message(info));
    if let Some(location) = info.location() {
        entries.display(Name::Inline(b"location"), location);
        entries.text(Name::Part(Part::File), location.file());
        entries.u64(Name::Part(Part::Line), u64::from(location.line()));
    }
    let backtrace = Backtrace::force_capture().to_string();
    entries.text(Name::Inline(b"backtrace"), thread::cut(&backtrace, LONGEST_BACKTRACE));
}

/// What the program panicked with; `panic_any` can be given anything, which has no text.
fn message<'i>(info: &'i PanicHookInfo<'_>) -> &'i str {
    let payload = info.payload();
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("Box<dyn Any>")
}
