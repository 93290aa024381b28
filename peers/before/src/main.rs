//! Two commits of percycle in the same rounds: how many times as long the one before takes.
//!
//! The only figures that tell of a change of a few percent on a shared machine. A round measures the FMA peak, times both, and
//! measures the peak again. Rounds in which both peaks are near the best of all were alone on their core; the others
//! had a neighbour on it. Their medians stand apart, since some changes help in one case and cost in the other.

mod version;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use percycle_peers::nets::Net;
use percycle_peers::problem::Problem;
use percycle_peers::shapes::{self, Shape};
use percycle_peers::{Contender, Failure, Sampler, median, print_facts};

/// Times the commit before and this one in interleaved rounds.
#[derive(Parser)]
struct Args {
    /// Products as `64x512x784` or `64x512x784 nt`, nets as a line of nets.csv (`784-10,relu,64,cross-entropy,sgd`), or
    /// `grid` and `nets` for all that the tables have.
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

struct Round {
    /// FLOP per second of the FMA units, before and after.
    peaks: [f64; 2],
    /// Seconds of a call.
    before: f64,
    now: f64,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
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
            "nets" => Net::all()?.iter().try_for_each(|net| step(net, limit, &mut best))?,
            net if net.contains(',') => step(&Net::given(net)?, limit, &mut best)?,
            shape => product(shape.parse()?, limit, &mut best),
        }
    }
    Ok(())
}

fn product(shape: Shape, limit: Duration, best: &mut f64) {
    let problem = Problem::new(shape);
    let rounds = rounds(version::before::product(&problem), version::now::product(&problem), limit);
    print(&shape.to_string(), shape.flops(), &rounds, best);
}

fn step(net: &Net, limit: Duration, best: &mut f64) -> Result<(), Failure> {
    let rounds = rounds(version::before::step(net)?, version::now::step(net)?, limit);
    print(&net.to_string(), net.flops(), &rounds, best);
    Ok(())
}

fn rounds(before: Contender, now: Contender, limit: Duration) -> Vec<Round> {
    let (mut before, mut now) = (Sampler::new(before), Sampler::new(now));
    let mut rounds: Vec<Round> = Vec::new();
    let start = Instant::now();
    let peak = || ::now::fma_peak(::now::Isa::current());
    while rounds.len() < 3 || start.elapsed() < limit {
        let before_both = peak();
        // Neither always runs in the wake of the other.
        let (before, now) = if rounds.len() % 2 == 0 {
            let before = before.seconds();
            (before, now.seconds())
        } else {
            let now = now.seconds();
            (before.seconds(), now)
        };
        rounds.push(Round { peaks: [before_both, peak()], before, now });
    }
    rounds
}

fn print(what: &str, flops: f64, rounds: &[Round], best: &mut f64) {
    let mut peaks: Vec<f64> = rounds.iter().flat_map(|round| round.peaks).collect();
    peaks.sort_by(f64::total_cmp);
    *best = best.max(peaks[peaks.len() * 9 / 10]);
    let near = |round: &&Round| round.peaks.iter().all(|peak| *peak >= ALONE * *best);
    let (alone, beside): (Vec<_>, Vec<_>) = rounds.iter().partition(near);
    print!("{what:56}");
    for rounds in [alone, beside] {
        if rounds.is_empty() {
            print!("{:>22}", "-");
            continue;
        }
        let ratio = median(rounds.iter().map(|round| round.before / round.now));
        let share = 100.0
            * median(rounds.iter().map(|round| 2.0 * flops / round.now / (round.peaks[0] + round.peaks[1])));
        print!("{ratio:>10.3}{share:>6.1}{:>6}", format!("({})", rounds.len()));
    }
    println!();
}
