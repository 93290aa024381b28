//! percycle as a framework among others.

use percycle::{Adam, Matrix, Sgd, Trainer, Workspace};

use crate::Failure;
use crate::nets::{Loss, Net, Optimizer, Targets, Task};

/// One call of what is timed: the loss of a step before its update, or the first output of a prediction.
pub type Call<'a> = Box<dyn FnMut() -> f32 + 'a>;

/// Steps of a check: each framework goes so far from the same weights before it is timed.
pub const CHECK_STEPS: usize = 10;

/// percycle's call for a net and a learning rate, from the first weights of the net.
pub fn prepare(net: &Net, rate: f64) -> Result<Call<'_>, Failure> {
    let Task::Step(loss, optimizer) = net.task else {
        let outputs = net.model.layers().last().map_or(0, |layer| layer.out_features());
        let (mut workspace, mut y) = (Workspace::new(), Matrix::zeros(net.batch(), outputs));
        return Ok(Box::new(move || {
            net.model.predict_into(net.x.view(), &mut workspace, y.view_mut()).expect("the shapes fit");
            y.as_slice()[0]
        }));
    };
    let loss = match loss {
        Loss::Mse => percycle::Loss::Mse,
        Loss::Bce => percycle::Loss::BceWithLogits,
        Loss::CrossEntropy => percycle::Loss::CrossEntropy { label_smoothing: 0.0 },
    };
    let optimizer: percycle::Optimizer = match optimizer {
        Optimizer::Sgd => Sgd::new(rate as f32).into(),
        Optimizer::Adam => Adam::new(rate as f32).into(),
    };
    let mut trainer = Trainer::new(net.model.clone(), loss, optimizer)?;
    Ok(Box::new(move || {
        let targets = match &net.targets {
            Targets::Values(values) => percycle::Targets::Values(values.view()),
            Targets::Classes(classes) => percycle::Targets::Classes(classes),
        };
        trainer.step(net.x.view(), targets).expect("the batch fits")
    }))
}
