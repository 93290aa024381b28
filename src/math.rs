//! exp, log, tanh, erf and sigmoid over slices, vectorised: at most 2 ULP from the correctly rounded result for every
//! finite `f32`, and the same bits on every machine.
//!
//! ```
//! let mut x = [0.0, 1.0, f32::NEG_INFINITY];
//! percycle::math::exp(&mut x)?;
//! assert_eq!(x, [1.0, 2.7182817, 0.0]);
//! # Ok::<(), percycle::Error>(())
//! ```

use crate::error::Result;
use crate::kernels::elementwise::{Function, map};
use crate::simd::Isa;

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident = $function:ident;)+) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// [`Error::Isa`](crate::Error::Isa) when `PERCYCLE_ISA` asks for what this CPU lacks.
            pub fn $name(xs: &mut [f32]) -> Result<()> {
                map(Isa::try_current()?, Function::$function, xs);
                Ok(())
            }
        )+
    };
}

functions! {
    /// Replaces each x by e^x.
    exp = Exp;
    /// Replaces each x by its natural logarithm: -inf for 0, NaN for negative numbers.
    log = Log;
    /// Replaces each x by its hyperbolic tangent.
    tanh = Tanh;
    /// Replaces each x by the error function, `2/sqrt(pi)` times the integral of `exp(-t^2)` from 0 to x.
    erf = Erf;
    /// Replaces each x by `1 / (1 + exp(-x))`.
    sigmoid = Sigmoid;
}
