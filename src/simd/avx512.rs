//! Sixteen lanes with AVX-512 F, VL, BW and DQ: masks for edges, 32 registers.

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::{Body, ROUND, Simd};

/// The proof that this CPU has Avx512; only `detect` makes one.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

/// Wraps intrinsics whose only requirement is the instruction set.
macro_rules! intrinsic {
    ($e:expr) => {
        // SAFETY: `self` exists, so `detect` found the instructions; these intrinsics touch no memory.
        unsafe { $e }
    };
}

impl Avx512 {
    /// Four rows, transposed within each quarter of 4 lanes: pairs of rows, then pairs of pairs.
    #[inline(always)]
    fn quarters(self, r: [__m512; 4]) -> [__m512; 4] {
        intrinsic!({
            let low = _mm512_castps_pd(_mm512_unpacklo_ps(r[0], r[1]));
            let high = _mm512_castps_pd(_mm512_unpackhi_ps(r[0], r[1]));
            let low2 = _mm512_castps_pd(_mm512_unpacklo_ps(r[2], r[3]));
            let high2 = _mm512_castps_pd(_mm512_unpackhi_ps(r[2], r[3]));
            [
                _mm512_castpd_ps(_mm512_unpacklo_pd(low, low2)),
                _mm512_castpd_ps(_mm512_unpackhi_pd(low, low2)),
                _mm512_castpd_ps(_mm512_unpacklo_pd(high, high2)),
                _mm512_castpd_ps(_mm512_unpackhi_pd(high, high2)),
            ]
        })
    }
}

impl Simd for Avx512 {
    type Half = Avx2;
    type V = __m512;
    type M = __mmask16;

    const LANES: usize = 16;
    // Of 32 registers: 12 x 2 accumulators, 2 of B, 1 broadcast of A = 27. 14 loads for 24 FMAs.
    const TILE_ROWS: usize = 12;
    const NAME: &'static str = "avx512";

    fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma");
        found.then_some(Avx512(()))
    }

    #[inline(always)]
    fn half(self) -> Self::Half {
        Avx2::of_avx512(self)
    }

    #[inline(always)]
    fn run<B: Body>(self, body: B) -> B::Out {
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
        fn compiled<B: Body>(simd: Avx512, body: B) -> B::Out {
            body.call(simd)
        }
        // SAFETY: `self` exists, so `detect` found the instructions.
        unsafe { compiled(self, body) }
    }

    #[inline(always)]
    fn run_outlined<B: Body>(self, body: B) -> B::Out {
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
        #[inline(never)]
        fn outlined<B: Body>(simd: Avx512, body: B) -> B::Out {
            body.call(simd)
        }
        // SAFETY: `self` exists, so `detect` found the instructions.
        unsafe { outlined(self, body) }
    }

    #[inline(always)]
    fn first(self, n: usize) -> __mmask16 {
        if n >= 16 { !0 } else { (1 << n) - 1 }
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        // SAFETY: `self` proves the instructions; the caller vouches for the memory.
        unsafe { _mm512_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, mask: __mmask16) -> __m512 {
        // SAFETY: `self` proves the instructions; the caller vouches for the memory, and lanes outside the mask are not touched.
        unsafe { _mm512_maskz_loadu_ps(mask, p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m512) {
        // SAFETY: `self` proves the instructions; the caller vouches for the memory.
        unsafe { _mm512_storeu_ps(p, v) }
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, mask: __mmask16, v: __m512) {
        // SAFETY: `self` proves the instructions; the caller vouches for the memory, and lanes outside the mask are not touched.
        unsafe { _mm512_mask_storeu_ps(p, mask, v) }
    }

    #[inline(always)]
    unsafe fn transpose_part<const PADDED: bool>(
        self,
        part: usize,
        (rows, cols): (usize, usize),
        from: *const f32,
        from_row: isize,
        between: *mut f32,
        to: *mut f32,
        to_row: isize,
    ) {
        let whole = rows == 16 && cols == 16;
        let between = |vector: usize| between.wrapping_add(16 * vector);
        // SAFETY: `self` proves the instructions; the caller vouches for the memory.
        unsafe {
            if part < 4 {
                let mut r = [_mm512_setzero_ps(); 4];
                for (row, r) in (4 * part..).zip(&mut r) {
                    // Rows beyond are the last one again.
                    let at = if PADDED { row.min(rows - 1) } else { row };
                    let from = from.wrapping_offset(at as isize * from_row);
                    if whole || PADDED {
                        *r = self.load(from);
                    } else if row < rows {
                        *r = self.load_first(from, self.first(cols));
                    }
                }
                for (vector, quarters) in (4 * part..).zip(self.quarters(r)) {
                    self.store(between(vector), quarters);
                }
            } else {
                // between(4 * block + c) holds columns c, 4 + c, 8 + c, 12 + c of rows 4 * block to 4 * block + 3: a
                // transpose of quarters finishes.
                let c = part - 4;
                let (a, b) = (self.load(between(c)), self.load(between(4 + c)));
                let (d, e) = (self.load(between(8 + c)), self.load(between(12 + c)));
                let even = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
                let odd = _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b);
                let even2 = _mm512_shuffle_f32x4::<0b10_00_10_00>(d, e);
                let odd2 = _mm512_shuffle_f32x4::<0b11_01_11_01>(d, e);
                let columns = [
                    _mm512_shuffle_f32x4::<0b10_00_10_00>(even, even2),
                    _mm512_shuffle_f32x4::<0b10_00_10_00>(odd, odd2),
                    _mm512_shuffle_f32x4::<0b11_01_11_01>(even, even2),
                    _mm512_shuffle_f32x4::<0b11_01_11_01>(odd, odd2),
                ];
                for (j, column) in (c..).step_by(4).zip(columns) {
                    let to = to.wrapping_offset(j as isize * to_row);
                    if whole || PADDED {
                        self.store(to, column);
                    } else if j < cols {
                        self.store_first(to, self.first(rows), column);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn eight_columns(self, from: *const f32, row: isize) -> [__m512; 8] {
        // SAFETY: `self` proves the instructions; the caller vouches for the memory.
        unsafe {
            let half = |p: *const f32, i: isize| _mm256_loadu_pd(p.wrapping_offset(i * row).cast());
            let mut p = from;
            let mut quarters = [[_mm512_setzero_ps(); 4]; 2];
            for quarters in &mut quarters {
                // Rows i and 4 + i side by side.
                let next = self.held(p.wrapping_offset(4 * row));
                let mut r = [_mm512_setzero_ps(); 4];
                for (i, r) in (0..).zip(&mut r) {
                    let both = _mm512_insertf64x4::<1>(_mm512_castpd256_pd512(half(p, i)), half(next, i));
                    *r = _mm512_castpd_ps(both);
                }
                p = self.held(next.wrapping_offset(4 * row));
                *quarters = self.quarters(r);
            }
            // quarters[0][c] holds columns c and 4 + c of rows 0 to 3, then of rows 4 to 7; quarters[1][c] those of rows 8 to 15.
            let mut columns = [_mm512_setzero_ps(); 8];
            for c in 0..4 {
                let [a, b] = [quarters[0][c], quarters[1][c]];
                columns[c] = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
                columns[4 + c] = _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b);
            }
            columns
        }
    }

    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        intrinsic!(_mm_prefetch::<_MM_HINT_T0>(p.cast()))
    }

    #[inline(always)]
    fn prefetch_l2(self, p: *const f32) {
        intrinsic!(_mm_prefetch::<_MM_HINT_T1>(p.cast()))
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        intrinsic!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        intrinsic!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        intrinsic!(_mm512_sqrt_ps(a))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn scale(self, a: __m512, shifted: __m512) -> __m512 {
        intrinsic!(_mm512_scalef_ps(a, self.sub(shifted, self.splat(ROUND))))
    }

    #[inline(always)]
    fn le(self, a: __m512, b: __m512) -> __mmask16 {
        intrinsic!(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b))
    }

    #[inline(always)]
    fn nle(self, a: __m512, b: __m512) -> __mmask16 {
        intrinsic!(_mm512_cmp_ps_mask::<_CMP_NLE_UQ>(a, b))
    }

    #[inline(always)]
    fn lt(self, a: __m512, b: __m512) -> __mmask16 {
        intrinsic!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b))
    }

    #[inline(always)]
    fn any(self, mask: __mmask16) -> bool {
        mask != 0
    }

    #[inline(always)]
    fn select(self, mask: __mmask16, yes: __m512, no: __m512) -> __m512 {
        intrinsic!(_mm512_mask_blend_ps(mask, no, yes))
    }

    #[inline(always)]
    fn splat_bits(self, x: u32) -> __m512 {
        intrinsic!(_mm512_castsi512_ps(_mm512_set1_epi32(x.cast_signed())))
    }

    #[inline(always)]
    fn and(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_and_ps(a, b))
    }

    #[inline(always)]
    fn or(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_or_ps(a, b))
    }

    #[inline(always)]
    fn xor(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_xor_ps(a, b))
    }

    #[inline(always)]
    fn add_int(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b))))
    }

    #[inline(always)]
    fn sub_int(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_castsi512_ps(_mm512_sub_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b))))
    }

    #[inline(always)]
    fn max_int(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b))))
    }

    #[inline(always)]
    fn shl<const N: u32>(self, a: __m512) -> __m512 {
        intrinsic!(_mm512_castsi512_ps(_mm512_sll_epi32(
            _mm512_castps_si512(a),
            _mm_cvtsi32_si128(N.cast_signed())
        )))
    }

    #[inline(always)]
    fn shr<const N: u32>(self, a: __m512) -> __m512 {
        intrinsic!(_mm512_castsi512_ps(_mm512_sra_epi32(
            _mm512_castps_si512(a),
            _mm_cvtsi32_si128(N.cast_signed())
        )))
    }

    #[inline(always)]
    fn int_to_float(self, a: __m512) -> __m512 {
        intrinsic!(_mm512_cvtepi32_ps(_mm512_castps_si512(a)))
    }
}
