//! The configuration file: TOML text in, a [`Config`] or all that is wrong with it out. Nothing is opened here.
//!
//! ```text
//! text ─ toml ─ tables ─ read ─ definitions ─ Config
//!                         │         │
//!                variables put in   └─ page: --print-default, docs/router-config.md
//! ```

mod definition;
mod error;
mod inputs;
mod network;
mod outputs;
mod page;
mod place;
mod read;
mod substitute;
mod tables;
#[cfg(test)]
mod tests;
mod units;

use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::config::{Config, Input, Route};
use super::output::Output;
use definition::one_of;
use error::nearest;
pub use error::{ConfigError, ConfigProblem};
use outputs::Make;
use read::{join, Key, Reader, Value};
use substitute::Variables;
use tables::Direction;

/// A longer file is none that people write.
const LONGEST_FILE: u64 = 1024 * 1024;

/// More problems than that are not shown: they are likely to be one.
const MOST_PROBLEMS: usize = 20;

/// The file as a [`Config`].
impl Config {
    /// Reads a configuration from TOML text, with the variables of the environment. docs/router-config.md has all options.
    ///
    /// ```
    /// use tracing_metlog::router::Config;
    ///
    /// let config = Config::from_toml(
    ///     r#"
    ///     [[input]]
    ///     url = "udp://127.0.0.1:5565"
    ///
    ///     [output.lines]
    ///     type = "console"
    ///
    ///     [[route]]
    ///     type = "oldstyle"
    ///     to = "lines"
    ///     "#,
    /// )?;
    /// assert_eq!(config.routes.len(), 1);
    /// let error = Config::from_toml("[router]\ndrain_deadlin = 5").unwrap_err();
    /// assert!(error.to_string().contains("did you mean `drain_deadline`?"));
    /// # Ok::<(), tracing_metlog::router::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// All that is wrong with the text, each with its line.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        read("configuration", text, &|name| std::env::var(name))
    }

    /// Reads a configuration file; see [`from_toml`](Config::from_toml).
    ///
    /// # Errors
    /// Why the file cannot be read, or all that is wrong with it.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let origin = path.as_ref().display().to_string();
        let text = read_file(path.as_ref()).map_err(|error| ConfigError::unreadable(&origin, &error))?;
        read(&origin, &text, &|name| std::env::var(name))
    }

    /// A complete configuration file with comments. It means what [`Config::default`] means.
    pub fn default_toml() -> String {
        page::default_toml()
    }

    /// The reference page of the configuration file, in Markdown.
    pub fn reference() -> String {
        page::reference()
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(LONGEST_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(io::Error::other(format!("accepted is a file of up to {LONGEST_FILE} bytes")));
    }
    Ok(text)
}

fn read(origin: &str, text: &str, variables: Variables<'_>) -> Result<Config, ConfigError> {
    let mut reader = Reader { file: text, variables, problems: Vec::new(), outline: Vec::new() };
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors.iter().take(MOST_PROBLEMS) {
        let span = error.span().unwrap_or(text.len()..text.len());
        reader.problem(span, "", format!("not TOML: {}", error.message()));
    }
    // What a file means that is not taken apart well, nobody can say.
    let config = if errors.is_empty() { reader.document(document.get_ref()) } else { None };
    match config {
        Some(config) if reader.problems.is_empty() => Ok(config),
        _ => {
            reader.problems.truncate(MOST_PROBLEMS);
            Err(ConfigError::new(origin, reader.problems))
        }
    }
}

/// An output of the file, before a route leads to it.
struct Named {
    name: String,
    span: Range<usize>,
    /// `None`: it has problems.
    make: Option<Make>,
    is_used: bool,
}

const TABLES: [&str; 4] = ["router", "input", "output", "route"];

impl<'f> Reader<'f> {
    fn document(&mut self, document: &DeTable<'f>) -> Option<Config> {
        let (mut config, mut inputs, mut outputs) = (Some(Config::new()), Some(Vec::new()), Vec::new());
        let mut routes = None;
        for (key, value) in document.iter() {
            match key.get_ref().as_ref() {
                "router" => config = self.router(value),
                "input" => inputs = self.inputs(value),
                "output" => outputs = self.outputs(value),
                "route" => routes = Some(value),
                _ => self.unknown(key, "", TABLES.into_iter()),
            }
        }
        // Outputs stand anywhere in the file: only now are they all known.
        let routes = routes.map_or(Some(Vec::new()), |routes| self.routes(routes, &mut outputs));
        self.check(&outputs);
        let (mut config, inputs, routes) = (config?, inputs?, routes?);
        let default = Config::default();
        config.inputs = if inputs.is_empty() { default.inputs } else { inputs };
        config.routes = if routes.is_empty() { default.routes } else { routes };
        config.outline = std::mem::take(&mut self.outline);
        Some(config)
    }

    fn router(&mut self, value: &Value<'f>) -> Option<Config> {
        let table = self.table(value, "router")?;
        self.section(&tables::ROUTER, ("router", value.span()), table, &[])
    }

    fn inputs(&mut self, value: &Value<'f>) -> Option<Vec<Input>> {
        let tables = self.list(value, "input")?;
        let inputs: Vec<_> = tables
            .into_iter()
            .map(|(span, table)| {
                let input = self.section(&inputs::INPUT, ("input", span.clone()), table, &[])?;
                self.agrees(input.check(), ("input", span), table)?;
                Some(input)
            })
            .collect();
        inputs.into_iter().collect()
    }

    /// The tables of `[[path]]`.
    fn list<'v>(&mut self, value: &'v Value<'f>, path: &str) -> Option<Vec<(Range<usize>, &'v DeTable<'f>)>> {
        let DeValue::Array(values) = value.get_ref() else {
            self.problem(
                value.span(),
                path,
                format!("accepted is a list of tables: [[{path}]], in two brackets"),
            );
            return None;
        };
        values.iter().map(|value| Some((value.span(), self.table(value, path)?))).collect()
    }

    fn outputs(&mut self, value: &Value<'f>) -> Vec<Named> {
        let Some(outputs) = self.table(value, "output") else { return Vec::new() };
        let mut outputs: Vec<Named> = outputs.iter().map(|(key, value)| self.output(key, value)).collect();
        outputs.sort_by_key(|output| output.span.start);
        outputs
    }

    fn output(&mut self, key: &Key<'f>, value: &Value<'f>) -> Named {
        let path = join("output", key.get_ref());
        let make = self.table(value, &path).and_then(|table| {
            let make = self.made(&path, value.span(), table)?;
            self.agrees(make().check(), (&path, value.span()), table)?;
            Some(make)
        });
        Named { name: key.get_ref().to_string(), span: key.span(), make, is_used: false }
    }

    /// Whether options go together; an error begins with the name of the one that does not.
    fn agrees(
        &mut self,
        checked: io::Result<()>,
        place: (&str, Range<usize>),
        table: &DeTable<'f>,
    ) -> Option<()> {
        let error = match checked {
            Ok(()) => return Some(()),
            Err(error) => error.to_string(),
        };
        let (path, span) = place;
        // `keep: why`, `breadcrumbs 500: why`, `labels is ...`.
        let (name, _) = error.split_once([':', ' ']).unwrap_or((&error, ""));
        let named = table.iter().find(|(key, _)| key.get_ref() == name);
        match named {
            Some((_, value)) => {
                let why = error.strip_prefix(&format!("{name}: ")).unwrap_or(&error);
                self.problem(value.span(), &join(path, name), why);
            }
            None => self.problem(span, path, error),
        }
        None
    }

    fn made(&mut self, path: &str, span: Range<usize>, table: &DeTable<'f>) -> Option<Make> {
        let kinds = || outputs::KINDS.iter().map(|kind| kind.name);
        let accepted = || one_of(kinds().map(|name| format!("{name:?}")));
        let Some((_, kind)) = table.iter().find(|(key, _)| key.get_ref() == "type") else {
            self.problem(span, path, format!("`type` is missing; accepted is {}", accepted()));
            return None;
        };
        let key = join(path, "type");
        let DeValue::String(name) = kind.get_ref() else {
            self.problem(kind.span(), &key, format!("accepted is {}", accepted()));
            return None;
        };
        if let Some(kind) = outputs::KINDS.iter().find(|kind| kind.name == name) {
            return (kind.read)(self, (path, span), table);
        }
        let missing = outputs::NEEDS.iter().find(|(missing, _)| missing == name);
        let text = match (missing, nearest(name, kinds())) {
            (Some((_, feature)), _) => {
                format!("needs the feature `{feature}`, which this program is built without")
            }
            (None, Some(meant)) => format!("unknown; did you mean {meant:?}?"),
            (None, None) => format!("unknown; accepted is {}", accepted()),
        };
        self.problem(kind.span(), &key, text);
        None
    }

    fn routes(&mut self, value: &Value<'f>, outputs: &mut [Named]) -> Option<Vec<Route>> {
        let mut routes = Vec::new();
        for (span, table) in self.list(value, "route")? {
            let Some(direction) = self.section(&tables::ROUTE, ("route", span), table, &[]) else { continue };
            let to = table.iter().find(|(key, _)| key.get_ref() == "to").map(|(_, value)| value);
            self.outline.push(format!("{} -> {}", direction.says(), direction.to.join(", ")));
            for (index, name) in direction.to.iter().enumerate() {
                let span = to.map_or(0..0, |to| element(to, index).span());
                routes.extend(self.route(&direction, name, span, outputs));
            }
        }
        Some(routes)
    }

    fn route(
        &mut self,
        direction: &Direction,
        name: &str,
        span: Range<usize>,
        outputs: &mut [Named],
    ) -> Option<Route> {
        if let Some(output) = outputs.iter_mut().find(|output| output.name == name) {
            output.is_used = true;
            let output = output.make.as_ref()?();
            return Some(Route::new(direction.matcher(), output));
        }
        let names = || outputs.iter().map(|output| &*output.name);
        let text = match nearest(name, names()) {
            Some(meant) => format!("no output is called so; did you mean {meant:?}?"),
            None if outputs.is_empty() => {
                format!("there is no output: [{}] is missing", join("output", name))
            }
            None => format!(
                "no output is called so; there is {}",
                one_of(names().map(|name| format!("{name:?}")))
            ),
        };
        self.problem(span, "route.to", text);
        None
    }

    /// What can only be seen of all outputs together.
    fn check(&mut self, outputs: &[Named]) {
        let mut places: Vec<(&str, Output)> = Vec::new();
        for output in outputs {
            let path = join("output", &output.name);
            if !output.is_used {
                let text = "no route leads here: remove it, or name it in the `to` of a [[route]]";
                self.problem(output.span.clone(), &path, text);
            }
            let Some(place) = output.make.as_ref().map(|make| make()) else { continue };
            match places.iter().find(|(_, other)| other.is_same(&place)) {
                Some((other, _)) => {
                    let text =
                        format!("the same place as {}: one output is enough for it", join("output", other));
                    self.problem(output.span.clone(), &path, text);
                }
                None => places.push((&output.name, place)),
            }
        }
    }
}

/// One of the texts of a list, or the one text that stands in its place.
fn element<'v, 'f>(value: &'v Value<'f>, index: usize) -> &'v Value<'f> {
    match value.get_ref() {
        DeValue::Array(values) => values.get(index).unwrap_or(value),
        _ => value,
    }
}
