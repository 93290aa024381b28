//! Proof that an update leaves only finite numbers behind, made before it begins: that is why it may work in place.
//!
//! Of every tensor an upper bound of its absolute values is known. From those and the bound of the gradients follows what
//! the update can make at most; when that is far below the largest `f32`, nothing can overflow on the way.

use crate::kernels::Activation;
use crate::kernels::update::{AdamRule, Rule, Scaling, SgdRule};

/// Upper bounds of the absolute values of weights and of the optimizer's state for them; infinite when unknown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub weights: f64,
    pub first: f64,
    pub second: f64,
}

/// What a proven number stays below: an eighth of the largest `f32`, for what roundings add.
const MOST: f64 = f32::MAX as f64 / 8.0;

impl Limits {
    pub(super) const UNKNOWN: Limits =
        Limits { weights: f64::INFINITY, first: f64::INFINITY, second: f64::INFINITY };

    /// The bounds after an update by gradients whose sums are at most `sum`, or nothing when they might not be finite.
    #[inline]
    pub(super) fn after(self, rule: &Rule, scaling: &Scaling, sum: f64) -> Option<Limits> {
        let gradient = sum * f64::from(scaling.scale) * f64::from(scaling.coefficient);
        let (limits, on_the_way) = match rule {
            Rule::Sgd(rule) => self.after_sgd(rule, gradient),
            Rule::Adam(rule) => self.after_adam(rule, gradient),
        };
        let all = [sum, gradient, on_the_way, limits.weights, limits.first, limits.second];
        all.into_iter().all(|bound| bound < MOST).then_some(limits)
    }

    fn after_sgd(self, rule: &SgdRule, gradient: f64) -> (Limits, f64) {
        let momentum = f64::from(rule.momentum);
        let gradient = gradient + f64::from(rule.weight_decay) * self.weights;
        let mut velocity = 0.0;
        if momentum != 0.0 {
            velocity = gradient + momentum * if rule.first { 0.0 } else { self.first };
        }
        let step = gradient + (1.0 + momentum) * velocity;
        let weights = self.weights + f64::from(rule.learning_rate) * step;
        (Limits { weights, first: velocity, second: 0.0 }, step)
    }

    fn after_adam(self, rule: &AdamRule, gradient: f64) -> (Limits, f64) {
        let gradient = gradient + f64::from(rule.weight_decay) * self.weights;
        let first = f64::from(rule.beta1) * self.first + f64::from(rule.share1) * gradient;
        let second = f64::from(rule.beta2) * self.second + f64::from(rule.share2) * gradient * gradient;
        let step = first / f64::from(rule.eps);
        let weights = self.weights * f64::from(rule.keep).abs() + f64::from(rule.step) * step;
        // Roundings of the state add up over the updates: 1e-6 is more than two of them.
        let (first, second) = (first * (1.0 + 1e-6), second * (1.0 + 1e-6));
        let on_the_way = step.max(second.sqrt() * f64::from(rule.unbias)).max(f64::from(rule.step));
        (Limits { weights, first, second }, on_the_way)
    }
}

/// An upper bound of what a layer puts out, given those of its `inputs` values, and of its weights and biases; infinite if some of it
/// might not be finite.
pub(super) fn bound_of_outputs(
    activation: Activation,
    inputs: usize,
    input: f64,
    [weights, biases]: [f64; 2],
) -> f64 {
    // Each of the roundings adds half of EPSILON at most, and activations are off by some units in the last place.
    let roundings = (inputs as f64 * f64::from(f32::EPSILON)).exp();
    let sum = (biases + inputs as f64 * weights * input) * roundings;
    let output = 1.001
        * match activation {
            Activation::LeakyRelu(slope) => sum * f64::from(slope).abs().max(1.0),
            Activation::Sigmoid | Activation::Tanh => 1.0,
            _ => sum,
        };
    if sum < MOST && output < MOST { output } else { f64::INFINITY }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::update::{Tensors, update};
    use crate::simd::Isa;
    use crate::{MatMut, MatRef, linear};

    const SCALING: Scaling = Scaling { scale: 0.5, coefficient: 1.0, limit: f32::INFINITY };

    fn sgd(momentum: f32) -> Rule {
        Rule::Sgd(SgdRule {
            learning_rate: 0.1,
            weight_decay: 0.0,
            momentum,
            share: 1.0,
            nesterov: false,
            first: false,
        })
    }

    /// Of networks of each activation, each layer with weights and biases as large as they may be and of the signs that make most of it.
    #[test]
    fn outputs_stay_below_their_bounds() {
        let all = [
            Activation::Identity,
            Activation::Relu,
            Activation::LeakyRelu(-3.0),
            Activation::Sigmoid,
            Activation::Tanh,
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::Silu,
        ];
        let layer = |activation, input, weight, bias| {
            let (x, w, mut y) = ([input; 100], [weight; 100], [0.0]);
            let (x, w) = (MatRef::new(&x, 1, 100).unwrap(), MatRef::new(&w, 100, 1).unwrap());
            linear(x, w, Some(&[bias]), activation, MatMut::new(&mut y, 1, 1).unwrap()).unwrap();
            y[0]
        };
        for activation in all {
            for (weight, bias, input) in
                [(0.5, 0.0, 1.0), (3.0, 2.0, 1e-3), (0.0, 0.25, 4.0), (1e3, 1e4, 1e5)]
            {
                let (mut input, mut bound): (f32, f64) = (input, input.into());
                for depth in 0..5 {
                    bound = bound_of_outputs(activation, 100, bound, [weight.into(), bias.into()]);
                    let (most, least) =
                        (layer(activation, input, weight, bias), layer(activation, input, -weight, -bias));
                    input = if most.abs() > least.abs() { most } else { least };
                    let case = format!("{activation:?}, weights {weight}, biases {bias}, layer {depth}");
                    assert!(f64::from(input).abs() <= bound, "{case}: {input} and {bound}");
                }
            }
        }
        assert_eq!(bound_of_outputs(Activation::Sigmoid, 1, 1.0, [f64::INFINITY, 0.0]), f64::INFINITY);
        assert_eq!(bound_of_outputs(Activation::Sigmoid, 1, 0.0, [f64::INFINITY, 0.0]), f64::INFINITY);
    }

    #[test]
    fn bounds_grow_by_what_an_update_can_add() {
        let limits = Limits { weights: 1.0, first: 10.0, second: 0.0 };
        let after = limits.after(&sgd(0.0), &SCALING, 4.0).unwrap();
        assert!(after.weights >= 1.2 && after.weights < 1.3);
        let after = limits.after(&sgd(0.5), &SCALING, 4.0).unwrap();
        assert!(after.first >= 7.0 && after.weights >= 1.7);
    }

    /// Updates of every rule, from every combination of signs, make nothing larger than the bounds say.
    #[test]
    fn updates_stay_below_the_bounds() {
        let limits = Limits { weights: 2.0, first: 3.0, second: 5.0 };
        let sum = 7.0;
        let sgd = |momentum, nesterov, weight_decay, first| {
            Rule::Sgd(SgdRule { learning_rate: 0.5, weight_decay, momentum, share: 1.0, nesterov, first })
        };
        let adam = |keep, weight_decay, eps| {
            let (beta1, share1, beta2, share2) = (0.9, 0.1, 0.9, 0.1);
            Rule::Adam(AdamRule {
                keep,
                weight_decay,
                beta1,
                share1,
                beta2,
                share2,
                step: 0.5,
                unbias: 2.0,
                eps,
            })
        };
        let rules = [
            sgd(0.0, false, 0.0, false),
            sgd(0.0, false, 0.5, false),
            sgd(0.9, false, 0.5, false),
            sgd(0.9, true, 0.5, false),
            sgd(0.9, true, 0.5, true),
            adam(1.0, 0.0, 10.0),
            adam(1.0, 0.5, 10.0),
            adam(0.75, 0.0, 10.0),
        ];
        for rule in rules {
            let after = limits.after(&rule, &SCALING, sum).unwrap();
            for signs in 0..8 {
                let signed =
                    |value: f64, bit: u32| [if signs >> bit & 1 == 0 { value as f32 } else { -value as f32 }];
                let (mut weights, mut first) = (signed(limits.weights, 0), signed(limits.first, 1));
                let mut second = [limits.second as f32];
                let tensors =
                    Tensors { weights: &mut weights, row: 0, first: &mut first, second: &mut second };
                update(Isa::current(), &rule, &SCALING, &signed(sum, 2), tensors);
                for (value, bound) in [(weights, after.weights), (first, after.first), (second, after.second)]
                {
                    let unused = bound == 0.0;
                    assert!(
                        unused || f64::from(value[0].abs()) <= bound * (1.0 + 1e-6),
                        "{value:?}, {bound}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_unknown_or_might_overflow_is_not_proven() {
        let limits = Limits { weights: 1.0, first: 1.0, second: 1.0 };
        assert!(Limits::UNKNOWN.after(&sgd(0.0), &SCALING, 1.0).is_none());
        for sum in [1e38, f64::INFINITY, f64::NAN] {
            assert!(limits.after(&sgd(0.0), &SCALING, sum).is_none(), "{sum}");
        }
        let adam = AdamRule {
            keep: 1.0,
            weight_decay: 0.0,
            beta1: 0.9,
            share1: 0.1,
            beta2: 0.999,
            share2: 0.001,
            step: 0.1,
            unbias: 1.0,
            eps: 1e-8,
        };
        assert!(limits.after(&Rule::Adam(adam), &SCALING, 1.0).is_some());
        // The square of the gradient overflows long before the gradient does.
        assert!(limits.after(&Rule::Adam(adam), &SCALING, 1e21).is_none());
    }
}
