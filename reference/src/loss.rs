//! How wrong the network is: the loss, and its derivative by each output, where backpropagation begins.
//!
//! Each sample (or element) gives one term. The loss is the mean of the terms, summed in f64 in ascending
//! order, first those of each sample. The derivatives are those of the *sum*: the mean is taken once, when the weights are updated
//! (`train`).

use crate::math;

/// The loss functions, with PyTorch's meaning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    Mse,
    Bce,
    BceWithLogits,
    CrossEntropy { label_smoothing: f32 },
}

/// What the outputs should be: a value for each, or one class for each sample.
#[derive(Clone, Copy)]
pub enum Targets<'a> {
    Values(&'a [f32]),
    Classes(&'a [u32]),
}

/// The terms of the sum, and its derivative by each output.
pub struct Terms {
    pub terms: Vec<f32>,
    pub delta: Vec<f32>,
}

/// The terms of a batch: `y` holds the outputs, row after row.
pub fn terms(loss: Loss, y: &[f32], targets: Targets) -> Terms {
    match (loss, targets) {
        (Loss::Mse, Targets::Values(t)) => each(mse, y, t),
        (Loss::Bce, Targets::Values(t)) => each(bce, y, t),
        (Loss::BceWithLogits, Targets::Values(t)) => each(bce_with_logits, y, t),
        (Loss::CrossEntropy { label_smoothing }, Targets::Classes(classes)) => {
            cross_entropy(label_smoothing, y, classes)
        }
        _ => panic!("cross-entropy takes classes, the other losses take values"),
    }
}

/// The mean of the terms of so many samples: summed for each sample, then over the samples, in f64.
pub fn mean(terms: &[f32], samples: usize) -> f32 {
    let mut sum = 0.0;
    for terms in terms.chunks_exact(terms.len() / samples) {
        let mut of_sample = 0.0;
        for &term in terms {
            of_sample += f64::from(term);
        }
        sum += of_sample;
    }
    (sum / terms.len() as f64) as f32
}

fn each(loss: fn(f32, f32) -> (f32, f32), y: &[f32], t: &[f32]) -> Terms {
    let (terms, delta) = y.iter().zip(t).map(|(&y, &t)| loss(y, t)).unzip();
    Terms { terms, delta }
}

/// `(y - t)^2` and its derivative `2 (y - t)`.
fn mse(y: f32, t: f32) -> (f32, f32) {
    let d = y - t;
    (d * d, d + d)
}

/// `-(t log y + (1 - t) log(1 - y))`, the negative log-likelihood of a probability y. The logs are kept from
/// minus infinity and the derivative `(y - t) / (y (1 - y))` from a division by 0, both as PyTorch's
/// `BCELoss` does.
fn bce(y: f32, t: f32) -> (f32, f32) {
    let rest = 1.0 - y;
    let (log_y, log_rest) = (at_least(math::log(y), -100.0), at_least(math::log(rest), -100.0));
    let term = (t - 1.0) * log_rest - t * log_y;
    (term, (y - t) / at_least(y * rest, 1e-12))
}

/// The same with `y = sigmoid(z)` inside: `max(z, 0) - z t + log(1 + exp(-|z|))`, which cannot overflow, and
/// the derivative becomes `sigmoid(z) - t`. PyTorch's `BCEWithLogitsLoss`.
fn bce_with_logits(z: f32, t: f32) -> (f32, f32) {
    let positive = if z <= 0.0 { 0.0 } else { z };
    let term = (positive - z * t) + math::log1p(math::exp(-z.abs()));
    (term, math::sigmoid(z) - t)
}

/// Softmax makes probabilities of the outputs, `p_j = exp(z_j) / sum exp(z)`; the loss is `-log p` of the
/// true class, and its derivative is `p - q`, q being 1 for the true class and 0 elsewhere.
///
/// Label smoothing e (Szegedy et al., 2016) makes q `(1 - e) + e / C` for the true class and `e / C`
/// elsewhere. The largest output is subtracted first, which changes no probability and keeps exp from
/// overflowing. PyTorch's `CrossEntropyLoss`.
fn cross_entropy(smoothing: f32, logits: &[f32], classes: &[u32]) -> Terms {
    let n = logits.len() / classes.len();
    let off = smoothing / n as f32;
    let on = (1.0 - smoothing) + off;
    let (mut terms, mut delta) = (Vec::new(), Vec::new());
    for (z, &class) in logits.chunks_exact(n).zip(classes) {
        let mut max = f32::NEG_INFINITY;
        for &z in z {
            max = if max < z { z } else { max };
        }
        let e: Vec<f32> = z.iter().map(|z| math::exp(z - max)).collect();
        let mut sum = 0.0;
        for e in &e {
            sum += e;
        }
        // -log p_j = log(sum) - (z_j - max)
        let log_sum = math::log(sum);
        let nll = log_sum - (z[class as usize] - max);
        if smoothing > 0.0 {
            let mut all = 0.0;
            for z in z {
                all += log_sum - (z - max);
            }
            terms.push((1.0 - smoothing) * nll + off * all);
        } else {
            terms.push(nll);
        }
        for (j, e) in e.iter().enumerate() {
            let q = if j == class as usize { on } else { off };
            delta.push(e / sum - q);
        }
    }
    Terms { terms, delta }
}

/// Not below `low`; NaN stays.
fn at_least(x: f32, low: f32) -> f32 {
    if x < low { low } else { x }
}
