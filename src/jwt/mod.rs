//! JSON Web Tokens that prove names (RFC 7519, in the compact form of RFC 7515).
//!
//! Which algorithm counts follows from the key, never from the token. Pure but for
//! [`JwtKey::read`]: the caller says what time it is.

mod claims;
mod expiry;
mod key;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::close::DenyReason;
use crate::engine::Identity;
use claims::{Claims, Header};
pub(crate) use expiry::Expiries;
pub(crate) use key::JwtKey;

/// Why a token proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JwtError {
    /// Not three parts of base64url, or a part is not the JSON that it has to be.
    Malformed,
    /// Its header names another algorithm than the key has, or `none`.
    Algorithm,
    /// Its header lists extensions that must be understood (`crit`), and none is.
    Extension,
    /// The key has not signed it.
    Signature,
    /// Its time is over.
    Expired,
    /// Its time has not come (`nbf`).
    NotYetValid,
    /// It is for somebody else (`aud`).
    Audience,
    /// `sub` is not a name.
    Name,
    /// `groups` has one that is not a name, or too many.
    Groups,
}

impl JwtError {
    /// What the peer is told.
    pub(crate) fn deny_reason(self) -> DenyReason {
        match self {
            JwtError::Algorithm => DenyReason::WrongAlgorithm,
            JwtError::Expired => DenyReason::TokenExpired,
            JwtError::NotYetValid => DenyReason::TokenNotYetValid,
            JwtError::Audience => DenyReason::WrongAudience,
            JwtError::Name => DenyReason::BadName,
            JwtError::Malformed | JwtError::Extension | JwtError::Signature | JwtError::Groups => {
                DenyReason::BadToken
            }
        }
    }
}

/// The rules of a server for tokens.
#[derive(Debug)]
pub(crate) struct JwtRules {
    key: JwtKey,
    audience: Option<String>,
    leeway: Duration,
}

/// What a valid token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JwtProof {
    pub(crate) identity: Identity,
    /// Until when, leeway included, since the beginning of 1970 (UTC).
    pub(crate) valid_until: Duration,
}

/// Whether a secret has the form of such a token. One of `heartline token` has no dot.
pub(crate) fn is_jwt(token: &str) -> bool {
    token.contains('.')
}

impl JwtRules {
    /// `audience`: what a token with `aud` must be for; without one, tokens with `aud` are for
    /// somebody else (RFC 7519 section 4.1.3). `leeway`: by how much clocks may differ.
    pub(crate) fn new(key: JwtKey, audience: Option<String>, leeway: Duration) -> Self {
        JwtRules {
            key,
            audience,
            leeway,
        }
    }

    /// Checks a token. `now`: since the beginning of 1970 (UTC).
    pub(crate) fn check(&self, token: &str, now: Duration) -> Result<JwtProof, JwtError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        if payload.contains('.') {
            return Err(JwtError::Malformed);
        }
        let header = Header::parse(&decode(header)?)?;
        if header.alg != self.key.algorithm() {
            return Err(JwtError::Algorithm);
        }
        if header.has_extensions() {
            return Err(JwtError::Extension);
        }
        if !self.key.has_signed(signed.as_bytes(), &decode(signature)?) {
            return Err(JwtError::Signature);
        }
        let claims = Claims::parse(&decode(payload)?)?;
        let valid_until = claims.expires()?.saturating_add(self.leeway);
        if now >= valid_until {
            return Err(JwtError::Expired);
        }
        if now.saturating_add(self.leeway) < claims.not_before()? {
            return Err(JwtError::NotYetValid);
        }
        if !claims.is_for(self.audience.as_deref()) {
            return Err(JwtError::Audience);
        }
        Ok(JwtProof {
            identity: claims.identity()?,
            valid_until,
        })
    }
}

fn decode(part: &str) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| JwtError::Malformed)
}

#[cfg(test)]
mod tests;
