//! Core cycles: what they are taken from.

use serde::Serialize;

use crate::kernels::core_clock;

/// The core clock while something ran: what turns its seconds into cycles.
///
/// Ticks of the time stamp counter are not cycles, and are not used.
///
/// ```
/// if let Some(clock) = percycle::profile::Clock::measure() {
///     println!("{clock}");
///     assert!(clock.hertz > 1e8);
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Clock {
    /// Cycles per second.
    pub hertz: f64,
    /// Where it is taken from.
    pub source: ClockSource,
    /// The same by a second method, on x86: dependent multiplications.
    pub second_hertz: Option<f64>,
    /// By how much the clock after the run differs from the one before it, as a share of it. A large one says that the
    /// machine is shared or changes its clock, and that cycles are no better than that.
    pub drift: f64,
}

/// Where a [`Clock`] is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClockSource {
    /// A chain of dependent additions, one cycle each, timed right before and right after the run.
    Calibration,
    /// The CPU's own counter of this thread's cycles, over the run itself (feature `perf-counters`). Where the system
    /// counts none in the kernel, only of runs of half a second and more that hardly entered it.
    Counter,
}

impl Clock {
    /// The clock of this core now, in about 2 ms. `None` where no instructions of known latency are known (other CPUs than
    /// x86-64 and aarch64), or where two methods differ by more than 5 %.
    pub fn measure() -> Option<Clock> {
        let now = core_clock()?;
        Some(Clock {
            hertz: now.hertz,
            source: ClockSource::Calibration,
            second_hertz: now.second,
            drift: 0.0,
        })
    }

    /// Runs `f` and measures the clock around it, or over it where the CPU's own counter can be read.
    ///
    /// ```
    /// let (sum, clock) = percycle::profile::Clock::during(|| (0..1000_u64).sum::<u64>());
    /// if let Some(clock) = clock {
    ///     println!("{sum}, {clock}, drift {:+.1} %", clock.drift * 1e2);
    /// }
    /// ```
    pub fn during<R>(f: impl FnOnce() -> R) -> (R, Option<Clock>) {
        let around = Around::begin();
        let result = f();
        (result, around.end())
    }
}

impl std::fmt::Display for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} GHz", self.hertz / 1e9)?;
        match self.source {
            ClockSource::Calibration => write!(f, " by dependent additions")?,
            ClockSource::Counter => write!(f, " by the CPU's cycle counter")?,
        }
        match self.second_hertz {
            Some(second) => write!(f, " ({:.3} by multiplications)", second / 1e9),
            None => Ok(()),
        }
    }
}

/// A measurement of the clock around a run.
struct Around {
    before: Option<Clock>,
    #[cfg(all(feature = "perf-counters", target_os = "linux"))]
    counter: Option<counter::Counter>,
}

impl Around {
    fn begin() -> Around {
        Around {
            before: Clock::measure(),
            #[cfg(all(feature = "perf-counters", target_os = "linux"))]
            counter: counter::Counter::start(),
        }
    }

    fn end(self) -> Option<Clock> {
        #[cfg(all(feature = "perf-counters", target_os = "linux"))]
        let counted = self.counter.and_then(counter::Counter::hertz);
        #[cfg(not(all(feature = "perf-counters", target_os = "linux")))]
        let counted: Option<f64> = None;
        let (before, after) = (self.before, Clock::measure());
        let calibrated = before.zip(after).map(|(before, after)| Clock {
            hertz: (before.hertz + after.hertz) / 2.0,
            second_hertz: before.second_hertz.zip(after.second_hertz).map(|(a, b)| (a + b) / 2.0),
            drift: after.hertz / before.hertz - 1.0,
            source: ClockSource::Calibration,
        });
        match (counted, calibrated) {
            (Some(hertz), calibrated) => Some(Clock {
                hertz,
                source: ClockSource::Counter,
                second_hertz: calibrated.and_then(|clock| clock.second_hertz),
                drift: calibrated.map_or(0.0, |clock| clock.drift),
            }),
            (None, calibrated) => calibrated,
        }
    }
}

/// The cycle counter of this thread. Virtual machines mostly have none.
#[cfg(all(feature = "perf-counters", target_os = "linux"))]
mod counter {
    use perf_event::events::Hardware;
    use perf_event::{Builder, ReadFormat};

    /// The most that the kernel may take, by its ticks, of a run whose cycles in it are not counted: by so much the clock
    /// reads low.
    const KERNEL_SHARE: f64 = 0.02;
    /// Seconds in a tick, the unit that Linux tells a thread's time in, on every CPU but Alpha.
    const TICK: f64 = 0.01;

    pub(super) struct Counter {
        cycles: perf_event::Counter,
        /// The seconds that this thread had spent in the kernel before, where its cycles there are not counted.
        kernel_before: Option<f64>,
    }

    impl Counter {
        /// Starts counting, where the system lets us: with the cycles of system calls and page faults, whose time is
        /// counted too, or else without them.
        pub(super) fn start() -> Option<Counter> {
            let build = |exclude_kernel| {
                let mut builder = Builder::new(Hardware::CPU_CYCLES);
                builder.read_format(ReadFormat::TOTAL_TIME_RUNNING).exclude_kernel(exclude_kernel);
                builder.build().ok()
            };
            let (mut cycles, kernel_before) = match build(false) {
                Some(cycles) => (cycles, None),
                None => (build(true)?, Some(kernel_seconds()?)),
            };
            cycles.enable().ok()?;
            Some(Counter { cycles, kernel_before })
        }

        /// Cycles per second that this thread ran; `None` when it did not run long enough to tell, or the kernel may have
        /// taken cycles that were not counted.
        pub(super) fn hertz(mut self) -> Option<f64> {
            self.cycles.disable().ok()?;
            let count = self.cycles.read_full().ok()?;
            let seconds = count.time_running()?.as_secs_f64();
            if let Some(before) = self.kernel_before
                && !negligible(kernel_seconds()? - before, seconds)
            {
                return None;
            }
            (seconds > 1e-4 && count.count() > 0).then(|| count.count() as f64 / seconds)
        }
    }

    /// Whether so many seconds in the kernel, and a tick that is not told yet, are few of a run.
    fn negligible(kernel: f64, run: f64) -> bool {
        kernel + TICK <= KERNEL_SHARE * run
    }

    /// The seconds that this thread has spent in the kernel.
    fn kernel_seconds() -> Option<f64> {
        let ticks = kernel_ticks(&std::fs::read_to_string("/proc/thread-self/stat").ok()?)?;
        Some(ticks as f64 * TICK)
    }

    /// The 15th field; the second one is a name in parentheses that may hold any character.
    fn kernel_ticks(stat: &str) -> Option<u64> {
        stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(12)?.parse().ok()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn time_in_the_kernel_is_read_after_any_name() {
            let stat = "71 (a) 1 (b) R 1 71 71 0 -1 4194304 99 0 0 0 104 37 5 6 20 0 1 0 4182 8192";
            assert_eq!(kernel_ticks(stat), Some(37));
            assert_eq!(kernel_ticks("71 (a) R 1"), None);
            assert!(kernel_seconds().is_some());
        }

        #[test]
        fn what_the_kernel_may_have_taken_counts() {
            assert!(negligible(0.0, 0.6) && negligible(0.02, 2.0));
            // A tick that is not over, of a run too short; and a run of which the kernel took a tenth.
            assert!(!negligible(0.0, 0.4) && !negligible(0.2, 2.0));
        }
    }
}
