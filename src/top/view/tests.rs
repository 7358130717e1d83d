use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};

use super::*;
use crate::admin::api::{ConnectionList, Status};
use crate::top::poller::Update;

fn status(uptime_s: f64, messages: u64) -> Status {
    let mut status = Status {
        version: "0.1.0".into(),
        pid: 42,
        app: "echo".into(),
        framing: "lines".into(),
        uptime_s,
        ..Status::default()
    };
    (status.connections.open, status.connections.max) = (3, 65_000);
    (status.messages.received, status.messages.queued) = (messages, messages);
    status.process.resident_bytes = 4 << 20;
    status
}

fn app(now: Instant) -> TopApp {
    let mut app = TopApp::new("127.0.0.1:7879".into(), Duration::from_secs(1), now);
    let closes = r#"[{"id": "9.0", "address": "192.0.2.9:5009", "at": "2026-11-24T22:27:20.123Z", "reason": "heartbeat-timeout", "origin": "policy", "age_s": 30.0,
        "silence_s": 20.0, "pings_unanswered": 3, "bytes_in": 6, "bytes_out": 27, "unsent": 0, "unfinished": 0, "unacknowledged_s": 0.0}]"#;
    for second in 0..3 {
        let closes = serde_json::from_str(closes).expect("closes");
        app.update(
            Update::Status(
                Box::new(status(
                    11_520.0 + f64::from(second),
                    1000 * u64::from(second as u16),
                )),
                closes,
            ),
            now,
        );
    }
    let line = |slot: u64| {
        let json = serde_json::json!({"id": format!("{slot}.0"), "address": format!("192.0.2.{slot}:5000"), "age_s": 90.5, "silence_s": 3.25,
            "round_trip_ms": if slot == 0 { None } else { Some(slot) }, "bytes_in": 1536, "bytes_out": 10, "queued": 0, "unfinished": 0, "pings_unanswered": slot / 2,
            "closing": false, "awaits_login": false});
        serde_json::from_value(json).expect("a connection")
    };
    let part = ConnectionList {
        matched: 3,
        connections: (0..3).map(line).collect(),
        ..ConnectionList::default()
    };
    app.update(Update::Lines(app.list.query(), part), now);
    app
}

fn drawn(
    app: &mut TopApp,
    width: u16,
    height: u16,
    theme: Theme,
    now: Instant,
) -> Terminal<TestBackend> {
    let mut terminal =
        Terminal::new(TestBackend::new(width, height)).expect("a terminal in memory");
    let draw = |frame: &mut Frame<'_>| {
        let (query, rows) = (app.list.query(), rows(frame.area()));
        app.list.fit(rows);
        // Rows that are present count as the answer to the new query.
        assert_eq!(
            query.path().split("limit").next(),
            app.list.query().path().split("limit").next()
        );
        super::draw(frame, app, theme, now);
    };
    terminal.draw(draw).expect("memory takes everything");
    terminal
}

fn screen(app: &mut TopApp, width: u16, height: u16, now: Instant) -> Vec<String> {
    let terminal = drawn(app, width, height, Theme::plain(), now);
    let buffer = terminal.backend().buffer();
    let row = |y| {
        (0..width)
            .map(|x| buffer[(x, y)].symbol())
            .collect::<String>()
            .trim_end()
            .to_string()
    };
    (0..height).map(row).collect()
}

#[test]
fn screen_of_80_by_24_shows_everything() {
    let now = Instant::now();
    let expected = "\
heartline 0.1.0  127.0.0.1:7879  process 42  echo over lines  up 3h12m
open                messages/s          round trip          closes/s
3 of 65,000         1,000 in, 1,000 out -                   0, 0 new/s
                ███                  ██
memory 4.0 MiB  cpu 0.0 %  descriptors 0 of 0  buffers 0 B
3 connections by silence, longest first
ADDRESS                     SILENCE▼     AGE     RTT  QUEUED     IN    OUT PINGS
192.0.2.0:5000                  3.2s   1m30s       -      0B   1.5K    10B     0
192.0.2.1:5000                  3.2s   1m30s     1ms      0B   1.5K    10B     0
192.0.2.2:5000                  3.2s   1m30s     2ms      0B   1.5K    10B     1









Last closes
22:27:20 heartbeat-timeout 192.0.2.9:5009        lasted 30.0s, silent 20.0s, 3 p


 q quit  ? help  sort: S A Q B R  / search  k kick  m message  b broadcast";
    assert_eq!(screen(&mut app(now), 80, 24, now).join("\n"), expected);
}

#[test]
fn narrow_header_drops_the_least_important_part() {
    let now = Instant::now();
    let mut app = app(now);
    let expected = "\
heartline 0.1.0  127.0.0.1:7879
open      messages/ round tri closes/s
3         2,000     -         0
3 connections by silence, longest first
ADDRESS                 SILENCE▼     AGE
192.0.2.0:5000              3.2s   1m30s
192.0.2.1:5000              3.2s   1m30s
192.0.2.2:5000              3.2s   1m30s

 q quit  ? help  sort: S A Q B R";
    assert_eq!(screen(&mut app, 40, 10, now).join("\n"), expected);
    let expected = "\
heartline 0.1.0  127.0.0.1:7879  up 3h12m
192.0.2.0:5000               3.2s   1m30s
 q quit  ? help  sort: S A Q B R";
    assert_eq!(screen(&mut app, 41, 3, now).join("\n"), expected);
}

#[test]
fn selection_sort_column_and_unanswered_pings_are_highlighted() {
    let now = Instant::now();
    let mut app = app(now);
    app.key(KeyEvent::new(KeyCode::Down, KeyModifiers::NONE), now);
    let terminal = drawn(&mut app, 80, 24, Theme::colourful(), now);
    let buffer = terminal.backend().buffer();
    let reversed: Vec<u16> = (0..24)
        .filter(|y| buffer[(0, *y)].modifier.contains(Modifier::REVERSED))
        .collect();
    assert_eq!(reversed, [8]);
    assert_eq!(
        (buffer[(0, 9)].fg, buffer[(0, 7)].fg),
        (Color::Yellow, Color::Reset),
        "two pings are out on the last line"
    );
    assert_eq!(
        (buffer[(30, 6)].fg, buffer[(42, 6)].fg),
        (Color::Cyan, Color::Reset)
    );
}

#[test]
fn lost_server_is_shown_with_reason_and_last_state() {
    let now = Instant::now();
    let mut app = app(now);
    app.update(
        Update::Trouble("cannot connect to 127.0.0.1:7879: Connection refused".into()),
        now,
    );
    let later = now + Duration::from_secs(12);
    let shown = screen(&mut app, 120, 24, later);
    assert_eq!(
        shown[0],
        " No answer for 12.0s, trying again: cannot connect to 127.0.0.1:7879: Connection refused"
    );
    assert!(shown[7].starts_with("192.0.2.0:5000"), "{shown:?}");
}

#[test]
fn draining_is_shown_in_narrow_windows() {
    let now = Instant::now();
    let mut app = app(now);
    app.update(
        Update::Status(
            Box::new(Status {
                draining: true,
                ..status(11_530.0, 0)
            }),
            Vec::new(),
        ),
        now,
    );
    for width in [26, 60, 120] {
        let shown = screen(&mut app, width, 24, now);
        assert!(
            shown[0].starts_with("heartline 0.1.0") && shown[0].ends_with("DRAINING"),
            "{shown:?}"
        );
    }
}

#[test]
fn prompt_names_the_connection_and_shows_the_input_at_the_cursor() {
    let now = Instant::now();
    let mut app = app(now);
    let press =
        |app: &mut TopApp, key| app.key(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE), now);
    press(&mut app, 'k');
    assert_eq!(
        screen(&mut app, 80, 24, now)[23],
        " Close 192.0.2.0:5000 (0.0)? y/n"
    );
    assert_eq!(
        screen(&mut app, 30, 24, now)[23],
        " Close 192.0.2.0:5000? y/n"
    );
    press(&mut app, 'n');
    press(&mut app, 'b');
    "hello".chars().for_each(|char| drop(press(&mut app, char)));
    assert_eq!(screen(&mut app, 80, 24, now)[23], " Broadcast to 3: hello");
    "x".repeat(100)
        .chars()
        .chain(['!'])
        .for_each(|char| drop(press(&mut app, char)));
    let mut terminal = drawn(&mut app, 40, 24, Theme::plain(), now);
    let buffer = terminal.backend().buffer();
    let row: String = (0..40).map(|x| buffer[(x, 23)].symbol()).collect();
    assert_eq!(row, format!(" Broadcast to 3: {}! ", "x".repeat(21)));
    assert_eq!(
        terminal.get_cursor_position().expect("memory has one"),
        (39, 23).into()
    );
}

#[test]
fn help_fits_on_60_by_15() {
    let now = Instant::now();
    let mut app = app(now);
    app.key(KeyEvent::new(KeyCode::Char('?'), KeyModifiers::NONE), now);
    let shown = screen(&mut app, 60, 15, now);
    assert!(
        shown[1].starts_with("│ S A Q B R     sort by silence, age, queued bytes, bytes,"),
        "{shown:?}"
    );
    assert!(
        shown[13].starts_with("│ Any key closes this page."),
        "{shown:?}"
    );
    assert!(
        shown.iter().all(|line| line.ends_with(['│', '┐', '┘'])),
        "{shown:?}"
    );
}

#[test]
fn any_terminal_size_is_drawn() {
    let now = Instant::now();
    let mut app = app(now);
    for keys in ["", "?", "n", "k", "nb", "a long message", "\u{1b}"] {
        for key in keys.chars() {
            let code = if key == '\u{1b}' {
                KeyCode::Esc
            } else {
                KeyCode::Char(key)
            };
            app.key(KeyEvent::new(code, KeyModifiers::NONE), now);
        }
        for (width, height) in (0..45)
            .flat_map(|width| (0..40).map(move |height| (width, height)))
            .chain([(300, 5), (500, 100)])
        {
            drawn(&mut app, width, height, Theme::colourful(), now);
        }
    }
}

#[test]
fn plain_theme_has_no_colour() {
    let now = Instant::now();
    let mut app = app(now);
    let coloured = |app: &mut TopApp, theme, now| {
        let terminal = drawn(app, 80, 24, theme, now);
        terminal
            .backend()
            .buffer()
            .content()
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    let later = now + Duration::from_secs(60);
    assert!(coloured(&mut app, Theme::colourful(), now));
    assert!(!coloured(&mut app, Theme::plain(), now));
    assert!(
        !coloured(&mut app, Theme::plain(), later),
        "not even for an alarm"
    );
}
