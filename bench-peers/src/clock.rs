//! Clocks and gauges: the processor's own counter for single calls, CPU time of threads and of the process, memory.

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

/// Readings of the processor's time-stamp counter, or of the system's clock where there is none that we know.
#[derive(Clone, Copy, Debug)]
pub struct Ticks {
    per_nanosecond: f64,
}

impl Ticks {
    /// Finds out how fast the counter runs, by the system's clock; takes 50 ms. The counter must run at one speed
    /// whatever the processor does, as it has on x86-64 for many years (`constant_tsc` in `/proc/cpuinfo`).
    pub fn calibrated() -> Ticks {
        let (start, first) = (Instant::now(), begin());
        while start.elapsed() < Duration::from_millis(50) {}
        let (elapsed, last) = (start.elapsed(), end());
        Ticks { per_nanosecond: (last - first) as f64 / elapsed.as_nanos() as f64 }
    }

    /// Ticks in nanoseconds.
    pub fn nanoseconds(self, ticks: u64) -> f64 {
        ticks as f64 / self.per_nanosecond
    }

    /// A duration in ticks.
    pub fn of(self, duration: Duration) -> u64 {
        (duration.as_nanos() as f64 * self.per_nanosecond) as u64
    }
}

/// A reading before something that is timed. Nothing that comes later in the program begins before it.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn begin() -> u64 {
    use std::arch::x86_64::{_mm_lfence, _rdtsc};
    // SAFETY: every x86-64 processor has both instructions; they touch no memory.
    unsafe {
        _mm_lfence();
        let reading = _rdtsc();
        _mm_lfence();
        reading
    }
}

/// A reading after something that was timed. Everything that comes earlier in the program has happened by then.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn end() -> u64 {
    begin()
}

/// A reading before something that is timed.
#[cfg(not(target_arch = "x86_64"))]
pub fn begin() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// A reading after something that was timed.
#[cfg(not(target_arch = "x86_64"))]
pub fn end() -> u64 {
    begin()
}

/// The CPU time of the calling thread so far, in nanoseconds.
pub fn thread_cpu() -> f64 {
    cpu(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// The CPU time of all threads of this process so far, in nanoseconds.
pub fn process_cpu() -> f64 {
    cpu(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn cpu(clock: libc::clockid_t) -> f64 {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: `time` has room for what is written, and all zeroes is a valid `timespec` if nothing is.
    let time = unsafe {
        libc::clock_gettime(clock, time.as_mut_ptr());
        time.assume_init()
    };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// What the kernel has done for a thread.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// How often the thread gave up the processor to wait for something.
    pub voluntary_switches: f64,
    /// CPU time in the kernel, in nanoseconds. The kernel may know it no better than to a tick.
    pub system: f64,
}

/// Of the calling thread so far. Linux only; elsewhere of the whole process.
pub fn usage() -> Usage {
    #[cfg(target_os = "linux")]
    const WHO: libc::c_int = libc::RUSAGE_THREAD;
    #[cfg(not(target_os = "linux"))]
    const WHO: libc::c_int = libc::RUSAGE_SELF;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` has room for what is written, and all zeroes is a valid `rusage` if nothing is.
    let usage = unsafe {
        libc::getrusage(WHO, usage.as_mut_ptr());
        usage.assume_init()
    };
    Usage {
        voluntary_switches: usage.ru_nvcsw as f64,
        system: usage.ru_stime.tv_sec as f64 * 1e9 + usage.ru_stime.tv_usec as f64 * 1e3,
    }
}

/// The memory of this process that is in RAM, in bytes: what `/proc/self/smaps_rollup` counts page by page, because
/// `VmRSS` in `/proc/self/status` may be off by some hundred KiB.
///
/// # Errors
///
/// Where there is no such file, which only Linux has.
pub fn resident() -> Result<f64, String> {
    const FILE: &str = "/proc/self/smaps_rollup";
    let text = std::fs::read_to_string(FILE).map_err(|error| format!("{FILE}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
    Ok(kibibytes.ok_or_else(|| format!("{FILE}: no line `Rss: ... kB`"))? * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_agree_with_the_system_clock() {
        let ticks = Ticks::calibrated();
        let (first, start) = (begin(), Instant::now());
        while start.elapsed() < Duration::from_millis(20) {}
        let (elapsed, last) = (start.elapsed(), end());
        let ratio = ticks.nanoseconds(last - first) / elapsed.as_nanos() as f64;
        assert!((0.9..1.1).contains(&ratio), "{ratio}");
    }

    #[test]
    fn memory_that_is_touched_is_seen() {
        let before = resident().unwrap();
        let touched = std::hint::black_box(vec![1u8; 32 << 20]);
        let more = resident().unwrap() - before;
        assert!((31e6..40e6).contains(&more), "{more} bytes for {}", touched.len());
    }

    #[test]
    fn a_busy_thread_uses_cpu_time_and_a_sleeping_one_gives_up_its_processor() {
        let (thread, process, switches) = (thread_cpu(), process_cpu(), usage().voluntary_switches);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(20) {}
        assert!(thread_cpu() > thread && process_cpu() > process);
        std::thread::sleep(Duration::from_millis(1));
        assert!(usage().voluntary_switches > switches);
    }
}
