//! The pages of a column of a Parquet file, within bounds.
//!
//! Owns what is unpacked and how much of it: the parser is told that nothing is packed, and gets
//! what was unpacked here. Where a file says how large something is, that is believed only as far
//! as the bytes that are there can hold it.

use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use parquet::basic::{Compression, Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, Length, SerializedPageReader};

/// Bytes of one page, packed or not. Writers make pages of 1 MiB; those that make one of a whole
/// group of rows fit with 8 million numbers.
const MAX_PAGE_BYTES: usize = 64 << 20;
/// Different values that a page of them may list: writers stop at 1 MiB of them.
const MAX_DICTIONARY: u32 = 1 << 20;
/// What Snappy can make of a byte at most: a copy of 64 bytes takes three.
const SNAPPY_FACTOR: usize = 22;

/// A file of which nothing is read that is not in it.
pub(super) struct Within<R> {
    file: R,
    size: u64,
}

impl<R: ChunkReader> Within<R> {
    pub(super) fn new(file: R) -> Self {
        let size = file.len();
        Self { file, size }
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }
}

impl<R: ChunkReader> Length for Within<R> {
    fn len(&self) -> u64 {
        self.size
    }
}

impl<R: ChunkReader> ChunkReader for Within<R> {
    type T = R::T;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        if start > self.size {
            return Err(wrong("something is said to stand behind the end of the file"));
        }
        self.file.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let end = start.checked_add(length as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(wrong("something is said to stand behind the end of the file"));
        }
        if length > MAX_PAGE_BYTES {
            return Err(too_large());
        }
        self.file.get_bytes(start, length)
    }
}

/// How pages are packed.
#[derive(Clone, Copy)]
enum Packed {
    Not,
    Snappy,
    Gzip,
}

/// The pages of a column in one group of rows.
pub(super) struct Pages<R: ChunkReader> {
    inner: SerializedPageReader<Within<R>>,
    packed: Packed,
    kind: Type,
    rows: usize,
    /// Whether the page of different values has come.
    listed: bool,
}

impl<R: ChunkReader> Pages<R> {
    /// Pages of a column, of a group with so many rows.
    pub(super) fn new(
        file: Arc<Within<R>>,
        chunk: &ColumnChunkMetaData,
        rows: usize,
    ) -> Result<Self, String> {
        let packed = match chunk.compression() {
            Compression::UNCOMPRESSED => Packed::Not,
            Compression::SNAPPY => Packed::Snappy,
            Compression::GZIP(_) => Packed::Gzip,
            other => {
                return Err(format!(
                    "is packed with {other}; SNAPPY, GZIP and files that are not packed are read"
                ));
            }
        };
        if chunk.file_path().is_some() {
            return Err("is in another file, which is not opened".to_owned());
        }
        let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
        let length = u64::try_from(chunk.compressed_size()).ok();
        let end = u64::try_from(start).ok().zip(length).and_then(|(at, more)| at.checked_add(more));
        if end.is_none_or(|end| end > file.size()) {
            return Err("is said to stand behind the end of the file".to_owned());
        }
        let plain = chunk.clone().into_builder().set_compression(Compression::UNCOMPRESSED);
        let inner = plain
            .build()
            .and_then(|chunk| SerializedPageReader::new(file, &chunk, rows, None))
            .map_err(|error| error.to_string())?;
        let kind = chunk.column_type();
        Ok(Self { inner, packed, kind, rows, listed: false })
    }

    /// A page as the parser takes it: unpacked, and with no more in it than it has room for.
    fn sound(&mut self, page: Page) -> Result<Page> {
        match page {
            Page::DictionaryPage { buf, num_values, encoding, is_sorted } => {
                let buf = self.list(buf, num_values)?;
                Ok(Page::DictionaryPage { buf, num_values, encoding, is_sorted })
            }
            Page::DataPage {
                buf,
                num_values,
                encoding,
                def_level_encoding,
                rep_level_encoding,
                statistics,
            } => {
                self.check(num_values, encoding)?;
                if def_level_encoding != Encoding::RLE {
                    return Err(wrong(&format!("missing values in {def_level_encoding}")));
                }
                let buf = self.unpack(buf)?;
                Ok(Page::DataPage {
                    buf,
                    num_values,
                    encoding,
                    def_level_encoding,
                    rep_level_encoding,
                    statistics,
                })
            }
            Page::DataPageV2 {
                buf,
                num_values,
                encoding,
                num_nulls,
                num_rows,
                def_levels_byte_len,
                rep_levels_byte_len,
                is_compressed,
                statistics,
            } => {
                self.check(num_values, encoding)?;
                // Levels are never packed.
                let levels = (def_levels_byte_len as usize)
                    .checked_add(rep_levels_byte_len as usize)
                    .filter(|levels| *levels <= buf.len())
                    .ok_or_else(|| wrong("a page is shorter than it says"))?;
                let buf = if is_compressed && levels < buf.len() {
                    let values = self.unpack(buf.slice(levels..))?;
                    Bytes::from([&buf[..levels], &values].concat())
                } else {
                    buf
                };
                Ok(Page::DataPageV2 {
                    buf,
                    num_values,
                    encoding,
                    num_nulls,
                    num_rows,
                    def_levels_byte_len,
                    rep_levels_byte_len,
                    is_compressed: false,
                    statistics,
                })
            }
        }
    }

    /// The page that lists a column's different values: one, and no more in it than fit.
    fn list(&mut self, packed: Bytes, values: u32) -> Result<Bytes> {
        let plain = self.unpack(packed)?;
        // Texts have their length before them.
        let least = if matches!(self.kind, Type::INT64 | Type::DOUBLE) { 8 } else { 4 };
        if values > MAX_DICTIONARY || values as usize > plain.len() / least {
            return Err(wrong("it lists more different values than are there"));
        }
        if std::mem::replace(&mut self.listed, true) {
            return Err(wrong("it lists its different values twice"));
        }
        Ok(plain)
    }

    /// Refuses a page of values with more than the group's, or in a way of writing that few use.
    fn check(&self, values: u32, encoding: Encoding) -> Result<()> {
        if values as usize > self.rows {
            return Err(wrong("a page has more values than the group has rows"));
        }
        match encoding {
            Encoding::PLAIN | Encoding::RLE | Encoding::BYTE_STREAM_SPLIT => Ok(()),
            Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY if self.listed => Ok(()),
            Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY => {
                Err(wrong("it lists no different values and refers to them"))
            }
            other => Err(wrong(&format!(
                "values in {other}; PLAIN, RLE_DICTIONARY, RLE and BYTE_STREAM_SPLIT are read"
            ))),
        }
    }

    fn unpack(&self, packed: Bytes) -> Result<Bytes> {
        let most = MAX_PAGE_BYTES as u64 + 1;
        let mut plain = Vec::new();
        match self.packed {
            Packed::Not => return Ok(packed),
            Packed::Gzip => {
                MultiGzDecoder::new(&*packed).take(most).read_to_end(&mut plain)?;
            }
            Packed::Snappy => {
                let said = |error: snap::Error| wrong(&error.to_string());
                let length = snap::raw::decompress_len(&packed).map_err(said)?;
                if length > packed.len().saturating_mul(SNAPPY_FACTOR) {
                    return Err(wrong("a page says that it is longer than it can be"));
                }
                if length > MAX_PAGE_BYTES {
                    return Err(too_large());
                }
                plain = snap::raw::Decoder::new().decompress_vec(&packed).map_err(said)?;
            }
        }
        if plain.len() > MAX_PAGE_BYTES {
            return Err(too_large());
        }
        Ok(plain.into())
    }
}

impl<R: ChunkReader> PageReader for Pages<R> {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.inner.get_next_page()?.map(|page| self.sound(page)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.inner.skip_next_page()
    }
}

impl<R: ChunkReader> Iterator for Pages<R> {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

fn wrong(reason: &str) -> ParquetError {
    ParquetError::General(reason.to_owned())
}

fn too_large() -> ParquetError {
    wrong(&format!(
        "a page has more than {MAX_PAGE_BYTES} bytes; write the table with smaller pages or groups \
         of rows"
    ))
}

#[cfg(test)]
#[path = "pages_tests.rs"]
mod tests;
