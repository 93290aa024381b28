//! Learning rates that change while training.

use crate::error::{Error, Result};

/// By what factor the optimizer's learning rate is multiplied, epoch by epoch, with an optional warm-up step by step.
///
/// Epochs count from 0, as in PyTorch's `lr_scheduler`, after which the shapes are named.
///
/// ```
/// use percycle::Schedule;
///
/// let schedule = Schedule::step(10, 0.5).with_warmup(4);
/// assert_eq!(schedule.factor(0, 0), 0.25); // the first of four steps of warm-up
/// assert_eq!(schedule.factor(0, 3), 1.0);
/// assert_eq!(schedule.factor(20, 999), 0.25);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    shape: Shape,
    warmup: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Constant,
    Step { every: u32, factor: f64 },
    Exponential { factor: f64 },
    Cosine { epochs: u32, least: f64 },
}

impl Schedule {
    /// Always 1.
    pub fn constant() -> Self {
        Self::of(Shape::Constant)
    }

    /// `factor^floor(epoch / every)`: PyTorch's `StepLR`.
    pub fn step(every: u32, factor: f64) -> Self {
        Self::of(Shape::Step { every, factor })
    }

    /// `factor^epoch`: PyTorch's `ExponentialLR`.
    pub fn exponential(factor: f64) -> Self {
        Self::of(Shape::Exponential { factor })
    }

    /// `least + (1 - least) (1 + cos(pi epoch / epochs)) / 2`, and `least` from `epochs` on: PyTorch's
    /// `CosineAnnealingLR` (Loshchilov and Hutter, 2017).
    pub fn cosine(epochs: u32, least: f64) -> Self {
        Self::of(Shape::Cosine { epochs, least })
    }

    /// The same schedule behind a linear warm-up: in the first `steps` updates of a fit the factor is multiplied by
    /// `(step + 1) / steps`.
    #[must_use]
    pub fn with_warmup(self, steps: u64) -> Self {
        Schedule { warmup: steps, ..self }
    }

    /// The factor in this epoch, at this update of the fit, both from 0.
    pub fn factor(&self, epoch: usize, step: u64) -> f64 {
        let shape = match self.shape {
            Shape::Constant => 1.0,
            Shape::Step { every, factor } => power(factor, epoch / every.max(1) as usize),
            Shape::Exponential { factor } => power(factor, epoch),
            Shape::Cosine { epochs, least } => {
                let done = (epoch as f64 / f64::from(epochs.max(1))).min(1.0);
                least + (1.0 - least) * 0.5 * (1.0 + cos_pi(done))
            }
        };
        let warmup = if step < self.warmup { (step + 1) as f64 / self.warmup as f64 } else { 1.0 };
        shape * warmup
    }

    pub(super) fn validate(&self, op: &'static str) -> Result<()> {
        let refuse =
            |name, value: f64, must| Err(Error::Setting { op, name, value: value.to_string(), must });
        match self.shape {
            Shape::Constant => Ok(()),
            Shape::Step { every: 0, .. } => refuse("every", 0.0, "at least 1 epoch"),
            Shape::Cosine { epochs: 0, .. } => refuse("epochs of the cosine", 0.0, "at least 1"),
            Shape::Step { factor, .. } | Shape::Exponential { factor }
                if !(factor > 0.0 && factor.is_finite()) =>
            {
                refuse("factor", factor, "finite and more than 0")
            }
            Shape::Cosine { least, .. } if !(0.0..=1.0).contains(&least) => {
                refuse("least", least, "from 0 to 1")
            }
            _ => Ok(()),
        }
    }

    fn of(shape: Shape) -> Self {
        Schedule { shape, warmup: 0 }
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self::constant()
    }
}

/// `base^exponent` by multiplication: `powi` may differ between platforms.
fn power(base: f64, exponent: usize) -> f64 {
    (0..exponent).fold(1.0, |product, _| product * base)
}

/// cos(pi x) for x in [0, 1] by its Taylor series around 1/2: the library's cosine differs between platforms.
fn cos_pi(x: f64) -> f64 {
    let t = (0.5 - x) * std::f64::consts::PI; // cos(pi x) = sin(t), |t| <= pi/2
    let mut term = t;
    let mut sum = t;
    for n in 1..14 {
        term *= -t * t / f64::from(2 * n * (2 * n + 1));
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cosine_is_one() {
        for i in 0..=100 {
            let x = f64::from(i) / 100.0;
            assert!((cos_pi(x) - (std::f64::consts::PI * x).cos()).abs() < 1e-15);
        }
    }

    #[test]
    fn shapes() {
        assert_eq!(Schedule::exponential(0.5).factor(3, 0), 0.125);
        assert_eq!(Schedule::step(2, 0.1).factor(1, 0), 1.0);
        let cosine = Schedule::cosine(10, 0.2);
        assert_eq!(cosine.factor(0, 0), 1.0);
        assert!((cosine.factor(5, 0) - 0.6).abs() < 1e-15);
        assert!((cosine.factor(10, 0) - 0.2).abs() < 1e-15 && (cosine.factor(99, 0) - 0.2).abs() < 1e-15);
        assert!(Schedule::step(0, 0.1).validate("test").is_err());
        assert!(Schedule::exponential(f64::NAN).validate("test").is_err());
        assert!(Schedule::cosine(3, 1.5).validate("test").is_err());
    }
}
