//! The body for x86-64 CPUs without FMA. No CPU that tests run on chooses it, so they cannot pin it from outside.

use super::{into_numbers, numbers, stored};
use crate::{
    Activation, Adam, Isa, Loss, MatMut, Matrix, Mlp, Optimizer, Result, Sgd, Targets, Trainer, linear,
};

const ACTIVATIONS: [Activation; 8] = [
    Activation::Identity,
    Activation::Relu,
    Activation::LeakyRelu(0.1),
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Silu,
];

/// Products of each layout, activations and training steps, as bits.
fn everything() -> Result<Vec<u32>> {
    let mut results = Vec::new();
    for (m, n, k) in [(1, 1, 1), (2, 3, 2), (5, 9, 0), (7, 40, 3), (13, 1, 31), (14, 33, 70), (40, 90, 20)] {
        let (a, b, bias) = (numbers(m * k), numbers(k * n), numbers(n));
        for (layout, activation) in ACTIVATIONS.into_iter().enumerate() {
            let (a, b) = (stored(&a, m, k, layout & 1 != 0)?, stored(&b, k, n, layout & 2 != 0)?);
            let mut c = into_numbers(a, b, layout & 4 != 0)?;
            results.extend(&c);
            linear(a, b, Some(&bias), activation, MatMut::new(&mut c, m, n)?)?;
            results.extend(&c);
        }
    }
    for hidden in ACTIVATIONS {
        for adam in [false, true] {
            let mlp = Mlp::builder(11).layer(19, hidden).layer(4, Activation::Identity).seed(3).build()?;
            let x = Matrix::from_vec(6, 11, numbers(66))?;
            let optimizer: Optimizer =
                if adam { Adam::new(0.01).into() } else { Sgd::new(0.1).momentum(0.9).into() };
            let mut trainer = Trainer::new(mlp, Loss::CrossEntropy { label_smoothing: 0.1 }, optimizer)?;
            for _ in 0..3 {
                results.push(trainer.step(x.view(), Targets::Classes(&[0, 1, 2, 3, 1, 0]))?);
            }
            for layer in trainer.model().layers() {
                results.extend(layer.weight().as_slice());
                results.extend(layer.bias());
            }
        }
    }
    Ok(results.into_iter().map(f32::to_bits).collect())
}

#[test]
fn without_fma_the_bits_are_the_same() {
    let software = Isa::software().pin(|| everything().unwrap());
    assert!(software == everything().unwrap());
}
