//! The product on one thread: blocks over k and n, row panels over m, tiles over both.
//!
//! Blocking over k continues each chain from C, so no block size can change a bit.

use super::activation::Activation;
use super::close::run_close;
use super::pack::{Operand, copied_stride, copy_a, pack_b, packed_len};
use super::scratch::{self, Use};
use super::short::{Turning, one_tile};
use super::stream::Streaming;
use super::sweep::{Block, along_rows};
use super::tile::{PANEL, Start};
use super::update::{Places, Plain, Rule, Scaling};
use crate::buffer::{LINE, PAGE};
use crate::simd::{Body, Core, Simd};

/// Steps of k in a block: long enough that reading and writing C once a block is little (2 of 1024 accesses).
const K_BLOCK: usize = 1024;
/// Steps of k in a block of a B that is read in place and whose rows are a page or more apart. The lines of one column
/// then compete for one 64th of L2's sets, times two for neighbours: 512 lines of 1 MiB in 8 ways.
const K_BLOCK_FAR: usize = 256;
/// Values of A in a block, which stays in L2 while B passes: half of 1 MiB.
const A_BLOCK: usize = 128 * 1024;
/// Values of packed B in a block that many blocks of A pass: it stays in L3 (8 MiB).
const B_BLOCK: usize = 2 * 1024 * 1024;
/// Values of B in a block that stays in L2 (256 KiB): packed, where A passes it once, and for rows of tiles.
const B_BLOCK_ONCE: usize = 64 * 1024;
/// Rows of A from which copying B into panels costs less than it saves: each value of B is then read so often. Some cores do
/// without for longer, where its rows are near.
const PACK_B_ROWS: usize = 384;
/// Steps of k of a panel that stays in L1 (16 KiB), which rows that share its sets would not.
const PANEL_STEPS: usize = 128;
/// Values of a B of more steps that is not worth packing, as it stays in L2 (768 KiB).
const NEAR_B: usize = 192 * 1024;
/// Values between rows of B from which it lies wider than panels do.
const PACK_B_STRIDE: usize = 128;
/// Values of C from which it is far away (2 MiB), and steps of k up to which most of the time is then for writing it: where its
/// rows are half a page apart or more, columns of tiles would come to another page with each row or two.
const FAR_C: usize = 512 * 1024;
const FEW_STEPS: usize = 64;
/// Pages that columns of tiles of C lie in, if B is so small that it may be read once for so many: cores remember the addresses
/// of 64 to 100 of them.
const PAGES: usize = 64;
/// Values between rows of A from which its tiles share too few cache sets, so that copying a block pays on some cores: always when
/// A is transposed, else when the distance is a multiple of this. (On the others when it is transposed, and its lines compete for
/// sets of L2.)
const COPY_A_STRIDE: usize = 512;
/// Columns of C from which it pays.
const COPY_A_COLS: usize = 128;

/// B, in place or in panels.
#[derive(Clone, Copy)]
pub(super) enum Rhs {
    Plain(Operand),
    /// Panels made by `pack_b` for all k rows and n columns; the first column is a multiple of [`PANEL`].
    Packed(*const f32),
}

/// `C = activation(start + alpha A B)` behind pointers.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub alpha: f32,
    pub a: Operand,
    pub b: Rhs,
    pub c_row: isize, // As in an `Operand`.
    pub c: *mut f32,
    pub c_col: isize,
    pub start: Start,
    pub epilogue: Epilogue<'a>,
    /// Elements from where the epilogue's pointers stand to this product's element (0, 0).
    pub offset: isize,
    /// Whether the first row of this product is the first of the whole.
    pub first_row: bool,
    /// Whether it is a part: others may have written next to it, and what lies like C may be in their caches.
    pub is_part: bool,
}

/// What is done to each tile of C when its chains are finished, while it is in registers or in L1. All pointers stand
/// for matrices that lie like C.
#[derive(Clone, Copy)]
pub(super) enum Epilogue<'a> {
    /// `C = activation(C)`; `before` receives what C was before it, unless it is null.
    Activate { activation: Activation, before: *mut f32 },
    /// C is multiplied by the derivative of the activation at what was saved of it.
    Derivative { activation: Activation, saved: *const f32 },
    /// C is the gradient of the weights: they are updated, and C is not stored.
    Descend(&'a Descent<'a>),
}

/// The update that a gradient is used for; and the gradients of the biases, the sums of B over its rows.
pub(super) struct Descent<'a> {
    pub rule: &'a Rule,
    pub scaling: &'a Scaling,
    /// The same, if the update is a plain one.
    pub plain: Option<Plain>,
    pub weights: Places,
    pub biases: Places,
}

// SAFETY: the pointers stand for operands that the caller of the product lends it for as long as it runs; the threads
// that share a `Product` write disjoint parts of C.
unsafe impl Send for Product<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for Product<'_> {}

impl Product<'_> {
    /// The product of the transposes, which has the same chains: the factors of a product may change places. Only for a B
    /// that is not packed.
    #[inline(always)]
    pub(super) fn swapped(&self, b: Operand) -> Self {
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
            ..*self
        }
    }

    /// The part for `m` rows from `row` on and `n` columns from `col` on; a packed B can be read on only from a multiple of
    /// [`PANEL`].
    pub(super) fn part(self, (row, m): (usize, usize), (col, n): (usize, usize)) -> Self {
        let b = match self.b {
            Rhs::Plain(b) => Rhs::Plain(b.at(0, col)),
            Rhs::Packed(b) => Rhs::Packed(b.wrapping_add(col * self.k)),
        };
        let start = match self.start {
            Start::Bias(bias) => Start::Bias(bias.wrapping_add(col)),
            Start::BiasRows(bias) => Start::BiasRows(bias.wrapping_add(row)),
            other => other,
        };
        let c = self.c.wrapping_offset(row as isize * self.c_row + col as isize * self.c_col);
        let offset = self.offset + row as isize * self.c_row + col as isize * self.c_col;
        let first_row = self.first_row && row == 0;
        Product { m, n, a: self.a.at(row, 0), b, c, start, offset, first_row, is_part: true, ..self }
    }
}

/// The product on the calling thread.
///
/// # Safety
/// The operands of the product are valid for its dimensions, and C overlaps neither A nor B.
pub(super) struct Serial<'a>(pub &'a Product<'a>);

impl Body for Serial<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let p = self.0;
        // SAFETY: the contract of `Serial` is that of `one_tile`.
        if unsafe { one_tile(s, p) } {
            return;
        }
        // Most products are none of these: they need not be read by way of a pointer to what they might have become.
        if let (Rhs::Plain(b), true) = (p.b, p.is_swapped::<S>()) {
            let swapped = &p.swapped(b);
            return run_fitting(s, swapped.n, Oriented(swapped));
        }
        if let Some((whole, tail)) = p.without_tail::<S>() {
            if !run_close::<S, false>(s, &whole) {
                s.run_outlined(Oriented(&whole));
            }
            return s.run_outlined(Oriented(&tail));
        }
        if is_half::<S>(p.n) {
            s.half().run_outlined(Oriented(p));
        } else {
            Oriented(p).call(s);
        }
    }
}

/// Whether so many columns fit into half a vector.
#[inline(always)]
pub(super) fn is_half<S: Simd>(n: usize) -> bool {
    n <= S::Half::LANES && S::Half::LANES < S::LANES
}

/// Runs what has so many columns, with half vectors if they fit into one.
#[inline(always)]
pub(super) fn run_fitting<S: Simd>(s: S, n: usize, body: impl Body<Out = ()>) {
    if is_half::<S>(n) {
        s.half().run_outlined(body);
    } else {
        s.run_outlined(body);
    }
}

/// A product whose operands have their roles.
struct Oriented<'a>(&'a Product<'a>);

impl Body for Oriented<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let p = self.0;
        if let Some(streaming) = Streaming::of::<S>(p) {
            return streaming.run(s);
        }
        if let Some(turning) = Turning::of::<S>(p) {
            return s.run_outlined(turning);
        }
        let plan = Plan::new::<S>(p);
        if !(plan.pack_b || plan.copy_a)
            && p.m <= plan.m_most
            && p.k <= plan.k_block
            && p.m.saturating_mul(p.k) <= A_BLOCK
        {
            let (a, b, Product { m, n, k, start, .. }) = (p.a, p.b.columns(p.k, 0, 0), *p);
            Block { p, a, b, i0: 0, j0: 0, m, n, k, start, last: true }.tiles(s);
        } else {
            s.run_outlined(Blocked(p, plan));
        }
    }
}

impl Product<'_> {
    /// Whether B is read where it lies, and not in panels.
    pub(super) fn reads_b_in_place<S: Simd>(&self) -> bool {
        matches!(self.b, Rhs::Plain(_)) && !Plan::new::<S>(self).pack_b
    }

    /// If packing B pays: the columns of it that are packed at once, when threads that take some rows of C each pack them
    /// together.
    #[cfg(feature = "rayon")]
    #[inline(always)]
    pub(super) fn columns_packed<S: Simd>(&self) -> Option<usize> {
        let packs = !self.is_swapped::<S>() && Plan::new::<S>(self).pack_b;
        let most = B_BLOCK / self.k.max(1) / PANEL * PANEL;
        (packs && most > 0).then(|| balanced(self.n, most, PANEL))
    }
}

/// Which operands of a product are copied before they are read, and in what blocks.
#[derive(Clone, Copy)]
struct Plan {
    pack_b: bool,
    copy_a: bool,
    /// The most rows of a block, so that its part of C stays close.
    m_most: usize,
    /// The most steps of k in a block.
    k_block: usize,
}

impl Plan {
    #[inline(always)]
    fn new<S: Simd>(p: &Product) -> Plan {
        // A step of a tile of lines takes longer.
        let slow_sets = S::LANES < LINE && Core::current().slow_sets;
        let far = || match (p.a.row.unsigned_abs(), p.a.col.unsigned_abs()) {
            (row, 1) => row.is_multiple_of(COPY_A_STRIDE) && Core::current().copies_a,
            (1, col) if Core::current().copies_a => col >= COPY_A_STRIDE,
            (1, col) if slow_sets && col.is_multiple_of(COPY_A_STRIDE) => true,
            // Lines on as many pages as there are steps: more than one set of L2 takes, or read again for many columns.
            (row, col) => {
                let again = p.k >= PANEL_STEPS && p.k.saturating_mul(p.n) > B_BLOCK_ONCE;
                row == 1 && col >= PAGE && (p.k > K_BLOCK_FAR || again)
            }
        };
        let copy_a = p.alpha != 1.0 || (p.n >= COPY_A_COLS && far());
        let (pack_b, k_block) = match p.b {
            Rhs::Plain(b) if b.col == 1 => {
                let row = b.row.unsigned_abs().max(1);
                let near = p.k > PANEL_STEPS && p.k.saturating_mul(p.n) <= NEAR_B;
                let rows = || match Core::current().pack_rows {
                    rows if row.is_multiple_of(LINE) => rows,
                    rows => rows / 4 * 3, // Vectors of such rows lie across two lines.
                };
                let pack = if slow_sets && row.is_multiple_of(PAGE) {
                    // Tiles that read it often enough for what copying takes, from L3 or from memory.
                    let tiles = if p.k.saturating_mul(p.n) <= B_BLOCK { 2 } else { 5 };
                    p.m > tiles * S::TILE_ROWS
                } else {
                    p.m >= PACK_B_ROWS && row >= PACK_B_STRIDE && !near && (row >= PAGE || p.m >= rows())
                };
                (pack, if pack { K_BLOCK } else { (K_BLOCK_FAR * (PAGE / row).max(1)).min(K_BLOCK) })
            }
            Rhs::Plain(_) => (true, K_BLOCK),
            Rhs::Packed(_) => (false, K_BLOCK),
        };
        let c_row = p.c_row.unsigned_abs().max(1);
        // What an optimizer remembers lies like C: up to four times as much passes, and is updated along rows.
        let far_c = |least| c_row >= PAGE / 2 && p.m.saturating_mul(p.n) >= least;
        let (by_rows, passes) = match p.epilogue {
            Epilogue::Descend(descent) if descent.plain.is_none() => {
                let long = p.n >= 4 * PANEL && along_rows(p);
                (p.k <= 2 * FEW_STEPS && (long || far_c(FAR_C / 4)), 4)
            }
            _ => (p.k <= FEW_STEPS && far_c(FAR_C), 1),
        };
        let m_most = if by_rows {
            S::TILE_ROWS // C is written row of tiles by row of tiles.
        } else if p.k.saturating_mul(p.n) <= B_BLOCK_ONCE {
            PAGES / passes * (PAGE / c_row).max(1)
        } else {
            usize::MAX
        };
        Plan { pack_b, copy_a, m_most, k_block }
    }
}

/// A product in blocks: those of B and A that are read again and again lie in caches.
struct Blocked<'a>(&'a Product<'a>, Plan);

impl Body for Blocked<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Blocked(p, plan) = self;
        // A gradient that is not stored cannot be gone on with.
        let whole = matches!(p.epilogue, Epilogue::Descend(_));
        let k_block = if whole { p.k.max(1) } else { balanced(p.k, plan.k_block, 1) };
        let a_row = if plan.copy_a { copied_stride(k_block) } else { k_block };
        let m_block = balanced(p.m, plan.m_most.min(A_BLOCK / a_row), S::TILE_ROWS);
        let once = p.m <= m_block;
        let b_block = if once && !plan.pack_b {
            usize::MAX // All of A passes a B in place once, and what comes next is asked for ahead, but not across blocks.
        } else if once || p.m > plan.m_most {
            B_BLOCK_ONCE
        } else {
            B_BLOCK
        };
        let n_block = balanced(p.n, b_block / k_block, PANEL);
        let len_b = if plan.pack_b { packed_len(k_block, n_block) } else { 0 };
        let len_a = if plan.copy_a { m_block * a_row } else { 0 };
        let mut buffer = scratch::take(Use::Blocks, len_a + len_b);
        let (b_scratch, a_scratch) = buffer.split_at_mut(len_b);
        // At least once: without any k, C is still the start value, activated.
        for k0 in (0..p.k.max(1)).step_by(k_block) {
            let k = k_block.min(p.k - k0);
            for j0 in (0..p.n).step_by(n_block) {
                let n = n_block.min(p.n - j0);
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
                        let (stride, ptr) = (copied_stride(k), a_scratch.as_ptr());
                        // A block that is all of A is still there from the columns before.
                        if j0 == 0 || m < p.m {
                            // SAFETY: A is readable for m rows and k columns, and this block lies inside them.
                            unsafe { copy_a(s, p.alpha, a, m, k, a_scratch) };
                        }
                        a = Operand { ptr, row: stride as isize, col: 1 };
                    }
                    let start = match p.start {
                        _ if k0 > 0 => Start::Scaled(1.0),
                        Start::Bias(bias) => Start::Bias(bias.wrapping_add(j0)),
                        Start::BiasRows(bias) => Start::BiasRows(bias.wrapping_add(i0)),
                        other => other,
                    };
                    Block { p, a, b, i0, j0, m, n, k, start, last: k0 + k == p.k }.tiles(s);
                }
            }
        }
        scratch::give_back(Use::Blocks, buffer);
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

/// Columns of B as a tile reads them; see the contract of [`Tile`](super::tile::Tile).
#[derive(Clone, Copy)]
pub(super) struct Columns {
    pub ptr: *const f32,
    pub k: isize,
    pub panel: isize,
}

impl Columns {
    /// Column `j` of the first row.
    #[inline(always)]
    pub(super) fn at(self, j: usize) -> *const f32 {
        self.ptr.wrapping_offset((j / PANEL) as isize * self.panel).wrapping_add(j % PANEL)
    }
}

impl Rhs {
    /// The columns from row `k0` and column `j0` on (a multiple of [`PANEL`]), of a B of `k` rows.
    #[inline(always)]
    pub(super) fn columns(self, k: usize, k0: usize, j0: usize) -> Columns {
        match self {
            Rhs::Plain(b) => Columns { ptr: b.at(k0, j0).ptr, k: b.row, panel: PANEL as isize },
            Rhs::Packed(b) => Columns {
                ptr: b.wrapping_add(j0 * k + k0 * PANEL),
                k: PANEL as isize,
                panel: (PANEL * k) as isize,
            },
        }
    }

    /// The columns from `j` on, of a B of `k` rows, as an operand; of a packed one, as far as they lie in the same panel.
    #[inline(always)]
    pub(super) fn operand(self, k: usize, j: usize) -> Operand {
        match self {
            Rhs::Plain(b) => b.at(0, j),
            Rhs::Packed(_) => Operand { ptr: self.columns(k, 0, 0).at(j), row: PANEL as isize, col: 1 },
        }
    }
}
