//! Runs language models on this machine: reads GGUF files, tokenizes, computes, streams; and makes
//! vectors of texts, writes down what is said, or tells what pictures show, with models that are
//! made for that.
//!
//! Owns model files in memory and the engine's threads. The arithmetic is `selvedge_kernels`' on
//! the processor and candle's on other devices. The decisions of each step are in
//! `selvedge_contract::schedule`; who may ask and which node answers is decided elsewhere. Reads no
//! clock and no entropy: both are handed in.
//!
//! The way of a request: `local` admits it, `front` turns it into tokens, `worker` and `runner`
//! compute it step by step, `job` draws and delivers; `memory` has other models go where its own is
//! not loaded and does not fit. The way of a file: `gguf` reads the header within bounds, `card`
//! checks what it claims, `parts` that nothing is missing, `weights` and `llama` hold it, `kept`
//! has it packed on the disk for the next time; `decoder` holds one that is being tuned, `tuned`
//! what was learned, beside the weights that answer, `quantize` writes one in another form and
//! `gauge` says what that costs. Models of embeddings, which are directories, have a way of their
//! own: `embed`; and so have those that write down what is said in sound: `audio` reads its files,
//! `speech` hears; those that take and give tensors: `onnx`; and those that see: `pictures` reads
//! what is asked about, `vision` sees. Those that read, hear or see have one loop, `desk`. What
//! runs in a process of its own, models of `onnx` and the templates of `renderer`, has it from
//! `apart`.

mod apart;
mod audio;
mod calls;
mod card;
mod config;
mod decoder;
mod desk;
mod embed;
mod error;
mod family;
mod front;
mod gauge;
mod gbnf;
mod gguf;
mod gguf_value;
mod grammar;
mod guide;
mod job;
mod kept;
mod kv;
mod llama;
mod loader;
mod local;
mod mailbox;
mod memory;
mod needs;
mod onnx;
mod packed;
mod parts;
mod pictures;
mod pieces;
mod quantize;
#[cfg(test)]
#[allow(clippy::expect_used)]
mod real_tests;
mod renderer;
mod runner;
mod sampling;
mod shared;
mod speech;
mod stream;
mod template;
mod tensors;
#[cfg(test)]
#[allow(clippy::expect_used)]
mod testing;
mod text;
mod texts;
mod tokenizer;
mod tools;
mod tuned;
mod vision;
mod weights;
mod worker;

pub use audio::{SoundError, samples, samples_while};
pub use card::{Encoded, Inspected, encode_bytes, inspect, inspect_bytes};
pub use config::{Device, EngineConfig};
pub use decoder::{Additions, Decoder, LowRank, Projection, Tunable, TunableShape};
pub use embed::{FOLDER_FILES, inspect_tokenizer_bytes, inspect_weights_bytes};
pub use error::EngineError;
pub use gauge::{Gauge, Gauged, Held};
pub use gbnf::{GrammarError, inspect_grammar};
pub use kept::Keeping;
pub use local::LocalEngine;
pub use memory::MemoryUse;
pub use needs::{Needs, needs};
pub use onnx::{Running, inspect_onnx_bytes, serve_onnx};
pub use quantize::{
    Mixture, Quantized, Recipe, SHARES, Turned, UnknownMixture, inspect_directory_bytes, quantize,
};
pub use renderer::{Renderer, Rendering, Source, serve_templates};
pub use template::Template;
pub use tuned::{TunedModel, TunedPart};
pub use vision::picture_files;
