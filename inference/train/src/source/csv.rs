//! Tables as text (RFC 4180): one row an example, one column its label.
//!
//! Owns which columns are read and what a wrong cell is told. Parsing is the csv crate's.

use std::io::Read;

use csv::{ReaderBuilder, StringRecord};

use super::classes::{self, short};
use super::table::{Columns, Table};
use crate::examples::MAX_VALUES;
use crate::{Examples, Schema, TrainError, Wrong};

/// Bytes of a table: as many values as are kept, written with seven digits and a comma each.
const MAX_BYTES: u64 = 8 * MAX_VALUES as u64;

/// Bytes of which a line of names is sought before a job asks: sixty thousand names of 16 letters.
const MAX_GLANCE_BYTES: u64 = 1 << 20;

pub(super) fn read(
    table: &Table,
    file: impl Read,
    schema: &Schema,
) -> Result<Examples, TrainError> {
    read_within(table, file, schema, MAX_BYTES)
}

/// Looks at the line of names, and whether there is one below it.
pub(super) fn glance(table: &Table, file: impl Read) -> Result<(), TrainError> {
    table.check_scale()?;
    let mut reader = ReaderBuilder::new().from_reader(file.take(MAX_GLANCE_BYTES));
    let header = reader.headers();
    let header = header.map_err(|error| TrainError::malformed(&table.path, plain(&error)))?.clone();
    check_header(table, &header)?;
    Columns::named(table, &header.iter().collect::<Vec<_>>())?;
    // What is wrong in a row is said with a job; here the row may be cut.
    match reader.read_record(&mut StringRecord::new()) {
        Ok(false) => Err(no_rows(table)),
        Ok(true) | Err(_) => Ok(()),
    }
}

/// Reads a table of at most so many bytes. One that is longer is refused, not cut.
fn read_within(
    table: &Table,
    file: impl Read,
    schema: &Schema,
    most: u64,
) -> Result<Examples, TrainError> {
    let width = table.check(schema)?;
    let wrong = |reason: String| TrainError::malformed(&table.path, reason);
    let unread = |error: csv::Error| wrong(plain(&error));
    let mut reader = ReaderBuilder::new().from_reader(file.take(most.saturating_add(1)));
    let header = reader.headers().map_err(unread)?.clone();
    check_header(table, &header)?;
    let columns = Columns::find(table, &header.iter().collect::<Vec<_>>(), width)?;
    let mut values = Vec::new();
    let mut labels = Vec::new();
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(unread)? {
        let line = record.position().map_or(0, csv::Position::line);
        if values.len() + width > MAX_VALUES {
            let what = format!("{}: line {line}", table.path.display());
            return Err(TrainError::TooLarge { what, limit: MAX_VALUES });
        }
        for &at in &columns.values {
            let cell = record.get(at).unwrap_or_default().trim();
            let value = value(table, cell);
            values.push(value.map_err(|why| {
                wrong(format!("line {line}, column '{}': {why}", name(&header, at)))
            })?);
        }
        let cell = record.get(columns.label).unwrap_or_default().trim();
        labels.push(classes::number(&table.classes, cell, schema).ok_or_else(|| {
            let (label, cell) = (&table.label, short(cell));
            let why = classes::unknown(&table.classes, schema);
            let reason = format!("line {line}, column '{label}': '{cell}' {why}");
            TrainError::wrong(Wrong::Classes, &table.path, reason)
        })?);
    }
    if reader.get_ref().limit() == 0 {
        let what = format!("{}: its size in bytes", table.path.display());
        let limit = usize::try_from(most).unwrap_or(usize::MAX);
        return Err(TrainError::TooLarge { what, limit });
    }
    if labels.is_empty() {
        return Err(no_rows(table));
    }
    Examples::new(schema.clone(), values, labels)
}

fn no_rows(table: &Table) -> TrainError {
    TrainError::wrong(Wrong::Empty, &table.path, "no rows below the line of names")
}

/// Refuses a line of names that is none, or whose columns something else than a comma separates.
fn check_header(table: &Table, header: &StringRecord) -> Result<(), TrainError> {
    if header.is_empty() {
        let reason = "the file is empty; a table has a line of names and a row for each example";
        return Err(TrainError::wrong(Wrong::Empty, &table.path, reason));
    }
    // A table has two columns at least, the label's and one of values.
    let all = header.get(0).filter(|_| header.len() == 1).unwrap_or_default();
    let Some(other) = all.chars().find(|c| [';', '\t', '|'].contains(c)) else { return Ok(()) };
    let reason = format!(
        "columns are separated by commas, and the line of names has {other:?} between them: save \
         the table with commas, and numbers with points"
    );
    Err(TrainError::wrong(Wrong::Columns, &table.path, reason))
}

/// What the parser says, in words of what to do where that is known.
fn plain(error: &csv::Error) -> String {
    let csv::ErrorKind::Utf8 { pos, .. } = error.kind() else { return error.to_string() };
    let line = pos.as_ref().map_or(1, csv::Position::line);
    format!("line {line} is not text in UTF-8: save the table as CSV in UTF-8")
}

/// The value in a cell, or what is wrong with it.
fn value(table: &Table, cell: &str) -> Result<f32, String> {
    if cell.is_empty() {
        return Err("a value is missing; fill it in, or leave the row out".to_owned());
    }
    let told = short(cell);
    let number: f32 = cell.parse().map_err(|_| {
        format!("'{told}' is not a number; `values` in [[data]] lists the columns to learn from")
    })?;
    // No digits: it is spelled, as in 'NaN' and 'inf'. Digits without end are out of range.
    if !number.is_finite() && !cell.contains(|c: char| c.is_ascii_digit()) {
        return Err(format!("'{told}' is not a number to learn from; leave the row out"));
    }
    table.scaled(number).map_err(|why| format!("'{told}' {why}"))
}

fn name(header: &StringRecord, at: usize) -> &str {
    header.get(at).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shape;

    fn table() -> Table {
        Table {
            path: "line3.csv".into(),
            label: "state".to_owned(),
            values: vec!["heat".to_owned(), "hum".to_owned()],
            classes: vec!["ok".to_owned(), "worn".to_owned()],
            scale: 2.0,
        }
    }

    fn told(table: &Table, text: &str) -> Result<Examples, TrainError> {
        read(table, text.as_bytes(), &Schema { shape: Shape::Flat(2), classes: 2 })
    }

    #[test]
    fn named_columns_and_classes_are_read_in_the_order_of_the_job() -> Result<(), TrainError> {
        let text = "at,hum,state,heat\n09:00,1,ok,2\n\"09:01\", 3 ,worn,4.5\n";
        let examples = told(&table(), text)?;
        assert_eq!(examples.values(), [1.0, 0.5, 2.25, 1.5]);
        assert_eq!(examples.labels(), [0, 1]);
        Ok(())
    }

    #[test]
    fn without_names_every_other_column_counts_and_labels_are_numbers() -> Result<(), TrainError> {
        let plain = Table { values: vec![], classes: vec![], scale: 1.0, ..table() };
        let examples = told(&plain, "a,state,b\n1,1,2\n3,0,4\n")?;
        assert_eq!(examples.values(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(examples.labels(), [1, 0]);
        Ok(())
    }

    #[test]
    fn a_table_that_is_too_long_is_refused_and_not_cut() {
        let text = "heat,hum,state\n1,2,ok\n3,4,worn\n";
        let schema = Schema { shape: Shape::Flat(2), classes: 2 };
        let within = |most| read_within(&table(), text.as_bytes(), &schema, most);
        let long = text.len() as u64;
        assert!(within(long).is_ok());
        assert!(matches!(within(long - 1), Err(TrainError::TooLarge { .. })));
    }

    #[test]
    fn wrong_cells_are_told_by_line_and_column() {
        let said = |text: &str| told(&table(), text).err().map_or(String::new(), |e| e.to_string());
        let heat = said("heat,hum,state\n1,2,ok\n1,warm,ok\n");
        assert!(heat.contains("line 3, column 'hum': 'warm' is not a number"), "{heat}");
        let missing = said("heat,hum,state\n1,2,ok\n1, ,ok\n");
        assert!(missing.contains("line 3, column 'hum': a value is missing"), "{missing}");
        for spelled in ["inf", "NaN", "-infinity"] {
            let told = said(&format!("heat,hum,state\n1,{spelled},ok\n"));
            assert!(told.contains(&format!("'{spelled}' is not a number to learn")), "{told}");
        }
        let range = said("heat,hum,state\n1e300,2,ok\n");
        assert!(range.contains("'1e300' is out of range: numbers up to 3.4"), "{range}");
        assert!(said("heat,hum,state\n1,2,broken\n").contains("'broken' is no class"));
        assert!(said("heat,state\n1,ok\n").contains("no column 'hum'; the first are: heat, state"));
        assert!(said("heat,hum,state\n1,2\n").contains("line3.csv"));
        assert!(said("heat,hum,state\n").contains("no rows"));
        let class = said("heat,hum,state\n1,2,broken\n");
        assert!(class.contains("does not list it; add it there"), "{class}");
    }

    #[test]
    fn files_that_are_no_table_of_commas_in_utf_8_are_told_what_they_should_be() {
        let said = |text: &[u8]| {
            let schema = Schema { shape: Shape::Flat(2), classes: 2 };
            read(&table(), text, &schema).err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert!(said(b"").contains("line3.csv: the file is empty"), "{}", said(b""));
        let other = said(b"heat;hum;state\n1,5;2;ok\n");
        assert!(other.contains("separated by commas, and the line of names has ';'"), "{other}");
        assert!(said(b"heat\thum\tstate\n1\t2\tok\n").contains("has '\\t' between"));
        let latin = said(b"heat,hum,state\n1,2,ok\n1,2,m\xfcde\n");
        assert!(latin.contains("line 3 is not text in UTF-8: save the table as"), "{latin}");
        assert!(said(b"W\xe4rme,hum,state\n1,2,ok\n").contains("is not text in UTF-8"));
        let rude = said(b"\x1b[2J,hum,state\n1,2,ok\n");
        assert!(rude.contains("no column 'heat'") && !rude.contains('\x1b'), "{rude}");
    }

    #[test]
    fn values_too_large_to_learn_from_are_told_with_what_divides_them() -> Result<(), TrainError> {
        for heat in ["1e38", "-3e38", "2097154"] {
            let told = told(&table(), &format!("heat,hum,state\n{heat},2,ok\n"));
            let told = told.err().map(|error| error.to_string()).unwrap_or_default();
            let place = format!("line 2, column 'heat': '{heat}' is too large to learn from");
            assert!(told.contains(&place) && told.contains("use a larger `scale`"), "{told}");
        }
        // As sensors tell them, and as large as may be.
        let examples = told(&table(), "heat,hum,state\n-4096,2097152,ok\n")?;
        assert_eq!(examples.values(), [-2048.0, 1_048_576.0]);
        let wide = Table { scale: 1e33, ..table() };
        assert!(told(&wide, "heat,hum,state\n1e38,3e38,ok\n").is_ok());
        Ok(())
    }

    #[test]
    fn what_is_wrong_has_a_word_without_anything_of_the_file() {
        let word = |text| match told(&table(), text) {
            Err(TrainError::Malformed { wrong, .. }) => Some(wrong),
            _ => None,
        };
        assert_eq!(word("heat,hum,state\n1,warm,ok\n"), Some(Wrong::Content));
        assert_eq!(word("heat,wet,state\n1,2,ok\n"), Some(Wrong::Columns));
        assert_eq!(word("heat,hum,state\n1,2,broken\n"), Some(Wrong::Classes));
        assert_eq!(word("heat,hum,state\n"), Some(Wrong::Empty));
        assert_eq!(word("heat,hum,state\n1,2,ok\n"), None);
    }
}
