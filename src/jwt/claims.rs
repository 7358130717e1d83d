//! The JSON of a token. Members that are unknown are ignored, those that are known may not come
//! twice.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::JwtError;
use crate::directory::Name;
use crate::engine::Identity;

#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
pub(super) struct Claims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    aud: Option<Audience>,
    #[serde(default)]
    groups: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Header {
    pub(super) fn parse(json: &[u8]) -> Result<Self, JwtError> {
        serde_json::from_slice(json).map_err(|_| JwtError::Malformed)
    }

    pub(super) fn has_extensions(&self) -> bool {
        self.crit.is_some()
    }
}

impl Claims {
    pub(super) fn parse(json: &[u8]) -> Result<Self, JwtError> {
        serde_json::from_slice(json).map_err(|_| JwtError::Malformed)
    }

    /// `exp`, since the beginning of 1970.
    pub(super) fn expires(&self) -> Result<Duration, JwtError> {
        seconds(self.exp)
    }

    /// `nbf`, since the beginning of 1970.
    pub(super) fn not_before(&self) -> Result<Duration, JwtError> {
        self.nbf.map_or(Ok(Duration::ZERO), seconds)
    }

    pub(super) fn is_for(&self, audience: Option<&str>) -> bool {
        match (&self.aud, audience) {
            (None, None) => true,
            (Some(Audience::One(aud)), Some(audience)) => aud == audience,
            (Some(Audience::Many(all)), Some(audience)) => all.iter().any(|aud| aud == audience),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    pub(super) fn identity(&self) -> Result<Identity, JwtError> {
        let name = Name::new(&self.sub).map_err(|_| JwtError::Name)?;
        let groups: Result<Vec<Name>, _> = self.groups.iter().map(|text| Name::new(text)).collect();
        let groups = groups.map_err(|_| JwtError::Groups)?;
        Identity::named(name)
            .in_groups(groups)
            .map_err(|_| JwtError::Groups)
    }
}

/// A NumericDate (RFC 7519 section 2). One beyond what a `Duration` holds is none.
fn seconds(date: f64) -> Result<Duration, JwtError> {
    Duration::try_from_secs_f64(date).map_err(|_| JwtError::Malformed)
}
