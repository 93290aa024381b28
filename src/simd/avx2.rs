//! Eight lanes with AVX2 and FMA.

use std::arch::x86_64::*;

use super::avx512::Avx512;
use super::{Body, Simd};

/// The proof that this CPU has Avx2; only `detect` and `of_avx512` make one.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Wraps intrinsics whose only requirement is the instruction set.
macro_rules! intrinsic {
    ($e:expr) => {
        // SAFETY: `self` exists, so `detect` found the instructions; these intrinsics touch no memory.
        unsafe { $e }
    };
}

impl Avx2 {
    /// What has AVX-512 has these instructions too: they were looked for.
    #[inline(always)]
    pub(super) fn of_avx512(_: Avx512) -> Avx2 {
        Avx2(())
    }

    /// Four values of each of eight rows, by columns. (By `vshufps` alone, of which there are two a cycle where there is one `vunpcklps`:
    /// measured on Emerald Rapids.)
    ///
    /// # Safety
    /// Four values can be read where each row is.
    #[inline(always)]
    unsafe fn four_columns(self, row: impl Fn(usize) -> *const f32) -> [__m256; 4] {
        let mut r = [self.splat(0.0); 4];
        // SAFETY: `self` proves the instructions; the caller vouches for the memory.
        unsafe {
            for (i, r) in r.iter_mut().enumerate() {
                let (low, high) = (_mm_loadu_ps(row(i)), _mm_loadu_ps(row(4 + i)));
                *r = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high);
            }
            let even = _mm256_shuffle_ps::<0b10_00_10_00>(r[0], r[1]);
            let odd = _mm256_shuffle_ps::<0b11_01_11_01>(r[0], r[1]);
            let even2 = _mm256_shuffle_ps::<0b10_00_10_00>(r[2], r[3]);
            let odd2 = _mm256_shuffle_ps::<0b11_01_11_01>(r[2], r[3]);
            [
                _mm256_shuffle_ps::<0b10_00_10_00>(even, even2),
                _mm256_shuffle_ps::<0b10_00_10_00>(odd, odd2),
                _mm256_shuffle_ps::<0b11_01_11_01>(even, even2),
                _mm256_shuffle_ps::<0b11_01_11_01>(odd, odd2),
            ]
        }
    }
}

impl Simd for Avx2 {
    type Half = Self;
    type V = __m256;
    type M = __m256i;

    const LANES: usize = 8;
    // Of 16 registers: 6 x 2 accumulators, 2 of B, 1 broadcast of A = 15. 8 loads for 12 FMAs.
    const TILE_ROWS: usize = 6;
    const NAME: &'static str = "avx2";

    fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        found.then_some(Avx2(()))
    }

    #[inline(always)]
    fn half(self) -> Self::Half {
        self
    }

    #[inline(always)]
    fn run<B: Body>(self, body: B) -> B::Out {
        #[target_feature(enable = "avx2,fma")]
        fn compiled<B: Body>(simd: Avx2, body: B) -> B::Out {
            body.call(simd)
        }
        // SAFETY: `self` exists, so `detect` found the instructions.
        unsafe { compiled(self, body) }
    }

    #[inline(always)]
    fn run_outlined<B: Body>(self, body: B) -> B::Out {
        #[target_feature(enable = "avx2,fma")]
        #[inline(never)]
        fn outlined<B: Body>(simd: Avx2, body: B) -> B::Out {
            body.call(simd)
        }
        // SAFETY: `self` exists, so `detect` found the instructions.
        unsafe { outlined(self, body) }
    }

    #[inline(always)]
    fn first(self, n: usize) -> __m256i {
        let lanes = intrinsic!(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        intrinsic!(_mm256_cmpgt_epi32(_mm256_set1_epi32(n.min(8) as i32), lanes))
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m256 {
        // SAFETY: `self` proves the instructions; the caller vouches for the memory.
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, mask: __m256i) -> __m256 {
        // SAFETY: `self` proves the instructions; the caller vouches for the memory, and lanes outside the mask are not touched.
        unsafe { _mm256_maskload_ps(p, mask) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m256) {
        // SAFETY: `self` proves the instructions; the caller vouches for the memory.
        unsafe { _mm256_storeu_ps(p, v) }
    }

    // A piece of 4 lanes, one of 2 and one of 1: `vmaskmovps` to memory takes Zen 4 some 10 cycles more.
    #[inline(always)]
    unsafe fn store_first(self, mut p: *mut f32, mask: __m256i, v: __m256) {
        let lanes = intrinsic!(_mm256_movemask_ps(_mm256_castsi256_ps(mask))).trailing_ones();
        // SAFETY: `self` proves the instructions; the caller vouches for the memory of so many lanes.
        unsafe {
            if lanes >= 8 {
                return _mm256_storeu_ps(p, v);
            }
            let mut rest = _mm256_castps256_ps128(v);
            if lanes & 4 != 0 {
                _mm_storeu_ps(p, rest);
                (p, rest) = (p.add(4), _mm256_extractf128_ps::<1>(v));
            }
            if lanes & 2 != 0 {
                _mm_storel_epi64(p.cast(), _mm_castps_si128(rest));
                (p, rest) = (p.add(2), _mm_movehl_ps(rest, rest));
            }
            if lanes & 1 != 0 {
                _mm_store_ss(p, rest);
            }
        }
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
        let whole = rows == 8 && cols == 8;
        let between = |vector: usize| between.wrapping_add(8 * vector);
        // SAFETY: `self` proves the instructions; the caller vouches for the memory.
        unsafe {
            if part < 2 {
                // Four rows, within each half of 4 lanes: pairs of rows, then pairs of pairs.
                let mut r = [_mm256_setzero_ps(); 4];
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
                let low = _mm256_castps_pd(_mm256_unpacklo_ps(r[0], r[1]));
                let high = _mm256_castps_pd(_mm256_unpackhi_ps(r[0], r[1]));
                let low2 = _mm256_castps_pd(_mm256_unpacklo_ps(r[2], r[3]));
                let high2 = _mm256_castps_pd(_mm256_unpackhi_ps(r[2], r[3]));
                self.store(between(4 * part), _mm256_castpd_ps(_mm256_unpacklo_pd(low, low2)));
                self.store(between(4 * part + 1), _mm256_castpd_ps(_mm256_unpackhi_pd(low, low2)));
                self.store(between(4 * part + 2), _mm256_castpd_ps(_mm256_unpacklo_pd(high, high2)));
                self.store(between(4 * part + 3), _mm256_castpd_ps(_mm256_unpackhi_pd(high, high2)));
            } else {
                // between(4 * block + c) holds columns c and 4 + c of four rows: the halves change places.
                for c in [2 * part - 4, 2 * part - 3] {
                    let (a, b) = (self.load(between(c)), self.load(between(4 + c)));
                    let columns =
                        [_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b)];
                    for (j, column) in [c, 4 + c].into_iter().zip(columns) {
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
    }

    /// Fewer rows than lanes: the others are the last one again, as to read and to write by masks takes longer than all else.
    #[inline(always)]
    unsafe fn transpose_padded(
        self,
        (rows, cols): (usize, usize),
        from: *const f32,
        from_row: isize,
        to: *mut f32,
        to_row: isize,
    ) {
        // SAFETY: the caller's; the rows that are read exist, and so do four steps twice.
        unsafe {
            if rows == 8 && cols == 8 {
                // Written out, so that it is compiled without what parts of a block need.
                return self.transpose((8, 8), from, from_row, to, to_row);
            }
            if rows == 0 || cols < 8 {
                return self.transpose((rows, cols), from, from_row, to, to_row);
            }
            for first in [0, 4] {
                let row =
                    |i: usize| from.wrapping_offset(i.min(rows - 1) as isize * from_row).wrapping_add(first);
                for (j, column) in (first as isize..).zip(self.four_columns(row)) {
                    self.store(to.wrapping_offset(j * to_row), column);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn columns(self, from: *const f32, row: isize) -> [__m256; 4] {
        // SAFETY: the caller's.
        unsafe { self.four_columns(|i| from.wrapping_offset(i as isize * row)) }
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
    fn splat(self, x: f32) -> __m256 {
        intrinsic!(_mm256_set1_ps(x))
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        intrinsic!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        intrinsic!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        intrinsic!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        intrinsic!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        intrinsic!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        intrinsic!(_mm256_sqrt_ps(a))
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        intrinsic!(_mm256_min_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        intrinsic!(_mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn le(self, a: __m256, b: __m256) -> __m256i {
        intrinsic!(_mm256_castps_si256(_mm256_cmp_ps::<_CMP_LE_OQ>(a, b)))
    }

    #[inline(always)]
    fn nle(self, a: __m256, b: __m256) -> __m256i {
        intrinsic!(_mm256_castps_si256(_mm256_cmp_ps::<_CMP_NLE_UQ>(a, b)))
    }

    #[inline(always)]
    fn lt(self, a: __m256, b: __m256) -> __m256i {
        intrinsic!(_mm256_castps_si256(_mm256_cmp_ps::<_CMP_LT_OQ>(a, b)))
    }

    #[inline(always)]
    fn any(self, mask: __m256i) -> bool {
        intrinsic!(_mm256_movemask_ps(_mm256_castsi256_ps(mask))) != 0
    }

    #[inline(always)]
    fn select(self, mask: __m256i, yes: __m256, no: __m256) -> __m256 {
        intrinsic!(_mm256_blendv_ps(no, yes, _mm256_castsi256_ps(mask)))
    }

    #[inline(always)]
    fn splat_bits(self, x: u32) -> __m256 {
        intrinsic!(_mm256_castsi256_ps(_mm256_set1_epi32(x.cast_signed())))
    }

    #[inline(always)]
    fn and(self, a: __m256, b: __m256) -> __m256 {
        intrinsic!(_mm256_and_ps(a, b))
    }

    #[inline(always)]
    fn or(self, a: __m256, b: __m256) -> __m256 {
        intrinsic!(_mm256_or_ps(a, b))
    }

    #[inline(always)]
    fn xor(self, a: __m256, b: __m256) -> __m256 {
        intrinsic!(_mm256_xor_ps(a, b))
    }

    #[inline(always)]
    fn add_int(self, a: __m256, b: __m256) -> __m256 {
        intrinsic!(_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b))))
    }

    #[inline(always)]
    fn sub_int(self, a: __m256, b: __m256) -> __m256 {
        intrinsic!(_mm256_castsi256_ps(_mm256_sub_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b))))
    }

    #[inline(always)]
    fn max_int(self, a: __m256, b: __m256) -> __m256 {
        intrinsic!(_mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b))))
    }

    #[inline(always)]
    fn shl<const N: u32>(self, a: __m256) -> __m256 {
        intrinsic!(_mm256_castsi256_ps(_mm256_sll_epi32(
            _mm256_castps_si256(a),
            _mm_cvtsi32_si128(N.cast_signed())
        )))
    }

    #[inline(always)]
    fn shr<const N: u32>(self, a: __m256) -> __m256 {
        intrinsic!(_mm256_castsi256_ps(_mm256_sra_epi32(
            _mm256_castps_si256(a),
            _mm_cvtsi32_si128(N.cast_signed())
        )))
    }

    #[inline(always)]
    fn int_to_float(self, a: __m256) -> __m256 {
        intrinsic!(_mm256_cvtepi32_ps(_mm256_castps_si256(a)))
    }
}
