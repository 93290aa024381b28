//! What the examples share: a progress bar, a plot, and numbers that read well.

// Each example uses its part.
#![allow(dead_code, unused_imports)]

mod plot;

use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
pub use plot::{Axis, Corner, Line, Panel, draw};

/// What an example ends with when something is wrong: a message that is printed as it is.
pub type Failure = Box<dyn std::error::Error>;

/// The exit code of an example, after saying what went wrong.
pub fn end(example: &str, result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{example}: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// A progress bar over `len` steps. It draws itself only on a terminal, so a log stays clean.
pub fn progress(len: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(len);
    if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:40}] {pos}/{len} {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(what);
    bar
}

/// 1234567 as `1,234,567`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
