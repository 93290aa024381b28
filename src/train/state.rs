//! What an optimizer remembers, and the update of all layers.

use super::optimizer::{Adam, AdamW, Moments, Optimizer, Sgd};
use super::pass::Gradient;
use crate::kernels::update::{AdamRule, Change, Scaling, SgdRule, adam, sgd};
use crate::nn::Mlp;
use crate::simd::Isa;

/// A tensor that an optimizer remembers, and the place for its next value: they change places after each
/// update.
#[derive(Clone, Debug)]
struct Memory {
    old: Vec<f32>,
    new: Vec<f32>,
}

impl Memory {
    fn change(&mut self) -> Change<'_> {
        Change { old: &self.old, new: &mut self.new }
    }
}

/// The state of an optimizer.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// For each layer, its weight and then its bias: what is remembered of each.
    memories: Vec<Vec<Memory>>,
    updates: u64,
    /// The betas to the power of `updates`, by multiplication: `powi` may differ between platforms.
    powers: (f64, f64),
}

/// Where an update that is not finite was met: what, and in which layer.
pub(super) type Broken = (&'static str, usize);

/// The numbers of one update.
enum Rule {
    Sgd(SgdRule),
    Adam(AdamRule),
}

impl State {
    pub(super) fn new(optimizer: &Optimizer, model: &Mlp) -> Self {
        let count = match optimizer {
            Optimizer::Sgd(sgd) => usize::from(sgd.momentum != 0.0),
            Optimizer::Adam(_) | Optimizer::AdamW(_) => 2,
        };
        let memories = |len: usize| {
            let (old, new) = (vec![0.0; len], vec![0.0; len]);
            vec![Memory { old, new }; count]
        };
        let tensors = |layer: &crate::nn::Linear| {
            let (inputs, outputs) = (layer.in_features(), layer.out_features());
            [memories(inputs * outputs), memories(outputs)]
        };
        State { memories: model.layers().iter().flat_map(tensors).collect(), updates: 0, powers: (1.0, 1.0) }
    }

    /// Computes what `model` and this state become into `next` and the second halves of the state. Then, if
    /// all of it is finite, both change places; otherwise both are as they were.
    pub(super) fn update(
        &mut self,
        isa: Isa,
        optimizer: &Optimizer,
        scaling: Scaling,
        model: &mut Mlp,
        next: &mut Mlp,
        gradients: &[Gradient],
    ) -> Result<(), Broken> {
        let (rule, powers) = self.rule(optimizer);
        let mut memories = self.memories.iter_mut();
        let layers = model.layers_mut().iter_mut().zip(next.layers_mut());
        for (n, ((old, new), gradient)) in layers.zip(gradients).enumerate() {
            let ((old_weight, old_bias), (new_weight, new_bias)) = (old.parts_mut(), new.parts_mut());
            for (what, old, new, gradient) in [
                ("a weight after the update", old_weight, new_weight, &gradient.weight),
                ("a bias after the update", old_bias, new_bias, &gradient.bias),
            ] {
                let weights = Change { old, new };
                let memory = memories.next().map_or(&mut [][..], |memory| memory);
                if !rule.apply(isa, scaling, gradient, weights, memory) {
                    return Err((what, n));
                }
            }
        }
        std::mem::swap(model, next);
        for memory in self.memories.iter_mut().flatten() {
            std::mem::swap(&mut memory.old, &mut memory.new);
        }
        self.updates += 1;
        self.powers = powers;
        Ok(())
    }

    /// The numbers of the next update, and the powers of the betas after it.
    fn rule(&self, optimizer: &Optimizer) -> (Rule, (f64, f64)) {
        match optimizer {
            Optimizer::Sgd(sgd) => (Rule::Sgd(self.sgd_rule(sgd)), self.powers),
            Optimizer::Adam(Adam(moments)) => self.adam_rule(moments, 1.0, moments.weight_decay),
            Optimizer::AdamW(AdamW(moments)) => {
                let keep = 1.0 - f64::from(moments.learning_rate) * f64::from(moments.weight_decay);
                self.adam_rule(moments, keep as f32, 0.0)
            }
        }
    }

    fn sgd_rule(&self, sgd: &Sgd) -> SgdRule {
        SgdRule {
            learning_rate: sgd.learning_rate,
            weight_decay: sgd.weight_decay,
            momentum: sgd.momentum,
            share: 1.0 - sgd.dampening,
            nesterov: sgd.nesterov,
            first: self.updates == 0,
        }
    }

    fn adam_rule(&self, moments: &Moments, keep: f32, weight_decay: f32) -> (Rule, (f64, f64)) {
        let (beta1, beta2) = moments.betas;
        let powers = (self.powers.0 * beta1, self.powers.1 * beta2);
        let rule = AdamRule {
            keep,
            weight_decay,
            beta1: beta1 as f32,
            share1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            share2: (1.0 - beta2) as f32,
            step: (f64::from(moments.learning_rate) / (1.0 - powers.0)) as f32,
            root: (1.0 - powers.1).sqrt() as f32,
            eps: moments.eps,
        };
        (Rule::Adam(rule), powers)
    }
}

impl Rule {
    /// Updates one tensor; false when a new value is not finite.
    fn apply(
        &self,
        isa: Isa,
        scaling: Scaling,
        grad: &[f32],
        weights: Change,
        memory: &mut [Memory],
    ) -> bool {
        match (self, memory) {
            (Rule::Sgd(rule), memory) => {
                let velocity = memory.first_mut().map(Memory::change);
                sgd(isa, *rule, scaling, grad, weights, velocity)
            }
            (Rule::Adam(rule), [mean, square]) => {
                adam(isa, *rule, scaling, grad, weights, mean.change(), square.change())
            }
            (Rule::Adam(_), _) => unreachable!("`new` gives Adam two memories for each tensor"),
        }
    }
}
