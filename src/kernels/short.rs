//! Products that need neither plan nor sweep: of one tile, or of one row of tiles.

use std::mem::MaybeUninit;

use super::epilogue::{Done, Rest, descend_biases, split};
use super::gemm::{Columns, Epilogue, Product, Rhs};
use super::pack::{Operand, transpose};
use super::sweep::CLOSE;
use super::tile::{Finish, PANEL, Start, Tile, kernel, rows_for, turned_kernel, turned_rows};
use crate::buffer::CacheLine;
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
        OneTile::InPlace => unsafe { whole(s, p, p.b.columns(p.k, 0, 0), finish, rest) },
        OneTile::Turned(b) if p.n <= S::Half::LANES && p.m <= rows_for::<S::Half>(p.n, p.a.row) => {
            s.half().run_outlined(Turned { p, b, finish, rest });
        }
        OneTile::Turned(b) => s.run_outlined(Turned { p, b, finish, rest }),
    }
    true
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
        // A single column is contiguous, whatever its stride.
        let rows = (p.c_col == 1 || p.n == 1) && p.alpha == 1.0;
        let one = p.m <= rows_for::<S>(p.n, p.a.row) && p.n <= 2 * S::LANES;
        if !(rows && one && p.k <= CLOSE && p.k * (p.m + p.n) + p.m * p.n <= CLOSE) {
            return None;
        }
        if b.col == 1 || p.n == 1 {
            Some(OneTile::InPlace)
        } else if b.row == 1 && p.k <= TURNED {
            Some(OneTile::Turned(b))
        } else {
            None
        }
    }
}

/// A product of one tile whose B is transposed.
struct Turned<'a> {
    p: &'a Product<'a>,
    b: Operand,
    finish: Finish,
    rest: Option<Rest<'a>>,
}

impl Body for Turned<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Turned { p, b, finish, rest } = self;
        let mut buffer = MaybeUninit::<[CacheLine; TURNED * PANEL / 16]>::uninit();
        let buffer: *mut f32 = buffer.as_mut_ptr().cast();
        // SAFETY: B is readable for n columns and k rows; the buffer holds TURNED rows of PANEL, which a tile is not wider
        // than. Of each row the first n are written, and no kernel reads more.
        unsafe {
            transpose(s, b.t(), (p.n, p.k), buffer, (PANEL as isize, 1));
            whole(s, p, Rhs::Packed(buffer).columns(p.k, 0, 0), finish, rest);
        }
    }
}

/// A product of which all of C is one tile.
///
/// # Safety
/// As for [`one_tile`], with `b` in place of the product's own.
#[inline(always)]
unsafe fn whole<S: Simd>(s: S, p: &Product, b: Columns, finish: Finish, rest: Option<Rest>) {
    let vectors = if p.n <= S::LANES { 1 } else { 2 };
    let tile = last_tile(p, b, (p.c, p.n), p.start, finish);
    // SAFETY: the caller's; C has no more rows and columns than this kernel's tile.
    unsafe { kernel::<S>(p.m, vectors, p.n == vectors * S::LANES)(s, &tile) };
    match rest {
        None => {}
        Some(Rest::Descend(_)) if !p.first_row => {}
        // SAFETY: B holds the columns of C, and there is a bias for each.
        Some(Rest::Descend(descent)) => unsafe { descend_biases(s, descent, &tile, p.offset) },
        rest => {
            let done = Done { p, tile: &tile, rows: p.m, c: p.c, offset: p.offset };
            // SAFETY: the kernel has just written the tile, and the epilogue's matrices lie like C.
            unsafe { done.finish(s, rest, false) };
        }
    }
}

/// All rows of so many columns of C, as a tile that asks for nothing that might come next.
#[inline(always)]
fn last_tile(p: &Product, b: Columns, (c, cols): (*mut f32, usize), start: Start, finish: Finish) -> Tile {
    Tile {
        k: p.k,
        a: p.a.ptr,
        a_row: p.a.row,
        a_k: p.a.col,
        b: b.ptr,
        b_k: b.k,
        b_panel: b.panel,
        c,
        c_row: p.c_row,
        c_next: c,
        c_next_row: 0,
        c_ahead: 0,
        b_next: b.ptr,
        b_ahead: 0,
        cols,
        start,
        finish,
    }
}

/// A product of few rows whose B lies by columns, each contiguous: they are transposed on the way.
pub(super) struct Turning<'a> {
    p: &'a Product<'a>,
    b: Operand,
}

impl<'a> Turning<'a> {
    /// The product, if it is one of those.
    #[inline(always)]
    pub(super) fn of<S: Simd>(p: &'a Product<'a>) -> Option<Turning<'a>> {
        match p.b {
            Rhs::Plain(b)
                if b.col != 1
                    && b.row == 1
                    && p.c_col == 1
                    && p.alpha == 1.0
                    && p.m <= turned_rows::<S>()
                    && !matches!(p.epilogue, Epilogue::Descend(_)) =>
            {
                Some(Turning { p, b })
            }
            _ => None,
        }
    }
}

impl Body for Turning<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Turning { p, b } = self;
        let (finish, rest) = split(p, true);
        let (kernel, vectors) = turned_kernel::<S>(p.m);
        for j in (0..p.n).step_by(vectors * S::LANES) {
            let c = p.c.wrapping_add(j);
            let columns = Columns { ptr: b.at(0, j).ptr, k: 1, panel: b.col };
            let start = match p.start {
                Start::Bias(bias) => Start::Bias(bias.wrapping_add(j)),
                other => other,
            };
            let finish = match finish {
                Finish::Gate(y) => Finish::Gate(y.wrapping_add(j)),
                other => other,
            };
            // Nothing is asked for ahead: each column is a stream, which the hardware foresees.
            let tile = last_tile(p, columns, (c, (p.n - j).min(vectors * S::LANES)), start, finish);
            // SAFETY: A, B and C hold these rows, steps of k and columns: `Serial`'s contract.
            unsafe { kernel(s, &tile) };
            if rest.is_some() {
                let done = Done { p, tile: &tile, rows: p.m, c, offset: p.offset + j as isize };
                // SAFETY: the kernel has just written the tile, and the epilogue's matrices lie like C.
                unsafe { done.finish(s, rest, false) };
            }
        }
    }
}
