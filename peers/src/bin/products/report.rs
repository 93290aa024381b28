//! What the rounds showed: table, summary, CSV, plot.

use std::collections::BTreeMap;
use std::path::Path;

use percycle_peers::plot::{Group, scatter};
use percycle_peers::{Failure, Timing, median};

use percycle_peers::shapes::Shape;

/// The figures of a shape; one value for each contender, percycle first.
pub struct Row {
    shape: Shape,
    rounds: usize,
    /// Median FLOP per second.
    speed: Vec<f64>,
    /// Median share of the peak of all the threads' cores.
    share: Vec<f64>,
    /// How many times as long as percycle it took.
    ratio: Vec<f64>,
}

impl Row {
    pub fn new(shape: Shape, timing: &Timing, threads: usize) -> Row {
        let contenders = 0..timing.seconds.len();
        let of = |figure: &dyn Fn(usize) -> f64| contenders.clone().map(figure).collect();
        Row {
            shape,
            rounds: timing.peaks.len(),
            speed: of(&|i| shape.flops() / median(timing.seconds[i].iter().copied())),
            share: of(&|i| timing.share_of_peak(i, shape.flops()) / threads as f64),
            ratio: of(&|i| timing.ratio(i, 0)),
        }
    }

    /// The peer that came closest to percycle or furthest before it, and how many times as long it took.
    fn best(&self) -> (usize, f64) {
        let peers = self.ratio.iter().copied().enumerate().skip(1);
        peers.min_by(|one, other| one.1.total_cmp(&other.1)).expect("some peers are always there")
    }
}

/// The table, the summary, and where percycle loses.
pub fn print(names: &[&str], rows: &[Row]) {
    println!(
        "\nShares of the FMA peak, in %. Ratio: time of the best peer over percycle's; above 1, percycle leads.\n"
    );
    print!("{:28}", "m x n x k, layout of A and B");
    for name in names {
        print!("{name:>15}");
    }
    println!("{:>8}  best peer", "ratio");
    for row in rows {
        print!("{:28}", row.shape.to_string());
        for share in &row.share {
            print!("{:>15.1}", 100.0 * share);
        }
        let (best, ratio) = row.best();
        println!("{ratio:>8.2}  {}", names[best]);
    }

    println!("\nGeometric means of the ratio");
    for (i, name) in names.iter().enumerate().skip(1) {
        println!("  to {name:15} {:.3}", geometric_mean(rows.iter().map(|row| row.ratio[i])));
    }
    println!("  to the best peer   {:.3}", geometric_mean(rows.iter().map(|row| row.best().1)));
    for (group, rows) in groups(rows) {
        println!(
            "    {group:8} ({:3})   {:.3}",
            rows.len(),
            geometric_mean(rows.iter().map(|row| row.best().1))
        );
    }

    let mut behind: Vec<_> = rows.iter().filter(|row| row.best().1 < 1.0).collect();
    let far = behind.iter().filter(|row| row.best().1 < 1.0 / 1.1).count();
    println!(
        "\nBehind the best peer on {} of {} shapes ({:.1} %), by more than 10 % on {far}:",
        behind.len(),
        rows.len(),
        100.0 * behind.len() as f64 / rows.len() as f64
    );
    behind.sort_by(|one, other| one.best().1.total_cmp(&other.best().1));
    for row in behind {
        let (best, ratio) = row.best();
        println!(
            "  {:28} {:5.1} % slower than {}",
            row.shape.to_string(),
            100.0 * (1.0 / ratio - 1.0),
            names[best]
        );
    }
}

/// One line for each shape and contender.
pub fn write_csv(path: &Path, names: &[&str], rows: &[Row]) -> Result<(), Failure> {
    let mut csv = csv::Writer::from_path(path)?;
    csv.write_record([
        "group",
        "m",
        "n",
        "k",
        "a_transposed",
        "b_transposed",
        "rounds",
        "contender",
        "gflops",
        "share_of_peak",
        "times_as_long_as_percycle",
    ])?;
    for row in rows {
        let Shape { group, m, n, k, a_transposed, b_transposed } = row.shape;
        for (i, name) in names.iter().enumerate() {
            csv.write_record(&[
                group.to_owned(),
                m.to_string(),
                n.to_string(),
                k.to_string(),
                a_transposed.to_string(),
                b_transposed.to_string(),
                row.rounds.to_string(),
                (*name).to_owned(),
                format!("{:.3}", row.speed[i] / 1e9),
                format!("{:.4}", row.share[i]),
                format!("{:.4}", row.ratio[i]),
            ])?;
        }
    }
    csv.flush()?;
    Ok(())
}

/// The ratio to the best peer, shape by shape.
pub fn plot(path: &Path, threads: usize, rows: &[Row]) -> Result<(), Failure> {
    let groups = groups(rows).into_iter().map(|(name, mut rows)| {
        rows.sort_by(|one, other| one.shape.flops().total_cmp(&other.shape.flops()));
        Group { name, values: rows.iter().map(|row| row.best().1).collect() }
    });
    let title = format!("Speed of percycle over the best peer, {threads} thread(s); within a group by FLOP");
    scatter(path, &title, &groups.collect::<Vec<_>>())
}

fn groups(rows: &[Row]) -> BTreeMap<&'static str, Vec<&Row>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows {
        groups.entry(row.shape.group).or_default().push(row);
    }
    groups
}

fn geometric_mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    (values.map(f64::ln).sum::<f64>() / count).exp()
}
