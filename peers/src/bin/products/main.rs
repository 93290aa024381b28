//! Products of percycle and of its peers, timed in the same rounds: a table, a CSV file and a plot.

mod blas;
mod check;
mod crates;
mod report;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use percycle_peers::problem::Problem;
use percycle_peers::{Contender, Failure, exit, print_facts, progress, race, shapes};

use crate::blas::Blas;
use crate::crates::{Faer, Gemm, Gemmkit, Matrixmultiply, Peer, Percycle, Rten};
use crate::report::Row;

/// Times percycle's products and those of its peers, shape by shape, in interleaved rounds.
#[derive(Parser)]
struct Args {
    /// Every fifth shape, in 5 rounds.
    #[arg(long)]
    quick: bool,
    /// Only shapes whose description contains this text, such as "square", "layer 64x" or " nt".
    #[arg(long, default_value = "")]
    filter: String,
    /// Rounds for each shape, cut short after a second.
    #[arg(long)]
    rounds: Option<usize>,
    /// Threads that percycle and every peer may use.
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
    /// A BLAS library to load; may be given several times. Without it, those that the loader finds.
    #[arg(long)]
    blas: Vec<PathBuf>,
    /// Where `products.csv` and `products.svg` are written.
    #[arg(long, default_value = "out")]
    out: PathBuf,
}

/// What BLAS libraries are called on Linux.
const USUAL_NAMES: [&str; 3] = ["libopenblas.so.0", "libmkl_rt.so.3", "libmkl_rt.so.2"];

/// A shape that takes long gets fewer rounds, so that the whole grid takes two minutes.
const LIMIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), Failure> {
    let threads = args.threads.get();
    print_facts(threads);
    let peers = peers(args.threads, &args.blas)?;
    // After the peers, one of which wants to be made before there are threads. The pool in which all work that uses rayon runs; this thread is one of its workers.
    rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build_global()?;
    let step = if args.quick { 5 } else { 1 };
    let rounds = args.rounds.unwrap_or(if args.quick { 5 } else { 15 });
    let grid: Vec<_> = shapes::grid()
        .into_iter()
        .filter(|shape| shape.to_string().contains(&args.filter))
        .step_by(step)
        .collect();
    let bar = progress(grid.len());
    let mut rows = Vec::new();
    for shape in grid {
        bar.set_message(shape.to_string());
        let problem = Problem::new(shape);
        check::check(&problem, &peers).map_err(|error| format!("{shape}: {error}"))?;
        let mut outputs: Vec<_> = peers.iter().map(|_| problem.output()).collect();
        let contenders: Vec<Contender> = peers
            .iter()
            .zip(&mut outputs)
            .map(|(peer, c)| Box::new(|| peer.multiply(&problem, c.get_mut())) as Contender)
            .collect();
        let timing = race(contenders, rounds, LIMIT);
        rows.push(Row::new(shape, &timing, threads));
        bar.inc(1);
    }
    bar.finish_and_clear();
    if rows.is_empty() {
        return Err("no shape matches the filter".into());
    }
    let names: Vec<_> = peers.iter().map(|peer| peer.name()).collect();
    report::print(&names, &rows);
    std::fs::create_dir_all(&args.out)?;
    report::write_csv(&args.out.join("products.csv"), &names, &rows)?;
    report::plot(&args.out.join("products.svg"), threads, &rows)?;
    eprintln!("Wrote products.csv and products.svg to {}", args.out.display());
    Ok(())
}

/// percycle first, then the peers that there are.
fn peers(threads: NonZeroUsize, blas: &[PathBuf]) -> Result<Vec<Box<dyn Peer>>, Failure> {
    let many = threads.get() > 1;
    let n = threads.get();
    let mut peers: Vec<Box<dyn Peer>> = vec![
        Box::new(Percycle),
        Box::new(Matrixmultiply::new(n)),
        Box::new(Gemm(if many { gemm::Parallelism::Rayon(n) } else { gemm::Parallelism::None })),
        Box::new(Faer(if many { faer::Par::Rayon(threads) } else { faer::Par::Seq })),
        Box::new(Rten(Default::default())),
        Box::new(Gemmkit(if many { gemmkit::Parallelism::Rayon(n) } else { gemmkit::Parallelism::Serial })),
    ];
    for path in blas {
        let library = Blas::load(path, n).map_err(|error| format!("{}: {error}", path.display()))?;
        peers.push(Box::new(library));
    }
    if blas.is_empty() {
        let found = USUAL_NAMES.iter().filter_map(|name| Blas::load(Path::new(name), n).ok());
        peers.extend(found.map(|library| Box::new(library) as Box<dyn Peer>));
    }
    Ok(peers)
}
