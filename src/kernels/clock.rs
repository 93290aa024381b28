//! How fast the core's clock runs, measured by chains of dependent instructions. The counter that x86 calls its time
//! stamp is no help: it ticks at a fixed rate, whatever the core does.

use std::time::Instant;

use crate::simd::chain::{Link, run};

/// Instructions in a chain: some 30 microseconds.
const STEPS: u64 = 100_000;
/// Rounds, of which the fastest counts: whatever interrupts a chain can only make it slower.
const ROUNDS: usize = 16;
/// How far the two methods may be apart. More means that a latency is not what it is taken for: an emulator, or a core
/// of another kind.
const TOLERANCE: f64 = 0.05;

/// The core clock by two methods, in hertz.
#[derive(Clone, Copy)]
pub(crate) struct CoreClock {
    /// By dependent additions.
    pub hertz: f64,
    /// By dependent multiplications, where their latency is known.
    pub second: Option<f64>,
}

/// The clock of this core now, or `None` where it cannot be measured or two methods contradict each other. Takes about
/// 2 ms.
pub(crate) fn core_clock() -> Option<CoreClock> {
    let (mut hertz, mut second) = (0.0_f64, None::<f64>);
    for _ in 0..ROUNDS {
        hertz = hertz.max(timed(Link::Add)?);
        second = timed(Link::Multiply).map(|now| second.map_or(now, |best| best.max(now)));
    }
    agreed(hertz, second)
}

/// The clock, unless a second method contradicts it.
fn agreed(hertz: f64, second: Option<f64>) -> Option<CoreClock> {
    let agree = second.is_none_or(|second| (second / hertz - 1.0).abs() <= TOLERANCE);
    agree.then_some(CoreClock { hertz, second })
}

fn timed(link: Link) -> Option<f64> {
    let start = Instant::now();
    let cycles = run(link, STEPS)?;
    Some(cycles as f64 / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_a_second_method_contradicts_is_not_stated() {
        assert_eq!(agreed(3e9, Some(2.98e9)).map(|clock| clock.hertz), Some(3e9));
        assert!(agreed(3e9, None).is_some());
        // A multiplication that takes 4 cycles, not 3.
        assert!(agreed(3e9, Some(2.25e9)).is_none());
    }
}
