//! The ways in which a microkernel reads a B whose columns are contiguous over k: it transposes them on the way.

use std::mem::MaybeUninit;

use super::microkernel::{Chains, each_row};
use super::reads::Reads;
use crate::buffer::{CacheLine, LINE};
use crate::simd::Simd;

/// By way of memory, a few steps ahead of their use. (16 columns at most: more would be more streams than the hardware foresees.)
pub(super) struct Transposing;
/// So many times four steps in registers; A is contiguous over k as well. If it `ASKS`, the next line of each column is asked for.
pub(super) struct InRegisters<const FOURS: usize, const ASKS: bool>;
/// Eight steps (there are as many) in registers, while those before are used, to wait in a buffer: for tiles that leave no registers to keep
/// them in.
pub(super) struct Ahead;

impl Reads for Transposing {
    const TRANSPOSES: bool = true;

    #[inline(always)]
    unsafe fn steps<S: Simd, const ROWS: usize, const NV: usize>(chains: &mut Chains<'_, S, Self, ROWS, NV>) {
        let (s, t) = (chains.s, chains.tile);
        // Rows of a block of steps, and of the next.
        let mut rows = MaybeUninit::<[[CacheLine; LINE]; 2]>::uninit();
        let whole = t.cols == NV * S::LANES;
        if !whole {
            rows.write([[CacheLine::ZERO; LINE]; 2]); // The lanes that no column fills.
        }
        chains.b_k = (NV * S::LANES) as isize;
        let rows: *mut f32 = rows.as_mut_ptr().cast();
        let mut at = 0;
        while at < t.k {
            let steps = S::LANES.min(t.k - at);
            for j in 0..NV {
                let cols = t.cols.saturating_sub(j * S::LANES).min(S::LANES);
                let (from, to) = from_to(chains, at, j, rows);
                // SAFETY: these columns exist for these steps; a block holds LANES rows of whole vectors.
                unsafe { s.transpose_padded((cols, steps), from, t.b_panel, to, chains.b_k) };
            }
            // SAFETY: the first of these blocks has been transposed.
            unsafe {
                if whole {
                    at = in_between::<S, _, ROWS, NV, false>(chains, at, rows);
                } else if const { S::LANES == LINE && NV == 1 } {
                    at = in_between::<S, _, ROWS, NV, true>(chains, at, rows);
                }
            }
            chains.b = block::<S>(rows, at);
            // SAFETY: so many are left, or in the block.
            unsafe { chains.steps(S::LANES.min(t.k - at)) };
            at += S::LANES;
        }
    }
}

/// Steps of whole blocks, each transposed in parts between the multiply-adds of the one before, and where the last of them begins, whose
/// steps are not done. The multiply-adds wait for each other: transposed after them, a block would be further away than a core looks ahead.
///
/// # Safety
/// The columns fill all vectors or, if `PADDED`, some lanes of a single one. The block at `at` has been transposed to `rows`.
#[inline(always)]
unsafe fn in_between<S: Simd, R: Reads, const ROWS: usize, const NV: usize, const PADDED: bool>(
    chains: &mut Chains<'_, S, R, ROWS, NV>,
    mut at: usize,
    rows: *mut f32,
) -> usize {
    let (s, t) = (chains.s, chains.tile);
    let parts = const { S::LANES.div_ceil(2) };
    let cols = if PADDED { t.cols } else { S::LANES };
    let mut between = MaybeUninit::<[CacheLine; LINE]>::uninit();
    while t.k - at >= 2 * S::LANES {
        chains.b = block::<S>(rows, at);
        at += S::LANES;
        macro_rules! part {
            ($($part:literal)+) => {
                $(if $part < parts {
                    for j in 0..NV {
                        let between = between.as_mut_ptr().cast::<f32>().wrapping_add(j * S::LANES * S::LANES);
                        let (shape, (from, to)) = ((cols, S::LANES), from_to(chains, at, j, rows));
                        // SAFETY: these columns exist for these steps; a block holds LANES rows of whole vectors.
                        unsafe { s.transpose_part::<PADDED>($part, shape, from, t.b_panel, between, to, chains.b_k) };
                    }
                    // SAFETY: the block has these steps.
                    unsafe { chains.steps(S::LANES / parts) };
                })+
            };
        }
        part!(0 1 2 3 4 5 6 7);
    }
    at
}

/// The rows of the block of steps from `at` on, of two that take turns.
#[inline(always)]
fn block<S: Simd>(rows: *mut f32, at: usize) -> *mut f32 {
    rows.wrapping_add(at / S::LANES % 2 * LINE * LINE)
}

/// Where the columns of vector `j` lie from a step on, and where its rows go.
#[inline(always)]
fn from_to<S: Simd, R: Reads, const ROWS: usize, const NV: usize>(
    chains: &Chains<'_, S, R, ROWS, NV>,
    at: usize,
    j: usize,
    rows: *mut f32,
) -> (*const f32, *mut f32) {
    let t = chains.tile;
    let from = t.b.wrapping_offset((j * S::LANES) as isize * t.b_panel).wrapping_add(at);
    (from, block::<S>(rows, at).wrapping_add(j * S::LANES))
}

impl<const FOURS: usize, const ASKS: bool> Reads for InRegisters<FOURS, ASKS> {
    const WHOLE: bool = true;
    const IN_REGISTERS: bool = true;

    #[inline(always)]
    unsafe fn steps<S: Simd, const ROWS: usize, const NV: usize>(chains: &mut Chains<'_, S, Self, ROWS, NV>) {
        let (s, t) = (chains.s, chains.tile);
        let steps = const { 4 * FOURS };
        let mut from = columns(chains);
        for from in &mut from {
            *from = s.held(*from);
        }
        let mut left = t.k;
        while left >= steps {
            // SAFETY: there are as many steps.
            unsafe { block_in_registers(chains, from, 0) };
            for from in &mut from {
                *from = s.held(from.wrapping_add(steps));
            }
            chains.move_a(steps as isize);
            left -= steps;
        }
        if left > 0 && t.k > steps {
            // Transposed together with those before, which are done.
            let done = steps - left;
            for from in &mut from {
                *from = s.held(from.wrapping_sub(done));
            }
            chains.move_a(-(done as isize));
            // SAFETY: there are as many steps, counted from there.
            unsafe { block_in_registers(chains, from, done) };
        } else if left > 0 {
            let mut rows = MaybeUninit::<[[CacheLine; 4]; LINE]>::uninit();
            chains.b = rows.as_mut_ptr().cast();
            chains.b_k = (NV * S::LANES) as isize;
            for (j, from) in from.into_iter().enumerate() {
                let to = rows.as_mut_ptr().cast::<f32>().wrapping_add(j * S::LANES);
                // SAFETY: as above; no more than LANES steps of at most four vectors are no more values than the buffer has.
                unsafe { s.transpose((S::LANES, left), from, t.b_panel, to, chains.b_k) };
            }
            // SAFETY: these steps are there.
            unsafe { chains.steps(left) };
        }
    }
}

/// So many steps of all columns, but for the `first` ones.
///
/// # Safety
/// There are 4 * `FOURS` steps of k from where A's pointers and `from`, the columns of B, stand.
#[allow(clippy::needless_range_loop, reason = "loops over constant bounds are unrolled")]
#[inline(always)]
unsafe fn block_in_registers<
    S: Simd,
    const FOURS: usize,
    const ASKS: bool,
    const ROWS: usize,
    const NV: usize,
>(
    chains: &mut Chains<'_, S, InRegisters<FOURS, ASKS>, ROWS, NV>,
    from: [*const f32; NV],
    first: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        if const { FOURS == 2 && S::LANES == LINE } {
            // Two vectors at once, for as many values of A.
            if NV == 1 {
                eight_steps(chains, [from[0]], 0, first);
            } else {
                eight_steps(chains, [from[0], from[1]], 0, first);
            }
            if NV > 2 {
                eight_steps(chains, [from[2]], 2, first);
            }
        } else {
            // Two loops: the compiler unrolls one of four vectors too late to keep the sums in registers.
            for j in 0..NV.min(2) {
                by_fours(chains, from[j], j, first);
            }
            for j in 2..NV {
                by_fours(chains, from[j], j, first);
            }
        }
    }
}

/// The same of vector `j`, four steps after the other.
///
/// # Safety
/// As for [`block_in_registers`].
#[allow(clippy::needless_range_loop, reason = "loops over constant bounds are unrolled")]
#[inline(always)]
unsafe fn by_fours<S: Simd, const FOURS: usize, const ASKS: bool, const ROWS: usize, const NV: usize>(
    chains: &mut Chains<'_, S, InRegisters<FOURS, ASKS>, ROWS, NV>,
    from: *const f32,
    j: usize,
    first: usize,
) {
    let (s, b_panel) = (chains.s, chains.tile.b_panel);
    for four in 0..FOURS {
        // SAFETY: these columns exist for these steps.
        let columns = unsafe { s.columns(from.wrapping_add(4 * four), b_panel) };
        if ASKS {
            let share = S::LANES / FOURS;
            for i in four * share..(four + 1) * share {
                s.prefetch(from.wrapping_offset(i as isize * b_panel).wrapping_add(LINE));
            }
        }
        for p in 0..4 {
            if 4 * four + p >= first {
                each_row!(i, {
                    // SAFETY: the caller's.
                    let a = unsafe { chains.a(i, 4 * four + p) };
                    chains.acc[i][j] = s.fma(a, columns[p], chains.acc[i][j]);
                });
            }
        }
    }
}

/// The same of `N` vectors from `j` on, in eight steps.
///
/// # Safety
/// As for [`block_in_registers`].
#[allow(clippy::needless_range_loop, reason = "loops over constant bounds are unrolled")]
#[inline(always)]
unsafe fn eight_steps<S: Simd, R: Reads, const ROWS: usize, const NV: usize, const N: usize>(
    chains: &mut Chains<'_, S, R, ROWS, NV>,
    from: [*const f32; N],
    j: usize,
    first: usize,
) {
    let (s, b_panel) = (chains.s, chains.tile.b_panel);
    let mut columns = [[s.splat(0.0); 8]; N];
    for (columns, from) in columns.iter_mut().zip(from) {
        // SAFETY: these columns exist for these steps.
        *columns = unsafe { s.eight_columns(from, b_panel) };
    }
    chains.move_a(0); // What is read of A for these is not kept for the next.
    for p in 0..8 {
        if p >= first {
            each_row!(i, {
                // SAFETY: the caller's.
                let a = unsafe { chains.a(i, p) };
                for v in 0..N {
                    chains.acc[i][j + v] = s.fma(a, columns[v][p], chains.acc[i][j + v]);
                }
            });
        }
    }
}

impl Reads for Ahead {
    const WHOLE: bool = true;
    const IN_REGISTERS: bool = true;

    #[inline(always)]
    unsafe fn steps<S: Simd, const ROWS: usize, const NV: usize>(chains: &mut Chains<'_, S, Self, ROWS, NV>) {
        let t = chains.tile;
        debug_assert!(t.k >= 8, "there are steps enough to transpose at once");
        let mut rows = MaybeUninit::<[[[CacheLine; NV]; 8]; 2]>::uninit();
        let mut now: *mut f32 = rows.as_mut_ptr().cast();
        let mut then = now.wrapping_add(8 * NV * S::LANES);
        chains.b_k = (NV * S::LANES) as isize;
        let from = columns(chains);
        for (j, &from) in from.iter().enumerate() {
            // SAFETY: there are eight steps; the buffer holds them.
            unsafe { eight_rows(chains, from, now, j) };
        }
        chains.b = now;
        // As many steps pass between two vectors. (Written out, they would take more registers than there are.)
        const { assert!(8 % NV == 0) };
        let part = std::hint::black_box(8 / NV);
        let mut at = 0;
        let mut left = 8;
        while t.k - at > 8 {
            // The last eight may begin with steps that are done by then.
            let next = (at + 8).min(t.k - 8);
            let done = at + 8 - next;
            for (j, from) in from.iter().enumerate() {
                // SAFETY: eight steps from `next` on exist, and as many are in the buffer.
                unsafe {
                    eight_rows(chains, from.wrapping_add(next), then, j);
                    chains.steps(part);
                }
            }
            (now, then) = (then, now);
            chains.b = now.wrapping_offset(done as isize * chains.b_k);
            at = next;
            left = 8 - done;
        }
        // SAFETY: so many are left in the buffer.
        unsafe { chains.steps(left) };
    }
}

/// Writes eight steps of vector `j`, whose columns are read from `from` on, to rows of a buffer.
///
/// # Safety
/// These steps can be read; `to` has room for `NV` lines of each.
#[inline(always)]
unsafe fn eight_rows<S: Simd, R: Reads, const ROWS: usize, const NV: usize>(
    chains: &Chains<'_, S, R, ROWS, NV>,
    from: *const f32,
    to: *mut f32,
    j: usize,
) {
    let (s, b_k) = (chains.s, chains.b_k);
    // SAFETY: the caller's; no vector is longer than a line.
    unsafe {
        for (p, column) in (0..).zip(s.eight_columns(s.held(from), chains.tile.b_panel)) {
            s.store(to.wrapping_offset(p * b_k).wrapping_add(j * S::LANES), column);
        }
    }
}

/// Where the columns of each vector begin.
#[inline(always)]
fn columns<S: Simd, R: Reads, const ROWS: usize, const NV: usize>(
    chains: &Chains<'_, S, R, ROWS, NV>,
) -> [*const f32; NV] {
    let t = chains.tile;
    let mut columns = [t.b; NV];
    for (j, column) in columns.iter_mut().enumerate() {
        *column = t.b.wrapping_offset(chains.col(j) as isize * t.b_panel);
    }
    columns
}
