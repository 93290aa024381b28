//! The rows of the table: nets, what is done with them, and the data.

use crate::{Failure, ours};
use percycle::{Activation, Matrix, Mlp};

/// The same file that percycle's own benches and the Python script read.
const NETS: &str = include_str!("../../benches/nets.csv");

/// What is timed.
#[derive(Clone, Copy, PartialEq)]
pub enum Task {
    /// The outputs of a batch.
    Predict,
    /// A training step.
    Step(Loss, Optimizer),
}

/// Means over all elements, or over samples. The last two take logits.
#[derive(Clone, Copy, PartialEq)]
pub enum Loss {
    Mse,
    Bce,
    CrossEntropy,
}

/// Plain gradient descent, and Adam as PyTorch has it.
#[derive(Clone, Copy, PartialEq)]
pub enum Optimizer {
    Sgd,
    Adam,
}

/// What every framework is given: a net with its first weights, and a batch.
pub struct Net {
    name: String,
    /// Inputs, then the outputs of each layer.
    pub units: Vec<usize>,
    pub task: Task,
    /// The activation between the layers; the last layer has none.
    pub hidden: Activation,
    pub model: Mlp,
    pub x: Matrix,
    /// One value for each output, or the number of a class for each sample.
    pub targets: Targets,
}

pub enum Targets {
    Values(Matrix),
    Classes(Vec<u32>),
}

/// Small, so that thousands of timed steps on one batch neither diverge nor end in denormal numbers.
pub const TIMED_RATE: f64 = 1e-6;

impl Net {
    /// All rows of the table.
    pub fn all() -> Result<Vec<Net>, Failure> {
        csv::Reader::from_reader(NETS.as_bytes()).records().map(|line| Net::parse(&line?)).collect()
    }

    /// A row that the table need not have, as a line of that file.
    pub fn given(line: &str) -> Result<Net, Failure> {
        Net::parse(&csv::StringRecord::from(line.split(',').collect::<Vec<_>>()))
    }

    fn parse(line: &csv::StringRecord) -> Result<Net, Failure> {
        let [sizes, hidden, batch, loss, task] = line.iter().collect::<Vec<_>>()[..] else {
            return Err("nets.csv: five fields, please".into());
        };
        let unknown = |what: &str| -> Failure { format!("nets.csv: what is {what}?").into() };
        let loss = match loss {
            "mse" => Some(Loss::Mse),
            "bce" => Some(Loss::Bce),
            "cross-entropy" => Some(Loss::CrossEntropy),
            "" => None,
            _ => return Err(unknown(loss)),
        };
        let what = match (loss, task) {
            (Some(loss), "sgd") => Task::Step(loss, Optimizer::Sgd),
            (Some(loss), "adam") => Task::Step(loss, Optimizer::Adam),
            (None, "predict") => Task::Predict,
            _ => return Err(unknown(task)),
        };
        let activation = match hidden {
            "relu" => Activation::Relu,
            "gelu" => Activation::Gelu,
            _ => return Err(unknown(hidden)),
        };
        let units = sizes.split('-').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
        let batch: usize = batch.parse()?;
        let outputs = units[units.len() - 1];
        let targets = match what {
            Task::Step(Loss::CrossEntropy, _) => {
                Targets::Classes((0..batch).map(|i| (i * 7 % outputs) as u32).collect())
            }
            Task::Step(Loss::Bce, _) => Targets::Values(matrix(batch, outputs, |i| (i % 3 / 2) as f32)?),
            _ => Targets::Values(matrix(batch, outputs, |i| (i * 31 % 17) as f32 / 17.0)?),
        };
        let words = [sizes, hidden, loss.map_or("", |_| &line[3]), task].join(" ");
        Ok(Net {
            name: format!("{} batch {batch}", words.replace("  ", " ")),
            task: what,
            hidden: activation,
            model: ours::model(&units, activation)?,
            x: matrix(batch, units[0], |i| ((i * 7919 % 1000) as f32 - 499.5) / 500.0)?,
            units,
            targets,
        })
    }

    /// The learning rate of a check: large enough to move the loss.
    pub fn check_rate(&self) -> f64 {
        match self.task {
            Task::Step(_, Optimizer::Adam) => 1e-3,
            _ => 0.1,
        }
    }

    /// Whether the hidden activation is GELU; it is ReLU else.
    pub fn is_gelu(&self) -> bool {
        self.hidden == Activation::Gelu
    }

    /// Samples in the batch.
    pub fn batch(&self) -> usize {
        self.x.rows()
    }

    /// For each layer 2 batch in out forward; for a step as much for dW, and as much for dX in all but the first.
    pub fn flops(&self) -> f64 {
        let passes = |layer| match self.task {
            Task::Predict => 1,
            Task::Step(..) if layer == 0 => 2,
            Task::Step(..) => 3,
        };
        let layers = self.model.layers().iter().enumerate();
        let terms = layers.map(|(i, layer)| passes(i) * layer.in_features() * layer.out_features());
        2.0 * (self.batch() * terms.sum::<usize>()) as f64
    }
}

impl std::fmt::Display for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

fn matrix(rows: usize, cols: usize, value: impl Fn(usize) -> f32) -> Result<Matrix, Failure> {
    Ok(Matrix::from_vec(rows, cols, (0..rows * cols).map(value).collect())?)
}
