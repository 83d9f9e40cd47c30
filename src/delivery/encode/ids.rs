//! A name for each message, so that a receiver can tell one that came twice from two that are alike.
//!
//! In: nothing but the order of encoding. Out: `boot-pid-start-sequence`, the same however often the message is sent.
//! Nothing is lost here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The field it stands in: a name that programs do not give to fields of their own, as they do `message_id`.
pub(crate) const FIELD: &str = "metlog_id";

/// Hexadecimal digits of `boot` and of `start`: as many in every id, so that little else looks like one.
const HEX_DIGITS: usize = 16;

/// Gives out ids.
#[derive(Debug)]
pub(crate) struct Ids {
    /// `"boot-pid-start-`
    prefix: Vec<u8>,
    next: u64,
}

impl Ids {
    /// Ids that no other generator gives out: not on another machine or after a reboot (`boot`, from the kernel's
    /// random id of this boot), not in another process (`pid`), and not in this one, before or after (`start`, the
    /// nanosecond, and how many were made before).
    pub(crate) fn new(process_id: u32) -> Ids {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let start = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
        let start = start.wrapping_add(MADE.fetch_add(1, Ordering::Relaxed));
        Ids { prefix: format!("\"{}-{process_id}-{start:016x}-", boot()).into_bytes(), next: 0 }
    }

    /// Writes the next one as a JSON string.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(itoa::Buffer::new().format(self.next).as_bytes());
        out.push(b'"');
        self.next += 1;
    }
}

/// The generator's part of an id and its sequence number. `None`: no [`Ids`] wrote it, however much it looks like one,
/// and so it tells nothing about its message.
#[cfg(feature = "router")]
pub(crate) fn parse(id: &str) -> Option<(&str, u64)> {
    let (generator, sequence) = id.rsplit_once('-')?;
    let mut parts = generator.split('-');
    let (boot, process_id, start) = (parts.next()?, parts.next()?, parts.next()?);
    let is_ours = parts.next().is_none() && is_hex(boot) && is_hex(start);
    let process_id = decimal(process_id)?;
    (is_ours && process_id <= u64::from(u32::MAX)).then_some((generator, decimal(sequence)?))
}

#[cfg(feature = "router")]
fn is_hex(text: &str) -> bool {
    text.len() == HEX_DIGITS && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// A number as it is written here: no sign, no zeros before it.
#[cfg(feature = "router")]
fn decimal(text: &str) -> Option<u64> {
    let is_plain = text == "0" || text.starts_with(|digit: char| matches!(digit, '1'..='9'));
    text.parse().ok().filter(|_| is_plain)
}

/// The first half of Linux' id of this boot. Elsewhere the hash of nothing under a random key, which is another one
/// for each process, and that does as well.
fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(HEX_DIGITS).collect();
    if digits.len() == HEX_DIGITS {
        return digits.to_ascii_lowercase();
    }
    use std::hash::BuildHasher;
    format!("{:016x}", std::collections::hash_map::RandomState::new().hash_one(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_ids_of_one_process_are_the_same_and_each_counts_up() {
        let mut all = Vec::new();
        for _ in 0..3 {
            let mut ids = Ids::new(7);
            for number in 0..100 {
                let mut out = Vec::new();
                ids.write(&mut out);
                let id: String = serde_json::from_slice(&out).unwrap();
                let parts: Vec<_> = id.split('-').collect();
                #[cfg(feature = "router")]
                assert_eq!(parse(&id), Some((id.rsplit_once('-').unwrap().0, number)));
                assert!(parts.len() == 4 && parts[1] == "7" && parts[3] == number.to_string(), "{id}");
                all.push(id);
            }
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 300);
    }

    #[cfg(feature = "router")]
    #[test]
    fn what_no_generator_writes_is_not_taken_for_an_id() {
        let (boot, start) = ("0123456789abcdef", "18ab000000000000");
        assert_eq!(
            parse(&format!("{boot}-4294967295-{start}-18446744073709551615")),
            Some((format!("{boot}-4294967295-{start}").as_str(), u64::MAX))
        );
        for id in ["", "7", "order-42", "---1", "boot-1-start-1", "2026-11-22-1"]
            .map(str::to_owned)
            .into_iter()
            .chain([
                format!("{boot}-1-{start}"),
                format!("{boot}-1-{start}-"),
                format!("{boot}-1-{start}- 1"),
                format!("{boot}-1-{start}-+1"),
                format!("{boot}-1-{start}-01"),
                format!("{boot}-1-{start}-18446744073709551616"),
                format!("{boot}-01-{start}-1"),
                format!("{boot}--{start}-1"),
                format!("{boot}-4294967296-{start}-1"),
                format!("{boot}-1-{start}-1-1"),
                format!("{boot}-1-{}-1", &start[1..]),
                format!("{boot}0-1-{start}-1"),
                format!("{}-1-{start}-1", boot.to_uppercase()),
                format!("{}-1-{start}-1", boot.replace('f', "g")),
            ])
        {
            assert_eq!(parse(&id), None, "{id:?}");
        }
    }
}
