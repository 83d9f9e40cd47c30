//! What is sent: messages of a service's day, prepared before the clock starts, and ways to send them.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Messages that are made; more are the same ones again.
pub const DISTINCT: usize = 10_000;

/// Where a program listens.
#[derive(Clone, Debug)]
pub enum Address {
    Tcp(u16),
    Unix(PathBuf),
}

/// Lines that hold a message each: log lines, timers, counters and errors as the client writes them.
pub fn lines() -> Vec<String> {
    (0..DISTINCT).map(line).collect()
}

fn line(number: usize) -> String {
    let (kind, severity, payload, fields) = match number % 8 {
        0 => (
            "timer",
            6,
            format!("{}", number % 977),
            r#""name":"request","rate":1.0,"path":"/cart/42","status":200"#,
        ),
        1 | 2 => ("counter", 6, "1".to_owned(), r#""name":"requests","rate":1.0"#),
        3 => (
            "oldstyle",
            3,
            format!("payment {number} failed\\nno answer from \\\"bank\\\""),
            r#""error":"timed out","error.chain":["no answer"],"spans":["request","pay"],"retry":true,"amount":12.5"#,
        ),
        _ => (
            "oldstyle",
            6,
            format!("order {number} was accepted"),
            r#""spans":["request"],"path":"/order","user":421337,"cached":false,"elapsed_ms":1.25"#,
        ),
    };
    let mut line = String::new();
    // Writing into a string cannot fail.
    let _ = write!(
        line,
        "{{\"timestamp\":\"2026-11-22T07:24:{:02}.{number:06}Z\",\"type\":\"{kind}\",\"logger\":\"shop\",\
         \"severity\":{severity},\"payload\":\"{payload}\",\"fields\":{{{fields},\"module\":\"shop::orders\",\
         \"file\":\"src/orders.rs\",\"line\":{},\"thread\":\"worker-{}\"}},\"env_version\":\"0.8\",\
         \"metlog_pid\":4711,\"metlog_hostname\":\"shop-1.example\"}}",
        number / 10_000 % 60,
        number % 900,
        number % 4,
    );
    line
}

/// All lines as a stream, each with its newline.
pub fn stream(lines: &[String]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_bytes(), b"\n"]).flatten().copied().collect()
}

/// Sends the bytes so many times over one connection.
pub fn send(address: &Address, bytes: &[u8], times: u64) -> io::Result<()> {
    let mut stream: Box<dyn Write> = match address {
        Address::Tcp(port) => Box::new(TcpStream::connect(("127.0.0.1", *port))?),
        Address::Unix(path) => Box::new(UnixStream::connect(path)?),
    };
    (0..times).try_for_each(|_| stream.write_all(bytes))
}
