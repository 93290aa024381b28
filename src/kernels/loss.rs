//! The losses: for each element (or sample) a term of the sum, and the derivative of that sum by the output.
//!
//! The derivative is that of the loss *summed* over the batch: the mean is taken once, at the update.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::math;
use super::parallel::{Shared, spans};
use super::vector::{MOST_LANES, lanes, read, write};
use crate::simd::{Body, Isa, Simd};

/// Cycles for a logit, in vectors of 16.
const SOFTMAX: f64 = 2.0;
/// Logits of a row up to which those of as many rows as two vectors have lanes stay in L1 (16 KiB).
const NEAR: usize = 128;

/// A loss that looks at one output and one target at a time: the term and its derivative.
pub(crate) trait ElementLoss {
    /// Cycles for an element, in vectors of 16.
    const CYCLES: f64;

    fn at<S: Simd>(s: S, y: S::V, t: S::V) -> (S::V, S::V);
}

/// `(y - t)^2`.
pub(crate) struct Mse;

impl ElementLoss for Mse {
    const CYCLES: f64 = 0.5;

    #[inline(always)]
    fn at<S: Simd>(s: S, y: S::V, t: S::V) -> (S::V, S::V) {
        let d = s.sub(y, t);
        (s.mul(d, d), s.add(d, d))
    }
}

/// `-(t log y + (1 - t) log(1 - y))`, both logs at least -100.
pub(crate) struct Bce;

impl ElementLoss for Bce {
    const CYCLES: f64 = 3.0;

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
    const CYCLES: f64 = 3.0;

    #[inline(always)]
    fn at<S: Simd>(s: S, z: S::V, t: S::V) -> (S::V, S::V) {
        let minus_abs = s.or(z, s.splat_bits(0x8000_0000));
        let tail = math::log1p(s, math::exp(s, minus_abs));
        let term = s.add(s.sub(math::gate(s, z, z), s.mul(z, t)), tail);
        (term, s.sub(math::sigmoid(s, z), t))
    }
}

/// Runs `run` for all terms and derivatives, of which each term has equally many, by spans of terms: on several threads where that
/// is worth it.
fn by_spans(
    terms: &mut [f32],
    delta: &mut [f32],
    cycles: f64,
    run: impl Fn(Range<usize>, &mut [f32], &mut [f32]) + Sync,
) {
    let (len, each) = (terms.len(), delta.len() / terms.len().max(1));
    let (terms, delta) = (Shared::new(terms), Shared::new(delta));
    spans(len, cycles * each as f64, &|span| {
        // SAFETY: spans do not overlap, nor do the derivatives for their terms, and each span is run once.
        let (terms, delta) =
            unsafe { (terms.part(span.clone()), delta.part(span.start * each..span.end * each)) };
        run(span, terms, delta);
    });
}

struct Elements<'a, L> {
    loss: PhantomData<L>,
    y: &'a [f32],
    t: &'a [f32],
    terms: &'a mut [f32],
    delta: &'a mut [f32],
}

impl<L: ElementLoss> Body for Elements<'_, L> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
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
pub(crate) fn elements<L: ElementLoss>(isa: Isa, y: &[f32], t: &[f32], terms: &mut [f32], delta: &mut [f32]) {
    assert!(
        t.len() == y.len() && terms.len() == y.len() && delta.len() == y.len(),
        "outputs, targets, terms and derivatives are equally many"
    );
    by_spans(terms, delta, L::CYCLES, |span, terms, delta| {
        isa.dispatch(Elements { loss: PhantomData::<L>, y: &y[span.clone()], t: &t[span], terms, delta });
    });
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
    fn call<S: Simd>(mut self, s: S) {
        let n = self.logits.len() / self.classes.len();
        let mut done = 0;
        while done < self.classes.len() {
            done += if n <= NEAR && self.classes.len() - done >= 2 * S::LANES {
                self.rows::<S, 2>(s, n, done)
            } else {
                self.rows::<S, 1>(s, n, done)
            };
        }
    }
}

impl CrossEntropy<'_> {
    /// The rows from `first` on, as many as `G` vectors have lanes or as there are, and how many: what is said of a row is a lane of a
    /// vector. What one vector waits for, the next one hides.
    #[inline(always)]
    fn rows<S: Simd, const G: usize>(&mut self, s: S, n: usize, first: usize) -> usize {
        let rows = (G * S::LANES).min(self.classes.len() - first);
        let (all, group) = (first * n..(first + rows) * n, S::LANES * n);
        let (logits, delta) = (&self.logits[all.clone()], &mut self.delta[all]);
        let off = self.smoothing / n as f32;
        let on = (1.0 - self.smoothing) + off;
        let (most, sums) = if G > 1 || n <= NEAR {
            softmax_by_columns::<S, G>(s, n, logits, delta)
        } else {
            let (most, sums) = softmax_by_rows(s, n, logits, delta);
            ([most; G], [sums; G])
        };
        let (classes, terms) = (&self.classes[first..], &mut self.terms[first..]);
        let of_rows = classes.chunks(S::LANES).zip(terms.chunks_mut(S::LANES));
        let groups = logits.chunks(group).zip(delta.chunks_mut(group)).zip(of_rows);
        for (g, ((logits, delta), (classes, terms))) in groups.enumerate() {
            let logs = math::log(s, sums[g]);
            let mut nll = s.sub(logs, s.sub(read(s, &of_classes(logits, n, classes), 0), most[g]));
            if self.smoothing > 0.0 {
                let of_all = |sum, z| s.add(sum, s.sub(logs, s.sub(z, most[g])));
                let all = fold(s, logits, n, s.splat(0.0), of_all);
                nll = s.add(s.mul(s.splat(1.0 - self.smoothing), nll), s.mul(s.splat(off), all));
            }
            write(s, terms, 0, nll);
            // The derivatives: softmax less the smoothing's share, or less the rest where a row's class is.
            let of_classes = of_classes(delta, n, classes);
            if self.smoothing > 0.0 {
                for j in (0..delta.len()).step_by(S::LANES) {
                    let p = read(s, delta, j);
                    write(s, delta, j, s.sub(p, s.splat(off)));
                }
            }
            for (r, (p, &class)) in of_classes.iter().zip(classes).enumerate() {
                delta[r * n + class as usize] = p - on;
            }
        }
        rows
    }
}

/// What each of up to `LANES` rows of `n` values has where its class is.
#[inline(always)]
fn of_classes(rows: &[f32], n: usize, classes: &[u32]) -> [f32; MOST_LANES] {
    let mut of_classes = [0.0; MOST_LANES];
    for (r, (to, &class)) in of_classes.iter_mut().zip(classes).enumerate() {
        *to = rows[r * n + class as usize];
    }
    of_classes
}

/// The probabilities of up to `G * LANES` rows of up to [`NEAR`] logits, and of each row the largest logit and the sum of all
/// exponentials. Rows are lanes on the way: so sums keep their order without waiting for each other, and are there when the
/// exponentials are.
#[inline(always)]
fn softmax_by_columns<S: Simd, const G: usize>(
    s: S,
    n: usize,
    logits: &[f32],
    probabilities: &mut [f32],
) -> ([S::V; G], [S::V; G]) {
    let group = S::LANES * n;
    assert!(n <= NEAR && logits.len() <= G * group && logits.len() == probabilities.len());
    let mut buffer = MaybeUninit::<[[S::V; G]; NEAR]>::uninit();
    let buffer: *mut [S::V; G] = buffer.as_mut_ptr().cast();
    let row = (G * S::LANES) as isize;
    if logits.len() < G * group {
        for j in 0..n {
            // SAFETY: the buffer has `n` columns and more.
            unsafe { buffer.add(j).write([s.splat(0.0); G]) }; // The lanes that no row fills.
        }
    }
    let mut most = [s.splat(f32::NEG_INFINITY); G];
    for j in (0..n).step_by(S::LANES) {
        let cols = S::LANES.min(n - j);
        for (g, logits) in logits.chunks(group).enumerate() {
            // SAFETY: the buffer has these columns, and there are so many rows of `n` logits.
            unsafe {
                let to = buffer.add(j).cast::<S::V>().add(g).cast();
                s.transpose((logits.len() / n, cols), logits[j..].as_ptr(), n as isize, to, row);
            }
        }
        // SAFETY: these columns have just been written, if not as zeros.
        for z in unsafe { std::slice::from_raw_parts(buffer.add(j), cols) } {
            for g in 0..G {
                most[g] = larger(s, most[g], z[g]);
            }
        }
    }
    // SAFETY: by now all have.
    let columns = unsafe { std::slice::from_raw_parts_mut(buffer, n) };
    let mut sums = [s.splat(0.0); G];
    for z in &mut *columns {
        for g in 0..G {
            z[g] = math::exp(s, s.sub(z[g], most[g]));
            sums[g] = s.add(sums[g], z[g]);
        }
    }
    for (block, j) in columns.chunks_mut(S::LANES).zip((0..n).step_by(S::LANES)) {
        for (g, probabilities) in probabilities.chunks_mut(group).enumerate() {
            let (shape, from) = ((block.len(), probabilities.len() / n), block.as_mut_ptr().cast::<S::V>());
            // SAFETY: so many vectors are there, and each has as many lanes as there are rows of `n` values to write.
            unsafe {
                let (from, to) = (from.add(g).cast::<f32>(), probabilities[j..].as_mut_ptr());
                if const { S::LANES == 16 } && shape == (16, 16) {
                    // Divided when they are rows, where they need not be written to be turned.
                    let sums = lanes(s, sums[g]);
                    for first in [0, 8] {
                        let rows = s.eight_columns(from.add(first), row);
                        for (r, e) in (first..).zip(rows) {
                            s.store(to.add(r * n), s.div(e, s.splat(sums[r])));
                        }
                    }
                } else {
                    for column in 0..shape.0 as isize {
                        let e = from.wrapping_offset(column * row);
                        s.store(e, s.div(s.load(e), sums[g]));
                    }
                    s.transpose(shape, from, row, to, n as isize);
                }
            }
        }
    }
    (most, sums)
}

/// The same of up to `LANES` rows of more logits.
#[inline(always)]
fn softmax_by_rows<S: Simd>(s: S, n: usize, logits: &[f32], probabilities: &mut [f32]) -> (S::V, S::V) {
    let most = largest_of_rows(s, n, logits);
    for ((z, e), most) in logits.chunks_exact(n).zip(probabilities.chunks_exact_mut(n)).zip(lanes(s, most)) {
        for j in (0..n).step_by(S::LANES) {
            write(s, e, j, math::exp(s, s.sub(read(s, z, j), s.splat(most))));
        }
    }
    let sums = fold(s, probabilities, n, s.splat(0.0), |sum, e| s.add(sum, e));
    for (e, sum) in probabilities.chunks_exact_mut(n).zip(lanes(s, sums)) {
        for j in (0..n).step_by(S::LANES) {
            let p = s.div(read(s, e, j), s.splat(sum));
            write(s, e, j, p);
        }
    }
    (most, sums)
}

/// The largest of each of up to `LANES` rows of `n` logits, which are at least as many: a lane for each row.
#[inline(always)]
fn largest_of_rows<S: Simd>(s: S, n: usize, logits: &[f32]) -> S::V {
    let least = s.splat(f32::NEG_INFINITY);
    let mut largest = [0.0; 16 * 16];
    let rows = logits.chunks_exact(n).zip(largest.chunks_exact_mut(S::LANES));
    for (z, largest) in rows {
        let mut most = least;
        for j in (0..n).step_by(S::LANES) {
            // The last ones overlap.
            most = larger(s, most, read(s, z, j.min(n - S::LANES)));
        }
        write(s, largest, 0, most);
    }
    let largest = &largest[..logits.len() / n * S::LANES];
    fold(s, largest, S::LANES, least, |most, z| larger(s, most, z))
}

/// The larger one; a NaN `z` is passed over (it comes back when the largest is subtracted from it).
#[inline(always)]
fn larger<S: Simd>(s: S, most: S::V, z: S::V) -> S::V {
    s.max(z, most)
}

/// Folds each of up to `LANES` rows of `n` values from its first to its last: a lane for each row, whose sums so keep their order
/// and do not wait for each other.
#[inline(always)]
fn fold<S: Simd>(s: S, rows: &[f32], n: usize, start: S::V, f: impl Fn(S::V, S::V) -> S::V) -> S::V {
    let mut folded = start;
    for j in (0..n).step_by(S::LANES) {
        for &column in &columns(s, rows, n, j)[..S::LANES.min(n - j)] {
            folded = f(folded, column);
        }
    }
    folded
}

/// The columns of up to `LANES` rows of `n` values, `LANES` of them from column `j` on or as many as there are: a lane for each row.
#[inline(always)]
fn columns<S: Simd>(s: S, rows: &[f32], n: usize, j: usize) -> [S::V; 16] {
    const { assert!(S::LANES <= 16) };
    let mut columns = [s.splat(0.0); 16];
    let (from, to) = (rows[j..].as_ptr(), columns.as_mut_ptr().cast());
    let shape = ((rows.len() / n).min(S::LANES), S::LANES.min(n - j));
    // SAFETY: so many rows of `n` values are there, and so many of them from column `j` on; a column is written to a vector, and there are
    // 16 of them.
    unsafe { s.transpose(shape, from, n as isize, to, S::LANES as isize) };
    columns
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
    let n = logits.len() / classes.len();
    by_spans(terms, delta, SOFTMAX, |span, terms, delta| {
        let logits = &logits[span.start * n..span.end * n];
        isa.dispatch(CrossEntropy { smoothing, logits, classes: &classes[span], terms, delta });
    });
}
