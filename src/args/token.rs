//! A secret in a file: for the admin endpoint, and for logins.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use subtle::ConstantTimeEq;

use crate::error::{ConfigError, Error};

/// Shorter tokens could be guessed.
const MIN_TOKEN_BYTES: usize = 16;
/// Longer ones are a wrong file; and they must fit a header.
const MAX_TOKEN_BYTES: usize = 1024;

/// A secret. Never logged.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// The one line of a file, which `field` names.
    pub(crate) fn read(field: &'static str, path: &Path) -> Result<Self, Error> {
        Token::read_long(field, path, MAX_TOKEN_BYTES)
    }

    /// The same of at most `max_bytes`.
    pub(crate) fn read_long(
        field: &'static str,
        path: &Path,
        max_bytes: usize,
    ) -> Result<Self, Error> {
        let wrong =
            |problem: String| ConfigError::new(field, format!("{}: {problem}", path.display()));
        let mut text = String::new();
        // A file that is not there yet is no fault of the settings.
        File::open(path)
            .and_then(|file| file.take(max_bytes as u64 + 3).read_to_string(&mut text))
            .map_err(Error::io(format!("read the token in {}", path.display())))?;
        Ok(Token::parse(&text, max_bytes).map_err(wrong)?)
    }

    pub(crate) fn parse(text: &str, max_bytes: usize) -> Result<Self, String> {
        let token = text.strip_suffix('\n').unwrap_or(text);
        let token = token.strip_suffix('\r').unwrap_or(token);
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a token is one line of visible ASCII characters".into());
        }
        if !(MIN_TOKEN_BYTES..=max_bytes).contains(&token.len()) {
            return Err(format!(
                "a token has {MIN_TOKEN_BYTES} to {max_bytes} characters"
            ));
        }
        Ok(Token(token.into()))
    }

    /// The form in a header.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Compares in constant time, so that the duration does not reveal how much of `given` is
    /// right.
    pub(crate) fn is(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_file_has_one_line_of_limited_length() {
        for text in [
            "0123456789abcdef",
            "0123456789abcdef\n",
            "0123456789abcdef\r\n",
        ] {
            assert!(
                Token::parse(text, MAX_TOKEN_BYTES)
                    .is_ok_and(|token| token.is(b"0123456789abcdef")),
                "{text:?}"
            );
        }
        let long = "x".repeat(MAX_TOKEN_BYTES + 1);
        for text in [
            "",
            "\n",
            "0123456789abcde",
            "0123456789abcdef\n\n",
            "0123456789 abcdef",
            "0123456789abcdefé",
            long.as_str(),
        ] {
            assert!(Token::parse(text, MAX_TOKEN_BYTES).is_err(), "{text:?}");
        }
    }
}
