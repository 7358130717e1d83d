//! The state of `top`, and what keys and answers make of it. It draws nothing and sends
//! nothing.

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::history::History;
use super::input::TextInput;
use super::list::List;
use super::peer::Peer;
use super::poller::{AdminAction, Update};
use crate::admin::api::ClosedEntry;
use crate::admin::api::Sort;

/// How long a notice about an action stays.
const NOTE: Duration = Duration::from_secs(6);

/// Silence of the server that is shown though no request has failed yet, in addition to twice the
/// interval.
const LATE: Duration = Duration::from_secs(2);

pub(super) struct TopApp {
    pub(super) addr: String,
    interval: Duration,
    pub(super) list: List,
    pub(super) history: History,
    /// Newest first.
    pub(super) closes: Vec<ClosedEntry>,
    pub(super) mode: Mode,
    note: Option<(String, Instant)>,
    /// When the last answer came.
    answered: Instant,
    /// The error of the last request, if it failed.
    trouble: Option<String>,
}

/// The mode of the keyboard.
#[derive(Debug)]
pub(super) enum Mode {
    Watch,
    Help,
    /// Close it?
    Confirm(Peer),
    Write(Purpose, TextInput),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Search,
    Message(Peer),
    Broadcast,
}

/// What a key requires beyond the app itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Quit,
    /// Out of the way, until the shell brings it back.
    Suspend,
    Act(AdminAction),
}

impl TopApp {
    pub(super) fn new(addr: String, interval: Duration, now: Instant) -> Self {
        TopApp {
            addr,
            interval,
            list: List::new(),
            history: History::default(),
            closes: Vec::new(),
            mode: Mode::Watch,
            note: None,
            answered: now,
            trouble: None,
        }
    }

    pub(super) fn update(&mut self, news: Update, now: Instant) {
        match news {
            Update::Status(status, closes) => {
                (self.closes, self.answered, self.trouble) = (closes, now, None);
                if self.history.add(*status) {
                    self.show_notice("the server was restarted".to_string(), now);
                }
            }
            Update::Lines(query, part) => self.list.take(&query, part),
            Update::Trouble(sentence) => self.trouble = Some(sentence),
            Update::Done(sentence) => self.show_notice(sentence, now),
        }
    }

    pub(super) fn show_notice(&mut self, sentence: String, now: Instant) {
        self.note = Some((sentence, now + NOTE));
    }

    pub(super) fn note(&self, now: Instant) -> Option<&str> {
        self.note
            .as_ref()
            .filter(|(_, until)| now < *until)
            .map(|(sentence, _)| sentence.as_str())
    }

    /// If the figures are not of now: how old they are, and why as far as it is known.
    pub(super) fn lost(&self, now: Instant) -> Option<(Duration, &str)> {
        let age = now.saturating_duration_since(self.answered);
        match &self.trouble {
            Some(sentence) => Some((age, sentence)),
            None => (age > self.interval * 2 + LATE).then_some((age, "waiting for an answer")),
        }
    }

    pub(super) fn key(&mut self, key: KeyEvent, now: Instant) -> Option<Effect> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c') => return Some(Effect::Quit),
                KeyCode::Char('z') => return Some(Effect::Suspend),
                _ => {}
            }
        }
        match &mut self.mode {
            Mode::Watch => return self.watch_key(key, now),
            Mode::Help => self.mode = Mode::Watch,
            Mode::Confirm(peer) => {
                let peer = peer.clone();
                match key.code {
                    KeyCode::Char('y' | 'Y') => {
                        self.mode = Mode::Watch;
                        return Some(Effect::Act(AdminAction::Close(peer)));
                    }
                    KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => self.mode = Mode::Watch,
                    // Any other key is ignored.
                    _ => {}
                }
            }
            Mode::Write(purpose, input) => match key.code {
                KeyCode::Esc => self.mode = Mode::Watch,
                KeyCode::Enter => {
                    let (purpose, text) = (purpose.clone(), input.text());
                    self.mode = Mode::Watch;
                    return self.written(purpose, text, now);
                }
                _ => input.key(key),
            },
        }
        None
    }

    pub(super) fn paste(&mut self, text: &str) {
        // Outside of an input the letters would be commands; pasted text is not.
        if let Mode::Write(_, input) = &mut self.mode {
            input.paste(text);
        }
    }

    fn watch_key(&mut self, key: KeyEvent, now: Instant) -> Option<Effect> {
        self.note = None;
        match key.code {
            KeyCode::Char('q') => return Some(Effect::Quit),
            KeyCode::Esc if self.list.address().is_empty() => return Some(Effect::Quit),
            KeyCode::Esc => self.list.search(""),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.mode = Mode::Help,
            KeyCode::Char('s' | 'S') => self.list.sort_by(Sort::Silence),
            KeyCode::Char('a' | 'A') => self.list.sort_by(Sort::Age),
            KeyCode::Char('Q') => self.list.sort_by(Sort::Queued),
            KeyCode::Char('B') => self.list.sort_by(Sort::Bytes),
            KeyCode::Char('r' | 'R') => self.list.sort_by(Sort::RoundTrip),
            KeyCode::Up => self.list.step(-1),
            KeyCode::Down => self.list.step(1),
            KeyCode::PageUp => self.list.page(-1),
            KeyCode::PageDown => self.list.page(1),
            KeyCode::Home => self.list.first_line(),
            KeyCode::End => self.list.last_line(),
            KeyCode::Char('/') => {
                self.mode = Mode::Write(Purpose::Search, TextInput::new(self.list.address()))
            }
            KeyCode::Char('b') => self.mode = Mode::Write(Purpose::Broadcast, TextInput::default()),
            KeyCode::Char(char @ ('k' | 'm')) => match self.list.selected() {
                Some(connection) if char == 'k' => self.mode = Mode::Confirm(Peer::of(connection)),
                Some(connection) => {
                    self.mode =
                        Mode::Write(Purpose::Message(Peer::of(connection)), TextInput::default())
                }
                None => self.show_notice("no connection is selected".to_string(), now),
            },
            _ => {}
        }
        None
    }

    fn written(&mut self, purpose: Purpose, text: String, now: Instant) -> Option<Effect> {
        match purpose {
            Purpose::Search => self.list.search(text.trim()),
            _ if text.is_empty() => self.show_notice("nothing was sent".to_string(), now),
            Purpose::Message(peer) => return Some(Effect::Act(AdminAction::Send(peer, text))),
            Purpose::Broadcast => return Some(Effect::Act(AdminAction::Broadcast(text))),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::ConnectionEntry;
    use crate::admin::api::{ConnectionList, Status};

    struct Fixture {
        app: TopApp,
        now: Instant,
    }

    impl Fixture {
        /// Two connections are in the list: 0.1 and 1.1.
        fn new() -> Self {
            let now = Instant::now();
            let mut app = TopApp::new("127.0.0.1:7879".into(), Duration::from_secs(1), now);
            app.list.fit(10);
            let line = |id: &str| ConnectionEntry {
                id: id.into(),
                address: format!("192.0.2.{id}"),
                ..ConnectionEntry::default()
            };
            let part = ConnectionList {
                matched: 2,
                connections: vec![line("0.1"), line("1.1")],
                ..ConnectionList::default()
            };
            app.update(Update::Lines(app.list.query(), part), now);
            Fixture { app, now }
        }

        fn keys(&mut self, keys: &str) -> Option<Effect> {
            keys.chars()
                .map(|key| {
                    self.code(if key == '\n' {
                        KeyCode::Enter
                    } else {
                        KeyCode::Char(key)
                    })
                })
                .last()
                .flatten()
        }

        fn code(&mut self, code: KeyCode) -> Option<Effect> {
            self.app
                .key(KeyEvent::new(code, KeyModifiers::NONE), self.now)
        }

        fn control(&mut self, key: char) -> Option<Effect> {
            self.app.key(
                KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL),
                self.now,
            )
        }
    }

    #[test]
    fn escape_closes_the_prompt_before_it_quits() {
        let mut try_ = Fixture::new();
        assert_eq!(try_.keys("q"), Some(Effect::Quit));
        assert_eq!(try_.code(KeyCode::Esc), Some(Effect::Quit));
        for open in ["?", "k", "b", "/", "m"] {
            try_.keys(open);
            assert_eq!(try_.code(KeyCode::Esc), None, "{open}");
            assert!(matches!(try_.app.mode, Mode::Watch), "{open}");
            try_.keys(open);
            assert_eq!(try_.control('c'), Some(Effect::Quit), "{open}");
            try_.code(KeyCode::Esc);
        }
        try_.keys("/192\n");
        assert_eq!(try_.code(KeyCode::Esc), None);
        assert_eq!(try_.app.list.address(), "");
        assert_eq!(try_.code(KeyCode::Esc), Some(Effect::Quit));
    }

    #[test]
    fn confirmed_close_is_for_the_named_connection() {
        let mut try_ = Fixture::new();
        try_.code(KeyCode::Down);
        for no in ["kn", "kq", "kx \n"] {
            assert_eq!(try_.keys(no), None, "{no:?}");
        }
        try_.code(KeyCode::Esc);
        try_.keys("k");
        let gone = ConnectionList {
            matched: 1,
            connections: vec![ConnectionEntry {
                id: "0.1".into(),
                ..ConnectionEntry::default()
            }],
            ..ConnectionList::default()
        };
        try_.app
            .update(Update::Lines(try_.app.list.query(), gone), try_.now);
        let peer = Peer {
            id: "1.1".into(),
            address: "192.0.2.1.1".into(),
        };
        assert_eq!(try_.keys("y"), Some(Effect::Act(AdminAction::Close(peer))));
    }

    #[test]
    fn letters_are_text_while_a_message_is_typed() {
        let mut try_ = Fixture::new();
        assert_eq!(
            try_.keys("bqk?B\n"),
            Some(Effect::Act(AdminAction::Broadcast("qk?B".into())))
        );
        let peer = Peer {
            id: "0.1".into(),
            address: "192.0.2.0.1".into(),
        };
        assert_eq!(
            try_.keys("mhi y\n"),
            Some(Effect::Act(AdminAction::Send(peer, "hi y".into())))
        );
        assert_eq!(try_.keys("m\n"), None);
        assert_eq!(try_.app.note(try_.now), Some("nothing was sent"));
        assert_eq!(try_.app.list.sort(), Sort::Silence);
    }

    #[test]
    fn pasted_text_is_not_a_command() {
        let mut try_ = Fixture::new();
        try_.app.paste("k");
        assert!(matches!(try_.app.mode, Mode::Watch));
        try_.keys("b");
        try_.app.paste("two\nlines");
        assert_eq!(
            try_.keys("\n"),
            Some(Effect::Act(AdminAction::Broadcast("two".into())))
        );
    }

    #[test]
    fn keys_sort_and_the_same_key_turns_it_round() {
        let mut try_ = Fixture::new();
        for (key, sort) in [
            ("A", Sort::Age),
            ("Q", Sort::Queued),
            ("B", Sort::Bytes),
            ("r", Sort::RoundTrip),
            ("s", Sort::Silence),
        ] {
            try_.keys(key);
            assert_eq!(
                (try_.app.list.sort(), try_.app.list.descending()),
                (sort, true),
                "{key}"
            );
            try_.keys(key);
            assert_eq!(
                (try_.app.list.sort(), try_.app.list.descending()),
                (sort, false),
                "{key}"
            );
        }
    }

    #[test]
    fn actions_without_a_selection_do_nothing() {
        let mut try_ = Fixture::new();
        try_.app.update(
            Update::Lines(try_.app.list.query(), ConnectionList::default()),
            try_.now,
        );
        assert_eq!(try_.keys("ky"), None);
        assert!(matches!(try_.app.mode, Mode::Watch));
    }

    #[test]
    fn lost_server_is_shown_until_it_answers() {
        let mut try_ = Fixture::new();
        assert_eq!(try_.app.lost(try_.now), None);
        let later = try_.now + Duration::from_secs(5);
        assert_eq!(
            try_.app.lost(later),
            Some((Duration::from_secs(5), "waiting for an answer")),
            "no question has failed, but none was answered"
        );
        try_.app.update(Update::Trouble("refused".into()), later);
        assert_eq!(
            try_.app.lost(later),
            Some((Duration::from_secs(5), "refused"))
        );
        try_.app
            .update(Update::Status(Box::default(), Vec::new()), later);
        assert_eq!(try_.app.lost(later), None);
    }

    #[test]
    fn another_server_at_the_same_address_is_reported() {
        let mut try_ = Fixture::new();
        for pid in [7, 7, 8] {
            assert_eq!(try_.app.note(try_.now), None, "{pid}");
            try_.app.update(
                Update::Status(
                    Box::new(Status {
                        pid,
                        ..Status::default()
                    }),
                    Vec::new(),
                ),
                try_.now,
            );
        }
        assert_eq!(try_.app.note(try_.now), Some("the server was restarted"));
        assert_eq!(try_.app.note(try_.now + NOTE), None);
    }
}
