//! No kernel reads or writes a byte outside its operands, masked off or not: every operand ends exactly at a page that
//! cannot be touched, or begins right behind one. A slip ends the process.

mod common;

use common::Numbers;
use percycle::{Activation, Isa, MatMut, MatRef, PackedWeights, gemm, linear, linear_packed};
use region::{Allocation, Protection};

/// Room for values between two pages that cannot be touched.
struct Guarded {
    memory: Allocation,
    len: usize,
    at_end: bool,
}

impl Guarded {
    /// `len` values that end at the upper guard page, or else begin at the lower one.
    fn new(len: usize, at_end: bool, mut value: impl FnMut() -> f32) -> Self {
        let page = region::page::size();
        let inner = (len * size_of::<f32>()).next_multiple_of(page).max(page);
        let memory = region::alloc(inner + 2 * page, Protection::READ_WRITE).unwrap();
        for guard in [memory.as_ptr::<u8>(), memory.as_ptr::<u8>().wrapping_add(page + inner)] {
            // SAFETY: both pages lie inside this allocation, and nothing refers to them.
            unsafe { region::protect(guard, page, Protection::NONE).unwrap() };
        }
        let mut guarded = Guarded { memory, len, at_end };
        guarded.slice_mut().fill_with(&mut value);
        guarded
    }

    fn start(&self) -> *const f32 {
        let page = region::page::size();
        let behind = self.memory.len() - 2 * page - self.len * size_of::<f32>();
        self.memory.as_ptr::<u8>().wrapping_add(page + if self.at_end { behind } else { 0 }).cast()
    }

    fn slice(&self) -> &[f32] {
        // SAFETY: these values lie between the guard pages, were set by `new`, and are borrowed from `self`.
        unsafe { std::slice::from_raw_parts(self.start(), self.len) }
    }

    fn slice_mut(&mut self) -> &mut [f32] {
        // SAFETY: as for `slice`; freshly mapped memory is zero, so the values are initialised.
        unsafe { std::slice::from_raw_parts_mut(self.start().cast_mut(), self.len) }
    }
}

/// Strides of a rows x cols matrix and the values it spans.
fn layout(rows: usize, cols: usize, which: usize) -> (usize, usize, usize) {
    let (row, col) = match which {
        0 => (cols, 1),
        1 => (1, rows),
        2 => (cols + 3, 1),
        _ => (2 * cols, 2),
    };
    let span = if rows * cols == 0 { 0 } else { (rows - 1) * row + (cols - 1) * col + 1 };
    (row, col, span)
}

#[test]
fn products_stay_inside_their_operands() {
    let mut numbers = Numbers::new(1);
    let sizes = [1, 2, 3, 5, 6, 7, 12, 13, 16, 17, 31, 33];
    let mut shapes: Vec<(usize, usize, usize)> = vec![
        (0, 3, 4),
        (3, 0, 4),
        (3, 4, 0),
        (200, 520, 3),
        (2, 530, 40),
        (17, 33, 33),
        (40, 1, 35),
        (1, 40, 35),
    ];
    for m in [1, 2, 3, 4, 6, 7, 12, 13] {
        for n in sizes {
            shapes.push((m, n, 5));
        }
    }
    for isa in Isa::available() {
        isa.pin(|| {
            for &(m, n, k) in &shapes {
                for layouts in 0..16 {
                    for at_end in [true, false] {
                        let (la, lb) = (layouts % 4, layouts / 4);
                        let lc = (la + lb) % 4;
                        let (ra, ca, a_len) = layout(m, k, la);
                        let (rb, cb, b_len) = layout(k, n, lb);
                        let (rc, cc, c_len) = layout(m, n, lc);
                        let a = Guarded::new(a_len, at_end, || numbers.next());
                        let b = Guarded::new(b_len, at_end, || numbers.next());
                        let mut c = Guarded::new(c_len, at_end, || f32::NAN);
                        let bias = Guarded::new(n, at_end, || numbers.next());
                        let a = MatRef::strided(a.slice(), m, k, ra, ca).unwrap();
                        let b = MatRef::strided(b.slice(), k, n, rb, cb).unwrap();
                        for (alpha, beta) in [(1.0, 0.0), (0.5, 1.0)] {
                            let c = MatMut::strided(c.slice_mut(), m, n, rc, cc).unwrap();
                            gemm(alpha, a, b, beta, c).unwrap();
                        }
                        let y = MatMut::strided(c.slice_mut(), m, n, rc, cc).unwrap();
                        linear(a, b, Some(bias.slice()), Activation::Tanh, y).unwrap();
                        let y = MatMut::strided(c.slice_mut(), m, n, rc, cc).unwrap();
                        let packed = PackedWeights::new(b);
                        linear_packed(a, &packed, Some(bias.slice()), Activation::Relu, y).unwrap();
                    }
                }
            }
        });
    }
}

#[test]
fn activations_stay_inside_their_slices() {
    use Activation::{Gelu, GeluTanh, LeakyRelu, Relu, Sigmoid, Silu, Tanh};
    let mut numbers = Numbers::new(2);
    for isa in Isa::available() {
        isa.pin(|| {
            for activation in [Relu, LeakyRelu(0.1), Sigmoid, Tanh, Gelu, GeluTanh, Silu] {
                for len in 0..40 {
                    for at_end in [true, false] {
                        let mut xs = Guarded::new(len, at_end, || numbers.next());
                        let mut gradient = Guarded::new(len, at_end, || numbers.next());
                        activation.apply(xs.slice_mut()).unwrap();
                        activation.gradient(xs.slice(), gradient.slice_mut()).unwrap();
                    }
                }
            }
        });
    }
}
