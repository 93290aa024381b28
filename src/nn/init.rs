//! Initial weights, and the random numbers that the crate draws.
//!
//! The generator is ChaCha8, named by its algorithm, and its bits are turned into numbers here: seeded results survive
//! every upgrade of the `rand` crates.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Linear;

/// How the weights and biases of each layer begin. `fan_in` is the layer's inputs, `fan_out` its outputs.
///
/// ```
/// use percycle::{Activation, Init, Mlp};
///
/// let mlp = Mlp::builder(4).layer(2, Activation::Relu).init(Init::Zeros).build()?;
/// assert!(mlp.layers()[0].weight().as_slice().iter().all(|&w| w == 0.0));
/// # Ok::<(), percycle::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Init {
    /// Weights and biases from U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what `torch.nn.Linear` does.
    #[default]
    PyTorchLinear,
    /// Weights from U(-a, a), a = sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010); biases 0.
    XavierUniform,
    /// Weights from N(0, 2 / (fan_in + fan_out)) (Glorot and Bengio, 2010); biases 0.
    XavierNormal,
    /// Weights from U(-a, a), a = sqrt(6 / fan_in) (He et al., 2015, for ReLU); biases 0.
    HeUniform,
    /// Weights from N(0, 2 / fan_in) (He et al., 2015, for ReLU); biases 0.
    HeNormal,
    /// All 0. Units of a hidden layer that begin alike stay alike: for tests and single layers.
    Zeros,
}

impl Init {
    /// Fills the layers from one stream of random numbers: layer after layer, weights in PyTorch's order `[out, in]`,
    /// then biases.
    pub(super) fn fill(self, seed: u64, layers: &mut [Linear]) {
        let mut random = Uniform::new(seed);
        for layer in layers {
            let (inputs, outputs) = (layer.in_features(), layer.out_features());
            let (fan_in, fan_out) = (inputs as f64, outputs as f64);
            let (bound, normal) = match self {
                Init::PyTorchLinear => (1.0 / fan_in.sqrt(), false),
                Init::XavierUniform => ((6.0 / (fan_in + fan_out)).sqrt(), false),
                Init::XavierNormal => ((2.0 / (fan_in + fan_out)).sqrt(), true),
                Init::HeUniform => ((6.0 / fan_in).sqrt(), false),
                Init::HeNormal => ((2.0 / fan_in).sqrt(), true),
                Init::Zeros => continue,
            };
            let mut draw = || (bound * if normal { random.normal() } else { random.symmetric() }) as f32;
            layer.fill_weight(|_, _| draw());
            if self == Init::PyTorchLinear {
                layer.parts_mut().1.fill_with(draw);
            }
        }
    }
}

/// A stream of random numbers from a seed.
pub(crate) struct Uniform(ChaCha8Rng);

impl Uniform {
    pub(crate) fn new(seed: u64) -> Self {
        // The seed fills the first 8 of the 32 bytes of the key, little-endian: nothing here can change under us.
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        Uniform(ChaCha8Rng::from_seed(key))
    }

    /// Uniform in [-1, 1): the upper 53 bits, as many as an f64 holds.
    fn symmetric(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    /// Standard normal, cut off at +-8: the sum that Irwin and Hall describe is too rough, and the logarithm and cosine
    /// of Box and Muller differ between platforms, so it is Kinderman and Monahan's ratio of uniforms (1977), accepted
    /// by x^2 <= -4 ln u with the logarithm as a series of exact operations.
    fn normal(&mut self) -> f64 {
        loop {
            let u = 1.0 - (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64; // in (0, 1]
            let v = self.symmetric() * 0.857_763_884_960_706_8; // sqrt(2 / e)
            let x = v / u;
            if x * x <= -4.0 * ln(u) && x.abs() <= 8.0 {
                return x;
            }
        }
    }

    /// Uniform in 0..n without bias: products whose low half falls into the uneven rest are drawn again (Lemire, 2019).
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        let rest = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.0.next_u64()) * u128::from(n);
            if product as u64 >= rest {
                return (product >> 64) as u64;
            }
        }
    }

    /// Puts `items` in random order (Fisher and Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// The natural logarithm for x in (0, 1], from additions, multiplications and divisions alone: with x = m 2^e and m in
/// [1, 2), ln m = 2 artanh((m - 1) / (m + 1)). Good to about 1e-15.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i32 - 1023;
    let m = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    let t = (m - 1.0) / (m + 1.0);
    let mut series = 0.0;
    for n in (0..18).rev() {
        series = series * (t * t) + 1.0 / f64::from(2 * n + 1);
    }
    f64::from(exponent) * std::f64::consts::LN_2 + 2.0 * t * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_one() {
        for i in 1..=1000 {
            let x = f64::from(i) / 1000.0;
            assert!((ln(x) - x.ln()).abs() < 1e-14, "{x}");
        }
    }

    #[test]
    fn moments_of_the_normal() {
        let mut random = Uniform::new(5);
        let n = 200_000;
        let draws: Vec<f64> = (0..n).map(|_| random.normal()).collect();
        let moment = |p: i32| draws.iter().map(|x| x.powi(p)).sum::<f64>() / f64::from(n);
        // Four standard errors of each moment: sqrt(1/n), sqrt(2/n), sqrt(15/n), sqrt(96/n).
        for (p, want, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            let error = (moment(p) - want).abs();
            assert!(error < 4.0 * (variance / f64::from(n)).sqrt(), "moment {p} is off by {error}");
        }
    }

    #[test]
    fn below_stays_below_and_reaches_all() {
        let mut random = Uniform::new(1);
        let mut seen = [0; 7];
        for _ in 0..7000 {
            seen[random.below(7) as usize] += 1;
        }
        // Expected 1000 each, standard deviation 29: five of them.
        assert!(seen.iter().all(|&count| (855..1145).contains(&count)), "{seen:?}");
    }
}
