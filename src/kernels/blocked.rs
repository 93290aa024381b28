//! A product in blocks over k and n, and row panels over m: those of B and A that are read again and again lie in caches, and some are
//! copied.
//!
//! Blocking over k continues each chain from C, so no block size can change a bit.

use super::pack::{Operand, copied_stride, copy_a, pack_b, packed_len};
use super::product::{Epilogue, Product, Rhs};
use super::scratch::{self, Use};
use super::sweep::{Block, along_rows};
use super::tile::{PANEL, Start};
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

/// Computes a product whose operands have their roles: in one block, if nothing is copied.
#[inline(always)]
pub(super) fn in_blocks<S: Simd>(s: S, p: &Product) {
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
