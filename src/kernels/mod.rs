//! Blocking, packing, threads and the passes over vectors: written over the `Simd` trait, without any instruction set.

mod activation;
mod bandwidth;
mod blocked;
mod by_columns;
mod clock;
mod close;
mod cost;
pub(crate) mod elementwise;
mod epilogue;
pub(crate) mod loss;
mod math;
pub(crate) mod meter;
mod microkernel;
mod one_tile;
mod pack;
mod parallel;
mod peak;
mod product;
mod reads;
pub(crate) mod reduce;
pub(crate) mod scratch;
mod serial;
mod sgemm;
mod shapes;
mod stack;
mod stream;
mod sweep;
#[cfg(feature = "rayon")]
mod team;
mod tile;
mod tiny;
mod turning;
pub(crate) mod update;
mod vector;

pub use activation::Activation;
pub use bandwidth::read_bandwidth;
pub(crate) use clock::core_clock;
pub use meter::Kernel;
#[cfg(all(test, feature = "rayon"))]
pub(crate) use parallel::predicted;
pub use peak::fma_peak;
pub use sgemm::sgemm;
pub(crate) use sgemm::{After, Begin, Panels, Right, descend, multiply, run, run_chosen};
#[cfg(all(test, feature = "rayon"))]
pub(crate) use team::{ALONE, lead_through};
#[cfg(feature = "rayon")]
pub(crate) use team::{lead, worth as team_size, worth_waking};

/// Without other threads, the caller is alone.
#[cfg(not(feature = "rayon"))]
pub(crate) fn lead<R>(_cycles: f64, f: impl FnOnce() -> R) -> R {
    f()
}

/// Likewise.
#[cfg(not(feature = "rayon"))]
pub(crate) fn team_size(_cycles: f64) -> usize {
    1
}

/// Likewise.
#[cfg(not(feature = "rayon"))]
pub(crate) fn worth_waking(_cycles: f64) -> usize {
    1
}
