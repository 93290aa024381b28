//! Which tiles cover a block of C.

use super::shapes::Fill;
use crate::buffer::{LINE, PAGE};
use crate::simd::Simd;

/// Rows of A that lie a multiple of half a page apart compete for one or two sets of L1: a tile reads no more of them than
/// the set has ways.
const WAYS: usize = 8;
const HALF_PAGE: isize = PAGE as isize / 2;

/// Steps of k up to which reading and writing C takes longer than the multiply-adds, with vectors that are lines and B in place;
/// in panels, twice as many.
const FEW: usize = 4;

/// Tiles on top of each other. They are equally high, but for one row that the first of them have more: a last one with
/// what is left would be too low to hide the latency of its chains.
#[derive(Clone, Copy)]
pub(super) struct Stack {
    pub tiles: usize,
    /// Rows of a tile.
    pub low: usize,
    /// How many tiles have one row more.
    pub higher: usize,
    /// Vectors in a row of a tile: 2, 4, 8, of which the last columns need not fill all; or 3.
    pub vectors: usize,
    /// Whether the last vector ends with the last column, so that all are whole. B is read in place.
    ends: bool,
}

/// The stacks that cover a block of C, next to each other.
#[derive(Clone, Copy)]
pub(super) struct Cover {
    n: usize,
    stack: Stack,
    /// Tiles of three vectors, where they do better.
    three: Option<Stack>,
}

impl Cover {
    /// Of an `m` x `n` block with `k` steps, rows of A `a_row` apart and B in place or in panels.
    #[inline(always)]
    pub(super) fn of<S: Simd>((m, n, k): (usize, usize, usize), a_row: isize, b_in_place: bool) -> Cover {
        // With few steps of k it is C that takes the time: low tiles write it in long pieces of few rows, if few columns are left over.
        let few = k <= if b_in_place { FEW } else { 2 * FEW };
        let low_and_wide = S::LANES == LINE && few && n % (8 * S::LANES) <= n / 3;
        let most = if low_and_wide { S::TILE_ROWS / 4 } else { rows_for::<S>(n, a_row) };
        // For as many multiply-adds as tiles of two vectors they read 8 values of A and not 12. Not where one tile of two would
        // read B only once, nor, but for a few rows, where a row of a tile would end within a line.
        let high = S::TILE_ROWS * 2 / 3;
        let rows = (m > high / 2 && m <= high) || m > S::TILE_ROWS;
        let lines = (3 * S::LANES).is_multiple_of(LINE) || m <= 2 * high;
        let three = b_in_place && rows && lines && !low_and_wide;
        Cover {
            n,
            // Masks of 32 registers' instruction set cost nothing.
            stack: Stack { ends: b_in_place && S::TILE_ROWS <= 6, ..Stack::of::<S>(m, most) },
            three: three.then(|| Stack { vectors: 3, ends: true, ..Stack::of::<S>(m, high) }),
        }
    }

    /// The stack for the first of the last `n` columns.
    #[inline(always)]
    pub(super) fn stack<S: Simd>(&self, n: usize) -> Stack {
        let three = n > 2 * S::LANES && n <= 3 * S::LANES;
        // Or what is left over is two or three whole ones, or what there is to the right of them.
        let three = three || (n > 4 * S::LANES && self.stack.vectors == 2);
        match self.three {
            Some(stack) if three => stack,
            _ if self.stack.lacks_room_for_masks::<S>(n) => Stack { vectors: 2, ..self.stack },
            _ => self.stack,
        }
    }

    /// Rows and columns of the largest tile.
    pub(super) fn tile<S: Simd>(&self) -> (usize, usize) {
        let Stack { low, higher, vectors, .. } = self.stack::<S>(self.n);
        (low + usize::from(higher > 0), vectors.min(self.n.div_ceil(S::LANES).next_power_of_two()) * S::LANES)
    }
}

impl Stack {
    /// The vectors of a kernel for the first of the last `n` columns, and how these fill them.
    #[inline(always)]
    pub(super) fn columns<S: Simd>(&self, n: usize) -> (usize, Fill) {
        if n >= self.vectors * S::LANES {
            return (self.vectors, Fill::Whole);
        }
        let vectors = n.div_ceil(S::LANES);
        if self.ends && n >= S::LANES && (vectors == self.vectors || vectors.is_power_of_two()) {
            return (vectors, Fill::of::<S>(n, vectors));
        }
        match vectors.next_power_of_two() {
            vectors if n == vectors * S::LANES => (vectors, Fill::Whole),
            vectors => (vectors, Fill::Masked),
        }
    }

    /// Whether the sums of three rows of four vectors, of which `n` columns do not fill the last, leave no registers for masks: with 16
    /// of them, two whole vectors and then the others take a third less time.
    #[inline(always)]
    fn lacks_room_for_masks<S: Simd>(&self, n: usize) -> bool {
        let sums = self.vectors * (self.low + usize::from(self.higher > 0));
        let masked = !self.ends && n > 2 * S::LANES && n < 4 * S::LANES;
        S::TILE_ROWS <= 6 && self.vectors == 4 && sums == 2 * S::TILE_ROWS && masked
    }

    /// Of `m` rows, in tiles of up to `most`.
    #[inline(always)]
    fn of<S: Simd>(m: usize, most: usize) -> Stack {
        let tiles = m.div_ceil(most);
        let (low, higher) = if tiles == 1 { (m, 0) } else { (m / tiles, m % tiles) };
        Stack { tiles, low, higher, vectors: vectors_for::<S>(low + usize::from(higher > 0)), ends: false }
    }
}

/// The most rows of a tile for `n` columns, with rows of A `a_row` apart: of a single vector there are twice as many.
#[inline(always)]
pub(super) fn rows_for<S: Simd>(n: usize, a_row: isize) -> usize {
    if n > S::LANES {
        S::TILE_ROWS
    } else if a_row % HALF_PAGE == 0 {
        WAYS
    } else {
        2 * S::TILE_ROWS
    }
}

/// Vectors in a row of the tile for `rows` rows: as many accumulators as the full tile has, so that short tiles still
/// hide the latency of the FMA unit.
#[inline(always)]
fn vectors_for<S: Simd>(rows: usize) -> usize {
    let accumulators = 2 * S::TILE_ROWS;
    if rows * 8 <= accumulators {
        8
    } else if rows * 4 <= accumulators {
        4
    } else {
        2
    }
}
