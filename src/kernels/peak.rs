//! The denominator of every percentage: how many FLOP the FMA units of one core do in a second, measured.

use std::hint::black_box;
use std::time::Instant;

use crate::simd::{Body, Isa, Simd};

/// Chains that run side by side: more than latency times units of any core (4 x 2), as many as fit 16 registers.
const CHAINS: usize = 12;
const STEPS: usize = 20_000;

/// FLOP per second of one core, measured now by chains of fused multiply-adds in registers: 2 for each lane.
///
/// It takes about 0.1 ms. Clocks drift and machines are shared: measure it in the same rounds as what is held against
/// it, and take medians.
///
/// ```
/// let peak = percycle::fma_peak(percycle::Isa::current());
/// assert!(peak > 1e8);
/// ```
pub fn fma_peak(isa: Isa) -> f64 {
    let start = Instant::now();
    black_box(isa.dispatch(Chains { factor: black_box(0.5) }));
    let flops = (2 * CHAINS * STEPS * isa.lanes()) as f64;
    flops / start.elapsed().as_secs_f64()
}

struct Chains {
    factor: f32,
}

impl Body for Chains {
    type Out = f32;

    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    fn call<S: Simd>(self, s: S) -> f32 {
        let factor = s.splat(self.factor);
        let mut acc = [factor; CHAINS];
        for c in 0..CHAINS {
            acc[c] = s.splat(self.factor + c as f32);
        }
        for _ in 0..STEPS {
            for c in 0..CHAINS {
                acc[c] = s.fma(acc[c], factor, factor);
            }
        }
        let mut sum = acc[0];
        for c in 1..CHAINS {
            sum = s.add(sum, acc[c]);
        }
        let mut lane = 0.0;
        // SAFETY: one lane of the mask is true, and `lane` is one value.
        unsafe { s.store_first(&mut lane, s.first(1), sum) };
        lane
    }
}
