//! The options of outputs over a network.

use super::definition::Default::{Is, Needed, Says};
use super::definition::{Definition, Outcome, Section, Take, Wrong};
use super::outputs::Settings;
use crate::router::output::{Endpoint, ForwardOutput};
#[cfg(feature = "http")]
use crate::router::output::{HttpFormat, HttpOutput};

/// What every output over a network has: room in memory.
const QUEUE_BYTES: &str =
    "What may wait for this output in memory; beyond it, messages for it are dropped and counted.";

pub(super) fn bytes(number: u64) -> Result<usize, Wrong> {
    usize::try_from(number).map_err(|_| Wrong::from("too many"))
}

/// The settings, if what they were made of can be one.
fn checked<S: Settings + Endpoint>(settings: S) -> Outcome<S> {
    match settings.check() {
        Ok(()) => Ok(settings),
        Err(error) => Err(error.to_string().into()),
    }
}

impl Settings for ForwardOutput {
    const NAME: &'static str = "forward";
    const SECTION: Section<Self> = Section {
        title: "[output.NAME]",
        kind: Some(Self::NAME),
        about: "Another router, with the client's own delivery: one connection, confirmed, sent again when it breaks.",
        begin: None,
        options: &[
            Definition::new(
                "router",
                Take::First(|address| checked(ForwardOutput::new(address))),
                Needed("\"tcp://logs.example:5565\""),
                "Its address: `udp://`, `tcp://`, `tls://`, `unix://`, `unixgram://`, `http://`, `https://`, as a client's \
                 `METLOG_ROUTER`.",
            ),
            Definition::new(
                "spool",
                Take::Text(|forward, directory| Ok(forward.spool(directory))),
                Says("none", "\"/var/lib/metlog/spool\""),
                "A directory of its own for messages that the other router does not take (feature `spool`).",
            ),
            Definition::new(
                "spool_bytes",
                Take::Size(|forward, bytes| Ok(forward.spool_bytes(bytes))),
                Says("1 GiB", "\"1GiB\""),
                "The most the spool may hold, on disk. What has been there for 7 days is lost (`spool_expired`).",
            ),
            Definition::new(
                "queue_bytes",
                Take::Size(|forward, number| Ok(forward.queue_bytes(bytes(number)?))),
                Is("\"16MiB\""),
                QUEUE_BYTES,
            ),
        ],
    };
}

#[cfg(feature = "http")]
impl Settings for HttpOutput {
    const NAME: &'static str = "http";
    const SECTION: Section<Self> = Section {
        title: "[output.NAME]",
        kind: Some(Self::NAME),
        about: "Batches of messages to an HTTP receiver (feature `http`; with `tls` also `https://`). 200 to 299 confirms them; \
                408, 429, 5xx and a broken connection mean again; anything else loses them (`rejected`).",
        begin: None,
        options: &[
            Definition::new(
                "url",
                Take::First(|url| checked(HttpOutput::new(url))),
                Needed("\"http://127.0.0.1:9200\""),
                "`http://HOST:PORT/PATH` or `https://...`. Of a client's address options, `timeout`, `ca`, `cert`, `key` and \
                 `content-type` are heard.",
            ),
            Definition::new(
                "format",
                Take::Choice(&["ndjson", "elasticsearch", "loki"], |http, format| {
                    Ok(http.format(format.parse::<HttpFormat>()?))
                }),
                Is("\"ndjson\""),
                "What the receiver reads: a message a line, Elasticsearch's `_bulk` or Loki's push interface.",
            ),
            Definition::new(
                "gzip",
                Take::Flag(|http, gzip| Ok(http.gzip(gzip))),
                Is("true"),
                "Whether bodies are compressed.",
            ),
            Definition::new(
                "headers_file",
                Take::Text(|http, path| Ok(http.headers_file(path))),
                Says("none", "\"/run/secrets/headers\""),
                "A file whose lines, `Name: value`, are headers of every request; read anew for each, and never shown.",
            ),
            Definition::new(
                "header_env",
                Take::Text(|http, name| Ok(http.header_env(name))),
                Says("none", "\"SEARCH_HEADERS\""),
                "The name of an environment variable that holds such lines, read once.",
            ),
            Definition::new(
                "batch_bytes",
                Take::Size(|http, number| Ok(http.batch_bytes(bytes(number)?))),
                Is("\"1MiB\""),
                "Bytes of messages in a request, before compression; a longer message goes alone.",
            ),
            Definition::new(
                "linger",
                Take::Duration(|http, linger| Ok(http.linger(linger))),
                Is("\"1s\""),
                "How long a message waits for others to be sent with.",
            ),
            Definition::new(
                "index",
                Take::Text(|http, index| Ok(http.index(index))),
                Says("`metlog`", "\"metlog\""),
                "The index, alias or data stream. Only for `elasticsearch`.",
            ),
            Definition::new(
                "labels",
                Take::All(|http, labels| Ok(http.labels(labels))),
                Says("those four", "[\"type\", \"logger\", \"severity\", \"hostname\", \"site=north\"]"),
                "What tells one stream from another: `type`, `logger`, `severity`, `hostname`, and `name=value`, the same for \
                 all. Only for `loki`.",
            ),
            Definition::new(
                "queue_bytes",
                Take::Size(|http, number| Ok(http.queue_bytes(bytes(number)?))),
                Is("\"16MiB\""),
                QUEUE_BYTES,
            ),
        ],
    };
}

#[cfg(feature = "sentry")]
mod sentry {
    use super::super::definition::Default::OneOf;
    use super::*;
    use crate::router::output::SentryOutput;

    /// A file with a secret is read when the configuration is.
    fn from_file(path: &str) -> Outcome<SentryOutput> {
        let dsn = std::fs::read_to_string(path).map_err(|error| Wrong::from(error.to_string()))?;
        let settings = SentryOutput::new(dsn.trim());
        match settings.check() {
            Ok(()) => Ok(settings),
            // What is in the file is not for this error.
            Err(_) => Err("the file holds no DSN: accepted is https://KEY@HOST/PROJECT".into()),
        }
    }

    impl Settings for SentryOutput {
        const NAME: &'static str = "sentry";
        const SECTION: Section<Self> = Section {
            title: "[output.NAME]",
            kind: Some(Self::NAME),
            about: "Errors to Sentry (feature `sentry`): messages of severity 3 and below and of the types `sentry` and `panic` \
                    are events; all others routed here are kept for a while, as breadcrumbs of the next event of the same \
                    process.",
            begin: None,
            options: &[
                Definition::new(
                    "dsn",
                    Take::First(|dsn| checked(SentryOutput::new(dsn))),
                    OneOf("\"${SENTRY_DSN}\""),
                    "The project: `https://KEY@HOST/PROJECT`.",
                )
                .secret(),
                Definition::new(
                    "dsn_file",
                    Take::First(from_file),
                    OneOf("\"/run/secrets/sentry-dsn\""),
                    "A file that holds the DSN and nothing else, read when the configuration is.",
                ),
                Definition::new(
                    "allow_message_dsn",
                    Take::Flag(|sentry, allow| Ok(sentry.allow_message_dsn(allow))),
                    Is("false"),
                    "Whether a message may name its own project in `fields.dsn`. Whoever may send messages can then have \
                     this router make requests to any host.",
                ),
                Definition::new(
                    "environment",
                    Take::Text(|sentry, name| Ok(sentry.environment(name))),
                    Says("the message's field `environment`", "\"production\""),
                    "The environment of every event.",
                ),
                Definition::new(
                    "release",
                    Take::Text(|sentry, name| Ok(sentry.release(name))),
                    Says("the message's field `release`", "\"shop@1.0\""),
                    "The release of every event.",
                ),
                Definition::new(
                    "breadcrumbs",
                    Take::Count(|sentry, count| Ok(sentry.breadcrumbs(bytes(count)?))),
                    Is("50"),
                    "How many of the last messages of a process an event has with it, at most 100.",
                ),
                Definition::new(
                    "queue_bytes",
                    Take::Size(|sentry, number| Ok(sentry.queue_bytes(bytes(number)?))),
                    Is("\"16MiB\""),
                    QUEUE_BYTES,
                ),
            ],
        };
    }
}
