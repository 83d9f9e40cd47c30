//! The kinds of outputs and their options.

use std::ops::Range;

use toml::de::DeTable;

use super::definition::Default::{Is, Needed, Says};
use super::definition::{Definition, Section, Take};
use super::page::Page;
use super::read::Reader;
use crate::router::output::{Color, Endpoint, FileOutput, Output};

/// Makes an output, as often as routes lead to it.
pub(super) type Make = Box<dyn Fn() -> Output>;

/// A kind of output: what `type` names.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) read: for<'f> fn(&mut Reader<'f>, (&str, Range<usize>), &DeTable<'f>) -> Option<Make>,
    pub(super) page: fn() -> Page,
}

/// Every kind that this program is built with.
pub(super) const KINDS: &[Kind] = &[kind::<FileOutput>(), kind::<Console>(), kind::<Null>()];

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

impl Settings for FileOutput {
    const NAME: &'static str = "file";
    const SECTION: Section<Self> = Section {
        title: "[output.NAME]",
        kind: Some(Self::NAME),
        about: "A file, one message a line; or files that are named after what is in them. At most 64 are open at a time. \
                One that is renamed or removed while it is written to is made anew.",
        begin: None,
        options: &[
            Definition::new(
                "path",
                Take::First(|path| {
                    let file = FileOutput::new(path);
                    file.check().map_err(|error| error.to_string())?;
                    Ok(file)
                }),
                Needed("\"/var/log/metlog/messages.jsonl\""),
                "The file; made if it is not there, appended to if it is. With `{type}`, `{logger}`, `{hostname}`, `{date}` \
                 or `{hour}` (UTC) it is built for each message, inside the directory before the first `{`, which must exist.",
            ),
            Definition::new(
                "format",
                Take::Choice(&["json", "text", "payload"], |file, format| Ok(file.format(format.parse()?))),
                Is("\"json\""),
                "What a line is: the whole message as `json`; `TIMESTAMP PAYLOAD` as `text`; or the `payload` alone, for \
                 lines that bring their own time, such as CEF. One message is one line, whatever it holds.",
            ),
            Definition::new(
                "rotate_bytes",
                Take::Size(|file, bytes| Ok(file.rotate_bytes(bytes))),
                Says("any length", "\"100MiB\""),
                "No file becomes longer, but for a single line that is: before, it is finished, as `NAME~20261122T171500Z`, \
                 and a new one is begun.",
            ),
            Definition::new(
                "rotate_every",
                Take::Duration(|file, period| Ok(file.rotate_every(period))),
                Says("never", "\"1d\""),
                "A file is finished whenever the clock in UTC passes a multiple of this.",
            ),
            Definition::new(
                "keep",
                Take::Count(|file, files| match usize::try_from(files) {
                    Ok(files) => Ok(file.keep(files)),
                    Err(_) => Err("too many".into()),
                }),
                Says("all", "7"),
                "How many finished files of each name are kept; the oldest are removed. Needs a rotation or `{date}`.",
            ),
            Definition::new(
                "gzip",
                Take::Flag(|file, gzip| Ok(file.gzip(gzip))),
                Is("false"),
                "Whether finished files are packed. Needs a rotation or `{date}`.",
            ),
        ],
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
