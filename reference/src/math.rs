//! exp, log, tanh, erf and what is built on them, one number at a time.
//!
//! Computers have additions, multiplications, divisions; everything else is made of them. Each function brings its
//! argument into a small range by an identity, and there a polynomial is as good as the function. The steps are those of
//! the vector code, in the same order, so the results are the same bits.

/// `c[0] x^(N-1) + ... + c[N-1]` by Horner's rule: each step is one fused multiply-add, rounded once.
fn polynomial<const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut sum = c[0];
    for coefficient in &c[1..] {
        sum = sum.mul_add(x, *coefficient);
    }
    sum
}

/// Not below `low`; NaN stays.
fn at_least(x: f32, low: f32) -> f32 {
    if x < low { low } else { x }
}

/// Not above `high`; NaN stays.
fn at_most(x: f32, high: f32) -> f32 {
    if high < x { high } else { x }
}

const LN2_HI: f32 = 0.693_145_75;
const LN2_LO: f32 = 1.428_606_8e-6;
const ROUND: f32 = 12_582_912.0;

/// 2^n for n in -126..=127, by its exponent field.
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) << 23) as u32)
}

/// `exp(x) = 2^n exp(r)` with `n = round(x / ln 2)` and `r = x - n ln 2`.
pub fn exp(x: f32) -> f32 {
    let x = at_least(at_most(x, 89.0), -105.0);
    if x.is_nan() {
        return x;
    }
    // Adding 1.5 * 2^23 leaves no room for a fraction: the sum is rounded to an integer.
    let n = x.mul_add(std::f32::consts::LOG2_E, ROUND) - ROUND;
    let r = n.mul_add(-LN2_HI, x);
    let r = n.mul_add(-LN2_LO, r);
    let c = [0.001_382_046_8, 0.008_369_25, 0.041_668_285, 0.166_665_17, 0.499_999_94, 1.0, 1.0];
    let p = polynomial(r, c);
    let n = n as i32;
    // In two factors: n reaches from -151 to 128, beyond the exponents of f32.
    p * power_of_two(n >> 1) * power_of_two(n - (n >> 1))
}

/// `log(x) = e ln 2 + log(1 + f)` with `x = 2^e (1 + f)` and `1 + f` between sqrt(1/2) and sqrt(2).
pub fn log(x: f32) -> f32 {
    if x.is_nan() || x < 0.0 {
        return f32::NAN;
    }
    if x == 0.0 {
        return f32::NEG_INFINITY;
    }
    if x == f32::INFINITY {
        return x;
    }
    let (scaled, correction) = if x < f32::MIN_POSITIVE { (x * 8_388_608.0, -23.0) } else { (x, 0.0) };
    let exponent = (scaled.to_bits() as i32 - std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32) >> 23;
    let f = f32::from_bits((scaled.to_bits() as i32 - (exponent << 23)) as u32) - 1.0;
    let e = exponent as f32 + correction;
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
    let p = polynomial(f, c);
    let ff = f * f;
    let small = e.mul_add(LN2_LO, (ff * f) * p);
    let small = (-0.5_f32).mul_add(ff, small);
    e.mul_add(LN2_HI, f + small)
}

/// `log(1 + u)` for u in [0, 1] (W. Kahan): the logarithm of the rounded sum, and what rounding it lost.
pub fn log1p(u: f32) -> f32 {
    let sum = 1.0 + u;
    let lost = u - (sum - 1.0);
    log(sum) + lost / sum
}

/// `tanh(x) = 1 - 2 / (exp(2x) + 1)`; near 0, where that loses its digits, a polynomial.
pub fn tanh(x: f32) -> f32 {
    let a = x.abs();
    if a < 0.625 {
        let c = [-0.005_716_203, 0.020_649_709, -0.053_743_172, 0.133_314_86, -0.333_332_84];
        let square = x * x;
        return (polynomial(square, c) * square).mul_add(x, x);
    }
    (1.0 - 2.0 / (exp(a + a) + 1.0)).copysign(x)
}

/// The error function: `x + x P(x^2)` near 0, `1 - exp(-t + t Q(t))` with `t = |x|` from 1 on.
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    if a < 1.0 {
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
        return polynomial(x * x, c).mul_add(x, x);
    }
    let t = at_most(a, 4.0);
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
    let q = polynomial(t, c).mul_add(t, -t);
    (1.0 - exp(q)).copysign(x)
}

/// `1 / (1 + exp(-x))`, written so that nothing overflows.
pub fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
}

/// `x sigmoid(v)`, with `exp(v)` as the square of `h = exp(v / 2)`, because it underflows before the product does.
fn times_sigmoid(x: f32, v: f32) -> f32 {
    let h = exp(v.abs() * -0.5);
    let numerator = if v < 0.0 { (x * h) * h } else { x };
    numerator / h.mul_add(h, 1.0)
}

/// `x sigmoid(x)`.
pub fn silu(x: f32) -> f32 {
    let x = at_least(x, -150.0);
    times_sigmoid(x, x)
}

/// `s (1 + x (1 - s))`, s being sigmoid(x).
pub fn silu_derivative(x: f32) -> f32 {
    let x = at_most(at_least(x, -150.0), 150.0);
    let s = sigmoid(x);
    s * x.mul_add(1.0 - s, 1.0)
}

const GELU_A: f32 = 1.595_769_2; // 2 sqrt(2 / pi)
const GELU_B: f32 = 0.071_354_814; // 0.044715 of it

/// `0.5 x (1 + tanh(u)) = x sigmoid(2u)`, `2u = x (A + B x^2)` (Hendrycks and Gimpel, 2016).
pub fn gelu_tanh(x: f32) -> f32 {
    let low = at_least(x, -15.0);
    let bounded = at_most(low, 15.0);
    let v = bounded * (bounded * bounded).mul_add(GELU_B, GELU_A);
    times_sigmoid(low, v)
}

/// `s + x s (1 - s) (A + 3 B x^2)`, s being the sigmoid above.
pub fn gelu_tanh_derivative(x: f32) -> f32 {
    let x = at_most(at_least(x, -15.0), 15.0);
    let square = x * x;
    let s = sigmoid(x * square.mul_add(GELU_B, GELU_A));
    let slope = square.mul_add(3.0 * GELU_B, GELU_A);
    s.mul_add((x * (1.0 - s)) * slope, s)
}

/// `Phi(-a) = g exp(-a^2 / 2)` for a in [0, 15]: g and the exponential.
fn normal_tail(a: f32) -> (f32, f32) {
    let shifted = a + 3.0;
    let q = (a - 3.0) / shifted;
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
    let g = polynomial(q, c) / shifted;
    let half = a * 0.5;
    let high = a * half;
    let low = 0.0 - a.mul_add(half, -high);
    let e = exp(-high);
    (g, e.mul_add(low, e))
}

/// `x Phi(x)` (Hendrycks and Gimpel, 2016), Phi being the normal distribution function.
pub fn gelu(x: f32) -> f32 {
    let a = at_most(x.abs(), 15.0);
    let (g, e) = normal_tail(a);
    let positive = if x <= 0.0 { 0.0 } else { x };
    positive - (a * g) * e
}

/// `Phi(x) + x phi(x)`, phi being the normal density.
pub fn gelu_derivative(x: f32) -> f32 {
    let a = at_most(x.abs(), 15.0);
    let (g, e) = normal_tail(a);
    let tail = g * e;
    let phi = if x < 0.0 { tail } else { 1.0 - tail };
    (a.copysign(x) * 0.398_942_3).mul_add(e, phi)
}
