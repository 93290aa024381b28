//! Products and steps on one, two and all threads. Throughput is in FLOP: "Gelem/s" reads as GFLOP/s.

mod common;

use std::time::{Duration, Instant};

use common::nets::{Net, flops, trainer};
use common::{Product, criterion};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rayon::{ThreadPool, ThreadPoolBuilder};

/// A pool of each size, its name first.
fn pools() -> Vec<(String, ThreadPool)> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let mut sizes = vec![1, 2, all];
    sizes.sort_unstable();
    sizes.dedup();
    let pool = |n: usize| {
        let pool = ThreadPoolBuilder::new().num_threads(n).build().expect("threads can be started");
        (format!("{n} threads"), pool)
    };
    sizes.into_iter().map(pool).collect()
}

/// Microseconds until a sleeping worker begins with what it is woken for: what `src/kernels/team.rs` weighs work
/// against. Median of 301.
fn wake() -> f64 {
    let pool = ThreadPoolBuilder::new().num_threads(2).build().expect("threads can be started");
    let spin = |time: Duration| {
        let start = Instant::now();
        while start.elapsed() < time {
            std::hint::spin_loop();
        }
    };
    let mut times: Vec<Duration> = (0..301)
        .map(|_| {
            pool.install(|| {
                spin(Duration::from_micros(200));
                let start = Instant::now();
                rayon::join(|| spin(Duration::from_micros(500)), || start.elapsed()).1
            })
        })
        .collect();
    times.sort();
    times[150].as_secs_f64() * 1e6
}

fn threads(c: &mut Criterion) {
    println!("a sleeping worker begins after {:.1} us", wake());
    let mut group = c.benchmark_group("threads");
    let pools = pools();
    for shape in [(64, 64, 64), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (128, 512, 784)] {
        let mut product = Product::new(shape);
        group.throughput(Throughput::Elements(product.flops()));
        let shape = product.to_string();
        for (name, pool) in &pools {
            group.bench_function(BenchmarkId::new(name, &shape), |bench| {
                pool.install(|| bench.iter(|| product.percycle()));
            });
        }
    }
    let nets: [(&[usize], usize); 3] =
        [(&[64, 32, 10], 32), (&[784, 512, 256, 10], 64), (&[1024, 1024, 1024, 1024, 1024], 256)];
    for (sizes, batch) in nets {
        let net = Net {
            sizes: sizes.to_vec(),
            batch,
            optimizer: "sgd".into(),
            loss: "cross-entropy".into(),
            hidden: "relu".into(),
        };
        group.throughput(Throughput::Elements(flops(&net) as u64));
        let mut step = trainer(&net);
        for (name, pool) in &pools {
            group.bench_function(BenchmarkId::new(name, &net), |bench| {
                pool.install(|| bench.iter(&mut step));
            });
        }
    }
    group.finish();
}

criterion_group!(name = benches; config = criterion(); targets = threads);
criterion_main!(benches);
