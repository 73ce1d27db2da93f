//! Rows of numbers without labels, to ask a model about: CSV or JSON text.
//!
//! Owns how such a text is read and what a wrong cell is told. A text that begins with a bracket is
//! JSON: a list of lists of numbers, or one list for one row. Everything else is CSV (RFC 4180); a
//! first line in which no cell is a number names the columns. Opens no file.

use csv::{ReaderBuilder, StringRecord};
use thiserror::Error;

/// Values of one text: 16 MiB of f32, which no person looks at row by row.
const MAX_VALUES: usize = 1 << 22;
/// Letters of a wrong cell in an error: enough to recognise it in one line of a terminal.
const MAX_SHOWN: usize = 40;

/// Rows, all of one width.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unlabelled {
    /// Numbers in a row.
    pub width: usize,
    /// Row after row.
    pub values: Vec<f32>,
}

/// How a text is to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The columns of a table to take, in the order of the model; empty: all.
    pub columns: Vec<String>,
    /// Every value is divided by this; 1 leaves them.
    pub scale: f32,
}

/// Why a text holds no rows.
#[derive(Debug, Error)]
pub enum UnlabelledError {
    /// It is neither JSON nor a table as it should be.
    #[error("{0}")]
    Form(String),
    /// A cell is no finite number.
    #[error("line {line}, column {column}: '{cell}' is not a number")]
    Cell {
        /// From 1.
        line: u64,
        /// From 1.
        column: usize,
        /// What is there.
        cell: String,
    },
    /// Rows differ.
    #[error("row {row} has {found} values, and the rows before it {wanted}")]
    Width {
        /// From 1.
        row: usize,
        /// Its values.
        found: usize,
        /// Those of the others.
        wanted: usize,
    },
    /// There is nothing.
    #[error("there is no row of numbers")]
    Empty,
    /// There is too much.
    #[error("there are more than {MAX_VALUES} values; ask in parts")]
    TooLarge,
}

impl Unlabelled {
    /// The rows of a text.
    ///
    /// # Errors
    /// [`UnlabelledError`], the first thing that is wrong and where.
    pub fn read(text: &str, how: &Reading) -> Result<Self, UnlabelledError> {
        if !(how.scale.is_finite() && how.scale != 0.0) {
            let why = format!("a scale of {}; values are divided by it", how.scale);
            return Err(UnlabelledError::Form(why));
        }
        let mut rows = Self::default();
        match text.trim_start().starts_with('[') {
            true => rows.read_json(text, how)?,
            false => rows.read_csv(text, how)?,
        }
        if rows.values.is_empty() { Err(UnlabelledError::Empty) } else { Ok(rows) }
    }

    fn push(&mut self, row: usize, values: &[f32], scale: f32) -> Result<(), UnlabelledError> {
        if self.width == 0 {
            self.width = values.len();
        }
        if values.len() != self.width || values.is_empty() {
            let (found, wanted) = (values.len(), self.width);
            return Err(UnlabelledError::Width { row, found, wanted });
        }
        if self.values.len() + values.len() > MAX_VALUES {
            return Err(UnlabelledError::TooLarge);
        }
        self.values.extend(values.iter().map(|value| value / scale));
        Ok(())
    }

    fn read_json(&mut self, text: &str, how: &Reading) -> Result<(), UnlabelledError> {
        if !how.columns.is_empty() {
            let why = "columns have names only in CSV, and this is JSON".to_owned();
            return Err(UnlabelledError::Form(why));
        }
        if let Ok(one) = serde_json::from_str::<Vec<f32>>(text) {
            return if one.is_empty() { Ok(()) } else { self.push(1, &one, how.scale) };
        }
        let rows: Vec<Vec<f32>> = serde_json::from_str(text).map_err(|error| {
            let why = format!("this is no list of rows of numbers in JSON: {error}");
            UnlabelledError::Form(why)
        })?;
        rows.iter().zip(1..).try_for_each(|(row, at)| self.push(at, row, how.scale))
    }

    fn read_csv(&mut self, text: &str, how: &Reading) -> Result<(), UnlabelledError> {
        let form = |error: csv::Error| UnlabelledError::Form(error.to_string());
        let mut reader =
            ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
        let mut record = StringRecord::new();
        let mut places: Option<Vec<usize>> = None;
        let (mut row, mut width) = (0, None);
        let mut is_first = true;
        while reader.read_record(&mut record).map_err(form)? {
            let names = std::mem::take(&mut is_first);
            if names && record.iter().all(|cell| number(cell).is_none()) {
                places = Some(columns(&record, &how.columns)?);
                width = Some(record.len());
                continue;
            }
            if names && !how.columns.is_empty() {
                let why = "the first line must name the columns that are to be taken".to_owned();
                return Err(UnlabelledError::Form(why));
            }
            row += 1;
            let cells = *width.get_or_insert(record.len());
            if record.len() != cells {
                let why =
                    format!("row {row} has {} cells and the line before {cells}", record.len());
                return Err(UnlabelledError::Form(why));
            }
            let line = record.position().map_or(0, csv::Position::line);
            let all: Vec<usize> = (0..record.len()).collect();
            let taken = places.as_ref().filter(|_| !how.columns.is_empty()).unwrap_or(&all);
            let cell = |at: &usize| {
                let cell = record.get(*at).unwrap_or_default();
                let wrong = || UnlabelledError::Cell { line, column: at + 1, cell: shown(cell) };
                number(cell).ok_or_else(wrong)
            };
            let values: Vec<f32> = taken.iter().map(cell).collect::<Result<_, _>>()?;
            self.push(row, &values, how.scale)?;
        }
        Ok(())
    }
}

/// The places of columns by their names; all without names.
fn columns(header: &StringRecord, names: &[String]) -> Result<Vec<usize>, UnlabelledError> {
    let place = |wanted: &String| {
        header.iter().position(|name| name.trim() == wanted).ok_or_else(|| {
            let known: Vec<&str> = header.iter().take(16).collect();
            let why = format!("no column '{wanted}'; the first are: {}", known.join(", "));
            UnlabelledError::Form(why)
        })
    };
    if names.is_empty() {
        Ok((0..header.len()).collect())
    } else {
        names.iter().map(place).collect()
    }
}

fn number(cell: &str) -> Option<f32> {
    cell.trim().parse().ok().filter(|value: &f32| value.is_finite())
}

/// As much of a cell as an error should hold, with nothing that a terminal obeys.
fn shown(cell: &str) -> String {
    cell.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, columns: &[&str], scale: f32) -> Result<Unlabelled, UnlabelledError> {
        let columns = columns.iter().map(|name| (*name).to_owned()).collect();
        Unlabelled::read(text, &Reading { columns, scale })
    }

    fn said(text: &str, columns: &[&str]) -> String {
        read(text, columns, 1.0).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn tables_and_json_give_the_same_rows() {
        let wanted = Unlabelled { width: 2, values: vec![0.5, 1.0, 2.0, -1.0] };
        for text in ["1,2\n4,-2\n", "a,b\n1,2\r\n4,-2", "[[1, 2], [4, -2.0]]", " [[1,2],[4,-2]]\n"]
        {
            assert_eq!(read(text, &[], 2.0).ok(), Some(wanted.clone()), "{text}");
        }
        let named = "state,b,a\nok,2,1\nworn,-2,4\n";
        assert_eq!(read(named, &["a", "b"], 2.0).ok(), Some(wanted));
        assert_eq!(read("[3, 4]", &[], 1.0).map(|rows| rows.width).ok(), Some(2));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        assert!(
            said("1,2\n3,x\n", &[]).contains("line 2, column 2: 'x'"),
            "{}",
            said("1,2\n3,x\n", &[])
        );
        assert!(said("a,b\n1,NaN\n", &[]).contains("'NaN' is not a number"));
        assert!(said("1,2\n3\n", &[]).contains("row 2 has 1 cells"));
        assert!(said("a,b\n1,2,3\n", &["b"]).contains("row 1 has 3 cells"));
        assert!(said("[[1, 2], [3]]", &[]).contains("row 2 has 1 values"));
        assert!(said("[[1, \"x\"]]", &[]).contains("no list of rows"));
        assert!(said("[[]]", &[]).contains("row 1 has 0 values"));
        assert!(said("[[1]]", &["a"]).contains("only in CSV"));
        assert!(said("1,2\n", &["a"]).contains("must name the columns"));
        assert!(said("a,b\n1,2\n", &["c"]).contains("no column 'c'; the first are: a, b"));
        for empty in ["", "a,b\n", "[]", "\n\n"] {
            assert!(said(empty, &[]).contains("no row"), "{empty:?}");
        }
        assert!(!said("1\n\u{1b}[2J\n", &[]).contains('\u{1b}'));
        assert!(read("1\n", &[], 0.0).is_err() && read("1\n", &[], f32::NAN).is_err());
    }
}
