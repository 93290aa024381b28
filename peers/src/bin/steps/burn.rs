//! burn: its layers, losses and optimizers, on the backend `flex`, the fastest of its CPU backends.

use burn::module::{Module, Param};
use burn::nn::loss::{BinaryCrossEntropyLossConfig, CrossEntropyLossConfig, MseLoss, Reduction};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams, SgdConfig};
use burn::tensor::activation::{gelu, relu};
use burn::tensor::{Device, Int, Tensor, TensorData};
use percycle::Activation;
use percycle_peers::Failure;
use percycle_peers::nets::{Loss, Net, Optimizer, Targets, Task};
use percycle_peers::ours::Call;

#[derive(Module, Debug)]
struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    fn forward(&self, mut x: Tensor<2>, hidden: Activation) -> Tensor<2> {
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x);
            if i + 1 < self.layers.len() {
                x = match hidden {
                    Activation::Gelu => gelu(x),
                    _ => relu(x),
                };
            }
        }
        x
    }
}

pub fn prepare(net: &Net, rate: f64) -> Result<Call<'_>, Failure> {
    let device = match net.task {
        Task::Predict => Device::flex(),
        Task::Step(..) => Device::flex().autodiff(),
    };
    let tensor = |matrix: &percycle::Matrix| {
        let data = TensorData::new(matrix.as_slice().to_vec(), [matrix.rows(), matrix.cols()]);
        Tensor::<2>::from_data(data, &device)
    };
    let layers = net.model.layers().iter().map(|layer| {
        let mut linear = LinearConfig::new(layer.in_features(), layer.out_features()).init(&device);
        // burn keeps weights as [in, out]. Read back, they are laid out as they would have been initialised.
        let weight = tensor(&layer.weight()).transpose().into_data();
        linear.weight = Param::from_tensor(Tensor::from_data(weight, &device));
        linear.bias = Some(Param::from_tensor(Tensor::from_floats(layer.bias(), &device)));
        linear
    });
    let mlp = Mlp { layers: layers.collect() };
    let x = tensor(&net.x);
    let Task::Step(loss, optimizer) = net.task else {
        return Ok(Box::new(move || {
            mlp.forward(x.clone(), net.hidden).slice([0..1, 0..1]).into_scalar::<f32>()
        }));
    };
    let mut optimizer = match optimizer {
        Optimizer::Sgd => SgdConfig::new().init(),
        // PyTorch's epsilon; the other defaults are PyTorch's already.
        Optimizer::Adam => AdamConfig::new().with_epsilon(1e-8).init(),
    };
    let loss = prepare_loss(net, loss, &device);
    let mut trained = Some(mlp);
    Ok(Box::new(move || {
        let mlp = trained.take().expect("every step puts it back");
        let loss = loss(mlp.forward(x.clone(), net.hidden));
        let gradients = GradientsParams::from_grads(loss.backward(), &mlp);
        trained = Some(optimizer.step(rate, mlp, gradients));
        loss.into_scalar::<f32>()
    }))
}

/// The mean loss of outputs, the targets being at hand.
fn prepare_loss(net: &Net, loss: Loss, device: &Device) -> Box<dyn Fn(Tensor<2>) -> Tensor<1>> {
    match (&net.targets, loss) {
        (Targets::Classes(classes), _) => {
            let classes: Vec<i64> = classes.iter().map(|&class| class.into()).collect();
            let classes = Tensor::<1, Int>::from_data(classes.as_slice(), device);
            let loss = CrossEntropyLossConfig::new().init(device);
            Box::new(move |y| loss.forward(y, classes.clone()))
        }
        (Targets::Values(values), Loss::Bce) => {
            let shape = [values.rows(), values.cols()];
            let values: Vec<i64> = values.as_slice().iter().map(|&value| value as i64).collect();
            let values = Tensor::<2, Int>::from_data(TensorData::new(values, shape), device);
            let loss = BinaryCrossEntropyLossConfig::new().with_logits(true).init(device);
            Box::new(move |y| loss.forward(y, values.clone()))
        }
        (Targets::Values(values), _) => {
            let data = TensorData::new(values.as_slice().to_vec(), [values.rows(), values.cols()]);
            let values = Tensor::<2>::from_data(data, device);
            Box::new(move |y| MseLoss::new().forward(y, values.clone(), Reduction::Mean))
        }
    }
}
