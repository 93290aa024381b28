//! The product of two matrices, and the weighted sums of a whole layer, `Y = sigma(X W + b)`.
//!
//! Each element of the result is one chain of fused multiply-adds over ascending k. A fused multiply-add
//! computes `a * b + c` and rounds once; it is what the hardware has, and what makes the result independent
//! of the compiler.

use crate::activation::{Activation, activate};

/// A matrix in a slice: element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub struct Strided<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub cols: usize,
    pub row_stride: usize,
    pub col_stride: usize,
}

impl<'a> Strided<'a> {
    /// Rows one after another.
    pub fn row_major(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Strided { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The transpose: the same data, read with the strides swapped.
    pub fn t(self) -> Self {
        Strided {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    /// Element (i, j).
    pub fn at(&self, i: usize, j: usize) -> f32 {
        self.data[i * self.row_stride + j * self.col_stride]
    }
}

/// `alpha A B + beta C`, row-major: BLAS calls it `sgemm`. C is not read when beta is 0, and A and B are not
/// read when alpha is 0: what is not read may hold NaN.
pub fn gemm(alpha: f32, a: Strided, b: Strided, beta: f32, c: Strided) -> Vec<f32> {
    chains(alpha, a, b, |i, j| if beta == 0.0 { 0.0 } else { beta * c.at(i, j) })
}

/// `activation(X W + b)`, row-major: X is a batch of samples, one in each row, and W is `[in, out]`.
pub fn linear(x: Strided, w: Strided, bias: Option<&[f32]>, activation: Activation) -> Vec<f32> {
    let mut y = chains(1.0, x, w, |_, j| bias.map_or(0.0, |bias| bias[j]));
    for y in &mut y {
        *y = activate(activation, *y);
    }
    y
}

/// The chains, each beginning at `start(i, j)`.
fn chains(alpha: f32, a: Strided, b: Strided, start: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    assert_eq!(a.cols, b.rows, "a needs as many columns as b has rows");
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn with_fma(alpha: f32, a: Strided, b: Strided, start: impl Fn(usize, usize) -> f32) -> Vec<f32> {
            loops(alpha, a, b, start)
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: this CPU has the instructions. They change the speed only: without them, `mul_add` is a
            // call to a routine of the C library, with the same result.
            return unsafe { with_fma(alpha, a, b, start) };
        }
    }
    loops(alpha, a, b, start)
}

/// The specification of every product: these three loops.
#[inline(always)]
fn loops(alpha: f32, a: Strided, b: Strided, start: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    let depth = if alpha == 0.0 { 0 } else { a.cols };
    let mut c = Vec::with_capacity(a.rows * b.cols);
    for i in 0..a.rows {
        for j in 0..b.cols {
            let mut acc = start(i, j);
            for k in 0..depth {
                acc = (alpha * a.at(i, k)).mul_add(b.at(k, j), acc);
            }
            c.push(acc);
        }
    }
    c
}
