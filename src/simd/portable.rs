//! Lanes in plain Rust: every CPU runs it, and the compiler maps it to what the target has (NEON on aarch64). There
//! multiply-adds are vectors in the source too: from them it finds the vectors of all the rest. Left to itself, it made
//! tiles with masked columns of scalars, several times as many instructions.
//!
//! On x86-64 it is compiled twice: eight lanes with FMA enabled, and one lane for CPUs that lack it, where `mul_add` is a
//! call to a software routine: the same bits, slowly. (Eight lanes of calls were half of the crate's machine code, and of
//! the time that it takes to build.) Other targets without a fused multiply-add call the routine from eight lanes.

use super::{Body, Simd};

/// The proof that this CPU can run so many lanes: on x86-64, that it was found to have AVX2 and FMA, or not.
#[derive(Clone, Copy)]
pub(crate) struct Lanes<const LANES: usize>(());

/// What every CPU of this kind should run.
pub(crate) type Portable = Lanes<8>;

/// For x86-64 CPUs without FMA.
#[cfg(target_arch = "x86_64")]
pub(crate) type Software = Lanes<1>;

#[cfg(all(test, target_arch = "x86_64"))]
impl Software {
    /// One lane needs no proof.
    pub(super) fn anywhere() -> Software {
        Lanes(())
    }
}

type V<const LANES: usize> = [f32; LANES];

/// Each lane in turn, written out: to unroll as many loops as a kernel has operations took the compiler longer than all other
/// instruction sets together.
#[inline(always)]
fn each<const LANES: usize>(mut f: impl FnMut(usize)) {
    const { assert!(LANES == 1 || LANES == 8) };
    f(0);
    if const { LANES > 1 } {
        f(1);
        f(2);
        f(3);
        f(4);
        f(5);
        f(6);
        f(7);
    }
}

#[inline(always)]
fn map<const LANES: usize>(a: V<LANES>, f: impl Fn(f32) -> f32) -> V<LANES> {
    let mut out = a;
    each::<LANES>(|i| out[i] = f(a[i]));
    out
}

#[inline(always)]
fn zip<const LANES: usize>(a: V<LANES>, b: V<LANES>, f: impl Fn(f32, f32) -> f32) -> V<LANES> {
    let mut out = a;
    each::<LANES>(|i| out[i] = f(a[i], b[i]));
    out
}

#[inline(always)]
fn zip_bits<const LANES: usize>(a: V<LANES>, b: V<LANES>, f: impl Fn(u32, u32) -> u32) -> V<LANES> {
    zip(a, b, |a, b| f32::from_bits(f(a.to_bits(), b.to_bits())))
}

#[inline(always)]
fn compare<const LANES: usize>(a: V<LANES>, b: V<LANES>, f: impl Fn(f32, f32) -> bool) -> [bool; LANES] {
    let mut out = [false; LANES];
    each::<LANES>(|i| out[i] = f(a[i], b[i]));
    out
}

impl<const LANES: usize> Simd for Lanes<LANES> {
    type Half = Self;
    type V = V<LANES>;
    type M = [bool; LANES];

    const LANES: usize = LANES;
    // With 16 vector registers of 8 lanes: 6 x 2 accumulators, 2 of B, 1 broadcast of A = 15.
    const TILE_ROWS: usize = 6;
    const NAME: &'static str = "portable";

    fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if fma != (LANES > 1) {
                return None;
            }
        }
        Some(Lanes(()))
    }

    #[inline(always)]
    fn half(self) -> Self::Half {
        self
    }

    #[inline(always)]
    fn run<B: Body>(self, body: B) -> B::Out {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2,fma")]
            fn with_fma<const LANES: usize, B: Body>(simd: Lanes<LANES>, body: B) -> B::Out {
                body.call(simd)
            }
            #[inline(never)]
            fn without<const LANES: usize, B: Body>(simd: Lanes<LANES>, body: B) -> B::Out {
                body.call(simd)
            }
            // SAFETY: more than one lane is proof that `detect` found AVX2 and FMA.
            if const { LANES > 1 } { unsafe { with_fma(self, body) } } else { without(self, body) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        body.call(self)
    }

    #[inline(always)]
    fn run_outlined<B: Body>(self, body: B) -> B::Out {
        #[inline(never)]
        fn outlined<const LANES: usize, B: Body>(simd: Lanes<LANES>, body: B) -> B::Out {
            simd.run(body)
        }
        outlined(self, body)
    }

    #[inline(always)]
    fn first(self, n: usize) -> [bool; LANES] {
        let mut mask = [false; LANES];
        each::<LANES>(|i| mask[i] = i < n);
        mask
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> V<LANES> {
        // SAFETY: the caller vouches for `LANES` values; an array of f32 needs no more alignment than f32.
        unsafe { p.cast::<V<LANES>>().read() }
    }

    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, mask: [bool; LANES]) -> V<LANES> {
        let mut v = [0.0; LANES];
        each::<LANES>(|i| {
            if mask[i] {
                // SAFETY: the mask is true only in lanes that the caller vouches for.
                v[i] = unsafe { p.add(i).read() };
            }
        });
        v
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: V<LANES>) {
        // SAFETY: the caller vouches for `LANES` values; an array of f32 needs no more alignment than f32.
        unsafe { p.cast::<V<LANES>>().write(v) }
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, mask: [bool; LANES], v: V<LANES>) {
        each::<LANES>(|i| {
            if mask[i] {
                // SAFETY: the mask is true only in lanes that the caller vouches for.
                unsafe { p.add(i).write(v[i]) };
            }
        });
    }

    #[inline(always)]
    unsafe fn transpose_part<const PADDED: bool>(
        self,
        part: usize,
        (rows, cols): (usize, usize),
        from: *const f32,
        from_row: isize,
        _: *mut f32,
        to: *mut f32,
        to_row: isize,
    ) {
        // Two columns in each part.
        for i in 0..rows as isize {
            for j in 2 * part as isize..cols.min(2 * part + 2) as isize {
                // SAFETY: the caller vouches for rows x cols values on both sides.
                unsafe { *to.wrapping_offset(j * to_row + i) = *from.wrapping_offset(i * from_row + j) };
            }
        }
    }

    #[inline(always)]
    fn prefetch(self, _: *const f32) {}

    #[inline(always)]
    fn prefetch_l2(self, _: *const f32) {}

    #[inline(always)]
    fn splat(self, x: f32) -> V<LANES> {
        [x; LANES]
    }

    #[inline(always)]
    fn fma(self, a: V<LANES>, b: V<LANES>, c: V<LANES>) -> V<LANES> {
        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
        {
            use std::arch::aarch64::{float32x4_t, vfmaq_f32};
            use std::mem::transmute_copy;

            const { assert!(LANES == 8, "two vectors of four") };
            // SAFETY: eight lanes are two vectors of four, any bits are values of both, and the target has the instruction.
            unsafe {
                let [a0, a1] = transmute_copy::<V<LANES>, [float32x4_t; 2]>(&a);
                let [b0, b1] = transmute_copy::<V<LANES>, [float32x4_t; 2]>(&b);
                let [c0, c1] = transmute_copy::<V<LANES>, [float32x4_t; 2]>(&c);
                transmute_copy(&[vfmaq_f32(c0, a0, b0), vfmaq_f32(c1, a1, b1)])
            }
        }
        #[cfg(not(all(target_arch = "aarch64", target_feature = "neon")))]
        {
            let mut out = c;
            each::<LANES>(|i| out[i] = a[i].mul_add(b[i], c[i]));
            out
        }
    }

    #[inline(always)]
    fn add(self, a: V<LANES>, b: V<LANES>) -> V<LANES> {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: V<LANES>, b: V<LANES>) -> V<LANES> {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: V<LANES>, b: V<LANES>) -> V<LANES> {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: V<LANES>, b: V<LANES>) -> V<LANES> {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn sqrt(self, a: V<LANES>) -> V<LANES> {
        map(a, f32::sqrt)
    }

    #[inline(always)]
    fn min(self, a: V<LANES>, b: V<LANES>) -> V<LANES> {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn max(self, a: V<LANES>, b: V<LANES>) -> V<LANES> {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn le(self, a: V<LANES>, b: V<LANES>) -> [bool; LANES] {
        compare(a, b, |a, b| a <= b)
    }

    #[inline(always)]
    fn nle(self, a: V<LANES>, b: V<LANES>) -> [bool; LANES] {
        compare(a, b, |a, b| a > b || a.is_nan() || b.is_nan())
    }

    #[inline(always)]
    fn lt(self, a: V<LANES>, b: V<LANES>) -> [bool; LANES] {
        compare(a, b, |a, b| a < b)
    }

    #[inline(always)]
    fn any(self, mask: [bool; LANES]) -> bool {
        mask.contains(&true)
    }

    #[inline(always)]
    fn select(self, mask: [bool; LANES], yes: V<LANES>, no: V<LANES>) -> V<LANES> {
        let mut out = no;
        each::<LANES>(|i| out[i] = if mask[i] { yes[i] } else { no[i] });
        out
    }

    #[inline(always)]
    fn splat_bits(self, x: u32) -> V<LANES> {
        [f32::from_bits(x); LANES]
    }

    #[inline(always)]
    fn and(self, a: V<LANES>, b: V<LANES>) -> V<LANES> {
        zip_bits(a, b, |a, b| a & b)
    }

    #[inline(always)]
    fn or(self, a: V<LANES>, b: V<LANES>) -> V<LANES> {
        zip_bits(a, b, |a, b| a | b)
    }

    #[inline(always)]
    fn xor(self, a: V<LANES>, b: V<LANES>) -> V<LANES> {
        zip_bits(a, b, |a, b| a ^ b)
    }

    #[inline(always)]
    fn add_int(self, a: V<LANES>, b: V<LANES>) -> V<LANES> {
        zip_bits(a, b, u32::wrapping_add)
    }

    #[inline(always)]
    fn sub_int(self, a: V<LANES>, b: V<LANES>) -> V<LANES> {
        zip_bits(a, b, u32::wrapping_sub)
    }

    #[inline(always)]
    fn max_int(self, a: V<LANES>, b: V<LANES>) -> V<LANES> {
        zip_bits(a, b, |a, b| a.cast_signed().max(b.cast_signed()).cast_unsigned())
    }

    #[inline(always)]
    fn shl<const N: u32>(self, a: V<LANES>) -> V<LANES> {
        map(a, |a| f32::from_bits(a.to_bits() << N))
    }

    #[inline(always)]
    fn shr<const N: u32>(self, a: V<LANES>) -> V<LANES> {
        map(a, |a| f32::from_bits((a.to_bits().cast_signed() >> N).cast_unsigned()))
    }

    #[inline(always)]
    fn int_to_float(self, a: V<LANES>) -> V<LANES> {
        map(a, |a| a.to_bits().cast_signed() as f32)
    }
}
