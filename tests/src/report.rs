//! The table of figures and the JSON line, with the targets that were missed.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::figures::Figures;

/// Figures in the order they were measured.
#[derive(Debug, Default)]
pub struct Report(Vec<Row>);

#[derive(Debug)]
struct Row {
    name: String,
    value: f64,
    target: Option<f64>,
}

impl Report {
    /// Notes a figure; a target is an upper bound.
    pub fn note(&mut self, name: &str, value: f64, target: Option<f64>) {
        self.0.push(Row { name: name.to_owned(), value, target });
        let Some(Row { name, value, target }) = self.0.last() else { return };
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

    /// The value of a figure noted before; zero when there is none.
    pub fn value(&self, name: &str) -> f64 {
        self.0.iter().find(|row| row.name == name).map_or(0.0, |row| row.value)
    }

    /// A line between the figures.
    pub fn heading(&self, text: &str) {
        let _ = writeln!(io::stdout(), "\n{text}");
    }

    /// Ends the table: what was missed, and the JSON line if asked for.
    ///
    /// # Errors
    /// When standard output is gone.
    pub fn end(self, as_json: bool) -> Result<()> {
        let is_missed = |row: &&Row| row.target.is_some_and(|bound| row.value > bound);
        let missed: Vec<&str> =
            self.0.iter().filter(is_missed).map(|row| row.name.as_str()).collect();
        let mut out = io::stdout().lock();
        match missed.as_slice() {
            [] => writeln!(out, "\nall targets held")?,
            names => writeln!(out, "\nmissed: {}", names.join(", "))?,
        }
        if as_json {
            // Two decimals: the rest is noise.
            let round = |value: f64| json!((value * 100.0).round() / 100.0);
            let figures = self.0.iter().map(|row| (row.name.clone(), round(row.value)));
            let mut object: Map<String, Value> = figures.collect();
            object.insert("missed".to_owned(), json!(missed));
            writeln!(out, "{}", Value::Object(object))?;
        }
        Ok(())
    }
}
