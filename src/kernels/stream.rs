//! Products that take as long as it takes to read B or to write C, because they have few rows or few steps of k: rows pass
//! in long pieces, which the hardware foresees, while the few values of A wait in registers.

use std::mem::MaybeUninit;

use super::epilogue::{BIASES, Done, Rest, descend_biases, split};
use super::pack::{Operand, copied_stride, copy_a};
use super::product::{Epilogue, Product, Rhs};
use super::scratch::{self, Use};
use super::tile::{PANEL, Start, Tile, descended};
use super::update::{Plain, update_rows};
use super::vector::{load_up_to, store_up_to};
use crate::buffer::{CacheLine, LINE, PAGE};
use crate::simd::{Body, Core, Simd};

/// Rows of B that pass at once, at most.
pub(super) const STEPS: usize = 8;
/// Rows of C that pass at once, at most.
const ROWS: usize = 4;
/// Columns from which rows are long pieces.
const LONG: usize = 128;
/// Between rows of B that are not long where L1 foresees what is read in order: one and a half times eight vectors.
const SHORT: isize = 192;
/// Vectors in a row that streams, at least.
const VECTORS: usize = 4;
/// Vectors of a row of B that pass at once where L1 foresees what is read in order (1 KiB), before those of the next row: from L2 that
/// takes 0.6 to 0.8 of the time of [`STEPS`] rows side by side, from L3 0.9.
const PIECE: usize = 16;
/// Rows of B that pass at once in such pieces.
const PIECE_STEPS: usize = 6;
/// Rows of B that one row of C brings from memory to L2 in such pieces, as fast as it comes, before the other rows pass it there: with all
/// at once, what waits for memory leaves no room for what asks for more.
const FETCHED: usize = 3 * PIECE_STEPS;
/// Rows of C for which that pays, at most, and columns, at least: of fewer, rows of B end too soon.
const FETCHING_ROWS: usize = 5;
const FETCHING_COLUMNS: usize = 512;
/// Values of a B, or of a thread's part of one, that mostly comes from memory (24 MiB).
const FETCHED_B: usize = 6 * 1024 * 1024;
/// Values of C that pass at once, which stay in L1 (16 KiB).
const BLOCK: usize = 4096;
/// Rows of C from which a B of few steps is copied to where lines begin.
const COPY_ROWS: usize = 16;
/// Values of B from which to read it takes longer than the multiply-adds: all of L1.
const FAR_B: usize = 8 * 1024;
/// Values of C, or of a B whose rows are a page each, from which its lines come from memory (8 MiB).
const MEMORY: usize = 2 * 1024 * 1024;

/// A product that streams.
pub(super) struct Streaming<'a> {
    p: &'a Product<'a>,
    b: Operand,
    /// Rows of C that pass at once.
    rows: usize,
    /// Vectors of each that pass at once.
    vectors: usize,
    /// Whether the first of them fetches B for the others.
    fetches: bool,
}

impl<'a> Streaming<'a> {
    /// The product, if it is one of those.
    #[inline(always)]
    pub(super) fn of<S: Simd>(p: &'a Product<'a>) -> Option<Streaming<'a>> {
        let Rhs::Plain(b) = p.b else { return None };
        let starts = matches!(p.start, Start::Zero | Start::Bias(_) | Start::Scaled(1.0));
        if !(p.n >= VECTORS * S::LANES && p.k > 0 && b.col == 1 && p.as_it_lies() && starts) {
            return None;
        }
        let values = p.k.saturating_mul(p.n);
        let fetches = fetches::<S>(p, values);
        let most = if fetches { FETCHING_ROWS } else { most_rows::<S>(values) };
        let few_rows = p.m <= most && values >= FAR_B && p.n >= LONG && !is_in_order::<S>(b, values);
        // A gradient that is not stored cannot be gone on with: all steps in one pass.
        let rows = if few_rows && plain(p).is_none() { p.m } else { rows_of_few_steps::<S>(p)? };
        // Of more rows the accumulators leave pieces too short to be foreseen.
        let pieces = foresees::<S>() && rows == 1 && p.k > STEPS && p.n >= PIECE * S::LANES;
        let vectors = if pieces { PIECE } else { 1 };
        Some(Streaming { p, b, rows, vectors, fetches })
    }

    /// Runs it, beside a copy of B if that saves more than it takes.
    #[inline(always)]
    pub(super) fn run<S: Simd>(self, s: S) {
        let Streaming { p, b, .. } = self;
        let lines = b.row % LINE as isize == 0 && b.ptr.addr().is_multiple_of(align_of::<CacheLine>());
        let copies =
            (2..=STEPS).contains(&p.k) && p.m >= COPY_ROWS && p.k.saturating_mul(p.n) <= BLOCK && !lines;
        if copies {
            s.run_outlined(BesideCopy(self));
        } else {
            s.run_outlined(self);
        }
    }

    /// Rows and columns of C that pass at once.
    #[inline(always)]
    pub(super) fn at_once<S: Simd>(&self) -> (usize, usize) {
        (self.rows, self.vectors * S::LANES)
    }
}

impl Body for Streaming<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Streaming { p, b, rows, vectors, fetches } = self;
        let plain = plain(p);
        let rest = if plain.is_some() { None } else { Rest::all(p.epilogue) };
        let mut buffer = MaybeUninit::<[CacheLine; (BLOCK + PAGE) / LINE]>::uninit();
        // A B that each of many rows passes once stays in L1 too.
        let most = if p.m > rows && p.k <= STEPS { FAR_B / p.k } else { BLOCK };
        // Rows that pass after each other find C in L2, as they find B.
        let block = if fetches { BLOCK } else { (BLOCK / rows).min(most) } / PANEL * PANEL;
        let asks = Core::current().asks_for_rows;
        let far = p.k > 1 && p.m.saturating_mul(p.n) >= MEMORY && asks;
        for j in (0..p.n).step_by(block) {
            let cols = block.min(p.n - j);
            let spare = half_a_page_from(b.at(0, j).ptr, buffer.as_mut_ptr().cast());
            let mut i = 0;
            while i < p.m {
                let rows = rows.min(p.m - i);
                // Rows that nothing comes between, one after the other.
                let alone = rest.is_none() && p.k <= most_steps::<S>(rows);
                let height = if alone { (p.m - i) / rows * rows } else { rows };
                let place = i as isize * p.c_row + j as isize;
                let (c, c_row) = match rest {
                    Some(Rest::Descend(_)) => (spare, block as isize),
                    _ => (p.c.wrapping_offset(place), p.c_row),
                };
                let start = match p.start {
                    Start::Bias(bias) => Some(Begin { ptr: bias.wrapping_add(j), row: 0 }),
                    Start::Scaled(_) => Some(Begin { ptr: c, row: c_row }),
                    _ => None,
                };
                let (a, b) = (p.a.at(i, 0), b.at(0, j));
                // The chains pass C as often as there are passes; where all rows of B lie at the same place within pages and C, too,
                // each read of B would be taken for one of what has just been written.
                let apart = p.k > STEPS && b.row % PAGE as isize == 0 && !fetches;
                let between = apart.then_some((spare, block as isize));
                let c_soon = if far { Some(rows as isize * c_row) } else { (!asks).then_some(0) };
                // SAFETY: A, B and C hold these rows, steps of k and columns: `Serial`'s contract.
                unsafe {
                    let pass = Pass {
                        height,
                        cols,
                        vectors,
                        times: 0,
                        a,
                        b,
                        start,
                        between,
                        c,
                        c_row,
                        c_soon,
                        plain,
                    };
                    if fetches { pass.one_before_others(s, rows, p.k) } else { pass.all(s, rows, p.k) }
                };
                let (at, shape) = (p.offset + place, (rows, cols));
                match rest {
                    None => {}
                    Some(Rest::Descend(descent)) => {
                        let (how, grad) = ((descent.rule, descent.scaling), (c.cast_const(), c_row));
                        // SAFETY: the weights lie like C; the gradients have just been written.
                        unsafe { update_rows(s, how, grad, descent.weights, (at, p.c_row), shape) };
                    }
                    _ => {
                        let done = Done { p, tile: &self.tile(j, c, cols), rows, c, offset: at };
                        // SAFETY: the rows have just been written, and the epilogue's matrices lie like C.
                        unsafe { done.finish(s, rest, false) };
                    }
                }
                i += height;
            }
        }
        if let (Epilogue::Descend(descent), true) = (p.epilogue, p.first_row) {
            for j in (0..p.n).step_by(BIASES) {
                let shape = (p.k, BIASES.min(p.n - j));
                // SAFETY: B holds the columns of C, and there is a bias for each.
                unsafe { descend_biases(s, descent, p.b.columns(p.k, 0, j), shape, p.offset + j as isize) };
            }
        }
    }
}

impl Streaming<'_> {
    /// Columns from `j` on as a tile, for what is done to tiles.
    #[inline(always)]
    fn tile(&self, j: usize, c: *mut f32, cols: usize) -> Tile<'_> {
        let p = self.p;
        Tile::alone(p.a, p.k, p.b.columns(p.k, 0, j), (c, p.c_row, cols), p.start, split(p, true).0)
    }
}

/// A product that streams past a B of few steps whose rows are copied to where lines begin: a vector that lies across two is read in
/// twice the time, and each row of C reads all of them.
struct BesideCopy<'a>(Streaming<'a>);

impl Body for BesideCopy<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Streaming { p, b, .. } = self.0;
        let row = copied_stride(p.n);
        let mut copy = scratch::take(Use::Blocks, p.k * row);
        // SAFETY: B holds k rows of n columns: `Serial`'s contract.
        unsafe { copy_a(s, 1.0, b, p.k, p.n, &mut copy) };
        s.run_outlined(Streaming { b: Operand { ptr: copy.as_ptr(), row: row as isize, col: 1 }, ..self.0 });
        scratch::give_back(Use::Blocks, copy);
    }
}

/// Where the chains of a pass begin: rows so far apart.
#[derive(Clone, Copy)]
struct Begin {
    ptr: *const f32,
    row: isize,
}

/// Steps of k for some rows of C: each adds a row of B times a value of A.
#[derive(Clone, Copy)]
struct Pass<'a> {
    /// Rows of C, as many as a kernel has or, if one kernel has all steps, a multiple of that.
    height: usize,
    cols: usize,
    /// Vectors of a row that pass at once.
    vectors: usize,
    /// How often the kernel's steps follow each other.
    times: usize,
    a: Operand,
    b: Operand,
    /// Nothing where they begin at 0.
    start: Option<Begin>,
    /// Where they wait between two passes, and how far apart its rows lie, if not in C.
    between: Option<(*mut f32, isize)>,
    c: *mut f32,
    c_row: isize,
    /// From a row of C to the one whose lines are asked for meanwhile, if any are: itself, or one that is next.
    c_soon: Option<isize>,
    /// The update, if C holds weights, and the steps are all there are.
    plain: Option<&'a Plain>,
}

impl Pass<'_> {
    /// All `k` steps for `rows` rows.
    ///
    /// # Safety
    /// A, B and C hold these rows, steps and columns.
    #[inline(always)]
    unsafe fn all<S: Simd>(mut self, s: S, rows: usize, k: usize) {
        let mut left = k;
        while left > 0 {
            let most = if self.vectors > 1 { PIECE_STEPS } else { most_beside::<S>(rows, k, self.b.row) };
            let steps = most.min(left);
            // The first goes on from where the chains begin, the last ends in C.
            self.times = if left == k { 1 } else { (left - 1) / steps }.max(1);
            let done = self.times * steps;
            let mut pass = self;
            if let (Some(place), true) = (self.between, done < left) {
                (pass.c, pass.c_row) = place;
            }
            // SAFETY: the caller's; where the chains wait there is room for them.
            unsafe { kernel::<S>(rows, steps, self.vectors, self.plain.is_some())(s, &pass) };
            left -= done;
            (self.a, self.b) = (self.a.at(0, done), self.b.at(done, 0));
            self.start = Some(Begin { ptr: pass.c, row: pass.c_row });
        }
    }

    /// The same, the first row always [`FETCHED`] steps before the others, of which there are some.
    ///
    /// # Safety
    /// As for [`Pass::all`].
    #[inline(always)]
    unsafe fn one_before_others<S: Simd>(mut self, s: S, rows: usize, k: usize) {
        for done in (0..k).step_by(FETCHED) {
            let steps = FETCHED.min(k - done);
            let others = Pass {
                height: rows - 1,
                a: self.a.at(1, 0),
                start: self.start.map(|at| Begin { ptr: at.ptr.wrapping_offset(at.row), ..at }),
                c: self.c.wrapping_offset(self.c_row),
                ..self
            };
            // SAFETY: the caller's, for these rows and steps.
            unsafe {
                Pass { height: 1, vectors: PIECE, ..self }.all(s, 1, steps);
                others.all(s, rows - 1, steps);
            }
            (self.a, self.b) = (self.a.at(0, steps), self.b.at(steps, 0));
            self.start = Some(Begin { ptr: self.c, row: self.c_row });
        }
    }
}

/// The kernel. (Whether it updates weights is a parameter: asked where C is written, it made products 1.04 to 1.2 times as long.)
struct PassBody<'a, const ROWS: usize, const STEPS: usize, const NV: usize, const DESCENDS: bool>(
    &'a Pass<'a>,
);

impl<const ROWS: usize, const STEPS: usize, const NV: usize, const DESCENDS: bool> Body
    for PassBody<'_, ROWS, STEPS, NV, DESCENDS>
{
    type Out = ();

    // Loops over constant bounds, no closures: what is not inlined here loses the instruction set.
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Pass { height, cols, times, mut a, b, mut start, mut c, c_row, c_soon, .. } = *self.0;
        let b_row = b.row;
        let how = match self.0.plain {
            Some(plain) if DESCENDS => (s.splat(plain.scale), s.splat(-plain.rate)),
            _ => (s.splat(0.0), s.splat(0.0)),
        };
        for _ in (0..height).step_by(ROWS) {
            let (mut a_steps, mut b_steps) = (a, b.ptr);
            for _ in 0..times {
                let mut factors = [[s.splat(0.0); STEPS]; ROWS];
                for i in 0..ROWS {
                    for p in 0..STEPS {
                        // SAFETY: A has these rows and steps of k: vouched for by whoever made the `Pass`.
                        factors[i][p] = s.splat(unsafe { *a_steps.at(i, p).ptr });
                    }
                }
                // Some vectors of columns from `j` on, of which so many columns are left.
                macro_rules! piece {
                    ($vectors:expr, $j:expr, $left:expr) => {
                        let (b, c) = (b_steps.wrapping_add($j), c.wrapping_add($j));
                        // A line of C is asked for now, not when it is its turn to be written: where it is long, and so far away.
                        let asks = const { S::LANES == LINE && ROWS == rows_at_once(STEPS) && NV == 1 };
                        if let (true, Some(soon)) = (asks, c_soon) {
                            for i in 0..ROWS {
                                s.prefetch(c.wrapping_offset(i as isize * c_row + soon));
                            }
                        }
                        // SAFETY: so many columns are left in each row of B and C, and of where the chains begin.
                        unsafe {
                            let mut acc = [[s.splat(0.0); $vectors]; ROWS];
                            // Asked here for each piece; the compiler asks once for all.
                            if let Some(Begin { ptr, row }) = start {
                                for i in 0..ROWS {
                                    let ptr = ptr.wrapping_add($j).wrapping_offset(i as isize * row);
                                    for v in 0..$vectors {
                                        acc[i][v] = load_up_to(s, ptr.wrapping_add(v * S::LANES), $left);
                                    }
                                }
                            }
                            let mut from = b;
                            for p in 0..STEPS {
                                if p > 0 {
                                    from = from.wrapping_offset(b_row);
                                    if const { ROWS * STEPS >= 24 } {
                                        from = s.held(from); // Or all of B is read first, into more registers than there are.
                                    }
                                }
                                for v in 0..$vectors {
                                    let b = load_up_to(s, from.wrapping_add(v * S::LANES), $left);
                                    for i in 0..ROWS {
                                        acc[i][v] = s.fma(factors[i][p], b, acc[i][v]);
                                    }
                                }
                            }
                            for i in 0..ROWS {
                                let c = c.wrapping_offset(i as isize * c_row);
                                for v in 0..$vectors {
                                    let c = c.wrapping_add(v * S::LANES);
                                    if DESCENDS {
                                        acc[i][v] = descended(s, how, acc[i][v], load_up_to(s, c, $left));
                                    }
                                    store_up_to(s, c, $left, acc[i][v]);
                                }
                            }
                        }
                    };
                }
                let (pieces, whole) = (cols / (NV * S::LANES) * (NV * S::LANES), cols / S::LANES * S::LANES);
                for j in (0..pieces).step_by(NV * S::LANES) {
                    piece!(NV, j, S::LANES);
                }
                for j in (pieces..whole).step_by(S::LANES) {
                    piece!(1, j, S::LANES);
                }
                if whole < cols {
                    piece!(1, whole, cols - whole);
                }
                (a_steps, b_steps) = (a_steps.at(0, STEPS), b_steps.wrapping_offset(STEPS as isize * b_row));
            }
            (a, c) = (a.at(ROWS, 0), c.wrapping_offset(ROWS as isize * c_row));
            if let Some(Begin { ptr, row }) = &mut start {
                *ptr = ptr.wrapping_offset(ROWS as isize * *row);
            }
        }
    }
}

/// # Safety
/// A, B and C hold what the `Pass` says, for `ROWS` rows and `times` times `STEPS` steps.
unsafe fn pass<S: Simd, const ROWS: usize, const STEPS: usize, const NV: usize, const DESCENDS: bool>(
    s: S,
    pass: &Pass,
) {
    s.run_outlined(PassBody::<ROWS, STEPS, NV, DESCENDS>(pass));
}

/// The most rows that stream past a B of so many values: one that stays in L2 comes fast enough for tiles of three.
#[inline(always)]
fn most_rows<S: Simd>(values: usize) -> usize {
    if values <= Core::current().l2 {
        2
    } else if S::TILE_ROWS <= 6 {
        3
    } else {
        ROWS
    }
}

/// Whether B comes from memory, and one row of C fetches it for the others.
#[inline(always)]
fn fetches<S: Simd>(p: &Product, values: usize) -> bool {
    (2..=FETCHING_ROWS).contains(&p.m)
        && p.k > FETCHED
        && p.n >= FETCHING_COLUMNS
        && values >= FETCHED_B
        && foresees::<S>()
        && !matches!(p.epilogue, Epilogue::Descend(_))
}

/// Whether tiles of eight vectors read so many values of B almost in the order in which they lie, so that they come faster from L2 than
/// several rows side by side.
#[inline(always)]
fn is_in_order<S: Simd>(b: Operand, values: usize) -> bool {
    foresees::<S>() && b.row <= SHORT && values <= Core::current().l2
}

/// Whether this core foresees what is read in order, which shows with vectors of whole lines only.
#[inline(always)]
fn foresees<S: Simd>() -> bool {
    S::LANES == LINE && Core::current().foresees()
}

/// The most steps of so many rows: their values of A stay in registers, beside B and the accumulators.
#[inline(always)]
fn most_steps<S: Simd>(rows: usize) -> usize {
    let registers = if S::TILE_ROWS <= 6 { 16 } else { 32 };
    STEPS.min((registers - 2 - rows) / rows)
}

/// The same of `k` steps beside a B whose rows lie so far apart. (Where it is memory that brings them, more are better.)
#[inline(always)]
fn most_beside<S: Simd>(rows: usize, k: usize, b_row: isize) -> usize {
    let most = most_steps::<S>(rows);
    let pages = b_row == PAGE as isize && k > STEPS && k.saturating_mul(PAGE) <= MEMORY;
    if pages { most.min(Core::current().pages) } else { most }
}

/// The first place in a buffer that lies half a page from `p`, whole pages aside.
#[inline(always)]
fn half_a_page_from(p: *const f32, buffer: *mut f32) -> *mut f32 {
    let values = |p: *const f32| p.addr() / size_of::<f32>();
    buffer.wrapping_add((values(p) + PAGE / 2).wrapping_sub(values(buffer)) % PAGE / LINE * LINE)
}

/// The update that happens in registers, if that is what is done to C.
#[inline(always)]
fn plain<'a>(p: &Product<'a>) -> Option<&'a Plain> {
    if let Epilogue::Descend(descent) = p.epilogue { descent.plain.as_ref() } else { None }
}

/// Rows that stream into C at once, if it has so few steps and rows so long that tiles do worse.
#[inline(always)]
fn rows_of_few_steps<S: Simd>(p: &Product) -> Option<usize> {
    let long = match (Rest::all(p.epilogue), plain(p)) {
        (None, _) => (2 * S::LANES * p.k).clamp(VECTORS * S::LANES, LONG),
        (_, Some(_)) => (2 * S::LANES * p.k).clamp(2 * VECTORS * S::LANES, LONG),
        // What a tile would do to its elements in registers takes a pass over each row here.
        _ => 4 * LONG,
    };
    // Pairs take half as many reads of B, where their values of A find registers.
    let rows = if S::TILE_ROWS <= 6 { 1 } else { rows_at_once(p.k) };
    (p.k <= STEPS && p.n >= long).then_some(rows)
}

/// Rows that so few steps stream into at once, where vectors are lines.
#[inline(always)]
const fn rows_at_once(steps: usize) -> usize {
    if steps > 1 { 2 } else { 1 }
}

/// The kernel for `rows` rows, at most [`most_rows`], of one vector and `steps` steps, at most [`most_steps`]; for a [`PIECE`] of a row and
/// at most [`PIECE_STEPS`]; or for rows of weights, as many as [`rows_of_few_steps`] says, and at most [`STEPS`].
fn kernel<S: Simd>(rows: usize, steps: usize, vectors: usize, descends: bool) -> unsafe fn(S, &Pass) {
    macro_rules! by_shape {
        ($vectors:expr, $descends:expr; $($rows:literal: $($steps:literal)+;)+) => {
            match (rows, steps) {
                $($(($rows, $steps) => pass::<S, $rows, $steps, { $vectors }, { $descends }>,)+)+
                _ => unreachable!("no pass of {rows} rows and {steps} steps"),
            }
        };
    }
    if const { S::TILE_ROWS <= 6 } {
        if descends {
            by_shape!(1, true; 1: 1 2 3 4 5 6 7 8;)
        } else {
            by_shape!(1, false; 1: 1 2 3 4 5 6 7 8; 2: 1 2 3 4 5 6; 3: 1 2 3;)
        }
    } else if descends {
        by_shape!(1, true; 1: 1 2 3 4 5 6 7 8; 2: 2 3 4 5 6 7 8;)
    } else if vectors > 1 {
        by_shape!(PIECE, false; 1: 1 2 3 4 5 6;)
    } else {
        by_shape!(1, false; 1: 1 2 3 4 5 6 7 8; 2: 1 2 3 4 5 6 7 8; 3: 1 2 3 4 5 6 7 8; 4: 1 2 3 4 5 6;)
    }
}
