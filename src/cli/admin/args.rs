//! The flags of the endpoint.

use std::path::PathBuf;

use clap::Args;

use super::access::Token;
use super::listener::Address;
use crate::error::ConfigError;

#[derive(Args, Debug)]
#[command(next_help_heading = "Admin endpoint")]
pub(crate) struct AdminArgs {
    /// Answer HTTP here: health, metrics, status, connections, and a page; HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR")]
    admin: Option<Address>,
    /// What every request must carry is the line in this file, of 16 characters or more; needed for an address that is not loopback
    #[arg(long, value_name = "PATH", requires = "admin")]
    admin_token_file: Option<PathBuf>,
}

impl AdminArgs {
    pub(super) fn address(&self) -> Option<&Address> {
        self.admin.as_ref()
    }

    pub(super) fn token(&self) -> Result<Option<Token>, ConfigError> {
        self.admin_token_file.as_deref().map(|path| Token::read("admin_token_file", path)).transpose()
    }
}
