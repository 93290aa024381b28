//! The microkernel of each instruction set and tile, with A, B and C in L1: the most that a product can reach; and two
//! roofs that are not multiply-adds.
//!
//! Measured through the public API, so each figure holds a call and its checks as well, some tens of nanoseconds. Printed
//! first are the multiply-adds per load of each tile: a core that loads as many vectors in a cycle as it multiplies needs
//! more than 1. Throughput is in FLOP: "Gelem/s" reads as GFLOP/s.

mod common;

use common::{criterion, matrix};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use percycle::{Isa, Matrix, PackedWeights, matmul};

/// Rows of tiles and vectors in each, from the full tile to the widest: what `src/kernels/shapes.rs` has for 32 vector
/// registers (AVX-512), and for 16.
fn tiles(isa: Isa) -> &'static [(usize, usize)] {
    if isa.name() == "avx512" {
        &[(12, 2), (8, 3), (6, 4), (3, 8)]
    } else {
        &[(6, 2), (4, 3), (3, 4), (1, 8)]
    }
}

/// Values of A and B together: 24 KiB.
const PANELS: usize = 6144;

fn kernels(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernel");
    for isa in Isa::available() {
        for &(rows, vectors) in tiles(isa) {
            let fma_per_load = (rows * vectors) as f64 / (rows + vectors) as f64;
            println!("{isa}, {rows} rows of {vectors} vectors: {fma_per_load:.2} FMA per load");
            let cols = vectors * isa.lanes();
            let k = PANELS / (rows + cols);
            let (a, b, mut c) = (matrix(rows, k), matrix(k, cols), Matrix::zeros(rows, cols));
            group.throughput(Throughput::Elements(2 * (rows * cols * k) as u64));
            group.bench_function(BenchmarkId::new(isa.name(), format!("{rows}x{vectors}")), |bench| {
                let mut product = || matmul(a.view(), b.view(), c.view_mut());
                isa.pin(|| bench.iter(&mut product));
            });
        }
    }
    group.finish();
}

/// Values of weights in L1.
const VALUES: usize = 2048;

/// A square root and a division for each of `values`, by vectors: what Adam cannot do without, since both are rounded
/// correctly.
#[inline(always)]
fn divided_by_root(values: &mut [f32]) {
    for value in values {
        *value = 1.5 / value.sqrt();
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn divided_by_root_avx2(values: &mut [f32]) {
    divided_by_root(values);
}

fn roofs(c: &mut Criterion) {
    let mut group = c.benchmark_group("roof");
    group.throughput(Throughput::Elements(VALUES as u64));
    let mut values = [2.5_f32; VALUES];
    group.bench_function("division by a square root", |bench| {
        bench.iter(|| {
            let values = std::hint::black_box(&mut values);
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: the instructions have just been found.
                return unsafe { divided_by_root_avx2(values) };
            }
            divided_by_root(values)
        });
    });
    // Weights as [out, in] must be transposed on their way into vectors across outputs: for one sample, that is all there is.
    let weights = matrix(32, VALUES / 32);
    for isa in Isa::available() {
        group.bench_function(BenchmarkId::new("transposition", isa.name()), |bench| {
            isa.pin(|| bench.iter(|| PackedWeights::new(std::hint::black_box(weights.view().t()))));
        });
    }
    group.finish();
}

criterion_group!(name = benches; config = criterion(); targets = kernels, roofs);
criterion_main!(benches);
