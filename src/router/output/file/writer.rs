//! Which files are open, on the thread of the output. In: batches; of a path that is built, each line with the name of its
//! file. Out: lines at the ends of files, and finished files.
//!
//! A line in a batch is framed as length of the name (2 bytes), length of the line (4), name, line; the name is the period
//! (4 bytes: hours since the epoch) and the words. Nobody else ever sees this.
//!
//! Lost here: lines of a file that cannot be opened or written (`failed`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::appender::{lines_within, Appender};
use super::keeper::{named, Keeper};
use super::path::{hour_now, Family, Target};
use super::rotation::{self, Finisher, Rotation};
use crate::router::output::{Batch, Context, Writer};

/// Files open at a time: far below what a process may have, because clients need theirs.
const MAX_OPEN: usize = 64;

/// Names, not counting their periods, that get files of their own.
const MAX_FAMILIES: usize = 1_000;

/// How often the clock is looked at when nothing is written.
const EVERY: Duration = Duration::from_secs(1);

const LENGTHS: usize = 6;
const PERIOD: usize = 4;

/// Appends a framed line.
pub(super) fn frame(
    out: &mut Vec<u8>,
    name: impl FnOnce(&mut Vec<u8>),
    line: impl FnOnce(&mut Vec<u8>) -> Result<(), String>,
) -> Result<(), String> {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTHS]);
    name(out);
    let name_end = out.len();
    let drawn = line(out);
    let lengths = (u16::try_from(name_end - start - LENGTHS), u32::try_from(out.len() - name_end));
    match (drawn, lengths) {
        (Ok(()), (Ok(name), Ok(line))) => {
            out[start..start + 2].copy_from_slice(&name.to_ne_bytes());
            out[start + 2..start + LENGTHS].copy_from_slice(&line.to_ne_bytes());
            Ok(())
        }
        (drawn, _) => {
            out.truncate(start);
            drawn.and(Err(String::from("a line of more than 4 GiB")))
        }
    }
}

/// The next framed line: name, line, rest.
fn unframe(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (lengths, rest) = bytes.split_at_checked(LENGTHS)?;
    let name = u16::from_ne_bytes([lengths[0], lengths[1]]);
    let line = u32::from_ne_bytes([lengths[2], lengths[3], lengths[4], lengths[5]]);
    let (name, rest) = rest.split_at_checked(name.into())?;
    let (line, rest) = rest.split_at_checked(line as usize)?;
    Some((name, line, rest))
}

/// See the module.
pub(super) struct Files {
    target: Arc<Target>,
    rotation: Rotation,
    open: HashMap<Box<[u8]>, Open>,
    /// By their words; of a fixed path the one with none.
    families: HashMap<Box<[u8]>, Family>,
    keeper: Option<Keeper>,
    finisher: Finisher,
    /// Counts uses of files, to know the least recent one.
    uses: u64,
    period: u32,
    next_look: Instant,
}

struct Open {
    appender: Appender,
    used: u64,
}

impl Files {
    pub(super) fn open(target: Arc<Target>, rotation: Rotation) -> io::Result<Self> {
        let mut files = Files {
            target,
            rotation,
            open: HashMap::new(),
            families: HashMap::new(),
            keeper: None,
            finisher: Finisher::default(),
            uses: 0,
            period: 0,
            next_look: Instant::now() + EVERY,
        };
        files.period = files.period_now();
        match &*Arc::clone(&files.target) {
            Target::Fixed(path) => {
                let appender = Appender::open(path, false)?;
                // A link is rotated where it leads.
                let family = fs::canonicalize(path).ok().as_deref().and_then(Family::of_file);
                files.families.extend(family.map(|family| (Box::default(), family)));
                files.keep(&[0; PERIOD], appender);
            }
            Target::Built(template) if fs::metadata(&template.base)?.is_dir() => {}
            Target::Built(template) => {
                return Err(io::Error::other(format!("{} is no directory", template.base.display())))
            }
        }
        Ok(files)
    }

    /// Has old files looked after from now on. Not from the opening on: a configuration that is refused for something
    /// else opens its outputs too, and must not remove what it would have kept fewer of.
    fn begin_keeping(&mut self, context: &Context) {
        if self.keeper.is_some() || !self.rotation.cares() {
            return;
        }
        match Keeper::start(self.rotation) {
            Ok(keeper) => {
                self.families.values().for_each(|family| keeper.look_after(family));
                self.keeper = Some(keeper);
            }
            Err(error) => context.settle(0, Err(error)),
        }
    }

    fn period_now(&self) -> u32 {
        match &*self.target {
            Target::Fixed(_) => 0,
            Target::Built(template) => template.period(hour_now()),
        }
    }

    /// Writes lines of one file, and settles them.
    fn deliver(&mut self, name: &[u8], count: u64, lines: &[u8], context: &Context) {
        let name = self.admit(name, context);
        let (written, result) = self.append(&name, lines, context);
        let delivered = if result.is_ok() { count } else { lines_within(lines, written) };
        context.settle(delivered, Ok(()));
        if delivered < count {
            context.settle(count - delivered, result);
        }
    }

    /// The name that lines of this name get: their own, as long as there are not too many.
    fn admit<'a>(&mut self, name: &'a [u8], context: &Context) -> Cow<'a, [u8]> {
        let target = Arc::clone(&self.target);
        let Target::Built(template) = &*target else { return name.into() };
        let (period, words) = name.split_at(PERIOD.min(name.len()));
        if self.families.contains_key(words) {
            return name.into();
        }
        let other = template.other();
        let is_other = words == other || self.families.len() >= MAX_FAMILIES;
        let words = if is_other { &other } else { words };
        if !self.families.contains_key(words) {
            let family = template.family(words);
            self.look_after_new(&family, context);
            self.families.insert(words.into(), family);
        }
        match is_other {
            true => [period, words].concat().into(),
            false => name.into(),
        }
    }

    /// What an earlier router has left of a family: files of days that have passed are finished, if that means anything.
    fn look_after_new(&mut self, family: &Family, context: &Context) {
        if self.rotation.gzip && self.target.is_dated() {
            let hour = hour_now();
            let found = rotation::find(family).unwrap_or_default().into_iter();
            for past in found.filter(|found| found.finished.is_none() && found.is_past(hour)) {
                // An empty one may be somebody's who has just made it.
                if fs::metadata(&past.path).is_ok_and(|metadata| metadata.len() > 0) {
                    report(
                        context,
                        self.finisher.finish(&past.path).map_err(|error| named(&past.path, &error)),
                    );
                }
            }
        }
        if let Some(keeper) = &self.keeper {
            keeper.look_after(family);
        }
    }

    /// How many bytes are in the file, and what prevented the rest.
    fn append(&mut self, name: &[u8], lines: &[u8], context: &Context) -> (usize, io::Result<()>) {
        if let Err(error) = self.make_ready(name, context) {
            return (0, Err(error));
        }
        let mut done = 0;
        while done < lines.len() {
            let Some(open) = self.open.get_mut(name) else {
                return (done, Err(io::Error::other("the file is not open")));
            };
            let mut fitting = self.rotation.fitting(&open.appender, &lines[done..]);
            if fitting == 0 {
                if let Err(error) = self.rotate(name) {
                    if !self.open.contains_key(name) {
                        return (done, Err(error));
                    }
                    // Too long a file is better than none.
                    context.settle(0, Err(error));
                    fitting = lines.len() - done;
                } else {
                    continue;
                }
            }
            let Some(open) = self.open.get_mut(name) else { continue };
            if open.appender.bytes == 0 {
                open.appender.since = SystemTime::now();
            }
            let (written, result) = open.appender.append(&lines[done..done + fitting]);
            done += written;
            if let Err(error) = result {
                return (done, Err(named(&open.appender.path, &error)));
            }
        }
        (done, Ok(()))
    }

    /// Sees to it that the file is open, and that its path leads to it.
    fn make_ready(&mut self, name: &[u8], context: &Context) -> io::Result<()> {
        let Some(open) = self.open.get_mut(name) else {
            let appender = self.make(name)?;
            self.keep(name, appender);
            return Ok(());
        };
        self.uses += 1;
        open.used = self.uses;
        match open.appender.is_in_place() {
            Ok(true) => Ok(()),
            Ok(false) => self.open_anew(name, context),
            Err(error) => {
                context.settle(0, Err(named(&open.appender.path, &error)));
                Ok(())
            }
        }
    }

    /// Opens a file that was moved. One that nobody can make anew goes on where it is, unless it was removed: what is
    /// written there nobody reads.
    fn open_anew(&mut self, name: &[u8], context: &Context) -> io::Result<()> {
        match self.make(name) {
            Ok(appender) => self.keep(name, appender),
            Err(error) if self.open.get(name).is_some_and(|open| open.appender.has_name()) => {
                context.settle(0, Err(error));
            }
            Err(error) => {
                self.open.remove(name);
                return Err(error);
            }
        }
        Ok(())
    }

    fn make(&self, name: &[u8]) -> io::Result<Appender> {
        match &*self.target {
            Target::Fixed(path) => Appender::open(path, false).map_err(|error| named(path, &error)),
            Target::Built(template) => {
                let (period, words) = name.split_at(PERIOD.min(name.len()));
                let period = period.try_into().map_or(0, u32::from_be_bytes);
                let names = template.family(words).names(period);
                // Once more, if the keeper has just removed a directory for being empty.
                open_below(&template.base, &names).or_else(|_| open_below(&template.base, &names))
            }
        }
    }

    /// Keeps a file open, and closes the least recently used one if there are too many.
    fn keep(&mut self, name: &[u8], appender: Appender) {
        self.uses += 1;
        if !self.open.contains_key(name) && self.open.len() >= MAX_OPEN {
            let oldest = self.open.iter().min_by_key(|(_, open)| open.used).map(|(name, _)| name.clone());
            oldest.map(|name| self.open.remove(&name));
        }
        self.open.insert(name.into(), Open { appender, used: self.uses });
    }

    /// Finishes a file, and begins a new one.
    fn rotate(&mut self, name: &[u8]) -> io::Result<()> {
        let Some(open) = self.open.get(name) else { return Ok(()) };
        let path = open.appender.path.clone();
        self.finisher.finish(&path).map_err(|error| named(&path, &error))?;
        // Whatever comes now, nothing more may be written to the finished one: it may be packed already.
        self.open.remove(name);
        let appender = self.make(name)?;
        self.keep(name, appender);
        self.look_after(name);
        Ok(())
    }

    fn look_after(&self, name: &[u8]) {
        let words = name.get(PERIOD..).unwrap_or_default();
        if let (Some(keeper), Some(family)) = (&self.keeper, self.families.get(words)) {
            keeper.look_after(family);
        }
    }

    /// Finishes files whose period is over, though nothing is written to them.
    fn rotate_idle(&mut self, context: &Context) {
        let now = SystemTime::now();
        let rotation = self.rotation;
        let is_over = |open: &Open| {
            let appender = &open.appender;
            appender.is_file() && appender.bytes > 0 && rotation.is_over(appender.since, now)
        };
        let over: Vec<_> =
            self.open.iter().filter(|(_, open)| is_over(open)).map(|(name, _)| name.clone()).collect();
        for name in over {
            let ready = self.make_ready(&name, context);
            // It may be another, empty file by now.
            let is_over = self.open.get(&name).is_some_and(is_over);
            report(context, ready.and_then(|()| if is_over { self.rotate(&name) } else { Ok(()) }));
        }
    }

    /// Closes the files of days and hours that have passed. Lines that were on their way may open one again.
    fn close_past(&mut self, context: &Context) {
        let period = self.period_now();
        let past: Vec<_> =
            self.open.keys().filter(|name| name[..PERIOD] != period.to_be_bytes()).cloned().collect();
        for name in past {
            let Some(open) = self.open.remove(&name) else { continue };
            if self.rotation.gzip && self.target.is_dated() && open.appender.bytes > 0 {
                let path = open.appender.path;
                report(context, self.finisher.finish(&path).map_err(|error| named(&path, &error)));
                self.look_after(&name);
            }
        }
        if period != self.period {
            self.period = period;
            if let Some(keeper) = &self.keeper {
                self.families.values().for_each(|family| keeper.look_after(family));
            }
        }
    }
}

impl Writer for Files {
    fn write(&mut self, batch: &Batch, context: &Context) {
        self.begin_keeping(context);
        if let Target::Fixed(_) = &*self.target {
            return self.deliver(&[0; PERIOD], batch.count, &batch.lines, context);
        }
        // All lines of one file in one write, in their order.
        let mut files: Vec<(&[u8], u64, Vec<u8>)> = Vec::new();
        let mut places: HashMap<&[u8], usize> = HashMap::new();
        let mut rest = batch.lines.as_slice();
        while let Some((name, line, behind)) = unframe(rest) {
            let place = *places.entry(name).or_insert_with(|| {
                files.push((name, 0, Vec::new()));
                files.len() - 1
            });
            files[place].1 += 1;
            files[place].2.extend_from_slice(line);
            rest = behind;
        }
        for (name, count, lines) in files {
            self.deliver(name, count, &lines, context);
        }
    }

    fn due(&self) -> Option<Instant> {
        let is_dated = matches!(&*self.target, Target::Built(template) if template.is_dated());
        (self.rotation.every.is_some() || is_dated || self.rotation.cares()).then_some(self.next_look)
    }

    fn tick(&mut self, context: &Context) {
        self.next_look = Instant::now() + EVERY;
        self.begin_keeping(context);
        if let Some(keeper) = &self.keeper {
            keeper.problems().for_each(|problem| context.settle(0, Err(problem)));
        }
        self.rotate_idle(context);
        self.close_past(context);
    }

    /// Every file at once, also one that has not moved: whoever asks may be on another file system's account.
    fn reopen(&mut self, context: &Context) {
        let names: Vec<_> = self.open.keys().cloned().collect();
        for name in names {
            report(context, self.open_anew(&name, context));
        }
    }

    fn close(&mut self, context: &Context) {
        // One that was never in use, because its configuration was refused, is not told to stop: it is dropped.
        if context.deadline().is_some() {
            self.begin_keeping(context);
        }
        if let Some(keeper) = self.keeper.take() {
            let problems = keeper.close(context.deadline().unwrap_or_else(Instant::now));
            problems.into_iter().for_each(|problem| context.settle(0, Err(problem)));
        }
    }
}

impl Rotation {
    /// How many bytes of `lines` may be written before the file is to be finished: whole lines, and at least one in an
    /// empty file.
    fn fitting(&self, file: &Appender, lines: &[u8]) -> usize {
        if !file.is_file() {
            return lines.len();
        }
        if file.bytes > 0 && self.is_over(file.since, SystemTime::now()) {
            return 0;
        }
        let room = self.bytes.map_or(u64::MAX, |limit| limit.saturating_sub(file.next_line_at()));
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        if lines.len() <= room {
            return lines.len();
        }
        let end = |line: Option<usize>| line.map(|newline| newline + 1);
        match end(lines[..room].iter().rposition(|&byte| byte == b'\n')) {
            Some(fitting) => fitting,
            None if file.bytes > 0 => 0,
            None => end(lines.iter().position(|&byte| byte == b'\n')).unwrap_or(lines.len()),
        }
    }
}

/// Opens a file below `base`, and makes the directories on the way, none of which may be a link.
fn open_below(base: &Path, names: &[String]) -> io::Result<Appender> {
    let Some((file, directories)) = names.split_last() else {
        return Err(io::Error::other("a path without a file"));
    };
    let mut path = PathBuf::from(base);
    for directory in directories {
        path.push(directory);
        make_directory(&path).map_err(|error| named(&path, &error))?;
    }
    path.push(file);
    Appender::open(&path, true).map_err(|error| named(&path, &error))
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(io::Error::other("there is something that is no directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(path),
        Err(error) => Err(error),
    }
}

/// An error that costs no message.
fn report<T>(context: &Context, result: io::Result<T>) {
    if let Err(error) = result {
        context.settle(0, Err(error));
    }
}
