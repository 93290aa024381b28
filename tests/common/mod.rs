//! What several test files share.

// Each test file uses its part.
#![allow(dead_code)]

/// Numbers in [-1, 1) from a seed, the same in every run and everywhere (xorshift, G. Marsaglia 2003).
pub struct Numbers(u32);

impl Numbers {
    pub fn new(seed: u32) -> Self {
        Numbers(seed.wrapping_mul(2_654_435_761) | 1)
    }

    pub fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        (self.0 >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn many(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next()).collect()
    }
}

/// The same bits; NaN is NaN whatever its payload.
pub fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// Runs `f` on one thread: the parts that several threads share may be smaller than the blocks a test is about.
pub fn alone<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    #[cfg(feature = "rayon")]
    return rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(f);
    #[cfg(not(feature = "rayon"))]
    f()
}
