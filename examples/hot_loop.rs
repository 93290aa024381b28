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
use percycle::profile::{Machine, kernel_of};
use percycle::{Activation, Isa, Loss, Matrix, Mlp, Result, Sgd, Targets, Trainer, linear, matmul};

/// Run one kernel in a loop.
#[derive(Parser)]
#[command(name = "hot_loop", version)]
struct Settings {
    #[command(subcommand)]
    what: What,
    /// How long to run
    #[arg(long, global = true, default_value_t = 2.0)]
    seconds: f64,
}

#[derive(Clone, Copy, Subcommand)]
enum What {
    /// C = A B, with A m x k and B k x n
    Product { m: usize, n: usize, k: usize },
    /// A layer: y = act(x W + b)
    Linear {
        batch: usize,
        inputs: usize,
        outputs: usize,
        #[arg(default_value = "relu")]
        activation: Name,
    },
    /// A step of gradient descent of a network with one hidden layer of ReLU units
    Step { batch: usize, inputs: usize, hidden: usize, outputs: usize },
    /// An activation of so many values
    Activation {
        activation: Name,
        #[arg(default_value_t = 4096)]
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
    let time = Duration::try_from_secs_f64(settings.seconds)?;
    match settings.what {
        What::Product { m, n, k } => {
            let (a, b, mut c) = (matrix(m, k), matrix(k, n), matrix(m, n));
            spin(time, (2 * m * n * k, "FLOP"), || matmul(a.view(), b.view(), c.view_mut()))
        }
        What::Linear { batch, inputs, outputs, activation } => {
            let (x, w, mut y) = (matrix(batch, inputs), matrix(inputs, outputs), matrix(batch, outputs));
            let (bias, act) = (vec![0.1; outputs], activation.into());
            let work = (2 * batch * inputs * outputs, "FLOP");
            spin(time, work, || linear(x.view(), w.view(), Some(&bias), act, y.view_mut()))
        }
        What::Step { batch, inputs, hidden, outputs } => {
            let mlp = Mlp::builder(inputs).layer(hidden, Activation::Relu);
            let mlp = mlp.layer(outputs, Activation::Identity).build()?;
            let loss = Loss::CrossEntropy { label_smoothing: 0.0 };
            let mut trainer = Trainer::new(mlp, loss, Sgd::new(1e-6))?;
            let (x, classes) = (matrix(batch, inputs), vec![0; batch]);
            // Forward and dW of both layers, dX of the second.
            let work = 2 * batch * hidden * (2 * inputs + 3 * outputs);
            spin(time, (work, "FLOP"), || trainer.step(x.view(), Targets::Classes(&classes)).map(drop))
        }
        What::Activation { activation, values } => {
            let start = matrix(1, values);
            let (mut xs, act) = (start.clone(), Activation::from(activation));
            // Copied anew each time: what an activation makes of its own results may be denormal.
            spin(time, (values, "elements"), || {
                xs.as_mut_slice().copy_from_slice(start.as_slice());
                act.apply(black_box(xs.as_mut_slice()))
            })
        }
    }
}

/// Calls `f` until the time is over, and prints what one call of so much work took.
fn spin(
    time: Duration,
    (work, unit): (usize, &str),
    mut f: impl FnMut() -> Result<()>,
) -> std::result::Result<(), Failure> {
    let (result, kernel) = kernel_of(&mut f);
    result?;
    let machine = Machine::measure(Isa::current());
    let (start, mut calls) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        f()?;
        calls += 1;
    }
    let each = start.elapsed().as_secs_f64() / calls.max(1) as f64;
    if let Some(kernel) = kernel {
        println!("kernel  {kernel}");
    }
    println!("calls   {}, {:.3} us each", thousands(calls), each * 1e6);
    if let Some(clock) = machine.clock {
        let cycles = each * clock.hertz;
        println!("clock   {clock}");
        println!(
            "cycles  {:.0} each: {:.3} {unit} in a cycle, {:.4} cycles for one",
            cycles,
            work as f64 / cycles,
            cycles / work as f64
        );
    }
    if let (Some(peak), "FLOP") = (machine.peak(Isa::current()), unit) {
        let rate = work as f64 / each;
        println!(
            "peak    {:.1} of {:.1} GFLOP/s of one core: {:.0} %",
            rate / 1e9,
            peak / 1e9,
            rate / peak * 1e2
        );
    }
    Ok(())
}

/// Numbers between -1 and 1, none of them denormal.
fn matrix(rows: usize, cols: usize) -> Matrix {
    let mut matrix = Matrix::zeros(rows, cols);
    for (i, value) in matrix.as_mut_slice().iter_mut().enumerate() {
        *value = ((i * 7919 % 1000) as f32 - 499.5) / 500.0;
    }
    matrix
}
