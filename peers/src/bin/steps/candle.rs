//! candle: its layers, losses and optimizers, on the CPU.

use candle_core::{Device, Tensor, Var};
use candle_nn::{AdamW, Module, Optimizer as _, ParamsAdamW, SGD};
use percycle::Activation;
use percycle_peers::Failure;
use percycle_peers::nets::{Loss, Net, Optimizer, Targets, Task};
use percycle_peers::ours::Call;

struct Mlp {
    layers: Vec<candle_nn::Linear>,
    hidden: candle_nn::Activation,
}

impl Mlp {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = x.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x)?;
            if i + 1 < self.layers.len() {
                x = self.hidden.forward(&x)?;
            }
        }
        Ok(x)
    }
}

/// Gradients of a loss, and the update.
type Update = Box<dyn FnMut(&Tensor) -> candle_core::Result<()>>;

pub fn prepare(net: &Net, rate: f64) -> Result<Call<'_>, Failure> {
    let tensor = |matrix: &percycle::Matrix| {
        Tensor::from_slice(matrix.as_slice(), (matrix.rows(), matrix.cols()), &Device::Cpu)
    };
    let mut vars = Vec::new();
    let mut layers = Vec::new();
    for layer in net.model.layers() {
        let weight = Var::from_tensor(&tensor(&layer.weight())?)?;
        let bias = Var::from_slice(layer.bias(), layer.out_features(), &Device::Cpu)?;
        vars.extend([weight.clone(), bias.clone()]);
        layers.push(match net.task {
            Task::Step(..) => {
                candle_nn::Linear::new(weight.as_tensor().clone(), Some(bias.as_tensor().clone()))
            }
            // Without what gradients need.
            Task::Predict => {
                candle_nn::Linear::new(weight.as_detached_tensor(), Some(bias.as_detached_tensor()))
            }
        });
    }
    let hidden = match net.hidden {
        // In candle, `Gelu` is the one with erf.
        Activation::Gelu => candle_nn::Activation::Gelu,
        _ => candle_nn::Activation::Relu,
    };
    let mlp = Mlp { layers, hidden };
    let x = tensor(&net.x)?;
    let Task::Step(loss, optimizer) = net.task else {
        return Ok(Box::new(move || {
            let first = || mlp.forward(&x)?.get(0)?.get(0)?.to_scalar();
            first().expect("the shapes fit")
        }));
    };
    let targets = match &net.targets {
        Targets::Values(values) => tensor(values)?,
        Targets::Classes(classes) => Tensor::from_slice(classes, classes.len(), &Device::Cpu)?,
    };
    let loss = match loss {
        Loss::Mse => candle_nn::loss::mse,
        Loss::Bce => candle_nn::loss::binary_cross_entropy_with_logit,
        Loss::CrossEntropy => candle_nn::loss::cross_entropy,
    };
    let mut update: Update = match optimizer {
        Optimizer::Sgd => {
            let mut sgd = SGD::new(vars, rate)?;
            Box::new(move |loss| sgd.backward_step(loss))
        }
        // Adam is AdamW without decay; the other defaults are PyTorch's.
        Optimizer::Adam => {
            let mut adam =
                AdamW::new(vars, ParamsAdamW { lr: rate, weight_decay: 0.0, ..Default::default() })?;
            Box::new(move |loss| adam.backward_step(loss))
        }
    };
    Ok(Box::new(move || {
        let mut step = || {
            let loss = loss(&mlp.forward(&x)?, &targets)?;
            update(&loss)?;
            loss.to_scalar()
        };
        step().expect("the shapes fit")
    }))
}
