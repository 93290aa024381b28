//! What a product is, behind pointers: its operands, where its chains begin, and what is done to them when they are finished.

use super::activation::Activation;
use super::pack::Operand;
use super::tile::{Columns, PANEL, Start};
use super::update::{Places, Plain, Rule, Scaling};

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

    /// Whether rows of C are contiguous, a single column being so whatever its stride, and A is taken as it is.
    #[inline(always)]
    pub(super) fn as_it_lies(&self) -> bool {
        (self.c_col == 1 || self.n == 1) && self.alpha == 1.0
    }

    /// Whether rows of B are contiguous, likewise.
    #[inline(always)]
    pub(super) fn in_place(&self, b: Operand) -> bool {
        b.col == 1 || self.n == 1
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
