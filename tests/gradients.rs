//! Gradients against finite differences of the loss, for every loss and every activation.
//!
//! The loss is computed once more here, in f64 and with other formulas, so that its differences are good to
//! about 1e-9 (steps of 1e-5, central). What is left is rounding in f32, each time by at most 2^-24 of
//! numbers whose size is about 1: along a path through the network that is 8 samples, 3 x 6 products forward,
//! 3 x 6 backward, 3 activations, their derivatives and the loss with some 4 each, 8 + 36 + 28 = 72 in all,
//! whose signs are as good as random: two to three times sqrt(72), or 24 roundings (measured: 2). A wrong
//! factor or a missing term is thousands of times as large.

mod common;

use common::Numbers;
use percycle::{Activation, Loss, MatRef, Mlp, Sgd, Targets, Trainer};

const ROUNDINGS: f64 = 24.0 / (1 << 24) as f64;
const STEP: f64 = 1e-5;
const ROWS: usize = 8;

/// The weights of a layer as `[out, in]`, its biases and its activation, in f64.
type Layer = (Vec<f64>, Vec<f64>, Activation);

fn widen(mlp: &Mlp) -> Vec<Layer> {
    let f64s = |xs: &[f32]| xs.iter().map(|&x| f64::from(x)).collect();
    let layers = mlp.layers().iter();
    layers.map(|l| (f64s(l.weight().as_slice()), f64s(l.bias()), l.activation())).collect()
}

/// The error function as its power series, which is good for the small arguments here.
fn erf(x: f64) -> f64 {
    let (mut power, mut sum) = (x, x);
    for n in 1..80 {
        power *= -x * x / f64::from(n);
        sum += power / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

fn activate(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::LeakyRelu(slope) => x.max(x * f64::from(slope)),
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::Silu => x * sigmoid(x),
        _ => unreachable!(),
    }
}

fn outputs(layers: &[Layer], x: &[f64]) -> Vec<f64> {
    let mut values = x.to_vec();
    for (weight, bias, activation) in layers {
        let row = |o: usize| &weight[o * values.len()..(o + 1) * values.len()];
        let z = |o: usize| bias[o] + row(o).iter().zip(&values).map(|(w, x)| w * x).sum::<f64>();
        values = (0..bias.len()).map(|o| activate(*activation, z(o))).collect();
    }
    values
}

fn mean_loss(loss: Loss, layers: &[Layer], x: &[f32], values: &[f32], classes: &[u32]) -> f64 {
    let mut terms = Vec::new();
    let inputs = x.len() / ROWS;
    for (row, x) in x.chunks(inputs).enumerate() {
        let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let y = outputs(layers, &x);
        if let Loss::CrossEntropy { label_smoothing } = loss {
            let (e, n) = (f64::from(label_smoothing), y.len() as f64);
            let log_sum = y.iter().map(|z| z.exp()).sum::<f64>().ln();
            let all: f64 = y.iter().map(|z| log_sum - z).sum();
            terms.push((1.0 - e) * (log_sum - y[classes[row] as usize]) + e / n * all);
            continue;
        }
        for (y, &t) in y.iter().zip(&values[row * y.len()..]) {
            let t = f64::from(t);
            let p = if loss == Loss::Bce { *y } else { 1.0 / (1.0 + (-y).exp()) };
            terms.push(match loss {
                Loss::Mse => (y - t).powi(2),
                _ => -(t * p.ln() + (1.0 - t) * (1.0 - p).ln()),
            });
        }
    }
    terms.iter().sum::<f64>() / terms.len() as f64
}

/// Compares the gradient of every weight and bias.
fn check(loss: Loss, hidden: Activation, last: Activation) {
    let builder = Mlp::builder(5).layer(6, hidden).layer(4, hidden).layer(3, last);
    let model = builder.seed(11).build().unwrap();
    let mut numbers = Numbers::new(3);
    let x = numbers.many(ROWS * 5);
    let values: Vec<f32> = numbers.many(ROWS * 3).iter().map(|x| x.abs()).collect();
    let classes: Vec<u32> = (0..ROWS as u32).map(|i| i % 3).collect();
    let targets = match loss {
        Loss::CrossEntropy { .. } => Targets::Classes(&classes),
        _ => Targets::Values(MatRef::new(&values, ROWS, 3).unwrap()),
    };

    // With a rate of 1 the update is the gradient.
    let mut trainer = Trainer::new(model.clone(), loss, Sgd::new(1.0)).unwrap();
    let got = trainer.step(MatRef::new(&x, ROWS, 5).unwrap(), targets).unwrap();
    let (before, after) = (widen(&model), widen(trainer.model()));
    let want = mean_loss(loss, &before, &x, &values, &classes);
    assert!((f64::from(got) - want).abs() < ROUNDINGS * want.max(1.0), "{loss:?} is {got}, not {want}");

    for layer in 0..before.len() {
        let weights = before[layer].0.len();
        for i in 0..weights + before[layer].1.len() {
            let moved = |by: f64| {
                let mut layers = before.clone();
                let (weight, bias, _) = &mut layers[layer];
                *weight.get_mut(i).unwrap_or_else(|| &mut bias[i - weights]) += by;
                mean_loss(loss, &layers, &x, &values, &classes)
            };
            let want = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            let value = |layers: &[Layer]| {
                let (weight, bias, _) = &layers[layer];
                *weight.get(i).unwrap_or_else(|| &bias[i - weights])
            };
            let got = value(&before) - value(&after);
            assert!(
                (got - want).abs() < ROUNDINGS * want.abs().max(1.0),
                "{loss:?}, {hidden:?}, {last:?}, layer {layer}, parameter {i}: {got}, not {want}"
            );
        }
    }
}

#[test]
fn every_loss_and_activation() {
    use Activation::*;
    let activations = [Identity, Relu, LeakyRelu(0.2), Sigmoid, Tanh, Gelu, GeluTanh, Silu];
    for hidden in activations {
        for last in activations {
            check(Loss::Mse, hidden, last);
            check(Loss::BceWithLogits, hidden, last);
            for label_smoothing in [0.0, 0.2] {
                check(Loss::CrossEntropy { label_smoothing }, hidden, last);
            }
        }
        // The only activation that ends in [0, 1].
        check(Loss::Bce, hidden, Sigmoid);
    }
}
