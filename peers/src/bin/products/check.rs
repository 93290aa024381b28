//! Every peer must compute the product before it is timed.

use percycle_peers::Failure;

use crate::crates::{Peer, Percycle};
use percycle_peers::problem::Problem;

/// The unit roundoff of `f32`.
const ROUNDOFF: f64 = 1.0 / (1 << 24) as f64;

/// An error when a peer's product is further from percycle's than rounding allows.
///
/// Whatever the order of its sum, with or without fused multiply-adds, a computed element lies within
/// `g (|A| |B|)` of the true one, where `g = k u / (1 - k u)` (Higham, Accuracy and Stability of Numerical Algorithms,
/// section 3.5). That holds for both, and for the computed `|A| |B|`, which is at least `1 - g` of the true one.
pub fn check(problem: &Problem, peers: &[Box<dyn Peer>]) -> Result<(), Failure> {
    let product = |peer: &dyn Peer, problem: &Problem| {
        let mut c = problem.output();
        peer.multiply(problem, c.get_mut());
        c
    };
    let (ours, absolute) = (product(&Percycle, problem), product(&Percycle, &problem.absolute()));
    let g = problem.k as f64 * ROUNDOFF / (1.0 - problem.k as f64 * ROUNDOFF);
    for peer in peers {
        let theirs = product(peer.as_ref(), problem);
        for (at, ((&ours, &theirs), &absolute)) in
            ours.get().iter().zip(theirs.get()).zip(absolute.get()).enumerate()
        {
            let bound = 2.0 * g / (1.0 - g) * f64::from(absolute);
            let apart = (f64::from(ours) - f64::from(theirs)).abs();
            if apart.is_nan() || apart > bound {
                let (row, col) = (at / problem.n, at % problem.n);
                return Err(format!(
                    "{}: element ({row}, {col}) is {theirs}, percycle's is {ours}: further apart than {bound:e}",
                    peer.name()
                )
                .into());
            }
        }
    }
    Ok(())
}
