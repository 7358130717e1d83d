//! Finds replies and pings in the bytes of a server, however reads split them.

use super::values::{Expect, PingAnswer};

/// The scan position in one connection's stream. Small, because there are many.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scan {
    /// Line feeds towards the next reply.
    lines: u32,
    /// Bytes of the expected text that have just been seen.
    matched: u16,
    /// Bytes of the ping that the current line begins with, or [`OTHER`].
    asked: u8,
}

/// The current line is not the ping.
const OTHER: u8 = u8::MAX;

/// The contents of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ScanResult {
    pub(super) replies: u32,
    pub(super) asks: u32,
}

/// An expectation, prepared for matching.
pub(super) struct Matcher {
    expect: Expect,
    /// For each length of a partial match of the text: how much of it still counts if the next byte
    /// differs (Knuth, Morris and Pratt).
    fallback: Vec<u16>,
}

impl Matcher {
    pub(super) fn new(expect: &Expect) -> Self {
        let fallback = match expect {
            Expect::Lines(_) => Vec::new(),
            Expect::Text(text) => fallback(text),
        };
        Matcher {
            expect: expect.clone(),
            fallback,
        }
    }
}

impl Scan {
    /// Forgets lines of a reply that is not waited for, so that the next one is counted from its
    /// beginning.
    pub(super) fn restart_reply(&mut self) {
        self.lines = 0;
    }

    /// Takes the next bytes of the stream. A line that is the ping does not count as a line of a
    /// reply.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        matcher: &Matcher,
        answer: Option<&PingAnswer>,
    ) -> ScanResult {
        let asks = answer.map_or(0, |answer| self.count_asks(bytes, &answer.ask));
        let replies = match &matcher.expect {
            Expect::Lines(per_reply) => {
                let lines = memchr::memchr_iter(b'\n', bytes).count() as u32 - asks + self.lines;
                self.lines = lines % per_reply;
                lines / per_reply
            }
            Expect::Text(text) => self.count_texts(bytes, text, &matcher.fallback),
        };
        ScanResult { replies, asks }
    }

    fn count_asks(&mut self, mut bytes: &[u8], ask: &[u8]) -> u32 {
        let mut asks = 0;
        while !bytes.is_empty() {
            let end = memchr::memchr(b'\n', bytes);
            let (piece, rest) = bytes.split_at(end.map_or(bytes.len(), |at| at + 1));
            if self.asked != OTHER && ask[usize::from(self.asked)..].starts_with(piece) {
                // The ping is shorter than 255 bytes.
                self.asked += piece.len() as u8;
            } else {
                self.asked = OTHER;
            }
            if end.is_some() {
                asks += u32::from(usize::from(self.asked) == ask.len());
                self.asked = 0;
            }
            bytes = rest;
        }
        asks
    }

    fn count_texts(&mut self, bytes: &[u8], text: &[u8], fallback: &[u16]) -> u32 {
        let mut found = 0;
        let mut matched = usize::from(self.matched);
        for byte in bytes {
            while matched > 0 && text[matched] != *byte {
                matched = usize::from(fallback[matched]);
            }
            matched += usize::from(text[matched] == *byte);
            if matched == text.len() {
                // Replies do not overlap.
                (found, matched) = (found + 1, 0);
            }
        }
        // The text has at most 4096 bytes.
        self.matched = matched as u16;
        found
    }
}

fn fallback(text: &[u8]) -> Vec<u16> {
    let mut fallback = vec![0_u16; text.len() + 1];
    let mut matched = 0;
    for at in 1..text.len() {
        while matched > 0 && text[at] != text[matched] {
            matched = usize::from(fallback[matched]);
        }
        matched += usize::from(text[at] == text[matched]);
        fallback[at + 1] = matched as u16;
    }
    fallback
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(expect: &Expect, answer: Option<&PingAnswer>, pieces: &[&[u8]]) -> ScanResult {
        let matcher = Matcher::new(expect);
        let mut scan = Scan::default();
        pieces.iter().fold(ScanResult::default(), |sum, piece| {
            let seen = scan.feed(piece, &matcher, answer);
            ScanResult {
                replies: sum.replies + seen.replies,
                asks: sum.asks + seen.asks,
            }
        })
    }

    #[test]
    fn bench_answers_whole_ping_lines_only() {
        let answer = PingAnswer::heartline();
        let all = b"echo: ping\nping\npinging\nping\r\nping\n";
        let expected = ScanResult {
            replies: 3,
            asks: 2,
        };
        assert_eq!(seen(&Expect::Lines(1), Some(&answer), &[all]), expected);
        for at in 0..all.len() {
            assert_eq!(
                seen(&Expect::Lines(1), Some(&answer), &[&all[..at], &all[at..]]),
                expected,
                "cut at {at}"
            );
        }
    }

    #[test]
    fn expected_text_is_found_across_reads() {
        let expect = Expect::Text(b"PONG\r\n".to_vec());
        assert_eq!(
            seen(
                &expect,
                None,
                &[b"INFO {...}\r\nPO", b"PONG\r", b"\nPONG\r\n"]
            )
            .replies,
            2
        );
    }

    #[test]
    fn bench_reply_may_have_several_lines() {
        assert_eq!(
            seen(
                &Expect::Lines(3),
                None,
                &[b"*1\r\n$4\r\n", b"pong\r\n*1\r\n"]
            )
            .replies,
            1
        );
    }

    proptest! {
        #[test]
        fn scanner_agrees_with_a_plain_search(
            text in "[ab]{1,5}",
            stream in "[ab]{0,60}",
            cut in 0usize..60,
        ) {
            let cut = cut.min(stream.len());
            let (head, tail) = stream.as_bytes().split_at(cut);
            let found = seen(&Expect::Text(text.clone().into_bytes()), None, &[head, tail]).replies;
            prop_assert_eq!(found as usize, stream.matches(text.as_str()).count());
        }
    }
}
