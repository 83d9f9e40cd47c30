//! The background thread: takes chunks, merges the lanes, encodes, and sees to it that batches are sent.
//!
//! In: chunks of records, and calls (flush, close). Out: messages into outlets or the spool, loss reports as messages.
//! Lost here: at the end of the program, what neither a destination nor the spool took in time (`unreachable`).
//!
//! While messages flow it comes by every millisecond, so that no caller pays for waking it; when none do it comes
//! by less and less often, and after a second asks to be called and sleeps.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::aside::{Aside, Way};
#[cfg(feature = "ring")]
use super::crash::{self, Crash};
use super::encode::json::JsonEncoder;
use super::loss_report::{LossReport, LossReports};
use super::merge::Work;
use super::outlet::Outlet;
use super::spool::Spool;
use super::transport::stdio;
use crate::capture::thread as own_thread;
use crate::message::Severity;
use crate::queue::{Call, Queue, Waiter};
use crate::stats::LossReason;

/// How long a record stays in a lane that is not full while messages flow.
const LINGER: Duration = Duration::from_millis(1);
/// Visits without a message, and the pause after each, before the next step; after the last it sleeps.
const IDLE_STEPS: [(u32, Duration); 3] =
    [(10, Duration::from_millis(1)), (30, Duration::from_millis(5)), (70, Duration::from_millis(20))];
/// The longest sleep: losses that nothing else wakes it for are reported within this.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Between two loss reports.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// At the end, what a destination gets to draw its account after its deadline.
const GRACE: Duration = Duration::from_millis(500);
/// While closing, between two attempts that moved nothing.
const CLOSING_PAUSE: Duration = Duration::from_millis(10);
/// Chunks encoded at a time: bounds the memory of a batch.
const CHUNKS_AT_A_TIME: usize = 4;

/// How often the next chunks are set aside before calls are heard again: 16 MiB of records.
const MOST_SET_ASIDE: usize = 64;

/// The background thread's state.
pub(crate) struct Worker {
    queue: Arc<Queue>,
    calls: Receiver<Call>,
    encoder: JsonEncoder,
    outlets: Vec<Outlet>,
    aside: Aside,
    message: Vec<u8>,
    /// Chunks that are taken and not encoded to their end.
    work: Work,
    restarted: bool,
    /// Chunks taken, ever.
    taken: u64,
    sealed_at: Instant,
    idle_visits: u32,
    flushes: Vec<PendingFlush>,
    /// Who waits for the end, and until when.
    closing: Option<(Waiter, Instant)>,
    losses: LossReports,
    reported_at: Option<Instant>,
    #[cfg(feature = "ring")]
    crash: Crash,
}

/// A flush that is not complete yet: first the chunks of its time must be taken, then their messages settled.
struct PendingFlush {
    done: Waiter,
    /// Complete when this many chunks have been taken or stolen.
    chunks: u64,
    /// By outlet: complete when this much is settled.
    marks: Option<Vec<u64>>,
}

/// Whatever ends the thread: nobody waits for it any more, and nothing is taken that it would not deliver.
struct OnExit(Arc<Queue>);

impl Drop for OnExit {
    fn drop(&mut self) {
        self.0.close();
        while let Some(chunk) = self.0.take() {
            if self.0.outlives_the_process() {
                // Dropped, and not emptied: it is the next start's.
                continue;
            }
            self.0.counters.lose(LossReason::WorkerFailed, chunk.messages);
            self.0.give_back(chunk);
        }
    }
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread could be had.
    pub(crate) fn start(
        queue: Arc<Queue>,
        calls: Receiver<Call>,
        encoder: JsonEncoder,
        outlets: Vec<Outlet>,
        spool: Option<Spool>,
    ) -> io::Result<()> {
        #[cfg(feature = "ring")]
        let crash = Crash::new(&queue);
        let worker = Worker {
            queue,
            calls,
            encoder,
            outlets,
            aside: Aside::new(spool),
            message: Vec::new(),
            work: Work::default(),
            restarted: false,
            taken: 0,
            sealed_at: Instant::now(),
            idle_visits: 0,
            flushes: Vec::new(),
            closing: None,
            losses: LossReports::default(),
            reported_at: None,
            #[cfg(feature = "ring")]
            crash,
        };
        thread::Builder::new().name(String::from("metlog")).spawn(move || worker.run()).map(drop)
    }

    fn run(mut self) {
        own_thread::mark_as_own();
        let _on_exit = OnExit(Arc::clone(&self.queue));
        // Nothing in here should panic. If ever it does, it begins again where it was, once: what was taken is still
        // here. The second time what it holds is given up by the account, not forgotten.
        while catch_unwind(AssertUnwindSafe(|| self.serve())).is_err() {
            if std::mem::replace(&mut self.restarted, true) {
                stdio::say(
                    "tracing-metlog: the background thread failed again; nothing is delivered any more\n",
                );
                return self.fail();
            }
            stdio::say(
                "tracing-metlog: the background thread failed and begins again; nothing is lost by that\n",
            );
        }
    }

    /// The worker is at its end, and what it holds is lost.
    fn fail(&mut self) {
        let now = Instant::now();
        if !self.queue.outlives_the_process() {
            self.queue.counters.lose(LossReason::WorkerFailed, self.work.messages());
        }
        self.end_outlets(now, 0);
    }

    /// Closes all destinations, at the same time where they have threads of their own; `more` messages will never get to
    /// any. What they have not got is the spool's, if there is one.
    fn end_outlets(&mut self, deadline: Instant, more: u64) {
        let keeps = self.aside.is_there();
        let closing: Vec<_> =
            self.outlets.iter_mut().filter_map(|outlet| outlet.begin_close(deadline, keeps)).collect();
        self.outlets.iter_mut().for_each(|outlet| outlet.finish_batch(deadline));
        for done in closing {
            done.wait(deadline + GRACE);
        }
        self.aside.close(&mut self.outlets);
        self.outlets.iter_mut().for_each(|outlet| outlet.close(deadline, more));
    }

    /// Until it is told to close.
    fn serve(&mut self) {
        while self.closing.is_none() {
            let moved = self.visit();
            match self.wait(moved) {
                Ok(Call::Wake) => self.idle_visits = 0,
                Ok(Call::Flush(done)) => self.begin_flush(done),
                Ok(Call::Close { done, deadline }) => self.closing = Some((done, deadline)),
                // The other end is in the queue, which this thread holds too: it is never disconnected.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        if let Some(deadline) = self.closing.as_ref().map(|(_, deadline)| *deadline) {
            self.close(deadline);
        }
        if let Some((done, _)) = self.closing.take() {
            done.0.open();
        }
    }

    /// Does what there is to do. Whether messages moved.
    fn visit(&mut self) -> bool {
        let moved = match self.way() {
            Way::Outlets => self.replay_and_take() || self.pass_turn(),
            Way::Spool => self.set_aside_all(),
            Way::FromSpool => self.aside.send(&mut self.outlets),
            Way::Nowhere => false,
        };
        self.outlets.iter_mut().for_each(Outlet::send);
        let tended = self.aside.tend(&mut self.outlets);
        self.complete_flushes();
        self.release_settled();
        moved || tended
    }

    fn way(&self) -> Way {
        self.aside.way(&self.outlets, self.queue.is_low())
    }

    /// What a crashed process left, and what is new. Whether there was any.
    fn replay_and_take(&mut self) -> bool {
        let replayed = self.replay_next();
        self.take_and_encode() || replayed
    }

    /// Takes what is queued to the spool, as long as that is the way: a destination that stands still keeps this thread
    /// for a while before it comes by again.
    fn set_aside_all(&mut self) -> bool {
        let mut moved = false;
        for _ in 0..MOST_SET_ASIDE {
            if !self.set_aside() {
                break;
            }
            moved = true;
            if self.way() != Way::Spool {
                break;
            }
        }
        moved
    }

    /// Takes the next chunks and encodes them into the spool. `false` when there were none, or there is no spool.
    fn set_aside(&mut self) -> bool {
        let moved = self.aside.choose() && self.take_and_encode();
        self.aside.write();
        moved
    }

    /// No new messages are there: those of the spool need not wait for some.
    fn pass_turn(&mut self) -> bool {
        self.aside.pass_turn();
        self.way() == Way::FromSpool && self.aside.send(&mut self.outlets)
    }

    /// Takes the next chunks and encodes them into the outlets' batches. `false` when there were none.
    fn take_and_encode(&mut self) -> bool {
        if self.sealed_at.elapsed() >= LINGER {
            self.seal();
        }
        self.take_chunks();
        if self.work.len() == 0 {
            return false;
        }
        self.encoder.tick();
        self.encode_work();
        let unread = self.finish_work();
        // Records are read as they were written; if ever one is not, it is counted.
        self.queue.counters.lose(LossReason::WorkerFailed, unread);
        true
    }

    fn seal(&mut self) {
        self.queue.seal_all();
        self.sealed_at = Instant::now();
    }

    fn take_chunks(&mut self) {
        while self.work.len() < CHUNKS_AT_A_TIME {
            let Some(chunk) = self.queue.take() else { return };
            self.taken += 1;
            self.work.add(chunk);
        }
    }

    fn encode_work(&mut self) {
        let Worker { work, encoder, outlets, aside, message, queue, .. } = self;
        #[cfg(feature = "heka")]
        let is_exact = outlets.iter().any(Outlet::is_exact);
        work.encode_all(|record, index| {
            message.clear();
            if encoder.encode(record, index, message) {
                queue.counters.truncated.fetch_add(1, Ordering::Relaxed);
            }
            #[cfg(test)]
            tests::perhaps_fail(message);
            #[cfg(feature = "heka")]
            if is_exact {
                return aside.put_exactly(outlets, message, &encoder.exact(record));
            }
            aside.put(outlets, message);
        });
    }

    fn put_message(&mut self) {
        self.aside.put(&mut self.outlets, &self.message);
    }

    /// Waits for a call, for as long as there is nothing else to do.
    fn wait(&mut self, moved: bool) -> Result<Call, RecvTimeoutError> {
        self.report_losses();
        let pause = self.pause(moved);
        if pause.is_zero() {
            return self.calls.try_recv().map_err(|_| RecvTimeoutError::Timeout);
        }
        self.calls.recv_timeout(pause)
    }

    fn pause(&mut self, moved: bool) -> Duration {
        let has_room = self.way() != Way::Nowhere;
        let idle = if moved { self.pause_when_busy(has_room) } else { self.pause_when_idle(has_room) };
        #[cfg(feature = "ring")]
        let idle = if self.crash.awaits_settling() { idle.min(crash::LOOK_AGAIN) } else { idle };
        let due = self.outlets.iter().filter_map(Outlet::due).chain(self.aside.due()).min();
        due.map_or(idle, |due| due.saturating_duration_since(Instant::now()).min(idle))
    }

    fn pause_when_busy(&mut self, has_room: bool) -> Duration {
        self.idle_visits = 0;
        let more_is_there = self.queue.handed_over().0 > 0 || self.queue.is_waited_for();
        if has_room && more_is_there {
            Duration::ZERO
        } else {
            LINGER
        }
    }

    fn pause_when_idle(&mut self, has_room: bool) -> Duration {
        // The only destination says when it is due; of several, one that has room again says nothing.
        if !has_room && self.outlets.len() == 1 {
            return LONGEST_SLEEP;
        }
        if !has_room || !self.flushes.is_empty() || self.queue.is_waited_for() {
            return LINGER;
        }
        self.idle_visits = self.idle_visits.saturating_add(1);
        match IDLE_STEPS.iter().find(|(visits, _)| self.idle_visits <= *visits) {
            Some(&(_, pause)) => pause,
            None if self.queue.arm() => LONGEST_SLEEP,
            None => LINGER,
        }
    }

    fn begin_flush(&mut self, done: Waiter) {
        self.seal();
        let (waiting, stolen) = self.queue.handed_over();
        self.flushes.push(PendingFlush { done, chunks: self.taken + stolen + waiting as u64, marks: None });
        self.outlets.iter_mut().for_each(Outlet::hurry);
        self.aside.hurry();
    }

    fn complete_flushes(&mut self) {
        if self.flushes.is_empty() {
            return;
        }
        let processed = self.taken + self.queue.handed_over().1;
        let all_is_on_disk = self.aside.holds_all(&self.outlets);
        let (outlets, aside) = (&self.outlets, &mut self.aside);
        self.flushes.retain_mut(|flush| {
            // Nobody waits any more: the deadline is the caller's.
            if flush.done.is_alone() {
                return false;
            }
            if flush.marks.is_none() && processed >= flush.chunks {
                flush.marks = Some(outlets.iter().map(Outlet::mark).collect());
            }
            let is_complete = flush.marks.as_ref().is_some_and(|marks| {
                all_is_on_disk || outlets.iter().zip(marks).all(|(outlet, &mark)| outlet.has_settled(mark))
            });
            if !is_complete {
                return true;
            }
            aside.sync();
            // What the disk does not take is in memory only, and pending.
            let is_left = aside.has_unwritten();
            if !is_left {
                flush.done.0.open();
            }
            is_left
        });
    }

    /// Says what was lost since the last report, if it is time to.
    fn report_losses(&mut self) {
        let is_time = self.reported_at.is_none_or(|last| last.elapsed() >= REPORT_EVERY);
        if is_time && self.outlets.iter().any(Outlet::has_room) {
            self.report_losses_now();
        }
    }

    fn report_losses_now(&mut self) {
        if let Some(report) = self.losses.next(&self.queue.counters) {
            self.reported_at = Some(Instant::now());
            self.send_report(&report);
        }
    }

    #[cold]
    fn send_report(&mut self, report: &LossReport) {
        if !self.queue.counters.is_any_well() {
            say_loss(report);
        }
        self.message.clear();
        let severity = Severity::Warning.number();
        let fields = report.fields.as_bytes();
        self.encoder.encode_own("metlog.loss", severity, &report.payload, fields, &mut self.message);
        self.queue.counters.emit_own();
        self.put_message();
        self.outlets.iter_mut().for_each(Outlet::send);
    }

    /// Delivers what there is, until `deadline`, and ends.
    fn close(&mut self, deadline: Instant) {
        self.queue.close();
        self.outlets.iter_mut().for_each(Outlet::hurry);
        while (self.queue.handed_over().0 > 0 || self.has_more_to_replay()) && Instant::now() < deadline {
            if self.outlets.iter().all(Outlet::is_hopeless) {
                break;
            }
            if !self.visit() {
                self.outlets.iter_mut().for_each(Outlet::hurry);
                thread::sleep(CLOSING_PAUSE);
            }
        }
        // A report must not get into a batch that is half sent.
        self.outlets.iter_mut().for_each(|outlet| outlet.finish_batch(deadline));
        if self.outlets.iter().all(Outlet::is_between_batches) {
            self.report_losses_now();
        }
        let left = self.give_up_queue();
        self.end_outlets(deadline, left);
        self.leave_ring();
        // What was lost by the end itself can be told nowhere else.
        if let Some(report) = self.losses.next(&self.queue.counters) {
            say_loss(&report);
        }
        self.flushes.clear();
    }

    /// Messages that are still queued, and will not be sent. What is in a crash ring is not given up.
    fn give_up_queue(&mut self) -> u64 {
        while self.set_aside() {}
        #[cfg(feature = "ring")]
        self.crash.keep_queue(&self.queue);
        let mut left = 0;
        while let Some(chunk) = self.queue.take() {
            left += chunk.messages;
            self.queue.give_back(chunk);
        }
        left
    }
}

/// What the crash ring asks for; see `delivery/crash.rs`.
#[cfg(feature = "ring")]
impl Worker {
    fn finish_work(&mut self) -> u64 {
        let Worker { work, crash, queue, outlets, .. } = self;
        work.finish(|chunk| crash.keep_or_give_back(queue, chunk, outlets))
    }

    fn replay_next(&mut self) -> bool {
        self.crash.replay_next(&self.queue, &mut self.outlets)
    }

    fn has_more_to_replay(&self) -> bool {
        self.crash.has_more_to_replay()
    }

    fn release_settled(&mut self) {
        // What went to the spool and is not on disk yet is nowhere but in the ring.
        if !self.aside.has_unwritten() {
            self.crash.release_settled(&self.queue, &self.outlets);
        }
    }

    fn leave_ring(&mut self) {
        self.crash.leave(&self.queue, &self.outlets);
    }
}

#[cfg(not(feature = "ring"))]
impl Worker {
    fn finish_work(&mut self) -> u64 {
        self.work.finish(|chunk| self.queue.give_back(chunk))
    }

    fn replay_next(&mut self) -> bool {
        false
    }

    fn has_more_to_replay(&self) -> bool {
        false
    }

    fn release_settled(&mut self) {}

    fn leave_ring(&mut self) {}
}

fn say_loss(report: &LossReport) {
    stdio::say(&format!("tracing-metlog: {}\n", report.payload));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use crate::delivery::transport::capture::Capture;
    use crate::{Guard, LossReason};

    /// A text in a message that a worker fails at, and how often it still does.
    static FAILURES: [(&str, AtomicU32); 3] = [
        ("the worker fails once at this", AtomicU32::new(1)),
        ("and twice at this", AtomicU32::new(2)),
        ("and at this, with several destinations", AtomicU32::new(2)),
    ];

    pub(super) fn perhaps_fail(message: &[u8]) {
        for (text, left) in &FAILURES {
            let is_meant = message.windows(text.len()).any(|part| part == text.as_bytes());
            let take = |left: u32| left.checked_sub(1);
            let fails = is_meant && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
            assert!(!fails, "a test wants the worker to fail");
        }
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Sends 100 messages, one of which the worker fails at, and some more.
    fn failing_at(text: &str) -> (Capture, Guard) {
        let capture = Capture::new();
        failing_in(crate::builder().transport(capture.clone()), capture, text)
    }

    fn failing_in(builder: crate::Builder, capture: Capture, text: &str) -> (Capture, Guard) {
        let (client, guard) = builder.queue_bytes(1).build_client().unwrap();
        for number in 0..100 {
            let payload = if number == 50 { String::from(text) } else { number.to_string() };
            client.message("oldstyle").payload(payload.as_str()).send();
        }
        let _ = guard.flush(PATIENCE);
        (0..10).for_each(|number| client.message("oldstyle").payload(number).send());
        (capture, guard)
    }

    #[test]
    fn a_worker_that_fails_begins_again_where_it_was_and_nothing_is_lost_or_doubled() {
        let (capture, guard) = failing_at(FAILURES[0].0);
        let stats = guard.finish();
        assert_eq!((stats.emitted, stats.delivered, stats.lost.total()), (110, 110, 0), "{stats}");
        let payloads: Vec<_> = capture.messages().iter().map(|message| message.payload.to_string()).collect();
        let sent = |number: usize| match number {
            50 => String::from(FAILURES[0].0),
            _ => (number % 100).to_string(),
        };
        assert_eq!(payloads, (0..110).map(sent).collect::<Vec<_>>());
    }

    #[test]
    fn a_worker_that_fails_again_is_given_up_and_every_message_is_accounted_for() {
        let (capture, guard) = failing_at(FAILURES[1].0);
        let stats = guard.finish();
        let (failed, closed) =
            (stats.lost.count(LossReason::WorkerFailed), stats.lost.count(LossReason::Closed));
        assert_eq!((stats.emitted, stats.pending), (110, 0), "{stats}");
        assert_eq!(stats.delivered, capture.len() as u64, "{stats}");
        assert_eq!(stats.delivered + failed + closed, 110, "{stats}");
        assert!(failed >= 50 && closed <= 10, "{stats}");
    }

    #[test]
    fn a_worker_that_is_given_up_ends_the_threads_of_its_destinations_and_their_accounts_balance_too() {
        let captures = [Capture::new(), Capture::new()];
        let builder = crate::builder().transport(captures[0].clone()).transport(captures[1].clone());
        let (_, guard) = failing_in(builder, captures[0].clone(), FAILURES[2].0);
        let stats = guard.finish();
        for (one, capture) in stats.destinations.iter().zip(&captures) {
            assert_eq!((one.delivered, one.pending), (capture.len() as u64, 0), "{stats:?}");
            assert_eq!(one.delivered + one.lost.total(), stats.emitted, "{stats:?}");
        }
    }
}
