//! Length-prefixed: four bytes of length, big-endian, then the message.

use super::FrameTooLarge;
use super::inbox::Inbox;
use crate::error::SendError;

const HEADER: usize = 4;

pub(super) fn decode<'i: 'a, 'a>(
    max: usize,
    inbox: &'a mut Inbox,
    input: &mut &'i [u8],
) -> Result<Option<&'a [u8]>, FrameTooLarge> {
    if inbox.frame_len() == 0 && input.len() >= HEADER {
        let len = claimed_len(input, max)?;
        if let Some(message) = input[HEADER..].get(..len) {
            *input = &input[HEADER + len..];
            return Ok(Some(message));
        }
    }
    // Memory follows the bytes that arrive, not the length that the header claims.
    if inbox.frame_len() < HEADER {
        take(inbox, input, HEADER);
        if inbox.frame_len() < HEADER {
            return Ok(None);
        }
    }
    let whole = HEADER + claimed_len(inbox.frame(), max)?;
    take(inbox, input, whole);
    Ok(if inbox.frame_len() == whole {
        Some(&inbox.complete()[HEADER..])
    } else {
        None
    })
}

/// Moves bytes from the input to the inbox until the frame there has `len` bytes.
fn take(inbox: &mut Inbox, input: &mut &[u8], len: usize) {
    let missing = (len - inbox.frame_len()).min(input.len());
    inbox.extend(&input[..missing]);
    *input = &input[missing..];
}

fn claimed_len(header: &[u8], max: usize) -> Result<usize, FrameTooLarge> {
    let header = header
        .first_chunk::<HEADER>()
        .expect("the caller has seen four bytes");
    match usize::try_from(u32::from_be_bytes(*header)) {
        Ok(len) if len <= max => Ok(len),
        _ => Err(FrameTooLarge),
    }
}

pub(super) fn encoded_len(len: usize) -> Result<usize, SendError> {
    if u32::try_from(len).is_ok() {
        Ok(HEADER + len)
    } else {
        Err(SendError::InvalidMessage)
    }
}

/// `extra`: bytes that come before the parts.
pub(super) fn encode_header(extra: usize, parts: &[&[u8]], out: &mut Vec<u8>) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let len = u32::try_from(len + extra).expect("encoded_len() has refused longer messages");
    out.extend_from_slice(&len.to_be_bytes());
}
