//! The file of tokens: one line per token, `SHA256 NAME GROUP...`, separated by blanks. Empty lines
//! and lines that begin with `#` are comments.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::Hash;
use crate::directory::{MAX_GROUPS, Name};
use crate::engine::Identity;
use crate::error::{ConfigError, Error};

/// Maximum size of the file: 100,000 tokens with names of 60 bytes. It is read on the loop.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

const HEADER: &str =
    "# Tokens of heartline: SHA-256, name, groups. Written by `heartline token`.\n";

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenEntry {
    pub(super) hash: Hash,
    pub(super) name: Name,
    pub(super) groups: Vec<Name>,
}

impl TokenEntry {
    /// What the token proves.
    pub(super) fn identity(&self) -> Identity {
        let named = Identity::named(self.name.clone());
        // Reading has checked the number of groups.
        named
            .clone()
            .in_groups(self.groups.clone())
            .unwrap_or(named)
    }
}

#[derive(Debug, Default)]
pub(super) struct TokenFile {
    pub(super) entries: Vec<TokenEntry>,
}

/// A file that is held against other writers, until it is dropped.
pub(super) struct LockedFile {
    path: PathBuf,
    _lock: File,
    pub(super) tokens: TokenFile,
}

impl TokenFile {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io(doing("read", path)))?;
        TokenFile::read_from(&file, path)
    }

    fn read_from(file: &File, path: &Path) -> Result<Self, Error> {
        let wrong = |problem: String| {
            Error::from(ConfigError::new(
                "tokens",
                format!("{}:{problem}", path.display()),
            ))
        };
        let mut text = String::new();
        let taken = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
        let taken = taken.map_err(Error::io(doing("read", path)))?;
        if taken as u64 > MAX_FILE_BYTES {
            return Err(wrong(format!(" longer than {MAX_FILE_BYTES} bytes")));
        }
        let mut entries = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                let entry = parse_line(line);
                entries.push(entry.map_err(|problem| wrong(format!("{}: {problem}", index + 1)))?);
            }
        }
        Ok(TokenFile { entries })
    }

    fn text(&self) -> String {
        let mut text = String::from(HEADER);
        for entry in &self.entries {
            // Writing to a string does not fail.
            let _ = write!(text, "{} {}", to_hex(&entry.hash), entry.name);
            for group in &entry.groups {
                let _ = write!(text, " {group}");
            }
            text.push('\n');
        }
        text
    }
}

impl LockedFile {
    /// Opens the file and locks it against other writers (flock(2)); waits for them. `create` makes
    /// one that is not there yet.
    pub(super) fn open(path: &Path, create: bool) -> Result<Self, Error> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .append(create)
                .create(create)
                .mode(0o600)
                .open(path)
                .map_err(Error::io(doing("open", path)))?;
            flock(&file, FlockOperation::LockExclusive)
                .map_err(io::Error::from)
                .map_err(Error::io(doing("lock", path)))?;
            // Another writer may have replaced it meanwhile.
            let is_current = match (file.metadata(), fs::metadata(path)) {
                (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
                _ => false,
            };
            if is_current {
                // A link is followed, so that what is replaced is the file and not the link.
                let target = fs::canonicalize(path).map_err(Error::io(doing("open", path)))?;
                let tokens = TokenFile::read_from(&file, path)?;
                return Ok(LockedFile {
                    path: target,
                    _lock: file,
                    tokens,
                });
            }
        }
    }

    /// Replaces the file by one with the tokens as they are now, readable by its owner only. A
    /// reader sees the old one or the new one, whole.
    pub(super) fn replace(self) -> Result<(), Error> {
        let doing = || doing("write", &self.path);
        let mut new = self.path.clone().into_os_string();
        new.push(format!(".{}.new", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| {
                file.write_all(self.tokens.text().as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&new, &self.path));
        if written.is_err() {
            // What was written of it is of no use.
            let _ = fs::remove_file(&new);
        }
        written.map_err(Error::io(doing()))
    }
}

fn doing(what: &str, path: &Path) -> String {
    format!("{what} the tokens in {}", path.display())
}

fn parse_line(line: &str) -> Result<TokenEntry, String> {
    let mut words = line.split_ascii_whitespace();
    let hash = words.next().and_then(from_hex);
    let hash = hash.ok_or("a line begins with a SHA-256 of 64 hexadecimal digits")?;
    let name = words.next().ok_or("the name is missing")?;
    let name = Name::new(name).map_err(|error| error.to_string())?;
    let groups: Vec<Name> = words
        .map(|group| Name::new(group).map_err(|error| format!("group {group:?}: {error}")))
        .collect::<Result<_, _>>()?;
    if groups.len() > MAX_GROUPS {
        return Err(format!("more than {MAX_GROUPS} groups"));
    }
    Ok(TokenEntry { hash, name, groups })
}

pub(super) fn to_hex(hash: &Hash) -> String {
    hash.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    if text.len() != 2 * hash.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back_as_they_are_written() {
        let name = |text: &str| Name::new(text).expect("a name");
        let file = TokenFile {
            entries: vec![
                TokenEntry {
                    hash: [0xab; 32],
                    name: name("dev-17"),
                    groups: vec![name("fleet"), name("a,b")],
                },
                TokenEntry {
                    hash: [1; 32],
                    name: name("#not-a-comment"),
                    groups: Vec::new(),
                },
            ],
        };
        let text = file.text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let entries: Vec<TokenEntry> = lines.map(|line| parse_line(line).expect("valid")).collect();
        assert_eq!(entries, file.entries);
        let identity = entries[0].identity();
        assert_eq!(identity.name().map(Name::as_str), Some("dev-17"));
    }

    #[test]
    fn lines_that_are_wrong_are_rejected_with_a_reason() {
        let hash = "0".repeat(64);
        let groups = " g".repeat(MAX_GROUPS + 1);
        for (line, problem) in [
            ("dev-17".to_owned(), "a line begins with a SHA-256"),
            (format!("{hash}0 dev"), "a line begins with a SHA-256"),
            (
                format!("+{} dev", &hash[1..]),
                "a line begins with a SHA-256",
            ),
            (hash.clone(), "the name is missing"),
            (format!("{hash} a\u{200b}b"), "no blanks and no unprintable"),
            (format!("{hash} dev a\u{7}"), "group \"a\\u{7}\""),
            (format!("{hash} dev{groups}"), "more than 64 groups"),
        ] {
            let error = parse_line(&line).expect_err("wrong");
            assert!(error.contains(problem), "{line}: {error}");
        }
    }
}
