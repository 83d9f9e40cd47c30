//! Where messages go: [`Output`], and the queue and thread of each. In: messages that matched. Out: text, files,
//! calls of a function.
//!
//! Lost here: what arrives while an output's queue is full (`dropped`), so that a slow output never slows another
//! or an input; what could not be written (`failed`); at shutdown, what a stuck output has not done before the
//! deadline (`queued`).

pub(super) mod console;
pub(super) mod file;

use std::fmt;
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, Receiver, Sender};

use super::counters::{add, OutputState};
use super::{lock, spawn};
use crate::Message;
pub use console::Color;

/// Messages that wait for one output.
const QUEUE_MESSAGES: usize = 65_536;

/// Bytes, as they came over the wire, that wait for one output; in memory a message takes a few times that.
const QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// Under load an output is flushed when it has taken so many bytes; otherwise whenever its queue is empty.
const FLUSH_BYTES: usize = 64 * 1024;

/// A place that messages go to.
///
/// As text: `console`, `null`, `file:PATH` or `file:///PATH`.
pub struct Output(Kind);

enum Kind {
    Console(Color),
    File(PathBuf),
    Function { name: &'static str, function: Box<dyn FnMut(&Message) + Send> },
    Null,
}

impl Output {
    /// Lines for people, on standard output.
    pub fn console(color: Color) -> Self {
        Output(Kind::Console(color))
    }

    /// A file of JSON lines, one message each; appended to, made if it is not there.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Output(Kind::File(path.into()))
    }

    /// Calls `function` with each message, on a thread of its own. A message that it panics at is counted
    /// `failed`.
    pub fn function(function: impl FnMut(&Message) + Send + 'static) -> Self {
        Output(Kind::Function { name: "function", function: Box::new(function) })
    }

    /// Keeps messages for a test to look at.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tracing_metlog::router::{Config, Input, Matcher, Output, Route, Router};
    ///
    /// let (output, capture) = Output::capture();
    /// let config =
    ///     Config::new().input(Input::udp("127.0.0.1:0")).route(Route::new(Matcher::any(), output));
    /// let router = Router::start(config)?;
    ///
    /// let address = router.addresses()[0].strip_prefix("udp://").unwrap();
    /// let client = std::net::UdpSocket::bind("127.0.0.1:0")?;
    /// client.send_to(br#"{"type": "counter", "payload": "1"}"#, address)?;
    ///
    /// assert_eq!(capture.wait_for(1, Duration::from_secs(5))[0].r#type, "counter");
    /// let counters = router.shutdown(Duration::from_secs(5));
    /// assert_eq!(counters.received, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn capture() -> (Self, Capture) {
        let capture = Capture::default();
        let keeper = capture.clone();
        let function = Box::new(move |message: &Message| keeper.push(message.clone()));
        (Output(Kind::Function { name: "capture", function }), capture)
    }

    /// Takes messages and does nothing with them.
    pub fn null() -> Self {
        Output(Kind::Null)
    }

    /// Colours the console so; nothing on other outputs.
    pub fn color(&mut self, color: Color) {
        if let Kind::Console(current) = &mut self.0 {
            *current = color;
        }
    }

    /// Whether both are the same place, which then gets one queue and each message once.
    pub(super) fn is_same(&self, other: &Output) -> bool {
        match (&self.0, &other.0) {
            (Kind::Console(_), Kind::Console(_)) | (Kind::Null, Kind::Null) => true,
            (Kind::File(one), Kind::File(other)) => one == other,
            _ => false,
        }
    }

    fn open(self) -> io::Result<Box<dyn Sink>> {
        Ok(match self.0 {
            Kind::Console(color) => Box::new(console::Console::new(io::stdout(), color.applies())),
            Kind::File(path) => Box::new(file::File::open(&path)?),
            Kind::Function { function, .. } => Box::new(Function(function)),
            Kind::Null => Box::new(Function(Box::new(|_| {}))),
        })
    }
}

impl fmt::Display for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Console(_) => formatter.write_str("console"),
            Kind::File(path) => write!(formatter, "file:{}", path.display()),
            Kind::Function { name, .. } => formatter.write_str(name),
            Kind::Null => formatter.write_str("null"),
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Output({self})")
    }
}

impl FromStr for Output {
    type Err = super::RouterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = text.strip_prefix("file:").map(|path| path.strip_prefix("//").unwrap_or(path));
        match (text, path) {
            ("console", _) => Ok(Output::console(Color::Auto)),
            ("null", _) => Ok(Output::null()),
            (_, Some(path)) if !path.is_empty() => Ok(Output::file(path)),
            _ => Err(super::RouterError::Config {
                value: text.to_owned(),
                accepted: "console, null or file:PATH",
            }),
        }
    }
}

/// The messages an [`Output::capture`] has got so far. Clones see the same ones.
#[derive(Clone, Debug, Default)]
pub struct Capture(Arc<(Mutex<Vec<Message>>, Condvar)>);

impl Capture {
    /// All messages so far, in the order of their arrival.
    pub fn messages(&self) -> Vec<Message> {
        lock(&self.0 .0).clone()
    }

    /// Waits until there are at least `count` messages, but not longer than `patience`; all messages so far.
    pub fn wait_for(&self, count: usize, patience: Duration) -> Vec<Message> {
        let (messages, arrived) = &*self.0;
        let guard = lock(messages);
        match arrived.wait_timeout_while(guard, patience, |messages| messages.len() < count) {
            Ok((messages, _)) => messages.clone(),
            Err(poisoned) => poisoned.into_inner().0.clone(),
        }
    }

    fn push(&self, message: Message) {
        lock(&self.0 .0).push(message);
        self.0 .1.notify_all();
    }
}

/// What an output is to its thread.
pub(super) trait Sink: Send {
    /// Takes one message; may keep it until [`flush`](Sink::flush).
    fn write(&mut self, message: &Message) -> io::Result<()>;

    /// Writes out what is kept. After an error, what was kept is lost.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Function(Box<dyn FnMut(&Message) + Send>);

impl Sink for Function {
    fn write(&mut self, message: &Message) -> io::Result<()> {
        catch_unwind(AssertUnwindSafe(|| (self.0)(message)))
            .map_err(|_| io::Error::other("the function panicked"))
    }
}

struct Queued {
    message: Arc<Message>,
    bytes: usize,
}

/// The way into an output: never waits.
pub(super) struct Queue {
    sender: Sender<Queued>,
    bytes: Arc<AtomicUsize>,
    pub(super) state: Arc<OutputState>,
}

impl Queue {
    /// Hands over a message that was `bytes` long on the wire, or drops it when too much waits already.
    pub(super) fn offer(&self, message: &Arc<Message>, bytes: usize) {
        let waiting = self.bytes.fetch_add(bytes, Relaxed);
        // Alone in the queue any message fits, whatever limit an input has.
        let fits = waiting == 0 || waiting + bytes <= QUEUE_BYTES;
        // Before it is in the queue: what is settled must never exceed what was accepted.
        add(&self.state.accepted, 1);
        if !fits || self.sender.try_send(Queued { message: Arc::clone(message), bytes }).is_err() {
            self.bytes.fetch_sub(bytes, Relaxed);
            self.state.accepted.fetch_sub(1, Relaxed);
            add(&self.state.dropped, 1);
        }
    }
}

/// The thread behind a queue, and how to end it.
pub(super) struct Running {
    /// Dropped to say that nothing more will come.
    stop: Sender<()>,
    done: Receiver<()>,
}

impl Running {
    /// Lets the thread write what is queued and end. It may be stuck in somebody's function or on a full pipe:
    /// then it is left behind at the deadline.
    pub(super) fn finish(self, deadline: Instant) {
        drop(self.stop);
        let _ = self.done.recv_deadline(deadline);
    }
}

/// Opens an output and starts its thread.
pub(super) fn start(output: Output) -> Result<(Queue, Running), super::RouterError> {
    let name = output.to_string();
    let sink = output.open().map_err(|source| super::RouterError::Output { output: name.clone(), source })?;
    let (sender, receiver) = bounded(QUEUE_MESSAGES);
    let (stop, stopped) = bounded(0);
    let (finished, done) = bounded(0);
    let state = Arc::new(OutputState { name, ..OutputState::default() });
    let bytes = Arc::default();
    let worker = Worker {
        sink,
        unflushed: 0,
        unflushed_bytes: 0,
        bytes: Arc::clone(&bytes),
        state: Arc::clone(&state),
    };
    spawn("metlog-output", move || {
        worker.run(&receiver, &stopped);
        drop(finished);
    })
    .map_err(super::RouterError::System)?;
    Ok((Queue { sender, bytes, state }, Running { stop, done }))
}

struct Worker {
    sink: Box<dyn Sink>,
    /// Messages the sink has taken and not flushed.
    unflushed: u64,
    unflushed_bytes: usize,
    bytes: Arc<AtomicUsize>,
    state: Arc<OutputState>,
}

impl Worker {
    fn run(mut self, queue: &Receiver<Queued>, stopped: &Receiver<()>) {
        loop {
            self.drain(queue);
            crossbeam_channel::select! {
                recv(queue) -> queued => match queued {
                    Ok(queued) => self.write(queued),
                    Err(_) => return,
                },
                recv(stopped) -> _ => return self.drain(queue),
            }
        }
    }

    /// Writes until the queue is empty, then flushes: nothing waits in a buffer while there is time to write it.
    fn drain(&mut self, queue: &Receiver<Queued>) {
        while let Ok(queued) = queue.try_recv() {
            self.write(queued);
        }
        self.flush();
    }

    fn write(&mut self, queued: Queued) {
        self.bytes.fetch_sub(queued.bytes, Relaxed);
        match self.sink.write(&queued.message) {
            Ok(()) => {
                self.unflushed += 1;
                self.unflushed_bytes += queued.bytes;
            }
            Err(error) => self.failed(1, &error),
        }
        if self.unflushed_bytes >= FLUSH_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.unflushed_bytes = 0;
        match (std::mem::take(&mut self.unflushed), self.sink.flush()) {
            (count, Ok(())) => add(&self.state.delivered, count),
            (count, Err(error)) => self.failed(count, &error),
        }
    }

    #[cold]
    fn failed(&self, count: u64, error: &io::Error) {
        add(&self.state.failed, count);
        *lock(&self.state.last_error) = Some(error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn offer(queue: &Queue, count: usize, bytes: usize) {
        let message = Arc::new(Message::new("x", ""));
        (0..count).for_each(|_| queue.offer(&message, bytes));
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_never_waits() {
        let (release, blocked) = bounded::<()>(0);
        let output = Output::function(move |_| {
            let _ = blocked.recv();
        });
        let (queue, running) = start(output).expect("starts");
        // More bytes than fit: the function holds one message, the queue what its limit allows.
        offer(&queue, 40, QUEUE_BYTES / 16);
        let dropped = queue.state.counters().dropped;
        assert!((23..=24).contains(&dropped), "{dropped}");
        drop(release);
        running.finish(Instant::now() + PATIENCE);
        let counters = queue.state.counters();
        assert_eq!((counters.delivered + counters.dropped, counters.queued), (40, 0));
    }

    #[test]
    fn a_stuck_output_is_left_behind_at_the_deadline_with_its_messages_counted() {
        let (_release, blocked) = bounded::<()>(0);
        let output = Output::function(move |_| {
            let _ = blocked.recv();
        });
        let (queue, running) = start(output).expect("starts");
        offer(&queue, 3, 10);
        running.finish(Instant::now() + Duration::from_millis(10));
        assert_eq!(queue.state.counters().queued, 3);
    }

    #[test]
    fn a_function_that_panics_loses_that_message_only() {
        let (output, capture) = Output::capture();
        let Output(Kind::Function { mut function, .. }) = output else { panic!("a function") };
        let mut first = true;
        let (queue, running) = start(Output::function(move |message| {
            assert!(!std::mem::take(&mut first), "the first message is bad");
            function(message);
        }))
        .expect("starts");
        offer(&queue, 2, 10);
        assert_eq!(capture.wait_for(1, PATIENCE).len(), 1);
        running.finish(Instant::now() + PATIENCE);
        let counters = queue.state.counters();
        assert_eq!((counters.delivered, counters.failed, counters.queued), (1, 1, 0));
    }
}
