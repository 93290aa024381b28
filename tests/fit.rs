//! `fit`: batches, reasons to stop, best weights, histories, and what happens when numbers break.

use std::ops::ControlFlow;
use std::time::Duration;

use percycle::{
    Activation, Adam, Dataset, Error, FitOptions, Loss, Matrix, Mlp, Schedule, Sgd, StopReason, Trainer,
};

/// y = 2 x0 - x1 + 1, a line that SGD finds.
fn line(samples: usize) -> Dataset {
    let x: Vec<f32> = (0..samples * 2).map(|i| ((i * 29 % 97) as f32 - 48.0) / 48.0).collect();
    let y = x.chunks_exact(2).map(|x| 2.0 * x[0] - x[1] + 1.0).collect();
    let x = Matrix::from_vec(samples, 2, x).unwrap();
    Dataset::values(x, Matrix::from_vec(samples, 1, y).unwrap()).unwrap()
}

fn trainer(rate: f32) -> Trainer {
    let mlp = Mlp::builder(2).layer(1, Activation::Identity).seed(1).build().unwrap();
    Trainer::new(mlp, Loss::Mse, Sgd::new(rate)).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_bits_and_another_does_not() {
    let run = |seed| {
        let mut trainer = trainer(0.1);
        let history = trainer.fit(&line(50), &FitOptions::new().epochs(3).batch_size(7).seed(seed)).unwrap();
        let losses: Vec<u32> = history.epochs.iter().map(|epoch| epoch.train_loss.to_bits()).collect();
        (losses, trainer.into_model())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// Two epochs in one fit are not the first one twice; and each takes every sample once: at a rate of 0 its loss is that
/// of the data, but for roundings.
#[test]
fn each_epoch_has_an_order_of_its_own() {
    let (data, options) = (line(50), FitOptions::new().batch_size(7));
    let (mut once, mut twice) = (trainer(0.1), trainer(0.1));
    once.fit(&data, &options.clone().epochs(2)).unwrap();
    for _ in 0..2 {
        twice.fit(&data, &options.clone().epochs(1)).unwrap();
    }
    assert_ne!(once.model(), twice.model());
    let mut still = trainer(0.0);
    let history = still.fit(&data, &options.epochs(3)).unwrap();
    let whole = still.evaluate(&data).unwrap().loss;
    assert!(
        history.epochs.iter().all(|epoch| (epoch.train_loss - whole).abs() < 1e-6 * whole),
        "{history:?}"
    );
}

#[test]
fn the_short_last_batch_is_kept() {
    let mut trainer = trainer(0.1);
    let history = trainer.fit(&line(50), &FitOptions::new().epochs(2).batch_size(16)).unwrap();
    assert_eq!(history.epochs[0].steps, 4); // 16 + 16 + 16 + 2
    assert_eq!((history.epochs[1].steps, trainer.steps()), (8, 8));
    assert_eq!(history.stop, StopReason::Epochs);
}

#[test]
fn an_epoch_is_the_steps_by_hand() {
    let data = line(5);
    let (mut fitted, mut by_hand) = (trainer(0.1), trainer(0.1));
    let history = fitted.fit(&data, &FitOptions::new().epochs(2).batch_size(2).shuffle(false)).unwrap();
    for epoch in &history.epochs {
        let mut sum = 0.0;
        for (start, count) in [(0, 2), (2, 2), (4, 1)] {
            let percycle::Targets::Values(y) = data.targets() else { unreachable!() };
            let y = percycle::Targets::Values(y.row_range(start, count).unwrap());
            let loss = by_hand.step(data.x().row_range(start, count).unwrap(), y).unwrap();
            sum += f64::from(loss) * count as f64;
        }
        assert_eq!(epoch.train_loss, (sum / 5.0) as f32);
    }
    assert_eq!(fitted.model(), by_hand.model());
}

#[test]
fn it_stops_for_each_reason() {
    let (data, options) = (line(40), FitOptions::new().epochs(400).batch_size(8));
    let stop = |options: FitOptions| trainer(0.1).fit(&data, &options).unwrap();

    let history = stop(options.clone().target_loss(1e-6));
    assert_eq!(history.stop, StopReason::TargetLoss);
    let (last, before) = history.epochs.split_last().unwrap();
    assert!(last.train_loss <= 1e-6 && before.iter().all(|epoch| epoch.train_loss > 1e-6));

    let history = stop(options.clone().patience(3).min_delta(0.01));
    assert_eq!(history.stop, StopReason::Patience);
    let losses: Vec<f32> = history.epochs.iter().map(|epoch| epoch.train_loss).collect();
    let (waited, improved) =
        losses[losses.len() - 4..].split_first().map(|(mark, rest)| (rest, *mark)).unwrap();
    assert!(waited.iter().all(|loss| improved - loss < 0.01), "{losses:?}");

    assert_eq!(stop(options.clone().time_limit(Duration::ZERO)).epochs.len(), 1);
    assert_eq!(stop(options.clone().time_limit(Duration::ZERO)).stop, StopReason::TimeLimit);

    let history = trainer(0.1)
        .fit_with(&data, &options, |epoch| {
            if epoch.epoch == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!((history.stop, history.epochs.len()), (StopReason::Callback, 5));

    // Ten milliseconds for each epoch: the third one ends too late, if not an earlier one.
    let options = options.time_limit(Duration::from_millis(25));
    let history = trainer(0.1)
        .fit_with(&data, &options, |_| {
            std::thread::sleep(Duration::from_millis(10));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(history.stop, StopReason::TimeLimit);
    assert!((1..=3).contains(&history.epochs.len()), "{history:?}");
}

/// Exactly when the rule says so, worked out from the losses of a fit that goes on.
#[test]
fn patience_ends_where_the_losses_say() {
    let (data, options) = (line(40), FitOptions::new().epochs(60).batch_size(8));
    let losses: Vec<f32> = {
        let history = trainer(0.1).fit(&data, &options).unwrap();
        history.epochs.iter().map(|epoch| epoch.train_loss).collect()
    };
    let mut lengths = Vec::new();
    for (patience, min_delta) in [(1, 0.01), (3, 0.01), (3, 0.001), (2, 0.0)] {
        let (mut mark, mut waited) = (f32::INFINITY, 0);
        let improves = |loss: &f32| {
            let enough = *loss < mark && mark - loss >= min_delta;
            (mark, waited) = if enough { (*loss, 0) } else { (mark, waited + 1) };
            waited == patience
        };
        let want = losses.iter().position(improves).map_or(losses.len(), |epoch| epoch + 1);
        let options = options.clone().patience(patience).min_delta(min_delta);
        let history = trainer(0.1).fit(&data, &options).unwrap();
        assert_eq!(history.epochs.len(), want, "patience {patience}, min_delta {min_delta}, {losses:?}");
        lengths.push(want);
    }
    assert!(lengths[0] < lengths[1] && lengths[1] < lengths[2] && lengths[2] < lengths[3], "{lengths:?}");
}

/// The validation data lie on another line: the better the network is on the training data, the worse it is on them.
#[test]
fn patience_and_the_best_weights_look_at_the_validation_loss() {
    let (data, x) = (line(40), line(40));
    let percycle::Targets::Values(y) = x.targets() else { unreachable!() };
    let x = Matrix::from_vec(40, 2, (0..40).flat_map(|i| x.x().row(i).unwrap().to_vec()).collect()).unwrap();
    let y = Matrix::from_vec(40, 1, (0..40).map(|i| -y.get(i, 0).unwrap()).collect()).unwrap();
    let options = FitOptions::new().epochs(50).batch_size(8).patience(4);
    let watching = options.clone().validation(Dataset::values(x, y).unwrap());

    let mut best = trainer(0.1);
    let history = best.fit(&data, &watching.restore_best(true)).unwrap();
    assert_eq!((history.stop, history.best, history.epochs.len()), (StopReason::Patience, 0, 5));
    let mut first = trainer(0.1);
    first.fit(&data, &options.clone().epochs(1)).unwrap();
    assert_eq!(best.model(), first.model());
    assert!(trainer(0.1).fit(&data, &options).unwrap().epochs.len() > 5, "the training loss went on falling");
}

#[test]
fn validation_is_watched_and_not_trained_on() {
    let (train, held_out) = line(60).split(20, 3).unwrap();
    assert_eq!((train.len(), held_out.len()), (40, 20));
    let options = FitOptions::new().epochs(5).batch_size(8);
    let (mut with, mut without) = (trainer(0.1), trainer(0.1));
    let history = with.fit(&train, &options.clone().validation(held_out.clone())).unwrap();
    without.fit(&train, &options).unwrap();
    assert_eq!(with.model(), without.model());
    let last = history.epochs.last().unwrap();
    assert_eq!(last.validation_loss, Some(with.evaluate(&held_out).unwrap().loss));
    assert_eq!(last.watched_loss(), last.validation_loss.unwrap());
    assert_eq!(last.validation_accuracy, None);
}

#[test]
fn the_best_weights_come_back() {
    // A rate that grows until training falls apart, but stays finite.
    let options =
        FitOptions::new().epochs(30).batch_size(40).schedule(Schedule::exponential(1.15)).restore_best(true);
    let data = line(40);
    let mut trainer = trainer(0.05);
    let history = trainer.fit(&data, &options.clone().validation(data.clone())).unwrap();
    let best = history.epochs[history.best].validation_loss.unwrap();
    assert!(history.best + 1 < history.epochs.len(), "the last epoch must not be the best");
    assert!(history.epochs.iter().all(|epoch| epoch.validation_loss.unwrap() >= best));
    assert_eq!(trainer.evaluate(&data).unwrap().loss, best);
}

/// Without validation data the training loss decides; what comes back are the weights with which that epoch ended.
#[test]
fn the_best_weights_come_back_by_the_training_loss() {
    let options = FitOptions::new().batch_size(8).schedule(Schedule::exponential(1.15));
    let data = line(40);
    let mut restored = trainer(0.03);
    let history = restored.fit(&data, &options.clone().epochs(30).restore_best(true)).unwrap();
    assert!(history.best + 1 < history.epochs.len(), "the last epoch must not be the best");
    let mut stopped = trainer(0.03);
    stopped.fit(&data, &options.epochs(history.best + 1)).unwrap();
    assert_eq!(restored.model(), stopped.model());
}

#[test]
fn the_schedule_sets_the_rate_and_the_base_returns() {
    let mut trainer = trainer(0.5);
    let options = FitOptions::new().epochs(3).batch_size(10).schedule(Schedule::step(1, 0.5).with_warmup(4));
    let history = trainer.fit(&line(20), &options).unwrap();
    let rates: Vec<f32> = history.epochs.iter().map(|epoch| epoch.learning_rate).collect();
    assert_eq!(rates, [0.25, 0.25, 0.125]); // step 2 of 4; half, warmed up; a quarter
    assert_eq!(trainer.learning_rate(), 0.5);
}

#[test]
fn numbers_that_break_stop_the_fit_with_the_last_good_weights() {
    let data = line(40);
    let options = FitOptions::new().epochs(9).batch_size(40).shuffle(false);
    // The first rate makes the next loss overflow, the second the weights themselves.
    for (rate, broken_step, broken_layer) in [(1e30, 2, None), (f32::MAX, 1, Some(0))] {
        let mut broken = trainer(rate);
        let error = broken.fit(&data, &options).unwrap_err();
        let Error::NotFinite { epoch, step, layer, .. } = error else { panic!("{error}") };
        assert_eq!((epoch, step, layer), (broken_step as usize, broken_step, broken_layer), "{error}");
        assert!(error.to_string().contains("last good weights"), "{error}");
        assert!(broken.model().layers()[0].weight().as_slice().iter().all(|w| w.is_finite()));
        assert_eq!(broken.learning_rate(), rate);
        // They are those of the steps that went well.
        let mut good = trainer(rate);
        let percycle::Targets::Values(y) = data.targets() else { unreachable!() };
        for _ in 1..step {
            good.step(data.x(), percycle::Targets::Values(y)).unwrap();
        }
        assert_eq!(good.model(), broken.model());
    }
}

/// Three updates in an epoch: the rate of the second epoch makes its first update large and the loss of the next batch
/// infinite.
#[test]
fn the_epoch_and_the_step_that_broke_are_named() {
    let mut broken = trainer(0.1);
    let options = FitOptions::new().epochs(9).batch_size(16).schedule(Schedule::exponential(1e30));
    let error = broken.fit(&line(40), &options).unwrap_err();
    assert!(matches!(error, Error::NotFinite { epoch: 2, step: 5, layer: None, .. }), "{error}");
    assert!(error.to_string().contains("in epoch 2, step 5"), "{error}");
    assert_eq!((broken.steps(), broken.learning_rate()), (4, 0.1));
}

#[test]
fn evaluation_refuses_what_does_not_fit() {
    let loss = Loss::CrossEntropy { label_smoothing: 0.0 };
    let mlp = Mlp::builder(2).layer(3, Activation::Identity).build().unwrap();
    let mut trainer = Trainer::new(mlp, loss, Adam::new(0.1)).unwrap();
    let before = trainer.model().clone();
    let mut refused = |data: percycle::Result<Dataset>| {
        let error = trainer.evaluate(&data.unwrap()).unwrap_err().to_string();
        assert_eq!(trainer.model(), &before, "{error}");
        error
    };
    let zeros = Matrix::zeros;
    assert!(refused(Dataset::classes(zeros(0, 2), vec![])).contains("the data is empty"));
    // More samples than are measured at once: all of them are meant.
    assert!(refused(Dataset::classes(zeros(1300, 3), vec![0; 1300])).contains("x is 1300x3"));
    assert!(refused(Dataset::values(zeros(1300, 2), zeros(1300, 3))).contains("takes classes"));
    let mut classes = vec![0; 1300];
    classes[1200] = 3;
    assert!(refused(Dataset::classes(zeros(1300, 2), classes)).contains("target 1200 is class 3"));
}

/// A network that ends in no sigmoid gives what is no probability for one sample only: it is that one that is named,
/// whatever the order and the batches.
#[test]
fn the_sample_that_bce_cannot_take_is_named() {
    let mut mlp = Mlp::builder(1).layer(1, Activation::Identity).build().unwrap();
    mlp.layers_mut()[0].set_weight(Matrix::from_vec(1, 1, vec![1.0]).unwrap().view()).unwrap();
    mlp.layers_mut()[0].set_bias(&[0.0]).unwrap();
    let mut trainer = Trainer::new(mlp, Loss::Bce, Sgd::new(0.0)).unwrap();
    let mut x = vec![0.5; 700];
    x[603] = 1.5;
    let data = Dataset::values(Matrix::from_vec(700, 1, x).unwrap(), Matrix::zeros(700, 1)).unwrap();
    let says = "the network's output[603, 0] is 1.5";
    assert!(trainer.evaluate(&data).unwrap_err().to_string().contains(says));
    let error = trainer.fit(&data, &FitOptions::new()).unwrap_err().to_string();
    assert!(error.contains(says), "{error}");
}

#[test]
fn evaluation_counts_classes() {
    let mut mlp = Mlp::builder(2).layer(2, Activation::Identity).build().unwrap();
    mlp.layers_mut()[0].set_weight(Matrix::from_vec(2, 2, vec![1.0, 0.0, 0.0, 1.0]).unwrap().view()).unwrap();
    mlp.layers_mut()[0].set_bias(&[0.0, 0.0]).unwrap();
    let loss = Loss::CrossEntropy { label_smoothing: 0.0 };
    let mut trainer = Trainer::new(mlp, loss, Adam::new(0.1)).unwrap();
    let x = Matrix::from_vec(3, 2, vec![2.0, 1.0, 0.0, 1.0, 3.0, 0.0]).unwrap();
    let before = trainer.model().clone();
    let evaluation = trainer.evaluate(&Dataset::classes(x, vec![0, 1, 1]).unwrap()).unwrap();
    assert_eq!(evaluation.confusion, Some(vec![vec![1, 0], vec![1, 1]]));
    assert_eq!(evaluation.accuracy, Some(2.0 / 3.0));
    assert_eq!(trainer.model(), &before);
    // More samples than are measured at once: the same mean as by hand.
    let big = line(1300);
    let mut line_trainer = self::trainer(0.1);
    let whole = line_trainer.evaluate(&big).unwrap();
    assert_eq!(whole.samples, 1300);
    let percycle::Targets::Values(y) = big.targets() else { unreachable!() };
    let one = line_trainer.accumulate(big.x(), percycle::Targets::Values(y)).unwrap();
    assert!((whole.loss - one).abs() <= 1e-6 * one, "{} {one}", whole.loss);
}

#[test]
fn bad_data_and_options_are_refused_before_anything_changes() {
    let data = line(10);
    let mut trainer = trainer(0.1);
    let before = trainer.model().clone();
    let mut refused = |data: &Dataset, options: FitOptions| {
        let error = trainer.fit(data, &options).unwrap_err().to_string();
        assert_eq!(trainer.model(), &before, "{error}");
        error
    };
    let options = FitOptions::new;
    assert!(refused(&data, options().epochs(0)).contains("epochs is 0"));
    assert!(refused(&data, options().batch_size(0)).contains("batch_size is 0"));
    assert!(refused(&data, options().patience(0)).contains("patience is 0"));
    assert!(refused(&data, options().min_delta(-1.0)).contains("min_delta is -1"));
    assert!(refused(&data, options().target_loss(f32::NAN)).contains("target_loss is NaN"));
    assert!(refused(&data, options().schedule(Schedule::exponential(-1.0))).contains("factor is -1"));
    let (all, none) = (data.clone(), line(0));
    assert!(refused(&none, options()).contains("the data is empty"));
    assert!(refused(&all, options().validation(none)).contains("the validation data is empty"));
    let wide = Dataset::values(Matrix::zeros(4, 3), Matrix::zeros(4, 1)).unwrap();
    assert!(refused(&wide, options()).contains("x is 4x3"));
    let classes = Dataset::classes(Matrix::zeros(4, 2), vec![0; 4]).unwrap();
    assert!(refused(&classes, options()).contains("takes values"));
    assert!(refused(&data, options().validation(wide)).contains("x is 4x3"));
    assert!(refused(&data, options().validation(classes)).contains("takes values"));

    // The last sample of many, before the first update.
    let mut trainer = self::trainer(0.1);
    let before = trainer.model().clone();
    let mut y = vec![0.5; 100];
    y[99] = 1.01;
    let x = Matrix::zeros(100, 2);
    for (loss, data, says) in [
        (
            Loss::BceWithLogits,
            Dataset::values(x.clone(), Matrix::from_vec(100, 1, y).unwrap()).unwrap(),
            "targets[99, 0] is 1.01",
        ),
        (
            Loss::CrossEntropy { label_smoothing: 0.0 },
            Dataset::classes(x, (0..100).map(|i| i / 99).collect()).unwrap(),
            "target 99 is class 1",
        ),
    ] {
        trainer = Trainer::new(before.clone(), loss, Sgd::new(0.1)).unwrap();
        let error = trainer.fit(&data, &options()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert_eq!((trainer.model(), trainer.steps()), (&before, 0));
    }

    let nan = Matrix::from_vec(1, 2, vec![0.0, f32::NAN]).unwrap();
    let error = Dataset::classes(nan, vec![0]).unwrap_err().to_string();
    assert!(error.contains("x[0, 1] is NaN"), "{error}");
    assert!(Dataset::classes(Matrix::zeros(2, 2), vec![0]).is_err());
    assert!(Dataset::values(Matrix::zeros(2, 2), Matrix::zeros(3, 1)).is_err());
    assert!(data.split(11, 0).is_err() && data.stratified_split(2, 0).is_err());
}

/// The order that a seed gives is part of every seeded result: it must survive an upgrade of the generator.
#[test]
fn the_order_of_a_seed_never_changes() {
    let x = Matrix::from_vec(100, 1, (0..100).map(|i| i as f32).collect()).unwrap();
    let data = Dataset::classes(x, vec![0; 100]).unwrap();
    let chosen = |(_, held_out): (Dataset, Dataset)| {
        (0..held_out.len()).map(|i| held_out.x().get(i, 0).unwrap() as u32).collect::<Vec<_>>()
    };
    assert_eq!(chosen(data.split(6, 42).unwrap()), PINNED_SPLIT);
    assert_eq!(chosen(data.stratified_split(6, 42).unwrap()), PINNED_SPLIT);
}
const PINNED_SPLIT: [u32; 6] = [0, 21, 27, 32, 64, 86];

#[test]
fn a_stratified_split_keeps_the_shares() {
    let labels: Vec<u32> = (0..100)
        .map(|i| {
            if i < 70 {
                0
            } else if i < 95 {
                3
            } else {
                9
            }
        })
        .collect();
    let x = Matrix::from_vec(100, 1, (0..100).map(|i| i as f32).collect()).unwrap();
    let (train, held_out) = Dataset::classes(x, labels).unwrap().stratified_split(30, 5).unwrap();
    let count = |data: &Dataset, class| {
        let percycle::Targets::Classes(labels) = data.targets() else { unreachable!() };
        labels.iter().filter(|&&label| label == class).count()
    };
    // 21, 7.5 and 1.5: the one seat that is left goes to one of the two halves.
    assert_eq!((count(&held_out, 0), held_out.len(), train.len()), (21, 30, 70));
    assert!(count(&held_out, 3) + count(&held_out, 9) == 9 && count(&held_out, 9) >= 1);
    let mut all: Vec<f32> = [&train, &held_out]
        .iter()
        .flat_map(|set| (0..set.len()).map(|i| set.x().get(i, 0).unwrap()))
        .collect();
    all.sort_by(f32::total_cmp);
    assert!(all.iter().enumerate().all(|(i, &x)| x == i as f32), "every sample once");
}
