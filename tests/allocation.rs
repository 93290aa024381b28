//! Training and predicting allocate nothing once they have seen a batch of a size.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::Numbers;
use percycle::{
    Activation, Adam, AdamW, Clip, Loss, MatRef, Matrix, Mlp, Optimizer, Sgd, Targets, Trainer, Workspace,
};

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    /// Whether this thread is one of the pool's whose allocations are counted together.
    static IN_POOL: Cell<bool> = const { Cell::new(false) };
}

static IN_POOLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        if IN_POOL.get() {
            IN_POOLS.fetch_add(1, Ordering::Relaxed);
        }
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

/// A network of 40 inputs and 5 outputs.
fn network(hidden: [usize; 2]) -> Mlp {
    let hidden = Mlp::builder(40).layer(hidden[0], Activation::Relu).layer(hidden[1], Activation::Gelu);
    hidden.layer(5, Activation::Identity).seed(1).build().unwrap()
}

const SMALL: [usize; 2] = [33, 20];
/// Layers whose operands are copied and packed, and which are shared among threads.
const WIDE: [usize; 2] = [512, 512];

fn samples(rows: usize) -> (Vec<f32>, Vec<u32>) {
    (Numbers::new(7).many(rows * 40), (0..rows as u32).map(|i| i % 5).collect())
}

fn trainer(hidden: [usize; 2], optimizer: Optimizer, clip: Clip) -> Trainer {
    let loss = Loss::CrossEntropy { label_smoothing: 0.1 };
    Trainer::new(network(hidden), loss, optimizer).unwrap().with_clip(clip).unwrap()
}

/// A step, and one in two parts, with each batch.
fn round(trainer: &mut Trainer, batches: &[(Vec<f32>, Vec<u32>)]) {
    for (x, classes) in batches {
        let x = MatRef::new(x, classes.len(), 40).unwrap();
        trainer.step(x, Targets::Classes(classes)).unwrap();
        trainer.accumulate(x, Targets::Classes(classes)).unwrap();
        trainer.apply().unwrap();
    }
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1.0_f32; 100]))), 1);
}

/// On one thread. (Called from outside of a pool of several, rayon allocates a block of its queue for every 63 products that
/// are shared.)
#[test]
fn steps_allocate_nothing() {
    alone(|| {
        let optimizers: [Optimizer; 4] = [
            Sgd::new(0.01).into(),
            Sgd::new(0.01).momentum(0.9).nesterov(true).into(),
            Adam::new(0.01).into(),
            AdamW::new(0.01).into(),
        ];
        for (hidden, batches) in [
            (SMALL, [samples(32), samples(7)]),
            (WIDE, [samples(128), samples(7)]),
            // One that goes through the layers in parts.
            (SMALL, [samples(3000), samples(7)]),
        ] {
            for optimizer in optimizers {
                for clip in [Clip::None, Clip::Value(0.1), Clip::GlobalNorm(0.1)] {
                    let mut trainer = trainer(hidden, optimizer, clip);
                    round(&mut trainer, &batches);
                    let count = allocations(|| round(&mut trainer, &batches));
                    assert_eq!(count, 0, "{hidden:?}, {optimizer:?}, {clip:?}");
                }
            }
        }
    });
}

/// Runs `f` on the thread of a pool that has no other.
fn alone<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(f)
}

/// On several threads too, but when each of them has what it needs is up to the pool: a thread packs operands into
/// memory of its own, which grows when it is first handed a part of some size. So this waits for rounds without any
/// allocation, rayon's included; a step that allocates every time never has them.
#[cfg(feature = "rayon")]
#[test]
fn steps_on_several_threads_come_to_allocate_nothing() {
    const QUIET: usize = 5;
    let start = |_| IN_POOL.set(true);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).start_handler(start).build().unwrap();
    let batches = [samples(128), samples(7)];
    for (optimizer, clip) in
        [(Adam::new(0.01).into(), Clip::None), (Sgd::new(0.01).into(), Clip::GlobalNorm(0.1))]
    {
        let mut trainer = trainer(WIDE, optimizer, clip);
        // One job for the pool from outside: those that a product makes inside are not allocated.
        pool.install(|| {
            let mut quiet = 0;
            for _ in 0..200 {
                let before = IN_POOLS.load(Ordering::Relaxed);
                round(&mut trainer, &batches);
                let same = before == IN_POOLS.load(Ordering::Relaxed);
                quiet = if same { quiet + 1 } else { 0 };
                if quiet == QUIET {
                    return;
                }
            }
            panic!("{optimizer:?}, {clip:?}: never {QUIET} rounds without an allocation");
        });
    }
    assert_ne!(IN_POOLS.load(Ordering::Relaxed), 0, "the first rounds are counted");
}

#[test]
fn predicting_allocates_nothing() {
    let (mlp, (x, _)) = (network(SMALL), samples(9));
    let (mut workspace, mut y) = (Workspace::new(), Matrix::zeros(9, 5));
    let mut predict = || {
        mlp.predict_into(MatRef::new(&x, 9, 40).unwrap(), &mut workspace, y.view_mut()).unwrap();
    };
    predict();
    assert_eq!(allocations(predict), 0);
}

/// Beside weights, optimizer and activations, a trainer holds at most a quarter more.
#[test]
fn scratch_is_at_most_a_quarter() {
    let nets: [(&[usize], usize, bool); 5] = [
        (&[64, 32, 10], 32, false),
        (&[784, 512, 256, 10], 64, false),
        (&[784, 512, 256, 10], 64, true),
        (&[128, 64, 64, 64], 1024, false),
        (&[768, 1536, 768], 128, true),
    ];
    for (sizes, batch, adam) in nets {
        // On a thread of its own, whose scratch is that of this network.
        let memory = alone(move || {
            let mut builder = Mlp::builder(sizes[0]);
            for &units in &sizes[1..] {
                builder = builder.layer(units, Activation::Relu);
            }
            let optimizer: Optimizer = if adam { Adam::new(1e-3).into() } else { Sgd::new(1e-3).into() };
            let mut trainer = Trainer::new(builder.build().unwrap(), Loss::Mse, optimizer).unwrap();
            let mut numbers = Numbers::new(1);
            let outputs = sizes[sizes.len() - 1];
            let (x, t) = (numbers.many(batch * sizes[0]), numbers.many(batch * outputs));
            let (x, t) = (MatRef::new(&x, batch, sizes[0]), MatRef::new(&t, batch, outputs));
            trainer.step(x.unwrap(), Targets::Values(t.unwrap())).unwrap();
            trainer.memory()
        });
        let needed = memory.weights + memory.optimizer + memory.activations;
        assert!(memory.scratch > 0 && 4 * memory.scratch <= needed, "{sizes:?} {batch}: {memory:?}");
        assert_eq!(memory.total(), needed + memory.gradients + memory.scratch);
    }
}
