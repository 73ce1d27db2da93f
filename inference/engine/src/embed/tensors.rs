//! The weights of a safetensors file, read with a bound on everything (format: safetensors'
//! README, "Format").
//!
//! Owns the proof that a tensor is what the model's shape asks for and lies inside the file. The
//! header is parsed by the format's own crate, once its length is known to be sensible; what it
//! says of a tensor is checked here again before a byte is read.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::error::EngineError;

/// The header of a BERT has some 120 bytes a tensor, and the deepest have a thousand tensors. The
/// format allows 100 MB, which would become several times as much in memory.
const MAX_HEADER_BYTES: u64 = 4 << 20;
/// The length of the header stands before it.
const LENGTH_BYTES: u64 = 8;
/// Stands before a name that has nothing before it in any file.
pub(crate) const BARE: char = '/';

/// A file's header.
#[derive(Debug)]
pub(crate) struct Tensors {
    path: PathBuf,
    pub(crate) file_bytes: u64,
    /// Where the tensors' bytes begin.
    data: u64,
    header: Metadata,
    prefix: &'static str,
}

impl Tensors {
    /// Reads the header of the file at `path`. Some files write one of some prefixes before every
    /// name: those that have no tensor of the first name as it is.
    pub(crate) fn open(
        path: &Path,
        (first, prefixes): (&str, &[&'static str]),
    ) -> Result<Self, EngineError> {
        let io = |source| EngineError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(EngineError::corrupt(format!("{} is not a file", path.display())));
        }
        Self::from_reader(path, file, metadata.len(), (first, prefixes))
    }

    /// Reads the header of a file of this size.
    pub(super) fn from_reader(
        path: &Path,
        mut file: impl Read,
        size: u64,
        (first, prefixes): (&str, &[&'static str]),
    ) -> Result<Self, EngineError> {
        let io = |source| EngineError::Io { path: path.to_owned(), source };
        let mut length = [0; LENGTH_BYTES as usize];
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES || length > size.saturating_sub(LENGTH_BYTES) {
            return Err(EngineError::corrupt(format!(
                "a header of {length} bytes in a safetensors file of {size} (at most \
                 {MAX_HEADER_BYTES} are read)"
            )));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(io)?;
        let header: Metadata = serde_json::from_slice(&header)
            .map_err(|error| EngineError::corrupt(format!("the safetensors header: {error}")))?;
        let data = LENGTH_BYTES + length;
        let mut this = Self { path: path.to_owned(), file_bytes: size, data, header, prefix: "" };
        let has = |prefix: &str| this.header.info(&format!("{prefix}{first}")).is_some();
        if !has("") {
            let found = prefixes.iter().find(|prefix| has(prefix)).or(prefixes.first());
            this.prefix = found.copied().unwrap_or_default();
        }
        Ok(this)
    }

    /// Where each tensor of floats lies, as [`Self::find`] would tell whoever asks for its shape.
    pub(super) fn places(&self) -> impl Iterator<Item = Result<(u64, usize), EngineError>> {
        let floats = self.header.tensors().into_iter();
        let floats = floats.filter(|(_, info)| kind(info.dtype).is_some());
        floats.map(|(name, info)| {
            let found = self.find(&format!("{BARE}{name}"), &info.shape);
            found.map(|(start, bytes, _)| (start, bytes))
        })
    }

    /// Numbers in all tensors of floats.
    pub(crate) fn parameters(&self) -> u64 {
        let floats = self.header.tensors().into_values();
        let floats = floats.filter(|info| kind(info.dtype).is_some());
        let count = |info: &TensorInfo| {
            info.shape.iter().fold(1_u64, |all, &extent| all.saturating_mul(extent as u64))
        };
        floats.map(count).fold(0, u64::saturating_add)
    }

    /// The type of a tensor, as people write it.
    pub(crate) fn type_of(&self, name: &str) -> String {
        let info = self.header.info(&format!("{}{name}", self.prefix));
        info.map_or_else(String::new, |info| format!("{:?}", info.dtype))
    }

    /// Where a tensor of this shape is and how its numbers are stored.
    pub(crate) fn find(
        &self,
        name: &str,
        dims: &[usize],
    ) -> Result<(u64, usize, DType), EngineError> {
        let name = match name.strip_prefix(BARE) {
            Some(bare) => bare.to_owned(),
            None => format!("{}{name}", self.prefix),
        };
        let info = self.header.info(&name);
        let info =
            info.ok_or_else(|| EngineError::corrupt(format!("tensor '{name}' is missing")))?;
        let dtype = kind(info.dtype).ok_or_else(|| {
            let found = info.dtype;
            EngineError::unsupported(format!("tensor '{name}' of type {found:?} (F32, F16, BF16)"))
        })?;
        if info.shape != dims {
            return Err(EngineError::corrupt(format!(
                "tensor '{name}' has the shape {:?}, not {dims:?}",
                info.shape
            )));
        }
        let (from, to) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        let bytes = dims.iter().try_fold(dtype.size_in_bytes(), |all, &n| all.checked_mul(n));
        let start = self.data.checked_add(from);
        let end = self.data.checked_add(to).filter(|end| *end <= self.file_bytes);
        match (start, end, bytes) {
            (Some(start), Some(end), Some(bytes)) if start + bytes as u64 == end => {
                Ok((start, bytes, dtype))
            }
            _ => Err(EngineError::corrupt(format!(
                "tensor '{name}' at {from}..{to} does not lie in the file of {} bytes",
                self.file_bytes
            ))),
        }
    }

    /// A tensor's numbers.
    pub(crate) fn read(
        &self,
        file: &mut File,
        name: &str,
        dims: &[usize],
    ) -> Result<Vec<f32>, EngineError> {
        let (start, count, dtype) = self.find(name, dims)?;
        let io = |source| EngineError::Io { path: self.path.clone(), source };
        let mut bytes = vec![0; count];
        file.seek(SeekFrom::Start(start)).map_err(io)?;
        file.read_exact(&mut bytes).map_err(io)?;
        let tensor =
            Tensor::from_raw_buffer(&bytes, dtype, &[dims.iter().product()], &Device::Cpu)?;
        Ok(tensor.to_dtype(DType::F32)?.to_vec1()?)
    }

    /// The file, to read tensors from.
    pub(crate) fn file(&self) -> Result<File, EngineError> {
        File::open(&self.path).map_err(|source| EngineError::Io { path: self.path.clone(), source })
    }
}

const fn kind(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}
