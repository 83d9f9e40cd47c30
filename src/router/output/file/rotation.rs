//! Finished files: when a file is one, what it is called, and which of them there are. In: settings, names in
//! directories. Out: names. Nothing is removed here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::path::{date_and_hour, seconds, Component, Family, Piece, Target, FINISHED};
use crate::delivery::encode::text::date_and_time;

/// What a packed file's name ends in.
pub(super) const PACKED: &str = ".gz";

/// What it ends in while it is being packed.
pub(super) const PARTLY_PACKED: &str = ".gz.part";

/// The shortest time between two files: their names are made of seconds.
const SHORTEST: Duration = Duration::from_secs(1);

/// Files that are finished in one second, as many as names have room for.
const MOST_A_SECOND: u32 = 1_000_000;

/// When a file is finished, and what becomes of it then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rotation {
    pub(super) bytes: Option<u64>,
    pub(super) every: Option<Duration>,
    pub(super) keep: Option<usize>,
    pub(super) gzip: bool,
}

impl Rotation {
    /// # Errors
    /// The option that could not do what it says, and what it needs.
    pub(super) fn check(&self, target: &Target) -> Result<(), String> {
        let finishes = self.bytes.is_some() || self.every.is_some() || target.is_dated();
        if self.bytes == Some(0) {
            return Err(String::from("rotate_bytes: accepted is 1 and more"));
        }
        if self.every.is_some_and(|every| every < SHORTEST) {
            return Err(String::from("rotate_every: accepted is a second and more"));
        }
        for (name, is_set) in [("keep", self.keep.is_some()), ("gzip", self.gzip)] {
            if is_set && !finishes {
                return Err(format!(
                    "{name}: no file is ever finished; needs rotate_bytes, rotate_every or a path with {{date}}"
                ));
            }
        }
        match target {
            Target::Fixed(path) if finishes && Family::of_file(path).is_none() => {
                Err(format!("{}: only a file whose name is UTF-8 can be rotated", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Whether there is anything to do for finished files.
    pub(super) fn cares(&self) -> bool {
        self.keep.is_some() || self.gzip
    }

    /// Whether a file that was begun or written to at `since` belongs to an earlier period than now.
    pub(super) fn is_over(&self, since: SystemTime, now: SystemTime) -> bool {
        self.every.is_some_and(|every| {
            let period = |time| seconds(time) / every.as_secs().max(1);
            // A clock that was set back finishes nothing.
            period(since) < period(now)
        })
    }
}

/// Gives finished files names that only ever grow, also when the clock is set back or an older one is removed: what
/// is oldest by its name is removed first.
#[derive(Default)]
pub(super) struct Finisher {
    second: u64,
    count: u32,
}

impl Finisher {
    /// Renames a file to the name of a finished one.
    pub(super) fn finish(&mut self, path: &Path) -> io::Result<()> {
        // The file itself, not a link to it: the link stays where it is.
        let path = fs::canonicalize(path)?;
        loop {
            let mut name = path.as_os_str().to_owned();
            name.push(self.next());
            let is_free = |suffix: &str| {
                let mut name = name.clone();
                name.push(suffix);
                fs::symlink_metadata(&name).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            };
            if is_free("") && is_free(PACKED) && is_free(PARTLY_PACKED) {
                return fs::rename(&path, &name);
            }
            if self.count > MOST_A_SECOND {
                return Err(io::Error::other("there is no free name for a finished file"));
            }
        }
    }

    /// What follows the name of a file.
    fn next(&mut self) -> String {
        let now = seconds(SystemTime::now());
        self.count = if now > self.second { 1 } else { self.count + 1 };
        self.second = now.max(self.second);
        match self.count {
            1 => format!("{FINISHED}{}", stamp(self.second)),
            count => format!("{FINISHED}{}-{count}", stamp(self.second)),
        }
    }
}

/// `20261122T171500Z`
fn stamp(second: u64) -> String {
    let text = date_and_time(second);
    text.iter()
        .take(19)
        .filter(|byte| !matches!(byte, b'-' | b':'))
        .map(|&byte| char::from(byte))
        .chain(['Z'])
        .collect()
}

/// A file that was found, and what its name says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    /// Its date and hour, if the path has any.
    period: (String, String),
    /// When it was finished, and which one of that second; a file that was not is the youngest of its period.
    pub(super) finished: Option<Finished>,
    pub(super) path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Finished {
    stamp: String,
    count: u32,
    pub(super) packing: Packing,
}

/// How far a finished file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Packing {
    Plain,
    Partly,
    Packed,
}

impl Found {
    /// Whether nothing more is written to it at that hour: it was finished, or its day has passed.
    pub(super) fn is_past(&self, hour: u32) -> bool {
        let is_older = || {
            let (date, hour) = date_and_hour(hour);
            let (own_date, own_hour) = &self.period;
            // An hour without a date comes again tomorrow.
            !own_date.is_empty()
                && (own_date < &date || (own_date == &date && !own_hour.is_empty() && own_hour < &hour))
        };
        self.finished.is_some() || is_older()
    }

    /// Sorts by age, the oldest first.
    pub(super) fn age(&self) -> impl Ord + '_ {
        (&self.period, self.finished.is_none(), &self.finished)
    }
}

/// All files of a family. Links are neither followed nor found.
pub(super) fn find(family: &Family) -> io::Result<Vec<Found>> {
    let mut places = vec![(family.base.clone(), (String::new(), String::new()))];
    let Some((file, directories)) = family.components.split_last() else { return Ok(Vec::new()) };
    for directory in directories {
        places = step(&places, directory, |kind| kind.is_dir())?
            .into_iter()
            .filter(|(_, rest, _)| rest.is_empty())
            .map(|(path, _, period)| (path, period))
            .collect();
    }
    let found = step(&places, file, |kind| kind.is_file())?.into_iter();
    Ok(found
        .filter_map(|(path, rest, period)| match rest.strip_prefix(FINISHED) {
            Some(rest) => Some(Found { period, finished: Some(finished(rest)?), path }),
            None => rest.is_empty().then_some(Found { period, finished: None, path }),
        })
        .collect())
}

type Period = (String, String);

/// What in these directories is named like the component: with what follows the name, and the period so far.
fn step(
    places: &[(PathBuf, Period)],
    component: &Component,
    wanted: impl Fn(fs::FileType) -> bool,
) -> io::Result<Vec<(PathBuf, String, Period)>> {
    let mut found = Vec::new();
    for (directory, period) in places {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let matched = name.to_str().and_then(|name| read(name, component, period.clone()));
            if let Some((rest, period)) = matched {
                if entry.file_type().is_ok_and(&wanted) {
                    found.push((entry.path(), rest.to_owned(), period));
                }
            }
        }
    }
    Ok(found)
}

/// What follows the pieces in `name`, and the date and hour among them; `None` if they are not there.
fn read<'a>(name: &'a str, component: &Component, mut period: Period) -> Option<(&'a str, Period)> {
    let mut rest = name;
    for piece in component {
        match piece {
            Piece::Text(text) => rest = rest.strip_prefix(text.as_str())?,
            Piece::Date => (period.0, rest) = digits(rest, "0000-00-00")?,
            Piece::Hour => (period.1, rest) = digits(rest, "00")?,
        }
    }
    Some((rest, period))
}

/// The start of `text`, when it has digits where `form` has them and is equal elsewhere.
fn digits<'a>(text: &'a str, form: &str) -> Option<(String, &'a str)> {
    let start = text.get(..form.len())?;
    let fits = start.bytes().zip(form.bytes()).all(|(byte, form)| match form {
        b'0' => byte.is_ascii_digit(),
        _ => byte == form,
    });
    fits.then(|| (start.to_owned(), &text[form.len()..]))
}

/// Reads what stands behind the name of a finished file, exactly.
fn finished(rest: &str) -> Option<Finished> {
    let (stamp, rest) = digits(rest, "00000000T000000Z")?;
    let (rest, packing) = match (rest.strip_suffix(PARTLY_PACKED), rest.strip_suffix(PACKED)) {
        (Some(rest), _) => (rest, Packing::Partly),
        (None, Some(rest)) => (rest, Packing::Packed),
        (None, None) => (rest, Packing::Plain),
    };
    let count = match rest.strip_prefix('-') {
        // As it is written: no sign, no zero before it, and no `-1`.
        Some(text) => text.parse().ok().filter(|&count: &u32| count > 1 && count.to_string() == text)?,
        None => rest.is_empty().then_some(1)?,
    };
    Some(Finished { stamp, count, packing })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_this_output_writes_are_those_of_finished_files() {
        for (rest, expected) in [
            ("20261122T171500Z", Some((1, Packing::Plain))),
            ("20261122T171500Z-2", Some((2, Packing::Plain))),
            ("20261122T171500Z.gz", Some((1, Packing::Packed))),
            ("20261122T171500Z-10.gz.part", Some((10, Packing::Partly))),
            ("", None),
            ("20261122T171500Z-1", None),
            ("20261122T171500Z-02", None),
            ("20261122T171500Z-+2", None),
            ("20261122T171500Zx", None),
            ("20261122T171500Z.bak", None),
            ("2026112T171500Z", None),
            ("20261122T171500Z.gz.gz", None),
        ] {
            let found = finished(rest).map(|finished| (finished.count, finished.packing));
            assert_eq!(found, expected, "{rest}");
        }
        assert_eq!(stamp(0), "19700101T000000Z");
    }

    #[test]
    fn names_of_finished_files_grow_though_older_ones_are_removed_and_the_clock_is_set_back() {
        let mut finisher = Finisher::default();
        let mut last = None;
        for round in 0..30 {
            let name = finisher.next();
            let found =
                finished(name.strip_prefix(FINISHED).expect("the mark")).expect("a finished file's name");
            assert!(last < Some(found.clone()), "{found:?}");
            last = Some(found);
            if round == 20 {
                finisher.second += 1_000;
            }
        }
    }

    #[test]
    fn a_period_ends_when_the_clock_passes_a_multiple_of_it() {
        let rotation = Rotation { every: Some(Duration::from_secs(3_600)), ..Rotation::default() };
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(!rotation.is_over(at(3_600), at(7_199)));
        assert!(rotation.is_over(at(7_199), at(7_200)));
        assert!(!rotation.is_over(at(7_200), at(3_600)), "the clock was set back");
        assert!(!Rotation::default().is_over(at(0), at(1_000_000)));
    }
}
