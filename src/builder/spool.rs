//! The settings of the spool, from code and from the environment.
//!
//! In: settings. Out: an open spool, or an error that names the setting. Nothing can be lost here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{from_environment, parse, variable, variables, BuildError, Builder};
use crate::delivery::spool::store::Limits;
use crate::delivery::spool::{Settings, Spool};
use crate::queue::WhenFull;
use crate::stats::Counters;

const DEFAULT_BYTES: u64 = 1 << 30;
/// Fewer hold not even one segment.
const FEWEST_BYTES: u64 = 64 * 1024;
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const SHORTEST_MAX_AGE: Duration = Duration::from_secs(1);

/// What code has set of it.
#[derive(Debug, Default)]
pub(super) struct SpoolSettings {
    directory: Option<PathBuf>,
    bytes: Option<u64>,
    max_age: Option<Duration>,
}

impl Builder {
    /// A directory for messages that no destination takes: they wait there on disk, and are sent when a router is back,
    /// in this run of the program or in a later one. Default: `METLOG_SPOOL`, else none, and they wait in memory.
    ///
    /// Messages go to disk when every destination has failed, or when none has room and the queue is half full; while all
    /// goes well nothing is written. At the end of the program what is not delivered goes there too. What has been written
    /// survives the process at once, and the machine after 50 ms or a [`flush`](crate::Guard::flush). The oldest are sent
    /// first, a batch of them after each batch of new messages.
    ///
    /// The directory is made if only it is missing, and processes may share it: each has a sub-directory of its own, and
    /// sends what processes that have ended left behind. Its files can be read by their owner only. docs/spool-format.md
    /// says what they look like, and `metlog-router spool` shows what is in them.
    ///
    /// A directory that cannot be used is an error. A disk that is full, now or later, is none: messages then wait in
    /// memory as they would without a spool, and a line on stderr says so.
    ///
    /// ```no_run
    /// let _metlog = tracing_metlog::builder().router("tcp://127.0.0.1:5565").spool("/var/spool/shop").init();
    /// ```
    pub fn spool(mut self, directory: impl AsRef<Path>) -> Self {
        self.spool.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// The most the spool may hold, in bytes on disk, at least 65,536; of several processes each may hold as much. When it
    /// is full messages wait in memory, and [`when_full`](Builder::when_full) decides what becomes of them; under
    /// [`WhenFull::DropOldest`] the oldest in the spool make room (`spool_full`). Default: `METLOG_SPOOL_LIMIT`, else 1 GiB.
    pub fn spool_limit(mut self, bytes: u64) -> Self {
        self.spool.bytes = Some(bytes);
        self
    }

    /// How long a message may wait in the spool, at least a second: an older one is lost (`spool_expired`). Messages
    /// expire together with those of about the same time, up to an eighth of the age later. Default:
    /// `METLOG_SPOOL_MAX_AGE_S`, else 7 days.
    pub fn spool_max_age(mut self, age: Duration) -> Self {
        self.spool.max_age = Some(age);
        self
    }

    /// The spool, if there is to be one.
    pub(super) fn open_spool(&self, counters: &Arc<Counters>) -> Result<Option<Spool>, BuildError> {
        // Also without a directory a wrong value is an error: somebody meant something by it.
        let limits = self.spool_limits()?;
        let from_variable =
            || variable(variables::SPOOL).map(|value| (variables::SPOOL, PathBuf::from(value)));
        let from_code = self.spool.directory.clone().map(|directory| ("Builder::spool", directory));
        let Some((origin, directory)) = from_code.or_else(from_variable) else { return Ok(None) };
        let drops_oldest = self.resolve_when_full()? == WhenFull::DropOldest;
        let settings = Settings { directory: directory.clone(), limits, drops_oldest };
        let opened = Spool::open(settings, counters);
        opened.map(Some).map_err(|problem| BuildError::Spool { origin, directory, problem })
    }

    fn spool_limits(&self) -> Result<Limits, BuildError> {
        const BYTES_ACCEPTED: &str = "a number of bytes from 65536 on";
        const AGE_ACCEPTED: &str = "a number of seconds from 1 on";
        let is_enough = |bytes: &u64| *bytes >= FEWEST_BYTES;
        let is_long_enough = |age: &Duration| *age >= SHORTEST_MAX_AGE;
        if let Some(bytes) = self.spool.bytes.filter(|bytes| !is_enough(bytes)) {
            let (name, value) = ("Builder::spool_limit", bytes.to_string());
            return Err(BuildError::Variable { name, value, accepted: BYTES_ACCEPTED });
        }
        if let Some(age) = self.spool.max_age.filter(|age| !is_long_enough(age)) {
            let (name, value) = ("Builder::spool_max_age", format!("{age:?}"));
            return Err(BuildError::Variable { name, value, accepted: AGE_ACCEPTED });
        }
        let parse_bytes = |value: &str| parse(value).filter(is_enough);
        let parse_age = |value: &str| parse(value).map(Duration::from_secs).filter(is_long_enough);
        let (bytes, age) = (self.spool.bytes, self.spool.max_age);
        Ok(Limits {
            bytes: from_environment(
                bytes,
                variables::SPOOL_LIMIT,
                BYTES_ACCEPTED,
                parse_bytes,
                DEFAULT_BYTES,
            )?,
            max_age: from_environment(
                age,
                variables::SPOOL_MAX_AGE,
                AGE_ACCEPTED,
                parse_age,
                DEFAULT_MAX_AGE,
            )?,
        })
    }
}
