//! What a trainer takes of memory.

use super::trainer::Trainer;
use crate::kernels::scratch;

/// Bytes that a trainer holds, by what they are for; [`Trainer::memory`] tells them.
///
/// With P weights and biases, s values that the optimizer remembers of each (0 for plain SGD, 1 with momentum, 2 for Adam
/// and AdamW) and batches of b samples, up to whole cache lines of 64 bytes:
///
/// - `weights` 4 P, `optimizer` 4 P s;
/// - `activations` 4 b for each unit of each layer, twice (its output, and the derivative of the loss by what it was made
///   of), and once more where the activation needs its input again (LeakyReLU, GELU, SiLU). A [`step`](Trainer::step) of a batch
///   that would leave more than a core's cache holds takes it in parts through the layers (where there are at most 256 Ki weights): b
///   is then the samples of a part;
/// - `gradients` 4 P once gradients had to be kept: micro-batches, batches in parts, clipping by the global norm; 0 else;
/// - `scratch` 4 b for each term of the loss, as much (of the whole batch) for targets that do not lie row after row, and the copies of operands
///   that the calling thread keeps for the next product: 8.5 MiB, or 176 b where that is more, and 8 MiB that threads share,
///   at most.
///
/// Where a layer has a multiple of 1024 outputs, rows of its weights, of what the optimizer remembers, of gradients, and of activations (but
/// those of the last layer) are 64 bytes longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// The network.
    pub weights: usize,
    /// What the optimizer remembers.
    pub optimizer: usize,
    /// What the layers leave of the largest batch so far.
    pub activations: usize,
    /// Gradients that are kept.
    pub gradients: usize,
    /// Everything else.
    pub scratch: usize,
}

impl Memory {
    /// All of it.
    pub fn total(self) -> usize {
        self.weights + self.optimizer + self.activations + self.gradients + self.scratch
    }
}

impl Trainer {
    /// Bytes that this trainer holds now. Call it after a step: buffers are made with the first batch of a size.
    ///
    /// ```
    /// use percycle::{Activation, Adam, Loss, MatRef, Mlp, Targets, Trainer};
    ///
    /// let mlp = Mlp::builder(64).layer(32, Activation::Relu).layer(16, Activation::Identity).build()?;
    /// let mut trainer = Trainer::new(mlp, Loss::CrossEntropy { label_smoothing: 0.0 }, Adam::new(0.01))?;
    /// trainer.step(MatRef::new(&[0.5; 8 * 64], 8, 64)?, Targets::Classes(&[1; 8]))?;
    /// let memory = trainer.memory();
    /// assert_eq!(memory.weights, 4 * (64 * 32 + 32 + 32 * 16 + 16));
    /// assert_eq!(memory.optimizer, 2 * memory.weights);
    /// assert_eq!(memory.activations, 4 * 8 * 2 * (32 + 16));
    /// # Ok::<(), percycle::Error>(())
    /// ```
    pub fn memory(&self) -> Memory {
        let (activations, rest) = self.pass.bytes();
        let gradients = self.gradients.iter().map(|g| g.weight.bytes() + g.bias.bytes()).sum();
        let layers = self.model.layers().iter();
        Memory {
            weights: layers.map(|layer| 4 * (layer.parts().0.len() + layer.parts().1.len())).sum(),
            optimizer: self.state.bytes(),
            activations,
            gradients,
            scratch: rest + scratch::held(),
        }
    }
}
