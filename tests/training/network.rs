//! Small networks, and their weights as bits.

use percycle::{Activation, Mlp};

/// A network of layers `(units, activation)`.
pub fn mlp(inputs: usize, layers: &[(usize, Activation)], seed: u64) -> Mlp {
    let builder =
        layers.iter().fold(Mlp::builder(inputs), |builder, &(units, act)| builder.layer(units, act));
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
