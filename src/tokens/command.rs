//! `heartline token`: adds, lists and removes tokens.

use std::path::PathBuf;
use std::process::ExitCode;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use ring::rand::{SecureRandom, SystemRandom};

use super::file::{LockedFile, TokenEntry, TokenFile, to_hex};
use super::hash;
use crate::console::{notice, print};
use crate::directory::{MAX_GROUPS, Name};
use crate::error::{ConfigError, Error};

/// 128 bits.
const TOKEN_BYTES: usize = 16;

/// Digits of a hash that tell tokens apart in a list.
const SHOWN_DIGITS: usize = 12;

#[derive(Args, Debug)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Subcommand, Debug)]
enum TokenCommand {
    /// Make a token for a name and print it, once: the file has only its hash. A name may have
    /// several tokens
    Add {
        /// The file, as for serve --tokens; made if it is not there
        #[arg(long, value_name = "FILE")]
        tokens: PathBuf,
        /// The name that the token proves
        name: Name,
        /// Groups that the connection joins, separated by commas
        #[arg(long, value_name = "GROUP", value_delimiter = ',')]
        groups: Vec<Name>,
    },
    /// Print the tokens, one per line: the beginning of its hash, name, groups
    List {
        /// The file, as for serve --tokens
        #[arg(long, value_name = "FILE")]
        tokens: PathBuf,
    },
    /// Remove all tokens of a name
    Remove {
        /// The file, as for serve --tokens
        #[arg(long, value_name = "FILE")]
        tokens: PathBuf,
        /// The name
        name: Name,
    },
}

pub(crate) fn run(args: TokenArgs) -> Result<ExitCode, Error> {
    match args.command {
        TokenCommand::Add {
            tokens,
            name,
            groups,
        } => {
            if groups.len() > MAX_GROUPS {
                let problem = format!("a connection is in at most {MAX_GROUPS} groups");
                return Err(ConfigError::new("groups", problem).into());
            }
            let token = random_token()?;
            let mut file = LockedFile::open(&tokens, true)?;
            file.tokens.entries.push(TokenEntry {
                hash: hash(&token),
                name,
                groups,
            });
            file.replace()?;
            print(format!("{token}\n").as_bytes())?;
        }
        TokenCommand::List { tokens } => {
            let entries = TokenFile::read(&tokens)?.entries;
            let lines = entries.iter().map(|entry| {
                let groups = entry.groups.iter().map(|group| format!(" {group}"));
                let hash = &to_hex(&entry.hash)[..SHOWN_DIGITS];
                format!("{hash} {}{}\n", entry.name, groups.collect::<String>())
            });
            print(lines.collect::<String>().as_bytes())?;
        }
        TokenCommand::Remove { tokens, name } => {
            let mut file = LockedFile::open(&tokens, false)?;
            let before = file.tokens.entries.len();
            file.tokens.entries.retain(|entry| entry.name != name);
            let removed = before - file.tokens.entries.len();
            if removed == 0 {
                notice(&format!("{name} has no token in {}", tokens.display()));
                return Ok(ExitCode::FAILURE);
            }
            file.replace()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn random_token() -> Result<String, Error> {
    let mut bytes = [0; TOKEN_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| {
        Error::io("make a token")(std::io::Error::other("the system has no random bytes"))
    })?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}
