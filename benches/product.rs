//! Products on one core, with matrixmultiply beside them. Throughput is in FLOP: "Gelem/s" reads as GFLOP/s.

mod common;

use common::{criterion, matrix};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use percycle::{Matrix, matmul};

/// (m, n, k): squares, and a layer's forward product for batches of 1, 8 and 64.
const SHAPES: [(usize, usize, usize); 8] = [
    (32, 32, 32),
    (128, 128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (1024, 1024, 1024),
    (1, 512, 784),
    (8, 512, 784),
    (64, 512, 784),
];

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("product");
    for (m, n, k) in SHAPES {
        let (a, b, mut out) = (matrix(m, k), matrix(k, n), Matrix::zeros(m, n));
        group.throughput(Throughput::Elements(2 * (m * n * k) as u64));
        let shape = format!("{m}x{n}x{k}");
        group.bench_function(BenchmarkId::new("percycle", &shape), |bench| {
            bench.iter(|| matmul(a.view(), b.view(), out.view_mut()));
        });
        group.bench_function(BenchmarkId::new("matrixmultiply", &shape), |bench| {
            let (a, b, c) = (a.as_slice().as_ptr(), b.as_slice().as_ptr(), out.as_mut_slice().as_mut_ptr());
            let (rows_a, rows_b, rows_c) = (k as isize, n as isize, n as isize);
            // SAFETY: row-major matrices of these shapes, alive as long as the closure.
            bench.iter(|| unsafe {
                matrixmultiply::sgemm(m, k, n, 1.0, a, rows_a, 1, b, rows_b, 1, 0.0, c, rows_c, 1);
            });
        });
    }
    group.finish();
}

criterion_group!(name = benches; config = criterion(); targets = products);
criterion_main!(benches);
