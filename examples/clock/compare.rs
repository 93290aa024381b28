//! The article's five comparisons between a language model and a CPU's clock, each with what was measured here.

use std::hint::black_box;
use std::time::Instant;

use percycle::profile::{Clock, Entry, Phase, Report};
use percycle::{Activation, Isa, Matrix, linear};

use crate::common::{Failure, thousands};
use crate::nets::{BATCH, Net, profile};

/// What is said where the clock is unknown.
const NO_CLOCK: &str = "the core clock cannot be measured here, so nothing is said in cycles";

/// Prints them for networks that were profiled on one thread.
pub fn show(nets: &[(&Net, &Report)], steps: u32, threads: u16) -> Result<(), Failure> {
    println!("\nFIVE COMPARISONS");
    registers(nets);
    instructions(nets);
    execution(nets);
    pipeline(nets, steps, threads)?;
    Ok(rayon::ThreadPoolBuilder::new().num_threads(1).build()?.install(cycles)?)
}

/// What a line about a layer begins with.
fn layer(net: &Net, entry: &Entry) -> String {
    let (inputs, outputs) = entry.inputs.zip(entry.outputs).unwrap_or_default();
    format!("{:<16} {inputs:>3} -> {outputs:<3}", net.short)
}

fn registers(nets: &[(&Net, &Report)]) {
    println!("\n1. Neurons are registers. Sums of a layer wait there, until all inputs have been added:");
    println!("   {:<28}{:<14}{:>5}  vector registers  multiply-adds for a load", "", "tile", "sums");
    for (net, report) in nets {
        let entries = report.entries();
        for row in report.rows.iter().filter(|row| row.phase == Phase::Forward) {
            let Some(entry) = entries.iter().find(|entry| is(entry, row.layer, Phase::Forward)) else {
                continue;
            };
            let Some(kernel) = row.kernel else { continue };
            let vectors = kernel.cols / kernel.isa.lanes();
            let (accumulators, loads) = (kernel.rows * vectors, kernel.rows + vectors);
            let file = match kernel.isa.name() {
                "avx512" => Some(32),
                "avx2" => Some(16),
                // The compiler chooses the registers of the portable kernel.
                _ => None,
            };
            let used = match file {
                Some(file) => format!("{accumulators} of {file}, {:.0} %", percent(accumulators, file)),
                None => "-".to_owned(),
            };
            println!(
                "   {:<28}{:<14}{:>5}  {used:>16}  {accumulators:>5} /{loads:>3} = {:.1}",
                layer(net, entry),
                kernel.to_string(),
                kernel.rows * kernel.cols,
                accumulators as f64 / loads as f64
            );
        }
    }
    println!("   So it holds for those that are being computed; the others are in caches.");
}

fn percent(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64 * 1e2
}

fn is(entry: &Entry, layer: Option<usize>, phase: Phase) -> bool {
    (entry.layer, entry.phase) == (layer, phase)
}

fn instructions(nets: &[(&Net, &Report)]) {
    println!("\n2. Layers are instructions.");
    println!("   {:<28}{:>14}  {:>26}", "", "forward cycles", "backward and update cycles");
    let (mut most, mut least) = (0.0_f64, f64::INFINITY);
    for (net, report) in nets {
        let entries = report.entries();
        for forward in entries.iter().filter(|entry| entry.phase == Phase::Forward) {
            let backward = entries.iter().filter(|entry| backward(entry) && entry.layer == forward.layer);
            let backward: Option<f64> = backward.map(|entry| entry.cycles).sum();
            let (Some(forward_cycles), Some(backward)) = (forward.cycles, backward) else {
                println!("   {NO_CLOCK}.");
                return;
            };
            println!(
                "   {:<28}{:>14}  {:>26}",
                layer(net, forward),
                thousands(forward_cycles as u64),
                thousands(backward as u64)
            );
            (most, least) = (most.max(forward_cycles), least.min(forward_cycles));
        }
    }
    println!(
        "   A CPU's instruction takes 1 to some 20 cycles; forward, these differ by {:.0} times.",
        most / least
    );
}

fn backward(entry: &Entry) -> bool {
    entry.layer.is_some() && entry.phase != Phase::Forward
}

fn execution(nets: &[(&Net, &Report)]) {
    println!("\n3. The forward pass is execution, against what the ports for multiply-adds did at most:");
    let isa = Isa::current();
    for (net, report) in nets {
        let entries = report.entries();
        let forward = || entries.iter().filter(|entry| entry.phase == Phase::Forward);
        let flop: f64 = forward().map(|entry| entry.flop).sum();
        let cycles: Option<f64> = forward().map(|entry| entry.cycles).sum();
        let (Some(cycles), Some(peak), Some(clock)) =
            (cycles, report.machine.peak(isa), report.machine.clock)
        else {
            println!("   {NO_CLOCK}.");
            return;
        };
        let (rate, limit, lanes) = (flop / cycles, peak / clock.hertz, isa.lanes());
        println!(
            "   {:<16} {rate:.1} of {limit:.1} FLOP in a cycle, {:.0} % ({:.2} of {:.2} multiply-adds of {lanes} lanes)",
            net.short,
            rate / limit * 1e2,
            rate / (2 * lanes) as f64,
            limit / (2 * lanes) as f64,
        );
    }
}

fn pipeline(nets: &[(&Net, &Report)], steps: u32, threads: u16) -> Result<(), Failure> {
    println!("\n4. Backpropagation is a pipeline.");
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    if available < threads.into() || threads < 2 {
        println!(
            "   Left out: {threads} threads were asked for; cores that this process may use: {available}."
        );
        return Ok(());
    }
    println!("   {:<41}faster   threads busy   the longest over the mean", format!("on {threads} threads"));
    for (net, alone) in nets {
        let shared = profile(net, steps, threads)?;
        let (alone, shared) = (alone.entries(), shared.entries());
        // Of all backward phases: seconds on one thread, on several, and what these worked in all.
        let (mut before, mut after, mut worked) = (0.0, 0.0, 0.0);
        for entry in shared.iter().filter(|entry| backward(entry)) {
            let Some(single) = alone.iter().find(|other| is(other, entry.layer, entry.phase)) else {
                continue;
            };
            let (now, then) = (entry.seconds, single.seconds);
            (before, after) = (before + then, after + now);
            worked += now * entry.busy.map_or(1.0, |busy| busy * entry.threads as f64);
            let percent =
                |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.0} %", share * 1e2));
            println!(
                "   {:<27} {:<12} {:>5.2}x   {:>12}   {:>25}",
                layer(net, entry),
                entry.phase,
                then / now,
                percent(entry.busy),
                percent(entry.imbalance),
            );
        }
        println!(
            "   {:<27} {:<12} {:>5.2}x   {:>12}",
            net.short,
            "backward",
            before / after,
            format!("{:.0} %", worked / after / f64::from(threads) * 1e2)
        );
    }
    println!(
        "   Layers do not overlap as stages of a pipeline do: each needs the one above. What overlaps is the"
    );
    println!("   work inside of one, where it is large enough to be shared among threads.");
    Ok(())
}

/// Values that are put through an activation at a time: they stay in the nearest cache.
const VALUES: usize = 4096;

/// The layers that activations are fused into: the last hidden one of each network, inputs and outputs.
const LAYERS: [(usize, usize); 2] = [(128, 64), (512, 256)];

fn cycles() -> percycle::Result<()> {
    println!("\n5. Activations cost clock cycles.");
    let all = [
        Activation::Relu,
        Activation::LeakyRelu(0.01),
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
    ];
    let (seconds, clock) = Clock::during(|| -> percycle::Result<Vec<_>> {
        all.iter().map(|&activation| Ok((alone(activation)?, fused(activation, LAYERS)?))).collect()
    });
    let (seconds, Some(clock)) = (seconds?, clock) else {
        println!("   {NO_CLOCK}.");
        return Ok(());
    };
    println!(
        "   {:<24}{:>12}   fused into a layer of {BATCH} samples",
        "cycles of an element", "alone, in L1"
    );
    println!("   {:<24}{:>12}   {:>13}   {:>13}", "", "", "128 -> 64", "512 -> 256");
    for (activation, (alone, fused)) in all.iter().zip(&seconds) {
        let of_layer = |n: usize| {
            let [without, with] = fused[n];
            (with - without) * clock.hertz / (BATCH * LAYERS[n].1) as f64
        };
        println!(
            "   {:<24}{:>12.2}   {:>13.2}   {:>13.2}",
            activation.name(),
            alone * clock.hertz / VALUES as f64,
            of_layer(0),
            of_layer(1)
        );
    }
    let multiply_add = |n: usize| {
        let plain = seconds.iter().map(|(_, fused)| fused[n][0]).fold(f64::INFINITY, f64::min);
        plain * clock.hertz / (BATCH * LAYERS[n].0 * LAYERS[n].1) as f64
    };
    println!(
        "   {:<39}{:>13.3}   {:>13.3}",
        "a multiply-add of such a layer",
        multiply_add(0),
        multiply_add(1)
    );
    println!("   {:<39}{:>13}   {:>13}", "multiply-adds of an element", LAYERS[0].0, LAYERS[1].0);
    Ok(())
}

/// Seconds of an activation of [`VALUES`] values.
fn alone(activation: Activation) -> percycle::Result<f64> {
    let mut values: Vec<f32> = (0..VALUES).map(|i| i as f32 / 512.0 - 4.0).collect();
    let start = values.clone();
    // Copied anew each time: what an activation makes of its own results may be denormal.
    let both = fastest(|| {
        values.copy_from_slice(&start);
        black_box(activation).apply(black_box(&mut values))
    })?;
    let copy = fastest(|| {
        black_box(&mut values).copy_from_slice(black_box(&start));
        Ok(())
    })?;
    Ok(both - copy)
}

/// Seconds of layers without an activation and with this one, in turns: the fastest of many rounds.
fn fused(activation: Activation, layers: [(usize, usize); 2]) -> percycle::Result<[[f64; 2]; 2]> {
    let value = |i: usize| ((i * 7919 % 1000) as f32 - 499.5) / 5000.0;
    let matrix = |rows, cols| Matrix::from_vec(rows, cols, (0..rows * cols).map(value).collect());
    let mut all = [[f64::INFINITY; 2]; 2];
    for (best, (inputs, outputs)) in all.iter_mut().zip(layers) {
        let (x, w, mut y) = (matrix(BATCH, inputs)?, matrix(inputs, outputs)?, Matrix::zeros(BATCH, outputs));
        for _ in 0..200 {
            for (best, activation) in best.iter_mut().zip([Activation::Identity, activation]) {
                let start = Instant::now();
                linear(x.view(), w.view(), None, activation, y.view_mut())?;
                *best = best.min(start.elapsed().as_secs_f64());
            }
        }
    }
    Ok(all)
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
