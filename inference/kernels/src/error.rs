//! What can be wrong with a model's numbers.
//!
//! Owns the error type. Nothing here panics on what a file says.

use thiserror::Error;

/// Why weights cannot be held or a step cannot be computed.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The shape of a model does not fit together.
    #[error("a model's shape does not fit: {0}")]
    Shape(String),
    /// A tensor's bytes are fewer than its shape needs.
    #[error("a tensor's bytes do not match its shape")]
    Bytes,
    /// A token that the model does not know.
    #[error("token {token} of a vocabulary of {vocabulary}")]
    Token {
        /// The token.
        token: u32,
        /// How many the model knows.
        vocabulary: usize,
    },
    /// Another part of the program could not provide a tensor.
    #[error("{0}")]
    Source(Box<dyn std::error::Error + Send + Sync>),
}
