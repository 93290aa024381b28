//! How long a product will take, as predicted: it decides which way round it is computed, whether it is shared, and whether it is planned.

use super::product::{Epilogue, Product, Rhs};
use super::shapes::{is_half, takes_all_turned, turned_rows, turns_ahead};
use crate::buffer::LINE;
use crate::simd::{Core, Simd};

// In cycles, of which a multiply-add of 16 lanes takes one: half a vector, an element of B that is transposed beforehand,
// one that is transposed between the multiply-adds (if there are few of them), or ahead of them, and one of C that is transposed.
const HALF: f64 = 0.8;
pub(super) const MOVE_B: f64 = 0.4;
const TURN_B: f64 = 0.2;
const TURN_B_AHEAD: f64 = 0.11;
const MOVE_C: f64 = 1.0;
/// The first and the second where half vectors take as long as whole ones: columns that fit into one are transposed by 8 x 8 then.
const SLOW_HALF: f64 = 1.1;
const SLOW_MOVE_B: f64 = 2.2;
/// The same for a value that comes from L2, or from beyond, or goes there: what takes one or two rows as long as it takes to read B.
#[cfg(feature = "rayon")]
const NEAR: f64 = 0.16;
#[cfg(feature = "rayon")]
const FAR: f64 = 0.3;
/// What a product of its own must save for each of its rows: its blocks at the edges, and the call.
const SPLIT: f64 = 400.0;
/// What must be saved to do more than a single tile: with one column, which is transposed in registers, with some, and with some beside
/// rows that do not fill a vector.
const ONE_TILE: (f64, f64, f64) = (100.0, 250.0, 600.0);

/// More rows, columns or steps than any L1 holds; so many of each are still counted without overflow.
const MOST: usize = 1 << 14;
/// Cycles of multiply-adds up to which a product is not worth a second thread, whatever else it takes (`src/tests/costs.rs` holds it to what
/// is predicted).
const SHORT: usize = 19_000;

/// Whether the operands of an `m` x `n` x `k` product lie in L1 beside each other, or it is so short that planning it and asking for what
/// comes from L2 would take longer than they save. (A single row streams from there, and few columns may be exchanged with rows.)
#[inline(always)]
pub(super) fn is_close((m, n, k): (usize, usize, usize)) -> bool {
    if (m | n | k) > MOST {
        return false;
    }
    let values = k * (m + n) + m * n;
    if values <= Core::L1 {
        return true;
    }
    let core = Core::current();
    let is_short = || m > 1 && n >= LINE && m * k * n.div_ceil(LINE) <= SHORT;
    values <= core.l1 || (values <= core.short && is_short())
}

/// Cycles of half a vector, and of an element of B that is transposed for one. (Small products have no time for more code around their choice.)
#[inline(never)]
fn half() -> (f64, f64) {
    if Core::current().shuffles_whole { (SLOW_HALF, SLOW_MOVE_B) } else { (HALF, MOVE_B) }
}

/// Cycles of an `m` x `n` x `k` product.
#[inline(always)]
fn cycles<S: Simd>((m, n, k): (usize, usize, usize), move_b: bool, move_c: bool) -> f64 {
    let whole = |len: usize| len.div_ceil(S::LANES) as f64 * S::LANES as f64;
    let (vectors, moved) = if is_half::<S>(n) { half() } else { (whole(n) / 16.0, MOVE_B) };
    let turned = m <= turned_rows::<S>();
    let turn_b = || if turns_ahead::<S>(m) { TURN_B_AHEAD } else { TURN_B };
    // Blocks are transposed as a whole, even where columns or steps are missing.
    let blocks = whole(n) * whole(k);
    let (m, n, k) = (m as f64, n as f64, k as f64);
    let b = match move_b {
        true if turned => turn_b() * blocks,
        true => moved * n * k,
        false => 0.0,
    };
    let c = if move_c { MOVE_C * m * n } else { 0.0 };
    m * k * vectors + b + c
}

/// Whether the columns beyond the last whole vector take less time as a product of their own, with the factors exchanged: of a
/// vector that is nearly empty, a multiply-add does little. (Among others they take a whole one, however few they are.)
#[inline(always)]
pub(super) fn splits_tail<S: Simd>((m, n, k): (usize, usize, usize), move_b: bool, move_c: bool) -> bool {
    let tail = n % S::LANES;
    let must_save = SPLIT * tail as f64;
    let as_it_is = m as f64 * k as f64 * S::LANES as f64 / 16.0;
    n > tail
        && tail > 0
        && as_it_is * (1.0 - TURN_B) >= must_save
        && as_it_is - cycles::<S>((tail, m, k), move_b, move_c) > must_save
}

/// Whether so few columns fill half a vector of 16 lanes at most, beside rows that nearly fill one, or more than a few lanes of a second
/// (unless there are five columns, or rows that lie side by side, `a_row` apart), and steps enough: then exchanging them may pay, though
/// all of C be one tile. (Only on cores that shuffle whole vectors as fast as half ones; not measured elsewhere.)
#[inline(always)]
pub(super) fn fills_half<S: Simd>((m, n, k): (usize, usize, usize), a_row: isize) -> bool {
    let pays = m <= 16 || m >= 20 || n == 5 || a_row == 1;
    S::LANES == 16 && (5..=8).contains(&n) && m >= 13 && pays && k >= 128 && Core::current().shuffles_whole
}

/// The cycles that the product of the transposes saves, of a C that lies by rows: whether B must be moved, and whether A and C would
/// have to be.
#[inline(always)]
pub(super) fn swapping_saves<S: Simd>(
    (m, n, k): (usize, usize, usize),
    move_b: bool,
    (move_a, move_c): (bool, bool),
) -> f64 {
    cycles::<S>((m, n, k), move_b, false) - cycles::<S>((n, m, k), move_a, move_c)
}

impl Product<'_> {
    #[inline(always)]
    fn as_it_is<S: Simd>(&self) -> f64 {
        let move_b = matches!(self.b, Rhs::Plain(b) if b.col != 1);
        cycles::<S>((self.m, self.n, self.k), move_b, self.c_col != 1)
    }

    #[inline(always)]
    fn transposed<S: Simd>(&self) -> f64 {
        cycles::<S>((self.n, self.m, self.k), self.a.row != 1, self.c_row != 1)
    }

    /// The cycles that the product of the transposes, `C^T = B^T A^T`, saves; not more than 0 where it saves none.
    #[inline(always)]
    fn saved_by_swapping<S: Simd>(&self) -> f64 {
        let Rhs::Plain(b) = self.b else { return 0.0 };
        // A row-major product of some width has nothing to gain, nor have up to four rows beside columns of more than a vector (of 16
        // lanes, by what follows here); and what descends has its weights in C's order.
        if matches!(self.epilogue, Epilogue::Descend(_))
            || self.alpha != 1.0
            || (b.col == 1 && self.c_col == 1 && self.n >= S::LANES)
            || (S::LANES == 16 && b.col != 1 && self.m <= 4 && self.n > S::LANES && self.a.row != 1)
        {
            return 0.0;
        }
        self.as_it_is::<S>() - self.transposed::<S>()
    }

    /// Whether it takes less time.
    #[inline(always)]
    pub(super) fn is_swapped<S: Simd>(&self) -> bool {
        self.saved_by_swapping::<S>() > 0.0
    }

    /// Whether it takes so much less that it is worth more than a single tile: for very few columns, which a vector is not for, and
    /// rows enough for a kernel that transposes.
    #[inline(always)]
    pub(super) fn is_narrow<S: Simd>(&self) -> bool {
        let (least, must_save) = match self.n {
            1 => (S::Half::LANES + 1, ONE_TILE.0),
            _ if self.m < 2 * S::Half::LANES => (12, ONE_TILE.2),
            _ => (12, ONE_TILE.1),
        };
        let few = (1..=4).contains(&self.n) || fills_half::<S>((self.m, self.n, self.k), self.a.row);
        self.m >= least && few && self.saved_by_swapping::<S>() > must_save
    }

    /// The product without the columns beyond the last whole vector, and that of those with the factors exchanged, if this
    /// saves time.
    #[inline(always)]
    pub(super) fn without_tail<S: Simd>(&self) -> Option<(Self, Self)> {
        let turned = matches!(self.b, Rhs::Plain(b) if b.col != 1 && takes_all_turned::<S>(self.m, self.k, self.n, b.col));
        if turned || !splits_tail::<S>((self.m, self.n, self.k), self.a.row != 1, self.c_row != 1) {
            return None;
        }
        let whole = self.n / S::LANES * S::LANES;
        let b = self.b.operand(self.k, whole);
        let tail = Product { b: Rhs::Plain(b), ..self.part((0, self.m), (whole, self.n - whole)) };
        tail.is_swapped::<S>().then(|| (Product { n: whole, ..*self }, tail.swapped(b)))
    }

    /// The cycles it takes on one core: for the multiply-adds, or for operands that do not stay in its caches.
    #[cfg(feature = "rayon")]
    #[inline(always)]
    pub(super) fn cycles<S: Simd>(&self) -> f64 {
        let cycles = if self.is_swapped::<S>() { self.transposed::<S>() } else { self.as_it_is::<S>() };
        let (m, n, k) = (self.m as f64, self.n as f64, self.k as f64);
        let values = m * k + k * n + m * n;
        let fetch = if values > Core::current().l2 as f64 { FAR } else { NEAR };
        cycles.max(fetch * values)
    }
}
