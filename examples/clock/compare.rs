//! The article's five comparisons between a language model and a CPU's clock, each with what was measured here.

use std::hint::black_box;
use std::time::Instant;

use percycle::profile::{Clock, Entry, Machine, Phase, Report, kernel_of};
use percycle::{Activation, Isa, Matrix, linear};

use crate::common::{Failure, thousands};
use crate::nets::{Net, profile};

/// What is said where the clock is unknown.
const NO_CLOCK: &str = "the core clock cannot be measured here, so nothing is said in cycles";

pub fn show(net: &Net, report: &Report, steps: u32, threads: u16) -> Result<(), Failure> {
    println!("\nFIVE COMPARISONS, each with {} where it says nothing else", net.name);
    let entries = report.entries();
    registers(net)?;
    instructions(&entries);
    execution(&entries, &report.machine);
    pipeline(net, report, steps, threads)?;
    Ok(rayon::ThreadPoolBuilder::new().num_threads(1).build()?.install(cycles)?)
}

fn registers(net: &Net) -> Result<(), Failure> {
    println!("\n1. Neurons are registers.");
    let (x, w) = (&net.x, Matrix::zeros(net.x.cols(), 512));
    let mut y = Matrix::zeros(x.rows(), 512);
    let (result, kernel) = kernel_of(|| linear(x.view(), w.view(), None, Activation::Identity, y.view_mut()));
    result?;
    let kernel = kernel.ok_or("a product has a kernel")?;
    let vectors = kernel.cols / kernel.isa.lanes();
    let (accumulators, loads) = (kernel.rows * vectors, kernel.rows + vectors);
    println!(
        "   For {} neurons of {} samples at a time ({kernel}), sums wait in {accumulators} vector registers",
        kernel.cols, kernel.rows
    );
    let file = match kernel.isa.name() {
        "avx512" => Some(32),
        "avx2" => Some(16),
        _ => None,
    };
    match file {
        Some(file) => println!(
            "   of the {file} that the core has: {:.0} %. Each step of the sum is {accumulators} multiply-adds for",
            accumulators as f64 / file as f64 * 1e2
        ),
        None => println!(
            "   (the compiler chooses which). Each step of the sum is {accumulators} multiply-adds for"
        ),
    }
    println!("   {loads} loads: {:.1} for each.", accumulators as f64 / loads as f64);
    println!("   So the comparison holds for some 400 sums at a time; the other neurons are in caches.");
    Ok(())
}

fn instructions(entries: &[Entry]) {
    println!("\n2. Layers are instructions.");
    let layers = entries.iter().filter_map(|entry| entry.layer).max().map_or(0, |last| last + 1);
    let mut most = (0.0_f64, f64::INFINITY);
    for layer in 0..layers {
        let of_layer = || entries.iter().filter(|entry| entry.layer == Some(layer));
        let cycles = |forward: bool| -> Option<f64> {
            let phases = of_layer().filter(|entry| (entry.phase == Phase::Forward) == forward);
            phases.map(|entry| entry.cycles).sum()
        };
        let (Some(forward), Some(backward)) = (cycles(true), cycles(false)) else {
            println!("   {NO_CLOCK}.");
            return;
        };
        let shape = of_layer().find_map(|entry| entry.inputs.zip(entry.outputs)).unwrap_or_default();
        println!(
            "   layer {layer}, {:>3} -> {:<3}  forward {:>9} cycles, backward and update {:>9}",
            shape.0,
            shape.1,
            thousands(forward as u64),
            thousands(backward as u64)
        );
        most = (most.0.max(forward), most.1.min(forward));
    }
    println!(
        "   A CPU's instruction takes 1 to some 20 cycles; these differ by {:.0} times.",
        most.0 / most.1
    );
}

fn execution(entries: &[Entry], machine: &Machine) {
    println!("\n3. The forward pass is execution.");
    let forward: Vec<&Entry> = entries.iter().filter(|entry| entry.phase == Phase::Forward).collect();
    let flop: f64 = forward.iter().map(|entry| entry.flop).sum();
    let cycles: Option<f64> = forward.iter().map(|entry| entry.cycles).sum();
    let isa = Isa::current();
    match (cycles, machine.peak(isa), machine.clock) {
        (Some(cycles), Some(peak), Some(clock)) => {
            let (rate, limit) = (flop / cycles, peak / clock.hertz);
            println!(
                "   {:.1} FLOP in a cycle, of {limit:.1} that the ports for multiply-adds do at most",
                rate
            );
            println!(
                "   ({isa}, measured): {:.0} %. {limit:.0} FLOP in a cycle are {:.1} multiply-adds of {} lanes.",
                rate / limit * 1e2,
                limit / (2 * isa.lanes()) as f64,
                isa.lanes()
            );
        }
        _ => println!("   {NO_CLOCK}."),
    }
}

fn pipeline(net: &Net, alone: &Report, steps: u32, threads: u16) -> Result<(), Failure> {
    println!("\n4. Backpropagation is a pipeline.");
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    if available < threads.into() || threads < 2 {
        println!(
            "   Left out: {threads} threads were asked for; cores that this process may use: {available}."
        );
        return Ok(());
    }
    let shared = profile(net, steps, threads)?;
    let backward = |entry: &&Entry| entry.layer.is_some() && entry.phase != Phase::Forward;
    let (alone, shared) = (alone.entries(), shared.entries());
    let (mut before, mut after) = (0.0, 0.0);
    println!("   on {threads} threads            faster  all working  the longest over the mean");
    for entry in shared.iter().filter(backward) {
        let same = |other: &&Entry| (other.layer, other.phase) == (entry.layer, entry.phase);
        let Some(single) = alone.iter().find(same) else { continue };
        let (now, then) = (entry.seconds, single.seconds);
        (before, after) = (before + then, after + now);
        let percent =
            |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.0} %", share * 1e2));
        println!(
            "   layer {} {:<13} {:>5.2}x  {:>11}  {:>25}",
            entry.layer.unwrap_or_default(),
            entry.phase,
            then / now,
            percent(entry.busy),
            percent(entry.imbalance),
        );
    }
    println!(
        "   Backward in all: {:.2} times as fast. Layers do not overlap as stages of a pipeline do: each",
        before / after
    );
    println!("   needs the one above. What overlaps is the work inside of one, shared among threads.");
    Ok(())
}

/// Values that are put through an activation at a time: they stay in the nearest cache.
const VALUES: usize = 4096;

fn cycles() -> percycle::Result<()> {
    println!("\n5. Activations cost clock cycles.");
    let Some(clock) = Clock::measure() else {
        println!("   {NO_CLOCK}.");
        return Ok(());
    };
    println!("   cycles of an element   alone, in L1   fused into a layer (64 x 512 x 256)");
    let mut plain = 0.0;
    let all = [
        Activation::Relu,
        Activation::LeakyRelu(0.01),
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
    ];
    for activation in all {
        let mut values: Vec<f32> = (0..VALUES).map(|i| i as f32 / 512.0 - 4.0).collect();
        let start = values.clone();
        let both = fastest(|| {
            values.copy_from_slice(&start);
            black_box(activation).apply(black_box(&mut values))
        })?;
        let copy = fastest(|| {
            black_box(&mut values).copy_from_slice(black_box(&start));
            Ok(())
        })?;
        let [without, with] = fused(activation)?;
        plain = without;
        println!(
            "   {:<22} {:>12.2}   {:>17.2}",
            activation.name(),
            (both - copy) * clock.hertz / VALUES as f64,
            (with - without) * clock.hertz / (64 * 256) as f64
        );
    }
    println!(
        "   A multiply-add of the layer itself takes {:.3} cycles, and an element has 512 of them.",
        plain * clock.hertz / (64 * 512 * 256) as f64
    );
    Ok(())
}

/// Seconds of a layer of 64 samples, 512 inputs and 256 outputs, without an activation and with this one, in turns: the
/// fastest of many rounds.
fn fused(activation: Activation) -> percycle::Result<[f64; 2]> {
    let value = |i: usize| ((i * 7919 % 1000) as f32 - 499.5) / 5000.0;
    let x = Matrix::from_vec(64, 512, (0..64 * 512).map(value).collect())?;
    let w = Matrix::from_vec(512, 256, (0..512 * 256).map(value).collect())?;
    let mut y = Matrix::zeros(64, 256);
    let mut best = [f64::INFINITY; 2];
    for _ in 0..200 {
        for (best, activation) in best.iter_mut().zip([Activation::Identity, activation]) {
            let start = Instant::now();
            linear(x.view(), w.view(), None, activation, y.view_mut())?;
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    Ok(best)
}

/// Seconds of the fastest of many rounds: interruptions only make them slower.
fn fastest(mut f: impl FnMut() -> percycle::Result<()>) -> percycle::Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..200 {
        let start = Instant::now();
        f()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}
