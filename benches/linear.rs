//! Layers with bias and activation fused, weights in both orders and packed, and the packing itself, beside the bare
//! product of percycle and of matrixmultiply. Throughput is in FLOP of the product: "Gelem/s" reads as GFLOP/s.

mod common;

use common::{criterion, matrix};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use percycle::{Activation, Matrix, PackedWeights, linear, linear_packed, matmul};

/// (batch, outputs, inputs).
const SHAPES: [(usize, usize, usize); 4] = [(64, 512, 784), (8, 512, 784), (256, 256, 256), (1024, 64, 64)];

fn layers(c: &mut Criterion) {
    let mut group = c.benchmark_group("linear");
    for (batch, outputs, inputs) in SHAPES {
        let (x, w, mut y) = (matrix(batch, inputs), matrix(inputs, outputs), Matrix::zeros(batch, outputs));
        let transposed = matrix(outputs, inputs);
        let bias = vec![0.1; outputs];
        let packed = PackedWeights::new(w.view());
        group.throughput(Throughput::Elements(2 * (batch * outputs * inputs) as u64));
        let shape = format!("{batch}x{outputs}x{inputs}");
        for activation in
            [Activation::Identity, Activation::Relu, Activation::Sigmoid, Activation::Tanh, Activation::Gelu]
        {
            group.bench_function(BenchmarkId::new(activation.name(), &shape), |bench| {
                bench.iter(|| linear(x.view(), w.view(), Some(&bias), activation, y.view_mut()));
            });
        }
        let relu = Activation::Relu;
        group.bench_function(BenchmarkId::new("bare", &shape), |bench| {
            bench.iter(|| matmul(x.view(), w.view(), y.view_mut()));
        });
        group.bench_function(BenchmarkId::new("relu without bias", &shape), |bench| {
            bench.iter(|| linear(x.view(), w.view(), None, Activation::Relu, y.view_mut()));
        });
        group.bench_function(BenchmarkId::new("relu out-in", &shape), |bench| {
            bench.iter(|| linear(x.view(), transposed.view().t(), Some(&bias), relu, y.view_mut()));
        });
        group.bench_function(BenchmarkId::new("relu packed", &shape), |bench| {
            bench.iter(|| linear_packed(x.view(), &packed, Some(&bias), relu, y.view_mut()));
        });
        group.bench_function(BenchmarkId::new("packing out-in", &shape), |bench| {
            bench.iter(|| PackedWeights::new(transposed.view().t()));
        });
        group.bench_function(BenchmarkId::new("matrixmultiply bare", &shape), |bench| {
            let (a, b, c) = (x.as_slice().as_ptr(), w.as_slice().as_ptr(), y.as_mut_slice().as_mut_ptr());
            let (rows_a, rows_c) = (inputs as isize, outputs as isize);
            // SAFETY: row-major matrices of these shapes, alive as long as the closure.
            bench.iter(|| unsafe {
                matrixmultiply::sgemm(
                    batch, inputs, outputs, 1.0, a, rows_a, 1, b, rows_c, 1, 0.0, c, rows_c, 1,
                );
            });
        });
    }
    group.finish();
}

criterion_group!(name = benches; config = criterion(); targets = layers);
criterion_main!(benches);
