//! Activations, losses, optimizers and clipping against PyTorch: what `tests/pytorch/generate.py` wrote down.
//!
//! Both sides compute in f32 and round differently: sums in another order, fused or not, other polynomials.
//! So each comparison has a tolerance, counted in [`EPSILON`], the largest relative difference of two
//! roundings of the same number (2^-24 on each side). Where it comes from stands with each test; `cargo test
//! --test pytorch -- --nocapture` prints how much of it is used.

use percycle::{Activation, Adam, AdamW, Clip, Loss, MatRef, Mlp, Optimizer, Sgd, Targets, Trainer};
use serde::Deserialize;

const EPSILON: f64 = f32::EPSILON as f64;

#[derive(Deserialize)]
struct Activations {
    x: Vec<f32>,
    cases: Vec<ActivationCase>,
}

#[derive(Deserialize)]
struct ActivationCase {
    name: String,
    y: Vec<f32>,
    slope: Vec<f32>,
}

#[derive(Deserialize)]
struct Losses {
    rows: usize,
    outputs: usize,
    cases: Vec<LossCase>,
}

#[derive(Deserialize)]
struct LossCase {
    name: String,
    x: Vec<f32>,
    /// Values, or classes as numbers.
    targets: Vec<f32>,
    value: f32,
    /// Weight and bias after the step.
    tensors: Vec<Vec<f32>>,
    /// Their gradients, with all terms positive.
    sizes: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Optimizers {
    rows: usize,
    /// Of the inputs and of each layer.
    units: Vec<usize>,
    /// Weight and bias of each layer.
    start: Vec<Vec<f32>>,
    /// Inputs and targets.
    batches: Vec<[Vec<f32>; 2]>,
    cases: Vec<OptimizerCase>,
}

#[derive(Deserialize)]
struct OptimizerCase {
    name: String,
    /// A factor on biases, inputs and targets.
    scale: f32,
    losses: Vec<f32>,
    loss_sensitivity: Vec<f64>,
    tensors: Vec<Vec<f32>>,
    tensor_sensitivity: Vec<f64>,
}

/// Compares, and keeps the largest error of a case as a share of its tolerance.
struct Check<'a> {
    case: &'a str,
    worst: f64,
}

impl<'a> Check<'a> {
    fn new(case: &'a str) -> Self {
        Check { case, worst: 0.0 }
    }

    fn near(&mut self, what: &str, i: usize, got: f32, want: f32, tolerance: f64) {
        let error = (f64::from(got) - f64::from(want)).abs();
        assert!(
            error <= tolerance,
            "{}, {what} {i}: {got:e}, PyTorch {want:e}, {error:e} apart, tolerance {tolerance:e}",
            self.case
        );
        if error > 0.0 {
            self.worst = self.worst.max(error / tolerance);
        }
    }
}

impl Drop for Check<'_> {
    fn drop(&mut self) {
        println!("{}: {:.3} of the tolerance", self.case, self.worst);
    }
}

/// How far values and slopes may be apart at `x`, where PyTorch gives `y`.
///
/// A rounding counts half an epsilon. Both sides together:
/// - Identity, ReLU and leaky ReLU round at most once, in the same place: no difference.
/// - Sigmoid, tanh: 2 ULP on our side; an exponential and two roundings on the other. 4 epsilon of the value.
/// - SiLU: 4 ULP on our side, 2 on the other.
/// - GELU: PyTorch's erf is that of Abramowitz and Stegun, 7.1.26: off by 1.5e-7 at most, or 1.3 epsilon, and
///   by some 8 roundings. To it 1 is added, which loses the digits where it is near -1, and the sum is
///   multiplied by x / 2. That is 3 epsilon of x; and of the value our 6, and the last rounding.
/// - GELU with tanh: both tanh and our sigmoid have an argument 2 epsilon off, so 2 epsilon of x instead.
/// - Slope of sigmoid, `y (1 - y)`, from outputs 4 epsilon apart: that and 2 for the roundings, of y.
/// - Slope of tanh, `1 - y^2`: twice 4 and 2.
/// - Slope of SiLU, `s (1 + x (1 - s))`: s and 1 - s are 4 apart each, and 2: 10 of `(1 + x) s`.
/// - Slope of GELU, `Phi(x) + x phi(x)`: Phi is 5 apart as above, the product, below 1/4, at most 2.
/// - Slope of GELU with tanh: a sigmoid instead of Phi, 6 apart with all roundings. The product is
///   `x s (1 - s) (2 u)'`, with `(2 u)' = 1.6 (1 + 0.134 x^2)` and a `1 - s` that is 3 apart: 5 of
///   `x (1 + 0.134 x^2)`. Beyond 6, tanh or sigmoid is 1 in f32, and the product 0.
///
/// And where the result is below the normal numbers, it has fewer digits, or none.
fn activation_tolerances(activation: Activation, x: f32, y: f32) -> (f64, f64) {
    let (x, y) = (f64::from(x), f64::from(y).abs());
    let size = x.abs();
    let (value, slope) = match activation {
        Activation::Sigmoid => (4.0 * y, 6.0 * y),
        Activation::Tanh => (4.0 * y, 10.0),
        Activation::Silu => (6.0 * y, 10.0 * (1.0 + size) / (1.0 + (-x).exp())),
        Activation::Gelu => (3.0 * size + 7.0 * y, 7.0),
        Activation::GeluTanh => {
            let inside = size.min(6.0);
            let steep = inside * (1.0 + 0.134 * inside * inside);
            (2.0 * size + 7.0 * y, 6.0 + 5.0 * steep)
        }
        _ => return (0.0, 0.0),
    };
    let least = f64::from(f32::MIN_POSITIVE);
    (value * EPSILON + least, slope * EPSILON + least)
}

#[test]
fn activations() {
    let fixture: Activations = serde_json::from_str(include_str!("pytorch/activations.json")).unwrap();
    let activations = [
        ("identity", Activation::Identity),
        ("relu", Activation::Relu),
        ("leaky_relu_0.01", Activation::LeakyRelu(0.01)),
        ("leaky_relu_0.2", Activation::LeakyRelu(0.2)),
        ("sigmoid", Activation::Sigmoid),
        ("tanh", Activation::Tanh),
        ("gelu", Activation::Gelu),
        ("gelu_tanh", Activation::GeluTanh),
        ("silu", Activation::Silu),
    ];
    assert_eq!(fixture.cases.len(), activations.len());
    for (case, (name, activation)) in fixture.cases.iter().zip(activations) {
        assert_eq!(case.name, name);
        let mut y = fixture.x.clone();
        activation.apply(&mut y).unwrap();
        let mut slope = vec![1.0; y.len()];
        let saved = if activation.saves_input() { &fixture.x } else { &y };
        activation.gradient(saved, &mut slope).unwrap();
        let mut check = Check::new(name);
        for (i, &x) in fixture.x.iter().enumerate() {
            let (value_tolerance, slope_tolerance) = activation_tolerances(activation, x, case.y[i]);
            check.near("value", i, y[i], case.y[i], value_tolerance);
            check.near("slope", i, slope[i], case.slope[i], slope_tolerance);
        }
    }
}

/// A network with these weights and biases.
fn network(inputs: usize, layers: &[(usize, Activation)], tensors: &[Vec<f32>]) -> Mlp {
    let builder =
        layers.iter().fold(Mlp::builder(inputs), |builder, &(units, act)| builder.layer(units, act));
    let mut mlp = builder.build().unwrap();
    for (layer, tensors) in mlp.layers_mut().iter_mut().zip(tensors.chunks(2)) {
        let weight = MatRef::new(&tensors[0], layer.out_features(), layer.in_features()).unwrap();
        layer.set_weight(weight).unwrap();
        layer.set_bias(&tensors[1]).unwrap();
    }
    mlp
}

/// Weight and bias of each layer, as PyTorch orders them.
fn tensors(mlp: &Mlp) -> Vec<Vec<f32>> {
    let layers = mlp.layers().iter();
    layers.flat_map(|layer| [layer.weight().as_slice().to_vec(), layer.bias().to_vec()]).collect()
}

fn largest(xs: &[f32]) -> f64 {
    xs.iter().map(|&x| f64::from(x).abs()).fold(0.0, f64::max)
}

/// The layer before the loss is the identity: its outputs y are exact.
///
/// Each term of a loss is made of numbers up to 2 |y| + 1 (a logarithm that is cut off at -100 is exact) by
/// fewer than 8 operations, or with a sum over 5 classes: 8 epsilon of them. A square is off by an epsilon of
/// itself. The mean in f32 is off by half an epsilon of itself for each term, because none is negative.
///
/// The derivative by an output is a difference of probabilities, or of an output and its target. Softmax is
/// the longest way there: exponentials, a sum of 5, a logarithm or a quotient. That is 14 roundings on each
/// side, or 14 epsilon of the derivative's size + 1. The gradient sums it over 8 rows, two roundings each: 16
/// more. At the end the weight is rounded.
#[test]
fn losses() {
    let fixture: Losses = serde_json::from_str(include_str!("pytorch/losses.json")).unwrap();
    let (rows, outputs) = (fixture.rows, fixture.outputs);
    let cross_entropy = |label_smoothing| Loss::CrossEntropy { label_smoothing };
    let losses = [
        ("mse", Loss::Mse),
        ("bce", Loss::Bce),
        ("bce_at_0_and_1", Loss::Bce),
        ("bce_with_logits", Loss::BceWithLogits),
        ("bce_with_logits_tails", Loss::BceWithLogits),
        ("cross_entropy", cross_entropy(0.0)),
        ("cross_entropy_smoothed", cross_entropy(0.1)),
        ("cross_entropy_tails", cross_entropy(0.1)),
    ];
    assert_eq!(fixture.cases.len(), losses.len());
    let mut identity = vec![0.0; outputs * outputs];
    identity.iter_mut().step_by(outputs + 1).for_each(|w| *w = 1.0);
    let start = [identity, vec![0.0; outputs]];
    for (case, (name, loss)) in fixture.cases.iter().zip(losses) {
        assert_eq!(case.name, name);
        let model = network(outputs, &[(outputs, Activation::Identity)], &start);
        let mut trainer = Trainer::new(model, loss, Sgd::new(1.0)).unwrap();
        let x = MatRef::new(&case.x, rows, outputs).unwrap();
        let classes: Vec<u32> = case.targets.iter().map(|&class| class as u32).collect();
        let targets = match loss {
            Loss::CrossEntropy { .. } => Targets::Classes(&classes),
            _ => Targets::Values(MatRef::new(&case.targets, rows, outputs).unwrap()),
        };
        let value = trainer.step(x, targets).unwrap();

        let mut check = Check::new(name);
        let sum = (0.5 * case.targets.len() as f64 + 2.0) * f64::from(case.value);
        let terms = 8.0 * (2.0 * largest(&case.x) + 1.0);
        check.near("value", 0, value, case.value, (sum + terms) * EPSILON);
        let got = tensors(trainer.model());
        for ((got, want), sizes) in got.iter().zip(&case.tensors).zip(&case.sizes) {
            for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
                let tolerance = 30.0 * f64::from(sizes[i]) + f64::from(want).abs();
                check.near("weight", i, got, want, tolerance * EPSILON);
            }
        }
    }
}

/// Roundings in one step on the longest way from its data to an update, on one side; the two sides are then
/// as many epsilon apart.
///
/// Forward, chains of 6, 8 and 8 products, each with two more for the first product and the bias: 28. Tanh
/// and GELU, 10 each: 20. The difference, its square and the mean: 4. Backward, chains of 3 and 8, two more
/// each: 15. Two slopes, 10 each: 20. The sum over 8 samples: 9. The optimizer: 14.
const ROUNDINGS: f64 = 28.0 + 20.0 + 4.0 + 15.0 + 20.0 + 9.0 + 14.0;

/// More for clipping by the norm: 64 squares in the largest of 6 tensors, halved by the root, and the factor.
const NORM_ROUNDINGS: f64 = (64.0 + 6.0) / 2.0 + 3.0;

/// Rounded sums of products are the exact ones of slightly other factors (Higham, Accuracy and Stability of
/// Numerical Algorithms, 3.5). So what rounding does in a step is as if its data were changed a little: by
/// [`ROUNDINGS`], if all of them met one number and went one way.
///
/// How much that matters for the losses, and for the weights at the end, is a property not of f32 but of the
/// network, the data and the optimizer: Adam divides by `sqrt(v) + eps`, and so makes the absolute error of a
/// small gradient a large one. It is the fixture's `sensitivity`: how far results in f64 moved, the most of
/// 32 times, when inputs, targets, weights and gradients were changed at random in each step, for each unit
/// of that change. The tolerance is that, [`ROUNDINGS`] epsilon times.
///
/// A new weight is rounded once or twice on either side (AdamW multiplies it first): 2 epsilon of the largest
/// of its tensor in each step. Weight decay makes earlier errors smaller as it does the weights.
#[test]
fn optimizers() {
    let fixture: Optimizers = serde_json::from_str(include_str!("pytorch/optimizers.json")).unwrap();
    let sgd = || Sgd::new(0.1);
    let adam = || Adam::new(0.02);
    let adamw = || AdamW::new(0.02);
    let settings: [(&str, Optimizer, Clip); 14] = [
        ("sgd", sgd().into(), Clip::None),
        ("sgd_weight_decay", sgd().weight_decay(0.1).into(), Clip::None),
        ("sgd_momentum", sgd().momentum(0.9).into(), Clip::None),
        ("sgd_dampening", sgd().momentum(0.9).dampening(0.3).into(), Clip::None),
        ("sgd_nesterov", sgd().momentum(0.9).nesterov(true).weight_decay(0.1).into(), Clip::None),
        ("adam", adam().into(), Clip::None),
        ("adam_weight_decay", adam().weight_decay(0.1).into(), Clip::None),
        ("adam_betas_eps", adam().betas(0.7, 0.95).eps(1e-3).into(), Clip::None),
        ("adamw", adamw().into(), Clip::None),
        ("adamw_weight_decay", adamw().weight_decay(0.5).into(), Clip::None),
        ("clip_norm", sgd().momentum(0.9).into(), Clip::GlobalNorm(0.25)),
        ("clip_norm_adam", adam().into(), Clip::GlobalNorm(0.25)),
        ("clip_norm_small", sgd().into(), Clip::GlobalNorm(1e-4)),
        ("clip_value", sgd().momentum(0.9).into(), Clip::Value(0.02)),
    ];
    assert_eq!(fixture.cases.len(), settings.len());
    for (case, (name, optimizer, clip)) in fixture.cases.iter().zip(settings) {
        assert_eq!(case.name, name);
        let (losses, got) = train(&fixture, case.scale, case.losses.len(), optimizer, clip);
        let roundings = match clip {
            Clip::GlobalNorm(_) => ROUNDINGS + NORM_ROUNDINGS,
            _ => ROUNDINGS,
        };
        let mut check = Check::new(name);
        for (step, &want) in case.losses.iter().enumerate() {
            let tolerance = roundings * EPSILON * case.loss_sensitivity[step];
            check.near("loss", step, losses[step], want, tolerance);
        }
        for (n, (got, want)) in got.iter().zip(&case.tensors).enumerate() {
            let of_gradients = roundings * case.tensor_sensitivity[n];
            let of_updates = 2.0 * case.losses.len() as f64 * largest(want);
            for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
                let tolerance = (of_gradients + of_updates) * EPSILON;
                check.near(&format!("tensor {n}, element"), i, got, want, tolerance);
            }
        }
    }
}

/// The loss of each step, and the weights and biases at the end.
fn train(
    fixture: &Optimizers,
    scale: f32,
    steps: usize,
    optimizer: Optimizer,
    clip: Clip,
) -> (Vec<f32>, Vec<Vec<f32>>) {
    let scaled = |xs: &[f32]| xs.iter().map(|x| x * scale).collect::<Vec<_>>();
    let [inputs, one, two, outputs] = fixture.units[..] else {
        panic!("three layers");
    };
    let mut start = fixture.start.clone();
    for bias in start.iter_mut().skip(1).step_by(2) {
        *bias = scaled(bias);
    }
    let layers = [(one, Activation::Tanh), (two, Activation::Gelu), (outputs, Activation::Identity)];
    let trainer = Trainer::new(network(inputs, &layers, &start), Loss::Mse, optimizer).unwrap();
    let mut trainer = trainer.with_clip(clip).unwrap();
    let batches = fixture.batches.iter().cycle().take(steps);
    let losses = batches.map(|[x, targets]| {
        let (x, targets) = (scaled(x), scaled(targets));
        let x = MatRef::new(&x, fixture.rows, inputs).unwrap();
        let targets = MatRef::new(&targets, fixture.rows, outputs).unwrap();
        trainer.step(x, Targets::Values(targets)).unwrap()
    });
    (losses.collect(), tensors(trainer.model()))
}
