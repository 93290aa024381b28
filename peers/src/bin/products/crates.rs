//! The peers written in Rust.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_tensor::Matrix;

use percycle_peers::problem::{Lying, Problem};

/// A way to compute C, which is row-major.
pub trait Peer {
    fn name(&self) -> &str;
    fn multiply(&self, problem: &Problem, c: &mut [f32]);
}

pub struct Percycle;

impl Peer for Percycle {
    fn name(&self) -> &str {
        "percycle"
    }

    /// The safe call with all its checks, views included: what a user calls.
    fn multiply(&self, problem: &Problem, c: &mut [f32]) {
        percycle::MatMut::new(c, problem.m, problem.n)
            .and_then(|c| percycle::matmul(problem.view_a()?, problem.view_b()?, c))
            .expect("the shapes fit");
    }
}

pub struct Matrixmultiply(());

impl Matrixmultiply {
    /// It takes the number of threads from the environment, and uses 4 at most.
    pub fn new(threads: usize) -> Matrixmultiply {
        // SAFETY: `main` makes the peers before anything else starts a thread.
        unsafe { std::env::set_var("MATMUL_NUM_THREADS", threads.min(4).to_string()) };
        Matrixmultiply(())
    }
}

impl Peer for Matrixmultiply {
    fn name(&self) -> &str {
        "matrixmultiply"
    }

    fn multiply(&self, problem: &Problem, c: &mut [f32]) {
        let (a, b) = (problem.lying_a, problem.lying_b);
        let (m, k, n) = (problem.m, problem.k, problem.n);
        assert_eq!(c.len(), m * n);
        let (rsa, csa, rsb, csb) = strides(a, b);
        let (a, b, c) = (problem.a().as_ptr(), problem.b().as_ptr(), c.as_mut_ptr());
        // SAFETY: a `Problem` holds every element that its strides name, and C, borrowed mutably, is m x n.
        unsafe { matrixmultiply::sgemm(m, k, n, 1.0, a, rsa, csa, b, rsb, csb, 0.0, c, n as isize, 1) }
    }
}

pub struct Gemm(pub gemm::Parallelism);

impl Peer for Gemm {
    fn name(&self) -> &str {
        "gemm"
    }

    fn multiply(&self, problem: &Problem, c: &mut [f32]) {
        let (a, b) = (problem.lying_a, problem.lying_b);
        let (m, k, n) = (problem.m, problem.k, problem.n);
        assert_eq!(c.len(), m * n);
        let (rsa, csa, rsb, csb) = strides(a, b);
        let (a, b, c) = (problem.a().as_ptr(), problem.b().as_ptr(), c.as_mut_ptr());
        // Its `alpha` multiplies what C holds, which is not read here, and its `beta` the product.
        let (alpha, beta, read_c, conjugate) = (0.0, 1.0, false, false);
        // SAFETY: as for matrixmultiply; here the column strides come first.
        unsafe {
            gemm::gemm(
                m, n, k, c, 1, n as isize, read_c, a, csa, rsa, b, csb, rsb, alpha, beta, conjugate,
                conjugate, conjugate, self.0,
            );
        }
    }
}

pub struct Gemmkit(pub gemmkit::Parallelism);

impl Peer for Gemmkit {
    fn name(&self) -> &str {
        "gemmkit"
    }

    fn multiply(&self, problem: &Problem, c: &mut [f32]) {
        let (m, k, n) = (problem.m, problem.k, problem.n);
        let (rsa, csa, rsb, csb) = strides(problem.lying_a, problem.lying_b);
        let a = gemmkit::MatRef::new(problem.a(), m, k, rsa, csa);
        let b = gemmkit::MatRef::new(problem.b(), k, n, rsb, csb);
        gemmkit::gemm(1.0, a, b, 0.0, gemmkit::MatMut::from_row_major(c, m, n), self.0);
    }
}

pub struct Faer(pub Par);

impl Peer for Faer {
    fn name(&self) -> &str {
        "faer"
    }

    fn multiply(&self, problem: &Problem, c: &mut [f32]) {
        let view = |data, lying: Lying| match lying.transposed {
            false => MatRef::from_row_major_slice(data, lying.rows, lying.cols),
            true => MatRef::from_column_major_slice(data, lying.rows, lying.cols),
        };
        let (a, b) = (view(problem.a(), problem.lying_a), view(problem.b(), problem.lying_b));
        let c = MatMut::from_row_major_slice_mut(c, problem.m, problem.n);
        matmul(c, Accum::Replace, a, b, 1.0, self.0);
    }
}

pub struct Rten(pub GemmExecutor);

impl Peer for Rten {
    fn name(&self) -> &str {
        "rten-gemm"
    }

    fn multiply(&self, problem: &Problem, c: &mut [f32]) {
        fn view(data: &[f32], lying: Lying) -> Matrix<'_> {
            let (shape, strides) = ([lying.rows, lying.cols], lying.strides().into());
            Matrix::from_slice_with_strides(shape, data, strides).expect("the strides name what there is")
        }
        let a = GemmInputA::Unpacked(view(problem.a(), problem.lying_a));
        let b = GemmInputB::Unpacked(view(problem.b(), problem.lying_b));
        self.0.gemm(c, a, b, GemmOptions::default()).expect("the shapes fit");
    }
}

/// Row and column strides of A, then of B.
fn strides(a: Lying, b: Lying) -> (isize, isize, isize, isize) {
    let (a, b) = (a.strides(), b.strides());
    (a.0 as isize, a.1 as isize, b.0 as isize, b.1 as isize)
}
