//! Networks to measure steps on.

use std::fmt;

use percycle::{Activation, Adam, Loss, MatMut, MatRef, Mlp, Optimizer, Sgd, Targets, Trainer, gemm};
use serde::Deserialize;

use super::matrix;

/// A network as in `benches/floors.toml`.
#[derive(Clone, Debug, Deserialize)]
pub struct Net {
    pub sizes: Vec<usize>,
    pub batch: usize,
    /// `sgd` or `adam`.
    pub optimizer: String,
    /// `cross-entropy`, `bce` (with logits) or `mse`.
    pub loss: String,
    /// Of the layers but the last: `relu` or `gelu`.
    pub hidden: String,
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.sizes.iter().map(usize::to_string).collect();
        write!(f, "{} batch {} {} {} {}", sizes.join("-"), self.batch, self.hidden, self.optimizer, self.loss)
    }
}

/// FLOP of a step: for each layer 2 batch in out forward, as much for dW, and as much for dX in all but the first.
pub fn flops(net: &Net) -> f64 {
    let forward = |pair: &[usize]| 2.0 * (net.batch * pair[0] * pair[1]) as f64;
    3.0 * net.sizes.windows(2).map(forward).sum::<f64>() - forward(&net.sizes[..2])
}

/// A training step of the network, to call again and again.
pub fn trainer(net: &Net) -> impl FnMut() + Send + use<> {
    let hidden = match net.hidden.as_str() {
        "relu" => Activation::Relu,
        "gelu" => Activation::Gelu,
        other => panic!("no activation is called {other} here"),
    };
    let (inputs, outputs) = (net.sizes[0], net.sizes[net.sizes.len() - 1]);
    let mut builder = Mlp::builder(inputs);
    for (i, &units) in net.sizes[1..].iter().enumerate() {
        builder = builder.layer(units, if i + 2 == net.sizes.len() { Activation::Identity } else { hidden });
    }
    let optimizer: Optimizer = match net.optimizer.as_str() {
        "sgd" => Sgd::new(1e-4).into(),
        "adam" => Adam::new(1e-6).into(),
        other => panic!("no optimizer is called {other} here"),
    };
    let loss = match net.loss.as_str() {
        "cross-entropy" => Loss::CrossEntropy { label_smoothing: 0.0 },
        "bce" => Loss::BceWithLogits,
        "mse" => Loss::Mse,
        other => panic!("no loss is called {other} here"),
    };
    let mlp = builder.build().expect("the sizes are not 0");
    let mut trainer = Trainer::new(mlp, loss, optimizer).expect("the settings are in range");
    let x = matrix(net.batch, inputs);
    let classes: Vec<u32> = (0..net.batch).map(|i| (i % outputs) as u32).collect();
    let values: Vec<f32> = (0..net.batch * outputs).map(|i| (i % 2) as f32).collect();
    let batch = net.batch;
    move || {
        let targets = match loss {
            Loss::CrossEntropy { .. } => Targets::Classes(&classes),
            _ => Targets::Values(MatRef::new(&values, batch, outputs).expect("values have this shape")),
        };
        trainer.step(x.view(), targets).expect("the batch fits");
    }
}

/// The products of the same step and nothing else: forward, dX in all layers but the first, dW.
pub fn products(net: &Net) -> impl FnMut() + Send + use<> {
    let batch = net.batch;
    let mut layers: Vec<_> = net
        .sizes
        .windows(2)
        .map(|pair| {
            let (x, w, y) = (matrix(batch, pair[0]), matrix(pair[0], pair[1]), matrix(batch, pair[1]));
            (x.clone(), w.clone(), y, x, w)
        })
        .collect();
    move || {
        for (n, (x, w, y, dx, dw)) in layers.iter_mut().enumerate() {
            let product = |a: MatRef, b: MatRef, c: MatMut| gemm(1.0, a, b, 0.0, c).expect("the shapes fit");
            product(x.view(), w.view(), y.view_mut());
            if n > 0 {
                product(y.view(), w.view().t(), dx.view_mut());
            }
            product(x.view().t(), y.view(), dw.view_mut());
        }
    }
}
