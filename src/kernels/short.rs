//! Products that need neither plan nor sweep: of a few multiply-adds, of one tile, or of one row of tiles.

use std::mem::MaybeUninit;

use super::close::is_close;
use super::epilogue::{Done, Rest, descend_biases, split};
use super::gemm::{Columns, Descent, Epilogue, Product, Rhs};
use super::math::{gate, leaky};
use super::pack::{Operand, transpose};
use super::shapes::{
    Kernel, kernel, turned_ahead, turned_at_once, turned_in_registers, turned_kernel, turns_ahead,
};
use super::stack::rows_for;
use super::tile::{Finish, PANEL, Start, Tile, descended};
use crate::buffer::{CacheLine, LINE};
use crate::simd::{Body, Simd};

/// Steps of k of a B that is transposed for a product of one tile.
const TURNED: usize = 64;

/// Values in the largest tile that transposes B on the way.
const TURNED_TILE: usize = 11 * 32;

/// Values of an A that is copied so that it is contiguous over k (8 KiB).
const COPIED: usize = 2048;
/// Columns up to which copying six rows and more of it, some cycles for each value, takes longer than it saves.
const COPIED_FOR: usize = 256;

/// Steps of k of all rows, two more counted for each row, up to which a product is [`Tiny`].
const TINY: usize = 160;
/// Its most columns: one vector, wherever there are vectors.
const NARROW: usize = 8;

/// A product of so few multiply-adds that handing it on would take longer than they do: by up to four rows at once, with no table
/// of kernels to look into.
pub(super) struct Tiny<'a> {
    m: usize,
    n: usize,
    k: usize,
    a: Operand,
    b: *const f32,
    b_row: isize,
    c: *mut f32,
    c_row: isize,
    /// Chains of row i begin at `scale` times what lies at `start + i * start_row`; at zero if this is null.
    start: *const f32,
    start_row: isize,
    scale: f32,
    finish: Finish<'a>,
    /// The update of the biases.
    descent: Option<&'a Descent<'a>>,
}

impl<'a> Tiny<'a> {
    /// The product, if it is one of those.
    #[inline(always)]
    pub(super) fn of(p: &Product<'a>) -> Option<Tiny<'a>> {
        let Rhs::Plain(b) = p.b else { return None };
        let few = (1..=NARROW).contains(&p.n) && p.m <= TINY && p.k <= TINY && p.m * (p.k + 2) <= TINY;
        if !(few && as_it_lies(p) && in_place(p, b)) {
            return None;
        }
        let (finish, rest) = split(p, true);
        let descent = match (finish, rest) {
            (_, None) => None,
            (Finish::Descend(_), Some(Rest::Descend(descent))) => Some(descent),
            _ => return None,
        };
        let (start, start_row, scale) = match p.start {
            Start::Zero => (std::ptr::null(), 0, 1.0),
            Start::Bias(bias) => (bias, 0, 1.0),
            Start::BiasRows(_) => return None,
            Start::Scaled(beta) => (p.c.cast_const(), p.c_row, beta),
        };
        let Product { m, n, k, a, c, c_row, .. } = *p;
        Some(Tiny { m, n, k, a, b: b.ptr, b_row: b.row, c, c_row, start, start_row, scale, finish, descent })
    }

    /// Columns from `j` on, as many as a vector has.
    #[inline(always)]
    #[allow(unused_assignments, reason = "nothing comes after the last rows")]
    fn columns<S: Simd>(&self, s: S, j: usize) {
        let columns = s.first(self.n - j);
        let (starts, scale) = (!self.start.is_null(), s.splat(self.scale));
        let (mut a_rows, mut start) = (self.a.ptr, self.start.wrapping_add(j));
        let (mut at, mut left) = (j as isize, self.m); // From where C begins, and rows.
        // Rows that share what is read of B.
        macro_rules! together {
            ($rows:literal, $x:ident, $at:ident => $finished:expr) => {{
                let (mut a, mut b) = (a_rows, self.b.wrapping_add(j));
                // SAFETY: A, B, C and what lies like C have these rows, columns and steps of k: `run`'s contract.
                unsafe {
                    let mut chains = [s.splat(0.0); $rows];
                    if starts {
                        for (i, chain) in chains.iter_mut().enumerate() {
                            let start = start.wrapping_offset(i as isize * self.start_row);
                            *chain = s.mul(scale, s.load_first(start, columns));
                        }
                    }
                    for _ in 0..self.k {
                        let of_b = s.load_first(b, columns);
                        for (i, chain) in chains.iter_mut().enumerate() {
                            let a = a.wrapping_offset(i as isize * self.a.row);
                            *chain = s.fma(s.splat(*a), of_b, *chain);
                        }
                        a = a.wrapping_offset(self.a.col);
                        b = b.wrapping_offset(self.b_row);
                    }
                    for (i, $x) in chains.into_iter().enumerate() {
                        let $at = at + i as isize * self.c_row;
                        s.store_first(self.c.wrapping_offset($at), columns, $finished);
                    }
                }
                a_rows = a_rows.wrapping_offset($rows * self.a.row);
                start = start.wrapping_offset($rows * self.start_row);
                at += $rows * self.c_row;
                left -= $rows;
            }};
        }
        macro_rules! rows {
            ($x:ident, $at:ident => $finished:expr) => {{
                while left >= 4 {
                    together!(4, $x, $at => $finished);
                }
                match left {
                    3 => together!(3, $x, $at => $finished),
                    2 => together!(2, $x, $at => $finished),
                    1 => together!(1, $x, $at => $finished),
                    _ => {}
                }
            }};
        }
        match self.finish {
            Finish::Keep => rows!(x, at => x),
            Finish::Relu => rows!(x, at => gate(s, x, x)),
            Finish::Leaky(slope) => rows!(x, at => leaky(s, s.splat(slope), x, x)),
            Finish::Gate(y) => rows!(x, at => gate(s, s.load_first(y.wrapping_offset(at), columns), x)),
            Finish::Descend(plain) => {
                let how = (s.splat(plain.scale), s.splat(-plain.rate));
                rows!(x, at => descended(s, how, x, s.load_first(self.c.wrapping_offset(at), columns)));
            }
        }
    }
}

impl Tiny<'_> {
    /// Computes it, unless biases are updated as well, and says whether it has.
    #[inline(always)]
    pub(super) fn alone<S: Simd>(&self, s: S) -> bool {
        if self.descent.is_none() {
            self.all_columns(s);
        }
        self.descent.is_none()
    }

    #[inline(always)]
    fn all_columns<S: Simd>(&self, s: S) {
        if const { S::Half::LANES >= NARROW } {
            self.columns(s.half(), 0);
        } else {
            for j in (0..self.n).step_by(S::LANES) {
                self.columns(s, j);
            }
        }
    }
}

impl Body for &Tiny<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        self.all_columns(s);
        if let Some(descent) = self.descent {
            s.run_outlined(Biases(self, descent));
        }
    }
}

/// The update of the biases that belongs to a tiny product.
struct Biases<'a>(&'a Tiny<'a>, &'a Descent<'a>);

impl Body for Biases<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Biases(tiny, descent) = self;
        let b = Columns { ptr: tiny.b, k: tiny.b_row, panel: PANEL as isize };
        // SAFETY: B holds the columns of C, and there is a bias for each.
        unsafe { descend_biases(s, descent, b, (tiny.k, tiny.n), 0) };
    }
}

/// Whether rows of C are contiguous, a single column being so whatever its stride, and A is taken as it is.
#[inline(always)]
pub(super) fn as_it_lies(p: &Product) -> bool {
    (p.c_col == 1 || p.n == 1) && p.alpha == 1.0
}

/// Whether rows of B are contiguous, likewise.
#[inline(always)]
pub(super) fn in_place(p: &Product, b: Operand) -> bool {
    b.col == 1 || p.n == 1
}

/// Computes a product of which all of C is one tile, and says whether it is one. To plan and to sweep would take several
/// times as long as the tile.
///
/// # Safety
/// The operands of the product are valid for its dimensions, and C overlaps neither A nor B.
#[inline(always)]
pub(super) unsafe fn one_tile<S: Simd>(s: S, p: &Product) -> bool {
    let Some(way) = OneTile::of::<S>(p) else { return false };
    let (finish, rest) = split(p, true);
    if let (Some(Rest::Descend(_)), Finish::Keep) = (rest, finish) {
        return false; // The tile of gradients would need a buffer.
    }
    match way {
        // SAFETY: the caller's; C is one tile.
        OneTile::InPlace => unsafe { whole(s, p, p.b.columns(p.k, 0, 0), finish, rest) },
        OneTile::Turned(b) if p.n <= S::Half::LANES && p.m <= rows_for::<S::Half>(p.n, p.a.row) => {
            s.half().run_outlined(Turned { p, b, finish, rest });
        }
        OneTile::Turned(b) => s.run_outlined(Turned { p, b, finish, rest }),
    }
    true
}

/// Whether an `m` x `n` C is one tile, with rows of A `a_row` apart.
#[inline(always)]
pub(super) fn is_one_tile<S: Simd>(m: usize, n: usize, a_row: isize) -> bool {
    m <= rows_for::<S>(n, a_row) && n <= 2 * S::LANES
}

/// The kernel of that tile, which has no fewer rows and columns.
#[inline(always)]
pub(super) fn kernel_of_one<S: Simd>(m: usize, n: usize) -> Kernel<S> {
    let vectors = if n <= S::LANES { 1 } else { 2 };
    kernel::<S>(m, vectors, n == vectors * S::LANES)
}

/// How a product of one tile reads its B.
pub(super) enum OneTile {
    InPlace,
    /// Transposed into a buffer.
    Turned(Operand),
}

impl OneTile {
    /// The way for a product of which all of C is one tile, with all operands in L1.
    #[inline(always)]
    pub(super) fn of<S: Simd>(p: &Product) -> Option<OneTile> {
        let Rhs::Plain(b) = p.b else { return None };
        let one = is_one_tile::<S>(p.m, p.n, p.a.row);
        if !(as_it_lies(p) && one && is_close((p.m, p.n, p.k))) || p.is_narrow::<S>() {
            return None;
        }
        if in_place(p, b) {
            Some(OneTile::InPlace)
        } else if b.row == 1 && p.k <= TURNED {
            Some(OneTile::Turned(b))
        } else {
            None
        }
    }
}

/// A product of one tile whose B is transposed.
struct Turned<'a> {
    p: &'a Product<'a>,
    b: Operand,
    finish: Finish<'a>,
    rest: Option<Rest<'a>>,
}

impl Body for Turned<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Turned { p, b, finish, rest } = self;
        let mut buffer = MaybeUninit::<[CacheLine; TURNED * PANEL / LINE]>::uninit();
        let buffer: *mut f32 = buffer.as_mut_ptr().cast();
        // SAFETY: B is readable for n columns and k rows; the buffer holds TURNED rows of PANEL, which a tile is not wider
        // than. Of each row the first n are written, and no kernel reads more.
        unsafe {
            transpose(s, b.t(), (p.n, p.k), buffer, (PANEL as isize, 1));
            whole(s, p, Rhs::Packed(buffer).columns(p.k, 0, 0), finish, rest);
        }
    }
}

/// A product of which all of C is one tile.
///
/// # Safety
/// As for [`one_tile`], with `b` in place of the product's own.
#[inline(always)]
unsafe fn whole<S: Simd>(s: S, p: &Product, b: Columns, finish: Finish, rest: Option<Rest>) {
    let tile = Tile::alone(p.a, p.k, b, (p.c, p.c_row, p.n), p.start, finish);
    // SAFETY: the caller's.
    unsafe { kernel_of_one::<S>(p.m, p.n)(s, &tile) };
    match rest {
        None => {}
        Some(Rest::Descend(_)) if !p.first_row => {}
        // SAFETY: B holds the columns of C, and there is a bias for each.
        Some(Rest::Descend(descent)) => unsafe { descend_biases(s, descent, b, (p.k, p.n), p.offset) },
        rest => {
            let done = Done { p, tile: &tile, rows: p.m, c: p.c, offset: p.offset };
            // SAFETY: the kernel has just written the tile, and the epilogue's matrices lie like C.
            unsafe { done.finish(s, rest, false) };
        }
    }
}

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
        let dear = p.m.saturating_mul(p.k) > COPIED || (rows >= 6 && p.n <= COPIED_FOR);
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
        turned_in_registers::<S>(rows, (p.n - j).div_ceil(S::Half::LANES), p.n, b.col)
            .filter(|_| p.a.col == 1 || (p.m.saturating_mul(p.k) <= COPIED && self.ahead::<S>(0).is_none()))
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
        let (kernel, cols) = turned_kernel::<S>(self.rows);
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
        let mut next = 0;
        while next < p.n {
            let (kernel, j, width) = self.next::<S>(next);
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
