//! Two commits of percycle in the same rounds: how many times as long the one before takes.
//!
//! The only figures that tell of a change of a few percent on a shared machine. A round measures the FMA peak and times both,
//! and the next begins with the peak again. Rounds in which both peaks are near the best of all were alone on their core; the others
//! had a neighbour on it. Their medians stand apart, since some changes help in one case and cost in the other.

mod scan;
mod version;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use percycle_peers::nets::{Net, TIMED_RATE};
use percycle_peers::problem::Problem;
use percycle_peers::shapes::{self, Shape};
use percycle_peers::{Failure, Timing, contender, exit, median, print_facts, race};

/// Times the commit before and this one in interleaved rounds.
#[derive(Parser)]
struct Args {
    /// Products as `64x512x784` or `64x512x784 nt`, nets as a line of nets.csv (`784-10,relu,64,cross-entropy,sgd`), or
    /// `grid` and `nets` for all that the tables have, `scan` for every small shape.
    #[arg(required = true)]
    what: Vec<String>,
    /// Seconds of rounds for each.
    #[arg(long, default_value = "2")]
    seconds: f64,
    /// Threads that both may use.
    #[arg(long, default_value = "1")]
    threads: usize,
}

/// A round was alone on its core when the peak before and after it reached so much of what one in ten reaches: clocks drift by a
/// tenth, and a neighbour takes a third or more.
const ALONE: f64 = 0.85;

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), Failure> {
    print_facts(args.threads);
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).use_current_thread().build_global()?;
    println!("\nTime before over time now, with the share of the FMA peak now in %; rounds in brackets.\n");
    println!("{:56}{:>22}{:>22}", "", "alone", "beside a neighbour");
    let limit = Duration::from_secs_f64(args.seconds);
    let mut best = 0.0;
    for what in &args.what {
        match what.as_str() {
            "grid" => shapes::grid().into_iter().for_each(|shape| product(shape, limit, &mut best)),
            "scan" => scan::scan()?,
            "nets" => Net::all()?.iter().try_for_each(|net| step(net, limit, &mut best))?,
            net if net.contains(',') => step(&Net::given(net)?, limit, &mut best)?,
            shape => product(shape.parse()?, limit, &mut best),
        }
    }
    Ok(())
}

fn product(shape: Shape, limit: Duration, best: &mut f64) {
    let problem = Problem::new(shape);
    let contenders = vec![version::before::product(&problem), version::now::product(&problem)];
    print(&shape.to_string(), shape.flops(), &race(contenders, usize::MAX, limit), best);
}

fn step(net: &Net, limit: Duration, best: &mut f64) -> Result<(), Failure> {
    let calls = [version::before::prepare(net, TIMED_RATE)?, version::now::prepare(net, TIMED_RATE)?];
    let contenders = calls.map(contender).into();
    print(&net.to_string(), net.flops(), &race(contenders, usize::MAX, limit), best);
    Ok(())
}

fn print(what: &str, flops: f64, timing: &Timing, best: &mut f64) {
    let peaks = &timing.peaks;
    let mut sorted = peaks.clone();
    sorted.sort_by(f64::total_cmp);
    *best = best.max(sorted[sorted.len() * 9 / 10]);
    // The peak of the next round comes after this one.
    let near = |&round: &usize| peaks[round..].iter().take(2).all(|peak| *peak >= ALONE * *best);
    let (alone, beside): (Vec<_>, Vec<_>) = (0..peaks.len()).partition(near);
    let (before, now) = (&timing.seconds[0], &timing.seconds[1]);
    print!("{what:56}");
    for rounds in [alone, beside] {
        if rounds.is_empty() {
            print!("{:>22}", "-");
            continue;
        }
        let ratio = median(rounds.iter().map(|&round| before[round] / now[round]));
        let share = 100.0 * median(rounds.iter().map(|&round| flops / now[round] / peaks[round]));
        print!("{ratio:>10.3}{share:>6.1}{:>6}", format!("({})", rounds.len()));
    }
    println!();
}
