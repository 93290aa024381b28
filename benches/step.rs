//! Every row of `benches/nets.csv`: training steps and predictions, and the step's products alone by matrixmultiply.
//! Throughput is in samples.

mod common;

use common::nets::{Net, trainer};
use common::{Product, criterion, matrix, passes};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use percycle::{Activation, Matrix, Mlp, Workspace};

/// The rows; the package `peers` reads them as well. The task is `predict` or an optimizer.
fn nets() -> Vec<Net> {
    let mut csv = csv::Reader::from_reader(include_str!("nets.csv").as_bytes());
    let parse = |line: csv::StringRecord| {
        let sizes = line[0].split('-').map(|size| size.parse().expect("sizes are numbers")).collect();
        let batch = line[2].parse().expect("the batch is a number");
        Net { sizes, hidden: line[1].into(), batch, loss: line[3].into(), optimizer: line[4].into() }
    };
    csv.records().map(|line| parse(line.expect("lines have five fields"))).collect()
}

/// A prediction of the network, to call again and again.
fn predictor(net: &Net) -> impl FnMut() + use<> {
    let mut builder = Mlp::builder(net.sizes[0]);
    for (i, &units) in net.sizes[1..].iter().enumerate() {
        let last = i + 2 == net.sizes.len();
        builder = builder.layer(units, if last { Activation::Identity } else { Activation::Relu });
    }
    let mlp = builder.build().expect("the sizes are not 0");
    let (x, mut y) =
        (matrix(net.batch, net.sizes[0]), Matrix::zeros(net.batch, net.sizes[net.sizes.len() - 1]));
    let mut workspace = Workspace::new();
    move || mlp.predict_into(x.view(), &mut workspace, y.view_mut()).expect("the shapes fit")
}

fn steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("step");
    for net in nets() {
        group.throughput(Throughput::Elements(net.batch as u64));
        let predicts = net.optimizer == "predict";
        let mut call: Box<dyn FnMut()> =
            if predicts { Box::new(predictor(&net)) } else { Box::new(trainer(&net)) };
        group.bench_function(BenchmarkId::new("percycle", &net), |bench| bench.iter(&mut call));

        // Forward; for a step dX as well, in all layers but the first, and dW.
        let mut products: Vec<Product> = Vec::new();
        for (i, layer) in net.sizes.windows(2).enumerate() {
            let [forward, _, dx, dw] = passes((net.batch, layer[0], layer[1]));
            products.push(forward);
            if !predicts {
                products.push(dw);
            }
            if !predicts && i > 0 {
                products.push(dx);
            }
        }
        group.bench_function(BenchmarkId::new("matrixmultiply products", &net), |bench| {
            bench.iter(|| products.iter_mut().for_each(Product::matrixmultiply));
        });
    }
    group.finish();
}

criterion_group!(name = benches; config = criterion(); targets = steps);
criterion_main!(benches);
