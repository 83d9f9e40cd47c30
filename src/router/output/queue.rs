//! What every output has: a bounded queue and a thread behind it. In: messages, drawn by the thread of an input. Out:
//! batches, to the output's writer.
//!
//! Lost here: what arrives while the queue is full (`dropped`); what cannot be drawn (`failed`).

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{after, bounded, never, Receiver, Sender};

use super::context::{Context, Control};
use super::{Draw, Output, Place, Writer};
use crate::router::counters::{add, OutputState};
use crate::router::received::Received;
use crate::router::{spawn, RouterError};
use crate::Message;

/// Batches that wait for one output; a batch is a datagram, or what one read of a connection brought.
const QUEUE_BATCHES: usize = 16_384;

/// Bytes that wait for one output if it is told nothing else: of lines ready to be written, or of messages as they
/// came over the wire, which take a few times that in memory.
pub(super) const QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// A batch of so many bytes is handed over without waiting for the end of the read.
const BATCH_BYTES: usize = 64 * 1024;

/// Messages of one input's thread on their way to one output.
#[derive(Default)]
pub(in crate::router) struct Batch {
    pub(super) count: u64,
    /// What they weigh in the queue.
    bytes: usize,
    /// What was drawn of them.
    pub(super) lines: Vec<u8>,
    /// Themselves, for outputs that do not draw.
    pub(super) messages: Vec<Message>,
    /// Messages of earlier batches that the queue had no room for.
    dropped: u64,
    /// Told when the output is done with them.
    #[cfg(feature = "http")]
    done: Option<Sender<()>>,
}

impl Batch {
    /// How many of the messages that went this way since the last time were dropped.
    pub(in crate::router) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Whether somebody waits for the output to be done with it.
    pub(super) fn is_awaited(&self) -> bool {
        #[cfg(feature = "http")]
        return self.done.is_some();
        #[cfg(not(feature = "http"))]
        false
    }
}

/// The bytes that wait for one output, and how many may.
pub(super) struct Room {
    taken: AtomicUsize,
    most: usize,
}

impl Room {
    pub(super) fn of(most: usize) -> Arc<Self> {
        Arc::new(Room { taken: AtomicUsize::new(0), most })
    }

    /// Takes room for so many bytes, in any case; whether there was any. Alone in the queue any batch fits, whatever
    /// message limit an input has.
    fn take(&self, bytes: usize) -> bool {
        let waiting = self.taken.fetch_add(bytes, Relaxed);
        waiting == 0 || waiting.saturating_add(bytes) <= self.most
    }

    fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Relaxed);
    }

    pub(super) fn is_half_taken(&self) -> bool {
        self.taken.load(Relaxed) >= self.most / 2
    }
}

/// The way into an output: never waits.
pub(in crate::router) struct Queue {
    /// Whether the place may be away for long: no client waits for it.
    #[cfg(feature = "http")]
    pub(in crate::router) is_far: bool,
    draw: Option<Draw>,
    sender: Sender<Batch>,
    room: Arc<Room>,
    pub(in crate::router) state: Arc<OutputState>,
}

impl Queue {
    /// Puts a message that was `bytes` long on the wire into `batch`.
    pub(in crate::router) fn add(&self, batch: &mut Batch, message: &Received<'_>, bytes: usize) {
        self.append(batch, message, bytes);
        if batch.bytes >= BATCH_BYTES {
            self.hand_over(batch);
        }
    }

    fn append(&self, batch: &mut Batch, message: &Received<'_>, bytes: usize) {
        match &self.draw {
            Some(draw) => {
                if let Err(problem) = draw(message, &mut batch.lines) {
                    return self.cannot_draw(problem);
                }
                batch.bytes = batch.lines.len();
            }
            None => {
                batch.messages.push(message.message().clone());
                batch.bytes += bytes;
            }
        }
        batch.count += 1;
    }

    #[cold]
    fn cannot_draw(&self, problem: String) {
        add(&self.state.accepted, 1);
        add(&self.state.undrawn, 1);
        self.state.settle(1, Err(io::Error::new(io::ErrorKind::InvalidData, problem)));
    }

    /// Hands over what is in `batch`, or drops it when too much waits already. Leaves the batch empty.
    pub(in crate::router) fn hand_over(&self, batch: &mut Batch) {
        if batch.count == 0 {
            return;
        }
        // The next batch is likely to be as long.
        let (lines, dropped) = (Vec::with_capacity(batch.lines.len()), batch.dropped);
        let full = std::mem::replace(batch, Batch { lines, dropped, ..Batch::default() });
        let (count, bytes) = (full.count, full.bytes);
        // Before it is in the queue: what is settled must never exceed what was accepted.
        add(&self.state.accepted, count);
        let fits = self.room.take(bytes);
        if !fits || self.sender.try_send(full).is_err() {
            self.room.give_back(bytes);
            self.state.accepted.fetch_sub(count, Relaxed);
            add(&self.state.dropped, count);
            batch.dropped += count;
        }
    }
}

/// The way of whole requests: all or nothing, and with word of the end.
#[cfg(feature = "http")]
impl Queue {
    /// Puts a message into `batch` and keeps it there, however many there are.
    pub(in crate::router) fn collect(&self, batch: &mut Batch, message: &Received<'_>, bytes: usize) {
        self.append(batch, message, bytes);
    }

    /// Takes room for `batch`; whether there was any.
    pub(in crate::router) fn reserve(&self, batch: &Batch) -> bool {
        let fits = self.room.take(batch.bytes) && !self.sender.is_full();
        if !fits {
            self.release(batch);
        }
        fits
    }

    /// Gives back what [`reserve`](Queue::reserve) took.
    pub(in crate::router) fn release(&self, batch: &Batch) {
        self.room.give_back(batch.bytes);
    }

    /// Hands over a batch that has its room; `done` is told when the output has written it, or failed to. Whether it
    /// was taken: another input may have been faster. What is not taken is not counted, because its client has it.
    pub(in crate::router) fn commit(&self, mut batch: Batch, done: Sender<()>) -> bool {
        batch.done = Some(done);
        let (count, bytes) = (batch.count, batch.bytes);
        add(&self.state.accepted, count);
        let taken = self.sender.try_send(batch).is_ok();
        if !taken {
            self.room.give_back(bytes);
            self.state.accepted.fetch_sub(count, Relaxed);
        }
        taken
    }
}

#[cfg(feature = "http")]
impl Batch {
    pub(in crate::router) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The thread behind a queue, and how to end it.
pub(in crate::router) struct Running {
    control: Sender<Control>,
    done: Receiver<()>,
    is_told: bool,
}

impl Running {
    /// Tells the thread to write what is queued and to end, and does not wait.
    pub(in crate::router) fn stop(&mut self, deadline: Instant) {
        self.is_told |= self.control.try_send(Control::Stop(deadline)).is_ok();
    }

    /// Waits until the thread has ended. It may be stuck in somebody's function or on a full pipe: then it is left
    /// behind at the deadline.
    pub(in crate::router) fn wait(self, deadline: Instant) {
        if !self.is_told {
            let _ = self.control.send_deadline(Control::Stop(deadline), deadline);
        }
        // By closing the channel too it is told, if it was stuck and has not heard it.
        drop(self.control);
        let _ = self.done.recv_deadline(deadline);
    }

    /// Disconnected when the thread has ended.
    pub(in crate::router) fn ended(&self) -> Receiver<()> {
        self.done.clone()
    }

    /// Has it open its files anew. One that has not yet done so for the last time does it once.
    pub(in crate::router) fn reopen(&self) {
        // The place that is left is for the word to stop, which must not wait for an output that is stuck.
        if self.control.is_empty() {
            let _ = self.control.try_send(Control::Reopen);
        }
    }
}

/// Opens an output and starts its thread.
pub(in crate::router) fn start(output: Output) -> Result<(Queue, Running), RouterError> {
    let name = output.to_string();
    let room = Room::of(output.0.queue_bytes());
    #[cfg(feature = "http")]
    let is_far = output.0.is_far();
    let Place { draw, writer } =
        output.0.open().map_err(|source| RouterError::Output { output: name.clone(), source })?;
    let (sender, receiver) = bounded(QUEUE_BATCHES);
    let (control, controlled) = bounded(2);
    let (finished, done) = bounded(0);
    let state = Arc::new(OutputState { name, ..OutputState::default() });
    let (waiting, counted) = (Arc::clone(&room), Arc::clone(&state));
    spawn("metlog-output", move || {
        // Made here: it belongs to this thread.
        let context = Context::new(counted, controlled, Arc::clone(&waiting));
        Worker { writer, room: waiting, context }.run(&receiver);
        drop(finished);
    })
    .map_err(RouterError::System)?;
    let queue = Queue {
        #[cfg(feature = "http")]
        is_far,
        draw,
        sender,
        room,
        state,
    };
    Ok((queue, Running { control, done, is_told: false }))
}

struct Worker {
    writer: Box<dyn Writer>,
    room: Arc<Room>,
    context: Context,
}

impl Worker {
    fn run(mut self, queue: &Receiver<Batch>) {
        let mut is_stopping = false;
        while !is_stopping {
            let due = self.writer.due().map_or_else(never, |due| {
                after(due.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)))
            });
            crossbeam_channel::select! {
                recv(queue) -> batch => match batch {
                    Ok(batch) => self.deliver(&batch),
                    Err(_) => is_stopping = true,
                },
                recv(self.context.control()) -> control => match control {
                    Ok(control) => self.context.note(control),
                    Err(_) => is_stopping = true,
                },
                recv(due) -> _ => self.writer.tick(&self.context),
            }
            is_stopping |= self.context.deadline().is_some();
            if self.context.must_reopen() {
                self.writer.reopen(&self.context);
            }
        }
        queue.try_iter().for_each(|batch| self.deliver(&batch));
        self.writer.close(&self.context);
    }

    fn deliver(&mut self, batch: &Batch) {
        self.writer.write(batch, &self.context);
        self.room.give_back(batch.bytes);
        #[cfg(feature = "http")]
        if let Some(done) = &batch.done {
            // Whoever asked may have gone.
            let _ = done.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Capture;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn offer(queue: &Queue, count: usize, bytes: usize) {
        for _ in 0..count {
            let mut batch = Batch::default();
            queue.add(&mut batch, &Message::new("x", "").into(), bytes);
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
        running.wait(Instant::now() + PATIENCE);
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
        running.wait(Instant::now() + Duration::from_millis(10));
        assert_eq!(queue.state.counters().queued, 3);
    }

    #[test]
    fn a_function_that_panics_loses_that_message_only() {
        let capture = Capture::default();
        let keeper = capture.clone();
        let mut first = true;
        let (queue, running) = start(Output::function(move |message| {
            assert!(!std::mem::take(&mut first), "the first message is bad");
            keeper.push(message.clone());
        }))
        .expect("starts");
        offer(&queue, 2, 10);
        assert_eq!(capture.wait_for(1, PATIENCE).len(), 1);
        running.wait(Instant::now() + PATIENCE);
        let counters = queue.state.counters();
        assert_eq!((counters.delivered, counters.failed, counters.queued), (1, 1, 0));
    }
}
