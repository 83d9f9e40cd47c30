//! What is wrong with a configuration, for people. In: problems and where they are. Out: each with its line of the file
//! and a caret.
//!
//! A line may hold a secret. What follows the key of one is never shown, nor what stands before the `@` of a URL.

use std::fmt;
use std::ops::Range;

/// The names of options that hold secrets, whatever kinds of outputs this program is built with.
pub(super) const SECRETS: [&str; 6] = ["dsn", "key", "hmac_key", "password", "secret", "token"];

/// Why a configuration is not taken: everything that is wrong with it, in the order of the file.
///
/// Its `Display` shows each problem with its place, its line of the file and a caret. It never shows a DSN or a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    origin: String,
    problems: Vec<ConfigProblem>,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigProblem {
    /// The line in the file, from 1; 0 when the file itself cannot be read.
    pub line: usize,
    /// The column in the line, in characters, from 1.
    pub column: usize,
    /// The option or the table it is about, such as `output.text.rotate_bytes`; empty when there is none.
    pub key: String,
    /// What is wrong, and what is accepted.
    pub text: String,
    /// The line as it may be shown.
    shown: String,
    /// How many characters of it stand before the mark.
    before: usize,
    /// How many characters are marked.
    marked: usize,
}

impl ConfigError {
    pub(super) fn new(origin: &str, mut problems: Vec<ConfigProblem>) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        ConfigError { origin: origin.to_owned(), problems }
    }

    /// The file cannot be read.
    pub(super) fn unreadable(origin: &str, error: &std::io::Error) -> Self {
        let text = error.to_string();
        let problem = ConfigProblem { line: 0, text, ..ConfigProblem::new("", 0..0, "", String::new()) };
        ConfigError::new(origin, vec![problem])
    }

    /// What is wrong, in the order of the file; at least one.
    pub fn problems(&self) -> &[ConfigProblem] {
        &self.problems
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.problems.iter().enumerate() {
            if number > 0 {
                formatter.write_str("\n")?;
            }
            problem.write(&self.origin, formatter)?;
        }
        Ok(())
    }
}

impl ConfigProblem {
    pub(super) fn new(file: &str, span: Range<usize>, key: &str, text: String) -> Self {
        let start = floor(file, span.start);
        let line_start = file[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let rest = &file[line_start..];
        let line_text = rest[..rest.find('\n').unwrap_or(rest.len())].trim_end_matches('\r');
        let end = floor(file, span.end).clamp(start, (line_start + line_text.len()).max(start));
        let shown = Shown::of(line_text);
        let before = shown.column(start - line_start);
        ConfigProblem {
            line: file[..line_start].matches('\n').count() + 1,
            column: file[line_start..start].chars().count() + 1,
            key: key.to_owned(),
            text: without_users(&text),
            marked: shown.column(end - line_start).saturating_sub(before).max(1),
            before,
            shown: shown.text,
        }
    }

    fn write(&self, origin: &str, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        let ConfigProblem { line, column, before, marked, ref shown, .. } = *self;
        if line == 0 {
            return write!(formatter, "{origin}: {key}{}", self.text);
        }
        let gutter = " ".repeat(line.to_string().len());
        writeln!(formatter, "{origin}:{line}:{column}: {key}{}", self.text)?;
        writeln!(formatter, " {line} | {shown}")?;
        write!(formatter, " {gutter} | {}{}", " ".repeat(before), "^".repeat(marked))
    }
}

/// The nearest place that is none in the middle of a character.
fn floor(text: &str, place: usize) -> usize {
    let place = place.min(text.len());
    (0..=place).rev().find(|&place| text.is_char_boundary(place)).unwrap_or(0)
}

/// How much of a line is shown.
const SHOWN: usize = 160;

/// What is shown in the place of a secret.
const SECRET: &str = "***";

/// A line without what nobody may read, and where its bytes have gone.
struct Shown {
    text: String,
    /// For each byte of the line, its column in `text`.
    columns: Vec<usize>,
}

impl Shown {
    fn of(line: &str) -> Self {
        let hidden = hidden(line);
        let mut shown = Shown { text: String::new(), columns: Vec::with_capacity(line.len() + 1) };
        let mut count = 0;
        for (place, character) in line.char_indices() {
            shown.columns.extend(std::iter::repeat_n(count, character.len_utf8()));
            let secret = hidden.iter().find(|range| range.contains(&place));
            if secret.is_some_and(|range| range.start != place) || count >= SHOWN {
                continue;
            }
            match secret {
                Some(_) => shown.text.push_str(SECRET),
                // A tab has no width that a caret could follow.
                None if character.is_control() => shown.text.push(' '),
                None => shown.text.push(character),
            }
            count += if secret.is_some() { SECRET.len() } else { 1 };
        }
        shown.columns.push(count);
        shown
    }

    fn column(&self, place: usize) -> usize {
        self.columns.get(place).or(self.columns.last()).copied().unwrap_or(0)
    }
}

/// Where a line may hold secrets: all that follows the key of one, and the user of a URL.
fn hidden(line: &str) -> Vec<Range<usize>> {
    if let Some(start) = SECRETS.into_iter().filter_map(|name| value_of(line, name)).min() {
        let mut ranges = users(&line[..start]);
        ranges.push(start..line.len());
        return ranges;
    }
    users(line)
}

/// Where what follows `name =` begins.
fn value_of(line: &str, name: &str) -> Option<usize> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    line.match_indices(name).find_map(|(start, _)| {
        if line[..start].bytes().next_back().is_some_and(is_word) {
            return None;
        }
        let after = &line[start + name.len()..];
        let trimmed = after.trim_start_matches(['"', '\'', ' ', '\t']);
        let value = trimmed.strip_prefix('=')?.trim_start();
        Some(line.len() - value.len())
    })
}

/// What stands before the last `@` of each URL.
fn users(line: &str) -> Vec<Range<usize>> {
    let ends = |character: char| character.is_whitespace() || matches!(character, '"' | '\'');
    line.match_indices("://")
        .filter_map(|(place, _)| {
            let start = place + "://".len();
            let url = &line[start..];
            let url = &url[..url.find(ends).unwrap_or(url.len())];
            url.rfind('@').map(|length| start..start + length)
        })
        .collect()
}

/// A text in which no URL tells its user.
fn without_users(text: &str) -> String {
    let mut out = text.to_owned();
    for range in users(text).into_iter().rev() {
        out.replace_range(range, SECRET);
    }
    out
}

/// A text as an error may quote it: without the users of URLs, and not for ever.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let shown = Shown::of(text).text;
    match shown.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &shown[..end]),
        None => format!("{shown:?}"),
    }
}

/// The name that was probably meant.
pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let length = name.chars().count();
    let near = known.map(|known| (distance(name, known), known)).min()?;
    (near.0 <= (length / 3).max(1)).then_some(near.1)
}

/// How many characters must be changed, added or taken away, or swapped with the next, to make one of the other.
fn distance(one: &str, other: &str) -> usize {
    // Names that are long are no misspelt ones of ours.
    let (one, other): (Vec<char>, Vec<char>) =
        (one.chars().take(64).collect(), other.chars().take(64).collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, a) in one.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, b) in other.iter().enumerate() {
            let mut cost =
                (last[column] + usize::from(a != b)).min(last[column + 1] + 1).min(next[column] + 1);
            if row > 0 && column > 0 && *a == other[column - 1] && one[row - 1] == *b {
                cost = cost.min(before[column - 1] + 1);
            }
            next.push(cost);
        }
        before = std::mem::replace(&mut last, next);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_wherever_it_stands_in_a_line() {
        for (line, shown) in [
            ("dsn = \"https://abc@sentry/1\"", "dsn = ***"),
            ("\"dsn\"='https://abc@sentry/1'", "\"dsn\"=***"),
            ("x = { type = \"sentry\", dsn = \"https://abc@h/1\" }", "x = { type = \"sentry\", dsn = ***"),
            ("url = \"https://bob:pw@host/\" # dsn", "url = \"https://***@host/\" # dsn"),
            ("dsn_file = \"/run/dsn\"", "dsn_file = \"/run/dsn\""),
            ("my_dsn = \"x\"", "my_dsn = \"x\""),
        ] {
            assert_eq!(Shown::of(line).text, shown);
        }
    }

    #[test]
    fn the_caret_stands_under_what_is_shown_and_the_column_is_the_files() {
        let file = "a = 1\nurl = \"https://bob:password@host/x\" # ä\n";
        let start = file.find("host").expect("there");
        let problem = ConfigProblem::new(file, start..start + 4, "k", String::from("no"));
        assert_eq!((problem.line, problem.column), (2, 29));
        let shown = ConfigError::new("f.toml", vec![problem]).to_string();
        let expected =
            "f.toml:2:29: k: no\n 2 | url = \"https://***@host/x\" # ä\n   |                    ^^^^";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_place_beyond_the_file_or_within_a_character_is_no_trouble() {
        for (file, span) in
            [("", 5..9), ("ä", 1..1), ("x\r\ny", 2..90), ("x", std::ops::Range { start: 7, end: 3 })]
        {
            let problem = ConfigProblem::new(file, span, "", String::from("no"));
            assert!(problem.to_string_for_test().contains('^'));
        }
    }

    impl ConfigProblem {
        fn to_string_for_test(&self) -> String {
            ConfigError::new("f", vec![self.clone()]).to_string()
        }
    }

    #[test]
    fn a_misspelt_name_finds_the_one_that_was_meant_and_a_strange_one_finds_none() {
        let names = ["rotate_bytes", "rotate_every", "keep", "gzip", "url"];
        for (name, meant) in [
            ("rotate_byte", Some("rotate_bytes")),
            ("kepe", Some("keep")),
            ("ur", Some("url")),
            ("entirely", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, names.into_iter()), meant, "{name}");
        }
    }
}
