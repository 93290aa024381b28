//! The same calls of both commits.

macro_rules! version {
    ($percycle:ident) => {
        pub mod $percycle {
            use percycle_peers::Contender;
            use percycle_peers::problem::{Lying, Problem};
            use $percycle::{MatMut, MatRef};

            percycle_peers::calls_of!($percycle);

            pub fn product(problem: &Problem) -> Contender<'_> {
                let mut c = problem.output();
                Box::new(move || {
                    MatMut::new(c.get_mut(), problem.m, problem.n)
                        .and_then(|c| {
                            let a = view(problem.lying_a, problem.a())?;
                            $percycle::matmul(a, view(problem.lying_b, problem.b())?, c)
                        })
                        .expect("the shapes fit");
                })
            }

            #[inline]
            fn view(lying: Lying, data: &[f32]) -> $percycle::Result<MatRef<'_>> {
                let (row_stride, col_stride) = lying.strides();
                MatRef::strided(data, lying.rows, lying.cols, row_stride, col_stride)
            }
        }
    };
}

version!(before);
version!(now);
