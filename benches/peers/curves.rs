//! How the engine's costs grow with its lines, in SVG. Powers of ten are equally far apart on both
//! axes.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use crate::child::Failure;
use crate::engine_alone::growth;
use crate::plots::{
    Area, BASELINE, Drawn, FAINT, INK, LABEL, MARGIN, OTHERS, OURS, TARGET, TITLE, WIDTH, write,
};
use crate::report::Report;
use crate::stats::{Spread, Unit};

const HEIGHT: i32 = 440;
const HEAD: i32 = 70;
const FOOT: i32 = 40;
/// Width of the labels of the vertical axis.
const LEFT: i32 = 70;
/// Width of a curve's name and its last figure, at its right.
const NAME_WIDTH: i32 = 200;
const GOAL_WIDTH: i32 = 24;

const EXPIRY: RGBColor = RGBColor(0x2c, 0xa0, 0x6c);

struct Curve {
    name: &'static str,
    points: Vec<(f64, Spread)>,
    colour: RGBColor,
}

struct Chart {
    file: &'static str,
    title: &'static str,
    subtitle: &'static str,
    unit: Unit,
    curves: Vec<Curve>,
    /// What should not be passed by the most lines.
    target: f64,
    /// Whether to show where the first point would lead if each line cost the same.
    proportion: bool,
}

/// Draws into `dir`, and returns for each plot its path from there and its title.
pub fn draw(report: &Report, dir: &Path) -> Result<Vec<(String, String)>, Failure> {
    let mut plots = Vec::new();
    for chart in [memory(report), time(report)] {
        // Between fewer points nothing grows.
        if chart.curves.iter().any(|curve| curve.points.len() < 2) {
            continue;
        }
        let path = dir.join(format!("{}.svg", chart.file));
        render(&chart, &path).map_err(|error| format!("draw {}: {error}", path.display()))?;
        plots.push((
            format!("benchmarks/{}.svg", chart.file),
            chart.title.to_string(),
        ));
    }
    Ok(plots)
}

fn memory(report: &Report) -> Chart {
    Chart {
        file: "engine-memory",
        title: "resident memory of the engine alone",
        subtitle: "MB, by virtual connections; dashed: \
            as many bytes per connection as with the fewest; red: the target for 1,000,000",
        unit: Unit::Megabytes,
        curves: vec![Curve {
            name: "engine",
            points: growth(report, "resident"),
            colour: OURS,
        }],
        target: 160.0,
        proportion: true,
    }
}

fn time(report: &Report) -> Chart {
    let curve = |name, quantity, colour| Curve {
        name,
        points: growth(report, quantity),
        colour,
    };
    Chart {
        file: "engine-time",
        title: "work of the engine alone",
        subtitle: "ns of CPU, by virtual connections; \
            red: the target for wheel insert and expiry at 1,000,000",
        unit: Unit::Nanoseconds,
        curves: vec![
            curve("connection and interval", "interval", BASELINE),
            curve("wheel insert", "insert", OURS),
            curve("wheel expiry", "expiry", EXPIRY),
        ],
        target: 50.0,
        proportion: false,
    }
}

/// One axis, in decades.
struct Scale {
    low: f64,
    high: f64,
    /// Where they are on the picture.
    from: i32,
    to: i32,
}

impl Scale {
    /// Around `values`, to whole ticks. On such a scale there is no place for nothing.
    fn around(values: impl Iterator<Item = f64> + Clone, from: i32, to: i32) -> Self {
        let values = values.filter(|value| *value > 0.0);
        let (least, most) = (
            values.clone().fold(f64::INFINITY, f64::min),
            values.fold(f64::MIN_POSITIVE, f64::max),
        );
        let low = ticks()
            .filter(|tick| *tick <= least)
            .last()
            .unwrap_or(least);
        let high = ticks().find(|tick| *tick >= most).unwrap_or(most);
        Scale {
            low,
            high,
            from,
            to,
        }
    }

    fn at(&self, value: f64) -> i32 {
        self.from
            + (f64::from(self.to - self.from) * (value.max(self.low) / self.low).log10()
                / (self.high / self.low).log10()) as i32
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        ticks().filter(|tick| (self.low..=self.high).contains(tick))
    }
}

/// Equally far apart, or nearly so: 1, 3, 10, 30 and so on. Whole ones are exact, so that a value
/// is not just above its tick.
fn ticks() -> impl Iterator<Item = f64> {
    (-3..9).flat_map(|decade| {
        [1.0, 3.0].map(|digit| {
            if decade < 0 {
                digit / 10f64.powi(-decade)
            } else {
                digit * 10f64.powi(decade)
            }
        })
    })
}

fn render(chart: &Chart, path: &Path) -> Drawn {
    let area = SVGBackend::new(path, (WIDTH, HEIGHT as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    write(
        &area,
        chart.title,
        (MARGIN, MARGIN),
        HPos::Left,
        (TITLE, INK),
    )?;
    write(
        &area,
        chart.subtitle,
        (MARGIN, MARGIN + 20),
        HPos::Left,
        (LABEL, FAINT),
    )?;

    let points = chart.curves.iter().flat_map(|curve| &curve.points);
    let x = Scale::around(
        points.clone().map(|(lines, _)| *lines),
        LEFT,
        WIDTH as i32 - MARGIN - NAME_WIDTH,
    );
    let costs = points
        .flat_map(|(_, spread)| [spread.min, spread.max])
        .chain([chart.target]);
    let y = Scale::around(costs, HEIGHT - FOOT, HEAD);
    grid(&area, &x, &y)?;

    draw_target(&area, chart, x.to, y.at(chart.target))?;
    for curve in &chart.curves {
        if chart.proportion {
            dashes(&area, curve, &x, &y)?;
        }
        draw_curve(&area, curve, &x, &y, chart.unit)?;
    }
    area.present()?;
    Ok(())
}

fn grid(area: &Area, x: &Scale, y: &Scale) -> Drawn {
    for lines in x.ticks() {
        area.draw(&PathElement::new(
            [(x.at(lines), HEAD), (x.at(lines), HEIGHT - FOOT)],
            OTHERS,
        ))?;
        write(
            area,
            &Unit::Count.number(lines),
            (x.at(lines), HEIGHT - FOOT + 16),
            HPos::Center,
            (LABEL, FAINT),
        )?;
    }
    for cost in y.ticks() {
        area.draw(&PathElement::new(
            [(x.from, y.at(cost)), (x.to, y.at(cost))],
            OTHERS,
        ))?;
        let figure = if cost < 1.0 {
            cost.to_string()
        } else {
            Unit::Count.number(cost)
        };
        write(
            area,
            &figure,
            (x.from - 8, y.at(cost)),
            HPos::Right,
            (LABEL, FAINT),
        )?;
    }
    Ok(())
}

/// The label is at the left of the point: at the right are those of the curves.
fn draw_target(area: &Area, chart: &Chart, x: i32, y: i32) -> Drawn {
    area.draw(&PathElement::new(
        [(x - GOAL_WIDTH, y), (x, y)],
        TARGET.stroke_width(2),
    ))?;
    write(
        area,
        &format!("target {} {}", chart.target, chart.unit.name()),
        (x - GOAL_WIDTH - 8, y),
        HPos::Right,
        (LABEL, TARGET),
    )
}

fn draw_curve(area: &Area, curve: &Curve, x: &Scale, y: &Scale, unit: Unit) -> Drawn {
    let medians: Vec<(i32, i32)> = curve
        .points
        .iter()
        .map(|(lines, spread)| (x.at(*lines), y.at(spread.median)))
        .collect();
    area.draw(&PathElement::new(
        medians.clone(),
        curve.colour.stroke_width(2),
    ))?;
    for ((lines, spread), middle) in curve.points.iter().zip(medians) {
        area.draw(&PathElement::new(
            [
                (x.at(*lines), y.at(spread.min)),
                (x.at(*lines), y.at(spread.max)),
            ],
            INK,
        ))?;
        area.draw(&Circle::new(middle, 4, curve.colour.filled()))?;
    }
    let Some((lines, last)) = curve.points.last() else {
        return Ok(());
    };
    let name = format!("{}: {}", curve.name, unit.written(last.median));
    write(
        area,
        &name,
        (x.at(*lines) + 8, y.at(last.median)),
        HPos::Left,
        (LABEL, curve.colour),
    )
}

/// From the first point on, where the next ones would be if each line cost the same.
fn dashes(area: &Area, curve: &Curve, x: &Scale, y: &Scale) -> Drawn {
    let Some((fewest, first)) = curve.points.first() else {
        return Ok(());
    };
    let height = |at: i32| {
        let lines =
            x.low * (x.high / x.low).powf(f64::from(at - x.from) / f64::from(x.to - x.from));
        (at, y.at(first.median * lines / fewest))
    };
    for at in (x.at(*fewest)..x.to - 4).step_by(8) {
        area.draw(&PathElement::new([height(at), height(at + 4)], BASELINE))?;
    }
    Ok(())
}
