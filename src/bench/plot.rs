//! Line plots as SVG, drawn by plotters. Colours are placeholders that the page's style sheet gives
//! a meaning, so that a plot is at home on a light page and on a dark one.

use std::ops::Range;

use plotters::prelude::*;

/// A curve of a plot: its name and its points.
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    /// Whether the area below is filled.
    pub(super) area: bool,
}

/// The curves and the labels of the axes.
pub(super) struct Plot {
    pub(super) title: &'static str,
    pub(super) x_label: &'static str,
    pub(super) y_label: &'static str,
    pub(super) x_format: fn(f64) -> String,
    pub(super) y_format: fn(f64) -> String,
    /// Powers of ten are equally far apart on the vertical axis.
    pub(super) log_y: bool,
    /// Vertical marks: where, and what happened there.
    pub(super) marks: Vec<(f64, &'static str)>,
    pub(super) curves: Vec<Curve>,
}

/// Placeholders; `html.rs` maps them to colours of the page.
const TEXT: RGBColor = RGBColor(1, 0, 0);
const GRID: RGBColor = RGBColor(2, 0, 0);
const MARK: RGBColor = RGBColor(3, 0, 0);
const CURVES: [RGBColor; 4] = [
    RGBColor(4, 0, 0),
    RGBColor(5, 0, 0),
    RGBColor(6, 0, 0),
    RGBColor(7, 0, 0),
];

const SIZE: (u32, u32) = (720, 340);
const FONT: &str = "sans-serif";

impl Plot {
    /// The picture, or `None` without data.
    pub(super) fn render(&self) -> Option<String> {
        if self.curves.iter().all(|curve| curve.points.len() < 2) {
            return None;
        }
        let mut svg = String::new();
        // A string takes everything, so drawing fails only for what cannot be drawn.
        if self.log_y {
            self.draw_log(&mut svg)
        } else {
            self.draw_linear(&mut svg)
        }
        .ok()?;
        Some(svg)
    }

    fn draw_linear(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error + '_>> {
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let (x, y) = (self.x_range(), 0.0..self.highest() * 1.06);
        let mut chart = builder(&root).build_cartesian_2d(x, y.clone())?;
        self.mesh(&mut chart)?;
        for (index, curve) in self.curves.iter().enumerate() {
            let color = CURVES[index % CURVES.len()];
            if curve.area {
                chart.draw_series(AreaSeries::new(
                    curve.points.iter().copied(),
                    0.0,
                    color.mix(0.15),
                ))?;
            }
            chart.draw_series(LineSeries::new(
                curve.points.iter().copied(),
                color.stroke_width(2),
            ))?;
        }
        for (at, text) in &self.marks {
            chart.draw_series(LineSeries::new(
                [(*at, 0.0), (*at, y.end)],
                MARK.stroke_width(1),
            ))?;
            let style = (FONT, 14).into_font().color(&MARK);
            chart.draw_series([Text::new(format!(" {text}"), (*at, y.end * 0.98), style)])?;
        }
        root.present()?;
        Ok(())
    }

    fn draw_log(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error + '_>> {
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let lowest = self.values().fold(f64::INFINITY, f64::min).max(0.001);
        let y = lowest * 0.8..self.highest().max(lowest) * 1.4;
        let mut chart = builder(&root).build_cartesian_2d(self.x_range(), y.log_scale())?;
        self.mesh(&mut chart)?;
        for (index, curve) in self.curves.iter().enumerate() {
            let points = curve.points.iter().map(|(x, y)| (*x, y.max(lowest)));
            chart.draw_series(LineSeries::new(
                points,
                CURVES[index % CURVES.len()].stroke_width(2),
            ))?;
        }
        root.present()?;
        Ok(())
    }

    fn mesh<Y>(&self, chart: &mut Chart<'_, '_, Y>) -> Result<(), Box<dyn std::error::Error>>
    where
        Y: plotters::coord::ranged1d::Ranged<ValueType = f64>
            + plotters::coord::ranged1d::ValueFormatter<f64>,
    {
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style((FONT, 14).into_font().color(&TEXT))
            .axis_desc_style((FONT, 14).into_font().color(&TEXT))
            .x_desc(self.x_label)
            .y_desc(self.y_label)
            .x_labels(8)
            .y_labels(6)
            .x_label_formatter(&|x| (self.x_format)(*x))
            .y_label_formatter(&|y| (self.y_format)(*y))
            .draw()?;
        Ok(())
    }

    fn values(&self) -> impl Iterator<Item = f64> + '_ {
        self.curves
            .iter()
            .flat_map(|curve| &curve.points)
            .map(|(_, y)| *y)
    }

    fn highest(&self) -> f64 {
        let highest = self.values().fold(0.0, f64::max);
        if highest > 0.0 { highest } else { 1.0 }
    }

    fn x_range(&self) -> Range<f64> {
        let xs = || {
            self.curves
                .iter()
                .flat_map(|curve| &curve.points)
                .map(|(x, _)| *x)
                .chain(self.marks.iter().map(|(x, _)| *x))
        };
        let (low, high) = (
            xs().fold(f64::INFINITY, f64::min),
            xs().fold(f64::NEG_INFINITY, f64::max),
        );
        if low < high {
            low..high
        } else {
            low..low + 1.0
        }
    }
}

type Chart<'a, 'b, Y> =
    ChartContext<'a, SVGBackend<'b>, Cartesian2d<plotters::coord::types::RangedCoordf64, Y>>;

fn builder<'a, 'b>(
    root: &'a DrawingArea<SVGBackend<'b>, plotters::coord::Shift>,
) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(root);
    builder
        .margin(8)
        .margin_right(24)
        .x_label_area_size(42)
        .y_label_area_size(76);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(log_y: bool, points: Vec<(f64, f64)>) -> Plot {
        let format = |value: f64| format!("{value:.1}");
        let curves = vec![Curve {
            name: "a".to_string(),
            points,
            area: true,
        }];
        let (title, x_label, y_label) = ("t", "x", "y");
        Plot {
            title,
            x_label,
            y_label,
            x_format: format,
            y_format: format,
            log_y,
            marks: vec![(1.0, "here")],
            curves,
        }
    }

    #[test]
    fn plot_draws_available_samples() {
        for log_y in [false, true] {
            let svg = plot(log_y, vec![(0.0, 0.0), (1.0, 5.0), (2.0, 5000.0)])
                .render()
                .expect("a picture");
            assert!(svg.starts_with("<svg") && svg.contains("#040000"), "{svg}");
            assert!(
                plot(log_y, vec![(3.0, 0.0), (3.0, 0.0)]).render().is_some(),
                "a flat line at one instant"
            );
        }
    }

    #[test]
    fn empty_plot_is_none() {
        assert_eq!(plot(false, vec![]).render(), None);
        assert_eq!(plot(false, vec![(1.0, 1.0)]).render(), None);
    }
}
