//! The product on one thread: blocks over n and k, row panels over m, tiles over both.
//!
//! Blocking over k continues each chain from C, so no block size can change a bit.

use super::activation::Activation;
use super::elementwise::activate_slice;
use super::pack::{Operand, copied_stride, copy_a, pack_b, packed_len, transpose};
use super::scratch;
use super::tile::{Finish, PANEL, Start, Tile, kernel, vectors_for};
use crate::simd::{Body, Simd};

/// Steps of k in a block: long enough that reading and writing C once a block is little (2 of 1024 accesses).
const K_BLOCK: usize = 1024;
/// Values of A in a block, which stays in L2 while B passes: half of 1 MiB.
const A_BLOCK: usize = 128 * 1024;
/// Values of packed B in a block, which stays in L3: 8 MiB.
const B_BLOCK: usize = 2 * 1024 * 1024;
/// Rows of A from which copying B into panels costs less than it saves (each value of B is then read so often).
const PACK_B_ROWS: usize = 192;
/// Values between rows of B from which they lie in so many pages that a large product should pack it.
const PACK_B_STRIDE: usize = 512;
/// Values between rows of A from which they may share cache sets, so that copying a block pays.
const COPY_A_STRIDE: usize = 512;
/// Columns of C from which it pays.
const COPY_A_COLS: usize = 128;
/// Rows and columns of the largest tile: what is staged of a C whose rows are not contiguous.
const STAGED: usize = 12 * 2 * PANEL;

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
    /// This product, or the one of the transposes, `C^T = B^T A^T`, whichever takes less time on vectors of `lanes`. Both
    /// have the same chains: the factors of a product may change places.
    #[inline(always)]
    fn oriented(self, lanes: usize) -> Product {
        let Rhs::Plain(b) = self.b else { return self };
        // A row-major product of some width has nothing to gain.
        if self.alpha != 1.0 || (b.col == 1 && self.c_col == 1 && self.n >= lanes) {
            return self;
        }
        // Multiply-adds of vectors, and half of one for each element that is transposed on the way.
        let (m, n, k) = (self.m as f64, self.n as f64, self.k as f64);
        let time = |m: f64, n: f64, transpose_b: bool, transpose_c: bool| {
            let moved = if transpose_b { n * k } else { 0.0 } + if transpose_c { m * n } else { 0.0 };
            m * k * (n / lanes as f64).ceil() + 0.5 * moved
        };
        if time(m, n, b.col != 1, self.c_col != 1) <= time(n, m, self.a.row != 1, self.c_row != 1) {
            return self;
        }
        Product {
            m: self.n,
            n: self.m,
            a: b.t(),
            b: Rhs::Plain(self.a.t()),
            c_row: self.c_col,
            c_col: self.c_row,
            start: match self.start {
                Start::Bias(bias) => Start::BiasRows(bias),
                other => other,
            },
            ..self
        }
    }

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
        let c = self.c.wrapping_offset(row as isize * self.c_row + col as isize * self.c_col);
        Product { m, n, a: self.a.at(row, 0), b, c, start, ..self }
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
        let p = self.0.oriented(S::LANES);
        let plan = Plan::new(&p);
        if plan.in_place() && p.k <= K_BLOCK && p.m.saturating_mul(p.k) <= A_BLOCK {
            let b = p.b.columns(p.k, 0, 0);
            Block {
                a: p.a,
                b,
                c: p.c,
                m: p.m,
                n: p.n,
                k: p.k,
                start: p.start,
                activation: p.activation,
                p: &p,
            }
            .tiles(s, &mut []);
        } else {
            s.run_outlined(Blocked(p, plan));
        }
    }
}

/// Which operands of a product are copied before they are read, and whether C is written by way of a buffer.
#[derive(Clone, Copy)]
struct Plan {
    pack_b: bool,
    copy_a: bool,
    stage_c: bool,
}

impl Plan {
    #[inline(always)]
    fn new(p: &Product) -> Plan {
        let far = p.a.col == 1 && p.a.row.unsigned_abs() >= COPY_A_STRIDE;
        Plan {
            pack_b: match p.b {
                Rhs::Plain(b) => b.col != 1 || (p.m >= PACK_B_ROWS && b.row.unsigned_abs() >= PACK_B_STRIDE),
                Rhs::Packed(_) => false,
            },
            copy_a: p.alpha != 1.0 || (p.n >= COPY_A_COLS && far),
            stage_c: p.c_col != 1,
        }
    }

    #[inline(always)]
    fn in_place(self) -> bool {
        !(self.pack_b || self.copy_a || self.stage_c)
    }
}

/// A product in blocks: those of B and A that are read again and again lie in caches.
struct Blocked(Product, Plan);

impl Body for Blocked {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Blocked(p, plan) = self;
        let k_block = balanced(p.k, K_BLOCK, 1);
        let m_block = balanced(p.m, A_BLOCK / k_block, S::TILE_ROWS);
        let n_block = balanced(p.n, B_BLOCK / k_block, PANEL);
        let len_b = if plan.pack_b { packed_len(k_block, n_block) } else { 0 };
        let len_a = if plan.copy_a { m_block * copied_stride(k_block) } else { 0 };
        let len_c = if plan.stage_c { STAGED } else { 0 };
        let mut buffer = scratch::take(len_a + len_b + len_c);
        let (b_scratch, rest) = buffer.as_mut_slice().split_at_mut(len_b);
        let (a_scratch, staged) = rest.split_at_mut(len_a);
        for j0 in (0..p.n).step_by(n_block) {
            let n = n_block.min(p.n - j0);
            // At least once: without any k, C is still the start value, activated.
            for k0 in (0..p.k.max(1)).step_by(k_block) {
                let k = k_block.min(p.k - k0);
                let b = match p.b {
                    Rhs::Plain(b) if plan.pack_b => {
                        // SAFETY: B is readable for k rows and n columns, and this block lies inside them.
                        unsafe { pack_b(s, b.at(k0, j0), k, n, b_scratch) };
                        Rhs::Packed(b_scratch.as_ptr()).columns(k, 0, 0)
                    }
                    b => b.columns(p.k, k0, j0),
                };
                for i0 in (0..p.m).step_by(m_block) {
                    let m = m_block.min(p.m - i0);
                    let mut a = p.a.at(i0, k0);
                    if plan.copy_a {
                        // SAFETY: A is readable for m rows and k columns, and this block lies inside them.
                        a = unsafe { copy_a(p.alpha, a, m, k, a_scratch) };
                    }
                    let start = match p.start {
                        _ if k0 > 0 => Start::Scaled(1.0),
                        Start::Bias(bias) => Start::Bias(bias.wrapping_add(j0)),
                        Start::BiasRows(bias) => Start::BiasRows(bias.wrapping_add(i0)),
                        other => other,
                    };
                    let activation = if k0 + k == p.k { p.activation } else { Activation::Identity };
                    let c = p.c.wrapping_offset(i0 as isize * p.c_row + j0 as isize * p.c_col);
                    Block { a, b, c, m, n, k, start, activation, p: &p }.tiles(s, staged);
                }
            }
        }
        scratch::give_back(buffer);
    }
}

/// The size of equal blocks of `len`, at most `most` and multiples of `unit`; never 0.
#[inline(always)]
fn balanced(len: usize, most: usize, unit: usize) -> usize {
    let most = (most / unit).max(1) * unit;
    if len <= most {
        return len.next_multiple_of(unit).max(unit);
    }
    len.div_ceil(len.div_ceil(most)).next_multiple_of(unit)
}

/// Columns of B as a tile reads them; see the contract of [`Tile`].
#[derive(Clone, Copy)]
struct Columns {
    ptr: *const f32,
    k: isize,
    panel: isize,
}

impl Rhs {
    /// The columns from row `k0` and column `j0` on (a multiple of [`PANEL`]), of a B of `k` rows.
    #[inline(always)]
    fn columns(self, k: usize, k0: usize, j0: usize) -> Columns {
        match self {
            Rhs::Plain(b) => Columns { ptr: b.at(k0, j0).ptr, k: b.row, panel: PANEL as isize },
            Rhs::Packed(b) => Columns {
                ptr: b.wrapping_add(j0 * k + k0 * PANEL),
                k: PANEL as isize,
                panel: (PANEL * k) as isize,
            },
        }
    }
}

/// One block of a product: its part of each operand, and what is done to its part of C.
struct Block<'a> {
    a: Operand,
    b: Columns,
    c: *mut f32,
    m: usize,
    n: usize,
    k: usize,
    start: Start,
    activation: Activation,
    p: &'a Product,
}

impl Block<'_> {
    /// All tiles: those of full height, then those of the rows that remain. `staged` is a buffer for one tile, for a C
    /// whose rows are not contiguous.
    #[inline(always)]
    fn tiles<S: Simd>(&self, s: S, staged: &mut [f32]) {
        let tall = self.m / S::TILE_ROWS * S::TILE_ROWS;
        for (first, end, rows) in [(0, tall, S::TILE_ROWS), (tall, self.m, self.m - tall)] {
            if first == end {
                continue;
            }
            let buffer = staged.as_mut_ptr();
            if staged.is_empty() {
                s.run_outlined(Sweep::<false> { block: self, first, end, rows, buffer });
            } else {
                s.run_outlined(Sweep::<true> { block: self, first, end, rows, buffer });
            }
        }
    }
}

/// The tiles of `rows` rows in a range of rows of a block, column by column, so that a panel of B stays close while A
/// passes; with `STAGED` by way of a buffer of [`STAGED`] values.
struct Sweep<'a, const STAGED: bool> {
    block: &'a Block<'a>,
    first: usize,
    end: usize,
    rows: usize,
    buffer: *mut f32,
}

impl<const STAGED: bool> Body for Sweep<'_, STAGED> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Sweep { block, first, end, rows, buffer } = self;
        let widest = vectors_for::<S>(rows);
        let width = widest * S::LANES;
        let (c_row, c_col) = (block.p.c_row, block.p.c_col);
        let (finish, activate) = match block.activation {
            Activation::Identity => (Finish::Keep, false),
            Activation::Relu => (Finish::Relu, false),
            Activation::LeakyRelu(slope) => (Finish::Leaky(slope), false),
            _ => (Finish::Keep, true),
        };
        let mut tile = Tile {
            k: block.k,
            a: block.a.ptr,
            a_row: block.a.row,
            a_k: block.a.col,
            b: block.b.ptr,
            b_k: block.b.k,
            b_panel: block.b.panel,
            c: buffer,
            c_row,
            c_next: buffer,
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
            let panel = (j / PANEL) as isize * block.b.panel;
            tile.b = block.b.ptr.wrapping_offset(panel).wrapping_add(j % PANEL);
            if let Start::Bias(bias) = block.start {
                tile.start = Start::Bias(bias.wrapping_add(j));
            }
            let mut i = first;
            while i < end {
                tile.a = block.a.at(i, 0).ptr;
                if let Start::BiasRows(bias) = block.start {
                    tile.start = Start::BiasRows(bias.wrapping_add(i));
                }
                let c = block.c.wrapping_offset(i as isize * c_row + j as isize * c_col);
                let in_c = Operand { ptr: c, row: c_row, col: c_col };
                if STAGED {
                    tile.c_row = tile.cols.next_multiple_of(S::LANES) as isize;
                    if let Start::Scaled(_) = tile.start {
                        // SAFETY: these rows and columns of C exist, and the buffer holds the largest tile.
                        unsafe { transpose(s, in_c.t(), (tile.cols, rows), buffer, (tile.c_row, 1)) };
                    }
                } else {
                    (tile.c, tile.c_next) = (c, c.wrapping_offset(rows as isize * c_row));
                }
                // SAFETY: A, B and C hold these rows, steps of k and columns: `Serial`'s contract, kept by the blocks.
                unsafe { kernel(s, &tile) };
                if activate {
                    for row in 0..rows {
                        let row = tile.c.wrapping_offset(row as isize * tile.c_row);
                        // SAFETY: the kernel has just written these contiguous values.
                        let row = unsafe { std::slice::from_raw_parts_mut(row, tile.cols) };
                        activate_slice(s, block.activation, row);
                    }
                }
                if STAGED {
                    let from = Operand { ptr: buffer, row: tile.c_row, col: 1 };
                    // SAFETY: as above, the other way round.
                    unsafe { transpose(s, from, (rows, tile.cols), c, (c_col, c_row)) };
                }
                i += rows;
            }
            j += width;
        }
    }
}
