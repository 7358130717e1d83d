//! Lines: LF ends a message, one CR before it is dropped.

use super::FrameTooLarge;
use super::inbox::Inbox;

pub(super) fn decode<'i: 'a, 'a>(
    max: usize,
    inbox: &'a mut Inbox,
    input: &mut &'i [u8],
) -> Result<Option<&'a [u8]>, FrameTooLarge> {
    // The inbox never holds a line feed, so only new bytes are searched: a line that arrives byte
    // by byte is scanned once.
    let Some(end) = memchr::memchr(b'\n', input) else {
        let (arrived, last) = (inbox.frame_len() + input.len(), input.last());
        // A CR at the very end may still turn out to belong to the line ending.
        if arrived - usize::from(last == Some(&b'\r')) > max {
            return Err(FrameTooLarge);
        }
        inbox.extend(input);
        *input = &[];
        return Ok(None);
    };
    let mut line = &input[..end];
    *input = &input[end + 1..];
    if inbox.frame_len() > 0 {
        inbox.extend(line);
        line = inbox.complete();
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > max {
        Err(FrameTooLarge)
    } else {
        Ok(Some(line))
    }
}

/// Whether a line can carry these bytes.
pub(super) fn carries(bytes: &[u8]) -> bool {
    memchr::memchr(b'\n', bytes).is_none()
}

/// Whether the line is `METHOD SP TARGET SP HTTP/x.y`.
pub(super) fn is_http_request(line: &[u8]) -> bool {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let is_method = !method.is_empty() && method.iter().all(u8::is_ascii_uppercase);
    is_method
        && !target.is_empty()
        && matches!(
            version,
            [b'H', b'T', b'T', b'P', b'/', b'1' | b'2', b'.', b'0'..=b'9']
        )
}
