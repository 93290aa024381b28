//! Products on one core, with matrixmultiply beside them. Throughput is in FLOP: "Gelem/s" reads as GFLOP/s.

mod common;

use common::{Product, criterion, passes};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SQUARES: [usize; 7] = [16, 32, 64, 128, 256, 512, 1024];

/// Layers as (batch, in, out): each in all its passes.
const LAYERS: [(usize, usize, usize); 4] = [(1, 784, 512), (8, 784, 512), (64, 784, 512), (128, 768, 3072)];

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("product");
    let squares = SQUARES.map(|edge| Product::new((edge, edge, edge)));
    for mut product in squares.into_iter().chain(LAYERS.into_iter().flat_map(passes)) {
        group.throughput(Throughput::Elements(product.flops()));
        let shape = product.to_string();
        group.bench_function(BenchmarkId::new("percycle", &shape), |bench| bench.iter(|| product.percycle()));
        group.bench_function(BenchmarkId::new("matrixmultiply", &shape), |bench| {
            bench.iter(|| product.matrixmultiply());
        });
    }
    group.finish();
}

criterion_group!(name = benches; config = criterion(); targets = products);
criterion_main!(benches);
