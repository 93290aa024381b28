//! exp, log, tanh, erf and what is built on them: polynomials of our own, evaluated with fused multiply-adds alone.
//!
//! Every function is the same sequence of IEEE operations in each lane of each instruction set, so its bits are the
//! same everywhere. `reference/src/math.rs` holds the same formulas in scalar, to be read; `tests/activations.rs`
//! compares the two and measures the errors stated here; `tests/math/coefficients.py` finds the coefficients.

use crate::simd::{ROUND, Simd};

/// `at <= 0 ? 0 : x`: ReLU of `x` at itself, and its derivative at what was saved times `x`. (Asked for what is kept: AVX-512 clears where a
/// mask is not set, and to turn a mask around takes Zen 5 a cycle in which nothing is multiplied.)
#[inline(always)]
pub(crate) fn gate<S: Simd>(s: S, at: S::V, x: S::V) -> S::V {
    let zero = s.splat(0.0);
    s.select(s.nle(at, zero), x, zero)
}

/// `at <= 0 ? slope * x : x`: the leaky ReLU and its derivative, likewise.
#[inline(always)]
pub(crate) fn leaky<S: Simd>(s: S, slope: S::V, at: S::V, x: S::V) -> S::V {
    s.select(s.le(at, s.splat(0.0)), s.mul(slope, x), x)
}

/// `c[0] x^(N-1) + ... + c[N-1]`, by Horner's rule.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::V, c: [f32; N]) -> S::V {
    let mut sum = s.splat(c[0]);
    for &coefficient in &c[1..] {
        sum = s.fma(sum, x, s.splat(coefficient));
    }
    sum
}

#[inline(always)]
pub(super) fn abs<S: Simd>(s: S, x: S::V) -> S::V {
    s.and(x, s.splat_bits(0x7fff_ffff))
}

#[inline(always)]
fn negate<S: Simd>(s: S, x: S::V) -> S::V {
    s.xor(x, s.splat_bits(0x8000_0000))
}

/// `magnitude` with the sign of `x`; the magnitude is not negative.
#[inline(always)]
fn with_sign_of<S: Simd>(s: S, magnitude: S::V, x: S::V) -> S::V {
    s.or(magnitude, s.and(x, s.splat_bits(0x8000_0000)))
}

/// `x`, but not below `low`; NaN stays.
#[inline(always)]
fn at_least<S: Simd>(s: S, x: S::V, low: f32) -> S::V {
    s.max(s.splat(low), x)
}

/// `x`, but not above `high`; NaN stays.
#[inline(always)]
fn at_most<S: Simd>(s: S, x: S::V, high: f32) -> S::V {
    s.min(s.splat(high), x)
}

const LN2_HI: f32 = 0.693_145_75; // 16 bits: n * LN2_HI is exact for |n| < 256
const LN2_LO: f32 = 1.428_606_8e-6;

/// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2. At most 1 ULP, subnormal results included.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // Beyond these the result is infinite, or 0, all the same; NaN stays.
    let x = at_least(s, at_most(s, x, 89.0), -105.0);
    let shifted = s.fma(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND));
    let n = s.sub(shifted, s.splat(ROUND));
    let r = s.fma(n, s.splat(-LN2_HI), x);
    let r = s.fma(n, s.splat(-LN2_LO), r);
    let c = [0.001_382_046_8, 0.008_369_25, 0.041_668_285, 0.166_665_17, 0.499_999_94, 1.0, 1.0];
    s.scale(polynomial(s, r, c), shifted)
}

/// log(x) = e ln 2 + log(1 + f), x = 2^e (1 + f), 1 + f in [sqrt(1/2), sqrt(2)). At most 1 ULP.
#[inline(always)]
pub(crate) fn log<S: Simd>(s: S, x: S::V) -> S::V {
    // Subnormal numbers are brought up by 2^23 first.
    let tiny = s.lt(x, s.splat(f32::MIN_POSITIVE));
    let scaled = s.select(tiny, s.mul(x, s.splat(8_388_608.0)), x);
    let correction = s.select(tiny, s.splat(-23.0), s.splat(0.0));
    // Counted from sqrt(1/2), the exponent field is e and what is left of the bits is 1 + f.
    let exponent = s.shr::<23>(s.sub_int(scaled, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
    let f = s.sub(s.sub_int(scaled, s.shl::<23>(exponent)), s.splat(1.0));
    let e = s.add(s.int_to_float(exponent), correction);
    let c = [
        0.067_508_94,
        -0.117_194_04,
        0.119_096_52,
        -0.124_002_64,
        0.142_161_5,
        -0.166_681_57,
        0.200_022_79,
        -0.250_000_1,
        0.333_333_1,
    ];
    let p = polynomial(s, f, c);
    // f - f^2/2 + f^3 p + e ln 2, the small parts first.
    let ff = s.mul(f, f);
    let small = s.fma(e, s.splat(LN2_LO), s.mul(s.mul(ff, f), p));
    let small = s.fma(s.splat(-0.5), ff, small);
    let result = s.fma(e, s.splat(LN2_HI), s.add(f, small));
    // log 0 = -inf, log inf = inf, of negative numbers and NaN: NaN.
    let zero = s.splat(0.0);
    let result = s.select(s.lt(x, s.splat(f32::INFINITY)), result, x);
    let result = s.select(s.le(x, zero), s.splat(f32::NEG_INFINITY), result);
    s.select(s.lt(x, zero), s.splat(f32::NAN), result)
}

/// log(1 + u) for u in [0, 1]: the logarithm of the rounded sum, and what rounding it lost (Kahan).
#[inline(always)]
pub(crate) fn log1p<S: Simd>(s: S, u: S::V) -> S::V {
    let one = s.splat(1.0);
    let sum = s.add(one, u);
    let lost = s.sub(u, s.sub(sum, one));
    s.add(log(s, sum), s.div(lost, sum))
}

/// x + x^3 P(x^2) below 0.625, 1 - 2 / (exp(2 |x|) + 1) with the sign of x above. At most 2 ULP.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    let a = abs(s, x);
    let square = s.mul(x, x);
    let c = [-0.005_716_203, 0.020_649_709, -0.053_743_172, 0.133_314_86, -0.333_332_84];
    let near = s.fma(s.mul(polynomial(s, square, c), square), x, x);
    let e = exp(s, s.add(a, a));
    let one = s.splat(1.0);
    let far = s.sub(one, s.div(s.splat(2.0), s.add(e, one)));
    s.select(s.lt(a, s.splat(0.625)), near, with_sign_of(s, far, x))
}

/// x + x P(x^2) below 1, 1 - exp(-t + t Q(t)) with t = |x| and the sign of x above. At most 2 ULP.
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::V) -> S::V {
    let a = abs(s, x);
    let square = s.mul(x, x);
    let c = [
        -2.156_915_1e-6,
        8.619_014e-5,
        -0.000_811_715_26,
        0.005_195_774,
        -0.026_856_491,
        0.112_836_316,
        -0.376_126_3,
        0.128_379_17,
    ];
    let near = s.fma(polynomial(s, square, c), x, x);
    // From 4 on the result is 1.
    let t = at_most(s, a, 4.0);
    let c = [
        -3.946_515e-6,
        3.332_344e-5,
        0.000_113_037_975,
        -0.003_108_509_1,
        0.022_968_242,
        -0.105_547_35,
        -0.635_475_46,
        -0.128_584_85,
    ];
    let q = s.fma(polynomial(s, t, c), t, negate(s, t));
    let far = s.sub(s.splat(1.0), exp(s, q));
    s.select(s.lt(a, s.splat(1.0)), near, with_sign_of(s, far, x))
}

/// 1 / (1 + e) for x >= 0, e / (1 + e) below, e = exp(-|x|): never infinite on the way. At most 2 ULP.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let e = exp(s, negate(s, abs(s, x)));
    let one = s.splat(1.0);
    let numerator = s.select(s.lt(x, s.splat(0.0)), e, one);
    s.div(numerator, s.add(one, e))
}

/// x * sigmoid(v), without losing the tail where sigmoid(v) underflows but the product does not: there e = h * h with
/// h = exp(v / 2), and the product is (x h) h / (1 + e).
#[inline(always)]
fn times_sigmoid<S: Simd>(s: S, x: S::V, v: S::V) -> S::V {
    let h = exp(s, s.mul(abs(s, v), s.splat(-0.5)));
    let negative = s.lt(v, s.splat(0.0));
    let numerator = s.select(negative, s.mul(s.mul(x, h), h), x);
    s.div(numerator, s.fma(h, h, s.splat(1.0)))
}

/// x sigmoid(x).
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    // Below -150 the result is -0 all the same, and -inf * 0 is kept away.
    let x = at_least(s, x, -150.0);
    times_sigmoid(s, x, x)
}

/// d silu / dx = s (1 + x (1 - s)), s = sigmoid(x).
#[inline(always)]
pub(crate) fn silu_derivative<S: Simd>(s: S, x: S::V) -> S::V {
    let x = at_most(s, at_least(s, x, -150.0), 150.0);
    let sig = sigmoid(s, x);
    let one = s.splat(1.0);
    s.mul(sig, s.fma(x, s.sub(one, sig), one))
}

/// 2 sqrt(2/pi) and 0.044715 of that: the tanh form of GELU is x sigmoid(x (A + B x^2)), as 1 + tanh(u) = 2 sigmoid(2u).
const GELU_A: f32 = 1.595_769_2;
const GELU_B: f32 = 0.071_354_814;

/// 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(s: S, x: S::V) -> S::V {
    let low = at_least(s, x, -15.0);
    // The other end only keeps v finite: sigmoid is 1 long before.
    let bounded = at_most(s, low, 15.0);
    let v = s.mul(bounded, s.fma(s.mul(bounded, bounded), s.splat(GELU_B), s.splat(GELU_A)));
    times_sigmoid(s, low, v)
}

/// d gelu_tanh / dx = s + x s (1 - s) (A + 3 B x^2), s = sigmoid(x (A + B x^2)).
#[inline(always)]
pub(crate) fn gelu_tanh_derivative<S: Simd>(s: S, x: S::V) -> S::V {
    let x = at_most(s, at_least(s, x, -15.0), 15.0);
    let square = s.mul(x, x);
    let sig = sigmoid(s, s.mul(x, s.fma(square, s.splat(GELU_B), s.splat(GELU_A))));
    let slope = s.fma(square, s.splat(3.0 * GELU_B), s.splat(GELU_A));
    let inner = s.mul(s.mul(x, s.sub(s.splat(1.0), sig)), slope);
    s.fma(sig, inner, sig)
}

/// The upper tail Phi(-a) = g(a) exp(-a^2 / 2) of the normal distribution, a in [0, 15], as `g` and the exponential:
/// (a + 3) g is a polynomial in q = (a - 3) / (a + 3).
#[inline(always)]
fn normal_tail<S: Simd>(s: S, a: S::V) -> (S::V, S::V) {
    let three = s.splat(3.0);
    let shifted = s.add(a, three);
    let q = s.div(s.sub(a, three), shifted);
    let c = [
        -0.000_205_680_54,
        -0.000_257_682_96,
        0.000_314_424_75,
        0.000_152_277_31,
        -0.001_073_969_1,
        0.000_843_202_5,
        0.006_968_350_6,
        -0.010_427_671,
        -0.047_262_028,
        0.230_015_31,
        -0.509_332,
        0.729_083_7,
    ];
    let g = s.div(polynomial(s, q, c), shifted);
    // a^2 / 2 rounded and what was lost: exp(-(high + low)) = exp(-high) (1 - low).
    let half = s.mul(a, s.splat(0.5));
    let high = s.mul(a, half);
    let low = s.sub(s.splat(0.0), s.fma(a, half, negate(s, high)));
    let e = exp(s, negate(s, high));
    (g, s.fma(e, low, e))
}

/// x Phi(x): max(x, 0) - |x| Phi(-|x|), so that the lower tail keeps its relative precision.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    // From 15 on the tail is 0.
    let a = at_most(s, abs(s, x), 15.0);
    let (g, e) = normal_tail(s, a);
    s.sub(gate(s, x, x), s.mul(s.mul(a, g), e))
}

/// d gelu / dx = Phi(x) + x phi(x), phi(x) = exp(-x^2 / 2) / sqrt(2 pi).
#[inline(always)]
pub(crate) fn gelu_derivative<S: Simd>(s: S, x: S::V) -> S::V {
    let a = at_most(s, abs(s, x), 15.0);
    let (g, e) = normal_tail(s, a);
    let tail = s.mul(g, e);
    let phi = s.select(s.lt(x, s.splat(0.0)), tail, s.sub(s.splat(1.0), tail));
    let signed = with_sign_of(s, a, x);
    s.fma(s.mul(signed, s.splat(0.398_942_3)), e, phi)
}
