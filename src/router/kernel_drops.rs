//! Datagrams that the kernel has dropped because a socket's buffer was full. In: a UDP socket, and what Linux tells of it
//! in `/proc/net/udp`. Out: how many there have been. Elsewhere than on Linux nobody knows, and the count stays 0.
//!
//! Unix datagram sockets are none of it: there the sender waits or is told, and the kernel drops nothing.

use std::sync::{Mutex, PoisonError};

/// Where Linux lists the UDP sockets of IPv4 and of IPv6.
const TABLES: [&str; 2] = ["/proc/net/udp", "/proc/net/udp6"];

/// The drops of one socket.
#[derive(Debug, Default)]
pub(super) struct KernelDrops {
    /// What the tables know the socket by.
    inode: u64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The kernel's number, of 32 bits, which starts anew after the highest.
    last: u32,
    total: u64,
}

impl KernelDrops {
    #[cfg(unix)]
    pub(super) fn of(socket: &impl std::os::fd::AsFd) -> Option<Self> {
        let inode = rustix::fs::fstat(socket).ok()?.st_ino;
        // What a socket had dropped before it came here was counted there.
        let last = kernel_count(inode).unwrap_or(0);
        Some(KernelDrops { inode, seen: Mutex::new(Seen { last, total: 0 }) })
    }

    /// How many there have been; after the socket was closed, how many there were when this was asked last.
    pub(super) fn count(&self) -> u64 {
        let now = kernel_count(self.inode);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(now) = now {
            seen.total += u64::from(now.wrapping_sub(seen.last));
            seen.last = now;
        }
        seen.total
    }
}

fn kernel_count(inode: u64) -> Option<u32> {
    TABLES.into_iter().find_map(|table| drops(&std::fs::read_to_string(table).ok()?, inode))
}

/// What the table says of the socket with this inode: the tenth word of a line is the inode, the last one the drops.
fn drops(table: &str, inode: u64) -> Option<u32> {
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let found = words.nth(9)?.parse() == Ok(inode);
        words.next_back().filter(|_| found)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_read_from_the_line_of_the_socket() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            1234: 0100007F:15BD 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 777 2 00000000a 12\n\
            99: 0100007F:15BE 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 778 2 00000000b 4294967295\n";
        assert_eq!(drops(table, 777), Some(12));
        assert_eq!(drops(table, 778), Some(u32::MAX));
        assert_eq!(drops(table, 12), None);
        assert_eq!(drops("garbage\nmore garbage", 12), None);
    }
}
