//! The lowest room: one trait over vectors of `f32`, one file for each instruction set, and the only `std::arch`.
//!
//! A value of a type that implements [`Simd`] is the proof that this CPU has the instructions: such values come only
//! from [`Simd::detect`]. Algorithms are written once, as a [`Body`] over any `S: Simd`; [`Simd::run`] compiles that
//! body for the instruction set. Everything between the two must be `#[inline(always)]`, because a function that is
//! not inlined into `run` is compiled without the instructions.
//!
//! All operations are the IEEE 754 ones, rounded to nearest even, lane by lane: that is why the same body gives the
//! same bits on every instruction set.

use std::mem::MaybeUninit;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod chain;
mod core;
mod isa;
mod portable;

pub(crate) use core::Core;
pub use isa::Isa;

/// An algorithm that is compiled once for each instruction set.
pub(crate) trait Body {
    /// What it returns.
    type Out;

    /// The algorithm. Implementations are `#[inline(always)]`.
    fn call<S: Simd>(self, simd: S) -> Self::Out;
}

/// 1.5 * 2^23: adding it rounds a small number to an integer, which then stands in the low bits.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// Vectors of `LANES` values of `f32`, and the operations on them.
///
/// Comparisons are false when an operand is NaN. Integer operations see each lane as its 32 bits.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// The same with vectors half as wide, for what is not wider; itself where there is none. Cores whose multiply-add units
    /// are that narrow do two of them in the time of a whole one.
    type Half: Simd;
    /// A vector.
    type V: Copy;
    /// One truth value for each lane.
    type M: Copy;

    /// Lanes in a vector.
    const LANES: usize;
    /// Rows of the largest product tile, whose accumulators (`TILE_ROWS` x 2 vectors), two vectors of B and one
    /// broadcast of A fit in the register file.
    const TILE_ROWS: usize;
    /// The name that users see and pin.
    const NAME: &'static str;

    /// The proof, when this CPU has the instructions.
    fn detect() -> Option<Self>;

    /// The proof for half vectors.
    fn half(self) -> Self::Half;

    /// Runs `body` compiled with the instructions.
    fn run<B: Body>(self, body: B) -> B::Out;

    /// Like [`Simd::run`], in a function of its own: kernels that have their own name in a profile.
    fn run_outlined<B: Body>(self, body: B) -> B::Out;

    /// A mask that is true in the first `n` lanes; in all when `n >= LANES`.
    fn first(self, n: usize) -> Self::M;

    /// Reads `LANES` values.
    ///
    /// # Safety
    /// `p` is valid for reads of `LANES` values.
    unsafe fn load(self, p: *const f32) -> Self::V;

    /// Reads the lanes of a mask made by [`Simd::first`]; the others are 0 and are not touched in memory.
    ///
    /// # Safety
    /// `p` is valid for reads of the first `n` values.
    unsafe fn load_first(self, p: *const f32, mask: Self::M) -> Self::V;

    /// Writes `LANES` values.
    ///
    /// # Safety
    /// `p` is valid for writes of `LANES` values.
    unsafe fn store(self, p: *mut f32, v: Self::V);

    /// Writes the lanes of a mask made by [`Simd::first`]; the others are not touched in memory.
    ///
    /// # Safety
    /// `p` is valid for writes of the first `n` values.
    unsafe fn store_first(self, p: *mut f32, mask: Self::M, v: Self::V);

    /// Reads rows x columns values (`shape`, both at most `LANES`), rows `from_row` apart, and writes them as columns of
    /// rows `to_row` apart.
    ///
    /// # Safety
    /// Every such value of `from` can be read and every one of `to` written; nothing else is touched.
    #[inline(always)]
    unsafe fn transpose(
        self,
        shape: (usize, usize),
        from: *const f32,
        from_row: isize,
        to: *mut f32,
        to_row: isize,
    ) {
        if const { Self::LANES == 16 } && shape == (16, 16) {
            // In registers: by way of memory, it is the stores that take the time.
            for first in [0, 8] {
                // SAFETY: the caller's.
                unsafe {
                    let columns = self.eight_columns(from.wrapping_add(first), from_row);
                    for (j, column) in (first as isize..).zip(columns) {
                        self.store(to.wrapping_offset(j * to_row), column);
                    }
                }
            }
            return;
        }
        let mut between = MaybeUninit::<[Self::V; 16]>::uninit();
        for part in 0..Self::LANES.div_ceil(2) {
            // SAFETY: the caller's; no vector has more than 16 lanes.
            unsafe {
                self.transpose_part::<false>(
                    part,
                    shape,
                    from,
                    from_row,
                    between.as_mut_ptr().cast(),
                    to,
                    to_row,
                );
            }
        }
    }

    /// The same, where each row of `to` has room for a whole vector: what its lanes beyond are is not said.
    ///
    /// # Safety
    /// As for [`Simd::transpose`], and `LANES` values can be written to each row of `to`.
    #[inline(always)]
    unsafe fn transpose_padded(
        self,
        shape: (usize, usize),
        from: *const f32,
        from_row: isize,
        to: *mut f32,
        to_row: isize,
    ) {
        // SAFETY: the caller's.
        unsafe { self.transpose(shape, from, from_row, to, to_row) }
    }

    /// One of the `LANES.div_ceil(2)` parts of [`Simd::transpose`], which are done in ascending order: other work may come
    /// between them. What the first parts leave in `between` is what the others go on from. If `PADDED`, those of
    /// [`Simd::transpose_padded`].
    ///
    /// # Safety
    /// As for the whole; `between` is valid for LANES x LANES values. If `PADDED`, as for [`Simd::transpose_padded`], with at least one
    /// row and `LANES` columns.
    #[allow(clippy::too_many_arguments)]
    unsafe fn transpose_part<const PADDED: bool>(
        self,
        part: usize,
        shape: (usize, usize),
        from: *const f32,
        from_row: isize,
        between: *mut f32,
        to: *mut f32,
        to_row: isize,
    );

    /// Reads four values from each of `LANES` rows, `row` apart, and returns them by columns: a vector for each, without the way
    /// through memory where the instruction set has such a way. For four lanes and more.
    ///
    /// # Safety
    /// Those values can be read.
    #[inline(always)]
    unsafe fn columns(self, from: *const f32, row: isize) -> [Self::V; 4] {
        let mut columns = [self.splat(0.0); 4];
        // SAFETY: the caller's; four vectors are four rows of LANES values, no more than there are lanes.
        unsafe {
            self.transpose((Self::LANES, 4), from, row, columns.as_mut_ptr().cast(), Self::LANES as isize)
        };
        columns
    }

    /// The same for eight values.
    ///
    /// # Safety
    /// Those values can be read.
    #[inline(always)]
    unsafe fn eight_columns(self, from: *const f32, row: isize) -> [Self::V; 8] {
        // SAFETY: the caller's.
        let [a, b] = unsafe { [self.columns(from, row), self.columns(from.wrapping_add(4), row)] };
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
    }

    /// The same pointer, about which the compiler knows nothing more: it stays in its register. (Where rows lie a distance
    /// apart that is no constant, it would make a pointer for each, more than there are registers.)
    #[inline(always)]
    fn held(self, p: *const f32) -> *const f32 {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        // SAFETY: no instruction.
        unsafe {
            let mut p = p;
            std::arch::asm!("/* {0} */", inout(reg) p, options(pure, readonly, nostack, preserves_flags));
            p
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        p
    }

    /// Asks for the cache line at `p`, which need not be readable; a hint that some instruction sets lack.
    fn prefetch(self, p: *const f32);
    /// The same, for later: as far as L2.
    fn prefetch_l2(self, p: *const f32);

    fn splat(self, x: f32) -> Self::V;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    fn sqrt(self, a: Self::V) -> Self::V;

    /// `a < b ? a : b`: `b` where one of them is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a > b ? a : b`: `b` where one of them is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a * 2^n`, rounded once, for integers n of -252 to 254 and |a| in [1/2, 2]; `shifted` is [`ROUND`] + n. NaN where one of
    /// them is.
    #[inline(always)]
    fn scale(self, a: Self::V, shifted: Self::V) -> Self::V {
        // In two factors, because n reaches beyond the exponents of f32: the first product is exact.
        let n = self.sub_int(shifted, self.splat(ROUND));
        let half = self.shr::<1>(n);
        let one = self.splat_bits(127);
        let first = self.shl::<23>(self.add_int(half, one));
        let second = self.shl::<23>(self.add_int(self.sub_int(n, half), one));
        self.mul(self.mul(a, first), second)
    }

    /// `a <= b`.
    fn le(self, a: Self::V, b: Self::V) -> Self::M;
    /// Not `a <= b`: `a > b`, or one of them is NaN.
    fn nle(self, a: Self::V, b: Self::V) -> Self::M;
    /// `a < b`.
    fn lt(self, a: Self::V, b: Self::V) -> Self::M;
    /// Whether a lane of the mask is true.
    fn any(self, mask: Self::M) -> bool;
    /// `mask ? yes : no`.
    fn select(self, mask: Self::M, yes: Self::V, no: Self::V) -> Self::V;

    /// A vector of the 32 bits `x` in each lane.
    fn splat_bits(self, x: u32) -> Self::V;
    fn and(self, a: Self::V, b: Self::V) -> Self::V;
    fn or(self, a: Self::V, b: Self::V) -> Self::V;
    fn xor(self, a: Self::V, b: Self::V) -> Self::V;
    /// Wrapping addition of 32-bit integers.
    fn add_int(self, a: Self::V, b: Self::V) -> Self::V;
    /// Wrapping subtraction of 32-bit integers.
    fn sub_int(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger of 32-bit integers with a sign.
    fn max_int(self, a: Self::V, b: Self::V) -> Self::V;
    /// Shift of 32-bit integers to the left.
    fn shl<const N: u32>(self, a: Self::V) -> Self::V;
    /// Shift of 32-bit integers to the right, copying the sign.
    fn shr<const N: u32>(self, a: Self::V) -> Self::V;
    /// 32-bit integers converted to `f32` (exact up to 2^24).
    fn int_to_float(self, a: Self::V) -> Self::V;
}
