//! Bad input is refused with an error that says what to do, and the trainer is then as it was: it goes on
//! with the same bits as a twin that never saw the bad input.

mod common;
#[path = "training/network.rs"]
mod network;

use common::alone;
use network::{bits, mlp};
use percycle::{
    Activation, Adam, AdamW, Clip, Error, Init, Loss, MatRef, Mlp, Optimizer, Result, Sgd, Targets, Trainer,
};

const X: [f32; 6] = [0.5, -0.25, 1.0, 0.75, -1.0, 0.125];
const VALUES: [f32; 4] = [0.0, 1.0, 0.25, 0.5];
const CLASSES: [u32; 2] = [1, 0];
const CROSS_ENTROPY: Loss = Loss::CrossEntropy { label_smoothing: 0.1 };

/// 3 inputs, 4 hidden units, 2 outputs.
fn trainer(loss: Loss, last: Activation, optimizer: impl Into<Optimizer>) -> Trainer {
    let model = mlp(3, &[(4, Activation::Tanh), (2, last)], 1);
    Trainer::new(model, loss, optimizer).unwrap()
}

fn view(data: &[f32], rows: usize, cols: usize) -> MatRef<'_> {
    MatRef::new(data, rows, cols).unwrap()
}

fn good(loss: Loss) -> Targets<'static> {
    match loss {
        Loss::CrossEntropy { .. } => Targets::Classes(&CLASSES),
        _ => Targets::Values(MatRef::new(&VALUES, 2, 2).unwrap()),
    }
}

/// Steps a trainer that has met something bad, and a twin that has not.
fn same_as_twin(mut trainer: Trainer, mut twin: Trainer) {
    assert_eq!(bits(trainer.model()), bits(twin.model()));
    for _ in 0..3 {
        let x = view(&X, 2, 3);
        let loss = trainer.step(x, good(trainer.loss())).unwrap();
        let want = twin.step(x, good(twin.loss())).unwrap();
        assert_eq!(loss.to_bits(), want.to_bits());
        assert_eq!(bits(trainer.model()), bits(twin.model()));
    }
    assert_eq!(trainer.steps(), twin.steps());
}

/// Expects an error with this text of `call`, at the start, between steps and between micro-batches.
fn refused(loss: Loss, text: &str, call: impl Fn(&mut Trainer) -> Result<()>) {
    let last = if loss == Loss::Bce { Activation::Sigmoid } else { Activation::Identity };
    let start = || trainer(loss, last, Sgd::new(0.1).momentum(0.9));
    for before in 0..3 {
        let (mut met, mut twin) = (start(), start());
        for trainer in [&mut met, &mut twin] {
            match before {
                0 => {}
                1 => drop(trainer.step(view(&X, 2, 3), good(loss)).unwrap()),
                _ => drop(trainer.accumulate(view(&X, 2, 3), good(loss)).unwrap()),
            }
        }
        let error = call(&mut met).unwrap_err().to_string();
        assert!(error.contains(text), "`{error}` does not say `{text}`");
        same_as_twin(met, twin);
    }
}

/// The same for a batch, given to `step` and to `accumulate`.
fn batch_refused(loss: Loss, text: &str, x: MatRef, targets: Targets) {
    refused(loss, text, |trainer| trainer.step(x, targets).map(drop));
    refused(loss, text, |trainer| trainer.accumulate(x, targets).map(drop));
}

#[test]
fn shapes() {
    let x = view(&X, 2, 3);
    let values = Targets::Values(view(&VALUES, 2, 2));
    batch_refused(Loss::Mse, "x is 3x2 but", view(&X, 3, 2), values);
    batch_refused(Loss::Mse, "targets is 1x2", x, Targets::Values(view(&VALUES, 1, 2)));
    batch_refused(Loss::Mse, "targets is 2x1", x, Targets::Values(view(&VALUES, 2, 1)));
    batch_refused(CROSS_ENTROPY, "targets holds 1 elements", x, Targets::Classes(&[0]));
    batch_refused(CROSS_ENTROPY, "targets holds 3 elements", x, Targets::Classes(&[0, 1, 0]));
}

#[test]
fn kind_of_targets() {
    let x = view(&X, 2, 3);
    for loss in [Loss::Mse, Loss::Bce, Loss::BceWithLogits] {
        let mut trainer = trainer(loss, Activation::Sigmoid, Sgd::new(0.1));
        let error = trainer.step(x, Targets::Classes(&CLASSES)).unwrap_err();
        assert!(matches!(error, Error::Targets { takes: "values", .. }), "{error}");
    }
    batch_refused(CROSS_ENTROPY, "takes classes", x, Targets::Values(view(&VALUES, 2, 2)));
    batch_refused(Loss::Mse, "takes values", x, Targets::Classes(&CLASSES));
}

#[test]
fn nothing_to_work_on() {
    batch_refused(Loss::Mse, "batch is empty", view(&[], 0, 3), Targets::Values(view(&[], 0, 2)));
    batch_refused(CROSS_ENTROPY, "batch is empty", view(&[], 0, 3), Targets::Classes(&[]));
    let mut trainer = trainer(Loss::Mse, Activation::Identity, Sgd::new(0.1));
    assert!(matches!(trainer.apply(), Err(Error::Empty { .. })));
}

#[test]
fn classes_out_of_range() {
    let x = view(&X, 2, 3);
    batch_refused(CROSS_ENTROPY, "target 1 is class 2", x, Targets::Classes(&[1, 2]));
    batch_refused(CROSS_ENTROPY, "target 0 is class 4294967295", x, Targets::Classes(&[u32::MAX, 0]));
}

#[test]
fn data_that_is_not_finite() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut data = X;
        data[4] = bad;
        let name = format!("x[1, 1] is {bad}");
        batch_refused(Loss::Mse, &name, view(&data, 2, 3), good(Loss::Mse));
        // The same sample, read through a transpose.
        let mut columns = [0.0; 6];
        for i in 0..6 {
            columns[i % 3 * 2 + i / 3] = data[i];
        }
        batch_refused(Loss::Mse, &name, view(&columns, 3, 2).t(), good(Loss::Mse));

        let mut values = VALUES;
        values[3] = bad;
        let name = format!("targets[1, 1] is {bad}");
        let targets = Targets::Values(view(&values, 2, 2));
        for loss in [Loss::Mse, Loss::Bce, Loss::BceWithLogits] {
            batch_refused(loss, &name, view(&X, 2, 3), targets);
        }
    }
}

/// A sample repeated by a stride of 0 more often than memory holds its outputs.
#[test]
fn batches_larger_than_memory() {
    let rows = usize::MAX >> 8;
    let x = MatRef::strided(&X, rows, 3, 0, 1).unwrap();
    let targets = Targets::Values(MatRef::strided(&VALUES, rows, 2, 0, 1).unwrap());
    batch_refused(Loss::Mse, "more elements than can be addressed", x, targets);
}

/// The first layer has memory for them, the second has not.
#[test]
fn batches_that_fit_some_layers_only() {
    let (rows, outputs) = (1 << 23, 1 << 22);
    let model = mlp(1, &[(1, Activation::Tanh), (outputs, Activation::Identity)], 1);
    let mut met = Trainer::new(model, Loss::Mse, Sgd::new(0.1)).unwrap();
    let mut twin = met.clone();
    let (x, t) = ([0.5, -0.25], vec![0.5; outputs]);
    let batch = |rows| MatRef::strided(&x, rows, 1, 0, 1).unwrap();
    let targets = |rows| Targets::Values(MatRef::strided(&t, rows, outputs, 0, 1).unwrap());
    let mut both = |met: &mut Trainer| {
        assert_eq!(met.step(batch(2), targets(2)).unwrap(), twin.step(batch(2), targets(2)).unwrap());
    };
    both(&mut met);
    let error = met.step(batch(rows), targets(rows)).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    both(&mut met);
    assert_eq!(bits(met.model()), bits(twin.model()));
}

#[test]
fn probabilities_outside_their_range() {
    let x = view(&X, 2, 3);
    for bad in [-0.001, 1.001] {
        let mut values = VALUES;
        values[2] = bad;
        let name = format!("targets[1, 0] is {bad}");
        for loss in [Loss::Bce, Loss::BceWithLogits] {
            batch_refused(loss, &name, x, Targets::Values(view(&values, 2, 2)));
        }
    }
}

/// The network ends in no sigmoid, so that `Bce` may meet outputs that are no probabilities: seen after
/// forward, before any change.
#[test]
fn bce_on_what_is_no_probability() {
    let start = || {
        let mut model = mlp(3, &[(4, Activation::Identity), (2, Activation::Identity)], 1);
        let last = &mut model.layers_mut()[1];
        last.set_weight(view(&[0.01; 8], 2, 4)).unwrap();
        last.set_bias(&[0.5, 0.5]).unwrap();
        Trainer::new(model, Loss::Bce, Sgd::new(0.001)).unwrap()
    };
    let (mut met, twin) = (start(), start());
    let large = X.map(|x| x * 1e4);
    let error = met.step(view(&large, 2, 3), good(Loss::Bce)).unwrap_err().to_string();
    assert!(error.contains("the network's output[0, 0] is"), "{error}");
    assert!(error.contains("end the network in Activation::Sigmoid"), "{error}");
    same_as_twin(met, twin);
}

#[test]
fn learning_rates() {
    for bad in [-0.1, f32::NAN, f32::INFINITY] {
        refused(Loss::Mse, "the learning rate", |trainer| trainer.set_learning_rate(bad));
    }
}

#[test]
fn settings_out_of_range() {
    let make = |loss, optimizer: Optimizer| {
        let model = mlp(2, &[(2, Activation::Identity)], 0);
        Trainer::new(model, loss, optimizer)
    };
    let (sgd, adam) = (Sgd::new(0.1), Adam::new(0.1));
    let bad: Vec<(&str, Optimizer)> = vec![
        ("the learning rate", Sgd::new(-0.1).into()),
        ("the learning rate", Adam::new(f32::NAN).into()),
        ("the learning rate", AdamW::new(f32::INFINITY).into()),
        ("the momentum", sgd.momentum(1.1).into()),
        ("the momentum", sgd.momentum(f32::NAN).into()),
        ("the dampening", sgd.momentum(0.9).dampening(-0.1).into()),
        ("nesterov", sgd.nesterov(true).into()),
        ("nesterov", sgd.momentum(0.9).dampening(0.1).nesterov(true).into()),
        ("the weight decay", sgd.weight_decay(-1.0).into()),
        ("a beta", adam.betas(1.0, 0.999).into()),
        ("a beta", adam.betas(0.9, -0.1).into()),
        ("a beta", AdamW::new(0.1).betas(0.9, f64::NAN).into()),
        ("eps", adam.eps(0.0).into()),
        ("eps", AdamW::new(0.1).eps(f32::INFINITY).into()),
        ("the weight decay", AdamW::new(0.1).weight_decay(f32::NAN).into()),
    ];
    for (name, optimizer) in bad {
        let error = make(Loss::Mse, optimizer).unwrap_err().to_string();
        assert!(error.contains(&format!(": {name} is")), "`{error}` does not name `{name}`");
    }
    for label_smoothing in [-0.1, 1.1, f32::NAN] {
        let error = make(Loss::CrossEntropy { label_smoothing }, sgd.into()).unwrap_err();
        assert!(error.to_string().contains("the label smoothing"), "{error}");
    }
    for limit in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        for clip in [Clip::Value(limit), Clip::GlobalNorm(limit)] {
            let error = make(Loss::Mse, sgd.into()).unwrap().with_clip(clip).unwrap_err();
            assert!(error.to_string().contains("the clipping"), "{error}");
        }
    }
}

/// Finite samples, so large that the loss is not: the first layer that overflows is named.
#[test]
fn loss_that_is_not_finite() {
    let huge = [3e38; 6];
    let make = |hidden| {
        let mut model = mlp(3, &[(4, hidden), (2, Activation::Identity)], 1);
        model.layers_mut()[0].set_weight(view(&[1.0; 12], 4, 3)).unwrap();
        Trainer::new(model, Loss::Mse, Sgd::new(0.1).momentum(0.5)).unwrap()
    };
    let (mut met, twin) = (make(Activation::Identity), make(Activation::Identity));
    let error = met.step(view(&huge, 2, 3), good(Loss::Mse)).unwrap_err();
    let first = matches!(error, Error::NotFinite { what: "the loss", epoch: 0, step: 1, layer: Some(0), .. });
    assert!(first, "{error}");
    same_as_twin(met, twin);

    // The last layer alone.
    let mut model = mlp(3, &[(4, Activation::Identity), (2, Activation::Identity)], 1);
    model.layers_mut()[1].set_weight(view(&[3e38; 8], 2, 4)).unwrap();
    model.layers_mut()[0].set_weight(view(&[10.0; 12], 4, 3)).unwrap();
    let mut trainer = Trainer::new(model, Loss::Mse, Sgd::new(0.1)).unwrap();
    let error = trainer.step(view(&X, 2, 3), good(Loss::Mse)).unwrap_err();
    assert!(matches!(error, Error::NotFinite { step: 1, layer: Some(1), .. }), "{error}");

    // Finite outputs whose square is not: no layer to name.
    let targets = [-3e38; 4];
    refused(Loss::Mse, "the loss is not finite", |trainer| {
        trainer.step(view(&X, 2, 3), Targets::Values(view(&targets, 2, 2))).map(drop)
    });
}

/// Weights and optimizer state come back when an update overflows, the first one or a later one. The pending
/// gradients are dropped.
#[test]
fn update_that_is_not_finite() {
    let optimizers: [Optimizer; 4] = [
        Sgd::new(0.1).into(),
        // With dampening the first update differs from the others, so a failed one must not count.
        Sgd::new(0.1).momentum(0.9).dampening(0.3).into(),
        Adam::new(0.1).into(),
        AdamW::new(0.1).weight_decay(0.1).into(),
    ];
    for (optimizer, before) in optimizers.into_iter().flat_map(|optimizer| [(optimizer, 0), (optimizer, 1)]) {
        let start = || {
            let mut trainer = trainer(Loss::Mse, Activation::Identity, optimizer);
            for _ in 0..before {
                trainer.step(view(&X, 2, 3), good(Loss::Mse)).unwrap();
            }
            trainer
        };
        let (mut met, twin) = (start(), start());
        met.set_learning_rate(f32::MAX).unwrap();
        // Far targets, so that at this rate no optimizer ends in finite weights.
        let targets = Targets::Values(view(&[1e9; 4], 2, 2));
        let error = met.step(view(&X, 2, 3), targets).unwrap_err();
        let named =
            matches!(error, Error::NotFinite { epoch: 0, step, layer: Some(_), .. } if step == before + 1);
        assert!(named, "{error}");
        assert_eq!(met.steps(), before);
        assert!(matches!(met.apply(), Err(Error::Empty { .. })), "the gradients were dropped");
        met.set_learning_rate(0.1).unwrap();
        same_as_twin(met, twin);
    }
}

/// Each product of an input and a delta is a number, their sum over the samples is not: no proof may say otherwise.
#[test]
fn gradients_whose_sum_is_not_finite() {
    let model = Mlp::builder(1).layer(1, Activation::Identity).init(Init::Zeros).build().unwrap();
    let mut trainer = Trainer::new(model, Loss::Mse, Sgd::new(1e-30)).unwrap();
    let (x, values) = ([1e19; 40], [1e18; 40]);
    let mut step = |rows| trainer.step(view(&x, rows, 1), Targets::Values(view(&values, rows, 1)));
    let error = step(40).unwrap_err();
    assert!(matches!(error, Error::NotFinite { layer: Some(0), .. }), "{error}");
    step(1).unwrap();
    // 1e-30 times twice 1e19 times 1e18, from 0.
    let weight = trainer.model().layers()[0].weight().as_slice()[0];
    assert!((weight - 2e7).abs() < 10.0, "{weight}");
}

/// Samples of which each leaves so much at the layers of [`in_parts`] that they go through them in parts, on one thread.
const ROWS: usize = 3000;

fn in_parts(loss: Loss) -> Trainer {
    let model = mlp(60, &[(50, Activation::Relu), (40, Activation::Tanh), (4, Activation::Identity)], 1);
    Trainer::new(model, loss, Sgd::new(0.1).momentum(0.9)).unwrap()
}

/// So many values for each of them.
fn data(width: usize) -> Vec<f32> {
    (0..ROWS * width).map(|i| (i * 7919 % 1000) as f32 / 1000.0).collect()
}

/// A batch that goes through the layers in parts is checked as a whole before the first of them; a loss that ends in no number in
/// the last of them leaves nothing of the others.
#[test]
fn batches_in_parts() {
    let (x, values, classes) = (data(60), data(4), (0..ROWS as u32).map(|i| i % 4).collect::<Vec<_>>());
    let met = |loss, text: &str, x_met: &[f32], values_met: &[f32], classes_met: &[u32]| {
        let (mut met, mut twin) = (in_parts(loss), in_parts(loss));
        for (trainer, bad) in [(&mut met, true), (&mut twin, false)] {
            let step = |trainer: &mut Trainer, x, values, classes| {
                let targets = match loss {
                    Loss::CrossEntropy { .. } => Targets::Classes(classes),
                    _ => Targets::Values(view(values, ROWS, 4)),
                };
                trainer.step(view(x, ROWS, 60), targets)
            };
            alone(|| step(trainer, &x, &values, &classes)).unwrap();
            if bad {
                let error = alone(|| step(trainer, x_met, values_met, classes_met)).unwrap_err().to_string();
                assert!(error.contains(text), "`{error}` does not say `{text}`");
            }
            alone(|| step(trainer, &x, &values, &classes)).unwrap();
        }
        assert_eq!(bits(met.model()), bits(twin.model()), "{text}");
        assert_eq!(met.steps(), twin.steps());
    };
    let (mut bad_x, mut bad_values, mut bad_classes) = (x.clone(), values.clone(), classes.clone());
    bad_x[ROWS * 60 - 1] = f32::NAN;
    bad_values[ROWS * 4 - 2] = 3e38;
    bad_classes[ROWS - 1] = 4;
    met(Loss::Mse, "x[2999, 59] is NaN", &bad_x, &values, &classes);
    met(Loss::Mse, "the loss is not finite", &x, &bad_values, &classes);
    met(CROSS_ENTROPY, "target 2999 is class 4", &x, &values, &bad_classes);

    // Outputs that are no probabilities in the last part.
    let mut model = mlp(60, &[(200, Activation::Identity), (4, Activation::Identity)], 1);
    model.layers_mut()[0].set_bias(&[0.0; 200]).unwrap();
    model.layers_mut()[1].set_bias(&[0.5; 4]).unwrap();
    let mut x = vec![0.0; ROWS * 60];
    x[2900 * 60..2901 * 60].fill(1e3);
    let before = bits(&model);
    let mut trainer = Trainer::new(model, Loss::Bce, Sgd::new(0.1)).unwrap();
    let targets = Targets::Values(view(&values, ROWS, 4));
    let error = alone(|| trainer.step(view(&x, ROWS, 60), targets)).unwrap_err();
    assert!(error.to_string().contains("the network's output[2900, "), "{error}");
    assert_eq!(bits(trainer.model()), before);
}

/// Targets that do not lie row after row are copied as a whole, and each part takes its own.
#[test]
fn batches_in_parts_with_strided_targets() {
    let (x, by_columns) = (data(60), data(4));
    let columns = MatRef::strided(&by_columns, ROWS, 4, 1, ROWS).unwrap();
    let by_rows: Vec<f32> = (0..ROWS * 4).map(|i| columns.get(i / 4, i % 4).unwrap()).collect();
    let ends = [columns, view(&by_rows, ROWS, 4)].map(|values| {
        let mut trainer = in_parts(Loss::Mse);
        let loss = alone(|| trainer.step(view(&x, ROWS, 60), Targets::Values(values))).unwrap();
        (loss.to_bits(), bits(trainer.model()))
    });
    assert_eq!(ends[0], ends[1]);
}
