//! Headers that the address does not show: credentials.
//!
//! In: a file, read anew for each request so that a token can be changed while the program runs, and a variable. Out:
//! headers, marked sensitive. Nothing can be lost here. No error says what a line holds.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use ureq::http::{HeaderName, HeaderValue};

/// Longer than any header that a server takes.
const MOST_BYTES: u64 = 64 * 1024;

/// What belongs to the request itself.
const OWN: [&str; 8] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "transfer-encoding",
    "upgrade",
];

pub(super) type Header = (HeaderName, HeaderValue);

/// Where headers come from.
#[derive(Debug, Default)]
pub(super) struct Headers {
    file: Option<PathBuf>,
    /// Read once: nobody outside can change the variable of a process, and a program that does so itself, in C, must
    /// not meet a reader on another thread.
    fixed: Vec<Header>,
}

impl Headers {
    /// Headers from `file` and the variable `variable`, each if there is one, and `own`, which are lines as well.
    ///
    /// # Errors
    /// What is wrong with which of the two.
    pub(super) fn from(file: Option<PathBuf>, variable: Option<&str>, own: &str) -> Result<Self, String> {
        let mut fixed = match variable {
            None => Vec::new(),
            Some(name) => {
                let value = std::env::var(name).map_err(|error| format!("header-env {name}: {error}"))?;
                parse(&value).map_err(|problem| format!("header-env {name}: {problem}"))?
            }
        };
        fixed.extend(parse(own)?);
        let headers = Headers { file, fixed };
        headers.read().map_err(|error| error.to_string())?;
        Ok(headers)
    }

    /// The headers of the next request.
    pub(super) fn read(&self) -> io::Result<Vec<Header>> {
        let mut headers = self.fixed.clone();
        if let Some(path) = &self.file {
            let named = |problem: String| io::Error::other(format!("header-file {path:?}: {problem}"));
            let mut text = String::new();
            File::open(path)
                .and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text))
                .map_err(|error| named(error.to_string()))?;
            headers.extend(parse(&text).map_err(named)?);
        }
        Ok(headers)
    }
}

/// Headers from lines; empty ones do no harm.
fn parse(text: &str) -> Result<Vec<Header>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| header(line).map_err(|problem| format!("line {}: {problem}", index + 1)))
        .collect()
}

fn header(line: &str) -> Result<Header, &'static str> {
    let (name, value) = line.split_once(':').ok_or("not \"Name: value\"")?;
    let name: HeaderName = name.trim().parse().map_err(|_| "the name is none that HTTP knows")?;
    if OWN.contains(&name.as_str()) {
        return Err("a header that the request has already");
    }
    let mut value: HeaderValue =
        value.trim().parse().map_err(|_| "the value has characters that HTTP forbids")?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// Whether `text` repeats a part of a header, as a server's answer may.
pub(super) fn are_in(headers: &[Header], text: &str) -> bool {
    let words = headers.iter().filter_map(|(_, value)| value.to_str().ok()).flat_map(str::split_whitespace);
    words.filter(|word| word.len() > 3).any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_line_by_line_and_never_shown() {
        let headers = parse("Authorization: Bearer abc:def\n\n X-Scope :  a\n").unwrap();
        assert_eq!(headers[0].0, "authorization");
        assert_eq!(headers[0].1, "Bearer abc:def");
        assert_eq!((headers[1].0.as_str(), headers[1].1.as_bytes()), ("x-scope", b"a".as_slice()));
        assert!(!format!("{headers:?}").contains("abc"), "{headers:?}");
        assert!(are_in(&headers, "no such token: abc:def") && !are_in(&headers, "unauthorized"));
    }

    #[test]
    fn a_line_that_is_no_header_is_named_by_its_number_and_not_by_what_it_holds() {
        for (text, problem) in [
            ("A: b\nsecret", "line 2: not \"Name: value\""),
            ("se cret: x", "line 1: the name"),
            ("A: secret\u{7f}", "line 1: the value"),
            ("Content-Length: 7", "line 1: a header that the request has already"),
            ("host: secret", "line 1: a header that the request has already"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(problem) && !error.contains("secret"), "{error}");
        }
    }
}
