//! Gradient descent and its relatives: from a gradient to new weights, one weight at a time.
//!
//! The formulas and their order are PyTorch's (`torch/optim/sgd.py`, `adam.py`, `adamw.py`); how each
//! operation is rounded is defined here. What depends on the number of the update only is computed in f64 and
//! rounded once.

/// The optimizers and their settings.
#[derive(Clone, Copy, Debug)]
pub enum Optimizer {
    /// `g += decay w; v = momentum v + (1 - dampening) g; w -= lr v`, or with Nesterov's momentum
    /// `w -= lr (g + momentum v)`. The first v is g.
    Sgd { learning_rate: f32, momentum: f32, dampening: f32, nesterov: bool, weight_decay: f32 },
    /// Kingma and Ba, 2015: running means of the gradient and of its square, both corrected for having begun
    /// at 0. `decoupled` is AdamW (Loshchilov and Hutter, 2019): the decay shrinks the weight instead of
    /// entering the gradient.
    Adam { learning_rate: f32, betas: (f64, f64), eps: f32, weight_decay: f32, decoupled: bool },
}

/// What is remembered of one weight.
#[derive(Clone, Copy, Default)]
pub struct Memory {
    /// The velocity of SGD, or the running mean of Adam.
    pub mean: f32,
    /// The running mean square of Adam.
    pub square: f32,
}

/// The numbers that all weights share in update `t`, counted from 1.
#[derive(Clone, Copy)]
pub struct Clock {
    pub t: u64,
    /// The betas to the power of t, multiplied up one update at a time.
    powers: (f64, f64),
}

impl Clock {
    /// Before the first update.
    pub fn start() -> Self {
        Clock { t: 0, powers: (1.0, 1.0) }
    }

    /// The next update.
    pub fn tick(&mut self, optimizer: &Optimizer) {
        self.t += 1;
        if let Optimizer::Adam { betas, .. } = optimizer {
            self.powers.0 *= betas.0;
            self.powers.1 *= betas.1;
        }
    }
}

/// The new weight; `g` is the mean gradient after clipping.
pub fn update(optimizer: &Optimizer, clock: Clock, mut g: f32, weight: f32, memory: &mut Memory) -> f32 {
    match *optimizer {
        Optimizer::Sgd { learning_rate, momentum, dampening, nesterov, weight_decay } => {
            if weight_decay != 0.0 {
                g = weight_decay.mul_add(weight, g);
            }
            if momentum != 0.0 {
                memory.mean =
                    if clock.t == 1 { g } else { momentum.mul_add(memory.mean, (1.0 - dampening) * g) };
                g = if nesterov { momentum.mul_add(memory.mean, g) } else { memory.mean };
            }
            (-learning_rate).mul_add(g, weight)
        }
        Optimizer::Adam { learning_rate, betas: (beta1, beta2), eps, weight_decay, decoupled } => {
            let mut kept = weight;
            if decoupled {
                let keep = 1.0 - f64::from(learning_rate) * f64::from(weight_decay);
                kept = weight * keep as f32;
            } else if weight_decay != 0.0 {
                g = weight_decay.mul_add(weight, g);
            }
            // m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
            let (share1, share2) = ((1.0 - beta1) as f32, (1.0 - beta2) as f32);
            memory.mean = (beta1 as f32).mul_add(memory.mean, share1 * g);
            memory.square = (beta2 as f32).mul_add(memory.square, (share2 * g) * g);
            // w -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
            let step = (f64::from(learning_rate) / (1.0 - clock.powers.0)) as f32;
            let unbias = (1.0 / (1.0 - clock.powers.1).sqrt()) as f32;
            let scale = memory.square.sqrt().mul_add(unbias, eps);
            (-step).mul_add(memory.mean / scale, kept)
        }
    }
}
