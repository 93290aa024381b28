//! The product on one thread: blocks over n and k, row panels over m, tiles over both.
//!
//! Blocking over k continues each chain from C, so no block size can change a bit.

use super::activation::Activation;
use super::elementwise::activate_slice;
use super::pack::{Operand, copy_a, pack_b, packed_len};
use super::scratch::with_scratch;
use super::tile::{Finish, PANEL, Start, Tile, kernel, vectors_for};
use crate::simd::{Body, Simd};

/// Steps of k in a block: long enough that reading and writing C once a block is little (2 of 1024 accesses).
const K_BLOCK: usize = 1024;
/// Values of B in a block: half of a 1 MiB L2.
const B_BLOCK: usize = 128 * 1024;
/// Rows of A from which copying B into panels costs less than it saves (each value of B is then read so often).
const PACK_B_ROWS: usize = 192;
/// Bytes of B's row from which its rows lie in so many pages that a large product should pack it.
const PACK_B_STRIDE: usize = 512;
/// Values between rows of A from which they share cache sets and pages, so that copying a row panel pays.
const COPY_A_STRIDE: usize = 512;

/// B, in place or in panels.
#[derive(Clone, Copy)]
pub(super) enum Rhs {
    Plain(Operand),
    /// Panels made by `pack_b` for all k rows and n columns; the first column is a multiple of [`PANEL`].
    Packed(*const f32),
}

/// `C = activation(start + alpha A B)` behind pointers.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub alpha: f32,
    pub a: Operand,
    pub b: Rhs,
    pub c: *mut f32,
    pub c_row: isize,
    pub c_col: isize,
    pub start: Start,
    pub activation: Activation,
}

// SAFETY: the pointers stand for operands that the caller of the product lends it for as long as it runs; the threads
// that share a `Product` write disjoint parts of C.
unsafe impl Send for Product {}
// SAFETY: as for `Send`.
unsafe impl Sync for Product {}

impl Product {
    /// The part for `m` rows from `row` on and `n` columns from `col` on; `col` is a multiple of [`PANEL`].
    #[cfg(feature = "rayon")]
    pub(super) fn part(self, (row, m): (usize, usize), (col, n): (usize, usize)) -> Product {
        let b = match self.b {
            Rhs::Plain(b) => Rhs::Plain(b.at(0, col)),
            Rhs::Packed(b) => Rhs::Packed(b.wrapping_add(col * self.k)),
        };
        let start = match self.start {
            Start::Bias(bias) => Start::Bias(bias.wrapping_add(col)),
            other => other,
        };
        let c = self
            .c
            .wrapping_offset(row as isize * self.c_row + col as isize * self.c_col);
        Product {
            m,
            n,
            a: self.a.at(row, 0),
            b,
            c,
            start,
            ..self
        }
    }
}

/// The product on the calling thread.
///
/// # Safety
/// The operands of the product are valid for its dimensions, and C overlaps neither A nor B.
pub(super) struct Serial(pub Product);

impl Body for Serial {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let p = self.0;
        let k_block = p.k.div_ceil(p.k.div_ceil(K_BLOCK).max(1)).max(1);
        let n_block = (B_BLOCK / k_block / PANEL * PANEL)
            .max(PANEL)
            .min(p.n.next_multiple_of(PANEL));
        let staged = p.c_col != 1;
        let pack = match p.b {
            Rhs::Plain(b) => b.col != 1 || (p.m >= PACK_B_ROWS && b.row.unsigned_abs() >= PACK_B_STRIDE),
            Rhs::Packed(_) => false,
        };
        let copy = p.alpha != 1.0 || (p.n >= 128 && p.a.row.unsigned_abs() >= COPY_A_STRIDE);

        let panel_rows = S::TILE_ROWS.min(p.m);
        let len_b = if pack { packed_len(k_block, n_block) } else { 0 };
        let len_a = if copy {
            (panel_rows * k_block).next_multiple_of(16)
        } else {
            0
        };
        let len_c = if staged { panel_rows * n_block } else { 0 };
        let run = |scratch: &mut [f32]| {
            let (b_scratch, rest) = scratch.split_at_mut(len_b);
            let (a_scratch, c_scratch) = rest.split_at_mut(len_a);
            let mut block = Block {
                p,
                packed: None,
                k0: 0,
                kc: 0,
                j0: 0,
                nc: 0,
                copy,
                staged,
            };
            for j0 in (0..p.n).step_by(n_block) {
                (block.j0, block.nc) = (j0, n_block.min(p.n - j0));
                let mut k0 = 0;
                // At least once: without any k, C is still the start value, activated.
                loop {
                    (block.k0, block.kc) = (k0, k_block.min(p.k - k0));
                    if let (Rhs::Plain(b), true) = (p.b, pack) {
                        if block.kc > 0 {
                            // SAFETY: B is readable for k rows and n columns, and this block lies inside them.
                            unsafe { pack_b(b.at(k0, j0), block.kc, block.nc, b_scratch) };
                        }
                        block.packed = Some(b_scratch.as_ptr());
                    }
                    let mut i0 = 0;
                    while i0 < p.m {
                        let rows = S::TILE_ROWS.min(p.m - i0);
                        block.row_panel(s, i0, rows, a_scratch, c_scratch);
                        i0 += rows;
                    }
                    k0 += block.kc;
                    if k0 >= p.k {
                        break;
                    }
                }
            }
        };
        match len_a + len_b + len_c {
            0 => run(&mut []),
            len => with_scratch(len, run),
        }
    }
}

/// One block of k and n of a product.
struct Block {
    p: Product,
    packed: Option<*const f32>,
    k0: usize,
    kc: usize,
    j0: usize,
    nc: usize,
    copy: bool,
    staged: bool,
}

impl Block {
    /// `rows` rows of C from `i0` on: all tiles of this block.
    #[inline(always)]
    fn row_panel<S: Simd>(&self, s: S, i0: usize, rows: usize, a_scratch: &mut [f32], c_scratch: &mut [f32]) {
        let (p, last) = (&self.p, self.k0 + self.kc == self.p.k);
        let mut a = p.a.at(i0, self.k0);
        if self.copy && self.kc > 0 {
            // SAFETY: rows i0.. and steps k0.. of A exist; the scratch was sized for a whole row panel.
            a = unsafe { copy_a(p.alpha, a, rows, self.kc, a_scratch) };
        }
        let c =
            p.c.wrapping_offset(i0 as isize * p.c_row + self.j0 as isize * p.c_col);
        let start = match (self.k0, p.start) {
            (0, Start::Bias(bias)) => Start::Bias(bias.wrapping_add(self.j0)),
            (0, start) => start,
            _ => Start::Scaled(1.0),
        };
        let finish = match (last, p.activation) {
            (true, Activation::Relu) => Finish::Relu,
            (true, Activation::LeakyRelu(slope)) => Finish::Leaky(slope),
            _ => Finish::Keep,
        };
        let (c_tile, c_row) = if self.staged {
            if matches!(start, Start::Scaled(_)) {
                self.for_each_staged(c, rows, c_scratch, |staged, c| *staged = *c);
            }
            (c_scratch.as_mut_ptr(), self.nc as isize)
        } else {
            (c, p.c_row)
        };
        let (b_k, b_panel) = match (self.packed, p.b) {
            (Some(_), _) => (PANEL as isize, (PANEL * self.kc) as isize),
            (None, Rhs::Packed(_)) => (PANEL as isize, (PANEL * p.k) as isize),
            (None, Rhs::Plain(b)) => (b.row, PANEL as isize),
        };
        let mut tile = Tile {
            k: self.kc,
            a: a.ptr,
            a_row: a.row,
            a_k: a.col,
            b: std::ptr::null(),
            b_k,
            b_panel,
            c: c_tile,
            c_row,
            cols: 0,
            start,
            finish,
        };
        let widest = vectors_for::<S>(rows);
        let width = widest * S::LANES;
        let whole = kernel::<S>(rows, widest, true);
        let mut j = 0;
        while j < self.nc {
            tile.cols = width.min(self.nc - j);
            tile.c = c_tile.wrapping_add(j);
            if let Start::Bias(bias) = start {
                tile.start = Start::Bias(bias.wrapping_add(j));
            }
            tile.b = match (self.packed, p.b) {
                (Some(b), _) => b.wrapping_add(j / PANEL * PANEL * self.kc + j % PANEL),
                (None, Rhs::Plain(b)) => b.at(self.k0, self.j0 + j).ptr,
                (None, Rhs::Packed(b)) => {
                    let col = self.j0 + j;
                    b.wrapping_add(col / PANEL * PANEL * p.k + self.k0 * PANEL + col % PANEL)
                }
            };
            let chosen = if tile.cols == width {
                whole
            } else {
                let vectors = tile.cols.div_ceil(S::LANES).next_power_of_two();
                kernel::<S>(rows, vectors, tile.cols == vectors * S::LANES)
            };
            // SAFETY: A, B and C hold these rows, steps of k and columns: `Serial`'s contract, kept by the blocks.
            unsafe { chosen(s, &tile) };
            j += tile.cols;
        }
        let in_registers = matches!(
            p.activation,
            Activation::Identity | Activation::Relu | Activation::LeakyRelu(_)
        );
        if last && !in_registers {
            for i in 0..rows {
                let row = c_tile.wrapping_offset(i as isize * c_row);
                // SAFETY: the tiles above have just written these nc contiguous values.
                let row = unsafe { std::slice::from_raw_parts_mut(row, self.nc) };
                activate_slice(s, p.activation, row);
            }
        }
        if self.staged {
            self.for_each_staged(c, rows, c_scratch, |staged, c| *c = *staged);
        }
    }

    /// Visits each element of a row panel of C together with its place in the staging buffer.
    #[inline(always)]
    fn for_each_staged(&self, c: *mut f32, rows: usize, staged: &mut [f32], f: impl Fn(&mut f32, &mut f32)) {
        for (i, row) in staged.chunks_exact_mut(self.nc).take(rows).enumerate() {
            for (j, value) in row.iter_mut().enumerate() {
                let c = c.wrapping_offset(i as isize * self.p.c_row + j as isize * self.p.c_col);
                // SAFETY: element (i, j) of this row panel of C exists, and no other reference to it does.
                f(value, unsafe { &mut *c });
            }
        }
    }
}
