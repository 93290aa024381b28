//! What is done to a tile whose chains are finished: by the kernel, in registers, or after it, in L1.

use std::mem::MaybeUninit;

use super::activation::Activation;
use super::elementwise::{activate_slice, gradient_slice};
use super::pack::{Operand, transpose};
use super::product::{Descent, Epilogue, Product};
use super::reduce::add_columns;
use super::tile::{Columns, Finish, PANEL, Start, Tile, descended};
use super::update::update_rows;
use super::vector::{load_up_to, store_up_to};
use crate::buffer::{CacheLine, LINE};
use crate::simd::Simd;

/// Values in the largest tile: what is staged of a C whose rows are not contiguous, or that is not stored at all.
pub(super) const BUFFER: usize = 12 * 2 * PANEL;

/// What is left to do after a kernel.
#[derive(Clone, Copy)]
pub(super) enum Rest<'a> {
    Activate(Activation, *mut f32),
    Derivative(Activation, *const f32),
    Descend(&'a Descent<'a>),
}

impl<'a> Rest<'a> {
    /// What is left to do if the kernel does nothing.
    #[inline(always)]
    pub(super) fn all(epilogue: Epilogue<'a>) -> Option<Rest<'a>> {
        match epilogue {
            Epilogue::Activate { activation: Activation::Identity, .. }
            | Epilogue::Derivative { activation: Activation::Identity, .. } => None,
            Epilogue::Activate { activation, before } => Some(Rest::Activate(activation, before)),
            Epilogue::Derivative { activation, saved } => Some(Rest::Derivative(activation, saved)),
            Epilogue::Descend(descent) => Some(Rest::Descend(descent)),
        }
    }
}

/// What the kernel does in registers, and what is left.
#[inline(always)]
pub(super) fn split<'a>(p: &Product<'a>, last: bool) -> (Finish<'a>, Option<Rest<'a>>) {
    if !last {
        return (Finish::Keep, None);
    }
    let rest = Rest::all(p.epilogue);
    match rest {
        Some(Rest::Activate(Activation::Relu, _)) => (Finish::Relu, None),
        Some(Rest::Activate(Activation::LeakyRelu(slope), before)) if before.is_null() => {
            (Finish::Leaky(slope), None)
        }
        Some(Rest::Derivative(Activation::Relu, saved)) if p.c_col == 1 => {
            (Finish::Gate(saved.wrapping_offset(p.offset)), None)
        }
        Some(Rest::Descend(descent)) => (descent.plain.as_ref().map_or(Finish::Keep, Finish::Descend), rest),
        _ => (Finish::Keep, rest),
    }
}

/// A tile whose chains are finished: at `tile.c`, and to be at `c`, which is `offset` from where the epilogue's pointers
/// stand.
pub(super) struct Done<'a> {
    pub p: &'a Product<'a>,
    pub tile: &'a Tile<'a>,
    pub rows: usize,
    pub c: *mut f32,
    pub offset: isize,
}

impl Done<'_> {
    /// Before the kernel: where the chains of a staged tile begin in C, they are brought to it. What was saved for it is asked for: a
    /// line from each of many rows, which would be waited for after the kernel.
    ///
    /// # Safety
    /// C holds the tile's rows and columns, and so does what is at `tile.c`.
    #[inline(always)]
    pub(super) unsafe fn begin<S: Simd>(&self, s: S, staged: bool) {
        let Done { p, tile, rows, offset, .. } = *self;
        if let (true, Epilogue::Derivative { saved, .. }) = (staged, p.epilogue) {
            // The tile above has brought the lines in which this one begins.
            let last = offset + (rows - 1) as isize * p.c_row;
            for col in 0..tile.cols as isize {
                s.prefetch(saved.wrapping_offset(last + col * p.c_col));
            }
        }
        if let (true, Start::Scaled(_)) = (staged, tile.start) {
            // SAFETY: the caller's.
            unsafe { self.stage(s, self.c, tile.c) };
        }
    }

    /// Brings the tile's elements of what lies like C to where they lie as in the tile.
    ///
    /// # Safety
    /// `from` holds the tile's rows and columns as C does, `to` as `tile.c` does.
    #[inline(always)]
    unsafe fn stage<S: Simd>(&self, s: S, from: *const f32, to: *mut f32) {
        let Done { p, tile, rows, .. } = *self;
        let from = Operand { ptr: from, row: p.c_row, col: p.c_col };
        // SAFETY: the caller's.
        unsafe { transpose(s, from.t(), (tile.cols, rows), to, (tile.c_row, 1)) };
    }

    /// What is left to do; staged tiles go to C only now.
    ///
    /// # Safety
    /// The tile has been written, C and the epilogue's matrices hold its rows and columns.
    #[inline(always)]
    pub(super) unsafe fn finish<S: Simd>(&self, s: S, rest: Option<Rest>, staged: bool) {
        let Done { p, tile, rows, c, offset } = *self;
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
            Some(Rest::Derivative(activation, saved)) => {
                let mut lying = MaybeUninit::<[CacheLine; BUFFER / LINE]>::uninit();
                let mut saved = saved.wrapping_offset(offset);
                if staged {
                    let to: *mut f32 = lying.as_mut_ptr().cast();
                    // SAFETY: as many were saved as the tile has, and the buffer holds the largest tile.
                    unsafe { self.stage(s, saved, to) };
                    saved = to;
                }
                for row in 0..rows {
                    // SAFETY: the kernel has just written these contiguous values, and as many were saved.
                    let (row, saved) = unsafe {
                        (
                            std::slice::from_raw_parts_mut(contiguous(tile.c, row), cols),
                            std::slice::from_raw_parts(contiguous(saved.cast_mut(), row), cols),
                        )
                    };
                    gradient_slice(s, activation, saved, row);
                }
            }
            Some(Rest::Descend(_)) => unreachable!("a descent has a sweep of its own"),
        }
        if staged {
            // SAFETY: C holds these rows and columns.
            unsafe { transpose(s, from, (rows, cols), c, (p.c_col, p.c_row)) };
        }
    }
}

/// Columns whose biases are updated at once, at most.
pub(super) const BIASES: usize = 4 * PANEL;

/// Updates the biases of `cols` columns, the first of them `col` and B's the first: their gradients are the sums of B's `k`
/// rows in ascending order, which the tiles above have brought close.
///
/// # Safety
/// B holds these rows and columns, at most [`BIASES`], and there is a bias for each.
#[inline(always)]
pub(super) unsafe fn descend_biases<S: Simd>(
    s: S,
    descent: &Descent,
    b: Columns,
    (k, cols): (usize, usize),
    col: isize,
) {
    let mut sums = MaybeUninit::<[CacheLine; BIASES / LINE]>::uninit();
    let sums: *mut f32 = sums.as_mut_ptr().cast();
    // SAFETY: the caller vouches for B; there is room for BIASES sums, a multiple of every vector.
    unsafe { add_columns::<S, true>(s, b, (k, cols), sums) };
    // SAFETY: the caller vouches for the biases; their gradients have just been written.
    unsafe {
        if let Some(plain) = &descent.plain {
            let how = (s.splat(plain.scale), s.splat(-plain.rate));
            for j in (0..cols).step_by(S::LANES) {
                let (bias, n) = (descent.biases.weights.wrapping_offset(col).wrapping_add(j), cols - j);
                let sum = s.load(sums.wrapping_add(j));
                store_up_to(s, bias, n, descended(s, how, sum, load_up_to(s, bias, n)));
            }
        } else {
            let how = (descent.rule, descent.scaling);
            update_rows(s, how, (sums.cast_const(), 0), descent.biases, (col, 0), (1, cols));
        }
    }
}
