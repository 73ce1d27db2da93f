//! The header of a GGUF file, read with a bound on everything (format: ggml's gguf.md, v2 and v3).
//!
//! Owns the parsing of metadata and tensor descriptions and the proof that each tensor lies inside
//! the file. A file is untrusted: no count, length or offset in it is believed before it was held
//! against the file's size, nothing is allocated ahead of the bytes that fill it, and no parser
//! but this one ever sees the header. Does not interpret: that is `card`, `tokenizer`, `weights`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;

use crate::error::EngineError;
use crate::gguf_value::{Kind, Value};

/// "GGUF" in file order.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// Version 1 had 32-bit lengths and no published models; 2 and 3 differ in byte order only.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;
/// The largest published models have about 2,000 tensors.
const MAX_TENSORS: u64 = 16_384;
/// Published files have fewer than 100 entries.
const MAX_ENTRIES: u64 = 4_096;
/// Names in published files stay below 64 bytes (ggml's own limit for tensors).
const MAX_NAME_BYTES: u64 = 256;
/// The longest strings are chat templates of a few tens of kilobytes.
const MAX_STRING_BYTES: u64 = 1 << 20;
/// Vocabularies have up to 262,144 tokens and about twice as many merges.
const MAX_ELEMENTS: u64 = 1 << 20;
/// All arrays together. A vocabulary of 262,144 tokens comes with as many scores and types and
/// about 520,000 merges: 1.3 million elements. Three times that leaves room and keeps the worst
/// header, one byte an element in the file and up to 32 in memory, near 128 MiB.
const MAX_ALL_ELEMENTS: u64 = 4 << 20;
/// Nobody nests arrays; two levels are what the format's examples show.
const MAX_DEPTH: u32 = 2;
/// Everything before the tensors: the largest vocabularies take about 10 MiB.
const MAX_HEADER_BYTES: u64 = 128 << 20;
/// ggml's own limit.
const MAX_DIMENSIONS: u32 = 4;
/// Far above any matrix of a language model, far from overflow when four are multiplied in u128.
const MAX_EXTENT: u64 = 1 << 31;
/// The format's default alignment of tensor data.
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;
/// Published files use 32; a page is a sensible upper end.
const MAX_ALIGNMENT: u64 = 65_536;

/// One tensor as the header describes it, proven to lie inside the file.
#[derive(Clone, Debug)]
pub(crate) struct TensorInfo {
    /// Outermost dimension first (the file has it the other way round).
    pub(crate) dims: Vec<usize>,
    /// How the numbers are stored.
    pub(crate) kind: GgmlDType,
    /// Where the bytes begin in the file.
    pub(crate) start: u64,
    /// How many bytes there are.
    pub(crate) bytes: u64,
}

impl TensorInfo {
    /// Number of weights.
    pub(crate) fn elements(&self) -> u64 {
        self.dims.iter().map(|&extent| extent as u64).product()
    }
}

/// A GGUF file's header.
#[derive(Debug)]
pub(crate) struct Gguf {
    pub(crate) path: PathBuf,
    pub(crate) file_bytes: u64,
    /// When the file was written last, in seconds and nanoseconds; zero of what is no file.
    pub(crate) written: (i64, i64),
    pub(crate) metadata: BTreeMap<String, Value>,
    /// Where the entries of the metadata lie, key and all, in the order of the file.
    pub(crate) entries: Vec<(String, Range<u64>)>,
    pub(crate) tensors: BTreeMap<String, TensorInfo>,
}

impl Gguf {
    /// Reads the header of the file at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, EngineError> {
        let io = |source| EngineError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?;
        if !size.is_file() {
            return Err(EngineError::corrupt(format!("{} is not a file", path.display())));
        }
        let written = (size.mtime(), size.mtime_nsec());
        let read = Self::from_reader(path, BufReader::new(file), size.len())?;
        Ok(Self { written, ..read })
    }

    /// Reads the header of a file of this size.
    pub(crate) fn from_reader(
        path: &Path,
        inner: impl Read,
        size: u64,
    ) -> Result<Self, EngineError> {
        let Header { metadata, entries, tensors } =
            Reader { inner, at: 0, size, elements: 0 }.header()?;
        let written = (0, 0);
        Ok(Self { path: path.to_owned(), file_bytes: size, written, metadata, entries, tensors })
    }

    /// The bytes of one tensor.
    pub(crate) fn read(&self, file: &mut File, info: &TensorInfo) -> Result<Vec<u8>, EngineError> {
        let size = usize::try_from(info.bytes)
            .map_err(|_| EngineError::unsupported("tensor larger than the address space"))?;
        let mut bytes = Vec::new();
        self.read_part(file, info, 0, size, &mut bytes)?;
        Ok(bytes)
    }

    /// Appends a part of a tensor's bytes.
    pub(crate) fn read_part(
        &self,
        file: &mut File,
        info: &TensorInfo,
        from: u64,
        count: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), EngineError> {
        if from.saturating_add(count as u64) > info.bytes {
            return Err(EngineError::corrupt("a tensor's bytes do not match its shape"));
        }
        let io = |source| EngineError::Io { path: self.path.clone(), source };
        let old = into.len();
        into.resize(old + count, 0);
        file.seek(SeekFrom::Start(info.start + from)).map_err(io)?;
        file.read_exact(&mut into[old..]).map_err(io)
    }

    /// A part of the header, as it lies in the file.
    pub(crate) fn copy(&self, file: &mut File, place: &Range<u64>) -> Result<Vec<u8>, EngineError> {
        let io = |source| EngineError::Io { path: self.path.clone(), source };
        // Lies in the header, which is bounded.
        let mut bytes = vec![0; place.end.saturating_sub(place.start) as usize];
        file.seek(SeekFrom::Start(place.start)).map_err(io)?;
        file.read_exact(&mut bytes).map_err(io)?;
        Ok(bytes)
    }

    /// A tensor by name.
    pub(crate) fn tensor(&self, name: &str) -> Result<&TensorInfo, EngineError> {
        self.tensors
            .get(name)
            .ok_or_else(|| EngineError::corrupt(format!("tensor {name} is missing")))
    }

    /// A text in the metadata.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).and_then(Value::as_text)
    }

    /// A whole number in the metadata, of whatever width it was written.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.metadata.get(key).and_then(Value::as_number)
    }

    /// A real number in the metadata.
    pub(crate) fn real(&self, key: &str) -> Option<f64> {
        self.metadata.get(key).and_then(Value::as_real)
    }

    /// A truth value in the metadata.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.metadata.get(key).and_then(Value::as_flag)
    }
}

/// What a header holds.
struct Header {
    metadata: BTreeMap<String, Value>,
    entries: Vec<(String, Range<u64>)>,
    tensors: BTreeMap<String, TensorInfo>,
}

/// A reader that knows how much of the file is left.
struct Reader<R> {
    inner: R,
    at: u64,
    size: u64,
    /// Array elements announced so far.
    elements: u64,
}

impl<R: Read> Reader<R> {
    fn header(&mut self) -> Result<Header, EngineError> {
        if self.bytes::<4>("magic")? != MAGIC {
            return Err(EngineError::corrupt("not a GGUF file (the first bytes are not 'GGUF')"));
        }
        let version = self.u32("version")?;
        if !VERSIONS.contains(&version) {
            return Err(EngineError::unsupported(format!(
                "GGUF version {version} (this build reads versions 2 and 3, little endian)"
            )));
        }
        let tensor_count = self.count("tensor count", MAX_TENSORS)?;
        let entry_count = self.count("metadata count", MAX_ENTRIES)?;
        let (mut metadata, mut entries) = (BTreeMap::new(), Vec::new());
        for _ in 0..entry_count {
            let start = self.at;
            let key = self.string("metadata key", MAX_NAME_BYTES)?;
            let kind = self.kind(&key)?;
            let value = self.value(kind, 0, &key)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(EngineError::corrupt(format!("metadata '{key}' is given twice")));
            }
            entries.push((key, start..self.at));
        }
        let mut tensors = BTreeMap::new();
        for _ in 0..tensor_count {
            let (name, info) = self.tensor()?;
            if tensors.insert(name.clone(), info).is_some() {
                return Err(EngineError::corrupt(format!("tensor '{name}' is given twice")));
            }
        }
        let alignment = alignment(&metadata)?;
        place(&mut tensors, self.at.next_multiple_of(alignment), alignment, self.size)?;
        Ok(Header { metadata, entries, tensors })
    }

    /// One tensor description; `start` is still relative to the data section.
    fn tensor(&mut self) -> Result<(String, TensorInfo), EngineError> {
        let name = self.string("tensor name", MAX_NAME_BYTES)?;
        let dimensions = self.u32("dimension count")?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(EngineError::corrupt(format!(
                "tensor '{name}' has {dimensions} dimensions (1 to {MAX_DIMENSIONS} are possible)"
            )));
        }
        let mut dims = Vec::new();
        let mut elements: u128 = 1;
        for _ in 0..dimensions {
            let extent = self.u64("dimension")?;
            if !(1..=MAX_EXTENT).contains(&extent) {
                return Err(EngineError::corrupt(format!(
                    "tensor '{name}' has a dimension of {extent} (limit {MAX_EXTENT})"
                )));
            }
            elements *= u128::from(extent);
            dims.push(extent as usize);
        }
        let kind = tensor_kind(self.u32("tensor type")?, &name)?;
        let start = self.u64("tensor offset")?;
        let block = kind.block_size();
        if !dims[0].is_multiple_of(block) {
            return Err(EngineError::corrupt(format!(
                "tensor '{name}': rows of {} are not a multiple of {block}",
                dims[0]
            )));
        }
        let bytes = elements / block as u128 * kind.type_size() as u128;
        let bytes = u64::try_from(bytes).ok().filter(|&bytes| bytes <= self.size);
        let Some(bytes) = bytes else {
            return Err(EngineError::corrupt(format!(
                "tensor '{name}' is larger than the whole file"
            )));
        };
        dims.reverse();
        Ok((name, TensorInfo { dims, kind, start, bytes }))
    }

    fn value(&mut self, kind: Kind, depth: u32, key: &str) -> Result<Value, EngineError> {
        Ok(match kind {
            Kind::U8 => Value::Number(u64::from(self.bytes::<1>(key)?[0])),
            Kind::I8 => Value::signed(i64::from(i8::from_le_bytes(self.bytes(key)?))),
            Kind::U16 => Value::Number(u64::from(u16::from_le_bytes(self.bytes(key)?))),
            Kind::I16 => Value::signed(i64::from(i16::from_le_bytes(self.bytes(key)?))),
            Kind::U32 => Value::Number(u64::from(self.u32(key)?)),
            Kind::I32 => Value::signed(i64::from(i32::from_le_bytes(self.bytes(key)?))),
            Kind::U64 => Value::Number(self.u64(key)?),
            Kind::I64 => Value::signed(i64::from_le_bytes(self.bytes(key)?)),
            Kind::F32 => Value::Real(f64::from(f32::from_le_bytes(self.bytes(key)?))),
            Kind::F64 => Value::Real(f64::from_le_bytes(self.bytes(key)?)),
            Kind::Bool => match self.bytes::<1>(key)?[0] {
                0 => Value::Flag(false),
                1 => Value::Flag(true),
                other => {
                    return Err(EngineError::corrupt(format!(
                        "metadata '{key}' is neither true nor false but {other}"
                    )));
                }
            },
            Kind::Text => Value::Text(self.string(key, MAX_STRING_BYTES)?),
            Kind::Array => self.array(depth, key)?,
        })
    }

    fn array(&mut self, depth: u32, key: &str) -> Result<Value, EngineError> {
        if depth >= MAX_DEPTH {
            return Err(EngineError::corrupt(format!(
                "metadata '{key}' nests arrays more than {MAX_DEPTH} deep"
            )));
        }
        let kind = self.kind(key)?;
        let count = self.u64(key)?;
        let least = count.saturating_mul(kind.least_bytes());
        if count > MAX_ELEMENTS || least > self.left() {
            return Err(EngineError::corrupt(format!(
                "metadata '{key}' claims {count} elements (limit {MAX_ELEMENTS}, {} bytes left)",
                self.left()
            )));
        }
        self.elements += count;
        if self.elements > MAX_ALL_ELEMENTS {
            return Err(EngineError::corrupt(format!(
                "the header's arrays have more than {MAX_ALL_ELEMENTS} elements together"
            )));
        }
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.value(kind, depth + 1, key)?);
        }
        Ok(Value::Array(values))
    }

    fn kind(&mut self, key: &str) -> Result<Kind, EngineError> {
        let code = self.u32(key)?;
        Kind::from_code(code).ok_or_else(|| {
            EngineError::corrupt(format!("metadata '{key}' has the unknown type {code}"))
        })
    }

    fn string(&mut self, what: &str, limit: u64) -> Result<String, EngineError> {
        let length = self.u64(what)?;
        if length > limit || length > self.left() {
            return Err(EngineError::corrupt(format!(
                "{what} claims {length} bytes (limit {limit}, {} left in the file)",
                self.left()
            )));
        }
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes, what)?;
        String::from_utf8(bytes)
            .map_err(|_| EngineError::corrupt(format!("{what} is not valid UTF-8")))
    }

    fn count(&mut self, what: &str, limit: u64) -> Result<u64, EngineError> {
        let count = self.u64(what)?;
        if count > limit {
            return Err(EngineError::corrupt(format!("{what} is {count} (limit {limit})")));
        }
        Ok(count)
    }

    fn u32(&mut self, what: &str) -> Result<u32, EngineError> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, EngineError> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    fn bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N], EngineError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8], what: &str) -> Result<(), EngineError> {
        self.at = self.at.saturating_add(bytes.len() as u64);
        if self.at > MAX_HEADER_BYTES {
            return Err(EngineError::corrupt(format!(
                "the header is larger than {MAX_HEADER_BYTES} bytes"
            )));
        }
        self.inner
            .read_exact(bytes)
            .map_err(|error| EngineError::corrupt(format!("file ends inside {what}: {error}")))
    }

    fn left(&self) -> u64 {
        self.size.saturating_sub(self.at)
    }
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<u64, EngineError> {
    let Some(value) = metadata.get("general.alignment") else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    value
        .as_number()
        .filter(|alignment| alignment.is_power_of_two() && *alignment <= MAX_ALIGNMENT)
        .ok_or_else(|| EngineError::corrupt("general.alignment is not a sensible power of two"))
}

/// Turns offsets into positions in the file and proves that tensors neither leave the file nor
/// overlap.
fn place(
    tensors: &mut BTreeMap<String, TensorInfo>,
    data: u64,
    alignment: u64,
    size: u64,
) -> Result<(), EngineError> {
    let mut spans = Vec::new();
    for (name, info) in tensors.iter_mut() {
        let end = info
            .start
            .checked_add(data)
            .and_then(|start| start.checked_add(info.bytes))
            .filter(|&end| end <= size && info.start.is_multiple_of(alignment));
        let Some(end) = end else {
            return Err(EngineError::corrupt(format!(
                "tensor '{name}' at offset {} with {} bytes does not lie in the file of {size}",
                info.start, info.bytes
            )));
        };
        info.start += data;
        spans.push((info.start, end, name.clone()));
    }
    spans.sort_unstable();
    for pair in spans.windows(2) {
        if let [(_, end, first), (start, _, second)] = pair
            && end > start
        {
            return Err(EngineError::corrupt(format!("tensors '{first}' and '{second}' overlap")));
        }
    }
    Ok(())
}

/// ggml's type numbers (ggml.h), as far as candle can hold them.
fn tensor_kind(code: u32, name: &str) -> Result<GgmlDType, EngineError> {
    Ok(match code {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        other => {
            return Err(EngineError::unsupported(format!(
                "tensor '{name}' has ggml type {other} (F32, F16, BF16, Q4_0 to Q8_0 and Q2_K to \
                 Q6_K are read)"
            )));
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "gguf_tests.rs"]
mod tests;
