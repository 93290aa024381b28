//! What the machine can do, measured: the denominators of every percentage.

use serde::Serialize;

use super::Clock;
use crate::kernels::{fma_peak, read_bandwidth};
use crate::simd::Isa;

/// The most bytes of a buffer that the bandwidth of memory is measured with. A third-level cache of more than half of this
/// leaves memory unmeasured.
const LARGEST: usize = 1 << 30;
/// Measurements of a peak, of which the fastest counts.
const ROUNDS: usize = 41;

/// What one core of this machine does at most. What could not be measured is absent, and so are the percentages of it.
///
/// ```
/// use percycle::{Isa, profile::Machine};
///
/// let machine = Machine::measure(Isa::current());
/// for level in &machine.levels {
///     println!("{}: {:.0} GB/s", level.name, level.bytes_per_second / 1e9);
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Machine {
    /// The core clock, if it can be measured.
    pub clock: Option<Clock>,
    /// The FMA peak of one core with each instruction set that ran.
    pub peaks: Vec<Peak>,
    /// The caches, and memory where it was measured, nearest first. Empty where the system does not tell their sizes
    /// (other than Linux).
    pub levels: Vec<Level>,
}

/// What the FMA units of one core do with an instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Peak {
    /// The name of the instruction set.
    pub isa: &'static str,
    /// FLOP in a second.
    pub flop_per_second: f64,
}

/// A cache, or memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Level {
    /// `"L1"`, `"L2"`, `"L3"` or `"memory"`.
    pub name: &'static str,
    /// How many bytes it holds; `None` for memory.
    pub capacity: Option<u64>,
    /// What one core reads from it in a second.
    pub bytes_per_second: f64,
}

impl Machine {
    /// A machine of which nothing is known: no cycles, no percentages.
    pub fn unknown() -> Machine {
        Machine::default()
    }

    /// Measures clock, peak and caches, in some 30 ms. Memory is left out: its bandwidth takes a buffer of twice the
    /// third-level cache.
    pub fn measure(isa: Isa) -> Machine {
        Machine { clock: Clock::measure(), peaks: vec![peak(isa)], levels: levels(isa, 0) }
    }

    /// The FLOP per second of one core with this instruction set.
    pub fn peak(&self, isa: Isa) -> Option<f64> {
        self.peaks.iter().find(|peak| peak.isa == isa.name()).map(|peak| peak.flop_per_second)
    }

    /// The nearest level that holds so many bytes.
    pub fn level_of(&self, bytes: u64) -> Option<&Level> {
        self.levels.iter().find(|level| level.capacity.is_none_or(|capacity| bytes <= capacity))
    }
}

/// The FMA peak now.
pub(super) fn peak(isa: Isa) -> Peak {
    let flop_per_second = (0..ROUNDS).map(|_| fma_peak(isa)).fold(0.0, f64::max);
    Peak { isa: isa.name(), flop_per_second }
}

/// The levels, with memory if `footprint` bytes do not fit the last cache.
pub(super) fn levels(isa: Isa, footprint: u64) -> Vec<Level> {
    let caches = caches();
    let mut levels: Vec<Level> = Vec::new();
    let mut push = |name, capacity: Option<usize>, buffer: usize| {
        if let Ok(bytes_per_second) = read_bandwidth(isa, buffer) {
            levels.push(Level { name, capacity: capacity.map(|bytes| bytes as u64), bytes_per_second });
        }
    };
    for (n, &(name, bytes)) in caches.iter().enumerate() {
        // Half of a cache, but not more than 4 times the one before: a third-level cache may be shared by many.
        let nearer = n.checked_sub(1).map_or(usize::MAX, |n| 4 * caches[n].1);
        push(name, Some(bytes), (bytes / 2).min(nearer));
    }
    if let Some(&(_, last)) = caches.last()
        && footprint > last as u64
        && 2 * last <= LARGEST
    {
        push("memory", None, 2 * last);
    }
    levels
}

/// The names and sizes of the data caches that the first core reaches, nearest first; empty where nobody tells.
fn caches() -> Vec<(&'static str, usize)> {
    let mut found = Vec::new();
    for index in 0..8 {
        let file = |name: &str| {
            let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}");
            std::fs::read_to_string(path).map(|text| text.trim().to_owned())
        };
        let (Ok(level), Ok(kind), Ok(size)) = (file("level"), file("type"), file("size")) else { break };
        let name = match level.as_str() {
            "1" if kind == "Data" => "L1",
            "2" if kind != "Instruction" => "L2",
            "3" if kind != "Instruction" => "L3",
            _ => continue,
        };
        let kib = size.strip_suffix('K').and_then(|kib| kib.parse::<usize>().ok());
        if let Some(kib) = kib.filter(|&kib| kib > 0) {
            found.push((name, kib << 10));
        }
    }
    found
}
