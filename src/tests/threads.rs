//! Teams of any size, also of more threads than there are cores, which are never led otherwise.

use super::{into_numbers, numbers, stored};
use crate::kernels::loss::{Mse, elements};
use crate::kernels::{lead_through, meter};
use crate::{
    Activation, Adam, Clip, Isa, Loss, MatMut, MatRef, Mlp, Optimizer, PackedWeights, Result, Sgd, Targets,
    Trainer, linear_packed,
};

/// Products whose parts are rows, columns or blocks, in all layouts, with B packed together, packed before, or read in place.
fn products() -> Result<Vec<f32>> {
    let mut results = Vec::new();
    for (m, n, k) in
        [(401, 70, 33), (70, 401, 33), (130, 150, 70), (1, 3000, 90), (3000, 1, 90), (37, 97, 300)]
    {
        let (a, b, bias) = (numbers(m * k), numbers(k * n), numbers(n));
        for layout in 0..8 {
            let (a, b) = (stored(&a, m, k, layout & 1 != 0)?, stored(&b, k, n, layout & 2 != 0)?);
            let mut c = into_numbers(a, b, layout & 4 != 0)?;
            results.extend(&c);
            let packed = PackedWeights::new(b);
            linear_packed(a, &packed, Some(&bias), Activation::Silu, MatMut::new(&mut c, m, n)?)?;
            results.extend(&c);
        }
    }
    Ok(results)
}

/// Steps whose gradients are used up where they are made, and stored.
fn steps(optimizer: Optimizer, clip: Clip) -> Result<Vec<f32>> {
    let (batch, inputs) = (130, 70);
    let mlp = Mlp::builder(inputs).layer(300, Activation::Gelu).layer(200, Activation::Relu);
    let mlp = mlp.layer(7, Activation::Identity).seed(1).build()?;
    let (x, classes) = (numbers(batch * inputs), (0..batch as u32).map(|i| i % 7).collect::<Vec<_>>());
    let loss = Loss::CrossEntropy { label_smoothing: 0.1 };
    let mut trainer = Trainer::new(mlp, loss, optimizer)?.with_clip(clip)?;
    let mut results = Vec::new();
    for _ in 0..3 {
        results.push(trainer.step(MatRef::new(&x, batch, inputs)?, Targets::Classes(&classes))?);
    }
    for layer in trainer.model().layers() {
        let (weights, biases) = layer.parts();
        results.extend(weights.iter().chain(biases));
    }
    Ok(results)
}

/// Losses of so many outputs that threads share them.
fn losses() -> Result<Vec<f32>> {
    let (batch, outputs) = (1301, 40);
    let (x, classes) =
        (numbers(batch * 3), (0..batch as u32).map(|i| i % outputs as u32).collect::<Vec<_>>());
    let values: Vec<f32> = numbers(batch * outputs).iter().map(|value| value.abs().fract()).collect();
    let mut results = Vec::new();
    for (loss, last) in [
        (Loss::CrossEntropy { label_smoothing: 0.1 }, Activation::Identity),
        (Loss::Mse, Activation::Identity),
        (Loss::Bce, Activation::Sigmoid),
        (Loss::BceWithLogits, Activation::Identity),
    ] {
        let targets = match loss {
            Loss::CrossEntropy { .. } => Targets::Classes(&classes),
            _ => Targets::Values(MatRef::new(&values, batch, outputs)?),
        };
        let mlp = Mlp::builder(3).layer(outputs, last).seed(1).build()?;
        let mut trainer = Trainer::new(mlp, loss, Sgd::new(0.1))?;
        results.push(trainer.step(MatRef::new(&x, batch, 3)?, targets)?);
        let (weights, biases) = trainer.model().layers()[0].parts();
        results.extend(weights.iter().chain(biases));
    }
    Ok(results)
}

fn everything() -> Result<Vec<u32>> {
    let mut results = products()?;
    results.extend(losses()?);
    for optimizer in [Sgd::new(0.1).into(), Sgd::new(0.1).momentum(0.9).into(), Adam::new(0.01).into()] {
        for clip in [Clip::None, Clip::GlobalNorm(0.5)] {
            results.extend(steps(optimizer, clip)?);
        }
    }
    Ok(results.iter().map(|x| x.to_bits()).collect())
}

#[test]
fn teams_of_any_size_have_the_bits_of_one_thread() -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads can be started");
    for isa in Isa::available() {
        let alone = isa.pin(|| lead_through(1, usize::MAX, everything))?;
        for threads in [2, 3, 5, 16, 61] {
            let team = || isa.pin(|| lead_through(threads, usize::MAX, everything));
            for (place, result) in [("in a pool", pool.install(team)?), ("outside", team()?)] {
                let other = result.iter().zip(&alone).position(|(one, other)| one != other);
                assert_eq!((other, result.len()), (None, alone.len()), "{threads} threads {place} on {isa}");
            }
        }
    }
    Ok(())
}

/// What a profile says of the threads of a loss: a part for each, however often it was shared, and whoever took them.
#[test]
fn a_shared_loss_notes_its_parts() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads can be started");
    let many = 1 << 19;
    let (y, t, mut terms, mut delta) = (numbers(many), numbers(many), vec![0.0; many], vec![0.0; many]);
    let mut losses = |times: usize| {
        lead_through(2, usize::MAX, || {
            let before = meter::watch(true);
            for _ in 0..times {
                elements::<Mse>(Isa::current(), &y, &t, &mut terms, &mut delta);
            }
            meter::watch(before);
            meter::take().parts
        })
    };
    for times in [1, 3] {
        let parts = pool.install(|| losses(times));
        let worked = parts.iter().any(|(_, time)| !time.is_zero());
        assert_eq!((parts.len(), worked), (2, true), "{times} times: {parts:?}");
    }
}
