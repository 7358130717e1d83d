//! Sockets of closed connections that still wait for the peer's FIN.
//!
//! A socket closed with unread bytes resets the connection, and the reset makes the peer's kernel
//! discard replies that it has not read yet. So the writing side of such a socket is shut, and the
//! socket stays, outside the engine, until the peer has shut its side too, or for a moment.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read};
use std::net::Shutdown;

use mio::net::TcpStream;

use crate::time::Timestamp;

/// Long enough for a peer on the other side of the world to answer the FIN with its own, or at
/// least to have read the last reply.
const LINGER_MS: u64 = 1000;

pub(super) struct Lingering {
    streams: HashMap<usize, TcpStream>,
    /// By deadline, which is by order of arrival. Tokens of streams that have gone already stay
    /// until theirs.
    deadlines: VecDeque<(Timestamp, usize)>,
    max: usize,
}

impl Lingering {
    /// At most `max` descriptors are kept for it; beyond that the oldest go early.
    pub(super) fn new(max: usize) -> Self {
        Lingering {
            streams: HashMap::new(),
            deadlines: VecDeque::new(),
            max,
        }
    }

    pub(super) fn insert(
        &mut self,
        now: Timestamp,
        token: usize,
        stream: TcpStream,
        scratch: &mut [u8],
    ) {
        if self.max == 0 || stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        while self.streams.len() >= self.max
            && let Some((_, oldest)) = self.deadlines.pop_front()
        {
            self.streams.remove(&oldest);
        }
        self.streams.insert(token, stream);
        self.deadlines.push_back((now.plus_ms(LINGER_MS), token));
        // The engine has consumed the readiness of bytes that have arrived already.
        self.handle_readable(token, scratch);
    }

    /// Reads and forgets what came in; drops the stream when the peer has shut its side. Does
    /// nothing for other tokens.
    pub(super) fn handle_readable(&mut self, token: usize, scratch: &mut [u8]) {
        let Some(stream) = self.streams.get_mut(&token) else {
            return;
        };
        // A peer that floods is cut off rather than listened to.
        for _ in 0..16 {
            match stream.read(scratch) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.streams.remove(&token);
    }

    pub(super) fn handle_timers(&mut self, now: Timestamp) {
        while let Some((deadline, token)) = self.deadlines.front().copied()
            && (deadline <= now || !self.streams.contains_key(&token))
        {
            self.deadlines.pop_front();
            self.streams.remove(&token);
        }
        if self.streams.is_empty() {
            *self = Lingering::new(self.max);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Lingering::new(self.max);
    }
}
