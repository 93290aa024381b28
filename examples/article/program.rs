//! Section 5: the article's program, run from many seeds as it is written and then with the loss it needs.

use std::path::Path;

use percycle::{Activation, Error, Loss, MatMut, MatRef, Mlp, Result, Sgd, Targets, Trainer, linear};
use rayon::prelude::*;

use crate::common::{self, Axis, Corner, Failure, Line, Panel, thousands};

/// What the article's last line says the loss came to.
const CLAIMED: f32 = 4e-7;
/// Its epochs and its learning rate.
const EPOCHS: u64 = 100;
const LEARNING_RATE: f32 = 0.01;

/// The article's two samples and their labels.
const X: [f32; 4] = [1.0, 0.0, 0.0, 1.0];
const Y: [f32; 2] = [1.0, 0.0];

/// How the training of one network went.
#[derive(Default)]
struct Run {
    /// (epoch, loss before its update): all of the first epochs, then some, and the last.
    losses: Vec<(u64, f32)>,
    /// The loss in the article's last epoch, if it came so far.
    at_100: Option<f32>,
    refused: Option<Error>,
    /// Every hidden unit is 0 for both samples: no gradient reaches it, so nothing but the last bias moves any more.
    dead: bool,
}

impl Run {
    /// Trains until the loss is `enough`, for at most so many epochs. Both samples are one batch, as in the article.
    fn new(seed: u64, loss: Loss, learning_rate: f32, epochs: u64, enough: f32) -> Result<Run> {
        // As `torch.nn.Linear` begins, which is what the article uses; the random numbers are others.
        let mlp =
            Mlp::builder(2).layer(3, Activation::Relu).layer(1, Activation::Identity).seed(seed).build()?;
        let mut trainer = Trainer::new(mlp, loss, Sgd::new(learning_rate))?;
        let (x, y) = (MatRef::new(&X, 2, 2)?, MatRef::new(&Y, 2, 1)?);
        let mut run = Run::default();
        let mut keep = 1;
        for epoch in 1..=epochs {
            let loss = match trainer.step(x, Targets::Values(y)) {
                Ok(loss) => loss,
                Err(error) => {
                    run.refused = Some(error);
                    break;
                }
            };
            if epoch == EPOCHS {
                run.at_100 = Some(loss);
            }
            if epoch == keep || epoch == epochs || loss <= enough {
                run.losses.push((epoch, loss));
                keep = if epoch < EPOCHS { epoch + 1 } else { epoch + epoch / 20 };
                run.dead = epoch >= EPOCHS && is_dead(trainer.model(), x)?;
            }
            if loss <= enough || run.dead {
                break;
            }
        }
        Ok(run)
    }

    fn last(&self) -> (u64, f32) {
        self.losses.last().copied().unwrap_or((0, f32::INFINITY))
    }

    /// The epoch in which the loss was at most what the article claims.
    fn reached(&self) -> Option<u64> {
        let (epoch, loss) = self.last();
        (loss <= CLAIMED).then_some(epoch)
    }

    fn line(&self, name: Option<String>, color: usize, width: u32) -> Line {
        let points = self.losses.iter().map(|&(epoch, loss)| (epoch as f64, f64::from(loss))).collect();
        Line { name, points, color, width }
    }
}

/// Whether the hidden layer is 0 for every sample.
fn is_dead(mlp: &Mlp, x: MatRef) -> Result<bool> {
    let hidden = &mlp.layers()[0];
    let mut y = vec![0.0; x.rows() * hidden.out_features()];
    let view = MatMut::new(&mut y, x.rows(), hidden.out_features())?;
    linear(x, hidden.weight().view().t(), Some(hidden.bias()), hidden.activation(), view)?;
    Ok(y.iter().all(|&unit| unit == 0.0))
}

pub fn show(seeds: u64, most_epochs: u64, rates: &[f32], out: &Path) -> std::result::Result<(), Failure> {
    println!(
        "THE PROGRAM (section 5): 2-3-1, ReLU, two samples, {EPOCHS} epochs of SGD at {LEARNING_RATE}\n"
    );
    let written = as_written(seeds)?;
    let cured = cure(seeds, most_epochs, rates)?;
    std::fs::create_dir_all(out)
        .map_err(|error| format!("cannot make the folder {}: {error}", out.display()))?;
    let plot = out.join("article.svg");
    draw(&plot, seeds, written, cured)?;
    println!("plot: {}", plot.display());
    Ok(())
}

/// BCE on raw outputs, as the article has it.
fn as_written(seeds: u64) -> Result<Panel> {
    let runs = (0..seeds).map(|seed| Run::new(seed, Loss::Bce, LEARNING_RATE, EPOCHS, 0.0));
    let runs = runs.collect::<Result<Vec<_>>>()?;
    let refused: Vec<_> =
        runs.iter().filter_map(|run| Some((run.last().0 + 1, run.refused.as_ref()?))).collect();
    println!("As written, BCELoss is given raw outputs: no sigmoid keeps them in [0, 1].");
    if let Some((epoch, error)) = refused.iter().min_by_key(|(epoch, _)| epoch) {
        println!("Of {seeds} seeds {} end in an error, the soonest in epoch {epoch}:\n", refused.len());
        println!("    {error}\n");
    }
    let best = runs.iter().filter_map(|run| run.at_100).min_by(f32::total_cmp);
    if let Some(best) = best {
        println!("The best of the others ends at a loss of {best:.4}; the article's last line says 4.0e-7.");
    }
    println!(
        "(PyTorch 2.15, with its own random numbers: 39 of 50 seeds raise, the best of the others 0.073.)\n"
    );

    let article = Run { losses: LISTING.to_vec(), ..Run::default() };
    let mut lines = vec![article.line(Some("what the article lists".to_owned()), 6, 2)];
    let survivors = runs.iter().filter(|run| run.at_100.is_some());
    for (n, run) in survivors.enumerate() {
        lines.push(run.line((n == 0).then(|| "seeds without an error".to_owned()), 1, 1));
    }
    Ok(Panel {
        title: format!("as written: BCE on raw outputs, rate {LEARNING_RATE}"),
        x: Axis { name: "epoch", log: false },
        y: Axis { name: "loss", log: true },
        lines,
        legend: Corner::LowerLeft,
    })
}

/// Some lines of the article's listing, which ends at epoch 99 of 100.
const LISTING: [(u64, f32); 11] = [
    (1, 0.67073),
    (10, 0.045471),
    (20, 0.003828),
    (30, 0.00053783),
    (40, 0.00010414),
    (50, 3.4301e-5),
    (60, 1.0262e-5),
    (70, 4.8235e-6),
    (80, 1.7879e-6),
    (90, 6.3682e-7),
    (99, 4.0196e-7),
];

/// The sigmoid inside the loss, at the article's rate and at others.
fn cure(seeds: u64, most_epochs: u64, rates: &[f32]) -> Result<Panel> {
    println!(
        "The cure is BceWithLogits: the sigmoid inside the loss, any output allowed. Epochs until the loss is"
    );
    println!("at most 4e-7, {seeds} networks for each rate, given up after {}:\n", thousands(most_epochs));
    println!("    {:>6}  {:^22}  {:^31}  {:>4}", "", "loss in epoch 100", "reach 4e-7", "");
    println!(
        "    {:>6}  {:>10}  {:>10}  {:>8}  {:>9}  {:>10}  {:>4}",
        "rate", "best", "middle", "of them", "fewest", "middle", "dead"
    );
    let bar = common::progress(rates.len() as u64 * seeds, "networks");
    let mut lines = Vec::new();
    for (color, &rate) in rates.iter().enumerate() {
        let train = |seed| {
            let run = Run::new(seed, Loss::BceWithLogits, rate, most_epochs, CLAIMED);
            bar.inc(1);
            run
        };
        let mut runs = (0..seeds).into_par_iter().map(train).collect::<Result<Vec<_>>>()?;
        bar.suspend(|| println!("{}", row(rate, &runs)));
        // Those that reach the claim by how soon, then the others by how near they came.
        runs.sort_by(|a, b| {
            let (a, b) = (
                (a.reached().unwrap_or(u64::MAX), a.last().1),
                (b.reached().unwrap_or(u64::MAX), b.last().1),
            );
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        lines.push(runs[runs.len() / 2].line(Some(format!("rate {rate}")), color, 2));
    }
    bar.finish_and_clear();
    println!(
        "\n`middle` is the middle one of all {seeds} networks. `dead`: every hidden unit is 0 for both samples, so no"
    );
    println!("gradient reaches it, and only the last bias still moves.\n");
    Ok(Panel {
        title: format!("cured: BCE with logits, the middle one of {seeds} networks"),
        x: Axis { name: "epoch", log: true },
        y: Axis { name: "loss", log: true },
        lines,
        legend: Corner::LowerLeft,
    })
}

fn row(rate: f32, runs: &[Run]) -> String {
    // A run that got there before epoch 100 has no loss in it: it counts with the one it stopped at.
    let mut at_100: Vec<f32> = runs.iter().map(|run| run.at_100.unwrap_or(run.last().1)).collect();
    at_100.sort_by(f32::total_cmp);
    let mut epochs: Vec<u64> = runs.iter().filter_map(Run::reached).collect();
    epochs.sort_unstable();
    // The middle of all networks, so there is none when half of them never get there.
    let cell = |n: usize| epochs.get(n).map_or("-".to_owned(), |&epochs| thousands(epochs));
    format!(
        "    {rate:>6}  {:>10.2e}  {:>10.2e}  {:>8}  {:>9}  {:>10}  {:>4}",
        at_100[0],
        at_100[runs.len() / 2],
        epochs.len(),
        cell(0),
        cell(runs.len() / 2),
        runs.iter().filter(|run| run.dead).count()
    )
}

fn draw(path: &Path, seeds: u64, written: Panel, cured: Panel) -> std::result::Result<(), Failure> {
    common::draw(path, &format!("The article's 2-3-1 network from {seeds} seeds"), &[written, cured])
}
