//! Which tiles are compiled for an instruction set, and where to find them.

use std::marker::PhantomData;

use super::by_columns::{Ahead, InRegisters, Transposing};
use super::microkernel::TileBody;
use super::reads::{Ending, Masked, Reads, Whole};
use super::tile::Tile;
use crate::buffer::{LINE, PAGE};
use crate::simd::{Body, Core, Simd};

/// A kernel for a fixed number of rows and vectors.
pub(super) type Kernel<S> = unsafe fn(S, &Tile);

/// # Safety
/// As for [`TileBody::new`].
unsafe fn tile<S: Simd, R: Reads, const ROWS: usize, const NV: usize>(s: S, tile: &Tile) {
    // SAFETY: the caller's.
    s.run_outlined(unsafe { TileBody::<R, ROWS, NV>::new(tile) });
}

/// The kernels of an instruction set.
struct Kernels<S>(PhantomData<S>);

impl<S: Simd> Kernels<S> {
    /// By vectors, which are a power of two, then by rows, and by how [columns](Fill) fill them.
    const POWERS: [&'static [[Kernel<S>; 3]]; 4] = {
        macro_rules! by_rows {
            ($nv:literal $ending:ident: $($rows:literal)+) => {
                &[$([tile::<S, Masked, $rows, $nv>, tile::<S, Whole, $rows, $nv>, tile::<S, $ending, $rows, $nv>]),+]
            };
        }
        // A 6-row tile is what 16 registers allow, a 12-row tile what 32 do: nothing beyond is compiled for either. Where there are as
        // many, masks cost nothing.
        if S::TILE_ROWS <= 6 {
            [
                by_rows!(1 Masked: 1 2 3 4 5 6 7 8 9 10 11 12),
                by_rows!(2 Ending: 1 2 3 4 5 6),
                by_rows!(4 Ending: 1 2 3),
                by_rows!(8 Masked: 1),
            ]
        } else {
            [
                by_rows!(1 Masked: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24),
                by_rows!(2 Masked: 1 2 3 4 5 6 7 8 9 10 11 12),
                by_rows!(4 Masked: 1 2 3 4 5 6),
                by_rows!(8 Masked: 1 2 3),
            ]
        }
    };

    /// Those of three vectors, and the rows of the first.
    const THREE: (usize, &'static [Kernel<S>]) = {
        macro_rules! by_rows {
            ($first:literal $($rows:literal)+) => {
                ($first, &[tile::<S, Ending, $first, 3>, $(tile::<S, Ending, $rows, 3>),+])
            };
        }
        if S::TILE_ROWS <= 6 { by_rows!(3 4) } else { by_rows!(5 6 7 8) }
    };
}

/// How the columns of a tile fill its vectors.
#[derive(Clone, Copy)]
pub(super) enum Fill {
    /// The first half of them.
    Masked,
    /// All of them.
    Whole,
    /// All of them, as the last one ends with the last column, and may have some of the one before. B is read in place, or lies in one panel.
    Ending,
}

impl Fill {
    /// How `n` columns of a B that is read in place, or lies in one panel, fill no more vectors than they need.
    #[inline(always)]
    pub(super) fn of<S: Simd>(n: usize, vectors: usize) -> Fill {
        match n {
            n if n == vectors * S::LANES => Fill::Whole,
            n if n > S::LANES => Fill::Ending,
            _ => Fill::Masked,
        }
    }
}

/// The kernel for `rows` rows of `vectors` vectors, as many as a [`Stack`](super::stack::Stack) has. (Looked up, because a small product
/// takes as long as it takes to find its kernels.)
#[inline(always)]
pub(super) fn kernel<S: Simd>(rows: usize, vectors: usize, fill: Fill) -> Kernel<S> {
    if vectors == 3 {
        let (first, three) = Kernels::<S>::THREE;
        three[rows - first]
    } else {
        Kernels::<S>::POWERS[vectors.trailing_zeros() as usize][rows - 1][fill as usize]
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

/// The most rows of a kernel that transposes B on the way, whose values in between need registers too. Of more rows,
/// exchanging the factors or packing B costs less.
#[inline(always)]
pub(super) const fn turned_rows<S: Simd>() -> usize {
    if S::TILE_ROWS <= 6 { 5 } else { 12 }
}

/// The kernel for `rows` rows (at most [`turned_rows`]) beside `n` columns that transposes B on the way, and its columns, of which not all
/// need exist.
pub(super) fn turned_kernel<S: Simd>(rows: usize, n: usize) -> (Kernel<S>, usize) {
    macro_rules! by_rows {
        (two: $($two:literal)*; one: $($one:literal)+) => {
            match rows {
                // (Four rows of two vectors are worth it between the multiply-adds of a whole block only: they lack registers.)
                $($two if $two < 4 || n >= 2 * S::LANES => (tile::<S, Transposing, $two, 2>, 2 * S::LANES),)*
                $($one => (tile::<S, Transposing, $one, 1>, S::LANES),)+
                _ => unreachable!("no tile of {rows} rows transposes"),
            }
        };
    }
    if const { S::TILE_ROWS <= 6 } {
        by_rows!(two: 1 2 3 4; one: 4 5)
    } else {
        by_rows!(two: ; one: 1 2 3 4 5 6 7 8 9 10 11 12)
    }
}

/// A body for half vectors, compiled for the instruction set of the whole: it has more registers.
struct OnHalf<B>(B);

impl<B: Body> Body for OnHalf<B> {
    type Out = B::Out;

    #[inline(always)]
    fn call<S: Simd>(self, s: S) -> B::Out {
        self.0.call(s.half())
    }
}

/// # Safety
/// As for [`TileBody::new`], with `NV` half vectors of columns that all exist, and an A that is contiguous over k.
unsafe fn turned<S: Simd, const ASKS: bool, const ROWS: usize, const NV: usize>(s: S, tile: &Tile) {
    // SAFETY: the caller's.
    unsafe {
        // Half of a line of each column at once, if there are registers for what is made of it, or lines are asked for.
        if const { S::TILE_ROWS > 6 || ASKS } {
            s.run_outlined(OnHalf(TileBody::<InRegisters<2, ASKS>, ROWS, NV>::new(tile)));
        } else {
            s.run_outlined(OnHalf(TileBody::<InRegisters<1, false>, ROWS, NV>::new(tile)));
        }
    }
}

/// The kernel that transposes B in registers, for the next of `n` columns, of which some `left` half vectors are left, and how many columns
/// it takes at most: if there is one for so many rows. Its A is contiguous over k, and the columns of B are `b_col` apart. (An
/// Intel core shuffles one whole vector in a cycle and two half ones, Zen 4 three half ones or half as many whole; with more rows, it is the
/// multiply-adds that take the time. Zen 5 shuffles four of either within their quarters, and two across.)
pub(super) fn turned_in_registers<S: Simd>(
    rows: usize,
    left: usize,
    (n, k): (usize, usize),
    b_col: isize,
) -> Option<(Kernel<S>, usize)> {
    if let Some(whole) = whole_in_registers::<S>(rows, left * S::Half::LANES, n, b_col) {
        return Some(whole);
    }
    // What is made of four values of each column are vectors.
    if const { S::Half::LANES < 4 } {
        return None;
    }
    // Columns that lie whole pages apart share a set of L1: the more of them, the sooner one is gone before its line is used up. Of those
    // that lie a quarter of one apart, three vectors are as many as stay.
    let apart = !b_col.unsigned_abs().is_multiple_of(PAGE);
    let stays = !b_col.unsigned_abs().is_multiple_of(PAGE / 4);
    let core = Core::current();
    let narrow = const { S::TILE_ROWS <= 6 };
    // Where a set brings its lines in time, they are read all the same by what has few registers.
    let anyway = narrow && !core.slow_sets;
    // What comes from beyond L2 is more streams than the hardware foresees.
    let far = n.saturating_mul(k) > core.l2 / 2 && k >= 4 * LINE;
    // Two and three rows go by whole vectors where those are shuffled as fast.
    let by_halves = !narrow && stays && !core.shuffles_whole;
    // As many as hide the latency of their chains, and so that no single one is left over, or it has one of those before beside it.
    let vectors = match (rows, left) {
        (1, 4 | 8) if apart => 4,
        (1, 7 | 10..) if stays && !far && !narrow => 4,
        (1, 3..) if apart => 3,
        (2, 3 | 5 | 6) | (3, 3 | 5..) if by_halves && !far => 3,
        _ => 2,
    };
    let (kernel, vectors): (Kernel<S>, usize) = match (rows, vectors.min(n.div_ceil(S::Half::LANES))) {
        (1, 4) => (turned::<S, false, 1, 4>, 4),
        (1, 3) if far => (turned::<S, true, 1, 3>, 3),
        (1, 3) => (turned::<S, false, 1, 3>, 3),
        (1, 2) if apart || anyway => (turned::<S, false, 1, 2>, 2),
        (2, 3) => (turned::<S, false, 2, 3>, 3),
        (2, 2) if by_halves && far => (turned::<S, true, 2, 2>, 2),
        (2, 2) if anyway || (narrow && apart) || by_halves => (turned::<S, false, 2, 2>, 2),
        (3, 3) => (turned::<S, false, 3, 3>, 3),
        _ => return None,
    };
    Some((kernel, vectors * S::Half::LANES))
}

/// The same by whole vectors, on cores that shuffle those as fast. The last two may have columns in common.
#[inline(always)]
fn whole_in_registers<S: Simd>(
    rows: usize,
    left: usize,
    n: usize,
    b_col: isize,
) -> Option<(Kernel<S>, usize)> {
    if const { S::LANES == LINE } {
        // More rows than two vectors leave registers for go by one, and so do columns that fill no more, where they begin within lines,
        // which costs those that go by way of memory more. (Other columns 0.87 to 1.05.)
        let vectors = match rows {
            9.. => 1,
            2.. if n == S::LANES => 1,
            ..=4 if left.div_ceil(S::LANES) == 3 => 3,
            _ => 2,
        };
        // Of fewer columns three half vectors hide as much of the latency of one row's chains.
        let least = match rows {
            1 => 2 * S::LANES + 1,
            _ => S::LANES,
        };
        // Columns that share a set of L1, and lines of A that cannot be read beside them.
        let half_page = PAGE as isize / 2;
        let collide = b_col % half_page == 0 && (rows > 2 || b_col % (2 * half_page) == 0);
        let in_lines = vectors == 1 && b_col % LINE as isize == 0;
        if n < least || collide || in_lines || !Core::current().shuffles_whole {
            return None;
        }
        macro_rules! by_shape {
            (one: $($one:literal)+; two: $($two:literal)+; three: $($three:literal)+) => {
                match (rows, vectors) {
                    $(($one, 1) => tile::<S, InRegisters<2, false>, $one, 1>,)+
                    $(($two, 2) => tile::<S, InRegisters<2, false>, $two, 2>,)+
                    $(($three, 3) => tile::<S, InRegisters<2, false>, $three, 3>,)+
                    _ => return None,
                }
            };
        }
        let kernel: Kernel<S> =
            by_shape!(one: 2 3 4 5 6 7 8 9 10 11 12; two: 1 2 3 4 5 6 7 8; three: 1 2 3 4);
        Some((kernel, vectors * S::LANES))
    } else {
        None
    }
}

/// Whether so many rows are faster with B transposed eight steps ahead, by two vectors, however A lies: more than leave registers to do
/// without, and fewer than leave none to transpose in. Only on cores that shuffle whole vectors as fast as half ones.
#[inline(always)]
pub(super) fn turns_ahead<S: Simd>(rows: usize) -> bool {
    S::LANES == LINE && (9..=11).contains(&rows) && Core::current().shuffles_whole
}

/// The kernel that does it, if there is one for so many rows and steps, and of `left` columns one vector is not enough. (Fewer rows
/// have one for an A that is not contiguous over k, which other kernels in registers need.)
#[inline(always)]
pub(super) fn turned_ahead<S: Simd>(
    rows: usize,
    k: usize,
    left: usize,
    b_col: isize,
) -> Option<(Kernel<S>, usize)> {
    if const { S::LANES == LINE } {
        // Half of each line is used, and the other half after those of the other vector: too many for a set of L1 if they share it.
        let collide = b_col % (PAGE as isize / 2) == 0;
        if k < 8 || left <= S::LANES || collide || !Core::current().shuffles_whole {
            return None;
        }
        macro_rules! by_rows {
            ($($rows:literal)+) => {
                match rows {
                    $($rows => tile::<S, Ahead, $rows, 2>,)+
                    _ => return None,
                }
            };
        }
        let kernel: Kernel<S> = by_rows!(2 3 4 5 6 7 8 9 10 11);
        Some((kernel, 2 * S::LANES))
    } else {
        None
    }
}

/// Rows that turn B on the way in one pass over it, of so many with `k` steps: all, or half of them if the larger half transposes ahead.
/// (Up to a vector's rows are better off as columns of the transposed product.)
#[inline(always)]
pub(super) fn turned_at_once<S: Simd>(rows: usize, k: usize) -> Option<usize> {
    let half = rows.div_ceil(2);
    if rows <= turned_rows::<S>() {
        Some(rows)
    } else {
        (rows > S::LANES && k >= 8 && turns_ahead::<S>(half)).then_some(half)
    }
}

/// Whether a kernel takes all of `n` columns and more than a vector of them.
#[inline(always)]
pub(super) fn takes_all_turned<S: Simd>(rows: usize, k: usize, n: usize, b_col: isize) -> bool {
    let fits = |kernel: Option<(Kernel<S>, usize)>| kernel.is_some_and(|(_, cols)| n <= cols);
    n > S::LANES
        && (fits(turned_ahead::<S>(rows, k, n, b_col)) || fits(whole_in_registers::<S>(rows, n, n, b_col)))
}
