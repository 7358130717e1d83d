//! Each framing: the places where reads split the bytes change nothing, and only bytes that have
//! arrived are held.

use heartline::framing::inbox::Inbox;
use heartline::framing::{Codec, Frame, FrameTooLarge};
use heartline::{Framing, HeartbeatWords, SendError};

use crate::reader::Reader;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Message(Vec<u8>),
    Heartbeats(u32, u32),
    TooLarge,
}

/// A codec, places to cut at, and bytes to cut.
pub fn framing(data: &[u8]) {
    let mut choices = Reader(data);
    let framing = choices.pick(&[Framing::Lines, Framing::Length, Framing::Raw]);
    let (ping, pong) =
        choices.pick(&[(&b"ping"[..], &b"pong"[..]), (b"?", b"!"), (b"aab", b"aaa")]);
    let words = HeartbeatWords {
        ping: ping.to_vec(),
        pong: pong.to_vec(),
    };
    // With the longest bound a length may claim 4 GiB.
    let max_message = choices.pick(&[4, 5, 8, 16, 50, 300, u32::MAX as usize]);
    let codec =
        Codec::new(framing, words.clone(), max_message).expect("words that can be told apart");
    let places: Vec<usize> = (0..choices.below(16))
        .map(|_| choices.below(256) << choices.below(3))
        .collect();
    let wire = choices.0;

    let pieces = cut(wire, &places);
    let seen = decode(&codec, framing, &pieces);
    assert_short(&seen, max_message);
    if framing == Framing::Raw {
        assert_eq!(
            spell(&seen, &words, wire),
            wire.len(),
            "raw: all of it is delivered"
        );
    } else {
        assert_eq!(
            seen,
            decode(&codec, framing, &[wire]),
            "cut into {pieces:?}"
        );
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(seen, decode(&codec, framing, &bytes), "byte by byte");
    }
    survive(&codec, framing, &words, max_message, &pieces, &places);
}

/// The same bytes, cut at those places that lie within them.
fn cut<'a>(bytes: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places
        .iter()
        .copied()
        .filter(|place| *place <= bytes.len())
        .collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places
        .windows(2)
        .map(|pair| &bytes[pair[0]..pair[1]])
        .collect()
}

/// Feeds the reads one by one, as the engine does, up to the first error.
fn decode(codec: &Codec, framing: Framing, reads: &[&[u8]]) -> Vec<Seen> {
    let mut inbox = Inbox::default();
    let mut seen = Vec::new();
    let (mut arrived, mut consumed) = (0, 0);
    for read in reads {
        arrived += read.len();
        let mut input = *read;
        loop {
            match codec.decode(&mut inbox, &mut input) {
                Ok(None) => break,
                Ok(Some(Frame::Message(message))) => seen.push(Seen::Message(message.to_vec())),
                Ok(Some(Frame::Heartbeats { pings, pongs })) => {
                    seen.push(Seen::Heartbeats(pings, pongs))
                }
                Err(FrameTooLarge) => {
                    assert!(inbox.frame_len() <= arrived - consumed);
                    // Harmless, whatever it returns.
                    let _ = codec.decode(&mut inbox, &mut input);
                    seen.push(Seen::TooLarge);
                    return seen;
                }
            }
            consumed = arrived - input.len();
        }
        assert!(
            input.is_empty(),
            "no frame, no error, and {} bytes left",
            input.len()
        );
        inbox.release_if_empty();
        let unfinished = if framing == Framing::Raw {
            0
        } else {
            arrived - consumed
        };
        assert_eq!(
            inbox.frame_len(),
            unfinished,
            "held is what has arrived of the unfinished frame"
        );
        assert_eq!(inbox.frame().len(), unfinished);
    }
    seen
}

fn assert_short(seen: &[Seen], max_message: usize) {
    for seen in seen {
        if let Seen::Message(message) = seen {
            assert!(
                message.len() <= max_message,
                "{} bytes are more than {max_message}",
                message.len()
            );
        }
    }
}

/// Compares the wire with what was decoded; returns how far they agree.
fn spell(seen: &[Seen], words: &HeartbeatWords, wire: &[u8]) -> usize {
    let mut left = wire;
    for seen in seen {
        match seen {
            Seen::Message(message) => {
                left = left
                    .strip_prefix(message.as_slice())
                    .expect("the message stands on the wire")
            }
            Seen::Heartbeats(pings, pongs) => {
                let mut counts = (0, 0);
                while counts.0 + counts.1 < pings + pongs {
                    if let Some(rest) = left.strip_prefix(words.ping.as_slice()) {
                        (left, counts.0) = (rest, counts.0 + 1);
                    } else {
                        left = left
                            .strip_prefix(words.pong.as_slice())
                            .expect("the heartbeat stands on the wire");
                        counts.1 += 1;
                    }
                }
                assert_eq!(counts, (*pings, *pongs));
            }
            Seen::TooLarge => panic!("raw knows no borders"),
        }
    }
    wire.len() - left.len()
}

/// Messages come out as they went in, wherever the wire is split.
fn survive(
    codec: &Codec,
    framing: Framing,
    words: &HeartbeatWords,
    max_message: usize,
    messages: &[&[u8]],
    places: &[usize],
) {
    let (mut wire, mut expected) = (Vec::new(), Vec::new());
    for message in messages {
        let message = &message[..message.len().min(max_message)];
        let parts = message.split_at(message.len() / 2);
        let (parts, before) = ([parts.0, parts.1], wire.len());
        let framed = codec.encoded_len(&parts);
        let frameable = framing != Framing::Lines || !message.contains(&b'\n');
        assert_eq!(framed.is_ok(), frameable, "{framed:?}");
        if framed == Err(SendError::InvalidMessage) {
            continue;
        }
        codec.encode(&parts, &mut wire);
        assert_eq!(Ok(wire.len() - before), framed);
        expected.push(arrives_as(message, framing, words));
    }
    if framing == Framing::Raw {
        assert_eq!(spell(&expected, words, &wire), wire.len());
    } else {
        assert_eq!(decode(codec, framing, &cut(&wire, places)), expected);
    }
}

fn arrives_as(message: &[u8], framing: Framing, words: &HeartbeatWords) -> Seen {
    let message = match framing {
        Framing::Lines => message.strip_suffix(b"\r").unwrap_or(message),
        Framing::Length | Framing::Raw => message,
    };
    match message {
        _ if framing == Framing::Raw => Seen::Message(message.to_vec()),
        _ if message == words.ping => Seen::Heartbeats(1, 0),
        _ if message == words.pong => Seen::Heartbeats(0, 1),
        _ => Seen::Message(message.to_vec()),
    }
}
