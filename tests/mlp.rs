//! Networks: building, initial weights, prediction.

use percycle::{Activation, Init, MatMut, MatRef, Matrix, Mlp, Workspace};
use percycle_reference::activation as scalar;
use percycle_reference::product::{Strided, linear};

fn net() -> Mlp {
    Mlp::builder(5).layer(7, Activation::Relu).layer(3, Activation::Tanh).seed(4).build().unwrap()
}

fn samples(rows: usize) -> Matrix {
    Matrix::from_vec(rows, 5, (0..rows * 5).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect()).unwrap()
}

fn view(m: &Matrix) -> Strided<'_> {
    Strided::row_major(m.as_slice(), m.rows(), m.cols())
}

#[test]
fn prediction_equals_the_reference_whatever_the_batch() {
    // Rows of 1024 weights, and of as many outputs, lie further apart than they are long.
    for (units, outputs) in [(7, 3), (1024, 3), (7, 1024), (1024, 1024)] {
        let mlp = Mlp::builder(5).layer(units, Activation::Relu).layer(outputs, Activation::Tanh);
        let (mlp, x) = (mlp.seed(4).build().unwrap(), samples(20));
        let weights: Vec<Matrix> = mlp.layers().iter().map(percycle::Linear::weight).collect();
        let layer = |n: usize, x, activation| {
            linear(x, view(&weights[n]).t(), Some(mlp.layers()[n].bias()), activation)
        };
        let hidden = layer(0, view(&x), scalar::Activation::Relu);
        let want = layer(1, Strided::row_major(&hidden, 20, units), scalar::Activation::Tanh);
        assert_eq!(mlp.predict(x.view()).unwrap().as_slice(), want);
        for i in 0..20 {
            let row = mlp.predict(x.view().row_range(i, 1).unwrap()).unwrap();
            assert_eq!(row.as_slice(), &want[i * outputs..(i + 1) * outputs], "row {i} alone");
        }
    }
}

/// A batch that takes its way through the layers in parts, the last of which is a short one, into rows and from rows that lie apart.
#[test]
fn prediction_of_a_large_batch_is_that_of_its_samples() {
    let (mlp, rows) = (net(), 150_001);
    let x = samples(rows);
    let apart: Vec<f32> =
        x.as_slice().chunks(5).flat_map(|row| row.iter().copied().chain([7.0; 2])).collect();
    let mut y = vec![9.0; rows * 4];
    let (from, into) = (MatRef::strided(&apart, rows, 5, 7, 1), MatMut::strided(&mut y, rows, 3, 4, 1));
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    alone.install(|| mlp.predict_into(from.unwrap(), &mut Workspace::new(), into.unwrap())).unwrap();
    let whole = mlp.predict(x.view()).unwrap();
    let columns: Vec<f32> = (0..5).flat_map(|j| x.as_slice().iter().skip(j).step_by(5).copied()).collect();
    let by_columns = mlp.predict(MatRef::new(&columns, 5, rows).unwrap().t()).unwrap();
    for start in (0..rows).step_by(1000) {
        let count = 1000.min(rows - start);
        let want = mlp.predict(x.view().row_range(start, count).unwrap()).unwrap();
        for i in 0..count {
            let (row, want) = (start + i, want.row(i).unwrap());
            assert_eq!(whole.row(row).unwrap(), want, "row {row}");
            assert_eq!(by_columns.row(row).unwrap(), want, "row {row}, by columns");
            assert_eq!(y[row * 4..row * 4 + 3], *want, "row {row}, apart");
            assert_eq!(y[row * 4 + 3], 9.0, "beyond row {row}");
        }
    }
}

#[test]
fn the_first_weights_of_a_seed_never_change() {
    let first = |init| {
        let mlp = Mlp::builder(4).layer(2, Activation::Relu).init(init).seed(42).build().unwrap();
        mlp.layers()[0].weight().as_slice()[..2].iter().map(|w| w.to_bits()).collect::<Vec<_>>()
    };
    assert_eq!(first(Init::PyTorchLinear), PINNED_UNIFORM, "{:?}", first(Init::PyTorchLinear));
    assert_eq!(first(Init::HeNormal), PINNED_NORMAL, "{:?}", first(Init::HeNormal));
}
const PINNED_UNIFORM: [u32; 2] = [3189465902, 3193663957];
const PINNED_NORMAL: [u32; 2] = [3201054847, 3198286963];

#[test]
fn initial_weights_have_their_bounds_and_spread() {
    let (inputs, outputs) = (300, 200);
    for (init, bound, variance) in [
        (Init::PyTorchLinear, (1.0 / 300.0_f64).sqrt(), 1.0 / 900.0),
        (Init::XavierUniform, (6.0 / 500.0_f64).sqrt(), 2.0 / 500.0),
        (Init::HeUniform, (6.0 / 300.0_f64).sqrt(), 2.0 / 300.0),
        (Init::XavierNormal, f64::INFINITY, 2.0 / 500.0),
        (Init::HeNormal, f64::INFINITY, 2.0 / 300.0),
        (Init::Zeros, 0.0, 0.0),
    ] {
        let mlp = Mlp::builder(inputs).layer(outputs, Activation::Relu).init(init).seed(9).build().unwrap();
        let layer = &mlp.layers()[0];
        let weight = layer.weight();
        let n = (inputs * outputs) as f64;
        let mean = weight.as_slice().iter().map(|&w| f64::from(w)).sum::<f64>() / n;
        let spread = weight.as_slice().iter().map(|&w| f64::from(w).powi(2)).sum::<f64>() / n;
        assert!(weight.as_slice().iter().all(|&w| f64::from(w.abs()) <= bound * 1.000_001), "{init:?}");
        // Five standard errors: sqrt(variance / n) of the mean, sqrt(2 / n) of the variance at most.
        assert!(mean.abs() <= 5.0 * (variance / n).sqrt(), "{init:?}: mean {mean}");
        assert!(
            (spread - variance).abs() <= 5.0 * variance * (2.0 / n).sqrt(),
            "{init:?}: variance {spread}"
        );
        assert_eq!(layer.bias().iter().any(|&b| b != 0.0), init == Init::PyTorchLinear, "{init:?}");
    }
}

#[test]
fn an_empty_batch_gives_no_rows() {
    let y = net().predict(Matrix::zeros(0, 5).view()).unwrap();
    assert_eq!((y.rows(), y.cols()), (0, 3));
}

#[test]
fn nan_stays_in_its_row() {
    let mut x = samples(4);
    x.as_mut_slice()[7] = f32::NAN;
    let y = net().predict(x.view()).unwrap();
    let clean = net().predict(samples(4).view()).unwrap();
    assert!(y.row(1).unwrap().iter().any(|v| v.is_nan()));
    for i in [0, 2, 3] {
        assert_eq!(y.row(i), clean.row(i));
    }
}

#[test]
fn one_model_serves_many_threads() {
    let (mlp, x) = (net(), samples(50));
    let want = mlp.predict(x.view()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let (mut workspace, mut y) = (Workspace::new(), Matrix::zeros(50, 3));
                for _ in 0..50 {
                    mlp.predict_into(x.view(), &mut workspace, y.view_mut()).unwrap();
                    assert_eq!(y, want);
                }
            });
        }
    });
}

#[test]
fn bad_networks_and_shapes_are_refused_by_name() {
    let text = |builder: percycle::MlpBuilder| builder.build().unwrap_err().to_string();
    assert_eq!(
        text(Mlp::builder(3)),
        "Mlp::build: the list of layers is empty: add one with `.layer(units, activation)`"
    );
    assert_eq!(
        text(Mlp::builder(0).layer(1, Activation::Relu)),
        "Mlp::build: inputs is 0: it must be at least 1"
    );
    assert_eq!(
        text(Mlp::builder(1).layer(0, Activation::Relu)),
        "Mlp::build: units is 0: it must be at least 1"
    );
    assert!(
        text(Mlp::builder(usize::MAX).layer(2, Activation::Relu))
            .contains("more elements than can be addressed")
    );
    assert!(
        text(Mlp::builder(1 << 40).layer(1 << 20, Activation::Relu))
            .contains("more elements than can be addressed")
    );
    assert!(text(Mlp::builder(1).layer(1, Activation::LeakyRelu(f32::INFINITY))).contains("slope is inf"));

    let mut mlp = net();
    let error = mlp.predict(Matrix::zeros(2, 4).view()).unwrap_err().to_string();
    assert!(error.contains("x is 2x4") && error.contains("5x7"), "{error}");
    let error = mlp.layers_mut()[0].set_weight(Matrix::zeros(5, 7).view()).unwrap_err().to_string();
    assert!(error.contains("w is 5x7") && error.contains("7x5"), "{error}");
    assert!(mlp.layers_mut()[0].set_bias(&[0.0; 6]).is_err());
    let (mut workspace, mut y) = (Workspace::new(), Matrix::zeros(2, 2));
    assert!(mlp.predict_into(samples(2).view(), &mut workspace, y.view_mut()).is_err());
    assert_eq!(mlp, net(), "refusals changed nothing");
}

/// One sample again and again, by a stride of 0: the outputs fit in memory, the hidden layer's do not.
#[test]
fn a_batch_that_memory_cannot_hold_is_refused() {
    // 512 TiB: more than a process can address.
    let (units, rows) = (1 << 23, 1 << 24);
    let builder = Mlp::builder(1).layer(units, Activation::Relu).layer(1, Activation::Identity);
    let mlp = builder.init(Init::Zeros).build().unwrap();
    let x = MatRef::strided(&[1.0], rows, 1, 0, 1).unwrap();
    let error = mlp.predict(x).unwrap_err().to_string();
    assert!(
        error.contains("Mlp::predict: 16777216x8388608") && error.contains("can be addressed"),
        "{error}"
    );
}

#[test]
fn weights_go_in_and_come_out_in_pytorch_order() {
    let mut mlp = net();
    let w: Vec<f32> = (0..35).map(|i| i as f32).collect();
    mlp.layers_mut()[0].set_weight(MatRef::new(&w, 7, 5).unwrap()).unwrap();
    assert_eq!(mlp.layers()[0].weight().as_slice(), w);
    // A strided view of the same numbers is as good.
    let columns: Vec<f32> = (0..35).map(|i| (i % 7 * 5 + i / 7) as f32).collect();
    mlp.layers_mut()[0].set_weight(MatRef::new(&columns, 5, 7).unwrap().t()).unwrap();
    assert_eq!(mlp.layers()[0].weight().as_slice(), w);
}
