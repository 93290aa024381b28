//! Roofs: what stands between percycle and the figures it was built for, measured beside it in the same rounds.
//!
//! Figures that percycle misses somewhere stand beside loops that do only what no way around it is known for: B read in the best of
//! many orders, a chain, a transposition, tiles that are written, an exponential. What the loop does not reach is out of reach; what it
//! reaches and percycle does not is left to do.

mod loops;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use percycle::{Activation, Matrix, linear, matmul};
use percycle_peers::nets::{Net, TIMED_RATE};
use percycle_peers::ours::prepare;
use percycle_peers::problem::Problem;
use percycle_peers::shapes::Shape;
use percycle_peers::{Contender, Failure, exit, median, print_facts, race};

use crate::loops::{Avx512, TILE};

/// Times percycle and the loops on one thread, in interleaved rounds, with AVX-512.
#[derive(Parser)]
struct Args {
    /// Rounds for each figure, cut short after three seconds.
    #[arg(long, default_value = "21")]
    rounds: usize,
    /// Taken from all programs that make a table; this one only prints it.
    #[arg(long, hide = true)]
    out: Option<std::path::PathBuf>,
}

const LIMIT: Duration = Duration::from_secs(3);

/// Values that fit in L1.
const NEAR: usize = 48 * 128;

/// What a share is of.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    Peak,
    /// A plain read of B, which is the first loop.
    Read,
}

/// What loops are to a figure.
#[derive(Clone, Copy, PartialEq)]
enum Loops {
    /// Ways to do it, of which the fastest counts.
    Ways,
    /// Parts of it, of which the slowest counts.
    Parts,
    /// Parts of it, one after the other.
    Sum,
}

/// What the share is of, how much was asked for, and what the loops are.
type How = (Of, Option<f64>, Loops);

struct Loop<'a> {
    name: String,
    run: Contender<'a>,
    /// How many times its time stands for the figure.
    times: f64,
}

impl<'a> Loop<'a> {
    fn new(name: impl Into<String>, run: impl FnMut() + 'a) -> Loop<'a> {
        Loop { name: name.into(), run: Box::new(run), times: 1.0 }
    }
}

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), Failure> {
    let s = Avx512::detect().ok_or("the loops need AVX-512, which this CPU lacks")?;
    print_facts(1);
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global()?;
    println!("\nShares in % of the FMA peak, or of the speed of a plain read of B: medians.\n");
    println!("{:50}{:>6}{:>7}{:>10}{:>7}  which loop", "", "of", "asked", "percycle", "loop");
    few_rows(s, args)?;
    columns(s, args)?;
    written(s, args)?;
    step(s, args)
}

/// The step that lies furthest below what was asked for.
fn step(s: Avx512, args: &Args) -> Result<(), Failure> {
    let net = Net::given("128-64-64-64,relu,1024,cross-entropy,sgd")?;
    let logits = vec![0.5; net.batch() * 64];
    for (are, loops) in
        [(Loops::Parts, vec![registers(s, &net, logits.clone())]), (Loops::Sum, one_by_one(s, &net, logits)?)]
    {
        let mut step = prepare(&net, TIMED_RATE)?;
        let ours: Contender = Box::new(move || {
            step();
        });
        show(args, &net.to_string(), net.flops(), (Of::Peak, Some(95.0), are), ours, loops);
    }
    Ok(())
}

/// The tiles of a step's products, which are written, and its softmax.
fn registers(s: Avx512, net: &Net, mut logits: Vec<f32>) -> Loop<'static> {
    let mut products = Vec::new();
    for (layer, of) in net.units.windows(2).enumerate() {
        let (input, output) = (of[0], of[1]);
        products.extend([(net.batch(), output, input), (input, output, net.batch())]);
        products.extend((layer > 0).then_some((net.batch(), input, output)));
    }
    // Rows that fill no tile are left out, and made up for.
    let done: f64 = products.iter().map(|&(m, n, k)| (2 * (m / TILE * TILE) * n * k) as f64).sum();
    let mut written: Vec<_> = products.into_iter().map(|(m, n, k)| (vec![0.5; m * n], n, k)).collect();
    let mut loops = Loop::new("multiply-adds in registers, C written; softmax of its outputs", move || {
        for (c, n, k) in &mut written {
            s.tiles(c, *n, *k);
        }
        s.softmax(&mut logits);
    });
    loops.times = net.flops() / done;
    loops
}

/// What a step would take if each of its products ran as it does when it is called again and again, on operands of its own.
fn one_by_one(s: Avx512, net: &Net, mut logits: Vec<f32>) -> Result<Vec<Loop<'static>>, Failure> {
    let samples = vec![0.5; net.batch() * net.units[0]];
    let mut loops = Vec::new();
    for (layer, of) in net.units.windows(2).enumerate() {
        let (batch, input, output) = (net.batch(), of[0], of[1]);
        let (last, bias) = (layer + 2 == net.units.len(), vec![0.5; output]);
        loops.push(alone([(batch, input), (input, output), (batch, output)], move |[x, w, y]| {
            let activation = if last { Activation::Identity } else { Activation::Relu };
            linear(x.view(), w.view(), Some(&bias), activation, y.view_mut())
        })?);
        loops.push(alone([(batch, input), (batch, output), (input, output)], |[x, delta, gradient]| {
            matmul(x.view().t(), delta.view(), gradient.view_mut())
        })?);
        if layer > 0 {
            loops.push(alone([(batch, output), (input, output), (batch, input)], |[delta, w, below]| {
                matmul(delta.view(), w.view().t(), below.view_mut())
            })?);
        }
    }
    loops.push(Loop::new("", move || s.softmax(&mut logits)));
    let name = "each product alone, operands in L2; softmax of its outputs; samples read once";
    loops.push(Loop::new(name, move || s.read(&samples)));
    Ok(loops)
}

/// A product of percycle on operands of its own, of these shapes, the last of which is written.
fn alone(
    shapes: [(usize, usize); 3],
    product: impl Fn(&mut [Matrix; 3]) -> percycle::Result<()> + 'static,
) -> Result<Loop<'static>, Failure> {
    let [a, b, c] = shapes.map(|(rows, cols)| Matrix::from_vec(rows, cols, vec![0.5; rows * cols]));
    let mut operands = [a?, b?, c?];
    Ok(Loop::new("", move || product(&mut operands).expect("the shapes fit")))
}

/// Few rows beside a B from L2 or L3, in many orders.
fn few_rows(s: Avx512, args: &Args) -> Result<(), Failure> {
    let shapes = [
        ("1x512x256", Of::Read, 90.0),
        ("2x512x256", Of::Read, 90.0),
        ("3x512x256", Of::Peak, 90.0),
        ("1x512x784", Of::Read, 90.0),
        ("2x512x784", Of::Read, 90.0),
        ("8x512x784", Of::Peak, 90.0),
    ];
    for (shape, of, asked) in shapes {
        let problem = problem(shape)?;
        let (a, b, n, k) = (problem.a(), problem.b(), problem.n, problem.k);
        let mut loops = Vec::new();
        if of == Of::Read {
            loops.push(Loop::new("", || s.read(b)));
        }
        for rows in [1, 2, 3, 4, 6, 8, k] {
            macro_rules! vectors {
                ($m:literal: $($w:literal)+) => {{
                    $(let mut c = problem.output();
                    c.get_mut().fill(0.0);
                    let name = match rows {
                        1 => format!("B in order, {} vectors at once", $w),
                        _ if rows == k => format!("{} columns of B after the other", $w * 16),
                        _ => format!("{} columns of {rows} rows of B after the other", $w * 16),
                    };
                    loops.push(Loop::new(name, move || s.few_rows::<$m, $w>(a, b, c.get_mut(), n, rows)));)+
                }};
            }
            match problem.m {
                1 => vectors!(1: 4 8 16),
                2 => vectors!(2: 2 4 8),
                3 => vectors!(3: 2 4 8),
                _ => vectors!(8: 1 2),
            }
        }
        product(args, shape, &problem, (of, Some(asked), Loops::Ways), loops)?;
    }
    Ok(())
}

/// Columns of B that are transposed on the way, and chains.
fn columns(s: Avx512, args: &Args) -> Result<(), Failure> {
    for shape in ["64x1x784", "1x512x784 nt", "1000x1x1000"] {
        let problem = problem(shape)?;
        // Of the two, it is the columns that lie in the larger one.
        let (a, b) = (problem.a(), problem.b());
        let columns = if a.len() > b.len() { a } else { b };
        let (near, k) = (&vec![0.5; NEAR], NEAR / 48);
        let (mut c, mut c_of_halves) = ([0.0; 48], [0.0; 32]);
        let mut whole = Loop::new("columns transposed, from L1", move || s.columns(&near[..k], near, &mut c));
        let mut halves = Loop::new("columns transposed by half vectors, from L1", move || {
            s.columns_by_halves(&near[..k], &near[..32 * k], &mut c_of_halves)
        });
        whole.times = columns.len() as f64 / NEAR as f64;
        halves.times = columns.len() as f64 / (32 * k) as f64;
        product(args, shape, &problem, (Of::Peak, None, Loops::Ways), vec![whole, halves])?;
    }
    product(
        args,
        "4x4x4096",
        &problem("4x4x4096")?,
        (Of::Peak, None, Loops::Parts),
        vec![Loop::new("one chain", || s.chain(4096))],
    )
}

/// A C that is written to L3 or memory.
fn written(s: Avx512, args: &Args) -> Result<(), Failure> {
    let outer = problem("1000x1000x1")?;
    let mut c = outer.output();
    let fill = Loop::new("C written", || s.fill(c.get_mut()));
    product(args, "1000x1000x1", &outer, (Of::Peak, None, Loops::Parts), vec![fill])?;
    let problem = problem("784x512x32 tn")?;
    let mut c = problem.output();
    let tiles = Loop::new("multiply-adds in registers, C written", || s.tiles(c.get_mut(), 512, 32));
    product(args, "784x512x32 tn", &problem, (Of::Peak, Some(92.0), Loops::Parts), vec![tiles])
}

fn problem(shape: &str) -> Result<Problem, Failure> {
    Ok(Problem::new(shape.parse()?))
}

fn product(args: &Args, shape: &str, problem: &Problem, how: How, loops: Vec<Loop>) -> Result<(), Failure> {
    let mut c = Matrix::zeros(problem.m, problem.n);
    let ours: Contender = Box::new(|| {
        let (a, b) = (problem.view_a().expect("A is whole"), problem.view_b().expect("B is whole"));
        matmul(a, b, c.view_mut()).expect("the shapes fit");
    });
    show(args, shape, shape.parse::<Shape>()?.flops(), how, ours, loops);
    Ok(())
}

/// Times percycle and the loops, and prints the line of the table.
fn show(args: &Args, what: &str, flops: f64, (of, asked, are): How, ours: Contender, loops: Vec<Loop>) {
    let (mut contenders, mut facts) = (vec![ours], Vec::new());
    for Loop { name, run, times } in loops {
        contenders.push(run);
        facts.push((name, times));
    }
    let timing = race(contenders, args.rounds, LIMIT);
    let share = |contender: usize, times: f64| {
        100.0
            * median((0..timing.peaks.len()).map(|round| {
                let seconds = times * timing.seconds[contender][round];
                let least = match of {
                    Of::Peak => flops / timing.peaks[round],
                    Of::Read => timing.seconds[1][round],
                };
                least / seconds
            }))
    };
    let loops = facts.iter().enumerate().skip(usize::from(of == Of::Read));
    let loops = loops.map(|(i, (name, times))| (share(i + 1, *times), name));
    let of = if of == Of::Peak { "peak" } else { "read" };
    let asked = asked.map_or(String::new(), |asked| format!("{asked:.0}"));
    print!("{what:50}{of:>6}{asked:>7}{:>10.1}", share(0, 1.0));
    // One after the other, as long as all of them take together.
    let sum = |(before, _): (f64, _), (share, name)| (1.0 / (1.0 / before + 1.0 / share), name);
    let roof = match are {
        Loops::Sum => loops.reduce(sum),
        Loops::Ways => loops.max_by(|one, other| one.0.total_cmp(&other.0)),
        Loops::Parts => loops.min_by(|one, other| one.0.total_cmp(&other.0)),
    };
    match roof {
        Some((share, name)) => println!("{share:>7.1}  {name}"),
        None => println!(),
    }
}
