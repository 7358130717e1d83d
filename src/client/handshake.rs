//! The client's side of the handshake. Pure.

use std::borrow::Cow;
use std::time::Duration;

use crate::directory::Name;
use crate::error::ConfigError;
use crate::framing::Framing;
use crate::framing::handshake::{self, Hello, MAX_HELLO, ServerControl, Welcome};

/// How long the server may take to answer a `hello`, in milliseconds. Longer than a server waits
/// for the decision about a login, by default.
pub(super) const WELCOME_MS: u64 = 30_000;

/// What a client says about itself at the beginning of each connection (`hello` of
/// docs/protocol.md). It also asks for the heartbeat interval of the client's configuration.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The name that the server is to know it by. `None`: no name, or the one that the token
    /// proves.
    pub name: Option<Name>,
    /// The secret that proves the name.
    pub token: Option<String>,
}

/// Without the token.
impl std::fmt::Debug for ClientHello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientHello")
            .field("name", &self.name)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .finish()
    }
}

impl ClientHello {
    /// The message. `beat`: the interval that is asked for.
    pub(super) fn encode(&self, beat: Option<Duration>) -> Vec<u8> {
        let hello = Hello {
            name: self.name.as_deref().map(Cow::Borrowed),
            token: self.token.as_deref().map(Cow::Borrowed),
            beat,
        };
        hello.encode()
    }

    pub(super) fn check(&self, framing: Framing) -> Result<(), ConfigError> {
        if framing == Framing::Raw {
            let problem = "the handshake needs message boundaries, which raw framing does not have";
            return Err(ConfigError::new("hello", problem).against(&["framing"]));
        }
        if self.encode(Some(Duration::MAX)).len() > MAX_HELLO {
            let problem = format!("name and token must fit {MAX_HELLO} bytes");
            return Err(ConfigError::new("hello", problem));
        }
        Ok(())
    }
}

/// How far the handshake of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandshakeState {
    /// There is none.
    None,
    /// `hello` was sent. What the server sends before its answer has no escapes.
    AwaitingWelcome,
    Welcomed,
}

/// What a message from the server is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming<'a> {
    /// One of the application, without its escape.
    Message(&'a [u8]),
    Welcome(Welcome<'a>),
    /// `denied`, with its reason.
    Denied(Cow<'a, str>),
    /// `bye`, with its reason.
    Bye(Cow<'a, str>),
    /// A control message that is unknown or untimely.
    Malformed,
    TooLarge,
}

impl HandshakeState {
    pub(super) fn classify<'a>(self, max_message: usize, message: &'a [u8]) -> Incoming<'a> {
        let control = match self {
            HandshakeState::None => None,
            HandshakeState::AwaitingWelcome | HandshakeState::Welcomed
                if handshake::is_control(message) =>
            {
                Some(ServerControl::parse(message))
            }
            HandshakeState::AwaitingWelcome => None,
            HandshakeState::Welcomed => return unescape(max_message, message),
        };
        match (self, control) {
            (HandshakeState::None, _) | (_, None) => Incoming::Message(message),
            (HandshakeState::AwaitingWelcome, Some(Ok(Some(ServerControl::Welcome(welcome))))) => {
                Incoming::Welcome(welcome)
            }
            (HandshakeState::AwaitingWelcome, Some(Ok(Some(ServerControl::Denied(reason))))) => {
                Incoming::Denied(reason)
            }
            (_, Some(Ok(Some(ServerControl::Bye(reason))))) => Incoming::Bye(reason),
            // A message to everybody, from before the server has read the hello.
            (HandshakeState::AwaitingWelcome, Some(_)) => Incoming::Message(message),
            (HandshakeState::Welcomed, Some(_)) => Incoming::Malformed,
        }
    }

    /// Longest message that may be decoded: an escape does not count.
    pub(super) fn max_frame(self, max_message: usize) -> usize {
        max_message.saturating_add(usize::from(self != HandshakeState::None))
    }
}

fn unescape(max_message: usize, message: &[u8]) -> Incoming<'_> {
    let message = handshake::unescape(message);
    if message.len() > max_message {
        Incoming::TooLarge
    } else {
        Incoming::Message(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_count_in_their_time_only() {
        let classify = |state: HandshakeState, text| state.classify(100, text);
        let welcome = &b"welcome version=1 name=a"[..];
        let message = Incoming::Message(welcome);
        assert_eq!(classify(HandshakeState::None, welcome), message);
        assert!(matches!(
            classify(HandshakeState::AwaitingWelcome, welcome),
            Incoming::Welcome(Welcome { name: Some(name), .. }) if name == "a"
        ));
        assert_eq!(
            classify(HandshakeState::Welcomed, welcome),
            Incoming::Malformed
        );
        let denied = &b"denied reason=bad-token"[..];
        assert_eq!(
            classify(HandshakeState::AwaitingWelcome, denied),
            Incoming::Denied("bad-token".into())
        );
        assert_eq!(
            classify(HandshakeState::Welcomed, denied),
            Incoming::Malformed
        );
        let bye = &b"bye reason=replaced"[..];
        let replaced = Incoming::Bye("replaced".into());
        assert_eq!(classify(HandshakeState::Welcomed, bye), replaced);
        assert_eq!(classify(HandshakeState::None, bye), Incoming::Message(bye));
    }

    #[test]
    fn messages_before_the_welcome_have_no_escapes() {
        let early = HandshakeState::AwaitingWelcome;
        for text in [&b"lost and found"[..], b"\\x", b"welcome home", b"hi"] {
            assert_eq!(early.classify(100, text), Incoming::Message(text));
        }
        let later = HandshakeState::Welcomed;
        assert_eq!(later.classify(100, b"\\lost"), Incoming::Message(b"lost"));
        assert_eq!(later.classify(100, b"lost"), Incoming::Malformed);
    }

    #[test]
    fn escape_does_not_count_against_the_longest_message() {
        let welcomed = HandshakeState::Welcomed;
        assert_eq!(welcomed.max_frame(3), 4);
        assert_eq!(welcomed.classify(3, b"\\bye"), Incoming::Message(b"bye"));
        assert_eq!(welcomed.classify(3, b"four"), Incoming::TooLarge);
        assert_eq!(HandshakeState::None.max_frame(3), 3);
    }

    #[test]
    fn hello_that_cannot_be_sent_is_rejected() {
        let hello = ClientHello {
            name: None,
            token: Some("\n".repeat(1400)),
        };
        assert_eq!(
            hello.check(Framing::Lines).expect_err("long").field,
            "hello"
        );
        let hello = ClientHello::default();
        assert_eq!(hello.check(Framing::Lines), Ok(()));
        assert_eq!(hello.check(Framing::Raw).expect_err("raw").field, "hello");
    }

    #[test]
    fn debug_output_has_no_token() {
        let hello = ClientHello {
            name: None,
            token: Some("secret".into()),
        };
        assert!(!format!("{hello:?}").contains("secret"));
    }
}
