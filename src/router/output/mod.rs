//! Where messages go: [`Output`], and the queue and thread of each. In: messages that matched. Out: text, files,
//! calls of a function.
//!
//! The thread of the input draws the lines, a batch at a time, and the thread of the output only moves bytes. So a
//! message is freed where it was made: freeing on another thread made the output's thread the slowest part of the
//! router, because the two then fight for the allocator.
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

/// Batches that wait for one output; a batch is a datagram, or what one read of a connection brought.
const QUEUE_BATCHES: usize = 16_384;

/// Bytes that wait for one output: of lines ready to be written, or of messages as they came over the wire, which
/// take a few times that in memory.
const QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// A batch of so many bytes is handed over without waiting for the end of the read.
const BATCH_BYTES: usize = 64 * 1024;

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

    fn open(self) -> io::Result<Place> {
        Ok(match self.0 {
            Kind::Console(color) => {
                Place::Lines(console::drawing(color.applies()), Box::new(console::Console(io::stdout())))
            }
            Kind::File(path) => Place::Lines(Arc::new(file::draw), Box::new(file::File::open(&path)?)),
            Kind::Function { function, .. } => Place::Function(function),
            Kind::Null => Place::Lines(Arc::new(|_, _| {}), Box::new(Nowhere)),
        })
    }
}

/// An output that has been opened.
enum Place {
    Lines(Draw, Box<dyn Writer>),
    Function(Box<dyn FnMut(&Message) + Send>),
}

/// Appends a message as a line with its newline; runs on the threads of inputs.
pub(super) type Draw = Arc<dyn Fn(&Message, &mut Vec<u8>) + Send + Sync>;

/// Puts whole lines where they belong; runs on the thread of the output.
pub(super) trait Writer: Send {
    fn write(&mut self, lines: &[u8]) -> io::Result<()>;
}

struct Nowhere;

impl Writer for Nowhere {
    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
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

/// Messages of one input's thread on their way to one output.
#[derive(Default)]
pub(super) struct Batch {
    count: u64,
    /// What they weigh in the queue.
    bytes: usize,
    /// For outputs of lines.
    lines: Vec<u8>,
    /// For functions.
    messages: Vec<Message>,
    /// Told when the output is done with them.
    #[cfg(feature = "http")]
    done: Option<Sender<()>>,
}

/// The way into an output: never waits.
pub(super) struct Queue {
    draw: Option<Draw>,
    sender: Sender<Batch>,
    waiting_bytes: Arc<AtomicUsize>,
    pub(super) state: Arc<OutputState>,
}

impl Queue {
    /// Puts a message that was `bytes` long on the wire into `batch`.
    pub(super) fn add(&self, batch: &mut Batch, message: &Message, bytes: usize) {
        self.append(batch, message, bytes);
        if batch.bytes >= BATCH_BYTES {
            self.hand_over(batch);
        }
    }

    fn append(&self, batch: &mut Batch, message: &Message, bytes: usize) {
        batch.count += 1;
        match &self.draw {
            Some(draw) => {
                draw(message, &mut batch.lines);
                batch.bytes = batch.lines.len();
            }
            None => {
                batch.messages.push(message.clone());
                batch.bytes += bytes;
            }
        }
    }

    /// Hands over what is in `batch`, or drops it when too much waits already. Leaves the batch empty.
    pub(super) fn hand_over(&self, batch: &mut Batch) {
        if batch.count == 0 {
            return;
        }
        // The next batch is likely to be as long.
        let next = Batch { lines: Vec::with_capacity(batch.lines.len()), ..Batch::default() };
        let batch = std::mem::replace(batch, next);
        let (count, bytes) = (batch.count, batch.bytes);
        // Before it is in the queue: what is settled must never exceed what was accepted.
        add(&self.state.accepted, count);
        let waiting = self.waiting_bytes.fetch_add(bytes, Relaxed);
        // Alone in the queue any batch fits, whatever message limit an input has.
        let fits = waiting == 0 || waiting + bytes <= QUEUE_BYTES;
        if !fits || self.sender.try_send(batch).is_err() {
            self.waiting_bytes.fetch_sub(bytes, Relaxed);
            self.state.accepted.fetch_sub(count, Relaxed);
            add(&self.state.dropped, count);
        }
    }
}

/// The way of whole requests: all or nothing, and with word of the end.
#[cfg(feature = "http")]
impl Queue {
    /// Puts a message into `batch` and keeps it there, however many there are.
    pub(super) fn collect(&self, batch: &mut Batch, message: &Message, bytes: usize) {
        self.append(batch, message, bytes);
    }

    /// Takes room for `batch`; whether there was any.
    pub(super) fn reserve(&self, batch: &Batch) -> bool {
        let waiting = self.waiting_bytes.fetch_add(batch.bytes, Relaxed);
        let fits = (waiting == 0 || waiting + batch.bytes <= QUEUE_BYTES) && !self.sender.is_full();
        if !fits {
            self.release(batch);
        }
        fits
    }

    /// Gives back what [`reserve`](Queue::reserve) took.
    pub(super) fn release(&self, batch: &Batch) {
        self.waiting_bytes.fetch_sub(batch.bytes, Relaxed);
    }

    /// Hands over a batch that has its room; `done` is told when the output has written it, or failed to. Whether it
    /// was taken: another input may have been faster. What is not taken is not counted, because its client has it.
    pub(super) fn commit(&self, mut batch: Batch, done: Sender<()>) -> bool {
        batch.done = Some(done);
        let (count, bytes) = (batch.count, batch.bytes);
        add(&self.state.accepted, count);
        let taken = self.sender.try_send(batch).is_ok();
        if !taken {
            self.waiting_bytes.fetch_sub(bytes, Relaxed);
            self.state.accepted.fetch_sub(count, Relaxed);
        }
        taken
    }
}

#[cfg(feature = "http")]
impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
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
    let place =
        output.open().map_err(|source| super::RouterError::Output { output: name.clone(), source })?;
    let draw = match &place {
        Place::Lines(draw, _) => Some(Arc::clone(draw)),
        Place::Function(_) => None,
    };
    let (sender, receiver) = bounded(QUEUE_BATCHES);
    let (stop, stopped) = bounded(0);
    let (finished, done) = bounded(0);
    let state = Arc::new(OutputState { name, ..OutputState::default() });
    let waiting_bytes = Arc::default();
    let worker = Worker { place, waiting_bytes: Arc::clone(&waiting_bytes), state: Arc::clone(&state) };
    spawn("metlog-output", move || {
        worker.run(&receiver, &stopped);
        drop(finished);
    })
    .map_err(super::RouterError::System)?;
    Ok((Queue { draw, sender, waiting_bytes, state }, Running { stop, done }))
}

struct Worker {
    place: Place,
    waiting_bytes: Arc<AtomicUsize>,
    state: Arc<OutputState>,
}

impl Worker {
    fn run(mut self, queue: &Receiver<Batch>, stopped: &Receiver<()>) {
        loop {
            crossbeam_channel::select! {
                recv(queue) -> batch => match batch {
                    Ok(batch) => self.deliver(&batch),
                    Err(_) => return,
                },
                recv(stopped) -> _ => return queue.try_iter().for_each(|batch| self.deliver(&batch)),
            }
        }
    }

    fn deliver(&mut self, batch: &Batch) {
        match &mut self.place {
            Place::Lines(_, writer) => self.state.settle(batch.count, writer.write(&batch.lines)),
            Place::Function(function) => {
                for message in &batch.messages {
                    let called = catch_unwind(AssertUnwindSafe(|| function(message)));
                    let called = called.map_err(|_| io::Error::other("the function panicked"));
                    self.state.settle(1, called);
                }
            }
        }
        self.waiting_bytes.fetch_sub(batch.bytes, Relaxed);
        #[cfg(feature = "http")]
        if let Some(done) = &batch.done {
            // Whoever asked may have gone.
            let _ = done.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn offer(queue: &Queue, count: usize, bytes: usize) {
        for _ in 0..count {
            let mut batch = Batch::default();
            queue.add(&mut batch, &Message::new("x", ""), bytes);
            queue.hand_over(&mut batch);
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_never_waits() {
        let (release, blocked) = bounded::<()>(0);
        let output = Output::function(move |_| {
            let _ = blocked.recv();
        });
        let (queue, running) = start(output).expect("starts");
        offer(&queue, 40, QUEUE_BYTES / 16);
        assert_eq!(queue.state.counters().dropped, 40 - 16);
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
