//! Raw: each read is a message, at most the longest message at a time.

use super::{Frame, HeartbeatWords};

pub(super) fn decode<'a>(max: usize, words: &HeartbeatWords, input: &mut &'a [u8]) -> Frame<'a> {
    if let Some(heartbeats) = heartbeats_alone(words, input) {
        *input = &[];
        return heartbeats;
    }
    let (chunk, rest) = input.split_at(input.len().min(max));
    *input = rest;
    Frame::Message(chunk)
}

/// Counts the heartbeats in a chunk made of nothing else. Words sent one by one arrive glued
/// together when the reader is late.
fn heartbeats_alone(words: &HeartbeatWords, mut chunk: &[u8]) -> Option<Frame<'static>> {
    let (mut pings, mut pongs) = (0, 0);
    while !chunk.is_empty() {
        if let Some(rest) = chunk.strip_prefix(words.ping.as_slice()) {
            pings += 1;
            chunk = rest;
        } else {
            chunk = chunk.strip_prefix(words.pong.as_slice())?;
            pongs += 1;
        }
    }
    Some(Frame::Heartbeats { pings, pongs })
}
