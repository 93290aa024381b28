//! The guard: ratios measured in interleaved rounds, held against the floors in `benches/floors.toml`.
//!
//! `cargo bench --bench guard` measures every line; `-- --quick` those of one thread, in fewer rounds and with a tenth less
//! asked for (several threads need as many idle cores, which a machine that others use does not promise); `-- --only TEXT`
//! those whose name holds the text. What is below its floor is measured again when all others have been, and after a
//! while, four times at most: disturbances pass, and a loss stays. Some do not pass: a neighbour on the same physical core
//! takes instructions away, and kernels that need many fall below their share of a peak that needs few. So a witness that no
//! change of percycle can slow, matrixmultiply at 256 cubed, is timed in the same rounds; what fell while the witness was
//! slow as well is listed and not judged. Fails with a table of what fell. Run as a test it reads the file and runs everything
//! once.

mod common;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use common::Product;
use common::nets::{Net, products, trainer};
use percycle::profile::{self, read_bandwidth};
use percycle::{Isa, build_info, fma_peak};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Floors {
    /// The kinds of CPU that floors are known for: a name, and vendor, family and model as Linux tells them.
    cpus: HashMap<String, String>,
    /// The share of the FMA peak that the witness reaches on a quiet machine.
    witness: HashMap<String, f64>,
    product: Vec<ProductFloors>,
    step: Vec<Step>,
}

/// A floor for each kind of CPU; `any` for those without one of their own.
type Floor = HashMap<String, f64>;

/// A product of m x k and k x n: `nn` both row-major, `nt` B transposed, `tn` A transposed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProductFloors {
    shape: [usize; 3],
    pass: String,
    isa: Option<String>,
    #[serde(default = "one")]
    threads: usize,
    /// The share of the FMA peak of its threads.
    peak: Option<Floor>,
    /// How many times as fast as matrixmultiply, on one thread.
    matrixmultiply: Option<Floor>,
    /// The time of the product over its time with a bias and ReLU, with nothing taken off.
    layer: Option<Floor>,
    /// The share of the bandwidth with which one core reads as many bytes as B has: how fast B is read by few rows.
    read: Option<Floor>,
}

/// A training step.
#[derive(Deserialize)]
struct Step {
    #[serde(flatten)]
    net: Net,
    /// The time of the step's products alone over the time of the step.
    products: Floor,
    /// The time of the step over its time while it is recorded: what is promised, with nothing taken off.
    unwatched: Option<Floor>,
}

/// One line of the file.
enum Case<'a> {
    Product(&'a ProductFloors),
    Step(&'a Step),
}

impl Case<'_> {
    fn name(&self) -> String {
        match self {
            Case::Product(ProductFloors { shape: [m, n, k], pass, isa, threads, .. }) => {
                let isa = isa.as_deref().unwrap_or("");
                format!("product {pass} {m}x{n}x{k} {threads} thread {isa}")
            }
            Case::Step(step) => format!("step {}", step.net),
        }
    }
}

/// The kind of this CPU.
fn kind(floors: &Floors) -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
        line.and_then(|line| line.split(':').nth(1)).unwrap_or("?").trim().to_string()
    };
    let cpu = [field("vendor_id"), field("cpu family"), field("model")].join(" ");
    let known = floors.cpus.iter().find(|(_, id)| **id == cpu);
    let kind = known.map_or("any", |(name, _)| name.as_str());
    println!("floors of: {kind} (this CPU is {cpu})");
    kind.to_string()
}

fn one() -> usize {
    1
}

/// Seconds of one call of `work`, from enough calls to take about `aim` seconds.
struct Timed<'a> {
    work: Box<dyn FnMut() + Send + 'a>,
    calls: usize,
}

impl<'a> Timed<'a> {
    fn new(aim: f64, mut work: impl FnMut() + Send + 'a) -> Timed<'a> {
        let mut calls = 1;
        loop {
            let start = Instant::now();
            (0..calls).for_each(|_| work());
            let seconds = start.elapsed().as_secs_f64();
            if seconds >= aim / 2.0 || aim == 0.0 {
                return Timed { work: Box::new(work), calls };
            }
            calls *= 2;
        }
    }

    fn seconds(&mut self) -> f64 {
        let start = Instant::now();
        (0..self.calls).for_each(|_| (self.work)());
        start.elapsed().as_secs_f64() / self.calls as f64
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One figure and its floor.
struct Figure {
    name: String,
    of: &'static str,
    measured: f64,
    floor: f64,
    /// The witness's share of the FMA peak in the same rounds.
    witness: f64,
}

/// The work that no change of percycle can slow.
struct Witness {
    timed: Timed<'static>,
    flops: f64,
    seen: Vec<f64>,
}

impl Witness {
    fn new(aim: f64) -> Witness {
        let mut product = Product::new((256, 256, 256));
        let flops = product.flops() as f64;
        Witness { timed: Timed::new(aim, move || product.matrixmultiply()), flops, seen: Vec::new() }
    }

    /// Works once, in a round in which the FMA peak of one core was `peak`.
    fn look(&mut self, peak: f64) {
        self.seen.push(self.flops / self.timed.seconds() / peak);
    }
}

struct Guard {
    kind: String,
    rounds: usize,
    /// What floors are multiplied by.
    slack: f64,
    /// Seconds of one sample.
    aim: f64,
    figures: Vec<Figure>,
}

impl Guard {
    fn add(
        &mut self,
        name: &str,
        of: &'static str,
        ratios: &mut [f64],
        (floor, slack): (&Floor, f64),
        witness: &mut Witness,
    ) {
        if let Some(floor) = floor.get(&self.kind).or(floor.get("any")) {
            self.figures.push(Figure {
                name: name.into(),
                of,
                measured: median(ratios),
                floor: floor * slack,
                witness: median(&mut witness.seen),
            });
        }
    }

    fn product(&mut self, case: &ProductFloors, name: String) {
        let [m, n, k] = case.shape;
        let (a_transposed, b_transposed) = match case.pass.as_str() {
            "nn" => (false, false),
            "nt" => (false, true),
            "tn" => (true, false),
            other => panic!("floors.toml: no pass is called {other}"),
        };
        let isa = match &case.isa {
            None => Isa::current(),
            Some(name) => match Isa::available().find(|isa| isa.name() == name) {
                Some(isa) => isa,
                None => return println!("{name}: this CPU lacks it"),
            },
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(case.threads).build().expect("threads start");
        let product = || Product::stored((m, n, k), a_transposed, b_transposed);
        pool.install(|| {
            isa.pin(|| {
                let mut ours = product();
                let flops = ours.flops() as f64;
                let mut percycle = Timed::new(self.aim, move || ours.percycle());
                let mut peer = case.matrixmultiply.as_ref().map(|_| {
                    let mut theirs = product();
                    Timed::new(self.aim, move || theirs.matrixmultiply())
                });
                let mut layer = case.layer.as_ref().map(|_| {
                    let mut layer = product();
                    Timed::new(self.aim, move || layer.layer())
                });
                let (mut of_peak, mut of_peer) = (Vec::new(), Vec::new());
                let (mut of_layer, mut of_read) = (Vec::new(), Vec::new());
                let bytes = size_of::<f32>() * k * n;
                let mut witness = Witness::new(self.aim);
                for _ in 0..self.rounds {
                    let peak = fma_peak(isa);
                    witness.look(peak);
                    let seconds = percycle.seconds();
                    of_peak.push(flops / seconds / (peak * case.threads as f64));
                    of_peer.extend(peer.as_mut().map(|peer| peer.seconds() / seconds));
                    of_layer.extend(layer.as_mut().map(|layer| seconds / layer.seconds()));
                    if case.read.is_some() {
                        let bandwidth = read_bandwidth(isa, bytes).expect("memory holds another B");
                        of_read.push(bytes as f64 / seconds / bandwidth);
                    }
                }
                // All of what is promised of a layer, unless nothing is judged.
                for (floor, of, ratios, slack) in [
                    (&case.peak, "FMA peak", &mut of_peak, self.slack),
                    (&case.matrixmultiply, "matrixmultiply", &mut of_peer, self.slack),
                    (&case.read, "read bandwidth", &mut of_read, self.slack),
                    (&case.layer, "it as a layer", &mut of_layer, self.slack.ceil()),
                ] {
                    if let Some(floor) = floor {
                        self.add(&name, of, ratios, (floor, slack), &mut witness);
                    }
                }
            });
        });
    }

    fn step(&mut self, case: &Step, name: String) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("threads start");
        pool.install(|| {
            let mut step = Timed::new(self.aim, trainer(&case.net));
            let mut alone = Timed::new(self.aim, products(&case.net));
            let mut witness = Witness::new(self.aim);
            let round = |_| {
                witness.look(fma_peak(Isa::current()));
                alone.seconds() / step.seconds()
            };
            let mut ratios: Vec<f64> = (0..self.rounds).map(round).collect();
            self.add(&name, "its products", &mut ratios, (&case.products, self.slack), &mut witness);
            if let Some(floor) = &case.unwatched {
                let mut seconds = |watched: bool| {
                    if watched { profile::kernel_of(|| step.seconds()).0 } else { step.seconds() }
                };
                // It is of single steps, so many more of them, next to each other.
                let ratio = |_| seconds(false) / seconds(true);
                let mut ratios: Vec<f64> = (0..20 * self.rounds).map(ratio).collect();
                // All of it, unless nothing is judged.
                self.add(&name, "it watched", &mut ratios, (floor, self.slack.ceil()), &mut witness);
            }
        });
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let flag = |name: &str| arguments.iter().position(|argument| argument == name);
    let value = |name: &str| flag(name).and_then(|at| arguments.get(at + 1));
    let bench = flag("--bench").is_some();
    let quick = flag("--quick").is_some();
    let rounds = value("--rounds").map(|n| n.parse().expect("--rounds takes a number"));
    let rounds = rounds.unwrap_or(if !bench {
        1
    } else if quick {
        11
    } else {
        51
    });
    let only = value("--only").map_or("", |text| text);
    let floors: Floors = toml::from_str(include_str!("floors.toml")).expect("floors.toml is well-formed");

    println!("{}", build_info());
    let kind = kind(&floors);
    let slack = if !bench {
        0.0
    } else if quick {
        0.9
    } else {
        1.0
    };
    let mut guard = Guard { kind, rounds, slack, aim: if bench { 1e-3 } else { 0.0 }, figures: Vec::new() };
    let products = floors.product.iter().filter(|case| !quick || case.threads == 1).map(Case::Product);
    let mut cases: Vec<Case> = products.chain(floors.step.iter().map(Case::Step)).collect();
    cases.retain(|case| case.name().contains(only));
    // Without a witness for this kind of CPU, everything is judged.
    let quiet = if bench { floors.witness.get(&guard.kind).map_or(0.0, |share| 0.95 * share) } else { 0.0 };
    let (mut fell, mut disturbed) = (Vec::new(), Vec::new());
    for attempt in 0..5 {
        if attempt > 0 {
            println!("again, as {} fell:", cases.len());
            std::thread::sleep(Duration::from_secs(5 * attempt));
        }
        fell.clear();
        disturbed.clear();
        cases.retain(|case| {
            match case {
                Case::Product(floors) => guard.product(floors, case.name()),
                Case::Step(step) => guard.step(step, case.name()),
            }
            let mut holds = true;
            for Figure { name, of, measured, floor, witness } in guard.figures.drain(..) {
                let line = format!("{name:<56} {measured:6.3} of {of:<14} floor {floor:.3}");
                let below = measured < floor;
                let slow = witness < quiet;
                let what = match (below, slow) {
                    (false, _) => "",
                    (true, false) => "  FELL",
                    (true, true) => "  fell, as the witness did",
                };
                println!("{line}{what}");
                holds &= !below;
                if below {
                    (if slow { &mut disturbed } else { &mut fell }).push(line);
                }
            }
            !holds
        });
        if cases.is_empty() {
            return println!("nothing fell");
        }
    }
    if !disturbed.is_empty() {
        println!("not judged, as matrixmultiply was slow too:\n{}", disturbed.join("\n"));
    }
    if !fell.is_empty() {
        eprintln!("below their floors:\n{}", fell.join("\n"));
        std::process::exit(1);
    }
}
