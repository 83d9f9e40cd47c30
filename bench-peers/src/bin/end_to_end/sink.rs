//! The receiving end of one run, a process of its own: counts what comes, and says when the last of it came.

use std::io::{self, Read};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use super::{now, Failure, Way, BUFFER, MESSAGES};

/// A datagram that has not come by then does not come.
const DATAGRAM_PATIENCE: Duration = Duration::from_secs(2);

/// Prints its address; then, when everything has come, how much that was and when the last of it came.
pub fn sink(way: Way) -> Result<(), Failure> {
    let (received, last) = match way {
        Way::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            announce(listener.local_addr()?);
            (count_lines(listener.accept()?.0)?, now())
        }
        Way::Unix => {
            let path = temporary("sock");
            let listener = UnixListener::bind(&path)?;
            announce(path.display());
            (count_lines(listener.accept()?.0)?, now())
        }
        Way::Udp => {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            announce(socket.local_addr()?);
            count_datagrams(&socket)?
        }
        Way::File => {
            announce(temporary("log").display());
            (0, 0.0)
        }
    };
    println!("{received} {last}");
    Ok(())
}

fn announce(address: impl std::fmt::Display) {
    println!("{address}");
}

fn temporary(extension: &str) -> PathBuf {
    std::env::temp_dir().join(format!("bench-peers-{}.{extension}", std::process::id()))
}

/// Lines until all are there or the other side has closed.
pub fn count_lines(mut from: impl Read) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut lines = 0;
    while lines < MESSAGES {
        match from.read(&mut buffer)? {
            0 => break,
            length => lines += buffer[..length].iter().filter(|&&byte| byte == b'\n').count() as u64,
        }
    }
    Ok(lines)
}

fn count_datagrams(socket: &UdpSocket) -> io::Result<(u64, f64)> {
    let mut buffer = vec![0; BUFFER];
    let (mut received, mut last) = (0, 0.0);
    socket.recv(&mut buffer)?;
    socket.set_read_timeout(Some(DATAGRAM_PATIENCE))?;
    loop {
        received += 1;
        if received == MESSAGES || received % 64 == 0 {
            last = now();
        }
        if received == MESSAGES || socket.recv(&mut buffer).is_err() {
            return Ok((received, last));
        }
    }
}
