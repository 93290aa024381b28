//! Sums and questions over slices. The order of every sum is fixed: neither vector width nor threads change a
//! bit.

use std::sync::atomic::{AtomicU32, Ordering};

use super::parallel;
use super::tile::{Columns, PANEL};
use super::vector::{lanes, load_up_to, read, store_up_to};
use crate::matrix::MatRef;
use crate::simd::{Body, Isa, Simd};

struct ColumnSums<'a> {
    rows: MatRef<'a>,
    sums: &'a mut [f32],
}

impl Body for ColumnSums<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let ColumnSums { rows, sums } = self;
        let in_place = Columns { ptr: rows.as_ptr(), k: rows.row_stride() as isize, panel: PANEL as isize };
        // SAFETY: the rows of a matrix are as long as there are sums, and its columns lie side by side: `add_rows` has checked both.
        unsafe { add_columns::<S, false>(s, in_place, (rows.rows(), sums.len()), sums.as_mut_ptr()) };
    }
}

/// Adds `k` rows of B in ascending order to the sums of its `cols` columns; `FRESH` ones begin at 0. Vectors of columns go side by side, because an
/// addition takes some cycles.
///
/// # Safety
/// B holds these rows and columns, and there is a sum for each of the columns; if they are `FRESH`, there is room for whole vectors.
#[inline(always)]
pub(super) unsafe fn add_columns<S: Simd, const FRESH: bool>(
    s: S,
    b: Columns,
    (k, cols): (usize, usize),
    sums: *mut f32,
) {
    let mut j = 0;
    macro_rules! vectors {
        ($n:literal) => {{
            let (from, mut sum) = (b.at(j), [s.splat(0.0); $n]);
            let (to, left) = (|v| sums.wrapping_add(j + v * S::LANES), |v| cols - j - v * S::LANES);
            // SAFETY: the caller's; some columns of each vector exist.
            unsafe {
                if !FRESH {
                    for (v, sum) in sum.iter_mut().enumerate() {
                        *sum = load_up_to(s, to(v), left(v));
                    }
                }
                for p in 0..k as isize {
                    for (v, sum) in sum.iter_mut().enumerate() {
                        let at = from.wrapping_offset(p * b.k).wrapping_add(v * S::LANES);
                        *sum = s.add(*sum, load_up_to(s, at, left(v)));
                    }
                }
                for (v, sum) in sum.into_iter().enumerate() {
                    store_up_to(s, to(v), if FRESH { S::LANES } else { left(v) }, sum);
                }
            }
            j += $n * S::LANES;
        }};
    }
    while j < cols {
        match (cols - j).div_ceil(S::LANES) {
            4.. if b.panel == PANEL as isize => vectors!(4),
            2.. => vectors!(2), // So many lie in a panel.
            _ => vectors!(1),
        }
    }
}

/// Adds the rows of a matrix, which are contiguous, to `sums`, one value for each column, in ascending order of the rows.
pub(crate) fn add_rows(isa: Isa, rows: MatRef, sums: &mut [f32]) {
    assert!(rows.col_stride() == 1 && rows.cols() == sums.len(), "the matrix was checked");
    isa.dispatch(ColumnSums { rows, sums });
}

struct Most<'a>(&'a [f32]);

impl Body for Most<'_> {
    type Out = f32;

    #[inline(always)]
    fn call<S: Simd>(self, s: S) -> f32 {
        // As in `largest`.
        let sign = s.splat_bits(0x7fff_ffff);
        // Four of them, so that no vector waits for the one before.
        let mut most = [s.splat(0.0); 4];
        let mut chunks = self.0.chunks_exact(4 * S::LANES);
        for chunk in &mut chunks {
            for (c, most) in most.iter_mut().enumerate() {
                *most = s.max_int(*most, s.and(read(s, chunk, c * S::LANES), sign));
            }
        }
        let (rest, mut i) = (chunks.remainder(), 0);
        while i < rest.len() {
            most[0] = s.max_int(most[0], s.and(read(s, rest, i), sign));
            i += S::LANES;
        }
        let most = s.max_int(s.max_int(most[0], most[1]), s.max_int(most[2], most[3]));
        largest(&lanes(s, most)[..S::LANES])
    }
}

/// The largest absolute value, 0 without any; infinite when an element is infinite or NaN.
pub(crate) fn most(isa: Isa, xs: &[f32]) -> f32 {
    /// Values that are looked at sooner one by one.
    const FEW: usize = 8;
    /// Cycles to look at one that comes from L2.
    const LOOK: f64 = 0.15;
    if xs.len() <= FEW {
        return largest(xs);
    }
    // Without their signs, numbers are in the order of their bits.
    let most = AtomicU32::new(0);
    parallel::spans(xs.len(), LOOK, &|span| {
        most.fetch_max(isa.dispatch(Most(&xs[span])).to_bits(), Ordering::Relaxed);
    });
    f32::from_bits(most.into_inner())
}

/// [`most`], one by one. (As integers, since without their signs numbers are in the order of their bits, and infinity and NaN
/// come last.)
#[inline(always)]
fn largest(xs: &[f32]) -> f32 {
    let most = xs.iter().map(|x| x.abs().to_bits()).fold(0, u32::max);
    f32::from_bits(most.min(f32::INFINITY.to_bits()))
}

/// True when no element is infinite or NaN.
pub(crate) fn all_finite(isa: Isa, xs: &[f32]) -> bool {
    most(isa, xs) < f32::INFINITY
}

/// `total` and the sum of the terms of all samples, each of which has `width`, in f64: over the terms of a sample in ascending
/// order, then over the samples.
pub(crate) fn sum_of_samples(mut total: f64, terms: &[f32], width: usize) -> f64 {
    /// Samples whose sums are made side by side: an addition takes some cycles, and the next could begin in each.
    const SAMPLES: usize = 8;
    let mut samples = terms.chunks_exact(SAMPLES * width);
    for terms in &mut samples {
        let mut sums = [0.0; SAMPLES];
        for o in 0..width {
            for (sample, sum) in sums.iter_mut().enumerate() {
                *sum += f64::from(terms[sample * width + o]);
            }
        }
        for sum in sums {
            total += sum;
        }
    }
    for terms in samples.remainder().chunks_exact(width) {
        let mut sum = 0.0;
        for &term in terms {
            sum += f64::from(term);
        }
        total += sum;
    }
    total
}

struct SumOfSquares<'a> {
    xs: &'a [f32],
    scale: f32,
}

impl Body for SumOfSquares<'_> {
    type Out = f64;

    #[inline(always)]
    fn call<S: Simd>(self, _: S) -> f64 {
        // Eight running sums, whatever the vectors: element i belongs to sum i % 8. A square of an f32 is
        // exact in f64.
        let mut sums = [0.0f64; 8];
        let mut chunks = self.xs.chunks_exact(8);
        for chunk in &mut chunks {
            for i in 0..8 {
                let x = f64::from(chunk[i] * self.scale);
                sums[i] += x * x;
            }
        }
        for (sum, x) in sums.iter_mut().zip(chunks.remainder()) {
            let x = f64::from(x * self.scale);
            *sum += x * x;
        }
        let mut total = 0.0;
        for sum in sums {
            total += sum;
        }
        total
    }
}

/// The sum of the squares of `scale * x`, in f64: eight interleaved sums, added in ascending order at the
/// end.
pub(crate) fn sum_of_squares(isa: Isa, xs: &[f32], scale: f32) -> f64 {
    isa.dispatch(SumOfSquares { xs, scale })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers whose sums depend on the order in which they are added.
    fn numbers(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 % 1009) as f32 - 504.0) / 63.0).collect()
    }

    /// The order of the sums shows in the last bits of an f64, which a clipped gradient, an f32, hardly ever sees.
    #[test]
    fn squares_are_summed_in_eight_turns() {
        for len in (0..40).chain([1000, 1003]) {
            let xs = numbers(len);
            let mut turns = [0.0; 8];
            for (i, x) in xs.iter().enumerate() {
                turns[i % 8] += f64::from(x * 0.3).powi(2);
            }
            let want = turns.iter().fold(0.0, |sum, turn| sum + turn);
            for isa in Isa::available() {
                assert_eq!(sum_of_squares(isa, &xs, 0.3).to_bits(), want.to_bits(), "{len} on {isa}");
            }
        }
    }

    #[test]
    fn the_largest_is_found_wherever_it_stands() {
        for isa in Isa::available() {
            assert_eq!(most(isa, &[]), 0.0);
            for len in [1, 7, 8, 17, 64, 65, 130] {
                for at in 0..len {
                    let mut xs = numbers(len);
                    xs[at] = -9.0;
                    assert_eq!(most(isa, &xs), 9.0, "{at} of {len} on {isa}");
                    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                        xs[at] = bad;
                        assert!(!all_finite(isa, &xs), "{at} of {len} is {bad} on {isa}");
                    }
                }
            }
        }
    }
}
