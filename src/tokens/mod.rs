//! Tokens that prove names: the file of `--tokens`, and `heartline token`, which writes it.
//!
//! A token is 128 random bits. The file has only its SHA-256, so a reader of the file cannot log
//! in.

mod command;
mod file;

use std::collections::HashMap;
use std::path::Path;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

pub(crate) use command::{TokenArgs, run};

use crate::close::DenyReason;
use crate::directory::Name;
use crate::engine::{Identity, LoginDecision, LoginRequest};
use crate::error::Error;
use file::TokenFile;

type Hash = [u8; SHA256_OUTPUT_LEN];

fn hash(token: &str) -> Hash {
    let mut hash = [0; SHA256_OUTPUT_LEN];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

/// The tokens of a server, by their hash: a lookup compares no secrets.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    by_hash: HashMap<Hash, Identity>,
    /// How many tokens each name has.
    names: HashMap<Name, usize>,
}

impl Tokens {
    /// Reads the file of `--tokens`.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let mut tokens = Tokens::default();
        for entry in TokenFile::read(path)?.entries {
            *tokens.names.entry(entry.name.clone()).or_default() += 1;
            tokens.by_hash.insert(entry.hash, entry.identity());
        }
        Ok(tokens)
    }

    /// Whether a token proves this name.
    pub(crate) fn knows(&self, name: &Name) -> bool {
        self.names.contains_key(name)
    }

    /// The decision about a login. A name beside the token must be the one that it proves.
    pub(crate) fn decide(&self, request: &LoginRequest<'_>) -> LoginDecision {
        let Some(token) = request.token else {
            return LoginDecision::Deny(DenyReason::TokenMissing);
        };
        let Some(identity) = self.by_hash.get(&hash(token)) else {
            return LoginDecision::Deny(DenyReason::BadToken);
        };
        if request.name.is_some() && request.name != identity.name() {
            return LoginDecision::Deny(DenyReason::NameMismatch);
        }
        LoginDecision::Accept(identity.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_sha256() {
        // `printf %s abc | sha256sum` (FIPS 180-4, appendix).
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(file::to_hex(&hash("abc")), expected);
    }
}
