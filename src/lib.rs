#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs)]
#![doc = include_str!("../README.md")]

mod buffer;
mod build_info;
mod error;
mod kernels;
pub mod math;
mod matrix;
mod nn;
mod product;
pub mod profile;
mod simd;
#[cfg(all(test, any(target_arch = "x86_64", feature = "rayon")))]
mod tests;
mod train;

pub use build_info::{BuildInfo, build_info};
pub use error::{Error, Result};
pub use kernels::{Activation, fma_peak, sgemm};
pub use matrix::{MatMut, MatRef, Matrix};
pub use nn::{Init, Linear, Mlp, MlpBuilder, Workspace};
pub use product::{PackedWeights, gemm, linear, linear_packed, matmul};
pub use simd::Isa;
pub use train::{
    Adam, AdamW, Clip, Dataset, EpochReport, Evaluation, FitOptions, History, Loss, Memory, Optimizer,
    Schedule, Sgd, StopReason, Targets, Trainer,
};
