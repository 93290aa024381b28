//! The other denominator: how many bytes one core reads in a second from where they lie.

use std::hint::black_box;
use std::time::Instant;

use crate::buffer::Buffer;
use crate::error::Result;
use crate::matrix::resize;
use crate::simd::{Body, Isa, Simd};

/// Chains that run side by side: more than latency times units of any core.
const CHAINS: usize = 8;
/// Bytes that are read in a round, at least: long against reading the time.
const BYTES_PER_ROUND: usize = 16 << 20;
/// Rounds, of which the fastest counts.
const ROUNDS: usize = 5;

/// Bytes per second that one core reads from a buffer of `bytes` bytes (rounded up to whole KiB) again and again,
/// measured now: from the smallest cache that holds it, or from memory.
///
/// # Errors
/// [`Error::TooLarge`](crate::Error::TooLarge) when there is no memory for the buffer.
///
/// ```
/// use percycle::{Isa, profile::read_bandwidth};
///
/// let from_l1 = read_bandwidth(Isa::current(), 16 << 10)?;
/// assert!(from_l1 > 1e8);
/// # Ok::<(), percycle::Error>(())
/// ```
pub fn read_bandwidth(isa: Isa, bytes: usize) -> Result<f64> {
    let values = bytes.div_ceil(1024).max(1).saturating_mul(256);
    let mut buffer = Buffer::default();
    resize("read_bandwidth", &mut buffer, 1, values)?;
    let passes = (BYTES_PER_ROUND / (4 * values)).max(1);
    let mut best = 0.0_f64;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        black_box(isa.dispatch(Read { values: black_box(&buffer[..]), passes }));
        best = best.max((4 * values * passes) as f64 / start.elapsed().as_secs_f64());
    }
    Ok(best)
}

struct Read<'a> {
    values: &'a [f32],
    passes: usize,
}

impl Body for Read<'_> {
    type Out = f32;

    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    fn call<S: Simd>(self, s: S) -> f32 {
        let mut all = [s.splat(0.0); CHAINS];
        for _ in 0..self.passes {
            for chunk in black_box(self.values).chunks_exact(CHAINS * S::LANES) {
                for c in 0..CHAINS {
                    // SAFETY: the chunk holds a vector for each chain.
                    all[c] = s.or(all[c], unsafe { s.load(chunk.as_ptr().add(c * S::LANES)) });
                }
            }
        }
        for c in 1..CHAINS {
            all[0] = s.or(all[0], all[c]);
        }
        let mut lane = 0.0;
        // SAFETY: one lane of the mask is true, and `lane` is one value.
        unsafe { s.store_first(&mut lane, s.first(1), all[0]) };
        lane
    }
}
