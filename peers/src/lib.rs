//! What the tables have in common: how contenders are timed, what is printed above a table, and the plot.
//!
//! A figure is a ratio against something timed in the same rounds. Each round times every contender once and measures
//! the FMA peak; medians are taken over the rounds. So clocks that drift, and neighbours that steal time, fall on all.

mod facts;
pub mod nets;
pub mod ours;
pub mod plot;
pub mod problem;
mod rounds;
pub mod shapes;

pub use facts::print_facts;
pub use rounds::{Contender, Sampler, Timing, contender, median, race};

/// What a program ends with when something is wrong: a message that is printed as it is.
pub type Failure = Box<dyn std::error::Error>;

/// How a program ends: with what is wrong, if something is.
pub fn exit(result: Result<(), Failure>) -> std::process::ExitCode {
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// A progress bar over `len` steps. It draws itself only on a terminal, so a log stays clean.
pub fn progress(len: usize) -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new(len as u64);
    if let Ok(style) = indicatif::ProgressStyle::with_template("[{bar:40}] {pos}/{len} {msg} {eta} left") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}
