//! Training: forward, loss, backward, update, again and again.

use crate::backward::{Gradient, Layer, backward, forward};
use crate::loss::{Loss, Targets, mean, terms};
use crate::optimizer::{Clock, Memory, Optimizer, update};

/// How the mean gradient is kept from being too large.
#[derive(Clone, Copy, Debug)]
pub enum Clip {
    None,
    /// Each element is brought into `[-limit, limit]`.
    Value(f32),
    /// All are multiplied by `min(1, limit / (norm + 1e-6))`: PyTorch's `clip_grad_norm_` (Pascanu et al.,
    /// 2013).
    GlobalNorm(f32),
}

/// A batch, or a part of one: samples one after another, and their targets.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    pub x: &'a [f32],
    pub rows: usize,
    pub targets: Targets<'a>,
}

/// A network in training.
#[derive(Clone)]
pub struct Trainer {
    pub layers: Vec<Layer>,
    pub loss: Loss,
    pub optimizer: Optimizer,
    pub clip: Clip,
    clock: Clock,
    gradients: Vec<Gradient>,
    /// Terms of the loss that the gradients have been summed over.
    count: u64,
    /// For each layer, the memories of its weights and of its biases.
    memories: Vec<(Vec<Memory>, Vec<Memory>)>,
}

impl Trainer {
    pub fn new(layers: Vec<Layer>, loss: Loss, optimizer: Optimizer, clip: Clip) -> Self {
        let fresh = |values: &[f32]| vec![Memory::default(); values.len()];
        let memories = layers.iter().map(|l| (fresh(&l.weight), fresh(&l.bias)));
        Trainer {
            memories: memories.collect(),
            gradients: layers.iter().map(Gradient::zeros).collect(),
            clock: Clock::start(),
            count: 0,
            layers,
            loss,
            optimizer,
            clip,
        }
    }

    /// The training loop: one update for each batch, which may come in several parts. The mean loss of each
    /// part.
    pub fn epoch(&mut self, batches: &[&[Batch]]) -> Vec<f32> {
        let mut losses = Vec::new();
        for parts in batches {
            losses.extend(parts.iter().map(|&part| self.accumulate(part)));
            self.apply();
        }
        losses
    }

    /// Adds the gradients of a batch, or of a part of one, to the sum. Its mean loss.
    pub fn accumulate(&mut self, batch: Batch) -> f32 {
        let saved = forward(&self.layers, batch.x, batch.rows);
        let y = saved.last().map_or(batch.x, |saved| &saved.y);
        let loss = terms(self.loss, y, batch.targets);
        let mean = mean(&loss.terms, batch.rows);
        self.count += loss.terms.len() as u64;
        backward(&self.layers, batch.x, batch.rows, &saved, loss.delta, &mut self.gradients);
        mean
    }

    /// One update by the mean of the summed gradients. It is here that the mean is taken, once: that is why a
    /// batch gives the same bits however it was cut into parts.
    pub fn apply(&mut self) {
        let scale = 1.0 / self.count as f32;
        let (coefficient, limit) = self.clipping(scale);
        self.clock.tick(&self.optimizer);
        let layers = self.layers.iter_mut().zip(&self.gradients).zip(&mut self.memories);
        for ((layer, gradient), (weight_memory, bias_memory)) in layers {
            for (values, gradient, memory) in [
                (&mut layer.weight, &gradient.weight, weight_memory),
                (&mut layer.bias, &gradient.bias, bias_memory),
            ] {
                for ((value, sum), memory) in values.iter_mut().zip(gradient).zip(memory) {
                    let mut g = (sum * scale) * coefficient;
                    if g > limit {
                        g = limit;
                    }
                    if g < -limit {
                        g = -limit;
                    }
                    *value = update(&self.optimizer, self.clock, g, *value, memory);
                }
            }
        }
        self.gradients = self.layers.iter().map(Gradient::zeros).collect();
        self.count = 0;
    }

    /// The factor on, and the limit of, each element of the mean gradient.
    fn clipping(&self, scale: f32) -> (f32, f32) {
        match self.clip {
            Clip::None => (1.0, f32::INFINITY),
            Clip::Value(limit) => (1.0, limit),
            Clip::GlobalNorm(limit) => {
                let mut squares = 0.0;
                for gradient in &self.gradients {
                    squares += sum_of_squares(&gradient.weight, scale);
                    squares += sum_of_squares(&gradient.bias, scale);
                }
                let norm = squares.sqrt();
                ((f64::from(limit) / (norm + 1e-6)).min(1.0) as f32, f32::INFINITY)
            }
        }
    }
}

/// The sum of squares of the mean gradient of one tensor, in f64. Eight sums take turns, so that a vector can
/// hold them, and are added up at the end.
fn sum_of_squares(sums: &[f32], scale: f32) -> f64 {
    let mut turns = [0.0; 8];
    for (i, sum) in sums.iter().enumerate() {
        let g = f64::from(sum * scale);
        turns[i % 8] += g * g;
    }
    let mut total = 0.0;
    for sum in turns {
        total += sum;
    }
    total
}
