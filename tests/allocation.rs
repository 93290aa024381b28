//! Training and predicting allocate nothing once they have seen a batch of a size.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::Numbers;
use percycle::{
    Activation, Adam, AdamW, Clip, Loss, MatRef, Matrix, Mlp, Optimizer, Sgd, Targets, Trainer, Workspace,
};

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations of this thread while `f` runs.
fn allocations(f: impl FnOnce()) -> usize {
    let before = COUNT.get();
    f();
    COUNT.get() - before
}

fn network() -> Mlp {
    let hidden = Mlp::builder(40).layer(33, Activation::Relu).layer(20, Activation::Gelu);
    hidden.layer(5, Activation::Identity).seed(1).build().unwrap()
}

fn samples(rows: usize) -> (Vec<f32>, Vec<u32>) {
    let mut numbers = Numbers::new(7);
    ((0..rows * 40).map(|_| numbers.next()).collect(), (0..rows as u32).map(|i| i % 5).collect())
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1.0_f32; 100]))), 1);
}

#[test]
fn steps_allocate_nothing() {
    let optimizers: [Optimizer; 4] = [
        Sgd::new(0.01).into(),
        Sgd::new(0.01).momentum(0.9).nesterov(true).into(),
        Adam::new(0.01).into(),
        AdamW::new(0.01).into(),
    ];
    let batches = [samples(32), samples(7)];
    for optimizer in optimizers {
        for clip in [Clip::None, Clip::Value(0.1), Clip::GlobalNorm(0.1)] {
            let loss = Loss::CrossEntropy { label_smoothing: 0.1 };
            let mut trainer = Trainer::new(network(), loss, optimizer).unwrap().with_clip(clip).unwrap();
            let mut round = || {
                for (x, classes) in &batches {
                    let x = MatRef::new(x, classes.len(), 40).unwrap();
                    trainer.step(x, Targets::Classes(classes)).unwrap();
                    trainer.accumulate(x, Targets::Classes(classes)).unwrap();
                    trainer.apply().unwrap();
                }
            };
            round();
            assert_eq!(allocations(round), 0, "{optimizer:?}, {clip:?}");
        }
    }
}

#[test]
fn predicting_allocates_nothing() {
    let (mlp, (x, _)) = (network(), samples(9));
    let (mut workspace, mut y) = (Workspace::new(), Matrix::zeros(9, 5));
    let mut predict = || {
        mlp.predict_into(MatRef::new(&x, 9, 40).unwrap(), &mut workspace, y.view_mut()).unwrap();
    };
    predict();
    assert_eq!(allocations(predict), 0);
}
