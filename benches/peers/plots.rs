//! The results as bars, in SVG. What grows is in `curves.rs`.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::child::Failure;
use crate::peers::Peer;
use crate::report::Report;
use crate::stats::{Spread, Unit};

pub const WIDTH: u32 = 800;
pub const MARGIN: i32 = 24;
const ROW: i32 = 34;
const BAR: i32 = 20;
/// Above the bars and below them.
const HEAD: i32 = 60;
const FOOT: i32 = 16;
/// Width of the figure at the end of a bar.
const FIGURE_WIDTH: i32 = 190;
/// Approximate width of a letter of [`LABEL`]: the reader's font is unknown.
const LETTER: i32 = 8;
pub const FONT: &str = "sans-serif";
pub const TITLE: i32 = 18;
pub const LABEL: i32 = 14;

pub const INK: RGBColor = RGBColor(0x22, 0x2b, 0x36);
pub const FAINT: RGBColor = RGBColor(0x8a, 0x94, 0xa0);
pub const OURS: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
pub const BASELINE: RGBColor = RGBColor(0x5b, 0x66, 0x73);
pub const OTHERS: RGBColor = RGBColor(0xc3, 0xcb, 0xd4);
pub const TARGET: RGBColor = RGBColor(0xc6, 0x28, 0x28);

struct Bar {
    label: String,
    spread: Spread,
    /// At the end of the bar.
    figure: String,
    colour: RGBColor,
    /// What should not be passed.
    target: Option<f64>,
}

struct Chart {
    title: String,
    subtitle: String,
    bars: Vec<Bar>,
    /// A line across all bars.
    line_at: Option<f64>,
}

/// Draws into `dir`, and returns for each plot its path from there and its title.
pub fn draw(report: &Report, dir: &Path) -> Result<Vec<(String, String)>, Failure> {
    let mut plots = Vec::new();
    let all = std::iter::once(("targets".to_string(), ratios(report))).chain(peers(report));
    for (name, chart) in all.filter(|(_, chart)| !chart.bars.is_empty()) {
        let path = dir.join(format!("{name}.svg"));
        render(&chart, &path).map_err(|error| format!("draw {}: {error}", path.display()))?;
        plots.push((format!("benchmarks/{name}.svg"), chart.title));
    }
    Ok(plots)
}

/// Heartline's ratio to the baseline, and the target.
fn ratios(report: &Report) -> Chart {
    let bar = |(scenario, metric, most): (&str, &str, f64)| {
        let metric = report.metric(scenario, metric)?;
        let spread = metric.of(Peer::Heartline)?.to_baseline?;
        let figure = format!(
            "{} ×  (target {})",
            Unit::Times.number(spread.median),
            Unit::Times.number(most)
        );
        Some(Bar {
            label: metric.title.to_string(),
            spread,
            figure,
            colour: OURS,
            target: Some(most),
        })
    };
    Chart {
        title: "heartline's ratio to the baseline, and the targets".to_string(),
        subtitle: "less is better; dashed: the baseline; red: the target".to_string(),
        bars: report
            .targets
            .iter()
            .flat_map(|target| &target.ratio_bounds)
            .filter_map(|bound| bar(*bound))
            .collect(),
        line_at: Some(1.0),
    }
}

/// A chart for each metric that more than one peer has figures for.
fn peers(report: &Report) -> impl Iterator<Item = (String, Chart)> {
    let metrics = report.scenarios.iter().flat_map(|scenario| {
        scenario
            .metrics
            .iter()
            .map(move |metric| (scenario.id, metric))
    });
    let charts = metrics.map(|(scenario, metric)| {
        let bars = metric.peers.iter().filter_map(|figures| {
            let spread = figures.spread?;
            let ratio = figures
                .to_baseline
                .filter(|_| figures.peer != Peer::Baseline);
            let ratio = ratio.map_or_else(String::new, |ratio| {
                format!("  ({} × baseline)", Unit::Times.number(ratio.median))
            });
            let colour = match figures.peer {
                Peer::Heartline => OURS,
                Peer::Baseline => BASELINE,
                _ => OTHERS,
            };
            let figure = format!("{}{ratio}", metric.unit.written(spread.median));
            Some(Bar {
                label: figures.peer.to_string(),
                spread,
                figure,
                colour,
                target: None,
            })
        });
        let subtitle = format!("{}, less is better", metric.unit.name());
        let chart = Chart {
            title: metric.title.to_string(),
            subtitle,
            bars: bars.collect(),
            line_at: None,
        };
        (format!("{scenario}-{}", metric.id), chart)
    });
    charts.filter(|(_, chart)| chart.bars.len() > 1)
}

pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub type Drawn = Result<(), Box<dyn std::error::Error>>;

fn render(chart: &Chart, path: &Path) -> Drawn {
    let height = HEAD + ROW * chart.bars.len() as i32 + FOOT;
    let area = SVGBackend::new(path, (WIDTH, height as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    write(
        &area,
        &chart.title,
        (MARGIN, MARGIN),
        HPos::Left,
        (TITLE, INK),
    )?;
    write(
        &area,
        &chart.subtitle,
        (MARGIN, MARGIN + 20),
        HPos::Left,
        (LABEL, FAINT),
    )?;

    let longest = chart
        .bars
        .iter()
        .map(|bar| bar.label.chars().count())
        .max()
        .unwrap_or(0) as i32;
    let left = MARGIN + longest * LETTER + 8;
    let most = chart
        .bars
        .iter()
        .flat_map(|bar| [bar.spread.max, bar.target.unwrap_or(0.0)])
        .fold(f64::MIN_POSITIVE, f64::max);
    let scale = f64::from(WIDTH as i32 - MARGIN - FIGURE_WIDTH - left) / most;
    // A little less than nothing is drawn as nothing.
    let x = |value: f64| left + (value.max(0.0) * scale) as i32;

    for (index, bar) in chart.bars.iter().enumerate() {
        let middle = HEAD + ROW * index as i32 + ROW / 2;
        let (top, bottom) = (middle - BAR / 2, middle + BAR / 2);
        write(
            &area,
            &bar.label,
            (left - 8, middle),
            HPos::Right,
            (LABEL, INK),
        )?;
        area.draw(&Rectangle::new(
            [(left, top), (x(bar.spread.median).max(left + 1), bottom)],
            bar.colour.filled(),
        ))?;
        let (low, high) = (x(bar.spread.min), x(bar.spread.max));
        // One round has no spread.
        if low < high {
            area.draw(&PathElement::new([(low, middle), (high, middle)], INK))?;
            for end in [low, high] {
                area.draw(&PathElement::new(
                    [(end, middle - 4), (end, middle + 4)],
                    INK,
                ))?;
            }
        }
        if let Some(target) = bar.target {
            area.draw(&PathElement::new(
                [(x(target), top - 4), (x(target), bottom + 4)],
                TARGET.stroke_width(2),
            ))?;
        }
        let end = high.max(bar.target.map_or(0, x));
        write(
            &area,
            &bar.figure,
            (end + 8, middle),
            HPos::Left,
            (LABEL, INK),
        )?;
    }
    if let Some(at) = chart.line_at {
        let dashes = (HEAD..height - FOOT).step_by(8);
        for top in dashes {
            area.draw(&PathElement::new(
                [(x(at), top), (x(at), top + 4)],
                BASELINE,
            ))?;
        }
    }
    area.present()?;
    Ok(())
}

pub fn write(
    area: &Area,
    text: &str,
    at: (i32, i32),
    align: HPos,
    (size, colour): (i32, RGBColor),
) -> Drawn {
    let style = (FONT, size)
        .into_font()
        .color(&colour)
        .pos(Pos::new(align, VPos::Center));
    area.draw(&Text::new(text, at, style))?;
    Ok(())
}
