//! Tables as text (RFC 4180): one row an example, one column its label.
//!
//! Owns which columns are read and what a wrong cell is told. Parsing is the csv crate's.

use std::io::Read;
use std::path::PathBuf;

use csv::{ReaderBuilder, StringRecord};

use crate::examples::MAX_VALUES;
use crate::{Examples, Schema, TrainError};

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub struct Csv {
    /// The file; its first line names the columns.
    pub path: PathBuf,
    /// The column with the label.
    pub label: String,
    /// The columns with the values, in the order of the model; empty: all but the label.
    pub values: Vec<String>,
    /// The names of the classes, in the order of the model; empty: labels are numbers from 0.
    pub classes: Vec<String>,
    /// Every value is divided by this, as 255 for grey levels; 1 leaves them.
    pub scale: f32,
}

/// Bytes of a table: as many values as are kept, written with seven digits and a comma each.
const MAX_BYTES: u64 = 8 * MAX_VALUES as u64;

pub(super) fn read(table: &Csv, file: impl Read, schema: &Schema) -> Result<Examples, TrainError> {
    read_within(table, file, schema, MAX_BYTES)
}

/// Reads a table of at most so many bytes. One that is longer is refused, not cut.
fn read_within(
    table: &Csv,
    file: impl Read,
    schema: &Schema,
    most: u64,
) -> Result<Examples, TrainError> {
    let width = schema.check()?;
    let wrong = |reason: String| TrainError::malformed(&table.path, reason);
    if !(table.scale.is_finite() && table.scale != 0.0) {
        return Err(wrong(format!("a scale of {}; values are divided by it", table.scale)));
    }
    if !table.classes.is_empty() && table.classes.len() != schema.classes {
        return Err(wrong(format!(
            "{} classes are named, and the job has {}",
            table.classes.len(),
            schema.classes
        )));
    }
    let mut reader = ReaderBuilder::new().from_reader(file.take(most.saturating_add(1)));
    let header = reader.headers().map_err(|error| wrong(error.to_string()))?.clone();
    let columns = Columns::find(table, &header, width)?;
    let mut values = Vec::new();
    let mut labels = Vec::new();
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| wrong(error.to_string()))? {
        let line = record.position().map_or(0, csv::Position::line);
        if values.len() + width > MAX_VALUES {
            let what = format!("{}: line {line}", table.path.display());
            return Err(TrainError::TooLarge { what, limit: MAX_VALUES });
        }
        for &at in &columns.values {
            let cell = record.get(at).unwrap_or_default().trim();
            let value: f32 =
                cell.parse().ok().filter(|value: &f32| value.is_finite()).ok_or_else(|| {
                    wrong(format!(
                        "line {line}, column '{}': '{}' is not a number",
                        name(&header, at),
                        short(cell)
                    ))
                })?;
            values.push(value / table.scale);
        }
        let cell = record.get(columns.label).unwrap_or_default().trim();
        labels.push(label(table, cell, schema).ok_or_else(|| {
            wrong(format!(
                "line {line}, column '{}': '{}' is no class of the job",
                table.label,
                short(cell)
            ))
        })?);
    }
    if reader.get_ref().limit() == 0 {
        let what = format!("{}: its size in bytes", table.path.display());
        let limit = usize::try_from(most).unwrap_or(usize::MAX);
        return Err(TrainError::TooLarge { what, limit });
    }
    if labels.is_empty() {
        return Err(wrong("no rows below the line of names".to_owned()));
    }
    Examples::new(schema.clone(), values, labels)
}

/// Places of the columns that are read.
struct Columns {
    label: usize,
    values: Vec<usize>,
}

impl Columns {
    fn find(table: &Csv, header: &StringRecord, width: usize) -> Result<Self, TrainError> {
        let place = |wanted: &str| {
            header.iter().position(|name| name.trim() == wanted).ok_or_else(|| {
                let names: Vec<&str> = header.iter().take(16).collect();
                let reason = format!("no column '{wanted}'; the first are: {}", names.join(", "));
                TrainError::malformed(&table.path, reason)
            })
        };
        let label = place(&table.label)?;
        let values: Vec<usize> = if table.values.is_empty() {
            (0..header.len()).filter(|&at| at != label).collect()
        } else {
            table.values.iter().map(|name| place(name)).collect::<Result<_, _>>()?
        };
        if values.len() != width {
            return Err(TrainError::malformed(
                &table.path,
                format!("{} columns of values, and the job's examples have {width}", values.len()),
            ));
        }
        Ok(Self { label, values })
    }
}

fn label(table: &Csv, cell: &str, schema: &Schema) -> Option<u32> {
    let at = if table.classes.is_empty() {
        cell.parse::<usize>().ok()?
    } else {
        table.classes.iter().position(|class| class == cell)?
    };
    u32::try_from(at).ok().filter(|_| at < schema.classes)
}

fn name(header: &StringRecord, at: usize) -> &str {
    header.get(at).unwrap_or_default()
}

/// A cell as it may stand in a message: its first characters, without controls.
fn short(cell: &str) -> String {
    cell.chars().filter(|c| !c.is_control()).take(24).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shape;

    fn table() -> Csv {
        Csv {
            path: "line3.csv".into(),
            label: "state".to_owned(),
            values: vec!["heat".to_owned(), "hum".to_owned()],
            classes: vec!["ok".to_owned(), "worn".to_owned()],
            scale: 2.0,
        }
    }

    fn told(table: &Csv, text: &str) -> Result<Examples, TrainError> {
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
        let plain = Csv { values: vec![], classes: vec![], scale: 1.0, ..table() };
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
        let said = |text| told(&table(), text).err().map(|e| e.to_string()).unwrap_or_default();
        let heat = said("heat,hum,state\n1,2,ok\n1,warm,ok\n");
        assert!(heat.contains("line 3, column 'hum': 'warm' is not a number"), "{heat}");
        assert!(said("heat,hum,state\n1,inf,ok\n").contains("not a number"));
        assert!(said("heat,hum,state\n1,2,broken\n").contains("'broken' is no class"));
        assert!(said("heat,state\n1,ok\n").contains("no column 'hum'; the first are: heat, state"));
        assert!(said("heat,hum,state\n1,2\n").contains("line3.csv"));
        assert!(said("heat,hum,state\n").contains("no rows"));
        assert!(said("").contains("no column"));
    }
}
