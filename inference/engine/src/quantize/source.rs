//! Where a model that is quantized is read from: a GGUF file, or a directory as Hugging Face lays
//! it out.
//!
//! Owns the places of tensors and the reading of their rows. What a directory's files say in the
//! words of GGUF is `folder`'s.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;

use super::folder;
use crate::card::Shape;
use crate::error::EngineError;
use crate::gguf::{DEFAULT_ALIGNMENT, Gguf};
use crate::tensors::check_factors;

/// A model, ready to be read.
pub(super) struct Source {
    /// What is said of the model: key, type and value of each entry as they lie in a file.
    pub(super) entries: Vec<(String, Vec<u8>)>,
    /// In the order in which they are written.
    pub(super) tensors: Vec<Original>,
    pub(super) layers: usize,
    pub(super) alignment: u64,
    pub(super) bytes: u64,
    files: Vec<(PathBuf, File)>,
}

/// One tensor, proven to lie inside its file.
pub(super) struct Original {
    pub(super) name: String,
    /// Outermost dimension first.
    pub(super) dims: Vec<usize>,
    pub(super) kind: GgmlDType,
    /// Which file, and where in it.
    pub(super) place: (usize, u64),
    pub(super) change: Change,
}

/// In what a tensor of the file that is written differs from that of the file that is read.
pub(super) enum Change {
    None,
    /// Of so many heads the first half of the rows and the second become pairs: GGUF's llamas
    /// rotate neighbours, and Hugging Face's the halves of a head.
    Paired(usize),
    /// Each number becomes so much more.
    Plus(f32),
    /// It lies in no file: these are its numbers.
    Held(Vec<f32>),
}

impl Original {
    pub(super) fn elements(&self) -> u64 {
        self.dims.iter().map(|&extent| extent as u64).product()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.elements() / self.kind.block_size() as u64 * self.kind.type_size() as u64
    }

    /// Rows, and numbers in each. A vector is one row, unless its numbers change places.
    pub(super) fn rows(&self) -> (usize, usize) {
        let row = match (&*self.dims, &self.change) {
            ([_], Change::Paired(_)) => 1,
            (dims, _) => dims.last().copied().unwrap_or(1).max(1),
        };
        ((self.elements() / row as u64) as usize, row)
    }

    /// The row of the file that becomes this row.
    fn origin(&self, row: usize, rows: usize) -> usize {
        let Change::Paired(heads) = self.change else { return row };
        let head_rows = (rows / heads.max(1)).max(1);
        let (head, within) = (row / head_rows, row % head_rows);
        head * head_rows + within % 2 * (head_rows / 2) + within / 2
    }
}

impl Source {
    /// A file, or a directory.
    pub(super) fn open(path: &Path) -> Result<Self, EngineError> {
        if path.is_dir() { folder::open(path) } else { Self::of_file(path) }
    }

    /// What a directory holds.
    pub(super) fn new(
        entries: Vec<(String, Vec<u8>)>,
        tensors: Vec<Original>,
        layers: usize,
        files: Vec<(PathBuf, File)>,
    ) -> Self {
        let bytes = tensors.iter().map(Original::bytes).sum();
        Self { entries, tensors, layers, alignment: DEFAULT_ALIGNMENT, bytes, files }
    }

    fn of_file(path: &Path) -> Result<Self, EngineError> {
        let gguf = Gguf::open(path)?;
        let shape = Shape::read(&gguf)?;
        check_factors(&gguf, &shape)?;
        let alignment = gguf.number("general.alignment").unwrap_or(DEFAULT_ALIGNMENT);
        let io = |source| EngineError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let mut entries = Vec::with_capacity(gguf.entries.len());
        for (key, place) in &gguf.entries {
            entries.push((key.clone(), gguf.copy(&mut file, place)?));
        }
        let original = |(name, info): (&String, &crate::gguf::TensorInfo)| Original {
            name: name.clone(),
            dims: info.dims.clone(),
            kind: info.kind,
            place: (0, info.start),
            change: Change::None,
        };
        let mut tensors: Vec<Original> = gguf.tensors.iter().map(original).collect();
        tensors.sort_by_key(|tensor| tensor.place);
        let files = vec![(path.to_owned(), file)];
        let (layers, bytes) = (shape.layers, gguf.file_bytes);
        Ok(Self { entries, tensors, layers, alignment, bytes, files })
    }

    /// The bytes of some rows of the tensor at this place, in the order in which they are written.
    pub(super) fn read(
        &mut self,
        at: usize,
        first: usize,
        count: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), EngineError> {
        let tensor = &self.tensors[at];
        if let Change::Held(numbers) = &tensor.change {
            into.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            return Ok(());
        }
        let (rows, row) = tensor.rows();
        let (number, start) = tensor.place;
        let row_bytes = row / tensor.kind.block_size() * tensor.kind.type_size();
        let (path, file) = &mut self.files[number];
        let mut part = |row: usize, count: usize| {
            let old = into.len();
            into.resize(old + count * row_bytes, 0);
            file.seek(SeekFrom::Start(start + (row * row_bytes) as u64))?;
            file.read_exact(&mut into[old..])
        };
        let read = if matches!(tensor.change, Change::Paired(_)) {
            (first..first + count).try_for_each(|row| part(tensor.origin(row, rows), 1))
        } else {
            part(first, count)
        };
        read.map_err(|source| EngineError::Io { path: path.clone(), source })
    }
}
