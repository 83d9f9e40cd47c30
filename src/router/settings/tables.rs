//! The options of the router itself and of routes.

use super::definition::Default::{Is, Needed, Says};
use super::definition::{Definition, Outcome, Section, Take};
use crate::router::config::{has_port, Config};
use crate::router::matcher::Matcher;
use crate::Message;

/// `[router]`: what is no input, no output and no route.
pub(super) const ROUTER: Section<Config> = Section {
    title: "[router]",
    kind: None,
    about: "The router itself. May be left out.",
    begin: Some(Config::new),
    options: &[
        Definition::new(
            "drain_deadline",
            Take::Duration(|config, deadline| Ok(config.drain_deadline(deadline))),
            Is("\"5s\""),
            "How long the end (SIGTERM) waits for clients that still send, and for outputs that still write. What is \
             left then is counted and named.",
        ),
        Definition::new(
            "admin",
            Take::Text(admin),
            Says("nothing listens", "\"127.0.0.1:5566\""),
            "HOST:PORT of a small HTTP server: `/metrics` in the text format of Prometheus, and `/healthz`. Needs the \
             feature `http`. Who can reach it can read it: no message, no secret, but names and numbers.",
        ),
        Definition::new(
            "report_every",
            Take::Duration(|config, every| match every.as_millis() {
                0..=99 => Err("accepted is at least \"100ms\"".into()),
                _ => Ok(config.report_every(every)),
            }),
            Says("no reports", "\"60s\""),
            "How often the router sends its own counters through its own routes: messages of type `counter` and \
             `gauge` with the logger `metlog-router`.",
        ),
    ],
};

fn admin(config: Config, address: &str) -> Outcome<Config> {
    if !has_port(address) {
        return Err("accepted is HOST:PORT, such as 127.0.0.1:5566 or [::1]:5566".into());
    }
    if cfg!(not(feature = "http")) {
        return Err("needs the feature `http`, which this program is built without".into());
    }
    Ok(config.admin(address))
}

/// A route as it is written: the names of outputs are not looked up yet.
#[derive(Default)]
pub(super) struct Direction {
    /// Conditions that must all hold.
    conditions: Vec<Matcher>,
    types: Vec<String>,
    pub(super) to: Vec<String>,
    /// The conditions as they are written.
    said: Vec<String>,
}

impl Direction {
    fn condition(mut self, matcher: Matcher, said: String) -> Outcome<Self> {
        self.conditions.push(matcher);
        self.said.push(said);
        Ok(self)
    }

    pub(super) fn matcher(&self) -> Matcher {
        let types = (!self.types.is_empty()).then(|| Matcher::types(self.types.iter().cloned()));
        let conditions = self.conditions.iter().cloned().chain(types);
        conditions.reduce(Matcher::and).unwrap_or_else(Matcher::any)
    }

    /// What it matches, for people.
    pub(super) fn says(&self) -> String {
        let mut said = self.said.clone();
        if !self.types.is_empty() {
            said.push(format!("types = {:?}", self.types));
        }
        if said.is_empty() {
            String::from("every message")
        } else {
            said.join(", ")
        }
    }
}

/// Said as an expression, and tried: not every name can be written as one.
fn logger(name: &str) -> Outcome<Matcher> {
    let mut message = Message::new("", "");
    message.logger = name.to_owned();
    let matcher = Matcher::parse(&format!("Logger == \"{}\"", name.replace('"', "\\\"")));
    match matcher {
        Ok(matcher) if matcher.matches(&message) => Ok(matcher),
        _ => Err("accepted is a name without a line break, and without a backslash at its end".into()),
    }
}

/// `[[route]]`: which messages go where.
pub(super) const ROUTE: Section<Direction> = Section {
    title: "[[route]]",
    kind: None,
    about: "Which messages go where. A message goes to every route that matches it, and once to each output. All \
            conditions of a route must hold; a route without any takes every message. Without any `[[route]]` and any \
            output, every message goes to the console.",
    begin: Some(Direction::default),
    options: &[
        Definition::new(
            "to",
            Take::Texts(|mut route: Direction, name| {
                route.to.push(name.to_owned());
                Ok(route)
            }),
            Needed("\"console\""),
            "The name of an output, or a list of names.",
        ),
        Definition::new(
            "match",
            Take::Matcher(|route, matcher, text| route.condition(matcher, format!("match = {text:?}"))),
            Says("every message", "\"Type == 'timer' && Severity <= 6\""),
            "An expression in the message-matcher language of Heka: docs/matcher.md.",
        ),
        Definition::new(
            "type",
            Take::Text(|route, name| route.condition(Matcher::type_is(name), format!("type = {name:?}"))),
            Says("any type", "\"timer\""),
            "Messages of exactly this type.",
        ),
        Definition::new(
            "types",
            Take::Texts(|mut route: Direction, name| {
                route.types.push(name.to_owned());
                Ok(route)
            }),
            Says("any type", "[\"timer\", \"counter\", \"gauge\"]"),
            "Messages of one of these types.",
        ),
        Definition::new(
            "logger",
            Take::Text(|route, name| route.condition(logger(name)?, format!("logger = {name:?}"))),
            Says("any logger", "\"shop\""),
            "Messages of exactly this logger.",
        ),
        Definition::new(
            "severity_at_most",
            Take::Severity(|route, severity| {
                route.condition(Matcher::severity_at_most(severity), format!("severity_at_most = \"{severity}\""))
            }),
            Says("any severity", "\"error\""),
            "Messages at least this bad, as a number or a name: lower numbers are worse.",
        ),
    ],
};
