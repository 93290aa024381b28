//! Whole training steps, and matrixmultiply doing only the step's products. Throughput is in FLOP: for each layer
//! 2 batch in out forward, as much for dW, and as much for dX in all but the first.

mod common;

use common::{criterion, matrix};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use percycle::{Activation, Adam, Loss, Mlp, Optimizer, Sgd, Targets, Trainer};

const NETS: [(&[usize], usize); 3] = [(&[64, 32, 10], 32), (&[784, 128, 10], 32), (&[784, 512, 256, 10], 64)];

fn trainer(sizes: &[usize], optimizer: Optimizer) -> percycle::Result<Trainer> {
    let mut builder = Mlp::builder(sizes[0]);
    for (i, &units) in sizes[1..].iter().enumerate() {
        let last = i + 2 == sizes.len();
        builder = builder.layer(units, if last { Activation::Identity } else { Activation::Relu });
    }
    Trainer::new(builder.build()?, Loss::CrossEntropy { label_smoothing: 0.0 }, optimizer)
}

fn steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("step");
    for (sizes, batch) in NETS {
        let forward: usize = sizes.windows(2).map(|pair| 2 * batch * pair[0] * pair[1]).sum();
        group.throughput(Throughput::Elements((3 * forward - 2 * batch * sizes[0] * sizes[1]) as u64));
        let x = matrix(batch, sizes[0]);
        let classes: Vec<u32> = (0..batch as u32).map(|i| i % 10).collect();
        let net = format!("{sizes:?} batch {batch}");
        for (name, optimizer) in [("sgd", Sgd::new(1e-4).into()), ("adam", Adam::new(1e-6).into())] {
            let mut trainer = trainer(sizes, optimizer).expect("the settings are in range");
            group.bench_function(BenchmarkId::new(name, &net), |bench| {
                bench.iter(|| trainer.step(x.view(), Targets::Classes(&classes)).expect("the batch fits"));
            });
        }
        let layers: Vec<_> = sizes
            .windows(2)
            .map(|pair| (matrix(batch, pair[0]), matrix(pair[0], pair[1]), matrix(batch, pair[1])))
            .collect();
        group.bench_function(BenchmarkId::new("matrixmultiply products", &net), |bench| {
            let mut layers = layers.clone();
            bench.iter(|| {
                for (n, (x, w, y)) in layers.iter_mut().enumerate() {
                    let (k, m) = (w.rows(), w.cols());
                    let (wide, tall) = (m as isize, k as isize);
                    let (px, pw, py) = (
                        x.as_mut_slice().as_mut_ptr(),
                        w.as_mut_slice().as_mut_ptr(),
                        y.as_mut_slice().as_mut_ptr(),
                    );
                    // SAFETY: x is batch x k, w is k x m, y is batch x m, all row-major. The small
                    // factor keeps the values from growing from one iteration to the next.
                    unsafe {
                        use matrixmultiply::sgemm;
                        sgemm(batch, k, m, 1e-3, px, tall, 1, pw, wide, 1, 0.0, py, wide, 1);
                        sgemm(k, batch, m, 1e-3, px, 1, tall, py, wide, 1, 0.0, pw, wide, 1);
                        if n > 0 {
                            sgemm(batch, m, k, 1e-3, py, wide, 1, pw, 1, wide, 0.0, px, tall, 1);
                        }
                    }
                }
            });
        });
    }
    group.finish();
}

criterion_group!(name = benches; config = criterion(); targets = steps);
criterion_main!(benches);
