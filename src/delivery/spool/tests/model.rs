//! Any sequence of writes, reads, confirmations, crashes, power cuts and faults, against a list.

use proptest::prelude::*;

use super::super::memory::{Fault, OPERATIONS};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Put { count: u64, length: usize },
    Sync,
    Read,
    Confirm,
    Kill,
    CutPower(usize),
    Fail { operation: usize, times: usize, short: Option<usize> },
    Heal,
    Tick,
}

fn step(with_faults: bool) -> impl Strategy<Value = Step> {
    let faults = if with_faults { 3 } else { 0 };
    let length = prop_oneof![4 => 0usize..50, 1 => 0usize..40_000, 1 => Just(200_000)];
    prop_oneof![
        6 => (1u64..30, length).prop_map(|(count, length)| Step::Put { count, length }),
        2 => Just(Step::Sync),
        4 => Just(Step::Read),
        4 => Just(Step::Confirm),
        1 => Just(Step::Kill),
        1 => any::<usize>().prop_map(move |seed| if with_faults { Step::Kill } else { Step::CutPower(seed) }),
        1 => Just(Step::Tick),
        faults => (0..OPERATIONS.len(), 1usize..6, prop::option::of(0usize..60))
            .prop_map(|(operation, times, short)| Step::Fail { operation, times, short }),
        faults => Just(Step::Heal),
    ]
}

/// What must be on disk or in memory, in order.
struct Model {
    disk: MemoryDisk,
    settings: Settings,
    process: Process,
    next_id: u64,
    /// Put and not confirmed, those at the front in flight.
    expected: VecDeque<u64>,
    /// Of `expected`, how many are synced.
    synced: usize,
    confirmed: Vec<u64>,
    /// Losses that were counted by processes that have ended.
    lost_before: u64,
    /// No operation has failed: nothing may be lost, and nothing come twice.
    is_whole: bool,
}

impl Model {
    fn new(settings: Settings) -> Model {
        let disk = MemoryDisk::new(root());
        let process = Process::start(&disk, settings.clone());
        let (expected, confirmed) = Default::default();
        Model {
            disk,
            settings,
            process,
            next_id: 1,
            expected,
            synced: 0,
            confirmed,
            lost_before: 0,
            is_whole: true,
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Put { count, length } => {
                let ids = self.next_id..self.next_id + count;
                self.next_id += count;
                self.expected.extend(ids.clone());
                self.process.put(ids, length);
            }
            Step::Sync => {
                self.process.spool.sync();
                self.synced = self.expected.len() - self.process.spool.waiting.len();
            }
            Step::Read => self.read(),
            Step::Confirm => self.confirm(),
            Step::Kill if self.is_whole => self.restart(|disk| disk.kill()),
            Step::Kill => self.kill_after_faults(),
            Step::CutPower(seed) => self.cut_power(seed),
            Step::Fail { operation, mut times, short } => {
                self.is_whole = false;
                let failing = OPERATIONS[operation];
                self.disk.plan(move |name| {
                    let fails = name == failing && times > 0;
                    times -= usize::from(fails);
                    let fault =
                        short.map_or(Fault::Error(libc::ENOSPC), |bytes| Fault::Short(bytes, libc::EIO));
                    fails.then_some(fault)
                });
            }
            Step::Heal => {
                self.disk.heal();
                self.process.spool.hurry();
            }
            Step::Tick => self.process.spool.tick(),
        }
        self.process.assert_balanced();
    }

    fn read(&mut self) {
        let lost = self.process.lost().total();
        let begun = self.process.in_flight.len();
        let ids = self.process.read();
        // What was lost is at the front, or in between.
        let mut lost = self.process.lost().total() - lost;
        let mut at = begun;
        for id in &ids {
            while self.expected[at] != *id {
                assert!(lost > 0, "{id} came instead of {}", self.expected[at]);
                self.expected.remove(at);
                lost -= 1;
            }
            at += 1;
        }
        self.expected.drain(at..at + lost as usize);
        if !self.process.spool.is_sending() {
            self.expected.drain(begun..at);
            self.confirmed.extend(ids);
        }
        self.synced = self.synced.min(self.expected.len());
    }

    fn confirm(&mut self) {
        let count = self.process.in_flight.len();
        self.process.confirm();
        self.confirmed.extend(self.expected.drain(..count));
        self.synced = self.synced.saturating_sub(count);
    }

    /// The process dies, and starts again on a disk that works.
    fn restart(&mut self, die: impl FnOnce(&MemoryDisk)) {
        let not_written = self.process.spool.waiting.len();
        self.expected.truncate(self.expected.len() - not_written);
        self.lost_before += self.process.lost().total();
        die(&self.disk);
        self.disk.heal();
        self.process = Process::start(&self.disk, self.settings.clone());
    }

    /// The same when operations have failed: what was confirmed may come again, because that was not noted.
    fn kill_after_faults(&mut self) {
        let before = self.lost_before + self.process.lost().total();
        self.restart(|disk| disk.kill());
        let got = self.process.drain();
        let lost = self.lost_before + self.process.lost().total();
        self.assert_known_and_in_order(&got);
        let missing = self.expected.iter().filter(|id| !got.contains(id)).count() as u64;
        assert!(missing <= lost, "{missing} missing, {lost} counted, {before} of them before");
        self.confirmed.extend(self.expected.drain(..));
        self.synced = 0;
    }

    fn assert_known_and_in_order(&self, got: &[u64]) {
        assert!(got.windows(2).all(|pair| pair[0] < pair[1]), "in order: {got:?}");
        let is_known = |id: &u64| self.expected.contains(id) || self.confirmed.contains(id);
        assert!(got.iter().all(is_known), "only what was put in: {got:?}");
    }

    /// The machine stops: what was synced is there, in order, and of the rest nothing that never was.
    fn cut_power(&mut self, mut seed: usize) {
        let synced: Vec<u64> = self.expected.iter().take(self.synced).copied().collect();
        let chance = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 33
        };
        self.restart(|disk| disk.cut_power(chance));
        let got = self.process.drain();
        self.assert_known_and_in_order(&got);
        let missing: Vec<_> = synced.iter().filter(|id| !got.contains(id)).collect();
        assert!(missing.is_empty(), "synced and gone: {missing:?}");
        self.confirmed.extend(self.expected.drain(..));
        self.synced = 0;
    }

    fn finish(mut self) {
        self.disk.heal();
        self.confirm();
        let got = self.process.drain();
        let missing = self.expected.iter().filter(|id| !got.contains(id)).count() as u64;
        let lost = self.lost_before + self.process.lost().total();
        assert!(missing <= lost, "{missing} missing, {lost} counted");
        assert!(got.windows(2).all(|pair| pair[0] < pair[1]), "in order: {got:?}");
        assert!(got.iter().all(|id| self.expected.contains(id)), "nothing but what is expected: {got:?}");
        self.process.spool.close();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_the_process_or_the_machine_what_was_promised_comes_back_in_order(
        steps in prop::collection::vec(step(false), 1..60),
    ) {
        let mut model = Model::new(roomy());
        steps.iter().for_each(|step| model.take(step));
        prop_assert_eq!(model.process.lost_for(LossReason::SpoolFull), 0);
        model.finish();
    }

    #[test]
    fn whatever_the_disk_refuses_nothing_is_lost_that_is_not_counted(
        steps in prop::collection::vec(step(true), 1..60),
        quota in prop_oneof![Just(1u64 << 30), Just(300_000u64)],
    ) {
        let mut model = Model::new(settings(quota));
        steps.iter().for_each(|step| model.take(step));
        model.finish();
    }
}
