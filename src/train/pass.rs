//! One batch through a network: forward, loss, backward; and the buffers for it, which grow and are kept.

use super::Loss;
use super::loss::{Targets, check_finite};
use crate::Activation;
use crate::error::{Error, Result};
use crate::kernels::elementwise::{activate, activation_gradient};
use crate::kernels::reduce::{add_rows, all_finite};
use crate::matrix::{MatMut, MatRef};
use crate::nn::Mlp;
use crate::product::{gemm, linear};
use crate::simd::Isa;

/// Who is asking, for errors.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    pub op: &'static str,
    /// The update that is being worked on, from 1.
    pub step: u64,
}

/// The loss of a batch: its sum, and by what to divide it for the mean.
#[derive(Clone, Copy)]
pub(super) struct Measured {
    pub sum: f64,
    pub count: u64,
}

impl Measured {
    pub(super) fn mean(self) -> f32 {
        (self.sum / self.count as f64) as f32
    }
}

/// Gradients of one layer, summed over samples: `[in, out]` and one value for each output.
#[derive(Clone, Debug)]
pub(super) struct Gradient {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

/// What the forward pass keeps of one layer, `rows` x `out`.
#[derive(Clone, Debug, Default)]
struct Saved {
    /// Before the activation; empty where the derivative is taken from the output.
    z: Vec<f32>,
    y: Vec<f32>,
}

/// The buffers of one batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Pass {
    rows: usize,
    outputs: usize,
    saved: Vec<Saved>,
    values: Vec<f32>,
    terms: Vec<f32>,
    delta: Vec<f32>,
    below: Vec<f32>,
}

impl Pass {
    /// The outputs of the last batch that was measured, `rows` x `outputs`.
    pub(super) fn outputs(&self) -> Result<MatRef<'_>> {
        let y = self.saved.last().map_or(&[][..], |saved| &saved.y);
        MatRef::new(y, self.rows, self.outputs)
    }

    /// The loss of a batch `x` (`rows` x `inputs`). Checks everything before it computes anything, and
    /// changes nothing but its buffers.
    ///
    /// # Errors
    /// For every bad input; [`Error::NotFinite`] when the loss is not finite.
    pub(super) fn measure(
        &mut self,
        caller: Caller,
        model: &Mlp,
        loss: Loss,
        x: MatRef,
        targets: Targets,
    ) -> Result<Measured> {
        let (op, isa) = (caller.op, Isa::try_current()?);
        model.check_input(op, x)?;
        let (rows, outputs) = (x.rows(), model.outputs());
        if rows == 0 {
            let (what, cure) = ("the batch", "pass at least one sample");
            return Err(Error::Empty { op, what, cure });
        }
        loss.check_shape(op, rows, outputs, targets)?;
        // Before the data is read: a view that repeats a row by a stride of 0 may be larger than memory.
        self.resize(op, model, loss, rows)?;
        check_rows_finite(op, isa, x)?;
        loss.check_targets(op, isa, outputs, targets, &mut self.values)?;
        self.forward(isa, model, x)?;
        let y = self.saved.last().map_or(&[][..], |saved| &saved.y);
        loss.check_outputs(op, outputs, y)?;
        let delta = &mut self.delta[..rows * outputs];
        let sum = loss.sum(isa, y, targets, &self.values, &mut self.terms, delta);
        if !sum.is_finite() {
            return Err(Error::NotFinite {
                op,
                what: "the loss",
                epoch: 0,
                step: caller.step,
                layer: self.saved.iter().position(|saved| !all_finite(isa, &saved.y)),
            });
        }
        let count = self.terms.len() as u64;
        Ok(Measured { sum, count })
    }

    fn forward(&mut self, isa: Isa, model: &Mlp, x: MatRef) -> Result<()> {
        let mut input = x;
        for (layer, saved) in model.layers().iter().zip(&mut self.saved) {
            let (w, bias, activation) = (layer.weight_in_out(), Some(layer.bias()), layer.activation());
            let (rows, cols) = (self.rows, layer.out_features());
            if activation.saves_input() {
                let z = MatMut::new(&mut saved.z, rows, cols)?;
                linear(input, w, bias, Activation::Identity, z)?;
                saved.y.copy_from_slice(&saved.z);
                activate(isa, activation, &mut saved.y);
            } else {
                let y = MatMut::new(&mut saved.y, rows, cols)?;
                linear(input, w, bias, activation, y)?;
            }
            input = MatRef::new(&saved.y, rows, cols)?;
        }
        Ok(())
    }

    /// Adds the gradients of the batch just measured to `gradients`; with `fresh`, sets them. `x` is that
    /// batch.
    pub(super) fn backward(
        &mut self,
        model: &Mlp,
        x: MatRef,
        gradients: &mut [Gradient],
        fresh: bool,
    ) -> Result<()> {
        let isa = Isa::try_current()?;
        let rows = self.rows;
        for (n, layer) in model.layers().iter().enumerate().rev() {
            let (inputs, outputs, activation) =
                (layer.in_features(), layer.out_features(), layer.activation());
            let saved = &self.saved[n];
            let source = if activation.saves_input() { &saved.z } else { &saved.y };
            let delta = &mut self.delta[..rows * outputs];
            activation_gradient(isa, activation, source, delta);
            let input = match n {
                0 => x,
                _ => MatRef::new(&self.saved[n - 1].y, rows, inputs)?,
            };
            let Gradient { weight, bias } = &mut gradients[n];
            let beta = if fresh { 0.0 } else { 1.0 };
            if fresh {
                bias.fill(0.0);
            }
            add_rows(isa, delta, bias);
            let delta = MatRef::new(delta, rows, outputs)?;
            let weight = MatMut::new(weight, inputs, outputs)?;
            gemm(1.0, input.t(), delta, beta, weight)?;
            if n > 0 {
                let below = MatMut::new(&mut self.below, rows, inputs)?;
                gemm(1.0, delta, layer.weight_in_out().t(), 0.0, below)?;
                std::mem::swap(&mut self.delta, &mut self.below);
            }
        }
        Ok(())
    }

    /// Makes the buffers fit a batch of so many rows.
    fn resize(&mut self, op: &'static str, model: &Mlp, loss: Loss, rows: usize) -> Result<()> {
        let layers = model.layers();
        self.saved.resize_with(layers.len(), Saved::default);
        let mut widest = 0;
        for (layer, saved) in layers.iter().zip(&mut self.saved) {
            let cols = layer.out_features();
            widest = widest.max(cols);
            resize(op, &mut saved.y, rows, cols)?;
            let z_cols = if layer.activation().saves_input() { cols } else { 0 };
            resize(op, &mut saved.z, rows, z_cols)?;
        }
        // The two that are swapped on the way back both hold the widest layer.
        let outputs = model.outputs();
        resize(op, &mut self.delta, rows, widest)?;
        resize(op, &mut self.below, rows, widest)?;
        let terms = loss.terms(1, outputs);
        resize(op, &mut self.terms, rows, terms)?;
        let values = match loss {
            Loss::CrossEntropy { .. } => 0,
            _ => outputs,
        };
        resize(op, &mut self.values, rows, values)?;
        (self.rows, self.outputs) = (rows, outputs);
        Ok(())
    }
}

/// Makes a buffer hold rows x cols values, or says that memory for them is not to be had.
fn resize(op: &'static str, buffer: &mut Vec<f32>, rows: usize, cols: usize) -> Result<()> {
    let too_large = || Error::TooLarge { op, rows, cols, row_stride: cols, col_stride: 1 };
    let len = rows.checked_mul(cols).ok_or_else(too_large)?;
    buffer.try_reserve(len.saturating_sub(buffer.len())).map_err(|_| too_large())?;
    buffer.resize(len, 0.0);
    Ok(())
}

fn check_rows_finite(op: &'static str, isa: Isa, x: MatRef) -> Result<()> {
    let mut gathered = Vec::new();
    for i in 0..x.rows() {
        let row = match x.row(i) {
            Some(row) => row,
            None => {
                gathered.clear();
                gathered.extend((0..x.cols()).filter_map(|j| x.get(i, j)));
                &gathered
            }
        };
        check_finite(op, isa, "x", i, x.cols(), row)?;
    }
    Ok(())
}
