//! Sharing a product among the threads of the pool that the caller stands in.
//!
//! Threads split C, never a sum over k: how many there are cannot change a bit.

use super::gemm::{Product, Serial};
use super::meter;
use crate::simd::Isa;

/// Multiply-adds that a thread must have to itself before waking it pays: some 50 microseconds of work.
#[cfg(feature = "rayon")]
const WORK_PER_THREAD: usize = 1 << 20;

/// Runs a product, on the calling thread alone when it is too small to gain from more.
///
/// # Safety
/// The operands of the product are valid for its dimensions, and C overlaps neither A nor B.
pub(super) unsafe fn run(isa: Isa, product: Product) {
    if product.m == 0 || product.n == 0 {
        return;
    }
    #[cfg(feature = "rayon")]
    {
        let work = product.m.saturating_mul(product.n).saturating_mul(product.k);
        // The size of the pool is asked for only when it matters: asking starts rayon's global pool.
        if work >= 2 * WORK_PER_THREAD {
            let threads = rayon::current_num_threads().min(work / WORK_PER_THREAD);
            if threads > 1 {
                return split(isa, product, threads);
            }
        }
    }
    if meter::watched() {
        meter::note_kernel(isa, &product);
    }
    isa.dispatch(Serial(&product));
}

/// Splits C into about `threads` parts of whole tiles, along its longer side, and runs them on the pool.
#[cfg(feature = "rayon")]
#[inline(never)]
fn split(isa: Isa, product: Product, threads: usize) {
    use std::time::Instant;

    use rayon::prelude::*;

    /// Rows of a part are multiples of this: no part but the last ends in a short tile.
    const ROWS: usize = 12;
    use super::tile::PANEL;

    let (m, n) = (product.m, product.n);
    let (rows, cols) = if m >= n {
        (m.div_ceil(threads).next_multiple_of(ROWS).min(m), n)
    } else {
        (m, n.div_ceil(threads).next_multiple_of(PANEL).min(n))
    };
    let across = n.div_ceil(cols);
    let part = |part: usize| {
        let (row, col) = (part / across * rows, part % across * cols);
        product.part((row, rows.min(m - row)), (col, cols.min(n - col)))
    };
    let parts = 0..m.div_ceil(rows) * across;
    if meter::watched() {
        meter::note_kernel(isa, &part(0));
        let times = parts.into_par_iter().map(|number| {
            let start = Instant::now();
            isa.dispatch(Serial(&part(number)));
            (rayon::current_thread_index().unwrap_or(0), start.elapsed())
        });
        return meter::note_parts(times.collect());
    }
    parts.into_par_iter().for_each(|number| isa.dispatch(Serial(&part(number))));
}
