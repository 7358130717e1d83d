use std::time::Duration;

use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use ring::{hmac, signature};

use super::*;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW: Duration = Duration::from_secs(1_000_000);

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn signed(header: &str, payload: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let text = format!(
        "{}.{}",
        encode(header.as_bytes()),
        encode(payload.as_bytes())
    );
    let signature = sign(text.as_bytes());
    format!("{text}.{}", encode(&signature))
}

fn hs256(payload: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    signed(r#"{"typ":"JWT","alg":"HS256"}"#, payload, |text| {
        hmac::sign(&key, text).as_ref().to_vec()
    })
}

fn rules(key: &[u8]) -> JwtRules {
    let key = JwtKey::parse(key).expect("a key");
    JwtRules::new(key, None, Duration::from_secs(60))
}

fn check(payload: &str) -> Result<JwtProof, JwtError> {
    rules(SECRET).check(&hs256(payload), NOW)
}

fn pem(parts: &[&[u8]]) -> String {
    let body = STANDARD.encode(parts.concat());
    format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
}

const ED25519_DER: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
const P256_DER: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\
    \x03\x42\x00";

#[test]
fn token_proves_its_name_and_groups() {
    let proof = check(r#"{"sub":"dev-17","exp":1000100,"groups":["fleet"],"iat":5}"#);
    let proof = proof.expect("valid");
    let group = crate::directory::Name::new("fleet").expect("a name");
    let name = crate::directory::Name::new("dev-17").expect("a name");
    let identity = Identity::named(name).in_groups(vec![group]).expect("few");
    assert_eq!(proof.identity, identity);
    assert_eq!(proof.valid_until, Duration::from_secs(1_000_160));
}

#[test]
fn example_of_rfc_7515_is_checked() {
    // Appendix A.1. The payload has no `sub`, so that only its signature is accepted.
    let key = URL_SAFE_NO_PAD
        .decode(
            "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_\
            T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
        )
        .expect("base64");
    let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
        eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxl\
        LmNvbS9pc19yb290Ijp0cnVlfQ.\
        dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let (text, signature) = token.rsplit_once('.').expect("three parts");
    let signature = decode(signature).expect("base64");
    let key = JwtKey::parse(&key).expect("a secret");
    assert!(key.has_signed(text.as_bytes(), &signature));
    assert!(!key.has_signed(&text.as_bytes()[1..], &signature));
}

#[test]
fn public_keys_check_what_their_private_keys_sign() {
    let random = SystemRandom::new();
    let payload = r#"{"sub":"a","exp":1000100}"#;
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).expect("random");
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key");
    let ed25519 = pem(&[ED25519_DER, pair.public_key().as_ref()]);
    let eddsa = signed(r#"{"alg":"EdDSA"}"#, payload, |text| {
        pair.sign(text).as_ref().to_vec()
    });
    let algorithm: &signature::EcdsaSigningAlgorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("random");
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).expect("a key");
    let p256 = pem(&[P256_DER, pair.public_key().as_ref()]);
    let es256 = signed(r#"{"alg":"ES256"}"#, payload, |text| {
        pair.sign(&random, text).expect("random").as_ref().to_vec()
    });
    for (key, own, other) in [(&ed25519, &eddsa, &es256), (&p256, &es256, &eddsa)] {
        let rules = rules(key.as_bytes());
        assert!(rules.check(own, NOW).is_ok());
        assert_eq!(rules.check(other, NOW), Err(JwtError::Algorithm));
        assert_eq!(rules.check(&hs256(payload), NOW), Err(JwtError::Algorithm));
        let forged = own.replacen('.', ".e30", 1);
        assert_eq!(rules.check(&forged, NOW), Err(JwtError::Signature));
        // The attack that a key of its own algorithm prevents: the public key as a secret.
        let secret = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        let confused = signed(r#"{"alg":"HS256"}"#, payload, |text| {
            hmac::sign(&secret, text).as_ref().to_vec()
        });
        assert_eq!(rules.check(&confused, NOW), Err(JwtError::Algorithm));
    }
}

#[test]
fn algorithm_of_the_header_never_counts() {
    let payload = r#"{"sub":"a","exp":1000100}"#;
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    for alg in ["none", "None", "HS384", "hs256", "RS256", ""] {
        let header = format!(r#"{{"alg":"{alg}"}}"#);
        for token in [
            signed(&header, payload, |_| Vec::new()),
            signed(&header, payload, |text| {
                hmac::sign(&key, text).as_ref().to_vec()
            }),
        ] {
            let denied = rules(SECRET).check(&token, NOW);
            assert_eq!(denied, Err(JwtError::Algorithm), "{alg}");
        }
    }
    let sign = |text: &[u8]| hmac::sign(&key, text).as_ref().to_vec();
    let critical = signed(r#"{"alg":"HS256","crit":["b64"]}"#, payload, sign);
    let denied = rules(SECRET).check(&critical, NOW);
    assert_eq!(denied, Err(JwtError::Extension));
}

#[test]
fn time_of_a_token_counts_with_leeway() {
    for (payload, expected) in [
        (r#"{"sub":"a","exp":999941}"#, None),
        (r#"{"sub":"a","exp":999940.5}"#, None),
        (r#"{"sub":"a","exp":999940}"#, Some(JwtError::Expired)),
        (r#"{"sub":"a","exp":0}"#, Some(JwtError::Expired)),
        (r#"{"sub":"a","exp":2000000,"nbf":1000060}"#, None),
        (
            r#"{"sub":"a","exp":2000000,"nbf":1000061}"#,
            Some(JwtError::NotYetValid),
        ),
        (r#"{"sub":"a","exp":-1}"#, Some(JwtError::Malformed)),
        (r#"{"sub":"a","exp":1e300}"#, Some(JwtError::Malformed)),
    ] {
        assert_eq!(check(payload).err(), expected, "{payload}");
    }
}

#[test]
fn audience_must_be_the_servers() {
    let with = |audience: Option<&str>, aud: &str| {
        let mut rules = rules(SECRET);
        rules.audience = audience.map(str::to_owned);
        let token = hs256(&format!(r#"{{"sub":"a","exp":1000100{aud}}}"#));
        rules.check(&token, NOW).err()
    };
    assert_eq!(with(Some("hl"), r#","aud":"hl""#), None);
    assert_eq!(with(Some("hl"), r#","aud":["x","hl"]"#), None);
    assert_eq!(with(None, ""), None);
    for (audience, aud) in [
        (Some("hl"), ""),
        (Some("hl"), r#","aud":"hl2""#),
        (Some("hl"), r#","aud":[]"#),
        (None, r#","aud":"hl""#),
    ] {
        assert_eq!(with(audience, aud), Some(JwtError::Audience), "{aud}");
    }
}

#[test]
fn tokens_that_are_wrong_are_denied() {
    let many: Vec<String> = (0..65).map(|n| format!(r#""g{n}""#)).collect();
    let many = format!(
        r#"{{"sub":"a","exp":1000100,"groups":[{}]}}"#,
        many.join(",")
    );
    for (payload, error) in [
        ("", JwtError::Malformed),
        ("[]", JwtError::Malformed),
        ("{", JwtError::Malformed),
        (r#"{"exp":1000100}"#, JwtError::Malformed),
        (r#"{"sub":"a"}"#, JwtError::Malformed),
        (r#"{"sub":17,"exp":1000100}"#, JwtError::Malformed),
        (r#"{"sub":"a","exp":"1000100"}"#, JwtError::Malformed),
        (
            r#"{"sub":"a","sub":"b","exp":1000100}"#,
            JwtError::Malformed,
        ),
        (
            r#"{"sub":"a","exp":1000100,"exp":9000000}"#,
            JwtError::Malformed,
        ),
        (r#"{"sub":"a b","exp":1000100}"#, JwtError::Name),
        (r#"{"sub":"","exp":1000100}"#, JwtError::Name),
        (
            r#"{"sub":"a","exp":1000100,"groups":["a b"]}"#,
            JwtError::Groups,
        ),
        (&many, JwtError::Groups),
    ] {
        assert_eq!(check(payload).err(), Some(error), "{payload}");
    }
    let good = hs256(r#"{"sub":"a","exp":1000100}"#);
    for token in [
        "",
        ".",
        "..",
        "a.b.c",
        "....",
        good.rsplit_once('.').expect("parts").0,
        &format!("{good}."),
        &format!("{good}="),
        &format!("{good} "),
    ] {
        let denied = rules(SECRET).check(token, NOW);
        assert_eq!(denied, Err(JwtError::Malformed), "{token}");
    }
    let other = rules(b"another secret of at least 32 bytes");
    assert_eq!(other.check(&good, NOW), Err(JwtError::Signature));
}

#[test]
fn keys_that_are_not_secrets_are_no_secrets() {
    let point = [&[4; 1][..], &[7; 64]].concat();
    let compressed = pem(&[&P256_DER[..26], &[2; 33]]);
    for (bytes, problem) in [
        (&b"short"[..], "at least 32 bytes"),
        (&[&[b'a'; 31][..], b"\n"].concat(), "at least 32 bytes"),
        (compressed.as_bytes(), "neither Ed25519 nor"),
        (
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
            "private key",
        ),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
            "one PUBLIC KEY",
        ),
        (
            b"-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----",
            "not base64",
        ),
        (&[P256_DER, &point].concat(), "in DER"),
        (&[ED25519_DER, &[7; 32]].concat(), "in DER"),
        (
            br#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ"}"#,
            "another form",
        ),
        (
            b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE0 someone",
            "another form",
        ),
        (&[b'a'; 20_000], "16 KiB"),
    ] {
        let error = JwtKey::parse(bytes).map(|key| key.algorithm());
        assert!(
            error.is_err_and(|error| error.contains(problem)),
            "{problem}"
        );
    }
    // The line feed of a text file is not part of its secret; a byte of a binary secret is.
    let token = hs256(r#"{"sub":"a","exp":1000100}"#);
    let with_line_feed = [SECRET, b"\n"].concat();
    assert!(rules(&with_line_feed).check(&token, NOW).is_ok());
    let binary = [&[0; 31][..], b"\n"].concat();
    assert!(JwtKey::parse(&binary).is_ok());
}

proptest! {
    #[test]
    fn no_bytes_make_the_check_panic(
        header in "\\PC{0,60}",
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        token in "[A-Za-z0-9_.=-]{0,120}",
    ) {
        let rules = rules(SECRET);
        prop_assert!(rules.check(&token, NOW).is_err());
        let signed = hs256(&String::from_utf8_lossy(&payload));
        let _ = rules.check(&signed, NOW);
        let _ = Header::parse(header.as_bytes());
        let _ = Claims::parse(&payload);
        let _ = JwtKey::parse(&payload);
    }

    #[test]
    fn token_with_another_byte_is_denied(place in 0usize..200, byte in any::<u8>()) {
        let token = hs256(r#"{"sub":"dev-17","exp":1000100,"groups":["fleet"]}"#);
        let mut bytes = token.clone().into_bytes();
        let place = place % bytes.len();
        bytes[place] = byte;
        if let Ok(changed) = String::from_utf8(bytes) {
            prop_assert!(changed == token || rules(SECRET).check(&changed, NOW).is_err());
        }
    }
}
