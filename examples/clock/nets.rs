//! The networks that are profiled.

use percycle::profile::{Report, record};
use percycle::{
    Activation, AdamW, Init, Loss, Matrix, Mlp, MlpBuilder, Optimizer, Result, Sgd, Targets, Trainer,
};

use crate::common::Failure;
use crate::data;

/// Samples in a step.
pub const BATCH: usize = 64;

/// A network, and a batch to train it with again and again.
pub struct Net {
    pub name: String,
    /// The name in a column.
    pub short: &'static str,
    pub file: &'static str,
    pub x: Matrix,
    classes: Vec<u32>,
    trainer: Trainer,
}

impl Net {
    /// The network of the example `digits`, on the first of its images.
    pub fn digits() -> std::result::Result<Net, Failure> {
        let images = data::read(&data::shipped())?;
        let mut pixels = Vec::with_capacity(BATCH * data::PIXELS);
        for row in 0..BATCH {
            pixels.extend_from_slice(images.x().row(row).unwrap_or_default());
        }
        let Targets::Classes(classes) = images.targets() else { return Err("images have classes".into()) };
        let sizes = [data::PIXELS, 128, 64, data::CLASSES as usize];
        Ok(Net {
            name: "digits net 64-128-64-10, GELU, AdamW".to_owned(),
            short: "digits net",
            file: "digits",
            x: Matrix::from_vec(BATCH, data::PIXELS, pixels)?,
            classes: classes[..BATCH].to_vec(),
            // A learning rate so small that the numbers stay what they are however many steps there are.
            trainer: trainer(&sizes, Activation::Gelu, AdamW::new(1e-6).into())?,
        })
    }

    /// 784-512-256-10 on made-up samples.
    pub fn wide() -> Result<Net> {
        let sizes = [784, 512, 256, 10];
        let value = |i: usize| ((i * 7919 % 1000) as f32 - 499.5) / 500.0;
        Ok(Net {
            name: "784-512-256-10, ReLU, SGD".to_owned(),
            short: "784-512-256-10",
            file: "wide",
            x: Matrix::from_vec(BATCH, sizes[0], (0..BATCH * sizes[0]).map(value).collect())?,
            classes: (0..BATCH as u32).map(|i| i % 10).collect(),
            trainer: trainer(&sizes, Activation::Relu, Sgd::new(1e-6).into())?,
        })
    }
}

fn trainer(sizes: &[usize], activation: Activation, optimizer: Optimizer) -> Result<Trainer> {
    let hidden = &sizes[1..sizes.len() - 1];
    let add = |mlp: MlpBuilder, &units: &usize| mlp.layer(units, activation);
    let mlp = hidden.iter().fold(Mlp::builder(sizes[0]).init(Init::HeUniform), add);
    let mlp = mlp.layer(sizes[sizes.len() - 1], Activation::Identity).build()?;
    Trainer::new(mlp, Loss::CrossEntropy { label_smoothing: 0.1 }, optimizer)
}

/// Profiles so many steps of a network in a pool of so many threads, after a tenth as many to warm up.
pub fn profile(net: &Net, steps: u32, threads: u16) -> std::result::Result<Report, Failure> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build()?;
    let mut trainer = net.trainer.clone();
    let mut train = |steps: u32| {
        (0..steps).try_for_each(|_| trainer.step(net.x.view(), Targets::Classes(&net.classes)).map(drop))
    };
    let report = pool.install(|| {
        train(steps / 10 + 1)?;
        let (result, report) = record(|| train(steps));
        result.map(|()| report)
    })?;
    Ok(report)
}
