//! A chain of dense layers.

use super::{Init, Linear};
use crate::buffer::LINE;
use crate::error::{Error, Result};
use crate::kernels::{Activation, lead, worth_waking};
use crate::matrix::{MatMut, MatRef, Matrix, Spaced};
use crate::product::linear;
use crate::profile::{self, Phase, Work};

/// Values of a hidden layer (1 MiB) that each thread computes before the next layer reads them: much more would leave the caches
/// until then, and without end a workspace would be as large as all hidden values of a dataset.
const AT_ONCE: usize = 256 * 1024;
/// Samples of which fewer at once would cost more than that saves.
const LEAST_ROWS: usize = 4096;

/// A multilayer perceptron: dense layers, each the input of the next.
///
/// Predicting takes `&self` and no lock, so one model serves any number of threads.
///
/// ```
/// use percycle::{Activation, Init, Matrix, Mlp};
///
/// let mlp = Mlp::builder(64)
///     .layer(32, Activation::Relu)
///     .layer(10, Activation::Identity)
///     .init(Init::HeUniform)
///     .seed(1)
///     .build()?;
/// let logits = mlp.predict(Matrix::zeros(5, 64).view())?;
/// assert_eq!((logits.rows(), logits.cols()), (5, 10));
/// # Ok::<(), percycle::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    /// Starts a network for samples of `inputs` values.
    pub fn builder(inputs: usize) -> MlpBuilder {
        MlpBuilder { inputs, layers: Vec::new(), init: Init::default(), seed: 0 }
    }

    /// The layers, from input to output.
    pub fn layers(&self) -> &[Linear] {
        &self.layers
    }

    /// The layers, to set weights and biases.
    pub fn layers_mut(&mut self) -> &mut [Linear] {
        &mut self.layers
    }

    /// Values in a sample.
    pub fn inputs(&self) -> usize {
        self.layers[0].in_features()
    }

    /// Outputs of the last layer.
    pub fn outputs(&self) -> usize {
        self.layers[self.layers.len() - 1].out_features()
    }

    /// The outputs for `x`, which is `batch` x [`inputs`](Mlp::inputs): a `batch` x [`outputs`](Mlp::outputs) matrix.
    /// A NaN in a sample stays in that sample's row. Batches of 8192 samples and more take their way through the layers in parts.
    ///
    /// # Errors
    /// [`Error::Shape`] when `x` has another number of columns; [`Error::TooLarge`] when there is no memory for the batch.
    pub fn predict(&self, x: MatRef) -> Result<Matrix> {
        let mut y = Matrix::try_zeros(x.rows(), self.outputs())?;
        self.predict_into(x, &mut Workspace::new(), y.view_mut())?;
        Ok(y)
    }

    /// Like [`Mlp::predict`], into `y`. Allocates nothing once `workspace` has seen a batch of this size.
    ///
    /// # Errors
    /// [`Error::Shape`] when `x` or `y` has another shape than the network needs; [`Error::TooLarge`] when there is no
    /// memory for the batch. `y` is then as it was.
    ///
    /// ```
    /// use percycle::{Activation, Matrix, Mlp, Workspace};
    ///
    /// let mlp = Mlp::builder(2).layer(3, Activation::Tanh).layer(1, Activation::Sigmoid).build()?;
    /// let (x, mut y) = (Matrix::zeros(4, 2), Matrix::zeros(4, 1));
    /// let mut workspace = Workspace::new();
    /// mlp.predict_into(x.view(), &mut workspace, y.view_mut())?;
    /// # Ok::<(), percycle::Error>(())
    /// ```
    pub fn predict_into(&self, x: MatRef, workspace: &mut Workspace, mut y: MatMut) -> Result<()> {
        let op = "Mlp::predict";
        let _call = profile::call(op);
        self.check_input(op, x)?;
        if y.shape() != (x.rows(), self.outputs()) {
            return Err(Error::Shape {
                op,
                left: "y",
                left_shape: y.shape(),
                right: "the prediction",
                right_shape: (x.rows(), self.outputs()),
                cure: "y needs a row for each row of x and a column for each output",
            });
        }
        let rows = x.rows();
        lead(self.cycles(rows), || {
            // (Of a tiny network's few samples, the loop would be a tenth.)
            if rows < 2 * LEAST_ROWS {
                return self.predict_rows(op, x, workspace, y);
            }
            let at_once = self.rows_at_once(x);
            (0..rows).step_by(at_once).try_for_each(|start| {
                let count = at_once.min(rows - start);
                self.predict_rows(op, x.rows_from(start, count), workspace, y.rows_from(start, count))
            })
        })
    }

    /// How many of many samples go through all layers before the next ones do.
    fn rows_at_once(&self, x: MatRef) -> usize {
        let hidden = self.layers.windows(2).map(|pair| pair[0].out_features());
        let Some(widest) = hidden.max() else { return x.rows() };
        // As many whenever a batch of this size comes, or a workspace would have to grow again.
        let threads = worth_waking(self.cycles(x.rows()));
        // By whole lines, so that each part begins within its line as the first does.
        x.rows_of_part((AT_ONCE / widest).max(LEAST_ROWS) * threads).next_multiple_of(LINE)
    }

    /// All layers, for shapes that fit.
    fn predict_rows(
        &self,
        op: &'static str,
        x: MatRef,
        workspace: &mut Workspace,
        mut y: MatMut,
    ) -> Result<()> {
        let batch = x.rows();
        let (last, hidden) =
            self.layers.split_last().unwrap_or_else(|| unreachable!("build refuses no layers"));
        let [ping, pong] = &mut workspace.buffers;
        let (mut from, mut to) = (ping, pong);
        let mut input = x;
        let forward = |n, layer: &Linear, x: MatRef, y: MatMut| {
            let scope = profile::enter(Phase::Forward, Some(n));
            linear(x, layer.weight_in_out(), Some(layer.bias()), layer.activation(), y)?;
            scope.leave(|| Work::forward(batch, layer.shape(), false));
            Ok(())
        };
        for (n, layer) in hidden.iter().enumerate() {
            to.resize(op, batch, layer.out_features())?;
            forward(n, layer, input, to.view_mut())?;
            (from, to) = (to, from);
            input = from.view();
        }
        forward(hidden.len(), last, input, y.reborrow())
    }

    /// The multiply-adds of so many samples on their way through the layers, in vectors of 16: on one core, they take about as
    /// many cycles.
    pub(crate) fn cycles(&self, samples: usize) -> f64 {
        let vectors = |layer: &Linear| layer.in_features() * layer.out_features().div_ceil(16);
        samples as f64 * self.layers.iter().map(vectors).sum::<usize>() as f64
    }

    /// Refuses samples of another width than the network's.
    pub(crate) fn check_input(&self, op: &'static str, x: MatRef) -> Result<()> {
        if x.cols() != self.inputs() {
            let first = &self.layers[0];
            return Err(Error::Shape {
                op,
                left: "x",
                left_shape: x.shape(),
                right: "the first layer's weight [in, out]",
                right_shape: (first.in_features(), first.out_features()),
                cure: "x needs one column for each input of the network",
            });
        }
        Ok(())
    }

    /// A network of these layers, each of which the caller has found to fit the next.
    pub(super) fn from_layers(layers: Vec<Linear>) -> Mlp {
        Mlp { layers }
    }
}

/// Buffers for [`Mlp::predict_into`]: they grow to the largest batch seen and are kept. Each of the two holds a hidden layer's values
/// of a batch, or of one of its parts: fewer than 8192 samples for each thread of the pool, or 2 MiB where that is more.
#[derive(Clone, Debug, Default)]
pub struct Workspace {
    buffers: [Spaced; 2],
}

impl Workspace {
    /// An empty workspace.
    pub fn new() -> Self {
        Self::default()
    }
}

/// Collects the layers of an [`Mlp`].
#[derive(Clone, Debug)]
#[must_use = "`build` makes the network"]
pub struct MlpBuilder {
    inputs: usize,
    layers: Vec<(usize, Activation)>,
    init: Init,
    seed: u64,
}

impl MlpBuilder {
    /// Adds a layer of `units` outputs.
    pub fn layer(mut self, units: usize, activation: Activation) -> Self {
        self.layers.push((units, activation));
        self
    }

    /// How weights and biases begin; [`Init::PyTorchLinear`] unless said otherwise.
    pub fn init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    /// The seed of the initial values, 0 unless said otherwise: the same seed gives the same network, on every
    /// machine and in every version.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Makes the network.
    ///
    /// # Errors
    /// [`Error::Empty`] without layers, [`Error::Setting`] for zero inputs, zero units or an activation that cannot
    /// be, [`Error::TooLarge`] when memory cannot hold the weights.
    pub fn build(self) -> Result<Mlp> {
        let op = "Mlp::build";
        if self.layers.is_empty() {
            return Err(Error::Empty {
                op,
                what: "the list of layers",
                cure: "add one with `.layer(units, activation)`",
            });
        }
        let zero = |name| Error::Setting { op, name, value: "0".into(), must: "at least 1" };
        if self.inputs == 0 {
            return Err(zero("inputs"));
        }
        let mut layers = Vec::with_capacity(self.layers.len());
        let mut inputs = self.inputs;
        for (units, activation) in self.layers {
            if units == 0 {
                return Err(zero("units"));
            }
            activation.validate()?;
            layers.push(Linear::zeros(inputs, units, activation)?);
            inputs = units;
        }
        self.init.fill(self.seed, &mut layers);
        Ok(Mlp { layers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_holds_a_part_of_a_large_batch() {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for (hidden, threads, samples) in [(40, 1, 6553), (300, 1, 4096), (300, 3, 4096)] {
            let mlp = Mlp::builder(2).layer(hidden, Activation::Relu).layer(hidden, Activation::Relu);
            let mlp = mlp.layer(1, Activation::Identity).build().unwrap();
            let mut workspace = Workspace::new();
            for rows in [2 * LEAST_ROWS - 1, 20_000, 100_000] {
                let (x, mut y) = (Matrix::zeros(rows, 2), Matrix::zeros(rows, 1));
                pool(threads).install(|| mlp.predict_into(x.view(), &mut workspace, y.view_mut())).unwrap();
                for buffer in &workspace.buffers {
                    let held = buffer.bytes() / (4 * hidden);
                    assert!(
                        held <= 2 * threads * samples + LINE,
                        "{hidden}, {threads}, {rows}: {held} samples"
                    );
                }
            }
        }
    }
}
