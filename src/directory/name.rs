//! Names of connections and of groups.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

/// Longest name in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// The name of a connection or of a group: 1 to 128 bytes of printable UTF-8 without blanks. Cheap
/// to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// Why a text is not a [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// It has no bytes.
    Empty,
    /// It has more than [`MAX_NAME_BYTES`].
    TooLong,
    /// It has a blank, a control character, or another one that is not printable.
    NotPrintable,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::Empty => f.write_str("a name has at least one byte"),
            NameError::TooLong => write!(f, "a name has at most {MAX_NAME_BYTES} bytes"),
            NameError::NotPrintable => {
                f.write_str("a name has no blanks and no unprintable characters")
            }
        }
    }
}

impl std::error::Error for NameError {}

impl Name {
    /// Checks a text and makes it a name.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong);
        }
        if !is_printable(text) {
            return Err(NameError::NotPrintable);
        }
        Ok(Name(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether every character is a graphic one. Combining characters are, but for the first.
fn is_printable(text: &str) -> bool {
    // The standard library knows what is printable only by how it escapes a string.
    let is_escaped = |char: char| {
        !matches!(char, '\\' | '"' | '\'') && format!("a{char}").escape_debug().count() != 2
    };
    let is_combining = |char: char| char.escape_debug().count() != 1;
    let is_plain = |char: char| char.is_ascii_graphic();
    !text.chars().any(|char| {
        !is_plain(char) && (char.is_whitespace() || char.is_control() || is_escaped(char))
    }) && !text
        .chars()
        .next()
        .is_some_and(|first| !is_plain(first) && is_combining(first))
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Name::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_many_scripts_are_accepted() {
        let longest = "a".repeat(MAX_NAME_BYTES);
        for text in [
            "dev-17",
            "a/b:c,d=e%f\\g\"h'i",
            "Zürich",
            "e\u{301}",
            "हिन्दी",
            "東京",
            "😀",
            &longest,
        ] {
            assert_eq!(Name::new(text).expect(text).as_str(), text);
        }
    }

    #[test]
    fn texts_that_are_no_names_are_rejected() {
        assert_eq!(Name::new(""), Err(NameError::Empty));
        let long = "ä".repeat(MAX_NAME_BYTES / 2 + 1);
        assert_eq!(Name::new(&long), Err(NameError::TooLong));
        for text in [
            "a b",
            "a\tb",
            "a\nb",
            "a\0",
            "a\u{7f}",
            "a\u{85}",
            "a\u{a0}b",
            "a\u{2028}b",
            "a\u{3000}b",
            "a\u{200b}b",
            "a\u{202e}b",
            "\u{feff}a",
            "\u{301}a",
            "a\u{e000}",
        ] {
            assert_eq!(Name::new(text), Err(NameError::NotPrintable), "{text:?}");
        }
    }
}
