//! The HTTP output: many messages in a request. In: messages. Out: POST requests, in the form that a receiver reads:
//! lines of JSON, Elasticsearch's `_bulk`, Loki's push interface. The client's own HTTP transport makes them, one at a
//! time on a kept connection, and repeats what was not taken.
//!
//! Lost here: what the receiver refuses for good (`rejected`), a message that is too long for it (`too_large`), and what
//! `delivery.rs` says.

mod elasticsearch;
mod loki;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::delivery::{are_one_place, invalid, messages, Delivery, Pace};
use super::{forward, queue, Batch, Context, Draw, Endpoint, Output, Place, Writer};
use crate::delivery::transport::http::{Form, Http, Lines};
use crate::Address;

const DEFAULT_LINGER: Duration = Duration::from_secs(1);
const DEFAULT_BATCH_BYTES: usize = 1024 * 1024;
const DEFAULT_INDEX: &str = "metlog";
const DEFAULT_LABELS: [&str; 4] = ["type", "logger", "severity", "hostname"];

/// What an HTTP receiver reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpFormat {
    /// One message a line, as it came: Vector, Fluent Bit, Logstash, another router. As text `ndjson`.
    #[default]
    Ndjson,
    /// Elasticsearch's and OpenSearch's `_bulk` interface. As text `elasticsearch`.
    Elasticsearch,
    /// Grafana Loki's push interface, version 1, as JSON. As text `loki`.
    Loki,
}

impl FromStr for HttpFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ndjson" => Ok(HttpFormat::Ndjson),
            "elasticsearch" => Ok(HttpFormat::Elasticsearch),
            "loki" => Ok(HttpFormat::Loki),
            other => Err(format!("format {other:?}: ndjson, elasticsearch and loki are accepted")),
        }
    }
}

/// Sends messages in batches to an HTTP receiver.
///
/// A status from 200 to 299 confirms them. 408, 429, 5xx and a connection that breaks mean the same request again, after
/// a growing pause or the one that `Retry-After` asks for; 413 means smaller ones. Any other status costs the
/// messages of the request (`rejected`), and stands in `last_error` with the beginning of the answer.
///
/// ```no_run
/// use tracing_metlog::router::{Config, HttpFormat, HttpOutput, Input, Matcher, Route};
///
/// let search = HttpOutput::new("https://search.example:9200")
///     .format(HttpFormat::Elasticsearch)
///     .header_env("SEARCH_HEADERS"); // Authorization: ApiKey ...
/// let config = Config::new()
///     .input(Input::udp("127.0.0.1:5565"))
///     .route(Route::new(Matcher::any(), search.into()));
/// ```
#[derive(Clone, Debug)]
pub struct HttpOutput {
    url: String,
    format: HttpFormat,
    gzip: bool,
    headers_file: Option<PathBuf>,
    header_env: Option<String>,
    batch_bytes: usize,
    linger: Duration,
    queue_bytes: usize,
    index: Option<String>,
    labels: Option<Vec<String>>,
}

impl HttpOutput {
    /// To the receiver at `url`, an [`Address`] that begins with `http://` or `https://`. Without a path it is `/_bulk` for
    /// Elasticsearch and `/loki/api/v1/push` for Loki. Of an address' options, `timeout`, `ca`, `cert`, `key` and
    /// `content-type` are heard; for the others there are functions here. A wrong one is an error when the router
    /// starts; a receiver that does not answer is none.
    pub fn new(url: impl Into<String>) -> Self {
        HttpOutput {
            url: url.into(),
            format: HttpFormat::default(),
            gzip: true,
            headers_file: None,
            header_env: None,
            batch_bytes: DEFAULT_BATCH_BYTES,
            linger: DEFAULT_LINGER,
            queue_bytes: queue::QUEUE_BYTES,
            index: None,
            labels: None,
        }
    }

    /// What the receiver reads. Default: [`HttpFormat::Ndjson`].
    pub fn format(mut self, format: HttpFormat) -> Self {
        self.format = format;
        self
    }

    /// Whether bodies are compressed. Default: yes.
    pub fn gzip(mut self, gzip: bool) -> Self {
        self.gzip = gzip;
        self
    }

    /// A file whose lines, `Name: value`, are headers of every request; read anew for each. Default: none.
    pub fn headers_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.headers_file = Some(path.into());
        self
    }

    /// The name of an environment variable that holds such lines, read once. Default: none.
    pub fn header_env(mut self, name: impl Into<String>) -> Self {
        self.header_env = Some(name.into());
        self
    }

    /// How many bytes of messages a request carries at most, before compression; a longer message goes alone. Default:
    /// 1 MiB.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// How long a message waits for others to be sent with. Default: 1 s.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// How many bytes of messages may wait for this output in memory. Default: 16 MiB.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// The index, alias or data stream that Elasticsearch puts messages into. Default: `metlog`.
    pub fn index(mut self, name: impl Into<String>) -> Self {
        self.index = Some(name.into());
        self
    }

    /// What tells one of Loki's streams from another: `type`, `logger`, `severity`, `hostname`, and labels that are the
    /// same for all, `name=value`. A label that a message has no value for is left out. Default: those four.
    pub fn labels<L: Into<String>>(mut self, labels: impl IntoIterator<Item = L>) -> Self {
        self.labels = Some(labels.into_iter().map(Into::into).collect());
        self
    }

    fn address(&self) -> io::Result<Address> {
        let mut address: Address = self.url.parse().map_err(invalid)?;
        let Address::Http { path, options, .. } = &mut address else {
            return Err(invalid(format!(
                "{address}: http://host:port/path and https://host:port/path are accepted"
            )));
        };
        match self.format {
            HttpFormat::Elasticsearch if path == "/" => *path = String::from("/_bulk"),
            HttpFormat::Loki if path == "/" => *path = String::from("/loki/api/v1/push"),
            _ => {}
        }
        options.gzip = self.gzip;
        options.batch_bytes = self.batch_bytes;
        if self.headers_file.is_some() {
            options.header_file.clone_from(&self.headers_file);
        }
        if self.header_env.is_some() {
            options.header_variable.clone_from(&self.header_env);
        }
        Ok(address)
    }

    /// How a message is drawn, of how many lines each is, and what requests look like.
    fn shape(&self, json: bool) -> io::Result<(Draw, usize, Arc<dyn Form>)> {
        let is_foreign =
            |option: &str| Err(invalid(format!("{option} is of another format than this output's")));
        match self.format {
            HttpFormat::Elasticsearch if self.labels.is_some() => is_foreign("labels"),
            HttpFormat::Loki | HttpFormat::Ndjson if self.index.is_some() => is_foreign("index"),
            HttpFormat::Ndjson if self.labels.is_some() => is_foreign("labels"),
            HttpFormat::Ndjson => Ok((Arc::new(forward::draw), 1, Arc::new(Lines { json }))),
            HttpFormat::Elasticsearch => {
                let index = self.index.as_deref().unwrap_or(DEFAULT_INDEX);
                let actions = elasticsearch::Actions::into(index).map_err(invalid)?;
                let draw: Draw = Arc::new(move |message, lines| actions.draw(message.message(), lines));
                Ok((draw, elasticsearch::LINES, Arc::new(elasticsearch::Bulk)))
            }
            HttpFormat::Loki => {
                let default = || DEFAULT_LABELS.map(String::from).to_vec();
                let labels =
                    loki::Labels::read(&self.labels.clone().unwrap_or_else(default)).map_err(invalid)?;
                let draw: Draw = Arc::new(move |message, lines| labels.draw(message.message(), lines));
                Ok((draw, loki::LINES, Arc::new(loki::Push)))
            }
        }
    }
}

impl From<HttpOutput> for Output {
    fn from(settings: HttpOutput) -> Self {
        Output::new(settings)
    }
}

impl fmt::Display for HttpFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            HttpFormat::Ndjson => "ndjson",
            HttpFormat::Elasticsearch => "elasticsearch",
            HttpFormat::Loki => "loki",
        })
    }
}

impl Endpoint for HttpOutput {
    /// Without the address' options: what is shown is the place.
    fn name(&self) -> String {
        let address = self.address().map(|address| address.to_string()).unwrap_or_default();
        // Two indices of one receiver are two places.
        let index = self.index.as_ref().map(|index| format!("#{index}")).unwrap_or_default();
        format!("{}:{}{index}", self.format, address.split('?').next().unwrap_or_default())
    }

    fn settings(&self) -> String {
        format!("{self:?}")
    }

    fn queue_bytes(&self) -> usize {
        self.queue_bytes
    }

    fn is_far(&self) -> bool {
        true
    }

    fn leads_to(&self, input: &str) -> bool {
        self.address().is_ok_and(|address| are_one_place(&address, input))
    }

    fn check(&self) -> io::Result<()> {
        if self.batch_bytes == 0 {
            return Err(invalid("batch_bytes 0: a number of bytes from 1 on is accepted"));
        }
        self.address()?;
        self.shape(false).map(drop)
    }

    fn open(self: Box<Self>) -> io::Result<Place> {
        self.check()?;
        let address = self.address()?;
        let Address::Http { options, .. } = &address else { return Err(invalid("no HTTP address")) };
        let (draw, lines, form) = self.shape(options.json)?;
        let transport = Box::new(Http::shaped(&address, options, form).map_err(invalid)?);
        let pace = Pace { linger: self.linger, batch_bytes: self.batch_bytes };
        let delivery = Delivery::new(self.name(), transport, &pace, |_| Ok(None))?;
        Ok(Place { draw: Some(draw), writer: Box::new(Requests { delivery, lines }) })
    }
}

struct Requests {
    delivery: Delivery,
    /// Of one message.
    lines: usize,
}

impl Writer for Requests {
    fn write(&mut self, batch: &Batch, context: &Context) {
        self.delivery.write(messages(&batch.lines, self.lines), false, context);
    }

    fn due(&self) -> Option<Instant> {
        self.delivery.due()
    }

    fn tick(&mut self, context: &Context) {
        self.delivery.tick(context);
    }

    fn close(&mut self, context: &Context) {
        self.delivery.close(context);
    }
}
