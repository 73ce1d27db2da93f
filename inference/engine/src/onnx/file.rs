//! An ONNX file on the disk.
//!
//! Owns reading it within its bound, what people see of it, and how much memory it may take. Its
//! bytes are kept by nobody but the process that runs it, so they are read again when that is
//! started again, and must be the same.

use std::io::Read;
use std::path::{Path, PathBuf};

use selvedge_contract::Signature;

use super::header::{self, Header};
use super::runtime::{Rten, Runtime};
use super::{ARCHITECTURE, MAX_FILE_BYTES};
use crate::card::Inspected;
use crate::error::EngineError;

/// Copies of the weights that are in memory while a model runs: as they stand in the file, as they
/// are loaded, and as they are packed for products.
const COPIES: u64 = 3;
/// What a process takes beside weights.
const PROCESS_BYTES: u64 = 32 << 20;
/// What a run may take beside that: pictures of some megapixels through a network of 64 channels.
/// Some of it is what threads and the allocator set aside and never touch.
const RUN_BYTES: u64 = 1 << 30;

/// A file that has been read and checked.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    file_bytes: u64,
    hash: blake3::Hash,
    header: Header,
}

/// Whether a path leads to such a file: it begins with the version of its format.
pub(crate) fn is_file(path: &Path) -> bool {
    let mut head = [0; 2];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && matches!(head, [0x08, 1..=0x1f])
}

impl File {
    pub(crate) fn open(path: &Path) -> Result<Self, EngineError> {
        let bytes = read(path)?;
        let (file_bytes, hash) = (bytes.len() as u64, blake3::hash(&bytes));
        Ok(Self { path: path.to_owned(), file_bytes, hash, header: header::read(&bytes)? })
    }

    /// What people and routing see.
    pub(crate) fn facts(&self) -> Inspected {
        Inspected {
            name: None,
            bytes: self.file_bytes,
            architecture: ARCHITECTURE.to_owned(),
            quantization: self.header.weights.clone(),
            parameters: self.header.parameters,
            context_length: 0,
            chat: false,
            dimensions: None,
            signature: Some(self.signature()),
        }
    }

    pub(crate) fn signature(&self) -> Signature {
        self.header.signature.clone()
    }

    /// Bytes of memory that it takes while nothing runs.
    pub(crate) const fn needed(&self) -> u64 {
        self.file_bytes * COPIES + PROCESS_BYTES
    }

    /// Its bytes, which must be those that were read first.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, EngineError> {
        let bytes = read(&self.path)?;
        match blake3::hash(&bytes) == self.hash {
            true => Ok(bytes),
            false => Err(EngineError::corrupt("the file is not the one that was added any more")),
        }
    }

    /// What the process that runs it is told beside the bytes: how much memory it may take, what is
    /// made of tensors, and the names of classes.
    pub(super) fn opening(&self) -> (u64, String, Vec<String>) {
        (self.needed() + RUN_BYTES, String::new(), Vec::new())
    }

    pub(super) fn load_here(&self, threads: u32) -> Result<Box<dyn Runtime>, EngineError> {
        let threads = usize::try_from(threads).unwrap_or(1);
        let loaded = Rten::load(self.bytes()?, self.header.signature.clone(), threads);
        Ok(Box::new(loaded.map_err(EngineError::unsupported)?))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, EngineError> {
    let io = |source| EngineError::Io { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(EngineError::corrupt(format!("{} is not a file", path.display())));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(EngineError::unsupported(format!(
            "an ONNX file of {} MiB (up to {} are run)",
            metadata.len() >> 20,
            MAX_FILE_BYTES >> 20
        )));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}
