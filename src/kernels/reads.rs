//! The ways in which a microkernel reads a B whose rows are contiguous: in place or in panels. (Others are in [`by_columns`](super::by_columns).)

use super::microkernel::{Chains, each_row};
use crate::buffer::{LINE, PAGE};
use crate::simd::Simd;

/// How a kernel reads B. Types, not numbers, because a profile shows their names.
pub(super) trait Reads: Sized {
    /// Of each vector all columns exist.
    const WHOLE: bool = false;
    /// The last vector ends with the last column, and may have some of the one before.
    const ENDS: bool = false;
    /// B lies by columns, each contiguous over k and `b_panel` after the one before, and they go through a buffer.
    const TRANSPOSES: bool = false;
    /// B lies likewise, and is transposed in registers. (The last vector ends with the last column.)
    const IN_REGISTERS: bool = false;

    /// All steps of k: row after row of B, unless it lies otherwise.
    ///
    /// # Safety
    /// The tile's operands are as its contract says, and no step has been done.
    #[inline(always)]
    unsafe fn steps<S: Simd, const ROWS: usize, const NV: usize>(chains: &mut Chains<'_, S, Self, ROWS, NV>) {
        // SAFETY: the caller's.
        unsafe { by_rows(chains) }
    }
}

/// All columns of the tile exist.
pub(super) struct Whole;
/// They do as the last vector [`ends`](Reads::ENDS) with them: no masks, which on 16 registers take those of sums. B is read in place, or is
/// one panel.
pub(super) struct Ending;
/// Those of the first half of its vectors do.
pub(super) struct Masked;

impl Reads for Whole {
    const WHOLE: bool = true;
}

impl Reads for Ending {
    const WHOLE: bool = true;
    const ENDS: bool = true;
}

impl Reads for Masked {}

/// Steps of k from which four of them move the pointers into A once, where the registers allow it: a core that runs two
/// threads takes in half as many instructions for each. With fewer, one more loop to leave takes longer than that saves.
const MANY: usize = 16;
/// Values between rows of B up to which they do: a page. (Further apart they lost up to a third: by measurement, the cause is
/// not known.)
const NEAR: isize = PAGE as isize;

/// # Safety
/// As for [`Reads::steps`].
#[inline(always)]
unsafe fn by_rows<S: Simd, R: Reads, const ROWS: usize, const NV: usize>(
    chains: &mut Chains<'_, S, R, ROWS, NV>,
) {
    let t = chains.tile;
    // Four steps at once. (Small tiles are as many kernels again, and rarely have so many steps.)
    let fours = const { S::TILE_ROWS > 6 && R::WHOLE && NV <= 3 && ROWS * NV >= 12 };
    let fours = fours && t.a_k == 1 && t.b_k <= NEAR;
    // Rows of C from far away, one after the other, are more lines than a core can wait for at once.
    let spread = fours && t.k >= MANY + 4 * t.c_ahead + t.b_ahead;
    let (c_ahead, c_later) = if spread { (0, t.c_ahead) } else { (t.c_ahead.min(t.k), 0) };
    let b_ahead = t.b_ahead.min(t.k - c_ahead);
    let (mut b_next, mut c_next) = (t.b_next, t.c_next);
    // SAFETY: no more steps than there are; what is asked for need not be readable.
    unsafe {
        for _ in 0..c_ahead {
            ask_for_b(chains);
            ask_for_row(chains, &mut c_next, t.c_next_row);
            chains.step();
        }
        for _ in 0..b_ahead {
            ask_for_next(chains, &mut b_next);
            chains.step();
        }
        let mut left = t.k - c_ahead - b_ahead;
        if const { S::LANES == LINE } {
            for _ in 0..t.b_turns {
                ask_for_next(chains, &mut b_next);
                chains.step();
                for _ in 0..t.b_every - 1 {
                    ask_for_b(chains);
                    chains.step();
                }
                left -= t.b_every;
            }
        }
        if fours && left >= MANY {
            left = by_fours(chains, left, &mut c_next, c_later);
        }
        // (On 16 registers this loop came out with sums on the stack, or moved from register to register: 0.5. And to ask for the row that is
        // about to be read helps masked loads where it comes from L2: 0.92 to 0.96 without.)
        if S::TILE_ROWS > 6 && R::WHOLE && t.b_soon == 0 {
            return chains.steps(left);
        }
        for _ in 0..left {
            ask_for_b(chains);
            chains.step();
        }
    }
}

/// Steps of k, four at once, and how many of `left` are left. Rows of the next C are asked for beside the first of them.
///
/// Every other row is a step behind: rows that lie whole lines apart have the same place in their lines at the same
/// step, and a core cannot read two such values at once. (The two rows of B that this takes leave no registers for
/// wider tiles.)
///
/// # Safety
/// There are so many more steps of k, and one at least.
#[inline(always)]
unsafe fn by_fours<S: Simd, R: Reads, const ROWS: usize, const NV: usize>(
    chains: &mut Chains<'_, S, R, ROWS, NV>,
    mut left: usize,
    c_next: &mut *const f32,
    mut c_rows: usize,
) -> usize {
    let (s, b_k, c_next_row) = (chains.s, chains.b_k, chains.tile.c_next_row);
    // SAFETY: the caller's.
    unsafe {
        let mut b = chains.row_of_b();
        chains.b = s.held(chains.b.wrapping_offset(b_k));
        each_row!(i, {
            if i % 2 == 0 {
                chains.row(i, 0, &b);
            }
        });
        left -= 1;
        while left >= 4 {
            if c_rows > 0 {
                ask_for_row(chains, c_next, c_next_row);
                c_rows -= 1;
            }
            macro_rules! each_step {
                ($($p:literal)+) => {
                    $(ask_for_b(chains);
                    let before = b;
                    b = chains.row_of_b();
                    chains.b = s.held(chains.b.wrapping_offset(b_k));
                    each_row!(i, {
                        if i % 2 == 0 {
                            chains.row(i, $p + 1, &b);
                        } else {
                            chains.row(i, $p, &before);
                        }
                    });)+
                };
            }
            each_step!(0 1 2 3);
            chains.move_a(4);
            left -= 4;
        }
        each_row!(i, {
            if i % 2 == 1 {
                chains.row(i, 0, &b);
            }
        });
        chains.move_a(1);
    }
    left
}

/// Asks for the lines of a row of the tile's columns, and goes on to the next one.
#[inline(always)]
fn ask_for_row<S: Simd, R, const ROWS: usize, const NV: usize>(
    chains: &Chains<'_, S, R, ROWS, NV>,
    row: &mut *const f32,
    to_next: isize,
) {
    for col in (0..NV * S::LANES).step_by(LINE) {
        chains.s.prefetch(row.wrapping_add(col));
    }
    *row = row.wrapping_offset(to_next);
}

/// Asks for the row of B that is used `b_soon` later.
#[inline(always)]
fn ask_for_b<S: Simd, R, const ROWS: usize, const NV: usize>(chains: &Chains<'_, S, R, ROWS, NV>) {
    ask_for_row(chains, &mut chains.b.wrapping_offset(chains.tile.b_soon), 0);
}

/// Asks for that, and for a row of the columns that come next, as far as L2.
#[inline(always)]
fn ask_for_next<S: Simd, R, const ROWS: usize, const NV: usize>(
    chains: &Chains<'_, S, R, ROWS, NV>,
    b_next: &mut *const f32,
) {
    ask_for_b(chains);
    for col in (0..NV * S::LANES).step_by(LINE) {
        chains.s.prefetch_l2(b_next.wrapping_add(col));
    }
    *b_next = b_next.wrapping_offset(chains.tile.b_k);
}
