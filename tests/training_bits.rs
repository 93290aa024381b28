//! Whole training runs end in the bits of the reference: on every instruction set, in pools of any size, and
//! however the batches are cut into micro-batches.

#[path = "training/network.rs"]
mod network;
#[path = "training/numbers.rs"]
mod numbers;

use network::{bits, mlp};
use numbers::Numbers;
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
            classes: (0..n).map(|i| (i * i % 11 % outputs) as u32).collect(),
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

fn large_setup() -> (Setup, RefOptimizer) {
    let (optimizer, ref_optimizer) = optimizers()[7];
    let loss = Loss::CrossEntropy { label_smoothing: 0.1 };
    let clip = Clip::GlobalNorm(0.5);
    let setup = Setup { loss, optimizer, clip };
    (setup, ref_optimizer)
}

#[test]
fn large_layers() {
    let (model, data) = large();
    let (setup, ref_optimizer) = large_setup();
    let want = run_reference(&model, setup, ref_optimizer, &data, &[]);
    for isa in Isa::available() {
        let got = isa.pin(|| run(&model, setup, &data, &[]));
        assert!(got == want, "{}", isa.name());
        let parts = isa.pin(|| run(&model, setup, &data, &[50, 83]));
        assert!(parts.0 == want.0, "{} in three micro-batches", isa.name());
    }
}

#[cfg(feature = "rayon")]
#[test]
fn pools_of_any_size() {
    let (model, data) = large();
    let (setup, ref_optimizer) = large_setup();
    let want = run_reference(&model, setup, ref_optimizer, &data, &[]);
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for isa in Isa::available() {
            let got = pool.install(|| isa.pin(|| run(&model, setup, &data, &[])));
            assert!(got == want, "{threads} threads, {}", isa.name());
        }
    }
}
