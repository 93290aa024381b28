//! The tiles of one block of a product, and what is done to each while it is in L1.

use std::mem::MaybeUninit;

use super::activation::Activation;
use super::elementwise::{activate_slice, gradient_slice};
use super::gemm::{Columns, Descent, Epilogue, Product, Rhs};
use super::pack::{Operand, transpose};
use super::tile::{Finish, PANEL, Start, Tile, kernel, rows_for, turned_kernel, turned_rows, vectors_for};
use super::update::update_rows;
use super::vector::{load_up_to, store_up_to};
use crate::buffer::CacheLine;
use crate::simd::{Body, Simd};

/// Values in the largest tile: what is staged of a C whose rows are not contiguous, or that is not stored at all.
const BUFFER: usize = 12 * 2 * PANEL;

/// Values of a block up to which it lies in L1 as a whole: nothing needs to be asked for.
const CLOSE: usize = 6 * 1024;

/// Steps of k up to which reading and writing C takes longer than the multiply-adds.
const FEW: usize = 8;

/// One block of a product: `m` x `n` of C from (i0, j0) on, with its part of A and B.
pub(super) struct Block<'a> {
    pub p: &'a Product<'a>,
    pub a: Operand,
    pub b: Columns,
    pub i0: usize,
    pub j0: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub start: Start,
    /// Whether the chains are finished after this block.
    pub last: bool,
}

impl Block<'_> {
    /// All tiles.
    #[inline(always)]
    pub(super) fn tiles<S: Simd>(&self, s: S) {
        let (finish, rest) = split(self.p, self.last);
        if matches!(self.p.epilogue, Epilogue::Descend(_)) {
            s.run_outlined(Sweep { block: self, finish, rest, kind: Descending });
        } else if self.p.c_col != 1 {
            s.run_outlined(Sweep { block: self, finish, rest, kind: Staged });
        } else {
            match rest {
                Some(Rest::Derivative(..)) => {
                    s.run_outlined(Sweep { block: self, finish, rest, kind: Derivative });
                }
                Some(_) => s.run_outlined(Sweep { block: self, finish, rest, kind: Activated }),
                None => s.run_outlined(Sweep { block: self, finish, rest, kind: Plain }),
            }
        }
    }
}

/// What a sweep is ready for. What it need not be ready for takes it no time: in a small product, that is most of it. Types,
/// not numbers, because a profile shows their names.
trait Kind {
    /// Something is left to do after the kernel.
    const REST: bool = true;
    /// Tiles go to C by way of a buffer, as its rows are not contiguous.
    const STAGED: bool = false;
    /// Tiles are gradients: the kernel updates the weights with them, or they go to a buffer and from there into an update.
    const DESCENDING: bool = false;
}

struct Plain;
struct Activated;
struct Derivative;
struct Staged;
struct Descending;

impl Kind for Plain {
    const REST: bool = false;
}

impl Kind for Activated {}

impl Kind for Derivative {}

impl Kind for Staged {
    const STAGED: bool = true;
}

impl Kind for Descending {
    const DESCENDING: bool = true;
}

/// Steps of k of a B that is transposed for a product of one tile.
const TURNED: usize = 64;

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
        // A single column is contiguous, whatever its stride.
        let rows = (p.c_col == 1 || p.n == 1) && p.alpha == 1.0;
        let one = p.m <= rows_for::<S>(p.n, p.a.row) && p.n <= 2 * S::LANES;
        if !(rows && one && p.k <= CLOSE && p.k * (p.m + p.n) + p.m * p.n <= CLOSE) {
            return None;
        }
        if b.col == 1 || p.n == 1 {
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
    finish: Finish,
    rest: Option<Rest<'a>>,
}

impl Body for Turned<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Turned { p, b, finish, rest } = self;
        let mut buffer = MaybeUninit::<[CacheLine; TURNED * PANEL / 16]>::uninit();
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
    let vectors = if p.n <= S::LANES { 1 } else { 2 };
    let tile = Tile {
        k: p.k,
        a: p.a.ptr,
        a_row: p.a.row,
        a_k: p.a.col,
        b: b.ptr,
        b_k: b.k,
        b_panel: b.panel,
        c: p.c,
        c_row: p.c_row,
        // Nothing comes next.
        c_next: p.c,
        c_next_row: 0,
        c_ahead: 0,
        b_next: b.ptr,
        b_ahead: 0,
        cols: p.n,
        start: p.start,
        finish,
    };
    // SAFETY: the caller's; C has no more rows and columns than this kernel's tile.
    unsafe { kernel::<S>(p.m, vectors, p.n == vectors * S::LANES)(s, &tile) };
    match rest {
        None => {}
        Some(Rest::Descend(_)) if !p.first_row => {}
        // SAFETY: B holds the columns of C, and there is a bias for each.
        Some(Rest::Descend(descent)) => unsafe { descend_biases(s, descent, &tile, p.offset) },
        rest => {
            let done = Done { p, tile: &tile, rows: p.m, c: p.c, offset: p.offset };
            // SAFETY: the kernel has just written the tile, and the epilogue's matrices lie like C.
            unsafe { done.finish::<S, Activated>(s, rest) };
        }
    }
}

/// A product of few rows whose B lies by columns, each contiguous: they are transposed on the way.
pub(super) struct Turning<'a> {
    p: &'a Product<'a>,
    b: Operand,
}

impl<'a> Turning<'a> {
    /// The product, if it is one of those.
    #[inline(always)]
    pub(super) fn of<S: Simd>(p: &'a Product<'a>) -> Option<Turning<'a>> {
        match p.b {
            Rhs::Plain(b)
                if b.col != 1
                    && b.row == 1
                    && p.c_col == 1
                    && p.alpha == 1.0
                    && p.m <= turned_rows::<S>()
                    && !matches!(p.epilogue, Epilogue::Descend(_)) =>
            {
                Some(Turning { p, b })
            }
            _ => None,
        }
    }
}

impl Body for Turning<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Turning { p, b } = self;
        let (finish, rest) = split(p, true);
        let (kernel, vectors) = turned_kernel::<S>(p.m);
        for j in (0..p.n).step_by(vectors * S::LANES) {
            let c = p.c.wrapping_add(j);
            let tile = Tile {
                k: p.k,
                a: p.a.ptr,
                a_row: p.a.row,
                a_k: p.a.col,
                b: b.at(0, j).ptr,
                b_k: 1,
                b_panel: b.col,
                c,
                c_row: p.c_row,
                // Whoever reads columns asks for nothing: each is a stream, which the hardware foresees.
                c_next: c,
                c_next_row: 0,
                c_ahead: 0,
                b_next: b.ptr,
                b_ahead: 0,
                cols: (p.n - j).min(vectors * S::LANES),
                start: match p.start {
                    Start::Bias(bias) => Start::Bias(bias.wrapping_add(j)),
                    other => other,
                },
                finish: match finish {
                    Finish::Gate(y) => Finish::Gate(y.wrapping_add(j)),
                    other => other,
                },
            };
            // SAFETY: A, B and C hold these rows, steps of k and columns: `Serial`'s contract.
            unsafe { kernel(s, &tile) };
            if rest.is_some() {
                let done = Done { p, tile: &tile, rows: p.m, c, offset: p.offset + j as isize };
                // SAFETY: the kernel has just written the tile, and the epilogue's matrices lie like C.
                unsafe { done.finish::<S, Activated>(s, rest) };
            }
        }
    }
}

/// The tiles of a block, column by column, so that a panel of B stays close while A passes.
struct Sweep<'a, K> {
    block: &'a Block<'a>,
    finish: Finish,
    rest: Option<Rest<'a>>,
    #[allow(dead_code, reason = "its type is what counts")]
    kind: K,
}

impl<K: Kind> Body for Sweep<'_, K> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Sweep { block, finish, rest, .. } = self;
        let p = block.p;
        let mut buffer = MaybeUninit::<[CacheLine; BUFFER / 16]>::uninit();
        let buffer: *mut f32 = buffer.as_mut_ptr().cast();
        // Tiles on top of each other are equally high, but for one row that the first of them have more: a last one with
        // what is left would be too low to hide the latency of its chains.
        // With few steps of k it is C that takes the time: low tiles write it in long pieces of few rows.
        let low_and_wide = block.k <= FEW && block.n >= 8 * S::LANES;
        let most = if low_and_wide { (S::TILE_ROWS / 4).max(1) } else { rows_for::<S>(block.n, block.a.row) };
        let tiles = block.m.div_ceil(most);
        let (low, higher) = if tiles == 1 { (block.m, 0) } else { (block.m / tiles, block.m % tiles) };
        let widest = vectors_for::<S>(low + usize::from(higher > 0));
        let width = widest * S::LANES;
        let ask = block.k * (block.m + block.n) + block.m * block.n > CLOSE;
        // They share out the rows of B that they ask for ahead.
        let share = if tiles == 1 { block.k } else { block.k.div_ceil(tiles) };
        let mut tile = Tile {
            k: block.k,
            a: block.a.ptr,
            a_row: block.a.row,
            a_k: block.a.col,
            b: block.b.ptr,
            b_k: block.b.k,
            b_panel: block.b.panel,
            c: buffer,
            c_row: p.c_row,
            c_next: buffer,
            c_next_row: p.c_row,
            c_ahead: if ask { low } else { 0 },
            b_next: buffer,
            b_ahead: if ask { share } else { 0 },
            cols: width,
            start: block.start,
            finish,
        };
        let in_place = matches!(finish, Finish::Descend { .. });
        let mut j = 0;
        while j < block.n {
            tile.cols = width.min(block.n - j);
            let vectors =
                if tile.cols == width { widest } else { tile.cols.div_ceil(S::LANES).next_power_of_two() };
            let full = tile.cols == vectors * S::LANES;
            let low_kernel = kernel::<S>(low, vectors, full);
            let high_kernel = if higher > 0 { kernel::<S>(low + 1, vectors, full) } else { low_kernel };
            tile.b = block.b.at(j);
            let next = block.b.at(if j + width < block.n { j + width } else { j });
            if let Start::Bias(bias) = block.start {
                tile.start = Start::Bias(bias.wrapping_add(j));
            }
            let mut i = 0;
            for above in 0..tiles {
                let (rows, kernel) = if above < higher { (low + 1, high_kernel) } else { (low, low_kernel) };
                tile.a = block.a.at(i, 0).ptr;
                if let Start::BiasRows(bias) = block.start {
                    tile.start = Start::BiasRows(bias.wrapping_add(i));
                }
                let place = (block.i0 + i) as isize * p.c_row + (block.j0 + j) as isize * p.c_col;
                let c = p.c.wrapping_offset(place);
                if let Finish::Gate(y) = finish {
                    tile.finish = Finish::Gate(y.wrapping_offset(place));
                }
                // Below, or at the top of the next columns.
                let down = if above + 1 < tiles { rows as isize } else { -(i as isize) };
                let right = if above + 1 < tiles { 0 } else { width as isize };
                tile.c_next = c.wrapping_offset(down * p.c_row + right * p.c_col);
                tile.b_next = next.wrapping_offset((above * share) as isize * block.b.k);
                if K::STAGED || (K::DESCENDING && !in_place) {
                    tile.c_row = tile.cols.next_multiple_of(S::LANES) as isize;
                } else {
                    tile.c = c;
                }
                if let (true, Start::Scaled(_)) = (K::STAGED, tile.start) {
                    let from = Operand { ptr: c, row: p.c_row, col: p.c_col };
                    // SAFETY: these rows and columns of C exist, and the buffer holds the largest tile.
                    unsafe { transpose(s, from.t(), (tile.cols, rows), buffer, (tile.c_row, 1)) };
                }
                let (at, shape) = ((p.offset + place, p.c_row), (rows, tile.cols));
                if let (true, Some(Rest::Descend(descent))) = (K::DESCENDING, rest) {
                    descent.weights.ask_for_state(s, descent.rule, at, shape);
                }
                // SAFETY: A, B and C hold these rows, steps of k and columns: `Serial`'s contract, kept by the blocks.
                unsafe { kernel(s, &tile) };
                match rest {
                    Some(Rest::Descend(_)) if K::DESCENDING && in_place => {}
                    Some(Rest::Descend(descent)) if K::DESCENDING => {
                        let how = (descent.rule, descent.scaling);
                        let grad = (buffer.cast_const(), tile.c_row);
                        // SAFETY: the weights lie like C; the kernel has just written their gradients.
                        unsafe { update_rows(s, how, grad, descent.weights, at, shape) };
                    }
                    rest if K::REST => {
                        let done = Done { p, tile: &tile, rows, c, offset: p.offset + place };
                        // SAFETY: the kernel has just written the tile, and the epilogue's matrices lie like C.
                        unsafe { done.finish::<S, K>(s, rest) };
                    }
                    _ => {}
                }
                i += rows;
            }
            if let (true, Some(Rest::Descend(descent)), true) =
                (K::DESCENDING, rest, p.first_row && block.i0 == 0)
            {
                // In the first row, the offset of a part of C is its first column.
                let col = p.offset + (block.j0 + j) as isize;
                // SAFETY: B holds these columns, and there is a bias for each.
                unsafe { descend_biases(s, descent, &tile, col) };
            }
            j += width;
        }
    }
}

/// What is left to do after a kernel.
#[derive(Clone, Copy)]
enum Rest<'a> {
    Activate(Activation, *mut f32),
    Derivative(Activation, *const f32),
    Descend(&'a Descent<'a>),
}

/// What the kernel does in registers, and what is left.
#[inline(always)]
fn split<'a>(p: &Product<'a>, last: bool) -> (Finish, Option<Rest<'a>>) {
    match p.epilogue {
        _ if !last => (Finish::Keep, None),
        Epilogue::Activate { activation: Activation::Identity, .. } => (Finish::Keep, None),
        Epilogue::Activate { activation: Activation::Relu, .. } => (Finish::Relu, None),
        Epilogue::Activate { activation: Activation::LeakyRelu(slope), before } if before.is_null() => {
            (Finish::Leaky(slope), None)
        }
        Epilogue::Activate { activation, before } => (Finish::Keep, Some(Rest::Activate(activation, before))),
        Epilogue::Derivative { activation: Activation::Identity, .. } => (Finish::Keep, None),
        Epilogue::Derivative { activation: Activation::Relu, saved } if p.c_col == 1 => {
            (Finish::Gate(saved.wrapping_offset(p.offset)), None)
        }
        Epilogue::Derivative { activation, saved } => {
            (Finish::Keep, Some(Rest::Derivative(activation, saved)))
        }
        Epilogue::Descend(descent) => {
            let plain = descent.rule.plain(descent.scaling);
            let finish = plain.map_or(Finish::Keep, |(scale, rate)| Finish::Descend { scale, rate });
            (finish, Some(Rest::Descend(descent)))
        }
    }
}

/// A tile whose chains are finished: at `tile.c`, and to be at `c`, which is `offset` from where the epilogue's pointers
/// stand.
struct Done<'a> {
    p: &'a Product<'a>,
    tile: &'a Tile,
    rows: usize,
    c: *mut f32,
    offset: isize,
}

impl Done<'_> {
    /// # Safety
    /// The tile has been written, C and the epilogue's matrices hold its rows and columns.
    #[inline(always)]
    unsafe fn finish<S: Simd, K: Kind>(self, s: S, rest: Option<Rest>) {
        let Done { p, tile, rows, c, offset } = self;
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
            // Where the tile is staged, C is transposed and the derivative follows below.
            Some(Rest::Derivative(activation, saved)) if !K::STAGED => {
                let saved = saved.wrapping_offset(offset).cast_mut();
                for row in 0..rows {
                    // SAFETY: the kernel has just written these contiguous values, and as many were saved.
                    let (row, saved) = unsafe {
                        let row_of = |p| std::slice::from_raw_parts_mut(contiguous(p, row), cols);
                        (row_of(tile.c), row_of(saved))
                    };
                    gradient_slice(s, activation, saved, row);
                }
            }
            Some(Rest::Derivative(..)) => {}
            Some(Rest::Descend(_)) => unreachable!("a descent has a sweep of its own"),
        }
        if K::STAGED {
            // SAFETY: C holds these rows and columns.
            unsafe { transpose(s, from, (rows, cols), c, (p.c_col, p.c_row)) };
            if let Some(Rest::Derivative(activation, saved)) = rest {
                debug_assert!(p.c_row == 1, "a derivative is taken of contiguous matrices only");
                for col in 0..cols {
                    let at = col as isize * p.c_col;
                    // SAFETY: the tile's rows are contiguous in C; they have just been written, and as many were saved.
                    let (column, saved) = unsafe {
                        (
                            std::slice::from_raw_parts_mut(c.wrapping_offset(at), rows),
                            std::slice::from_raw_parts(saved.wrapping_offset(offset + at), rows),
                        )
                    };
                    gradient_slice(s, activation, saved, column);
                }
            }
        }
    }
}

/// Updates the biases of a tile's columns, the first of them `col`: their gradients are the sums of B over ascending k,
/// whose rows the tiles above have brought close.
///
/// # Safety
/// B holds the tile's columns, and there is a bias for each.
#[inline(always)]
unsafe fn descend_biases<S: Simd>(s: S, descent: &Descent, tile: &Tile, col: isize) {
    let mut sums = [0.0_f32; 4 * PANEL];
    let mut j = 0;
    while j < tile.cols {
        let from = tile.b.wrapping_offset((j / PANEL) as isize * tile.b_panel).wrapping_add(j % PANEL);
        let n = tile.cols - j;
        let mut sum = s.splat(0.0);
        for p in 0..tile.k as isize {
            // SAFETY: row p < k of B has these columns.
            sum = s.add(sum, unsafe { load_up_to(s, from.wrapping_offset(p * tile.b_k), n) });
        }
        if let Finish::Descend { scale, rate } = tile.finish {
            let bias = descent.biases.weights.wrapping_offset(col).wrapping_add(j);
            // SAFETY: the caller vouches for the biases.
            unsafe {
                let descended = s.fma(s.splat(-rate), s.mul(sum, s.splat(scale)), load_up_to(s, bias, n));
                store_up_to(s, bias, n, descended);
            }
        }
        // SAFETY: a tile has no more columns than `sums`, which is a multiple of every vector.
        unsafe { s.store(sums.as_mut_ptr().add(j), sum) };
        j += S::LANES;
    }
    if let Finish::Descend { .. } = tile.finish {
        return;
    }
    let how = (descent.rule, descent.scaling);
    // SAFETY: the caller vouches for the biases.
    unsafe { update_rows(s, how, (sums.as_ptr(), 0), descent.biases, (col, 0), (1, tile.cols)) };
}
