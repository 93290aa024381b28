//! What happened during a fit.

/// One epoch of a fit.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EpochReport {
    /// The epoch, from 1.
    pub epoch: usize,
    /// The mean loss over the samples of the epoch, each measured just before the update that it was part of.
    pub train_loss: f32,
    /// The mean loss over the validation samples after the epoch.
    pub validation_loss: Option<f32>,
    /// The share of validation samples whose largest output is their class, where targets are classes.
    pub validation_accuracy: Option<f64>,
    /// The learning rate of the last update.
    pub learning_rate: f32,
    /// Updates in this fit so far.
    pub steps: u64,
    /// Seconds since the fit began.
    pub seconds: f64,
}

impl EpochReport {
    /// The loss that decides about stopping: that of validation where there is one.
    pub fn watched_loss(&self) -> f32 {
        self.validation_loss.unwrap_or(self.train_loss)
    }
}

/// Why a fit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// All epochs were run.
    Epochs,
    /// The watched loss reached the target.
    TargetLoss,
    /// The watched loss did not improve any more.
    Patience,
    /// The time was up.
    TimeLimit,
    /// The callback said so.
    Callback,
}

/// Every epoch of a fit, and why it ended.
///
/// ```
/// use percycle::{Activation, Dataset, FitOptions, Loss, Matrix, Mlp, Sgd, StopReason, Trainer};
///
/// let x = Matrix::from_vec(4, 1, vec![0.0, 1.0, 2.0, 3.0])?;
/// let y = Matrix::from_vec(4, 1, vec![1.0, 3.0, 5.0, 7.0])?;
/// let mlp = Mlp::builder(1).layer(1, Activation::Identity).build()?;
/// let mut trainer = Trainer::new(mlp, Loss::Mse, Sgd::new(0.1))?;
/// let options = FitOptions::new().epochs(500).batch_size(4).target_loss(1e-6);
/// let history = trainer.fit(&Dataset::values(x, y)?, &options)?;
/// assert_eq!(history.stop, StopReason::TargetLoss);
/// assert!(history.epochs.last().unwrap().train_loss <= 1e-6);
/// # Ok::<(), percycle::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct History {
    /// The epochs, in order.
    pub epochs: Vec<EpochReport>,
    /// Why there are no more.
    pub stop: StopReason,
    /// The index in `epochs` of the one with the lowest watched loss.
    pub best: usize,
}
