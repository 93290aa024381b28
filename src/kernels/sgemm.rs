//! The products on raw pointers and on checked views.

use super::activation::Activation;
use super::meter;
use super::pack::{Operand, Pack, packed_len};
use super::parallel;
use super::product::{Descent, Epilogue, Product, Rhs};
use super::tile::Start;
use super::update::{Rule, Scaling, Tensors};
use crate::buffer::Buffer;
use crate::matrix::{MatMut, MatRef};
use crate::simd::{Body, Isa, Simd};

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
#[inline]
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
    let a = Operand { ptr: a, row: rsa, col: csa };
    let b = Operand { ptr: b, row: rsb, col: csb };
    let args = Sgemm { m, n, k, a, b, c, c_row: rsc, c_col: csc, alpha, beta };
    // SAFETY: what `Product` needs is what this function's contract says.
    if !unsafe { args.run_chosen() } {
        // SAFETY: as before.
        Isa::best().pin(|| unsafe { args.run_chosen() });
    }
}

/// What [`sgemm`] is called with. Handing on takes a small product as long as multiplying, and a core writes two values in a cycle: so
/// only these go by way of memory, and what they make a [`Product`] is known where it is computed.
#[derive(Clone, Copy)]
struct Sgemm {
    m: usize,
    n: usize,
    k: usize,
    a: Operand,
    b: Operand,
    c_row: isize,
    c: *mut f32,
    c_col: isize,
    alpha: f32,
    beta: f32,
}

impl Sgemm {
    #[inline(always)]
    fn product(self) -> Product<'static> {
        let Sgemm { m, n, k, a, b, c, c_row, c_col, alpha, beta } = self;
        Product {
            m,
            n,
            k: if alpha == 0.0 { 0 } else { k },
            alpha,
            a,
            b: Rhs::Plain(b),
            c,
            c_row,
            c_col,
            start: if beta == 0.0 { Start::Zero } else { Start::Scaled(beta) },
            epilogue: Epilogue::Activate { activation: Activation::Identity, before: std::ptr::null_mut() },
            offset: 0,
            first_row: true,
            is_part: false,
        }
    }

    /// Computes it with the instruction set that was chosen, and says whether there is one.
    ///
    /// # Safety
    /// As for [`sgemm`].
    #[inline(never)]
    unsafe fn run_chosen(&self) -> bool {
        let Some(isa) = Isa::chosen() else { return false };
        if meter::watched() {
            self.note(isa);
        }
        if self.alpha == 1.0 && self.beta == 0.0 {
            isa.dispatch(Compiled::<true>(isa, self))
        } else {
            isa.dispatch(Compiled::<false>(isa, self))
        }
    }

    #[cold]
    fn note(&self, isa: Isa) {
        meter::note_kernel(isa, &self.product());
    }
}

/// [`Sgemm`], compiled for an instruction set; once for `C = A B`, most of all products, of which nothing else needs to be asked.
struct Compiled<'a, const PLAIN: bool>(Isa, &'a Sgemm);

impl<const PLAIN: bool> Body for Compiled<'_, PLAIN> {
    type Out = bool;

    #[inline(always)]
    fn call<S: Simd>(self, s: S) -> bool {
        let Compiled(isa, &args) = self;
        let args = if PLAIN { Sgemm { alpha: 1.0, beta: 0.0, ..args } } else { args };
        let product = args.product();
        // SAFETY: what `Product` needs is what `sgemm`'s contract says.
        unsafe {
            if !parallel::run_small(s, &product) {
                // A copy, as in `parallel::run`.
                parallel::run_other(s, isa, &{ product });
            }
        }
        true
    }
}

/// `C = alpha A B + beta C`, and whether it was computed: if the shapes fit, and there is an instruction set.
#[inline(always)]
pub(crate) fn multiply(alpha: f32, a: MatRef, b: MatRef, beta: f32, mut c: MatMut) -> bool {
    let (m, n, k) = (c.rows(), c.cols(), b.rows());
    if a.shape() != (m, k) || b.cols() != n {
        return false;
    }
    let (a, b) = (operand(a), operand(b));
    let (c_row, c_col) = (c.row_stride() as isize, c.col_stride() as isize);
    let args = Sgemm { m, n, k, a, b, c: c.as_mut_ptr(), c_row, c_col, alpha, beta };
    // SAFETY: the views were checked against their slices when they were made, the shapes fit, and C is borrowed mutably, so it
    // overlaps nothing and no two of its elements share a place.
    unsafe { args.run_chosen() }
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

/// `C = after(start + alpha A B)`, if the shapes fit.
#[inline(always)]
fn product<'a>(
    alpha: f32,
    a: MatRef,
    b: Right,
    begin: Begin,
    after: After,
    mut c: MatMut,
) -> Option<Product<'a>> {
    let (m, n) = c.shape();
    let (shape, b) = match b {
        Right::View(b) => (b.shape(), Rhs::Plain(operand(b))),
        Right::Packed(b) => (b.shape(), Rhs::Packed(b.data.as_ptr())),
    };
    let k = shape.0;
    if a.shape() != (m, k) || shape.1 != n {
        return None;
    }
    let start = match begin {
        Begin::Scaled(0.0) => Start::Zero,
        Begin::Scaled(beta) => Start::Scaled(beta),
        Begin::Bias(bias) if bias.len() == n => Start::Bias(bias.as_ptr()),
        Begin::Bias(_) => return None,
    };
    let like_c = |view: MatRef| {
        view.shape() == (m, n) && (view.row_stride(), view.col_stride()) == (c.row_stride(), c.col_stride())
    };
    let epilogue = match after {
        After::Activate(activation) => Epilogue::Activate { activation, before: std::ptr::null_mut() },
        After::Save(activation, mut before) if like_c(before.as_ref()) => {
            Epilogue::Activate { activation, before: before.as_mut_ptr() }
        }
        After::Derivative(activation, saved) if like_c(saved) => {
            Epilogue::Derivative { activation, saved: saved.as_ptr() }
        }
        After::Save(..) | After::Derivative(..) => return None,
    };
    Some(Product {
        m,
        n,
        k: if alpha == 0.0 { 0 } else { k },
        alpha,
        a: operand(a),
        b,
        c_row: c.row_stride() as isize,
        c_col: c.col_stride() as isize,
        c: c.as_mut_ptr(),
        start,
        epilogue,
        offset: 0,
        first_row: true,
        is_part: false,
    })
}

/// `C = after(start + alpha A B)` on views whose shapes the caller has checked to fit.
#[inline(always)]
pub(crate) fn run(isa: Isa, alpha: f32, a: MatRef, b: Right, begin: Begin, after: After, c: MatMut) {
    let Some(product) = product(alpha, a, b, begin, after, c) else { panic!("the shapes were checked") };
    // SAFETY: the views were checked against their slices when they were made, their shapes fit, and C is borrowed mutably, so it
    // overlaps nothing and no two of its elements share a place.
    unsafe { parallel::run(isa, &product) }
}

/// The same with the instruction set that was chosen, and whether it was computed: if the shapes fit, and there is one.
#[inline(always)]
pub(crate) fn run_chosen(alpha: f32, a: MatRef, b: Right, begin: Begin, after: After, c: MatMut) -> bool {
    // SAFETY: as for `run`.
    product(alpha, a, b, begin, after, c).is_some_and(|product| unsafe { parallel::run_chosen(&product) })
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
    let (a, b) = (operand(x.t()), operand(delta));
    let (c_row, c) = (row as isize, descent.weights.weights);
    let gradient = Sgemm { m, n, k, a, b, c_row, c, c_col: 1, alpha: 1.0, beta: 0.0 };
    let product = Product { epilogue: Epilogue::Descend(&descent), ..gradient.product() };
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
