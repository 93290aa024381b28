//! Tests of what cannot be asked for from outside.

mod cores;
#[cfg(feature = "rayon")]
mod costs;
#[cfg(target_arch = "x86_64")]
mod software;
#[cfg(feature = "rayon")]
mod threads;

use crate::{MatMut, MatRef, Result, gemm};

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + 13) % 1009) as f32 / 300.0 - 1.7).collect()
}

/// A `rows` x `cols` matrix of these values, whose rows lie one after the other, or else its columns.
fn stored(values: &[f32], rows: usize, cols: usize, by_columns: bool) -> Result<MatRef<'_>> {
    Ok(if by_columns { MatRef::new(values, cols, rows)?.t() } else { MatRef::new(values, rows, cols)? })
}

/// Such a matrix to write to.
fn stored_mut(values: &mut [f32], rows: usize, cols: usize, by_columns: bool) -> Result<MatMut<'_>> {
    Ok(if by_columns { MatMut::new(values, cols, rows)?.t() } else { MatMut::new(values, rows, cols)? })
}

/// `C = 0.7 A B + 0.3 C` into the values of a C of some numbers.
fn into_numbers(a: MatRef, b: MatRef, by_columns: bool) -> Result<Vec<f32>> {
    let (m, n) = (a.rows(), b.cols());
    let mut c = numbers(m * n);
    gemm(0.7, a, b, 0.3, stored_mut(&mut c, m, n, by_columns)?)?;
    Ok(c)
}
