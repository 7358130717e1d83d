use super::*;
use proptest::prelude::*;

fn codec(framing: Framing, max_message: usize) -> Codec {
    Codec::new(framing, HeartbeatWords::default(), max_message)
        .expect("the default words are valid")
}

#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Message(Vec<u8>),
    Heartbeats(u32, u32),
    TooLarge,
}

/// Feeds the reads one by one, as the engine does.
fn decode_reads<'a>(codec: &Codec, reads: impl IntoIterator<Item = &'a [u8]>) -> Vec<Seen> {
    let mut inbox = Inbox::default();
    let mut seen = Vec::new();
    for mut input in reads {
        loop {
            match codec.decode(&mut inbox, &mut input) {
                Ok(None) => break,
                Ok(Some(Frame::Message(message))) => seen.push(Seen::Message(message.to_vec())),
                Ok(Some(Frame::Heartbeats { pings, pongs })) => {
                    seen.push(Seen::Heartbeats(pings, pongs))
                }
                Err(FrameTooLarge) => {
                    seen.push(Seen::TooLarge);
                    return seen;
                }
            }
        }
        inbox.release_if_empty();
    }
    seen
}

fn decode_all(codec: &Codec, bytes: &[u8]) -> Vec<Seen> {
    decode_reads(codec, [bytes])
}

fn message(text: &str) -> Seen {
    Seen::Message(text.as_bytes().to_vec())
}

#[test]
fn lf_ends_a_line_and_one_cr_is_dropped() {
    let seen = decode_all(
        &codec(Framing::Lines, 100),
        b"one\r\ntwo\n\nthree\r\r\nping\npong\r\n ping\nunfinished",
    );
    let expected = [
        message("one"),
        message("two"),
        message(""),
        message("three\r"),
        Seen::Heartbeats(1, 0),
        Seen::Heartbeats(0, 1),
        message(" ping"),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn line_is_limited_to_max_message() {
    let codec = codec(Framing::Lines, 4);
    for reads in [
        vec![&b"1234\r\n"[..]],
        vec![b"1234\r", b"\n"],
        vec![b"12", b"34", b"\r", b"\n"],
    ] {
        assert_eq!(decode_reads(&codec, reads), [message("1234")]);
    }
    for reads in [
        vec![&b"12345\n"[..]],
        vec![b"12345"],
        vec![b"1234\r", b"5"],
        vec![b"1234", b"5\n"],
        vec![b"1234\r\r"],
    ] {
        assert_eq!(decode_reads(&codec, reads), [Seen::TooLarge]);
    }
}

#[test]
fn length_prefixed_messages_may_be_empty_and_as_long_as_the_bound() {
    let seen = decode_all(
        &codec(Framing::Length, 5),
        b"\0\0\0\0\0\0\0\x05hello\0\0\0\x04ping\0\0\0\x04pong\0\0\0\x06",
    );
    assert_eq!(
        seen,
        [
            message(""),
            message("hello"),
            Seen::Heartbeats(1, 0),
            Seen::Heartbeats(0, 1),
            Seen::TooLarge
        ]
    );
}

#[test]
fn claimed_length_reserves_no_memory() {
    let codec = codec(Framing::Length, u32::MAX as usize);
    let mut inbox = Inbox::default();
    let mut input = &b"\xff\xff\xff\xffabc"[..];
    assert_eq!(codec.decode(&mut inbox, &mut input), Ok(None));
    assert_eq!(inbox.frame_len(), 7);
}

#[test]
fn raw_reads_are_messages_unless_made_of_heartbeats_alone() {
    let codec = codec(Framing::Raw, 8);
    assert_eq!(
        decode_all(&codec, b"pingpongping"),
        [Seen::Heartbeats(2, 1)]
    );
    assert_eq!(decode_all(&codec, b"pinging"), [message("pinging")]);
    assert_eq!(
        decode_all(&codec, b"0123456789"),
        [message("01234567"), message("89")]
    );
}

#[test]
fn message_with_line_feed_is_rejected_in_lines() {
    assert_eq!(
        codec(Framing::Lines, 100).encoded_len(&[b"a", b"b\nc"]),
        Err(SendError::InvalidMessage)
    );
    assert_eq!(codec(Framing::Length, 100).encoded_len(&[b"b\nc"]), Ok(7));
}

#[test]
fn ambiguous_heartbeat_words_are_rejected() {
    let words = |ping: &[u8], pong: &[u8]| HeartbeatWords {
        ping: ping.to_vec(),
        pong: pong.to_vec(),
    };
    for bad in [
        words(b"", b"x"),
        words(b"a", b"ab"),
        words(b"x", b"x"),
        words(b"a\nb", b"c"),
        words(&[b'x'; 65], b"y"),
    ] {
        assert_eq!(
            Codec::new(Framing::Lines, bad, 100)
                .expect_err("refused")
                .field,
            "words"
        );
    }
    assert!(Codec::new(Framing::Lines, words(b"?", b"!"), 100).is_ok());
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"ping".to_vec()),
        Just(b"pong".to_vec()),
        prop::collection::vec(
            any::<u8>().prop_filter("no line ends", |byte| !matches!(byte, b'\n' | b'\r')),
            0..300
        ),
    ]
}

/// The same bytes, cut at the given places.
fn cut<'a>(bytes: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places
        .iter()
        .map(|place| place.index(bytes.len() + 1))
        .collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places
        .windows(2)
        .map(|pair| &bytes[pair[0]..pair[1]])
        .collect()
}

proptest! {
    #[test]
    fn messages_are_decoded_across_any_split(
        messages in prop::collection::vec(any_message(), 0..20),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        length in any::<bool>(),
        crlf in any::<bool>(),
    ) {
        let codec = codec(if length { Framing::Length } else { Framing::Lines }, 300);
        let mut wire = Vec::new();
        for message in &messages {
            let before = wire.len();
            codec.encode(&[message], &mut wire);
            prop_assert_eq!(wire.len() - before, codec.encoded_len(&[message]).expect("frameable"));
            if crlf && !length {
                wire.insert(wire.len() - 1, b'\r');
            }
        }
        let expected: Vec<Seen> = messages.iter().map(|message| match message.as_slice() {
            b"ping" => Seen::Heartbeats(1, 0),
            b"pong" => Seen::Heartbeats(0, 1),
            other => Seen::Message(other.to_vec()),
        }).collect();
        prop_assert_eq!(&decode_reads(&codec, cut(&wire, &places)), &expected);
        prop_assert_eq!(&decode_reads(&codec, wire.chunks(1)), &expected);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic_or_deliver_too_much(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        which in 0..3,
    ) {
        let framing = [Framing::Lines, Framing::Length, Framing::Raw][which as usize];
        let seen = decode_reads(&codec(framing, 50), cut(&bytes, &places));
        let delivered: usize = seen.iter().map(|seen| match seen { Seen::Message(message) => message.len(), _ => 0 }).sum();
        prop_assert!(delivered <= bytes.len());
        let longest = seen.iter().map(|seen| match seen { Seen::Message(message) => message.len(), _ => 0 }).max();
        prop_assert!(longest.unwrap_or(0) <= 50);
    }
}
