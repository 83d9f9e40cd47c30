//! The kinds of outputs and their options.

use std::ops::Range;

use toml::de::DeTable;

use super::definition::Default::{Is, Needed, Says};
use super::definition::{Definition, Section, Take};
use super::page::Page;
use super::read::Reader;
#[cfg(feature = "http")]
use crate::router::output::HttpOutput;
#[cfg(feature = "sentry")]
use crate::router::output::SentryOutput;
use crate::router::output::{ConsoleOutput, Endpoint, FileOutput, ForwardOutput, Output, StatsdOutput};

/// Makes an output, as often as routes lead to it.
pub(super) type Make = Box<dyn Fn() -> Output>;

/// Reads the table of an output, given its name and place. `None`: a problem was noted.
type Read = for<'f> fn(&mut Reader<'f>, (&str, Range<usize>), &DeTable<'f>) -> Option<Make>;

/// A kind of output: what `type` names.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) read: Read,
    pub(super) page: fn() -> Page,
}

/// Every kind that this program is built with.
pub(super) const KINDS: &[Kind] = &[
    kind::<FileOutput>(),
    kind::<StatsdOutput>(),
    #[cfg(feature = "sentry")]
    kind::<SentryOutput>(),
    kind::<ForwardOutput>(),
    #[cfg(feature = "http")]
    kind::<HttpOutput>(),
    kind::<ConsoleOutput>(),
    kind::<Null>(),
];

/// Kinds that it may be built without, and the feature that each needs.
pub(super) const NEEDS: &[(&str, &str)] = &[("sentry", "sentry"), ("http", "http")];

/// The settings of a kind of output.
pub(super) trait Settings: Clone + Into<Output> + 'static {
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

impl Settings for ConsoleOutput {
    const NAME: &'static str = "console";
    const SECTION: Section<Self> = Section {
        title: "[output.NAME]",
        kind: Some(Self::NAME),
        about: "Standard output, for people, one line a message. No byte of a message can move the cursor or change a colour.",
        begin: Some(ConsoleOutput::new),
        options: &[
            Definition::new(
                "color",
                Take::Choice(&["auto", "always", "never"], |console, color| Ok(console.color(color.parse()?))),
                Is("\"auto\""),
                "Whether it is coloured; `auto`: on a terminal, unless `NO_COLOR` is set.",
            ),
            Definition::new(
                "format",
                Take::Choice(&["text", "json"], |console, format| Ok(console.format(format.parse()?))),
                Is("\"text\""),
                "What is printed of a message: columns as `text`, or the whole message as `json`.",
            ),
            Definition::new(
                "filter",
                Take::Matcher(|console, matcher, _| Ok(console.filter(matcher))),
                Says("every message", "\"Severity <= 4\""),
                "Shows only messages that match this expression (docs/matcher.md). The others count as delivered.",
            ),
            Definition::new(
                "summary",
                Take::Flag(|console, summary| Ok(console.summary(summary))),
                Is("true"),
                "Whether the last line of a terminal says how many messages a second there are, by type, and how many \
                 this output has lost.",
            ),
        ],
    };
}

impl Settings for StatsdOutput {
    const NAME: &'static str = "statsd";
    const SECTION: Section<Self> = Section {
        title: "[output.NAME]",
        kind: Some(Self::NAME),
        about: "Counters, timers and gauges to statsd over UDP; messages of other types are refused (`failed`). The metric is \
                `LOGGER.NAME`; a rate below 1 is passed on as `@RATE`, and nothing is sampled here.",
        begin: None,
        options: &[
            Definition::new(
                "address",
                Take::First(|address| {
                    let statsd = StatsdOutput::new(address);
                    Endpoint::check(&statsd).map_err(|error| error.to_string())?;
                    Ok(statsd)
                }),
                Needed("\"127.0.0.1:8125\""),
                "HOST:PORT of the server. A name is looked up again every minute, and when the server refuses.",
            ),
            Definition::new(
                "prefix",
                Take::Text(|statsd, prefix| Ok(statsd.prefix(prefix))),
                Says("nothing", "\"shop\""),
                "Stands before every name, with a dot behind it.",
            ),
            Definition::new(
                "datagram_bytes",
                Take::Size(|statsd, bytes| match usize::try_from(bytes) {
                    Ok(bytes) => Ok(statsd.datagram_bytes(bytes)),
                    Err(_) => Err("too many".into()),
                }),
                Is("1432"),
                "The longest datagram; the default passes Ethernet whole.",
            ),
        ],
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
