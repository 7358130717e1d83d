//! The targets of the fuzzers in `fuzz/`, on stable: every property over their corpus and over
//! random bytes.

mod engine;
mod framing;
mod handshake;
mod proxy;
mod reader;

use std::path::Path;
use std::sync::Once;

use proptest::prelude::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Runs the property over the corpus of that name.
fn over_corpus(name: &str, property: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).expect("the corpus is kept") {
        let path = entry.expect("a file of the corpus").path();
        let data = std::fs::read(&path).expect("a readable file");
        let blame = Blame(&path);
        property(&data);
        std::mem::forget(blame);
        files += 1;
    }
    assert!(files > 0, "no corpus in {}", folder.display());
}

/// Names the file that a failure is about.
struct Blame<'a>(&'a Path);

impl Drop for Blame<'_> {
    fn drop(&mut self) {
        eprintln!("failed with {}", self.0.display());
    }
}

/// A peer may claim a message of 4 GiB: no memory is reserved for a claim.
fn refuse_gigabytes() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limits = Rlimit {
            current: Some(3 << 30),
            ..getrlimit(Resource::As)
        };
        setrlimit(Resource::As, limits).expect("a limit below the hard one");
    });
}

#[test]
fn framings_over_the_corpus() {
    refuse_gigabytes();
    over_corpus("framing", framing::framing);
}

#[test]
fn proxy_headers_over_the_corpus() {
    over_corpus("proxy", proxy::proxy);
}

#[test]
fn handshakes_over_the_corpus() {
    over_corpus("handshake", handshake::handshake);
}

#[test]
fn engine_over_the_corpus() {
    over_corpus("engine", engine::engine);
}

/// Fields of control messages, right and wrong.
fn any_fields() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "hello version=1",
            "welcome version=1",
            "denied",
            "bye",
            "ack",
            "\\",
            " ",
            "=",
            "%",
            "%41",
            "%ff",
            "name=",
            "token=",
            "beat=",
            "retry=",
            "missed=",
            "reason=",
            "version=1",
            "5s",
            "1500ms",
            "4m",
            "2h",
            "3",
            "ä",
            "\0",
            "\n",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

/// Where framings differ from noise: heartbeats, line ends, small lengths.
fn any_wire() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            &b"ping"[..],
            b"pong",
            b"?",
            b"!",
            b"aa",
            b"b",
            b"\n",
            b"\r",
            b"\r\n",
            b"\0\0\0",
            b"\0\0\0\x04",
            b"\0\0\0\x05hello"
        ])
        .prop_map(<[u8]>::to_vec),
        prop::collection::vec(any::<u8>(), 0..8),
    ];
    (
        prop::collection::vec(any::<u8>(), 4..20),
        prop::collection::vec(piece, 0..60),
    )
        .prop_map(|(choices, pieces)| [choices, pieces.concat()].concat())
}

fn any_header() -> impl Strategy<Value = Vec<u8>> {
    let beginning = prop::sample::select(vec![
        &b""[..],
        b"PROXY ",
        b"PROXY TCP4 ",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 ",
        b"PROXY TCP6 ",
        b"PROXY TCP6 ::1 ::2 1",
        b"PROXY UNKNOWN",
        b"\r\n\r\n\0\r\nQUIT\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0",
        b"\r\n\r\n\0\r\nQUIT\n\x20",
    ]);
    let text = "[0-9a-f.: ]{0,100}(\r\n)?".prop_map(String::into_bytes);
    (
        beginning,
        prop_oneof![text, prop::collection::vec(any::<u8>(), 0..300)],
    )
        .prop_map(|(beginning, rest)| [beginning, &rest].concat())
}

proptest! {
    // What fails is to become a file of the corpus, once the fuzzer has minimised it.
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn framings(data in any_wire()) {
        refuse_gigabytes();
        framing::framing(&data);
    }

    #[test]
    fn proxy_headers(data in any_header()) {
        proxy::proxy(&data);
    }

    #[test]
    fn handshakes(data in any_fields()) {
        handshake::handshake(&data);
    }

    #[test]
    fn the_engine(data in prop::collection::vec(any::<u8>(), 0..600)) {
        engine::engine(&data);
    }
}
