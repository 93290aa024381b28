//! One batch through a network: forward, loss, backward; and the buffers for it, which grow and are kept.
//!
//! Backward goes down twice: first the derivatives by what each layer puts out before its activation (`delta`), for which
//! the weights must be the old ones, then the gradients of the weights, which may be used up on the way to new weights.

use std::ops::Range;

use super::Loss;
use super::loss::{Targets, check_finite};
use super::state::{Planned, State};
use crate::Activation;
use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::kernels::elementwise::activation_gradient;
use crate::kernels::reduce::{add_rows, all_finite, most, sum_of_samples};
use crate::kernels::{After, Begin, Right, descend, run};
use crate::matrix::{MatMut, MatRef, resize};
use crate::nn::Mlp;
use crate::profile::{self, Phase, Work};
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
    pub weight: Buffer,
    pub bias: Buffer,
}

/// What a batch leaves at one layer, `rows` x `out` each.
#[derive(Clone, Debug, Default)]
struct Saved {
    /// Before the activation; empty where the derivative is taken from the output.
    z: Buffer,
    y: Buffer,
    /// The derivative of the loss by z.
    delta: Buffer,
    /// Upper bounds of the sums of gradients for the weight and the bias.
    bounds: [f64; 2],
}

/// The buffers of one batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Pass {
    rows: usize,
    outputs: usize,
    saved: Vec<Saved>,
    /// Targets that do not lie row after row, copied so.
    values: Buffer,
    terms: Buffer,
    /// One row of samples whose rows are not contiguous.
    gathered: Vec<f32>,
    /// The largest absolute value of the samples.
    most: f64,
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
        self.check(caller, model, loss, (x, targets), x.rows())?;
        self.measure_rows(caller, model, loss, (x, targets), 0, 0.0)
    }

    /// Checks a batch, and makes room for so many samples of it at once.
    pub(super) fn check(
        &mut self,
        caller: Caller,
        model: &Mlp,
        loss: Loss,
        (x, targets): (MatRef, Targets),
        at_once: usize,
    ) -> Result<()> {
        let (op, isa) = (caller.op, Isa::try_current()?);
        model.check_input(op, x)?;
        let (rows, outputs) = (x.rows(), model.outputs());
        if rows == 0 {
            let (what, cure) = ("the batch", "pass at least one sample");
            return Err(Error::Empty { op, what, cure });
        }
        loss.check_shape(op, rows, outputs, targets)?;
        let checks = profile::enter(Phase::Checks, None);
        // Before the data is read: a view that repeats a row by a stride of 0 may be larger than memory.
        self.resize(op, model, loss, at_once)?;
        let values = match targets {
            Targets::Values(view) if view.contiguous().is_none() => outputs,
            _ => 0,
        };
        resize(op, &mut self.values, rows, values)?;
        self.check_samples(op, isa, x)?;
        loss.check_targets(op, isa, outputs, targets, &mut self.values)?;
        checks.leave(|| Work::check(rows * model.inputs() + given(targets, rows, outputs)));
        Ok(())
    }

    /// The loss of rows of a batch that has been checked, the first of them row `start`, added to the sum `before` of those above.
    pub(super) fn measure_rows(
        &mut self,
        caller: Caller,
        model: &Mlp,
        loss: Loss,
        (x, targets): (MatRef, Targets),
        start: usize,
        before: f64,
    ) -> Result<Measured> {
        let (op, isa, rows) = (caller.op, Isa::try_current()?, x.rows());
        if rows != self.rows {
            self.resize(op, model, loss, rows)?;
        }
        self.forward(isa, model, x)?;
        let scope = profile::enter(Phase::Loss, None);
        let outputs = model.outputs();
        let last = self.saved.last_mut().unwrap_or_else(|| unreachable!("`build` refuses no layers"));
        loss.check_outputs(op, start, outputs, &last.y)?;
        let copied = || self.values.get(start * outputs..(start + rows) * outputs);
        let values = targets.in_rows().or_else(copied).unwrap_or_default();
        loss.differentiate(isa, &last.y, targets, values, &mut self.terms, &mut last.delta);
        let sum = sum_of_samples(before, &self.terms, loss.terms(1, outputs));
        if !sum.is_finite() {
            return Err(Error::NotFinite {
                op,
                what: "the loss",
                epoch: 0,
                step: caller.step,
                layer: self.saved.iter().position(|saved| !all_finite(isa, &saved.y)),
            });
        }
        let count = self.terms.len();
        scope.leave(|| Work::loss(rows * outputs, given(targets, rows, outputs), count));
        Ok(Measured { sum, count: count as u64 })
    }

    fn forward(&mut self, isa: Isa, model: &Mlp, x: MatRef) -> Result<()> {
        let mut input = x;
        for (n, (layer, saved)) in model.layers().iter().zip(&mut self.saved).enumerate() {
            let scope = profile::enter(Phase::Forward, Some(n));
            let (cols, activation) = (layer.out_features(), layer.activation());
            let after = match activation.saves_input() {
                true => After::Save(activation, &mut saved.z),
                false => After::Activate(activation),
            };
            let (w, bias) = (Right::View(layer.weight_in_out()), Begin::Bias(layer.bias()));
            run(isa, 1.0, input, w, bias, after, MatMut::new(&mut saved.y, self.rows, cols)?);
            scope.leave(|| Work::forward(self.rows, layer.shape(), activation.saves_input()));
            input = MatRef::new(&saved.y, self.rows, cols)?;
        }
        Ok(())
    }

    /// The derivatives of the loss just measured by what each layer puts out before its activation.
    pub(super) fn deltas(&mut self, isa: Isa, model: &Mlp) -> Result<()> {
        let rows = self.rows;
        let layers = model.layers();
        if let (Some(layer), Some(Saved { z, y, delta, .. })) = (layers.last(), self.saved.last_mut()) {
            let (scope, activation) = (profile::enter(Phase::Loss, None), layer.activation());
            activation_gradient(isa, activation, if activation.saves_input() { z } else { y }, delta);
            scope.leave(Work::default);
        }
        for n in (1..layers.len()).rev() {
            let scope = profile::enter(Phase::Delta, Some(n));
            let (layer, below) = (&layers[n], layers[n - 1].activation());
            let (inputs, outputs) = (layer.in_features(), layer.out_features());
            let (lower, upper) = self.saved.split_at_mut(n);
            let Saved { z, y, delta, .. } = &mut lower[n - 1];
            let after = match below {
                Activation::Identity => After::Activate(below),
                _ => After::Derivative(below, if below.saves_input() { z } else { y }),
            };
            let w = Right::View(layer.weight_in_out().t());
            let above = MatRef::new(&upper[0].delta, rows, outputs)?;
            run(isa, 1.0, above, w, Begin::Scaled(0.0), after, MatMut::new(delta, rows, inputs)?);
            scope.leave(|| Work::delta(rows, layer.shape(), below != Activation::Identity));
        }
        Ok(())
    }

    /// Finds upper bounds of the gradients of the batch whose derivatives are there: see [`Pass::bounds`].
    pub(super) fn bound(&mut self, isa: Isa) {
        let (scope, mut input) = (profile::enter(Phase::Checks, None), self.most);
        let mut checked = 0;
        for n in 0..self.saved.len() {
            if n > 0 {
                let below = &self.saved[n - 1].y;
                input = most(isa, below).into();
                checked += below.len();
            }
            let saved = &mut self.saved[n];
            let delta = self.rows as f64 * f64::from(most(isa, &saved.delta));
            checked += saved.delta.len();
            saved.bounds = [input * delta, delta];
        }
        scope.leave(|| Work::check(checked));
    }

    /// Upper bounds of the sums of gradients for the weight and the bias of a layer.
    pub(super) fn bounds(&self, layer: usize) -> [f64; 2] {
        self.saved[layer].bounds
    }

    /// Adds the gradients of the batch to `gradients`; with `fresh`, sets them. `x` is that batch.
    pub(super) fn accumulate(
        &self,
        isa: Isa,
        model: &Mlp,
        x: MatRef,
        gradients: &mut [Gradient],
        fresh: bool,
    ) -> Result<()> {
        let beta = if fresh { 0.0 } else { 1.0 };
        for (n, (layer, gradient)) in model.layers().iter().zip(gradients).enumerate() {
            let scope = profile::enter(Phase::Gradient, Some(n));
            let (inputs, outputs) = (layer.in_features(), layer.out_features());
            let Gradient { weight, bias } = gradient;
            if fresh {
                bias.fill(0.0);
            }
            let delta = &self.saved[n].delta;
            add_rows(isa, delta, bias);
            let delta = Right::View(MatRef::new(delta, self.rows, outputs)?);
            let (start, after) = (Begin::Scaled(beta), After::Activate(Activation::Identity));
            let weight = MatMut::new(weight, inputs, outputs)?;
            run(isa, 1.0, self.input(n, x, inputs)?.t(), delta, start, after, weight);
            scope.leave(|| Work::gradient(self.rows, layer.shape(), fresh));
        }
        Ok(())
    }

    /// Updates the weights and biases of `model` by the gradients of the batch, which are not stored. `x` is that batch.
    pub(super) fn descend(
        &self,
        isa: Isa,
        planned: &Planned,
        model: &mut Mlp,
        state: &mut State,
        x: MatRef,
    ) -> Result<()> {
        for (n, saved) in self.saved.iter().enumerate() {
            let scope = profile::enter(Phase::Descend, Some(n));
            let (inputs, outputs) = model.layers()[n].shape();
            let (input, delta) = (self.input(n, x, inputs)?, MatRef::new(&saved.delta, self.rows, outputs)?);
            let [weights, biases] = state.tensors(model, n);
            descend(isa, (input, delta), (&planned.rule, &planned.scaling), weights, biases);
            scope.leave(|| Work::descend(self.rows, (inputs, outputs), planned.rule.states()));
        }
        state.finish(planned);
        Ok(())
    }

    /// What went into a layer.
    fn input<'a>(&'a self, layer: usize, x: MatRef<'a>, inputs: usize) -> Result<MatRef<'a>> {
        match layer {
            0 => Ok(x),
            _ => MatRef::new(&self.saved[layer - 1].y, self.rows, inputs),
        }
    }

    /// Bytes of what the layers leave, and of what else a batch needs.
    pub(super) fn bytes(&self) -> (usize, usize) {
        let layer = |saved: &Saved| saved.z.bytes() + saved.y.bytes() + saved.delta.bytes();
        let rest = self.values.bytes() + self.terms.bytes() + 4 * self.gathered.capacity();
        (self.saved.iter().map(layer).sum(), rest)
    }

    /// Makes the buffers fit so many rows.
    fn resize(&mut self, op: &'static str, model: &Mlp, loss: Loss, rows: usize) -> Result<()> {
        let layers = model.layers();
        self.saved.resize_with(layers.len(), Saved::default);
        for (layer, saved) in layers.iter().zip(&mut self.saved) {
            let cols = layer.out_features();
            resize(op, &mut saved.y, rows, cols)?;
            let z_cols = if layer.activation().saves_input() { cols } else { 0 };
            resize(op, &mut saved.z, rows, z_cols)?;
            resize(op, &mut saved.delta, rows, cols)?;
        }
        let outputs = model.outputs();
        let terms = loss.terms(1, outputs);
        resize(op, &mut self.terms, rows, terms)?;
        (self.rows, self.outputs) = (rows, outputs);
        Ok(())
    }

    /// Refuses samples that are not finite, and remembers how large they are.
    fn check_samples(&mut self, op: &'static str, isa: Isa, x: MatRef) -> Result<()> {
        if let Some(all) = x.contiguous() {
            self.most = most(isa, all).into();
            if self.most < f64::INFINITY {
                return Ok(());
            }
        }
        self.most = 0.0;
        for i in 0..x.rows() {
            let row = match x.row(i) {
                Some(row) => row,
                None => {
                    self.gathered.clear();
                    self.gathered.extend((0..x.cols()).filter_map(|j| x.get(i, j)));
                    &self.gathered
                }
            };
            let most = most(isa, row);
            if most == f32::INFINITY {
                check_finite(op, isa, "x", i, x.cols(), row)?;
            }
            self.most = self.most.max(most.into());
        }
        Ok(())
    }
}

/// Values that targets hold for so many rows.
fn given(targets: Targets, rows: usize, outputs: usize) -> usize {
    if matches!(targets, Targets::Classes(_)) { rows } else { rows * outputs }
}

/// Some rows of a batch, which has them.
pub(super) fn part(x: MatRef, rows: Range<usize>) -> MatRef {
    x.row_range(rows.start, rows.len()).unwrap_or_else(|| unreachable!("rows of the batch"))
}
