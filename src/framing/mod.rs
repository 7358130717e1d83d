//! From bytes to messages and heartbeats, and back. Pure: it sees one connection's inbox and the
//! bytes just read, nothing else.

// Public for benches and fuzzing; not part of the API.
#[doc(hidden)]
pub mod handshake;
#[doc(hidden)]
pub mod inbox;
mod length;
mod lines;
#[doc(hidden)]
pub mod proxy;
mod raw;

use crate::error::{ConfigError, SendError};
use inbox::Inbox;

/// How messages are separated on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// A message is a line: it ends with LF; one CR before the LF is dropped. A heartbeat is a line
    /// with nothing but the word.
    #[default]
    Lines,
    /// A message is preceded by its length: four bytes, unsigned, big-endian, not counting
    /// themselves.
    Length,
    /// A message is what one read returned. TCP keeps no such boundaries: use it only with peers
    /// that do not depend on them. A chunk that consists of heartbeat words is heartbeats.
    Raw,
}

/// The words that heartbeats are made of. Both ends must agree on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatWords {
    /// The ping.
    pub ping: Vec<u8>,
    /// The answer.
    pub pong: Vec<u8>,
}

impl Default for HeartbeatWords {
    fn default() -> Self {
        HeartbeatWords {
            ping: b"ping".to_vec(),
            pong: b"pong".to_vec(),
        }
    }
}

/// Longer words would be messages.
const MAX_WORD_BYTES: usize = 64;

/// One decoded frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A message, without its framing.
    Message(&'a [u8]),
    /// Heartbeats: one ping or one pong, except for [`Framing::Raw`], where a read may return many
    /// at once.
    Heartbeats {
        /// Pings, each of which is to be answered.
        pings: u32,
        /// Answers.
        pongs: u32,
    },
}

impl Frame<'_> {
    const PING: Frame<'static> = Frame::Heartbeats { pings: 1, pongs: 0 };
    const PONG: Frame<'static> = Frame::Heartbeats { pings: 0, pongs: 1 };
}

/// The frame that is arriving is longer than the longest message allowed. Nothing after it can be
/// understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameTooLarge;

/// A framing with its words and its bound: what encoder and decoder share.
#[derive(Clone, Debug)]
pub struct Codec {
    framing: Framing,
    words: HeartbeatWords,
    max_message: usize,
    ping: Vec<u8>,
    pong: Vec<u8>,
}

impl Codec {
    /// A codec for messages of at most `max_message` bytes, the framing itself not counted.
    ///
    /// Fails if a word is empty, longer than 64 bytes or than a message may be, equal to the other
    /// or the beginning of it, or cannot stand in a line.
    pub fn new(
        framing: Framing,
        words: HeartbeatWords,
        max_message: usize,
    ) -> Result<Self, ConfigError> {
        for word in [&words.ping, &words.pong] {
            if word.is_empty() || word.len() > MAX_WORD_BYTES {
                return Err(ConfigError::new(
                    "words",
                    "a heartbeat word has 1 to 64 bytes",
                ));
            }
            if word.len() > max_message {
                let problem = format!("must have room for a heartbeat word: {} bytes", word.len());
                return Err(ConfigError::new("max_message", problem).against(&["words"]));
            }
            if word.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
                return Err(ConfigError::new(
                    "words",
                    "a heartbeat word holds no line feed and no carriage return",
                ));
            }
        }
        if words.ping.starts_with(&words.pong) || words.pong.starts_with(&words.ping) {
            return Err(ConfigError::new(
                "words",
                "neither heartbeat word may be the beginning of the other",
            ));
        }
        let mut codec = Codec {
            framing,
            words,
            max_message,
            ping: Vec::new(),
            pong: Vec::new(),
        };
        let (mut ping, mut pong) = (Vec::new(), Vec::new());
        codec.encode(&[&codec.words.ping], &mut ping);
        codec.encode(&[&codec.words.pong], &mut pong);
        (codec.ping, codec.pong) = (ping, pong);
        Ok(codec)
    }

    /// The same with another bound. Fails if a heartbeat word is longer than it.
    pub(crate) fn with_max_message(&self, max_message: usize) -> Result<Self, ConfigError> {
        Codec::new(self.framing, self.words.clone(), max_message)
    }

    /// Takes the next frame off the front of `input`.
    ///
    /// `Ok(None)` means that the input is used up; the beginning of an unfinished frame is in
    /// `inbox` then. The frame borrows from the input, or from the inbox if it began in an earlier
    /// read; it is copied in neither case. After an error the stream is out of step: a further call
    /// is harmless, but what it returns has no meaning.
    pub fn decode<'i: 'a, 'a>(
        &self,
        inbox: &'a mut Inbox,
        input: &mut &'i [u8],
    ) -> Result<Option<Frame<'a>>, FrameTooLarge> {
        self.decode_within(self.max_message, inbox, input)
    }

    /// As [`Codec::decode`], with another bound on the message.
    pub(crate) fn decode_within<'i: 'a, 'a>(
        &self,
        max_message: usize,
        inbox: &'a mut Inbox,
        input: &mut &'i [u8],
    ) -> Result<Option<Frame<'a>>, FrameTooLarge> {
        inbox.begin();
        if input.is_empty() {
            return Ok(None);
        }
        match self.framing {
            Framing::Lines => {
                Ok(lines::decode(max_message, inbox, input)?.map(|message| self.classify(message)))
            }
            Framing::Length => Ok(
                length::decode(max_message, inbox, input)?.map(|message| self.classify(message))
            ),
            Framing::Raw => Ok(Some(raw::decode(max_message, &self.words, input))),
        }
    }

    fn classify<'a>(&self, message: &'a [u8]) -> Frame<'a> {
        if message == self.words.ping {
            Frame::PING
        } else if message == self.words.pong {
            Frame::PONG
        } else {
            Frame::Message(message)
        }
    }

    /// Whether peers take `message` for a ping or a pong.
    pub(crate) fn is_heartbeat_word(&self, message: &[u8]) -> bool {
        message == self.words.ping || message == self.words.pong
    }

    /// The number of bytes that the message made of `parts` takes on the wire, or
    /// [`SendError::InvalidMessage`].
    pub fn encoded_len(&self, parts: &[&[u8]]) -> Result<usize, SendError> {
        let carries =
            self.framing != Framing::Lines || parts.iter().all(|part| lines::carries(part));
        if carries {
            self.wire_len(false, parts)
        } else {
            Err(SendError::InvalidMessage)
        }
    }

    /// The length without a check of the bytes: [`Codec::try_encode`] checks them.
    pub(crate) fn wire_len(&self, escape: bool, parts: &[&[u8]]) -> Result<usize, SendError> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>() + usize::from(escape);
        match self.framing {
            Framing::Lines => Ok(len + 1),
            Framing::Length => length::encoded_len(len),
            Framing::Raw => Ok(len),
        }
    }

    /// Whether an application message for a peer that knows the handshake is sent with an escape in
    /// front: without it, the peer would take the message for a control message or a heartbeat.
    pub(crate) fn needs_escape(&self, parts: &[&[u8]]) -> bool {
        handshake::needs_escape(parts)
            || [&self.words.ping, &self.words.pong]
                .iter()
                .any(|word| is_joined(parts, word))
    }

    /// Appends a message as [`Codec::encode`] does, if the framing can carry it; otherwise nothing.
    /// One search through the message where it is then, instead of one for each part before it is
    /// there. [`Codec::wire_len`] has said before that it is not too long.
    pub(crate) fn try_encode(
        &self,
        escape: bool,
        parts: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        let start = out.len();
        self.encode_escaped(escape, parts, out);
        if self.framing == Framing::Lines && !lines::carries(&out[start..out.len() - 1]) {
            out.truncate(start);
            return Err(SendError::InvalidMessage);
        }
        Ok(())
    }

    /// Appends the message made of `parts` with its framing. The caller has checked it with
    /// [`Codec::encoded_len`].
    ///
    /// The other end takes a message that is a heartbeat word for a heartbeat.
    pub fn encode(&self, parts: &[&[u8]], out: &mut Vec<u8>) {
        self.encode_escaped(false, parts, out);
    }

    /// As [`Codec::encode`]; `escape` puts the escape of the handshake in front.
    pub(crate) fn encode_escaped(&self, escape: bool, parts: &[&[u8]], out: &mut Vec<u8>) {
        if let Framing::Length = self.framing {
            length::encode_header(usize::from(escape), parts, out);
        }
        if escape {
            out.push(handshake::ESCAPE);
        }
        for part in parts {
            out.extend_from_slice(part);
        }
        if let Framing::Lines = self.framing {
            out.push(b'\n');
        }
    }

    /// Whether the first message of a peer is HTTP: a request line (RFC 9112 section 3), or the
    /// beginning of HTTP/2 (RFC 9113 section 3.4), where messages are lines. A web page can send
    /// one without the consent of its reader.
    pub(crate) fn is_http_request(&self, message: &[u8]) -> bool {
        self.framing == Framing::Lines && lines::is_http_request(message)
    }

    pub(crate) fn is_raw(&self) -> bool {
        self.framing == Framing::Raw
    }

    pub(crate) fn max_message(&self) -> usize {
        self.max_message
    }

    /// A ping with its framing.
    pub fn ping(&self) -> &[u8] {
        &self.ping
    }

    /// A pong with its framing.
    pub fn pong(&self) -> &[u8] {
        &self.pong
    }
}

/// Whether `parts` joined together are `word`.
fn is_joined(parts: &[&[u8]], word: &[u8]) -> bool {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    len == word.len() && parts.iter().flat_map(|part| part.iter()).eq(word)
}

#[cfg(test)]
mod tests;
