//! The table, in colours where a terminal shows it.

use anstyle::{AnsiColor, Style};
use percycle::profile::Report;

/// Prints the report. Whatever is not a terminal gets plain text, and so does whoever sets `NO_COLOR`.
pub fn print(report: &Report) {
    for line in report.to_string().lines() {
        let style = style(line);
        anstream::println!("{style}{line}{style:#}");
    }
}

/// Headings are bold, phases that compute bounds are green, those that overhead bounds yellow, those of data cyan.
fn style(line: &str) -> Style {
    let color = |color: AnsiColor| Style::new().fg_color(Some(color.into()));
    if !line.starts_with("  ") {
        return if line.starts_with("layer") || line == "network" || line.starts_with("each") {
            Style::new().bold()
        } else {
            Style::new()
        };
    }
    match line.split_whitespace().rev().nth(1) {
        Some("compute") => color(AnsiColor::Green),
        Some("overhead") => color(AnsiColor::Yellow),
        Some("L1" | "L2" | "L3" | "memory") => color(AnsiColor::Cyan),
        _ => Style::new(),
    }
}
