//! What a neuron does with its weighted sum: `y = sigma(z)`, and the derivative that backpropagation multiplies by.

use crate::math;

/// The activation functions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    Identity,
    Relu,
    LeakyRelu(f32),
    Sigmoid,
    Tanh,
    Gelu,
    GeluTanh,
    Silu,
}

impl Activation {
    /// True when the derivative needs the input z; the others find it from the output y.
    pub fn saves_input(self) -> bool {
        use Activation::{Gelu, GeluTanh, LeakyRelu, Silu};
        matches!(self, LeakyRelu(_) | Gelu | GeluTanh | Silu)
    }
}

/// sigma(x).
pub fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Identity => x,
        // Written so that NaN, for which every comparison is false, stays NaN.
        Activation::Relu => {
            if x <= 0.0 {
                0.0
            } else {
                x
            }
        }
        Activation::LeakyRelu(slope) => {
            if x <= 0.0 {
                slope * x
            } else {
                x
            }
        }
        Activation::Sigmoid => math::sigmoid(x),
        Activation::Tanh => math::tanh(x),
        Activation::Gelu => math::gelu(x),
        Activation::GeluTanh => math::gelu_tanh(x),
        Activation::Silu => math::silu(x),
    }
}

/// dL/dz from dL/dy: the chain rule multiplies by sigma'. `saved` is the input where `saves_input`, else the output.
pub fn activation_gradient(activation: Activation, saved: f32, gradient: f32) -> f32 {
    match activation {
        Activation::Identity => gradient,
        Activation::Relu => {
            if saved <= 0.0 {
                0.0
            } else {
                gradient
            }
        }
        Activation::LeakyRelu(slope) => {
            if saved <= 0.0 {
                slope * gradient
            } else {
                gradient
            }
        }
        // sigma' = sigma (1 - sigma)
        Activation::Sigmoid => gradient * (saved * (1.0 - saved)),
        // tanh' = 1 - tanh^2
        Activation::Tanh => gradient * (-saved).mul_add(saved, 1.0),
        Activation::Gelu => gradient * math::gelu_derivative(saved),
        Activation::GeluTanh => gradient * math::gelu_tanh_derivative(saved),
        Activation::Silu => gradient * math::silu_derivative(saved),
    }
}
