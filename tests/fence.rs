//! Networks, optimizers, packed weights and scratch stay inside the memory that they asked for: in this process all that
//! is aligned to a cache line, as the crate's own memory is, ends at a page that cannot be touched. A slip ends the
//! process. What the caller hands in is watched by `tests/guard_pages.rs`.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};

use common::Numbers;
use percycle::{
    Activation, Adam, AdamW, Clip, Dataset, FitOptions, Isa, Loss, Matrix, Mlp, Optimizer, PackedWeights,
    Sgd, Targets, Trainer, linear_packed,
};
use region::Protection;

/// What the crate aligns its memory to. Other allocations go to the system as they are.
const LINE: usize = 64;

/// At least a page on every system that has pages of 4, 16 or 64 KiB.
const PAGE: usize = 1 << 16;

struct Fence;

/// The memory for an allocation and for the page behind it.
fn fenced(layout: Layout) -> Option<Layout> {
    let whole = layout.size().checked_next_multiple_of(PAGE)?.checked_add(PAGE)?;
    if layout.align() == LINE { Layout::from_size_align(whole, PAGE).ok() } else { None }
}

/// What lies between the pointer that is handed out and the page: whole lines, to be aligned.
fn inner(layout: Layout) -> usize {
    layout.size().next_multiple_of(LINE)
}

// SAFETY: allocations are parts of those of the system's allocator, aligned as asked for, apart from each other, and
// found again from pointer and layout alone.
unsafe impl GlobalAlloc for Fence {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(whole) = fenced(layout) else {
            // SAFETY: the caller's.
            return unsafe { System.alloc(layout) };
        };
        // SAFETY: its size is not 0.
        let base = unsafe { System.alloc(whole) };
        if base.is_null() {
            return base;
        }
        let page = base.wrapping_add(whole.size() - PAGE);
        // SAFETY: the last page is a part of this allocation that nobody is told of.
        if unsafe { region::protect(page, PAGE, Protection::NONE) }.is_err() {
            // As if there were no memory. SAFETY: as it was allocated.
            unsafe { System.dealloc(base, whole) };
            return std::ptr::null_mut();
        }
        page.wrapping_sub(inner(layout))
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        let Some(whole) = fenced(layout) else {
            // SAFETY: the caller's.
            return unsafe { System.dealloc(p, layout) };
        };
        let page = p.wrapping_add(inner(layout));
        // SAFETY: the page that `alloc` took away.
        unsafe {
            region::protect(page, PAGE, Protection::READ_WRITE).unwrap_or_else(|_| std::process::abort());
            System.dealloc(page.wrapping_sub(whole.size() - PAGE), whole);
        }
    }
}

#[global_allocator]
static FENCE: Fence = Fence;

fn mlp(inputs: usize, layers: &[(usize, Activation)]) -> Mlp {
    let add = |builder: percycle::MlpBuilder, &(units, act): &_| builder.layer(units, act);
    layers.iter().fold(Mlp::builder(inputs), add).build().unwrap()
}

/// Every tile has tails of columns in its last layer. With 16, 48 or 208 samples and inputs, every matrix fills its last
/// cache line, so that it ends where the fence stands; outputs of one, five and 17 units end in the middle of a vector.
#[test]
fn training_stays_inside_what_it_allocates() {
    use Activation::{Gelu, Identity, LeakyRelu, Relu, Sigmoid, Tanh};
    let mut numbers = Numbers::new(1);
    let optimizers: [Optimizer; 3] =
        [Sgd::new(0.01).into(), Sgd::new(0.01).momentum(0.9).into(), AdamW::new(0.01).into()];
    let losses = [
        (Loss::Mse, Identity),
        (Loss::Bce, Sigmoid),
        (Loss::BceWithLogits, LeakyRelu(0.1)),
        (Loss::CrossEntropy { label_smoothing: 0.1 }, Tanh),
    ];
    for isa in Isa::available() {
        isa.pin(|| {
            for (rows, inputs) in [(16, 48), (48, 16), (208, 160)] {
                let x = Matrix::from_vec(rows, inputs, numbers.many(rows * inputs)).unwrap();
                for outputs in [1, 5, 16, 17, 33, 130] {
                    let values: Vec<f32> = numbers.many(rows * outputs).iter().map(|t| t.abs()).collect();
                    let values = Matrix::from_vec(rows, outputs, values).unwrap();
                    let classes: Vec<u32> = (0..rows).map(|row| (row % outputs) as u32).collect();
                    for (n, &(loss, last)) in losses.iter().enumerate() {
                        let targets = match loss {
                            Loss::CrossEntropy { .. } => Targets::Classes(&classes),
                            _ => Targets::Values(values.view()),
                        };
                        let hidden = [(32, Relu), (17, Gelu), (144, Gelu)][n % 3];
                        let network = mlp(inputs, &[hidden, (16, Tanh), (outputs, last)]);
                        for optimizer in optimizers {
                            for clip in [Clip::None, Clip::GlobalNorm(0.5)] {
                                let trainer = Trainer::new(network.clone(), loss, optimizer).unwrap();
                                let mut trainer = trainer.with_clip(clip).unwrap();
                                trainer.step(x.view(), targets).unwrap();
                                trainer.accumulate(x.view(), targets).unwrap();
                                trainer.accumulate(x.view(), targets).unwrap();
                                trainer.apply().unwrap();
                            }
                        }
                    }
                }
            }
        });
    }
}

/// In blocks, copied, packed, transposed, and with the roles of the operands swapped.
#[test]
fn wide_layers_stay_inside_what_they_allocate() {
    let mut numbers = Numbers::new(2);
    for isa in Isa::available() {
        isa.pin(|| {
            let adam = Optimizer::from(Adam::new(0.01));
            for (rows, inputs, units, optimizer) in [
                (16, 1104, 304, adam),
                (208, 1104, 190, adam),
                (16, 304, 1104, adam),
                (1, 64, 2080, adam),
                // Plain updates by few samples, which stream into rows of weights.
                (1, 131, 304, Sgd::new(0.01).into()),
                (5, 131, 270, Sgd::new(0.01).into()),
            ] {
                let network = mlp(
                    inputs,
                    &[(units, Activation::Silu), (inputs, Activation::Gelu), (3, Activation::Tanh)],
                );
                let x = Matrix::from_vec(rows, inputs, numbers.many(rows * inputs)).unwrap();
                let t = Matrix::from_vec(rows, 3, numbers.many(rows * 3)).unwrap();
                let mut trainer = Trainer::new(network, Loss::Mse, optimizer).unwrap();
                trainer.step(x.view(), Targets::Values(t.view())).unwrap();
                trainer.accumulate(x.view(), Targets::Values(t.view())).unwrap();
                trainer.apply().unwrap();
                for layer in trainer.model().layers() {
                    let (w, (inputs, units)) = (layer.weight(), (layer.in_features(), layer.out_features()));
                    let packed = PackedWeights::new(w.view().t());
                    let x = Matrix::from_vec(rows, inputs, numbers.many(rows * inputs)).unwrap();
                    let mut y = Matrix::zeros(rows, units);
                    let (bias, act) = (Some(layer.bias()), layer.activation());
                    linear_packed(x.view(), &packed, bias, act, y.view_mut()).unwrap();
                    assert_eq!(predict(layer, &x), y);
                }
            }
        });
    }
}

/// A layer alone, by its weight as it lies outside, `[out, in]`.
fn predict(layer: &percycle::Linear, x: &Matrix) -> Matrix {
    let mut network = Mlp::builder(x.cols()).layer(layer.out_features(), layer.activation()).build().unwrap();
    network.layers_mut()[0].set_weight(layer.weight().view()).unwrap();
    network.layers_mut()[0].set_bias(layer.bias()).unwrap();
    network.predict(x.view()).unwrap()
}

/// Samples are gathered, measured in chunks, and the best weights are kept.
#[test]
fn fitting_stays_inside_what_it_allocates() {
    let mut numbers = Numbers::new(3);
    let mut data = |rows: usize| {
        let x = Matrix::from_vec(rows, 16, numbers.many(rows * 16)).unwrap();
        Dataset::classes(x, (0..rows as u32).map(|row| row % 5).collect()).unwrap()
    };
    let (training, held_out) = (data(592), data(528));
    let network = mlp(16, &[(48, Activation::Relu), (5, Activation::Identity)]);
    let loss = Loss::CrossEntropy { label_smoothing: 0.0 };
    let options = FitOptions::new().epochs(3).batch_size(48).validation(held_out).restore_best(true);
    for isa in Isa::available() {
        isa.pin(|| {
            let mut trainer = Trainer::new(network.clone(), loss, Adam::new(0.01)).unwrap();
            assert_eq!(trainer.fit(&training, &options).unwrap().epochs.len(), 3);
        });
    }
}
