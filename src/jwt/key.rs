//! The key of `--jwt-key`: a shared secret, or a public key in PEM.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{hmac, signature};

use crate::error::{ConfigError, Error};

/// Shorter secrets could be guessed (RFC 7518 section 3.2).
const MIN_SECRET_BYTES: usize = 32;
/// A longer file is a wrong one.
const MAX_KEY_BYTES: usize = 16 * 1024;

const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";
/// What precedes the key in its SubjectPublicKeyInfo (RFC 8410 section 4).
const ED25519_PREFIX: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
const ED25519_BYTES: usize = 32;
/// The same of an uncompressed point on P-256 (RFC 5480 section 2).
const P256_PREFIX: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\
    \x03\x42\x00";
const P256_BYTES: usize = 65;

/// A key that tokens are checked with.
pub(crate) enum JwtKey {
    /// A shared secret: HMAC with SHA-256.
    Hs256(hmac::Key),
    /// A public key.
    EdDsa(Vec<u8>),
    /// A public key: an uncompressed point.
    Es256(Vec<u8>),
}

/// Without the key.
impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm())
    }
}

impl JwtKey {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        // A file that is not there yet is no fault of the settings.
        File::open(path)
            .and_then(|file| file.take(MAX_KEY_BYTES as u64 + 1).read_to_end(&mut bytes))
            .map_err(Error::io(format!("read the key in {}", path.display())))?;
        Ok(JwtKey::parse(&bytes).map_err(|problem| {
            ConfigError::new("jwt_key", format!("{}: {problem}", path.display()))
        })?)
    }

    /// What a file has. One line feed at the end of a secret of text does not belong to it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() > MAX_KEY_BYTES {
            return Err("longer than 16 KiB");
        }
        let text = std::str::from_utf8(bytes).ok();
        // As a secret, a public key would let anybody sign.
        if let Some(text) = text {
            if text.contains("-----BEGIN") {
                return parse_pem(text.trim());
            }
            let start = text.trim_start();
            if start.starts_with('{') || start.starts_with("ssh-") || start.starts_with("ecdsa-") {
                return Err("is a key in another form; a public key must be in PEM");
            }
        }
        let is_der = [&ED25519_PREFIX[2..], &P256_PREFIX[2..15]]
            .iter()
            .any(|prefix| bytes.get(2..).is_some_and(|rest| rest.starts_with(prefix)));
        if is_der {
            return Err("is a public key in DER; it must be in PEM");
        }
        let is_text = text.is_some_and(|text| !text.trim_end().contains(char::is_control));
        let secret = match bytes.strip_suffix(b"\n") {
            Some(line) if is_text => line.strip_suffix(b"\r").unwrap_or(line),
            _ => bytes,
        };
        if secret.len() < MIN_SECRET_BYTES {
            return Err("a secret has at least 32 bytes");
        }
        Ok(JwtKey::Hs256(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// The only value of `alg` that the key goes with (RFC 7518 section 3.1, RFC 8037 section
    /// 3.1).
    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            JwtKey::Hs256(_) => "HS256",
            JwtKey::EdDsa(_) => "EdDSA",
            JwtKey::Es256(_) => "ES256",
        }
    }

    /// Whether the owner of the key has signed these bytes.
    pub(super) fn has_signed(&self, signed: &[u8], signature: &[u8]) -> bool {
        let verify = |algorithm, key: &[u8]| {
            signature::UnparsedPublicKey::new(algorithm, key).verify(signed, signature)
        };
        match self {
            JwtKey::Hs256(key) => hmac::verify(key, signed, signature).is_ok(),
            JwtKey::EdDsa(key) => verify(&signature::ED25519, key).is_ok(),
            JwtKey::Es256(key) => verify(&signature::ECDSA_P256_SHA256_FIXED, key).is_ok(),
        }
    }
}

fn parse_pem(text: &str) -> Result<JwtKey, &'static str> {
    if text.contains("PRIVATE KEY") {
        return Err("is a private key; only the public one belongs on a server");
    }
    let body = text
        .strip_prefix(PEM_BEGIN)
        .and_then(|rest| rest.strip_suffix(PEM_END))
        .ok_or("a PEM file has one PUBLIC KEY and nothing else")?;
    let body: String = body.split_ascii_whitespace().collect();
    let der = STANDARD
        .decode(body)
        .map_err(|_| "the PEM has a character that is not base64")?;
    let key_of = |prefix: &[u8], bytes| {
        let key = der.strip_prefix(prefix)?;
        (key.len() == bytes).then(|| key.to_vec())
    };
    if let Some(key) = key_of(ED25519_PREFIX, ED25519_BYTES) {
        return Ok(JwtKey::EdDsa(key));
    }
    // A compressed point has another length, and is not supported.
    key_of(P256_PREFIX, P256_BYTES)
        .filter(|point| point.first() == Some(&4))
        .map(JwtKey::Es256)
        .ok_or("the public key is neither Ed25519 nor an uncompressed point on P-256")
}
