//! From a builder to a front end: the last step of each of its ends.
//!
//! In: a builder. Out: a layer or a logger with its guard, or both installed as the program's own.

use std::sync::Arc;

use super::{variable, variables, BuildError, Builder, InitError};
use crate::guard::Guard;
#[cfg(feature = "tracing")]
use crate::pipeline::Pipeline;

#[cfg(feature = "log")]
use crate::capture::logger::MetlogLogger;
#[cfg(feature = "tracing")]
use crate::capture::{layer::MetlogLayer, timers::Timers};
#[cfg(feature = "tracing")]
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, Layer, Registry};

/// The filter if nobody says anything.
const DEFAULT_FILTER: &str = "info";

/// Filter directives, and where they came from.
#[derive(Clone, Debug)]
struct Directives {
    origin: &'static str,
    text: String,
}

impl Directives {
    #[cfg_attr(not(feature = "tracing"), allow(dead_code))]
    fn error(&self, problem: impl ToString) -> BuildError {
        let Directives { origin, text } = self.clone();
        BuildError::Filter { origin, directives: text, problem: problem.to_string() }
    }

    /// Those that name no span or field, which a `log` record does not have.
    #[cfg(feature = "log")]
    fn for_log(&self) -> Result<env_filter::Filter, BuildError> {
        let directives = split(&self.text).filter(|directive| !directive.contains(['[', '{']));
        let directives = directives.collect::<Vec<_>>().join(",");
        let mut filter = env_filter::Builder::new();
        filter.try_parse(&directives).map_err(|error| self.error(error))?;
        Ok(filter.build())
    }

    /// The same for a layer inside somebody else's stack, where they must name no span or field.
    #[cfg(feature = "tracing")]
    fn for_layer(&self) -> Result<Targets, BuildError> {
        const ADVICE: &str =
            "a layer's own filter takes no spans or fields; filter the stack or the layer instead, \
                              with `layer.with_filter(EnvFilter::new(..))`";
        if self.text.contains(['[', '{']) {
            return Err(self.error(ADVICE));
        }
        self.text.parse().map_err(|error| self.error(error))
    }
}

/// Directives are divided by commas, but not by those inside `[span{field=1,other=2}]`.
#[cfg(feature = "log")]
fn split(directives: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0usize;
    directives.split(move |character| {
        match character {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    })
}

impl Builder {
    /// The directives that code or `METLOG_FILTER` give.
    fn directives(&self) -> Option<Directives> {
        let from = |origin| move |text| Directives { origin, text };
        self.filter
            .clone()
            .map(from("Builder::filter"))
            .or_else(|| variable(variables::FILTER).map(from(variables::FILTER)))
    }

    /// Those, else `RUST_LOG`, else the default.
    fn directives_or_default(&self) -> Directives {
        self.directives().unwrap_or_else(|| match variable(variables::RUST_LOG) {
            Some(text) => Directives { origin: variables::RUST_LOG, text },
            None => Directives { origin: "default", text: String::from(DEFAULT_FILTER) },
        })
    }

    #[cfg(feature = "tracing")]
    fn layer(&mut self, pipeline: &Arc<Pipeline>, filter: Option<Targets>) -> MetlogLayer {
        let mut rules = std::mem::take(&mut self.timers);
        rules.rates = std::mem::take(&mut self.timer_rates);
        let timers = Timers::new(rules, !pipeline.disabled_timers.is_empty());
        MetlogLayer::new(Arc::clone(pipeline), timers, filter, self.severities)
    }

    /// A layer for a `tracing` stack of your own.
    ///
    /// What the stack's filters let pass is sent; [`filter`](Builder::filter) and `METLOG_FILTER` work on top of
    /// them, on what this layer sends only. It is asked late, for each event: events that no layer of the stack wants
    /// are cheapest refused by a filter of the stack or by `layer.with_filter(..)`.
    ///
    /// ```
    /// use tracing_subscriber::layer::SubscriberExt;
    ///
    /// let (layer, _guard) = tracing_metlog::builder().router("off").build()?;
    /// let subscriber = tracing_subscriber::registry().with(layer);
    /// # Ok::<(), tracing_metlog::BuildError>(())
    /// ```
    ///
    /// # Errors
    /// A [`BuildError`] names the value that is wrong, where it came from and what is accepted. A router that is
    /// down is no error.
    #[cfg(feature = "tracing")]
    pub fn build(mut self) -> Result<(MetlogLayer, Guard), BuildError> {
        let filter = self.directives().map(|directives| directives.for_layer()).transpose()?;
        let pipeline = self.start(false)?;
        Ok((self.layer(&pipeline, filter), Guard::new(pipeline)))
    }

    /// A logger for the `log` crate, to be installed by [`MetlogLogger::install`] or wrapped in one of your own.
    ///
    /// # Errors
    /// As for [`build`](Builder::build).
    #[cfg(feature = "log")]
    pub fn build_logger(mut self) -> Result<(MetlogLogger, Guard), BuildError> {
        let filter = self.directives_or_default().for_log()?;
        let pipeline = self.start(false)?;
        Ok((MetlogLogger::new(Arc::clone(&pipeline), filter, self.severities), Guard::new(pipeline)))
    }

    /// A layer and a logger that share one queue and one account, for a program that puts together both its `tracing`
    /// stack and its `log` logger itself. `log` records keep their key-values, which `tracing-log` does not pass on.
    ///
    /// ```
    /// use tracing_subscriber::layer::SubscriberExt;
    ///
    /// let (layer, logger, _guard) = tracing_metlog::builder().router("off").build_both()?;
    /// tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).expect("none is installed");
    /// logger.install().expect("none is installed");
    /// # Ok::<(), tracing_metlog::BuildError>(())
    /// ```
    ///
    /// # Errors
    /// As for [`build`](Builder::build).
    #[cfg(all(feature = "tracing", feature = "log"))]
    pub fn build_both(mut self) -> Result<(MetlogLayer, MetlogLogger, Guard), BuildError> {
        let layer_filter = self.directives().map(|directives| directives.for_layer()).transpose()?;
        let log_filter = self.directives_or_default().for_log()?;
        let pipeline = self.start(false)?;
        let logger = MetlogLogger::new(Arc::clone(&pipeline), log_filter, self.severities);
        Ok((self.layer(&pipeline, layer_filter), logger, Guard::new(pipeline)))
    }

    /// Makes this the program's `tracing` subscriber and `log` logger, as far as those features are on.
    ///
    /// # Panics
    /// When [`try_init`](Builder::try_init) would give an error, with its text.
    #[track_caller]
    pub fn init(self) -> Guard {
        match self.try_init() {
            Ok(guard) => guard,
            Err(error) => panic!("tracing_metlog::init: {error}"),
        }
    }

    /// Like [`init`](Builder::init), with an error instead of a panic.
    ///
    /// # Errors
    /// The configuration is wrong, or the program has a subscriber or a logger already; then nothing is installed.
    pub fn try_init(mut self) -> Result<Guard, InitError> {
        let directives = self.directives_or_default();
        #[cfg(feature = "log")]
        let log_filter = directives.for_log()?;
        #[cfg(feature = "tracing")]
        let stack_filter = StackFilter::new(&directives)?;
        #[cfg(feature = "tracing")]
        if has_subscriber() {
            return Err(InitError::TracingTaken);
        }
        #[cfg(feature = "console")]
        let console = self.wants_console()?;
        let pipeline = self.start(true)?;
        #[cfg(feature = "log")]
        {
            let logger = MetlogLogger::new(Arc::clone(&pipeline), log_filter, self.severities);
            #[cfg(feature = "console")]
            let logger = logger.bridged(console);
            logger.install().map_err(|_| InitError::LogTaken)?;
        }
        #[cfg(feature = "tracing")]
        {
            let layer = self.layer(&pipeline, None);
            #[cfg(feature = "console")]
            let layer = layer.and_then(console.then(console_layer));
            stack_filter.install(layer)?;
        }
        Ok(Guard::new(pipeline))
    }

    #[cfg(feature = "console")]
    fn wants_console(&self) -> Result<bool, BuildError> {
        let parse = |value: &str| value.to_ascii_lowercase().parse().ok();
        super::from_environment(self.console, variables::CONSOLE, "true or false", parse, false)
    }
}

/// Whether the program has a subscriber. One that only held for a while, and is gone, is none.
#[cfg(feature = "tracing")]
fn has_subscriber() -> bool {
    tracing::dispatcher::get_default(|current| !current.is::<tracing::subscriber::NoSubscriber>())
}

/// What stands before every layer of the stack that `init` makes.
#[cfg(feature = "tracing")]
// There is one of these in a program.
#[allow(clippy::large_enum_variant)]
enum StackFilter {
    /// Directives without spans and fields, which need to know nothing of spans: 160 instructions a span less.
    Targets(Box<Targets>),
    #[cfg(feature = "env-filter")]
    Spans(Box<tracing_subscriber::EnvFilter>),
}

#[cfg(feature = "tracing")]
impl StackFilter {
    fn new(directives: &Directives) -> Result<Self, BuildError> {
        #[cfg(feature = "env-filter")]
        if directives.text.contains(['[', '{']) {
            let filter = tracing_subscriber::EnvFilter::builder().parse(&directives.text);
            return filter
                .map(|filter| StackFilter::Spans(Box::new(filter)))
                .map_err(|error| directives.error(error));
        }
        directives
            .text
            .parse()
            .map(|filter| StackFilter::Targets(Box::new(filter)))
            .map_err(|error| directives.error(error))
    }

    fn install<L>(self, layer: L) -> Result<(), InitError>
    where
        L: Layer<Registry> + Send + Sync,
    {
        let installed = match self {
            StackFilter::Targets(filter) => {
                let filter = *filter;
                tracing::subscriber::set_global_default(Registry::default().with(layer.and_then(filter)))
            }
            #[cfg(feature = "env-filter")]
            StackFilter::Spans(filter) => {
                let filter = *filter;
                tracing::subscriber::set_global_default(Registry::default().with(layer.and_then(filter)))
            }
        };
        installed.map_err(|_| InitError::TracingTaken)
    }
}

/// Everything that passes the stack's filter, on stderr, for people.
#[cfg(feature = "console")]
fn console_layer<S>() -> impl tracing_subscriber::Layer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    use std::io::IsTerminal;
    tracing_subscriber::fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr)
}

#[cfg(all(test, feature = "log"))]
mod tests {
    use super::*;

    #[test]
    fn directives_for_spans_are_left_out_for_log_records_and_the_others_stay() {
        let directives = "info,[request{id=1,user=2}]=debug,hyper=warn";
        assert_eq!(
            split(directives).collect::<Vec<_>>(),
            ["info", "[request{id=1,user=2}]=debug", "hyper=warn"]
        );
        let directives = Directives { origin: "test", text: directives.to_owned() };
        let filter = directives.for_log().expect("a filter");
        let enabled = |target: &str, level| {
            filter.enabled(&log::Metadata::builder().target(target).level(level).build())
        };
        assert!(enabled("app", log::Level::Info) && !enabled("app", log::Level::Debug));
        assert!(enabled("hyper::proto", log::Level::Warn) && !enabled("hyper::proto", log::Level::Info));
    }
}
