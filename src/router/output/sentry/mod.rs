//! The Sentry output: errors as events. In: messages. Out: an event for each that is an error or worse, a panic, or
//! was made by metlog-raven; all others are breadcrumbs of the next event of their process.
//!
//! ```text
//! message ─┬─ an error ── event.rs ──┬─ delivery, an envelope each ── the project of the DSN
//!          │  raven ───── raven.rs ──┤
//!          └─ any ─────── crumbs.rs ─┘
//! ```
//!
//! The transport is the client's own HTTP transport, and not that of the `sentry` crate: that one takes an envelope and
//! says nothing of what becomes of it, drops what it has no room for or is asked to hold back, and so no account could
//! be drawn. The `sentry` crate's types make the events.
//!
//! Lost here: events that Sentry refuses (`rejected`), payloads that unpack to too much, events for DSNs from messages
//! that answer too slowly (`lagging`), and what `delivery.rs` says. A message that is a breadcrumb only counts as
//! delivered once it is noted.

mod crumbs;
mod event;
mod project;
mod raven;
mod stack;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::delivery::{are_one_place, invalid, Delivery, Pace};
use super::{queue, Batch, Context, Endpoint, Output, Place, Writer};
use crate::delivery::transport::http::Http;
use crate::{Address, Message, Severity};
use crumbs::Crumbs;
use event::Surroundings;
use project::Project;
use raven::Unpacked;

const DEFAULT_BREADCRUMBS: usize = 50;
/// Sentry shows no more.
const MOST_BREADCRUMBS: usize = 100;
/// Projects that messages may name at a time, besides the configured one.
const MOST_PROJECTS: usize = 32;
/// Events that wait for one project: then the router waits for the configured one, and other ones lose.
const WAITING_BYTES: usize = 1 << 20;

/// Sends errors to Sentry: messages of severity 3 and below, and of the types `sentry` and `panic`. All other messages
/// that are routed here are kept for a while, as breadcrumbs of the next event of the same process.
///
/// Each event is confirmed by Sentry's answer. When Sentry wants none for a while (429, `Retry-After`,
/// `X-Sentry-Rate-Limits`) they wait in memory, and are not thrown away until there is no room. An event has the same
/// id however often it is sent, so that Sentry knows it again.
///
/// ```no_run
/// use tracing_metlog::router::{Config, Input, Matcher, Route, SentryOutput};
///
/// let dsn = std::env::var("SENTRY_DSN")?;
/// let config = Config::new()
///     .input(Input::udp("127.0.0.1:5565"))
///     .route(Route::new(Matcher::any(), SentryOutput::new(dsn).environment("production").into()));
/// # Ok::<(), std::env::VarError>(())
/// ```
#[derive(Clone)]
pub struct SentryOutput {
    dsn: String,
    allow_message_dsn: bool,
    environment: Option<String>,
    release: Option<String>,
    breadcrumbs: usize,
    queue_bytes: usize,
}

impl SentryOutput {
    /// To the project of `dsn`, `https://KEY@HOST/PROJECT`. A wrong one is an error when the router starts, and never
    /// repeated in it; a Sentry that does not answer is none.
    pub fn new(dsn: impl Into<String>) -> Self {
        SentryOutput {
            dsn: dsn.into(),
            allow_message_dsn: false,
            environment: None,
            release: None,
            breadcrumbs: DEFAULT_BREADCRUMBS,
            queue_bytes: queue::QUEUE_BYTES,
        }
    }

    /// Whether a message may name its own project in `fields.dsn`, as metlog-raven's do. Whoever may send messages can
    /// then have this router make requests to any host. At most 32 such projects are served at a time. Default: no.
    pub fn allow_message_dsn(mut self, allow: bool) -> Self {
        self.allow_message_dsn = allow;
        self
    }

    /// The environment of every event. Default: the message's field `environment`, if it has one.
    pub fn environment(mut self, name: impl Into<String>) -> Self {
        self.environment = Some(name.into());
        self
    }

    /// The release of every event. Default: the message's field `release`, if it has one.
    pub fn release(mut self, name: impl Into<String>) -> Self {
        self.release = Some(name.into());
        self
    }

    /// How many of the last messages of a process an event has with it, at most 100. Default: 50.
    pub fn breadcrumbs(mut self, count: usize) -> Self {
        self.breadcrumbs = count;
        self
    }

    /// How many bytes of messages may wait for this output in memory. Default: 16 MiB.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    fn surroundings(&self) -> io::Result<Surroundings> {
        if let Some(name) = self.release.as_ref().filter(|name| !event::is_release(name)) {
            let accepted = "up to 200 characters without blanks, / and \\ are accepted";
            return Err(invalid(format!("release {name:?}: {accepted}")));
        }
        if let Some(name) = self.environment.as_ref().filter(|name| !event::is_environment(name)) {
            let accepted = "up to 64 characters without blanks and / are accepted, and not none";
            return Err(invalid(format!("environment {name:?}: {accepted}")));
        }
        Ok(Surroundings { environment: self.environment.clone(), release: self.release.clone() })
    }
}

impl fmt::Debug for SentryOutput {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SentryOutput")
            .field("project", &self.name())
            .field("allow_message_dsn", &self.allow_message_dsn)
            .field("environment", &self.environment)
            .field("release", &self.release)
            .field("breadcrumbs", &self.breadcrumbs)
            .field("queue_bytes", &self.queue_bytes)
            .finish()
    }
}

impl From<SentryOutput> for Output {
    fn from(settings: SentryOutput) -> Self {
        Output::new(settings)
    }
}

impl Endpoint for SentryOutput {
    fn name(&self) -> String {
        Project::read(&self.dsn).map_or_else(|_| String::from("sentry"), |project| project.name())
    }

    fn settings(&self) -> String {
        format!("{self:?} {}", self.dsn)
    }

    fn queue_bytes(&self) -> usize {
        self.queue_bytes
    }

    fn is_far(&self) -> bool {
        true
    }

    fn leads_to(&self, input: &str) -> bool {
        let address = Project::read(&self.dsn).ok().and_then(|project| project.url().parse().ok());
        address.is_some_and(|address| are_one_place(&address, input))
    }

    fn check(&self) -> io::Result<()> {
        Project::read(&self.dsn).map_err(invalid)?;
        if self.breadcrumbs > MOST_BREADCRUMBS {
            let count = self.breadcrumbs;
            return Err(invalid(format!(
                "breadcrumbs {count}: a number from 0 to {MOST_BREADCRUMBS} is accepted"
            )));
        }
        self.surroundings().map(drop)
    }

    fn open(self: Box<Self>) -> io::Result<Place> {
        self.check()?;
        let project = Project::read(&self.dsn).map_err(invalid)?;
        let writer = Sentry {
            surroundings: self.surroundings()?,
            crumbs: Crumbs::keeping(self.breadcrumbs),
            allow_message_dsn: self.allow_message_dsn,
            configured: deliver_to(&project)?,
            named: HashMap::new(),
        };
        Ok(Place { draw: None, writer: Box::new(writer) })
    }
}

/// The way to one project.
fn deliver_to(project: &Project) -> io::Result<Delivery> {
    let mut address: Address = project.url().parse().map_err(invalid)?;
    let Address::Http { options, .. } = &mut address else { return Err(invalid("no HTTP address")) };
    options.gzip = true;
    // One event is an envelope, and an envelope is a request.
    options.batch_bytes = 1;
    let options = options.clone();
    let transport = Http::shaped(&address, &options, Arc::new(project.clone())).map_err(invalid)?;
    let pace = Pace { linger: Duration::ZERO, batch_bytes: WAITING_BYTES };
    Delivery::new(project.name(), Box::new(transport), &pace, |_| Ok(None))
}

struct Sentry {
    surroundings: Surroundings,
    crumbs: Crumbs,
    allow_message_dsn: bool,
    configured: Delivery,
    /// By the DSNs that messages have named.
    named: HashMap<String, Delivery>,
}

impl Writer for Sentry {
    fn write(&mut self, batch: &Batch, context: &Context) {
        for message in &batch.messages {
            match is_event(message) {
                true => self.send(message, context),
                false => context.settle(1, Ok(())),
            }
            self.crumbs.note(message);
        }
        self.deliveries().for_each(|delivery| delivery.advance(context));
    }

    fn due(&self) -> Option<Instant> {
        let named = self.named.values().filter_map(Delivery::due);
        named.chain(self.configured.due()).min()
    }

    fn tick(&mut self, context: &Context) {
        // The time is asked after what is due, which may be "now".
        let is_due = |delivery: &&mut Delivery| delivery.due().is_some_and(|due| due <= Instant::now());
        self.deliveries().filter(is_due).for_each(|delivery| delivery.tick(context));
    }

    fn close(&mut self, context: &Context) {
        // One that does not answer must not take the time of the others.
        while self.deliveries().any(|delivery| !delivery.is_settled()) {
            self.deliveries().for_each(|delivery| delivery.advance(context));
            if !self.configured.wait(context) {
                break;
            }
        }
        self.deliveries().for_each(|delivery| delivery.close(context));
    }
}

impl Sentry {
    fn deliveries(&mut self) -> impl Iterator<Item = &mut Delivery> {
        std::iter::once(&mut self.configured).chain(self.named.values_mut())
    }

    fn send(&mut self, message: &Message, context: &Context) {
        // To make thousands of events that nobody gets would take the time that the account needs.
        if self.configured.is_too_late(context) {
            return;
        }
        let event = match self.event(message) {
            Ok(event) => event,
            Err(problem) => return context.settle(1, Err(invalid(problem))),
        };
        match self.named(message) {
            Ok(None) => self.configured.write_within(&event, WAITING_BYTES, context),
            Ok(Some(delivery)) => delivery.write_or_lose(&event, WAITING_BYTES, context),
            // It is an event all the same, and the configured project takes it.
            Err(problem) => {
                context.trouble(format!("a message names a project that cannot be served: {problem}"));
                self.configured.write_within(&event, WAITING_BYTES, context);
            }
        }
    }

    fn event(&self, message: &Message) -> Result<Vec<u8>, String> {
        let crumbs = self.crumbs.before(message);
        let payload = message.payload.as_str().filter(|_| message.r#type == "sentry");
        match payload.map_or(Unpacked::NoEvent, raven::unpack) {
            Unpacked::Event(event) => Ok(event::of_raven(event, message, crumbs, &self.surroundings)),
            Unpacked::NoEvent => Ok(event::of(message, crumbs, &self.surroundings)),
            Unpacked::TooLarge => Err(format!(
                "the payload of a message of type sentry unpacks to over {} bytes",
                raven::MOST_BYTES
            )),
        }
    }

    /// The way to the project that a message names, if it may and does.
    fn named(&mut self, message: &Message) -> Result<Option<&mut Delivery>, String> {
        let dsn = message.fields.get("dsn").and_then(Value::as_str).filter(|_| self.allow_message_dsn);
        let Some(dsn) = dsn else { return Ok(None) };
        if !self.named.contains_key(dsn) {
            let project = Project::read(dsn)?;
            if self.named.len() >= MOST_PROJECTS {
                let idle = self.named.iter().find(|(_, delivery)| delivery.is_settled());
                let idle =
                    idle.map(|(dsn, _)| dsn.clone()).ok_or("more of them than can be served at a time")?;
                self.named.remove(&idle);
            }
            let delivery = deliver_to(&project).map_err(|error| error.to_string())?;
            self.named.insert(dsn.to_owned(), delivery);
        }
        Ok(self.named.get_mut(dsn))
    }
}

/// Whether a message is an event, and not only a breadcrumb.
fn is_event(message: &Message) -> bool {
    message.severity <= Severity::Error || ["sentry", "panic"].contains(&message.r#type.as_str())
}
