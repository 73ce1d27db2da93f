//! What a file of packed weights looks like: a header, tiles, and a table of what lies where.
//!
//! Owns the format. Nothing in a file is believed: the header and the table have digests of their
//! own, each matrix has one in the table, and together they cover every byte. All numbers are
//! little endian, as tiles are on the processors that files are made and mapped on.
//!
//! | bytes | |
//! |---|---|
//! | 0..8 | `SLVGPACK` |
//! | 8 | version of the format |
//! | 9 | version of the tiles |
//! | 10..12 | zero |
//! | 12..16 | matrices in the table |
//! | 16..48 | digest of the model |
//! | 48..80 | digest of what its file says of its tensors |
//! | 80..88 | where the table begins; it ends with the file |
//! | 88..120 | digest of the table |
//! | 120..160 | zero |
//! | 160..192 | digest of the bytes before |
//! | 192.. | tiles, each matrix at a multiple of 64 and with zeros up to the next |
//!
//! A line of the table: length of the tensor's name (2), name, first row (8), layout (1), rows (8),
//! blocks of columns (8), where the tiles begin (8), digest (32). Digests are BLAKE3.

use std::collections::BTreeMap;

use selvedge_base::ModelDigest;
use selvedge_kernels::{Layout, TILES_VERSION, Wanted};

use super::Unkept;
use crate::gguf::Gguf;

const MAGIC: [u8; 8] = *b"SLVGPACK";
/// The version of the format. A file of another one is not read but made anew.
const VERSION: u8 = 1;
/// Bytes of the header: three lines of a cache.
pub(super) const HEADER: usize = 192;
/// Bytes of the header that its digest is of.
const SAID: usize = 160;
/// Where a matrix may begin: at a line of a cache, as its tiles do in memory.
pub(super) const ALIGN: u64 = 64;
/// Matrices of a file: three parts of each of the 16,384 tensors that a model may have, and some.
const MAX_MATRICES: u32 = 65_536;
/// Bytes that a line of the table takes, with a name of the usual length.
const LINE: usize = 128;

/// What packed weights are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(super) model: ModelDigest,
    /// What a file says of its tensors, and when it was written last: where a digest is not the
    /// file's (it was damaged when it was packed, or exchanged below a node) it differs in this.
    pub(super) tensors: [u8; 32],
}

/// A matrix of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) layout: Layout,
    pub(super) outputs: usize,
    pub(super) depth: usize,
    pub(super) start: u64,
    pub(super) digest: [u8; 32],
}

/// What lies where, by tensor and first row.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table(BTreeMap<(String, usize), Entry>);

impl Identity {
    pub(crate) fn of(model: ModelDigest, gguf: &Gguf) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&gguf.file_bytes.to_le_bytes());
        // A file that was mended, or exchanged for another of its shape, is packed anew.
        let (seconds, nanoseconds) = gguf.written;
        hasher.update(&seconds.to_le_bytes()).update(&nanoseconds.to_le_bytes());
        for (name, info) in &gguf.tensors {
            // The length before what varies in length: no two lists say the same.
            for text in [name.as_str(), &format!("{:?} {:?}", info.kind, info.dims)] {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
            hasher.update(&info.start.to_le_bytes());
        }
        Self { model, tensors: *hasher.finalize().as_bytes() }
    }
}

/// Bytes that a matrix takes in a file: its tiles, up to where the next may begin.
pub(super) const fn padded(wanted: &Wanted<'_>) -> Option<u64> {
    wanted.bytes().checked_next_multiple_of(ALIGN)
}

/// Bytes that a file needs beside the tiles of a model with so many tensors.
pub(super) const fn beside(tensors: usize) -> u64 {
    // Three parts of each tensor, with what fills up their last lines.
    (HEADER as u64).saturating_add((tensors as u64).saturating_mul(3 * (LINE as u64 + ALIGN)))
}

impl Entry {
    /// Where it ends with all that belongs to it.
    pub(super) fn end(&self) -> Option<u64> {
        let Self { layout, outputs, depth, start, .. } = *self;
        let wanted = Wanted { tensor: "", first: 0, layout, outputs, depth };
        start.checked_add(padded(&wanted)?)
    }

    /// Its bytes in those of a file.
    pub(super) fn bytes<'a>(&self, file: &'a [u8]) -> Option<&'a [u8]> {
        let (start, end) = (usize::try_from(self.start).ok()?, usize::try_from(self.end()?).ok()?);
        file.get(start..end)
    }
}

impl Table {
    pub(super) fn put(&mut self, tensor: &str, first: usize, entry: Entry) {
        self.0.insert((tensor.to_owned(), first), entry);
    }

    pub(super) fn find(&self, wanted: &Wanted<'_>) -> Option<&Entry> {
        let Wanted { tensor, first, layout, outputs, depth } = *wanted;
        let found = self.0.get(&(tensor.to_owned(), first))?;
        let same = (found.layout, found.outputs, found.depth) == (layout, outputs, depth);
        same.then_some(found)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * LINE);
        for ((tensor, first), entry) in &self.0 {
            // Names are bounded by the parser of GGUF, far below this.
            let length = u16::try_from(tensor.len()).unwrap_or(u16::MAX);
            bytes.extend(length.to_le_bytes());
            bytes.extend_from_slice(&tensor.as_bytes()[..usize::from(length)]);
            bytes.extend((*first as u64).to_le_bytes());
            bytes.push(entry.layout.code());
            bytes.extend((entry.outputs as u64).to_le_bytes());
            bytes.extend((entry.depth as u64).to_le_bytes());
            bytes.extend(entry.start.to_le_bytes());
            bytes.extend(entry.digest);
        }
        bytes
    }

    /// A table of so many lines whose matrices lie between the header and `end`.
    fn decode(bytes: &[u8], lines: u32, end: u64) -> Option<Self> {
        let (mut cursor, mut table) = (Cursor(bytes), Self::default());
        for _ in 0..lines {
            let length = usize::from(u16::from_le_bytes(cursor.take()?));
            let tensor = std::str::from_utf8(cursor.some(length)?).ok()?;
            let first = cursor.size()?;
            let [code] = cursor.take()?;
            let layout = Layout::ALL.into_iter().find(|layout| layout.code() == code)?;
            let (outputs, depth) = (cursor.size()?, cursor.size()?);
            let (start, digest) = (cursor.number()?, cursor.take()?);
            let entry = Entry { layout, outputs, depth, start, digest };
            let placed = start.is_multiple_of(ALIGN) && start >= HEADER as u64;
            if !placed || entry.end()? > end {
                return None;
            }
            table.put(tensor, first, entry);
        }
        let all = cursor.0.is_empty() && table.0.len() == lines as usize;
        all.then_some(table)
    }
}

/// The header of a file whose table begins at `start`.
pub(super) fn header(identity: &Identity, table: &Table, encoded: &[u8], start: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER);
    bytes.extend(MAGIC);
    bytes.extend([VERSION, TILES_VERSION, 0, 0]);
    // More than that are refused when it is read.
    bytes.extend(u32::try_from(table.0.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(identity.model.0);
    bytes.extend(identity.tensors);
    bytes.extend(start.to_le_bytes());
    bytes.extend(blake3::hash(encoded).as_bytes());
    bytes.resize(SAID, 0);
    let digest = blake3::hash(&bytes);
    bytes.extend(digest.as_bytes());
    bytes
}

/// The table of a file, if that is one of this model, as a whole. What tiles say is not looked at.
pub(super) fn read(bytes: &[u8], identity: &Identity) -> Result<Table, Unkept> {
    let no = |why: &str| Unkept::new(why);
    let head: &[u8; HEADER] =
        bytes.first_chunk().ok_or_else(|| no("the file is shorter than its header"))?;
    let (said, digest) = head.split_at(SAID);
    if !said.starts_with(&MAGIC) {
        return Err(no("the file is not one of packed weights"));
    }
    if blake3::hash(said).as_bytes() != digest {
        return Err(no("the file's header is damaged"));
    }
    let mut cursor = Cursor(&said[MAGIC.len()..]);
    let mut fields = || {
        let [version, tiles, ..]: [u8; 4] = cursor.take()?;
        let lines = u32::from_le_bytes(cursor.take()?);
        let of = Identity { model: ModelDigest(cursor.take()?), tensors: cursor.take()? };
        let (start, digest): (u64, [u8; 32]) = (cursor.number()?, cursor.take()?);
        Some(((version, tiles), lines, of, start, digest))
    };
    let (versions, lines, of, start, digest) = fields().ok_or_else(|| no("the header is short"))?;
    if versions != (VERSION, TILES_VERSION) {
        let (format, tiles) = versions;
        return Err(Unkept::new(format!("the file is of version {format}.{tiles}")));
    }
    if of != *identity {
        return Err(no("the file is of another model"));
    }
    let table = usize::try_from(start).ok().and_then(|start| bytes.get(start..));
    let table = table.ok_or_else(|| no("the file was cut short"))?;
    if lines > MAX_MATRICES || blake3::hash(table) != blake3::Hash::from_bytes(digest) {
        return Err(no("the file's table is damaged, or the file was cut short"));
    }
    Table::decode(table, lines, start).ok_or_else(|| no("the file's table says what cannot be"))
}

/// Bytes that are read from the front.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn some(&mut self, count: usize) -> Option<&'a [u8]> {
        let (some, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(some)
    }

    fn take<const COUNT: usize>(&mut self) -> Option<[u8; COUNT]> {
        self.some(COUNT)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn size(&mut self) -> Option<usize> {
        self.number()?.try_into().ok()
    }
}
