//! percycle as a framework among others.

/// One call of what is timed: the loss of a step before its update, or the first output of a prediction.
pub type Call<'a> = Box<dyn FnMut() -> f32 + 'a>;

/// Steps of a check: each framework goes so far from the same weights before it is timed.
pub const CHECK_STEPS: usize = 10;

/// `model` and `prepare` for a commit of percycle, by the name of its crate: the types are each crate's own, so the code is written
/// once and compiled for each.
#[macro_export]
macro_rules! calls_of {
    ($percycle:ident) => {
        /// A net of so many inputs and outputs of layers, the last without an activation, and always the same first weights.
        pub fn model(
            units: &[usize],
            hidden: $percycle::Activation,
        ) -> Result<$percycle::Mlp, $crate::Failure> {
            let mut builder = $percycle::Mlp::builder(units[0]).init($percycle::Init::PyTorchLinear).seed(1);
            for (i, &outputs) in units.iter().enumerate().skip(1) {
                let last = i + 1 == units.len();
                builder = builder.layer(outputs, if last { $percycle::Activation::Identity } else { hidden });
            }
            Ok(builder.build()?)
        }

        /// percycle's call for a net and a learning rate, from the first weights of the net.
        pub fn prepare(
            net: &$crate::nets::Net,
            rate: f64,
        ) -> Result<$crate::ours::Call<'_>, $crate::Failure> {
            use $crate::nets::{Loss, Optimizer, Targets, Task};
            use $percycle::{MatRef, Matrix};
            let hidden = match net.is_gelu() {
                true => $percycle::Activation::Gelu,
                false => $percycle::Activation::Relu,
            };
            let model = model(&net.units, hidden)?;
            let (batch, inputs) = (net.batch(), net.units[0]);
            let outputs = net.units[net.units.len() - 1];
            let x = move || MatRef::new(net.x.as_slice(), batch, inputs).expect("the samples fit");
            let Task::Step(loss, optimizer) = net.task else {
                let mut workspace = $percycle::Workspace::new();
                let mut y = Matrix::zeros(batch, outputs);
                return Ok(Box::new(move || {
                    model.predict_into(x(), &mut workspace, y.view_mut()).expect("the shapes fit");
                    y.as_slice()[0]
                }));
            };
            let loss = match loss {
                Loss::Mse => $percycle::Loss::Mse,
                Loss::Bce => $percycle::Loss::BceWithLogits,
                Loss::CrossEntropy => $percycle::Loss::CrossEntropy { label_smoothing: 0.0 },
            };
            let optimizer: $percycle::Optimizer = match optimizer {
                Optimizer::Sgd => $percycle::Sgd::new(rate as f32).into(),
                Optimizer::Adam => $percycle::Adam::new(rate as f32).into(),
            };
            let mut trainer = $percycle::Trainer::new(model, loss, optimizer)?;
            Ok(Box::new(move || {
                let targets = match &net.targets {
                    Targets::Values(values) => $percycle::Targets::Values(
                        MatRef::new(values.as_slice(), batch, outputs).expect("the targets fit"),
                    ),
                    Targets::Classes(classes) => $percycle::Targets::Classes(classes),
                };
                trainer.step(x(), targets).expect("the batch fits")
            }))
        }
    };
}

calls_of!(percycle);
