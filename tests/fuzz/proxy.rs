//! PROXY headers: the result comes in time, and no further byte changes it.

use heartline::framing::proxy::{Header, LONGEST_V1, MAX_HEADER, ProxyError, parse};

/// The beginning of a connection, parsed at every length. A little more than the longest header is
/// enough.
pub fn proxy(data: &[u8]) {
    let data = &data[..data.len().min(MAX_HEADER + 64)];
    let mut verdict = Ok(Header::Incomplete);
    for end in 0..=data.len() {
        let next = parse(&data[..end]);
        if verdict == Ok(Header::Incomplete) {
            assert_in_time(next, &data[..end]);
            verdict = next;
        }
        assert_eq!(next, verdict, "another verdict with {end} bytes");
    }
    if verdict == Ok(Header::Incomplete) {
        // The fuzzer hardly ever sends as much as would have to be refused.
        assert_ne!(
            parse(&[data, &[0; MAX_HEADER]].concat()),
            verdict,
            "waiting without a bound"
        );
    } else {
        for behind in [&b"\r\n"[..], b"ping\n", &[0; MAX_HEADER]] {
            assert_eq!(parse(&[data, behind].concat()), verdict);
        }
    }
}

/// Checks the first result that is not `Incomplete`: it comes with the last byte of the header, or
/// with the first invalid byte.
fn assert_in_time(verdict: Result<Header, ProxyError>, bytes: &[u8]) {
    let bound = if bytes.first() == Some(&b'P') {
        LONGEST_V1
    } else {
        MAX_HEADER
    };
    match verdict {
        Ok(Header::Incomplete) => assert!(
            bytes.len() < bound,
            "{} bytes, and still waiting",
            bytes.len()
        ),
        Ok(Header::Complete { len, .. }) => {
            assert_eq!(len, bytes.len(), "known with the last byte of the header")
        }
        Err(_) => assert!(bytes.len() <= bound),
    }
}
