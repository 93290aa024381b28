//! Products of which all of C is one tile.

use std::mem::MaybeUninit;

use super::cost::is_close;
use super::epilogue::{Done, Rest, descend_biases, split};
use super::pack::{Operand, transpose_padded};
use super::product::{Epilogue, Product, Rhs};
use super::shapes::{Fill, Kernel, kernel};
use super::stack::rows_for;
use super::tile::{Columns, Finish, PANEL, Start, Tile};
use crate::buffer::{CacheLine, LINE};
use crate::simd::{Body, Simd};

/// Steps of k of a B that is transposed for a product of one tile.
const TURNED: usize = 64;

/// Computes a product of which all of C is one tile, and says whether it is one. To plan and to sweep would take several
/// times as long as the tile.
///
/// # Safety
/// The operands of the product are valid for its dimensions, and C overlaps neither A nor B.
#[inline(always)]
pub(super) unsafe fn one_tile<S: Simd>(s: S, p: &Product) -> bool {
    let Some(way) = OneTile::of::<S>(p) else { return false };
    let (finish, rest) = split(p, true);
    if let (Some(Rest::Descend(_)), Finish::Keep) = (rest, finish) {
        return false; // The tile of gradients would need a buffer.
    }
    match way {
        // SAFETY: the caller's; C is one tile.
        OneTile::InPlace => unsafe {
            let b = p.b.columns(p.k, 0, 0);
            steps(s, p, (0, p.k), b, finish);
            finished(s, p, b, rest);
        },
        OneTile::Turned(b) if p.n <= S::Half::LANES && p.m <= rows_for::<S::Half>(p.n, p.a.row) => {
            s.half().run_outlined(Turned { p, b, finish, rest });
        }
        OneTile::Turned(b) => s.run_outlined(Turned { p, b, finish, rest }),
    }
    true
}

/// Whether an `m` x `n` C is one tile, with rows of A `a_row` apart.
#[inline(always)]
pub(super) fn is_one_tile<S: Simd>(m: usize, n: usize, a_row: isize) -> bool {
    m <= rows_for::<S>(n, a_row) && n <= 2 * S::LANES
}

/// The kernel of that tile, which has no fewer rows and columns.
#[inline(always)]
pub(super) fn kernel_of_one<S: Simd>(m: usize, n: usize) -> Kernel<S> {
    let vectors = if n <= S::LANES { 1 } else { 2 };
    kernel::<S>(m, vectors, Fill::of::<S>(n, vectors))
}

/// How a product of one tile reads its B.
pub(super) enum OneTile {
    InPlace,
    /// Transposed into a buffer.
    Turned(Operand),
}

impl OneTile {
    /// The way for a product of which all of C is one tile, with all operands in L1.
    #[inline(always)]
    pub(super) fn of<S: Simd>(p: &Product) -> Option<OneTile> {
        let Rhs::Plain(b) = p.b else { return None };
        let one = is_one_tile::<S>(p.m, p.n, p.a.row);
        if !(p.as_it_lies() && one && is_close((p.m, p.n, p.k))) || p.is_narrow::<S>() {
            return None;
        }
        if p.in_place(b) {
            Some(OneTile::InPlace)
        } else if b.row == 1 && (p.k <= TURNED || in_pieces(p)) {
            Some(OneTile::Turned(b))
        } else {
            None
        }
    }
}

/// Whether more steps than [`TURNED`] are transposed as well, piece by piece: of so few columns, kernels that turn them on the way have most
/// lanes for nothing. (The one for five rows is as fast, and five columns become its rows. Gradients cannot be gone on with: C holds weights.)
#[inline(always)]
fn in_pieces(p: &Product) -> bool {
    p.m < 8 && p.n <= 8 && p.m.min(p.n) != 5 && !matches!(p.epilogue, Epilogue::Descend(_))
}

/// A product of one tile whose B is transposed.
struct Turned<'a> {
    p: &'a Product<'a>,
    b: Operand,
    finish: Finish<'a>,
    rest: Option<Rest<'a>>,
}

impl Body for Turned<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Turned { p, b, finish, rest } = self;
        let mut buffer = MaybeUninit::<[CacheLine; TURNED * PANEL / LINE]>::uninit();
        let buffer: *mut f32 = buffer.as_mut_ptr().cast();
        let mut done = 0;
        // SAFETY: B is readable for n columns and k rows; the buffer holds TURNED rows of PANEL, which a tile is not wider than. No kernel
        // reads more than the first n of each row.
        unsafe {
            while p.k - done > TURNED {
                turned_steps(s, p, b, (done, TURNED), buffer, Finish::Keep);
                done += TURNED;
            }
            let turned = turned_steps(s, p, b, (done, p.k - done), buffer, finish);
            finished(s, p, turned, rest);
        }
    }
}

/// So many steps of k, after those that are done, with their rows of B transposed into a buffer; and those rows.
///
/// # Safety
/// As for [`steps`], and the buffer holds so many rows of [`PANEL`].
#[inline(always)]
unsafe fn turned_steps<S: Simd>(
    s: S,
    p: &Product,
    b: Operand,
    (done, k): (usize, usize),
    buffer: *mut f32,
    finish: Finish,
) -> Columns {
    let turned = Rhs::Packed(buffer).columns(k, 0, 0);
    // SAFETY: the caller's.
    unsafe {
        transpose_padded(s, b.at(done, 0).t(), (p.n, k), buffer, PANEL as isize);
        steps(s, p, (done, k), turned, finish);
    }
    turned
}

/// So many steps of k, after those that are done, of a product of which all of C is one tile.
///
/// # Safety
/// As for [`one_tile`], with those rows of `b` in place of the product's own.
#[inline(always)]
unsafe fn steps<S: Simd>(s: S, p: &Product, (done, k): (usize, usize), b: Columns, finish: Finish) {
    let start = if done > 0 { Start::Scaled(1.0) } else { p.start };
    let tile = Tile::alone(p.a.at(0, done), k, b, (p.c, p.c_row, p.n), start, finish);
    // SAFETY: the caller's.
    unsafe { kernel_of_one::<S>(p.m, p.n)(s, &tile) }
}

/// What is left to do after the kernel.
///
/// # Safety
/// As for [`one_tile`], with `b` in place of the product's own: of all steps, where biases are updated.
#[inline(always)]
unsafe fn finished<S: Simd>(s: S, p: &Product, b: Columns, rest: Option<Rest>) {
    match rest {
        None => {}
        Some(Rest::Descend(_)) if !p.first_row => {}
        // SAFETY: B holds the columns of C, and there is a bias for each.
        Some(Rest::Descend(descent)) => unsafe { descend_biases(s, descent, b, (p.k, p.n), p.offset) },
        rest => {
            let tile = Tile::alone(p.a, p.k, b, (p.c, p.c_row, p.n), p.start, Finish::Keep);
            let done = Done { p, tile: &tile, rows: p.m, c: p.c, offset: p.offset };
            // SAFETY: the kernel has just written the tile, and the epilogue's matrices lie like C.
            unsafe { done.finish(s, rest, false) };
        }
    }
}
