//! The upper part: identity, four figures with their history, and usage.

use std::time::{Duration, Instant};

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Sparkline, Widget};

use super::{Theme, fitting, put};
use crate::admin::api::Status;
use crate::humanize::{bound, bytes, duration, grouped, rate, span};
use crate::top::app::TopApp;
use crate::top::history::Series;

pub(super) fn draw(
    buffer: &mut Buffer,
    [title, tiles, resources]: [Rect; 3],
    app: &TopApp,
    theme: Theme,
    now: Instant,
) {
    match app.lost(now) {
        Some((age, why)) => draw_lost(buffer, title, app, theme, age, why),
        None => draw_title(buffer, title, app, theme),
    }
    draw_tiles(buffer, tiles, app, theme);
    let texts = costs(app);
    let line = fitting(
        resources.width,
        (1..=texts.len())
            .rev()
            .map(|count| texts[..count].join("  ")),
    );
    put(buffer, resources, line.into(), Style::new());
}

fn draw_lost(
    buffer: &mut Buffer,
    area: Rect,
    app: &TopApp,
    theme: Theme,
    age: Duration,
    why: &str,
) {
    let text = format!(
        " No answer for {}, trying again: {why} ",
        span(age.as_secs_f64())
    );
    // What went wrong names the address already, unless nothing has.
    let text = if why.contains(&app.addr) {
        text
    } else {
        format!(" {}:{text}", app.addr)
    };
    put(buffer, area, text.into(), theme.alarm());
}

fn draw_title(buffer: &mut Buffer, area: Rect, app: &TopApp, theme: Theme) {
    let status = app.history.status();
    let state = if status.draining { " DRAINING " } else { "" };
    let name = format!("heartline {}", status.version);
    let up = span(status.uptime_s);
    let room = area
        .width
        .saturating_sub(name.len() as u16 + state.len() as u16);
    let rest = fitting(
        room,
        [
            format!(
                "  {}  process {}  {} over {}  up {up}",
                app.addr, status.pid, status.app, status.framing
            ),
            format!("  {}  process {}  up {up}", app.addr, status.pid),
            format!("  {}  up {up}", app.addr),
            format!("  {}", app.addr),
        ],
    );
    put(
        buffer,
        area,
        Line::from(vec![Span::styled(name, theme.strong()), rest.into()]),
        Style::new(),
    );
    let right = area.width.min(state.len() as u16);
    put(
        buffer,
        Rect {
            x: area.right() - right,
            width: right,
            ..area
        },
        state.into(),
        Style::new(),
    );
    buffer.set_style(
        Rect {
            x: area.right() - right,
            width: right,
            ..area
        },
        theme.alarm(),
    );
}

/// A figure: its name, its value in forms from the longest to the shortest, and its history.
struct Tile<'a> {
    name: &'static str,
    texts: Vec<String>,
    series: &'a Series,
}

fn draw_tiles(buffer: &mut Buffer, area: Rect, app: &TopApp, theme: Theme) {
    let tiles = figures(app);
    let width = area.width / tiles.len() as u16;
    for (index, tile) in (0..).zip(&tiles) {
        // Space left over at the right stays empty, and so does a column between two.
        let area = Rect {
            x: area.x + index * width,
            width: width.saturating_sub(1),
            ..area
        };
        let mut rows = area.rows();
        if let Some(row) = rows.next() {
            put(buffer, row, tile.name.into(), theme.faint());
        }
        if let Some(row) = rows.next() {
            put(
                buffer,
                row,
                fitting(row.width, tile.texts.iter().cloned()).into(),
                theme.strong(),
            );
        }
        let below = Rect {
            y: area.y + area.height.min(2),
            height: area.height.saturating_sub(2),
            ..area
        };
        let mut bars = tile.series.bars(usize::from(below.width));
        // The newest value is always at the right.
        bars.splice(
            0..0,
            std::iter::repeat_n(None, usize::from(below.width).saturating_sub(bars.len())),
        );
        Sparkline::default()
            .data(bars)
            .style(theme.bars())
            .render(below, buffer);
    }
}

fn figures(app: &TopApp) -> [Tile<'_>; 4] {
    let (history, status) = (&app.history, app.history.status());
    let nothing = || vec!["-".to_string()];
    let held = &status.connections;
    let open = grouped(held.open);
    let messages = history.rates().map(|rates| {
        let (received, sent) = (rate(rates.messages_in), rate(rates.messages_out));
        vec![
            format!("{received} in, {sent} out"),
            format!("{received} + {sent}"),
            rate(rates.messages_in + rates.messages_out),
        ]
    });
    let round_trip = history.round_trips().map(|last| {
        let mean = match last.mean_s() {
            0.0 => bound(0.0),
            mean => duration(mean * 1e6),
        };
        let p99 = last
            .at_most(0.99)
            .map_or(String::new(), |seconds| format!(", p99 {}", bound(seconds)));
        vec![format!("{mean}{p99}"), mean]
    });
    let closed = history.rates().map(|rates| {
        let closed = rate(rates.closed);
        vec![format!("{closed}, {} new/s", rate(rates.opened)), closed]
    });
    [
        Tile {
            name: "open",
            texts: vec![format!("{open} of {}", grouped(held.max)), open],
            series: &history.lines,
        },
        Tile {
            name: "messages/s",
            texts: messages.unwrap_or_else(nothing),
            series: &history.messages,
        },
        Tile {
            name: "round trip",
            texts: round_trip.unwrap_or_else(nothing),
            series: &history.round_trip,
        },
        Tile {
            name: "closes/s",
            texts: closed.unwrap_or_else(nothing),
            series: &history.closed,
        },
    ]
}

/// Resources of the server and causes of delay, most important first.
fn costs(app: &TopApp) -> Vec<String> {
    let status = app.history.status();
    let process = &status.process;
    let most = status
        .max_buffered_bytes
        .map_or(String::new(), |most| format!(" of {}", bytes(most)));
    let mut texts = vec![format!("memory {}", bytes(process.resident_bytes))];
    texts.extend(
        app.history
            .rates()
            .map(|rates| format!("cpu {:.1} %", rates.cpu * 100.0)),
    );
    texts.push(format!(
        "descriptors {} of {}",
        grouped(process.descriptors),
        grouped(process.max_descriptors)
    ));
    texts.push(format!("buffers {}{most}", bytes(status.buffered_bytes)));
    texts.extend(lag(status));
    texts.extend(app.history.rates().map(|rates| {
        format!(
            "traffic {}/s in, {}/s out",
            bytes(rates.bytes_in as u64),
            bytes(rates.bytes_out as u64)
        )
    }));
    texts
}

fn lag(status: &Status) -> Option<String> {
    status
        .lag
        .at_most(0.99)
        .map(|seconds| format!("lag p99 {}", bound(seconds)))
}
