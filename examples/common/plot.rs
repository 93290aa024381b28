//! Line charts side by side in one SVG file.

use std::path::Path;

pub use plotters::chart::SeriesLabelPosition as Corner;
use plotters::prelude::*;

use super::Failure;

/// A chart with its axes and lines.
pub struct Panel {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
    /// Where the legend hides no line.
    pub legend: Corner,
}

/// A direction of a chart: what it shows, and whether in powers of ten.
pub struct Axis {
    pub name: &'static str,
    pub log: bool,
}

impl Axis {
    /// Where a value stands on the axis. What has no logarithm has no place.
    fn place(&self, value: f64) -> Option<f64> {
        let at = if self.log { value.log10() } else { value };
        at.is_finite().then_some(at)
    }

    /// What is written at a place: on a logarithmic axis only whole powers of ten.
    fn label(&self, at: f64) -> String {
        if !self.log {
            return format!("{}", (at * 1e6).round() / 1e6);
        }
        let power = at.round();
        if (at - power).abs() > 1e-6 {
            return String::new();
        }
        match power as i32 {
            power @ -2..=0 => format!("{}", 10_f64.powi(power)),
            power @ 1..=5 => super::thousands(10_u64.pow(power as u32)),
            power => format!("1e{power}"),
        }
    }
}

/// A line of a chart. Lines without a name do not stand in the legend.
pub struct Line {
    pub name: Option<String>,
    pub points: Vec<(f64, f64)>,
    pub color: usize,
    pub width: u32,
}

/// Colours that stay apart for readers who see few of them (Okabe and Ito, 2008).
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// Draws the panels side by side.
pub fn draw(path: &Path, title: &str, panels: &[Panel]) -> Result<(), Failure> {
    let width = 640 * panels.len() as u32;
    let root = SVGBackend::new(path, (width, 480)).into_drawing_area();
    let fail = |error: String| format!("cannot draw {}: {error}", path.display());
    root.fill(&WHITE).map_err(|error| fail(error.to_string()))?;
    let below = root.titled(title, ("sans-serif", 22)).map_err(|error| fail(error.to_string()))?;
    for (area, panel) in below.split_evenly((1, panels.len())).iter().zip(panels) {
        draw_panel(area, panel).map_err(|error| fail(error.to_string()))?;
    }
    root.present().map_err(|error| fail(error.to_string()))?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw_panel<'a>(area: &Area<'a>, panel: &Panel) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let placed: Vec<Vec<(f64, f64)>> = panel
        .lines
        .iter()
        .map(|line| {
            let place = |&(x, y): &(f64, f64)| Some((panel.x.place(x)?, panel.y.place(y)?));
            line.points.iter().filter_map(place).collect()
        })
        .collect();
    let xs = range(placed.iter().flatten().map(|point| point.0), 0.0);
    let ys = range(placed.iter().flatten().map(|point| point.1), 0.05);
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 17))
        .margin(12)
        .margin_right(36)
        .x_label_area_size(42)
        .y_label_area_size(64)
        .build_cartesian_2d(xs, ys)?;
    chart
        .configure_mesh()
        .x_desc(panel.x.name)
        .y_desc(panel.y.name)
        .light_line_style(WHITE)
        .x_label_formatter(&|at| panel.x.label(*at))
        .y_label_formatter(&|at| panel.y.label(*at))
        .label_style(("sans-serif", 14))
        .draw()?;
    for (line, points) in panel.lines.iter().zip(placed) {
        let color = COLORS[line.color % COLORS.len()];
        let series = chart.draw_series(LineSeries::new(points, color.stroke_width(line.width)))?;
        if let Some(name) = &line.name {
            let key = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2));
            series.label(name).legend(key);
        }
    }
    chart
        .configure_series_labels()
        .position(panel.legend.clone())
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()
}

/// From the least to the greatest value, with a margin of that share on both sides.
fn range(values: impl Iterator<Item = f64>, margin: f64) -> std::ops::Range<f64> {
    let (low, high) = values
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    // A chart without points, or with all of them at one height, still needs an axis of some length.
    if low > high {
        return 0.0..1.0;
    }
    let margin = if high > low { (high - low) * margin } else { 0.5 };
    low - margin..high + margin
}
