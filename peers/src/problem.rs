//! The operands of a product, the same for every peer.

use percycle::MatRef;

use crate::shapes::Shape;

/// How a matrix lies in a slice that holds nothing else: row-major, or as the transpose of a row-major one.
#[derive(Clone, Copy)]
pub struct Lying {
    pub rows: usize,
    pub cols: usize,
    pub transposed: bool,
}

impl Lying {
    /// The distance between neighbours in a column, and in a row.
    pub fn strides(self) -> (usize, usize) {
        if self.transposed { (1, self.rows) } else { (self.cols, 1) }
    }

    // Inlined, as where a program makes its views: a `Result` that comes back through memory takes as long as a small product.
    #[inline]
    fn view(self, data: &[f32]) -> percycle::Result<MatRef<'_>> {
        let (row_stride, col_stride) = self.strides();
        MatRef::strided(data, self.rows, self.cols, row_stride, col_stride)
    }
}

/// A product to compute. `a` and `b` hold exactly the elements of A and B.
pub struct Problem {
    a: Aligned,
    b: Aligned,
    pub lying_a: Lying,
    pub lying_b: Lying,
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

impl Problem {
    pub fn new(shape: Shape) -> Problem {
        let Shape { m, n, k, .. } = shape;
        let lying_a = Lying { rows: m, cols: k, transposed: shape.a_transposed };
        let lying_b = Lying { rows: k, cols: n, transposed: shape.b_transposed };
        Problem { a: Aligned::random(m * k, 1), b: Aligned::random(k * n, 2), lying_a, lying_b, m, n, k }
    }

    pub fn a(&self) -> &[f32] {
        self.a.get()
    }

    pub fn b(&self) -> &[f32] {
        self.b.get()
    }

    /// A place for C, which is row-major, full of NaN: what is not written shows.
    pub fn output(&self) -> Aligned {
        Aligned::new(std::iter::repeat_n(f32::NAN, self.m * self.n))
    }

    /// The same product of absolute values.
    pub fn absolute(&self) -> Problem {
        let absolute = |values: &Aligned| Aligned::new(values.get().iter().map(|value| value.abs()));
        Problem { a: absolute(&self.a), b: absolute(&self.b), ..*self }
    }

    /// percycle's view of A.
    #[inline]
    pub fn view_a(&self) -> percycle::Result<MatRef<'_>> {
        self.lying_a.view(self.a())
    }

    /// percycle's view of B.
    #[inline]
    pub fn view_b(&self) -> percycle::Result<MatRef<'_>> {
        self.lying_b.view(self.b())
    }
}

/// Numbers that begin at a cache line, so that no figure hangs on where the allocator happened to put them.
pub struct Aligned {
    data: Vec<f32>,
    start: usize,
    len: usize,
}

/// Values of `f32` in a cache line.
const LINE: usize = 16;

impl Aligned {
    fn new(values: impl ExactSizeIterator<Item = f32>) -> Aligned {
        let len = values.len();
        let mut data = vec![0.0; len + LINE];
        let start = data.as_ptr().align_offset(size_of::<f32>() * LINE).min(LINE);
        for (to, value) in data[start..].iter_mut().zip(values) {
            *to = value;
        }
        Aligned { data, start, len }
    }

    /// Numbers in [-1, 1) that are neither zero nor denormal.
    fn random(len: usize, seed: u32) -> Aligned {
        let mut state = seed.wrapping_mul(0x9e37_79b9);
        let values = (0..len).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // The upper bits of a linear congruence are its good ones; the half step keeps off zero.
            ((state >> 16) as f32 + 0.5) / 32768.0 - 1.0
        });
        Aligned::new(values)
    }

    pub fn get(&self) -> &[f32] {
        &self.data[self.start..self.start + self.len]
    }

    pub fn get_mut(&mut self) -> &mut [f32] {
        &mut self.data[self.start..self.start + self.len]
    }
}
