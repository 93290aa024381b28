//! Optimizers: their settings. What they do with them stands in `state` and in `kernels::update`.

use crate::error::{Error, Result};

/// Gradient descent: `g += decay w`, `v = momentum v + (1 - dampening) g` (the first time `v = g`), then `w
/// -= lr v`, or with Nesterov's momentum `w -= lr (g + momentum v)`. As `torch.optim.SGD`.
///
/// ```
/// let sgd = percycle::Sgd::new(0.1).momentum(0.9).nesterov(true).weight_decay(1e-4);
/// # let _ = sgd;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    pub(super) learning_rate: f32,
    pub(super) momentum: f32,
    pub(super) dampening: f32,
    pub(super) nesterov: bool,
    pub(super) weight_decay: f32,
}

impl Sgd {
    /// Plain gradient descent with this learning rate; the rest is off.
    pub fn new(learning_rate: f32) -> Self {
        Sgd { learning_rate, momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 }
    }

    /// How much of the velocity stays: from 0 (off) to 1.
    pub fn momentum(self, momentum: f32) -> Self {
        Sgd { momentum, ..self }
    }

    /// How much of the gradient is kept out of the velocity, from 0 to 1; not of the first, as in PyTorch.
    pub fn dampening(self, dampening: f32) -> Self {
        Sgd { dampening, ..self }
    }

    /// Nesterov's momentum: needs a momentum and no dampening.
    pub fn nesterov(self, nesterov: bool) -> Self {
        Sgd { nesterov, ..self }
    }

    /// The L2 penalty: `weight_decay * w` is added to the gradient, of biases too.
    pub fn weight_decay(self, weight_decay: f32) -> Self {
        Sgd { weight_decay, ..self }
    }
}

/// The settings that [`Adam`] and [`AdamW`] share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moments {
    pub learning_rate: f32,
    pub betas: (f64, f64),
    pub eps: f32,
    pub weight_decay: f32,
}

/// The setters that [`Adam`] and [`AdamW`] share.
macro_rules! moments {
    ($(#[$doc:meta])* $name:ident, decay $default:literal: $(#[$decay:meta])*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name(pub(super) Moments);

        impl $name {
            /// With this learning rate and PyTorch's defaults: betas 0.9 and 0.999, eps 1e-8,
            #[doc = concat!("weight decay ", stringify!($default), ".")]
            pub fn new(learning_rate: f32) -> Self {
                let (betas, eps, weight_decay) = ((0.9, 0.999), 1e-8, $default);
                $name(Moments { learning_rate, betas, eps, weight_decay })
            }

            /// How much of the running mean of the gradient and of its square stays: from 0 to below 1. They
            /// are `f64` because `1 - beta2` is what counts, and loses its digits in `f32`.
            pub fn betas(self, beta1: f64, beta2: f64) -> Self {
                $name(Moments { betas: (beta1, beta2), ..self.0 })
            }

            /// What is added to the root of the mean square: more than 0.
            pub fn eps(self, eps: f32) -> Self {
                $name(Moments { eps, ..self.0 })
            }

            $(#[$decay])*
            pub fn weight_decay(self, weight_decay: f32) -> Self {
                $name(Moments { weight_decay, ..self.0 })
            }
        }
    };
}

moments! {
    /// Adam (Kingma and Ba, 2015), as `torch.optim.Adam`: eps is added after the bias correction and the
    /// root.
    ///
    /// ```
    /// let adam = percycle::Adam::new(1e-3).betas(0.9, 0.99).eps(1e-7);
    /// # let _ = adam;
    /// ```
    Adam, decay 0.0:
    /// The L2 penalty: `weight_decay * w` is added to the gradient, of biases too.
}

moments! {
    /// Adam with weight decay of its own, apart from the gradient (Loshchilov and Hutter, 2019), as
    /// `torch.optim.AdamW`.
    ///
    /// ```
    /// let adamw = percycle::AdamW::new(1e-3).weight_decay(0.05);
    /// # let _ = adamw;
    /// ```
    AdamW, decay 0.01:
    /// Weights and biases are multiplied by `1 - lr * weight_decay` before each update.
}

/// One of the optimizers, as [`Trainer::new`](crate::Trainer::new) takes it.
///
/// ```
/// use percycle::{Adam, Optimizer};
///
/// let optimizer: Optimizer = Adam::new(1e-3).into();
/// assert_eq!(optimizer.learning_rate(), 1e-3);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Optimizer {
    /// Gradient descent.
    Sgd(Sgd),
    /// Adam.
    Adam(Adam),
    /// Adam with decoupled weight decay.
    AdamW(AdamW),
}

impl From<Sgd> for Optimizer {
    fn from(sgd: Sgd) -> Self {
        Optimizer::Sgd(sgd)
    }
}

impl From<Adam> for Optimizer {
    fn from(adam: Adam) -> Self {
        Optimizer::Adam(adam)
    }
}

impl From<AdamW> for Optimizer {
    fn from(adamw: AdamW) -> Self {
        Optimizer::AdamW(adamw)
    }
}

impl Optimizer {
    /// The learning rate.
    pub fn learning_rate(&self) -> f32 {
        match self {
            Optimizer::Sgd(sgd) => sgd.learning_rate,
            Optimizer::Adam(Adam(moments)) | Optimizer::AdamW(AdamW(moments)) => moments.learning_rate,
        }
    }

    pub(super) fn set_learning_rate(&mut self, op: &'static str, learning_rate: f32) -> Result<()> {
        check_learning_rate(op, learning_rate)?;
        match self {
            Optimizer::Sgd(sgd) => sgd.learning_rate = learning_rate,
            Optimizer::Adam(Adam(moments)) | Optimizer::AdamW(AdamW(moments)) => {
                moments.learning_rate = learning_rate;
            }
        }
        Ok(())
    }

    pub(super) fn validate(&self, op: &'static str) -> Result<()> {
        check_learning_rate(op, self.learning_rate())?;
        let decay = match self {
            Optimizer::Sgd(sgd) => {
                check(op, "the momentum", sgd.momentum, UNIT, (0.0..=1.0).contains(&sgd.momentum))?;
                check(op, "the dampening", sgd.dampening, UNIT, (0.0..=1.0).contains(&sgd.dampening))?;
                let possible = !sgd.nesterov || (sgd.momentum > 0.0 && sgd.dampening == 0.0);
                let must = "off, or have a momentum of more than 0 and no dampening";
                check(op, "nesterov", sgd.nesterov, must, possible)?;
                sgd.weight_decay
            }
            Optimizer::Adam(Adam(moments)) | Optimizer::AdamW(AdamW(moments)) => {
                for beta in [moments.betas.0, moments.betas.1] {
                    check(op, "a beta", beta, "at least 0 and less than 1", (0.0..1.0).contains(&beta))?;
                }
                let eps = moments.eps;
                check(op, "eps", eps, "finite and more than 0", eps > 0.0 && eps.is_finite())?;
                moments.weight_decay
            }
        };
        check(op, "the weight decay", decay, AT_LEAST_0, decay >= 0.0 && decay.is_finite())
    }
}

const UNIT: &str = "from 0 to 1";
const AT_LEAST_0: &str = "finite and at least 0";

fn check_learning_rate(op: &'static str, rate: f32) -> Result<()> {
    check(op, "the learning rate", rate, AT_LEAST_0, rate >= 0.0 && rate.is_finite())
}

fn check(
    op: &'static str,
    name: &'static str,
    value: impl ToString,
    must: &'static str,
    fine: bool,
) -> Result<()> {
    if fine {
        return Ok(());
    }
    let value = value.to_string();
    Err(Error::Setting { op, name, value, must })
}
