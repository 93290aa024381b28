//! The tiles of one block of a product, and what is done to each while it is in L1.

use std::mem::MaybeUninit;

use super::activation::Activation;
use super::elementwise::{activate_slice, gradient_slice};
use super::gemm::{Columns, Descent, Epilogue, Product, Rhs};
use super::pack::{Operand, transpose};
use super::tile::{AHEAD, Finish, PANEL, Start, Tile, kernel, vectors_for};
use super::update::update_rows;
use super::vector::load_up_to;
use crate::buffer::CacheLine;
use crate::simd::{Body, Simd};

/// Values in the largest tile: what is staged of a C whose rows are not contiguous, or that is not stored at all.
const BUFFER: usize = 12 * 2 * PANEL;

/// One block of a product: `m` x `n` of C from (i0, j0) on, with its part of A and B.
pub(super) struct Block<'a> {
    pub p: &'a Product<'a>,
    pub a: Operand,
    pub b: Columns,
    pub i0: usize,
    pub j0: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub start: Start,
    /// Whether the chains are finished after this block.
    pub last: bool,
}

impl Block<'_> {
    /// All tiles: those of full height, then those of the rows that remain.
    #[inline(always)]
    pub(super) fn tiles<S: Simd>(&self, s: S) {
        let staged = self.p.c_col != 1 || matches!(self.p.epilogue, Epilogue::Descend(_));
        let tall = self.m / S::TILE_ROWS;
        let rest = self.m - tall * S::TILE_ROWS;
        for (first, tiles, rows) in [(0, tall, S::TILE_ROWS), (self.m - rest, 1, rest)] {
            if tiles * rows == 0 {
                continue;
            }
            if staged {
                s.run_outlined(Sweep::<true> { block: self, first, tiles, rows });
            } else {
                s.run_outlined(Sweep::<false> { block: self, first, tiles, rows });
            }
        }
    }
}

/// Values of A up to which a product may be [`one_tile`].
const ONE_TILE: usize = 256;

/// Computes a product of which all of C is one tile that the kernel finishes, and says whether it is one. To plan and to
/// sweep would take several times as long as the tile.
///
/// # Safety
/// The operands of the product are valid for its dimensions, and C overlaps neither A nor B.
#[inline(always)]
pub(super) unsafe fn one_tile<S: Simd>(s: S, p: &Product) -> bool {
    let in_place = p.c_col == 1 && p.alpha == 1.0 && matches!(p.b, Rhs::Plain(Operand { col: 1, .. }));
    let small = p.m <= S::TILE_ROWS && p.n <= 2 * S::LANES && p.m * p.k <= ONE_TILE;
    if !(in_place && small) {
        return false;
    }
    let (finish, None) = split(p.epilogue, true) else { return false };
    let b = p.b.columns(p.k, 0, 0);
    let vectors = if p.n <= S::LANES { 1 } else { 2 };
    let tile = Tile {
        k: p.k,
        a: p.a.ptr,
        a_row: p.a.row,
        a_k: p.a.col,
        b: b.ptr,
        b_k: b.k,
        b_panel: b.panel,
        c: p.c,
        c_row: p.c_row,
        // Nothing comes next.
        c_next: p.c,
        c_next_row: 0,
        b_next: b.ptr,
        ahead: 0,
        cols: p.n,
        start: p.start,
        finish,
    };
    // SAFETY: the caller's; C has no more rows and columns than this kernel's tile.
    unsafe { kernel::<S>(p.m, vectors, p.n == vectors * S::LANES)(s, &tile) };
    true
}

/// So many tiles of `rows` rows on top of each other, from the `first` row of a block on, column by column, so that a
/// panel of B stays close while A passes; with `STAGED` by way of a buffer.
struct Sweep<'a, const STAGED: bool> {
    block: &'a Block<'a>,
    first: usize,
    tiles: usize,
    rows: usize,
}

impl<const STAGED: bool> Body for Sweep<'_, STAGED> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Sweep { block, first, tiles, rows } = self;
        let p = block.p;
        let mut buffer = MaybeUninit::<[CacheLine; BUFFER / 16]>::uninit();
        let buffer: *mut f32 = buffer.as_mut_ptr().cast();
        let widest = vectors_for::<S>(rows);
        let width = widest * S::LANES;
        // Tiles on top of each other share out the rows of B that they ask for ahead. A division takes as long as a small tile.
        let share = if tiles == 1 { 0 } else { block.k / tiles };
        let (finish, rest) = split(p.epilogue, block.last);
        let mut tile = Tile {
            k: block.k,
            a: block.a.ptr,
            a_row: block.a.row,
            a_k: block.a.col,
            b: block.b.ptr,
            b_k: block.b.k,
            b_panel: block.b.panel,
            c: buffer,
            c_row: p.c_row,
            c_next: buffer,
            c_next_row: p.c_row,
            b_next: buffer,
            ahead: if tiles == 1 { AHEAD } else { AHEAD.div_ceil(tiles) },
            cols: width,
            start: block.start,
            finish,
        };
        let mut j = 0;
        while j < block.n {
            tile.cols = width.min(block.n - j);
            let vectors =
                if tile.cols == width { widest } else { tile.cols.div_ceil(S::LANES).next_power_of_two() };
            let kernel = kernel::<S>(rows, vectors, tile.cols == vectors * S::LANES);
            tile.b = block.b.at(j);
            let next = block.b.at(if j + width < block.n { j + width } else { j });
            if let Start::Bias(bias) = block.start {
                tile.start = Start::Bias(bias.wrapping_add(j));
            }
            for above in 0..tiles {
                let i = first + above * rows;
                tile.a = block.a.at(i, 0).ptr;
                if let Start::BiasRows(bias) = block.start {
                    tile.start = Start::BiasRows(bias.wrapping_add(i));
                }
                let place = (block.i0 + i) as isize * p.c_row + (block.j0 + j) as isize * p.c_col;
                let c = p.c.wrapping_offset(place);
                tile.c_next = c.wrapping_offset(rows as isize * p.c_row);
                tile.b_next = next.wrapping_offset((above * share) as isize * block.b.k);
                if STAGED {
                    tile.c_row = tile.cols.next_multiple_of(S::LANES) as isize;
                    if let Start::Scaled(_) = tile.start {
                        let from = Operand { ptr: c, row: p.c_row, col: p.c_col };
                        // SAFETY: these rows and columns of C exist, and the buffer holds the largest tile.
                        unsafe { transpose(s, from.t(), (tile.cols, rows), buffer, (tile.c_row, 1)) };
                    }
                } else {
                    tile.c = c;
                }
                // SAFETY: A, B and C hold these rows, steps of k and columns: `Serial`'s contract, kept by the blocks.
                unsafe { kernel(s, &tile) };
                let done = Done { p, tile: &tile, rows, c, offset: p.offset + place };
                // SAFETY: the kernel has just written the tile, and the epilogue's matrices lie like C.
                unsafe { done.finish::<S, STAGED>(s, rest) };
            }
            if let (Some(Rest::Descend(descent)), true) = (rest, p.first_row && block.i0 + first == 0) {
                // In the first row, the offset of a part of C is its first column.
                let col = p.offset + (block.j0 + j) as isize;
                // SAFETY: B holds these columns, and there is a bias for each.
                unsafe { descend_biases(s, descent, &tile, col) };
            }
            j += width;
        }
    }
}

/// What is left to do after a kernel.
#[derive(Clone, Copy)]
enum Rest<'a> {
    Activate(Activation, *mut f32),
    Derivative(Activation, *const f32),
    Descend(&'a Descent<'a>),
}

/// What the kernel does in registers, and what is left.
#[inline(always)]
fn split(epilogue: Epilogue<'_>, last: bool) -> (Finish, Option<Rest<'_>>) {
    match epilogue {
        _ if !last => (Finish::Keep, None),
        Epilogue::Activate { activation: Activation::Identity, .. } => (Finish::Keep, None),
        Epilogue::Activate { activation: Activation::Relu, .. } => (Finish::Relu, None),
        Epilogue::Activate { activation: Activation::LeakyRelu(slope), before } if before.is_null() => {
            (Finish::Leaky(slope), None)
        }
        Epilogue::Activate { activation, before } => (Finish::Keep, Some(Rest::Activate(activation, before))),
        Epilogue::Derivative { activation: Activation::Identity, .. } => (Finish::Keep, None),
        Epilogue::Derivative { activation, saved } => {
            (Finish::Keep, Some(Rest::Derivative(activation, saved)))
        }
        Epilogue::Descend(descent) => (Finish::Keep, Some(Rest::Descend(descent))),
    }
}

/// A tile whose chains are finished: at `tile.c`, and to be at `c`, which is `offset` from where the epilogue's pointers
/// stand.
struct Done<'a> {
    p: &'a Product<'a>,
    tile: &'a Tile,
    rows: usize,
    c: *mut f32,
    offset: isize,
}

impl Done<'_> {
    /// # Safety
    /// The tile has been written, C and the epilogue's matrices hold its rows and columns.
    #[inline(always)]
    unsafe fn finish<S: Simd, const STAGED: bool>(self, s: S, rest: Option<Rest>) {
        let Done { p, tile, rows, c, offset } = self;
        let cols = tile.cols;
        let from = Operand { ptr: tile.c, row: tile.c_row, col: 1 };
        let contiguous = |p: *mut f32, row: usize| p.wrapping_offset(row as isize * tile.c_row);
        match rest {
            None => {}
            Some(Rest::Activate(activation, before)) => {
                if !before.is_null() {
                    let before = before.wrapping_offset(offset);
                    // SAFETY: the caller's; element (i, j) of the tile goes to where it would go in C.
                    unsafe { transpose(s, from, (rows, cols), before, (p.c_col, p.c_row)) };
                }
                for row in 0..rows {
                    // SAFETY: the kernel has just written these contiguous values.
                    let row = unsafe { std::slice::from_raw_parts_mut(contiguous(tile.c, row), cols) };
                    activate_slice(s, activation, row);
                }
            }
            // Where the tile is staged, C is transposed and the derivative follows below.
            Some(Rest::Derivative(activation, saved)) if !STAGED => {
                let saved = saved.wrapping_offset(offset).cast_mut();
                for row in 0..rows {
                    // SAFETY: the kernel has just written these contiguous values, and as many were saved.
                    let (row, saved) = unsafe {
                        let row_of = |p| std::slice::from_raw_parts_mut(contiguous(p, row), cols);
                        (row_of(tile.c), row_of(saved))
                    };
                    gradient_slice(s, activation, saved, row);
                }
            }
            Some(Rest::Derivative(..)) => {}
            Some(Rest::Descend(descent)) => {
                let (how, grad) = ((descent.rule, descent.scaling), (tile.c.cast_const(), tile.c_row));
                let to = (offset, p.c_row);
                // SAFETY: the weights lie like C; the kernel has just written their gradients.
                unsafe { update_rows(s, how, grad, descent.weights, to, (rows, cols)) };
                return;
            }
        }
        if STAGED {
            // SAFETY: C holds these rows and columns.
            unsafe { transpose(s, from, (rows, cols), c, (p.c_col, p.c_row)) };
            if let Some(Rest::Derivative(activation, saved)) = rest {
                debug_assert!(p.c_row == 1, "a derivative is taken of contiguous matrices only");
                for col in 0..cols {
                    let at = col as isize * p.c_col;
                    // SAFETY: the tile's rows are contiguous in C; they have just been written, and as many were saved.
                    let (column, saved) = unsafe {
                        (
                            std::slice::from_raw_parts_mut(c.wrapping_offset(at), rows),
                            std::slice::from_raw_parts(saved.wrapping_offset(offset + at), rows),
                        )
                    };
                    gradient_slice(s, activation, saved, column);
                }
            }
        }
    }
}

/// Updates the biases of a tile's columns, the first of them `col`: their gradients are the sums of B over ascending k,
/// whose rows the tiles above have brought close.
///
/// # Safety
/// B holds the tile's columns, and there is a bias for each.
#[inline(always)]
unsafe fn descend_biases<S: Simd>(s: S, descent: &Descent, tile: &Tile, col: isize) {
    let mut sums = [0.0_f32; 4 * PANEL];
    let mut j = 0;
    while j < tile.cols {
        let from = tile.b.wrapping_offset((j / PANEL) as isize * tile.b_panel).wrapping_add(j % PANEL);
        let n = tile.cols - j;
        let mut sum = s.splat(0.0);
        for p in 0..tile.k as isize {
            // SAFETY: row p < k of B has these columns.
            sum = s.add(sum, unsafe { load_up_to(s, from.wrapping_offset(p * tile.b_k), n) });
        }
        // SAFETY: a tile has no more columns than `sums`, which is a multiple of every vector.
        unsafe { s.store(sums.as_mut_ptr().add(j), sum) };
        j += S::LANES;
    }
    let how = (descent.rule, descent.scaling);
    // SAFETY: the caller vouches for the biases.
    unsafe { update_rows(s, how, (sums.as_ptr(), 0), descent.biases, (col, 0), (1, tile.cols)) };
}
