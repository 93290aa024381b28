//! Does one thing again and again, so that a profiler sees only that, and prints how fast it went.
//!
//! `cargo run --profile profiling --example hot_loop -- product 512 512 512 --seconds 5`; `docs/profiling.md` says what to
//! look at then.

mod common;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use common::{Failure, end, thousands};
use percycle::profile::{Clock, Machine, kernel_of};
use percycle::{
    Activation, Isa, Loss, Matrix, Mlp, MlpBuilder, Result, Sgd, Targets, Trainer, linear, matmul,
};

/// Run one kernel in a loop.
#[derive(Parser)]
#[command(name = "hot_loop", version)]
struct Settings {
    #[command(subcommand)]
    what: What,
    /// How long to run
    #[arg(long, global = true, default_value = "2", value_parser = seconds, allow_negative_numbers = true)]
    seconds: Duration,
    /// Threads that share a product, where it is large enough
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
}

/// A time of which something is left when it is told as a [`Duration`].
fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let time = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.filter(|time| !time.is_zero()).ok_or_else(|| "a number of seconds, more than 0".to_owned())
}

/// A side of a matrix. Three of them multiplied still fit a count of FLOP.
fn side(text: &str) -> std::result::Result<usize, String> {
    let side = text.parse().ok().filter(|side| (1..=1 << 20).contains(side));
    side.ok_or_else(|| "a whole number from 1 to 1048576".to_owned())
}

#[derive(Subcommand)]
enum What {
    /// C = A B, with A m x k and B k x n
    Product {
        #[arg(value_parser = side)]
        m: usize,
        #[arg(value_parser = side)]
        n: usize,
        #[arg(value_parser = side)]
        k: usize,
    },
    /// A layer: y = act(x W + b)
    Linear {
        #[arg(value_parser = side)]
        batch: usize,
        #[arg(value_parser = side)]
        inputs: usize,
        #[arg(value_parser = side)]
        outputs: usize,
        #[arg(default_value = "relu")]
        activation: Name,
    },
    /// A step of gradient descent of a network with hidden layers of ReLU units
    Step {
        #[arg(value_parser = side)]
        batch: usize,
        /// Inputs, the units of each hidden layer, outputs
        #[arg(required = true, num_args = 2.., value_name = "UNITS", value_parser = side)]
        sizes: Vec<usize>,
    },
    /// An activation of so many values
    Activation {
        activation: Name,
        #[arg(default_value = "4096", value_parser = side)]
        values: usize,
    },
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Name {
    Identity,
    Relu,
    LeakyRelu,
    Sigmoid,
    Tanh,
    Gelu,
    GeluTanh,
    Silu,
}

impl From<Name> for Activation {
    fn from(name: Name) -> Activation {
        match name {
            Name::Identity => Activation::Identity,
            Name::Relu => Activation::Relu,
            Name::LeakyRelu => Activation::LeakyRelu(0.01),
            Name::Sigmoid => Activation::Sigmoid,
            Name::Tanh => Activation::Tanh,
            Name::Gelu => Activation::Gelu,
            Name::GeluTanh => Activation::GeluTanh,
            Name::Silu => Activation::Silu,
        }
    }
}

fn main() -> ExitCode {
    end("hot_loop", run(&Settings::parse()))
}

fn run(settings: &Settings) -> std::result::Result<(), Failure> {
    println!("{}", percycle::build_info());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(settings.threads.into()).build()?;
    pool.install(|| repeat(settings))?;
    Ok(())
}

fn repeat(settings: &Settings) -> Result<()> {
    match &settings.what {
        &What::Product { m, n, k } => {
            let (a, b, mut c) = (matrix(m, k)?, matrix(k, n)?, Matrix::try_zeros(m, n)?);
            spin(settings, (2 * m * n * k, "FLOP"), || matmul(a.view(), b.view(), c.view_mut()))
        }
        &What::Linear { batch, inputs, outputs, activation } => {
            let (x, w) = (matrix(batch, inputs)?, matrix(inputs, outputs)?);
            let (bias, act, mut y) =
                (vec![0.1; outputs], activation.into(), Matrix::try_zeros(batch, outputs)?);
            let work = (2 * batch * inputs * outputs, "FLOP");
            spin(settings, work, || linear(x.view(), w.view(), Some(&bias), act, y.view_mut()))
        }
        What::Step { batch, sizes } => {
            let hidden = |mlp: MlpBuilder, &units: &usize| mlp.layer(units, Activation::Relu);
            let mlp = sizes[1..sizes.len() - 1].iter().fold(Mlp::builder(sizes[0]), hidden);
            let mlp = mlp.layer(sizes[sizes.len() - 1], Activation::Identity).build()?;
            let loss = Loss::CrossEntropy { label_smoothing: 0.0 };
            let mut trainer = Trainer::new(mlp, loss, Sgd::new(1e-6))?;
            let (x, classes) = (matrix(*batch, sizes[0])?, vec![0; *batch]);
            // Forward and dW of every layer, dX of all but the first.
            let weights: usize = sizes.windows(2).map(|layer| layer[0] * layer[1]).sum();
            let work = 2 * batch * (3 * weights - sizes[0] * sizes[1]);
            spin(settings, (work, "FLOP"), || trainer.step(x.view(), Targets::Classes(&classes)).map(drop))
        }
        &What::Activation { activation, values } => {
            let start = matrix(1, values)?;
            let (mut xs, act) = (start.clone(), Activation::from(activation));
            // Copied anew each time: what an activation makes of its own results may be denormal.
            spin(settings, (values, "elements"), || {
                xs.as_mut_slice().copy_from_slice(start.as_slice());
                act.apply(black_box(xs.as_mut_slice()))
            })
        }
    }
}

/// How long calls are timed together, at least: long against reading the clock, short against what interrupts.
const TOGETHER: Duration = Duration::from_micros(100);

/// Calls `f` until the time is over, and prints what one call of so much work took: the median, which work beside it on the
/// core reaches last.
fn spin(settings: &Settings, (work, unit): (usize, &str), mut f: impl FnMut() -> Result<()>) -> Result<()> {
    let (result, kernel) = kernel_of(&mut f);
    result?;
    let mut timed = |calls: u32| -> Result<Duration> {
        let start = Instant::now();
        (0..calls).try_for_each(|_| f())?;
        Ok(start.elapsed())
    };
    let mut together = 1;
    while timed(together)? < TOGETHER {
        together *= 2;
    }
    let (times, clock) = Clock::during(|| -> Result<Vec<Duration>> {
        let (start, mut times) = (Instant::now(), vec![timed(together)?]);
        while start.elapsed() < settings.seconds {
            times.push(timed(together)?);
        }
        Ok(times)
    });
    let mut times = times?;
    times.sort_unstable();
    let each = times[times.len() / 2].as_secs_f64() / f64::from(together);
    // A step has several.
    if let (Some(kernel), false) = (kernel, matches!(settings.what, What::Step { .. })) {
        println!("kernel  {kernel}");
    }
    println!("calls   {}, {:.3} us each", thousands(times.len() as u64 * u64::from(together)), each * 1e6);
    match clock {
        Some(clock) => {
            let cycles = each * clock.hertz;
            let (rate, one) = (work as f64 / cycles, cycles / work as f64);
            println!("clock   {clock}, drift {:+.1} %", clock.drift * 1e2);
            println!(
                "cycles  {} each: {rate:.3} {unit} in a cycle, {one:.4} cycles for one",
                thousands(cycles as u64)
            );
        }
        None => println!("clock   unknown: no cycles are stated"),
    }
    let isa = Isa::current();
    if let (Some(peak), "FLOP") = (Machine::measure(isa).peak(isa), unit) {
        let (rate, peak) = (work as f64 / each, peak * f64::from(settings.threads));
        let cores =
            if settings.threads == 1 { "one core".to_owned() } else { format!("{} cores", settings.threads) };
        println!(
            "peak    {:.1} of {:.1} GFLOP/s of {cores}: {:.0} %",
            rate / 1e9,
            peak / 1e9,
            rate / peak * 1e2
        );
    }
    Ok(())
}

/// Numbers between -1 and 1, none of them denormal.
fn matrix(rows: usize, cols: usize) -> Result<Matrix> {
    let mut matrix = Matrix::try_zeros(rows, cols)?;
    for (i, value) in matrix.as_mut_slice().iter_mut().enumerate() {
        *value = ((i * 7919 % 1000) as f32 - 499.5) / 500.0;
    }
    Ok(matrix)
}
