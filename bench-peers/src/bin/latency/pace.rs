//! Calls at a steady pace, each timed on its own.
//!
//! In: a call, a pace, a number of threads. Out: how long the calls took, what the clock adds to each of them, the
//! pace that was really held, and what the kernel did for the threads meanwhile.

use std::hint::spin_loop;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use bench_peers::clock::{self, Ticks};
use bench_peers::number::median;

/// Between calls that are further apart than this a thread sleeps, and spins only for the last of it.
const SPIN: Duration = Duration::from_micros(150);
/// Calls whose time is not kept, as a part of those whose time is.
const WARM_UP: usize = 10;

/// The times of all calls of one run.
pub struct Times {
    /// Sorted, in ticks.
    ticks: Vec<u64>,
    unit: Ticks,
    /// What two readings of the clock take, with nothing in between: part of every figure. In nanoseconds.
    pub clock: f64,
    /// Calls of each thread in a second.
    pub pace: f64,
    /// How often threads gave up the processor to wait, other than to keep the pace, for each million calls.
    pub switches_per_million: f64,
    /// CPU time of the threads in the kernel, in nanoseconds for each call.
    pub kernel: f64,
}

impl Times {
    /// The time that this part of all calls did not exceed, in nanoseconds.
    pub fn quantile(&self, part: f64) -> f64 {
        let last = self.ticks.len().saturating_sub(1);
        let index = (part * last as f64).round() as usize;
        self.ticks.get(index).map_or(f64::NAN, |&ticks| self.unit.nanoseconds(ticks))
    }
}

/// Has each of `threads` threads make `calls` calls, `per_second` in a second.
pub fn run(call: fn(u64), per_second: u64, threads: u64, calls: u64) -> Times {
    let (threads, calls) = (threads as usize, calls as usize);
    let unit = Ticks::calibrated();
    let interval = Duration::from_nanos(1_000_000_000 / per_second);
    let begin_together = Barrier::new(threads);
    let work = || {
        let mut pace = Pace::new(unit, interval);
        pace.run(call, &mut vec![1; calls / WARM_UP + 1]);
        // Not zeroes: the memory has to be there before the calls.
        let mut ticks = vec![1; calls];
        begin_together.wait();
        pace.begin_anew();
        let (before, start) = (clock::usage(), clock::begin());
        let sleeps = pace.run(call, &mut ticks);
        let (after, elapsed) = (clock::usage(), clock::end() - start);
        // A sleep that is over at once gives nothing up.
        let waits = after.voluntary_switches - before.voluntary_switches - sleeps as f64;
        (ticks, elapsed, waits.max(0.0), after.system - before.system)
    };
    let threads: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread that logs does not panic")).collect()
    });
    let all_calls = (threads.len() * calls) as f64;
    let mut times = Times {
        ticks: Vec::new(),
        unit,
        clock: cost_of_clock(unit),
        pace: median(threads.iter().map(|thread| calls as f64 * 1e9 / unit.nanoseconds(thread.1))),
        switches_per_million: threads.iter().map(|thread| thread.2).sum::<f64>() * 1e6 / all_calls,
        kernel: threads.iter().map(|thread| thread.3).sum::<f64>() / all_calls,
    };
    times.ticks = threads.into_iter().flat_map(|thread| thread.0).collect();
    times.ticks.sort_unstable();
    times
}

/// When the next call is due.
struct Pace {
    due: u64,
    interval: u64,
    spin: u64,
    unit: Ticks,
}

impl Pace {
    fn new(unit: Ticks, interval: Duration) -> Pace {
        Pace { due: clock::begin(), interval: unit.of(interval), spin: unit.of(SPIN), unit }
    }

    fn begin_anew(&mut self) {
        self.due = clock::begin();
    }

    /// Makes a call for each of `times`, and keeps there what it took; how often it slept in between.
    fn run(&mut self, call: fn(u64), times: &mut [u64]) -> u64 {
        let mut sleeps = 0;
        for time in times {
            sleeps += self.wait();
            let begin = clock::begin();
            call(1);
            let end = clock::end();
            *time = end - begin;
            // A call that comes late does not make the next ones come in a burst.
            self.due = (self.due + self.interval).max(end);
        }
        sleeps
    }

    /// Waits until the next call is due; how often it slept for that.
    fn wait(&self) -> u64 {
        let ahead = self.due.saturating_sub(clock::begin());
        let sleeps = ahead > 2 * self.spin;
        if sleeps {
            thread::sleep(Duration::from_nanos(self.unit.nanoseconds(ahead - self.spin) as u64));
        }
        while clock::begin() < self.due {
            spin_loop();
        }
        u64::from(sleeps)
    }
}

fn cost_of_clock(unit: Ticks) -> f64 {
    median((0..10_000).map(|_| {
        let begin = clock::begin();
        unit.nanoseconds(clock::end() - begin)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_held_whether_the_thread_sleeps_or_spins_and_every_call_is_timed() {
        for (per_second, calls) in [(1_000, 100), (50_000, 5_000)] {
            let times = run(|_| (), per_second, 1, calls);
            assert_eq!(calls as usize, times.ticks.len());
            // A busy machine makes it slower, nothing makes it faster.
            assert!(times.pace < 1.01 * per_second as f64, "{} for {per_second}", times.pace);
        }
    }

    #[test]
    fn a_call_that_waits_is_seen_in_the_quantiles_and_in_the_switches() {
        let times = run(|_| thread::sleep(Duration::from_micros(100)), 2_000, 2, 50);
        assert!(times.quantile(0.0) > 100_000.0, "{}", times.quantile(0.0));
        assert!(times.quantile(0.0) <= times.quantile(0.5) && times.quantile(0.5) <= times.quantile(1.0));
        assert!(times.switches_per_million > 900_000.0, "{}", times.switches_per_million);
    }
}
