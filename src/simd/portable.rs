//! Eight lanes in plain Rust: every CPU runs it, and the compiler maps it to what the target has (NEON on aarch64). There
//! multiply-adds are vectors in the source too: from them it finds the vectors of all the rest. Left to itself, it made
//! tiles with masked columns of scalars, several times as many instructions.
//!
//! On an x86-64 CPU with FMA the same body is compiled with the instruction enabled; without, and on other targets
//! that lack a fused multiply-add, `mul_add` is a call to a software routine: the same bits, slowly.

use super::{Body, Simd};

/// The portable body; `fma` says that the x86-64 CPU was found to have AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Portable {
    #[cfg(target_arch = "x86_64")]
    fma: bool,
}

const LANES: usize = 8;
type V = [f32; LANES];

#[inline(always)]
fn map(a: V, f: impl Fn(f32) -> f32) -> V {
    let mut out = a;
    for lane in &mut out {
        *lane = f(*lane);
    }
    out
}

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    let mut out = a;
    for (lane, b) in out.iter_mut().zip(b) {
        *lane = f(*lane, b);
    }
    out
}

#[inline(always)]
fn zip_bits(a: V, b: V, f: impl Fn(u32, u32) -> u32) -> V {
    zip(a, b, |a, b| f32::from_bits(f(a.to_bits(), b.to_bits())))
}

#[inline(always)]
fn compare(a: V, b: V, f: impl Fn(f32, f32) -> bool) -> [bool; LANES] {
    let mut out = [false; LANES];
    for i in 0..LANES {
        out[i] = f(a[i], b[i]);
    }
    out
}

impl Simd for Portable {
    type Half = Self;
    type V = V;
    type M = [bool; LANES];

    const LANES: usize = LANES;
    // With 16 vector registers of 8 lanes: 6 x 2 accumulators, 2 of B, 1 broadcast of A = 15.
    const TILE_ROWS: usize = 6;
    const NAME: &'static str = "portable";

    fn detect() -> Option<Self> {
        Some(Portable {
            #[cfg(target_arch = "x86_64")]
            fma: is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        })
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
            #[inline]
            fn with_fma<B: Body>(simd: Portable, body: B) -> B::Out {
                body.call(simd)
            }
            if self.fma {
                // SAFETY: `detect` found AVX2 and FMA.
                return unsafe { with_fma(self, body) };
            }
        }
        body.call(self)
    }

    #[inline(always)]
    fn run_outlined<B: Body>(self, body: B) -> B::Out {
        #[inline(never)]
        fn outlined<B: Body>(simd: Portable, body: B) -> B::Out {
            simd.run(body)
        }
        outlined(self, body)
    }

    #[inline(always)]
    fn first(self, n: usize) -> [bool; LANES] {
        let mut mask = [false; LANES];
        for (i, lane) in mask.iter_mut().enumerate() {
            *lane = i < n;
        }
        mask
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> V {
        // SAFETY: the caller vouches for `LANES` values; an array of f32 needs no more alignment than f32.
        unsafe { p.cast::<V>().read() }
    }

    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, mask: [bool; LANES]) -> V {
        let mut v = [0.0; LANES];
        for i in 0..LANES {
            if mask[i] {
                // SAFETY: the mask is true only in lanes that the caller vouches for.
                v[i] = unsafe { p.add(i).read() };
            }
        }
        v
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: V) {
        // SAFETY: the caller vouches for `LANES` values; an array of f32 needs no more alignment than f32.
        unsafe { p.cast::<V>().write(v) }
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, mask: [bool; LANES], v: V) {
        for i in 0..LANES {
            if mask[i] {
                // SAFETY: the mask is true only in lanes that the caller vouches for.
                unsafe { p.add(i).write(v[i]) };
            }
        }
    }

    #[inline(always)]
    unsafe fn transpose(
        self,
        (rows, cols): (usize, usize),
        from: *const f32,
        from_row: isize,
        to: *mut f32,
        to_row: isize,
    ) {
        for i in 0..rows as isize {
            for j in 0..cols as isize {
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
    fn splat(self, x: f32) -> V {
        [x; LANES]
    }

    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
        {
            use std::arch::aarch64::{float32x4_t, vfmaq_f32};
            use std::mem::transmute;

            // SAFETY: eight lanes are two vectors of four, any bits are values of both, and the target has the instruction.
            unsafe {
                let [a0, a1] = transmute::<V, [float32x4_t; 2]>(a);
                let [b0, b1] = transmute::<V, [float32x4_t; 2]>(b);
                let [c0, c1] = transmute::<V, [float32x4_t; 2]>(c);
                transmute::<[float32x4_t; 2], V>([vfmaq_f32(c0, a0, b0), vfmaq_f32(c1, a1, b1)])
            }
        }
        #[cfg(not(all(target_arch = "aarch64", target_feature = "neon")))]
        {
            let mut out = c;
            for i in 0..LANES {
                out[i] = a[i].mul_add(b[i], c[i]);
            }
            out
        }
    }

    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn sqrt(self, a: V) -> V {
        map(a, f32::sqrt)
    }

    #[inline(always)]
    fn le(self, a: V, b: V) -> [bool; LANES] {
        compare(a, b, |a, b| a <= b)
    }

    #[inline(always)]
    fn lt(self, a: V, b: V) -> [bool; LANES] {
        compare(a, b, |a, b| a < b)
    }

    #[inline(always)]
    fn select(self, mask: [bool; LANES], yes: V, no: V) -> V {
        let mut out = no;
        for i in 0..LANES {
            out[i] = if mask[i] { yes[i] } else { no[i] };
        }
        out
    }

    #[inline(always)]
    fn splat_bits(self, x: u32) -> V {
        [f32::from_bits(x); LANES]
    }

    #[inline(always)]
    fn and(self, a: V, b: V) -> V {
        zip_bits(a, b, |a, b| a & b)
    }

    #[inline(always)]
    fn or(self, a: V, b: V) -> V {
        zip_bits(a, b, |a, b| a | b)
    }

    #[inline(always)]
    fn xor(self, a: V, b: V) -> V {
        zip_bits(a, b, |a, b| a ^ b)
    }

    #[inline(always)]
    fn add_int(self, a: V, b: V) -> V {
        zip_bits(a, b, u32::wrapping_add)
    }

    #[inline(always)]
    fn sub_int(self, a: V, b: V) -> V {
        zip_bits(a, b, u32::wrapping_sub)
    }

    #[inline(always)]
    fn max_int(self, a: V, b: V) -> V {
        zip_bits(a, b, |a, b| a.cast_signed().max(b.cast_signed()).cast_unsigned())
    }

    #[inline(always)]
    fn shl<const N: u32>(self, a: V) -> V {
        map(a, |a| f32::from_bits(a.to_bits() << N))
    }

    #[inline(always)]
    fn shr<const N: u32>(self, a: V) -> V {
        map(a, |a| f32::from_bits((a.to_bits().cast_signed() >> N).cast_unsigned()))
    }

    #[inline(always)]
    fn int_to_float(self, a: V) -> V {
        map(a, |a| a.to_bits().cast_signed() as f32)
    }
}
