//! The flags about names of connections.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::args::values::duration;
use crate::config::{Login, LoginMode, OnDuplicate};
use crate::error::ConfigError;

#[derive(Args, Debug)]
#[command(next_help_heading = "Login")]
pub(crate) struct LoginArgs {
    /// Who needs a name; peers say it with their first message, hello
    #[arg(long, value_enum, default_value = "off")]
    login: LoginArg,
    /// File with the tokens that prove names, written by heartline token; SIGHUP reads it again,
    /// and closes connections whose name has no token any more
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// What happens when a second connection logs in with a name
    #[arg(long, value_enum, default_value = "replace")]
    on_duplicate: OnDuplicateArg,
    /// How long a login may take; heartbeats do not extend it
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    login_timeout: Duration,
    /// Most failed logins of one IP address within a minute; 0 means no bound
    #[arg(long, value_name = "N", default_value_t = 60)]
    login_failures: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LoginArg {
    /// Connections have no names
    Off,
    /// A connection may prove a name by a token
    Optional,
    /// A connection must prove a name by a token
    Required,
    /// A connection must state a name, and is believed: for a laboratory
    Trust,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnDuplicateArg {
    /// The first connection is closed
    Replace,
    /// The second connection is denied
    Refuse,
    /// Both keep the name; messages to it go to both
    Allow,
}

impl LoginArgs {
    /// The file of tokens, if names are proven by tokens.
    pub(crate) fn tokens(&self) -> Result<Option<&Path>, ConfigError> {
        let problem = match (self.login, self.tokens.as_deref()) {
            (LoginArg::Optional | LoginArg::Required, None) => {
                "is needed with --login optional and required: what else would prove a name?"
            }
            (LoginArg::Off | LoginArg::Trust, Some(_)) => {
                "has no effect with --login off and trust; set --login required"
            }
            (_, tokens) => return Ok(tokens),
        };
        Err(ConfigError::new("tokens", problem).against(&["login"]))
    }

    pub(crate) fn login(&self) -> Login {
        Login {
            mode: match self.login {
                LoginArg::Off => LoginMode::Off,
                LoginArg::Optional => LoginMode::Optional,
                LoginArg::Required => LoginMode::Required,
                LoginArg::Trust => LoginMode::Trust,
            },
            on_duplicate: match self.on_duplicate {
                OnDuplicateArg::Replace => OnDuplicate::Replace,
                OnDuplicateArg::Refuse => OnDuplicate::Refuse,
                OnDuplicateArg::Allow => OnDuplicate::Allow,
            },
            timeout: self.login_timeout,
            max_failures: self.login_failures,
            ..Login::default()
        }
    }
}
