//! The peers: what they send, how they read, and their faults.

use std::rc::Rc;

use heartline::Framing;

use crate::ledger::encode;

/// How a peer lives until something befalls it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Sends this many messages at once at this interval, each at most this long.
    pub talk: Option<Talk>,
    /// Says this first.
    pub hello: Option<Hello>,
    /// Sends a heartbeat by itself at this interval.
    pub beat_ms: Option<u64>,
    /// Answers pings after so long.
    pub answer_ms: Option<u64>,
    /// Its bytes arrive in pieces of at most this size, with pauses of at most this length between
    /// them.
    pub piece: usize,
    pub piece_gap_ms: u64,
    /// Reads at most this many bytes at once, this long after they came.
    pub read_bytes: u64,
    pub read_delay_ms: u64,
    /// Something befalls it after at most so long, again and again.
    pub fault_every_ms: Option<u64>,
    /// Reconnects this long after its connection has ended.
    pub reconnect_ms: Option<u64>,
    /// Faults of the network do not reach it either.
    pub sheltered: bool,
}

/// The handshake of a peer.
#[derive(Clone, Debug)]
pub struct Hello {
    pub name: Option<String>,
    /// What the application decides, by the token.
    pub token: Option<&'static str>,
    pub beat_ms: Option<u64>,
    /// It cannot be read.
    pub is_broken: bool,
}

impl Hello {
    pub fn text(&self) -> Vec<u8> {
        let mut text = String::from("hello version=1");
        if let Some(name) = &self.name {
            text += &format!(" name={name}");
        }
        if let Some(token) = self.token {
            text += &format!(" token={token}");
        }
        if let Some(beat_ms) = self.beat_ms {
            text += &format!(" beat={beat_ms}ms");
        }
        if self.is_broken {
            text += " name";
        }
        text.into_bytes()
    }
}

#[derive(Clone, Debug)]
pub struct Talk {
    pub every_ms: u64,
    pub burst: usize,
    pub longest: usize,
}

/// Messages begin anywhere in the first part of the pattern, and are at most so long.
const PATTERN_BYTES: usize = 8 * 1024;

/// Random bytes without lower-case letters and line ends.
pub fn pattern(rng: &mut fastrand::Rng) -> Rc<[u8]> {
    (0..2 * PATTERN_BYTES)
        .map(|_| rng.u8(b'0'..=b'Z'))
        .collect()
}

impl Plan {
    /// Sends nothing at all, and reads.
    pub fn silent() -> Self {
        Plan {
            talk: None,
            hello: None,
            beat_ms: None,
            answer_ms: None,
            piece: usize::MAX,
            piece_gap_ms: 0,
            read_bytes: u64::MAX,
            read_delay_ms: 0,
            fault_every_ms: None,
            reconnect_ms: None,
            sheltered: false,
        }
    }
}

/// What can befall a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Vanishes without a word: sends nothing, reads nothing, for good.
    Vanish,
    /// Stops reading, but goes on sending.
    Stall,
    /// Reads again.
    Recover,
    /// Shuts its sending side when everything it had to send was sent, then waits for the replies.
    HalfClose,
    /// Half-closes in the middle of a message.
    HalfCloseTorn,
    Reset,
    /// Sends more than one frame may hold.
    Oversize,
}

pub struct Peer {
    pub plan: Plan,
    pub rng: fastrand::Rng,
    framing: Framing,
    /// What messages are cut from: byte by byte they would cost most of the time of a run.
    pattern: Rc<[u8]>,
    /// On its way to the server.
    pub unsent: Vec<u8>,
    pub reading: bool,
    pub vanished: bool,
    /// Nothing arrives for now, in either direction.
    pub cut_off: bool,
    pub ever_cut_off: bool,
    /// Sends nothing new; FIN follows the last of `unsent`.
    pub closing: bool,
    pub fin_sent: bool,
    /// Has seen the end of the connection.
    pub over: bool,
    /// Whether an action that moves bytes is on the calendar already.
    pub delivery_due: bool,
    pub reading_due: bool,
    pub transmission_due: bool,
}

impl Peer {
    pub fn new(plan: Plan, framing: Framing, pattern: &Rc<[u8]>, seed: u64) -> Self {
        Peer {
            plan,
            rng: fastrand::Rng::with_seed(seed),
            framing,
            pattern: Rc::clone(pattern),
            unsent: Vec::new(),
            reading: true,
            vanished: false,
            cut_off: false,
            ever_cut_off: false,
            closing: false,
            fin_sent: false,
            over: false,
            delivery_due: false,
            reading_due: false,
            transmission_due: false,
        }
    }

    pub fn speaks(&self) -> bool {
        !self.vanished && !self.closing && !self.over
    }

    /// Random messages, none longer than what is allowed now, appended to `unsent`.
    pub fn talk(&mut self, max_message: usize) -> Vec<Rc<[u8]>> {
        let Some(talk) = self.plan.talk.clone() else {
            return Vec::new();
        };
        let burst = self.rng.usize(1..=talk.burst);
        (0..burst)
            .map(|_| self.say(talk.longest.min(max_message)))
            .collect()
    }

    /// One random message, mostly a short one, appended to `unsent`.
    pub fn say(&mut self, longest: usize) -> Rc<[u8]> {
        // Mostly short, for that is where borders between reads and messages meet most often.
        let longest = if self.rng.u8(0..8) == 0 {
            longest
        } else {
            longest.min(40)
        };
        let shortest = usize::from(self.framing == Framing::Raw);
        let len = self.rng.usize(shortest..=longest);
        let start = self.rng.usize(0..PATTERN_BYTES);
        let message: Rc<[u8]> = self.pattern[start..start + len].into();
        let crlf = self.rng.bool();
        self.unsent.extend(encode(self.framing, &message, crlf));
        message
    }

    pub fn heartbeat(&mut self, word: &[u8]) {
        self.unsent.extend(encode(
            self.framing,
            word,
            self.framing == Framing::Lines && word.len() % 2 == 1,
        ));
    }

    /// The beginning of a frame that never ends.
    pub fn tear(&mut self) {
        match self.framing {
            Framing::Lines => self.unsent.extend(b"TORN"),
            Framing::Length => self.unsent.extend([0, 0, 0, 9, b'T']),
            Framing::Raw => {}
        }
    }

    /// More than the longest frame; raw has none that is too long.
    pub fn exceed(&mut self, max_message: usize) {
        match self.framing {
            Framing::Lines => self
                .unsent
                .extend(std::iter::repeat_n(b'X', max_message + 2)),
            Framing::Length => self.unsent.extend((max_message as u32 + 1).to_be_bytes()),
            Framing::Raw => {}
        }
    }
}
