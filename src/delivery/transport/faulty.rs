//! A stream socket that fails where it is told to, for the test of every fault at every byte.
//!
//! In: bytes. Out: what its peer has read, connection by connection. Lost here: what the script says.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::io::Errno;

use super::super::framing::Framing;
use super::socket::Ready;
use super::stream::{Connect, Stream, StreamSocket};
use super::support::{batch_of, soon};
use super::Transport;
use crate::fault_report::record;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The kernel takes nothing this time, and says this.
    Error(Errno),
    /// It takes the bytes up to here, one more, and no more in this call.
    Short,
    /// The connection is gone, and the peer has read all but so many bytes of what was written.
    Reset { unread: usize },
}

/// What happens to the first connection, after how many bytes, and what each connection's peer has read.
struct Network {
    at: usize,
    fault: Option<Fault>,
    read: Vec<Vec<u8>>,
}

struct Socket {
    /// For its descriptor only.
    inner: UnixStream,
    network: Arc<Mutex<Network>>,
    written: usize,
    is_reset: bool,
}

struct Connector(Arc<Mutex<Network>>);

impl Connect for Connector {
    type Socket = Socket;

    fn connect(&mut self, _: Instant) -> io::Result<Socket> {
        self.0.lock().unwrap().read.push(Vec::new());
        let inner = UnixStream::pair()?.0;
        Ok(Socket { inner, network: Arc::clone(&self.0), written: 0, is_reset: false })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl Read for Socket {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(if self.is_reset { Errno::CONNRESET.into() } else { io::ErrorKind::WouldBlock.into() })
    }
}

impl Write for Socket {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        unreachable!("a socket is sent on")
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket {
    /// How many bytes the kernel takes now: everything up to the fault in one call, then the fault, then everything.
    fn taken(&mut self, network: &mut Network, length: usize) -> io::Result<usize> {
        let before_fault = network.at.saturating_sub(self.written);
        if network.fault.is_some() && before_fault > 0 {
            return Ok(before_fault.min(length));
        }
        match network.fault.take() {
            None => Ok(length),
            Some(Fault::Short) => Ok(1),
            Some(Fault::Error(errno)) => Err(errno.into()),
            Some(Fault::Reset { unread }) => {
                let read = network.read.last_mut().unwrap();
                read.truncate(read.len().saturating_sub(unread));
                self.is_reset = true;
                Err(Errno::CONNRESET.into())
            }
        }
    }
}

impl StreamSocket for Socket {
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let network = Arc::clone(&self.network);
        let mut network = network.lock().unwrap();
        let count = self.taken(&mut network, bytes.len())?;
        network.read.last_mut().unwrap().extend_from_slice(&bytes[..count]);
        self.written += count;
        Ok(count)
    }

    fn wait(&self, _: Ready, _: Instant) -> io::Result<()> {
        Ok(())
    }

    fn unconfirmed(&self) -> io::Result<usize> {
        Ok(0)
    }
}

/// Sends ten messages over connections with one fault; what each connection's peer has read, and what was sent.
fn sent_with(fault: Fault, at: usize) -> (Vec<Vec<u8>>, Vec<u8>) {
    let messages: Vec<_> = (0..10).map(|number| format!("{number}{}", "x".repeat(number))).collect();
    let mut batch = batch_of(Framing::Newline, &messages);
    let all = batch.remaining().to_vec();
    let network = Arc::new(Mutex::new(Network { at, fault: Some(fault), read: Vec::new() }));
    let mut transport = Stream::new(Connector(Arc::clone(&network)), Framing::Newline);
    let mut failures = 0;
    while !batch.is_empty() {
        failures += u32::from(transport.send(&mut batch, soon()).is_err());
        assert!(failures <= 1, "one fault is one failure at most");
    }
    assert_eq!(batch.take_account(), (10, vec![]), "{fault:?} at {at}");
    let read = std::mem::take(&mut network.lock().unwrap().read);
    (read, all)
}

/// Bytes of the ten messages: a digit, as many letters, a newline.
const BYTES: usize = 10 + 45 + 10;

#[test]
fn a_short_write_or_a_passing_error_at_any_byte_of_a_batch_loses_doubles_and_damages_nothing() {
    let mut runs = 0;
    let errors = [Errno::INTR, Errno::AGAIN, Errno::NOBUFS, Errno::NOMEM].map(Fault::Error);
    for fault in errors.into_iter().chain([Fault::Short]) {
        for at in 0..=BYTES {
            let (read, all) = sent_with(fault, at);
            assert_eq!(read, [all], "{fault:?} at {at}");
            runs += 1;
        }
    }
    let fault =
        format!("EINTR, EAGAIN, ENOBUFS, ENOMEM and a short write at each byte of a batch ({runs} runs)");
    record(&fault, "0 lost, none twice, none damaged", runs * 10, runs * 10, &[], 0);
}

#[test]
fn a_reset_at_any_byte_of_a_batch_sends_every_unconfirmed_message_again_whole() {
    let (mut runs, mut repeated) = (0, 0);
    for at in 0..BYTES {
        for unread in 0..=at {
            let (read, all) = sent_with(Fault::Reset { unread }, at);
            let [first, second] = &read[..] else { panic!("two connections: {read:?}") };
            assert!(all.starts_with(first), "reset at {at}");
            assert_eq!(second, &all, "nothing was confirmed before the reset at {at}");
            runs += 1;
            repeated += first.iter().filter(|&&byte| byte == b'\n').count() as u64;
        }
    }
    let fault = format!("RST at each byte of a batch, with each number of bytes unread ({runs} runs)");
    record(&fault, "0 lost: what is not confirmed is sent again whole", runs * 10, runs * 10, &[], repeated);
}
