//! Stacks from text: the backtrace of a Rust panic, and the traceback that Python clients append to a line. In: text. Out:
//! frames, the innermost last, as Sentry wants them. Text that is neither gives none, and nothing is lost: it stays
//! where it was.

use sentry_types::protocol::v7::{Frame, Stacktrace};

/// Sentry shows no more.
const MOST_FRAMES: usize = 250;
const TRACEBACK: &str = "Traceback (most recent call last):";
/// Functions that every panic and every thread begins with: nobody's own code.
const SYSTEM: [&str; 10] = [
    "std::",
    "core::",
    "alloc::",
    "<alloc::",
    "<core::",
    "<std::",
    "rust_begin_unwind",
    "__rust",
    "__libc",
    "_start",
];

/// A stack of frames, if there are any.
pub(super) fn of(mut frames: Vec<Frame>) -> Option<Stacktrace> {
    if frames.len() > MOST_FRAMES {
        // Of a recursion without end, where it began and where it was.
        let middle = frames.len() - MOST_FRAMES / 2;
        frames.drain(MOST_FRAMES / 2..middle);
    }
    (!frames.is_empty()).then(|| Stacktrace { frames, ..Stacktrace::default() })
}

/// One frame, where the place is all that is known.
pub(super) fn place(file: &str, line: Option<u64>) -> Frame {
    Frame { filename: Some(file.to_owned()), lineno: line, in_app: Some(true), ..Frame::default() }
}

/// The frames of what `std::backtrace::Backtrace` prints: `N: function`, then maybe `at file:line:column`.
pub(super) fn of_rust(text: &str) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(place) = line.strip_prefix("at ") {
            if let Some(frame) = frames.last_mut().filter(|frame| frame.filename.is_none()) {
                set_place(frame, place);
            }
        } else if let Some(function) = numbered(line) {
            let is_ours = !SYSTEM.iter().any(|prefix| function.starts_with(prefix));
            frames.push(Frame {
                function: Some(function.to_owned()),
                in_app: Some(is_ours),
                ..Frame::default()
            });
        }
    }
    frames.reverse();
    frames
}

fn numbered(line: &str) -> Option<&str> {
    let (number, function) = line.split_once(": ")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(function.trim())
}

/// `file:line:column`, where a file may have colons of its own.
fn set_place(frame: &mut Frame, place: &str) {
    let mut parts = place.rsplitn(3, ':');
    let (column, line, file) = (parts.next(), parts.next(), parts.next());
    let number = |text: Option<&str>| text.and_then(|text| text.parse().ok());
    match (file, number(line)) {
        (Some(file), Some(line)) => {
            frame.filename = Some(file.to_owned());
            frame.lineno = Some(line);
            frame.colno = number(column);
        }
        _ => frame.filename = Some(place.to_owned()),
    }
}

/// What a Python traceback says.
#[derive(Debug, PartialEq)]
pub(super) struct Traceback {
    /// The text before it.
    pub(super) before: String,
    pub(super) class: String,
    pub(super) value: String,
    pub(super) frames: Vec<Frame>,
}

/// The last traceback in `text`: of a chain of them, the one that was not handled.
pub(super) fn of_python(text: &str) -> Option<Traceback> {
    let begin = text.rfind(TRACEBACK)?;
    let before = text[..text.find(TRACEBACK)?].trim_end().to_owned();
    let mut frames: Vec<Frame> = Vec::new();
    let mut lines = text[begin + TRACEBACK.len()..].lines().skip(1);
    let last = loop {
        let line = lines.next()?;
        if !line.starts_with(' ') {
            break line;
        }
        match file_line(line.trim()) {
            Some(frame) => frames.push(frame),
            None => {
                let frame = frames.last_mut().filter(|frame| frame.context_line.is_none());
                frame.into_iter().for_each(|frame| frame.context_line = Some(line.trim().to_owned()));
            }
        }
    };
    let (class, value) = last.split_once(": ").unwrap_or((last, ""));
    let value: Vec<&str> = std::iter::once(value).chain(lines).collect();
    let is_class = !class.is_empty() && class.chars().all(|c| c.is_alphanumeric() || "_.".contains(c));
    is_class.then(|| Traceback { before, class: class.to_owned(), value: value.join("\n"), frames })
}

/// `File "x.py", line 7, in function`
fn file_line(line: &str) -> Option<Frame> {
    let (file, rest) = line.strip_prefix("File \"")?.split_once("\", line ")?;
    let (number, function) = rest.split_once(", in ").unwrap_or((rest, "<module>"));
    let is_ours = !file.contains("site-packages") && !file.starts_with("/usr/lib");
    Some(Frame {
        filename: Some(file.to_owned()),
        lineno: Some(number.parse().ok()?),
        function: Some(function.to_owned()),
        in_app: Some(is_ours),
        ..Frame::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn innermost() -> String {
        std::backtrace::Backtrace::force_capture().to_string()
    }

    #[test]
    fn a_real_backtrace_has_its_innermost_frame_last_and_knows_whose_code_it_is() {
        let frames = of_rust(&innermost());
        let named = |part: &str| {
            frames
                .iter()
                .position(|frame| frame.function.as_ref().is_some_and(|function| function.contains(part)))
        };
        let (own, test) = (named("tests::innermost").unwrap(), named("a_real_backtrace").unwrap());
        assert!(own > test, "{frames:?}");
        assert_eq!(frames[own].in_app, Some(true));
        assert!(frames.iter().any(|frame| frame.in_app == Some(false)));
    }

    #[test]
    fn every_line_of_a_backtrace_is_read() {
        let text =
            "   0: shop::pay\n             at /src/a b:c.rs:12:5\n   1: std::rt::lang_start\n   2: _start\n";
        let frames = of_rust(text);
        let seen: Vec<_> = frames
            .iter()
            .map(|frame| (frame.function.as_deref(), frame.filename.as_deref(), frame.lineno, frame.in_app))
            .collect();
        assert_eq!(
            seen,
            [
                (Some("_start"), None, None, Some(false)),
                (Some("std::rt::lang_start"), None, None, Some(false)),
                (Some("shop::pay"), Some("/src/a b:c.rs"), Some(12), Some(true)),
            ]
        );
        assert!(of_rust("disabled backtrace").is_empty());
        assert_eq!(of(of_rust(&text.repeat(1_000))).unwrap().frames.len(), MOST_FRAMES);
    }

    #[test]
    fn a_python_traceback_is_an_exception_with_its_frames() {
        // By Python 3.11, traceback.format_exc().
        let text = "cannot pay\nTraceback (most recent call last):\n  File \"shop.py\", line 3, in pay\n    charge()\n    \
                    ^^^^^^^^\n  File \"/usr/lib/python3/x.py\", line 9, in charge\n    raise ValueError(\"no card\\nat all\")\n\
                    ValueError: no card\nat all";
        let traceback = of_python(text).unwrap();
        let (before, class, value) = (&*traceback.before, &*traceback.class, &*traceback.value);
        assert_eq!((before, class, value), ("cannot pay", "ValueError", "no card\nat all"));
        assert_eq!(traceback.frames.len(), 2);
        assert_eq!(traceback.frames[0].context_line.as_deref(), Some("charge()"));
        assert_eq!(traceback.frames[1].function.as_deref(), Some("charge"));
        assert_eq!((traceback.frames[0].in_app, traceback.frames[1].in_app), (Some(true), Some(false)));
        for none in
            ["", "no traceback", TRACEBACK, "Traceback (most recent call last):\n  File \"x\", line y\n"]
        {
            assert_eq!(of_python(none), None, "{none}");
        }
    }
}
