//! Forward through the layers, and backward: the chain rule, one layer at a time (Rumelhart, Hinton and
//! Williams, 1986).
//!
//! For a layer `z = x W + b`, `y = sigma(z)` and `delta = dL/dz`:
//!
//! ```text
//! dL/dW = x^T delta       each weight: the input it saw times the error it fed, summed over the samples
//! dL/db = sum of delta    over the samples
//! dL/dx = delta W^T       the error handed down, times sigma' of the layer below: its delta
//! ```

use crate::activation::{Activation, activate, activation_gradient};
use crate::product::{Strided, gemm, linear};

/// A dense layer: `weight` is `[in, out]`, row-major.
#[derive(Clone, Debug)]
pub struct Layer {
    pub inputs: usize,
    pub outputs: usize,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub activation: Activation,
}

impl Layer {
    fn weight(&self) -> Strided<'_> {
        Strided::row_major(&self.weight, self.inputs, self.outputs)
    }
}

/// What a layer computed for a batch: before the activation and after it.
pub struct Saved {
    pub z: Vec<f32>,
    pub y: Vec<f32>,
}

/// Gradients of one layer, summed over samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradient {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Gradient {
    /// Nothing summed yet.
    pub fn zeros(layer: &Layer) -> Self {
        Gradient { weight: vec![0.0; layer.weight.len()], bias: vec![0.0; layer.bias.len()] }
    }
}

/// Forward: `x` holds `rows` samples, one after another.
pub fn forward(layers: &[Layer], x: &[f32], rows: usize) -> Vec<Saved> {
    let mut saved: Vec<Saved> = Vec::new();
    for layer in layers {
        let input = saved.last().map_or(x, |saved| &saved.y);
        let input = Strided::row_major(input, rows, layer.inputs);
        let z = linear(input, layer.weight(), Some(&layer.bias), Activation::Identity);
        let y = z.iter().map(|&z| activate(layer.activation, z)).collect();
        saved.push(Saved { z, y });
    }
    saved
}

/// Backward: `delta` is the derivative of the loss by the outputs of the last layer. The gradients of this
/// batch are added to `gradients`, sample by sample in ascending order.
pub fn backward(
    layers: &[Layer],
    x: &[f32],
    rows: usize,
    saved: &[Saved],
    mut delta: Vec<f32>,
    gradients: &mut [Gradient],
) {
    for n in (0..layers.len()).rev() {
        let (layer, gradient) = (&layers[n], &mut gradients[n]);
        let (inputs, outputs) = (layer.inputs, layer.outputs);
        let source = if layer.activation.saves_input() { &saved[n].z } else { &saved[n].y };
        for (delta, &source) in delta.iter_mut().zip(source) {
            *delta = activation_gradient(layer.activation, source, *delta);
        }

        let input = if n == 0 { x } else { &saved[n - 1].y };
        let input = Strided::row_major(input, rows, inputs);
        let errors = Strided::row_major(&delta, rows, outputs);
        let so_far = Strided::row_major(&gradient.weight, inputs, outputs);
        gradient.weight = gemm(1.0, input.t(), errors, 1.0, so_far);
        for row in delta.chunks_exact(outputs) {
            for (sum, delta) in gradient.bias.iter_mut().zip(row) {
                *sum += delta;
            }
        }

        if n > 0 {
            let unread = Strided::row_major(&[], rows, inputs);
            delta = gemm(1.0, errors, layer.weight().t(), 0.0, unread);
        }
    }
}
