//! One line of text that is being written.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Most characters of it: more than anybody writes by hand, and less than any server takes.
const MAX_CHARS: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct TextInput {
    text: Vec<char>,
    /// Characters before the cursor.
    cursor: usize,
}

impl TextInput {
    pub(super) fn new(text: &str) -> Self {
        let text: Vec<char> = text.chars().collect();
        TextInput {
            cursor: text.len(),
            text,
        }
    }

    pub(super) fn text(&self) -> String {
        self.text.iter().collect()
    }

    /// The text before the cursor, and the text after it.
    pub(super) fn halves(&self) -> (String, String) {
        let (before, after) = self.text.split_at(self.cursor);
        (before.iter().collect(), after.iter().collect())
    }

    pub(super) fn key(&mut self, key: KeyEvent) {
        match key.code {
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                *self = TextInput::default()
            }
            KeyCode::Char('a') if key.modifiers.contains(KeyModifiers::CONTROL) => self.cursor = 0,
            KeyCode::Char('e') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                self.cursor = self.text.len()
            }
            KeyCode::Char(char)
                if !key
                    .modifiers
                    .intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) =>
            {
                self.insert(char)
            }
            KeyCode::Backspace if self.cursor > 0 => {
                self.cursor -= 1;
                self.text.remove(self.cursor);
            }
            KeyCode::Delete if self.cursor < self.text.len() => {
                self.text.remove(self.cursor);
            }
            KeyCode::Left => self.cursor = self.cursor.saturating_sub(1),
            KeyCode::Right => self.cursor = self.text.len().min(self.cursor + 1),
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = self.text.len(),
            _ => {}
        }
    }

    /// Text from the clipboard. Only its first line: further lines would be taken for keys.
    pub(super) fn paste(&mut self, text: &str) {
        for char in text.chars().take_while(|char| !matches!(char, '\r' | '\n')) {
            self.insert(char);
        }
    }

    fn insert(&mut self, char: char) {
        if self.text.len() < MAX_CHARS && !char.is_control() {
            self.text.insert(self.cursor, char);
            self.cursor += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(input: &mut TextInput, codes: &[KeyCode]) -> String {
        codes
            .iter()
            .for_each(|code| input.key(KeyEvent::new(*code, KeyModifiers::NONE)));
        input.text()
    }

    #[test]
    fn input_is_edited_at_the_cursor() {
        use KeyCode::*;
        let mut input = TextInput::new("añb");
        assert_eq!(
            typed(
                &mut input,
                &[
                    Left,
                    Backspace,
                    Char('n'),
                    Home,
                    Delete,
                    Delete,
                    Delete,
                    Delete,
                    Char('x')
                ]
            ),
            "x"
        );
        assert_eq!(
            typed(
                &mut input,
                &[Home, Backspace, Left, Char('0'), End, Right, Char('9')]
            ),
            "0x9"
        );
        input.key(KeyEvent::new(Left, KeyModifiers::NONE));
        assert_eq!(input.halves(), ("0x".to_string(), "9".to_string()));
        input.key(KeyEvent::new(Char('u'), KeyModifiers::CONTROL));
        assert_eq!(input.text(), "");
    }

    #[test]
    fn paste_takes_one_bounded_line() {
        let mut input = TextInput::new("say ");
        input.paste("hel\tlo\r\nq\ny");
        assert_eq!(input.text(), "say hello");
        input.paste(&"x".repeat(10_000));
        assert_eq!(input.text().len(), MAX_CHARS);
    }
}
