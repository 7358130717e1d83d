//! One HTTP request and its response.

use std::io;
use std::time::{Duration, Instant};

use super::AdminError;
use super::target::{AdminStream, Target};

/// How long connecting may take, and everything after it. A healthy server answers between two
/// turns of its loop.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest head of a response: several times what the server or a proxy before it would send.
const MAX_HEAD: usize = 16 * 1024;

/// Most header fields of an answer.
const MAX_FIELDS: usize = 64;

/// Longest body: a thousand connections or closes, the most that the server shows at once, are a
/// third of this.
const MAX_BODY: usize = 1 << 20;

/// Read at once.
const CHUNK: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct HttpAnswer {
    pub(crate) code: u16,
    pub(crate) body: Vec<u8>,
}

struct ResponseHead {
    code: u16,
    /// Where the body begins.
    length: usize,
    content_length: Option<usize>,
}

/// Sends one request. HTTP/1.0, so that no proxy answers in chunks.
pub(super) fn exchange(
    target: &Target,
    token: Option<&str>,
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<HttpAnswer, AdminError> {
    let addr = target.to_string();
    let mut connection =
        target
            .connect(Instant::now() + TIMEOUT)
            .map_err(|source| AdminError::Unreachable {
                addr: addr.clone(),
                source,
            })?;
    let deadline = Instant::now() + TIMEOUT;
    // A server may refuse before it has read everything, and close: then the answer counts.
    let written =
        connection.write_all(&request(target.host(), token, method, path, body), deadline);
    answer(&mut connection, deadline).map_err(|trouble| match (trouble, written) {
        (Trouble::NotHttp(problem), _) => AdminError::NotAdmin {
            addr,
            problem: problem.to_string(),
        },
        (Trouble::Io(_), Err(source)) | (Trouble::Io(source), Ok(())) => {
            AdminError::Broken { addr, source }
        }
    })
}

fn request(host: &str, token: Option<&str>, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n");
    if let Some(token) = token {
        request += &format!("Authorization: Bearer {token}\r\n");
    }
    if method == "POST" {
        request += &format!("Content-Length: {}\r\n", body.len());
    }
    request += "\r\n";
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    request
}

#[derive(Debug)]
enum Trouble {
    Io(io::Error),
    NotHttp(&'static str),
}

fn answer(connection: &mut AdminStream, deadline: Instant) -> Result<HttpAnswer, Trouble> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; CHUNK];
    let mut head = None;
    loop {
        if head.is_none() {
            head = parse(&bytes)?;
        }
        if let Some(head) = &head {
            let body = &bytes[head.length..];
            if head
                .content_length
                .is_some_and(|length| body.len() >= length)
            {
                break;
            }
            if body.len().max(head.content_length.unwrap_or(0)) > MAX_BODY {
                return Err(Trouble::NotHttp(
                    "its response is longer than that of any admin endpoint",
                ));
            }
        } else if bytes.len() > MAX_HEAD {
            return Err(Trouble::NotHttp("the head of its response has no end"));
        }
        match connection.read(&mut chunk, deadline).map_err(Trouble::Io)? {
            0 if head
                .as_ref()
                .is_some_and(|head| head.content_length.is_none()) =>
            {
                break;
            }
            0 if bytes.is_empty() => {
                return Err(Trouble::NotHttp(
                    "it closes the connection without a response",
                ));
            }
            0 => return Err(Trouble::Io(io::ErrorKind::UnexpectedEof.into())),
            read => bytes.extend_from_slice(&chunk[..read]),
        }
    }
    let head = head.ok_or(Trouble::NotHttp("its response has no head"))?;
    let end = head
        .content_length
        .map_or(bytes.len(), |length| head.length + length);
    Ok(HttpAnswer {
        code: head.code,
        body: bytes[head.length..end].to_vec(),
    })
}

/// The head, if all of it is there.
fn parse(bytes: &[u8]) -> Result<Option<ResponseHead>, Trouble> {
    const NOT_HTTP: Trouble = Trouble::NotHttp("it does not speak HTTP");
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes).map_err(|_| NOT_HTTP)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let field = |name: &str| {
        response
            .headers
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    };
    if field("transfer-encoding").is_some() {
        return Err(Trouble::NotHttp("it answers an HTTP/1.0 request in chunks"));
    }
    let content_length = match field("content-length") {
        None => None,
        Some(value) => Some(
            std::str::from_utf8(value)
                .ok()
                .and_then(|value| value.trim().parse().ok())
                .ok_or(NOT_HTTP)?,
        ),
    };
    Ok(Some(ResponseHead {
        code: response.code.ok_or(NOT_HTTP)?,
        length,
        content_length,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::thread;

    /// The result of a response that arrives in these pieces, and then ends.
    fn answered(pieces: &[&[u8]]) -> Result<(u16, Vec<u8>), Trouble> {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let writer = thread::spawn(move || {
            for piece in pieces {
                // The client has closed after too long an answer.
                let _ = theirs.write_all(&piece);
            }
        });
        let answer = answer(&mut AdminStream::Unix(ours), Instant::now() + TIMEOUT);
        writer.join().expect("it only writes");
        answer.map(|answer| (answer.code, answer.body))
    }

    #[test]
    fn response_is_assembled_from_its_pieces() {
        let whole = b"HTTP/1.1 202 Accepted\r\ncontent-length: 4\r\nX: y\r\n\r\n{}\r\n and more";
        for cut in 0..whole.len() {
            let (code, body) = answered(&[&whole[..cut], &whole[cut..]]).expect("an answer");
            assert_eq!(
                (code, body.as_slice()),
                (202, &b"{}\r\n"[..]),
                "cut at {cut}"
            );
        }
        let (code, body) =
            answered(&[b"HTTP/1.0 404 Not Found\r\n\r\n", b"to the ", b"end"]).expect("an answer");
        assert_eq!((code, body.as_slice()), (404, &b"to the end"[..]));
    }

    #[test]
    fn invalid_http_answers_are_reported() {
        let not_http = |pieces: &[&[u8]]| matches!(answered(pieces), Err(Trouble::NotHttp(_)));
        assert!(
            not_http(&[b"echo: GET /status HTTP/1.0\n"]),
            "the line port"
        );
        assert!(not_http(&[
            b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"
        ]));
        assert!(not_http(&[
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ]));
        assert!(
            not_http(&[b"HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n"]),
            "one more than the bound"
        );
        assert!(not_http(&[
            b"HTTP/1.1 200 OK\r\n\r\n",
            &vec![b'x'; MAX_BODY + CHUNK]
        ]));
        assert!(not_http(&[
            b"HTTP/1.1 200 OK\r\nX: ",
            &vec![b'x'; MAX_HEAD + CHUNK]
        ]));
        assert!(not_http(&[b""]));
        for short in [
            &b"HTTP/1.1 200"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{}",
        ] {
            assert!(
                matches!(answered(&[short]), Err(Trouble::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof)
            );
        }
    }

    #[test]
    fn silent_admin_client_times_out() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let result = answer(
            &mut AdminStream::Unix(ours),
            Instant::now() + Duration::from_millis(20),
        );
        assert!(
            matches!(&result, Err(Trouble::Io(error)) if [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock].contains(&error.kind())),
            "{result:?}"
        );
    }

    #[test]
    fn admin_request_has_host_and_token() {
        let text = |method, token| {
            String::from_utf8(request("h:1", token, method, "/x", b"body")).expect("text")
        };
        assert!(text("POST", None).starts_with(
            "POST /x HTTP/1.0\r\nHost: h:1\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody"
        ));
        assert!(text("GET", Some("secret")).contains("\r\nAuthorization: Bearer secret\r\n"));
    }
}
