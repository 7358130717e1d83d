//! The part of HTTP/1.1 that this endpoint needs: a request's head in, a response out. Pure.

use std::borrow::Cow;
use std::io::Write;

use serde::Serialize;

use crate::admin::api::Failed;

/// Longest head of a request: what common servers allow, and far beyond what any client of this
/// endpoint sends.
pub(super) const HEADER_BYTES: usize = 8 * 1024;
/// Most headers; browsers send about twenty.
const MAX_HEADERS: usize = 64;

/// The head of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RequestHead {
    pub(super) method: String,
    pub(super) path: String,
    /// What follows the `?`; empty if nothing does.
    pub(super) query: String,
    pub(super) host: Option<String>,
    pub(super) origin: Option<String>,
    pub(super) authorization: Option<String>,
    pub(super) content_length: u64,
    /// Whether the client waits for `100 Continue` before it sends its body.
    pub(super) expects_continue: bool,
    /// Whether the connection may serve another request after this one.
    pub(super) keep_alive: bool,
}

impl RequestHead {
    /// Whether the response must be sent without its body.
    pub(super) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }
}

/// A request that is being answered, as far as its answer and the log need it.
#[derive(Clone, Debug)]
pub(super) struct RequestInfo {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) head_only: bool,
    pub(super) keep_alive: bool,
    /// Whether the client was allowed to make it.
    pub(super) is_authorized: bool,
}

/// Where a head ends, if it does: after the first empty line. `from` is where an earlier search had
/// got to.
pub(super) fn end_of_head(input: &[u8], from: usize) -> Option<usize> {
    // An empty line may have begun before the new bytes.
    let start = from.saturating_sub(2);
    memchr::memchr_iter(b'\n', &input[start..])
        .map(|at| start + at + 1)
        .find_map(|next| match &input[next..] {
            [b'\n', ..] => Some(next + 1),
            [b'\r', b'\n', ..] => Some(next + 2),
            _ => None,
        })
}

/// Parses a head, which may be followed by other bytes; `None` if it has not ended yet.
pub(super) fn parse(input: &[u8]) -> Result<Option<RequestHead>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(input) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Failure::new(
                431,
                format!("too many headers; the limit is {MAX_HEADERS}"),
            ));
        }
        Err(httparse::Error::Version) => return Err(Failure::new(505, "HTTP/1.1 or HTTP/1.0")),
        Err(error) => return Err(Failure::new(400, format!("not an HTTP request: {error}"))),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Ok(None);
    };
    if !target.starts_with('/') {
        return Err(Failure::new(
            400,
            "the request target must be a path that begins with /",
        ));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut head = RequestHead {
        method: method.into(),
        path: path.into(),
        query: query.into(),
        keep_alive: minor >= 1,
        ..RequestHead::default()
    };
    let mut length = None;
    for header in request.headers.iter() {
        let value = str::from_utf8(header.value)
            .map_err(|_| Failure::new(400, format!("header {} is not text", header.name)))?;
        let single = |field: &mut Option<String>| match field.replace(value.into()) {
            None => Ok(()),
            Some(_) => Err(Failure::new(
                400,
                format!("header {} is given twice", header.name),
            )),
        };
        match header.name.to_ascii_lowercase().as_str() {
            "host" => single(&mut head.host)?,
            "origin" => single(&mut head.origin)?,
            "authorization" => single(&mut head.authorization)?,
            "content-length" => single(&mut length)?,
            "transfer-encoding" => {
                return Err(Failure::new(
                    501,
                    "transfer codings are not supported; send Content-Length",
                ));
            }
            "expect" => {
                head.expects_continue = minor >= 1 && value.eq_ignore_ascii_case("100-continue")
            }
            "connection" => {
                for option in value.split(',').map(str::trim) {
                    if option.eq_ignore_ascii_case("close") {
                        head.keep_alive = false;
                    } else if option.eq_ignore_ascii_case("keep-alive") && minor == 0 {
                        head.keep_alive = true;
                    }
                }
            }
            _ => {}
        }
    }
    if let Some(length) = length {
        // Nothing but digits: `parse` alone would take a plus sign.
        let digits =
            Some(&length).filter(|length| length.bytes().all(|byte| byte.is_ascii_digit()));
        head.content_length = digits
            .and_then(|length| length.parse().ok())
            .ok_or_else(|| Failure::new(400, "Content-Length is not a number"))?;
    }
    if head.host.is_none() && minor >= 1 {
        return Err(Failure::new(400, "HTTP/1.1 needs a Host header"));
    }
    Ok(Some(head))
}

/// Why a request is not answered as it wished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: u16,
    sentence: Cow<'static, str>,
    headers: Vec<(&'static str, &'static str)>,
}

impl Failure {
    pub(super) fn new(code: u16, sentence: impl Into<Cow<'static, str>>) -> Self {
        Failure {
            code,
            sentence: sentence.into(),
            headers: Vec::new(),
        }
    }

    /// The same with another header.
    pub(super) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl From<Failure> for Response {
    fn from(failure: Failure) -> Self {
        let body = Failed {
            error: failure.sentence.to_string(),
        };
        let mut response = Response::json(failure.code, &body);
        response.headers.extend(failure.headers);
        response
    }
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) code: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Cow<'static, [u8]>,
}

impl Response {
    pub(super) fn new(
        code: u16,
        content_type: &'static str,
        body: impl Into<Cow<'static, [u8]>>,
    ) -> Self {
        Response {
            code,
            content_type,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    pub(super) fn text(code: u16, body: &'static str) -> Self {
        Response::new(code, "text/plain; charset=utf-8", body.as_bytes())
    }

    pub(super) fn json(code: u16, body: &impl Serialize) -> Self {
        // Serialization fails on keys that are not strings and on failed writes. Neither occurs
        // here.
        Response::new(
            code,
            "application/json",
            serde_json::to_vec(body).unwrap_or_default(),
        )
    }

    pub(super) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Appends the encoded response, for a HEAD request without its body.
    pub(super) fn encode(&self, keep_alive: bool, head_only: bool, output: &mut Vec<u8>) {
        self.encode_head(Some(self.body.len()), keep_alive, output);
        if !head_only {
            output.extend_from_slice(&self.body);
        }
    }

    /// Appends the head alone, of a body that lasts until the connection ends.
    pub(super) fn encode_endless(&self, output: &mut Vec<u8>) {
        self.encode_head(None, false, output);
    }

    fn encode_head(&self, length: Option<usize>, keep_alive: bool, output: &mut Vec<u8>) {
        // Writing to memory does not fail.
        let _ = write!(
            output,
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\n",
            self.code,
            phrase(self.code),
            self.content_type
        );
        if let Some(length) = length {
            let _ = write!(output, "Content-Length: {length}\r\n");
        }
        output.extend_from_slice(b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
        for (name, value) in &self.headers {
            let _ = write!(output, "{name}: {value}\r\n");
        }
        // HTTP/1.0 needs it; in HTTP/1.1 it is the default.
        let _ = write!(
            output,
            "Connection: {}\r\n\r\n",
            if keep_alive { "keep-alive" } else { "close" }
        );
    }
}

/// Sent to a client that waits before it sends its body.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Every code that this endpoint answers with, in order.
pub(super) const CODES: [u16; 15] = [
    200, 202, 400, 401, 403, 404, 405, 408, 409, 413, 422, 431, 501, 503, 505,
];

fn phrase(code: u16) -> &'static str {
    match code {
        200 => "OK",
        202 => "Accepted",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => unreachable!("only codes of CODES are answered"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> RequestHead {
        parse(text.as_bytes())
            .expect("a request")
            .expect("a whole one")
    }

    fn code(text: &str) -> u16 {
        parse(text.as_bytes()).expect_err("it is refused").code
    }

    #[test]
    fn request_head_is_parsed() {
        let head = head(
            "POST /broadcast?a=b HTTP/1.1\r\nHOST: localhost:7879\r\nOrigin: http://localhost:7879\r\nauthorization: Bearer x\r\n\
             Content-Length: 12\r\nExpect: 100-continue\r\nX-Other: y\r\n\r\nhello",
        );
        assert_eq!(
            (
                head.method.as_str(),
                head.path.as_str(),
                head.query.as_str()
            ),
            ("POST", "/broadcast", "a=b")
        );
        assert_eq!(head.host.as_deref(), Some("localhost:7879"));
        assert_eq!(head.origin.as_deref(), Some("http://localhost:7879"));
        assert_eq!(head.authorization.as_deref(), Some("Bearer x"));
        assert_eq!(
            (head.content_length, head.expects_continue, head.keep_alive),
            (12, true, true)
        );
    }

    #[test]
    fn keep_alive_depends_on_version_and_header() {
        assert!(head("GET / HTTP/1.1\r\nHost: a\r\n\r\n").keep_alive);
        assert!(!head("GET / HTTP/1.1\r\nHost: a\r\nConnection: TE, Close\r\n\r\n").keep_alive);
        assert!(!head("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(head("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
    }

    #[test]
    fn invalid_requests_have_specific_codes() {
        assert_eq!(code("\x16\x03\x01\x02"), 400);
        assert_eq!(code("GET / HTTP/2.0\r\n\r\n"), 505);
        assert_eq!(code("GET / HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(
            code("GET http://localhost/ HTTP/1.1\r\nHost: a\r\n\r\n"),
            400
        );
        assert_eq!(code("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400);
        assert_eq!(
            code("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
            501
        );
        for length in ["-1", "+1", "x", "", "1, 1", "18446744073709551616"] {
            assert_eq!(
                code(&format!(
                    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
                )),
                400,
                "{length:?}"
            );
        }
        assert_eq!(
            code("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"),
            400
        );
        let many: String = (0..=MAX_HEADERS).map(|n| format!("X-{n}: y\r\n")).collect();
        assert_eq!(code(&format!("GET / HTTP/1.1\r\n{many}\r\n")), 431);
    }

    #[test]
    fn end_of_head_is_found_across_reads() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET";
        let end = text.len() - 3;
        for cut in 0..text.len() {
            let found = end_of_head(&text[..cut], 0).or_else(|| end_of_head(text, cut));
            assert_eq!(found, Some(end), "cut at {cut}");
        }
        assert_eq!(end_of_head(b"GET / HTTP/1.1\nHost: a\n\n", 0), Some(24));
        assert_eq!(end_of_head(b"GET / HTTP/1.1\r\nHost: a\r\n", 0), None);
        for end in 0..end {
            assert_eq!(parse(&text[..end]), Ok(None), "{end}");
        }
    }

    #[test]
    fn response_has_content_length_and_no_store() {
        let mut wire = Vec::new();
        Response::text(200, "ok\n").encode(true, false, &mut wire);
        let expected = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\nCache-Control: no-store\r\n\
                        X-Content-Type-Options: nosniff\r\nConnection: keep-alive\r\n\r\nok\n";
        assert_eq!(String::from_utf8_lossy(&wire), expected);
        wire.clear();
        Response::text(200, "ok\n").encode(true, true, &mut wire);
        assert_eq!(
            String::from_utf8_lossy(&wire),
            expected.strip_suffix("ok\n").expect("its body")
        );
        wire.clear();
        Response::from(Failure::new(405, "only \"GET\"").with("Allow", "GET, HEAD"))
            .encode(false, false, &mut wire);
        let text = String::from_utf8_lossy(&wire);
        assert!(
            text.contains("\r\nAllow: GET, HEAD\r\n")
                && text.ends_with("\r\n\r\n{\"error\":\"only \\\"GET\\\"\"}"),
            "{text}"
        );
    }

    #[test]
    fn every_status_code_has_a_phrase() {
        for code in CODES {
            assert_eq!(
                CODES
                    .iter()
                    .filter(|other| phrase(**other) == phrase(code))
                    .count(),
                1,
                "{code}"
            );
        }
    }
}
