//! One dense layer.

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::kernels::Activation;
use crate::matrix::{MatRef, Matrix, Spaced};

/// A dense layer, `y = act(x W + b)`.
///
/// Inside, W is `[in, out]`, the order in which the product reads it; outside it is PyTorch's `[out, in]`.
///
/// ```
/// use percycle::{Activation, MatRef, Mlp};
///
/// let mut mlp = Mlp::builder(2).layer(1, Activation::Identity).build()?;
/// let layer = &mut mlp.layers_mut()[0];
/// layer.set_weight(MatRef::new(&[2.0, 3.0], 1, 2)?)?; // one output, two inputs
/// layer.set_bias(&[0.5])?;
/// assert_eq!(layer.weight().as_slice(), [2.0, 3.0]);
/// # Ok::<(), percycle::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    weight: Spaced,
    bias: Buffer,
    activation: Activation,
}

impl Linear {
    /// A layer of zeros. The caller has checked the dimensions.
    pub(super) fn zeros(inputs: usize, outputs: usize, activation: Activation) -> Result<Self> {
        let weight = Spaced::try_zeros("Mlp::build", inputs, outputs)?;
        Ok(Linear { weight, bias: Buffer::zeros(outputs), activation })
    }

    /// Values in a sample.
    pub fn in_features(&self) -> usize {
        self.shape().0
    }

    /// Outputs, also called units.
    pub fn out_features(&self) -> usize {
        self.shape().1
    }

    /// Inputs and outputs.
    pub(crate) fn shape(&self) -> (usize, usize) {
        self.weight.shape()
    }

    /// The activation of the outputs.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// One value for each output.
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// A copy of the weights as `[out, in]`, PyTorch's order.
    pub fn weight(&self) -> Matrix {
        let (inputs, outputs) = (self.in_features(), self.out_features());
        let mut out = Matrix::zeros(outputs, inputs);
        for (i, row) in self.weight.elements().chunks_exact(self.weight.row_stride()).enumerate() {
            for (o, &w) in row[..outputs].iter().enumerate() {
                out.as_mut_slice()[o * inputs + i] = w;
            }
        }
        out
    }

    /// Replaces the weights by `w`, which is `[out, in]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when `w` has another shape; the layer is then as it was.
    pub fn set_weight(&mut self, w: MatRef) -> Result<()> {
        let (inputs, outputs) = (self.in_features(), self.out_features());
        if w.shape() != (outputs, inputs) {
            return Err(Error::Shape {
                op: "Linear::set_weight",
                left: "w",
                left_shape: w.shape(),
                right: "the layer's weight",
                right_shape: (outputs, inputs),
                cure: "weights go in as [out, in]",
            });
        }
        self.fill_weight(|o, i| w.get(o, i).unwrap_or_default());
        Ok(())
    }

    /// Replaces the bias.
    ///
    /// # Errors
    /// [`Error::Length`] when there is not one value for each output; the layer is then as it was.
    pub fn set_bias(&mut self, bias: &[f32]) -> Result<()> {
        if bias.len() != self.bias.len() {
            return Err(Error::Length {
                op: "Linear::set_bias",
                name: "bias",
                got: bias.len(),
                want: self.bias.len(),
                cure: "one value for each output",
            });
        }
        self.bias.copy_from_slice(bias);
        Ok(())
    }

    /// Sets each weight by its output and its input, in PyTorch's order.
    pub(super) fn fill_weight(&mut self, mut value: impl FnMut(usize, usize) -> f32) {
        let ((inputs, outputs), row) = (self.shape(), self.weight.row_stride());
        let elements = self.weight.elements_mut();
        for o in 0..outputs {
            for i in 0..inputs {
                elements[i * row + o] = value(o, i);
            }
        }
    }

    /// The weights as they are stored, `[in, out]`.
    pub(crate) fn weight_in_out(&self) -> MatRef<'_> {
        self.weight.view()
    }

    /// Weights `[in, out]`, as [`Spaced::elements`], and bias, to read.
    pub(crate) fn parts(&self) -> (&[f32], &[f32]) {
        (self.weight.elements(), &self.bias)
    }

    /// Weights and bias, to write.
    pub(crate) fn parts_mut(&mut self) -> (&mut Spaced, &mut [f32]) {
        (&mut self.weight, &mut self.bias)
    }
}
