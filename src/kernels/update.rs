//! The update of weights: gradients in, new weights and new optimizer state in place of the old.
//!
//! Written for rows of a tile, so that the product that makes a gradient can use it up while it is in L1.

use super::math::abs;
use super::parallel;
use super::vector::{load_up_to, store_up_to};
use crate::buffer::LINE;
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
        let mut g = s.mul(grad, s.splat(self.scale));
        // Each of these would change nothing otherwise, and cost what half of the update costs.
        if self.coefficient != 1.0 {
            g = s.mul(g, s.splat(self.coefficient));
        }
        if self.limit != f32::INFINITY {
            g = s.max(s.splat(-self.limit), s.min(s.splat(self.limit), g));
        }
        g
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

impl SgdRule {
    /// The weight and the velocity after the update; the velocity is not looked at without momentum.
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, mut g: S::V, weight: S::V, velocity: S::V) -> (S::V, S::V) {
        let momentum = s.splat(self.momentum);
        if self.weight_decay != 0.0 {
            g = s.fma(s.splat(self.weight_decay), weight, g);
        }
        let (mut v, mut step) = (velocity, g);
        if self.momentum != 0.0 {
            v = if self.first { g } else { s.fma(momentum, velocity, s.mul(s.splat(self.share), g)) };
            step = if self.nesterov { s.fma(momentum, v, g) } else { v };
        }
        (s.fma(s.splat(-self.learning_rate), step, weight), v)
    }
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
    /// `1 / sqrt(1 - beta2^t)`.
    pub unbias: f32,
    pub eps: f32,
}

impl AdamRule {
    /// The weight, the mean and the mean square after the update.
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, mut g: S::V, weight: S::V, mean: S::V, square: S::V) -> (S::V, S::V, S::V) {
        if self.weight_decay != 0.0 {
            g = s.fma(s.splat(self.weight_decay), weight, g);
        }
        let mean = s.fma(s.splat(self.beta1), mean, s.mul(s.splat(self.share1), g));
        let square = s.fma(s.splat(self.beta2), square, s.mul(s.mul(s.splat(self.share2), g), g));
        let scale = s.fma(s.sqrt(square), s.splat(self.unbias), s.splat(self.eps));
        let kept = s.mul(weight, s.splat(self.keep));
        let share = s.div(self.heard(s, mean, scale, kept), scale);
        (s.fma(s.splat(-self.step), share, kept), mean, square)
    }

    /// The mean, or 0 where it is subnormal and the weight is so large that it stays as it is either way. Units that no sample reaches have
    /// such means for good after some 800 steps, and a subnormal number takes a division three times as long.
    ///
    /// Beside `kept`, less than 2^-26 of it changes nothing, and |step mean / scale| is less than step 2^-126 / scale. The factor of 2^-96
    /// leaves 16 times the room that this takes, for what is rounded here.
    #[inline(always)]
    fn heard<S: Simd>(&self, s: S, mean: S::V, scale: S::V, kept: S::V) -> S::V {
        let subnormal = s.lt(abs(s, mean), s.splat(f32::MIN_POSITIVE));
        if !s.any(subnormal) {
            return mean;
        }
        let least = s.splat(self.step.abs() * (f32::MIN_POSITIVE * 1_073_741_824.0));
        let stays = s.lt(least, s.mul(abs(s, kept), scale));
        s.select(subnormal, s.select(stays, s.splat(0.0), mean), mean)
    }
}

/// What is done to each weight.
#[derive(Clone, Copy)]
pub(crate) enum Rule {
    Sgd(SgdRule),
    Adam(AdamRule),
}

/// An update that is `weight - rate * (scale * gradient)` and nothing else.
pub(super) struct Plain {
    pub scale: f32,
    pub rate: f32,
}

impl Rule {
    /// The update, if it is a plain one.
    pub(super) fn plain(&self, scaling: &Scaling) -> Option<Plain> {
        match self {
            Rule::Sgd(rule)
                if rule.momentum == 0.0
                    && rule.weight_decay == 0.0
                    && scaling.coefficient == 1.0
                    && scaling.limit == f32::INFINITY =>
            {
                Some(Plain { scale: scaling.scale, rate: rule.learning_rate })
            }
            _ => None,
        }
    }

    /// How many tensors of the optimizer's state there are for each tensor of weights.
    pub(crate) fn states(&self) -> usize {
        match self {
            Rule::Sgd(rule) => usize::from(rule.momentum != 0.0),
            Rule::Adam(_) => 2,
        }
    }
}

/// Weights and what an optimizer remembers of them, element by element alike: the velocity, or the mean and the mean
/// square; empty where the rule has none.
pub(crate) struct Tensors<'a> {
    pub weights: &'a mut [f32],
    /// Elements from one row of weights to the next.
    pub row: usize,
    pub first: &'a mut [f32],
    pub second: &'a mut [f32],
}

impl Tensors<'_> {
    /// Where they begin, after checking that each holds `len` values if `rule` needs it.
    pub(super) fn places(&mut self, rule: &Rule, len: usize) -> Places {
        let states = rule.states();
        assert!(
            self.weights.len() == len
                && (states < 1 || self.first.len() == len)
                && (states < 2 || self.second.len() == len),
            "gradient, weights and state are equally many"
        );
        Places {
            weights: self.weights.as_mut_ptr(),
            first: self.first.as_mut_ptr(),
            second: self.second.as_mut_ptr(),
        }
    }
}

/// [`Tensors`] behind pointers.
#[derive(Clone, Copy)]
pub(super) struct Places {
    pub weights: *mut f32,
    first: *mut f32,
    second: *mut f32,
}

// SAFETY: threads that share places update elements of their own: each span is taken once.
unsafe impl Sync for Places {}

impl Places {
    /// Asks for what is remembered of `rows` x `cols` weights, as they lie for [`update_rows`]; or, if it is for later, for both as far as L2.
    #[inline(always)]
    pub(super) fn ask_for<S: Simd>(
        self,
        s: S,
        rule: &Rule,
        (offset, row): (isize, isize),
        (rows, cols): (usize, usize),
        later: bool,
    ) {
        let places = [self.weights, self.first, self.second].into_iter().take(1 + rule.states());
        for place in places.skip(usize::from(!later)) {
            for i in 0..rows as isize {
                for j in (0..cols).step_by(LINE) {
                    let line = place.wrapping_offset(offset + i * row + j as isize);
                    if later { s.prefetch_l2(line) } else { s.prefetch(line) }
                }
            }
        }
    }
}

/// Updates `rows` x `cols` elements that begin `offset` after the places, in rows `row` apart, with gradients in rows
/// `grad_row` apart.
///
/// # Safety
/// There are such gradients, and such elements in each of the places that the rule needs.
#[inline(always)]
pub(super) unsafe fn update_rows<S: Simd>(
    s: S,
    (rule, scaling): (&Rule, &Scaling),
    (grad, grad_row): (*const f32, isize),
    to: Places,
    (offset, row): (isize, isize),
    (rows, cols): (usize, usize),
) {
    // Values of this function, not behind references: stores could change those, so that they were read again for each vector. The fewer
    // instructions a vector takes, the more of them are on their way from L3 at once.
    let Scaling { scale, coefficient, limit } = *scaling;
    let (rule, scaling) = (*rule, Scaling { scale, coefficient, limit });
    macro_rules! each {
        (|$g:ident, $at:ident, $n:ident| $body:block) => {
            for i in 0..rows as isize {
                let whole = cols / S::LANES * S::LANES;
                macro_rules! vector {
                    ($j:expr, $cols:expr) => {
                        let ($at, $n) = (offset + i * row + $j as isize, $cols);
                        let from = grad.wrapping_offset(i * grad_row).wrapping_add($j);
                        // SAFETY: so many elements exist on every side: the caller's contract.
                        unsafe {
                            let $g = scaling.at(s, load_up_to(s, from, $n));
                            $body
                        }
                    };
                }
                for j in (0..whole).step_by(S::LANES) {
                    vector!(j, S::LANES);
                }
                if whole < cols {
                    vector!(whole, cols - whole);
                }
            }
        };
    }
    match rule {
        Rule::Sgd(rule) if rule.momentum == 0.0 => each!(|g, at, n| {
            let w = to.weights.wrapping_offset(at);
            let (weight, _) = rule.at(s, g, load_up_to(s, w, n), g);
            store_up_to(s, w, n, weight);
        }),
        Rule::Sgd(rule) => each!(|g, at, n| {
            let (w, v) = (to.weights.wrapping_offset(at), to.first.wrapping_offset(at));
            let (weight, velocity) = rule.at(s, g, load_up_to(s, w, n), load_up_to(s, v, n));
            store_up_to(s, w, n, weight);
            store_up_to(s, v, n, velocity);
        }),
        Rule::Adam(rule) => each!(|g, at, n| {
            let (w, m, v) =
                (to.weights.wrapping_offset(at), to.first.wrapping_offset(at), to.second.wrapping_offset(at));
            let (weight, mean, square) =
                rule.at(s, g, load_up_to(s, w, n), load_up_to(s, m, n), load_up_to(s, v, n));
            store_up_to(s, w, n, weight);
            store_up_to(s, m, n, mean);
            store_up_to(s, v, n, square);
        }),
    }
}

/// Some of the elements, from `offset` on.
struct Span<'a> {
    rule: &'a Rule,
    scaling: &'a Scaling,
    grad: &'a [f32],
    to: &'a Places,
    offset: isize,
}

impl Body for Span<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Span { rule, scaling, grad, to, offset } = self;
        // SAFETY: `update` has checked that there are as many elements as gradients, and this span is within them.
        unsafe { update_rows(s, (rule, scaling), (grad.as_ptr(), 0), *to, (offset, 0), (1, grad.len())) }
    }
}

/// Updates all elements by their gradients.
pub(crate) fn update(isa: Isa, rule: &Rule, scaling: &Scaling, grad: &[f32], mut tensors: Tensors) {
    /// Cycles for an element that comes from L2 or from further away, with or without a root and a division.
    const UPDATE: f64 = 1.0;
    let to = tensors.places(rule, grad.len());
    parallel::spans(grad.len(), UPDATE, &|span| {
        isa.dispatch(Span { rule, scaling, grad: &grad[span.clone()], to: &to, offset: span.start as isize });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights and state with every kind of number, means that are subnormal among them: the same bits as the formula, one by one.
    #[test]
    fn adam_divides_subnormal_means_as_the_formula_does() {
        let weights =
            [0.0, -0.0, 1e-45, 3e-39, -1e-37, 1e-30, -2e-12, 1e-7, 0.5, -3.0, 1e30, f32::INFINITY, f32::NAN];
        let means = [0.0, -0.0, 1e-45, -6e-45, 1e-40, -1.1e-38, 1.3e-38, 1e-30, -0.1, f32::NAN];
        let squares = [0.0, 1e-45, 1e-38, 1e-30, 1e-12, 1.0, 1e30, f32::INFINITY];
        let scaling = Scaling { scale: 1.0, coefficient: 1.0, limit: f32::INFINITY };
        for (step, eps) in [(1e-3, 1e-8), (1e-3, 0.0), (1e-12, 1e-8), (100.0, 1e-30), (0.0, 1e-8)] {
            let rule = AdamRule {
                keep: 0.999,
                weight_decay: 0.0,
                beta1: 0.9,
                share1: 0.1,
                beta2: 0.999,
                share2: 0.001,
                step,
                unbias: 1.25,
                eps,
            };
            let mut all = Vec::new();
            for w in weights {
                for m in means {
                    all.extend(squares.map(|v| (w, m, v)));
                }
            }
            for isa in Isa::available() {
                let (mut w, mut m): (Vec<f32>, Vec<f32>) = all.iter().map(|&(w, m, _)| (w, m)).unzip();
                let mut v: Vec<f32> = all.iter().map(|&(_, _, v)| v).collect();
                let grad = vec![0.0; all.len()];
                let tensors = Tensors { weights: &mut w, row: 0, first: &mut m, second: &mut v };
                update(isa, &Rule::Adam(rule), &scaling, &grad, tensors);
                for (i, &(weight, mean, square)) in all.iter().enumerate() {
                    let (mean, square) = (0.9_f32.mul_add(mean, 0.0), 0.999_f32.mul_add(square, 0.0));
                    let share = mean / square.sqrt().mul_add(rule.unbias, eps);
                    let want = (-step).mul_add(share, weight * rule.keep);
                    let same = want.to_bits() == w[i].to_bits() || (want.is_nan() && w[i].is_nan());
                    assert!(same, "{:?} by {step} and {eps} on {isa}: {} is not {want}", all[i], w[i]);
                }
            }
        }
    }
}
