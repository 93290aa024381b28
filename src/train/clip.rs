//! Gradient clipping.

use crate::error::{Error, Result};
use crate::kernels::update::Scaling;

/// How the mean gradient is kept from being too large, before the optimizer sees it.
///
/// ```
/// use percycle::{Activation, Clip, Loss, Mlp, Sgd, Trainer};
///
/// let mlp = Mlp::builder(2).layer(1, Activation::Identity).build()?;
/// let trainer = Trainer::new(mlp, Loss::Mse, Sgd::new(0.1))?.with_clip(Clip::GlobalNorm(1.0))?;
/// # let _ = trainer;
/// # Ok::<(), percycle::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Clip {
    /// It is used as it is.
    #[default]
    None,
    /// Each element is brought into `[-limit, limit]`.
    Value(f32),
    /// All elements are multiplied by `min(1, limit / (norm + 1e-6))`, the norm being that of all weights and
    /// biases together: what `torch.nn.utils.clip_grad_norm_` does.
    GlobalNorm(f32),
}

impl Clip {
    pub(super) fn validate(self, op: &'static str) -> Result<()> {
        let (name, limit) = match self {
            Clip::None => return Ok(()),
            Clip::Value(limit) => ("the clipping value", limit),
            Clip::GlobalNorm(limit) => ("the clipping norm", limit),
        };
        if limit > 0.0 && limit.is_finite() {
            return Ok(());
        }
        let (value, must) = (limit.to_string(), "finite and more than 0");
        Err(Error::Setting { op, name, value, must })
    }

    /// The mean over `count` terms and the clipping, as factors and a limit for each gradient. The sum of the squares of
    /// all mean gradients is asked for when it matters.
    pub(super) fn scaling(self, count: u64, squares: impl FnOnce() -> f64) -> Scaling {
        let (mut coefficient, mut limit) = (1.0, f32::INFINITY);
        match self {
            Clip::None => {}
            Clip::Value(most) => limit = most,
            Clip::GlobalNorm(most) => {
                coefficient = (f64::from(most) / (squares().sqrt() + 1e-6)).min(1.0) as f32;
            }
        }
        Scaling { scale: 1.0 / count as f32, coefficient, limit }
    }
}
