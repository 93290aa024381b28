//! What `fit` is asked to do.

use std::time::Duration;

use super::{Dataset, Schedule};
use crate::error::{Error, Result};

/// How to fit: how long, in which batches, and when to stop.
///
/// ```
/// use percycle::{FitOptions, Schedule};
///
/// let options = FitOptions::new()
///     .epochs(50)
///     .batch_size(32)
///     .seed(1)
///     .schedule(Schedule::cosine(50, 0.01))
///     .patience(5)
///     .restore_best(true);
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until they are passed to `fit`"]
pub struct FitOptions {
    pub(super) epochs: usize,
    pub(super) batch_size: usize,
    pub(super) seed: u64,
    pub(super) shuffle: bool,
    pub(super) validation: Option<Dataset>,
    pub(super) target_loss: Option<f32>,
    pub(super) patience: Option<usize>,
    pub(super) min_delta: f32,
    pub(super) time_limit: Option<Duration>,
    pub(super) restore_best: bool,
    pub(super) schedule: Schedule,
}

impl Default for FitOptions {
    fn default() -> Self {
        FitOptions {
            epochs: 10,
            batch_size: 32,
            seed: 0,
            shuffle: true,
            validation: None,
            target_loss: None,
            patience: None,
            min_delta: 0.0,
            time_limit: None,
            restore_best: false,
            schedule: Schedule::constant(),
        }
    }
}

impl FitOptions {
    /// 10 epochs of shuffled batches of 32, a constant learning rate, no other reason to stop.
    pub fn new() -> Self {
        Self::default()
    }

    /// The most passes over the data, at least 1.
    pub fn epochs(self, epochs: usize) -> Self {
        FitOptions { epochs, ..self }
    }

    /// Samples in an update, at least 1; the last batch of an epoch holds what is left.
    pub fn batch_size(self, batch_size: usize) -> Self {
        FitOptions { batch_size, ..self }
    }

    /// The seed of the order of samples, which is drawn anew in each epoch.
    pub fn seed(self, seed: u64) -> Self {
        FitOptions { seed, ..self }
    }

    /// Whether the order of samples is drawn at all; true unless said otherwise.
    pub fn shuffle(self, shuffle: bool) -> Self {
        FitOptions { shuffle, ..self }
    }

    /// Samples to measure the loss on after each epoch, which are not trained on. Where there are some, `target_loss`,
    /// `patience` and `restore_best` look at their loss.
    pub fn validation(self, data: Dataset) -> Self {
        FitOptions { validation: Some(data), ..self }
    }

    /// Stop after the first epoch whose watched loss is at most this.
    pub fn target_loss(self, loss: f32) -> Self {
        FitOptions { target_loss: Some(loss), ..self }
    }

    /// Stop when the watched loss has not fallen by at least [`min_delta`](FitOptions::min_delta) below its best for so
    /// many epochs, at least 1.
    pub fn patience(self, epochs: usize) -> Self {
        FitOptions { patience: Some(epochs), ..self }
    }

    /// How much counts as an improvement; 0, any at all, unless said otherwise.
    pub fn min_delta(self, min_delta: f32) -> Self {
        FitOptions { min_delta, ..self }
    }

    /// Stop after the first epoch that ends later than this.
    pub fn time_limit(self, limit: Duration) -> Self {
        FitOptions { time_limit: Some(limit), ..self }
    }

    /// End with the weights of the epoch with the lowest watched loss instead of the last ones. The optimizer's memory
    /// stays that of the last epoch.
    pub fn restore_best(self, restore: bool) -> Self {
        FitOptions { restore_best: restore, ..self }
    }

    /// How the learning rate changes.
    pub fn schedule(self, schedule: Schedule) -> Self {
        FitOptions { schedule, ..self }
    }

    pub(super) fn validate(&self, op: &'static str) -> Result<()> {
        let refuse = |name, value: String, must| Err(Error::Setting { op, name, value, must });
        for (name, value) in [("epochs", self.epochs), ("batch_size", self.batch_size)] {
            if value == 0 {
                return refuse(name, "0".into(), "at least 1");
            }
        }
        if self.patience == Some(0) {
            return refuse("patience", "0".into(), "at least 1 epoch");
        }
        if !(self.min_delta >= 0.0 && self.min_delta.is_finite()) {
            return refuse("min_delta", self.min_delta.to_string(), "finite and at least 0");
        }
        if self.target_loss.is_some_and(f32::is_nan) {
            return refuse("target_loss", "NaN".into(), "a number");
        }
        self.schedule.validate(op)
    }
}
