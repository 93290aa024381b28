//! The operands of one tile of C, which a [microkernel](super::microkernel) holds in registers over the whole of k.
//!
//! Contract. Row `i` of A at step `p` is `a[i * a_row + p * a_k]`. Row `p` of B starts at `b + p * b_k`; its columns
//! lie in panels of [`PANEL`] contiguous values, one panel `b_panel` after the other (`b_panel == PANEL` when B is read
//! in place). Row `i` of C starts at `c + i * c_row` and is contiguous. The tile is `ROWS` x `NV` vectors, of which the
//! first `cols` columns exist: those of the first half of the vectors among them or, where the last vector ends with the last
//! column, those of all others. Nothing else is read or written. Each element is one chain of fused multiply-adds over
//! ascending p, from `start`: tile shape and vector width cannot change a bit.

use super::pack::Operand;
use super::update::Plain;
use crate::simd::Simd;

/// Columns in a panel of packed B: the width of the highest tile of the widest instruction set, a multiple of all others but
/// that of three vectors, which reads B in place only.
pub(super) const PANEL: usize = 32;

/// Where the chains of a tile begin.
#[derive(Clone, Copy)]
pub(super) enum Start {
    /// At zero: C is not read.
    Zero,
    /// At one value for each column: C is not read.
    Bias(*const f32),
    /// At one value for each row: C is not read.
    BiasRows(*const f32),
    /// At this multiple of C.
    Scaled(f32),
}

/// What is done to the finished chains while they are still in registers.
#[derive(Clone, Copy)]
pub(super) enum Finish<'a> {
    /// Nothing.
    Keep,
    /// `x <= 0 ? slope * x : x`.
    Leaky(f32),
    /// `x <= 0 ? 0 : x`.
    Relu,
    /// `y <= 0 ? 0 : x`, where the y lie here as the tile does in C.
    Gate(*const f32),
    /// `c - rate * (scale * x)`: C holds weights, and x is their gradient. (Behind a reference: two small values side by side
    /// would be copied as one vector, which waits until both have been written to L1.)
    Descend(&'a Plain),
}

/// Columns of B as a tile reads them; see the contract above.
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

/// `weight + negative_rate * (scale * x)`.
#[inline(always)]
pub(super) fn descended<S: Simd>(s: S, (scale, negative_rate): (S::V, S::V), x: S::V, weight: S::V) -> S::V {
    s.fma(negative_rate, s.mul(x, scale), weight)
}

/// The operands of one tile; see the contract above. (Pointers first, then strides: next to each other they would be copied
/// from an operand as one vector, which waits until the operand itself has been written to L1.)
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub k: usize,
    pub a: *const f32,
    pub b: *const f32,
    pub c: *mut f32,
    pub a_row: isize,
    pub b_k: isize,
    pub c_row: isize,
    pub a_k: isize,
    pub b_panel: isize,
    /// Where the next tile of C starts, and how far apart its rows are: so many of its rows are asked for while this tile
    /// is computed, one in each of the first steps of k.
    pub c_next: *const f32,
    pub c_next_row: isize,
    pub c_ahead: usize,
    /// A row of the columns of B that come next. From there on, so many rows are asked for, likewise, if they come from
    /// beyond L2; and after these, where vectors are lines, so many more in one of so many steps each. `k` has all these steps.
    pub b_next: *const f32,
    pub b_ahead: usize,
    pub b_turns: usize,
    pub b_every: usize,
    /// From a row of B to the one that is asked for while its step is computed: out of L2, and far apart, the hardware does
    /// not bring them in time everywhere.
    pub b_soon: isize,
    pub cols: usize,
    pub start: Start,
    pub finish: Finish<'a>,
}

impl<'a> Tile<'a> {
    /// So many columns of C, with nothing asked for that might come next.
    #[inline(always)]
    pub(super) fn alone(
        a: Operand,
        k: usize,
        b: Columns,
        (c, c_row, cols): (*mut f32, isize, usize),
        start: Start,
        finish: Finish<'a>,
    ) -> Self {
        Tile {
            k,
            a: a.ptr,
            a_row: a.row,
            a_k: a.col,
            b: b.ptr,
            b_k: b.k,
            b_panel: b.panel,
            c,
            c_row,
            c_next: c,
            c_next_row: 0,
            c_ahead: 0,
            b_next: b.ptr,
            b_ahead: 0,
            b_turns: 0,
            b_every: 0,
            b_soon: 0,
            cols,
            start,
            finish,
        }
    }
}
