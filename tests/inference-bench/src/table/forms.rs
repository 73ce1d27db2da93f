//! The rows of the forms that models are quantized into.
//!
//! Owns their targets. Perplexities are told with the digits in which they differ.

use serde_json::json;

use super::{Goal, Table, Target, print, row};
use crate::forms::{Forms, Found, NAME, TITLE, WRITTEN};

/// Both sides compute the same file: what is further apart than rounding says that one of them
/// computes something else.
const SAME_FILE: Goal = Goal::new(Target::Within(0.005), None);
/// A form that is written here loses no more than where llama.cpp writes it.
const SAME_FORM: Goal = Goal::new(Target::AtMost(1.005), None);

impl Table {
    /// The rows of all forms.
    pub(crate) fn forms(&mut self, forms: &Forms) {
        self.heading(&format!(
            "{TITLE}, {} tokens foretold, answers as medians of {} rounds",
            forms.tokens, forms.rounds
        ));
        print(&row(&["", "selvedge", "llama.cpp", "ratio", "target"]));
        for found in &forms.found {
            self.form(found);
        }
        print("*: what `models quantize` wrote and what llama.cpp wrote, both read by llama.cpp");
        self.figures.insert(format!("{NAME}_tokens"), json!(forms.tokens));
    }

    fn form(&mut self, found: &Found) {
        let Found { name, ours, llama, .. } = found;
        let column = format!("{name}_perplexity");
        self.precise(&column, Some(SAME_FILE), ours.perplexity, llama.perplexity);
        if let Some((_, own)) = &found.own {
            let column = format!("{name}_perplexity*");
            self.precise(&column, Some(SAME_FORM), llama.perplexity, own.perplexity);
        }
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        match &found.own {
            Some((bytes, _)) => {
                self.precise(
                    &format!("{name}_mb*"),
                    None,
                    megabytes(found.bytes),
                    megabytes(*bytes),
                );
            }
            None => {
                let size = megabytes(found.bytes);
                print(&row(&[&format!("{name}_mb"), &format!("{size:.3}")]));
                self.figure(NAME, &format!("{name}_mb_selvedge"), size);
            }
        }
        let peer = "llama_cpp";
        let read = format!("{name}_read");
        self.compare((NAME, &read), None, ours.rate, (peer, llama.rate));
        let [mine, theirs] = found.written.each_ref().map(|side| side.median(WRITTEN));
        if let (Some(mine), Some(theirs)) = (mine, theirs) {
            let written = format!("{name}_{WRITTEN}");
            self.compare((NAME, &written), None, mine, (peer, theirs));
        }
    }

    /// A row whose ratio is told to the hundredth of a percent.
    fn precise(&mut self, column: &str, goal: Option<Goal>, ours: f64, theirs: f64) {
        let ratio = ours / theirs.max(f64::MIN_POSITIVE);
        let shown = goal.map_or_else(String::new, |goal| goal.shown(ratio));
        let number = |value: f64| format!("{value:.3}");
        print(&row(&[column, &number(ours), &number(theirs), &format!("{ratio:.4}"), &shown]));
        // The star says that both were written, and one of them here.
        let column = column.replace('*', "_of_files");
        for (what, value) in [("selvedge", ours), ("llama_cpp", theirs), ("ratio", ratio)] {
            let value = (value * 1e5).round() / 1e5;
            self.figures.insert(format!("{NAME}_{column}_{what}"), json!(value));
        }
        if goal.is_some_and(|goal| goal.is_missed(ratio)) {
            self.missed.push(format!("{NAME}_{column}_ratio"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_computed_differently_is_missed_on_either_side() {
        let mut table = Table::default();
        for (column, ours) in [("low", 9.9), ("near", 10.04), ("high", 10.06), ("none", f64::NAN)] {
            table.precise(column, Some(SAME_FILE), ours, 10.0);
        }
        table.precise("file*", Some(SAME_FORM), 9.0, 10.0);
        table.precise("worse*", Some(SAME_FORM), 10.1, 10.0);
        let missed =
            ["low", "high", "none", "worse_of_files"].map(|one| format!("quantize_{one}_ratio"));
        assert_eq!(table.missed, missed);
        assert_eq!(table.figures["quantize_near_ratio"], json!(1.004));
        assert_eq!(table.figures["quantize_file_of_files_selvedge"], json!(9.0));
        assert_eq!(SAME_FILE.shown(1.004), "within 0.5 % held");
    }
}
