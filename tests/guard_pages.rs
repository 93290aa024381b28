//! No kernel reads or writes a byte outside its operands, masked off or not: every operand ends exactly at a page that
//! cannot be touched, or begins right behind one. A slip ends the process.

mod common;

use common::Numbers;
use percycle::{
    Activation, Adam, Clip, Isa, Loss, MatMut, MatRef, Mlp, PackedWeights, Sgd, Targets, Trainer, Workspace,
    gemm, linear, linear_packed, math,
};
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
    use Activation::{Identity, LeakyRelu, Relu, Tanh};
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
        // Columns that two vectors have in common.
        (1, 13, 21),
        (5, 20, 21),
        // In blocks, copied and packed.
        (2, 33, 1030),
        (200, 130, 700),
        (192, 1026, 193),
        (1030, 515, 9),
        // Row by row.
        (1, 301, 35),
        (2, 131, 71),
        (3, 131, 71),
        (4, 131, 63),
        (4, 131, 4010),
        (513, 515, 3),
        (20, 83, 7),
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
                        let packed = PackedWeights::new(b);
                        // Finished in registers, and afterwards.
                        for activation in [Identity, Relu, LeakyRelu(0.1), Tanh] {
                            let y = MatMut::strided(c.slice_mut(), m, n, rc, cc).unwrap();
                            linear(a, b, Some(bias.slice()), activation, y).unwrap();
                            let y = MatMut::strided(c.slice_mut(), m, n, rc, cc).unwrap();
                            linear_packed(a, &packed, Some(bias.slice()), activation, y).unwrap();
                        }
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
            for function in [math::exp, math::log, math::tanh, math::erf, math::sigmoid] {
                for len in 0..40 {
                    for at_end in [true, false] {
                        let mut xs = Guarded::new(len, at_end, || numbers.next());
                        function(xs.slice_mut()).unwrap();
                    }
                }
            }
        });
    }
}

/// Samples, targets and predictions in every layout; the buffers between them belong to the crate: see `tests/fence.rs`.
#[test]
fn training_and_predicting_stay_inside_their_batches() {
    let mut numbers = Numbers::new(3);
    let cross_entropy = Loss::CrossEntropy { label_smoothing: 0.1 };
    for isa in Isa::available() {
        isa.pin(|| {
            for (loss, last) in [
                (Loss::Mse, Activation::Identity),
                (Loss::Bce, Activation::Sigmoid),
                (Loss::BceWithLogits, Activation::Identity),
                (cross_entropy, Activation::Identity),
            ] {
                let network = Mlp::builder(17).layer(9, Activation::Gelu).layer(5, last).build().unwrap();
                let trainer = |optimizer| Trainer::new(network.clone(), loss, optimizer).unwrap();
                let plain = trainer(percycle::Optimizer::from(Sgd::new(0.1)));
                let clipped = trainer(Adam::new(0.1).into()).with_clip(Clip::GlobalNorm(1.0)).unwrap();
                for rows in [1, 3, 6, 12, 13, 25] {
                    for layouts in 0..8 {
                        let (rx, cx, x_len) = layout(rows, 17, layouts % 4);
                        let (rt, ct, t_len) = layout(rows, 5, (layouts + layouts / 4) % 4);
                        let at_end = layouts < 4;
                        let x = Guarded::new(x_len, at_end, || numbers.next());
                        let values = Guarded::new(t_len, at_end, || numbers.next().abs());
                        let classes = Guarded::new(rows, at_end, || f32::from_bits(4));
                        let mut y = Guarded::new(t_len, at_end, || f32::NAN);
                        let x = MatRef::strided(x.slice(), rows, 17, rx, cx).unwrap();
                        let targets = match loss {
                            Loss::CrossEntropy { .. } => {
                                Targets::Classes(bytemuck::cast_slice(classes.slice()))
                            }
                            _ => Targets::Values(MatRef::strided(values.slice(), rows, 5, rt, ct).unwrap()),
                        };
                        for mut trainer in [plain.clone(), clipped.clone()] {
                            trainer.step(x, targets).unwrap();
                            trainer.accumulate(x, targets).unwrap();
                            trainer.apply().unwrap();
                        }
                        let y = MatMut::strided(y.slice_mut(), rows, 5, rt, ct).unwrap();
                        network.predict_into(x, &mut Workspace::new(), y).unwrap();
                    }
                }
            }
        });
    }
}
