//! How much of what was written to a connection its peer has not got yet: one question to the kernel.
//!
//! In: a connected stream socket. Out: a number of bytes, never too few. Nothing is lost here.
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
