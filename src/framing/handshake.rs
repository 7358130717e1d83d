//! The handshake: the control messages of version 1, and the escaping that keeps application
//! messages apart from them. Pure text.
//!
//! A control message is a word and `key=value` fields, separated by blanks. Values are
//! percent-encoded (RFC 3986 section 2.1). Unknown keys are ignored; a repeated key, a field
//! without `=` and a broken encoding are errors.
//!
//! On a connection that said `hello`, an application message that begins with `\` or whose first
//! word is a control word is sent with a `\` in front.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

/// The only version.
pub const VERSION: u32 = 1;

/// Longest `hello` in bytes, its framing not counted. Room for a JWT with groups.
pub const MAX_HELLO: usize = 4096;

/// What an escaped message begins with.
pub const ESCAPE: u8 = b'\\';

/// How a first message begins that is a handshake.
const HELLO_PREFIX: &[u8] = b"hello version=";

/// The control words of version 1. `ping` and `pong` alone are heartbeats; `ack`, `resume` and
/// `lost` are reserved.
const CONTROL_WORDS: [&[u8]; 9] = [
    b"hello", b"welcome", b"denied", b"ping", b"pong", b"ack", b"resume", b"lost", b"bye",
];

/// Bytes that decide whether a message is escaped: the longest control word and the blank after it.
const HEAD_BYTES: usize = 8;

/// What is wrong with a control message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// Longer than [`MAX_HELLO`].
    TooLong,
    /// Not UTF-8, before or after percent-decoding.
    NotUtf8,
    /// A field without `=` or without a key.
    NotAField,
    /// A key that comes twice.
    RepeatedKey(&'static str),
    /// A `%` without two hexadecimal digits.
    PercentEncoding,
    /// A key that must be there is missing.
    Missing(&'static str),
    /// A value that cannot be read.
    Value(&'static str),
    /// A version that is not [`VERSION`].
    Version,
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::TooLong => write!(f, "longer than {MAX_HELLO} bytes"),
            HandshakeError::NotUtf8 => f.write_str("not UTF-8"),
            HandshakeError::NotAField => f.write_str("a field is not key=value"),
            HandshakeError::RepeatedKey(key) => write!(f, "{key} is there twice"),
            HandshakeError::PercentEncoding => {
                f.write_str("a % is not followed by two hexadecimal digits")
            }
            HandshakeError::Missing(key) => write!(f, "{key} is missing"),
            HandshakeError::Value(key) => write!(f, "the value of {key} cannot be read"),
            HandshakeError::Version => write!(f, "only version {VERSION} is spoken"),
        }
    }
}

/// The first message of a peer that opts in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The name that the peer wants.
    pub name: Option<Cow<'a, str>>,
    /// A secret that proves a name.
    pub token: Option<Cow<'a, str>>,
    /// The heartbeat interval that the peer wants.
    pub beat: Option<Duration>,
}

/// The answer to a `hello` that was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Welcome<'a> {
    /// The name under which the connection is known; `None` if it has none.
    pub name: Option<Cow<'a, str>>,
    /// The heartbeat by which the server judges the connection; `None` without a heartbeat.
    pub beat: Option<GrantedBeat>,
}

/// The heartbeat of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantedBeat {
    pub interval: Duration,
    pub retry: Duration,
    pub max_missed: u8,
}

/// A control message from a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerControl<'a> {
    Welcome(Welcome<'a>),
    /// The connection is not accepted, for this reason.
    Denied(Cow<'a, str>),
    /// The server closes the connection, for this reason.
    Bye(Cow<'a, str>),
}

/// Whether a first message is a handshake.
pub fn is_hello(message: &[u8]) -> bool {
    message.starts_with(HELLO_PREFIX)
}

/// Whether the message is a control message: its first word, up to a blank or its end, is one of
/// the closed set.
pub fn is_control(message: &[u8]) -> bool {
    // Nearly every message ends here.
    if !matches!(
        message.first(),
        Some(b'h' | b'w' | b'd' | b'p' | b'a' | b'r' | b'l' | b'b')
    ) {
        return false;
    }
    CONTROL_WORDS.iter().any(|word| {
        message
            .strip_prefix(*word)
            .is_some_and(|rest| matches!(rest.first(), None | Some(b' ')))
    })
}

/// Whether an application message made of `parts` is sent with a `\` in front.
pub fn needs_escape(parts: &[&[u8]]) -> bool {
    if let [message] = parts {
        return begins_like_control(message);
    }
    let (mut head, mut len) = ([0; HEAD_BYTES], 0);
    for byte in parts.iter().flat_map(|part| part.iter()).take(HEAD_BYTES) {
        head[len] = *byte;
        len += 1;
    }
    begins_like_control(&head[..len])
}

fn begins_like_control(message: &[u8]) -> bool {
    message.first() == Some(&ESCAPE) || is_control(message)
}

/// An application message without its escape.
pub fn unescape(message: &[u8]) -> &[u8] {
    message.strip_prefix(&[ESCAPE]).unwrap_or(message)
}

impl<'a> Hello<'a> {
    /// Reads a first message for which [`is_hello`] holds.
    pub fn parse(message: &'a [u8]) -> Result<Self, HandshakeError> {
        if message.len() > MAX_HELLO {
            return Err(HandshakeError::TooLong);
        }
        let (mut version, mut hello) = (None, Hello::default());
        for field in fields(message)? {
            let (key, value) = field?;
            match key {
                "version" => set("version", &mut version, value)?,
                "name" => set("name", &mut hello.name, value)?,
                "token" => set("token", &mut hello.token, value)?,
                "beat" => set_duration("beat", &mut hello.beat, &value)?,
                _ => {}
            }
        }
        check_version(version)?;
        Ok(hello)
    }

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = format!("hello version={VERSION}");
        push_text(&mut out, "name", self.name.as_deref());
        push_text(&mut out, "token", self.token.as_deref());
        if let Some(beat) = self.beat {
            push_duration(&mut out, "beat", beat);
        }
        out.into_bytes()
    }
}

impl Welcome<'_> {
    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = format!("welcome version={VERSION}");
        push_text(&mut out, "name", self.name.as_deref());
        if let Some(beat) = self.beat {
            push_duration(&mut out, "beat", beat.interval);
            push_duration(&mut out, "retry", beat.retry);
            // Writing to a string does not fail.
            let _ = write!(out, " missed={}", beat.max_missed);
        }
        out.into_bytes()
    }
}

/// `denied` or `bye`, with a reason of lower-case words joined by hyphens, and what people may want
/// to know about it.
pub fn encode_end(word: &str, reason: &str, detail: Option<&str>) -> Vec<u8> {
    let mut out = String::from(word);
    push_text(&mut out, "reason", Some(reason));
    push_text(&mut out, "detail", detail);
    out.into_bytes()
}

impl<'a> ServerControl<'a> {
    /// Reads a control message from a server. `None` if it is none that a server sends.
    pub fn parse(message: &'a [u8]) -> Result<Option<Self>, HandshakeError> {
        let word = message.split(|byte| *byte == b' ').next();
        let kind = match word.unwrap_or_default() {
            b"welcome" => return Self::parse_welcome(message).map(Some),
            b"denied" => ServerControl::Denied,
            b"bye" => ServerControl::Bye,
            _ => return Ok(None),
        };
        let mut reason = None;
        for field in fields(message)? {
            let (key, value) = field?;
            if key == "reason" {
                set("reason", &mut reason, value)?;
            }
        }
        Ok(Some(kind(reason.ok_or(HandshakeError::Missing("reason"))?)))
    }

    fn parse_welcome(message: &'a [u8]) -> Result<Self, HandshakeError> {
        let (mut version, mut name) = (None, None);
        let (mut interval, mut retry, mut missed) = (None, None, None);
        for field in fields(message)? {
            let (key, value) = field?;
            match key {
                "version" => set("version", &mut version, value)?,
                "name" => set("name", &mut name, value)?,
                "beat" => set_duration("beat", &mut interval, &value)?,
                "retry" => set_duration("retry", &mut retry, &value)?,
                "missed" => set("missed", &mut missed, value)?,
                _ => {}
            }
        }
        check_version(version)?;
        let missed: Option<u8> = missed
            .map(|missed| missed.parse())
            .transpose()
            .map_err(|_| HandshakeError::Value("missed"))?;
        let beat = match (interval, retry, missed) {
            (Some(interval), Some(retry), Some(max_missed)) => Some(GrantedBeat {
                interval,
                retry,
                max_missed,
            }),
            (None, None, None) => None,
            (None, ..) => return Err(HandshakeError::Missing("beat")),
            (_, None, _) => return Err(HandshakeError::Missing("retry")),
            (.., None) => return Err(HandshakeError::Missing("missed")),
        };
        Ok(ServerControl::Welcome(Welcome { name, beat }))
    }
}

type Field<'a> = (&'a str, Cow<'a, str>);

/// The fields after the first word.
fn fields(
    message: &[u8],
) -> Result<impl Iterator<Item = Result<Field<'_>, HandshakeError>>, HandshakeError> {
    let text = std::str::from_utf8(message).map_err(|_| HandshakeError::NotUtf8)?;
    let words = text.split(' ').skip(1).filter(|word| !word.is_empty());
    Ok(words.map(|word| {
        let (key, value) = word.split_once('=').ok_or(HandshakeError::NotAField)?;
        if key.is_empty() {
            return Err(HandshakeError::NotAField);
        }
        Ok((key, percent_decode(value)?))
    }))
}

fn set<T>(key: &'static str, place: &mut Option<T>, value: T) -> Result<(), HandshakeError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(HandshakeError::RepeatedKey(key)),
    }
}

fn set_duration(
    key: &'static str,
    place: &mut Option<Duration>,
    value: &str,
) -> Result<(), HandshakeError> {
    let duration = parse_duration(value).ok_or(HandshakeError::Value(key))?;
    set(key, place, duration)
}

fn check_version(version: Option<Cow<'_, str>>) -> Result<(), HandshakeError> {
    match version.ok_or(HandshakeError::Missing("version"))?.parse() {
        Ok(VERSION) => Ok(()),
        Ok(_) => Err(HandshakeError::Version),
        Err(_) => Err(HandshakeError::Value("version")),
    }
}

/// A whole number and its unit: `ms`, `s`, `m` or `h`.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(ms)?))
}

fn push_duration(out: &mut String, key: &str, duration: Duration) {
    let ms = duration.as_millis();
    // Writing to a string does not fail.
    let _ = if ms.is_multiple_of(1000) {
        write!(out, " {key}={}s", ms / 1000)
    } else {
        write!(out, " {key}={ms}ms")
    };
}

fn push_text(out: &mut String, key: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    out.push(' ');
    out.push_str(key);
    out.push('=');
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Reads a percent-encoded value (RFC 3986 section 2.1).
pub fn percent_decode(value: &str) -> Result<Cow<'_, str>, HandshakeError> {
    if !value.contains('%') {
        return Ok(Cow::Borrowed(value));
    }
    let mut decoded = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let (Some(high), Some(low)) = (digit(), digit()) else {
                return Err(HandshakeError::PercentEncoding);
            };
            decoded.push((high << 4 | low) as u8);
        } else {
            decoded.push(byte);
        }
    }
    let text = String::from_utf8(decoded).map_err(|_| HandshakeError::NotUtf8)?;
    Ok(Cow::Owned(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello(text: &str) -> Result<Hello<'_>, HandshakeError> {
        assert!(is_hello(text.as_bytes()), "{text}");
        Hello::parse(text.as_bytes())
    }

    #[test]
    fn hello_is_read_field_by_field() {
        let read =
            hello("hello version=1 name=dev-17 token=abc beat=240s later=yes").expect("good");
        let expected = Hello {
            name: Some("dev-17".into()),
            token: Some("abc".into()),
            beat: Some(Duration::from_secs(240)),
        };
        assert_eq!(read, expected);
        assert_eq!(hello("hello version=1"), Ok(Hello::default()));
        assert_eq!(
            hello("hello version=1  "),
            Ok(Hello::default()),
            "extra blanks"
        );
        let named = hello("hello version=1 name=a%20b%c3%A4%25").expect("good");
        assert_eq!(named.name.as_deref(), Some("a bä%"));
    }

    #[test]
    fn each_error_of_a_hello_is_named() {
        use HandshakeError::*;
        let long = format!("hello version=1 name={}", "a".repeat(MAX_HELLO));
        let cases = [
            ("hello version=2", Version),
            ("hello version=", Value("version")),
            ("hello version=one", Value("version")),
            ("hello version=1 version=1", RepeatedKey("version")),
            ("hello version=1 name=a name=b", RepeatedKey("name")),
            ("hello version=1 name", NotAField),
            ("hello version=1 =a", NotAField),
            ("hello version=1 name=%4", PercentEncoding),
            ("hello version=1 name=%+4", PercentEncoding),
            ("hello version=1 name=%ff", NotUtf8),
            ("hello version=1 beat=5", Value("beat")),
            ("hello version=1 beat=-5s", Value("beat")),
            ("hello version=1 beat=99999999999999999999s", Value("beat")),
            ("hello version=1 beat=18446744073709551615h", Value("beat")),
            (long.as_str(), TooLong),
        ];
        for (text, error) in cases {
            assert_eq!(hello(text), Err(error), "{text}");
        }
        assert_eq!(Hello::parse(b"hello version=1 name=\xff"), Err(NotUtf8));
    }

    #[test]
    fn messages_that_only_resemble_a_hello_are_none() {
        for text in [
            "hello",
            "hello world",
            "hello  version=1",
            "Hello version=1",
            "helloversion=1",
        ] {
            assert!(!is_hello(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn answers_of_a_server_are_read_back() {
        let welcome = Welcome {
            name: Some("a b".into()),
            beat: Some(GrantedBeat {
                interval: Duration::from_secs(240),
                retry: Duration::from_millis(1500),
                max_missed: 3,
            }),
        };
        let text = b"welcome version=1 name=a%20b beat=240s retry=1500ms missed=3";
        assert_eq!(welcome.encode(), text);
        let read = ServerControl::parse(text);
        assert_eq!(read, Ok(Some(ServerControl::Welcome(welcome))));
        let none = Welcome::default().encode();
        assert_eq!(none, b"welcome version=1");
        let denied = encode_end("denied", "bad-token", None);
        assert_eq!(denied, b"denied reason=bad-token");
        let read = ServerControl::parse(&denied);
        assert_eq!(read, Ok(Some(ServerControl::Denied("bad-token".into()))));
        let bye = encode_end("bye", "replaced", Some("a b"));
        assert_eq!(bye, b"bye reason=replaced detail=a%20b");
        assert_eq!(
            ServerControl::parse(&bye),
            Ok(Some(ServerControl::Bye("replaced".into())))
        );
        assert_eq!(ServerControl::parse(b"lost"), Ok(None));
        for (text, error) in [
            (&b"denied"[..], HandshakeError::Missing("reason")),
            (b"welcome", HandshakeError::Missing("version")),
            (
                b"welcome version=1 beat=5s",
                HandshakeError::Missing("retry"),
            ),
            (
                b"welcome version=1 beat=5s retry=1s",
                HandshakeError::Missing("missed"),
            ),
            (
                b"welcome version=1 missed=3",
                HandshakeError::Missing("beat"),
            ),
            (
                b"welcome version=1 missed=300",
                HandshakeError::Value("missed"),
            ),
        ] {
            assert_eq!(ServerControl::parse(text), Err(error));
        }
    }

    #[test]
    fn control_words_are_whole_first_words() {
        for word in CONTROL_WORDS {
            assert!(is_control(word) && is_control(&[word, b" x=1"].concat()));
            assert!(!is_control(&[word, b"s"].concat()) && !is_control(&[b" ", word].concat()));
            assert!(word.len() < HEAD_BYTES);
        }
        assert!(!is_control(b"") && !is_control(b"PING") && !is_control(b"hi"));
    }

    fn control_word() -> impl Strategy<Value = &'static [u8]> {
        proptest::sample::select(&CONTROL_WORDS[..])
    }

    proptest! {
        #[test]
        fn escaping_is_undone(
            message in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..12),
                control_word().prop_map(<[u8]>::to_vec),
                control_word().prop_map(|word| [word, b" 1"].concat()),
                control_word().prop_map(|word| [b"\\", word].concat()),
            ],
            cut in 0usize..12,
        ) {
            let cut = cut.min(message.len());
            let parts = [&message[..cut], &message[cut..]];
            prop_assert_eq!(needs_escape(&parts), needs_escape(&[&message]));
            let mut sent = message.clone();
            if needs_escape(&parts) {
                sent.insert(0, ESCAPE);
            }
            prop_assert!(!is_control(&sent), "it is not taken for a control message");
            prop_assert_eq!(unescape(&sent), &message[..]);
        }

        #[test]
        fn hello_round_trips(
            name in proptest::option::of("\\PC{0,40}"),
            token in proptest::option::of("[ -~]{0,40}"),
            beat_ms in proptest::option::of(0u64..1 << 40),
        ) {
            let hello = Hello {
                name: name.map(Cow::Owned),
                token: token.map(Cow::Owned),
                beat: beat_ms.map(Duration::from_millis),
            };
            let text = hello.encode();
            prop_assert!(is_hello(&text));
            prop_assert!(text.iter().all(|byte| (b' '..=b'~').contains(byte)));
            prop_assert_eq!(Hello::parse(&text), Ok(hello));
        }

        #[test]
        fn no_bytes_make_the_parsers_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = Hello::parse(&bytes);
            let _ = ServerControl::parse(&bytes);
            let _ = ServerControl::parse(&[b"welcome version=1 ", &bytes[..]].concat());
        }
    }
}
