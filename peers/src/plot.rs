//! Ratios as points, on a logarithmic scale.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Failure;

/// Points that belong together.
pub struct Group {
    pub name: &'static str,
    pub values: Vec<f64>,
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

/// One point for each value, group after group with its name below, and a line at 1.
pub fn scatter(path: &Path, title: &str, groups: &[Group]) -> Result<(), Failure> {
    draw(path, title, groups).map_err(|error| format!("cannot draw {}: {error}", path.display()).into())
}

fn draw(path: &Path, title: &str, groups: &[Group]) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let all = || groups.iter().flat_map(|group| &group.values).map(|value| value.log2());
    let count = all().count();
    let (low, high) = (all().fold(-0.5, f64::min) - 0.4, all().fold(0.5, f64::max) + 0.1);
    let root = SVGBackend::new(path, (1120, 460)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .y_label_area_size(48)
        .build_cartesian_2d(-1.0..count as f64, low..high)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .light_line_style(WHITE)
        .y_label_formatter(&|power| format!("{:.2}", power.exp2()))
        .label_style(("sans-serif", 14))
        .draw()?;
    chart.draw_series(LineSeries::new([(-1.0, 0.0), (count as f64, 0.0)], BLACK.stroke_width(2)))?;
    let mut at = 0;
    for (group, color) in groups.iter().zip(COLORS.iter().cycle()) {
        let points: Vec<_> =
            group.values.iter().enumerate().map(|(i, value)| ((at + i) as f64, value.log2())).collect();
        let middle = at as f64 + points.len() as f64 / 2.0;
        at += points.len();
        chart.draw_series(points.into_iter().map(|point| Circle::new(point, 4, color.filled())))?;
        let style =
            ("sans-serif", 15).into_text_style(&root).color(color).pos(Pos::new(HPos::Center, VPos::Bottom));
        chart.draw_series([Text::new(group.name, (middle, low), style)])?;
    }
    root.present()
}
