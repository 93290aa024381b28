//! What the benches share: their header, and numbers to work on.

// Not every bench asks for everything.
#[allow(dead_code)]
pub mod nets;
#[allow(dead_code)]
mod product;

use std::time::Duration;

use criterion::Criterion;
use percycle::{Isa, Matrix, build_info, fma_peak};
#[allow(unused_imports)]
pub use product::{Product, passes};

/// Criterion's settings, after printing what a figure must state: how percycle was built, and the peak it is held against.
#[allow(dead_code)]
pub fn criterion() -> Criterion {
    println!("{}", build_info());
    for isa in Isa::available() {
        let mut peaks: Vec<f64> = (0..31).map(|_| fma_peak(isa)).collect();
        peaks.sort_by(f64::total_cmp);
        println!("FMA peak of one core, {isa}: {:.1} GFLOP/s (median of 31)", peaks[15] / 1e9);
    }
    Criterion::default().measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500))
}

/// A matrix of numbers that are neither zero nor denormal.
pub fn matrix(rows: usize, cols: usize) -> Matrix {
    let mut matrix = Matrix::zeros(rows, cols);
    for (i, value) in matrix.as_mut_slice().iter_mut().enumerate() {
        *value = ((i * 7919 % 1000) as f32 - 499.5) / 500.0;
    }
    matrix
}
