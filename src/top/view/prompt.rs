//! The last row: keys, the result of an action, or a prompt; and the help page.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::{Clear, Widget};

use super::{Theme, fitting, put};
use crate::humanize::grouped;
use crate::top::app::{Mode, Purpose, TopApp};
use crate::top::input::TextInput;

const KEYS: [&str; 8] = [
    "q quit",
    "? help",
    "sort: S A Q B R",
    "/ search",
    "k kick",
    "m message",
    "b broadcast",
    "arrows, page up/down, home, end: select",
];

/// Fits on 60 columns by 15 rows, with its border.
const HELP: [&str; 13] = [
    "S A Q B R     sort by silence, age, queued bytes, bytes,",
    "              round trip; again: the other way round",
    "Up, Down      select a connection, and follow it",
    "Page Up, Page Down, Home, End    scroll",
    "/             filter by address prefix; Esc: all",
    "m, b          message to the selected one, to all",
    "k             close the selected connection",
    "q, Esc, Ctrl-C  quit             Ctrl-Z  suspend",
    "",
    "Yellow connections were pinged and have not answered",
    "yet. Round trips are those of the last pings;",
    "≤ is the bound of the bucket that they are counted in.",
    "Any key closes this page.",
];

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &TopApp, theme: Theme, now: Instant) {
    match &app.mode {
        Mode::Watch => draw_keys(frame, area, app, theme, now),
        Mode::Help => {
            draw_keys(frame, area, app, theme, now);
            draw_help(frame);
        }
        Mode::Confirm(peer) => {
            // A prompt is useless without its answers.
            let asked = [
                format!(" Close {peer}? y/n"),
                format!(" Close {}? y/n", peer.address),
                " Close it? y/n".to_string(),
            ];
            put(
                frame.buffer_mut(),
                area,
                fitting(area.width, asked).into(),
                theme.warning(),
            );
        }
        Mode::Write(purpose, input) => {
            let what = match purpose {
                Purpose::Search => "Name or address begins with".to_string(),
                Purpose::Message(peer) => format!("To {peer}"),
                Purpose::Broadcast => {
                    format!(
                        "Broadcast to {}",
                        grouped(app.history.status().connections.open)
                    )
                }
            };
            draw_input(frame, area, &what, input, theme);
        }
    }
}

fn draw_keys(frame: &mut Frame<'_>, area: Rect, app: &TopApp, theme: Theme, now: Instant) {
    let (text, style) = match app.note(now) {
        Some(note) => (format!(" {note}"), theme.warning()),
        None => (
            fitting(
                area.width,
                (1..=KEYS.len())
                    .rev()
                    .map(|count| format!(" {}", KEYS[..count].join("  "))),
            ),
            theme.faint(),
        ),
    };
    put(frame.buffer_mut(), area, text.into(), style);
}

/// The end of the text before the cursor is always visible, and as much of the text after it as
/// there is room for.
fn draw_input(frame: &mut Frame<'_>, area: Rect, what: &str, input: &TextInput, theme: Theme) {
    let prompt = format!(" {what}: ");
    let prompt_width = Line::raw(prompt.as_str())
        .width()
        .min(usize::from(area.width / 2)) as u16;
    put(frame.buffer_mut(), area, prompt.into(), theme.strong());
    let room = Rect {
        x: area.x + prompt_width,
        width: area.width - prompt_width,
        ..area
    };
    let (before, after) = input.halves();
    let mut seen = before.as_str();
    while Line::raw(seen).width() >= usize::from(room.width) && !seen.is_empty() {
        seen = &seen[seen.chars().next().map_or(0, char::len_utf8)..];
    }
    let cursor = Line::raw(seen).width() as u16;
    if !room.is_empty() {
        // It may begin on the prompt, where that is longer than half the width.
        frame.buffer_mut().set_stringn(
            room.x,
            room.y,
            " ".repeat(usize::from(room.width)),
            usize::from(room.width),
            Style::reset(),
        );
        put(
            frame.buffer_mut(),
            room,
            format!("{seen}{after}").into(),
            Style::new(),
        );
        frame.set_cursor_position(Position::new(room.x + cursor.min(room.width - 1), room.y));
    }
}

fn draw_help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let widest = HELP
        .iter()
        .map(|line| Line::raw(*line).width())
        .max()
        .unwrap_or(0);
    let rule = "─".repeat(widest + 2);
    // Drawn by hand: ratatui's boxes and paragraphs can do much more, and bring it all into the
    // binary.
    let body = HELP.iter().map(|line| {
        format!(
            "│ {line}{} │",
            " ".repeat(widest - Line::raw(*line).width())
        )
    });
    let page = std::iter::once(format!("┌{rule}┐"))
        .chain(body)
        .chain([format!("└{rule}┘")]);
    let (width, height) = (
        (widest as u16 + 4).min(area.width),
        (HELP.len() as u16 + 2).min(area.height),
    );
    let room = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    Clear.render(room, frame.buffer_mut());
    for (row, line) in room.rows().zip(page) {
        put(frame.buffer_mut(), row, line.into(), Style::new());
    }
}
