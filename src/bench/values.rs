//! Values of the harness's flags: bytes with escapes, replies, rates, source addresses.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes written as text, with the escapes `\r \n \t \0 \\` and `\xNN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EscapedText(pub(super) Vec<u8>);

impl FromStr for EscapedText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.chars();
        while let Some(char) = rest.next() {
            if char != '\\' {
                bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            bytes.push(match rest.next() {
                Some('r') => b'\r',
                Some('n') => b'\n',
                Some('t') => b'\t',
                Some('0') => 0,
                Some('\\') => b'\\',
                Some('x') => match (
                    rest.next().and_then(|digit| digit.to_digit(16)),
                    rest.next().and_then(|digit| digit.to_digit(16)),
                ) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => return Err("\\x takes two hexadecimal digits, as \\x0a".to_string()),
                },
                _ => return Err("a backslash begins \\r, \\n, \\t, \\0, \\\\ or \\xNN".to_string()),
            });
        }
        if bytes.is_empty() {
            Err("is empty".to_string())
        } else {
            Ok(EscapedText(bytes))
        }
    }
}

/// When a reply is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Expect {
    /// This many line feeds arrived.
    Lines(u32),
    /// These bytes arrived, whatever came before them.
    Text(Vec<u8>),
}

/// Longer texts are unlikely as a reply; and the count of matched bytes fits 16 bits.
const MAX_TEXT_BYTES: usize = 4096;

impl FromStr for Expect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(count) = text.strip_prefix("lines:") {
            return match count.parse() {
                Ok(lines @ 1..=1_000_000) => Ok(Expect::Lines(lines)),
                _ => Err("lines: takes a number from 1".to_string()),
            };
        }
        let EscapedText(bytes) = text.parse()?;
        if bytes.len() > MAX_TEXT_BYTES {
            Err(format!("longer than {MAX_TEXT_BYTES} bytes"))
        } else {
            Ok(Expect::Text(bytes))
        }
    }
}

/// The ping of the server, as a line of its own, and the harness's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PingAnswer {
    pub(super) ask: Vec<u8>,
    pub(super) reply: Vec<u8>,
}

/// The same as a flag: `ping\n=pong\n`, or `off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PingAnswerOrOff(pub(super) Option<PingAnswer>);

/// The count of matched bytes fits 8 bits.
const MAX_EXPECTED_BYTES: usize = 128;

impl FromStr for PingAnswerOrOff {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(PingAnswerOrOff(None));
        }
        let (ask, reply) = text
            .split_once('=')
            .ok_or("write PING=PONG, as ping\\n=pong\\n, or off")?;
        let (EscapedText(ask), EscapedText(reply)) = (ask.parse()?, reply.parse()?);
        if ask.iter().position(|byte| *byte == b'\n') != Some(ask.len() - 1)
            || ask.len() > MAX_EXPECTED_BYTES
        {
            return Err(format!(
                "the ping is one line of at most {MAX_EXPECTED_BYTES} bytes and ends with \\n"
            ));
        }
        Ok(PingAnswerOrOff(Some(PingAnswer { ask, reply })))
    }
}

impl PingAnswer {
    /// Heartline's own heartbeat.
    pub(super) fn heartline() -> Self {
        PingAnswer {
            ask: b"ping\n".to_vec(),
            reply: b"pong\n".to_vec(),
        }
    }
}

/// How fast connections are opened: `5000/s`, or `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ramp {
    /// `None`: no limit.
    pub(super) per_s: Option<f64>,
}

impl FromStr for Ramp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Ramp { per_s: None });
        }
        match text.strip_suffix("/s").map(str::parse::<f64>) {
            Some(Ok(per_s)) if per_s > 0.0 && per_s.is_finite() => Ok(Ramp { per_s: Some(per_s) }),
            _ => Err("write connections per second, as 5000/s, or max".to_string()),
        }
    }
}

/// Addresses to dial from: one, or a range of IPv4 addresses such as `127.0.0.2-127.0.0.9`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sources(pub(super) Vec<IpAddr>);

/// More would not fit a /22, and 1,024 addresses are good for 28 million ports.
pub(super) const MAX_SOURCES: u32 = 1024;

impl FromStr for Sources {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |_| "write an address, or a range as 127.0.0.2-127.0.0.9".to_string();
        let Some((first, last)) = text.split_once('-') else {
            return text.parse().map(|addr| Sources(vec![addr])).map_err(wrong);
        };
        let first: Ipv4Addr = first.parse().map_err(wrong)?;
        let last: Ipv4Addr = last.parse().map_err(wrong)?;
        match u32::from(last).checked_sub(u32::from(first)) {
            Some(0..MAX_SOURCES) => Ok(Sources::range(
                first,
                u32::from(last) - u32::from(first) + 1,
            )),
            Some(_) => Err(format!("more than {MAX_SOURCES} addresses")),
            None => Err("the last address comes before the first".to_string()),
        }
    }
}

impl Sources {
    /// This many addresses from `first` on.
    pub(super) fn range(first: Ipv4Addr, count: u32) -> Self {
        Sources(
            (0..count)
                .map(|n| IpAddr::V4(Ipv4Addr::from(u32::from(first).saturating_add(n))))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_escapes_are_parsed() {
        assert_eq!("PING\\r\\n".parse(), Ok(EscapedText(b"PING\r\n".to_vec())));
        assert_eq!(
            "\\x00\\xfF\\\\\\t\\0é".parse(),
            Ok(EscapedText(b"\x00\xff\\\t\0\xc3\xa9".to_vec()))
        );
        for wrong in ["", "\\", "\\q", "\\x", "\\x1", "\\xg0", "a\\"] {
            assert!(wrong.parse::<EscapedText>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn expected_reply_is_a_number_of_lines_or_a_text() {
        assert_eq!("lines:3".parse(), Ok(Expect::Lines(3)));
        assert_eq!("PONG\\r\\n".parse(), Ok(Expect::Text(b"PONG\r\n".to_vec())));
        for wrong in ["lines:0", "lines:", "lines:x", ""] {
            assert!(wrong.parse::<Expect>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn bench_counts_whole_answers_only() {
        let answer = PingAnswer {
            ask: b"PING\r\n".to_vec(),
            reply: b"PONG\r\n".to_vec(),
        };
        assert_eq!(
            "PING\\r\\n=PONG\\r\\n".parse(),
            Ok(PingAnswerOrOff(Some(answer)))
        );
        assert_eq!("off".parse(), Ok(PingAnswerOrOff(None)));
        for wrong in ["ping\\n", "ping=pong", "a\\nb\\n=c", "=x", "x\\n="] {
            assert!(wrong.parse::<PingAnswerOrOff>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn rates_are_per_second() {
        assert_eq!(
            "5000/s".parse(),
            Ok(Ramp {
                per_s: Some(5000.0)
            })
        );
        assert_eq!("max".parse(), Ok(Ramp { per_s: None }));
        for wrong in ["5000", "0/s", "-1/s", "inf/s", "nan/s", "fast"] {
            assert!(wrong.parse::<Ramp>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sources_are_one_address_or_a_range() {
        let parsed: Sources = "127.0.0.254-127.0.1.1".parse().expect("a range");
        assert_eq!(
            parsed.0.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["127.0.0.254", "127.0.0.255", "127.0.1.0", "127.0.1.1"]
        );
        assert_eq!("::1".parse::<Sources>().expect("one").0.len(), 1);
        for wrong in [
            "",
            "localhost",
            "127.0.0.2-",
            "127.0.0.9-127.0.0.2",
            "10.0.0.0-10.255.255.255",
            "::1-::2",
        ] {
            assert!(wrong.parse::<Sources>().is_err(), "{wrong:?}");
        }
    }
}
