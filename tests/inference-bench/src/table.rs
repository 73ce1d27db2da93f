//! The table of both sides with ratios and targets, and the JSON line.
//!
//! Owns the targets. A ratio is ours to llama.cpp's: more is better of rates, less of time and of
//! memory.

use std::io::{self, Write};

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::models::Model;
use crate::rounds::{LOAD, PEAK, Rounds};

/// What a ratio should be.
#[derive(Clone, Copy, Debug)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// Targets of ratios, by column: what a prototype of the kernels reached beside llama.cpp on a
/// machine with AMX, less what noise takes; memory and loading as a user would notice them.
const TARGETS: &[(&str, Target)] = &[
    ("prefill_128", Target::AtLeast(1.2)),
    ("decode_1", Target::AtLeast(1.1)),
    ("decode_8", Target::AtLeast(1.8)),
    (PEAK, Target::AtMost(0.9)),
    (LOAD, Target::AtMost(1.2)),
];

/// What was printed, for the end.
#[derive(Debug, Default)]
pub(crate) struct Table {
    figures: Map<String, Value>,
    missed: Vec<String>,
}

impl Target {
    fn is_missed(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio < bound,
            Self::AtMost(bound) => ratio > bound,
        }
    }

    fn shown(self, ratio: f64) -> String {
        let verdict = if self.is_missed(ratio) { "MISSED" } else { "held" };
        match self {
            Self::AtLeast(bound) => format!(">= {bound}  {verdict}"),
            Self::AtMost(bound) => format!("<= {bound}  {verdict}"),
        }
    }
}

impl Table {
    /// A line of its own.
    pub(crate) fn heading(&self, text: &str) {
        print(&format!("\n{text}"));
    }

    /// One model's rows.
    pub(crate) fn model(&mut self, model: &Model, rounds: &Rounds) {
        let columns = ["", "selvedge", "llama.cpp", "ratio", "target"];
        self.heading(&format!("{}, medians of {} rounds", model.title, model.rounds));
        print(&row(&columns));
        for column in &rounds.columns {
            let sides = (rounds.ours.median(column), rounds.llama.median(column));
            let (Some(ours), Some(llama)) = sides else { continue };
            self.compare(model.name, column, ours, llama);
        }
        self.ceiling(model, rounds);
    }

    fn compare(&mut self, model: &str, column: &str, ours: f64, llama: f64) {
        let ratio = ours / llama.max(f64::MIN_POSITIVE);
        let target = TARGETS.iter().find(|(name, _)| *name == column).map(|(_, target)| *target);
        let shown = target.map_or_else(String::new, |target| target.shown(ratio));
        let number = |value: f64| format!("{value:.1}");
        print(&row(&[column, &number(ours), &number(llama), &format!("{ratio:.2}"), &shown]));
        self.figure(model, &format!("{column}_selvedge"), ours);
        self.figure(model, &format!("{column}_llama_cpp"), llama);
        self.figure(model, &format!("{column}_ratio"), ratio);
        if target.is_some_and(|target| target.is_missed(ratio)) {
            self.missed.push(format!("{model}_{column}_ratio"));
        }
    }

    /// How near one answer comes to reading the weights once a token and doing nothing else.
    fn ceiling(&mut self, model: &Model, rounds: &Rounds) {
        let share = |rate: Option<f64>| {
            let bytes = rate.unwrap_or_default() * model.step_bytes as f64;
            100.0 * bytes / rounds.cached.max(1.0)
        };
        let (ours, llama) =
            (share(rounds.ours.median("decode_1")), share(rounds.llama.median("decode_1")));
        let gigabytes = |bytes: f64| bytes / 1e9;
        let (cached, dram) = (gigabytes(rounds.cached), gigabytes(rounds.dram));
        print(&row(&["decode_1 % of bandwidth", &format!("{ours:.0}"), &format!("{llama:.0}")]));
        print(&format!(
            "a token reads {:.1} MB; memory is read at {cached:.1} GB/s for so many, {dram:.1} for \
             1 GiB",
            model.step_bytes as f64 / 1e6,
        ));
        self.figure(model.name, "bandwidth_gb_s", cached);
        self.figure(model.name, "dram_gb_s", dram);
        self.figure(model.name, "bandwidth_share_selvedge_percent", ours);
        self.figure(model.name, "bandwidth_share_llama_cpp_percent", llama);
    }

    fn figure(&mut self, model: &str, name: &str, value: f64) {
        // Two decimals: the rest is noise.
        self.figures.insert(format!("{model}_{name}"), json!((value * 100.0).round() / 100.0));
    }

    /// Ends the table: what was missed, and the JSON line if asked for.
    pub(crate) fn end(mut self, as_json: bool) -> Result<()> {
        let mut out = io::stdout().lock();
        match self.missed.as_slice() {
            [] => writeln!(out, "\nall targets held")?,
            names => writeln!(out, "\nmissed: {}", names.join(", "))?,
        }
        if as_json {
            self.figures.insert("missed".to_owned(), json!(self.missed));
            writeln!(out, "{}", Value::Object(self.figures))?;
        }
        Ok(())
    }
}

fn row(cells: &[&str]) -> String {
    let mut line = format!("{:<26}", cells.first().unwrap_or(&""));
    for cell in cells.iter().skip(1).take(3) {
        line.push_str(&format!("{cell:>11}"));
    }
    if let Some(target) = cells.get(4).filter(|target| !target.is_empty()) {
        line.push_str(&format!("   {target}"));
    }
    line
}

fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_its_target_is_missed_and_named() {
        let mut table = Table::default();
        table.compare("m", "prefill_128", 119.0, 100.0);
        table.compare("m", "decode_1", 111.0, 100.0);
        table.compare("m", LOAD, 121.0, 100.0);
        table.compare("m", PEAK, 89.0, 100.0);
        table.compare("m", "prefill_32", 1.0, 100.0);
        assert_eq!(table.missed, ["m_prefill_128_ratio", "m_load_ms_ratio"]);
        assert_eq!(table.figures["m_prefill_128_ratio"], json!(1.19));
        assert_eq!(table.figures["m_prefill_32_llama_cpp"], json!(100.0));
    }
}
