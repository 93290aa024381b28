//! Training steps and predictions of percycle, candle, burn and libxsmm-dnn, timed in the same rounds.

mod burn;
mod candle;
mod xsmm;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use percycle_peers::nets::{Net, TIMED_RATE, Task};
use percycle_peers::ours::{self, CHECK_STEPS, Call};
use percycle_peers::{Failure, Timing, contender, exit, median, print_facts, progress, race};

use xsmm::Xsmm;

/// Times percycle's training steps and predictions and those of candle, burn and libxsmm-dnn in interleaved rounds.
#[derive(Parser)]
struct Args {
    /// 3 rounds.
    #[arg(long)]
    quick: bool,
    /// Only rows whose description contains this text, such as "784" or "adam".
    #[arg(long, default_value = "")]
    filter: String,
    /// Rounds for each row, cut short after four seconds.
    #[arg(long)]
    rounds: Option<usize>,
    /// Threads that every framework may use.
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
    /// The library made of libxsmm-dnn and `xsmm.c`; without it, libxsmm-dnn is left out.
    #[arg(long)]
    xsmm: Option<PathBuf>,
    /// Where `steps.csv` is written.
    #[arg(long, default_value = "out")]
    out: PathBuf,
}

/// Makes the call for a net and a learning rate, from the first weights of the net; None for a row that a framework cannot do.
type Prepare = Box<dyn for<'a> Fn(&'a Net, f64) -> Result<Option<Call<'a>>, Failure>>;

/// A name, and how its calls are made.
type Framework = (&'static str, Prepare);

/// percycle first.
fn frameworks(xsmm: Option<Xsmm>) -> Vec<Framework> {
    let mut frameworks: Vec<Framework> = vec![
        ("percycle", Box::new(|net, rate| ours::prepare(net, rate).map(Some))),
        ("candle", Box::new(|net, rate| candle::prepare(net, rate).map(Some))),
        ("burn", Box::new(|net, rate| burn::prepare(net, rate).map(Some))),
    ];
    if let Some(xsmm) = xsmm {
        frameworks.push(("libxsmm-dnn", Box::new(move |net, rate| xsmm.prepare(net, rate))));
    }
    frameworks
}

/// A row of the table: which frameworks took part, percycle first, and their times in this order.
struct Row<'a> {
    net: &'a Net,
    frameworks: Vec<usize>,
    timing: Timing,
}

impl Row<'_> {
    /// The place of a framework among those that took part.
    fn place(&self, framework: usize) -> Option<usize> {
        self.frameworks.iter().position(|&other| other == framework)
    }

    /// Median microseconds of a call.
    fn micros(&self, place: usize) -> f64 {
        1e6 * median(self.timing.seconds[place].iter().copied())
    }
}

/// A row that takes long gets fewer rounds.
const LIMIT: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), Failure> {
    let threads = args.threads.get();
    // candle takes the number of threads from here.
    // SAFETY: nothing has started a thread yet.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
    rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build_global()?;
    print_facts(threads);
    let nets: Vec<Net> =
        Net::all()?.into_iter().filter(|net| net.to_string().contains(&args.filter)).collect();
    let rounds = args.rounds.unwrap_or(if args.quick { 3 } else { 15 });

    let xsmm = args.xsmm.as_deref().map(|path| Xsmm::load(path, threads)).transpose()?;
    let frameworks = frameworks(xsmm);

    let bar = progress(nets.len());
    let mut rows = Vec::new();
    for net in &nets {
        bar.set_message(net.to_string());
        check(net, &frameworks)?;
        let (mut present, mut contenders) = (Vec::new(), Vec::new());
        for (i, (_, prepare)) in frameworks.iter().enumerate() {
            if let Some(call) = prepare(net, TIMED_RATE)? {
                present.push(i);
                contenders.push(contender(call));
            }
        }
        rows.push(Row { net, frameworks: present, timing: race(contenders, rounds, LIMIT) });
        bar.inc(1);
    }
    bar.finish_and_clear();

    print(&rows, &frameworks, threads);
    std::fs::create_dir_all(&args.out)?;
    write_csv(&args.out.join("steps.csv"), &rows, &frameworks, threads)?;
    eprintln!("Wrote steps.csv to {}", args.out.display());
    Ok(())
}

/// An error when a framework does not compute what percycle does: nothing else is worth timing.
fn check(net: &Net, frameworks: &[Framework]) -> Result<(), Failure> {
    let mut ours = Vec::new();
    for (name, prepare) in frameworks {
        let Some(mut call) = prepare(net, net.check_rate())? else { continue };
        let theirs: Vec<f64> = (0..CHECK_STEPS).map(|_| f64::from(call())).collect();
        if ours.is_empty() {
            ours = theirs;
            continue;
        }
        let (first, last) = ((ours[0], theirs[0]), (ours[CHECK_STEPS - 1], theirs[CHECK_STEPS - 1]));
        // The first result rests on the forward pass alone. 1e-4 leaves a hundred times the rounding of sums of
        // 3072 terms. After ten steps the loss must have moved by the same amount, to a hundredth: Adam's
        // first steps depend on the mere signs of gradients, even of those that are all rounding.
        let moved = (first.0 - last.0).abs();
        let apart = (first.0 - first.1).abs() > 1e-4 * first.0.abs().max(0.1)
            || (last.0 - last.1).abs() > 1e-4 * first.0.abs().max(0.1) + 1e-2 * moved;
        let stays = matches!(net.task, Task::Step(..)) && moved == 0.0;
        if apart || stays || !last.1.is_finite() {
            return Err(format!(
                "{net}: percycle goes from {:e} to {:e}, {name} from {:e} to {:e}",
                first.0, last.0, first.1, last.1
            )
            .into());
        }
    }
    Ok(())
}

fn print(rows: &[Row], frameworks: &[Framework], threads: usize) {
    println!(
        "\nMicroseconds, the share of the FMA peak that percycle reaches, and how many times as long others take.\n"
    );
    print!("{:58}{:>10}{:>8}", "net, hidden activation, loss, task", "percycle", "% peak");
    for (name, _) in &frameworks[1..] {
        print!("{name:>13}{:>7}", "times");
    }
    println!();
    for row in rows {
        let share = 100.0 * row.timing.share_of_peak(0, row.net.flops()) / threads as f64;
        print!("{:58}{:>10.2}{share:>8.1}", row.net.to_string(), row.micros(0));
        for framework in 1..frameworks.len() {
            match row.place(framework) {
                Some(place) => print!("{:>13.2}{:>7.2}", row.micros(place), row.timing.ratio(place, 0)),
                None => print!("{:>13}{:>7}", "-", "-"),
            }
        }
        println!();
    }
}

/// One line for each row and framework.
fn write_csv(path: &Path, rows: &[Row], frameworks: &[Framework], threads: usize) -> Result<(), Failure> {
    let mut csv = csv::Writer::from_path(path)?;
    csv.write_record([
        "row",
        "rounds",
        "framework",
        "microseconds",
        "samples_per_second",
        "share_of_peak",
        "times_as_long_as_percycle",
    ])?;
    for row in rows {
        let (net, timing) = (row.net, &row.timing);
        for (place, &framework) in row.frameworks.iter().enumerate() {
            let micros = row.micros(place);
            csv.write_record(&[
                net.to_string(),
                timing.peaks.len().to_string(),
                frameworks[framework].0.to_owned(),
                format!("{micros:.3}"),
                format!("{:.0}", 1e6 * net.batch() as f64 / micros),
                format!("{:.4}", timing.share_of_peak(place, net.flops()) / threads as f64),
                format!("{:.4}", timing.ratio(place, 0)),
            ])?;
        }
    }
    csv.flush()?;
    Ok(())
}
