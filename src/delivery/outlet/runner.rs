//! What the thread of one of several destinations does: it loads batches, sends them, and says how far it has come.
//!
//! In: batches. Out: a settled account. It should not panic. If ever it does it begins again once, where it was: what it
//! had loaded is still there. The second time what it holds, and what still comes, is counted (`worker_failed`).

use std::collections::VecDeque;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::{drain, Closing, Parcel, Progress};
use crate::capture;
use crate::delivery::batch::Batch;
use crate::delivery::destination::{complain, Destination};
use crate::stats::Counters;

/// A thread that has nothing to do wakes up after this for nothing, which no one will notice.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// What it has in common with the worker.
pub(super) struct Shared {
    pub(super) closing: Arc<OnceLock<Closing>>,
    pub(super) progress: Arc<Progress>,
    pub(super) all: Arc<Counters>,
}

/// What a destination's own thread does.
pub(super) struct Runner {
    destination: Destination,
    /// Messages that got into the destination's batch, ever.
    loaded: u64,
    /// The parcels in the destination's batch that are not settled yet, the oldest first.
    in_hand: VecDeque<InHand>,
    batches: Receiver<Parcel>,
    give_back: Sender<Batch>,
    nudged: Receiver<()>,
    shared: Shared,
    restarted: bool,
}

/// A parcel that was loaded, and when it is settled: as soon as this much of what was loaded is.
struct InHand {
    loaded: u64,
    before: u64,
    through: u64,
}

impl Runner {
    /// Batches come through the first channel and go back empty through the second; the third wakes it.
    pub(super) fn new(
        destination: Destination,
        (batches, give_back, nudged): (Receiver<Parcel>, Sender<Batch>, Receiver<()>),
        shared: Shared,
    ) -> Runner {
        let in_hand = VecDeque::new();
        Runner { destination, loaded: 0, in_hand, batches, give_back, nudged, shared, restarted: false }
    }

    pub(super) fn run(mut self) {
        capture::thread::mark_as_own();
        while catch_unwind(AssertUnwindSafe(|| self.serve())).is_err() {
            if std::mem::replace(&mut self.restarted, true) {
                self.say("failed again; nothing is delivered there any more");
                return self.count_all();
            }
            self.say("failed and begins again; nothing is lost by that");
        }
    }

    fn say(&self, what: &str) {
        let address = self.destination.counters.address();
        complain(format_args!("{address}: the thread that sends there {what}"));
    }

    /// Until it is told to close, or the worker is gone.
    fn serve(&mut self) {
        while self.shared.closing.get().is_none() {
            if !self.wait() {
                return self.count_all();
            }
            #[cfg(test)]
            tests::perhaps_fail(self.destination.counters.address(), self.destination.batch.remaining());
            self.destination.attempt();
            self.note_progress();
        }
        self.close();
    }

    /// Everything up to the last parcel that is settled is; what is sent now begins with the next one.
    fn note_progress(&mut self) {
        let settled = self.loaded - self.destination.batch.len() as u64;
        let mut through = None;
        while self.in_hand.front().is_some_and(|parcel| parcel.loaded <= settled) {
            through = self.in_hand.pop_front().map(|parcel| parcel.through);
        }
        if let Some(through) = through {
            let sending_after = self.in_hand.front().map_or(0, |parcel| parcel.before);
            self.shared.progress.sending_after.store(sending_after, Ordering::Release);
            self.shared.progress.through.store(through, Ordering::Release);
        }
    }

    /// Until there is something to do: a batch to load, an attempt that is due, somebody who waits. `false` when nothing
    /// will ever come: the worker has ended without a word.
    fn wait(&mut self) -> bool {
        let nothing_fits = crossbeam_channel::never();
        let batches = if self.destination.has_room() { &self.batches } else { &nothing_fits };
        let pause = self.destination.due().map(|due| due.saturating_duration_since(Instant::now()));
        crossbeam_channel::select! {
            recv(batches) -> parcel => if let Ok(parcel) = parcel { self.load(parcel) },
            recv(self.nudged) -> nudge => {
                if nudge.is_err() {
                    return false;
                }
                self.destination.hurry();
            }
            default(pause.unwrap_or(LONGEST_WAIT)) => {}
        }
        true
    }

    fn load(&mut self, parcel: Parcel) {
        let Parcel { mut batch, before, through } = parcel;
        self.loaded += batch.len() as u64;
        self.destination.batch.append(&mut batch);
        if self.in_hand.is_empty() {
            self.shared.progress.sending_after.store(before, Ordering::Release);
        }
        self.in_hand.push_back(InHand { loaded: self.loaded, before, through });
        let _ = self.give_back.try_send(batch);
    }

    /// Loads all that waits here and, at the end, the batch that found no room.
    fn load_all(&mut self, last: Option<Parcel>) {
        while let Ok(parcel) = self.batches.try_recv() {
            self.load(parcel);
        }
        if let Some(parcel) = last {
            self.load(parcel);
        }
    }

    /// Nothing more comes after what waits here: all of it is one last batch.
    fn close(&mut self) {
        let closing = Arc::clone(&self.shared.closing);
        let Some(Closing { deadline, last, keeps, left, done }) = closing.get() else { return };
        self.load_all(last.lock().ok().and_then(|mut last| last.take()));
        self.destination.hurry();
        drain(&mut self.destination, *deadline);
        let kept = if *keeps { self.destination.take_back() } else { Batch::default() };
        self.note_progress();
        if !self.shared.all.keeps_what_is_left() {
            self.destination.give_up(0);
        }
        self.destination.close(*deadline);
        if let Ok(mut left) = left.lock() {
            *left = Some(kept);
        }
        done.open();
    }

    /// Nothing is sent any more: what is here and what still comes is counted, so that nobody waits for it. What other
    /// destinations have not got is theirs to say, so nothing is given back at the end.
    fn count_all(&mut self) {
        let closing = Arc::clone(&self.shared.closing);
        loop {
            let closing = closing.get();
            self.load_all(closing.and_then(|closing| closing.last.lock().ok()?.take()));
            self.destination.fail();
            self.note_progress();
            if let Some(closing) = closing {
                return closing.done.open();
            }
            crossbeam_channel::select! {
                recv(self.batches) -> parcel => if let Ok(parcel) = parcel { self.load(parcel) },
                // Told to close, or nobody is left to tell.
                recv(self.nudged) -> nudge => if nudge.is_err() { return },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::delivery::transport::capture::Capture;
    use crate::stats::DestinationCounters;
    use crate::{Guard, LossReason, Stats};

    /// Part of an address whose thread fails as soon as it has something to send, and how often it still does.
    static FAILURES: [(&str, AtomicU32); 2] =
        [("fails-once", AtomicU32::new(1)), ("fails-twice", AtomicU32::new(2))];

    pub(super) fn perhaps_fail(address: &str, batch: &[u8]) {
        for (part, left) in &FAILURES {
            let take = |left: u32| left.checked_sub(1);
            let is_meant = address.contains(part) && !batch.is_empty();
            let fails = is_meant && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
            assert!(!fails, "a test wants the thread to fail");
        }
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A healthy destination, and a file whose thread fails as its name says; 100 messages, and after those 10 more.
    fn failing(name: &str) -> (Capture, PathBuf, Guard) {
        let path = std::env::temp_dir().join(format!("metlog-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let capture = Capture::new();
        let builder =
            crate::builder().transport(capture.clone()).router(format!("file://{}", path.display()));
        let (client, guard) = builder.build_client().unwrap();
        let begun = Instant::now();
        for round in [0..100, 100..110] {
            round.for_each(|number| client.message("oldstyle").payload(number).send());
            assert_eq!(guard.flush(PATIENCE).pending, 0);
        }
        assert!(begun.elapsed() < PATIENCE, "nobody waits for a thread that has failed");
        (capture, path, guard)
    }

    fn payloads(capture: &Capture) -> Vec<String> {
        capture.messages().iter().map(|message| message.payload.to_string()).collect()
    }

    fn lines(path: &PathBuf) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let _ = std::fs::remove_file(path);
        let payload = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["payload"].clone();
        text.lines().map(|line| payload(line).as_str().unwrap().to_owned()).collect()
    }

    fn all() -> Vec<String> {
        (0..110).map(|number| number.to_string()).collect()
    }

    fn assert_balanced(stats: &Stats) {
        for one in &stats.destinations {
            assert_eq!((stats.emitted, 0), (one.delivered + one.lost.total(), one.pending), "{stats:?}");
        }
    }

    #[test]
    fn the_thread_of_a_destination_that_fails_begins_again_where_it_was_and_nothing_is_lost_or_doubled() {
        let (capture, path, guard) = failing("fails-once");
        let stats = guard.finish();
        assert_balanced(&stats);
        assert_eq!((stats.emitted, stats.destinations[1].lost.total()), (110, 0), "{stats:?}");
        assert_eq!((lines(&path), payloads(&capture)), (all(), all()));
    }

    #[test]
    fn of_a_thread_that_fails_again_every_message_is_counted_and_the_other_destinations_get_theirs() {
        let (capture, path, guard) = failing("fails-twice");
        let problem = guard.stats().destinations[1].problem.clone();
        assert!(problem.is_some_and(|problem| problem.contains("failed twice")));
        let stats = guard.finish();
        assert_balanced(&stats);
        let sent = payloads(&capture);
        let reports = sent.len() - 110;
        assert_eq!(sent.iter().filter(|payload| all().contains(payload)).count(), 110, "{sent:?}");
        let [healthy, failed] = &stats.destinations[..] else { panic!("two: {stats:?}") };
        assert_eq!((healthy.delivered, healthy.lost.total()), (stats.emitted, 0), "{stats:?}");
        assert_eq!((failed.delivered, failed.lost.count(LossReason::WorkerFailed)), (0, stats.emitted));
        assert_eq!((lines(&path), stats.emitted), (vec![], 110 + reports as u64));
    }

    /// Nobody tells it to close, and nobody can any more.
    #[test]
    fn the_thread_ends_with_the_worker_however_that_ends() {
        struct Told {
            _alive: Sender<()>,
        }
        impl crate::Transport for Told {
            fn send(&mut self, batch: &mut crate::Batch, _: Instant) -> std::io::Result<()> {
                batch.delivered(batch.len());
                Ok(())
            }
        }
        let (alive, ended) = crossbeam_channel::bounded(0);
        let counters = Arc::new(DestinationCounters::new(String::from("one"), PATIENCE));
        let all = Arc::new(Counters::default());
        let destination = super::Destination::new(Box::new(Told { _alive: alive }), counters);
        let outlet = super::super::Outlet::apart(destination, &all, None).unwrap();
        drop(outlet);
        let outcome = ended.recv_timeout(PATIENCE);
        assert_eq!(outcome, Err(crossbeam_channel::RecvTimeoutError::Disconnected), "its transport is gone");
    }
}
