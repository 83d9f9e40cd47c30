//! Word to the service manager, as sd_notify(3) describes it. In: what the program does. Out: a datagram to the socket that
//! `NOTIFY_SOCKET` names, if there is one.
//!
//! Nothing waits here, and nothing fails for it: without word, the service manager does what it is configured to do.

use std::time::Duration;

/// The service manager, if there is one that wants to know.
pub struct Service {
    #[cfg(unix)]
    socket: Option<std::os::unix::net::UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Service {
    /// The one that the environment names. What of it cannot be used is an error in the second place; the program runs
    /// all the same.
    pub fn from_environment() -> (Self, Option<String>) {
        #[cfg(unix)]
        {
            let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
            let (socket, problem) = match name.as_deref().map(connect).transpose() {
                Ok(socket) => (socket, None),
                Err(error) => {
                    let name = name.unwrap_or_default();
                    (None, Some(format!("NOTIFY_SOCKET {}: {error}", name.to_string_lossy())))
                }
            };
            let watchdog = socket.as_ref().and_then(|_| watchdog());
            (Service { socket, watchdog }, problem)
        }
        #[cfg(not(unix))]
        (Service { watchdog: None }, None)
    }

    /// How often it wants to hear that the program lives: twice in the time after which it would end it.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Inputs listen and outputs are open.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// The configuration is being read again; [`ready`](Service::ready) says when that is done.
    pub fn reloading(&self) {
        #[cfg(unix)]
        {
            use rustix::time::{clock_gettime, ClockId};
            let now = clock_gettime(ClockId::Monotonic);
            let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
            self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
        }
    }

    /// The program ends.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// The program lives.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, text: &str) {
        #[cfg(unix)]
        if let Some(socket) = &self.socket {
            // A service manager that does not listen will act as it is configured to.
            let _ = socket.send(text.as_bytes());
        }
        let _ = text;
    }
}

/// A path, or a name in Linux' abstract name space, which begins with `@`.
#[cfg(unix)]
fn connect(name: &std::ffi::OsStr) -> std::io::Result<std::os::unix::net::UnixDatagram> {
    #[cfg(target_os = "linux")]
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let address = match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => {
            return Err(std::io::Error::other(
                "accepted is a path that begins with / or a name that begins with @",
            ))
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Half of the time after which a service manager ends a program that says nothing.
#[cfg(unix)]
fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_for_another = number("WATCHDOG_PID").is_some_and(|id| id != u64::from(std::process::id()));
    let microseconds = number("WATCHDOG_USEC").filter(|&time| time > 0 && !is_for_another)?;
    Some(Duration::from_micros(microseconds / 2).max(Duration::from_millis(1)))
}
