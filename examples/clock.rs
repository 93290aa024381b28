//! Where the cycles of training go: profiles two networks, draws what it finds, and puts numbers to the five comparisons of
//! an article that explains the inference of language models by a CPU's clock.
//!
//! `docs/clock.md` walks through what it prints.

mod common;
#[path = "clock/compare.rs"]
mod compare;
#[path = "digits/data.rs"]
mod data;
#[path = "clock/nets.rs"]
mod nets;
#[path = "clock/picture.rs"]
mod picture;
#[path = "clock/terminal.rs"]
mod terminal;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use common::{Failure, end};
use nets::{Net, profile};
use percycle::profile::Report;

/// Show where the cycles of training steps go.
#[derive(Parser)]
#[command(name = "clock", version)]
struct Settings {
    /// Steps to profile of each network
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Threads of the comparison with a pipeline
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Folder for tables, documents and pictures
    #[arg(long, default_value = "target/clock")]
    out: PathBuf,
}

fn main() -> ExitCode {
    end("clock", run(&Settings::parse()))
}

fn run(settings: &Settings) -> Result<(), Failure> {
    let out = &settings.out;
    std::fs::create_dir_all(out)
        .map_err(|error| format!("cannot make the folder {}: {error}", out.display()))?;
    println!("{}", percycle::build_info());
    let nets = [Net::digits()?, Net::wide()?];
    let mut reports = Vec::new();
    for net in &nets {
        println!("\n{}: one training step, one thread\n", net.name.to_uppercase());
        let report = profile(net, settings.steps, 1)?;
        terminal::print(&report);
        write(out, net.file, &report)?;
        reports.push(report);
    }
    compare::show(&nets.iter().zip(&reports).collect::<Vec<_>>(), settings.steps, settings.threads)?;
    let shown: Vec<(&str, &Report)> = nets.iter().map(|net| net.name.as_str()).zip(&reports).collect();
    picture::bars(&out.join("steps.svg"), &shown)?;
    picture::roofline(&out.join("roofline.svg"), &shown)?;
    println!("\npictures, JSON and CSV: {}", out.display());
    Ok(())
}

/// The report as a JSON document and its table as CSV.
fn write(out: &Path, name: &str, report: &Report) -> Result<(), Failure> {
    let json = out.join(format!("{name}.json"));
    std::fs::write(&json, serde_json::to_string_pretty(report)?)
        .map_err(|error| format!("cannot write {}: {error}", json.display()))?;
    let mut csv = csv::Writer::from_path(out.join(format!("{name}.csv")))?;
    for entry in report.entries() {
        csv.serialize(entry)?;
    }
    csv.flush()?;
    Ok(())
}
