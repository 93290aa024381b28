//! percycle's part of the table that `scripts/frameworks.py` makes: a sample whenever a line asks for it, so that
//! frameworks of two languages are timed in the same rounds.
//!
//! `check ROW` answers with the results of the first calls, `time ROW` with the seconds of a call and the FLOP per
//! second of the FMA peak. The first weights of each row are saved in the directory that is the only argument.

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;

use percycle_peers::nets::{Net, TIMED_RATE};
use percycle_peers::ours::{CHECK_STEPS, prepare};
use percycle_peers::{Failure, Sampler, contender, exit};

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    let directory = std::env::args().nth(1).ok_or("a directory for the weights, please")?;
    let nets = Net::all()?;
    let mut stdout = std::io::stdout();
    for (row, net) in nets.iter().enumerate() {
        net.model.save(Path::new(&directory).join(format!("{row}.safetensors")))?;
        writeln!(stdout, "{net};{}", net.flops())?;
    }
    writeln!(stdout)?;
    let mut timed: Option<(usize, Sampler)> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (what, row) = line.split_once(' ').ok_or("check or time, and a row, please")?;
        let row: usize = row.parse()?;
        let net = nets.get(row).ok_or("there is no such row")?;
        if what == "check" {
            let mut call = prepare(net, net.check_rate())?;
            let results: Vec<String> = (0..CHECK_STEPS).map(|_| call().to_string()).collect();
            writeln!(stdout, "{}", results.join(" "))?;
            continue;
        }
        let sampler = match &mut timed {
            Some((at, sampler)) if *at == row => sampler,
            _ => {
                let sampler = Sampler::new(contender(prepare(net, TIMED_RATE)?));
                &mut timed.insert((row, sampler)).1
            }
        };
        sampler.settle();
        let seconds = sampler.seconds();
        writeln!(stdout, "{seconds} {}", percycle::fma_peak(percycle::Isa::current()))?;
    }
    Ok(())
}
