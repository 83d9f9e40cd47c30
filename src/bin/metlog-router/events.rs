//! What a running router is told from outside. In: signals. Out: events, one after the other.
//!
//! Lost here: what a second SIGINT or SIGTERM cuts off, which ends the process at once and says so.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// SIGINT or SIGTERM: finish and end.
    End,
    /// SIGHUP: read the configuration again, open files again.
    Reload,
}

/// The events of this process.
pub struct Events {
    received: Receiver<Event>,
    /// Kept, so that waiting goes on where there are no signals.
    _sender: Sender<Event>,
}

impl Events {
    /// From here on a signal is an event.
    pub fn catch() -> io::Result<Self> {
        let (sender, received) = std::sync::mpsc::channel();
        #[cfg(unix)]
        {
            use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
            let signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
            let sender = sender.clone();
            std::thread::Builder::new()
                .name(String::from("signals"))
                .spawn(move || forward(signals, &sender))?;
        }
        Ok(Events { received, _sender: sender })
    }

    /// The next event, or none after `patience`; without one it waits for ever.
    pub fn next(&self, patience: Option<Duration>) -> Option<Event> {
        let event = match patience {
            None => self.received.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(patience) => self.received.recv_timeout(patience),
        };
        match event {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            // Cannot be: a sender is kept. If it were, to end is better than to spin.
            Err(RecvTimeoutError::Disconnected) => Some(Event::End),
        }
    }
}

#[cfg(unix)]
fn forward(mut signals: signal_hook::iterator::Signals, sender: &Sender<Event>) {
    let mut is_ending = false;
    for signal in signals.forever() {
        let event = match signal {
            signal_hook::consts::SIGHUP => Event::Reload,
            // Who asks twice does not want to wait for clients.
            _ if is_ending => {
                crate::report(
                    "metlog-router: ended by a second signal; what was not read or written yet is lost",
                );
                std::process::exit(1);
            }
            _ => Event::End,
        };
        is_ending |= event == Event::End;
        let _ = sender.send(event);
    }
}
