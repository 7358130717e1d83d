//! The lists of open and of closed connections.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::{Theme, put};
use crate::admin::api::Sort;
use crate::admin::api::{ClosedEntry, ConnectionEntry};
use crate::humanize::{bytes, connections, short_bytes, span};
use crate::top::app::TopApp;

struct Column {
    name: &'static str,
    width: u16,
    sort: &'static [Sort],
    text: fn(&ConnectionEntry) -> String,
}

/// From left to right; the address is before them and gets the remaining width.
const COLUMNS: [Column; 8] = [
    Column {
        name: "SILENCE",
        width: 8,
        sort: &[Sort::Silence],
        text: |line| span(line.silence_s),
    },
    Column {
        name: "AGE",
        width: 7,
        sort: &[Sort::Age],
        text: |line| span(line.age_s),
    },
    Column {
        name: "RTT",
        width: 7,
        sort: &[Sort::RoundTrip],
        text: round_trip,
    },
    Column {
        name: "QUEUED",
        width: 7,
        sort: &[Sort::Queued],
        text: |line| short_bytes(line.queued),
    },
    Column {
        name: "IN",
        width: 6,
        sort: &[Sort::Bytes],
        text: |line| short_bytes(line.bytes_in),
    },
    Column {
        name: "OUT",
        width: 6,
        sort: &[Sort::Bytes],
        text: |line| short_bytes(line.bytes_out),
    },
    Column {
        name: "PINGS",
        width: 5,
        sort: &[],
        text: |line| line.pings_unanswered.to_string(),
    },
    Column {
        name: "ID",
        width: 17,
        sort: &[],
        text: |line| line.id.clone(),
    },
];

/// Width for an IPv4 address with its port.
const ADDRESS: u16 = 21;

/// Width for any IPv6 address with its port; more would only separate it from its figures.
const MAX_ADDRESS_WIDTH: u16 = 47;

fn round_trip(line: &ConnectionEntry) -> String {
    line.round_trip_ms.map_or("-".to_string(), |ms| match ms {
        0 => "<1ms".to_string(),
        1..10_000 => format!("{ms}ms"),
        _ => span(ms as f64 / 1000.0),
    })
}

/// The width of the address, and the columns for which there is room beside it.
fn columns(width: u16) -> (u16, &'static [Column]) {
    let mut used = ADDRESS;
    let fitting = COLUMNS.iter().take_while(|column| {
        used += 1 + column.width;
        used <= width
    });
    let columns = &COLUMNS[..fitting.count()];
    let beside: u16 = columns.iter().map(|column| 1 + column.width).sum();
    (width.saturating_sub(beside).min(MAX_ADDRESS_WIDTH), columns)
}

pub(super) fn draw_lines(
    buffer: &mut Buffer,
    [heading, names, lines]: [Rect; 3],
    app: &TopApp,
    theme: Theme,
) {
    let list = &app.list;
    let order = match (list.sort(), list.descending()) {
        (Sort::Queued | Sort::Bytes, true) => "most first",
        (Sort::Queued | Sort::Bytes, false) => "least first",
        (_, true) => "longest first",
        (_, false) => "shortest first",
    };
    let found = if list.address().is_empty() {
        connections(list.matched())
    } else {
        format!("{} at {}…", connections(list.matched()), list.address())
    };
    let waiting = if list.is_current() { "" } else { " (asking)" };
    put(
        buffer,
        heading,
        format!(
            "{found} by {}, {order}{waiting}",
            list.sort().as_str().replace('_', " ")
        )
        .into(),
        theme.heading(),
    );

    let (address, columns) = columns(names.width);
    let mut head = vec![Span::raw(cell("ADDRESS", address, false))];
    for column in columns {
        let sorted = column.sort.contains(&list.sort());
        let arrow = if !sorted {
            ""
        } else if list.descending() {
            "▼"
        } else {
            "▲"
        };
        let style = if sorted { theme.sorted() } else { Style::new() };
        head.push(Span::styled(
            format!(
                " {}",
                cell(&format!("{}{arrow}", column.name), column.width, true)
            ),
            style,
        ));
    }
    put(buffer, names, head.into(), theme.faint());

    let seen = list.seen();
    for (row, (selected, line)) in lines.rows().zip(seen) {
        let mut text = cell(
            &line.map_or("…".into(), |line| line.label()),
            address,
            false,
        );
        for column in columns {
            text.push(' ');
            text.push_str(&cell(
                &line.map_or(String::new(), column.text),
                column.width,
                true,
            ));
        }
        let style = match line {
            Some(line) if line.closing => theme.faint(),
            Some(line) if line.pings_unanswered > 0 => theme.warning(),
            _ => Style::new(),
        };
        put(
            buffer,
            row,
            text.into(),
            if selected { theme.selected() } else { style },
        );
    }
    if list.is_current() && list.matched() == 0 {
        let text = if list.address().is_empty() {
            "No open connections."
        } else {
            "No connection matches; Esc shows all."
        };
        put(buffer, lines, text.into(), theme.faint());
    }
}

/// Text of this width in characters: longer text ends in an ellipsis.
fn cell(text: &str, width: u16, right: bool) -> String {
    let width = usize::from(width);
    let shown = if text.chars().count() > width {
        text.chars()
            .take(width.saturating_sub(1))
            .chain(['…'])
            .collect()
    } else {
        text.to_string()
    };
    if right {
        format!("{shown:>width$}")
    } else {
        format!("{shown:<width$}")
    }
}

pub(super) fn draw_closes(buffer: &mut Buffer, area: Rect, app: &TopApp, theme: Theme) {
    put(buffer, area, "Last closes".into(), theme.heading());
    let mut rows = area.rows().skip(1);
    if app.closes.is_empty()
        && let Some(row) = rows.next()
    {
        put(buffer, row, "None yet.".into(), theme.faint());
    }
    for (row, closed) in rows.zip(&app.closes) {
        put(buffer, row, close(closed, theme), Style::new());
    }
}

/// Time, reason, peer; then the evidence, as much as fits.
fn close(closed: &ClosedEntry, theme: Theme) -> Line<'static> {
    // The time of day of a timestamp: almost all rows are of the same day.
    let time = closed
        .at
        .split_once('T')
        .map_or(closed.at.as_str(), |(_, time)| time);
    let time: String = time.chars().take(8).collect();
    let mut evidence = format!(
        " lasted {}, silent {}",
        span(closed.age_s),
        span(closed.silence_s)
    );
    if closed.pings_unanswered > 0 {
        evidence += &format!(", {} pings unanswered", closed.pings_unanswered);
    }
    if closed.unsent > 0 {
        evidence += &format!(", {} unsent", bytes(closed.unsent));
    }
    evidence += &format!(
        ", {} in, {} out; id {}",
        bytes(closed.bytes_in),
        bytes(closed.bytes_out),
        closed.id
    );
    Line::from(vec![
        Span::styled(format!("{time} "), Style::new().add_modifier(Modifier::DIM)),
        Span::styled(format!("{:<17} ", closed.reason), theme.strong()),
        Span::raw(format!("{:<21}", closed.label())),
        Span::raw(evidence),
    ])
}
