//! Training steps and predictions of percycle, candle and burn, timed in the same rounds.

mod burn;
mod candle;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use percycle_peers::nets::{Net, TIMED_RATE, Task};
use percycle_peers::ours::{self, CHECK_STEPS, Call};
use percycle_peers::{Contender, Failure, Timing, exit, median, print_facts, progress, race};

/// Times percycle's training steps and predictions and those of candle and burn in interleaved rounds.
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
    /// Where `steps.csv` is written.
    #[arg(long, default_value = "out")]
    out: PathBuf,
}

/// Makes the call for a net and a learning rate, from the first weights of the net.
type Prepare = for<'a> fn(&'a Net, f64) -> Result<Call<'a>, Failure>;

/// percycle first.
const FRAMEWORKS: [(&str, Prepare); 3] =
    [("percycle", ours::prepare), ("candle", candle::prepare), ("burn", burn::prepare)];

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

    let bar = progress(nets.len());
    let mut timings = Vec::new();
    for net in &nets {
        bar.set_message(net.to_string());
        check(net)?;
        let mut calls =
            FRAMEWORKS.iter().map(|(_, prepare)| prepare(net, TIMED_RATE)).collect::<Result<Vec<_>, _>>()?;
        let contenders: Vec<Contender> = calls
            .iter_mut()
            .map(|call| {
                Box::new(move || {
                    call();
                }) as Contender
            })
            .collect();
        timings.push(race(contenders, rounds, LIMIT));
        bar.inc(1);
    }
    bar.finish_and_clear();

    print(&nets, &timings, threads);
    std::fs::create_dir_all(&args.out)?;
    write_csv(&args.out.join("steps.csv"), &nets, &timings, threads)?;
    eprintln!("Wrote steps.csv to {}", args.out.display());
    Ok(())
}

/// An error when a framework does not compute what percycle does: nothing else is worth timing.
fn check(net: &Net) -> Result<(), Failure> {
    let results = |call: &mut Call| (0..CHECK_STEPS).map(|_| f64::from(call())).collect::<Vec<f64>>();
    let mut ours = Vec::new();
    for (name, prepare) in FRAMEWORKS {
        let theirs = results(&mut prepare(net, net.check_rate())?);
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

/// Median microseconds of a call.
fn micros(timing: &Timing, contender: usize) -> f64 {
    1e6 * median(timing.seconds[contender].iter().copied())
}

fn print(nets: &[Net], timings: &[Timing], threads: usize) {
    println!(
        "\nMicroseconds, the share of the FMA peak that percycle reaches, and how many times as long others take.\n"
    );
    println!(
        "{:52}{:>12}{:>8}{:>12}{:>8}{:>12}{:>8}",
        "net, hidden activation, loss, task", "percycle", "% peak", "candle", "times", "burn", "times"
    );
    for (net, timing) in nets.iter().zip(timings) {
        let share = 100.0 * timing.share_of_peak(0, net.flops()) / threads as f64;
        print!("{:52}{:>12.2}{share:>8.1}", net.to_string(), micros(timing, 0));
        for i in 1..FRAMEWORKS.len() {
            print!("{:>12.2}{:>8.1}", micros(timing, i), timing.ratio(i, 0));
        }
        println!();
    }
}

/// One line for each row and framework.
fn write_csv(
    path: &std::path::Path,
    nets: &[Net],
    timings: &[Timing],
    threads: usize,
) -> Result<(), Failure> {
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
    for (net, timing) in nets.iter().zip(timings) {
        for (i, (name, _)) in FRAMEWORKS.iter().enumerate() {
            let micros = micros(timing, i);
            csv.write_record(&[
                net.to_string(),
                timing.peaks.len().to_string(),
                (*name).to_owned(),
                format!("{micros:.3}"),
                format!("{:.0}", 1e6 * net.batch() as f64 / micros),
                format!("{:.4}", timing.share_of_peak(i, net.flops()) / threads as f64),
                format!("{:.4}", timing.ratio(i, 0)),
            ])?;
        }
    }
    csv.flush()?;
    Ok(())
}
