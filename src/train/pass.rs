//! One batch through a network: forward, loss, backward; and the buffers for it, which grow and are kept.
//!
//! Backward goes down twice: first the derivatives by what each layer puts out before its activation (`delta`), for which
//! the weights must be the old ones, then the gradients of the weights, which may be used up on the way to new weights.

use super::Loss;
use super::limits::bound_of_outputs;
use super::loss::{Targets, check_finite};
use super::state::{Planned, State};
use crate::Activation;
use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::kernels::elementwise::activation_gradient;
use crate::kernels::reduce::{add_rows, all_finite, most, sum_of_samples};
use crate::kernels::{After, Begin, Right, descend, run};
use crate::matrix::{MatRef, Spaced, resize};
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
    pub weight: Spaced,
    pub bias: Buffer,
}

/// What a batch leaves at one layer, `rows` x `out` each. At the last one, row lies after row, for the loss.
#[derive(Clone, Debug, Default)]
struct Saved {
    /// Before the activation; without columns where the derivative is taken from the output.
    z: Spaced,
    y: Spaced,
    /// The derivative of the loss by z.
    delta: Spaced,
    /// Upper bounds of what the layer reads, and of the sums of delta over the rows.
    input: f64,
    sum: f64,
}

/// The buffers of one batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Pass {
    rows: usize,
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
        self.saved.last().map_or_else(|| MatRef::new(&[], 0, 0), |saved| Ok(saved.y.view()))
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
        self.fit(op, model, loss, at_once)?;
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
        self.fit(op, model, loss, rows)?;
        self.forward(isa, model, x);
        let scope = profile::enter(Phase::Loss, None);
        let outputs = model.outputs();
        let last = self.saved.last_mut().unwrap_or_else(|| unreachable!("`build` refuses no layers"));
        loss.check_outputs(op, start, outputs, last.y.elements())?;
        let copied = || self.values.get(start * outputs..(start + rows) * outputs);
        let values = targets.in_rows().or_else(copied).unwrap_or_default();
        let (y, delta) = (last.y.elements(), last.delta.elements_mut());
        loss.differentiate(isa, y, targets, values, &mut self.terms, delta);
        let sum = sum_of_samples(before, &self.terms, loss.terms(1, outputs));
        if !sum.is_finite() {
            return Err(Error::NotFinite {
                op,
                what: "the loss",
                epoch: 0,
                step: caller.step,
                layer: self.saved.iter().position(|saved| !all_finite(isa, saved.y.elements())),
            });
        }
        let count = self.terms.len();
        scope.leave(|| Work::loss(rows * outputs, given(targets, rows, outputs), count));
        Ok(Measured { sum, count: count as u64 })
    }

    fn forward(&mut self, isa: Isa, model: &Mlp, x: MatRef) {
        let mut input = x;
        for (n, (layer, saved)) in model.layers().iter().zip(&mut self.saved).enumerate() {
            let scope = profile::enter(Phase::Forward, Some(n));
            let activation = layer.activation();
            let after = match activation.saves_input() {
                true => After::Save(activation, saved.z.view_mut()),
                false => After::Activate(activation),
            };
            let (w, bias) = (Right::View(layer.weight_in_out()), Begin::Bias(layer.bias()));
            run(isa, 1.0, input, w, bias, after, saved.y.view_mut());
            scope.leave(|| Work::forward(self.rows, layer.shape(), activation.saves_input()));
            input = saved.y.view();
        }
    }

    /// The derivatives of the loss just measured by what each layer puts out before its activation.
    pub(super) fn deltas(&mut self, isa: Isa, model: &Mlp) {
        let rows = self.rows;
        let layers = model.layers();
        if let (Some(layer), Some(Saved { z, y, delta, .. })) = (layers.last(), self.saved.last_mut()) {
            let (scope, activation) = (profile::enter(Phase::Loss, None), layer.activation());
            let saved = if activation.saves_input() { z } else { y };
            activation_gradient(isa, activation, saved.elements(), delta.elements_mut());
            scope.leave(Work::default);
        }
        for n in (1..layers.len()).rev() {
            let scope = profile::enter(Phase::Delta, Some(n));
            let (layer, below) = (&layers[n], layers[n - 1].activation());
            let (lower, upper) = self.saved.split_at_mut(n);
            let Saved { z, y, delta, .. } = &mut lower[n - 1];
            let after = match below {
                Activation::Identity => After::Activate(below),
                _ => After::Derivative(below, if below.saves_input() { z } else { y }.view()),
            };
            let w = Right::View(layer.weight_in_out().t());
            run(isa, 1.0, upper[0].delta.view(), w, Begin::Scaled(0.0), after, delta.view_mut());
            scope.leave(|| Work::delta(rows, layer.shape(), below != Activation::Identity));
        }
    }

    /// Finds upper bounds of the gradients of the batch whose derivatives are there, see [`Pass::bounds`], with bounds of what layers read as
    /// they follow from the samples and from `limits`, of the weights and biases of each layer. They are far off, but as the derivatives are
    /// looked at, what they add to the limits of weights does not come back to itself: it takes many updates until nothing is proven by them.
    pub(super) fn bound(&mut self, isa: Isa, model: &Mlp, limits: impl Fn(usize) -> [f64; 2]) {
        let (scope, mut input) = (profile::enter(Phase::Checks, None), self.most);
        let mut checked = 0;
        for (n, (layer, saved)) in model.layers().iter().zip(&mut self.saved).enumerate() {
            let delta = saved.delta.elements();
            (saved.input, saved.sum) = (input, self.rows as f64 * f64::from(most(isa, delta)));
            checked += delta.len();
            input = bound_of_outputs(layer.activation(), layer.in_features(), input, limits(n));
        }
        scope.leave(|| Work::check(checked));
    }

    /// The same with what the layers have read, so many values.
    pub(super) fn bound_closely(&mut self, isa: Isa) -> usize {
        let mut checked = 0;
        for n in 1..self.saved.len() {
            let below = self.saved[n - 1].y.elements();
            checked += below.len();
            self.saved[n].input = most(isa, below).into();
        }
        checked
    }

    /// Upper bounds of the sums of gradients for the weight and the bias of a layer.
    pub(super) fn bounds(&self, layer: usize) -> [f64; 2] {
        let Saved { input, sum, .. } = self.saved[layer];
        [input * sum, sum]
    }

    /// Adds the gradients of the batch to `gradients`; with `fresh`, sets them. `x` is that batch.
    pub(super) fn accumulate(
        &self,
        isa: Isa,
        model: &Mlp,
        x: MatRef,
        gradients: &mut [Gradient],
        fresh: bool,
    ) {
        let beta = if fresh { 0.0 } else { 1.0 };
        for (n, (layer, gradient)) in model.layers().iter().zip(gradients).enumerate() {
            let scope = profile::enter(Phase::Gradient, Some(n));
            let Gradient { weight, bias } = gradient;
            if fresh {
                bias.fill(0.0);
            }
            let delta = self.saved[n].delta.view();
            add_rows(isa, delta, bias);
            let (start, after) = (Begin::Scaled(beta), After::Activate(Activation::Identity));
            run(isa, 1.0, self.input(n, x).t(), Right::View(delta), start, after, weight.view_mut());
            scope.leave(|| Work::gradient(self.rows, layer.shape(), fresh));
        }
    }

    /// Updates the weights and biases of `model` by the gradients of the batch, which are not stored. `x` is that batch.
    pub(super) fn descend(&self, isa: Isa, planned: &Planned, model: &mut Mlp, state: &mut State, x: MatRef) {
        for (n, saved) in self.saved.iter().enumerate() {
            let scope = profile::enter(Phase::Descend, Some(n));
            let (input, delta) = (self.input(n, x), saved.delta.view());
            let shape = (input.cols(), delta.cols());
            let [weights, biases] = state.tensors(model, n);
            descend(isa, (input, delta), (&planned.rule, &planned.scaling), weights, biases);
            scope.leave(|| Work::descend(self.rows, shape, planned.rule.states()));
        }
        state.finish(planned);
    }

    /// What went into a layer.
    fn input<'a>(&'a self, layer: usize, x: MatRef<'a>) -> MatRef<'a> {
        if layer == 0 { x } else { self.saved[layer - 1].y.view() }
    }

    /// Bytes of what the layers leave, and of what else a batch needs.
    pub(super) fn bytes(&self) -> (usize, usize) {
        let layer = |saved: &Saved| saved.z.bytes() + saved.y.bytes() + saved.delta.bytes();
        let rest = self.values.bytes() + self.terms.bytes() + 4 * self.gathered.capacity();
        (self.saved.iter().map(layer).sum(), rest)
    }

    /// Makes the buffers fit so many rows of a model and a loss, which are always the same. For as many as before there is
    /// nothing to do, which for a tiny network would take a tenth of a step.
    fn fit(&mut self, op: &'static str, model: &Mlp, loss: Loss, rows: usize) -> Result<()> {
        if rows == self.rows {
            return Ok(());
        }
        self.rows = 0; // An error on the way leaves buffers that fit no number of rows.
        let layers = model.layers();
        self.saved.resize_with(layers.len(), Saved::default);
        for (n, (layer, Saved { z, y, delta, .. })) in layers.iter().zip(&mut self.saved).enumerate() {
            let cols = layer.out_features();
            let z_cols = if layer.activation().saves_input() { cols } else { 0 };
            for (matrix, cols) in [(z, z_cols), (y, cols), (delta, cols)] {
                if n + 1 < layers.len() {
                    matrix.resize(op, rows, cols)?;
                } else {
                    matrix.resize_closed(op, rows, cols)?;
                }
            }
        }
        let outputs = model.outputs();
        let terms = loss.terms(1, outputs);
        resize(op, &mut self.terms, rows, terms)?;
        self.rows = rows;
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
