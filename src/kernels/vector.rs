//! Vectors from and to slices: the safe way in and out for passes over memory.

use crate::simd::Simd;

/// The values of `xs` from `i` on, as many as a vector has and the slice holds; lanes past its end are 0.
#[inline(always)]
pub(super) fn read<S: Simd>(s: S, xs: &[f32], i: usize) -> S::V {
    let rest = &xs[i..];
    if rest.len() >= S::LANES {
        // SAFETY: the slice holds a whole vector.
        unsafe { s.load(rest.as_ptr()) }
    } else {
        // SAFETY: the mask is true for no more lanes than the slice holds.
        unsafe { s.load_first(rest.as_ptr(), s.first(rest.len())) }
    }
}

/// Writes to `xs` from `i` on; lanes past its end go nowhere.
#[inline(always)]
pub(super) fn write<S: Simd>(s: S, xs: &mut [f32], i: usize, v: S::V) {
    let rest = &mut xs[i..];
    if rest.len() >= S::LANES {
        // SAFETY: the slice holds a whole vector.
        unsafe { s.store(rest.as_mut_ptr(), v) }
    } else {
        // SAFETY: the mask is true for no more lanes than the slice holds.
        unsafe { s.store_first(rest.as_mut_ptr(), s.first(rest.len()), v) }
    }
}

/// The first `n` values at `p`, as many as a vector has; the other lanes are 0.
///
/// # Safety
/// `p` is valid for reads of that many values.
#[inline(always)]
pub(super) unsafe fn load_up_to<S: Simd>(s: S, p: *const f32, n: usize) -> S::V {
    // SAFETY: the caller's. The branch is worth it: whole vectors are the rule, and masked stores slow on some CPUs.
    unsafe { if n >= S::LANES { s.load(p) } else { s.load_first(p, s.first(n)) } }
}

/// Writes the first `n` lanes to `p`, as many as a vector has.
///
/// # Safety
/// `p` is valid for writes of that many values.
#[inline(always)]
pub(super) unsafe fn store_up_to<S: Simd>(s: S, p: *mut f32, n: usize, v: S::V) {
    // SAFETY: as for `load_up_to`.
    unsafe { if n >= S::LANES { s.store(p, v) } else { s.store_first(p, s.first(n), v) } }
}

/// More lanes than any instruction set has.
pub(super) const MOST_LANES: usize = 64;

/// The lanes of a vector, one by one; what is beyond them is 0.
#[inline(always)]
pub(super) fn lanes<S: Simd>(s: S, v: S::V) -> [f32; MOST_LANES] {
    let mut lanes = [0.0; MOST_LANES];
    write(s, &mut lanes, 0, v);
    lanes
}
