//! Which spans are timed, and at what rate.
//!
//! In: a span's metadata. Out: the rate its timer carries, or none. The rules are looked at once per callsite.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use tracing::{level_filters::LevelFilter, Metadata};

use super::random;

/// The rules; see [`Builder::timer_level`](crate::Builder::timer_level) and its neighbours.
#[derive(Debug)]
pub(crate) struct TimerRules {
    pub(crate) level: LevelFilter,
    /// Target prefixes; empty means all.
    pub(crate) targets: Vec<String>,
    /// By span name; 1.0 for names that are not in here.
    pub(crate) rates: HashMap<String, f64>,
}

impl Default for TimerRules {
    fn default() -> Self {
        TimerRules { level: LevelFilter::TRACE, targets: Vec::new(), rates: HashMap::new() }
    }
}

impl TimerRules {
    fn rate(&self, metadata: &Metadata<'_>, is_disabled: impl FnOnce(&str) -> bool) -> f64 {
        let target_is_timed =
            self.targets.is_empty() || self.targets.iter().any(|prefix| is_under(metadata.target(), prefix));
        if *metadata.level() > self.level || !target_is_timed || is_disabled(metadata.name()) {
            return 0.0;
        }
        self.rates.get(metadata.name()).map_or(1.0, |rate| rate.clamp(0.0, 1.0))
    }

    fn are_default(&self) -> bool {
        self.level == LevelFilter::TRACE && self.targets.is_empty() && self.rates.is_empty()
    }
}

/// Whether `target` is the module `prefix` or inside it.
fn is_under(target: &str, prefix: &str) -> bool {
    target.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The rules, and what they said of each callsite so far.
#[derive(Debug)]
pub(crate) struct Timers {
    /// `None` when every span is timed.
    rules: Option<TimerRules>,
    rates: RwLock<HashMap<u64, f64>>,
}

impl Timers {
    pub(crate) fn new(rules: TimerRules, any_disabled: bool) -> Timers {
        let rules = (any_disabled || !rules.are_default()).then_some(rules);
        Timers { rules, rates: RwLock::default() }
    }

    /// The rate a new span is timed at: 0 when it is not, now or ever.
    #[inline]
    pub(crate) fn rate(
        &self,
        id: u64,
        metadata: &Metadata<'_>,
        is_disabled: impl FnOnce(&str) -> bool,
    ) -> f64 {
        match &self.rules {
            None => 1.0,
            Some(rules) => self.sampled(rules, id, metadata, is_disabled),
        }
    }

    fn sampled(
        &self,
        rules: &TimerRules,
        id: u64,
        metadata: &Metadata<'_>,
        is_disabled: impl FnOnce(&str) -> bool,
    ) -> f64 {
        let known = self.rates.read().unwrap_or_else(PoisonError::into_inner).get(&id).copied();
        let rate = known.unwrap_or_else(|| {
            let rate = rules.rate(metadata, is_disabled);
            self.rates.write().unwrap_or_else(PoisonError::into_inner).insert(id, rate);
            rate
        });
        let kept = rate >= 1.0 || (rate > 0.0 && random() < rate);
        if kept {
            rate
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_under_its_module_only() {
        assert!(is_under("app::db", "app"));
        assert!(is_under("app", "app"));
        assert!(!is_under("application", "app"));
    }
}
