//! Trains a network on real handwritten digits and shows what it learnt.
//!
//! `cargo run --release --example digits -- --help`

use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use percycle::{
    Activation, Adam, Dataset, Evaluation, FitOptions, History, Loss, Matrix, Mlp, Schedule, Targets, Trainer,
};
use plotters::prelude::*;

type Error = Box<dyn std::error::Error>;

const SIDE: usize = 8;
const PIXELS: usize = SIDE * SIDE;
const CLASSES: usize = 10;
const HELD_OUT: usize = 360;

/// Train a network on 1,437 handwritten digits and test it on 360 others.
#[derive(Parser)]
struct Args {
    /// Seed of the split, the initial weights and the order of samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Passes over the training images
    #[arg(long, default_value_t = 60)]
    epochs: usize,
    /// Images in an update
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// Adam's learning rate at the start; it falls to a hundredth along a cosine
    #[arg(long, default_value_t = 0.002)]
    learning_rate: f32,
    /// Units of the hidden layers
    #[arg(long, value_delimiter = ',', default_value = "128,64")]
    hidden: Vec<usize>,
    /// Folder for the plot and the model
    #[arg(long, default_value = "target/digits")]
    out: PathBuf,
}

fn main() {
    if let Err(error) = run(&Args::parse()) {
        eprintln!("digits: {error}");
        std::process::exit(1);
    }
}

fn run(args: &Args) -> Result<(), Error> {
    println!("{}", percycle::build_info());
    let data = read_digits()?;
    let (train, test) = data.stratified_split(HELD_OUT, args.seed)?;
    println!("{} images to train on, {} held out", train.len(), test.len());

    let mut builder = Mlp::builder(PIXELS).seed(args.seed);
    for &units in &args.hidden {
        builder = builder.layer(units, Activation::Relu);
    }
    let mlp = builder.layer(CLASSES, Activation::Identity).build()?;
    let loss = Loss::CrossEntropy { label_smoothing: 0.1 };
    let mut trainer = Trainer::new(mlp, loss, Adam::new(args.learning_rate))?;

    // The held-out images are measured after each epoch for the plot alone: nothing is chosen by them.
    let options = FitOptions::new()
        .epochs(args.epochs)
        .batch_size(args.batch_size)
        .seed(args.seed)
        .schedule(Schedule::cosine(u32::try_from(args.epochs)?, 0.01))
        .validation(test.clone());
    let bar = ProgressBar::new(args.epochs as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} epoch {pos}/{len} {msg}")?);
    let history = trainer.fit_with(&train, &options, |epoch| {
        bar.set_message(format!("loss {:.4}", epoch.train_loss));
        bar.inc(1);
        ControlFlow::Continue(())
    })?;
    bar.finish();

    let seconds = history.epochs.last().map_or(0.0, |epoch| epoch.seconds);
    let evaluation = trainer.evaluate(&test)?;
    let accuracy = evaluation.accuracy.unwrap_or_default();
    println!(
        "trained in {seconds:.3} s; {:.2} % of the held-out images are right",
        100.0 * accuracy
    );
    print_confusion(&evaluation);

    std::fs::create_dir_all(&args.out).map_err(|error| format!("{}: {error}", args.out.display()))?;
    let plot = args.out.join("digits.svg");
    draw(&plot, &history)?;
    let file = args.out.join("digits.safetensors");
    trainer.model().save(&file)?;
    println!("\nwrote {} and {}", plot.display(), file.display());
    show_one(&Mlp::load(&file)?, &test, args.seed)
}

/// 8x8 pixels of 0..16, scaled to 0..1, and the digit. `data/README.md` says where they come from.
fn read_digits() -> Result<Dataset, Error> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/digits.csv.gz");
    let file = std::fs::File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let reader: Box<dyn Read> = Box::new(flate2::read::GzDecoder::new(file));
    let mut csv = csv::ReaderBuilder::new().has_headers(false).from_reader(reader);
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for (line, record) in csv.deserialize::<Vec<f32>>().enumerate() {
        let record = record?;
        let [image @ .., label] = &record[..] else {
            return Err(format!("line {line} is empty").into());
        };
        if image.len() != PIXELS {
            return Err(format!("line {line} has {} pixels, not {PIXELS}", image.len()).into());
        }
        pixels.extend(image.iter().map(|pixel| pixel / 16.0));
        labels.push(*label as u32);
    }
    Ok(Dataset::classes(
        Matrix::from_vec(labels.len(), PIXELS, pixels)?,
        labels,
    )?)
}

fn print_confusion(evaluation: &Evaluation) {
    println!("\nrows: the digit, columns: what it was taken for");
    print!("   ");
    (0..CLASSES).for_each(|digit| print!("{digit:4}"));
    println!();
    for (digit, row) in evaluation.confusion.iter().flatten().enumerate() {
        print!("{digit:3}");
        for &count in row {
            if count == 0 {
                print!("   .")
            } else {
                print!("{count:4}")
            }
        }
        println!();
    }
}

/// Loss above, accuracy below.
fn draw(path: &Path, history: &History) -> Result<(), Error> {
    let root = SVGBackend::new(path, (800, 640)).into_drawing_area();
    root.fill(&WHITE)?;
    let (upper, lower) = root.split_vertically(320);
    let epochs = &history.epochs;
    let last = epochs.len() as f64;
    let points = |value: &dyn Fn(&percycle::EpochReport) -> f64| -> Vec<(f64, f64)> {
        epochs
            .iter()
            .map(|epoch| (epoch.epoch as f64, value(epoch)))
            .collect()
    };
    let train = points(&|epoch| epoch.train_loss.into());
    let held_out = points(&|epoch| epoch.validation_loss.unwrap_or_default().into());
    let accuracy = points(&|epoch| 100.0 * epoch.validation_accuracy.unwrap_or_default());

    let top = train
        .iter()
        .chain(&held_out)
        .map(|point| point.1)
        .fold(0.0, f64::max)
        * 1.05;
    let mut chart = ChartBuilder::on(&upper)
        .caption("Loss: cross-entropy with label smoothing 0.1", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(1.0..last.max(2.0), 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .y_desc("mean loss")
        .light_line_style(WHITE)
        .draw()?;
    for (name, line, colour) in [("training", train, BLUE), ("held out", held_out, RED)] {
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE)
        .border_style(BLACK.mix(0.3))
        .draw()?;

    let bottom = accuracy
        .iter()
        .map(|point| point.1)
        .fold(100.0, f64::min)
        .max(80.0)
        - 1.0;
    let mut chart = ChartBuilder::on(&lower)
        .caption("Accuracy on the held-out images", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(1.0..last.max(2.0), bottom..100.0)?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .y_desc("% right")
        .light_line_style(WHITE)
        .draw()?;
    let visible = accuracy.into_iter().filter(|point| point.1 >= bottom);
    chart.draw_series(LineSeries::new(visible, RED.stroke_width(2)))?;
    root.present()?;
    Ok(())
}

/// Draws one held-out image as text and says what the reloaded model takes it for.
fn show_one(mlp: &Mlp, test: &Dataset, seed: u64) -> Result<(), Error> {
    let at = (seed as usize).wrapping_mul(7919) % test.len();
    let image = test.x().row_range(at, 1).ok_or("there is no such image")?;
    for row in 0..SIDE {
        let shade = |col| match image.get(0, row * SIDE + col).unwrap_or_default() {
            x if x < 0.2 => "  ",
            x if x < 0.45 => "░░",
            x if x < 0.7 => "▒▒",
            _ => "██",
        };
        println!("    {}", (0..SIDE).map(shade).collect::<String>());
    }
    let logits = mlp.predict(image)?;
    let row = logits.row(0).unwrap_or_default();
    let predicted = (0..CLASSES)
        .max_by(|&a, &b| row[a].total_cmp(&row[b]))
        .unwrap_or_default();
    let total: f32 = row.iter().map(|logit| (logit - row[predicted]).exp()).sum();
    let Targets::Classes(labels) = test.targets() else {
        return Err("digits are classes".into());
    };
    println!(
        "the reloaded model says {predicted} ({:.1} % sure); it is a {}",
        100.0 / total,
        labels[at]
    );
    Ok(())
}
