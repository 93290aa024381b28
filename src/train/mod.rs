//! Training: losses, optimizers, clipping, and the trainer that ties them to a network.

mod clip;
mod dataset;
mod evaluate;
mod fit;
mod history;
mod limits;
mod loss;
mod memory;
mod optimizer;
mod options;
mod pass;
mod schedule;
mod state;
mod trainer;

pub use clip::Clip;
pub use dataset::Dataset;
pub use evaluate::Evaluation;
pub use history::{EpochReport, History, StopReason};
pub use loss::{Loss, Targets};
pub use memory::Memory;
pub use optimizer::{Adam, AdamW, Optimizer, Sgd};
pub use options::FitOptions;
pub use schedule::Schedule;
pub use trainer::Trainer;
