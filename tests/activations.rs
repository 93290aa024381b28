//! Activations and the functions under them: the same bits as the scalar reference on every instruction set, and errors
//! against f64 no larger than promised.

// Tables of functions: naming their types would not say more.
#![allow(clippy::type_complexity)]

mod common;

use common::same;
use percycle::{Activation, Isa, Matrix, math};
use percycle_reference::activation as scalar;
use percycle_reference::math as reference;

type Slices = fn(&mut [f32]) -> percycle::Result<()>;

const FUNCTIONS: [(&str, Slices, fn(f32) -> f32, fn(f64) -> f64); 5] = [
    ("exp", math::exp, reference::exp, f64::exp),
    ("log", math::log, reference::log, f64::ln),
    ("tanh", math::tanh, reference::tanh, f64::tanh),
    ("erf", math::erf, reference::erf, libm::erf),
    ("sigmoid", math::sigmoid, reference::sigmoid, |x| 1.0 / (1.0 + (-x).exp())),
];

/// Activations without a promise of 2 ULP: their own bound, in ULP, tails included.
const BOUNDED: [(Activation, fn(f64) -> f64, f64); 3] = [
    (Activation::Gelu, |x| 0.5 * x * libm::erfc(-x / std::f64::consts::SQRT_2), GELU_ULP),
    (Activation::GeluTanh, gelu_tanh, GELU_TANH_ULP),
    (Activation::Silu, |x| x / (1.0 + (-x).exp()), SILU_ULP),
];
const GELU_ULP: f64 = 5.0;
/// At -10.04, where the result is -5e-38: exp multiplies the rounding of its argument by that argument, near -88.
const GELU_TANH_ULP: f64 = 214.0;
const SILU_ULP: f64 = 5.0;

fn gelu_tanh(x: f64) -> f64 {
    x / (1.0 + (-2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).exp())
}

const PAIRS: [(Activation, scalar::Activation); 9] = [
    (Activation::Identity, scalar::Activation::Identity),
    (Activation::Relu, scalar::Activation::Relu),
    (Activation::LeakyRelu(0.01), scalar::Activation::LeakyRelu(0.01)),
    (Activation::LeakyRelu(-0.5), scalar::Activation::LeakyRelu(-0.5)),
    (Activation::Sigmoid, scalar::Activation::Sigmoid),
    (Activation::Tanh, scalar::Activation::Tanh),
    (Activation::Gelu, scalar::Activation::Gelu),
    (Activation::GeluTanh, scalar::Activation::GeluTanh),
    (Activation::Silu, scalar::Activation::Silu),
];

/// Every 1009th bit pattern, NaNs among them, and the numbers at which something changes.
fn sample() -> Vec<f32> {
    let special =
        [0.0, 1.0, 0.625, 0.999_999_9, 4.0, 15.0, 88.72, 88.73, 87.33, 103.9, 104.0, 1e-40, f32::MAX];
    let signed = special.iter().flat_map(|&x| [x, -x, f32::from_bits(x.to_bits() + 1)]);
    let infinite = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    (0..u32::MAX).step_by(1009).map(f32::from_bits).chain(signed).chain(infinite).collect()
}

/// The distance from the exact value, in units in the last place of the correctly rounded result.
fn ulps(got: f32, exact: f64) -> f64 {
    let rounded = exact as f32;
    if same(got, rounded) || (got == 0.0 && rounded == 0.0) {
        return 0.0;
    }
    if !got.is_finite() || !rounded.is_finite() {
        return f64::INFINITY;
    }
    let magnitude = rounded.abs();
    let ulp = f64::from(f32::from_bits(magnitude.to_bits() + 1)) - f64::from(magnitude);
    (f64::from(got) - f64::from(rounded)).abs() / ulp
}

#[test]
fn functions_equal_the_reference_on_every_instruction_set() {
    let xs = sample();
    for isa in Isa::available() {
        for (name, vector, scalar, _) in FUNCTIONS {
            let mut ys = xs.clone();
            isa.pin(|| vector(&mut ys)).unwrap();
            for (&x, &y) in xs.iter().zip(&ys) {
                assert!(same(y, scalar(x)), "{name}({x:e}) on {isa}: {y:e}, reference {:e}", scalar(x));
            }
        }
    }
}

#[test]
fn activations_and_gradients_equal_the_reference_on_every_instruction_set() {
    let xs = sample();
    for isa in Isa::available() {
        for (activation, reference) in PAIRS {
            let mut ys = xs.clone();
            isa.pin(|| activation.apply(&mut ys)).unwrap();
            let saved = if activation.saves_input() { &xs } else { &ys };
            let mut gradients: Vec<f32> = xs.iter().rev().copied().collect();
            isa.pin(|| activation.gradient(saved, &mut gradients)).unwrap();
            assert_eq!(activation.saves_input(), reference.saves_input());
            for i in 0..xs.len() {
                let want = scalar::activate(reference, xs[i]);
                assert!(same(ys[i], want), "{activation:?}({:e}) on {isa}: {:e}, not {want:e}", xs[i], ys[i]);
                let want = scalar::activation_gradient(reference, saved[i], xs[xs.len() - 1 - i]);
                let got = gradients[i];
                assert!(same(got, want), "{activation:?}' at {:e} on {isa}: {got:e}, not {want:e}", saved[i]);
            }
        }
    }
}

/// `len` numbers of both signs, none of which an activation or a function leaves as it is by chance, and guards behind.
fn guarded(len: usize, phase: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 7 + phase) % 13) as f32 / 4.0 - 1.6;
    (0..len).map(value).chain([GUARD; 8]).collect()
}

/// Negative, so that every activation but the identity would change it.
const GUARD: f32 = -0.75;

fn check_tail(what: &str, got: &[f32], want: impl ExactSizeIterator<Item = f32>) {
    let len = want.len();
    for (i, (want, &got)) in want.zip(got).enumerate() {
        assert!(same(got, want), "{what}, element {i} of {len}: {got:e}, not {want:e}");
    }
    assert!(got[len..].iter().all(|&y| y == GUARD), "{what} writes behind {len}");
}

/// Every length around the vectors: tails are masked, and what lies behind the slice stays.
#[test]
fn tails_are_exact_and_stay_inside() {
    for isa in Isa::available() {
        for len in 0..70 {
            let xs = guarded(len, 0);
            for (name, vector, scalar, _) in FUNCTIONS {
                let mut ys = xs.clone();
                isa.pin(|| vector(&mut ys[..len])).unwrap();
                check_tail(&format!("{name} on {isa}"), &ys, xs[..len].iter().map(|&x| scalar(x)));
            }
            for (activation, reference) in PAIRS {
                let what = format!("{activation:?} on {isa}");
                let mut ys = xs.clone();
                isa.pin(|| activation.apply(&mut ys[..len])).unwrap();
                let want = xs[..len].iter().map(|&x| scalar::activate(reference, x));
                check_tail(&what, &ys, want);
                let from = guarded(len, 5);
                let mut gradients = from.clone();
                isa.pin(|| activation.gradient(&xs[..len], &mut gradients[..len])).unwrap();
                let want = (0..len).map(|i| scalar::activation_gradient(reference, xs[i], from[i]));
                check_tail(&format!("the gradient of {what}"), &gradients, want);
            }
        }
    }
}

/// Fused into the product, or the reference applied afterwards: the same bits.
#[test]
fn fused_equals_unfused() {
    let x = Matrix::from_vec(37, 5, (0..185).map(|i| (i as f32 - 90.0) / 17.0).collect()).unwrap();
    let w = Matrix::from_vec(5, 67, (0..335).map(|i| ((i * 7 % 31) as f32 - 15.0) / 9.0).collect()).unwrap();
    let bias: Vec<f32> = (0..67).map(|i| (i as f32 - 30.0) / 8.0).collect();
    for isa in Isa::available() {
        isa.pin(|| {
            for (activation, reference) in PAIRS {
                let (mut fused, mut plain) = (Matrix::zeros(37, 67), Matrix::zeros(37, 67));
                percycle::linear(x.view(), w.view(), Some(&bias), activation, fused.view_mut()).unwrap();
                percycle::linear(x.view(), w.view(), Some(&bias), Activation::Identity, plain.view_mut())
                    .unwrap();
                for (a, b) in fused.as_slice().iter().zip(plain.as_slice()) {
                    let want = scalar::activate(reference, *b);
                    assert!(same(*a, want), "{activation:?} of {b:e} on {isa}: {a:e}, not {want:e}");
                }
            }
        });
    }
}

fn worst(
    xs: impl Iterator<Item = f32>,
    scalar: impl Fn(f32) -> f32,
    exact: impl Fn(f64) -> f64,
) -> (f64, f32) {
    let mut worst = (0.0, 0.0);
    for x in xs.filter(|x| x.is_finite()) {
        let error = ulps(scalar(x), exact(f64::from(x)));
        if error > worst.0 {
            worst = (error, x);
        }
    }
    worst
}

fn check(name: &str, (error, x): (f64, f32), bound: f64) {
    println!("{name}: at most {error} ULP, at {x:e}");
    assert!(error <= bound, "{name} is {error} ULP off at {x:e}, {bound} are promised");
}

/// The reference stands for all instruction sets: the tests above show that they equal it.
#[test]
fn errors_are_within_the_promise_on_a_sample() {
    let xs = sample();
    for (name, _, scalar, exact) in FUNCTIONS {
        check(name, worst(xs.iter().copied(), scalar, exact), 2.0);
    }
    for ((activation, exact, bound), reference) in BOUNDED.into_iter().zip(&PAIRS[6..]) {
        let scalar = |x| scalar::activate(reference.1, x);
        check(activation.name(), worst(xs.iter().copied(), scalar, exact), bound);
    }
}

fn everything() -> impl Iterator<Item = f32> {
    (0..=u32::MAX).map(f32::from_bits)
}

#[test]
#[ignore = "all 2^32 numbers, some minutes: run with --release -- --ignored --nocapture"]
fn errors_of_functions_are_within_the_promise_everywhere() {
    for (name, _, scalar, exact) in FUNCTIONS {
        check(name, worst(everything(), scalar, exact), 2.0);
    }
}

#[test]
#[ignore = "all 2^32 numbers, some minutes: run with --release -- --ignored --nocapture"]
fn errors_of_activations_are_within_the_promise_everywhere() {
    for ((activation, exact, bound), reference) in BOUNDED.into_iter().zip(&PAIRS[6..]) {
        let scalar = |x| scalar::activate(reference.1, x);
        check(activation.name(), worst(everything(), scalar, exact), bound);
    }
}

/// Derivatives against a central difference of the f64 function. With h = 1e-4 the difference is off by h^2/6 times the
/// third derivative, below 1e-8, and by 1e-16 / h = 1e-12. In f32, 1 - sigmoid is off by up to 2^-24, which the tanh form
/// of GELU multiplies by x (A + 3 B x^2) < 24 where it still matters (x < 4.2): 1.5e-6, and a few roundings besides.
#[test]
fn derivatives_are_the_slopes() {
    let exact: [(Activation, fn(f64) -> f64); 5] = [
        (Activation::Sigmoid, |x| 1.0 / (1.0 + (-x).exp())),
        (Activation::Tanh, f64::tanh),
        (Activation::Gelu, BOUNDED[0].1),
        (Activation::GeluTanh, BOUNDED[1].1),
        (Activation::Silu, BOUNDED[2].1),
    ];
    for (activation, f) in exact {
        for i in -2000..=2000 {
            let x = i as f32 / 100.0;
            let (mut y, mut gradient) = ([x], [1.0]);
            activation.apply(&mut y).unwrap();
            let saved = if activation.saves_input() { [x] } else { y };
            activation.gradient(&saved, &mut gradient).unwrap();
            let slope = (f(f64::from(x) + 1e-4) - f(f64::from(x) - 1e-4)) / 2e-4;
            let error = (f64::from(gradient[0]) - slope).abs();
            assert!(error < 2e-6, "{activation:?}'({x}) = {}, slope {slope}", gradient[0]);
        }
    }
}

#[test]
fn bad_input_is_refused() {
    let error = Activation::LeakyRelu(f32::NAN).apply(&mut [1.0]).unwrap_err();
    assert_eq!(error.to_string(), "Activation::LeakyRelu: slope is NaN: it must be a finite number");
    let error = Activation::Relu.gradient(&[1.0], &mut [1.0, 2.0]).unwrap_err();
    assert!(error.to_string().contains("saved holds 1 elements but 2 are needed"), "{error}");
}
