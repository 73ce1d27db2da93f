//! The table of figures and the JSON line, with the targets that were missed.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::figures::Figures;

/// Figures in the order they were measured.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
    /// Targets that nothing was measured for, each with the reason.
    lacking: Vec<(String, String)>,
}

#[derive(Debug)]
struct Row {
    name: String,
    value: f64,
    target: Option<f64>,
}

impl Report {
    /// Notes a figure; a target is an upper bound.
    pub fn note(&mut self, name: &str, value: f64, target: Option<f64>) {
        self.rows.push(Row { name: name.to_owned(), value, target });
        let Some(Row { name, value, target }) = self.rows.last() else { return };
        let bound = target.map_or_else(String::new, |bound| format!("target <= {bound}"));
        let verdict = match target {
            Some(bound) if value > bound => "MISSED",
            Some(_) => "held",
            None => "",
        };
        let _ = writeln!(io::stdout(), "{name:<38} {value:>12.2}   {bound:<20} {verdict}");
    }

    /// Notes median and 99th percentile in milliseconds.
    pub fn millis(&mut self, name: &str, times: &Figures, targets: [Option<f64>; 2]) {
        let ms = |permille| times.quantile(permille).as_secs_f64() * 1e3;
        self.note(&format!("{name}_p50_ms"), ms(500), targets[0]);
        self.note(&format!("{name}_p99_ms"), ms(990), targets[1]);
    }

    /// Notes the largest in milliseconds.
    pub fn worst(&mut self, name: &str, times: &Figures, target: Option<f64>) {
        let worst = times.quantile(1_000).as_secs_f64() * 1e3;
        self.note(&format!("{name}_max_ms"), worst, target);
    }

    /// Notes median and 99th percentile of round trips in microseconds, and the CPU time of each.
    pub fn micros(&mut self, name: &str, times: &Figures, cpu: Duration) {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        self.note(&format!("{name}_p50_us"), us(times.quantile(500)), None);
        self.note(&format!("{name}_p99_us"), us(times.quantile(990)), None);
        let each = us(cpu) / times.count().max(1) as f64;
        self.note(&format!("{name}_cpu_us"), each, None);
    }

    /// Notes a target that nothing could be measured for: it counts as missed.
    pub fn lacks(&mut self, name: &str, why: &str) {
        self.lacking.push((name.to_owned(), why.to_owned()));
        let _ = writeln!(io::stdout(), "{name:<38} {:>12}   {why:<20} MISSED", "-");
    }

    /// The value of a figure noted before; zero when there is none.
    pub fn value(&self, name: &str) -> f64 {
        self.rows.iter().find(|row| row.name == name).map_or(0.0, |row| row.value)
    }

    /// A line between the figures.
    pub fn heading(&self, text: &str) {
        let _ = writeln!(io::stdout(), "\n{text}");
    }

    /// What was missed, by name; what was not measured with the reason.
    fn missed(&self) -> Vec<String> {
        let is_missed = |row: &&Row| row.target.is_some_and(|bound| row.value > bound);
        let measured = self.rows.iter().filter(is_missed).map(|row| row.name.clone());
        let lacking = self.lacking.iter().map(|(name, why)| format!("{name} ({why})"));
        measured.chain(lacking).collect()
    }

    /// The JSON line. Two decimals: the rest is noise.
    fn line(&self) -> Value {
        let round = |value: f64| json!((value * 100.0).round() / 100.0);
        let figures = self.rows.iter().map(|row| (row.name.clone(), round(row.value)));
        let lacking = self.lacking.iter().map(|(name, _)| (name.clone(), Value::Null));
        let mut object: Map<String, Value> = figures.chain(lacking).collect();
        object.insert("missed".to_owned(), json!(self.missed()));
        Value::Object(object)
    }

    /// Ends the table: what was missed, and the JSON line if asked for.
    ///
    /// # Errors
    /// When standard output is gone.
    pub fn end(self, as_json: bool) -> Result<()> {
        let mut out = io::stdout().lock();
        match self.missed().as_slice() {
            [] => writeln!(out, "\nall targets held")?,
            names => writeln!(out, "\nmissed: {}", names.join(", "))?,
        }
        if as_json {
            writeln!(out, "{}", self.line())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_was_not_measured_is_missed_with_the_reason() {
        let mut report = Report::default();
        report.note("held", 1.0, Some(1.0));
        report.note("late", 2.004, Some(1.0));
        report.note("told", 9.0, None);
        report.lacks("beside", "it is not installed");
        assert_eq!(report.missed(), ["late", "beside (it is not installed)"]);
        let line = json!({"held": 1.0, "late": 2.0, "told": 9.0, "beside": null,
            "missed": ["late", "beside (it is not installed)"]});
        assert_eq!(report.line(), line);
    }
}
