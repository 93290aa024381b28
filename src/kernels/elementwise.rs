//! Passes over slices: activations, their derivatives, and the functions they are built on.

use super::{Activation, math};
use crate::simd::{Body, Isa, Simd};

/// Replaces each element by its activation.
pub(crate) fn activate(isa: Isa, activation: Activation, xs: &mut [f32]) {
    struct Activate<'a>(Activation, &'a mut [f32]);
    impl Body for Activate<'_> {
        type Out = ();
        #[inline(always)]
        fn call<S: Simd>(self, s: S) {
            activate_slice(s, self.0, self.1);
        }
    }
    isa.dispatch(Activate(activation, xs));
}

/// Applies an expression to a slice, vector by vector, the last one masked. A macro, because a closure that is not
/// inlined would lose the instruction set.
macro_rules! map {
    ($s:ident, $xs:expr, |$x:ident| $body:expr) => {{
        let xs: &mut [f32] = $xs;
        let (len, p) = (xs.len(), xs.as_mut_ptr());
        let mut i = 0;
        while i + S::LANES <= len {
            // SAFETY: i + LANES <= len.
            unsafe {
                let $x = $s.load(p.add(i));
                $s.store(p.add(i), $body);
            }
            i += S::LANES;
        }
        if i < len {
            let mask = $s.first(len - i);
            // SAFETY: the mask is true in the len - i lanes that exist.
            unsafe {
                let $x = $s.load_first(p.add(i), mask);
                $s.store_first(p.add(i), mask, $body);
            }
        }
    }};
}

/// Replaces each element by its activation, inside a body: the product's epilogue calls it on rows that are in L1.
#[inline(always)]
pub(crate) fn activate_slice<S: Simd>(s: S, activation: Activation, xs: &mut [f32]) {
    match activation {
        Activation::Identity => {}
        Activation::Relu => map!(s, xs, |x| math::gate(s, x, x)),
        Activation::LeakyRelu(slope) => map!(s, xs, |x| math::leaky(s, s.splat(slope), x, x)),
        Activation::Sigmoid => map!(s, xs, |x| math::sigmoid(s, x)),
        Activation::Tanh => map!(s, xs, |x| math::tanh(s, x)),
        Activation::Gelu => map!(s, xs, |x| math::gelu(s, x)),
        Activation::GeluTanh => map!(s, xs, |x| math::gelu_tanh(s, x)),
        Activation::Silu => map!(s, xs, |x| math::silu(s, x)),
    }
}

/// Multiplies each gradient by the derivative at `saved`, which is as long: the input where the activation saves it,
/// the output otherwise.
pub(crate) fn activation_gradient(isa: Isa, activation: Activation, saved: &[f32], grad: &mut [f32]) {
    struct Gradient<'a>(Activation, &'a [f32], &'a mut [f32]);
    impl Body for Gradient<'_> {
        type Out = ();
        #[inline(always)]
        fn call<S: Simd>(self, s: S) {
            gradient_slice(s, self.0, self.1, self.2);
        }
    }
    isa.dispatch(Gradient(activation, saved, grad));
}

/// [`activation_gradient`] inside a body: a product's epilogue calls it on rows that are in L1.
#[inline(always)]
pub(super) fn gradient_slice<S: Simd>(s: S, activation: Activation, saved: &[f32], grad: &mut [f32]) {
    assert_eq!(saved.len(), grad.len(), "one saved value for each gradient");
    let one = s.splat(1.0);
    let (from, to, len) = (saved.as_ptr(), grad.as_mut_ptr(), grad.len());
    macro_rules! each {
        (|$y:ident, $g:ident| $body:expr) => {{
            let mut i = 0;
            while i + S::LANES <= len {
                // SAFETY: i + LANES <= len, the length of both slices.
                unsafe {
                    let ($y, $g) = (s.load(from.add(i)), s.load(to.add(i)));
                    s.store(to.add(i), $body);
                }
                i += S::LANES;
            }
            if i < len {
                let mask = s.first(len - i);
                // SAFETY: the mask is true in the len - i lanes that exist in both slices.
                unsafe {
                    let ($y, $g) = (s.load_first(from.add(i), mask), s.load_first(to.add(i), mask));
                    s.store_first(to.add(i), mask, $body);
                }
            }
        }};
    }
    match activation {
        Activation::Identity => {}
        Activation::Relu => each!(|y, g| math::gate(s, y, g)),
        Activation::LeakyRelu(slope) => each!(|x, g| math::leaky(s, s.splat(slope), x, g)),
        Activation::Sigmoid => each!(|y, g| s.mul(g, s.mul(y, s.sub(one, y)))),
        Activation::Tanh => each!(|y, g| s.mul(g, s.fma(s.mul(y, s.splat(-1.0)), y, one))),
        Activation::Gelu => each!(|x, g| s.mul(g, math::gelu_derivative(s, x))),
        Activation::GeluTanh => each!(|x, g| s.mul(g, math::gelu_tanh_derivative(s, x))),
        Activation::Silu => each!(|x, g| s.mul(g, math::silu_derivative(s, x))),
    }
}

/// The functions of [`crate::math`].
#[derive(Clone, Copy)]
pub(crate) enum Function {
    Exp,
    Log,
    Tanh,
    Erf,
    Sigmoid,
}

/// Replaces each element by the function's value.
pub(crate) fn map(isa: Isa, function: Function, xs: &mut [f32]) {
    struct Map<'a>(Function, &'a mut [f32]);
    impl Body for Map<'_> {
        type Out = ();
        #[inline(always)]
        fn call<S: Simd>(self, s: S) {
            match self.0 {
                Function::Exp => map!(s, self.1, |x| math::exp(s, x)),
                Function::Log => map!(s, self.1, |x| math::log(s, x)),
                Function::Tanh => map!(s, self.1, |x| math::tanh(s, x)),
                Function::Erf => map!(s, self.1, |x| math::erf(s, x)),
                Function::Sigmoid => map!(s, self.1, |x| math::sigmoid(s, x)),
            }
        }
    }
    isa.dispatch(Map(function, xs));
}
