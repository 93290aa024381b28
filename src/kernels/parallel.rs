//! Sharing a product among the threads of the pool that the caller stands in.
//!
//! Threads split C, never a sum over k: how many there are cannot change a bit.

use super::gemm::{Product, Serial};
use super::meter;
use super::short::Tiny;
#[cfg(feature = "rayon")]
use super::{
    gemm::Rhs,
    pack::{Pack, packed_len},
    scratch::{self, Use},
    tile::PANEL,
};
use crate::simd::Isa;
#[cfg(feature = "rayon")]
use crate::simd::{Body, Simd};

/// Cycles until a sleeping worker begins with what it is woken for: 28 microseconds by `benches/threads.rs`, on a virtual
/// machine (Zen 4, Linux).
#[cfg(feature = "rayon")]
const WAKE: f64 = 100_000.0;
/// What a thread must have to itself, so that by the time a second one has woken enough is left for both.
#[cfg(feature = "rayon")]
const WORTH: f64 = 0.6 * WAKE;
/// Parts for each thread: the others take over from one that wakes late, or that has no core to itself.
#[cfg(feature = "rayon")]
const PARTS: usize = 2;

/// Runs a product, on the calling thread alone when it is too small to gain from more.
///
/// # Safety
/// The operands of the product are valid for its dimensions, and C overlaps neither A nor B.
// Inlined, as its callers are: a small product would spend most of its time on handing the operands on.
#[inline(always)]
pub(super) unsafe fn run(isa: Isa, product: &Product) {
    let watched = meter::watched();
    if product.m == 0 || product.n == 0 {
        return;
    }
    if let Some(tiny) = Tiny::of(product) {
        if watched {
            meter::note_kernel(isa, &{ *product });
        }
        return isa.dispatch(&tiny);
    }
    // Copies: of a product that none of these functions gets to see, nothing need be written to memory.
    let product = &{ *product };
    #[cfg(feature = "rayon")]
    {
        let Product { m, n, k, .. } = *product;
        // No prediction is above one cycle for each of these; most products need not be asked.
        let most =
            m.saturating_mul(n).saturating_mul(k.saturating_add(1)).saturating_add(n.saturating_mul(k));
        if most as f64 >= 2.0 * WORTH {
            let worth = (isa.dispatch(Predict(product)) / WORTH) as usize;
            // The size of the pool is asked for only when it matters: asking starts rayon's global pool.
            if worth >= 2 {
                let threads = rayon::current_num_threads().min(worth);
                if threads > 1 {
                    return split(isa, product, threads);
                }
            }
        }
    }
    if watched {
        meter::note_kernel(isa, product);
    }
    isa.dispatch(Serial(product));
}

/// The cycles of a product on one core.
#[cfg(feature = "rayon")]
struct Predict<'a>(&'a Product<'a>);

#[cfg(feature = "rayon")]
impl Body for Predict<'_> {
    type Out = f64;

    #[inline(always)]
    fn call<S: Simd>(self, _: S) -> f64 {
        self.0.cycles::<S>()
    }
}

/// The columns of B that are packed at once.
#[cfg(feature = "rayon")]
struct ColumnsPacked<'a>(&'a Product<'a>);

#[cfg(feature = "rayon")]
impl Body for ColumnsPacked<'_> {
    type Out = Option<usize>;

    #[inline(always)]
    fn call<S: Simd>(self, _: S) -> Option<usize> {
        self.0.columns_packed::<S>()
    }
}

/// Shares a product among threads. Where packing B pays, and each would pack all of it for its rows of C, they do it together.
#[cfg(feature = "rayon")]
#[inline(never)]
fn split(isa: Isa, product: &Product, threads: usize) {
    let Product { m, n, k, .. } = *product;
    let together = if m >= n { isa.dispatch(ColumnsPacked(product)) } else { None };
    let Some(block) = together else { return share(isa, product, threads) };
    let mut buffer = scratch::take(Use::Shared, packed_len(k, block));
    for col in (0..n).step_by(block) {
        let part = product.part((0, m), (col, block.min(n - col)));
        pack(isa, &part, threads, &mut buffer);
        share(isa, &Product { b: Rhs::Packed(buffer.as_ptr()), ..part }, threads);
    }
    scratch::give_back(Use::Shared, buffer);
}

/// Packs B, each thread some of the panels.
#[cfg(feature = "rayon")]
fn pack(isa: Isa, product: &Product, threads: usize, out: &mut [f32]) {
    use rayon::prelude::*;

    let Product { n, k, .. } = *product;
    let cols = n.div_ceil(PARTS * threads).next_multiple_of(PANEL);
    let parts = out[..packed_len(k, n)].par_chunks_mut(packed_len(k, cols).max(1));
    parts.enumerate().for_each(|(part, out)| {
        let Rhs::Plain(b) = product.b else { unreachable!("what is packed is not packed again") };
        let col = part * cols;
        // SAFETY: these columns are some of B's.
        isa.dispatch(unsafe { Pack::new(b.at(0, col), (k, cols.min(n - col)), out) });
    });
}

/// Splits C into about [`PARTS`] parts for each thread, along its longer side, and runs them on the pool.
#[cfg(feature = "rayon")]
fn share(isa: Isa, product: &Product, threads: usize) {
    use std::time::Instant;

    use rayon::prelude::*;

    let (m, n) = (product.m, product.n);
    let (rows, cols) = if m >= n {
        (m.div_ceil(PARTS * threads), n)
    } else {
        (m, n.div_ceil(PARTS * threads).next_multiple_of(PANEL).min(n))
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
        return meter::note_parts(threads, times.collect());
    }
    parts.into_par_iter().for_each(|number| isa.dispatch(Serial(&part(number))));
}
