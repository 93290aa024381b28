//! What several test files share.

// Each test file uses its part.
#![allow(dead_code)]

/// Numbers between -0.5 and 0.5 from a seed (xorshift, G. Marsaglia): plain, and the same everywhere.
pub struct Numbers(u32);

impl Numbers {
    pub fn new(seed: u32) -> Self {
        Numbers(seed.wrapping_mul(0x9e37_79b9) | 1)
    }

    pub fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as f32 / u32::MAX as f32 - 0.5
    }
}

/// The same bits; NaN is NaN whatever its payload.
pub fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}
