//! A product that percycle and matrixmultiply both compute.

use std::fmt;

use percycle::{Activation, MatRef, Matrix, linear, matmul};

use super::matrix;

/// `C = A B` with A `m` x `k`, B `k` x `n` and C `m` x `n`.
pub struct Product {
    a: Operand,
    b: Operand,
    bias: Vec<f32>,
    c: Matrix,
}

/// A row-major matrix, or its transpose.
struct Operand {
    matrix: Matrix,
    transposed: bool,
}

impl Operand {
    fn new(rows: usize, cols: usize, transposed: bool) -> Operand {
        Operand { matrix: if transposed { matrix(cols, rows) } else { matrix(rows, cols) }, transposed }
    }

    fn view(&self) -> MatRef<'_> {
        if self.transposed { self.matrix.view().t() } else { self.matrix.view() }
    }
}

impl Product {
    /// Row-major operands.
    pub fn new(shape: (usize, usize, usize)) -> Product {
        Product::stored(shape, false, false)
    }

    /// Operands of which the transposes may be what is row-major.
    pub fn stored((m, n, k): (usize, usize, usize), a_transposed: bool, b_transposed: bool) -> Product {
        Product {
            a: Operand::new(m, k, a_transposed),
            b: Operand::new(k, n, b_transposed),
            bias: vec![0.1; n],
            c: Matrix::zeros(m, n),
        }
    }

    /// A multiply and an add for each of the m n k terms.
    pub fn flops(&self) -> u64 {
        2 * (self.c.rows() * self.c.cols() * self.a.view().cols()) as u64
    }

    pub fn percycle(&mut self) {
        matmul(self.a.view(), self.b.view(), self.c.view_mut()).expect("the shapes fit");
    }

    /// The same with a bias and ReLU.
    pub fn layer(&mut self) {
        let (x, w, bias) = (self.a.view(), self.b.view(), Some(&*self.bias));
        linear(x, w, bias, Activation::Relu, self.c.view_mut()).expect("the shapes fit");
    }

    pub fn matrixmultiply(&mut self) {
        let (m, n, k) = (self.c.rows(), self.c.cols(), self.a.view().cols());
        let strides = |view: MatRef| (view.row_stride() as isize, view.col_stride() as isize);
        let ((rsa, csa), (rsb, csb)) = (strides(self.a.view()), strides(self.b.view()));
        let (a, b) = (self.a.matrix.as_slice().as_ptr(), self.b.matrix.as_slice().as_ptr());
        let c = self.c.as_mut_slice().as_mut_ptr();
        // SAFETY: the views say how A and B lie in their matrices; C is m x n, row-major, and not borrowed elsewhere.
        unsafe { matrixmultiply::sgemm(m, k, n, 1.0, a, rsa, csa, b, rsb, csb, 0.0, c, n as isize, 1) }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.c.rows(), self.c.cols(), self.a.view().cols())?;
        match (self.a.transposed, self.b.transposed) {
            (false, false) => Ok(()),
            (false, true) => f.write_str(" nt"),
            (true, false) => f.write_str(" tn"),
            (true, true) => f.write_str(" tt"),
        }
    }
}

/// The products of a layer: Y = X W with W `[in, out]` and with W `[out, in]`, dX = delta W^T, and dW = X^T delta.
pub fn passes((batch, inputs, outputs): (usize, usize, usize)) -> [Product; 4] {
    [
        Product::stored((batch, outputs, inputs), false, false),
        Product::stored((batch, outputs, inputs), false, true),
        Product::stored((batch, inputs, outputs), false, true),
        Product::stored((inputs, outputs, batch), true, false),
    ]
}
