//! What can be wrong with a configuration. Every error names the value, where it came from, and what is accepted.

use std::error::Error;
use std::fmt;
use std::io;

use crate::delivery::address::AddressError;

/// A configuration that cannot be built.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// A router's address cannot be read.
    Address {
        /// `Builder::router`, or the variable's name.
        origin: &'static str,
        /// What is wrong with it.
        problem: AddressError,
    },
    /// An environment variable, or a setting made in code, holds what it must not.
    Variable {
        /// The variable.
        name: &'static str,
        /// What it holds.
        value: String,
        /// What it may hold.
        accepted: &'static str,
    },
    /// Filter directives that cannot be read.
    Filter {
        /// `Builder::filter`, or the variable's name.
        origin: &'static str,
        /// The directives.
        directives: String,
        /// What is wrong with them.
        problem: String,
    },
    /// The spool's directory cannot be used.
    #[cfg(feature = "spool")]
    Spool {
        /// `Builder::spool`, or the variable's name.
        origin: &'static str,
        /// The directory.
        directory: std::path::PathBuf,
        /// What is wrong with it.
        problem: io::Error,
    },
    /// The system gave no background thread.
    Thread(io::Error),
}

impl fmt::Display for BuildError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::Address { origin, problem } => write!(formatter, "{origin}: {problem}"),
            BuildError::Variable { name, value, accepted } => {
                write!(formatter, "{name}={value:?}: {accepted} is accepted")
            }
            BuildError::Filter { origin, directives, problem } => write!(
                formatter,
                "{origin}: filter {directives:?}: {problem}; accepted are directives like \"info\" or \
                 \"warn,my_crate::module=debug\""
            ),
            #[cfg(feature = "spool")]
            BuildError::Spool { origin, directory, problem } => write!(
                formatter,
                "{origin}: spool {directory:?}: {problem}; accepted is a directory that this program may write to, or \
                 the name of one to be made in an existing directory"
            ),
            BuildError::Thread(error) => write!(formatter, "no background thread: {error}"),
        }
    }
}

impl Error for BuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            BuildError::Address { problem, .. } => Some(problem),
            #[cfg(feature = "spool")]
            BuildError::Spool { problem, .. } => Some(problem),
            BuildError::Thread(error) => Some(error),
            BuildError::Variable { .. } | BuildError::Filter { .. } => None,
        }
    }
}

/// Why [`try_init`](crate::try_init) did not install anything.
#[derive(Debug)]
#[non_exhaustive]
pub enum InitError {
    /// The configuration cannot be built.
    Build(BuildError),
    /// The program has a `tracing` subscriber already: add the layer of
    /// [`Builder::build`](crate::Builder::build) to it instead.
    TracingTaken,
    /// The program has a `log` logger already. Do not install that one, but pass it to
    /// [`MetlogLogger::wrap`](crate::MetlogLogger::wrap). If it is the one of `tracing-log`, which
    /// `tracing_subscriber`'s own `init` installs, use [`Builder::build`](crate::Builder::build) alone: its layer gets
    /// `log` records that way.
    LogTaken,
}

impl fmt::Display for InitError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InitError::Build(error) => error.fmt(formatter),
            InitError::TracingTaken => formatter.write_str(
                "a global `tracing` subscriber is installed already; instead of calling `init`, add the layer of \
                 `tracing_metlog::builder().build()` to that subscriber's stack",
            ),
            InitError::LogTaken => formatter.write_str(
                "a global `log` logger is installed already; instead of calling `init`, wrap that logger \
                 (`tracing_metlog::builder().build_logger()` and `MetlogLogger::wrap`), or, if it is `LogTracer`, \
                 add the layer of `tracing_metlog::builder().build()` to the stack",
            ),
        }
    }
}

impl Error for InitError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            InitError::Build(error) => Some(error),
            InitError::TracingTaken | InitError::LogTaken => None,
        }
    }
}

impl From<BuildError> for InitError {
    fn from(error: BuildError) -> Self {
        InitError::Build(error)
    }
}
