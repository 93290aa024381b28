//! What the tests of training share: numbers that look random, and networks for both sides.

// Each test file uses its part.
#![allow(dead_code)]

use percycle::{Activation, Mlp};

/// Numbers in [-1, 1), the same in every run (xorshift, G. Marsaglia 2003).
pub struct Numbers(u32);

impl Numbers {
    pub fn new(seed: u32) -> Self {
        Numbers(seed.wrapping_mul(2_654_435_761) | 1)
    }

    pub fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        (self.0 >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn many(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next()).collect()
    }
}

/// A network of layers `(units, activation)`.
pub fn mlp(inputs: usize, layers: &[(usize, Activation)], seed: u64) -> Mlp {
    let builder = layers
        .iter()
        .fold(Mlp::builder(inputs), |builder, &(units, act)| {
            builder.layer(units, act)
        });
    builder.seed(seed).build().unwrap()
}

/// All weights and biases as bits, layer after layer.
pub fn bits(mlp: &Mlp) -> Vec<u32> {
    let mut bits = Vec::new();
    for layer in mlp.layers() {
        bits.extend(layer.weight().as_slice().iter().map(|w| w.to_bits()));
        bits.extend(layer.bias().iter().map(|b| b.to_bits()));
    }
    bits
}
