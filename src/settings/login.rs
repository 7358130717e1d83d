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
    /// File with the key of JSON Web Tokens that prove names: a secret of at least 32 bytes
    /// (HS256), or a public key in PEM (Ed25519, ES256). The algorithm follows from the key
    #[arg(long, value_name = "FILE")]
    jwt_key: Option<PathBuf>,
    /// What a JSON Web Token must be for (aud); without it, one that is for anything is denied
    #[arg(long, value_name = "TEXT")]
    jwt_audience: Option<String>,
    /// How far clocks may differ: a connection is closed this long after its JSON Web Token has
    /// expired
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    jwt_leeway: Duration,
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
    /// A connection may prove a name
    Optional,
    /// A connection must prove a name
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
    /// The file of tokens.
    pub(crate) fn tokens(&self) -> Option<&Path> {
        self.tokens.as_deref()
    }

    /// The file with the key of JSON Web Tokens.
    pub(crate) fn jwt_key(&self) -> Option<&Path> {
        self.jwt_key.as_deref()
    }

    pub(crate) fn jwt_audience(&self) -> Option<&str> {
        self.jwt_audience.as_deref()
    }

    pub(crate) fn jwt_leeway(&self) -> Duration {
        self.jwt_leeway
    }

    /// Whether something proves names exactly where names are proven.
    pub(crate) fn check_proofs(&self) -> Result<(), ConfigError> {
        const NO_EFFECT: &str = "has no effect with --login off and trust; set --login required";
        let proves = matches!(self.login, LoginArg::Optional | LoginArg::Required);
        let (field, problem) = match (proves, &self.tokens, &self.jwt_key) {
            (true, None, None) => (
                "tokens",
                "is needed with --login optional and required, unless --jwt-key is given",
            ),
            (false, Some(_), _) => ("tokens", NO_EFFECT),
            (false, _, Some(_)) => ("jwt_key", NO_EFFECT),
            (_, _, None) if self.jwt_audience.is_some() => {
                let problem = "has no effect without a key; set --jwt-key as well";
                return Err(ConfigError::new("jwt_audience", problem).against(&["jwt_key"]));
            }
            _ => return Ok(()),
        };
        Err(ConfigError::new(field, problem).against(&["login"]))
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
