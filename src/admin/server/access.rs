//! Authorization: the loopback rule, the token, and what keeps a browser from being used by other
//! people's pages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::http::{Failure, RequestHead};
use crate::args::token::Token;
use crate::error::ConfigError;

/// Whether a header carries the token: as a bearer token, or as the password of anybody.
fn carries(authorization: &str, token: &Token) -> bool {
    let Some((scheme, value)) = authorization.split_once(' ') else {
        return false;
    };
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("Bearer") {
        return token.is(value.as_bytes());
    }
    let Ok(pair) = BASE64_STANDARD.decode(value) else {
        return false;
    };
    let password = memchr::memchr(b':', &pair).map(|colon| &pair[colon + 1..]);
    scheme.eq_ignore_ascii_case("Basic") && password.is_some_and(|password| token.is(password))
}

/// The rules for one endpoint.
pub(super) struct Access {
    pub(super) token: Option<Token>,
    /// Whether it listens on TCP, which browsers can reach.
    pub(super) tcp: bool,
}

impl Access {
    /// Without a token only clients on this machine are served.
    pub(super) fn check_exposure(&self, ip: IpAddr) -> Result<(), ConfigError> {
        if ip.is_loopback() || self.token.is_some() {
            Ok(())
        } else {
            Err(ConfigError::new(
                "admin",
                format!(
                    "{ip} is not a loopback address: \
                     other machines could reach it; set --admin-token-file"
                ),
            ))
        }
    }

    /// Whether this request may be answered at all.
    pub(super) fn check(&self, head: &RequestHead) -> Result<(), Failure> {
        if let Some(token) = &self.token
            && !head
                .authorization
                .as_ref()
                .is_some_and(|authorization| carries(authorization, token))
        {
            // One header line per scheme: a browser takes the scheme that it has a dialog for, and
            // with both in one line Chromium does not ask for a password.
            let failure =
                Failure::new(401, "a token is required; send Authorization: Bearer TOKEN");
            return Err(failure
                .with("WWW-Authenticate", "Basic realm=\"heartline\"")
                .with("WWW-Authenticate", "Bearer"));
        }
        // A page of another site may make a browser send requests, but cannot hide its origin.
        if let Some(origin) = &head.origin
            && !is_same_origin(origin, head.host.as_deref())
        {
            return Err(Failure::new(
                403,
                "the Origin header of this request names another site",
            ));
        }
        // The name of another site can be made to resolve to this machine; its page would then
        // count as this one (DNS rebinding).
        if let Some(host) = head
            .host
            .as_deref()
            .filter(|_| self.tcp && self.token.is_none())
            && !is_address_or_localhost(host)
        {
            return Err(Failure::new(
                403,
                "the Host header of this request is neither an IP address nor localhost",
            ));
        }
        Ok(())
    }
}

/// Whether the authority of an origin is the host of the request. The scheme is that of the
/// proxy that ends TLS.
fn is_same_origin(origin: &str, host: Option<&str>) -> bool {
    // `null`, as of a sandboxed frame, has no authority.
    let Some((_, authority)) = origin.split_once("://") else {
        return false;
    };
    host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
}

fn is_address_or_localhost(host: &str) -> bool {
    if let Some((ip, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return ip.parse::<Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        Some(_) => return false,
        None => host,
    };
    name.parse::<Ipv4Addr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "correct-horse-battery";

    fn head() -> RequestHead {
        RequestHead {
            method: "GET".into(),
            path: "/".into(),
            host: Some("127.0.0.1:7879".into()),
            ..RequestHead::default()
        }
    }

    fn open() -> Access {
        Access {
            token: None,
            tcp: true,
        }
    }

    fn guarded() -> Access {
        Access {
            token: Token::parse(TOKEN, TOKEN.len()).ok(),
            tcp: true,
        }
    }

    fn code(access: &Access, head: &RequestHead) -> u16 {
        access.check(head).err().map_or(200, |failure| failure.code)
    }

    #[test]
    fn token_is_accepted_as_bearer_or_as_password() {
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        let code = |authorization: String| {
            code(
                &guarded(),
                &RequestHead {
                    authorization: Some(authorization),
                    ..head()
                },
            )
        };
        for good in [
            format!("Bearer {TOKEN}"),
            format!("bearer  {TOKEN}"),
            basic(&format!("anybody:{TOKEN}")),
            basic(&format!(":{TOKEN}")),
        ] {
            assert_eq!(code(good.clone()), 200, "{good}");
        }
        let bad = [
            format!("Bearer {TOKEN}x"),
            format!("Bearer {}", &TOKEN[1..]),
            "Bearer ".into(),
            "Bearer".into(),
            TOKEN.into(),
            format!("Digest {TOKEN}"),
            basic(TOKEN),
            basic("anybody:"),
            basic(&format!("{TOKEN}:anybody")),
            "Basic !!!".into(),
            String::new(),
        ];
        for bad in bad {
            assert_eq!(code(bad.clone()), 401, "{bad}");
        }
        assert_eq!(super::tests::code(&guarded(), &head()), 401);
    }

    #[test]
    fn without_a_token_only_the_machine_itself_may_ask() {
        for ip in ["127.0.0.1", "127.9.9.9", "::1"] {
            assert!(
                open()
                    .check_exposure(ip.parse().expect("an address"))
                    .is_ok(),
                "{ip}"
            );
        }
        for ip in ["0.0.0.0", "::", "192.0.2.1"] {
            let ip = ip.parse().expect("an address");
            assert!(
                open()
                    .check_exposure(ip)
                    .is_err_and(|error| error.field == "admin"),
                "{ip}"
            );
            assert!(guarded().check_exposure(ip).is_ok(), "{ip}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let from = |origin: &str| RequestHead {
            origin: Some(origin.into()),
            ..head()
        };
        for (origin, expected) in [
            ("http://127.0.0.1:7879", 200),
            ("https://127.0.0.1:7879", 200),
            ("http://127.0.0.1:80", 403),
            ("http://127.0.0.1", 403),
            ("http://evil.example", 403),
            ("http://127.0.0.1:7879.evil.example", 403),
            ("null", 403),
            ("", 403),
        ] {
            assert_eq!(code(&open(), &from(origin)), expected, "{origin}");
        }
        let with_token = RequestHead {
            authorization: Some(format!("Bearer {TOKEN}")),
            ..from("http://evil.example")
        };
        assert_eq!(
            code(&guarded(), &with_token),
            403,
            "a browser that is logged in as well"
        );
        assert_eq!(
            code(
                &open(),
                &RequestHead {
                    host: None,
                    ..from("http://evil.example")
                }
            ),
            403
        );
    }

    #[test]
    fn host_names_are_rejected_without_a_token() {
        for (host, expected) in [
            ("127.0.0.1", 200),
            ("127.0.0.1:7879", 200),
            ("LocalHost:7879", 200),
            ("[::1]:7879", 200),
            ("[::1]", 200),
            ("evil.example:7879", 403),
            ("localhost.evil.example", 403),
            ("[::1].evil.example", 403),
            ("127.0.0.1:x", 403),
            ("::1", 403),
            ("", 403),
        ] {
            let asked = RequestHead {
                host: Some(host.into()),
                ..head()
            };
            assert_eq!(code(&open(), &asked), expected, "{host}");
            assert_eq!(
                code(
                    &Access {
                        token: None,
                        tcp: false
                    },
                    &asked
                ),
                200,
                "no browser comes to a Unix socket: {host}"
            );
            let with_token = RequestHead {
                authorization: Some(format!("Bearer {TOKEN}")),
                ..asked
            };
            assert_eq!(code(&guarded(), &with_token), 200, "{host}");
        }
        assert_eq!(
            code(
                &open(),
                &RequestHead {
                    host: None,
                    ..head()
                }
            ),
            200,
            "HTTP/1.0, which no browser speaks"
        );
    }
}
