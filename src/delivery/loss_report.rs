//! What is said about lost messages: how many, why, from when to when, and what to do about it.
//!
//! In: the counters. Out: the text and the fields of a `metlog.loss` message, and the same text for stderr when no
//! destination could take the message. Nothing is lost here.

use std::fmt::Write as _;

use super::encode::text::Timestamps;
use crate::pipeline::LossWatch;
use crate::stats::{Counters, LossReason, LossTimes, Losses};

/// Losses that nobody has been told of yet.
#[derive(Debug, Default)]
pub(crate) struct LossReports {
    told: LossWatch,
}

/// One report.
#[derive(Debug)]
pub(crate) struct LossReport {
    pub(crate) payload: String,
    /// `"total":12,"queue_full":10,` and so on.
    pub(crate) fields: String,
}

impl LossReports {
    /// What was lost since the last report.
    pub(crate) fn next(&mut self, counters: &Counters) -> Option<LossReport> {
        let losses = self.told.news(counters.all_losses());
        (losses.total() > 0).then(|| LossReport::new(&losses, &counters.take_loss_times()))
    }
}

impl LossReport {
    fn new(losses: &Losses, times: &LossTimes) -> LossReport {
        let mut payload = format!("lost {losses} messages since the last report");
        let mut fields = format!("\"total\":{},", losses.total());
        for (reason, count) in losses.iter() {
            let (first, last) = times.of(reason);
            let (first, last) = (timestamp(first), timestamp(last));
            let advice = LossReason::advice(reason);
            // Texts of our own, with nothing in them that JSON would escape. Writing to a string cannot fail.
            let _ = write!(payload, "; {reason} from {first} to {last}: {advice}");
            let _ = write!(fields, "\"{reason}\":{count},\"{reason}.first\":\"{first}\",");
            let _ = write!(fields, "\"{reason}.last\":\"{last}\",\"{reason}.advice\":\"{advice}\",");
        }
        LossReport { payload, fields }
    }
}

fn timestamp(nanoseconds: u64) -> String {
    let mut text = Vec::new();
    Timestamps::new().write(nanoseconds, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_advice_needs_escaping_and_each_names_what_to_do() {
        for reason in LossReason::ALL {
            let advice = reason.advice();
            assert_eq!(serde_json::to_string(advice).unwrap(), format!("\"{advice}\""));
            assert!(advice.len() > 20 && !advice.contains('\n') && !advice.contains("  "), "{advice}");
        }
    }
}
