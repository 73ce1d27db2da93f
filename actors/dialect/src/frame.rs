//! Cutting a stream of bytes into events, whatever pieces it arrives in.
//!
//! Owns the framings: server-sent events, lines of JSON, whole documents. What is inside an event
//! is read by the dialects.

pub mod aws;
pub mod lines;
pub mod sse;

use crate::limits::ANSWER_BYTES;

/// More arrived than the bound allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// A document gathered from pieces.
#[derive(Debug, Default)]
pub struct Document(Vec<u8>);

impl Document {
    /// Takes the next piece.
    ///
    /// # Errors
    /// When the document is longer than [`ANSWER_BYTES`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.0.len() + bytes.len() > ANSWER_BYTES {
            self.0 = Vec::new();
            return Err(TooLong);
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    /// What was gathered.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}
