//! Sharing a product among the threads of the pool that the caller stands in, or a pass over values.
//!
//! Threads split C, never a sum over k: how many there are cannot change a bit.

use std::marker::PhantomData;
use std::ops::Range;

use super::close::run_close;
use super::meter;
use super::product::Product;
use super::serial::Serial;
use super::tiny::Tiny;
#[cfg(feature = "rayon")]
use super::{
    cost::MOVE_B,
    pack::{Pack, packed_len},
    product::Rhs,
    scratch::{self, Use},
    team,
    tile::PANEL,
};
#[cfg(feature = "rayon")]
use crate::buffer::LINE;
#[cfg(feature = "rayon")]
use crate::simd::Core;
use crate::simd::{Body, Isa, Simd};

/// Parts for so many threads: the others take over from one that wakes late, or that has no core to itself. Of two, each takes its
/// own half, and two parts each do for that.
#[cfg(feature = "rayon")]
fn parts_for(threads: usize) -> usize {
    if threads == 2 { 4 } else { 4 * threads }
}

/// Cycles for a value of A or B that comes from a cache further away than L2.
#[cfg(feature = "rayon")]
const FETCH: f64 = 0.4;
/// Cycles that one more phase takes, for those who wait and those who are late.
#[cfg(feature = "rayon")]
const PHASE: f64 = 3000.0;
/// Values of a transposed B (256 KiB) up to which it matters who packs it.
#[cfg(feature = "rayon")]
const OWN: usize = 64 * 1024;
/// Steps of k up to which C is shared by whole rows.
#[cfg(feature = "rayon")]
const FEW_STEPS: usize = 8;
/// Cycles for a value of A that is copied.
#[cfg(feature = "rayon")]
const COPY: f64 = 1.0;

/// Runs a product, on the calling thread alone when it is too small to gain from more.
///
/// # Safety
/// The operands of the product are valid for its dimensions, and C overlaps neither A nor B.
// Inlined, as its callers are, who know what follows the product: a tiny one has no time for other answers.
#[inline(always)]
pub(super) unsafe fn run(isa: Isa, product: &Product) {
    // Copies: of a product that none of these functions gets to see, nothing need be written to memory.
    if meter::watched() {
        meter::note_kernel(isa, &{ *product });
    }
    match Tiny::of(product) {
        Some(tiny) => isa.dispatch(&tiny),
        None => isa.dispatch(Here(isa, &{ *product })),
    }
}

/// The same with the instruction set that was chosen, and whether there is one.
///
/// # Safety
/// As for [`run`].
#[inline(never)]
pub(super) unsafe fn run_chosen(product: &Product) -> bool {
    let Some(isa) = Isa::chosen() else { return false };
    if meter::watched() {
        meter::note_kernel(isa, product);
    }
    isa.dispatch(Here(isa, product));
    true
}

/// A product, compiled for an instruction set.
struct Here<'a>(Isa, &'a Product<'a>);

impl Body for Here<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Here(isa, product) = self;
        // Read value by value, as they were written: two that are read as one wait until both are in L1.
        let small = Product { offset: 0, first_row: true, is_part: false, ..*product };
        // SAFETY: the contract of those who make it, `run` and `run_chosen`.
        unsafe {
            if !run_small(s, &small) {
                run_other(s, isa, product);
            }
        }
    }
}

/// Runs a product of so little work that finding out what it is must not take long, and says whether it is one.
///
/// # Safety
/// As for [`run`].
#[inline(always)]
pub(super) unsafe fn run_small<S: Simd>(s: S, product: &Product) -> bool {
    if product.m == 0 || product.n == 0 {
        return true;
    }
    // (No closures: what is not inlined would not be compiled for the instruction set.)
    if let Some(tiny) = Tiny::of(product)
        && tiny.alone(s)
    {
        return true;
    }
    run_close::<S, false>(s, product) || run_close::<S, true>(s, product)
}

/// Runs any other product.
///
/// # Safety
/// As for [`run`].
#[inline(always)]
pub(super) unsafe fn run_other<S: Simd>(s: S, isa: Isa, product: &Product) {
    #[cfg(feature = "rayon")]
    if most_cycles(product) >= team::ALONE {
        return run_large(isa, product);
    }
    #[cfg(not(feature = "rayon"))]
    let _ = isa;
    s.run_outlined(Serial(product));
}

/// A bound of [`Predict`]. Most products need not be asked.
#[cfg(feature = "rayon")]
#[inline(always)]
fn most_cycles(product: &Product) -> f64 {
    let Product { m, n, k, .. } = *product;
    let muls = m.saturating_mul(k).saturating_mul(n.div_ceil(LINE));
    let muls = muls.saturating_add(muls / 8); // Half a vector may take as much longer as a whole one.
    // Of what is transposed, whole vectors are.
    let moved = m.saturating_mul(n).saturating_add((m.max(n) + LINE / 4).saturating_mul(k));
    muls.saturating_add(moved) as f64
}

/// Of a product whose matrices lie by rows, or whose B by columns: the cycles that are predicted, the bound of them, and whether it
/// is computed without asking for either.
#[cfg(all(test, feature = "rayon"))]
pub(crate) fn predicted(isa: Isa, (m, n, k): (usize, usize, usize), by_columns: bool) -> (f64, f64, bool) {
    use super::{activation::Activation, close::Close, pack::Operand, product::Epilogue, tile::Start};

    let (ptr, row) = (std::ptr::null(), k as isize);
    let b = if by_columns {
        Operand { ptr, row: 1, col: k as isize }
    } else {
        Operand { ptr, row: n as isize, col: 1 }
    };
    let product = Product {
        m,
        n,
        k,
        alpha: 1.0,
        a: Operand { ptr, row, col: 1 },
        b: Rhs::Plain(b),
        c: std::ptr::null_mut(),
        c_row: n as isize,
        c_col: 1,
        start: Start::Zero,
        epilogue: Epilogue::Activate { activation: Activation::Identity, before: std::ptr::null_mut() },
        offset: 0,
        first_row: true,
        is_part: false,
    };
    let close = Close::<false>::of(&product).is_some() || Close::<true>::of(&product).is_some();
    (isa.dispatch(Predict(&product)), most_cycles(&product), close)
}

/// Runs a product that may be worth more than one thread.
#[cfg(feature = "rayon")]
#[inline(never)]
fn run_large(isa: Isa, product: &Product) {
    let cycles = isa.dispatch(Predict(product));
    team::lead(cycles, || match team::worth(cycles) {
        1 => isa.dispatch(Serial(product)),
        threads => split(isa, product, threads),
    });
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

/// Shares a product among threads. Where packing B pays, and each would pack the same columns for its rows of C, they do it
/// together.
#[cfg(feature = "rayon")]
fn split(isa: Isa, product: &Product, threads: usize) {
    let Product { m, n, k, .. } = *product;
    let whole = grid(product, threads);
    let together = if whole.0 < m { isa.dispatch(ColumnsPacked(product)) } else { None };
    let Some(block) = together else { return share(isa, product, threads, whole) };
    let mut buffer = scratch::take(Use::Shared, packed_len(k, block));
    for col in (0..n).step_by(block) {
        let part = product.part((0, m), (col, block.min(n - col)));
        pack(isa, &part, threads, &mut buffer);
        share(isa, &Product { b: Rhs::Packed(buffer.as_ptr()), ..part }, threads, grid(&part, threads));
    }
    scratch::give_back(Use::Shared, buffer);
}

/// Packs B, each thread some of the panels.
#[cfg(feature = "rayon")]
fn pack(isa: Isa, product: &Product, threads: usize, out: &mut [f32]) {
    let Product { n, k, .. } = *product;
    let out = Shared::new(out);
    let cols = n.div_ceil(parts_for(threads)).next_multiple_of(PANEL);
    team::share(n.div_ceil(cols), &|part| {
        let Rhs::Plain(b) = product.b else { unreachable!("what is packed is not packed again") };
        let col = part * cols;
        let shape = (k, cols.min(n - col));
        let panels = packed_len(k, col);
        // SAFETY: B has these columns; their panels are no other part's, and each part is run once.
        isa.dispatch(unsafe {
            Pack::new(b.at(0, col), shape, out.part(panels..panels + packed_len(k, shape.1)))
        });
    });
}

/// Rows and columns of the parts of C, about [`parts_for`] the threads, that take the least time.
#[cfg(feature = "rayon")]
fn grid(product: &Product, threads: usize) -> (usize, usize) {
    let Product { m, n, k, .. } = *product;
    let parts = parts_for(threads);
    let of = |down: usize| {
        let across = parts / down;
        (m.div_ceil(down), n.div_ceil(across).next_multiple_of(PANEL).min(n))
    };
    // With few steps most of the time goes for writing C, which is fastest along whole rows.
    if k <= FEW_STEPS && m >= parts {
        return (m.div_ceil(parts), n);
    }
    // Where A is transposed, each part copies its rows, on most cores.
    let copies = product.a.col != 1 && Core::current().copies_a;
    let fetch_a = if copies { FETCH + COPY } else { FETCH };
    // A transposed B is packed by each part that has all rows of its columns, or else by all together: then the threads wait for
    // each other once more, and read from the other's caches what it has packed. (Of a large one, reading outweighs all that.)
    let small = matches!(product.b, Rhs::Plain(b) if b.col != 1) && n.saturating_mul(k) <= OWN;
    let cycles = |(rows, cols): (usize, usize)| {
        let (down, across) = (m.div_ceil(rows), n.div_ceil(cols));
        // A last part that is left for one thread may be a small one.
        let turns = match down * across % threads {
            1 => ((m - (down - 1) * rows) * (n - (across - 1) * cols)) as f64 / (rows * cols) as f64,
            left => left.min(1) as f64,
        } + (down * across / threads) as f64;
        let packing = match small {
            false => 0.0,
            true if rows == m => MOVE_B * turns * (cols * k) as f64,
            true => PHASE + (MOVE_B / threads as f64 + FETCH) * (n * k) as f64,
        };
        let (rows, cols, k) = (rows as f64, cols as f64, k as f64);
        turns * (rows * cols * (k / 16.0 + FETCH) + (fetch_a * rows + FETCH * cols) * k) + packing
    };
    // One part for each thread: whoever is late has not missed much.
    let own = small.then(|| (m, n.div_ceil(threads).next_multiple_of(LINE).min(n)));
    let ways = (1..=parts).filter(|down| parts.is_multiple_of(*down)).map(of).chain(own);
    ways.min_by(|one, other| cycles(*one).total_cmp(&cycles(*other))).unwrap_or((m, n))
}

/// Splits C into parts of so many rows and columns, and runs them on the threads.
#[cfg(feature = "rayon")]
fn share(isa: Isa, product: &Product, threads: usize, (rows, cols): (usize, usize)) {
    let (m, n) = (product.m, product.n);
    let across = n.div_ceil(cols);
    let part = |part: usize| {
        let (row, col) = (part / across * rows, part % across * cols);
        product.part((row, rows.min(m - row)), (col, cols.min(n - col)))
    };
    if meter::watched() {
        meter::note_kernel(isa, &part(0));
    }
    let run = |number| isa.dispatch(Serial(&part(number)));
    share_parts(threads, m.div_ceil(rows) * across, &run);
}

/// Runs so many parts on so many threads; while somebody watches, each is timed.
#[cfg(feature = "rayon")]
fn share_parts(threads: usize, parts: usize, run: &(dyn Fn(usize) + Sync)) {
    use std::sync::{Mutex, PoisonError};
    use std::time::Instant;

    if !meter::watched() {
        return team::share(parts, run);
    }
    let times = Mutex::new(Vec::with_capacity(parts));
    team::share(parts, &|number| {
        let start = Instant::now();
        run(number);
        // The caller may stand outside of the pool.
        let thread = rayon::current_thread_index().unwrap_or(usize::MAX);
        let time = (thread, start.elapsed());
        times.lock().unwrap_or_else(PoisonError::into_inner).push(time);
    });
    meter::note_parts(threads, times.into_inner().unwrap_or_else(PoisonError::into_inner));
}

/// Values that threads write, each some of them.
pub(super) struct Shared<'a>(*mut f32, usize, PhantomData<&'a mut [f32]>);

// SAFETY: it gives no access but by `part`, whose callers keep to parts of their own.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(super) fn new(values: &'a mut [f32]) -> Self {
        Shared(values.as_mut_ptr(), values.len(), PhantomData)
    }

    /// Those at so many places.
    ///
    /// # Safety
    /// While they are in use, nobody else is given one of them.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn part(&self, places: Range<usize>) -> &mut [f32] {
        assert!(places.start <= places.end && places.end <= self.1, "a part of what is shared");
        // SAFETY: the values are there, by the check above, and nobody else's, by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(places.start), places.len()) }
    }
}

/// Runs a pass over so many values, each of which takes so many cycles, by spans of them: on several threads where that is worth
/// it.
pub(super) fn spans(values: usize, cycles: f64, run: &(dyn Fn(Range<usize>) + Sync)) {
    #[cfg(feature = "rayon")]
    {
        let cycles = cycles * values as f64;
        team::lead(cycles, || {
            let threads = team::worth(cycles);
            if threads == 1 {
                return run(0..values);
            }
            let parts = parts_for(threads);
            let span = values.div_ceil(parts).next_multiple_of(LINE);
            let of = |part: usize| part * span..values.min((part + 1) * span);
            share_parts(threads, values.div_ceil(span), &|part| run(of(part)));
        });
    }
    #[cfg(not(feature = "rayon"))]
    {
        let _ = cycles;
        run(0..values);
    }
}
