//! The one codec of the wire and how frames look on a stream.
//!
//! Owns the frame header (length, version, format) and the limits. A frame is
//! `u32 length (big endian, of what follows) | u8 version | u8 format | payload`; the only format
//! so far is 1 = bincode 2, little endian, variable-length integers. Unknown versions and formats
//! are refused by name, so that a newer peer can fall back. What is written to a peer carries the
//! version both agreed on, so that the older one can read it. Does not own what payloads mean.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The newest version this build writes and reads. 2 added budgets: their messages, the policy
/// records and hand-offs with a receipt. 3 added reclaimable budgets: what their witnesses say,
/// rows written for a holder that is gone, and the epochs that name such budgets. 4 added settings,
/// routes and the like that the whole mesh goes by, and hand-offs that go on with a trace. 5 added
/// what is said of answers that are kept: purges, which ones a node has, and the wish for one. 6
/// added the messages of federated rounds, 7 the personal models of epidemic mode, 8 hand-offs
/// whose answers hold to a schema, 9 sound whose words are wanted, 10 chats with tools and what
/// nodes' machines are, 11 shares of federated rounds with a proof, 12 the question whether data
/// of a node fit a job, 13 hand-offs with what draws heed since, 14 answers that hold to
/// a grammar, a regular expression or one of some texts.
pub const VERSION: u8 = 14;
/// The oldest version this build writes and reads: the one before its own, and the first, which
/// costs nothing to read on. What is said before two nodes have agreed on a version is said in this
/// one.
pub const OLDEST_VERSION: u8 = 1;
/// Payload format: bincode 2 with the configuration of [`encode`].
pub const FORMAT_BINCODE: u8 = 1;
/// The length field.
pub const LENGTH_BYTES: usize = 4;
/// Version and format.
pub const TAG_BYTES: usize = 2;
/// The largest frame: a chat of 8 MiB (the default body limit of the HTTP surface) and room for
/// what surrounds it.
pub const MAX_FRAME: usize = 9 << 20;

/// Why a frame could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CodecError {
    /// The frame is larger than allowed here.
    #[error("frame of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// Bytes announced or produced.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The other side speaks a version this build does not read.
    #[error("version {0} is not spoken here (this build reads {OLDEST_VERSION} to {VERSION})")]
    Version(u8),
    /// The other side does not know what was to be written.
    #[error("the peer speaks version {agreed}; this needs version {needs}")]
    NotAgreed {
        /// The first version that has it.
        needs: u8,
        /// The version both sides speak.
        agreed: u8,
    },
    /// The other side uses a payload format this build does not know.
    #[error("payload format {0} is not known here")]
    Format(u8),
    /// The payload is not what it should be.
    #[error("malformed payload: {0}")]
    Malformed(String),
    /// Bytes were left after the value.
    #[error("{0} bytes left after the value")]
    Trailing(usize),
}

const fn config() -> bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<MAX_FRAME>,
> {
    bincode::config::standard().with_limit::<MAX_FRAME>()
}

/// A whole frame for `value` in this build's newest version, length first.
///
/// # Errors
/// [`CodecError::TooLarge`] over `limit` bytes, [`CodecError::Malformed`] when the value cannot be
/// written.
pub fn encode<T: Serialize>(value: &T, limit: usize) -> Result<Vec<u8>, CodecError> {
    encode_at(VERSION, value, limit)
}

/// A whole frame for `value` in the version that was agreed on with its reader. Whether that
/// version has such a value is the writer's to know.
///
/// # Errors
/// As [`encode`], and [`CodecError::Version`] for one this build does not write.
pub fn encode_at<T: Serialize>(
    version: u8,
    value: &T,
    limit: usize,
) -> Result<Vec<u8>, CodecError> {
    if !(OLDEST_VERSION..=VERSION).contains(&version) {
        return Err(CodecError::Version(version));
    }
    let mut frame = vec![0; LENGTH_BYTES];
    frame.extend([version, FORMAT_BINCODE]);
    let written = bincode::serde::encode_into_std_write(value, &mut frame, config())
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    let size = TAG_BYTES + written;
    if size > limit.min(MAX_FRAME) {
        return Err(CodecError::TooLarge { size, limit: limit.min(MAX_FRAME) });
    }
    frame[..LENGTH_BYTES].copy_from_slice(&(size as u32).to_be_bytes());
    Ok(frame)
}

/// How many bytes follow a length field.
///
/// # Errors
/// [`CodecError::TooLarge`] over `limit`, [`CodecError::Malformed`] when too short for its tags.
pub fn body_length(header: [u8; LENGTH_BYTES], limit: usize) -> Result<usize, CodecError> {
    let size = u32::from_be_bytes(header) as usize;
    if size > limit.min(MAX_FRAME) {
        return Err(CodecError::TooLarge { size, limit: limit.min(MAX_FRAME) });
    }
    if size < TAG_BYTES {
        return Err(CodecError::Malformed(format!("frame of {size} bytes has no tags")));
    }
    Ok(size)
}

/// The value in a frame's body (everything after the length field).
///
/// # Errors
/// Any [`CodecError`]; bytes left over are an error too.
pub fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    let [version, format, payload @ ..] = body else {
        return Err(CodecError::Malformed(format!("frame of {} bytes has no tags", body.len())));
    };
    if !(OLDEST_VERSION..=VERSION).contains(version) {
        return Err(CodecError::Version(*version));
    }
    if *format != FORMAT_BINCODE {
        return Err(CodecError::Format(*format));
    }
    let (value, read) = bincode::serde::decode_from_slice(payload, config())
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    if read != payload.len() {
        return Err(CodecError::Trailing(payload.len() - read));
    }
    Ok(value)
}

/// A datagram: a frame without its length field, since the packet has one.
///
/// # Errors
/// As [`encode`].
pub fn encode_datagram<T: Serialize>(value: &T, limit: usize) -> Result<Vec<u8>, CodecError> {
    encode_datagram_at(VERSION, value, limit)
}

/// A datagram in the version that was agreed on with its reader.
///
/// # Errors
/// As [`encode_at`].
pub fn encode_datagram_at<T: Serialize>(
    version: u8,
    value: &T,
    limit: usize,
) -> Result<Vec<u8>, CodecError> {
    encode_at(version, value, limit).map(|frame| frame[LENGTH_BYTES..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_round_trips() {
        let frame = encode(&("hello", 7u64), 100).expect("fits");
        let header = frame[..4].try_into().expect("four bytes");
        assert_eq!(body_length(header, 100), Ok(frame.len() - 4));
        assert_eq!(decode_body(&frame[4..]), Ok(("hello".to_owned(), 7u64)));
    }

    #[test]
    fn other_versions_and_formats_are_named() {
        let mut frame = encode(&1u8, 100).expect("fits");
        frame[4] = VERSION + 1;
        assert_eq!(decode_body::<u8>(&frame[4..]), Err(CodecError::Version(VERSION + 1)));
        frame[4] = VERSION;
        frame[5] = 9;
        assert_eq!(decode_body::<u8>(&frame[4..]), Err(CodecError::Format(9)));
    }

    #[test]
    fn a_frame_carries_the_version_agreed_on() {
        for version in OLDEST_VERSION..=VERSION {
            let frame = encode_at(version, &7u8, 100).expect("fits");
            assert_eq!(frame[LENGTH_BYTES], version);
            assert_eq!(decode_body(&frame[LENGTH_BYTES..]), Ok(7u8));
        }
        for foreign in [0, VERSION + 1] {
            assert_eq!(encode_at(foreign, &7u8, 100), Err(CodecError::Version(foreign)));
        }
    }

    #[test]
    fn limits_hold_in_both_directions() {
        assert!(matches!(encode(&vec![0u8; 100], 50), Err(CodecError::TooLarge { .. })));
        assert!(matches!(body_length([0xff; 4], MAX_FRAME), Err(CodecError::TooLarge { .. })));
        assert!(body_length([0, 0, 0, 1], 50).is_err());
        assert!(matches!(decode_body::<u8>(&[1, 1, 5, 5]), Err(CodecError::Trailing(1))));
    }

    #[test]
    fn an_announced_length_does_not_allocate() {
        // A Vec<u8> that claims 2^40 bytes: refused by the limit, not attempted.
        let body = [1, 1, 253, 0, 0, 0, 0, 0, 1, 0, 0];
        assert!(matches!(decode_body::<Vec<u8>>(&body), Err(CodecError::Malformed(_))));
    }
}
