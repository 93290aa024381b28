//! A report: what was measured, and what follows from it.

use std::fmt;
use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::{Level, Machine, Phase, Work};
use crate::kernels::Kernel;

/// The share of its time that compute or data must explain to be what bounds a phase.
const EXPLAINS: f64 = 0.5;

/// Where the cycles of a run went. It prints as a table of at most 100 columns and serialises to JSON.
///
/// The fields are what was measured; [`Report::entries`] is what follows from them. So a report can be held against another
/// machine by replacing [`Report::machine`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// What the machine can do.
    pub machine: Machine,
    /// Steps, predictions and other calls, those that ended in an error included.
    pub calls: u64,
    /// What they took in all.
    pub seconds: f64,
    /// Bytes that a call touches: of each layer the phase with most operands, summed. The nearest level that holds them
    /// is where operands are taken to come from.
    pub footprint: u64,
    /// Phases of layers in the order in which they first ran.
    pub rows: Vec<Row>,
}

/// What was measured of a phase of a layer, in all calls.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Row {
    /// The phase.
    pub phase: Phase,
    /// The layer, from 0; `None` for what belongs to the network.
    pub layer: Option<usize>,
    /// The layer's inputs and outputs.
    pub shape: Option<(usize, usize)>,
    /// The kernel, if the phase is a product.
    pub kernel: Option<Kernel>,
    /// How often the phase ran.
    pub calls: u64,
    /// What it took in all.
    pub seconds: f64,
    /// FLOP of its products, in all.
    pub flop: u64,
    /// Bytes of its operands, each read once and each result written once, in all.
    pub bytes: u64,
    /// Threads that took part, at most.
    pub threads: usize,
    /// Seconds that these threads worked, summed; 0 when the product was not shared.
    pub busy_seconds: f64,
    /// What the threads would have worked if each had worked as long as the one that worked longest.
    pub longest_seconds: f64,
    touched: u64,
}

impl Row {
    pub(super) fn new(phase: Phase, layer: Option<usize>, work: &Work, kernel: Option<Kernel>) -> Row {
        Row {
            phase,
            layer,
            shape: work.layer,
            kernel,
            calls: 0,
            seconds: 0.0,
            flop: 0,
            bytes: 0,
            threads: 1,
            busy_seconds: 0.0,
            longest_seconds: 0.0,
            touched: 0,
        }
    }

    pub(super) fn is(&self, phase: Phase, layer: Option<usize>, work: &Work, kernel: Option<Kernel>) -> bool {
        (self.phase, self.layer, self.shape, self.kernel) == (phase, layer, work.layer, kernel)
    }

    pub(super) fn add(&mut self, nanoseconds: u64, work: &Work, parts: &[(usize, Duration)]) {
        self.calls += 1;
        self.seconds += nanoseconds as f64 * 1e-9;
        self.flop += work.flop;
        self.bytes += work.bytes;
        self.touched = self.touched.max(work.touched);
        let mut of_thread: Vec<(usize, f64)> = Vec::new();
        for &(thread, time) in parts {
            match of_thread.iter_mut().find(|(other, _)| *other == thread) {
                Some((_, seconds)) => *seconds += time.as_secs_f64(),
                None => of_thread.push((thread, time.as_secs_f64())),
            }
        }
        let longest = of_thread.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
        self.busy_seconds += of_thread.iter().map(|(_, seconds)| *seconds).sum::<f64>();
        // There is a part for each thread. One that took another's as well left that one idle.
        self.longest_seconds += longest * parts.len() as f64;
        self.threads = self.threads.max(of_thread.len());
    }
}

/// What bounds a phase.
///
/// Its products alone would take FLOP / peak, and its bytes alone bytes / bandwidth of the level that holds what a call
/// touches. The larger of the two bounds it if it explains at least half of the time; otherwise overhead does: latencies,
/// edges of tiles, copies, arithmetic that is not counted as FLOP, waiting for threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Bound {
    /// The FMA units.
    Compute,
    /// Reading from the first-level cache.
    L1,
    /// Reading from the second-level cache.
    L2,
    /// Reading from the third-level cache.
    L3,
    /// Reading from memory.
    Memory,
    /// Neither.
    Overhead,
}

impl Bound {
    fn by(level: &Level) -> Bound {
        match level.name {
            "L1" => Bound::L1,
            "L2" => Bound::L2,
            "L3" => Bound::L3,
            _ => Bound::Memory,
        }
    }

    /// Its name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Compute => "compute",
            Bound::L1 => "L1",
            Bound::L2 => "L2",
            Bound::L3 => "L3",
            Bound::Memory => "memory",
            Bound::Overhead => "overhead",
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A line of the table: a phase of a layer, per time that it ran. What needs something that could not be measured is
/// `None`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Entry {
    /// The layer, from 0; `None` for what belongs to the network.
    pub layer: Option<usize>,
    /// The layer's inputs.
    pub inputs: Option<usize>,
    /// The layer's outputs.
    pub outputs: Option<usize>,
    /// The phase.
    pub phase: Phase,
    /// The instruction set, if the phase is a product.
    pub isa: Option<&'static str>,
    /// Instruction set and tile, such as `avx512 12x32`.
    pub kernel: Option<String>,
    /// Threads that took part, at most.
    pub threads: usize,
    /// How often the phase ran.
    pub calls: u64,
    /// Seconds each time.
    pub seconds: f64,
    /// Core cycles each time: seconds by the clock of the core.
    pub cycles: Option<f64>,
    /// FLOP of products each time.
    pub flop: f64,
    /// FLOP in a cycle of one core.
    pub flop_per_cycle: Option<f64>,
    /// FLOP in a second, as a share of the FMA peak of the threads that took part.
    pub peak_share: Option<f64>,
    /// Bytes of operands each time.
    pub bytes: f64,
    /// Bytes in a second of one core.
    pub bytes_per_second: f64,
    /// The same as a share of what one core reads from where the operands come from.
    pub bandwidth_share: Option<f64>,
    /// What bounds it.
    pub bound: Option<Bound>,
    /// Its share of the seconds of all calls.
    pub share: f64,
    /// The share of the phase in which the threads that took part worked, if there were several.
    pub busy: Option<f64>,
    /// By how much the thread that worked longest exceeds the mean over all that could have, if there were several.
    pub imbalance: Option<f64>,
}

impl Report {
    pub(super) fn new(machine: Machine, calls: u64, nanoseconds: u64, rows: Vec<Row>) -> Report {
        let mut of_layer: Vec<(Option<usize>, u64)> = Vec::new();
        for row in &rows {
            match of_layer.iter_mut().find(|(layer, _)| *layer == row.layer) {
                Some((_, most)) => *most = row.touched.max(*most),
                None => of_layer.push((row.layer, row.touched)),
            }
        }
        let footprint = of_layer.iter().map(|(_, most)| most).sum();
        Report { machine, calls, seconds: nanoseconds as f64 * 1e-9, footprint, rows }
    }

    /// Where operands are taken to come from: the nearest level that holds what a call touches.
    pub fn level(&self) -> Option<&Level> {
        self.machine.level_of(self.footprint)
    }

    /// A line for each phase of each layer, by layer, and one for the time that no phase took. None without calls.
    pub fn entries(&self) -> Vec<Entry> {
        if self.calls == 0 {
            return Vec::new();
        }
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        // What belongs to the network comes last.
        rows.sort_by_key(|row| (row.layer.unwrap_or(usize::MAX), row.phase as u8));
        let named: f64 = rows.iter().map(|row| row.seconds).sum();
        let other = Row {
            calls: self.calls,
            seconds: (self.seconds - named).max(0.0),
            ..Row::new(Phase::Other, None, &Work::default(), None)
        };
        rows.into_iter().chain([&other]).map(|row| self.entry(row)).collect()
    }

    fn entry(&self, row: &Row) -> Entry {
        let (calls, threads) = (row.calls.max(1) as f64, row.threads as f64);
        let (flop, bytes) = (row.flop as f64 / calls, row.bytes as f64 / calls);
        let seconds = row.seconds / calls;
        let per_core = |work: f64| if seconds > 0.0 { work / seconds / threads } else { 0.0 };
        let clock = self.machine.clock.map(|clock| clock.hertz);
        let peak = row.kernel.and_then(|kernel| self.machine.peak(kernel.isa));
        let level = self.level();
        let peak_share = peak.filter(|_| row.flop > 0).map(|peak| per_core(flop) / peak);
        let bandwidth_share =
            level.filter(|_| row.bytes > 0).map(|level| per_core(bytes) / level.bytes_per_second);
        let shared = row.busy_seconds > 0.0 && row.threads > 1;
        Entry {
            layer: row.layer,
            inputs: row.shape.map(|shape| shape.0),
            outputs: row.shape.map(|shape| shape.1),
            phase: row.phase,
            isa: row.kernel.map(|kernel| kernel.isa.name()),
            kernel: row.kernel.map(|kernel| kernel.to_string()),
            threads: row.threads,
            calls: row.calls,
            seconds,
            cycles: clock.map(|hertz| seconds * hertz),
            flop,
            flop_per_cycle: clock.filter(|_| row.flop > 0).map(|hertz| per_core(flop) / hertz),
            peak_share,
            bytes,
            bytes_per_second: per_core(bytes),
            bandwidth_share,
            bound: bound(row, peak_share, level.zip(bandwidth_share)),
            share: if self.seconds > 0.0 { row.seconds / self.seconds } else { 0.0 },
            busy: shared.then(|| row.busy_seconds / (row.seconds * threads)),
            imbalance: shared.then(|| row.longest_seconds / row.busy_seconds - 1.0),
        }
    }
}

/// See [`Bound`]. A share of a peak is also the share of the time that the peak would take.
fn bound(row: &Row, compute: Option<f64>, data: Option<(&Level, f64)>) -> Option<Bound> {
    let compute = if row.flop == 0 { Some(0.0) } else { compute };
    let explained = compute.unwrap_or(0.0).max(data.map_or(0.0, |(_, share)| share));
    match (compute, data) {
        (Some(share), _) if share >= EXPLAINS && share >= explained => Some(Bound::Compute),
        (_, Some((level, share))) if share >= EXPLAINS && share >= explained => Some(Bound::by(level)),
        (Some(_), Some(_)) => Some(Bound::Overhead),
        _ => None,
    }
}

impl Serialize for Report {
    /// What `docs/profile.schema.json` describes.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut document = serializer.serialize_struct("Report", 7)?;
        document.serialize_field("build", &crate::build_info().to_string())?;
        document.serialize_field("machine", &self.machine)?;
        document.serialize_field("calls", &self.calls)?;
        document.serialize_field("seconds", &self.seconds)?;
        document.serialize_field("footprint", &self.footprint)?;
        document.serialize_field("level", &self.level().map(|level| level.name))?;
        document.serialize_field("entries", &self.entries())?;
        document.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_were_left_idle_count() {
        let part = |thread, seconds| (thread, Duration::from_secs(seconds));
        let mut row = Row::new(Phase::Forward, Some(0), &Work::default(), None);
        let report = |row: &Row| {
            let entry =
                Report::new(Machine::unknown(), 1, 8_000_000_000, vec![row.clone()]).entries().swap_remove(0);
            (entry.threads, entry.busy, entry.imbalance)
        };
        row.add(4_000_000_000, &Work::default(), &[part(0, 4), part(1, 2)]);
        // Of two threads in 4 seconds, 6 seconds of work; the longest 4 over 3.
        assert_eq!(report(&row), (2, Some(0.75), Some(4.0 / 3.0 - 1.0)));
        row.add(4_000_000_000, &Work::default(), &[part(0, 2), part(0, 2)]);
        // One did both parts: its 4 seconds are twice the mean.
        assert_eq!(report(&row), (2, Some(10.0 / 16.0), Some(16.0 / 10.0 - 1.0)));
    }
}
