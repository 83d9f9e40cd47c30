//! The last line of a terminal: how much comes, and what was lost. In: a count for each message, from the threads of
//! inputs. Out: the line, drawn and erased. Nothing of a message but its type is in it, made safe.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::router::counters::{add, TypeCounters};
use crate::Message;

/// Between two looks at the numbers: fast enough to be live, slow enough to be read.
const EVERY: Duration = Duration::from_millis(500);

/// To the beginning of the line, and nothing in it.
const ERASE: &str = "\r\x1b[2K";

/// Where the terminal does not say how wide it is.
const USUAL_WIDTH: usize = 80;

/// The longest name shown of a type.
const MAX_NAME: usize = 24;

/// Messages by type.
#[derive(Default)]
pub(super) struct Tally(TypeCounters);

impl Tally {
    pub(super) fn count(&self, message: &Message) {
        add(&self.0.of(&message.r#type), 1);
    }
}

/// See the module.
pub(super) struct Summary {
    tally: Arc<Tally>,
    colored: bool,
    width: fn() -> usize,
    /// What is on the terminal now.
    shown: String,
    /// What was counted when it was made.
    counted: BTreeMap<String, u64>,
    since: Instant,
    due: Option<Instant>,
}

impl Summary {
    pub(super) fn new(tally: Arc<Tally>, colored: bool, width: fn() -> usize) -> Self {
        let counted = BTreeMap::new();
        Summary { tally, colored, width, shown: String::new(), counted, since: Instant::now(), due: None }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Something has come: after a time without anything the numbers are of interest again.
    pub(super) fn wake(&mut self) {
        if self.due.is_none() {
            self.since = Instant::now();
            self.due = Some(self.since + EVERY);
        }
    }

    /// Lines, printed above it.
    pub(super) fn around(&self, lines: &[u8]) -> Vec<u8> {
        match self.shown.is_empty() || lines.is_empty() {
            true => lines.to_vec(),
            false => [ERASE.as_bytes(), lines, self.shown.as_bytes()].concat(),
        }
    }

    /// What takes it off the terminal.
    pub(super) fn erased(&self) -> &'static [u8] {
        if self.shown.is_empty() {
            b""
        } else {
            ERASE.as_bytes()
        }
    }

    /// The line with the numbers of now, to be printed. When nothing has come it is the last one until something does.
    pub(super) fn renew(&mut self, lost: u64, now: Instant) -> Vec<u8> {
        let counted = self.tally.0.counters();
        let seconds = now.saturating_duration_since(self.since).max(Duration::from_millis(1)).as_secs_f64();
        let mut rates: Vec<(f64, &str)> = counted
            .iter()
            .map(|(name, count)| (count - self.counted.get(name).unwrap_or(&0), name.as_str()))
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| (count as f64 / seconds, name))
            .collect();
        rates.sort_by(|one, other| other.0.total_cmp(&one.0));
        let text = self.text(&rates, lost);
        self.shown = if self.colored { format!("\x1b[7m{text}\x1b[0m") } else { text };
        self.due = (!rates.is_empty()).then(|| now + EVERY);
        (self.counted, self.since) = (counted, now);
        [ERASE, &self.shown].concat().into_bytes()
    }

    /// As much as fits one line, so that erasing it erases all of it. The last column stays free: some terminals begin
    /// another line when it is written to.
    fn text(&self, rates: &[(f64, &str)], lost: u64) -> String {
        let width = (self.width)().saturating_sub(1);
        let total: f64 = rates.iter().map(|(rate, _)| rate).sum();
        let mut text = format!("{}/s  lost {}", rounded(total), grouped(lost));
        for (rate, name) in rates {
            let part = format!("  {} {}", plain(name), rounded(*rate));
            if text.len() + part.len() > width {
                break;
            }
            text.push_str(&part);
        }
        // All of it is ASCII.
        text.truncate(width);
        text
    }
}

/// A type's name, where every character takes one column.
fn plain(name: &str) -> String {
    let plain = |character: char| if character.is_ascii_graphic() { character } else { '?' };
    name.chars().take(MAX_NAME).map(plain).collect()
}

/// A rate as people read it: a slow one is not none.
fn rounded(rate: f64) -> String {
    match rate {
        rate if rate > 0.0 && rate < 9.95 => format!("{rate:.1}"),
        rate => grouped(rate.round() as u64),
    }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many columns standard output has.
#[cfg(unix)]
pub(super) fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout());
    size.ok().map(|size| size.ws_col.into()).filter(|&columns| columns > 0).unwrap_or(USUAL_WIDTH)
}

#[cfg(not(unix))]
pub(super) fn width() -> usize {
    USUAL_WIDTH
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(width: fn() -> usize) -> Summary {
        Summary::new(Arc::default(), false, width)
    }

    fn count(summary: &Summary, message_type: &str, count: usize) {
        (0..count).for_each(|_| summary.tally.count(&Message::new(message_type, "")));
    }

    fn renewed(summary: &mut Summary, lost: u64, after: Duration) -> String {
        let line = summary.renew(lost, summary.since + after);
        String::from_utf8(line).expect("text").strip_prefix(ERASE).expect("erases the last one").to_owned()
    }

    #[test]
    fn it_says_messages_a_second_by_type_since_the_last_look_the_commonest_first() {
        let mut summary = summary(|| 80);
        count(&summary, "timer", 617);
        count(&summary, "oldstyle", 1_000);
        count(&summary, "once\u{1b}é", 1);
        let half = Duration::from_millis(500);
        assert_eq!(
            renewed(&mut summary, 1_234, half),
            "3,236/s  lost 1,234  oldstyle 2,000  timer 1,234  once?? 2.0"
        );
        count(&summary, "timer", 10);
        assert_eq!(renewed(&mut summary, 1_234, Duration::from_secs(2)), "5.0/s  lost 1,234  timer 5.0");
        assert!(summary.due().is_some());
        assert_eq!(renewed(&mut summary, 1_235, half), "0/s  lost 1,235");
        assert!(summary.due().is_none(), "nothing comes, and it is drawn again and again");
        summary.wake();
        assert!(summary.due().is_some());
    }

    #[test]
    fn it_is_one_line_however_narrow_the_terminal_is() {
        for (width, expected) in [(24_usize, "40/s  lost 0  aa 20"), (1, "")] {
            let mut summary = summary(if width == 1 { || 1 } else { || 24 });
            count(&summary, "aa", 20);
            count(&summary, "bb", 20);
            let line = renewed(&mut summary, 0, Duration::from_secs(1));
            assert_eq!(line, expected);
            assert!(line.len() < width);
        }
    }

    #[test]
    fn lines_are_printed_above_it() {
        let mut summary = summary(|| 80);
        assert_eq!(summary.around(b"a\n"), b"a\n");
        assert_eq!(summary.erased(), b"");
        count(&summary, "x", 1);
        let shown = renewed(&mut summary, 0, Duration::from_secs(1));
        assert_eq!(summary.around(b"a\n"), format!("{ERASE}a\n{shown}").into_bytes());
        assert_eq!(summary.around(b""), b"");
        assert_eq!(summary.erased(), ERASE.as_bytes());
    }
}
