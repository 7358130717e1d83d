//! The flags of the endpoint.

use std::path::PathBuf;

use clap::Args;

use super::access::Access;
use super::listener::Address;
use crate::args::token::Token;
use crate::error::Error;

#[derive(Args, Debug)]
#[command(next_help_heading = "Admin endpoint")]
pub(crate) struct AdminArgs {
    /// Serve HTTP here: health, metrics, status, connections, and a page; HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR")]
    admin: Option<Address>,
    /// Every request needs the token in this file, of 16 characters or more; required for an
    /// address that is not loopback
    #[arg(long, value_name = "PATH")]
    admin_token_file: Option<PathBuf>,
}

impl AdminArgs {
    pub(super) fn is_on(&self) -> bool {
        self.admin.is_some()
    }

    /// Whether a token file is set without an endpoint.
    pub(crate) fn protects_nothing(&self) -> bool {
        self.admin.is_none() && self.admin_token_file.is_some()
    }

    /// Where to listen, and for whom, if anywhere.
    pub(super) fn endpoint(&self) -> Result<Option<(&Address, Access)>, Error> {
        let Some(address) = &self.admin else {
            return Ok(None);
        };
        let token = self
            .admin_token_file
            .as_deref()
            .map(|path| Token::read("admin_token_file", path))
            .transpose()?;
        Ok(Some((
            address,
            Access {
                token,
                tcp: address.is_tcp(),
            },
        )))
    }
}
