//! Where batches go: to the only destination on the worker's own thread, or each to a thread of its own, so that a
//! dead one never slows another.
//!
//! In: encoded messages. Out: batches. Lost here: a message that cannot be cut to fit (`too_large`), and with
//! several destinations the oldest batches of one that has fallen far behind the others (`lagging`).

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};

mod runner;

use self::runner::{Runner, Shared};
use super::batch::Batch;
use super::destination::Destination;
use super::encode::limit;
use super::framing::Framing;
#[cfg(feature = "heka")]
use super::heka;
use crate::queue::Latch;
use crate::stats::{Counters, DestinationCounters, LossReason};

/// Batches that wait for one of several destinations, besides the one it is sending.
const WAITING_BATCHES: usize = 8;
/// A batch that finds no room grows up to this before an older one is given up for it: a destination is behind by
/// bytes, not by the number of times somebody logged.
const FULL_BATCH_BYTES: usize = 256 * 1024;
/// How soon a batch that found no room is offered again.
const OFFER_AGAIN: Duration = Duration::from_millis(20);
/// At the end of the program, a destination that has refused for this long is given up.
const PATIENCE_AT_CLOSE: Duration = Duration::from_millis(500);
/// While closing, the longest pause between two attempts.
const CLOSING_PAUSE: Duration = Duration::from_millis(50);

/// The way to one destination.
pub(crate) struct Outlet {
    framing: Framing,
    max_message_bytes: usize,
    #[cfg(feature = "heka")]
    heka: Option<Box<HekaOutlet>>,
    counters: Arc<DestinationCounters>,
    all: Arc<Counters>,
    /// Messages that were put in here, ever.
    taken: u64,
    /// Those of them that are not lost for being too large, and so got into a batch.
    put: u64,
    way: Way,
}

enum Way {
    Here(Box<Destination>),
    Apart(Apart),
}

/// A destination on a thread of its own.
struct Apart {
    filling: Batch,
    batches: Sender<Parcel>,
    /// The other end of `batches`, to take the oldest back.
    waiting: Receiver<Parcel>,
    spare: Receiver<Batch>,
    nudge: Sender<()>,
    closing: Arc<OnceLock<Closing>>,
    progress: Arc<Progress>,
    /// What was taken when the last batch was handed over.
    submitted: u64,
    /// The same of the last batch that was taken back.
    taken_back: u64,
}

/// A batch on its way to another thread: what was taken before its first message, and with its last.
struct Parcel {
    batch: Batch,
    before: u64,
    through: u64,
}

/// How far a destination on a thread of its own has come; it takes its batches in their order.
#[derive(Default)]
struct Progress {
    /// Everything up to here is settled.
    through: AtomicU64,
    /// Nothing before this is being sent. Not known, and so 0, between two batches.
    sending_after: AtomicU64,
}

struct Closing {
    deadline: Instant,
    /// The batch that found no room.
    last: Mutex<Option<Parcel>>,
    /// What is not delivered is for `left`, and not lost.
    keeps: bool,
    left: Mutex<Option<Batch>>,
    done: Arc<Latch>,
}

impl Outlet {
    /// The way to the only destination.
    pub(crate) fn here(destination: Destination, all: &Arc<Counters>, limit: Option<usize>) -> Self {
        let counters = Arc::clone(&destination.counters);
        let (framing, most) = destination.form();
        Outlet::new(framing, limit.unwrap_or(most), counters, all, Way::Here(Box::new(destination)))
    }

    /// The way to one of several destinations.
    ///
    /// # Errors
    /// No thread could be had.
    pub(crate) fn apart(
        destination: Destination,
        all: &Arc<Counters>,
        limit: Option<usize>,
    ) -> io::Result<Self> {
        let counters = Arc::clone(&destination.counters);
        let (framing, most) = destination.form();
        let (batches, waiting) = crossbeam_channel::bounded(WAITING_BATCHES);
        let (give_back, spare) = crossbeam_channel::bounded(WAITING_BATCHES);
        let (nudge, nudged) = crossbeam_channel::bounded(1);
        let closing = Arc::new(OnceLock::new());
        let progress = Arc::new(Progress::default());
        let shared =
            Shared { closing: Arc::clone(&closing), progress: Arc::clone(&progress), all: Arc::clone(all) };
        let runner = Runner::new(destination, (waiting.clone(), give_back, nudged), shared);
        thread::Builder::new().name(String::from("metlog-out")).spawn(move || runner.run())?;
        let way = Way::Apart(Apart {
            filling: Batch::default(),
            batches,
            waiting,
            spare,
            nudge,
            closing,
            progress,
            submitted: 0,
            taken_back: 0,
        });
        Ok(Outlet::new(framing, limit.unwrap_or(most), counters, all, way))
    }

    fn new(
        framing: Framing,
        max_message_bytes: usize,
        counters: Arc<DestinationCounters>,
        all: &Arc<Counters>,
        way: Way,
    ) -> Self {
        Outlet {
            framing,
            max_message_bytes,
            #[cfg(feature = "heka")]
            heka: None,
            counters,
            all: Arc::clone(all),
            taken: 0,
            put: 0,
            way,
        }
    }

    /// Puts one encoded message into the batch at hand.
    #[inline]
    pub(crate) fn put(&mut self, message: &[u8]) {
        #[cfg(feature = "heka")]
        if self.heka.is_some() {
            return self.put_heka(message, None);
        }
        self.taken += 1;
        if message.len() > self.max_message_bytes {
            return self.put_cut(message);
        }
        self.put += 1;
        let framing = self.framing;
        self.batch().push(|out| framing.write(message, out));
    }

    #[cold]
    fn put_cut(&mut self, message: &[u8]) {
        match limit::cut(message, self.max_message_bytes) {
            Ok(message) => {
                self.all.truncated.fetch_add(1, Ordering::Relaxed);
                self.put += 1;
                let framing = self.framing;
                self.batch().push(|out| framing.write(&message, out));
            }
            Err(limit::TooLarge) => self.counters.lose(LossReason::TooLarge, 1),
        }
    }

    fn batch(&mut self) -> &mut Batch {
        match &mut self.way {
            Way::Here(destination) => &mut destination.batch,
            Way::Apart(apart) => &mut apart.filling,
        }
    }

    /// Whether a further batch would find room.
    pub(crate) fn has_room(&self) -> bool {
        match &self.way {
            Way::Here(destination) => destination.has_room(),
            Way::Apart(apart) => !apart.batches.is_full(),
        }
    }

    /// Bytes in the batch at hand that are not written yet, for an outlet that knows: the only destination's.
    #[cfg(feature = "router")]
    pub(crate) fn unwritten_bytes(&self) -> usize {
        match &self.way {
            Way::Here(destination) => destination.batch.unwritten().len(),
            Way::Apart(_) => 0,
        }
    }

    /// Bytes in the batch at hand, for an outlet that knows.
    #[cfg(feature = "sentry")]
    pub(crate) fn held_bytes(&self) -> usize {
        match &self.way {
            Way::Here(destination) => destination.batch.remaining().len(),
            Way::Apart(_) => 0,
        }
    }

    /// Whether no batch that is half sent would get a message that is put in here now.
    pub(crate) fn is_between_batches(&self) -> bool {
        match &self.way {
            Way::Here(destination) => !destination.batch.has_unwritten(),
            Way::Apart(_) => true,
        }
    }

    /// Sends the batch at hand, or goes on sending it.
    pub(crate) fn send(&mut self) {
        match &mut self.way {
            Way::Here(destination) => destination.attempt(),
            Way::Apart(apart) => apart.submit(self.taken, &self.counters),
        }
    }

    /// Whether everything that was put in here up to `mark` is settled; see [`mark`](Outlet::mark).
    pub(crate) fn has_settled(&self, mark: u64) -> bool {
        match &self.way {
            Way::Here(destination) => mark + destination.batch.len() as u64 <= self.put,
            Way::Apart(apart) => apart.has_settled(mark),
        }
    }

    /// What [`has_settled`](Outlet::has_settled) needs to know what was put in here so far.
    pub(crate) fn mark(&self) -> u64 {
        match &self.way {
            Way::Here(_) => self.put,
            Way::Apart(_) => self.taken,
        }
    }

    /// When there is something to do here again without being told.
    pub(crate) fn due(&self) -> Option<Instant> {
        match &self.way {
            Way::Here(destination) => destination.due(),
            Way::Apart(apart) => (!apart.filling.is_empty()).then(|| Instant::now() + OFFER_AGAIN),
        }
    }

    /// Somebody waits: no more pauses for now.
    pub(crate) fn hurry(&mut self) {
        match &mut self.way {
            Way::Here(destination) => destination.hurry(),
            Way::Apart(apart) => drop(apart.nudge.try_send(())),
        }
    }

    /// Begins to end: a destination on a thread of its own closes by itself from here on.
    /// What it has not delivered then is kept to be [taken back](Outlet::take_back), or lost.
    pub(crate) fn begin_close(&mut self, deadline: Instant, keeps: bool) -> Option<Arc<Latch>> {
        match &mut self.way {
            Way::Here(..) => None,
            Way::Apart(apart) => {
                apart.submit(self.taken, &self.counters);
                let done = Arc::new(Latch::default());
                let last = Mutex::new((!apart.filling.is_empty()).then(|| apart.wrap(self.taken)));
                let _ = apart.closing.set(Closing {
                    deadline,
                    last,
                    keeps,
                    left: Mutex::default(),
                    done: Arc::clone(&done),
                });
                let _ = apart.nudge.try_send(());
                Some(done)
            }
        }
    }

    /// Goes on sending the batch at hand until it is settled, the deadline is over or there is no hope.
    pub(crate) fn finish_batch(&mut self, deadline: Instant) {
        if let Way::Here(destination) = &mut self.way {
            drain(destination, deadline);
        }
    }

    /// Delivers the batch at hand and closes, or gives it up at the deadline, unless it is kept elsewhere; `more` messages
    /// will never get here.
    pub(crate) fn close(&mut self, deadline: Instant, more: u64) {
        self.taken += more;
        match &mut self.way {
            Way::Here(destination) => {
                drain(destination, deadline);
                if !self.all.keeps_what_is_left() {
                    destination.give_up(more);
                }
                destination.close(deadline);
            }
            Way::Apart(_) => self.counters.lose(LossReason::Unreachable, more),
        }
    }

    /// Takes back what is not settled: the number of messages, each given to `each`. From a destination on a thread of
    /// its own only when that has ended.
    pub(crate) fn take_back(&mut self, each: impl FnMut(&[u8])) -> u64 {
        let batch = match &mut self.way {
            Way::Here(destination) => destination.take_back(),
            Way::Apart(apart) => apart.take_left(),
        };
        let mut each = each;
        for frame in batch.frames() {
            let message = self.framing.message(frame);
            #[cfg(feature = "heka")]
            if self.framing == Framing::Heka {
                // A frame of this outlet's own making is a message: what another destination takes is its JSON.
                let message = heka::decode::message(message).map(|message| message.to_json());
                message.iter().for_each(|message| each(message.as_bytes()));
                continue;
            }
            each(message);
        }
        batch.len() as u64
    }

    /// Messages that can be taken back; more than any number when nobody knows yet.
    pub(crate) fn left(&self) -> usize {
        match &self.way {
            Way::Here(destination) => destination.batch.len(),
            Way::Apart(apart) => apart.left(),
        }
    }

    /// At the end: `count` messages will not arrive.
    pub(crate) fn give_up(&self, count: u64) {
        self.counters.lose(LossReason::Unreachable, count);
    }

    /// Whether the last attempt to send has failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.counters.is_failing()
    }

    /// Whether it has something to send, and nothing of it has moved for too long.
    pub(crate) fn is_stuck(&self) -> bool {
        self.counters.stuck_for().is_some()
    }

    /// Whether everything that was put in here is settled.
    pub(crate) fn is_settled(&self) -> bool {
        self.has_settled(self.mark())
    }

    /// Whether it makes no sense to wait for the destination any longer, while closing.
    pub(crate) fn is_hopeless(&self) -> bool {
        match &self.way {
            Way::Here(destination) => destination.failing_for() >= PATIENCE_AT_CLOSE,
            Way::Apart(_) => false,
        }
    }
}

/// What an outlet to a receiver of Heka's frames has besides.
#[cfg(feature = "heka")]
struct HekaOutlet {
    writer: heka::Writer,
    frame: Vec<u8>,
}

#[cfg(feature = "heka")]
impl Outlet {
    /// The same outlet, framing for Heka if that is what the transport carries.
    pub(crate) fn speaking_heka(mut self, heka: heka::Heka) -> Self {
        if self.framing == Framing::Heka {
            let writer = heka::Writer::new(heka, self.max_message_bytes);
            self.heka = Some(Box::new(HekaOutlet { writer, frame: Vec::new() }));
        }
        self
    }

    /// Whether more than a message's JSON is of use.
    pub(crate) fn is_exact(&self) -> bool {
        self.heka.is_some()
    }

    /// Puts one encoded message into the batch at hand, with what its JSON does not say.
    pub(crate) fn put_exactly(&mut self, message: &[u8], exact: &heka::Exact) {
        match self.heka.is_some() {
            true => self.put_heka(message, Some(exact)),
            false => self.put(message),
        }
    }

    fn put_heka(&mut self, message: &[u8], exact: Option<&heka::Exact>) {
        let Some(mut heka) = self.heka.take() else { return };
        self.taken += 1;
        heka.frame.clear();
        match heka.writer.write(message, exact, &mut heka.frame) {
            Ok(written) => {
                if written == heka::Written::Cut {
                    self.all.truncated.fetch_add(1, Ordering::Relaxed);
                }
                self.put += 1;
                self.batch().push(|out| out.extend_from_slice(&heka.frame));
            }
            Err(limit::TooLarge) => self.counters.lose(LossReason::TooLarge, 1),
        }
        self.heka = Some(heka);
    }
}

/// Sends the batch at hand until it is settled, the deadline is over or the destination is hopeless.
fn drain(destination: &mut Destination, deadline: Instant) {
    while !destination.batch.is_empty() {
        destination.attempt_before(deadline);
        if Instant::now() >= deadline || destination.failing_for() >= PATIENCE_AT_CLOSE {
            return;
        }
        if let Some(due) = destination.due() {
            let pause = due.saturating_duration_since(Instant::now()).min(CLOSING_PAUSE);
            thread::sleep(pause);
            destination.retry_now();
        }
    }
}

impl Apart {
    /// Hands the filled batch over. If there is no room the oldest batch makes some: the worker comes here only
    /// when another destination has room, and must not be held up.
    fn submit(&mut self, taken: u64, counters: &DestinationCounters) {
        let fits = !self.batches.is_full() || self.filling.remaining().len() >= FULL_BATCH_BYTES;
        if self.filling.is_empty() || !fits {
            return;
        }
        let mut parcel = self.wrap(taken);
        while let Err(TrySendError::Full(back)) = self.batches.try_send(parcel) {
            parcel = back;
            if let Ok(oldest) = self.waiting.try_recv() {
                counters.lose(LossReason::Lagging, oldest.batch.len() as u64);
                self.taken_back = oldest.through;
            }
        }
    }

    /// The filled batch, ready to go.
    fn wrap(&mut self, taken: u64) -> Parcel {
        let batch = std::mem::replace(&mut self.filling, self.spare.try_recv().unwrap_or_default());
        let before = std::mem::replace(&mut self.submitted, taken);
        Parcel { batch, before, through: taken }
    }

    /// What was not delivered when it ended: messages, once it has.
    fn left(&self) -> usize {
        let left = self.closing.get().and_then(|closing| closing.left.lock().ok()?.as_ref().map(Batch::len));
        left.unwrap_or(usize::MAX)
    }

    fn take_left(&mut self) -> Batch {
        let left = self.closing.get().and_then(|closing| closing.left.lock().ok()?.take());
        left.unwrap_or_default()
    }

    /// Whether everything up to `mark` is settled. What was taken back is, but not what is still being sent and was
    /// handed over before it.
    fn has_settled(&self, mark: u64) -> bool {
        let Progress { through, sending_after } = &*self.progress;
        let nothing_is_left = self.filling.is_empty() || mark <= self.submitted;
        nothing_is_left
            && (mark <= through.load(Ordering::Acquire)
                || mark <= self.taken_back.min(sending_after.load(Ordering::Acquire)))
    }
}
