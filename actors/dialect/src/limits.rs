//! Bounds on what comes from providers.
//!
//! Owns the numbers. Bounds on what comes from clients stand with the decoders.

/// Bytes of one event of a stream, or of one line: an event may carry a whole answer (the last
/// event of OpenAI's responses does) with pictures in base64.
pub const EVENT_BYTES: usize = 16 << 20;
/// Bytes of a whole answer: 16 choices of the longest answers, or some thousand embeddings.
pub const ANSWER_BYTES: usize = 64 << 20;
/// Bytes of an error answer that are looked at: providers write a few hundred.
pub const ERROR_BYTES: usize = 64 << 10;
/// Choices of one answer, as the OpenAI API allows.
pub const CHOICES: u32 = 128;
/// Calls in one turn: as many as a request may have tools in the OpenAI API.
pub const CALLS: usize = 128;
/// Characters of a provider's text that are repeated to clients and in records.
pub const PROVIDER_TEXT_CHARS: usize = 512;
