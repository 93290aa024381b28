//! The report as a table of at most 100 columns.

use std::fmt;

use super::{Entry, Report};

/// What stands where something could not be measured, or does not exist.
const NOTHING: &str = "-";

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.heading(f)?;
        let entries = self.entries();
        if entries.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n{:<14} {:<14} {:>2} {:>5} {:>6} {:>6} {:>5} {:>4} {:>6} {:>5} {:>4} {:<8} {:>5}",
            "each time",
            "kernel",
            "th",
            "calls",
            "cycles",
            "FLOP",
            "/cyc",
            "peak",
            "bytes",
            "GB/s",
            "read",
            "bound",
            "share"
        )?;
        let mut layer = None;
        for (n, entry) in entries.iter().enumerate() {
            if n == 0 || entry.layer != layer {
                layer = entry.layer;
                match (entry.layer, entry.inputs, entry.outputs) {
                    (Some(layer), Some(inputs), Some(outputs)) => {
                        writeln!(f, "layer {layer}, {inputs} -> {outputs}")?;
                    }
                    _ => writeln!(f, "network")?,
                }
            }
            line(f, entry)?;
        }
        for entry in &entries {
            if let (Some(busy), Some(imbalance)) = (entry.busy, entry.imbalance) {
                let place = entry.layer.map_or("network".to_owned(), |layer| format!("layer {layer}"));
                let (threads, phase) = (entry.threads, entry.phase);
                writeln!(
                    f,
                    "{place} {phase}: {threads} threads, {} busy, the longest {} over the mean",
                    percent(busy),
                    percent(imbalance)
                )?;
            }
        }
        Ok(())
    }
}

impl Report {
    fn heading(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = self.seconds / self.calls.max(1) as f64;
        write!(f, "calls   {}", self.calls)?;
        if self.calls > 0 {
            write!(f, ", {}s each", si(each))?;
            if let Some(clock) = self.machine.clock {
                write!(f, ", {} cycles", si(each * clock.hertz))?;
            }
        }
        match self.machine.clock {
            Some(clock) => {
                let drift = clock.drift * 1e2;
                writeln!(f, "\nclock   {clock}, drift {drift:+.1} %")?;
            }
            None => writeln!(f, "\nclock   unknown: no cycles are stated")?,
        }
        if self.machine.peaks.is_empty() {
            writeln!(f, "peak    unknown: no share of it is stated")?;
        }
        for peak in &self.machine.peaks {
            write!(f, "peak    {} of one core: {}FLOP/s", peak.isa, si(peak.flop_per_second))?;
            match self.machine.clock {
                Some(clock) => writeln!(f, ", {:.1} in a cycle", peak.flop_per_second / clock.hertz)?,
                None => writeln!(f)?,
            }
        }
        match self.level() {
            None => writeln!(f, "read    bandwidths unknown: no share of them is stated")?,
            Some(from) => {
                write!(f, "read    by one core:")?;
                for level in &self.machine.levels {
                    write!(f, " {} {:.0} GB/s,", level.name, level.bytes_per_second / 1e9)?;
                }
                writeln!(f, " and a call touches {}B: {}", si(self.footprint as f64), from.name)?;
            }
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, entry: &Entry) -> fmt::Result {
    let or_nothing = |text: Option<String>| text.unwrap_or_else(|| NOTHING.to_owned());
    let positive = |x: f64| (x > 0.0).then_some(x);
    writeln!(
        f,
        "  {:<12} {:<14} {:>2} {:>5} {:>6} {:>6} {:>5} {:>4} {:>6} {:>5} {:>4} {:<8} {:>4.1}%",
        entry.phase,
        entry.kernel.as_deref().unwrap_or(NOTHING),
        entry.threads,
        short(entry.calls),
        or_nothing(entry.cycles.map(si)),
        or_nothing(positive(entry.flop).map(si)),
        or_nothing(entry.flop_per_cycle.map(|flop| format!("{flop:.1}"))),
        or_nothing(entry.peak_share.map(percent)),
        or_nothing(positive(entry.bytes).map(si)),
        or_nothing(positive(entry.bytes_per_second).map(|bytes| format!("{:.1}", bytes / 1e9))),
        or_nothing(entry.bandwidth_share.map(percent)),
        entry.bound.map_or(NOTHING, |bound| bound.name()),
        entry.share * 1e2,
    )
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 1e2)
}

/// A count in at most 5 characters.
fn short(n: u64) -> String {
    match n {
        0..100_000 => n.to_string(),
        100_000..10_000_000 => format!("{}k", n / 1000),
        _ => format!("{}M", n / 1_000_000),
    }
}

/// Four digits and the letter of the power of a thousand: `812.3k`, `5.420m`.
fn si(x: f64) -> String {
    const LETTERS: [&str; 8] = ["n", "u", "m", "", "k", "M", "G", "T"];
    if x == 0.0 || !x.is_finite() {
        return format!("{x:.0}");
    }
    let mut power = (x.abs().log10() / 3.0).floor().clamp(-3.0, 4.0);
    if (x / 1000_f64.powf(power)).abs() >= 999.95 && power < 4.0 {
        power += 1.0;
    }
    let digits = x / 1000_f64.powf(power);
    let letter = LETTERS[(power + 3.0) as usize];
    match digits.abs() {
        // Whole things do not come in fractions when there are few of them.
        _ if power == 0.0 && x.fract() == 0.0 => format!("{digits:.0}"),
        ..9.9995 => format!("{digits:.3}{letter}"),
        ..99.995 => format!("{digits:.2}{letter}"),
        _ => format!("{digits:.1}{letter}"),
    }
}
