//! Section 4.3: every number that the article works out by hand, beside the one that the crate computes.

use percycle::{Activation, Init, Loss, MatMut, MatRef, Matrix, Mlp, Result, Sgd, Targets, Trainer, linear};

use crate::common::Failure;

/// The article's input and label.
const X: [f32; 2] = [1.0, 0.0];
const Y: f32 = 1.0;
const LEARNING_RATE: f32 = 0.01;

/// A number of the article.
struct Entry {
    /// Its name there, with `d` for the derivative of the loss.
    name: &'static str,
    /// The sum that the article writes for it, as factors and what is added to their products.
    sum: (&'static [(f32, f32)], f32),
    /// What the article says it comes to.
    printed: f32,
    /// Why the sum itself is not the one that is needed, where it is not.
    note: &'static str,
}

const fn entry(
    name: &'static str,
    factors: &'static [(f32, f32)],
    plus: f32,
    printed: f32,
    note: &'static str,
) -> Entry {
    Entry { name, sum: (factors, plus), printed, note }
}

const FORWARD: &[Entry] = &[
    entry("z1", &[(0.1, 1.0)], 0.2, 0.3, ""),
    entry("a1", &[(1.0, 0.3)], 0.0, 0.3, ""),
    entry("z2", &[(0.1, 0.0)], 0.2, 0.2, ""),
    entry("a2", &[(1.0, 0.2)], 0.0, 0.2, ""),
    entry("z3", &[(0.3, 0.3), (0.4, 0.2)], 0.5, 0.36, ""),
    entry("a3", &[(1.0, 0.36)], 0.0, 0.36, ""),
    entry("z4", &[(0.4, 0.3), (0.5, 0.2)], 0.6, 0.44, ""),
    entry("a4", &[(1.0, 0.44)], 0.0, 0.44, ""),
    entry("z5", &[(0.5, 0.3), (0.6, 0.2)], 0.7, 0.47, ""),
    entry("a5", &[(1.0, 0.47)], 0.0, 0.47, ""),
    entry("z6", &[(0.6, 0.36), (0.7, 0.44), (0.8, 0.47)], 0.9, 0.912, ""),
    entry("a6", &[(1.0, 0.912)], 0.0, 0.912, ""),
];

const SWAPPED: &str = "W61 and W63 are swapped";

const BACKWARD: &[Entry] = &[
    entry("d z6", &[(1.0, 0.912)], -1.0, -0.088, ""),
    entry("d W61", &[(0.36, -0.088)], 0.0, -0.03168, ""),
    entry("d W62", &[(0.44, -0.088)], 0.0, -0.03872, ""),
    entry("d W63", &[(0.47, -0.088)], 0.0, -0.04116, ""),
    entry("d b6", &[(1.0, -0.088)], 0.0, -0.088, ""),
    entry("d z5", &[(0.6, -0.088)], 0.0, -0.0528, SWAPPED),
    entry("d z4", &[(0.7, -0.088)], 0.0, -0.0616, ""),
    entry("d z3", &[(0.8, -0.088)], 0.0, -0.0704, SWAPPED),
    entry("d W31", &[(0.3, -0.0704)], 0.0, -0.02112, ""),
    entry("d W32", &[(0.2, -0.0704)], 0.0, -0.01408, ""),
    entry("d b3", &[(1.0, -0.0704)], 0.0, -0.0704, ""),
    entry("d W41", &[(0.3, -0.0616)], 0.0, -0.01848, ""),
    entry("d W42", &[(0.2, -0.0616)], 0.0, -0.01232, ""),
    entry("d b4", &[(1.0, -0.0616)], 0.0, -0.0616, ""),
    entry("d W51", &[(0.3, -0.0528)], 0.0, -0.01584, ""),
    entry("d W52", &[(0.2, -0.0528)], 0.0, -0.01056, ""),
    entry("d b5", &[(1.0, -0.0528)], 0.0, -0.0528, ""),
];

const NONE: &str = "there is no such weight: 0.3 is where W31 began";

const UPDATE: &[Entry] = &[
    entry("W11", &[(-0.01, -0.03168)], 0.1, 0.13168, "takes the gradient of W61"),
    entry("W12", &[(-0.01, -0.03168)], 0.1, 0.13168, "takes the gradient of W61; its own is 0, as x2 is"),
    entry("W21", &[(-0.01, -0.02112)], 0.3, 0.32112, NONE),
    entry("W22", &[(-0.01, -0.02112)], 0.3, 0.32112, NONE),
    entry("W31", &[(-0.01, -0.01848)], 0.6, 0.61848, "began at 0.3; takes the gradient of W41"),
    entry("W32", &[(-0.01, -0.01848)], 0.6, 0.61848, "began at 0.4; takes the gradient of W41"),
    entry("W41", &[(-0.01, -0.01232)], 0.7, 0.71232, "began at 0.4; takes the gradient of W42"),
    entry("W42", &[(-0.01, -0.01232)], 0.7, 0.71232, "began at 0.5"),
    entry("W51", &[(-0.01, -0.01056)], 0.8, 0.81056, "began at 0.5; takes the gradient of W52"),
    entry("W52", &[(-0.01, -0.01056)], 0.8, 0.81056, "began at 0.6"),
    entry("W61", &[(-0.01, -0.00528)], 0.9, 0.90528, "began at 0.6; nothing has that gradient"),
    entry("W62", &[(-0.01, -0.00528)], 0.9, 0.90528, "began at 0.7; nothing has that gradient"),
    entry("W63", &[(-0.01, -0.00416)], 0.9, 0.90416, "began at 0.8; nothing has that gradient"),
    entry("b1", &[(-0.01, -0.0704)], 0.2, 0.2704, "takes the gradient of b3"),
    entry("b2", &[(-0.01, -0.0704)], 0.2, 0.2704, "takes the gradient of b3"),
    entry("b3", &[(-0.01, -0.0704)], 0.5, 0.5704, ""),
    entry("b4", &[(-0.01, -0.0616)], 0.6, 0.6616, ""),
    entry("b5", &[(-0.01, -0.0528)], 0.7, 0.7528, ""),
    entry("b6", &[(-0.01, -0.088)], 0.9, 0.988, ""),
];

/// Weights and biases of the article's three layers, or their gradients, by the names it gives them.
struct Named<'a>(&'a [Matrix; 3], &'a [Vec<f32>; 3]);

impl Named<'_> {
    /// `W32` is the weight from a2 to unit 3, `b3` the bias of unit 3. In the first layer each unit has one input only,
    /// and the article numbers its weights `W11` and `W12`.
    fn get(&self, name: &str) -> Option<f32> {
        let digits: Vec<usize> = name[1..].bytes().map(|digit| usize::from(digit - b'0')).collect();
        // Units 1 and 2 are in the first layer, 3 to 5 in the second, 6 in the third.
        let place = |unit| match unit {
            1 | 2 => (0, unit - 1),
            3..=5 => (1, unit - 3),
            _ => (2, unit - 6),
        };
        match (&name[..1], &digits[..]) {
            ("W", [1, input]) => self.0[0].view().get(input - 1, input - 1),
            ("W", [2, _]) => None,
            ("W", &[unit, input]) => self.0[place(unit).0].view().get(place(unit).1, input - 1),
            ("b", &[unit]) => self.1[place(unit).0].get(place(unit).1).copied(),
            _ => None,
        }
    }
}

/// The article's network: 2 inputs, each through its own weight and bias, then 3 hidden units, then 1 output. A dense
/// layer with a diagonal weight is the first of these.
fn network(output: Activation) -> Result<Mlp> {
    let mut mlp = Mlp::builder(2)
        .layer(2, Activation::Relu)
        .layer(3, Activation::Relu)
        .layer(1, output)
        .init(Init::Zeros)
        .build()?;
    let parameters: [(&[f32], &[f32]); 3] = [
        (&[0.1, 0.0, 0.0, 0.1], &[0.2, 0.2]),
        (&[0.3, 0.4, 0.4, 0.5, 0.5, 0.6], &[0.5, 0.6, 0.7]),
        (&[0.6, 0.7, 0.8], &[0.9]),
    ];
    for (layer, (weight, bias)) in mlp.layers_mut().iter_mut().zip(parameters) {
        layer.set_weight(MatRef::new(weight, layer.out_features(), layer.in_features())?)?;
        layer.set_bias(bias)?;
    }
    Ok(mlp)
}

/// z1, a1, z2, a2, ... z6, a6 in the order of the article.
fn forward(mlp: &Mlp) -> Result<Vec<f32>> {
    let mut input = X.to_vec();
    let mut all = Vec::new();
    for layer in mlp.layers() {
        let (weight, units) = (layer.weight(), layer.out_features());
        let x = MatRef::new(&input, 1, input.len())?;
        let (mut z, mut a) = (vec![0.0; units], vec![0.0; units]);
        for (y, activation) in [(&mut z, Activation::Identity), (&mut a, layer.activation())] {
            linear(x, weight.view().t(), Some(layer.bias()), activation, MatMut::new(y, 1, units)?)?;
        }
        all.extend(z.iter().zip(&a).flat_map(|(z, a)| [z, a]));
        input = a;
    }
    Ok(all)
}

/// Weights and biases after one step of gradient descent, and the mean loss before it.
fn updated(mlp: &Mlp, loss: Loss, learning_rate: f32) -> Result<([Matrix; 3], [Vec<f32>; 3], f32)> {
    let mut trainer = Trainer::new(mlp.clone(), loss, Sgd::new(learning_rate))?;
    let loss = trainer.step(MatRef::new(&X, 1, 2)?, Targets::Values(MatRef::new(&[Y], 1, 1)?))?;
    let layers = trainer.model().layers();
    let weights = std::array::from_fn(|n| layers[n].weight());
    let biases = std::array::from_fn(|n| layers[n].bias().to_vec());
    Ok((weights, biases, loss))
}

/// The gradients that a learning rate turns into an update: with the rate at 1 they are what an update takes away. (So
/// they are as good as the last place of a weight near 1: 6e-8.)
fn gradients(mlp: &Mlp, loss: Loss, learning_rate: f32) -> Result<([Matrix; 3], [Vec<f32>; 3])> {
    let (mut weights, mut biases, _) = updated(mlp, loss, learning_rate)?;
    for ((weight, bias), layer) in weights.iter_mut().zip(&mut biases).zip(mlp.layers()) {
        let old = layer.weight();
        let pairs = weight.as_mut_slice().iter_mut().zip(old.as_slice());
        for (new, old) in pairs.chain(bias.iter_mut().zip(layer.bias())) {
            *new = old - *new;
        }
    }
    Ok((weights, biases))
}

pub fn show() -> std::result::Result<(), Failure> {
    println!("THE WORKED EXAMPLE (section 4.3): x = [1, 0], y = 1, ReLU everywhere, learning rate 0.01\n");
    println!("`its sum` is what the sum that the article writes comes to, from the numbers that it puts in.");
    println!(
        "`slip`: the article's result is not that of its own sum. `carried`: the sum is right, what goes in"
    );
    println!("is not. `wrong sum`: another sum is needed.\n");
    let mlp = network(Activation::Relu)?;
    // The article's rule for the output, a6 - y, is the derivative of half the squared error. `Mse` has no half, so its
    // learning rate is.
    let (loss, half) = (Loss::Mse, 0.5);

    let values = forward(&mlp)?;
    let truth: Vec<_> = values.into_iter().map(Some).collect();
    let mut tally = Tally::default();
    table("forward", FORWARD, &truth, &mut tally)?;

    let (weights, biases) = gradients(&mlp, loss, half)?;
    let named = Named(&weights, &biases);
    // One sample: the derivative by z is the gradient of that unit's bias.
    let truth: Vec<_> = BACKWARD.iter().map(|entry| named.get(&entry.name[2..].replace('z', "b"))).collect();
    table("gradients, d for the derivative of the loss", BACKWARD, &truth, &mut tally)?;

    let (weights, biases, _) = updated(&mlp, loss, half * LEARNING_RATE)?;
    let named = Named(&weights, &biases);
    let truth: Vec<_> = UPDATE.iter().map(|entry| named.get(entry.name)).collect();
    table("after the update", UPDATE, &truth, &mut tally)?;
    println!("{} of {} numbers are right.", tally.right, tally.all);
    println!(
        "Each update comes out as if 0.01 were 1. The first layer's gradients are not worked out at all; \
         by the crate d z1 = {:.5}, d z2 = {:.5}.",
        gradients(&mlp, loss, half)?.1[0][0],
        gradients(&mlp, loss, half)?.1[0][1]
    );
    losses(&mlp)
}

/// What the article's loss makes of its network.
fn losses(mlp: &Mlp) -> std::result::Result<(), Failure> {
    println!(
        "\nThe loss: a6 - y is the derivative of cross-entropy behind a sigmoid, or of half the squared error. The"
    );
    println!(
        "article's output is a ReLU, so only the second fits, and the table above follows it. Its formula,"
    );
    println!(
        "-y log(a), takes a6 for a probability, and for y = 0 it is 0 whatever the output. The crate says:\n"
    );
    match updated(mlp, Loss::Bce, LEARNING_RATE) {
        Err(error) => println!("    Loss::Bce: {error}\n"),
        Ok((.., loss)) => println!("    Loss::Bce: {loss}\n"),
    }
    let open = network(Activation::Identity)?;
    let (.., loss) = updated(&open, Loss::BceWithLogits, LEARNING_RATE)?;
    let (_, biases) = gradients(&open, Loss::BceWithLogits, 1.0)?;
    println!(
        "The cure: no ReLU at the output, and the sigmoid inside the loss (BceWithLogits): loss {loss:.5},"
    );
    println!("d z6 = sigmoid(z6) - 1 = {:.5}, and from it d z3 = {:.5}.\n", biases[2][0], biases[1][0]);
    Ok(())
}

#[derive(Default)]
struct Tally {
    right: usize,
    all: usize,
}

fn table(title: &str, entries: &[Entry], truth: &[Option<f32>], tally: &mut Tally) -> Result<()> {
    println!("{title}\n    {:<7}{:>10}{:>10}{:>10}", "", "article", "its sum", "percycle");
    for (entry, &truth) in entries.iter().zip(truth) {
        let sum = evaluate(entry.sum)?;
        // The article's numbers have at most five decimals.
        let equal = |a: f32, b: f32| (a - b).abs() < 5e-6;
        let right = truth.is_some_and(|truth| equal(entry.printed, truth));
        tally.all += 1;
        tally.right += usize::from(right);
        let mut verdict = Vec::new();
        if !right {
            if !equal(entry.printed, sum) {
                verdict.push("slip".to_owned());
            }
            if !entry.note.is_empty() {
                verdict.push(format!("wrong sum: {}", entry.note));
            }
            if verdict.is_empty() {
                verdict.push("carried".to_owned());
            }
        }
        let truth = truth.map_or("-".to_owned(), |truth| format!("{truth:.5}"));
        let mark = if right { "" } else { "X " };
        let verdict = verdict.join("; ");
        println!("    {:<7}{:>10.5}{sum:>10.5}{truth:>10}  {mark}{verdict}", entry.name, entry.printed);
    }
    println!();
    Ok(())
}

/// A sum of products, by the crate.
fn evaluate((factors, plus): (&[(f32, f32)], f32)) -> Result<f32> {
    let (left, right): (Vec<f32>, Vec<f32>) = factors.iter().copied().unzip();
    let mut sum = [0.0];
    let (x, w) = (MatRef::new(&left, 1, left.len())?, MatRef::new(&right, right.len(), 1)?);
    linear(x, w, Some(&[plus]), Activation::Identity, MatMut::new(&mut sum, 1, 1)?)?;
    Ok(sum[0])
}
