//! The same calls of both commits: the types are each crate's own, so the code is written once and compiled for each.

macro_rules! version {
    ($percycle:ident) => {
        pub mod $percycle {
            use percycle_peers::nets::{Loss, Net, Optimizer, TIMED_RATE, Targets, Task};
            use percycle_peers::problem::{Lying, Problem};
            use percycle_peers::{Contender, Failure};
            use $percycle::{Activation, Adam, Init, MatMut, MatRef, Matrix, Mlp, Sgd, Trainer, Workspace};

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

            /// A step, or a prediction.
            pub fn step(net: &Net) -> Result<Contender<'_>, Failure> {
                let model = model(net)?;
                let matrix = |other: &::now::Matrix| {
                    Matrix::from_vec(other.rows(), other.cols(), other.as_slice().to_vec())
                };
                let x = matrix(&net.x)?;
                let Task::Step(loss, optimizer) = net.task else {
                    let mut y = Matrix::zeros(net.batch(), net.units[net.units.len() - 1]);
                    let mut workspace = Workspace::new();
                    return Ok(Box::new(move || {
                        model.predict_into(x.view(), &mut workspace, y.view_mut()).expect("the shapes fit");
                    }));
                };
                let loss = match loss {
                    Loss::Mse => $percycle::Loss::Mse,
                    Loss::Bce => $percycle::Loss::BceWithLogits,
                    Loss::CrossEntropy => $percycle::Loss::CrossEntropy { label_smoothing: 0.0 },
                };
                let optimizer: $percycle::Optimizer = match optimizer {
                    Optimizer::Sgd => Sgd::new(TIMED_RATE as f32).into(),
                    Optimizer::Adam => Adam::new(TIMED_RATE as f32).into(),
                };
                let mut trainer = Trainer::new(model, loss, optimizer)?;
                let values = match &net.targets {
                    Targets::Values(values) => Some(matrix(values)?),
                    Targets::Classes(_) => None,
                };
                Ok(Box::new(move || {
                    let targets = match (&net.targets, &values) {
                        (Targets::Classes(classes), _) => $percycle::Targets::Classes(classes),
                        (_, Some(values)) => $percycle::Targets::Values(values.view()),
                        (Targets::Values(_), None) => unreachable!("copied above"),
                    };
                    trainer.step(x.view(), targets).expect("the batch fits");
                }))
            }

            /// The net again, with the same first weights.
            fn model(net: &Net) -> Result<Mlp, Failure> {
                let hidden = match net.hidden {
                    ::now::Activation::Gelu => Activation::Gelu,
                    _ => Activation::Relu,
                };
                let mut builder = Mlp::builder(net.units[0]).init(Init::PyTorchLinear).seed(1);
                for (i, &outputs) in net.units.iter().enumerate().skip(1) {
                    let last = i + 1 == net.units.len();
                    builder = builder.layer(outputs, if last { Activation::Identity } else { hidden });
                }
                Ok(builder.build()?)
            }
        }
    };
}

version!(before);
version!(now);
