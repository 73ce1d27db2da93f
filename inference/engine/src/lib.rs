//! Runs language models on this machine: reads GGUF files, tokenizes, computes, streams.
//!
//! Owns model files in memory, the engine's threads and the arithmetic (candle tensors). The
//! decisions of each step are in `selvedge_contract::schedule`; who may ask and which node
//! answers is decided elsewhere. Reads no clock and no entropy: both are handed in.

mod config;
mod error;
mod local;

pub use config::{Device, EngineConfig};
pub use error::EngineError;
pub use local::{Inspected, LocalEngine, inspect};
