//! Two pictures: where the cycles of a step go, and how far each phase is from what the machine does at most.

use std::path::Path;

use percycle::profile::{Entry, Phase, Report};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::common::Failure;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// A colour for each phase, and its place in the key. They stay apart for readers who see few colours (Okabe and Ito,
/// 2008).
const PHASES: [(Phase, RGBColor); 6] = [
    (Phase::Forward, RGBColor(0, 114, 178)),
    (Phase::Delta, RGBColor(230, 159, 0)),
    (Phase::Descend, RGBColor(0, 158, 115)),
    (Phase::Loss, RGBColor(204, 121, 167)),
    (Phase::Checks, RGBColor(86, 180, 233)),
    (Phase::Other, RGBColor(150, 150, 150)),
];

fn color(phase: Phase) -> RGBColor {
    PHASES.iter().find(|(other, _)| *other == phase).map_or(BLACK, |(_, color)| *color)
}

/// What can be read on this colour.
fn on(RGBColor(r, g, b): RGBColor) -> &'static RGBColor {
    // The luminance that video standards take of the three (ITU-R BT.601).
    let light = 0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(b);
    if light < 128.0 { &WHITE } else { &BLACK }
}

/// What a row of bars or a point is called.
fn place(entry: &Entry) -> String {
    entry.layer.map_or("network".to_owned(), |layer| format!("layer {layer}"))
}

fn text(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&BLACK)
}

/// A bar for each layer of each network, its length the share of the step, its parts the phases.
pub fn bars(path: &Path, reports: &[(&str, &Report)]) -> Result<(), Failure> {
    let rows: usize = reports.iter().map(|(_, report)| places(&report.entries()).len()).sum();
    let height = 90 + 50 * reports.len() as u32 + 34 * rows as u32;
    let root = SVGBackend::new(path, (900, height)).into_drawing_area();
    let fail =
        |error: DrawingAreaErrorKind<std::io::Error>| format!("cannot draw {}: {error}", path.display());
    draw_bars(&root, reports).map_err(fail)?;
    Ok(())
}

/// The layers, and the network, in the order of the table.
fn places(entries: &[Entry]) -> Vec<String> {
    let mut places: Vec<String> = entries.iter().map(place).collect();
    places.dedup();
    places
}

fn draw_bars(root: &Area, reports: &[(&str, &Report)]) -> Drawn {
    const LEFT: i32 = 90;
    const WIDTH: f64 = 720.0;
    root.fill(&WHITE)?;
    root.draw(&Text::new("Where the cycles of a training step go", (20, 14), text(20)))?;
    let mut x = LEFT;
    for (phase, color) in PHASES {
        root.draw(&Rectangle::new([(x, 48), (x + 14, 62)], color.filled()))?;
        root.draw(&Text::new(phase.name(), (x + 20, 48), text(14)))?;
        x += 40 + 9 * phase.name().len() as i32;
    }
    let mut y = 82;
    for (name, report) in reports {
        let entries = report.entries();
        let each = report.seconds / report.calls.max(1) as f64;
        let step = match report.machine.clock {
            Some(clock) => format!("{name}: {:.0} thousand cycles", each * clock.hertz / 1e3),
            None => format!("{name}: {:.0} microseconds", each * 1e6),
        };
        root.draw(&Text::new(step, (20, y), text(16)))?;
        y += 28;
        let places = places(&entries);
        // The longest bar fills the width.
        let total = |at: &String| -> f64 {
            entries.iter().filter(|entry| place(entry) == *at).map(|entry| entry.share).sum()
        };
        let longest = places.iter().map(total).fold(1e-9, f64::max);
        for at in &places {
            root.draw(&Text::new(at.as_str(), (20, y + 5), text(14)))?;
            let mut from = f64::from(LEFT);
            for entry in entries.iter().filter(|entry| place(entry) == *at) {
                let to = from + entry.share / longest * WIDTH;
                let area = [(from as i32, y), (to as i32, y + 24)];
                root.draw(&Rectangle::new(area, color(entry.phase).filled()))?;
                let label = format!("{:.0} %", entry.share * 1e2);
                if to - from > 45.0 {
                    let style = text(13).color(on(color(entry.phase)));
                    root.draw(&Text::new(label, (from as i32 + 6, y + 5), style))?;
                }
                from = to;
            }
            let label = format!("{:.1} %", total(at) * 1e2);
            root.draw(&Text::new(label, (from as i32 + 6, y + 5), text(13)))?;
            y += 34;
        }
        y += 22;
    }
    root.present()
}

/// FLOP in a second by FLOP for each byte: each phase that is a product, under the roofs of compute and of each cache.
pub fn roofline(path: &Path, reports: &[(&str, &Report)]) -> Result<(), Failure> {
    let root = SVGBackend::new(path, (620 * reports.len() as u32, 560)).into_drawing_area();
    let fail =
        |error: DrawingAreaErrorKind<std::io::Error>| format!("cannot draw {}: {error}", path.display());
    root.fill(&WHITE).map_err(fail)?;
    for (area, (name, report)) in root.split_evenly((1, reports.len())).iter().zip(reports) {
        draw_roofline(area, name, report).map_err(fail)?;
    }
    root.present().map_err(fail)?;
    Ok(())
}

/// The right end of a roofline's axis over where its labels begin: room for the longest of them.
const BESIDE: f64 = 8.0;

fn draw_roofline(area: &Area, name: &str, report: &Report) -> Drawn {
    let entries = report.entries();
    let points: Vec<(&Entry, f64, f64)> = entries
        .iter()
        .filter(|entry| entry.flop > 0.0 && entry.seconds > 0.0)
        .map(|entry| {
            (entry, entry.flop / entry.bytes, entry.flop / entry.seconds / entry.threads as f64 / 1e9)
        })
        .collect();
    let peak = report.machine.peaks.iter().map(|peak| peak.flop_per_second / 1e9).fold(f64::NAN, f64::max);
    let top = points.iter().map(|point| point.2).fold(peak, f64::max) * 2.0;
    let least = points.iter().map(|point| point.2).fold(top, f64::min) / 2.0;
    let right = points.iter().map(|point| point.1).fold(1.0, f64::max) * 2.0 * BESIDE;
    let left = points.iter().map(|point| point.1).fold(1.0, f64::min) / 4.0;
    let mut chart = ChartBuilder::on(area)
        .caption(name, ("sans-serif", 17))
        .margin(12)
        .margin_right(30)
        .x_label_area_size(48)
        .y_label_area_size(64)
        .build_cartesian_2d((left..right).log_scale(), (least..top).log_scale())?;
    // Lines and labels of our own: those of a logarithmic axis come and go with its range, some twice.
    chart
        .configure_mesh()
        .disable_mesh()
        .x_desc("FLOP for each byte of operands")
        .y_desc("GFLOP/s of one core")
        .x_label_formatter(&|_| String::new())
        .y_label_formatter(&|_| String::new())
        .set_all_tick_mark_size(0)
        .label_style(("sans-serif", 14))
        .draw()?;
    let faint = RGBColor(228, 228, 228);
    for x in ticks(left, right / BESIDE) {
        chart.draw_series(LineSeries::new([(x, least), (x, top)], faint))?;
        let style = text(14).pos(Pos::new(HPos::Center, VPos::Top));
        chart.draw_series([EmptyElement::at((x, least)) + Text::new(x.to_string(), (0, 6), style)])?;
    }
    for y in ticks(least, top) {
        chart.draw_series(LineSeries::new([(left, y), (right / BESIDE, y)], faint))?;
        let style = text(14).pos(Pos::new(HPos::Right, VPos::Center));
        chart.draw_series([EmptyElement::at((left, y)) + Text::new(y.to_string(), (-6, 0), style)])?;
    }
    let grey = RGBColor(90, 90, 90);
    if peak.is_finite() {
        chart.draw_series(LineSeries::new([(left, peak), (right, peak)], BLACK.stroke_width(2)))?;
        let mut label = format!("FMA peak {peak:.0} GFLOP/s; reads in GB/s:");
        for level in &report.machine.levels {
            label += &format!(" {} {:.0}", level.name, level.bytes_per_second / 1e9);
        }
        chart.draw_series([Text::new(label, (left * 1.1, peak * (top / least).powf(0.04)), text(13))])?;
    }
    for (n, level) in report.machine.levels.iter().enumerate() {
        let gigabytes = level.bytes_per_second / 1e9;
        // A roof ends where it meets the peak or leaves the picture.
        let (from, to) = (left.max(least / gigabytes), right.min(top.min(peak) / gigabytes));
        if from >= to {
            continue;
        }
        let line = [(from, from * gigabytes), (to, to * gigabytes)];
        // The level that operands come from is drawn stronger.
        let width = if report.level() == Some(level) { 2 } else { 1 };
        chart.draw_series(LineSeries::new(line, grey.stroke_width(width)))?;
        // Each name lower on its roof than the one before: roofs may be close to each other.
        let at = from * (to / from).powf(0.85 - 0.16 * n as f64);
        let style = text(13).color(&grey).pos(Pos::new(HPos::Center, VPos::Center));
        let half = 3 + 4 * level.name.len() as i32;
        chart.draw_series([EmptyElement::at((at, at * gigabytes))
            + Rectangle::new([(-half, -8), (half, 8)], WHITE.filled())
            + Text::new(level.name, (0, 0), style)])?;
    }
    for (entry, x, y) in &points {
        chart.draw_series([Circle::new((*x, *y), 6, color(entry.phase).filled())])?;
    }
    // Labels in a column of their own, at the height of their points or as near as the others let them.
    let mut sorted: Vec<_> = points.iter().collect();
    sorted.sort_by(|a, b| b.2.total_cmp(&a.2));
    let (column, apart) = (right / BESIDE, (top / least).powf(0.045));
    let mut above = top;
    for (entry, x, y) in sorted {
        let at = y.min(above / apart);
        above = at;
        let ink = color(entry.phase);
        let leader = [(*x, *y), (column / 1.05, at)];
        chart.draw_series(LineSeries::new(leader, ink.mix(0.4).stroke_width(1)))?;
        let label = format!("{} {}", place(entry), entry.phase);
        let style = text(13).color(&ink).pos(Pos::new(HPos::Left, VPos::Center));
        chart.draw_series([Text::new(label, (column, at), style)])?;
    }
    Ok(())
}

/// Powers of ten, twice and five times those: what a logarithmic axis has room for.
fn ticks(from: f64, to: f64) -> Vec<f64> {
    let decades = from.log10().floor() as i32..=to.log10().ceil() as i32;
    let all = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(decade)));
    all.filter(|at| (from..=to).contains(at)).collect()
}
