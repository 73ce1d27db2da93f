//! What a file would need if it was loaded, read from its header alone.
//!
//! Owns the one place where that is told before anything is reserved; `loader` reserves by the same
//! numbers.

use std::path::Path;

use crate::card::{Inspected, Shape, facts, inspect};
use crate::error::EngineError;
use crate::gguf::{Gguf, MAGIC};
use crate::loader::LEAST_TOKENS;
use crate::packed;
use crate::weights;

/// What a file is, and what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// What it is.
    pub facts: Inspected,
    /// Bytes that its weights take in memory.
    pub held_bytes: u64,
    /// Bytes that must be free beside them for answers.
    pub answer_bytes: u64,
}

/// Reads what a model takes on the processor, or on a card. Models that are no GGUF file take what
/// they are.
///
/// # Errors
/// As [`inspect`].
pub fn needs(path: &Path, on_card: bool) -> Result<Needs, EngineError> {
    if !is_gguf(path) {
        let facts = inspect(path)?;
        return Ok(Needs { held_bytes: facts.bytes, answer_bytes: 0, facts });
    }
    let gguf = Gguf::open(path)?;
    let shape = Shape::read(&gguf)?;
    let (held_bytes, token_bytes) = match on_card {
        false => (packed::bytes(&gguf), packed::config(&shape).position_bytes() as u64),
        true => (weights::bytes(&gguf), shape.kv_token_bytes()),
    };
    let answer_bytes = token_bytes.saturating_mul(LEAST_TOKENS.min(shape.context as u64));
    Ok(Needs { facts: facts(&gguf)?, held_bytes, answer_bytes })
}

fn is_gguf(path: &Path) -> bool {
    use std::io::Read as _;
    let mut head = [0; MAGIC.len()];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head == MAGIC
}
