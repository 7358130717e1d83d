//! Messages that were sent and have not arrived yet, compared piece by piece with what arrives.

use std::collections::VecDeque;
use std::rc::Rc;

use heartline::Framing;

/// Messages in flight in one direction of one connection.
///
/// Payloads hold no lower-case letters and heartbeats nothing else. So where the framing keeps no
/// borders, `Raw`, what is left after dropping the lower case is compared byte by byte.
pub enum Ledger {
    /// Each with whether it may be missing: a broadcast that may not have fitted its receiver's
    /// outbox.
    Messages(VecDeque<(Rc<[u8]>, bool)>),
    /// The bytes, and whether some of them may be missing when the connection has ended.
    Bytes(VecDeque<u8>, bool),
}

impl Ledger {
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::Raw => Ledger::Bytes(VecDeque::new(), false),
            Framing::Lines | Framing::Length => Ledger::Messages(VecDeque::new()),
        }
    }

    pub fn push(&mut self, message: &Rc<[u8]>) {
        self.append(message, false);
    }

    /// A broadcast: the receiver may have no room for it.
    pub fn push_broadcast(&mut self, message: &Rc<[u8]>) {
        self.append(message, true);
    }

    fn append(&mut self, message: &Rc<[u8]>, may_miss: bool) {
        match self {
            Ledger::Messages(queue) => queue.push_back((Rc::clone(message), may_miss)),
            Ledger::Bytes(queue, missable) => {
                queue.extend(payload(message));
                *missable |= may_miss;
            }
        }
    }

    /// The other end has received this, which must be what was sent next. Returns how many
    /// broadcasts before it are missing.
    pub fn take(&mut self, seen: &[u8]) -> u64 {
        let mut missing = 0;
        match self {
            Ledger::Messages(queue) => loop {
                let (sent, may_miss) = queue
                    .pop_front()
                    .expect("a message arrived that nobody sent");
                if *sent == *seen {
                    break;
                }
                assert!(may_miss, "sent {:?}, seen {:?}", text(&sent), text(seen));
                missing += 1;
            },
            Ledger::Bytes(queue, _) => {
                for byte in payload(seen) {
                    assert_eq!(queue.pop_front(), Some(byte), "bytes changed on the way");
                }
            }
        }
        missing
    }

    /// Whether everything has arrived.
    pub fn is_complete(&self) -> bool {
        match self {
            Ledger::Messages(queue) => queue.is_empty(),
            Ledger::Bytes(queue, _) => queue.is_empty(),
        }
    }

    /// Whether nothing is missing that has to arrive.
    pub fn is_empty(&self) -> bool {
        match self {
            Ledger::Messages(queue) => queue.iter().all(|(_, may_miss)| *may_miss),
            Ledger::Bytes(queue, may_miss) => queue.is_empty() || *may_miss,
        }
    }
}

fn payload(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    bytes
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_lowercase())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned()
}

/// A message as a peer puts it on the wire.
pub fn encode(framing: Framing, message: &[u8], crlf: bool) -> Vec<u8> {
    match framing {
        Framing::Lines => [message, if crlf { b"\r\n" } else { b"\n" }].concat(),
        Framing::Length => [&(message.len() as u32).to_be_bytes()[..], message].concat(),
        Framing::Raw => message.to_vec(),
    }
}

/// Reads what the server writes to one connection: compares messages with the ledger and finds the
/// heartbeats.
pub struct Tap {
    framing: Framing,
    partial: Vec<u8>,
    written: u64,
    pub pongs: u64,
    /// Where in the stream the pings end that the peer has not reached yet.
    pub pings_at: VecDeque<u64>,
    /// Pings since the peer's last sign of life, and when the last one was written.
    pub pings_since_life: u64,
    pub last_ping_ms: u64,
    /// Broadcasts that its connection has not got.
    pub missing: u64,
    /// The server has answered a `hello` with this.
    pub welcome: Option<String>,
}

impl Tap {
    pub fn new(framing: Framing) -> Self {
        Tap {
            framing,
            partial: Vec::new(),
            written: 0,
            pongs: 0,
            pings_at: VecDeque::new(),
            pings_since_life: 0,
            last_ping_ms: 0,
            missing: 0,
            welcome: None,
        }
    }

    pub fn written(&mut self, now_ms: u64, bytes: &[u8], sent: &mut Ledger) {
        self.partial.extend_from_slice(bytes);
        let base = self.written;
        self.written += bytes.len() as u64;
        let behind = (self.partial.len() - bytes.len()) as u64;
        let mut at = 0;
        while let Some((frame, next)) = self.next_frame(at) {
            match &self.partial[frame] {
                b"ping" => {
                    self.pings_at.push_back(base + next as u64 - behind);
                    self.pings_since_life += 1;
                    self.last_ping_ms = now_ms;
                }
                b"pong" => self.pongs += 1,
                control if control.starts_with(b"welcome ") => {
                    let welcome = String::from_utf8_lossy(control).into_owned();
                    assert_eq!(self.welcome.replace(welcome), None, "welcomed twice");
                }
                control if control.starts_with(b"denied ") => {
                    assert!(self.welcome.is_none(), "denied after a welcome");
                }
                control if control.starts_with(b"bye ") => {
                    assert!(self.welcome.is_some(), "bye before a welcome");
                }
                message => self.missing += sent.take(message),
            }
            at = next;
        }
        self.partial.drain(..at);
    }

    /// Whether the stream ends between two frames.
    pub fn is_whole(&self) -> bool {
        self.framing == Framing::Raw || self.partial.is_empty()
    }

    fn next_frame(&self, at: usize) -> Option<(std::ops::Range<usize>, usize)> {
        let bytes = &self.partial[at..];
        match self.framing {
            Framing::Lines => {
                let end = at + memchr::memchr(b'\n', bytes)?;
                Some((at..end, end + 1))
            }
            Framing::Length => {
                let end = at + 4 + u32::from_be_bytes(*bytes.first_chunk()?) as usize;
                (end <= self.partial.len()).then_some((at + 4..end, end))
            }
            Framing::Raw => {
                // Echoes may hold torn heartbeats of the peer's; their letters are dropped one by
                // one.
                let first = bytes.first()?;
                let len = match first.is_ascii_lowercase() {
                    false => bytes
                        .iter()
                        .position(|byte| byte.is_ascii_lowercase())
                        .unwrap_or(bytes.len()),
                    true if bytes.starts_with(b"ping") || bytes.starts_with(b"pong") => 4,
                    true if b"ping".starts_with(bytes) || b"pong".starts_with(bytes) => {
                        return None;
                    }
                    true => 1,
                };
                Some((at..at + len, at + len))
            }
        }
    }
}
