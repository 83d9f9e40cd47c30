//! The console output: messages for people, on standard output. In: messages. Out: one line each; on a terminal below
//! them one that says how much comes, kept up to date and gone at the end.
//!
//! Nothing of a message reaches the terminal as it is: whatever could move the cursor, change a colour, begin a
//! line or turn the direction of writing is written as an escape (`\n`, `\u{1b}`). Lost here: what cannot be written
//! (`failed`), because whoever read it has gone; of long texts the end (`line.rs`).

mod line;
mod summary;

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use super::{Batch, Context, Draw, Endpoint, Output, Place, Writer};
use crate::router::matcher::Matcher;
use crate::router::RouterError;
use crate::Message;
pub(in crate::router) use line::Escaped;
use line::{is_dangerous, Painter};
use summary::{Summary, Tally};

/// Whether the console is coloured. As text: `auto`, `always`, `never`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Color {
    /// When standard output is a terminal and the environment variable `NO_COLOR` is not set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    pub(super) fn applies(self) -> bool {
        match self {
            Color::Always => true,
            Color::Never => false,
            // https://no-color.org: set and not empty, whatever the value.
            Color::Auto => {
                io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        }
    }
}

impl FromStr for Color {
    type Err = crate::router::RouterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Color::Auto),
            "always" => Ok(Color::Always),
            "never" => Ok(Color::Never),
            _ => Err(crate::router::RouterError::Config {
                value: text.to_owned(),
                accepted: "auto, always or never",
            }),
        }
    }
}

/// What the console prints of a message. As text: `text`, `json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConsoleFormat {
    /// Time, severity, type, logger, payload and fields, in columns.
    #[default]
    Text,
    /// The whole message as JSON, one a line, never coloured or cut. Characters that could do something to a terminal are
    /// escaped as JSON knows it, so that it reads back equal.
    Json,
}

impl ConsoleFormat {
    fn name(self) -> &'static str {
        match self {
            ConsoleFormat::Text => "text",
            ConsoleFormat::Json => "json",
        }
    }
}

impl fmt::Display for ConsoleFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for ConsoleFormat {
    type Err = RouterError;

    fn from_str(text: &str) -> Result<Self, RouterError> {
        match text {
            "text" => Ok(ConsoleFormat::Text),
            "json" => Ok(ConsoleFormat::Json),
            _ => Err(RouterError::Config { value: text.to_owned(), accepted: "text or json" }),
        }
    }
}

/// Messages for people, on standard output, one line each.
///
/// On a terminal the last line is a summary: messages a second in all and by type, and how many this output has lost
/// (`dropped` and `failed`) since the start. Its numbers are taken twice a second at most; when lines pass it is written
/// again below them. It counts what is routed here, also what the filter does not show.
///
/// ```
/// use tracing_metlog::router::{Color, ConsoleFormat, ConsoleOutput, Matcher, Route};
/// use tracing_metlog::Severity;
///
/// let output = ConsoleOutput::new()
///     .color(Color::Never)
///     .format(ConsoleFormat::Json)
///     .filter(Matcher::severity_at_most(Severity::Error));
/// let route = Route::new(Matcher::any(), output.into());
/// ```
#[derive(Clone, Debug)]
pub struct ConsoleOutput {
    color: Color,
    format: ConsoleFormat,
    filter: Option<Matcher>,
    summary: bool,
}

impl ConsoleOutput {
    /// Text, coloured on a terminal, of every message.
    pub fn new() -> Self {
        ConsoleOutput { color: Color::Auto, format: ConsoleFormat::Text, filter: None, summary: true }
    }

    /// Whether it is coloured. Default: on a terminal.
    #[must_use]
    pub fn color(mut self, color: Color) -> Self {
        self.color = color;
        self
    }

    /// What is printed of a message. Default: text.
    #[must_use]
    pub fn format(mut self, format: ConsoleFormat) -> Self {
        self.format = format;
        self
    }

    /// Shows only messages that match. The others are `delivered` too: nobody wanted more of them. Default: all.
    #[must_use]
    pub fn filter(mut self, filter: Matcher) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Whether there is a summary on a terminal. Elsewhere, and where the environment variable `TERM` is `dumb`, there
    /// never is. Default: yes.
    #[must_use]
    pub fn summary(mut self, summary: bool) -> Self {
        self.summary = summary;
        self
    }
}

impl Default for ConsoleOutput {
    fn default() -> Self {
        ConsoleOutput::new()
    }
}

impl From<ConsoleOutput> for Output {
    fn from(settings: ConsoleOutput) -> Self {
        Output::new(settings)
    }
}

impl Endpoint for ConsoleOutput {
    fn name(&self) -> String {
        String::from("console")
    }

    fn color(&mut self, color: Color) {
        self.color = color;
    }

    fn open(self: Box<Self>) -> io::Result<Place> {
        let is_dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
        let tally = (self.summary && !is_dumb && io::stdout().is_terminal()).then(Arc::<Tally>::default);
        let summary = tally.clone().map(|tally| Summary::new(tally, self.color.applies(), summary::width));
        let line = drawing(self.format, self.color.applies());
        let filter = self.filter;
        let draw = move |message: &Message, lines: &mut Vec<u8>| {
            if let Some(tally) = &tally {
                tally.count(message);
            }
            match &filter {
                Some(filter) if !filter.matches(message) => Ok(()),
                _ => line(message, lines),
            }
        };
        Ok(Place { draw: Some(Arc::new(draw)), writer: Box::new(Console { out: io::stdout(), summary }) })
    }
}

/// Where lines for people are written.
struct Console<W> {
    out: W,
    summary: Option<Summary>,
}

impl<W: Write + Send> Console<W> {
    fn print(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes).and_then(|()| self.out.flush())
    }
}

impl<W: Write + Send> Writer for Console<W> {
    fn write(&mut self, batch: &Batch, context: &Context) {
        let printed = match &mut self.summary {
            Some(summary) => {
                summary.wake();
                let bytes = summary.around(&batch.lines);
                self.print(&bytes)
            }
            None => self.print(&batch.lines),
        };
        context.settle(batch.count, printed);
    }

    fn due(&self) -> Option<Instant> {
        self.summary.as_ref().and_then(Summary::due)
    }

    fn tick(&mut self, context: &Context) {
        let bytes = self.summary.as_mut().map(|summary| summary.renew(context.lost(), Instant::now()));
        if let Some(Err(error)) = bytes.map(|bytes| self.print(&bytes)) {
            context.settle(0, Err(error));
        }
    }

    fn close(&mut self, _: &Context) {
        if let Some(summary) = self.summary.take() {
            // Whoever looked at it may be gone already.
            let _ = self.print(summary.erased());
        }
    }
}

/// Messages as lines.
fn drawing(format: ConsoleFormat, colored: bool) -> Draw {
    match format {
        ConsoleFormat::Json => Arc::new(json),
        ConsoleFormat::Text => {
            let painter = Painter::new(colored);
            Arc::new(move |message, lines| {
                let mut line = String::with_capacity(256);
                // Writing into a string cannot fail.
                let _ = painter.line(message, &mut line);
                line.push('\n');
                lines.extend_from_slice(line.as_bytes());
                Ok(())
            })
        }
    }
}

fn json(message: &Message, lines: &mut Vec<u8>) -> Result<(), String> {
    let mut line = message.to_json();
    if line.contains(is_dangerous) {
        // JSON has such characters in strings only, where each may be written so; all of them are short enough for it.
        line = line.chars().fold(String::with_capacity(line.len() + 64), |mut escaped, character| {
            match is_dangerous(character) {
                true => escaped.push_str(&format!("\\u{:04x}", u32::from(character))),
                false => escaped.push(character),
            }
            escaped
        });
    }
    lines.extend_from_slice(line.as_bytes());
    lines.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_line_of_json_is_whole_reads_back_equal_and_does_nothing_to_a_terminal(
            text in "([\u{0}-\u{a0}]|[\u{2000}-\u{2070}]|.){0,20}",
        ) {
            let mut message = Message::new(text.as_str(), text.as_str());
            message.fields.insert(text.clone(), text.into());
            let mut line = Vec::new();
            json(&message, &mut line).expect("any message is a line");
            let line = String::from_utf8(line).expect("text");
            prop_assert!(!line.trim_end_matches('\n').contains(is_dangerous));
            prop_assert_eq!(line.parse::<Message>().expect("a message"), message);
        }
    }

    #[test]
    fn what_the_filter_does_not_match_is_not_shown_and_is_no_failure() {
        let only_timers = ConsoleOutput::new().format(ConsoleFormat::Json).filter(Matcher::type_is("timer"));
        let draw = Box::new(only_timers).open().expect("opens").draw.expect("draws");
        let mut lines = Vec::new();
        for message_type in ["oldstyle", "timer", "counter"] {
            draw(&Message::new(message_type, ""), &mut lines).expect("drawn or left out");
        }
        let lines = String::from_utf8(lines).expect("text");
        let shown: Vec<Message> = lines.lines().map(|line| line.parse().expect("a message")).collect();
        assert_eq!(shown.iter().map(|message| message.r#type.as_str()).collect::<Vec<_>>(), ["timer"]);
    }

    #[test]
    fn a_format_is_written_as_it_is_read() {
        for name in ["text", "json"] {
            assert_eq!(name.parse::<ConsoleFormat>().expect(name).to_string(), name);
        }
        let error = "xml".parse::<ConsoleFormat>().expect_err("no format").to_string();
        assert_eq!(error, "\"xml\": accepted is text or json");
    }
}
