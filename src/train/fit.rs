//! Epochs of mini-batches until there is a reason to stop.

use std::ops::ControlFlow;
use std::time::Instant;

use super::dataset::{Batch, of_sample};
use super::{Dataset, EpochReport, FitOptions, History, StopReason, Targets, Trainer};
use crate::error::{Error, Result};
use crate::nn::{Mlp, Uniform};
use crate::simd::Isa;

impl Trainer {
    /// Trains on `data` until one of the options says to stop.
    ///
    /// The optimizer's learning rate is the base that the schedule multiplies; it is the base again afterwards. A fit
    /// continues from where the trainer is: weights, optimizer state, anything accumulated.
    ///
    /// # Errors
    /// Before anything changes: [`Error::Empty`] without samples, [`Error::Setting`] for options out of range, and those
    /// of [`Trainer::step`] for samples that do not fit the network or the loss. [`Error::NotFinite`], naming epoch, step and
    /// layer, when the loss or a weight is not finite: [`Trainer::model`] then holds the last good weights.
    pub fn fit(&mut self, data: &Dataset, options: &FitOptions) -> Result<History> {
        self.fit_with(data, options, |_| ControlFlow::Continue(()))
    }

    /// Like [`Trainer::fit`], calling `after_epoch` after each epoch: it may draw a progress bar, or stop the fit.
    ///
    /// # Errors
    /// As for [`Trainer::fit`].
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use percycle::{Activation, Dataset, FitOptions, Loss, Matrix, Mlp, Sgd, StopReason, Trainer};
    ///
    /// let data = Dataset::values(Matrix::zeros(3, 1), Matrix::zeros(3, 1))?;
    /// let mlp = Mlp::builder(1).layer(1, Activation::Identity).build()?;
    /// let mut trainer = Trainer::new(mlp, Loss::Mse, Sgd::new(0.1))?;
    /// let history = trainer.fit_with(&data, &FitOptions::new(), |epoch| {
    ///     if epoch.epoch == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    /// })?;
    /// assert_eq!((history.stop, history.epochs.len()), (StopReason::Callback, 2));
    /// # Ok::<(), percycle::Error>(())
    /// ```
    pub fn fit_with(
        &mut self,
        data: &Dataset,
        options: &FitOptions,
        after_epoch: impl FnMut(&EpochReport) -> ControlFlow<()>,
    ) -> Result<History> {
        let op = "Trainer::fit";
        options.validate(op)?;
        for (what, set) in [("the data", Some(data)), ("the validation data", options.validation.as_ref())] {
            if let Some(set) = set {
                if set.is_empty() {
                    return Err(Error::Empty { op, what, cure: "pass at least one sample" });
                }
                // Every sample is looked at before the first update: an error in the last must not come after it.
                self.check(op, set)?;
            }
        }
        let base = self.learning_rate();
        let history = self.run(data, options, base, after_epoch);
        self.set_learning_rate(base)?;
        history
    }

    /// Refuses data that does not fit the network or the loss.
    fn check(&self, op: &'static str, data: &Dataset) -> Result<()> {
        let outputs = self.model().outputs();
        self.model().check_input(op, data.x())?;
        self.loss().check_shape(op, data.len(), outputs, data.targets())?;
        let len = match data.targets() {
            Targets::Classes(_) => 0,
            Targets::Values(values) => values.rows() * values.cols(),
        };
        self.loss().check_targets(op, Isa::try_current()?, outputs, data.targets(), &mut vec![0.0; len])
    }

    fn run(
        &mut self,
        data: &Dataset,
        options: &FitOptions,
        base: f32,
        mut after_epoch: impl FnMut(&EpochReport) -> ControlFlow<()>,
    ) -> Result<History> {
        let start = Instant::now();
        let mut random = Uniform::new(options.seed);
        let mut order: Vec<usize> = (0..data.len()).collect();
        let mut batch = Batch::default();
        let mut epochs: Vec<EpochReport> = Vec::new();
        let (mut best, mut best_model): (usize, Option<Mlp>) = (0, None);
        // The loss that the next one must undercut by min_delta to count as an improvement.
        let (mut mark, mut waited) = (f32::INFINITY, 0);
        let mut steps = 0;
        let stop = loop {
            let epoch = epochs.len() + 1;
            if options.shuffle {
                random.shuffle(&mut order);
            }
            let mut sum = 0.0;
            for rows in order.chunks(options.batch_size) {
                batch.fill(data, rows);
                self.set_learning_rate((f64::from(base) * options.schedule.factor(epoch - 1, steps)) as f32)?;
                let (x, targets) = batch.get(data)?;
                let loss = self.step(x, targets);
                let loss = loss.map_err(|error| in_epoch(of_sample(error, rows), epoch))?;
                sum += f64::from(loss) * rows.len() as f64;
                steps += 1;
            }
            let evaluation = options.validation.as_ref().map(|set| self.evaluate(set)).transpose();
            let evaluation = evaluation.map_err(|error| in_epoch(error, epoch))?;
            epochs.push(EpochReport {
                epoch,
                train_loss: (sum / data.len() as f64) as f32,
                validation_loss: evaluation.as_ref().map(|evaluation| evaluation.loss),
                validation_accuracy: evaluation.as_ref().and_then(|evaluation| evaluation.accuracy),
                learning_rate: self.learning_rate(),
                steps,
                seconds: start.elapsed().as_secs_f64(),
            });
            let report = &epochs[epoch - 1];
            let watched = report.watched_loss();
            if epoch == 1 || watched < epochs[best].watched_loss() {
                best = epoch - 1;
                if options.restore_best {
                    best_model = Some(self.model().clone());
                }
            }
            if watched < mark && mark - watched >= options.min_delta {
                (mark, waited) = (watched, 0);
            } else {
                waited += 1;
            }
            if after_epoch(report).is_break() {
                break StopReason::Callback;
            } else if options.target_loss.is_some_and(|target| watched <= target) {
                break StopReason::TargetLoss;
            } else if options.patience.is_some_and(|patience| waited >= patience) {
                break StopReason::Patience;
            } else if options.time_limit.is_some_and(|limit| start.elapsed() >= limit) {
                break StopReason::TimeLimit;
            } else if epoch == options.epochs {
                break StopReason::Epochs;
            }
        };
        if let Some(model) = best_model {
            self.set_model(model);
        }
        Ok(History { epochs, stop, best })
    }
}

/// The same error, with the epoch in it.
fn in_epoch(error: Error, in_epoch: usize) -> Error {
    match error {
        Error::NotFinite { op, what, step, layer, .. } => {
            Error::NotFinite { op, what, epoch: in_epoch, step, layer }
        }
        other => other,
    }
}
