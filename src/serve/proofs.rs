//! What proves names to the server: tokens of a file, and signed tokens.

use std::time::Duration;

use crate::close::DenyReason;
use crate::engine::{LoginDecision, LoginRequest};
use crate::error::Error;
use crate::jwt::{self, JwtKey, JwtRules};
use crate::settings::LoginArgs;
use crate::tokens::Tokens;

#[derive(Debug, Default)]
pub(super) struct Proofs {
    pub(super) tokens: Option<Tokens>,
    jwt: Option<JwtRules>,
}

impl Proofs {
    /// Reads the files of the settings.
    pub(super) fn read(args: &LoginArgs) -> Result<Self, Error> {
        args.check_proofs()?;
        let rules = |key| {
            JwtRules::new(
                key,
                args.jwt_audience().map(str::to_owned),
                args.jwt_leeway(),
            )
        };
        Ok(Proofs {
            tokens: args.tokens().map(Tokens::read).transpose()?,
            jwt: args.jwt_key().map(JwtKey::read).transpose()?.map(rules),
        })
    }

    /// The decision about a login, and until when its proof holds, if it ends. `now`: since the
    /// beginning of 1970 (UTC).
    pub(super) fn decide(
        &self,
        request: &LoginRequest<'_>,
        now: Duration,
    ) -> (LoginDecision, Option<Duration>) {
        let deny = |reason| (LoginDecision::Deny(reason), None);
        let Some(token) = request.token else {
            return deny(DenyReason::TokenMissing);
        };
        match (&self.jwt, &self.tokens) {
            (Some(rules), _) if jwt::is_jwt(token) => match rules.check(token, now) {
                Ok(proof) if request.name.is_some() && request.name != proof.identity.name() => {
                    deny(DenyReason::NameMismatch)
                }
                Ok(proof) => (
                    LoginDecision::Accept(proof.identity),
                    Some(proof.valid_until),
                ),
                Err(error) => {
                    // The error has nothing of the token.
                    log::debug!("login denied jwt_error={error:?}");
                    deny(error.deny_reason())
                }
            },
            (_, Some(tokens)) => (tokens.decide(request), None),
            (_, None) => deny(DenyReason::BadToken),
        }
    }
}
