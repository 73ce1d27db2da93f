//! Tables in Apache Parquet: one row an example, one column its label.
//!
//! Owns which columns are read and what a wrong value is told. Parsing is the parquet crate's;
//! what a file says of its sizes is held against bounds before (`footer`, `pages`).

use std::path::Path;
use std::sync::Arc;

use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::ChunkReader;
use parquet::schema::types::ColumnDescriptor;

use super::classes::{self, short};
use super::footer;
use super::pages::{Pages, Within};
use super::table::{Columns, Table};
use crate::examples::MAX_VALUES;
use crate::{Examples, Schema, TrainError, Wrong};

/// Bytes of the footer: a hundred thousand column chunks with their statistics. The parser makes
/// some hundred bytes of each.
const MAX_FOOTER_BYTES: u64 = 8 << 20;
/// The end of a file: how long the footer is, and four letters.
const TAIL_BYTES: u64 = 8;
/// The letters, which are also a file's first.
const MAGIC: &[u8] = b"PAR1";
/// Rows that are taken from a column at a time: a few pages of the processor's cache.
const BATCH: usize = 4_096;

pub(super) fn read(
    table: &Table,
    file: impl ChunkReader + 'static,
    schema: &Schema,
) -> Result<Examples, TrainError> {
    read_within(table, file, schema, MAX_VALUES)
}

/// Reads a table of at most so many values.
pub(super) fn read_within(
    table: &Table,
    file: impl ChunkReader + 'static,
    schema: &Schema,
    most: usize,
) -> Result<Examples, TrainError> {
    let width = table.check(schema)?;
    let path = &*table.path;
    let file = Arc::new(Within::new(file));
    let notes = notes(path, &file)?;
    let columns = columns(table, &notes, |names| Columns::find(table, names, width))?;
    let mut told = Rows { table, schema, width, most, values: Vec::new(), labels: Vec::new() };
    for group in notes.row_groups() {
        told.group(&file, group, &columns)?;
    }
    if told.labels.is_empty() {
        return Err(TrainError::wrong(Wrong::Empty, path, "it has no rows"));
    }
    Examples::new(schema.clone(), told.values, told.labels)
}

/// Looks at the notes at the end of a table's file.
pub(super) fn glance(table: &Table, file: impl ChunkReader) -> Result<(), TrainError> {
    table.check_scale()?;
    let notes = notes(&table.path, &Within::new(file))?;
    columns(table, &notes, |names| Columns::named(table, names)).map(drop)
}

/// The columns that are found by the names of all, which must hold what can be read.
fn columns(
    table: &Table,
    notes: &ParquetMetaData,
    find: impl FnOnce(&[&str]) -> Result<Columns, TrainError>,
) -> Result<Columns, TrainError> {
    let (path, all) = (&*table.path, notes.file_metadata().schema_descr().columns());
    let names: Vec<String> = all.iter().map(|column| column.path().string()).collect();
    let found = find(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
    check_column(path, &all[found.label], true)?;
    found.values.iter().try_for_each(|&at| check_column(path, &all[at], false))?;
    Ok(found)
}

/// The notes at the end of the file, within bounds.
fn notes(path: &Path, file: &Within<impl ChunkReader>) -> Result<ParquetMetaData, TrainError> {
    let wrong = |reason: String| TrainError::malformed(path, reason);
    let read = |start, length| file.get_bytes(start, length).map_err(|error| wrong(plain(&error)));
    let end = file.size().checked_sub(TAIL_BYTES).filter(|end| *end >= MAGIC.len() as u64);
    let end = end.ok_or_else(|| wrong("too short for a Parquet file".to_owned()))?;
    let tail = read(end, TAIL_BYTES as usize)?;
    let (length, magic) = tail.split_at(4);
    if magic != MAGIC {
        return Err(wrong(
            "not a Parquet file, or encrypted, or not written to its end".to_owned(),
        ));
    }
    let length = length.first_chunk().map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)));
    if length > MAX_FOOTER_BYTES {
        let what = format!("{}: the bytes of its footer", path.display());
        return Err(TrainError::TooLarge { what, limit: MAX_FOOTER_BYTES as usize });
    }
    let start = end.checked_sub(length).ok_or_else(|| wrong("its footer is damaged".to_owned()))?;
    let bytes = read(start, length as usize)?;
    footer::check(&bytes).map_err(wrong)?;
    ParquetMetaDataReader::decode_metadata(&bytes).map_err(|error| wrong(plain(&error)))
}

/// Refuses a column that holds no numbers, or several in a row.
fn check_column(path: &Path, column: &ColumnDescriptor, is_label: bool) -> Result<(), TrainError> {
    let wrong = |what: String| {
        let reason = format!("column '{}' {what}", column.path().string());
        Err(TrainError::wrong(Wrong::Columns, path, reason))
    };
    if column.path().parts().len() != 1 || column.max_rep_level() > 0 {
        return wrong("is nested; only columns with one value in a row are read".to_owned());
    }
    let kind = column.physical_type();
    match kind {
        Type::BOOLEAN | Type::FLOAT | Type::DOUBLE => {}
        Type::INT32 | Type::INT64 if is_whole(column) => {}
        Type::BYTE_ARRAY if is_label => {}
        _ => {
            let meant = column
                .logical_type_ref()
                .map_or_else(|| column.converted_type().to_string(), |meant| format!("{meant:?}"));
            let takes = if is_label {
                "names, numbers and truth values"
            } else {
                "numbers and truth values"
            };
            return wrong(format!("is {kind} ({}); {takes} are read", short(&meant)));
        }
    }
    Ok(())
}

/// Whether integers of a column are just that, and no dates, times or parts of a decimal number.
fn is_whole(column: &ColumnDescriptor) -> bool {
    match column.logical_type_ref() {
        Some(LogicalType::Integer(_)) => true,
        Some(_) => false,
        None => matches!(
            column.converted_type(),
            ConvertedType::NONE
                | ConvertedType::INT_8
                | ConvertedType::INT_16
                | ConvertedType::INT_32
                | ConvertedType::INT_64
                | ConvertedType::UINT_8
                | ConvertedType::UINT_16
                | ConvertedType::UINT_32
                | ConvertedType::UINT_64
        ),
    }
}

/// Whether integers of a column have no sign.
fn is_unsigned(column: &ColumnDescriptor) -> bool {
    matches!(column.logical_type_ref(), Some(LogicalType::Integer(kind)) if !kind.is_signed)
        || matches!(column.converted_type(), ConvertedType::UINT_32 | ConvertedType::UINT_64)
}

/// What has been read of a table.
struct Rows<'a> {
    table: &'a Table,
    schema: &'a Schema,
    width: usize,
    most: usize,
    values: Vec<f32>,
    labels: Vec<u32>,
}

impl Rows<'_> {
    /// Adds the rows of a group: the labels first, so that there is as much room as there are rows.
    fn group<R: ChunkReader + 'static>(
        &mut self,
        file: &Arc<Within<R>>,
        group: &RowGroupMetaData,
        columns: &Columns,
    ) -> Result<(), TrainError> {
        let path = &*self.table.path;
        let before = self.labels.len();
        let rows = usize::try_from(group.num_rows()).unwrap_or(usize::MAX);
        let all = before.checked_add(rows).and_then(|rows| rows.checked_mul(self.width));
        if all.is_none_or(|all| all > self.most) {
            let what = format!("{}: its rows times the columns of values", path.display());
            return Err(TrainError::TooLarge { what, limit: self.most });
        }
        let (table, schema, labels) = (self.table, self.schema, &mut self.labels);
        let label = Chunk { path, file, group, at: columns.label, before };
        let mut is_foreign = false;
        let read = label.each(|_, cell| {
            let number = match &cell {
                Cell::Number(number) => {
                    classes::number(&table.classes, &number.to_string(), schema)
                }
                Cell::Whole(whole) => classes::number(&table.classes, &whole.to_string(), schema),
                // Named, they are called so; numbered, they are 0 and 1.
                Cell::Truth(truth) if table.classes.is_empty() => {
                    classes::number(&[], if *truth { "1" } else { "0" }, schema)
                }
                Cell::Truth(truth) => classes::number(&table.classes, &truth.to_string(), schema),
                Cell::Bytes(bytes) => bytes
                    .as_utf8()
                    .ok()
                    .and_then(|name| classes::number(&table.classes, name, schema)),
            };
            is_foreign = number.is_none();
            let number = number.ok_or_else(|| {
                format!("{} {}", cell.text(), classes::unknown(&table.classes, schema))
            })?;
            labels.push(number);
            Ok(())
        });
        read.map_err(|error| if is_foreign { error.named(Wrong::Classes) } else { error })?;
        let start = self.values.len();
        // As many as were there, not as many as were promised.
        self.values.resize(self.labels.len() * self.width, 0.0);
        for (place, &at) in columns.values.iter().enumerate() {
            let (values, width) = (&mut self.values, self.width);
            let chunk = Chunk { path, file, group, at, before };
            chunk.each(|row, cell| {
                let value = cell.value().filter(|value| !value.is_nan());
                let value =
                    value.ok_or_else(|| format!("{} cannot be learned from", cell.text()))?;
                let value = table.scaled(value).map_err(|why| format!("{} {why}", cell.text()))?;
                // `each` tells of no more rows than there are labels.
                if let Some(slot) = values.get_mut(start + row * width + place) {
                    *slot = value;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// A value of a row.
enum Cell {
    Truth(bool),
    Whole(i128),
    Number(f64),
    Bytes(ByteArray),
}

impl Cell {
    /// As it is learned from; nothing for a text.
    fn value(&self) -> Option<f32> {
        match self {
            Self::Truth(truth) => Some(f32::from(u8::from(*truth))),
            Self::Whole(whole) => Some(*whole as f32),
            Self::Number(number) => Some(*number as f32),
            Self::Bytes(_) => None,
        }
    }

    /// As it may stand in a message.
    fn text(&self) -> String {
        let text = match self {
            Self::Truth(truth) => truth.to_string(),
            Self::Whole(whole) => whole.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes.data()).into_owned(),
        };
        format!("'{}'", short(&text))
    }
}

/// The part of a column that is in one group of rows.
struct Chunk<'a, R> {
    path: &'a Path,
    file: &'a Arc<Within<R>>,
    group: &'a RowGroupMetaData,
    at: usize,
    /// Rows of the groups before.
    before: usize,
}

impl<R: ChunkReader + 'static> Chunk<'_, R> {
    /// Tells every row's value, by the row's place in the group.
    fn each(&self, tell: impl FnMut(usize, Cell) -> Result<(), String>) -> Result<(), TrainError> {
        let column = self.group.schema_descr().column(self.at);
        let unsigned = is_unsigned(&column);
        match column.physical_type() {
            Type::BOOLEAN => self.typed::<BoolType>(Cell::Truth, tell),
            Type::INT32 if unsigned => {
                self.typed::<Int32Type>(|value| Cell::Whole((value as u32).into()), tell)
            }
            Type::INT32 => self.typed::<Int32Type>(|value| Cell::Whole(value.into()), tell),
            Type::INT64 if unsigned => {
                self.typed::<Int64Type>(|value| Cell::Whole((value as u64).into()), tell)
            }
            Type::INT64 => self.typed::<Int64Type>(|value| Cell::Whole(value.into()), tell),
            Type::FLOAT => self.typed::<FloatType>(|value| Cell::Number(value.into()), tell),
            Type::DOUBLE => self.typed::<DoubleType>(Cell::Number, tell),
            Type::BYTE_ARRAY => self.typed::<ByteArrayType>(Cell::Bytes, tell),
            // `check_column` refused it.
            other => Err(self.wrong(format!("is {other}"))),
        }
    }

    fn typed<T: DataType>(
        &self,
        cell: impl Fn(T::T) -> Cell,
        mut tell: impl FnMut(usize, Cell) -> Result<(), String>,
    ) -> Result<(), TrainError> {
        let rows = usize::try_from(self.group.num_rows()).unwrap_or(usize::MAX);
        let column = self.group.schema_descr().column(self.at);
        let nullable = column.max_def_level();
        let wrong = |reason| self.wrong(reason);
        let failed = |error: ParquetError| self.wrong(plain(&error));
        let pages = Pages::new(Arc::clone(self.file), self.group.column(self.at), rows);
        let pages = Box::new(pages.map_err(wrong)?);
        let mut reader = ColumnReaderImpl::<T>::new(column, pages);
        let (mut levels, mut values, mut row) = (Vec::new(), Vec::new(), 0);
        while row < rows {
            levels.clear();
            values.clear();
            let ask = BATCH.min(rows - row);
            let read = reader.read_records(ask, Some(&mut levels), None, &mut values);
            let (records, found, _) = read.map_err(failed)?;
            if found < records {
                let null = levels.iter().position(|level| *level < nullable).unwrap_or(found);
                return Err(self.wrong_at(row + null, "has no value (null)"));
            }
            if records == 0 {
                let reason = format!("it has {row} rows, and its group promises {rows}");
                return Err(self.wrong(reason));
            }
            for value in values.drain(..) {
                tell(row, cell(value)).map_err(|reason| self.wrong_at(row, &reason))?;
                row += 1;
            }
        }
        values.clear();
        let more = reader.read_records(1, Some(&mut levels), None, &mut values).map_err(failed)?;
        if more.0 > 0 {
            return Err(self.wrong(format!("it has more rows than the {rows} of its group")));
        }
        Ok(())
    }

    fn name(&self) -> String {
        short(&self.group.schema_descr().column(self.at).path().string())
    }

    fn wrong(&self, reason: String) -> TrainError {
        TrainError::malformed(self.path, format!("column '{}': {reason}", self.name()))
    }

    fn wrong_at(&self, row: usize, reason: &str) -> TrainError {
        let row = self.before + row + 1;
        let reason = format!("row {row}, column '{}': {reason}", self.name());
        TrainError::malformed(self.path, reason)
    }
}

/// What the parser says, without a name that the message has already.
fn plain(error: &ParquetError) -> String {
    let text = error.to_string();
    text.strip_prefix("Parquet error: ").unwrap_or(&text).chars().take(200).collect()
}

#[cfg(test)]
#[path = "parquet_tests.rs"]
mod tests;
