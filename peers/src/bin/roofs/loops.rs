//! Loops that do only what no way around it is known for, with AVX-512: nothing is checked, chosen or finished in them.

// Loops over constant bounds, so that what they index stays in registers.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use percycle::Isa;

const LANES: usize = 16;
/// Of half a vector.
const HALF: usize = LANES / 2;

/// Rows of a tile.
pub const TILE: usize = 12;

/// The proof that this CPU has the instructions.
#[derive(Clone, Copy)]
pub struct Avx512(());

impl Avx512 {
    pub fn detect() -> Option<Avx512> {
        Isa::by_name("avx512").ok().map(|_| Avx512(()))
    }
}

/// Makes a loop a method of the proof.
macro_rules! compiled {
    ($($(#[$doc:meta])* fn $name:ident $(<$(const $p:ident),+>)? ($($arg:ident: $type:ty),* $(,)?) $body:block)+) => {
        impl Avx512 {
            $($(#[$doc])*
            pub fn $name $(<$(const $p: usize),+>)? (self, $($arg: $type),*) {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                fn compiled $(<$(const $p: usize),+>)? ($($arg: $type),*) $body
                // SAFETY: `self` exists, so the instructions were found.
                unsafe { compiled $(::<$($p),+>)? ($($arg),*) }
            })+
        }
    };
}

#[inline(always)]
fn load(from: &[f32]) -> __m512 {
    let from: &[f32; LANES] = from.first_chunk().expect("a whole vector");
    // SAFETY: 16 values can be read.
    unsafe { _mm512_loadu_ps(from.as_ptr()) }
}

#[inline(always)]
fn store(to: &mut [f32], v: __m512) {
    let to: &mut [f32; LANES] = to.first_chunk_mut().expect("a whole vector");
    // SAFETY: 16 values can be written.
    unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
}

compiled! {
    /// `C += A B` for `M` rows: `rows` rows of B at once, `W` vectors of each before those of the next. With all rows at once, the chains
    /// never leave their registers; with one, B is read in the order in which it lies.
    fn few_rows<const M, const W>(a: &[f32], b: &[f32], c: &mut [f32], n: usize, rows: usize) {
        let k = b.len() / n;
        assert!(b.len() == k * n && a.len() == M * k && c.len() == M * n && n.is_multiple_of(W * LANES));
        for p0 in (0..k).step_by(rows) {
            let rows = rows.min(k - p0);
            for j in (0..n).step_by(W * LANES) {
                let mut chains = [[_mm512_setzero_ps(); W]; M];
                for i in 0..M {
                    for w in 0..W {
                        // SAFETY: row i and these columns exist, by what was asserted.
                        chains[i][w] = unsafe { _mm512_loadu_ps(c.as_ptr().add(i * n + j + w * LANES)) };
                    }
                }
                for p in p0..p0 + rows {
                    // SAFETY: so do row p and step p.
                    let (a, b) = unsafe { (a.as_ptr().add(p), b.as_ptr().add(p * n + j)) };
                    let mut of_a = [_mm512_setzero_ps(); M];
                    for i in 0..M {
                        // SAFETY: as above.
                        of_a[i] = _mm512_set1_ps(unsafe { *a.add(i * k) });
                    }
                    for w in 0..W {
                        // SAFETY: as above.
                        let b = unsafe { _mm512_loadu_ps(b.add(w * LANES)) };
                        for i in 0..M {
                            chains[i][w] = _mm512_fmadd_ps(of_a[i], b, chains[i][w]);
                        }
                    }
                }
                for i in 0..M {
                    for w in 0..W {
                        // SAFETY: as above.
                        unsafe { _mm512_storeu_ps(c.as_mut_ptr().add(i * n + j + w * LANES), chains[i][w]) };
                    }
                }
            }
        }
    }

    /// One chain of `steps` multiply-adds, each of which waits for the one before.
    fn chain(steps: usize) {
        let (mut x, y) = (std::hint::black_box(_mm512_set1_ps(0.5)), std::hint::black_box(_mm512_set1_ps(0.25)));
        for _ in 0..steps {
            x = _mm512_fmadd_ps(x, y, y);
        }
        std::hint::black_box(x);
    }

    /// `c` written once, in order.
    fn fill(c: &mut [f32]) {
        let zero = std::hint::black_box(_mm512_setzero_ps());
        for line in c.chunks_exact_mut(LANES) {
            store(line, zero);
        }
    }

    /// Tiles of 12 x 32 of a C of `n` columns, each `steps` steps of multiply-adds that read nothing, then written; as they are computed, the
    /// lines of the next one are asked for.
    fn tiles(c: &mut [f32], n: usize, steps: usize) {
        let (y, m) = (std::hint::black_box(_mm512_set1_ps(0.25)), c.len() / n);
        for i in (0..m / TILE * TILE).step_by(TILE) {
            for j in (0..n / 32 * 32).step_by(32) {
                let mut chains = [[y; 2]; TILE];
                for step in 0..steps {
                    if step < 2 * TILE {
                        let at = (i + step / 2) * n + j + 32 + step % 2 * LANES;
                        _mm_prefetch::<_MM_HINT_T0>(c.as_ptr().wrapping_add(at).cast());
                    }
                    for row in 0..TILE {
                        for v in 0..2 {
                            chains[row][v] = _mm512_fmadd_ps(y, y, chains[row][v]);
                        }
                    }
                }
                for row in 0..TILE {
                    for v in 0..2 {
                        store(&mut c[(i + row) * n + j + v * LANES..], chains[row][v]);
                    }
                }
            }
        }
    }

    /// What softmax needs of each of `values`, and no more: an exponential (a reduction, a polynomial of 6 terms and a scale), a sum and a
    /// division.
    fn softmax(values: &mut [f32]) {
        let mut sum = _mm512_setzero_ps();
        for line in values.chunks_exact_mut(LANES) {
            let x = load(line);
            let n = _mm512_roundscale_ps::<0>(_mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E)));
            let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693_145_75), x);
            let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.428_606_8e-6), r);
            let mut e = _mm512_set1_ps(1.0 / 720.0);
            for term in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
                e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(term));
            }
            let e = _mm512_scalef_ps(e, n);
            sum = _mm512_add_ps(sum, e);
            store(line, e);
        }
        for line in values.chunks_exact_mut(LANES) {
            store(line, _mm512_div_ps(load(line), sum));
        }
    }

    /// `b` read in order.
    fn read(b: &[f32]) {
        let mut sums = [_mm512_setzero_ps(); 8];
        for lines in b.as_chunks::<{ 8 * LANES }>().0 {
            for (sum, line) in sums.iter_mut().zip(lines.as_chunks::<LANES>().0) {
                *sum = _mm512_add_ps(*sum, load(line));
            }
        }
        std::hint::black_box(sums);
    }

    /// `c += a B` for one row and the columns of a B that lies by columns of `k` values, 48 at a time: transposed in registers.
    fn columns(a: &[f32], b: &[f32], c: &mut [f32]) {
        let k = a.len();
        assert!(k.is_multiple_of(8) && b.len() == c.len() * k && c.len().is_multiple_of(3 * LANES));
        for (b, c) in b.chunks_exact(3 * LANES * k).zip(c.chunks_exact_mut(3 * LANES)) {
            let (mut x, mut y, mut z) = (load(c), load(&c[LANES..]), load(&c[2 * LANES..]));
            let mut at = b.as_ptr();
            for a in a.as_chunks::<8>().0 {
                // SAFETY: so many columns and steps exist, by what was asserted.
                let [p, q, r] = unsafe {
                    let next = at.add(LANES * k);
                    [transposed(at, k), transposed(next, k), transposed(next.add(LANES * k), k)]
                };
                for step in 0..8 {
                    let a = _mm512_set1_ps(a[step]);
                    x = _mm512_fmadd_ps(a, p[step], x);
                    y = _mm512_fmadd_ps(a, q[step], y);
                    z = _mm512_fmadd_ps(a, r[step], z);
                }
                at = at.wrapping_add(8);
            }
            store(c, x);
            store(&mut c[LANES..], y);
            store(&mut c[2 * LANES..], z);
        }
    }

    /// The same by half vectors, 32 columns at a time and four steps of each.
    fn columns_by_halves(a: &[f32], b: &[f32], c: &mut [f32]) {
        let k = a.len();
        assert!(k.is_multiple_of(4) && b.len() == c.len() * k && c.len().is_multiple_of(4 * HALF));
        for (b, c) in b.chunks_exact(4 * HALF * k).zip(c.chunks_exact_mut(4 * HALF)) {
            let mut sums = [_mm256_setzero_ps(); 4];
            let mut at = b.as_ptr();
            for a in a.as_chunks::<4>().0 {
                let a = a.map(|a| _mm256_set1_ps(a));
                let mut next = at;
                for sum in &mut sums {
                    // SAFETY: so many columns and steps exist, by what was asserted.
                    let columns = unsafe { transposed_half(next, k) };
                    for step in 0..4 {
                        *sum = _mm256_fmadd_ps(a[step], columns[step], *sum);
                    }
                    next = next.wrapping_add(HALF * k);
                }
                at = at.wrapping_add(4);
            }
            for (c, sum) in c.as_chunks_mut::<HALF>().0.iter_mut().zip(sums) {
                // SAFETY: 8 values can be written.
                unsafe { _mm256_storeu_ps(c.as_mut_ptr(), sum) };
            }
        }
    }
}

/// The same pointer, which the compiler makes nothing of: it would keep one for each column, more than there are registers.
#[inline(always)]
fn held(p: *const f32) -> *const f32 {
    let mut p = p;
    // SAFETY: no instruction.
    unsafe { std::arch::asm!("/* {0} */", inout(reg) p, options(pure, readonly, nostack, preserves_flags)) };
    p
}

/// Four rows, transposed within each quarter of 4 lanes, by the instructions of a width: pairs of rows, then pairs of pairs.
macro_rules! quarters {
    ($r:expr, $low:ident $high:ident $low_pd:ident $high_pd:ident $to_pd:ident $to_ps:ident) => {{
        let r = $r;
        let (low, high) = ($to_pd($low(r[0], r[1])), $to_pd($high(r[0], r[1])));
        let (low2, high2) = ($to_pd($low(r[2], r[3])), $to_pd($high(r[2], r[3])));
        [$low_pd(low, low2), $high_pd(low, low2), $low_pd(high, high2), $high_pd(high, high2)]
            .map(|v| $to_ps(v))
    }};
}

/// Four values of each of 8 columns that are `k` apart, as four vectors.
///
/// # Safety
/// Those values can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
unsafe fn transposed_half(from: *const f32, k: usize) -> [__m256; 4] {
    let (p, next) = (held(from), held(from.wrapping_add(4 * k)));
    let mut r = [_mm256_setzero_ps(); 4];
    for i in 0..4 {
        // SAFETY: the caller's.
        let [low, high] = unsafe { [p, next].map(|p| _mm_loadu_ps(p.wrapping_add(i * k))) };
        r[i] = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high);
    }
    quarters!(r, _mm256_unpacklo_ps _mm256_unpackhi_ps _mm256_unpacklo_pd _mm256_unpackhi_pd _mm256_castps_pd _mm256_castpd_ps)
}

/// Eight values of each of 16 columns that are `k` apart, as eight vectors.
///
/// # Safety
/// Those values can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
unsafe fn transposed(from: *const f32, k: usize) -> [__m512; 8] {
    let mut p = held(from);
    let mut quarters = [[_mm512_setzero_ps(); 4]; 2];
    for quarters in &mut quarters {
        let next = held(p.wrapping_add(4 * k));
        let mut r = [_mm512_setzero_ps(); 4];
        for i in 0..4 {
            // SAFETY: the caller's.
            let [low, high] = unsafe { [p, next].map(|p| _mm256_loadu_pd(p.wrapping_add(i * k).cast())) };
            r[i] = _mm512_castpd_ps(_mm512_insertf64x4::<1>(_mm512_castpd256_pd512(low), high));
        }
        p = held(next.wrapping_add(4 * k));
        *quarters = quarters!(r, _mm512_unpacklo_ps _mm512_unpackhi_ps _mm512_unpacklo_pd _mm512_unpackhi_pd _mm512_castps_pd _mm512_castpd_ps);
    }
    let mut columns = [_mm512_setzero_ps(); 8];
    for c in 0..4 {
        let [a, b] = [quarters[0][c], quarters[1][c]];
        columns[c] = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
        columns[4 + c] = _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b);
    }
    columns
}
