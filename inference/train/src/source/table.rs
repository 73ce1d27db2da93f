//! A table with named columns, whatever its file's format: which of them are read, and as what.
//!
//! Owns finding columns by name. Reading rows is the formats'.

use std::path::PathBuf;

use super::classes::{self, short};
use crate::examples::{MAX_VALUE, is_learnable};
use crate::{Schema, TrainError, Wrong};

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The file; it names its columns.
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

impl Table {
    /// Refuses what no file could mend; how many values an example has.
    pub(super) fn check(&self, schema: &Schema) -> Result<usize, TrainError> {
        let width = schema.check()?;
        self.check_scale()?;
        classes::check(&self.path, &self.classes, schema)?;
        Ok(width)
    }

    /// Refuses what no value can be divided by.
    pub(super) fn check_scale(&self) -> Result<(), TrainError> {
        if self.scale.is_finite() && self.scale != 0.0 {
            return Ok(());
        }
        let reason = format!("a scale of {}; values are divided by it", self.scale);
        Err(TrainError::malformed(&self.path, reason))
    }

    /// A number of the file as it is learned from.
    ///
    /// # Errors
    /// What is wrong with it, as a message goes on that has named it.
    pub(super) fn scaled(&self, value: f32) -> Result<f32, String> {
        let scaled = value / self.scale;
        if is_learnable(scaled) {
            return Ok(scaled);
        }
        if !value.is_finite() {
            return Err(format!("is out of range: numbers up to {:e} are read", f32::MAX));
        }
        Err(format!(
            "is too large to learn from: values go to {MAX_VALUE} either way once they are divided \
             by `scale` in [[data]], which is {} here; use a larger `scale`",
            self.scale
        ))
    }
}

/// Places of the columns that are read.
pub(super) struct Columns {
    pub(super) label: usize,
    pub(super) values: Vec<usize>,
}

impl Columns {
    /// Finds the columns that a table names among those that its file has: as many as a job says.
    pub(super) fn find(table: &Table, names: &[&str], width: usize) -> Result<Self, TrainError> {
        let found = Self::named(table, names)?;
        if found.values.len() != width {
            let count = found.values.len();
            let reason = format!("{count} columns of values, and the job's examples have {width}");
            return Err(TrainError::wrong(Wrong::Columns, &table.path, reason));
        }
        Ok(found)
    }

    /// The same before a job says how many there are.
    pub(super) fn named(table: &Table, names: &[&str]) -> Result<Self, TrainError> {
        let place = |wanted: &str| {
            names.iter().position(|name| name.trim() == wanted).ok_or_else(|| {
                let first: Vec<String> = names.iter().take(16).map(|name| short(name)).collect();
                let reason = format!("no column '{wanted}'; the first are: {}", first.join(", "));
                TrainError::wrong(Wrong::Columns, &table.path, reason)
            })
        };
        let label = place(&table.label)?;
        let values: Vec<usize> = if table.values.is_empty() {
            (0..names.len()).filter(|&at| at != label).collect()
        } else {
            table.values.iter().map(|name| place(name)).collect::<Result<_, _>>()?
        };
        Ok(Self { label, values })
    }
}
