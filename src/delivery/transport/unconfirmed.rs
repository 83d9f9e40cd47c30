//! What the kernel knows of the other end of a connection: how much of what was written it has not got yet, and whether
//! it is still there.
//!
//! In: a connected stream socket. Out: a number of bytes, never too few; for TCP, whether nothing comes back at all.
//! Nothing is lost here.
//!
//! Linux answers with `SIOCOUTQ` (tcp(7), unix(7)). For TCP that is what the peer's kernel has not acknowledged, to the
//! byte. For a Unix socket it is the memory of what the peer has not read, which is more than its bytes, and nothing when
//! all is read. Other systems have no such question, and there what the kernel has taken counts as arrived.

#[cfg(target_os = "linux")]
use rustix::ioctl::{ioctl, Getter, Opcode};

use super::socket::Waitable;

/// `SIOCOUTQ`, which is `TIOCOUTQ` everywhere: `asm/ioctls.h` of the architecture.
#[cfg(target_os = "linux")]
const SIOCOUTQ: Opcode = if cfg!(any(target_arch = "mips", target_arch = "mips64")) {
    0x7472
} else if cfg!(any(target_arch = "powerpc", target_arch = "powerpc64", target_arch = "sparc64")) {
    0x4004_7473
} else {
    0x5411
};

/// Bytes written to `socket` that have not arrived, as far as its kind can tell.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(super) fn unconfirmed(socket: &impl Waitable) -> std::io::Result<usize> {
    // SAFETY: for a socket this number means `SIOCOUTQ`, which writes one C `int` to where the argument points, and
    // nothing else: that is what `Getter` gives it and reads back.
    let bytes: std::ffi::c_int = unsafe { ioctl(socket, Getter::<SIOCOUTQ, std::ffi::c_int>::new())? };
    // A number that cannot be one confirms nothing.
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Nobody can be asked: the kernel has taken it, and that has to do.
#[cfg(not(target_os = "linux"))]
pub(super) fn unconfirmed(_: &impl Waitable) -> std::io::Result<usize> {
    Ok(0)
}

/// The beginning of Linux' `struct tcp_info` (linux/tcp.h), which only ever grows at its end.
#[cfg(target_os = "linux")]
#[repr(C)]
#[derive(Default)]
struct TcpInfo {
    /// State, congestion state, retransmits, probes without an answer, and four more.
    bytes: [u8; 8],
    /// Retransmission timeout, acknowledgement timeout, segment sizes; from the fifth on: segments on their way.
    words: [u32; 13],
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn tcp_info(socket: &impl Waitable) -> Option<TcpInfo> {
    use std::ffi::{c_int, c_void};
    use std::os::fd::AsRawFd;

    extern "C" {
        fn getsockopt(
            socket: c_int,
            level: c_int,
            name: c_int,
            value: *mut c_void,
            length: *mut u32,
        ) -> c_int;
    }
    const IPPROTO_TCP: c_int = 6;
    const TCP_INFO: c_int = 11;

    let mut info = TcpInfo::default();
    let whole = std::mem::size_of::<TcpInfo>() as u32;
    let mut length = whole;
    // SAFETY: the declaration is POSIX's, with Linux' 32-bit `socklen_t`. The descriptor is borrowed for the call. The
    // kernel writes at most `length` bytes to `info`, which has as many and is made of integers only.
    let outcome = unsafe {
        let value: *mut TcpInfo = &mut info;
        getsockopt(socket.as_fd().as_raw_fd(), IPPROTO_TCP, TCP_INFO, value.cast(), &mut length)
    };
    (outcome == 0 && length == whole).then_some(info)
}

/// Whether a TCP peer that has not acknowledged anything for `at_least` is not even there: something was sent to it
/// since, and nothing at all came back. A peer that does not read answers every question whether it has room.
#[cfg(target_os = "linux")]
pub(super) fn is_silent(socket: &impl Waitable, at_least: std::time::Duration) -> bool {
    /// An answer takes no longer, in milliseconds.
    const ROUND_TRIP: u32 = 1_000;
    /// Questions for room without an answer: one may be on its way.
    const PROBES: u8 = 3;
    let Some(TcpInfo { bytes, words }) = tcp_info(socket) else { return false };
    let (probes, on_their_way, sent_ago, heard_ago) = (bytes[3], words[4], words[9], words[12]);
    let was_asked = on_their_way > 0 && heard_ago.saturating_sub(sent_ago) >= ROUND_TRIP;
    u128::from(heard_ago) >= at_least.as_millis() && (was_asked || probes >= PROBES)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_silent(_: &impl Waitable, _: std::time::Duration) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::super::socket::nap;
    use super::super::support::soon;
    use super::*;

    fn settles_at(socket: &impl Waitable, bytes: usize) {
        let deadline = soon();
        while unconfirmed(socket).unwrap() != bytes {
            nap(deadline).unwrap();
        }
    }

    #[test]
    fn over_tcp_it_is_what_the_other_kernel_has_not_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 4096).unwrap();
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut peer = listener.accept().unwrap().0;
        socket.write_all(b"hello").unwrap();
        // Nobody has read it, and it has arrived all the same.
        settles_at(&socket, 0);
        socket.set_nonblocking(true).unwrap();
        let mut written = 5;
        while let Ok(count) = socket.write(&[0; 65_536]) {
            written += count;
        }
        assert!((1..=written).contains(&unconfirmed(&socket).unwrap()));
        peer.read_exact(&mut vec![0; written]).unwrap();
        settles_at(&socket, 0);
    }

    #[test]
    fn over_a_unix_socket_it_is_never_less_than_what_was_not_read() {
        let (mut socket, mut peer) = UnixStream::pair().unwrap();
        for _ in 0..10 {
            socket.write_all(&[0; 1_000]).unwrap();
        }
        for read in 0..10 {
            assert!(unconfirmed(&socket).unwrap() >= 10_000 - read * 999);
            peer.read_exact(&mut [0; 999]).unwrap();
        }
        peer.read_exact(&mut [0; 10]).unwrap();
        assert_eq!(unconfirmed(&socket).unwrap(), 0);
    }
}
