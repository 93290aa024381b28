//! Products of few rows whose B lies by columns: their kernels transpose it on the way.

use std::mem::MaybeUninit;

use super::epilogue::{Done, split};
use super::pack::{Operand, transpose};
use super::product::{Epilogue, Product, Rhs};
use super::shapes::{Kernel, turned_ahead, turned_at_once, turned_in_registers, turned_kernel, turns_ahead};
use super::tile::{Columns, Finish, Start, Tile};
use crate::buffer::{CacheLine, LINE};
use crate::simd::{Body, Core, Simd};

/// Values in the largest tile that transposes B on the way.
const TURNED_TILE: usize = 11 * 32;

/// Values of an A that is copied so that it is contiguous over k (8 KiB).
const COPIED: usize = 2048;
/// Columns up to which copying five rows and more of it, some cycles for each value, takes longer than it saves. (Two vectors of them for
/// three and four rows.)
const COPIED_FOR: usize = 256;

/// Vectors of columns, of which the first have the same kernel as if there were more.
const FEW: usize = 8;

/// A product of few rows whose B lies by columns, each contiguous: they are transposed on the way.
pub(super) struct Turning<'a> {
    p: &'a Product<'a>,
    b: Operand,
    /// Rows of a pass over B.
    rows: usize,
}

impl<'a> Turning<'a> {
    /// The product, if it is one of those.
    #[inline(always)]
    pub(super) fn of<S: Simd>(p: &'a Product<'a>) -> Option<Turning<'a>> {
        match p.b {
            Rhs::Plain(b)
                if b.col != 1
                    && b.row == 1
                    && p.alpha == 1.0
                    && !matches!(p.epilogue, Epilogue::Descend(_)) =>
            {
                turned_at_once::<S>(p.m, p.k).map(|rows| Turning { p, b, rows })
            }
            _ => None,
        }
    }

    /// The kernel that transposes ahead for the columns from `j` on, if there is one that does best, and how many it takes.
    #[inline(always)]
    fn ahead<S: Simd>(&self, j: usize) -> Option<(Kernel<S>, usize)> {
        let Turning { p, b, rows } = *self;
        // The other kernels in registers would need a copy of an A that is not contiguous over k.
        let copied_for = match rows {
            5.. => COPIED_FOR,
            3.. => 2 * S::LANES,
            _ => 0,
        };
        let dear = p.m.saturating_mul(p.k) > COPIED || p.n <= copied_for;
        if turns_ahead::<S>(rows) || (p.a.col != 1 && dear) {
            turned_ahead::<S>(rows, p.k, p.n - j, b.col)
        } else {
            None
        }
    }

    /// The kernel in registers for the columns from `j` on, if there is one, and how many it takes. It needs an A that is contiguous over
    /// k: a small one is copied, unless most columns go another way.
    #[inline(always)]
    fn in_registers<S: Simd>(&self, j: usize) -> Option<(Kernel<S>, usize)> {
        let Turning { p, b, rows } = *self;
        // (A single vector of few rows does not save what that takes, nor do half ones for two and three rows unless they are many.)
        let least = if rows == 1 || Core::current().shuffles_whole { S::LANES + 1 } else { COPIED_FOR };
        let pays = S::LANES < LINE || rows > 8 || p.n >= least;
        turned_in_registers::<S>(rows, (p.n - j).div_ceil(S::Half::LANES), (p.n, p.k), b.col).filter(|_| {
            p.a.col == 1 || (p.m.saturating_mul(p.k) <= COPIED && pays && self.ahead::<S>(0).is_none())
        })
    }

    /// Rows and columns of its first tile.
    #[inline(always)]
    pub(super) fn tile<S: Simd>(&self) -> (usize, usize) {
        (self.rows, self.next::<S>(0).2)
    }

    /// The kernel for the columns from `j` on, from where it takes them, and how many at most. Some may be computed once more, so that
    /// a kernel has all of its columns.
    #[inline(always)]
    fn next<S: Simd>(&self, j: usize) -> (Kernel<S>, usize, usize) {
        let p = self.p;
        // What begins at C cannot begin there twice.
        let twice = !matches!(p.start, Start::Scaled(_));
        if let Some((kernel, cols)) = self.ahead::<S>(j).or_else(|| self.in_registers::<S>(j)) {
            let first = j.min(p.n.saturating_sub(cols));
            if first == j || twice {
                return (kernel, first, cols);
            }
        }
        let (kernel, cols) = turned_kernel::<S>(self.rows, p.n);
        (kernel, if twice && p.n >= cols { j.min(p.n - cols) } else { j }, cols)
    }
}

impl Body for Turning<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Turning { p, b, rows } = self;
        if rows < p.m {
            for pass in [(0, rows), (rows, p.m - rows)] {
                let p = &p.part(pass, (0, p.n));
                s.run_outlined(Turning { p, b, rows: pass.1 });
            }
            return;
        }
        let (finish, rest) = split(p, true);
        // Rows of C that are not contiguous: a few outputs, the factors having changed places.
        let staged = p.c_col != 1;
        let mut buffer = MaybeUninit::<[CacheLine; TURNED_TILE / LINE]>::uninit();
        let mut a = p.a;
        let mut copy = MaybeUninit::<[CacheLine; COPIED / LINE]>::uninit();
        if a.col != 1 && self.in_registers::<S>(0).is_some() {
            let to: *mut f32 = copy.as_mut_ptr().cast();
            // SAFETY: A has these elements, and the copy is as large.
            unsafe { transpose(s, a, (p.m, p.k), to, (1, p.k as isize)) };
            a = Operand { ptr: to, row: p.k as isize, col: 1 };
        }
        let (mut next, mut before) = (0, None);
        while next < p.n {
            // It is the last columns that may want another kernel.
            let (kernel, j, width) = match before {
                Some((kernel, width)) if p.n - next >= FEW * S::LANES => (kernel, next, width),
                _ => self.next::<S>(next),
            };
            before = Some((kernel, width));
            let cols = width.min(p.n - j);
            assert!(p.m * width <= TURNED_TILE, "the buffer holds the largest tile");
            let c = p.c.wrapping_offset(j as isize * p.c_col);
            let columns = Columns { ptr: b.at(0, j).ptr, k: 1, panel: b.col };
            let start = match p.start {
                Start::Bias(bias) => Start::Bias(bias.wrapping_add(j)),
                other => other,
            };
            let finish = match finish {
                Finish::Gate(y) => Finish::Gate(y.wrapping_add(j)),
                other => other,
            };
            // Nothing is asked for ahead: each column is a stream, which the hardware foresees.
            let (to, to_row) =
                if staged { (buffer.as_mut_ptr().cast(), width as isize) } else { (c, p.c_row) };
            let tile = Tile::alone(a, p.k, columns, (to, to_row, cols), start, finish);
            let done = Done { p, tile: &tile, rows: p.m, c, offset: p.offset + j as isize * p.c_col };
            // SAFETY: A, B and C hold these rows, steps of k and columns: `Serial`'s contract; so do the epilogue's
            // matrices, which lie like C. The buffer holds the largest tile.
            unsafe {
                done.begin(s, staged);
                kernel(s, &tile);
                done.finish(s, rest, staged);
            }
            next = j + cols;
        }
    }
}
