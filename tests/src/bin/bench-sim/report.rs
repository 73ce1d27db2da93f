//! The table of figures and the JSON line, with the goals that were missed.

use std::io::{self, Write};

use anyhow::Result;
use serde_json::{Map, Value, json};

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Nothing: the figure explains another.
    None,
    AtLeast(f64),
    AtMost(f64),
}

/// Figures in the order they were measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<(String, f64, Goal)>,
    notes: Vec<(String, Value)>,
}

impl Goal {
    fn is_missed(self, value: f64) -> bool {
        match self {
            Self::None => false,
            Self::AtLeast(bound) => value < bound,
            Self::AtMost(bound) => value > bound,
        }
    }
}

impl Report {
    /// Notes a figure.
    pub(crate) fn note(&mut self, name: &str, value: f64, goal: Goal) {
        let bound = match goal {
            Goal::None => String::new(),
            Goal::AtLeast(bound) => format!("goal >= {bound}"),
            Goal::AtMost(bound) => format!("goal <= {bound}"),
        };
        let verdict = match goal {
            Goal::None => "",
            _ if goal.is_missed(value) => "MISSED",
            _ => "held",
        };
        let _ = writeln!(io::stdout(), "{name:<38} {value:>14.2}   {bound:<18} {verdict}");
        self.rows.push((name.to_owned(), value, goal));
    }

    /// Notes something that is no figure: a hash, a list.
    pub(crate) fn tell(&mut self, name: &str, value: Value) {
        let shown = match &value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let _ = writeln!(io::stdout(), "{name:<38} {shown}");
        self.notes.push((name.to_owned(), value));
    }

    /// A line between the figures.
    pub(crate) fn heading(&self, text: &str) {
        let _ = writeln!(io::stdout(), "\n{text}");
    }

    /// Ends the table: what was missed, and the JSON line if asked for.
    pub(crate) fn end(self, as_json: bool) -> Result<()> {
        let missed: Vec<&str> = self
            .rows
            .iter()
            .filter(|(_, value, goal)| goal.is_missed(*value))
            .map(|(name, ..)| name.as_str())
            .collect();
        let mut out = io::stdout().lock();
        match missed.as_slice() {
            [] => writeln!(out, "\nall goals held")?,
            names => writeln!(out, "\nmissed: {}", names.join(", "))?,
        }
        if as_json {
            // Two decimals: the rest is noise.
            let round = |value: f64| json!((value * 100.0).round() / 100.0);
            let figures = self.rows.iter().map(|(name, value, _)| (name.clone(), round(*value)));
            let mut object: Map<String, Value> = figures.collect();
            object.extend(self.notes);
            object.insert("missed".to_owned(), json!(missed));
            writeln!(out, "{}", Value::Object(object))?;
        }
        Ok(())
    }
}
