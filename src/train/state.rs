//! What an optimizer remembers, and the updates of all layers.

use super::limits::Limits;
use super::optimizer::{Adam, AdamW, Moments, Optimizer, Sgd};
use super::pass::Gradient;
use crate::buffer::Buffer;
use crate::kernels::reduce::most;
use crate::kernels::update::{AdamRule, Rule, Scaling, SgdRule, Tensors, update};
use crate::nn::Mlp;
use crate::simd::Isa;

/// What is remembered of one tensor: the velocity, or the mean and the mean square; empty where there is none.
#[derive(Clone, Debug)]
struct Memory {
    first: Buffer,
    second: Buffer,
    limits: Limits,
    /// The limits after the update that is being proven.
    next: Limits,
}

/// The state of an optimizer.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Of each layer: what is remembered of its weight and of its bias.
    memories: Vec<[Memory; 2]>,
    updates: u64,
    /// The betas to the power of `updates`, by multiplication: `powi` may differ between platforms.
    powers: (f64, f64),
}

/// Where an update that is not finite was met: what, and in which layer.
pub(super) type Broken = (&'static str, usize);

/// An update that has been worked out but not made.
pub(super) struct Planned {
    pub rule: Rule,
    pub scaling: Scaling,
    powers: (f64, f64),
}

impl State {
    pub(super) fn new(optimizer: &Optimizer, model: &Mlp) -> Self {
        let (first, second) = match optimizer {
            Optimizer::Sgd(sgd) => (sgd.momentum != 0.0, false),
            Optimizer::Adam(_) | Optimizer::AdamW(_) => (true, true),
        };
        let memory = |len: usize| Memory {
            first: Buffer::zeros(if first { len } else { 0 }),
            second: Buffer::zeros(if second { len } else { 0 }),
            limits: Limits::UNKNOWN,
            next: Limits::UNKNOWN,
        };
        let layer = |layer: &crate::nn::Linear| {
            let (weights, biases) = layer.parts();
            [memory(weights.len()), memory(biases.len())]
        };
        State { memories: model.layers().iter().map(layer).collect(), updates: 0, powers: (1.0, 1.0) }
    }

    /// The next update with gradients scaled like this.
    pub(super) fn plan(&self, optimizer: &Optimizer, scaling: Scaling) -> Planned {
        let (rule, powers) = match optimizer {
            Optimizer::Sgd(sgd) => (Rule::Sgd(self.sgd_rule(sgd)), self.powers),
            Optimizer::Adam(Adam(moments)) => self.adam_rule(moments, 1.0, moments.weight_decay),
            Optimizer::AdamW(AdamW(moments)) => {
                let keep = 1.0 - f64::from(moments.learning_rate) * f64::from(moments.weight_decay);
                self.adam_rule(moments, keep as f32, 0.0)
            }
        };
        Planned { rule, scaling, powers }
    }

    /// Whether the update cannot but leave finite numbers, given a bound of the sums of gradients for the weight and the
    /// bias of each layer. Looks at the tensors themselves only when what is known of them does not suffice.
    pub(super) fn prove(
        &mut self,
        isa: Isa,
        planned: &Planned,
        model: &Mlp,
        sums: impl Fn(usize) -> [f64; 2],
    ) -> bool {
        if self.proven(planned, &sums) {
            return true;
        }
        for (memories, layer) in self.memories.iter_mut().zip(model.layers()) {
            let (weights, biases) = layer.parts();
            for (memory, values) in memories.iter_mut().zip([weights, biases]) {
                let bound = |values: &[f32]| f64::from(most(isa, values));
                memory.limits = Limits {
                    weights: bound(values),
                    first: bound(&memory.first),
                    second: bound(&memory.second),
                };
            }
        }
        self.proven(planned, &sums)
    }

    /// The same by what is known of the tensors.
    pub(super) fn proven(&mut self, planned: &Planned, sums: impl Fn(usize) -> [f64; 2]) -> bool {
        self.memories.iter_mut().enumerate().all(|(n, memories)| {
            memories.iter_mut().zip(sums(n)).all(|(memory, sum)| {
                let after = memory.limits.after(&planned.rule, &planned.scaling, sum);
                memory.next = after.unwrap_or(Limits::UNKNOWN);
                after.is_some()
            })
        })
    }

    /// Upper bounds of the absolute values of the weights and of the biases of a layer.
    pub(super) fn limits(&self, layer: usize) -> [f64; 2] {
        self.memories[layer].each_ref().map(|memory| memory.limits.weights)
    }

    /// Bytes that are remembered.
    pub(super) fn bytes(&self) -> usize {
        self.memories.iter().flatten().map(|memory| memory.first.bytes() + memory.second.bytes()).sum()
    }

    /// Forgets what is known of the weights: they have been replaced.
    pub(super) fn forget_limits(&mut self) {
        for memory in self.memories.iter_mut().flatten() {
            memory.limits = Limits::UNKNOWN;
        }
    }

    /// The weights and the biases of a layer with what is remembered of them, to be updated.
    pub(super) fn tensors<'a>(&'a mut self, model: &'a mut Mlp, layer: usize) -> [Tensors<'a>; 2] {
        let (weights, biases) = model.layers_mut()[layer].parts_mut();
        let (row, outputs) = (weights.row_stride(), biases.len());
        let [of_weights, of_biases] = &mut self.memories[layer];
        let tensors = [(weights.elements_mut(), row, of_weights), (biases, outputs, of_biases)];
        tensors.map(|(weights, row, memory)| Tensors {
            weights,
            row,
            first: &mut memory.first,
            second: &mut memory.second,
        })
    }

    /// Counts the update in, when all layers have been updated.
    pub(super) fn finish(&mut self, planned: &Planned) {
        self.updates += 1;
        self.powers = planned.powers;
        for memory in self.memories.iter_mut().flatten() {
            memory.limits = memory.next;
        }
    }

    /// Updates all layers by stored gradients: in place when that is proven to be safe; otherwise on copies, which take
    /// the place of `model` and of this state if all of them is finite.
    pub(super) fn update(
        &mut self,
        isa: Isa,
        planned: &Planned,
        model: &mut Mlp,
        gradients: &[Gradient],
    ) -> Result<(), Broken> {
        let bound = |values: &[f32]| f64::from(most(isa, values));
        let sums = |n: usize| [bound(gradients[n].weight.elements()), bound(&gradients[n].bias)];
        if self.prove(isa, planned, model, sums) {
            self.apply(isa, planned, model, gradients);
            return Ok(());
        }
        let (mut next, mut next_model) = (self.clone(), model.clone());
        next.apply(isa, planned, &mut next_model, gradients);
        for n in 0..gradients.len() {
            for (what, tensors) in WHAT.into_iter().zip(next.tensors(&mut next_model, n)) {
                let all = [&*tensors.weights, tensors.first, tensors.second];
                if !all.into_iter().all(|values| most(isa, values) < f32::INFINITY) {
                    return Err((what, n));
                }
            }
        }
        (*self, *model) = (next, next_model);
        self.forget_limits();
        Ok(())
    }

    fn apply(&mut self, isa: Isa, planned: &Planned, model: &mut Mlp, gradients: &[Gradient]) {
        for (n, gradient) in gradients.iter().enumerate() {
            let Gradient { weight, bias } = gradient;
            for (grad, tensors) in [weight.elements(), bias].into_iter().zip(self.tensors(model, n)) {
                update(isa, &planned.rule, &planned.scaling, grad, tensors);
            }
        }
        self.finish(planned);
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
            unbias: (1.0 / (1.0 - powers.1).sqrt()) as f32,
            eps: moments.eps,
        };
        (Rule::Adam(rule), powers)
    }
}

const WHAT: [&str; 2] = ["a weight after the update", "a bias after the update"];
