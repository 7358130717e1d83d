//! The client of `heartline serve --admin`: `status` and `top` query a server over HTTP.

mod http;
mod target;

use std::fmt;
use std::io;
use std::path::PathBuf;

use clap::Args;
use serde::de::DeserializeOwned;

use super::api;
use crate::args::token::Token;
use crate::error::{ConfigError, Error};
use http::{HttpAnswer, exchange};
use target::Target;

#[derive(Args, Debug)]
pub(crate) struct AdminClientArgs {
    /// The admin endpoint, as `serve --admin` has it: HOST:PORT, http://HOST:PORT or unix:PATH
    #[arg(value_name = "ADDR")]
    addr: String,
    /// File with the token that the server was given by its --admin-token-file
    #[arg(
        long,
        value_name = "FILE",
        env = "HEARTLINE_ADMIN_TOKEN_FILE",
        hide_env_values = true
    )]
    token_file: Option<PathBuf>,
}

/// A client of one admin endpoint. Each request has a connection of its own, so none can be lost
/// between two requests.
#[derive(Clone)]
pub(crate) struct AdminClient {
    target: Target,
    token: Option<Token>,
}

/// Why there is no answer, in sentences for the person at the terminal.
#[derive(Debug)]
pub(crate) enum AdminError {
    /// The server could not be reached.
    Unreachable { addr: String, source: io::Error },
    /// The server closed the connection, or did not answer in time.
    Broken { addr: String, source: io::Error },
    /// There was an answer, and it is not one of Heartline's.
    NotAdmin { addr: String, problem: String },
    /// A token is needed, or another one.
    Unauthorized { addr: String, had_token: bool },
    /// An error response, with the server's sentence.
    Refused { code: u16, sentence: String },
}

impl AdminClient {
    pub(crate) fn new(args: &AdminClientArgs) -> Result<Self, Error> {
        let target = args.addr.parse().map_err(|problem: String| {
            ConfigError::new("addr", format!("{}: {problem}", args.addr))
        })?;
        let token = args
            .token_file
            .as_deref()
            .map(|path| Token::read("token_file", path))
            .transpose()?;
        Ok(AdminClient { target, token })
    }

    /// The address, as the user wrote it but for what may be left out.
    pub(crate) fn addr(&self) -> String {
        self.target.to_string()
    }

    /// The text of `GET path`.
    pub(crate) fn get(&self, path: &str) -> Result<String, AdminError> {
        let answer = self.ask("GET", path, b"")?;
        String::from_utf8(answer.body).map_err(|_| self.not_admin("its response is not text"))
    }

    /// `GET path`, understood.
    pub(crate) fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, AdminError> {
        self.understand(&self.get(path)?)
    }

    /// Decodes the JSON of a response.
    pub(crate) fn understand<T: DeserializeOwned>(&self, text: &str) -> Result<T, AdminError> {
        serde_json::from_str(text)
            .map_err(|error| self.not_admin(&format!("its response is not valid: {error}")))
    }

    /// Sends a request and expects success.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<HttpAnswer, AdminError> {
        let answer = exchange(
            &self.target,
            self.token.as_ref().map(Token::as_str),
            method,
            path,
            body,
        )?;
        match answer.code {
            200..300 => Ok(answer),
            401 => Err(AdminError::Unauthorized {
                addr: self.addr(),
                had_token: self.token.is_some(),
            }),
            // The errors of an admin endpoint have a sentence; others' pages of errors are not for
            // terminals.
            code => match serde_json::from_slice::<api::Failed>(&answer.body) {
                Ok(refusal) => Err(AdminError::Refused {
                    code,
                    sentence: refusal.error,
                }),
                Err(_) => Err(self.not_admin(&format!("it answers {code} to {method} {path}"))),
            },
        }
    }

    fn not_admin(&self, problem: &str) -> AdminError {
        AdminError::NotAdmin {
            addr: self.addr(),
            problem: problem.to_string(),
        }
    }
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentence = match self {
            AdminError::Unreachable { addr, source }
                if source.kind() == io::ErrorKind::TimedOut =>
            {
                format!("cannot connect to {addr}: the connect timed out")
            }
            AdminError::Unreachable { addr, source } => {
                format!("cannot connect to {addr}: {source}")
            }
            AdminError::Broken { addr, source } => match source.kind() {
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                    format!("{addr} did not respond in time")
                }
                _ => format!("the connection to {addr} failed: {source}"),
            },
            AdminError::NotAdmin { addr, problem } => {
                format!(
                    "{addr} is not an admin endpoint of heartline (`serve --admin` prints its address): {problem}"
                )
            }
            AdminError::Unauthorized {
                addr,
                had_token: false,
            } => {
                format!(
                    "{addr} requires a token; \
                     name its file with --token-file or HEARTLINE_ADMIN_TOKEN_FILE"
                )
            }
            AdminError::Unauthorized {
                addr,
                had_token: true,
            } => format!("{addr} rejected the token of --token-file"),
            AdminError::Refused { code, sentence } => {
                format!("the server says: {sentence} ({code})")
            }
        };
        f.write_str(&printable(&sentence))
    }
}

/// Text from elsewhere without what would command the terminal that it is shown on.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() { '\u{fffd}' } else { char })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_a_server_are_escaped() {
        let error = AdminError::Refused {
            code: 409,
            sentence: "full\x1b[2J".to_string(),
        };
        assert_eq!(error.to_string(), "the server says: full\u{fffd}[2J (409)");
    }
}
