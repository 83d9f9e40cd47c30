//! The file output: lines in one file, or in files that are named after what is in them. In: messages. Out: one line
//! each, in one `write` for many.
//!
//! ```text
//! draw ── line.rs, and the name of its file (path.rs), on the threads of inputs
//!   └─ writer.rs ── which files are open ── appender.rs ── one of them
//!                     └─ rotation.rs: finished files ── keeper.rs ── packed or removed, on a thread of its own
//! ```
//!
//! Lost here: what cannot be written, for instance on a full disk; it is counted message by message (`failed`), and the
//! file goes on with a line of its own when there is room again. What was written is the kernel's: a crash of this
//! process loses none of it, a crash of the machine what the kernel had not brought to the disk. What was asked to be
//! removed (`keep`) is removed.

mod appender;
mod keeper;
mod line;
mod path;
mod rotation;
mod writer;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::{Endpoint, Output, Place};
use crate::router::RouterError;
use path::Target;
use rotation::Rotation;
use writer::Files;

/// What a line of a file is. As text: `json`, `text`, `payload`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileFormat {
    /// The whole message, as JSON. The only one that reads back equal.
    #[default]
    Json,
    /// `TIMESTAMP PAYLOAD`, for people and `grep`.
    ///
    /// One message is one line, whatever it holds: a newline in it is written as `\n`, other control characters and
    /// Unicode's line separators as `\r`, `\u{1b}` and so on. A tab and a backslash stay as they are. A blank in a
    /// timestamp is written as `_`, and a timestamp that is missing as `-`, so that the first blank ends it.
    Text,
    /// `PAYLOAD` alone, with the same escapes: for lines that bring their own time, such as CEF.
    Payload,
}

impl FileFormat {
    fn name(self) -> &'static str {
        match self {
            FileFormat::Json => "json",
            FileFormat::Text => "text",
            FileFormat::Payload => "payload",
        }
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for FileFormat {
    type Err = RouterError;

    fn from_str(text: &str) -> Result<Self, RouterError> {
        [FileFormat::Json, FileFormat::Text, FileFormat::Payload]
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| RouterError::Config { value: text.to_owned(), accepted: "json, text or payload" })
    }
}

/// Messages in a file, one line each: appended to, made if it is not there.
///
/// A path that holds `{type}`, `{logger}`, `{hostname}`, `{date}` or `{hour}` is built for each message. Files and
/// directories so named are made inside the directory before the first `{`, which must exist, and nowhere else: of a
/// message's own words only ASCII letters, digits, `.`, `_` and `-` come through (anything else becomes `_`, as does
/// a dot at the beginning and a word that is empty), and no more than 60 bytes. `{date}` (`2026-11-22`) and `{hour}`
/// (`00` to `23`) are those of the router's clock when the message arrived, in UTC: a client cannot choose them.
///
/// At most 64 files are open at a time, the least recently used is closed. Of a path that is built, the first 1,000
/// names since the router's start, not counting date and hour, get files of their own; further ones share the file whose
/// words are `other`, so that a client which invents types fills neither the directory nor the memory.
///
/// A file that is renamed or removed while it is written to (by `logrotate`, for instance) is made anew at the next
/// write, and one that is truncated is continued at its new end; on Unix. A line that somebody was killed in the middle of
/// is ended before the next one begins.
///
/// ```
/// use std::time::Duration;
/// use tracing_metlog::router::{FileFormat, FileOutput, Matcher, Route};
///
/// let lines = FileOutput::new("/var/log/metlog/{logger}/{date}.log").format(FileFormat::Text).gzip(true).keep(7);
/// let rest = FileOutput::new("/var/log/metlog/rest.jsonl").rotate_bytes(100 << 20).keep(10);
/// let routes = [Route::new(Matcher::type_is("oldstyle"), lines.into()), Route::new(Matcher::any(), rest.into())];
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOutput {
    path: PathBuf,
    format: FileFormat,
    rotation: Rotation,
}

impl FileOutput {
    /// A file at `path`, of JSON lines, which is never rotated.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        FileOutput { path: path.into(), format: FileFormat::default(), rotation: Rotation::default() }
    }

    /// What a line is. Default: JSON.
    #[must_use]
    pub fn format(mut self, format: FileFormat) -> Self {
        self.format = format;
        self
    }

    /// No file becomes longer than so many bytes, but for a single line that is: before, it is finished, and a new one
    /// is begun. A finished file is called `NAME~20261122T171500Z`, after the time of its end, with `-2` and so on behind
    /// it if there were more in that second. Default: any length.
    #[must_use]
    pub fn rotate_bytes(mut self, bytes: u64) -> Self {
        self.rotation.bytes = Some(bytes);
        self
    }

    /// A file is finished whenever the clock in UTC passes a multiple of this, seconds at the least: a day is from
    /// midnight to midnight. An empty file is not. Default: never.
    #[must_use]
    pub fn rotate_every(mut self, period: Duration) -> Self {
        self.rotation.every = Some(period);
        self
    }

    /// How many finished files of each name are kept; the oldest are removed. Files of earlier days or hours, of a path
    /// with `{date}`, count as finished. Nothing is removed that is not named exactly as a file that this output has
    /// finished. Default: all.
    #[must_use]
    pub fn keep(mut self, files: usize) -> Self {
        self.rotation.keep = Some(files);
        self
    }

    /// Packs finished files, as `NAME~20261122T171500Z.gz`; with `{date}` in the path also those of earlier days, which
    /// are finished then. What a router that ends has not packed yet the next one does. Default: no.
    #[must_use]
    pub fn gzip(mut self, gzip: bool) -> Self {
        self.rotation.gzip = gzip;
        self
    }
}

impl From<FileOutput> for Output {
    fn from(settings: FileOutput) -> Self {
        Output::new(settings)
    }
}

impl FileOutput {
    /// What the path means, if the other options go with it.
    fn target(&self) -> io::Result<Target> {
        let refused = |problem| io::Error::new(io::ErrorKind::InvalidInput, problem);
        let target = Target::read(&self.path).map_err(refused)?;
        self.rotation.check(&target).map_err(refused)?;
        Ok(target)
    }
}

impl Endpoint for FileOutput {
    fn name(&self) -> String {
        format!("file:{}", self.path.display())
    }

    fn check(&self) -> io::Result<()> {
        self.target().map(drop)
    }

    fn settings(&self) -> String {
        format!("{self:?}")
    }

    fn open(self: Box<Self>) -> io::Result<Place> {
        let target = Arc::new(self.target()?);
        let writer = Box::new(Files::open(Arc::clone(&target), self.rotation)?);
        let draw = line::draw(self.format);
        let draw: super::Draw = match &*target {
            Target::Fixed(_) => Arc::new(draw),
            Target::Built(_) => Arc::new(move |message, lines| match &*target {
                Target::Built(template) => {
                    writer::frame(lines, |name| template.name(message, name), |lines| draw(message, lines))
                }
                Target::Fixed(_) => draw(message, lines),
            }),
        };
        Ok(Place { draw: Some(draw), writer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_would_do_nothing_are_refused_when_the_file_is_opened() {
        let directory = std::env::temp_dir();
        let fixed = FileOutput::new(directory.join(format!("metlog-options-{}.log", std::process::id())));
        let built = |name| FileOutput::new(directory.join(name));
        for (output, expected) in [
            (fixed.clone().keep(1), "keep: "),
            (fixed.clone().gzip(true), "gzip: "),
            (built("{type}.log").keep(1), "keep: "),
            (built("{hour}.log").gzip(true), "gzip: "),
            (fixed.clone().rotate_bytes(0), "rotate_bytes: "),
            (fixed.clone().rotate_every(Duration::from_millis(999)), "rotate_every: "),
            (built("{typo}.log"), "{typo}: "),
        ] {
            let error = Box::new(output).open().err().expect(expected).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        assert!(!directory.join(format!("metlog-options-{}.log", std::process::id())).exists());
    }

    #[test]
    fn a_format_is_written_as_it_is_read() {
        for name in ["json", "text", "payload"] {
            assert_eq!(name.parse::<FileFormat>().expect(name).to_string(), name);
        }
        let error = "xml".parse::<FileFormat>().expect_err("no format").to_string();
        assert_eq!(error, "\"xml\": accepted is json, text or payload");
    }
}
