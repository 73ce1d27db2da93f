//! What a node and the process that renders a template say to each other.
//!
//! Owns the messages and their frames: those of the wire (`selvedge_base::codec`), with its bounds
//! on both sides. Both ends are the same program; one that was replaced on disk in between is told
//! by the version in the first message.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use selvedge_base::codec;
use selvedge_contract::{ChatMessage, Tooled};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::apart;

/// Counts changes of these messages.
pub(super) const VERSION: u8 = 2;
/// Bytes of one message: a frame of the wire holds the largest chat that can be asked.
const LIMIT: usize = codec::MAX_FRAME;

/// What the node says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask<'a> {
    /// First of all: the template and what it needs of its model.
    Open {
        version: u8,
        source: Cow<'a, str>,
        bos: Cow<'a, str>,
        eos: Cow<'a, str>,
        control: Cow<'a, [String]>,
    },
    /// Wants the prompt for these messages.
    Render(Cow<'a, [ChatMessage]>),
    /// Wants the prompt for this chat with functions.
    RenderTooled(Cow<'a, Tooled>),
}

/// What is answered, once for each [`Ask`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Told {
    /// The template is compiled.
    Opened,
    /// It is none, and why.
    Unusable(Fault),
    /// The prompt, in pieces.
    Rendered(Vec<String>),
    /// The template or the sandbox refuses these messages.
    Refused(selvedge_base::Refusal),
    /// The prompt is larger than a message may be.
    TooLong,
}

/// What is wrong with a template's text.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Fault {
    Corrupt(String),
    Unsupported(String),
    /// The program speaks another version than the node: it was replaced on disk.
    Version(u8),
}

/// A message as bytes; an error when it is too long.
pub(super) fn frame<T: Serialize>(message: &T) -> Result<Vec<u8>, codec::CodecError> {
    codec::encode(message, LIMIT)
}

/// Writes one message.
pub(super) fn write(output: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    output.write_all(frame)?;
    output.flush()
}

/// Reads one message; `None` where the other side has ended.
pub(super) fn read<T: DeserializeOwned>(input: &mut impl Read) -> io::Result<Option<T>> {
    apart::read(input, LIMIT)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use selvedge_contract::Role;

    use super::*;

    #[test]
    fn messages_come_back_as_they_were_said() {
        let messages = [ChatMessage { role: Role::User, content: "hi".to_owned() }];
        let mut bytes = frame(&Ask::Render(Cow::Borrowed(&messages))).unwrap();
        let said: Ask<'static> = read(&mut bytes.as_slice()).unwrap().expect("one");
        assert!(matches!(said, Ask::Render(same) if *same == messages));
        assert!(read::<Told>(&mut io::empty()).unwrap().is_none());
        bytes.pop();
        assert!(read::<Ask<'static>>(&mut bytes.as_slice()).is_err(), "cut short");
    }

    #[test]
    fn what_is_too_long_is_not_said_and_not_read() {
        let long = vec![ChatMessage { role: Role::User, content: "x".repeat(LIMIT) }];
        assert!(frame(&Ask::Render(Cow::Owned(long))).is_err());
        assert!(read::<Told>(&mut [0xff; 16].as_slice()).is_err());
    }
}
