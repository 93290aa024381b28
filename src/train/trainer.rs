//! The trainer: batches in, updates out.

use super::clip::Clip;
use super::loss::{Loss, Targets};
use super::optimizer::Optimizer;
use super::pass::{Caller, Gradient, Measured, Pass};
use super::state::{Planned, State};
use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::kernels::reduce::sum_of_squares;
use crate::kernels::{lead, team_size};
use crate::matrix::{MatRef, Spaced};
use crate::nn::Mlp;
use crate::profile::{self, Phase, Work};
use crate::simd::Isa;

/// Values of a batch, of what it leaves at the layers, of weights and of the optimizer's memory from which a core's cache (1.5 MiB of
/// its 2) does not hold them from one pass to the next.
const CACHE: usize = 384 * 1024;
/// Values of samples, and of what they leave at the layers, that are then worked on at once (512 KiB).
const AT_ONCE: usize = 128 * 1024;
/// With fewer samples at once, products lose more than that saves.
const LEAST_ROWS: usize = 128;
/// Weights beyond which their gradients, read and written again for each part of a batch, cost more than that saves.
const SMALL: usize = 256 * 1024;

/// A network, a loss and an optimizer, and the buffers to train with: after the first batch of a size, a step
/// of that size allocates nothing.
///
/// The bits of the result do not depend on the instruction set, on the number of threads, or on how a batch
/// is cut into micro-batches. A call that returns an error has changed nothing, except where it says so.
///
/// ```
/// use percycle::{Activation, Adam, Loss, MatRef, Mlp, Targets, Trainer};
///
/// // Exclusive or.
/// let x = [0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
/// let x = MatRef::new(&x, 4, 2)?;
/// let classes = Targets::Classes(&[0, 1, 1, 0]);
///
/// let mlp = Mlp::builder(2).layer(8, Activation::Tanh).layer(2, Activation::Identity).seed(3).build()?;
/// let mut trainer = Trainer::new(mlp, Loss::CrossEntropy { label_smoothing: 0.0 }, Adam::new(0.05))?;
/// let mut loss = f32::INFINITY;
/// for _ in 0..200 {
///     loss = trainer.step(x, classes)?;
/// }
/// assert!(loss < 0.01);
/// assert_eq!(trainer.steps(), 200);
/// let mlp = trainer.into_model();
/// # let _ = mlp;
/// # Ok::<(), percycle::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Trainer {
    pub(super) model: Mlp,
    loss: Loss,
    optimizer: Optimizer,
    clip: Clip,
    pub(super) state: State,
    pub(super) pass: Pass,
    /// Empty as long as every gradient is used up where it is made.
    pub(super) gradients: Vec<Gradient>,
    /// Terms of the loss whose gradients have been summed since the last update.
    pending: u64,
    steps: u64,
}

impl Trainer {
    /// A trainer for this network.
    ///
    /// # Errors
    /// [`Error::Setting`] when a setting of the loss or of the optimizer is out of its range.
    pub fn new(mlp: Mlp, loss: Loss, optimizer: impl Into<Optimizer>) -> Result<Trainer> {
        let optimizer = optimizer.into();
        loss.validate("Trainer::new")?;
        optimizer.validate("Trainer::new")?;
        Ok(Trainer {
            loss,
            optimizer,
            clip: Clip::None,
            state: State::new(&optimizer, &mlp),
            pass: Pass::default(),
            gradients: Vec::new(),
            pending: 0,
            steps: 0,
            model: mlp,
        })
    }

    /// The same trainer with gradient clipping.
    ///
    /// # Errors
    /// [`Error::Setting`] when the limit is not finite or not more than 0.
    pub fn with_clip(self, clip: Clip) -> Result<Trainer> {
        clip.validate("Trainer::with_clip")?;
        Ok(Trainer { clip, ..self })
    }

    /// One update from a batch: `x` is `batch` x `inputs`, and `targets` fit it. Returns the mean loss of
    /// this batch before the update. It is [`Trainer::accumulate`] and then [`Trainer::apply`], so what was
    /// accumulated before is part of the update.
    ///
    /// # Errors
    /// Before anything changes: [`Error::Shape`], [`Error::Length`] or [`Error::Targets`] when shapes or the
    /// kind of targets do not fit, [`Error::Empty`] for no sample, [`Error::Data`] for values that are not
    /// finite, targets of binary cross-entropy and outputs under [`Loss::Bce`] outside [0, 1],
    /// [`Error::Class`] for a class that no output stands for, [`Error::TooLarge`] when there is no memory
    /// for the batch, [`Error::Isa`] when `PERCYCLE_ISA` asks for what this CPU lacks, [`Error::NotFinite`]
    /// when the loss is not finite, naming the first layer whose output is not. And [`Error::NotFinite`] when
    /// a weight is not finite after the update: weights and optimizer state are then as before the update,
    /// and the gradients that led there are dropped.
    pub fn step(&mut self, x: MatRef, targets: Targets) -> Result<f32> {
        let op = "Trainer::step";
        let _call = profile::call(op);
        lead(self.cycles(x), || self.step_as(op, x, targets))
    }

    fn step_as(&mut self, op: &'static str, x: MatRef, targets: Targets) -> Result<f32> {
        let at_once = self.rows_at_once(x);
        let measured = if at_once < x.rows() {
            // Nothing has been accumulated that an error could leave spoilt.
            let added = self.add_by_parts(op, x, targets, at_once);
            added.inspect_err(|_| self.pending = 0)?
        } else {
            let measured = self.differentiate(op, x, targets)?;
            if self.pending == 0 && !matches!(self.clip, Clip::GlobalNorm(_)) {
                let isa = Isa::try_current()?;
                let planned = self.state.plan(&self.optimizer, self.clip.scaling(measured.count, || 0.0));
                if self.prove(isa, &planned) {
                    self.pass.descend(isa, &planned, &mut self.model, &mut self.state, x);
                    self.steps += 1;
                    return Ok(measured.mean());
                }
            }
            self.add_gradients(op, measured, x)?;
            measured
        };
        self.update(op)?;
        Ok(measured.mean())
    }

    /// Whether the update cannot but leave finite numbers: looks at no more than it takes to find out.
    fn prove(&mut self, isa: Isa, planned: &Planned) -> bool {
        let Trainer { pass, state, model, .. } = self;
        pass.bound(isa, model, |layer| state.limits(layer));
        if state.proven(planned, |layer| pass.bounds(layer)) {
            return true;
        }
        let checks = profile::enter(Phase::Checks, None);
        let values = pass.bound_closely(isa);
        let proven = state.prove(isa, planned, model, |layer| pass.bounds(layer));
        checks.leave(|| Work::check(values));
        proven
    }

    /// How many samples of a batch to take through the layers at once: all, unless they leave so much that it is gone from the caches
    /// before the gradients are made of it.
    fn rows_at_once(&self, x: MatRef) -> usize {
        let rows = x.rows();
        if rows < 2 * LEAST_ROWS || self.pending > 0 {
            return rows;
        }
        let sum = |of: fn((usize, usize)) -> usize| -> usize {
            self.model.layers().iter().map(|layer| of(layer.shape())).sum()
        };
        let (of_row, weights) =
            (sum(|(inputs, outputs)| inputs + outputs), sum(|(inputs, outputs)| inputs * outputs));
        let threads = team_size(self.cycles(x));
        let kept = weights + self.state.bytes() / size_of::<f32>();
        if weights > SMALL || rows.saturating_mul(of_row).saturating_add(kept) < threads * CACHE {
            return rows;
        }
        x.rows_of_part(threads * (AT_ONCE / of_row).max(LEAST_ROWS))
    }

    /// Adds the gradients of a batch, so many samples at once, to none.
    fn add_by_parts(
        &mut self,
        op: &'static str,
        x: MatRef,
        targets: Targets,
        at_once: usize,
    ) -> Result<Measured> {
        let caller = self.caller(op);
        self.pass.check(caller, &self.model, self.loss, (x, targets), at_once)?;
        let mut sum = 0.0;
        for start in (0..x.rows()).step_by(at_once) {
            let rows = start..x.rows().min(start + at_once);
            let (x, targets) = (x.rows_from(rows.start, rows.len()), targets.part(rows));
            let Trainer { model, loss, pass, .. } = self;
            let measured = pass.measure_rows(caller, model, *loss, (x, targets), start, sum)?;
            pass.deltas(Isa::try_current()?, model);
            self.add_gradients(op, measured, x)?;
            sum = measured.sum;
        }
        Ok(Measured { sum, count: self.pending })
    }

    /// Adds the gradients of a micro-batch to those of the next update, and returns its mean loss.
    /// Micro-batches may be of any sizes: the update is that of one batch of all their samples in this order,
    /// to the bit.
    ///
    /// # Errors
    /// As for [`Trainer::step`], up to the update. Nothing has then been accumulated from this micro-batch.
    ///
    /// ```
    /// use percycle::{Activation, Loss, MatRef, Mlp, Sgd, Targets, Trainer};
    ///
    /// let mlp = Mlp::builder(1).layer(1, Activation::Identity).seed(1).build()?;
    /// let mut whole = Trainer::new(mlp, Loss::Mse, Sgd::new(0.1))?;
    /// let mut parts = whole.clone();
    /// let (x, y) = ([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]);
    /// whole.step(MatRef::new(&x, 3, 1)?, Targets::Values(MatRef::new(&y, 3, 1)?))?;
    /// for (x, y) in [(&x[..1], &y[..1]), (&x[1..], &y[1..])] {
    ///     let rows = x.len();
    ///     parts.accumulate(MatRef::new(x, rows, 1)?, Targets::Values(MatRef::new(y, rows, 1)?))?;
    /// }
    /// parts.apply()?;
    /// assert_eq!(whole.model(), parts.model());
    /// # Ok::<(), percycle::Error>(())
    /// ```
    pub fn accumulate(&mut self, x: MatRef, targets: Targets) -> Result<f32> {
        let op = "Trainer::accumulate";
        let _call = profile::call(op);
        lead(self.cycles(x), || {
            let measured = self.differentiate(op, x, targets)?;
            self.add_gradients(op, measured, x)?;
            Ok(measured.mean())
        })
    }

    /// One update from what has been accumulated.
    ///
    /// # Errors
    /// [`Error::Empty`] when nothing has been accumulated since the last update; [`Error::NotFinite`] as for
    /// [`Trainer::step`].
    pub fn apply(&mut self) -> Result<()> {
        let op = "Trainer::apply";
        let _call = profile::call(op);
        if self.pending == 0 {
            return Err(Error::Empty {
                op,
                what: "what has been accumulated",
                cure: "call accumulate before it, or step instead of both",
            });
        }
        // As long as it takes to read and write each weight.
        lead(self.model.cycles(16), || self.update(op))
    }

    /// The network as it is now.
    pub fn model(&self) -> &Mlp {
        &self.model
    }

    /// The network, without the rest.
    pub fn into_model(self) -> Mlp {
        self.model
    }

    /// The learning rate of the next update.
    pub fn learning_rate(&self) -> f32 {
        self.optimizer.learning_rate()
    }

    /// Sets the learning rate from the next update on.
    ///
    /// # Errors
    /// [`Error::Setting`] when it is not finite or less than 0.
    pub fn set_learning_rate(&mut self, learning_rate: f32) -> Result<()> {
        self.optimizer.set_learning_rate("Trainer::set_learning_rate", learning_rate)
    }

    /// Updates so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The loss that is made small.
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// Puts a network of the same shape in the place of this one.
    pub(super) fn set_model(&mut self, model: Mlp) {
        self.model = model;
        self.state.forget_limits();
    }

    /// The loss of a batch, and the outputs it comes from. Changes nothing but buffers.
    pub(super) fn measure(
        &mut self,
        op: &'static str,
        x: MatRef,
        targets: Targets,
    ) -> Result<(Measured, MatRef<'_>)> {
        let (_call, caller) = (profile::call(op), self.caller(op));
        let Trainer { model, loss, pass, .. } = self;
        let measured = lead(model.cycles(x.rows()), || pass.measure(caller, model, *loss, x, targets))?;
        Ok((measured, self.pass.outputs()?))
    }

    /// What a step with these samples takes, about: it goes three times through the layers.
    fn cycles(&self, x: MatRef) -> f64 {
        3.0 * self.model.cycles(x.rows())
    }

    fn caller(&self, op: &'static str) -> Caller {
        Caller { op, step: self.steps + 1 }
    }

    /// The loss of a batch and its derivatives, down to the first layer.
    fn differentiate(&mut self, op: &'static str, x: MatRef, targets: Targets) -> Result<Measured> {
        let caller = self.caller(op);
        let measured = self.pass.measure(caller, &self.model, self.loss, x, targets)?;
        self.pass.deltas(Isa::try_current()?, &self.model);
        Ok(measured)
    }

    /// Adds the gradients of the batch just differentiated to those of the next update.
    fn add_gradients(&mut self, op: &'static str, measured: Measured, x: MatRef) -> Result<()> {
        if self.gradients.is_empty() {
            let zeros = |layer: &crate::nn::Linear| {
                let (inputs, outputs) = layer.shape();
                let weight = Spaced::try_zeros(op, inputs, outputs)?;
                Ok(Gradient { weight, bias: Buffer::zeros(outputs) })
            };
            self.gradients = self.model.layers().iter().map(zeros).collect::<Result<_>>()?;
        }
        let (isa, fresh) = (Isa::try_current()?, self.pending == 0);
        self.pass.accumulate(isa, &self.model, x, &mut self.gradients, fresh);
        self.pending += measured.count;
        Ok(())
    }

    /// One update by the gradients that have been added up.
    fn update(&mut self, op: &'static str) -> Result<()> {
        let (isa, scope) = (Isa::try_current()?, profile::enter(Phase::Update, None));
        // Whatever comes of it: gradients that lead to weights which are not finite would do so again.
        let count = std::mem::take(&mut self.pending);
        let scaling = self.clip.scaling(count, || self.sum_of_squares(isa, 1.0 / count as f32));
        let planned = self.state.plan(&self.optimizer, scaling);
        let updated = self.state.update(isa, &planned, &mut self.model, &self.gradients);
        updated.map_err(|(what, layer)| Error::NotFinite {
            op,
            what,
            epoch: 0,
            step: self.steps + 1,
            layer: Some(layer),
        })?;
        scope.leave(|| {
            let parameters = |(inputs, outputs): (usize, usize)| inputs * outputs + outputs;
            let parameters = self.model.layers().iter().map(|layer| parameters(layer.shape())).sum();
            Work::update(parameters, planned.rule.states())
        });
        self.steps += 1;
        Ok(())
    }

    /// Of all gradients times `scale`.
    fn sum_of_squares(&self, isa: Isa, scale: f32) -> f64 {
        // (Zeros between rows, 16 at a time, go to each of its eight sums and change none.)
        let tensors = self.gradients.iter().flat_map(|g| [g.weight.elements(), &g.bias]);
        let mut squares = 0.0;
        for tensor in tensors {
            squares += sum_of_squares(isa, tensor, scale);
        }
        squares
    }
}
