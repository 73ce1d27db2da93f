//! The arithmetic of language models on a processor: packed weights, products, attention, one step
//! of a decoder over a batch of sequences.
//!
//! Owns the kernels, the threads that run them and the memory that they work on. Knows no files,
//! requests or clocks. What holds: a row's logits are bitwise the same whatever else is in its
//! batch, however a prompt is cut, on any number of threads and on every processor with or without
//! vector instructions ([`Isa`]), because every kernel is written once over sixteen lanes and its
//! order of operations depends on none of these.
//!
//! The way of a weight: `format` reads its block, `matrix` packs it into a `tile`, in memory or
//! where `kept` says. The way of a row: `act` rounds it, `product` multiplies it, `added` adds what
//! a tuned model has beside it, `attend` looks back, `step` puts them in order. Models that read
//! and do not write keep full precision: `load` reads their weights, `dense` multiplies, `look`
//! attends both ways, `encoder` puts them in order, and so does `tower` for those that see or read
//! with their norms before. So does what hears: `speech` reads half a minute of sound and writes
//! what was said, each row by a `glance` at what is kept. `ceiling` measures what the products
//! could reach at best.

#![allow(
    clippy::needless_range_loop,
    reason = "lanes and rows are numbers of the layout, and closures hinder inlining"
)]

mod act;
mod added;
mod attend;
mod ceiling;
mod dense;
mod encoder;
mod error;
mod format;
mod glance;
mod half;
mod kept;
mod kv;
mod load;
mod look;
mod math;
mod matrix;
mod model;
mod product;
mod rows;
mod simd;
mod speech;
mod step;
mod team;
mod tile;
mod tower;

pub use added::{Additions, Part};
pub use encoder::{Encoder, EncoderConfig, EncoderCrew};
pub use error::KernelError;
pub use format::{Format, Layout};
pub use kept::{Kept, Place, Shelf, TILES_VERSION, Taken, Wanted};
pub use kv::{Cache, PAGE, SharedPage};
pub use load::Tensors;
pub use model::{
    Activation, Config, Model, Open, Rotation, Rows, Source, Window, held_bytes, unpacked,
};
pub use simd::Isa;
pub use speech::{Heard, Speech, SpeechConfig, SpeechCrew};
pub use step::{Crew, Logits, Segment};
pub use tower::{Bend, Captions, CaptionsConfig, Sight, SightConfig, TowerConfig};
