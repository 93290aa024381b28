//! The products on raw pointers and on checked views.

use super::activation::Activation;
use super::gemm::{Descent, Epilogue, Product, Rhs};
use super::pack::{Operand, Pack, packed_len};
use super::parallel;
use super::tile::Start;
use super::update::{Rule, Scaling, Tensors};
use crate::buffer::Buffer;
use crate::matrix::{MatMut, MatRef};
use crate::simd::Isa;

/// `C = alpha A B + beta C` on raw pointers: argument for argument `matrixmultiply::sgemm`, as a drop-in.
///
/// A is `m` x `k`, B is `k` x `n`, C is `m` x `n`; `rsa` is the distance in elements from one row of A to the next, `csa`
/// from one column to the next, and so on. C is not read when `beta` is 0; A and B are not read when `alpha` or `k` is
/// 0. Runs on the rayon pool that the caller stands in when it is large. Where `PERCYCLE_ISA` names an instruction set
/// that this CPU lacks, the best one is used: this signature cannot say so.
///
/// # Safety
/// Every element of A and B that the dimensions and strides name is readable, every one of C is writable (and readable
/// if `beta` is not 0), no two elements of C share a place, and C overlaps neither A nor B.
///
/// ```
/// let (a, b, mut c) = ([1.0, 2.0], [3.0, 4.0], [f32::NAN]);
/// // SAFETY: a is 1x2, b is 2x1, c is 1x1, all row-major.
/// unsafe {
///     percycle::sgemm(1, 2, 1, 1.0, a.as_ptr(), 2, 1, b.as_ptr(), 1, 1, 0.0, c.as_mut_ptr(), 1, 1);
/// }
/// assert_eq!(c, [11.0]);
/// ```
#[allow(clippy::too_many_arguments)]
pub unsafe fn sgemm(
    m: usize,
    k: usize,
    n: usize,
    alpha: f32,
    a: *const f32,
    rsa: isize,
    csa: isize,
    b: *const f32,
    rsb: isize,
    csb: isize,
    beta: f32,
    c: *mut f32,
    rsc: isize,
    csc: isize,
) {
    let product = Product {
        m,
        n,
        k: if alpha == 0.0 { 0 } else { k },
        alpha,
        a: Operand { ptr: a, row: rsa, col: csa },
        b: Rhs::Plain(Operand { ptr: b, row: rsb, col: csb }),
        c,
        c_row: rsc,
        c_col: csc,
        start: if beta == 0.0 { Start::Zero } else { Start::Scaled(beta) },
        epilogue: Epilogue::Activate { activation: Activation::Identity, before: std::ptr::null_mut() },
        offset: 0,
        first_row: true,
        is_part: false,
    };
    // SAFETY: what `Product` needs is what this function's contract says.
    unsafe { parallel::run(Isa::current(), &product) }
}

#[inline(always)]
fn operand(view: MatRef) -> Operand {
    // A stride that no element uses may be any number; those in use index a slice, so they fit.
    Operand { ptr: view.as_ptr(), row: view.row_stride() as isize, col: view.col_stride() as isize }
}

/// What the right-hand side of [`run`] is.
pub(crate) enum Right<'a> {
    /// A view, read in place or packed for this call.
    View(MatRef<'a>),
    /// Packed before.
    Packed(&'a Panels),
}

/// How the chains of [`run`] begin.
pub(crate) enum Begin<'a> {
    /// At `beta * c`; c is not read when beta is 0.
    Scaled(f32),
    /// At one value for each column.
    Bias(&'a [f32]),
}

/// What is done to C before [`run`] leaves it.
pub(crate) enum After<'a> {
    /// `C = activation(C)`.
    Activate(Activation),
    /// The same, and a matrix that lies like C receives what C was before it.
    Save(Activation, MatMut<'a>),
    /// C is multiplied by the activation's derivative at what was saved, which lies like C.
    Derivative(Activation, MatRef<'a>),
}

/// `C = after(start + alpha A B)` on views whose shapes the caller has checked to fit.
#[inline(always)]
pub(crate) fn run(isa: Isa, alpha: f32, a: MatRef, b: Right, begin: Begin, after: After, mut c: MatMut) {
    let (m, n) = (c.rows(), c.cols());
    let (k, b) = match b {
        Right::View(b) => {
            assert!(b.cols() == n, "the columns of B were checked");
            (b.rows(), Rhs::Plain(operand(b)))
        }
        Right::Packed(b) => {
            assert!(b.n == n, "the columns of B were checked");
            (b.k, Rhs::Packed(b.data.as_ptr()))
        }
    };
    assert!(a.rows() == m && a.cols() == k, "the shape of A was checked");
    let start = match begin {
        Begin::Scaled(0.0) => Start::Zero,
        Begin::Scaled(beta) => Start::Scaled(beta),
        Begin::Bias(bias) => {
            assert!(bias.len() == n, "the length of the bias was checked");
            Start::Bias(bias.as_ptr())
        }
    };
    let like_c = |view: MatRef| {
        let strides = (view.row_stride(), view.col_stride());
        assert!(view.shape() == (m, n) && strides == (c.row_stride(), c.col_stride()), "it lies like C");
    };
    let epilogue = match after {
        After::Activate(activation) => Epilogue::Activate { activation, before: std::ptr::null_mut() },
        After::Save(activation, mut before) => {
            like_c(before.as_ref());
            Epilogue::Activate { activation, before: before.as_mut_ptr() }
        }
        After::Derivative(activation, saved) => {
            like_c(saved);
            Epilogue::Derivative { activation, saved: saved.as_ptr() }
        }
    };
    let product = Product {
        m,
        n,
        k: if alpha == 0.0 { 0 } else { k },
        alpha,
        a: operand(a),
        b,
        c: c.as_mut_ptr(),
        c_row: c.row_stride() as isize,
        c_col: c.col_stride() as isize,
        start,
        epilogue,
        offset: 0,
        first_row: true,
        is_part: false,
    };
    // SAFETY: the views were checked against their slices when they were made, the asserts above tie their shapes
    // together, and C is borrowed mutably, so it overlaps nothing and no two of its elements share a place.
    unsafe { parallel::run(isa, &product) }
}

/// Updates the weights (`[in, out]`) and biases of a layer by the gradients `X^T delta` and the sums of delta over its
/// rows, neither of which is stored. The caller has checked that the shapes fit; rows of delta are contiguous.
#[inline(always)]
pub(crate) fn descend(
    isa: Isa,
    (x, delta): (MatRef, MatRef),
    (rule, scaling): (&Rule, &Scaling),
    mut weights: Tensors,
    mut biases: Tensors,
) {
    let (m, n, k) = (x.cols(), delta.cols(), x.rows());
    assert!(delta.rows() == k && delta.col_stride() == 1, "delta was checked");
    let row = weights.row;
    assert!(row >= n, "rows of weights do not overlap");
    let (weights, biases) = (weights.places(rule, m * row), biases.places(rule, n));
    let descent = Descent { rule, scaling, plain: rule.plain(scaling), weights, biases };
    let product = Product {
        m,
        n,
        k,
        alpha: 1.0,
        a: operand(x.t()),
        b: Rhs::Plain(operand(delta)),
        c: descent.weights.weights,
        c_row: row as isize,
        c_col: 1,
        start: Start::Zero,
        epilogue: Epilogue::Descend(&descent),
        offset: 0,
        first_row: true,
        is_part: false,
    };
    // SAFETY: as for `run`; `places` has checked that weights, biases and state have an element for each gradient.
    unsafe { parallel::run(isa, &product) }
}

/// A right-hand side in the order in which the kernels read it. The layout is the same for every instruction set.
#[derive(Clone)]
pub(crate) struct Panels {
    data: Buffer,
    k: usize,
    n: usize,
}

impl Panels {
    pub(crate) fn new(b: MatRef) -> Self {
        let (k, n) = (b.rows(), b.cols());
        let mut data = Buffer::zeros(packed_len(k, n));
        if k > 0 && n > 0 {
            // SAFETY: the view was checked to hold k rows and n columns when it was made.
            Isa::current().dispatch(unsafe { Pack::new(operand(b), (k, n), &mut data) });
        }
        Panels { data, k, n }
    }

    /// Rows and columns of the matrix that was packed.
    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.k, self.n)
    }
}
