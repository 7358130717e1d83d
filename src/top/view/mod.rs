//! Drawing: the state of the app on the available space.

mod header;
mod lists;
mod prompt;
mod theme;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use std::time::Instant;

use super::app::TopApp;
pub(super) use theme::Theme;

/// The areas of the screen. An area without height is not drawn.
struct Layout {
    title: Rect,
    tiles: Rect,
    resources: Rect,
    heading: Rect,
    columns: Rect,
    lines: Rect,
    closes: Rect,
    footer: Rect,
}

impl Layout {
    /// With little room the least important areas go first: closes, then resources, then
    /// sparklines.
    fn new(area: Rect) -> Self {
        let tiles = match area.height {
            0..8 => 0,
            8..14 => 2,
            14..32 => 3,
            _ => 4,
        };
        // A fifth of the room, with its heading.
        let closes = if area.height < 20 {
            0
        } else {
            1 + (area.height / 7).clamp(3, 12)
        };
        let mut rest = area;
        let mut take = |height: u16| {
            let taken = Rect {
                height: height.min(rest.height),
                ..rest
            };
            rest = Rect {
                y: rest.y + taken.height,
                height: rest.height - taken.height,
                ..rest
            };
            taken
        };
        let title = take(1);
        let tiles = take(tiles);
        let resources = take(u16::from(area.height >= 12));
        let heading = take(u16::from(area.height >= 10));
        let columns = take(u16::from(area.height >= 4));
        let below = closes + 1;
        let lines = take(
            (area.height
                - title.height
                - tiles.height
                - resources.height
                - heading.height
                - columns.height)
                .saturating_sub(below),
        );
        let closes = take(closes);
        let footer = take(1);
        Layout {
            title,
            tiles,
            resources,
            heading,
            columns,
            lines,
            closes,
            footer,
        }
    }
}

/// The number of visible rows of the list.
pub(super) fn rows(area: Rect) -> usize {
    usize::from(Layout::new(area).lines.height)
}

pub(super) fn draw(frame: &mut Frame<'_>, app: &TopApp, theme: Theme, now: Instant) {
    let plan = Layout::new(frame.area());
    let buffer = frame.buffer_mut();
    header::draw(
        buffer,
        [plan.title, plan.tiles, plan.resources],
        app,
        theme,
        now,
    );
    lists::draw_lines(buffer, [plan.heading, plan.columns, plan.lines], app, theme);
    lists::draw_closes(buffer, plan.closes, app, theme);
    prompt::draw(frame, plan.footer, app, theme, now);
}

/// A line of text over the whole width of the area's first row, in this style.
fn put(buffer: &mut Buffer, area: Rect, line: Line<'_>, style: Style) {
    let row = Rect { height: 1, ..area };
    if !area.is_empty() {
        buffer.set_style(row, style);
        buffer.set_line(row.x, row.y, &line, row.width);
    }
}

/// The first of these that fits, or the last.
fn fitting(width: u16, texts: impl IntoIterator<Item = String>) -> String {
    let mut last = String::new();
    for text in texts {
        if Line::raw(text.as_str()).width() <= usize::from(width) {
            return text;
        }
        last = text;
    }
    last
}

#[cfg(test)]
mod tests;
