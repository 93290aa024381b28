//! The tiles of one block of a product, and what is done to each while it is in L1.

use std::mem::MaybeUninit;

use super::cost::is_close;
use super::epilogue::{BUFFER, Done, Rest, descend_biases, split};
use super::pack::Operand;
use super::product::{Epilogue, Product};
use super::shapes::kernel;
use super::stack::{Cover, Stack};
use super::tile::{Columns, Finish, PANEL, Start, Tile};
use super::update::update_rows;
use crate::buffer::{CacheLine, LINE};
use crate::simd::{Body, Core, Simd};

/// Steps of k from which rows of B are asked for before their step: in few they would mostly be rows that do not come at all.
const SOON: usize = 32;

/// Values from the first to the last of a B in place from which its rows come from memory (16 MiB), as fast as they are asked for: the
/// tiles that share out the next columns ask for them all the time, not in their first steps, and then for nothing.
const MEMORY: usize = 4 * 1024 * 1024;

/// Columns of a row of tiles whose gradients wait for their update, at most: so long pieces of weights and state are foreseen, and the
/// latency of a root and a division shows once for all.
const WAITING: usize = 512;
/// From one row of those gradients to the next, which so do not share a set of L1.
const WAITING_ROW: usize = WAITING + LINE;
/// Values of weights and state up to which they come from L3 in time (6 MiB): others that are in use may fill the rest of it.
const NEAR: usize = 1536 * 1024;
/// Rows of the highest tile of two vectors or more.
const MOST_ROWS: usize = BUFFER / (2 * PANEL);
/// Columns of the widest tile.
const WIDEST: usize = 4 * PANEL;

/// Whether weights and state that are read row by row come by themselves: in pieces so long that they are foreseen, and from no other core's
/// caches.
#[inline(always)]
pub(super) fn along_rows(p: &Product) -> bool {
    !p.is_part && (p.n >= WAITING || p.n as isize == p.c_row)
}

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
    /// From the product's element (0, 0) to this one of the block.
    #[inline(always)]
    fn place(&self, i: usize, j: usize) -> isize {
        let p = self.p;
        (self.i0 + i) as isize * p.c_row + (self.j0 + j) as isize * p.c_col
    }

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
    /// Where tiles are that do not go to C at once.
    type Buffer;
    /// Something is left to do after the kernel.
    const REST: bool = true;
    /// Tiles go to C by way of a buffer, as its rows are not contiguous.
    const STAGED: bool = false;
    /// Tiles are gradients: the kernel updates the weights with them, or they go to a buffer and from there into an update.
    const DESCENDING: bool = false;
}

/// What the largest tile takes.
type OfTile = [CacheLine; BUFFER / LINE];

struct Plain;
struct Activated;
struct Derivative;
struct Staged;
struct Descending;

impl Kind for Plain {
    type Buffer = OfTile;

    const REST: bool = false;
}

impl Kind for Activated {
    type Buffer = OfTile;
}

impl Kind for Derivative {
    type Buffer = OfTile;
}

impl Kind for Staged {
    type Buffer = OfTile;

    const STAGED: bool = true;
}

impl Kind for Descending {
    type Buffer = [CacheLine; MOST_ROWS * WAITING_ROW / LINE];

    const DESCENDING: bool = true;
}

/// The tiles of a block, column by column, so that a panel of B stays close while A passes.
struct Sweep<'a, K> {
    block: &'a Block<'a>,
    finish: Finish<'a>,
    rest: Option<Rest<'a>>,
    #[allow(dead_code, reason = "its type is what counts")]
    kind: K,
}

impl<K: Kind> Body for Sweep<'_, K> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        const { assert!(S::TILE_ROWS <= MOST_ROWS && 8 * S::LANES <= WIDEST) };
        let Sweep { block, finish, rest, .. } = self;
        let p = block.p;
        let mut buffer = MaybeUninit::<K::Buffer>::uninit();
        let buffer: *mut f32 = buffer.as_mut_ptr().cast();
        let b_in_place = block.b.panel == PANEL as isize;
        let cover = Cover::of::<S>((block.m, block.n, block.k), block.a.row, b_in_place);
        let asks = Asks::of::<S>(block);
        let gradients = Gradients::of::<S, K>(block, finish);
        let mut tile = Tile {
            c_next_row: p.c_row,
            b_soon: if block.k >= SOON { asks.soon * block.b.k } else { 0 },
            ..Tile::alone(block.a, block.k, block.b, (buffer, p.c_row, 0), block.start, finish)
        };
        // The first column whose gradients wait.
        let mut waiting = 0;
        let mut j = 0;
        while j < block.n {
            let left = block.n - j;
            let stack = cover.stack::<S>(left);
            let Stack { tiles, low, higher, .. } = stack;
            let width = stack.vectors * S::LANES;
            let share = asks.share(block.k, stack, &mut tile);
            tile.cols = width.min(left);
            let (vectors, fill) = stack.columns::<S>(left);
            let low_kernel = kernel::<S>(low, vectors, fill);
            let high_kernel = if higher > 0 { kernel::<S>(low + 1, vectors, fill) } else { low_kernel };
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
                let place = block.place(i, j);
                let c = p.c.wrapping_offset(place);
                if let Finish::Gate(y) = finish {
                    tile.finish = Finish::Gate(y.wrapping_offset(place));
                }
                // Below, or at the top of the next columns.
                let down = if above + 1 < tiles { rows as isize } else { -(i as isize) };
                let right = if above + 1 < tiles { 0 } else { width as isize };
                tile.c_next = c.wrapping_offset(down * p.c_row + right * p.c_col);
                tile.b_next = next.wrapping_offset((above * share) as isize * block.b.k);
                if gradients.wait {
                    tile.c = buffer.wrapping_add(i * WAITING_ROW + j - waiting);
                    tile.c_row = WAITING_ROW as isize;
                } else if K::STAGED || (K::DESCENDING && !gradients.in_kernel) {
                    tile.c_row = tile.cols.next_multiple_of(S::LANES) as isize;
                } else {
                    tile.c = c;
                }
                let (at, shape) = ((p.offset + place, p.c_row), (rows, tile.cols));
                let done = Done { p, tile: &tile, rows, c, offset: p.offset + place };
                if K::STAGED {
                    // SAFETY: these rows and columns of C exist, and the buffer holds the largest tile.
                    unsafe { done.begin(s, true) };
                }
                if let (true, Some(Rest::Descend(descent))) = (K::DESCENDING && gradients.ask, rest) {
                    descent.weights.ask_for(s, descent.rule, at, shape, gradients.wait);
                }
                // SAFETY: A, B and C hold these rows, steps of k and columns: `Serial`'s contract, kept by the blocks.
                unsafe { kernel(s, &tile) };
                match rest {
                    Some(Rest::Descend(_)) if K::DESCENDING && (gradients.in_kernel || gradients.wait) => {}
                    Some(Rest::Descend(descent)) if K::DESCENDING => {
                        let (how, grad) =
                            ((descent.rule, descent.scaling), (buffer.cast_const(), tile.c_row));
                        // SAFETY: the weights lie like C; the kernel has just written their gradients.
                        unsafe { update_rows(s, how, grad, descent.weights, at, shape) };
                    }
                    // SAFETY: the kernel has just written the tile, and the epilogue's matrices lie like C.
                    rest if K::REST => unsafe { done.finish(s, rest, K::STAGED) },
                    _ => {}
                }
                i += rows;
            }
            if let (true, Some(Rest::Descend(descent))) = (K::DESCENDING, rest) {
                let end = j + tile.cols;
                if gradients.wait && (end == block.n || end + WIDEST > waiting + WAITING) {
                    let how = (descent.rule, descent.scaling);
                    let grad = (buffer.cast_const(), WAITING_ROW as isize);
                    let (at, shape) =
                        ((p.offset + block.place(0, waiting), p.c_row), (block.m, end - waiting));
                    // SAFETY: as above, for the tiles of all columns that wait.
                    unsafe { update_rows(s, how, grad, descent.weights, at, shape) };
                    waiting = end;
                }
                if p.first_row && block.i0 == 0 {
                    // In the first row, the offset of a part of C is its first column.
                    let col = p.offset + (block.j0 + j) as isize;
                    let (b, shape) = (Columns { ptr: tile.b, ..block.b }, (block.k, tile.cols));
                    // SAFETY: B holds these columns, and there is a bias for each.
                    unsafe { descend_biases(s, descent, b, shape, col) };
                }
            }
            j += width;
        }
    }
}

/// What the tiles of a block ask for before they, or the next, need it.
struct Asks {
    /// Rows of the next tile of C.
    c: bool,
    /// B does not stay in L2.
    beyond_l2: bool,
    /// Nor does it come faster than it is asked for.
    from_memory: bool,
    /// Steps of k ahead of which rows of B are asked for on this core.
    soon: isize,
}

impl Asks {
    #[inline(always)]
    fn of<S: Simd>(block: &Block) -> Asks {
        if is_close((block.m, block.n, block.k)) {
            return Asks { c: false, beyond_l2: false, from_memory: false, soon: 0 };
        }
        let (core, p) = (Core::current(), block.p);
        // One that fills L2 does not stay in it.
        let beyond_l2 = p.k.saturating_mul(p.n) >= core.l2;
        // Rows lie as far apart as those of the whole B, of which this may be a part.
        let far = S::LANES == LINE && p.k.saturating_mul(block.b.k.unsigned_abs()) >= MEMORY;
        // What is not far beyond L2 comes in time by itself where it is foreseen, unless it is read: weights to be updated.
        let updates = matches!(p.epilogue, Epilogue::Descend(_));
        let c = updates || !core.foresees() || p.m.saturating_mul(p.n) >= 2 * core.l2;
        Asks { c, beyond_l2, from_memory: beyond_l2 && far, soon: core.ahead }
    }

    /// Shares out the rows of the next columns of B among the tiles of a stack, so many to each.
    #[inline(always)]
    fn share(&self, k: usize, Stack { tiles, low, .. }: Stack, tile: &mut Tile) -> usize {
        let share = if self.beyond_l2 { k.div_ceil(tiles) } else { 0 };
        // Those whose turn would not come in the steps that ask for nothing else are asked for before.
        let turns = match tiles {
            2.. if self.from_memory => share.min(k.saturating_sub(low + share) / (tiles - 1)),
            _ => 0,
        };
        debug_assert!(turns == 0 || low + share + turns * (tiles - 1) <= k);
        tile.c_ahead = if self.c { low } else { 0 };
        (tile.b_ahead, tile.b_turns, tile.b_every) = (share - turns, turns, tiles);
        share
    }
}

/// How the tiles of a block that are gradients are used up.
struct Gradients {
    /// By the kernel, in registers.
    in_kernel: bool,
    /// Those of a row of tiles together.
    wait: bool,
    /// Weights and state are asked for: what is near comes by itself, if it is read along rows.
    ask: bool,
}

impl Gradients {
    #[inline(always)]
    fn of<S: Simd, K: Kind>(block: &Block, finish: Finish) -> Gradients {
        let p = block.p;
        let in_kernel = matches!(finish, Finish::Descend(_));
        let wait = K::DESCENDING && !in_kernel && block.m <= S::TILE_ROWS && along_rows(p);
        let ask = match p.epilogue {
            Epilogue::Descend(descent) if K::DESCENDING && !in_kernel => {
                let near = if wait { NEAR } else { Core::current().l1 };
                p.m.saturating_mul(p.n).saturating_mul(1 + descent.rule.states()) > near
            }
            _ => false,
        };
        Gradients { in_kernel, wait, ask }
    }
}
