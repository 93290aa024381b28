//! The microkernel: the chains of one tile of C, from where they begin to where they are stored.
//!
//! How its steps read B is a matter of its [`Reads`]. No closures, and everything `#[inline(always)]`: what is not inlined loses the
//! instruction set, and the accumulators their registers.

use std::marker::PhantomData;

use super::math::{gate, leaky};
use super::reads::Reads;
use super::tile::{Finish, PANEL, Start, Tile, descended};
use crate::simd::{Body, Simd};

/// Pointers to rows of A: to every third of the highest tile.
const GROUPS: usize = 8;

/// Runs a block of code for each row. In short loops, because the compiler unrolls longer ones too late to keep the accumulators in
/// registers.
macro_rules! each_row {
    ($i:ident, $body:block) => {{
        for $i in 0..ROWS.min(6) $body
        for $i in 6..ROWS.min(12) $body
        for $i in 12..ROWS.min(18) $body
        for $i in 18..ROWS $body
    }};
}
pub(super) use each_row;

/// The microkernel for `ROWS` rows and `NV` vectors.
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

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        // SAFETY: whoever called `new` vouches for the operands.
        unsafe {
            let mut chains = Chains::<S, R, ROWS, NV>::begin(s, self.0);
            R::steps(&mut chains);
            chains.finish();
            chains.store();
        }
    }
}

/// The chains of a tile, and where their next step reads A and B.
pub(super) struct Chains<'a, S: Simd, R, const ROWS: usize, const NV: usize> {
    pub s: S,
    pub tile: &'a Tile<'a>,
    pub acc: [[S::V; NV]; ROWS],
    /// Every third row has a pointer; the two after it are reached by the addressing modes that x86 has for free.
    a: [*const f32; GROUPS],
    pub b: *const f32,
    pub b_k: isize,
    /// By vector; unused when all columns exist.
    masks: [S::M; NV],
    reads: PhantomData<R>,
}

/// Safety of what is `unsafe` here: the tile's operands are as its contract says, and have so many more steps of k.
#[allow(clippy::needless_range_loop, reason = "loops over constant bounds are unrolled")]
impl<'a, S: Simd, R: Reads, const ROWS: usize, const NV: usize> Chains<'a, S, R, ROWS, NV> {
    const GROUPS: usize = ROWS.div_ceil(3);
    #[inline(always)]
    unsafe fn begin(s: S, tile: &'a Tile<'a>) -> Self {
        debug_assert!(R::TRANSPOSES || tile.cols > NV / 2 * S::LANES, "the first half of the vectors exists");
        debug_assert!(!R::IN_REGISTERS || tile.cols >= S::LANES, "the last vector is a whole one");
        debug_assert!(!R::ENDS || tile.cols > (NV - 1) * S::LANES, "all but the last vector are whole");
        debug_assert!(
            !R::ENDS || tile.cols <= PANEL || tile.b_panel == PANEL as isize,
            "the last vector lies in one panel"
        );
        let mut masks = [s.first(S::LANES); NV];
        if !R::WHOLE {
            for j in 0..NV {
                masks[j] = s.first(tile.cols.saturating_sub(j * S::LANES));
            }
        }
        let mut a = [tile.a; GROUPS];
        for g in 0..Self::GROUPS {
            a[g] = tile.a.wrapping_offset(3 * g as isize * tile.a_row);
        }
        let acc = [[s.splat(0.0); NV]; ROWS];
        let mut chains = Chains { s, tile, acc, a, b: tile.b, b_k: tile.b_k, masks, reads: PhantomData };
        match tile.start {
            Start::Zero => {}
            Start::Bias(bias) => {
                for j in 0..NV {
                    // SAFETY: there is a value for each of the tile's columns.
                    let v = unsafe { chains.load(bias.wrapping_add(chains.col(j)), j) };
                    each_row!(i, {
                        chains.acc[i][j] = v;
                    });
                }
            }
            Start::BiasRows(bias) => {
                each_row!(i, {
                    // SAFETY: there is one value for each of the tile's rows.
                    let v = s.splat(unsafe { *bias.wrapping_add(i) });
                    for j in 0..NV {
                        chains.acc[i][j] = v;
                    }
                });
            }
            Start::Scaled(beta) => {
                let beta = s.splat(beta);
                each_row!(i, {
                    for j in 0..NV {
                        // SAFETY: C has these rows and columns.
                        let c = unsafe { chains.load(chains.in_c(tile.c, i, j), j) };
                        chains.acc[i][j] = s.mul(beta, c);
                    }
                });
            }
        }
        chains
    }

    /// What is done to the finished chains while they are in registers.
    #[inline(always)]
    unsafe fn finish(&mut self) {
        let (s, tile) = (self.s, self.tile);
        macro_rules! each_chain {
            ($x:ident, $i:ident, $j:ident => $finished:expr) => {
                each_row!($i, {
                    for $j in 0..NV {
                        let $x = self.acc[$i][$j];
                        self.acc[$i][$j] = $finished;
                    }
                })
            };
        }
        // SAFETY: what lies like C has its rows and columns.
        unsafe {
            match tile.finish {
                Finish::Keep => {}
                Finish::Relu => each_chain!(x, i, j => gate(s, x, x)),
                Finish::Gate(y) => {
                    each_chain!(x, i, j => gate(s, self.load(self.in_c(y.cast_mut(), i, j), j), x));
                }
                Finish::Leaky(slope) => {
                    let slope = s.splat(slope);
                    each_chain!(x, i, j => leaky(s, slope, x, x));
                }
                Finish::Descend(plain) => {
                    let how = (s.splat(plain.scale), s.splat(-plain.rate));
                    each_chain!(x, i, j => descended(s, how, x, self.load(self.in_c(tile.c, i, j), j)));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn store(&self) {
        let (s, tile) = (self.s, self.tile);
        each_row!(i, {
            for j in 0..NV {
                let c = self.in_c(tile.c, i, j);
                // SAFETY: the first `cols` columns of row i exist, and are ours to write.
                unsafe {
                    if Self::exists(j) || (R::TRANSPOSES && tile.cols == NV * S::LANES) {
                        s.store(c, self.acc[i][j]);
                    } else {
                        s.store_first(c, self.masks[j], self.acc[i][j]);
                    }
                }
            }
        });
    }

    /// The column in which a vector begins. The last of those that transpose in registers ends with the last column as well.
    #[inline(always)]
    pub(super) fn col(&self, j: usize) -> usize {
        if R::IN_REGISTERS {
            (j * S::LANES).min(self.tile.cols - S::LANES)
        } else if R::ENDS && j == NV - 1 {
            self.tile.cols - S::LANES
        } else {
            j * S::LANES
        }
    }

    /// Vector `j` of row `i` of what begins at `c` and lies like C.
    #[inline(always)]
    fn in_c(&self, c: *mut f32, i: usize, j: usize) -> *mut f32 {
        c.wrapping_offset(i as isize * self.tile.c_row).wrapping_add(self.col(j))
    }

    /// Whether the columns of a vector are known to exist when this is compiled. (Columns to transpose may be any.)
    #[inline(always)]
    const fn exists(j: usize) -> bool {
        R::WHOLE || (!R::TRANSPOSES && j < NV / 2)
    }

    /// Vector `j` of a row of columns that begins at `p`.
    #[inline(always)]
    unsafe fn load(&self, p: *const f32, j: usize) -> S::V {
        // SAFETY: whoever made the `Tile` vouches that its `cols` columns exist in every row.
        unsafe { if Self::exists(j) { self.s.load(p) } else { self.s.load_first(p, self.masks[j]) } }
    }

    /// Row `i` of A, `p` values after where the pointers stand.
    #[inline(always)]
    pub(super) unsafe fn a(&self, i: usize, p: usize) -> S::V {
        let a = self.a[i / 3].wrapping_offset((i % 3) as isize * self.tile.a_row).wrapping_add(p);
        // SAFETY: row i < ROWS at this step of k exists: vouched for by whoever made the `Tile`.
        self.s.splat(unsafe { *a })
    }

    /// Moves the pointers into A. (Held in registers, as all that change from step to step.)
    #[inline(always)]
    pub(super) fn move_a(&mut self, by: isize) {
        for g in 0..Self::GROUPS {
            self.a[g] = self.s.held(self.a[g].wrapping_offset(by));
        }
    }

    /// Vector `j` of the row of B.
    #[inline(always)]
    unsafe fn b(&self, j: usize) -> S::V {
        // SAFETY: the row exists; a buffer of transposed columns holds whole vectors.
        unsafe {
            if R::TRANSPOSES || R::IN_REGISTERS {
                self.s.load(self.b.wrapping_add(j * S::LANES))
            } else if R::ENDS && j == NV - 1 {
                self.s.load(self.b.wrapping_add(self.col(j)))
            } else {
                let (panel, col) = (j * S::LANES / PANEL, j * S::LANES % PANEL);
                self.load(self.b.wrapping_offset(panel as isize * self.tile.b_panel).wrapping_add(col), j)
            }
        }
    }

    /// The row of B.
    #[inline(always)]
    pub(super) unsafe fn row_of_b(&self) -> [S::V; NV] {
        let mut b = [self.s.splat(0.0); NV];
        for j in 0..NV {
            // SAFETY: the caller's.
            b[j] = unsafe { self.b(j) };
        }
        b
    }

    /// A step of k in row `i`, whose value of A lies `p` after where the pointers stand.
    #[inline(always)]
    pub(super) unsafe fn row(&mut self, i: usize, p: usize, b: &[S::V; NV]) {
        // SAFETY: the caller's.
        let a = unsafe { self.a(i, p) };
        for j in 0..NV {
            self.acc[i][j] = self.s.fma(a, b[j], self.acc[i][j]);
        }
    }

    /// A step of k. (Nothing but what it must do belongs here: on 16 registers it is 12 multiply-adds in 6 cycles, in which a core takes in
    /// 36 instructions.)
    #[inline(always)]
    pub(super) unsafe fn step(&mut self) {
        // SAFETY: the caller's.
        unsafe {
            // Whichever of A's column and B's row is shorter waits in registers.
            if ROWS < NV {
                let mut a = [self.s.splat(0.0); ROWS];
                each_row!(i, {
                    a[i] = self.a(i, 0);
                });
                for j in 0..NV {
                    let b = self.b(j);
                    each_row!(i, {
                        self.acc[i][j] = self.s.fma(a[i], b, self.acc[i][j]);
                    });
                }
            } else {
                let b = self.row_of_b();
                each_row!(i, {
                    self.row(i, 0, &b);
                });
            }
        }
        self.b = self.b.wrapping_offset(self.b_k);
        self.move_a(self.tile.a_k);
    }

    /// So many steps of k. (Unrolled, the compiler reads ahead and runs out of registers.)
    #[inline(always)]
    pub(super) unsafe fn steps(&mut self, steps: usize) {
        for _ in 0..steps {
            // SAFETY: the caller's.
            unsafe { self.step() };
        }
    }
}
