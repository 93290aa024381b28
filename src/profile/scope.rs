//! Recording: calls and phases, timed on the thread that makes them.

use std::cell::RefCell;
use std::fmt;
use std::time::Instant;

use serde::Serialize;

use super::machine::{levels, peak};
use super::report::{Report, Row};
use super::{Clock, Machine, Work};
use crate::kernels::{Kernel, meter};
use crate::simd::Isa;

/// What a layer, or the network, is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// `Y = act(X W + b)`.
    Forward,
    /// The loss and its derivative by what the last layer puts out before its activation.
    Loss,
    /// dX: the derivative of the loss by what the layer below puts out before its activation.
    Delta,
    /// dW and db, used up for the update where they are made.
    Descend,
    /// dW and db, stored: for `accumulate`, or when the norm of all gradients must be known first.
    Gradient,
    /// The update by stored gradients.
    Update,
    /// Samples and targets looked at before anything is computed, and the proof that the update stays finite.
    Checks,
    /// What none of the phases took.
    Other,
}

impl Phase {
    /// Its name in a table: `"forward"`, `"dX"`, `"dW+db+update"`, ..
    pub fn name(self) -> &'static str {
        match self {
            Phase::Forward => "forward",
            Phase::Loss => "loss",
            Phase::Delta => "dX",
            Phase::Descend => "dW+db+update",
            Phase::Gradient => "dW+db",
            Phase::Update => "update",
            Phase::Checks => "checks",
            Phase::Other => "other",
        }
    }

    #[cfg(feature = "tracing")]
    fn span(self, layer: Option<usize>) -> tracing::Span {
        macro_rules! span {
            ($name:literal) => {
                tracing::debug_span!($name, layer)
            };
        }
        match self {
            Phase::Forward => span!("forward"),
            Phase::Loss => span!("loss"),
            Phase::Delta => span!("dX"),
            Phase::Descend => span!("dW+db+update"),
            Phase::Gradient => span!("dW+db"),
            Phase::Update => span!("update"),
            Phase::Checks => span!("checks"),
            Phase::Other => span!("other"),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What is known so far.
#[derive(Default)]
struct Recorder {
    calls: u64,
    nanoseconds: u64,
    rows: Vec<Row>,
    /// The row after the last one that grew. Steps are alike, so that it is mostly the next one to grow, and the others
    /// need not be fetched from a cache that the products have filled with something else.
    next: usize,
}

thread_local! {
    static RECORDER: RefCell<Recorder> = RefCell::default();
}

/// Runs `f` and reports where the cycles of its steps, evaluations and predictions went: those that this thread calls.
/// (`pool.install(..)` goes around `record`, not into it.)
///
/// The clock is measured before and after, peaks and bandwidths after it: some 30 ms in all.
///
/// See [the module](crate::profile) for an example.
pub fn record<R>(f: impl FnOnce() -> R) -> (R, Report) {
    let ((result, Recorder { calls, nanoseconds, rows, .. }), clock) = Clock::during(|| watched(f));
    let mut report = Report::new(Machine { clock, ..Machine::unknown() }, calls, nanoseconds, rows);
    let mut isas: Vec<Isa> = Vec::new();
    for row in &report.rows {
        if let Some(kernel) = row.kernel
            && !isas.contains(&kernel.isa)
        {
            isas.push(kernel.isa);
        }
    }
    report.machine.peaks = isas.iter().map(|&isa| peak(isa)).collect();
    if let Some(&isa) = isas.first() {
        report.machine.levels = levels(isa, report.footprint);
    }
    (result, report)
}

/// Runs `f` and says which kernel it ran on, the last one if there were several; `None` if it made no product on
/// this thread.
pub fn kernel_of<R>(f: impl FnOnce() -> R) -> (R, Option<Kernel>) {
    let (result, recorder) = watched(f);
    let of_phases = || recorder.rows.iter().rev().find_map(|row| row.kernel);
    (result, meter::take().kernel.or_else(of_phases))
}

/// Runs `f` while this thread is watched, with a recorder of its own.
fn watched<R>(f: impl FnOnce() -> R) -> (R, Recorder) {
    let _watch = Watch::begin();
    (f(), RECORDER.take())
}

/// Watches the thread as long as it lives, even through a panic. A recorder that was at work before goes on afterwards.
struct Watch {
    before: bool,
    outer: Recorder,
}

impl Watch {
    fn begin() -> Watch {
        meter::take();
        Watch { before: meter::watch(true), outer: RECORDER.take() }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        meter::watch(self.before);
        RECORDER.set(std::mem::take(&mut self.outer));
    }
}

/// A call that a user made: a step, a prediction. It ends when this is dropped.
pub(crate) struct Call {
    start: Option<Instant>,
    #[cfg(feature = "tracing")]
    _span: tracing::span::EnteredSpan,
}

/// Begins a call.
#[inline]
pub(crate) fn call(op: &'static str) -> Call {
    #[cfg(not(feature = "tracing"))]
    let _ = op;
    Call {
        #[cfg(feature = "tracing")]
        _span: tracing::debug_span!("call", op).entered(),
        start: now(),
    }
}

impl Drop for Call {
    #[inline]
    fn drop(&mut self) {
        if let Some(start) = self.start {
            let nanoseconds = nanoseconds_since(start);
            RECORDER.with_borrow_mut(|recorder| {
                recorder.calls += 1;
                recorder.nanoseconds += nanoseconds;
            });
        }
    }
}

/// A phase of a call.
pub(crate) struct Scope {
    phase: Phase,
    layer: Option<usize>,
    start: Option<Instant>,
    #[cfg(feature = "tracing")]
    _span: tracing::span::EnteredSpan,
}

/// Begins a phase.
#[inline]
pub(crate) fn enter(phase: Phase, layer: Option<usize>) -> Scope {
    Scope {
        phase,
        layer,
        #[cfg(feature = "tracing")]
        _span: phase.span(layer).entered(),
        start: now(),
    }
}

impl Scope {
    /// Ends the phase. What it had to do is worked out only for a recorder.
    #[inline]
    pub(crate) fn leave(self, work: impl FnOnce() -> Work) {
        if let Some(start) = self.start {
            self.record(nanoseconds_since(start), work());
        }
    }

    #[cold]
    fn record(self, nanoseconds: u64, work: Work) {
        let notes = meter::take();
        RECORDER.with_borrow_mut(|recorder| {
            let Recorder { rows, next, .. } = recorder;
            let is_row = |row: &Row| row.is(self.phase, self.layer, &work, notes.kernel);
            let (before, from_next) = rows.split_at(*next);
            let at = match from_next.iter().position(is_row) {
                Some(at) => *next + at,
                None => before.iter().position(is_row).unwrap_or_else(|| {
                    rows.push(Row::new(self.phase, self.layer, &work, notes.kernel));
                    rows.len() - 1
                }),
            };
            *next = at + 1;
            let row = &mut rows[at];
            row.add(nanoseconds, &work, &notes.parts);
        });
    }
}

#[inline]
fn now() -> Option<Instant> {
    meter::watched().then(Instant::now)
}

fn nanoseconds_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
