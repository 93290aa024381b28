//! Copies of operands, made where reading them in place would be slow or impossible.

use super::tile::PANEL;

/// Values that packing `k` x `n` of B takes.
pub(crate) fn packed_len(k: usize, n: usize) -> usize {
    k * n.next_multiple_of(PANEL)
}

/// A strided matrix behind a pointer.
#[derive(Clone, Copy)]
pub(super) struct Operand {
    pub ptr: *const f32,
    pub row: isize,
    pub col: isize,
}

impl Operand {
    /// The operand whose element (0, 0) is element (i, j) of this one.
    #[inline(always)]
    pub(super) fn at(self, i: usize, j: usize) -> Operand {
        let ptr = self
            .ptr
            .wrapping_offset(i as isize * self.row + j as isize * self.col);
        Operand { ptr, ..self }
    }
}

/// Copies `k` x `n` of B into panels of [`PANEL`] columns, row after row in each; the last panel is filled up with
/// zeros, which no kernel ever stores.
///
/// # Safety
/// `b` is readable for `k` rows and `n` columns.
pub(super) unsafe fn pack_b(b: Operand, k: usize, n: usize, out: &mut [f32]) {
    for (panel, out) in out[..packed_len(k, n)].chunks_exact_mut(k * PANEL).enumerate() {
        let cols = (n - panel * PANEL).min(PANEL);
        let source = b.at(0, panel * PANEL);
        if cols < PANEL {
            out.fill(0.0);
        }
        if b.col == 1 {
            for (p, row) in out.chunks_exact_mut(PANEL).enumerate() {
                // SAFETY: row p < k has n contiguous columns, of which this panel has `cols`.
                let values = unsafe { std::slice::from_raw_parts(source.at(p, 0).ptr, cols) };
                row[..cols].copy_from_slice(values);
            }
        } else {
            // Sixteen rows at a time: as many cache lines of the panel as stay in L1 while a column is read.
            for (block, rows) in out.chunks_mut(16 * PANEL).enumerate() {
                for j in 0..cols {
                    for (p, row) in rows.chunks_exact_mut(PANEL).enumerate() {
                        // SAFETY: row 16 * block + p < k and column j < cols exist.
                        row[j] = unsafe { *source.at(16 * block + p, j).ptr };
                    }
                }
            }
        }
    }
}

/// Copies `rows` x `k` of `alpha * A` to where a tile reads it well, and returns it as an operand: rows stay rows if A's
/// are contiguous, otherwise step after step of k.
///
/// # Safety
/// `a` is readable for `rows` rows and `k` columns; `out` holds `rows * k` values.
#[inline(always)]
pub(super) unsafe fn copy_a(alpha: f32, a: Operand, rows: usize, k: usize, out: &mut [f32]) -> Operand {
    let out = &mut out[..rows * k];
    let ptr = out.as_ptr();
    // One rounding of alpha * a; by 1 it is none.
    if a.col == 1 {
        for (i, row) in out.chunks_exact_mut(k).enumerate() {
            // SAFETY: row i < rows has k contiguous columns.
            let values = unsafe { std::slice::from_raw_parts(a.at(i, 0).ptr, k) };
            for (to, from) in row.iter_mut().zip(values) {
                *to = alpha * from;
            }
        }
        Operand {
            ptr,
            row: k as isize,
            col: 1,
        }
    } else {
        for (p, step) in out.chunks_exact_mut(rows).enumerate() {
            for (i, to) in step.iter_mut().enumerate() {
                // SAFETY: row i < rows and column p < k exist.
                *to = alpha * unsafe { *a.at(i, p).ptr };
            }
        }
        Operand {
            ptr,
            row: 1,
            col: rows as isize,
        }
    }
}
