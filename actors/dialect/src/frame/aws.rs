//! Amazon's binary event stream, whatever pieces it arrives in.
//!
//! Owns the framing and its checksums. Source: "Amazon Transcribe / event stream encoding", AWS
//! documentation: a message is the total length, the length of the headers and a CRC-32 of these
//! two, then headers, payload, and a CRC-32 of all before it; numbers are big-endian.

use crate::limits::EVENT_BYTES;

/// Bytes before the headers: two lengths and their checksum.
const PRELUDE: usize = 12;
/// Bytes after the payload: the checksum of the message.
const TRAILER: usize = 4;
/// The type of a header whose value is text: the only one that is looked at.
const TEXT: u8 = 7;

/// The stream is not what it should be; what follows is not to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A message is longer than [`EVENT_BYTES`] or its lengths contradict each other.
    Length,
    /// A checksum does not hold.
    Checksum,
    /// The headers are not headers.
    Headers,
}

/// One message, borrowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message<'m> {
    /// `:message-type`: `event`, `exception` or `error`.
    pub kind: &'m str,
    /// `:event-type`, `:exception-type` or `:error-code`.
    pub name: &'m str,
    /// The payload.
    pub payload: &'m [u8],
}

/// Reads messages.
#[derive(Debug, Default)]
pub struct Messages {
    partial: Vec<u8>,
}

impl Messages {
    /// Calls `message` with each message that `bytes` completes.
    ///
    /// # Errors
    /// What is broken; what follows is not to be read.
    pub fn push(
        &mut self,
        bytes: &[u8],
        mut message: impl FnMut(&Message<'_>),
    ) -> Result<(), Broken> {
        self.partial.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(length) = length(&self.partial[from..])? {
            let Some(whole) = self.partial.get(from..from + length) else { break };
            message(&read(whole)?);
            from += length;
        }
        self.partial.drain(..from);
        Ok(())
    }

    /// Whether a message has begun and not ended.
    pub fn is_partial(&self) -> bool {
        !self.partial.is_empty()
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().map(u32::from_be_bytes).ok()
}

/// The length of the message that begins here, once its prelude is there and holds.
fn length(bytes: &[u8]) -> Result<Option<usize>, Broken> {
    let (Some(total), Some(headers), Some(check)) =
        (number(bytes, 0), number(bytes, 4), number(bytes, 8))
    else {
        return Ok(None);
    };
    if crc32fast::hash(&bytes[..8]) != check {
        return Err(Broken::Checksum);
    }
    let (total, headers) = (total as usize, headers as usize);
    let fits = (PRELUDE + TRAILER..=EVENT_BYTES).contains(&total);
    if !fits || headers > total - PRELUDE - TRAILER {
        return Err(Broken::Length);
    }
    Ok(Some(total))
}

fn read(whole: &[u8]) -> Result<Message<'_>, Broken> {
    let end = whole.len() - TRAILER;
    if number(whole, end) != Some(crc32fast::hash(&whole[..end])) {
        return Err(Broken::Checksum);
    }
    let headers = number(whole, 4).ok_or(Broken::Length)? as usize;
    let (headers, payload) = whole[PRELUDE..end].split_at(headers);
    let mut message = Message { payload, ..Message::default() };
    let mut rest = headers;
    while !rest.is_empty() {
        let (name, value, after) = header(rest).ok_or(Broken::Headers)?;
        match (name, value) {
            (b":message-type", Some(value)) => message.kind = value,
            (b":event-type" | b":exception-type" | b":error-code", Some(value)) => {
                message.name = value;
            }
            _ => {}
        }
        rest = after;
    }
    Ok(message)
}

/// A header's name, its value if that is text, and what comes after it.
fn header(bytes: &[u8]) -> Option<(&[u8], Option<&str>, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    let (kind, rest) = rest.split_first()?;
    let length = match *kind {
        0 | 1 => 0,
        2 => 1,
        3 => 2,
        4 => 4,
        5 | 8 => 8,
        9 => 16,
        6 | TEXT => {
            let (length, rest) = rest.split_at_checked(2)?;
            let length = usize::from(u16::from_be_bytes(length.try_into().ok()?));
            let (value, rest) = rest.split_at_checked(length)?;
            let text = if *kind == TEXT { Some(std::str::from_utf8(value).ok()?) } else { None };
            return Some((name, text, rest));
        }
        _ => return None,
    };
    let (_, rest) = rest.split_at_checked(length)?;
    Some((name, None, rest))
}

/// A message as bytes: for servers of this shape in tests.
pub fn write(kind: &str, name: &str, payload: &[u8], out: &mut Vec<u8>) {
    let mut headers = Vec::new();
    let name_key = if kind == "exception" { ":exception-type" } else { ":event-type" };
    for (key, value) in
        [(":message-type", kind), (name_key, name), (":content-type", "application/json")]
    {
        headers.push(u8::try_from(key.len()).unwrap_or(u8::MAX));
        headers.extend_from_slice(key.as_bytes());
        headers.push(TEXT);
        headers.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let from = out.len();
    let total = PRELUDE + headers.len() + payload.len() + TRAILER;
    for length in [total, headers.len()] {
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }
    let check = crc32fast::hash(&out[from..]);
    out.extend_from_slice(&check.to_be_bytes());
    out.extend_from_slice(&headers);
    out.extend_from_slice(payload);
    let check = crc32fast::hash(&out[from..]);
    out.extend_from_slice(&check.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], size: usize) -> Result<Vec<(String, String, Vec<u8>)>, Broken> {
        let (mut messages, mut all) = (Messages::default(), Vec::new());
        for piece in bytes.chunks(size) {
            messages.push(piece, |message| {
                let payload = message.payload.to_vec();
                all.push((message.kind.to_owned(), message.name.to_owned(), payload));
            })?;
        }
        Ok(all)
    }

    #[test]
    fn messages_come_whole_from_any_pieces() {
        let mut bytes = Vec::new();
        write("event", "messageStart", b"{}", &mut bytes);
        write("exception", "throttlingException", b"{\"message\":\"slow\"}", &mut bytes);
        let whole = all(&bytes, bytes.len()).expect("sound");
        assert_eq!(whole.len(), 2);
        assert_eq!(whole[1].1, "throttlingException");
        for size in [1, 3, 13] {
            assert_eq!(all(&bytes, size).as_ref(), Ok(&whole));
        }
    }

    /// The empty message of the documentation: its checksums are known.
    #[test]
    fn the_documented_message_is_read() {
        let bytes = [0, 0, 0, 0x10, 0, 0, 0, 0, 0x05, 0xc2, 0x48, 0xeb, 0x7d, 0x98, 0xc8, 0xff];
        assert_eq!(all(&bytes, 16), Ok(vec![(String::new(), String::new(), Vec::new())]));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut sound = Vec::new();
        write("event", "messageStart", b"{}", &mut sound);
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = all(&bytes, bytes.len());
            assert!(read.is_err() || read.is_ok_and(|all| all.is_empty()), "bit {bit}");
        }
    }
}
