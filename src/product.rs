//! The products: checked, then handed to the kernels.

use crate::error::{Error, Result};
use crate::kernels::{Activation, After, Begin, Panels, Right, multiply, run_chosen};
use crate::matrix::{MatMut, MatRef};
use crate::simd::Isa;

/// `C = A B`, with A `m` x `k`, B `k` x `n` and C `m` x `n`. C is not read.
///
/// Each element is the chain of fused multiply-adds over ascending k, whatever the strides, the instruction set and the
/// number of threads.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit; [`Error::Isa`] when `PERCYCLE_ISA` asks for what this CPU lacks.
///
/// ```
/// use percycle::{matmul, Matrix};
///
/// let a = Matrix::from_vec(1, 2, vec![1.0, 2.0])?;
/// let b = Matrix::from_vec(2, 2, vec![3.0, 4.0, 5.0, 6.0])?;
/// let mut c = Matrix::zeros(1, 2);
/// matmul(a.view(), b.view(), c.view_mut())?;
/// assert_eq!(c.as_slice(), [13.0, 16.0]);
/// # Ok::<(), percycle::Error>(())
/// ```
#[inline]
pub fn matmul(a: MatRef, b: MatRef, c: MatMut) -> Result<()> {
    checked("matmul", 1.0, a, b, 0.0, c)
}

/// `C = alpha A B + beta C`, with A `m` x `k`, B `k` x `n` and C `m` x `n`.
///
/// `alpha * a` is rounded once, then the chain over ascending k starts from `beta * c`. C is not read when `beta` is 0;
/// A and B are not read when `alpha` is 0.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit; [`Error::Isa`] when `PERCYCLE_ISA` asks for what this CPU lacks.
///
/// ```
/// use percycle::{gemm, Matrix};
///
/// let (a, b) = (Matrix::from_vec(1, 1, vec![3.0])?, Matrix::from_vec(1, 1, vec![5.0])?);
/// let mut c = Matrix::from_vec(1, 1, vec![100.0])?;
/// gemm(2.0, a.view(), b.view(), 0.5, c.view_mut())?;
/// assert_eq!(c.as_slice(), [80.0]);
/// # Ok::<(), percycle::Error>(())
/// ```
#[inline]
pub fn gemm(alpha: f32, a: MatRef, b: MatRef, beta: f32, c: MatMut) -> Result<()> {
    checked("gemm", alpha, a, b, beta, c)
}

/// `Y = act(X W + b)`, with X `batch` x `in`, W `in` x `out`, b of `out` values and Y `batch` x `out`.
///
/// The chain starts from the bias (from 0 without one), and the activation is applied before the result leaves the
/// core: neither costs a pass over memory.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Length`] when the shapes do not fit, [`Error::Setting`] for an activation that cannot
/// be (a slope that is not finite), [`Error::Isa`] when `PERCYCLE_ISA` asks for what this CPU lacks.
///
/// ```
/// use percycle::{linear, Activation, Matrix};
///
/// let x = Matrix::from_vec(1, 2, vec![1.0, -1.0])?;
/// let w = Matrix::from_vec(2, 2, vec![0.5, 1.0, 2.0, 0.5])?;
/// let mut y = Matrix::zeros(1, 2);
/// linear(x.view(), w.view(), Some(&[0.25, 0.25]), Activation::Relu, y.view_mut())?;
/// assert_eq!(y.as_slice(), [0.0, 0.75]);
/// # Ok::<(), percycle::Error>(())
/// ```
#[inline]
pub fn linear(x: MatRef, w: MatRef, bias: Option<&[f32]>, act: Activation, y: MatMut) -> Result<()> {
    linear_checked("linear", x, w.shape(), Right::View(w), bias, act, y)
}

/// Like [`linear`], with weights that were packed before: the same bits.
///
/// # Errors
/// As for [`linear`].
///
/// ```
/// use percycle::{linear, linear_packed, Activation, Matrix, PackedWeights};
///
/// let (x, w) = (Matrix::from_vec(1, 2, vec![1.0, 2.0])?, Matrix::from_vec(2, 1, vec![3.0, 4.0])?);
/// let packed = PackedWeights::new(w.view());
/// let mut y = Matrix::zeros(1, 1);
/// linear_packed(x.view(), &packed, None, Activation::Identity, y.view_mut())?;
/// assert_eq!(y.as_slice(), [11.0]);
/// # Ok::<(), percycle::Error>(())
/// ```
#[inline]
pub fn linear_packed(
    x: MatRef,
    w: &PackedWeights,
    bias: Option<&[f32]>,
    act: Activation,
    y: MatMut,
) -> Result<()> {
    linear_checked("linear_packed", x, w.0.shape(), Right::Packed(&w.0), bias, act, y)
}

/// Weights copied once into the order in which the kernels read them: for many products with the same weights, and for
/// weights that lie transposed (`w.t()` of an `[out, in]` matrix).
///
/// The layout does not depend on the instruction set. It takes `in * out` values, `out` rounded up to 32.
///
/// ```
/// use percycle::{Matrix, PackedWeights};
///
/// let w = Matrix::zeros(784, 512);
/// let packed = PackedWeights::new(w.view());
/// assert_eq!((packed.in_features(), packed.out_features()), (784, 512));
/// ```
#[derive(Clone)]
pub struct PackedWeights(Panels);

impl PackedWeights {
    /// Packs `w`, which is `[in, out]`, with any strides.
    pub fn new(w: MatRef) -> PackedWeights {
        PackedWeights(Panels::new(w))
    }

    /// Rows of the weights: values in a sample.
    pub fn in_features(&self) -> usize {
        self.0.shape().0
    }

    /// Columns of the weights: outputs.
    pub fn out_features(&self) -> usize {
        self.0.shape().1
    }
}

impl std::fmt::Debug for PackedWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedWeights({}x{})", self.in_features(), self.out_features())
    }
}

// A small product takes no longer than handing three views on and finding out what they are: whoever makes the views knows it when it is
// compiled. What went wrong, if it did, is found out after that.
#[inline(always)]
fn checked(op: &'static str, alpha: f32, a: MatRef, b: MatRef, beta: f32, c: MatMut) -> Result<()> {
    let of_c = c.shape();
    if multiply(alpha, a, b, beta, c) { Ok(()) } else { refused(op, a.shape(), b.shape(), of_c) }
}

type Shape = (usize, usize);

#[cold]
fn refused(op: &'static str, a: Shape, b: Shape, c: Shape) -> Result<()> {
    check_inner(op, ("a", a), ("b", b), "a needs as many columns as b has rows")?;
    check_output(op, "c", c, (a.0, b.1), "c must be rows of a x columns of b")?;
    Isa::try_current().map(drop)
}

#[inline(always)]
fn linear_checked(
    op: &'static str,
    x: MatRef,
    w_shape: Shape,
    w: Right,
    bias: Option<&[f32]>,
    act: Activation,
    y: MatMut,
) -> Result<()> {
    let of_y = y.shape();
    let begin = bias.map_or(Begin::Scaled(0.0), Begin::Bias);
    if act.is_valid() && run_chosen(1.0, x, w, begin, After::Activate(act), y) {
        Ok(())
    } else {
        linear_refused(op, act, x.shape(), w_shape, of_y, bias.map(<[f32]>::len))
    }
}

#[cold]
fn linear_refused(
    op: &'static str,
    act: Activation,
    x: Shape,
    w: Shape,
    y: Shape,
    bias: Option<usize>,
) -> Result<()> {
    act.validate()?;
    let cure = "w is [in, out]: x needs as many columns as w has rows (weights in PyTorch's [out, in] go in as w.t())";
    check_inner(op, ("x", x), ("w", w), cure)?;
    check_output(op, "y", y, (x.0, w.1), "y must be rows of x x columns of w")?;
    if let Some(got) = bias
        && got != w.1
    {
        let cure = "one value for each column of w";
        return Err(Error::Length { op, name: "bias", got, want: w.1, cure });
    }
    Isa::try_current().map(drop)
}

type Named = (&'static str, Shape);

fn check_inner(op: &'static str, lhs: Named, rhs: Named, cure: &'static str) -> Result<()> {
    let ((left, left_shape), (right, right_shape)) = (lhs, rhs);
    if left_shape.1 != right_shape.0 {
        return Err(Error::Shape { op, left, left_shape, right, right_shape, cure });
    }
    Ok(())
}

fn check_output(
    op: &'static str,
    name: &'static str,
    shape: Shape,
    product: Shape,
    cure: &'static str,
) -> Result<()> {
    if shape != product {
        let (left, right) = (name, "the product");
        return Err(Error::Shape { op, left, left_shape: shape, right, right_shape: product, cure });
    }
    Ok(())
}
