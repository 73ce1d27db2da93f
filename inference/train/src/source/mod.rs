//! Where a client's examples come from: files of this node, read within bounds.
//!
//! Owns the kinds of source and the choice between them. Nothing read here leaves the node.

mod classes;
mod csv;
mod footer;
mod glance;
mod idx;
mod images;
mod notes;
mod pages;
mod parquet;
mod picture;
mod table;
mod text;

use std::fs::File;
use std::path::Path;

pub use self::glance::glance;
pub use self::idx::Idx;
pub use self::images::Images;
pub use self::picture::{MAX_FILE_BYTES as MAX_IMAGE_BYTES, MAX_PIXELS as MAX_IMAGE_PIXELS};
pub use self::table::Table;
pub use self::text::Texts;
pub(crate) use self::text::texts;
use crate::{Examples, Schema, Shape, TrainError};

/// A source of examples.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A table as text.
    Csv(Table),
    /// A table in Apache Parquet.
    Parquet(Table),
    /// Images and labels as the MNIST files hold them.
    Idx(Idx),
    /// A directory of images.
    Images(Images),
    /// Texts, which have no labels: language models are tuned on them.
    Text(Texts),
    /// Requests to a model that people gave labels.
    Requests(Requests),
}

/// Where labelled requests are: with the node that was asked, which alone reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requests {
    /// The model that was asked.
    pub model: String,
}

/// Reads all examples of a source; they must be what the schema says.
pub fn read(source: &Source, schema: &Schema) -> Result<Examples, TrainError> {
    match source {
        Source::Csv(table) => csv::read(table, open(&table.path)?, schema),
        Source::Parquet(table) => parquet::read(table, open(&table.path)?, schema),
        Source::Images(folder) => images::read(folder, schema),
        Source::Text(_) => Err(TrainError::Schema(
            "it holds text, and the job learns from labelled examples".to_owned(),
        )),
        Source::Requests(_) => Err(TrainError::Schema(
            "its labelled requests are kept by the running node, which reads them itself"
                .to_owned(),
        )),
        Source::Idx(pair) => idx::read(pair, open(&pair.images)?, open(&pair.labels)?, schema),
    }
}

fn open(path: &Path) -> Result<File, TrainError> {
    File::open(path).map_err(|source| TrainError::Io { path: path.to_owned(), source })
}

/// Reads a table in Apache Parquet that is in memory, of at most so many values: what
/// [`read`] does with a file, within narrower bounds.
pub fn read_parquet(
    table: &Table,
    bytes: Vec<u8>,
    schema: &Schema,
    most: usize,
) -> Result<Examples, TrainError> {
    parquet::read_within(table, bytes::Bytes::from(bytes), schema, most)
}

/// Reads an image that is in memory, of at most so many pixels: what [`read`] does with every file
/// of a directory of images, within [`MAX_IMAGE_PIXELS`] or narrower bounds.
pub fn read_image(
    path: &Path,
    bytes: &[u8],
    shape: Shape,
    resize: bool,
    most: u64,
) -> Result<Vec<f32>, TrainError> {
    let mut values = Vec::new();
    picture::append_within(most, path, bytes, shape, resize, &mut values)?;
    Ok(values)
}
