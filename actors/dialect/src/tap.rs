//! The tap on bytes that pass untranslated: client and provider speak the same dialect.
//!
//! Owns finding the few fields that routing and budgets need in a request's bytes, changing them by
//! splicing, and watching an answer's bytes for what it took. Nothing here builds a document tree
//! or holds an answer back; the provider judges the fields.

mod rename;
mod request;
mod stream;
mod whole;

pub use rename::Rename;
pub use request::{Rewrite, Seen, look};
pub use stream::StreamTap;
pub use whole::WholeTap;

use crate::chat::{Finish, Usage};

/// Whose bytes pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// OpenAI chat completions.
    OpenAi,
    /// Anthropic messages.
    Anthropic,
}

/// What was seen of an answer so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Took {
    /// The usage the provider told last.
    pub usage: Option<Usage>,
    /// Why the (last) choice ended.
    pub finish: Option<Finish>,
    /// Events of a stream that carried a piece of an answer: about one token each, for providers
    /// that tell no usage.
    pub pieces: u64,
    /// Whether the dialect's own sign of the end was seen.
    pub done: bool,
    /// Whether the provider reported an error inside the stream, or what came is not JSON: what a
    /// look at each bracket, and at each byte outside of strings, tells.
    pub failed: bool,
}

#[cfg(test)]
#[path = "tap/tests.rs"]
mod tests;
