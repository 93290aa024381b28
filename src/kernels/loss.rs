//! The losses: for each element (or sample) a term of the sum, and the derivative of that sum by the output.
//!
//! The derivative is that of the loss *summed* over the batch: the mean is taken once, at the update.

use super::math;
use super::vector::{MOST_LANES, read, write};
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
        let (log_y, log_rest) = (s.max(least, log_y), s.max(least, log_rest));
        let term = s.sub(s.mul(s.sub(t, one), log_rest), s.mul(t, log_y));
        let (slope, least) = (s.mul(y, rest), s.splat(1e-12));
        let slope = s.max(least, slope);
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
        // One kind of work at a time for some rows, so that none waits for what it has just stored.
        let (mut most, mut sums, mut logs) = ([0.0; ROWS], [1.0; ROWS], [0.0; ROWS]);
        let chunks = self.logits.chunks(ROWS * n).zip(self.delta.chunks_mut(ROWS * n));
        let of_rows = self.classes.chunks(ROWS).zip(self.terms.chunks_mut(ROWS));
        for ((logits, delta), (classes, terms)) in chunks.zip(of_rows) {
            for (r, (z, delta)) in logits.chunks_exact(n).zip(delta.chunks_exact_mut(n)).enumerate() {
                most[r] = max(s, z);
                let mut j = 0;
                while j < n {
                    let shifted = s.sub(read(s, z, j), s.splat(most[r]));
                    write(s, delta, j, math::exp(s, shifted));
                    j += S::LANES;
                }
            }
            for (sum, delta) in sums.iter_mut().zip(delta.chunks_exact(n)) {
                *sum = 0.0;
                for &e in delta {
                    *sum += e;
                }
            }
            let mut r = 0;
            while r < classes.len() {
                write(s, &mut logs, r, math::log(s, read(s, &sums, r)));
                r += S::LANES;
            }
            for (r, (z, delta)) in logits.chunks_exact(n).zip(delta.chunks_exact_mut(n)).enumerate() {
                let class = classes[r] as usize;
                let nll = logs[r] - (z[class] - most[r]);
                terms[r] = nll;
                if self.smoothing > 0.0 {
                    let mut all = 0.0;
                    for &z in z {
                        all += logs[r] - (z - most[r]);
                    }
                    terms[r] = (1.0 - self.smoothing) * nll + off * all;
                }
                let p_class = delta[class] / sums[r];
                let mut j = 0;
                while j < n {
                    let p = s.div(read(s, delta, j), s.splat(sums[r]));
                    write(s, delta, j, s.sub(p, s.splat(off)));
                    j += S::LANES;
                }
                delta[class] = p_class - on;
            }
        }
    }
}

/// Rows of logits that are worked on together: a multiple of every vector.
const ROWS: usize = MOST_LANES;

/// The largest of `xs`; NaNs are passed over (they come back from what is then subtracted from them).
#[inline(always)]
fn max<S: Simd>(s: S, xs: &[f32]) -> f32 {
    let mut most = f32::NEG_INFINITY;
    let mut i = 0;
    if xs.len() >= S::LANES {
        let mut vector = s.splat(most);
        while i + S::LANES <= xs.len() {
            let v = read(s, xs, i);
            vector = s.max(v, vector);
            i += S::LANES;
        }
        let mut lanes = [f32::NEG_INFINITY; MOST_LANES];
        write(s, &mut lanes, 0, vector);
        for &x in &lanes[..S::LANES] {
            most = if most < x { x } else { most };
        }
    }
    for &x in &xs[i..] {
        most = if most < x { x } else { most };
    }
    most
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
