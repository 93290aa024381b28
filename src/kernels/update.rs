//! One update of one weight or bias tensor: gradient in, new values and new optimizer state out.
//!
//! Nothing is updated in place: what was there before stays until the caller has seen that all new values are
//! finite.

use super::vector::{all_zero, read, write};
use crate::simd::{Body, Isa, Simd};

/// What is done to each summed gradient before an optimizer sees it: `clamp(grad * scale * coefficient,
/// +-limit)`.
#[derive(Clone, Copy)]
pub(crate) struct Scaling {
    /// One over the number of samples (or elements) that were summed.
    pub scale: f32,
    /// From clipping by the global norm; 1 without.
    pub coefficient: f32,
    /// From clipping by value; infinite without.
    pub limit: f32,
}

impl Scaling {
    #[inline(always)]
    fn at<S: Simd>(self, s: S, grad: S::V) -> S::V {
        let (most, least) = (s.splat(self.limit), s.splat(-self.limit));
        let g = s.mul(s.mul(grad, s.splat(self.scale)), s.splat(self.coefficient));
        let g = s.select(s.lt(most, g), most, g);
        s.select(s.lt(g, least), least, g)
    }
}

/// The numbers of one update by gradient descent.
#[derive(Clone, Copy)]
pub(crate) struct SgdRule {
    pub learning_rate: f32,
    pub weight_decay: f32,
    pub momentum: f32,
    /// `1 - dampening`.
    pub share: f32,
    pub nesterov: bool,
    /// The first update sets the velocity to the gradient.
    pub first: bool,
}

/// The numbers of one update by Adam or AdamW.
#[derive(Clone, Copy)]
pub(crate) struct AdamRule {
    /// The factor on the weights before the update: `1 - lr * decay` in AdamW, 1 in Adam.
    pub keep: f32,
    /// What is added to the gradient, times the weight: the L2 penalty of Adam.
    pub weight_decay: f32,
    pub beta1: f32,
    /// `1 - beta1`.
    pub share1: f32,
    pub beta2: f32,
    /// `1 - beta2`.
    pub share2: f32,
    /// `lr / (1 - beta1^t)`.
    pub step: f32,
    /// `sqrt(1 - beta2^t)`.
    pub root: f32,
    pub eps: f32,
}

/// A tensor as it is, and the place for what it becomes.
pub(crate) struct Change<'a> {
    pub old: &'a [f32],
    pub new: &'a mut [f32],
}

impl Change<'_> {
    fn assert_len(&self, len: usize) {
        assert!(self.old.len() == len && self.new.len() == len, "state fits its weights");
    }
}

struct Sgd<'a> {
    rule: SgdRule,
    scaling: Scaling,
    grad: &'a [f32],
    weights: Change<'a>,
    velocity: Option<Change<'a>>,
}

impl Body for Sgd<'_> {
    type Out = bool;

    #[inline(always)]
    fn call<S: Simd>(self, s: S) -> bool {
        let (rule, mut velocity) = (self.rule, self.velocity);
        let zero = s.splat(0.0);
        let (decay, momentum) = (s.splat(rule.weight_decay), s.splat(rule.momentum));
        let (share, minus_rate) = (s.splat(rule.share), s.splat(-rule.learning_rate));
        let mut check = zero;
        let mut i = 0;
        while i < self.grad.len() {
            let weight = read(s, self.weights.old, i);
            let mut g = self.scaling.at(s, read(s, self.grad, i));
            if rule.weight_decay != 0.0 {
                g = s.fma(decay, weight, g);
            }
            if let Some(velocity) = &mut velocity {
                let v =
                    if rule.first { g } else { s.fma(momentum, read(s, velocity.old, i), s.mul(share, g)) };
                write(s, velocity.new, i, v);
                check = s.fma(v, zero, check);
                g = if rule.nesterov { s.fma(momentum, v, g) } else { v };
            }
            let weight = s.fma(minus_rate, g, weight);
            write(s, self.weights.new, i, weight);
            check = s.fma(weight, zero, check);
            i += S::LANES;
        }
        all_zero(s, check)
    }
}

/// Gradient descent, with momentum when there is a `velocity`. False when a new value is not finite.
pub(crate) fn sgd(
    isa: Isa,
    rule: SgdRule,
    scaling: Scaling,
    grad: &[f32],
    weights: Change,
    velocity: Option<Change>,
) -> bool {
    weights.assert_len(grad.len());
    if let Some(velocity) = &velocity {
        velocity.assert_len(grad.len());
    }
    isa.dispatch(Sgd { rule, scaling, grad, weights, velocity })
}

struct Adam<'a> {
    rule: AdamRule,
    scaling: Scaling,
    grad: &'a [f32],
    weights: Change<'a>,
    mean: Change<'a>,
    square: Change<'a>,
}

impl Body for Adam<'_> {
    type Out = bool;

    #[inline(always)]
    fn call<S: Simd>(self, s: S) -> bool {
        let rule = self.rule;
        let zero = s.splat(0.0);
        let (beta1, share1) = (s.splat(rule.beta1), s.splat(rule.share1));
        let (beta2, share2) = (s.splat(rule.beta2), s.splat(rule.share2));
        let (keep, decay) = (s.splat(rule.keep), s.splat(rule.weight_decay));
        let (minus_step, root, eps) = (s.splat(-rule.step), s.splat(rule.root), s.splat(rule.eps));
        let mut check = zero;
        let mut i = 0;
        while i < self.grad.len() {
            let weight = read(s, self.weights.old, i);
            let mut g = self.scaling.at(s, read(s, self.grad, i));
            if rule.weight_decay != 0.0 {
                g = s.fma(decay, weight, g);
            }
            let mean = s.fma(beta1, read(s, self.mean.old, i), s.mul(share1, g));
            let square = s.fma(beta2, read(s, self.square.old, i), s.mul(s.mul(share2, g), g));
            let scale = s.add(s.div(s.sqrt(square), root), eps);
            let weight = s.fma(minus_step, s.div(mean, scale), s.mul(weight, keep));
            write(s, self.mean.new, i, mean);
            write(s, self.square.new, i, square);
            write(s, self.weights.new, i, weight);
            // Lanes past the end hold 0 / (0 + eps): finite, because eps is more than 0.
            check = s.fma(weight, zero, s.fma(mean, zero, s.fma(square, zero, check)));
            i += S::LANES;
        }
        all_zero(s, check)
    }
}

/// Adam or AdamW. False when a new value is not finite.
pub(crate) fn adam(
    isa: Isa,
    rule: AdamRule,
    scaling: Scaling,
    grad: &[f32],
    weights: Change,
    mean: Change,
    square: Change,
) -> bool {
    weights.assert_len(grad.len());
    mean.assert_len(grad.len());
    square.assert_len(grad.len());
    isa.dispatch(Adam { rule, scaling, grad, weights, mean, square })
}
