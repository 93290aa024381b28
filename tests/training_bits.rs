//! Whole training runs end in the bits of the reference: on every instruction set, in pools of any size, and
//! however the batches are cut into micro-batches.

mod common;
#[path = "training/network.rs"]
mod network;

use common::{Numbers, alone};
use network::{bits, mlp};
use percycle::{Activation, Adam, AdamW, Clip, Isa, Loss, MatRef, Mlp, Optimizer, Sgd, Targets, Trainer};
use percycle_reference::activation::Activation as RefActivation;
use percycle_reference::backward::Layer;
use percycle_reference::loss::{Loss as RefLoss, Targets as RefTargets};
use percycle_reference::optimizer::Optimizer as RefOptimizer;
use percycle_reference::train::{self as reference, Batch, Clip as RefClip};

const EPOCHS: usize = 3;

/// Data of a run: batches of `rows` samples, each to be cut into parts.
struct Data {
    inputs: usize,
    outputs: usize,
    rows: usize,
    x: Vec<f32>,
    values: Vec<f32>,
    classes: Vec<u32>,
}

impl Data {
    fn new(inputs: usize, outputs: usize, rows: usize, batches: usize) -> Self {
        let mut numbers = Numbers::new(7);
        let n = rows * batches;
        Data {
            inputs,
            outputs,
            rows,
            x: numbers.many(n * inputs),
            // In [0, 1], so that they do for every loss.
            values: numbers.many(n * outputs).iter().map(|x| x.abs()).collect(),
            classes: (0..n).map(|i| (i * i % 211 % outputs) as u32).collect(),
        }
    }

    /// Samples of each part of each batch, as ranges.
    fn parts(&self, cuts: &[usize]) -> Vec<Vec<std::ops::Range<usize>>> {
        let batches = self.x.len() / self.inputs / self.rows;
        let mut ends = cuts.to_vec();
        ends.push(self.rows);
        (0..batches)
            .map(|batch| {
                let mut from = batch * self.rows;
                let part = |end: &usize| {
                    let start = std::mem::replace(&mut from, batch * self.rows + end);
                    start..batch * self.rows + end
                };
                ends.iter().map(part).collect()
            })
            .collect()
    }

    fn x(&self, part: &std::ops::Range<usize>) -> &[f32] {
        &self.x[part.start * self.inputs..part.end * self.inputs]
    }

    fn values(&self, part: &std::ops::Range<usize>) -> &[f32] {
        &self.values[part.start * self.outputs..part.end * self.outputs]
    }
}

/// What a run ends in: all weights, and the loss of each call.
type End = (Vec<u32>, Vec<u32>);

#[derive(Clone, Copy, Debug)]
struct Setup {
    loss: Loss,
    optimizer: Optimizer,
    clip: Clip,
}

fn is_classes(loss: Loss) -> bool {
    matches!(loss, Loss::CrossEntropy { .. })
}

fn run(model: &Mlp, setup: Setup, data: &Data, cuts: &[usize]) -> End {
    let trainer = Trainer::new(model.clone(), setup.loss, setup.optimizer).unwrap();
    let mut trainer = trainer.with_clip(setup.clip).unwrap();
    let mut losses = Vec::new();
    for _ in 0..EPOCHS {
        for batch in data.parts(cuts) {
            for part in &batch {
                let x = MatRef::new(data.x(part), part.len(), data.inputs).unwrap();
                let values = MatRef::new(data.values(part), part.len(), data.outputs).unwrap();
                let targets = if is_classes(setup.loss) {
                    Targets::Classes(&data.classes[part.clone()])
                } else {
                    Targets::Values(values)
                };
                let loss =
                    if batch.len() == 1 { trainer.step(x, targets) } else { trainer.accumulate(x, targets) };
                losses.push(loss.unwrap().to_bits());
            }
            if batch.len() > 1 {
                trainer.apply().unwrap();
            }
        }
    }
    (bits(trainer.model()), losses)
}

fn run_reference(model: &Mlp, setup: Setup, optimizer: RefOptimizer, data: &Data, cuts: &[usize]) -> End {
    let clip = match setup.clip {
        Clip::Value(limit) => RefClip::Value(limit),
        Clip::GlobalNorm(limit) => RefClip::GlobalNorm(limit),
        _ => RefClip::None,
    };
    let loss = match setup.loss {
        Loss::Mse => RefLoss::Mse,
        Loss::Bce => RefLoss::Bce,
        Loss::BceWithLogits => RefLoss::BceWithLogits,
        Loss::CrossEntropy { label_smoothing } => RefLoss::CrossEntropy { label_smoothing },
        _ => unreachable!(),
    };
    let layers = model.layers().iter().map(reference_layer).collect();
    let mut trainer = reference::Trainer::new(layers, loss, optimizer, clip);
    let parts = data.parts(cuts);
    let batch = |part: &std::ops::Range<usize>| Batch {
        x: data.x(part),
        rows: part.len(),
        targets: if is_classes(setup.loss) {
            RefTargets::Classes(&data.classes[part.clone()])
        } else {
            RefTargets::Values(data.values(part))
        },
    };
    let batches: Vec<Vec<Batch>> = parts.iter().map(|parts| parts.iter().map(batch).collect()).collect();
    let batches: Vec<&[Batch]> = batches.iter().map(Vec::as_slice).collect();
    let mut losses = Vec::new();
    for _ in 0..EPOCHS {
        losses.extend(trainer.epoch(&batches).into_iter().map(f32::to_bits));
    }
    let mut end = Vec::new();
    for layer in &trainer.layers {
        for o in 0..layer.outputs {
            end.extend((0..layer.inputs).map(|i| layer.weight[i * layer.outputs + o].to_bits()));
        }
        end.extend(layer.bias.iter().map(|b| b.to_bits()));
    }
    (end, losses)
}

fn reference_layer(layer: &percycle::Linear) -> Layer {
    let (inputs, outputs) = (layer.in_features(), layer.out_features());
    let weight = layer.weight();
    let transposed = |k: usize| weight.as_slice()[k % outputs * inputs + k / outputs];
    Layer {
        inputs,
        outputs,
        weight: (0..inputs * outputs).map(transposed).collect(),
        bias: layer.bias().to_vec(),
        activation: match layer.activation() {
            Activation::Identity => RefActivation::Identity,
            Activation::Relu => RefActivation::Relu,
            Activation::LeakyRelu(slope) => RefActivation::LeakyRelu(slope),
            Activation::Sigmoid => RefActivation::Sigmoid,
            Activation::Tanh => RefActivation::Tanh,
            Activation::Gelu => RefActivation::Gelu,
            Activation::GeluTanh => RefActivation::GeluTanh,
            Activation::Silu => RefActivation::Silu,
            _ => unreachable!(),
        },
    }
}

fn losses() -> [Loss; 5] {
    let cross_entropy = |label_smoothing| Loss::CrossEntropy { label_smoothing };
    [Loss::Mse, Loss::Bce, Loss::BceWithLogits, cross_entropy(0.0), cross_entropy(0.1)]
}

/// Every variant of the optimizers, for both sides.
fn optimizers() -> Vec<(Optimizer, RefOptimizer)> {
    let sgd = |momentum, dampening, nesterov, weight_decay| {
        let ours = Sgd::new(0.3)
            .momentum(momentum)
            .dampening(dampening)
            .nesterov(nesterov)
            .weight_decay(weight_decay);
        let theirs = RefOptimizer::Sgd { learning_rate: 0.3, momentum, dampening, nesterov, weight_decay };
        (ours.into(), theirs)
    };
    let adam = |betas: (f64, f64), eps, weight_decay, decoupled| {
        let ours = if decoupled {
            let adamw = AdamW::new(0.02).betas(betas.0, betas.1).eps(eps);
            adamw.weight_decay(weight_decay).into()
        } else {
            let adam = Adam::new(0.02).betas(betas.0, betas.1).eps(eps);
            adam.weight_decay(weight_decay).into()
        };
        let theirs = RefOptimizer::Adam { learning_rate: 0.02, betas, eps, weight_decay, decoupled };
        (ours, theirs)
    };
    vec![
        sgd(0.0, 0.0, false, 0.0),
        sgd(0.0, 0.0, false, 0.01),
        sgd(0.9, 0.0, false, 0.0),
        sgd(0.9, 0.3, false, 0.01),
        sgd(0.9, 0.0, true, 0.01),
        adam((0.9, 0.999), 1e-8, 0.0, false),
        adam((0.8, 0.99), 1e-6, 0.01, false),
        adam((0.9, 0.999), 1e-8, 0.01, true),
    ]
}

#[test]
fn every_loss_optimizer_and_clip() {
    use Activation::*;
    let hidden = [Relu, LeakyRelu(0.1), Sigmoid, Tanh, Gelu, GeluTanh, Silu, Identity];
    // 21 units: one vector and a part of one with 16 lanes, two and a part with 8.
    let data = Data::new(7, 5, 19, 2);
    let mut count = 0;
    for loss in losses() {
        let last = if loss == Loss::Bce { Sigmoid } else { Identity };
        for (optimizer, ref_optimizer) in optimizers() {
            for clip in [Clip::None, Clip::Value(0.01), Clip::GlobalNorm(0.05)] {
                let setup = Setup { loss, optimizer, clip };
                // Another pair of hidden activations each time: all meet all losses.
                let (one, two) = (hidden[count % 8], hidden[(count / 8 + 3) % 8]);
                let model = mlp(7, &[(21, one), (10, two), (5, last)], count as u64);
                count += 1;
                for cuts in [&[][..], &[4, 5]] {
                    let want = run_reference(&model, setup, ref_optimizer, &data, cuts);
                    assert_ne!(want.0, bits(&model), "{setup:?} changes weights");
                    for isa in Isa::available() {
                        let got = isa.pin(|| run(&model, setup, &data, cuts));
                        assert!(got == want, "{setup:?}, {one:?}, {two:?}, {cuts:?}, {}", isa.name());
                    }
                }
                let whole = run(&model, setup, &data, &[]).0;
                let parts = run(&model, setup, &data, &[4, 5]).0;
                assert!(whole == parts, "{setup:?}: three micro-batches are the whole batch");
            }
        }
    }
}

/// Layers of more than two million multiply-adds, which are shared among threads.
fn large() -> (Mlp, Data) {
    use Activation::{Gelu, Identity, Relu};
    let model = mlp(96, &[(256, Relu), (128, Gelu), (10, Identity)], 5);
    (model, Data::new(96, 10, 96, 1))
}

/// With the gradients stored, and used up where they are made.
fn large_setups() -> [(Setup, RefOptimizer); 2] {
    let (optimizer, ref_optimizer) = optimizers()[7];
    let loss = Loss::CrossEntropy { label_smoothing: 0.1 };
    [Clip::GlobalNorm(0.5), Clip::None].map(|clip| (Setup { loss, optimizer, clip }, ref_optimizer))
}

#[test]
fn large_layers() {
    let (model, data) = large();
    for (setup, ref_optimizer) in large_setups() {
        check(&model, setup, ref_optimizer, &data, &[50, 83]);
    }
}

/// Everything equals the reference on every instruction set: in whole batches, whose gradients are used up where they are
/// made unless they are clipped by their norm, and in micro-batches, whose gradients are stored.
fn check(model: &Mlp, setup: Setup, optimizer: RefOptimizer, data: &Data, cuts: &[usize]) {
    for cuts in [&[], cuts] {
        let want = run_reference(model, setup, optimizer, data, cuts);
        for isa in Isa::available() {
            let got = isa.pin(|| run(model, setup, data, cuts));
            assert!(got == want, "{setup:?}, {} inputs, {cuts:?}, {}", data.inputs, isa.name());
        }
    }
}

/// The gradients of the weights sum over the batch: past the blocks of k (1024 samples), of m (128 Ki samples x inputs,
/// with delta packed) and of n (2 Mi samples x outputs).
#[test]
fn large_batches() {
    use Activation::{Identity, Relu};
    let (optimizer, ref_optimizer) = optimizers()[7];
    let setup = Setup { loss: Loss::Mse, optimizer, clip: Clip::None };
    for (model, data, cuts) in [
        (mlp(7, &[(21, Relu), (5, Identity)], 1), Data::new(7, 5, 1100, 1), [1030, 1031]),
        (mlp(390, &[(520, Identity)], 2), Data::new(390, 520, 400, 1), [1, 2]),
        (mlp(3, &[(1010, Identity)], 3), Data::new(3, 1010, 2100, 1), [2, 9]),
    ] {
        alone(|| check(&model, setup, ref_optimizer, &data, &cuts));
    }
}

/// Batches that leave more than a cache holds go through the layers in parts, also where their gradients are not clipped.
#[test]
fn batches_in_parts() {
    use Activation::{Gelu, Identity, Relu, Sigmoid};
    let data = Data::new(60, 10, 2600, 2);
    for (loss, (optimizer, ref_optimizer), clip) in [
        (losses()[0], optimizers()[0], Clip::None),
        (losses()[1], optimizers()[5], Clip::Value(0.01)),
        (losses()[2], optimizers()[3], Clip::None),
        (losses()[4], optimizers()[7], Clip::GlobalNorm(0.05)),
    ] {
        let last = if loss == Loss::Bce { Sigmoid } else { Identity };
        let model = mlp(60, &[(40, Relu), (33, Gelu), (10, last)], 4);
        alone(|| check(&model, Setup { loss, optimizer, clip }, ref_optimizer, &data, &[1, 1000]));
    }
}

/// What is saved before an activation, and what its derivative is multiplied with, lie where the blocks of C lie: past
/// blocks of k (1024 outputs), of m and of n, with the roles swapped (16 samples), with B packed (200 samples).
#[test]
fn wide_layers() {
    use Activation::{Gelu, Identity, LeakyRelu, Silu, Tanh};
    let (optimizer, ref_optimizer) = optimizers()[2];
    let setup = Setup { loss: Loss::Mse, optimizer, clip: Clip::None };
    for (model, data, cuts) in [
        (mlp(40, &[(300, Silu), (1100, LeakyRelu(0.1)), (3, Identity)], 1), Data::new(40, 3, 16, 1), [5, 7]),
        (mlp(1100, &[(300, Gelu), (40, Tanh), (300, Identity)], 2), Data::new(1100, 300, 16, 1), [1, 15]),
        (mlp(700, &[(140, Silu), (700, Identity)], 3), Data::new(700, 700, 200, 1), [1, 3]),
    ] {
        alone(|| check(&model, setup, ref_optimizer, &data, &cuts));
    }
}

/// Rows of whole pages lie further apart than they are long: weights, gradients, what the optimizer remembers, and what layers but
/// the last leave.
#[test]
fn layers_of_whole_pages() {
    use Activation::{Gelu, Identity, Relu};
    let loss = Loss::CrossEntropy { label_smoothing: 0.1 };
    let model = mlp(5, &[(1024, Gelu), (1024, Relu), (1024, Identity)], 6);
    let data = Data::new(5, 1024, 6, 2);
    for (which, clip) in
        [(0, Clip::None), (4, Clip::Value(0.001)), (5, Clip::GlobalNorm(0.05)), (7, Clip::None)]
    {
        let (optimizer, ref_optimizer) = optimizers()[which];
        check(&model, Setup { loss, optimizer, clip }, ref_optimizer, &data, &[2, 5]);
    }
    // More samples than a core takes at once: in parts.
    let model = mlp(40, &[(1024, Gelu), (3, Identity)], 7);
    let (optimizer, ref_optimizer) = optimizers()[7];
    let setup = Setup { loss, optimizer, clip: Clip::None };
    alone(|| check(&model, setup, ref_optimizer, &Data::new(40, 3, 600, 1), &[500]));
}

/// Rows of outputs shorter and longer than vectors, more rows than are worked on at once, and outputs so large that
/// probabilities end at 0 and 1.
#[test]
fn losses_at_every_width_and_extreme() {
    use Activation::{Identity, Sigmoid};
    let (optimizer, ref_optimizer) = optimizers()[0];
    for outputs in [1, 8, 15, 16, 17, 33, 50, 128, 129, 200] {
        for (rows, size) in [(4, 1.0), (63, 1.0), (65, 300.0), (130, 1e4)] {
            let mut data = Data::new(3, outputs, rows, 1);
            data.x.iter_mut().for_each(|x| *x *= size);
            // Targets at the ends too.
            data.values.iter_mut().step_by(3).for_each(|t| *t = t.round());
            for loss in losses() {
                let last = if loss == Loss::Bce { Sigmoid } else { Identity };
                let setup = Setup { loss, optimizer, clip: Clip::Value(0.5) };
                check(&mlp(3, &[(outputs, last)], 7), setup, ref_optimizer, &data, &[rows / 3, rows / 2]);
            }
        }
    }
}

/// Layers of a few multiply-adds, the article's among them: rows, steps of k and columns at and beside what is tiny, with
/// every activation that the product takes along or leaves for afterwards.
#[test]
fn tiny_layers() {
    use Activation::{Identity, LeakyRelu, Relu, Sigmoid, Tanh};
    for (inputs, hidden, outputs, rows) in
        [(2, 3, 1, 2), (1, 1, 1, 1), (8, 8, 8, 8), (5, 7, 3, 4), (8, 9, 8, 8), (9, 8, 1, 8), (64, 8, 2, 1)]
    {
        let data = Data::new(inputs, outputs, rows, 3);
        for activation in [Relu, LeakyRelu(0.1), Tanh, Sigmoid, Identity] {
            let model = mlp(inputs, &[(hidden, activation), (outputs, Identity)], 4);
            for (optimizer, ref_optimizer) in optimizers() {
                let setup = Setup { loss: Loss::BceWithLogits, optimizer, clip: Clip::None };
                let cuts = if rows == 1 { &[][..] } else { &[rows / 2] };
                check(&model, setup, ref_optimizer, &data, cuts);
            }
        }
    }
}

/// Batches so small, or layers of so few inputs, that a product takes as long as reading its weights or writing its gradients
/// does: those go row by row.
#[test]
fn long_rows() {
    use Activation::{Gelu, Identity, LeakyRelu, Relu, Silu};
    for (model, data, cuts) in [
        // Three samples before weights of 590 x 900, two before weights of 70 x 131, then gradients of them; and one sample.
        (mlp(590, &[(900, Silu), (3, Identity)], 1), Data::new(590, 3, 3, 1), &[][..]),
        (mlp(70, &[(131, Silu), (3, Identity)], 1), Data::new(70, 3, 3, 2), &[1, 2][..]),
        (mlp(70, &[(131, LeakyRelu(0.1)), (130, Gelu), (3, Identity)], 2), Data::new(70, 3, 1, 2), &[][..]),
        // Gradients of three inputs' weights, summed over 70 samples.
        (mlp(3, &[(131, Gelu), (3, Identity)], 3), Data::new(3, 3, 70, 1), &[5, 69][..]),
        // Gradients of 1030 x 515 weights, by rows of tiles, summed over 20 samples.
        (mlp(1030, &[(515, Gelu), (3, Identity)], 5), Data::new(1030, 3, 20, 1), &[9][..]),
        // Gradients of 25 x 1100 weights, which are used up in pieces of their rows.
        (mlp(25, &[(1100, Gelu), (3, Identity)], 7), Data::new(25, 3, 40, 2), &[3][..]),
        // Gradients of 517 x 521 weights, summed over 5 and 2 samples.
        (mlp(517, &[(521, Relu), (3, Identity)], 4), Data::new(517, 3, 5, 1), &[2][..]),
    ] {
        for (optimizer, ref_optimizer) in [0, 2, 7].map(|which| optimizers()[which]) {
            let setup = Setup { loss: Loss::Mse, optimizer, clip: Clip::None };
            alone(|| check(&model, setup, ref_optimizer, &data, cuts));
        }
    }
    // Plain updates by every number of samples that streams, and by one more; an odd number of rows, and part of a vector.
    for samples in 1..=9 {
        let model = mlp(9, &[(131, Relu), (270, Relu), (3, Identity)], 6);
        let (optimizer, ref_optimizer) = optimizers()[0];
        let setup = Setup { loss: Loss::Mse, optimizer, clip: Clip::None };
        alone(|| check(&model, setup, ref_optimizer, &Data::new(9, 3, samples, 2), &[][..]));
    }
}

/// Layers of few units and many samples: their factors change places, and what is saved of them lies as their outputs do.
#[test]
fn narrow_layers() {
    use Activation::{Gelu, Identity, LeakyRelu, Relu, Silu, Tanh};
    let (optimizer, ref_optimizer) = optimizers()[2];
    let setup = Setup { loss: Loss::CrossEntropy { label_smoothing: 0.1 }, optimizer, clip: Clip::None };
    for (units, activations) in
        [(3, [Gelu, Tanh]), (8, [LeakyRelu(0.1), Silu]), (10, [Silu, Relu]), (12, [Relu, Gelu])]
    {
        let layers = [(units, activations[0]), (40, activations[1]), (units, Identity)];
        alone(|| check(&mlp(50, &layers, 9), setup, ref_optimizer, &Data::new(50, units, 70, 1), &[1, 40]));
    }
}

/// Layers a few units wider than whole vectors, whose last columns are products of their own.
#[test]
fn layers_beyond_whole_vectors() {
    use Activation::{Gelu, Identity, LeakyRelu, Relu, Silu, Tanh};
    let (optimizer, ref_optimizer) = optimizers()[2];
    for (activations, clip) in [
        ([Gelu, Tanh], Clip::None),
        ([Relu, LeakyRelu(0.1)], Clip::None),
        ([LeakyRelu(0.1), Silu], Clip::GlobalNorm(0.5)),
    ] {
        let setup = Setup { loss: Loss::CrossEntropy { label_smoothing: 0.1 }, optimizer, clip };
        let layers = [(33, activations[0]), (100, activations[1]), (3, Identity)];
        alone(|| check(&mlp(70, &layers, 9), setup, ref_optimizer, &Data::new(70, 3, 150, 1), &[130]));
    }
}

#[test]
fn a_step_takes_in_what_was_accumulated() {
    let (model, data) = (mlp(7, &[(5, Activation::Identity)], 6), Data::new(7, 5, 19, 1));
    let optimizer = optimizers()[0].0;
    let setup = Setup { loss: Loss::Mse, optimizer, clip: Clip::None };
    let mut trainer = Trainer::new(model.clone(), setup.loss, optimizer).unwrap();
    for _ in 0..EPOCHS {
        for (n, part) in data.parts(&[4, 5])[0].iter().enumerate() {
            let x = MatRef::new(data.x(part), part.len(), 7).unwrap();
            let targets = Targets::Values(MatRef::new(data.values(part), part.len(), 5).unwrap());
            let call = if n < 2 { Trainer::accumulate } else { Trainer::step };
            call(&mut trainer, x, targets).unwrap();
        }
    }
    assert_eq!(bits(trainer.model()), run(&model, setup, &data, &[]).0);
}

/// Where no proof is to be had, before the gradients are known or even then, the update takes longer ways to the same
/// bits.
#[test]
fn updates_that_are_not_proven_safe_beforehand() {
    use Activation::{Identity, Tanh};
    let setup = |loss, optimizer| Setup { loss, optimizer, clip: Clip::None };
    // One sample is almost too large for an f32. The units of tanh that it saturates hand nothing down, so gradients are
    // ordinary; but from the largest sample and the largest delta that does not follow.
    let mut data = Data::new(7, 5, 19, 2);
    data.x.iter_mut().step_by(7).for_each(|x| *x = 0.0);
    data.x[0] = 3e38;
    for (optimizer, ref_optimizer) in optimizers() {
        check(
            &mlp(7, &[(21, Tanh), (5, Identity)], 4),
            setup(Loss::Mse, optimizer),
            ref_optimizer,
            &data,
            &[4, 5],
        );
    }
    // Gradients of 1e19, whose squares are more than the proof allows, but not more than an f32 holds: updated copies
    // take the place of the network.
    let mut data = Data::new(7, 5, 19, 2);
    data.x.iter_mut().for_each(|x| *x *= 1.4e10);
    let optimizer = Adam::new(0.02).betas(0.9, 0.5).into();
    let (betas, eps) = ((0.9, 0.5), 1e-8);
    let ref_optimizer =
        RefOptimizer::Adam { learning_rate: 0.02, betas, eps, weight_decay: 0.0, decoupled: false };
    check(&mlp(7, &[(5, Identity)], 5), setup(Loss::Mse, optimizer), ref_optimizer, &data, &[4, 5]);
}

#[cfg(feature = "rayon")]
#[test]
fn pools_of_any_size() {
    let (model, data) = large();
    for (setup, ref_optimizer) in large_setups() {
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            // Instruction sets are pinned inside, on the thread that hands out the parts.
            pool.install(|| check(&model, setup, ref_optimizer, &data, &[50, 83]));
        }
    }
}

/// Weights are updated in the tiles of their gradients by threads that have packed the gradients of the outputs together: so
/// many inputs, and gradients, that it pays.
#[cfg(feature = "rayon")]
#[test]
fn threads_that_pack_together() {
    let (model, data) = (mlp(400, &[(390, Activation::Identity)], 5), Data::new(400, 390, 510, 1));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    for (optimizer, ref_optimizer) in [0, 7].map(|which| optimizers()[which]) {
        let setup = Setup { loss: Loss::Mse, optimizer, clip: Clip::None };
        pool.install(|| check(&model, setup, ref_optimizer, &data, &[509]));
    }
}
