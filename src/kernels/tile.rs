//! The microkernel: one tile of C, held in registers over the whole of k.
//!
//! Contract. Row `i` of A at step `p` is `a[i * a_row + p * a_k]`. Row `p` of B starts at `b + p * b_k`; its columns
//! lie in panels of [`PANEL`] contiguous values, one panel `b_panel` after the other (`b_panel == PANEL` when B is read
//! in place). Row `i` of C starts at `c + i * c_row` and is contiguous. The tile is `ROWS` x `NV` vectors, of which the
//! first `cols` columns exist, those of the first half of the vectors among them; nothing else is read or written. Each
//! element is one chain of fused multiply-adds over ascending p, from `start`: tile shape and vector width cannot change a
//! bit.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::math::{gate, leaky};
use super::reads::Reads;
use super::update::Plain;
use crate::buffer::{CacheLine, LINE, PAGE};
use crate::simd::{Body, Simd};

/// Columns in a panel of packed B: the width of the highest tile of the widest instruction set, a multiple of all others but
/// that of three vectors, which reads B in place only.
pub(super) const PANEL: usize = 32;

/// Steps of k from which four of them move the pointers into A once, where the registers allow it: a core that runs two
/// threads takes in half as many instructions for each. With fewer, one more loop to leave takes longer than that saves.
const MANY: usize = 16;
/// Values between rows of B up to which they do: a page. (Further apart they lost up to a third: by measurement, the cause is
/// not known.)
const NEAR: isize = PAGE as isize;

/// Where the chains of a tile begin.
#[derive(Clone, Copy)]
pub(super) enum Start {
    /// At zero: C is not read.
    Zero,
    /// At one value for each column: C is not read.
    Bias(*const f32),
    /// At one value for each row: C is not read.
    BiasRows(*const f32),
    /// At this multiple of C.
    Scaled(f32),
}

/// What is done to the finished chains while they are still in registers.
#[derive(Clone, Copy)]
pub(super) enum Finish<'a> {
    /// Nothing.
    Keep,
    /// `x <= 0 ? slope * x : x`.
    Leaky(f32),
    /// `x <= 0 ? 0 : x`.
    Relu,
    /// `y <= 0 ? 0 : x`, where the y lie here as the tile does in C.
    Gate(*const f32),
    /// `c - rate * (scale * x)`: C holds weights, and x is their gradient. (Behind a reference: two small values side by side
    /// would be copied as one vector, which waits until both have been written to L1.)
    Descend(&'a Plain),
}

/// `weight + negative_rate * (scale * x)`.
#[inline(always)]
pub(super) fn descended<S: Simd>(s: S, (scale, negative_rate): (S::V, S::V), x: S::V, weight: S::V) -> S::V {
    s.fma(negative_rate, s.mul(x, scale), weight)
}

/// The operands of one tile; see the contract above. (Pointers first, then strides: next to each other they would be copied
/// from an operand as one vector, which waits until the operand itself has been written to L1.)
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub k: usize,
    pub a: *const f32,
    pub b: *const f32,
    pub c: *mut f32,
    pub a_row: isize,
    pub b_k: isize,
    pub c_row: isize,
    pub a_k: isize,
    pub b_panel: isize,
    /// Where the next tile of C starts, and how far apart its rows are: so many of its rows are asked for while this tile
    /// is computed, one in each of the first steps of k.
    pub c_next: *const f32,
    pub c_next_row: isize,
    pub c_ahead: usize,
    /// A row of the columns of B that come next. From there on, so many rows are asked for, likewise, if they come from
    /// beyond L2; and after these, where vectors are lines, so many more in one of so many steps each. `k` has all these steps.
    pub b_next: *const f32,
    pub b_ahead: usize,
    pub b_turns: usize,
    pub b_every: usize,
    /// From a row of B to the one that is asked for while its step is computed: out of L2, and far apart, the hardware does
    /// not bring them in time everywhere.
    pub b_soon: isize,
    pub cols: usize,
    pub start: Start,
    pub finish: Finish<'a>,
}

/// The microkernel.
pub(super) struct TileBody<'a, R, const ROWS: usize, const NV: usize>(&'a Tile<'a>, PhantomData<R>);

impl<'a, R: Reads, const ROWS: usize, const NV: usize> TileBody<'a, R, ROWS, NV> {
    /// # Safety
    /// The tile's operands are as its contract says, for `ROWS` rows and `NV` vectors.
    #[inline(always)]
    pub(super) unsafe fn new(tile: &'a Tile<'a>) -> Self {
        TileBody(tile, PhantomData)
    }
}

impl<R: Reads, const ROWS: usize, const NV: usize> Body for TileBody<'_, R, ROWS, NV> {
    type Out = ();

    // Loops over constant bounds, no closures: what is not inlined here loses the instruction set.
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let t = self.0;
        debug_assert!(R::TRANSPOSES || t.cols > NV / 2 * S::LANES, "the first half of the vectors exists");
        debug_assert!(!R::IN_REGISTERS || t.cols >= S::LANES, "the last vector is a whole one");
        debug_assert!(!R::AHEAD || t.k >= 8, "there are steps enough to transpose at once");
        // Masks by vector; unused when all columns exist.
        let mut masks = [s.first(S::LANES); NV];
        if !R::WHOLE {
            for j in 0..NV {
                masks[j] = s.first(t.cols.saturating_sub(j * S::LANES));
            }
        }
        // Short loops, because the compiler unrolls longer ones too late to keep the accumulators in registers.
        macro_rules! each_row {
            ($i:ident, $body:block) => {
                for $i in 0..ROWS.min(6) $body
                for $i in 6..ROWS.min(12) $body
                for $i in 12..ROWS $body
            };
        }
        // Where a vector begins. The last of those that transpose in registers ends with the last column, and may have some of the one before.
        macro_rules! col {
            ($j:expr) => {
                if R::IN_REGISTERS { ($j * S::LANES).min(t.cols - S::LANES) } else { $j * S::LANES }
            };
        }
        // Vectors whose columns are known to exist when this is compiled. (Columns to transpose may be any.)
        macro_rules! exists {
            ($j:expr) => {
                R::WHOLE || (!R::TRANSPOSES && $j < NV / 2)
            };
        }
        macro_rules! load {
            ($p:expr, $j:expr) => {
                // SAFETY: whoever made the `Tile` vouches that its `cols` columns exist in every row.
                unsafe { if exists!($j) { s.load($p) } else { s.load_first($p, masks[$j]) } }
            };
        }

        let mut acc = [[s.splat(0.0); NV]; ROWS];
        match t.start {
            Start::Zero => {}
            Start::Bias(bias) => {
                for j in 0..NV {
                    let v = load!(bias.wrapping_add(col!(j)), j);
                    each_row!(i, {
                        acc[i][j] = v;
                    });
                }
            }
            Start::BiasRows(bias) => {
                each_row!(i, {
                    // SAFETY: there is one value for each of the tile's rows.
                    let v = s.splat(unsafe { *bias.wrapping_add(i) });
                    for j in 0..NV {
                        acc[i][j] = v;
                    }
                });
            }
            Start::Scaled(beta) => {
                let beta = s.splat(beta);
                each_row!(i, {
                    for j in 0..NV {
                        let c = t.c.wrapping_offset(i as isize * t.c_row).wrapping_add(col!(j));
                        acc[i][j] = s.mul(beta, load!(c.cast_const(), j));
                    }
                });
            }
        }

        // Every third row has a pointer; the two after it are reached by the addressing modes that x86 has for free.
        let groups = ROWS.div_ceil(3);
        let mut a = [t.a; 8];
        for g in 0..groups {
            a[g] = t.a.wrapping_offset(3 * g as isize * t.a_row);
        }
        let (mut b, mut b_k, mut b_next, mut c_next) = (t.b, t.b_k, t.b_next, t.c_next);
        macro_rules! b {
            ($j:expr) => {{
                if R::TRANSPOSES || R::IN_REGISTERS {
                    // SAFETY: the buffer of transposed columns holds whole vectors.
                    unsafe { s.load(b.wrapping_add($j * S::LANES)) }
                } else {
                    let (panel, col) = ($j * S::LANES / PANEL, $j * S::LANES % PANEL);
                    load!(b.wrapping_offset(panel as isize * t.b_panel).wrapping_add(col), $j)
                }
            }};
        }
        macro_rules! a {
            ($i:expr, $p:expr) => {{
                let a = a[$i / 3].wrapping_offset(($i % 3) as isize * t.a_row).wrapping_add($p);
                // SAFETY: row i < ROWS at this step of k exists: vouched for by whoever made the `Tile`.
                s.splat(unsafe { *a })
            }};
        }
        // Row i of a step of k, whose values of A lie `p` after where the pointers stand.
        macro_rules! row {
            ($i:ident, $p:expr, $bv:expr) => {
                let av = a!($i, $p);
                for j in 0..NV {
                    acc[$i][j] = s.fma(av, $bv[j], acc[$i][j]);
                }
            };
        }
        // One step of k.
        macro_rules! step {
            () => {{
                // Whichever of A's column and B's row is shorter waits in registers.
                if ROWS < NV {
                    let mut av = [s.splat(0.0); ROWS];
                    each_row!(i, {
                        av[i] = a!(i, 0);
                    });
                    for j in 0..NV {
                        let bv = b!(j);
                        each_row!(i, {
                            acc[i][j] = s.fma(av[i], bv, acc[i][j]);
                        });
                    }
                } else {
                    let mut bv = [s.splat(0.0); NV];
                    for j in 0..NV {
                        bv[j] = b!(j);
                    }
                    each_row!(i, {
                        row!(i, 0, bv);
                    });
                }
                b = b.wrapping_offset(b_k);
            }};
        }
        // Nothing but what it must do belongs into a step: on 16 registers it is 12 multiply-adds in 6 cycles, in which a
        // core takes in 36 instructions. (Unrolled, the compiler reads ahead and runs out of registers.)
        macro_rules! steps {
            ($steps:expr, $($ask:expr)?) => {
                for _ in 0..$steps {
                    $($ask;)?
                    step!();
                    for g in 0..groups {
                        a[g] = s.held(a[g].wrapping_offset(t.a_k));
                    }
                }
            };
        }
        macro_rules! each_line {
            ($col:ident, $body:expr) => {
                for $col in (0..NV * S::LANES).step_by(LINE) {
                    $body;
                }
            };
        }
        macro_rules! ask_for_b {
            () => {
                each_line!(col, s.prefetch(b.wrapping_offset(t.b_soon).wrapping_add(col)))
            };
        }
        macro_rules! ask_for_next {
            () => {{
                ask_for_b!();
                each_line!(col, s.prefetch_l2(b_next.wrapping_add(col)));
                b_next = b_next.wrapping_offset(t.b_k);
            }};
        }
        macro_rules! ask_for_c {
            () => {{
                each_line!(col, s.prefetch(c_next.wrapping_add(col)));
                c_next = c_next.wrapping_offset(t.c_next_row);
            }};
        }
        if R::FOURS > 0 {
            let steps = const { 4 * R::FOURS };
            let mut from = [t.b; NV];
            for j in 0..NV {
                from[j] = s.held(t.b.wrapping_offset(col!(j) as isize * t.b_panel));
            }
            // Written out: these loops are too long for the compiler to keep the accumulators in registers.
            macro_rules! eight {
                ($first:ident; $($j:literal)+) => {{
                    // SAFETY: these columns exist for these steps.
                    let columns = unsafe { [$(s.eight_columns(from[$j], t.b_panel)),+] };
                    for g in 0..groups {
                        a[g] = s.held(a[g]); // What is read of A for these is not kept for the next.
                    }
                    for p in 0..8 {
                        if p >= $first {
                            each_row!(i, {
                                let av = a!(i, p);
                                for (columns, j) in columns.iter().zip([$($j),+]) {
                                    acc[i][j] = s.fma(av, columns[p], acc[i][j]);
                                }
                            });
                        }
                    }
                }};
            }
            // So many steps of all columns, but for the first ones.
            macro_rules! block {
                ($first:expr) => {
                    let first = $first;
                    if const { R::FOURS == 2 && S::LANES == LINE } {
                        // Two at once, for as many values of A.
                        if NV == 1 {
                            eight!(first; 0);
                        } else {
                            eight!(first; 0 1);
                        }
                        if NV > 2 {
                            eight!(first; 2);
                        }
                    } else {
                        for j in 0..NV {
                            for four in 0..R::FOURS {
                                // SAFETY: these columns exist for these steps.
                                let columns = unsafe { s.columns(from[j].wrapping_add(4 * four), t.b_panel) };
                                for p in 0..4 {
                                    if 4 * four + p >= first {
                                        each_row!(i, {
                                            acc[i][j] = s.fma(a!(i, 4 * four + p), columns[p], acc[i][j]);
                                        });
                                    }
                                }
                            }
                        }
                    }
                };
            }
            let mut left = t.k;
            while left >= steps {
                block!(0);
                for j in 0..NV {
                    from[j] = s.held(from[j].wrapping_add(steps));
                }
                for g in 0..groups {
                    a[g] = s.held(a[g].wrapping_add(steps));
                }
                left -= steps;
            }
            if left > 0 && t.k > steps {
                // Transposed together with those before, which are done.
                let done = steps - left;
                for j in 0..NV {
                    from[j] = s.held(from[j].wrapping_sub(done));
                }
                for g in 0..groups {
                    a[g] = s.held(a[g].wrapping_sub(done));
                }
                block!(done);
            } else if left > 0 {
                let mut rows = MaybeUninit::<[[CacheLine; 4]; LINE]>::uninit();
                b = rows.as_mut_ptr().cast();
                b_k = (NV * S::LANES) as isize;
                for j in 0..NV {
                    let to = rows.as_mut_ptr().cast::<f32>().wrapping_add(j * S::LANES);
                    // SAFETY: as above; no more than LANES steps of at most four vectors are no more values than the buffer has.
                    unsafe { s.transpose((S::LANES, left), from[j], t.b_panel, to, b_k) };
                }
                steps!(left,);
            }
        } else if R::AHEAD {
            let mut rows = MaybeUninit::<[[[CacheLine; NV]; 8]; 2]>::uninit();
            let mut now: *mut f32 = rows.as_mut_ptr().cast();
            let mut then = now.wrapping_add(8 * NV * S::LANES);
            b_k = (NV * S::LANES) as isize;
            let mut from = [t.b; NV];
            for j in 0..NV {
                from[j] = t.b.wrapping_offset(col!(j) as isize * t.b_panel);
            }
            macro_rules! eight {
                ($to:ident, $at:expr, $j:expr) => {
                    let from = s.held(from[$j].wrapping_add($at));
                    // SAFETY: these columns exist for these steps; no vector is longer than a line, of which there are NV for each step.
                    unsafe {
                        for (p, column) in (0..).zip(s.eight_columns(from, t.b_panel)) {
                            s.store($to.wrapping_offset(p * b_k).wrapping_add($j * S::LANES), column);
                        }
                    }
                };
            }
            for j in 0..NV {
                eight!(now, 0, j);
            }
            b = now;
            // As many steps pass between two vectors. (Written out, they would take more registers than there are.)
            const { assert!(!R::AHEAD || 8 % NV == 0) };
            let part = std::hint::black_box(8 / NV);
            let mut at = 0;
            let mut left = 8;
            while t.k - at > 8 {
                // The last eight may begin with steps that are done by then.
                let next = (at + 8).min(t.k - 8);
                let done = at + 8 - next;
                for j in 0..NV {
                    eight!(then, next, j);
                    steps!(part,);
                }
                (now, then) = (then, now);
                b = now.wrapping_offset(done as isize * b_k);
                at = next;
                left = 8 - done;
            }
            steps!(left,);
        } else if R::TRANSPOSES {
            // Rows of a block of steps, and of the next.
            let mut rows = MaybeUninit::<[[CacheLine; LINE]; 2]>::uninit();
            let mut between = MaybeUninit::<[CacheLine; LINE]>::uninit();
            let whole = t.cols == NV * S::LANES;
            if !whole {
                rows.write([[CacheLine::ZERO; LINE]; 2]); // The lanes that no column fills.
            }
            b_k = (NV * S::LANES) as isize;
            let first: *mut f32 = rows.as_mut_ptr().cast();
            let block = |at: usize| first.wrapping_add(at / S::LANES % 2 * LINE * LINE);
            let between: *mut f32 = between.as_mut_ptr().cast();
            // Where a vector's columns lie from a step on, and where its rows go.
            let from = |at: usize, j: usize| {
                t.b.wrapping_offset((j * S::LANES) as isize * t.b_panel).wrapping_add(at)
            };
            let to = |at: usize, j: usize| block(at).wrapping_add(j * S::LANES);
            let (mut at, parts) = (0, S::LANES.div_ceil(2));
            while at < t.k {
                let steps = S::LANES.min(t.k - at);
                for j in 0..NV {
                    let cols = t.cols.saturating_sub(j * S::LANES).min(S::LANES);
                    // SAFETY: these columns exist for these steps; a block holds LANES rows of up to 16 values.
                    unsafe { s.transpose((cols, steps), from(at, j), t.b_panel, to(at, j), b_k) };
                }
                // A whole block is transposed in parts between the multiply-adds of the one before. Those wait for each other:
                // transposed after them, it would be further away than a core looks ahead.
                while whole && t.k - at >= 2 * S::LANES {
                    b = block(at);
                    at += S::LANES;
                    macro_rules! part {
                        ($($part:literal)+) => {
                            $(if $part < parts {
                                for j in 0..NV {
                                    let shape = (S::LANES, S::LANES);
                                    let between = between.wrapping_add(j * S::LANES * S::LANES);
                                    let (from, to) = (from(at, j), to(at, j));
                                    // SAFETY: as above.
                                    unsafe { s.transpose_part($part, shape, from, t.b_panel, between, to, b_k) };
                                }
                                steps!(S::LANES / parts,);
                            })+
                        };
                    }
                    part!(0 1 2 3 4 5 6 7);
                }
                b = block(at);
                steps!(S::LANES.min(t.k - at),);
                at += S::LANES;
            }
        } else {
            // Four steps at once, see below. (Small tiles are as many kernels again, and rarely have so many steps.)
            let fours = const { S::TILE_ROWS > 6 && R::WHOLE && NV <= 3 && ROWS * NV >= 12 };
            let fours = fours && t.a_k == 1 && b_k <= NEAR;
            // Rows of C from far away, one after the other, are more lines than a core can wait for at once.
            let spread = fours && t.k >= MANY + 4 * t.c_ahead + t.b_ahead;
            let (c_ahead, mut c_later) = if spread { (0, t.c_ahead) } else { (t.c_ahead.min(t.k), 0) };
            let b_ahead = t.b_ahead.min(t.k - c_ahead);
            steps!(c_ahead, {
                ask_for_b!();
                ask_for_c!();
            });
            steps!(b_ahead, ask_for_next!());
            let mut left = t.k - c_ahead - b_ahead;
            if const { S::LANES == LINE } {
                for _ in 0..t.b_turns {
                    steps!(1, ask_for_next!());
                    steps!(t.b_every - 1, ask_for_b!());
                    left -= t.b_every;
                }
            }
            // Every other row is a step behind: rows that lie whole lines apart have the same place in their lines at the same
            // step, and a core cannot read two such values at once. (The two rows of B that this takes leave no registers for
            // wider tiles.)
            if fours && left >= MANY {
                let mut bv = [s.splat(0.0); NV];
                macro_rules! next_b {
                    () => {
                        for j in 0..NV {
                            bv[j] = b!(j);
                        }
                        b = s.held(b.wrapping_offset(b_k));
                    };
                }
                macro_rules! each_step {
                    ($($p:literal)+) => {
                        $(ask_for_b!();
                        let before = bv;
                        next_b!();
                        each_row!(i, {
                            if i % 2 == 0 {
                                row!(i, $p + 1, bv);
                            } else {
                                row!(i, $p, before);
                            }
                        });)+
                    };
                }
                next_b!();
                each_row!(i, {
                    if i % 2 == 0 {
                        row!(i, 0, bv);
                    }
                });
                left -= 1;
                while left >= 4 {
                    if c_later > 0 {
                        ask_for_c!();
                        c_later -= 1;
                    }
                    each_step!(0 1 2 3);
                    for g in 0..groups {
                        a[g] = s.held(a[g].wrapping_offset(4));
                    }
                    left -= 4;
                }
                each_row!(i, {
                    if i % 2 == 1 {
                        row!(i, 0, bv);
                    }
                });
                for g in 0..groups {
                    a[g] = a[g].wrapping_offset(1);
                }
            }
            steps!(left, ask_for_b!());
        }

        match t.finish {
            Finish::Keep | Finish::Descend(_) => {}
            Finish::Relu => {
                each_row!(i, {
                    for j in 0..NV {
                        acc[i][j] = gate(s, acc[i][j], acc[i][j]);
                    }
                });
            }
            Finish::Gate(y) => {
                each_row!(i, {
                    for j in 0..NV {
                        let y = y.wrapping_offset(i as isize * t.c_row).wrapping_add(col!(j));
                        acc[i][j] = gate(s, load!(y, j), acc[i][j]);
                    }
                });
            }
            Finish::Leaky(slope) => {
                let slope = s.splat(slope);
                each_row!(i, {
                    for j in 0..NV {
                        acc[i][j] = leaky(s, slope, acc[i][j], acc[i][j]);
                    }
                });
            }
        }
        if let Finish::Descend(plain) = t.finish {
            let how = (s.splat(plain.scale), s.splat(-plain.rate));
            each_row!(i, {
                for j in 0..NV {
                    let c = t.c.wrapping_offset(i as isize * t.c_row).wrapping_add(j * S::LANES);
                    acc[i][j] = descended(s, how, acc[i][j], load!(c.cast_const(), j));
                }
            });
        }
        each_row!(i, {
            for j in 0..NV {
                let c = t.c.wrapping_offset(i as isize * t.c_row).wrapping_add(col!(j));
                // SAFETY: as for loads: the first `cols` columns of row i exist, and are ours to write.
                unsafe {
                    if exists!(j) || (R::TRANSPOSES && t.cols == NV * S::LANES) {
                        s.store(c, acc[i][j]);
                    } else {
                        s.store_first(c, masks[j], acc[i][j]);
                    }
                }
            }
        });
    }
}
