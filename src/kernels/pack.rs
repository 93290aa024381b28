//! Copies of operands, made where reading them in place would be slow or impossible.

use super::tile::PANEL;
use crate::simd::{Body, Simd};

/// Rows of B that are copied into one panel after the other: what is written then lies together, and what is read is still
/// read in a few streams.
const PACK_ROWS: usize = 8;

/// Values that packing `k` x `n` of B takes.
pub(crate) fn packed_len(k: usize, n: usize) -> usize {
    k * n.next_multiple_of(PANEL)
}

/// A strided matrix behind a pointer. (Strides next to each other would be copied from a view as one vector, which waits until both have
/// been written to L1.)
#[derive(Clone, Copy)]
pub(super) struct Operand {
    pub row: isize,
    pub ptr: *const f32,
    pub col: isize,
}

impl Operand {
    /// The operand whose element (0, 0) is element (i, j) of this one.
    #[inline(always)]
    pub(super) fn at(self, i: usize, j: usize) -> Operand {
        let ptr = self.ptr.wrapping_offset(i as isize * self.row + j as isize * self.col);
        Operand { ptr, ..self }
    }

    /// The transpose.
    #[inline(always)]
    pub(super) fn t(self) -> Operand {
        Operand { row: self.col, col: self.row, ..self }
    }
}

/// Copies `k` x `n` of B into panels of [`PANEL`] columns, row after row in each. What the last panel has beyond them is not said: no
/// kernel reads it.
///
/// # Safety
/// `b` is readable for `k` rows and `n` columns.
#[inline(always)]
pub(super) unsafe fn pack_b<S: Simd>(s: S, b: Operand, k: usize, n: usize, out: &mut [f32]) {
    let out = &mut out[..packed_len(k, n)];
    if b.col != 1 {
        for (panel, out) in out.chunks_exact_mut(k.max(1) * PANEL).enumerate() {
            let (from, cols) = (b.at(0, panel * PANEL).t(), (n - panel * PANEL).min(PANEL));
            // SAFETY: the panel's columns of B are readable, and `out` holds k rows of PANEL values.
            unsafe { transpose_padded(s, from, (cols, k), out.as_mut_ptr(), PANEL as isize) };
        }
        return;
    }
    for p0 in (0..k).step_by(PACK_ROWS) {
        let rows = PACK_ROWS.min(k - p0);
        for j in (0..n).step_by(PANEL) {
            let to = &mut out[(j / PANEL * k + p0) * PANEL..][..rows * PANEL];
            for (p, to) in to.chunks_exact_mut(PANEL).enumerate() {
                let from = b.at(p0 + p, j).ptr;
                for v in (0..PANEL).step_by(S::LANES) {
                    let cols = n - j;
                    // SAFETY: row p < k has `cols` columns from j on; the panel's row has PANEL.
                    unsafe {
                        if v + S::LANES <= cols {
                            s.store(to.as_mut_ptr().add(v), s.load(from.wrapping_add(v)));
                        } else if v < cols {
                            let mask = s.first(cols - v);
                            s.store_first(
                                to.as_mut_ptr().add(v),
                                mask,
                                s.load_first(from.wrapping_add(v), mask),
                            );
                        }
                    }
                }
            }
        }
    }
}

/// [`pack_b`] for whatever instruction set it is dispatched to.
pub(super) struct Pack<'a> {
    b: Operand,
    shape: (usize, usize),
    out: &'a mut [f32],
}

impl<'a> Pack<'a> {
    /// # Safety
    /// `b` is readable for so many rows and columns.
    #[inline(always)]
    pub(super) unsafe fn new(b: Operand, shape: (usize, usize), out: &'a mut [f32]) -> Self {
        Pack { b, shape, out }
    }
}

impl Body for Pack<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let (k, n) = self.shape;
        // SAFETY: the contract of `new`.
        unsafe { pack_b(s, self.b, k, n, self.out) }
    }
}

/// Writes `rows` x `cols` of `from` to `to`, where element (i, j) goes to `to[j * strides.0 + i * strides.1]`: by vectors
/// where both sides are contiguous, the one way or the other, one by one elsewhere.
///
/// # Safety
/// The elements of `from` are readable and their places in `to` writable.
#[inline(always)]
pub(super) unsafe fn transpose<S: Simd>(
    s: S,
    from: Operand,
    shape: (usize, usize),
    to: *mut f32,
    strides: (isize, isize),
) {
    // SAFETY: the caller's.
    unsafe { transpose_rows::<S, false>(s, from, shape, to, strides) }
}

/// Writes `rows` x `cols` of `from` as columns of rows `row` apart, each of which has room for whole vectors: what is written after `rows`
/// values is not said.
///
/// # Safety
/// The elements of `from` are readable, and so many rows of `to` writable, of `rows` values rounded up to whole vectors.
#[inline(always)]
pub(super) unsafe fn transpose_padded<S: Simd>(
    s: S,
    from: Operand,
    shape: (usize, usize),
    to: *mut f32,
    row: isize,
) {
    // SAFETY: the caller's.
    unsafe { transpose_rows::<S, true>(s, from, shape, to, (row, 1)) }
}

/// # Safety
/// As for [`transpose`] and, if `PADDED`, [`transpose_padded`].
#[inline(always)]
unsafe fn transpose_rows<S: Simd, const PADDED: bool>(
    s: S,
    from: Operand,
    (rows, cols): (usize, usize),
    to: *mut f32,
    strides: (isize, isize),
) {
    let place = |i: usize, j: usize| to.wrapping_offset(j as isize * strides.0 + i as isize * strides.1);
    let mut i = 0;
    if from.col == 1 && strides.1 == 1 && rows > 1 && cols > 1 {
        while i < rows {
            let mut j = 0;
            while j < cols {
                let block = (S::LANES.min(rows - i), S::LANES.min(cols - j));
                let (from, row, to) = (from.at(i, j).ptr, from.row, place(i, j));
                // SAFETY: this block lies inside of what the caller vouches for.
                unsafe {
                    if PADDED {
                        s.transpose_padded(block, from, row, to, strides.0);
                    } else {
                        s.transpose(block, from, row, to, strides.0);
                    }
                }
                j += S::LANES;
            }
            i += S::LANES;
        }
        return;
    }
    while i < rows {
        for j in 0..cols {
            // SAFETY: element (i, j) is one of those that the caller vouches for.
            unsafe { *place(i, j) = *from.at(i, j).ptr };
        }
        i += 1;
    }
}

/// Values from one row of a copied block of A to the next: whole cache lines and one more, so that the rows of a tile
/// do not share a cache set.
pub(super) fn copied_stride(k: usize) -> usize {
    k.next_multiple_of(32) + 16
}

/// Copies `rows` x `k` of `alpha * A` to rows [`copied_stride`] apart.
///
/// # Safety
/// `a` is readable for `rows` rows and `k` columns.
#[inline(always)]
pub(super) unsafe fn copy_a<S: Simd>(s: S, alpha: f32, a: Operand, rows: usize, k: usize, out: &mut [f32]) {
    let stride = copied_stride(k);
    let out = &mut out[..rows * stride];
    if a.col != 1 {
        // SAFETY: these elements of A are readable, and `out` holds `rows` rows of at least k values.
        unsafe { transpose(s, a.t(), (k, rows), out.as_mut_ptr(), (stride as isize, 1)) };
    }
    for (i, to) in out.chunks_exact_mut(stride).enumerate() {
        if a.col == 1 {
            // SAFETY: row i < rows has k contiguous columns.
            to[..k].copy_from_slice(unsafe { std::slice::from_raw_parts(a.at(i, 0).ptr, k) });
        }
        // One rounding of alpha * a.
        if alpha != 1.0 {
            for value in &mut to[..k] {
                *value *= alpha;
            }
        }
    }
}
