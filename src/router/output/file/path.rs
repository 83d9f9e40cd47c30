//! Names of files that are built from messages. In: a path with `{type}` and its kin, and messages. Out: paths inside the
//! directory before the first `{`, whatever the messages say. Nothing is opened here.
//!
//! Lost here: the difference between words that look alike once they are made safe; their messages share a file.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::delivery::encode::text::date_and_time;
use crate::Message;

/// The longest word of a message in a name.
const MAX_WORD_BYTES: usize = 60;

/// The longest name of a file or directory: 255 on most file systems, less what rotation appends.
const MAX_NAME_BYTES: usize = 255 - "~20261122T171500Z-1000000.gz.part".len();

/// The word of all names beyond the number that get files of their own.
const OTHER: &str = "other";

/// Between the words of a name; never part of one.
const SEPARATOR: u8 = b'/';

/// What marks a finished file; so no name may hold it, or a message could be taken for one.
pub(super) const FINISHED: char = '~';

const HOUR: u64 = 3_600;

/// Where lines go.
#[derive(Debug)]
pub(super) enum Target {
    /// To one file.
    Fixed(PathBuf),
    /// To files named after the messages.
    Built(Template),
}

/// A path with placeholders, read.
#[derive(Debug)]
pub(super) struct Template {
    /// What exists, and is never left.
    pub(super) base: PathBuf,
    /// Below it: directories, and a file at the end.
    components: Vec<Vec<Part>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Type,
    Logger,
    Hostname,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Word(Word),
    Date,
    Hour,
}

/// One directory or file of a [`Family`].
pub(super) type Component = Vec<Piece>;

/// A piece of a name, with the message's words in their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Date,
    Hour,
}

/// All files of one name, whatever their date and hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Family {
    pub(super) base: PathBuf,
    pub(super) components: Vec<Component>,
}

/// Hours since the epoch.
pub(super) fn hour_now() -> u32 {
    (seconds(SystemTime::now()) / HOUR) as u32
}

/// Seconds since the epoch; a clock before it says zero.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The date and the hour as names have them.
pub(super) fn date_and_hour(hour: u32) -> (String, String) {
    let text = date_and_time(u64::from(hour) * HOUR);
    let text = String::from_utf8_lossy(&text);
    (text[..10].to_owned(), text[11..13].to_owned())
}

impl Target {
    /// # Errors
    /// What is wrong with the path, and what is accepted.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        match path.to_str() {
            Some(text) if text.contains(['{', '}']) => Template::read(text).map(Target::Built),
            _ => Ok(Target::Fixed(path.to_owned())),
        }
    }

    /// Whether the path has a date, so that files come to their end without being rotated.
    pub(super) fn is_dated(&self) -> bool {
        matches!(self, Target::Built(template) if template.has(&Part::Date))
    }
}

impl Template {
    fn read(text: &str) -> Result<Self, String> {
        let first = text.find(['{', '}']).unwrap_or(0);
        let (base, rest) = text.split_at(text[..first].rfind('/').map_or(0, |slash| slash + 1));
        let base = if base.is_empty() { "." } else { base };
        let components = rest.split('/').map(component).collect::<Result<_, _>>()?;
        Ok(Template { base: base.into(), components })
    }

    fn has(&self, part: &Part) -> bool {
        self.components.iter().flatten().any(|found| found == part)
    }

    /// Whether names change with the clock.
    pub(super) fn is_dated(&self) -> bool {
        self.has(&Part::Date) || self.has(&Part::Hour)
    }

    /// Whether they tell the hour too.
    fn is_hourly(&self) -> bool {
        self.has(&Part::Hour)
    }

    /// The period that the hour belongs to, as a name has it.
    pub(super) fn period(&self, hour: u32) -> u32 {
        match (self.is_dated(), self.is_hourly()) {
            (false, _) => 0,
            (true, true) => hour,
            (true, false) => hour - hour % 24,
        }
    }

    fn words(&self) -> impl Iterator<Item = Word> + '_ {
        self.components.iter().flatten().filter_map(|part| match part {
            Part::Word(word) => Some(*word),
            _ => None,
        })
    }

    /// Appends what distinguishes the file of `message`: the period and the words.
    pub(super) fn name(&self, message: &Message, name: &mut Vec<u8>) {
        let period = if self.is_dated() { self.period(hour_now()) } else { 0 };
        name.extend_from_slice(&period.to_be_bytes());
        for (index, word) in self.words().enumerate() {
            if index > 0 {
                name.push(SEPARATOR);
            }
            let text = match word {
                Word::Type => &message.r#type,
                Word::Logger => &message.logger,
                Word::Hostname => message.hostname.as_deref().unwrap_or_default(),
            };
            push_word(text, name);
        }
    }

    /// The words of all names for which there is no file of their own.
    pub(super) fn other(&self) -> Vec<u8> {
        let words: Vec<&str> = self.words().map(|_| OTHER).collect();
        words.join("/").into_bytes()
    }

    /// All files that have these words.
    pub(super) fn family(&self, words: &[u8]) -> Family {
        let mut words = words.split(|&byte| byte == SEPARATOR).map(String::from_utf8_lossy);
        let mut piece = |part: &Part| match part {
            Part::Literal(text) => Piece::Text(text.clone()),
            Part::Word(_) => Piece::Text(words.next().unwrap_or_default().into_owned()),
            Part::Date => Piece::Date,
            Part::Hour => Piece::Hour,
        };
        let components = self.components.iter().map(|parts| parts.iter().map(&mut piece).collect()).collect();
        Family { base: self.base.clone(), components }
    }
}

impl Family {
    /// The one file at `path`.
    pub(super) fn of_file(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_owned();
        let base = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Some(Family { base, components: vec![vec![Piece::Text(name)]] })
    }

    /// The directories below the base, and the file, of that hour.
    pub(super) fn names(&self, hour: u32) -> Vec<String> {
        let (date, hour) = date_and_hour(hour);
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Date => date.clone(),
            Piece::Hour => hour.clone(),
        };
        self.components.iter().map(|pieces| pieces.iter().map(text).collect()).collect()
    }
}

fn component(text: &str) -> Result<Vec<Part>, String> {
    if matches!(text, "" | "." | "..") || text.contains([FINISHED, '\0']) {
        return Err(format!("{text:?}: not the name of a file or directory after the first {{"));
    }
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(start) = rest.find(['{', '}']) {
        let (literal, behind) = rest.split_at(start);
        let end = behind.find('}').map_or(behind.len(), |end| end + 1);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.to_owned()));
        }
        parts.push(placeholder(&behind[..end])?);
        rest = &behind[end..];
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.to_owned()));
    }
    let longest: usize = parts.iter().map(Part::longest).sum();
    match longest <= MAX_NAME_BYTES {
        true => Ok(parts),
        false => Err(format!("{text}: may become {longest} bytes long; up to {MAX_NAME_BYTES} are accepted")),
    }
}

fn placeholder(text: &str) -> Result<Part, String> {
    match text {
        "{type}" => Ok(Part::Word(Word::Type)),
        "{logger}" => Ok(Part::Word(Word::Logger)),
        "{hostname}" => Ok(Part::Word(Word::Hostname)),
        "{date}" => Ok(Part::Date),
        "{hour}" => Ok(Part::Hour),
        _ => Err(format!("{text}: accepted are {{type}}, {{logger}}, {{hostname}}, {{date}} and {{hour}}")),
    }
}

impl Part {
    fn longest(&self) -> usize {
        match self {
            Part::Literal(text) => text.len(),
            Part::Word(_) => MAX_WORD_BYTES,
            Part::Date => "2026-11-22".len(),
            Part::Hour => "17".len(),
        }
    }
}

/// A word of a message as part of a name: never empty, never a dot at its beginning, never a separator.
fn push_word(text: &str, name: &mut Vec<u8>) {
    let start = name.len();
    for character in text.chars().take(MAX_WORD_BYTES) {
        let is_first = name.len() == start;
        name.push(match character {
            '.' if is_first => b'_',
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => character as u8,
            _ => b'_',
        });
    }
    if name.len() == start {
        name.push(b'_');
    }
}

#[cfg(test)]
mod tests {
    use std::path::Component as Step;

    use proptest::prelude::*;

    use super::*;

    fn template(path: &str) -> Template {
        match Target::read(Path::new(path)) {
            Ok(Target::Built(template)) => template,
            other => panic!("{other:?}"),
        }
    }

    fn built(template: &Template, message: &Message) -> PathBuf {
        let mut name = Vec::new();
        template.name(message, &mut name);
        let names = template.family(&name[4..]).names(hour_of("2026-11-22", 17));
        template.base.join(names.iter().collect::<PathBuf>())
    }

    fn hour_of(date: &str, hour: u32) -> u32 {
        (0..).step_by(24).find(|&day| date_and_hour(day).0 == date).expect("a day") + hour
    }

    fn message(message_type: &str, logger: &str, hostname: Option<&str>) -> Message {
        let mut message = Message::new(message_type, "");
        message.logger = logger.to_owned();
        message.hostname = hostname.map(str::to_owned);
        message
    }

    #[test]
    fn a_path_is_built_from_the_message_and_the_clock() {
        let template = template("/var/log/metlog/{hostname}/x-{logger}.{type}-{date}T{hour}.log");
        assert_eq!(
            built(&template, &message("timer", "shop.db", Some("web-1"))),
            Path::new("/var/log/metlog/web-1/x-shop.db.timer-2026-11-22T17.log")
        );
    }

    #[test]
    fn what_a_message_says_never_leaves_the_directory() {
        let template = template("/base/{type}/{logger}.log");
        for (word, expected) in [
            ("..", "_."),
            (".", "_"),
            ("", "_"),
            ("../../etc/passwd", "_._.._etc_passwd"),
            ("/etc/passwd", "_etc_passwd"),
            ("a\0b\nc\\d", "a_b_c_d"),
            ("é~", "__"),
            (".hidden", "_hidden"),
            (&"x".repeat(5_000), &"x".repeat(60)),
        ] {
            let path = built(&template, &message(word, word, None));
            assert_eq!(path, Path::new("/base").join(expected).join(format!("{expected}.log")), "{word}");
        }
        assert_eq!(built(&self::template("{hostname}"), &message("", "", None)), Path::new("./_"));
    }

    #[test]
    fn a_template_that_cannot_be_built_safely_is_refused() {
        for (path, expected) in [
            ("/a/{typ}.log", "{typ}: accepted are {type}, {logger}, {hostname}, {date} and {hour}"),
            ("/a/{type.log", "{type.log: accepted are {type}, {logger}, {hostname}, {date} and {hour}"),
            ("/a/x}", "}: accepted are {type}, {logger}, {hostname}, {date} and {hour}"),
            ("/a/{type}/../x", "\"..\": not the name of a file or directory after the first {"),
            ("/a/{type}/", "\"\": not the name of a file or directory after the first {"),
            ("/a/{type}~", "\"{type}~\": not the name of a file or directory after the first {"),
        ] {
            assert_eq!(Target::read(Path::new(path)).expect_err(path), expected);
        }
        let long = format!("/a/{{type}}{}", "x".repeat(200));
        assert!(Target::read(Path::new(&long)).expect_err("too long").ends_with("up to 222 are accepted"));
    }

    proptest! {
        #[test]
        fn any_message_builds_one_short_name_a_component_inside_the_directory(
            message_type: String, logger in "(\\.|/|\u{0}|.){0,300}",
        ) {
            let template = template("/base/{type}{logger}/{logger}");
            let path = built(&template, &message(&message_type, &logger, None));
            let below = path.strip_prefix("/base").expect("inside");
            prop_assert!(below.components().all(|step| matches!(step, Step::Normal(_))));
            prop_assert_eq!(below.components().count(), 2);
            prop_assert!(below.iter().all(|name| name.len() <= MAX_NAME_BYTES));
        }
    }
}
