//! Every small shape, in each layout: what a change has done where no table looks, and which products take longer than larger ones, so that
//! another way of computing them is faster.

use std::time::Instant;

use percycle_peers::problem::Problem;
use percycle_peers::shapes::Shape;
use percycle_peers::{Contender, Failure, progress};

use crate::version;

/// Steps of k.
const STEPS: [usize; 2] = [40, 200];
/// FLOP of a sample, and samples of each.
const SAMPLE: f64 = 4e6;
const SAMPLES: usize = 6;
/// Shapes to name.
const NAMED: usize = 10;

fn rows() -> impl Iterator<Item = usize> {
    (1..=28).chain([32, 48])
}

fn columns() -> impl Iterator<Item = usize> {
    (1..=50).chain([56, 63, 64, 65, 72, 80, 96, 97])
}

/// A shape, its time before over its time now, and that.
struct Seen {
    m: usize,
    n: usize,
    ratio: f64,
    now: f64,
}

pub fn scan() -> Result<(), Failure> {
    println!("every m up to 28 (32, 48) and n up to 50 (56 to 97): time before over time now");
    for layout in ["nn", "nt", "tn"] {
        for k in STEPS {
            let bar = progress(rows().count());
            let mut seen = Vec::new();
            for m in rows() {
                for n in columns() {
                    let shape: Shape = format!("{m}x{n}x{k} {layout}").parse()?;
                    let problem = Problem::new(shape);
                    let calls = [version::before::product(&problem), version::now::product(&problem)];
                    let [before, now] = least(calls, (SAMPLE / shape.flops()).clamp(1.0, 2000.0) as usize);
                    seen.push(Seen { m, n, ratio: before / now, now });
                }
                bar.inc(1);
            }
            bar.finish_and_clear();
            print(&format!("{layout}, k = {k}"), &mut seen);
        }
    }
    Ok(())
}

/// Seconds of a call, the least of samples that take turns: what else the machine does can only add to them.
fn least<const N: usize>(mut calls: [Contender; N], repeats: usize) -> [f64; N] {
    let mut least = [f64::INFINITY; N];
    for _ in 0..SAMPLES {
        for (least, call) in least.iter_mut().zip(&mut calls) {
            let start = Instant::now();
            (0..repeats).for_each(|_| call());
            *least = least.min(start.elapsed().as_secs_f64() / repeats as f64);
        }
    }
    least
}

fn print(what: &str, seen: &mut [Seen]) {
    seen.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
    let mean = (seen.iter().map(|seen| seen.ratio.ln()).sum::<f64>() / seen.len() as f64).exp();
    let slower = seen.iter().filter(|seen| seen.ratio < 0.95).count();
    let faster = seen.iter().filter(|seen| seen.ratio > 1.05).count();
    println!("\n{what}: mean {mean:.3}; of {} below 0.95 {slower}, above 1.05 {faster}", seen.len());
    let named = |seen: &Seen| format!(" {}x{} {:.2}", seen.m, seen.n, seen.ratio);
    println!("    least:{}", seen.iter().take(NAMED).map(named).collect::<String>());
    println!("    most:{}", seen.iter().rev().take(NAMED).map(named).collect::<String>());
    let mut longer: Vec<_> = seen.iter().map(|one| (one, larger(one, seen))).collect();
    longer.sort_by(|a, b| (b.0.now / b.1.now).total_cmp(&(a.0.now / a.1.now)));
    let named = |(one, larger): &(&Seen, &Seen)| {
        format!(" {}x{} {:.2} as {}x{}", one.m, one.n, one.now / larger.now, larger.m, larger.n)
    };
    println!(
        "    as long as a larger one:{}",
        longer.iter().take(NAMED).map(named).collect::<Vec<_>>().join(",")
    );
}

/// Of the shapes that have no fewer rows and columns, the one that takes the least time now.
fn larger<'a>(one: &Seen, seen: &'a [Seen]) -> &'a Seen {
    let holds = |other: &&Seen| other.m >= one.m && other.n >= one.n;
    seen.iter().filter(holds).min_by(|a, b| a.now.total_cmp(&b.now)).expect("itself, at least")
}
