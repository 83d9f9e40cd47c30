//! Receivers that are slow, stuck or gone.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing_metlog::{Batch, Capture, Framing, Transport};

/// A transport that takes nothing until it is released, and then everything.
#[derive(Clone, Default)]
pub struct Gate {
    open: Arc<(Mutex<bool>, Condvar)>,
    asked: Arc<AtomicBool>,
    pub capture: Capture,
}

impl Gate {
    pub fn shut() -> Gate {
        Gate::default()
    }

    /// Whether somebody stands before it.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    pub fn release(&self) {
        *self.open.0.lock().expect("whole") = true;
        self.open.1.notify_all();
    }
}

impl Transport for Gate {
    fn framing(&self) -> Framing {
        Framing::Datagram
    }

    fn send(&mut self, batch: &mut Batch, deadline: Instant) -> io::Result<()> {
        self.asked.store(true, Ordering::Release);
        let left = deadline.saturating_duration_since(Instant::now());
        let open = self.open.0.lock().expect("whole");
        let open = *self.open.1.wait_timeout_while(open, left, |open| !*open).expect("whole").0;
        match open {
            true => self.capture.send(batch, deadline),
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// A router that accepts and never reads.
pub struct NeverReads {
    pub address: String,
    thread: Option<JoinHandle<()>>,
    end: Arc<Mutex<bool>>,
}

impl NeverReads {
    pub fn start() -> NeverReads {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        // Connections get it from the listener: little of what is sent disappears in it.
        #[cfg(unix)]
        rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 4096).expect("set");
        let address = format!("tcp://{}", listener.local_addr().expect("bound"));
        let end = Arc::new(Mutex::new(false));
        let theirs = Arc::clone(&end);
        listener.set_nonblocking(true).expect("set");
        let thread = std::thread::spawn(move || {
            let mut held: Vec<TcpStream> = Vec::new();
            while !*theirs.lock().expect("whole") {
                held.extend(listener.accept().map(|(stream, _)| stream));
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        NeverReads { address, thread: Some(thread), end }
    }
}

impl Drop for NeverReads {
    fn drop(&mut self) {
        *self.end.lock().expect("whole") = true;
        self.thread.take().map(JoinHandle::join);
    }
}
