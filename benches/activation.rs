//! Activations alone, on values that lie in L1. Throughput is in values.

mod common;

use common::{criterion, matrix};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use percycle::Activation;

const VALUES: usize = 2048;

fn activations(c: &mut Criterion) {
    let all = [
        Activation::Relu,
        Activation::LeakyRelu(0.01),
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
    ];
    let mut group = c.benchmark_group("activation");
    group.throughput(Throughput::Elements(VALUES as u64));
    // Fresh values each time: applied again and again, some activations end in denormal numbers.
    let fresh = || matrix(1, VALUES);
    for activation in all {
        group.bench_function(BenchmarkId::from_parameter(activation.name()), |bench| {
            let apply = |values: &mut percycle::Matrix| activation.apply(values.as_mut_slice());
            bench.iter_batched_ref(fresh, apply, BatchSize::SmallInput);
        });
    }
    group.finish();
}

criterion_group!(name = benches; config = criterion(); targets = activations);
criterion_main!(benches);
