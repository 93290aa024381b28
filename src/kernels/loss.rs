//! The losses: for each element (or sample) a term of the sum, and the derivative of that sum by the output.
//!
//! The derivative is that of the loss *summed* over the batch: the mean is taken once, at the update.

use super::math;
use super::vector::{read, write};
use crate::simd::{Body, Isa, Simd};

/// A loss that looks at one output and one target at a time: the term and its derivative.
pub(crate) trait ElementLoss {
    fn at<S: Simd>(s: S, y: S::V, t: S::V) -> (S::V, S::V);
}

/// `(y - t)^2`.
pub(crate) struct Mse;

impl ElementLoss for Mse {
    #[inline(always)]
    fn at<S: Simd>(s: S, y: S::V, t: S::V) -> (S::V, S::V) {
        let d = s.sub(y, t);
        (s.mul(d, d), s.add(d, d))
    }
}

/// `-(t log y + (1 - t) log(1 - y))`, both logs at least -100.
pub(crate) struct Bce;

impl ElementLoss for Bce {
    #[inline(always)]
    fn at<S: Simd>(s: S, y: S::V, t: S::V) -> (S::V, S::V) {
        let (one, least) = (s.splat(1.0), s.splat(-100.0));
        let rest = s.sub(one, y);
        let (log_y, log_rest) = (math::log(s, y), math::log(s, rest));
        let log_y = s.select(s.lt(log_y, least), least, log_y);
        let log_rest = s.select(s.lt(log_rest, least), least, log_rest);
        let term = s.sub(s.mul(s.sub(t, one), log_rest), s.mul(t, log_y));
        let (slope, least) = (s.mul(y, rest), s.splat(1e-12));
        let slope = s.select(s.lt(slope, least), least, slope);
        (term, s.div(s.sub(y, t), slope))
    }
}

/// `max(z, 0) - z t + log1p(exp(-|z|))`.
pub(crate) struct BceWithLogits;

impl ElementLoss for BceWithLogits {
    #[inline(always)]
    fn at<S: Simd>(s: S, z: S::V, t: S::V) -> (S::V, S::V) {
        let zero = s.splat(0.0);
        let positive = s.select(s.le(z, zero), zero, z);
        let minus_abs = s.or(z, s.splat_bits(0x8000_0000));
        let tail = math::log1p(s, math::exp(s, minus_abs));
        let term = s.add(s.sub(positive, s.mul(z, t)), tail);
        (term, s.sub(math::sigmoid(s, z), t))
    }
}

struct Elements<'a, L> {
    loss: L,
    y: &'a [f32],
    t: &'a [f32],
    terms: &'a mut [f32],
    delta: &'a mut [f32],
}

impl<L: ElementLoss> Body for Elements<'_, L> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let _ = self.loss;
        let mut i = 0;
        while i < self.y.len() {
            let (term, delta) = L::at(s, read(s, self.y, i), read(s, self.t, i));
            write(s, self.terms, i, term);
            write(s, self.delta, i, delta);
            i += S::LANES;
        }
    }
}

/// The terms and derivatives of an element loss. All slices are equally long.
pub(crate) fn elements<L: ElementLoss>(
    isa: Isa,
    loss: L,
    y: &[f32],
    t: &[f32],
    terms: &mut [f32],
    delta: &mut [f32],
) {
    assert!(
        t.len() == y.len() && terms.len() == y.len() && delta.len() == y.len(),
        "outputs, targets, terms and derivatives are equally many"
    );
    isa.dispatch(Elements { loss, y, t, terms, delta });
}

struct CrossEntropy<'a> {
    smoothing: f32,
    logits: &'a [f32],
    classes: &'a [u32],
    terms: &'a mut [f32],
    delta: &'a mut [f32],
}

impl Body for CrossEntropy<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let n = self.logits.len() / self.classes.len();
        let off = self.smoothing / n as f32;
        let on = (1.0 - self.smoothing) + off;
        let rows = self.logits.chunks_exact(n).zip(self.delta.chunks_exact_mut(n));
        for ((z, delta), (&class, term)) in rows.zip(self.classes.iter().zip(self.terms)) {
            let class = class as usize;
            let max = max(s, z);
            let mut j = 0;
            while j < n {
                let shifted = s.sub(read(s, z, j), s.splat(max));
                write(s, delta, j, math::exp(s, shifted));
                j += S::LANES;
            }
            let mut sum = 0.0;
            for &e in delta.iter() {
                sum += e;
            }
            let log_sum = log(s, sum);
            let nll = log_sum - (z[class] - max);
            *term = nll;
            if self.smoothing > 0.0 {
                let mut all = 0.0;
                for &z in z {
                    all += log_sum - (z - max);
                }
                *term = (1.0 - self.smoothing) * nll + off * all;
            }
            let p_class = delta[class] / sum;
            let mut j = 0;
            while j < n {
                let p = s.div(read(s, delta, j), s.splat(sum));
                write(s, delta, j, s.sub(p, s.splat(off)));
                j += S::LANES;
            }
            delta[class] = p_class - on;
        }
    }
}

/// The largest of `xs`; NaNs are passed over (they come back from what is then subtracted from them).
#[inline(always)]
fn max<S: Simd>(s: S, xs: &[f32]) -> f32 {
    let mut most = f32::NEG_INFINITY;
    let mut i = 0;
    if xs.len() >= S::LANES {
        let mut vector = s.splat(most);
        while i + S::LANES <= xs.len() {
            let v = read(s, xs, i);
            vector = s.select(s.lt(vector, v), v, vector);
            i += S::LANES;
        }
        let mut lanes = [f32::NEG_INFINITY; 64];
        write(s, &mut lanes, 0, vector);
        for x in lanes {
            most = if most < x { x } else { most };
        }
    }
    for &x in &xs[i..] {
        most = if most < x { x } else { most };
    }
    most
}

#[inline(always)]
fn log<S: Simd>(s: S, x: f32) -> f32 {
    let mut out = [0.0];
    write(s, &mut out, 0, math::log(s, s.splat(x)));
    out[0]
}

/// The terms (one for each sample) and derivatives of softmax cross-entropy on rows of logits. Each class
/// names a logit.
pub(crate) fn cross_entropy(
    isa: Isa,
    smoothing: f32,
    logits: &[f32],
    classes: &[u32],
    terms: &mut [f32],
    delta: &mut [f32],
) {
    assert!(
        !classes.is_empty() && terms.len() == classes.len() && delta.len() == logits.len(),
        "a row of logits and derivatives, a class and a term for each sample"
    );
    isa.dispatch(CrossEntropy { smoothing, logits, classes, terms, delta });
}
