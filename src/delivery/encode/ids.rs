//! A name for each message, so that a receiver can tell one that came twice from two that are alike.
//!
//! In: nothing but the order of encoding. Out: `boot-pid-start-sequence`, the same however often the message is sent.
//! Nothing is lost here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The field it stands in.
pub(crate) const FIELD: &str = "message_id";

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
        Ids { prefix: format!("\"{}-{process_id}-{start:x}-", boot()).into_bytes(), next: 0 }
    }

    /// Writes the next one as a JSON string.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(itoa::Buffer::new().format(self.next).as_bytes());
        out.push(b'"');
        self.next += 1;
    }
}

/// The first half of Linux' id of this boot. Elsewhere the hash of nothing under a random key, which is another one
/// for each process, and that does as well.
fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    if !digits.is_empty() {
        return digits;
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
                assert!(parts.len() == 4 && parts[1] == "7" && parts[3] == number.to_string(), "{id}");
                all.push(id);
            }
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 300);
    }
}
