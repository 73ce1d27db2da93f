//! An ONNX file on the disk, or a directory with one and what is made of its outputs.
//!
//! Owns reading it within its bound, what people see of it, and how much memory it may take. Its
//! bytes are kept by nobody but the process that runs it, so they are read again when that is
//! started again, and must be the same.

use std::io::Read;
use std::path::{Path, PathBuf};

use selvedge_contract::Signature;

use super::classify::{Classifier, Classify};
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

/// The file in a directory.
const GRAPH: &str = "model.onnx";
/// What a model of the other kinds has in a directory.
const WEIGHTS: &str = "model.safetensors";
/// What is made of its outputs.
const SETTINGS: &str = "classify.toml";
/// The names of its classes, one on each line.
const LABELS: &str = "labels.txt";
/// Bytes of each of both: the names of 20,000 classes.
const MAX_TEXT_BYTES: u64 = 512 << 10;

/// A file that has been read and checked.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    settings: Option<Settings>,
    signature: Signature,
    file_bytes: u64,
    hash: blake3::Hash,
    header: Header,
}

/// What stands beside a graph.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    /// The text of `classify.toml`.
    pub(super) text: String,
    /// The lines of `labels.txt`.
    pub(super) labels: Vec<String>,
}

/// Whether a path leads to such a file, or to a directory with one: it begins with the version of
/// its format. Directories of Hugging Face often hold the same model as ONNX too: that it is what
/// is meant there, only `classify.toml` says.
pub(crate) fn is_file(path: &Path) -> bool {
    let mut head = [0; 2];
    let path = match path.is_dir() {
        true if path.join(WEIGHTS).exists() && !path.join(SETTINGS).exists() => return false,
        true => path.join(GRAPH),
        false => path.to_owned(),
    };
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && matches!(head, [0x08, 1..=0x1f])
}

impl File {
    pub(crate) fn open(path: &Path) -> Result<Self, EngineError> {
        let (path, settings) = match path.is_dir() {
            true => (path.join(GRAPH), Settings::beside(path)?),
            false => (path.to_owned(), None),
        };
        let bytes = read(&path)?;
        let (file_bytes, hash) = (bytes.len() as u64, blake3::hash(&bytes));
        let header = header::read(&bytes)?;
        let signature = match &settings {
            Some(Settings { text, labels }) => {
                Classify::of(text, labels, &header.signature)?.signature()
            }
            None => header.signature.clone(),
        };
        Ok(Self { path, settings, signature, file_bytes, hash, header })
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
            classes: None,
        }
    }

    pub(crate) fn signature(&self) -> Signature {
        self.signature.clone()
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

    /// What the process that runs it is told beside the bytes: how much memory it may take, and
    /// what is made of tensors.
    pub(super) fn opening(&self) -> (u64, Option<Settings>) {
        (self.needed() + RUN_BYTES, self.settings.clone())
    }

    pub(super) fn load_here(&self, threads: u32) -> Result<Box<dyn Runtime>, EngineError> {
        load(self.bytes()?, self.settings.as_ref(), threads).map_err(EngineError::unsupported)
    }
}

impl Settings {
    /// What stands in a directory beside its graph; none: the graph is all there is.
    fn beside(folder: &Path) -> Result<Option<Self>, EngineError> {
        let (text, labels) = (text(&folder.join(SETTINGS))?, text(&folder.join(LABELS))?);
        if text.is_none() && labels.is_none() {
            return Ok(None);
        }
        let labels = labels.unwrap_or_default();
        let labels = labels.lines().map(str::trim_end).map(str::to_owned).collect();
        Ok(Some(Self { text: text.unwrap_or_default(), labels }))
    }
}

/// A graph, and what is made of its outputs, ready to run.
pub(super) fn load(
    file: Vec<u8>,
    settings: Option<&Settings>,
    threads: u32,
) -> Result<Box<dyn Runtime>, String> {
    let header = header::read(&file).map_err(|error| error.to_string())?;
    let classify = settings.map(|Settings { text, labels }| {
        Classify::of(text, labels, &header.signature).map_err(|error| error.to_string())
    });
    let threads = usize::try_from(threads).unwrap_or(1);
    let graph = Box::new(Rten::load(file, header.signature, threads)?);
    Ok(match classify.transpose()? {
        Some(classify) => Box::new(Classifier::new(graph, classify)),
        None => graph,
    })
}

/// The text of a file, if there is one.
fn text(path: &Path) -> Result<Option<String>, EngineError> {
    let io = |source| EngineError::Io { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut text = String::new();
    file.take(MAX_TEXT_BYTES + 1).read_to_string(&mut text).map_err(io)?;
    if text.len() as u64 > MAX_TEXT_BYTES {
        let message = format!("{} has more than {MAX_TEXT_BYTES} bytes", path.display());
        return Err(EngineError::corrupt(message));
    }
    Ok(Some(text))
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
