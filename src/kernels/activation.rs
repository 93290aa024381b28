//! The activations: what they are, and what their derivatives are taken from.

use super::elementwise;
use crate::error::{Error, Result};
use crate::simd::Isa;

/// An activation function, applied to each element.
///
/// exp, tanh and erf inside are the crate's own: the same bits on every machine. NaN stays NaN everywhere.
///
/// ```
/// use percycle::Activation;
///
/// let mut x = [-1.0, 0.0, 2.0];
/// Activation::Relu.apply(&mut x)?;
/// assert_eq!(x, [0.0, 0.0, 2.0]);
/// # Ok::<(), percycle::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// `x`.
    Identity,
    /// `x <= 0 ? 0 : x`: NaN stays, -0 becomes +0. Derivative 0 at 0, as in PyTorch.
    Relu,
    /// `x <= 0 ? slope * x : x`; the slope is finite.
    LeakyRelu(f32),
    /// `1 / (1 + exp(-x))`, at most 2 ULP off.
    Sigmoid,
    /// The hyperbolic tangent, at most 2 ULP off.
    Tanh,
    /// `x Phi(x)`, Phi being the normal distribution function (Hendrycks and Gimpel, 2016): PyTorch's default, the one
    /// with erf. At most 5 ULP off, tails included.
    Gelu,
    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`: PyTorch's `approximate='tanh'`. At most 214 ULP
    /// off: so far in the tail near -10, where it is almost 0.
    GeluTanh,
    /// `x sigmoid(x)`, also called swish. At most 5 ULP off, tails included.
    Silu,
}

impl Activation {
    /// The name under which it is saved: `"relu"`, `"gelu_tanh"`, ..
    pub fn name(self) -> &'static str {
        match self {
            Activation::Identity => "identity",
            Activation::Relu => "relu",
            Activation::LeakyRelu(_) => "leaky_relu",
            Activation::Sigmoid => "sigmoid",
            Activation::Tanh => "tanh",
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu_tanh",
            Activation::Silu => "silu",
        }
    }

    /// Refuses an activation that cannot be.
    ///
    /// # Errors
    /// [`Error::Setting`] for a slope that is not finite.
    pub fn validate(self) -> Result<()> {
        match self {
            Activation::LeakyRelu(slope) if !self.is_valid() => Err(Error::Setting {
                op: "Activation::LeakyRelu",
                name: "slope",
                value: slope.to_string(),
                must: "a finite number",
            }),
            _ => Ok(()),
        }
    }

    /// Whether [`Activation::validate`] has nothing against it.
    #[inline(always)]
    pub(crate) fn is_valid(self) -> bool {
        !matches!(self, Activation::LeakyRelu(slope) if !slope.is_finite())
    }

    /// Replaces each element of `xs` by its activation.
    ///
    /// # Errors
    /// As for [`Activation::validate`], and [`Error::Isa`] when `PERCYCLE_ISA` asks for what this CPU lacks.
    pub fn apply(self, xs: &mut [f32]) -> Result<()> {
        self.validate()?;
        elementwise::activate(Isa::try_current()?, self, xs);
        Ok(())
    }

    /// Multiplies each element of `grad`, dL/dy, by the derivative, which makes it dL/dx.
    ///
    /// `saved` is the input x where [`Activation::saves_input`] says so, the output y otherwise.
    ///
    /// # Errors
    /// [`Error::Length`] when the two differ in length, and as for [`Activation::apply`].
    ///
    /// ```
    /// use percycle::Activation;
    ///
    /// let (y, mut grad) = ([0.0, 3.0], [10.0, 10.0]);
    /// Activation::Relu.gradient(&y, &mut grad)?;
    /// assert_eq!(grad, [0.0, 10.0]);
    /// # Ok::<(), percycle::Error>(())
    /// ```
    pub fn gradient(self, saved: &[f32], grad: &mut [f32]) -> Result<()> {
        self.validate()?;
        if saved.len() != grad.len() {
            let (op, name, cure) = ("Activation::gradient", "saved", "one value for each value of grad");
            return Err(Error::Length { op, name, got: saved.len(), want: grad.len(), cure });
        }
        elementwise::activation_gradient(Isa::try_current()?, self, saved, grad);
        Ok(())
    }

    /// True when the derivative is taken from the input, because the output does not determine it.
    pub fn saves_input(self) -> bool {
        use Activation::{Gelu, GeluTanh, LeakyRelu, Silu};
        // A leaky slope may be negative: then an output does not tell the sign of its input.
        matches!(self, LeakyRelu(_) | Gelu | GeluTanh | Silu)
    }
}
