//! What is to be sent: messages, which outlive a connection, and heartbeats, which do not.

use std::collections::VecDeque;
use std::io::IoSlice;

use crate::error::SendError;
use crate::framing::Codec;

/// Messages and heartbeats in the order in which they are sent.
///
/// Invariants: a message stays until the kernel has taken all of it, and is never sent again after
/// that (at most once); a message or heartbeat that the kernel has taken in part is finished before
/// another is begun; heartbeats are sent before messages not begun.
#[derive(Debug)]
pub(crate) struct SendQueue {
    codec: Codec,
    max_bytes: usize,
    /// The server knows the handshake: what it would take for a control message is escaped.
    escapes: bool,
    /// Messages wait for the answer to a `hello`.
    held: bool,
    /// Messages as they go over the wire, one after the other.
    messages: VecDeque<u8>,
    /// The length of each message.
    lens: VecDeque<usize>,
    /// Bytes of the first message that this line's kernel has taken.
    message_sent: usize,
    heartbeats: Vec<u8>,
    /// Bytes of the heartbeats that the kernel has taken.
    heartbeats_sent: usize,
    /// Bytes that the kernel has taken since the last ping was queued.
    since_ping: usize,
    encoded: Vec<u8>,
}

/// What a message counts beyond its bytes: the record of its length. So the bound in bytes also
/// bounds the number of messages.
pub(crate) const MESSAGE_OVERHEAD: usize = size_of::<usize>();

/// Most unsent pongs. Further pings of a peer that does not read are not answered: any byte answers
/// them.
const MAX_HEARTBEAT_BYTES: usize = 4 * 1024;

/// A ping follows the message in which this many bytes went out since the last one.
pub(crate) const PING_EVERY_BYTES: usize = 16 * 1024;

/// A buffer with more capacity than this is freed when it is empty.
const KEPT_BYTES: usize = 64 * 1024;

/// Slices that [`SendQueue::peek`] fills at most: the begun message, heartbeats, and the other
/// messages, each ring in two halves.
pub(crate) const SLICES: usize = 5;

impl SendQueue {
    pub(crate) fn new(codec: Codec, max_bytes: usize, escapes: bool) -> Self {
        SendQueue {
            codec,
            max_bytes,
            escapes,
            held: false,
            messages: VecDeque::new(),
            lens: VecDeque::new(),
            message_sent: 0,
            heartbeats: Vec::new(),
            heartbeats_sent: 0,
            since_ping: 0,
            encoded: Vec::new(),
        }
    }

    /// Queues a message, or refuses it if there is no room.
    pub(crate) fn push(&mut self, message: &[u8]) -> Result<(), SendError> {
        self.codec.encoded_len(&[message])?;
        let escape = self.escapes && self.codec.needs_escape(&[message]);
        let len = self.codec.wire_len(escape, &[message])?;
        if !self.has_room_for(len) {
            return Err(SendError::Full);
        }
        // Raw framing has no frame for an empty message: there is nothing to send.
        if len > 0 {
            self.encoded.clear();
            self.codec
                .encode_escaped(escape, &[message], &mut self.encoded);
            self.messages.extend(&self.encoded);
            self.lens.push_back(len);
            self.encoded.shrink_to(KEPT_BYTES);
        }
        Ok(())
    }

    fn has_room_for(&self, len: usize) -> bool {
        let used = self.messages.len() + self.lens.len() * MESSAGE_OVERHEAD;
        len.saturating_add(MESSAGE_OVERHEAD) <= self.max_bytes.saturating_sub(used)
    }

    /// Queues the first message of a connection. Others wait until [`SendQueue::release`].
    pub(crate) fn push_hello(&mut self, hello: &[u8]) {
        self.codec.encode(&[hello], &mut self.heartbeats);
        self.held = true;
    }

    /// The server has answered the `hello`: messages are sent.
    pub(crate) fn release(&mut self) {
        self.held = false;
    }

    pub(crate) fn push_ping(&mut self) {
        self.since_ping = 0;
        push_heartbeat(&mut self.heartbeats, self.codec.ping());
    }

    pub(crate) fn push_pong(&mut self) {
        push_heartbeat(&mut self.heartbeats, self.codec.pong());
    }

    /// Whether enough bytes were sent since the last ping that another one is due: a server that
    /// reads slowly then answers a ping now and then, however many bytes are queued behind it.
    pub(crate) fn is_ping_due(&self) -> bool {
        self.since_ping >= PING_EVERY_BYTES && self.heartbeats.is_empty()
    }

    /// Bytes that this line's kernel has not taken yet.
    pub(crate) fn unsent(&self) -> usize {
        let messages = if self.held {
            0
        } else {
            self.messages.len() - self.message_sent
        };
        messages + self.heartbeats.len() - self.heartbeats_sent
    }

    /// Whether a message waits, of which the kernel has taken not all.
    pub(crate) fn has_messages(&self) -> bool {
        !self.lens.is_empty()
    }

    /// Fills `slices` with the next bytes to write, at most `max`, for one vectored write. Returns
    /// how many slices and how many bytes it filled.
    pub(crate) fn peek<'a>(
        &'a self,
        slices: &mut [IoSlice<'a>; SLICES],
        max: usize,
    ) -> (usize, usize) {
        let begun = if self.message_sent > 0 {
            self.lens[0]
        } else {
            0
        };
        let (begun_front, begun_back) = range_of(&self.messages, self.message_sent, begun);
        let end = if self.held { 0 } else { self.messages.len() };
        let (others_front, others_back) = range_of(&self.messages, begun, end);
        let parts = [
            begun_front,
            begun_back,
            &self.heartbeats[self.heartbeats_sent..],
            others_front,
            others_back,
        ];
        let (mut filled, mut bytes) = (0, 0);
        for part in parts {
            let part = &part[..part.len().min(max - bytes)];
            if !part.is_empty() {
                slices[filled] = IoSlice::new(part);
                filled += 1;
                bytes += part.len();
            }
        }
        (filled, bytes)
    }

    /// The kernel has taken the next `n` bytes.
    pub(crate) fn advance(&mut self, mut n: usize) {
        assert!(n <= self.unsent(), "no more is sent than was queued");
        self.since_ping += n;
        if self.message_sent > 0 {
            let rest = (self.lens[0] - self.message_sent).min(n);
            self.advance_messages(rest);
            n -= rest;
        }
        // Either the begun message is finished now, or nothing is left of `n`.
        let heartbeats = (self.heartbeats.len() - self.heartbeats_sent).min(n);
        self.heartbeats_sent += heartbeats;
        if self.heartbeats_sent == self.heartbeats.len() {
            self.clear_heartbeats();
        }
        self.advance_messages(n - heartbeats);
        if self.lens.is_empty() {
            // The short rule keeps the steady path free of the allocator and gives a burst's memory
            // back.
            self.messages.shrink_to(KEPT_BYTES);
            self.lens.shrink_to(KEPT_BYTES / MESSAGE_OVERHEAD);
        }
    }

    fn advance_messages(&mut self, n: usize) {
        self.message_sent += n;
        let mut whole = 0;
        while let Some(&len) = self.lens.front()
            && len <= self.message_sent
        {
            self.lens.pop_front();
            self.message_sent -= len;
            whole += len;
        }
        self.messages.drain(..whole);
    }

    /// The connection is gone. A message that was sent in part will be sent again from its
    /// beginning, since the peer never saw its end; queued heartbeats are dropped.
    pub(crate) fn handle_line_lost(&mut self) {
        self.message_sent = 0;
        self.since_ping = 0;
        self.held = false;
        self.clear_heartbeats();
    }

    fn clear_heartbeats(&mut self) {
        self.heartbeats.clear();
        self.heartbeats_sent = 0;
    }
}

fn push_heartbeat(heartbeats: &mut Vec<u8>, word: &[u8]) {
    if heartbeats.len() + word.len() <= MAX_HEARTBEAT_BYTES {
        heartbeats.extend_from_slice(word);
    }
}

/// Bytes `from..to` of a ring, in its two halves.
fn range_of(ring: &VecDeque<u8>, from: usize, to: usize) -> (&[u8], &[u8]) {
    if from >= to {
        return (&[], &[]);
    }
    let (front, back) = ring.as_slices();
    let seam = front.len();
    (
        &front[from.min(seam)..to.min(seam)],
        &back[from.max(seam) - seam..to.max(seam) - seam],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::{Framing, HeartbeatWords};
    use proptest::prelude::*;

    fn queue(framing: Framing, max_bytes: usize) -> SendQueue {
        SendQueue::new(
            Codec::new(framing, HeartbeatWords::default(), 1000)
                .expect("the default words are valid"),
            max_bytes,
            false,
        )
    }

    fn next_bytes(queue: &SendQueue) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let (filled, _) = queue.peek(&mut slices, usize::MAX);
        slices[..filled]
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect()
    }

    #[test]
    fn full_queue_rejects_new_messages() {
        let mut queue = queue(Framing::Lines, 2 * (4 + MESSAGE_OVERHEAD));
        assert_eq!(
            [queue.push(b"one"), queue.push(b"two"), queue.push(b"six")],
            [Ok(()), Ok(()), Err(SendError::Full)]
        );
        assert_eq!(queue.push(b"a\nb"), Err(SendError::InvalidMessage));
        assert_eq!(next_bytes(&queue), b"one\ntwo\n");
        queue.advance(4);
        assert_eq!(queue.push(b"six"), Ok(()));
        assert_eq!(next_bytes(&queue), b"two\nsix\n");
    }

    #[test]
    fn heartbeats_wait_for_a_partially_sent_message() {
        let mut queue = queue(Framing::Lines, 1000);
        queue.push(b"hello").expect("room");
        queue.push(b"world").expect("room");
        queue.advance(2);
        queue.push_ping();
        assert_eq!(next_bytes(&queue), b"llo\nping\nworld\n");
        queue.advance(6);
        queue.push_pong();
        assert_eq!(next_bytes(&queue), b"ng\npong\nworld\n");
        queue.advance(8);
        assert_eq!(
            (queue.unsent(), next_bytes(&queue)),
            (6, b"world\n".to_vec())
        );
    }

    #[test]
    fn partial_message_is_resent_and_heartbeats_dropped_after_a_reconnect() {
        let mut queue = queue(Framing::Lines, 1000);
        queue.push(b"hello").expect("room");
        queue.push(b"world").expect("room");
        queue.push_ping();
        queue.advance(5 + 6 + 3);
        queue.push_pong();
        queue.handle_line_lost();
        assert_eq!(next_bytes(&queue), b"world\n");
        queue.advance(6);
        assert!(!queue.has_messages());
    }

    #[test]
    fn pings_of_a_peer_that_does_not_read_are_bounded() {
        let mut queue = queue(Framing::Lines, 1000);
        (0..100_000).for_each(|_| queue.push_pong());
        assert!(queue.unsent() <= MAX_HEARTBEAT_BYTES);
        assert_eq!(queue.push(b"there is still room for messages"), Ok(()));
    }

    #[test]
    fn messages_wait_for_the_answer_to_the_hello_and_are_escaped() {
        let codec = Codec::new(Framing::Lines, HeartbeatWords::default(), 1000);
        let mut queue = SendQueue::new(codec.expect("valid"), 1000, true);
        queue.push(b"bye now").expect("room");
        queue.push_hello(b"hello version=1");
        queue.push_ping();
        assert_eq!(next_bytes(&queue), b"hello version=1\nping\n");
        assert_eq!(queue.unsent(), 21);
        queue.advance(21);
        assert_eq!((queue.unsent(), queue.has_messages()), (0, true));
        queue.release();
        assert_eq!(next_bytes(&queue), b"\\bye now\n");
    }

    #[test]
    fn empty_raw_message_queues_nothing() {
        let mut queue = queue(Framing::Raw, 1000);
        assert_eq!(queue.push(b""), Ok(()));
        assert!(!queue.has_messages());
    }

    #[derive(Debug, Clone)]
    enum QueueStep {
        Push(Vec<u8>),
        Ping,
        Send(prop::sample::Index),
        LoseLine,
    }

    fn step() -> impl Strategy<Value = QueueStep> {
        prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..50).prop_map(QueueStep::Push),
            2 => Just(QueueStep::Ping),
            6 => any::<prop::sample::Index>().prop_map(QueueStep::Send),
            1 => Just(QueueStep::LoseLine),
        ]
    }

    /// Decodes what one line received.
    fn messages_of(wire: &[u8]) -> Vec<Vec<u8>> {
        let codec = queue(Framing::Length, 0).codec;
        let (mut inbox, mut input, mut messages) =
            (crate::framing::inbox::Inbox::default(), wire, Vec::new());
        while let Some(frame) = codec.decode(&mut inbox, &mut input).expect("whole frames") {
            if let crate::framing::Frame::Message(message) = frame {
                messages.push(message.to_vec());
            }
        }
        messages
    }

    proptest! {
        /// Over any number of connections, each message arrives whole exactly once and in order.
        #[test]
        fn messages_arrive_once_and_in_order_over_reconnects(steps in prop::collection::vec(step(), 0..80)) {
            let mut queue = queue(Framing::Length, 1 << 20);
            let (mut sent, mut received, mut wire) = (Vec::new(), Vec::new(), Vec::new());
            for step in steps.into_iter().chain([QueueStep::LoseLine]) {
                match step {
                    QueueStep::Push(message) => {
                        prop_assume!(message != b"ping" && message != b"pong");
                        queue.push(&message).expect("room");
                        sent.push(message);
                    }
                    QueueStep::Ping => queue.push_ping(),
                    QueueStep::Send(share) => {
                        let bytes = next_bytes(&queue);
                        prop_assert_eq!(bytes.len(), queue.unsent());
                        let n = share.index(bytes.len() + 1);
                        wire.extend_from_slice(&bytes[..n]);
                        queue.advance(n);
                    }
                    QueueStep::LoseLine => {
                        received.extend(messages_of(&wire));
                        wire.clear();
                        queue.handle_line_lost();
                    }
                }
            }
            received.extend(messages_of(&next_bytes(&queue)));
            prop_assert_eq!(received, sent);
        }
    }
}
