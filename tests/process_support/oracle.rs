//! Messages that can be told apart, and what must be true of those that arrived.
//!
//! Message `n` of producer `t` says so in its fields and in its payload, which also carries a filler that follows
//! from the two: a message that is cut, mixed with another or made up is seen.

use std::collections::BTreeMap;

use serde_json::Value;
use tracing_metlog::{Client, Severity, Stats};

use super::schema::Oracle;

/// The text of message `n` of producer `t`.
pub fn text(t: u64, n: u64) -> String {
    let filler = "abcdefghijklmnopqrstuvwxyzåß→".chars().cycle().skip(((t * 7 + n) % 29) as usize);
    format!("message {t}/{n} {}", filler.take((n % 41) as usize).collect::<String>())
}

/// Sends message `n` of producer `t`.
pub fn send(client: &Client, t: u64, n: u64) {
    client.message("oldstyle").payload(text(t, n).as_str()).field("t", t).field("n", n).send();
}

/// The same with a severity of its own.
pub fn send_at(client: &Client, severity: Severity, t: u64, n: u64) {
    let message = client.message("oldstyle").severity(severity);
    message.payload(text(t, n).as_str()).field("t", t).field("n", n).send();
}

/// Sends messages `0..each` of each producer, from a thread each.
pub fn send_all(client: &Client, producers: u64, each: u64) {
    std::thread::scope(|scope| {
        for t in 0..producers {
            scope.spawn(move || (0..each).for_each(|n| send(client, t, n)));
        }
    });
}

/// What a receiver got.
#[derive(Debug, Default)]
pub struct Got {
    /// How often each number came.
    pub ids: BTreeMap<(u64, u64), u32>,
    /// Numbers by producer, in the order of their arrival.
    pub orders: BTreeMap<u64, Vec<u64>>,
    /// The reports about losses, which have no number.
    pub loss_reports: Vec<Value>,
}

impl Got {
    /// Reads lines; fails on anything that is not a whole, unchanged message.
    pub fn read(lines: &[impl AsRef<str>]) -> Got {
        thread_local! {
            // To compile the schema takes most of a second.
            static SCHEMA: Oracle = Oracle::new();
        }
        let mut got = Got::default();
        SCHEMA
            .with(|schema| lines.iter().for_each(|line| got.take(schema.read(line.as_ref()), line.as_ref())));
        got
    }

    fn take(&mut self, message: Value, line: &str) {
        if message["type"] == "metlog.loss" {
            return self.loss_reports.push(message);
        }
        let number =
            |name: &str| message["fields"][name].as_u64().unwrap_or_else(|| panic!("{name} in {line}"));
        let (t, n) = (number("t"), number("n"));
        assert_eq!(message["payload"], text(t, n), "message {t}/{n} was changed on its way");
        *self.ids.entry((t, n)).or_default() += 1;
        self.orders.entry(t).or_default().push(n);
    }

    /// How many came, reports included, each counted as often as it came.
    pub fn count(&self) -> u64 {
        self.ids.values().map(|&times| u64::from(times)).sum::<u64>() + self.loss_reports.len() as u64
    }

    /// None came twice, and none that was never sent.
    #[track_caller]
    pub fn assert_genuine(&self, producers: u64, each: u64) {
        for (&(t, n), &times) in &self.ids {
            assert!(t < producers && n < each, "message {t}/{n} was never sent");
            assert_eq!(times, 1, "message {t}/{n} came {times} times");
        }
    }

    /// Every message came, once.
    #[track_caller]
    pub fn assert_complete(&self, producers: u64, each: u64) {
        self.assert_genuine(producers, each);
        let missing: Vec<_> = self.missing(producers, each).take(5).collect();
        assert!(
            missing.is_empty(),
            "{} of {} came; missing {missing:?}, ..",
            self.ids.len(),
            producers * each
        );
    }

    /// What did not come.
    pub fn missing(&self, producers: u64, each: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let all = (0..producers).flat_map(move |t| (0..each).map(move |n| (t, n)));
        all.filter(|id| !self.ids.contains_key(id))
    }

    /// Messages of one thread came in the order it made them.
    #[track_caller]
    pub fn assert_ordered(&self) {
        for (t, order) in &self.orders {
            if let Some(pair) = order.windows(2).find(|pair| pair[0] >= pair[1]) {
                panic!("of thread {t}, message {} came before {}", pair[0], pair[1]);
            }
        }
    }
}

/// The account balances, in all and for each destination.
#[track_caller]
pub fn assert_balanced(stats: &Stats) {
    let made = stats.emitted + stats.inherited;
    assert_eq!(made, stats.delivered + stats.lost.total() + stats.spooled + stats.pending, "{stats:?}");
    for one in &stats.destinations {
        assert_eq!(made, one.delivered + one.lost.total() + stats.spooled + one.pending, "{stats:?}");
    }
}

/// The account balances, and says of `producers * each` messages (and the reports about losses) exactly what the
/// only receiver saw.
#[track_caller]
pub fn assert_accounted(stats: &Stats, got: &Got, producers: u64, each: u64) {
    assert_balanced(stats);
    got.assert_genuine(producers, each);
    assert_eq!(stats.delivered, got.count(), "delivered is what came: {stats}");
    let reports = stats.emitted.checked_sub(producers * each).expect("all are counted as emitted");
    let reports_missing =
        reports.checked_sub(got.loss_reports.len() as u64).expect("every report is counted");
    let missing = got.missing(producers, each).count() as u64;
    assert_eq!(
        missing + reports_missing,
        stats.lost.total() + stats.pending,
        "missing is lost or pending: {stats}"
    );
}
