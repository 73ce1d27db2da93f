//! Where a client's examples come from: files of this node, read within bounds.
//!
//! Owns the kinds of source and the choice between them. Nothing read here leaves the node.

mod csv;
mod idx;

use std::fs::File;
use std::path::Path;

pub use self::csv::Csv;
pub use self::idx::Idx;
use crate::{Examples, Schema, TrainError};

/// A source of labelled examples.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A table as text.
    Csv(Csv),
    /// Images and labels as the MNIST files hold them.
    Idx(Idx),
}

/// Reads all examples of a source; they must be what the schema says.
pub fn read(source: &Source, schema: &Schema) -> Result<Examples, TrainError> {
    match source {
        Source::Csv(table) => csv::read(table, open(&table.path)?, schema),
        Source::Idx(pair) => idx::read(pair, open(&pair.images)?, open(&pair.labels)?, schema),
    }
}

fn open(path: &Path) -> Result<File, TrainError> {
    File::open(path).map_err(|source| TrainError::Io { path: path.to_owned(), source })
}
