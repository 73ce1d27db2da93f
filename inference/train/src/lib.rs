//! Trains small models, and tunes language models, on this machine's own examples: the local half
//! of a federated round.
//!
//! Owns examples in memory and how they are read (`source`), models of a fixed layout whose
//! parameters are one flat vector (`model`, `net`), a client's local steps (`local`), measuring
//! (`measure`), telling the classes of what has no labels (`classify`, `unlabelled`), dividing one
//! set among clients (`split`), models as bytes of a file (`saved`) and pictures of how well they
//! did (`curve`); and of language models the small matrices that are learned (`tuning`, `adapter`)
//! and the windows of text they are learned from (`tuner`).
//! What becomes of an update, who may see it and how updates are joined is decided elsewhere;
//! nothing here sends anything. Reads no clock and no entropy: seeds are handed in.

mod adapter;
mod classify;
pub mod curve;
mod entropy;
mod error;
mod examples;
mod local;
mod measure;
mod model;
mod net;
mod random;
#[cfg(test)]
#[allow(clippy::expect_used)]
mod real_tests;
#[cfg(test)]
mod reference;
mod saved;
mod source;
mod split;
mod subject;
#[cfg(test)]
#[allow(clippy::expect_used)]
mod testing;
mod tuner;
mod tuning;
mod unlabelled;

pub use adapter::{Adapter, Learned, MAX_LEARNED_BYTES};
pub use classify::{Classified, Classifier};
pub use error::{TrainError, Wrong};
pub use examples::{Examples, MAX_VALUE, Schema, Shape, is_learnable};
pub use local::{Control, Local, Plan, Update};
pub use measure::{Measured, measure};
pub use model::{Layer, Model};
pub use saved::{MAX_SAVED_BYTES, Saved, SavedError};
pub use source::{
    Idx, Images, MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS, Requests, Source, Table, Texts, glance, read,
    read_image, read_parquet,
};
pub use split::{Split, split};
pub use subject::Subject;
pub use tuner::{Foretold, Tuner, Windows};
pub use tuning::{BaseShape, Target, Tuning};
pub use unlabelled::{Reading, Unlabelled, UnlabelledError};
