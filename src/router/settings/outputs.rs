//! The kinds of outputs and their options.

use std::ops::Range;

use toml::de::DeTable;

use super::definition::Default::{Is, Needed};
use super::definition::{Definition, Section, Take};
use super::page::Page;
use super::read::Reader;
use crate::router::output::{Color, Output};

/// Makes an output, as often as routes lead to it.
pub(super) type Make = Box<dyn Fn() -> Output>;

/// A kind of output: what `type` names.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) read: for<'f> fn(&mut Reader<'f>, (&str, Range<usize>), &DeTable<'f>) -> Option<Make>,
    pub(super) page: fn() -> Page,
}

/// Every kind that this program is built with.
pub(super) const KINDS: &[Kind] = &[kind::<File>(), kind::<Console>(), kind::<Null>()];

/// Kinds that it is built without, and the feature that each needs.
pub(super) const MISSING: &[(&str, &str)] = &[];

/// The settings of a kind of output.
trait Settings: Clone + Into<Output> + 'static {
    const NAME: &'static str;
    const SECTION: Section<Self>;
}

const fn kind<S: Settings>() -> Kind {
    Kind {
        name: S::NAME,
        read: |reader, place, table| {
            let settings = reader.section(&S::SECTION, place, table, &["type"])?;
            Some(Box::new(move || settings.clone().into()))
        },
        page: || Page::of(&S::SECTION),
    }
}

#[derive(Clone)]
struct File(String);

impl From<File> for Output {
    fn from(file: File) -> Self {
        Output::file(file.0)
    }
}

impl Settings for File {
    const NAME: &'static str = "file";
    const SECTION: Section<Self> = Section {
        title: "[output.NAME]",
        kind: Some(Self::NAME),
        about: "A file, one message a line.",
        begin: None,
        options: &[Definition::new(
            "path",
            Take::First(|path| Ok(File(path.to_owned()))),
            Needed("\"/var/log/metlog/messages.jsonl\""),
            "The file; made if it is not there, appended to if it is.",
        )],
    };
}

#[derive(Clone)]
struct Console(Color);

impl From<Console> for Output {
    fn from(console: Console) -> Self {
        Output::console(console.0)
    }
}

impl Settings for Console {
    const NAME: &'static str = "console";
    const SECTION: Section<Self> = Section {
        title: "[output.NAME]",
        kind: Some(Self::NAME),
        about: "Standard output, for people.",
        begin: Some(|| Console(Color::Auto)),
        options: &[Definition::new(
            "color",
            Take::Choice(&["auto", "always", "never"], |_, color| Ok(Console(color.parse()?))),
            Is("\"auto\""),
            "Whether it is coloured; `auto`: on a terminal, unless `NO_COLOR` is set.",
        )],
    };
}

#[derive(Clone)]
struct Null;

impl From<Null> for Output {
    fn from(_: Null) -> Self {
        Output::null()
    }
}

impl Settings for Null {
    const NAME: &'static str = "null";
    const SECTION: Section<Self> = Section {
        title: "[output.NAME]",
        kind: Some(Self::NAME),
        about: "Takes messages, counts them and does nothing with them.",
        begin: Some(|| Null),
        options: &[],
    };
}
