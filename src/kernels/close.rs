//! Products that lie in L1 as a whole, or nearly, each operand as it is to be read: nothing needs to be planned, copied or asked for. Until
//! the first tile begins, a core has nothing to multiply, so all that is done before it shows.

use std::mem::MaybeUninit;

use super::cost::{fills_half, is_close, splits_tail, swapping_saves};
use super::epilogue::split;
use super::one_tile::{is_one_tile, kernel_of_one};
use super::pack::{Operand, transpose_padded};
use super::product::{Product, Rhs};
use super::shapes::{kernel, run_fitting, turned_rows};
use super::stack::{Cover, Stack};
use super::stream::STEPS;
use super::tile::{Columns, Finish, PANEL, Start, Tile};
use crate::buffer::{CacheLine, LINE};
use crate::simd::{Body, Simd};

/// Values of a B that lies by columns and is copied (16 KiB).
const TURNED: usize = 4096;

/// Such a product, with nothing left to do after a kernel.
pub(super) struct Close<'a, const BY_COLUMNS: bool> {
    m: usize,
    n: usize,
    /// All of C.
    tile: Tile<'a>,
}

impl<'a, const BY_COLUMNS: bool> Close<'a, BY_COLUMNS> {
    /// The product, if it is one of those, and its B lies by rows or by columns.
    #[inline(always)]
    pub(super) fn of(p: &Product<'a>) -> Option<Self> {
        let Rhs::Plain(b) = p.b else { return None };
        let Product { m, n, k, .. } = *p;
        // Of few columns and many rows, the factors may change places. Here they have not yet.
        let narrow = n <= 4 && m >= 8;
        let swapped = matches!(p.start, Start::BiasRows(_));
        if !is_close((m, n, k)) || narrow || swapped || !p.as_it_lies() {
            return None;
        }
        let by_columns = !p.in_place(b);
        let is_copied = b.row == 1 && k * n.next_multiple_of(LINE) <= TURNED;
        if by_columns != BY_COLUMNS || (by_columns && !is_copied) {
            return None;
        }
        let (finish, None) = split(p, true) else { return None };
        let panel = if BY_COLUMNS { b.col } else { PANEL as isize };
        let columns = Columns { ptr: b.ptr, k: b.row, panel };
        let tile = Tile::alone(p.a, k, columns, (p.c, p.c_row, n), p.start, finish);
        Some(Close { m, n, tile })
    }

    /// Whether tiles are the best there is: few rows turn B on the way, and few steps stream.
    #[inline(always)]
    pub(super) fn is_best<S: Simd>(&self) -> bool {
        let Close { m, n, ref tile } = *self;
        let streams = !BY_COLUMNS && n >= S::LANES && tile.k <= STEPS;
        !(Self::turns::<S>(m) || streams) && stays::<S>((m, n, tile.k), tile, BY_COLUMNS)
    }

    /// Whether so few rows turn B on the way.
    #[inline(always)]
    pub(super) fn turns<S: Simd>(m: usize) -> bool {
        BY_COLUMNS && m <= turned_rows::<S>()
    }
}

/// Computes it, and says whether it has.
impl<const BY_COLUMNS: bool> Body for &mut Close<'_, BY_COLUMNS> {
    type Out = bool;

    #[inline(always)]
    fn call<S: Simd>(self, s: S) -> bool {
        let (m, n, tile) = (self.m, self.n, &self.tile);
        if !BY_COLUMNS && !fills_half::<S>((m, n, tile.k), tile.a_row) && one_tile(s, m, n, tile) {
            return true;
        }
        if !self.is_best::<S>() {
            return false;
        }
        let tile = &mut self.tile;
        let tiles = Tiles { m, n, tile };
        if BY_COLUMNS {
            run_fitting(s, n, Turned(tiles));
        } else {
            run_fitting(s, n, tiles);
        }
        true
    }
}

/// Runs a close product whose B lies by rows or by columns, and says whether it is one.
#[inline(always)]
pub(super) fn run_close<S: Simd, const BY_COLUMNS: bool>(s: S, product: &Product) -> bool {
    if Close::<BY_COLUMNS>::turns::<S>(product.m) {
        return false; // Asked first: what such a product is made of would be written for nothing.
    }
    match Close::<BY_COLUMNS>::of(product) {
        Some(mut close) => close.call(s),
        None => false,
    }
}

/// Whether neither all columns nor the last ones take less time with the factors exchanged.
#[inline(always)]
fn stays<S: Simd>(shape: (usize, usize, usize), tile: &Tile, move_b: bool) -> bool {
    let (move_a, move_c) = (tile.a_row != 1, tile.c_row != 1);
    let swaps =
        || (move_b || shape.1 < S::LANES) && swapping_saves::<S>(shape, move_b, (move_a, move_c)) > 0.0;
    !(swaps() || splits_tail::<S>(shape, move_a, move_c))
}

/// The same with a B that is copied by rows first.
struct Turned<'a, 'b>(Tiles<'a, 'b>);

impl Body for Turned<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Turned(Tiles { m, n, tile }) = self;
        let mut buffer = MaybeUninit::<[CacheLine; TURNED / LINE]>::uninit();
        let to: *mut f32 = buffer.as_mut_ptr().cast();
        let columns = Operand { ptr: tile.b, row: tile.b_panel, col: 1 };
        let row = n.next_multiple_of(LINE) as isize;
        // SAFETY: B has these columns, and the buffer a place for each of their values, by whole lines.
        unsafe { transpose_padded(s, columns, (n, tile.k), to, row) };
        (tile.b, tile.b_k, tile.b_panel) = (to, row, PANEL as isize);
        if !one_tile(s, m, n, tile) {
            s.run_outlined(Tiles { m, n, tile });
        }
    }
}

/// Computes all of C if it is one tile, and says whether it is.
#[inline(always)]
fn one_tile<S: Simd>(s: S, m: usize, n: usize, tile: &Tile) -> bool {
    let is_one = is_one_tile::<S>(m, n, tile.a_row);
    if is_one {
        // SAFETY: `Product`'s contract, which the tile is made of.
        unsafe { kernel_of_one::<S>(m, n)(s, tile) };
    }
    is_one
}

/// The tiles, column by column. (A [`Sweep`](super::sweep) is ready for blocks, for what is asked for ahead and for what is left to do after a
/// kernel; what it costs to find that there is none of it is what a close product cannot hide.)
struct Tiles<'a, 'b> {
    m: usize,
    n: usize,
    tile: &'a mut Tile<'b>,
}

impl Body for Tiles<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Tiles { m, n, tile } = self;
        let whole = *tile;
        let cover = Cover::of::<S>((m, n, whole.k), whole.a_row, true);
        let mut j = 0;
        while j < n {
            let stack = cover.stack::<S>(n - j);
            let Stack { tiles, low, higher, .. } = stack;
            let (vectors, fill) = stack.columns::<S>(n - j);
            tile.cols = (stack.vectors * S::LANES).min(n - j);
            tile.b = whole.b.wrapping_add(j);
            if let Start::Bias(bias) = whole.start {
                tile.start = Start::Bias(bias.wrapping_add(j));
            }
            let mut i = 0;
            for above in 0..tiles {
                let rows = low + usize::from(above < higher);
                tile.a = whole.a.wrapping_offset(i as isize * whole.a_row);
                let place = i as isize * whole.c_row + j as isize;
                tile.c = whole.c.wrapping_offset(place);
                if let Finish::Gate(y) = whole.finish {
                    tile.finish = Finish::Gate(y.wrapping_offset(place));
                }
                // SAFETY: A, B and C hold these rows, steps of k and columns: `Product`'s contract.
                unsafe { kernel::<S>(rows, vectors, fill)(s, tile) };
                i += rows;
            }
            j += stack.vectors * S::LANES;
        }
    }
}
