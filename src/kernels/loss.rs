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
        // As many rows at a time as a vector has lanes, so that what is said of a row is a lane of a vector.
        let rows = self.logits.chunks(S::LANES * n).zip(self.delta.chunks_mut(S::LANES * n));
        let of_rows = self.classes.chunks(S::LANES).zip(self.terms.chunks_mut(S::LANES));
        for ((logits, delta), (classes, terms)) in rows.zip(of_rows) {
            // NaNs are passed over (they come back from what is then subtracted from them).
            let most = fold(s, logits, n, s.splat(f32::NEG_INFINITY), |most, z| s.max(z, most));
            let each_most = lanes(s, most);
            for (r, (z, delta)) in logits.chunks_exact(n).zip(delta.chunks_exact_mut(n)).enumerate() {
                let mut j = 0;
                while j < n {
                    let shifted = s.sub(read(s, z, j), s.splat(each_most[r]));
                    write(s, delta, j, math::exp(s, shifted));
                    j += S::LANES;
                }
            }
            let sums = fold(s, delta, n, s.splat(0.0), |sum, e| s.add(sum, e));
            let logs = math::log(s, sums);
            let all = if self.smoothing > 0.0 {
                fold(s, logits, n, s.splat(0.0), |all, z| s.add(all, s.sub(logs, s.sub(z, most))))
            } else {
                sums
            };
            let (sums, logs, all) = (lanes(s, sums), lanes(s, logs), lanes(s, all));
            for (r, (z, delta)) in logits.chunks_exact(n).zip(delta.chunks_exact_mut(n)).enumerate() {
                let class = classes[r] as usize;
                let nll = logs[r] - (z[class] - each_most[r]);
                terms[r] = if self.smoothing > 0.0 { (1.0 - self.smoothing) * nll + off * all[r] } else { nll };
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

/// Folds each of up to `LANES` rows of `n` values from its first to its last: a lane for each row, whose sums so keep their order
/// and do not wait for each other.
#[inline(always)]
fn fold<S: Simd>(s: S, rows: &[f32], n: usize, start: S::V, f: impl Fn(S::V, S::V) -> S::V) -> S::V {
    let count = (rows.len() / n).min(S::LANES);
    let mut folded = start;
    let mut columns = [start; 16];
    for j in (0..n).step_by(S::LANES) {
        let width = S::LANES.min(n - j);
        let from = rows[j..].as_ptr();
        // SAFETY: `count` rows of `n` values are there, of which `width` begin at column `j`; a column is written to a vector, and
        // no vector has more than 16 lanes.
        unsafe { s.transpose((count, width), from, n as isize, columns.as_mut_ptr().cast(), S::LANES as isize) };
        for &column in &columns[..width] {
            folded = f(folded, column);
        }
    }
    folded
}

/// The lanes of a vector, one by one.
#[inline(always)]
fn lanes<S: Simd>(s: S, v: S::V) -> [f32; MOST_LANES] {
    let mut lanes = [0.0; MOST_LANES];
    write(s, &mut lanes, 0, v);
    lanes
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
