//! A picture of one axis: cost up, size to the right, a line for each candidate; one panel for each measure.
//!
//! Both axes are logarithmic where a line that is twice as far up is twice as dear, except that a count that begins
//! with 0 is not. The background is opaque, so that the picture reads the same on a light and on a dark page.

use std::path::Path;

use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::coord::Shift;
use plotters::prelude::*;

/// A line: its name, and its points.
pub struct Line {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

/// One measure of all candidates.
pub struct Panel {
    /// With the unit.
    pub measure: &'static str,
    pub lines: Vec<Line>,
}

const PANEL: (u32, u32) = (520, 400);
const TITLE: u32 = 44;
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
/// Told apart by people who see few colours, too (Okabe and Ito).
const COLOURS: [RGBColor; 3] =
    [RGBColor(0x76, 0x76, 0x76), RGBColor(0x00, 0x72, 0xb2), RGBColor(0xd5, 0x5e, 0x00)];

/// Writes the picture.
///
/// # Errors
///
/// If it cannot be drawn or written.
pub fn draw(path: &Path, title: &str, sizes: &str, panels: &[Panel]) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let size = (PANEL.0 * panels.len() as u32, PANEL.1 + TITLE);
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let (head, body) = area.split_vertically(TITLE);
    head.draw(&Text::new(title.to_owned(), (14, 12), ("sans-serif", 23).into_font().color(&INK)))
        .map_err(|error| failed(&error))?;
    for (area, panel) in body.split_evenly((1, panels.len())).iter().zip(panels) {
        draw_panel(area, sizes, panel).map_err(|error| failed(&error))?;
    }
    area.present().map_err(|error| failed(&error))
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw_panel(area: &DrawingArea<SVGBackend<'_>, Shift>, sizes: &str, panel: &Panel) -> Drawn {
    let points = || panel.lines.iter().flat_map(|line| &line.points);
    let (least, most) =
        points().fold((f64::MAX, f64::MIN), |(least, most), &(size, _)| (least.min(size), most.max(size)));
    if least < 1.0 {
        return draw_lines(area, least..most, sizes, panel);
    }
    let base = if most > 1_000.0 { 10.0 } else { 2.0 };
    draw_lines(area, (least..most).log_scale().base(base), sizes, panel)
}

fn draw_lines<X>(area: &DrawingArea<SVGBackend<'_>, Shift>, x: X, sizes: &str, panel: &Panel) -> Drawn
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let costs = || panel.lines.iter().flat_map(|line| &line.points).map(|&(_, cost)| cost);
    let least = 10f64.powf(costs().fold(f64::MAX, f64::min).log10().floor());
    // Room above the lines for the legend.
    let most = costs().fold(f64::MIN, f64::max) * 12.0;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_right(24)
        .x_label_area_size(46)
        .y_label_area_size(68)
        .build_cartesian_2d(x, (least..most).log_scale())?;
    let text = |size| ("sans-serif", size).into_font().color(&INK);
    chart
        .configure_mesh()
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(WHITE)
        .label_style(text(15))
        .axis_desc_style(text(17))
        .x_desc(sizes)
        .y_desc(panel.measure)
        .x_label_formatter(&|size| tick(*size))
        .y_label_formatter(&|cost| tick(*cost))
        .draw()?;
    for (line, colour) in panel.lines.iter().zip(COLOURS) {
        let points = || line.points.iter().copied();
        chart
            .draw_series(LineSeries::new(points(), colour.stroke_width(2)))?
            .label(line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
        chart.draw_series(points().map(|point| Circle::new(point, 4, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(GRID)
        .label_font(text(15))
        .draw()?;
    Ok(())
}

/// `1`, `20`, `5k`, `1M`.
fn tick(number: f64) -> String {
    match number {
        number if number >= 1e6 => format!("{}M", number / 1e6),
        number if number >= 1e3 => format!("{}k", number / 1e3),
        number => format!("{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_its_title_its_units_its_legend_and_every_point() {
        let line = |name| Line { name, points: vec![(1.0, 100.0), (8.0, 120.0), (64.0, 130.0)] };
        let panels = [Panel { measure: "instructions a call", lines: vec![line("one"), line("two")] }];
        let path = std::env::temp_dir().join(format!("bench-peers-picture-{}.svg", std::process::id()));
        draw(&path, "A title", "spans", &panels).unwrap();
        let picture = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        for text in ["A title", "spans", "instructions a call", "one", "two", "64"] {
            assert!(picture.contains(&format!("\n{text}\n")), "`{text}` is not in {picture}");
        }
        assert_eq!(6, picture.matches("<circle").count());
    }
}
