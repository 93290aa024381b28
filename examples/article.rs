//! Checks an article's example of a 2-3-1 network against what the crate computes: its worked numbers one by one, and
//! its program over many seeds.
//!
//! The article compares the inference of language models with the clock cycles of a CPU. Its section 4.3 works through
//! one forward pass, one backward pass and one update by hand; its section 5 lists a PyTorch program and what that is
//! said to print. Nothing here is bent towards the article: where it differs, the reason stands beside it.

mod common;
#[path = "article/program.rs"]
mod program;
#[path = "article/worked.rs"]
mod worked;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use common::{Failure, end};

/// Check the article's worked example and its program.
#[derive(Parser)]
#[command(name = "article", version)]
struct Settings {
    /// Networks to train with each setting, from seeds 0, 1, 2, ...
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Epochs after which a network is given up
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..))]
    most_epochs: u64,
    /// Learning rates to try with the loss that the program needs
    #[arg(
        long,
        default_value = "0.01,0.1,1,2,4,8,100",
        value_delimiter = ',',
        allow_negative_numbers = true
    )]
    rates: Vec<f32>,
    /// Folder for the plot
    #[arg(long, default_value = "target/article")]
    out: PathBuf,
}

fn main() -> ExitCode {
    end("article", run(&Settings::parse()))
}

fn run(settings: &Settings) -> Result<(), Failure> {
    println!("{}\n", percycle::build_info());
    worked::show()?;
    program::show(settings.seeds, settings.most_epochs, &settings.rates, &settings.out)
}
