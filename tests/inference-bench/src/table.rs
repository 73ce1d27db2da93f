//! The table of both sides with ratios and targets, and the JSON line.
//!
//! Owns the targets. A ratio is ours to the other side's: more is better of rates, less of time and
//! of memory.

use std::io::{self, Write};

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::embeddings;
use crate::load::{ALONE, BETWEEN, MIXED, percentile};
use crate::masks::Masks;
use crate::models::Model;
use crate::rounds::{FIRST, LOAD, PEAK, Rounds, Side};

mod forms;

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// No further from one than this, on either side.
    Within(f64),
}

/// What a figure should be, and what it is wished to be one day, which is told and never missed.
#[derive(Clone, Copy, Debug)]
struct Goal {
    target: Option<Target>,
    aim: Option<Target>,
}

/// Goals of ratios, by column. Targets: what a prototype of the kernels reached beside llama.cpp on
/// a machine with AMX, less what noise takes; memory, and loading what was loaded before, as a user
/// would notice them; vectors no slower than the usual way to make them.
const GOALS: &[(&str, Goal)] = &[
    ("prefill_128", Goal::new(Target::AtLeast(1.2), Some(Target::AtLeast(2.0)))),
    ("decode_1", Goal::new(Target::AtLeast(1.1), None)),
    ("decode_8", Goal::new(Target::AtLeast(1.8), Some(Target::AtLeast(2.5)))),
    (PEAK, Goal::new(Target::AtMost(0.9), None)),
    (LOAD, Goal::new(Target::AtMost(1.2), None)),
];
/// The goal of all columns of vectors.
const EMBEDDINGS: Goal = Goal::new(Target::AtLeast(1.0), None);
/// A reader of an answer should notice little of others' long prompts: the 99th percentile of the
/// time between tokens with them, to that without.
const LOADED: Goal = Goal::new(Target::AtMost(2.0), None);
/// Of the memory's bandwidth, in percent: what is left is norms, attention and waiting.
const BANDWIDTH: Goal = Goal { target: None, aim: Some(Target::AtLeast(80.0)) };

/// The columns whose share of what the processor multiplies is told.
const MULTIPLIED: &[&str] = &["prefill_128", "prefill_512"];

/// What was printed, for the end.
#[derive(Debug, Default)]
pub(crate) struct Table {
    figures: Map<String, Value>,
    missed: Vec<String>,
}

impl Target {
    fn is_missed(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value < bound,
            Self::AtMost(bound) => value > bound,
            // What is no number is not near one either.
            Self::Within(bound) => value.is_nan() || (value - 1.0).abs() > bound,
        }
    }

    fn shown(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::AtMost(bound) => format!("<= {bound}"),
            Self::Within(bound) => format!("within {} %", bound * 100.0),
        }
    }
}

impl Goal {
    const fn new(target: Target, aim: Option<Target>) -> Self {
        Self { target: Some(target), aim }
    }

    fn is_missed(self, value: f64) -> bool {
        self.target.is_some_and(|target| target.is_missed(value))
    }

    fn shown(self, value: f64) -> String {
        let told = |target: Target, [held, missed]: [&str; 2]| {
            let verdict = if target.is_missed(value) { missed } else { held };
            format!("{} {verdict}", target.shown())
        };
        let target = self.target.map(|target| told(target, ["held", "MISSED"]));
        let aim = self.aim.map(|aim| format!("aim {}", told(aim, ["reached", "not reached"])));
        target.into_iter().chain(aim).collect::<Vec<_>>().join(", ")
    }
}

impl Table {
    /// A line of its own.
    pub(crate) fn heading(&self, text: &str) {
        print(&format!("\n{text}"));
    }

    /// One model's rows; `products` are what the processor multiplies in a second.
    pub(crate) fn model(&mut self, model: &Model, rounds: &Rounds, products: f64) {
        self.heading(&format!("{}, medians of {} rounds", model.title, model.rounds));
        print(&row(&["", "selvedge", "llama.cpp", "ratio", "target"]));
        for column in &rounds.columns {
            let sides = (rounds.ours.median(column), rounds.llama.median(column));
            let (Some(ours), Some(llama)) = sides else { continue };
            let goal = GOALS.iter().find(|(name, _)| *name == column).map(|(_, goal)| *goal);
            self.compare((model.name, column.as_str()), goal, ours, ("llama_cpp", llama));
        }
        self.first(model, rounds);
        self.loaded(model, rounds);
        self.bandwidth(model, rounds);
        self.arithmetic(model, rounds, products);
    }

    /// The rows of vectors.
    pub(crate) fn embeddings(&mut self, rounds: &embeddings::Rounds) {
        let (title, count) = (embeddings::TITLE, rounds.rounds);
        self.heading(&format!("{title}, medians of {count} rounds"));
        print(&row(&["", "selvedge", "onnxruntime", "ratio", "target"]));
        for column in &rounds.columns {
            let sides = (rounds.ours.median(column), rounds.theirs.median(column));
            let (Some(ours), Some(theirs)) = sides else { continue };
            let name = (embeddings::NAME, column.as_str());
            self.compare(name, Some(EMBEDDINGS), ours, ("onnxruntime", theirs));
        }
        print(&format!("the vectors of one text have a cosine of {:.6} at least", rounds.cosine));
        self.figures.insert(format!("{}_cosine", embeddings::NAME), json!(rounds.cosine));
    }

    fn compare(
        &mut self,
        (model, column): (&str, &str),
        goal: Option<Goal>,
        ours: f64,
        (peer, theirs): (&str, f64),
    ) {
        let ratio = ours / theirs.max(f64::MIN_POSITIVE);
        let shown = goal.map_or_else(String::new, |goal| goal.shown(ratio));
        let number = |value: f64| format!("{value:.1}");
        print(&row(&[column, &number(ours), &number(theirs), &format!("{ratio:.2}"), &shown]));
        self.figure(model, &format!("{column}_selvedge"), ours);
        self.figure(model, &format!("{column}_{peer}"), theirs);
        self.figure(model, &format!("{column}_ratio"), ratio);
        if goal.is_some_and(|goal| goal.is_missed(ratio)) {
            self.missed.push(format!("{model}_{column}_ratio"));
        }
    }

    /// Whether the first token of ours comes soon enough where the model was not loaded.
    fn first(&mut self, model: &Model, rounds: &Rounds) {
        let goal = model.first_within_ms.map(|most| Goal::new(Target::AtMost(most), None));
        let (Some(goal), Some(ours)) = (goal, rounds.ours.median(FIRST)) else { return };
        let name = format!("{FIRST} by itself");
        print(&row(&[&name, &format!("{ours:.1}"), "", "", &goal.shown(ours)]));
        if goal.is_missed(ours) {
            self.missed.push(format!("{}_{FIRST}_selvedge", model.name));
        }
    }

    /// How much longer a reader waits for tokens when there are eight clients.
    fn loaded(&mut self, model: &Model, rounds: &Rounds) {
        for (name, base, goal) in
            [("loaded_to_alone", ALONE, None), ("loaded_to_streams", "streams", Some(LOADED))]
        {
            let ratio = |side: &Side| {
                let of = |load: &str| side.median(&format!("{load}_{BETWEEN}"));
                Some(of(MIXED)? / of(base)?.max(f64::MIN_POSITIVE))
            };
            let (Some(ours), Some(llama)) = (ratio(&rounds.ours), ratio(&rounds.llama)) else {
                continue;
            };
            let shown = goal.map_or_else(String::new, |goal| goal.shown(ours));
            let number = |value: f64| format!("{value:.2}");
            print(&row(&[&format!("{name} p99"), &number(ours), &number(llama), "", &shown]));
            self.figure(model.name, &format!("{name}_selvedge"), ours);
            self.figure(model.name, &format!("{name}_llama_cpp"), llama);
            if goal.is_some_and(|goal| goal.is_missed(ours)) {
                self.missed.push(format!("{}_{name}_selvedge", model.name));
            }
        }
    }

    /// How near one answer comes to reading the weights once a token and doing nothing else.
    fn bandwidth(&mut self, model: &Model, rounds: &Rounds) {
        let share = |rate: Option<f64>| {
            let bytes = rate.unwrap_or_default() * model.step_bytes as f64;
            100.0 * bytes / rounds.cached.max(1.0)
        };
        let (ours, llama) =
            (share(rounds.ours.median("decode_1")), share(rounds.llama.median("decode_1")));
        let gigabytes = |bytes: f64| bytes / 1e9;
        let (cached, dram) = (gigabytes(rounds.cached), gigabytes(rounds.dram));
        let number = |value: f64| format!("{value:.0}");
        let (name, shown) = ("decode_1 % of bandwidth", BANDWIDTH.shown(ours));
        print(&row(&[name, &number(ours), &number(llama), "", &shown]));
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

    /// What a schema adds to an answer of ours.
    pub(crate) fn masks(&mut self, model: &Model, masks: &Masks) {
        let [half, most] = [0.5, 0.99].map(|share| percentile(&masks.tokens, share));
        let [first, compiled] = [masks.first, masks.compiled].map(|micros| micros / 1e3);
        print(&format!(
            "held to a JSON Schema: the model's first one {first:.0} ms, another {compiled:.1} ms, \
             a token {half:.0} us (p50), {most:.0} us (p99)"
        ));
        self.figure(model.name, "schema_first_ms", first);
        self.figure(model.name, "schema_ms", compiled);
        self.figure(model.name, "schema_token_p50_us", half);
        self.figure(model.name, "schema_token_p99_us", most);
    }

    /// How near a prompt comes to multiplying each token by all weights and doing nothing else.
    fn arithmetic(&mut self, model: &Model, rounds: &Rounds, products: f64) {
        for column in MULTIPLIED {
            let share = |side: &Side| {
                let rate = side.median(column).unwrap_or_default();
                100.0 * rate * model.weights as f64 / products.max(1.0)
            };
            let (ours, llama) = (share(&rounds.ours), share(&rounds.llama));
            let name = format!("{column} % of products");
            print(&row(&[&name, &format!("{ours:.0}"), &format!("{llama:.0}")]));
            self.figure(model.name, &format!("{column}_arithmetic_share_selvedge_percent"), ours);
            self.figure(model.name, &format!("{column}_arithmetic_share_llama_cpp_percent"), llama);
        }
        print(&format!(
            "a prompt's token is multiplied by {:.1} M weights; the processor's vectors multiply \
             {:.0} G bytes a second in the nearest cache",
            model.weights as f64 / 1e6,
            products / 1e9,
        ));
        self.figure(model.name, "products_g_s", products / 1e9);
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
    let mut line = format!("{:<27}", cells.first().unwrap_or(&""));
    for cell in cells.iter().skip(1).take(3) {
        line.push_str(&format!("{cell:>12}"));
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

    fn model() -> Model {
        Model {
            name: "m",
            title: "",
            path: std::path::PathBuf::new(),
            context: 0,
            step_bytes: 0,
            weights: 0,
            holds: false,
            first_within_ms: Some(300.0),
            rounds: 1,
        }
    }

    fn rounds() -> Rounds {
        Rounds {
            columns: Vec::new(),
            ours: Side::default(),
            llama: Side::default(),
            cached: 1.0,
            dram: 1.0,
        }
    }

    #[test]
    fn a_first_token_is_missed_by_its_time_and_not_by_the_other_sides() {
        for (ours, missed) in [(300.1, &["m_first_token_ms_selvedge"][..]), (299.9, &[])] {
            let (mut rounds, mut table) = (rounds(), Table::default());
            rounds.ours.note(FIRST, ours);
            rounds.llama.note(FIRST, 900.0);
            table.first(&model(), &rounds);
            table.first(&Model { first_within_ms: None, ..model() }, &rounds);
            assert_eq!(table.missed, missed);
        }
    }

    #[test]
    fn what_is_beyond_its_target_is_missed_and_named() {
        let mut table = Table::default();
        for (column, ours) in [
            ("prefill_128", 119.0),
            ("decode_1", 111.0),
            (LOAD, 121.0),
            (PEAK, 89.0),
            ("prefill_32", 1.0),
        ] {
            let goal = GOALS.iter().find(|(name, _)| *name == column).map(|(_, goal)| *goal);
            table.compare(("m", column), goal, ours, ("llama_cpp", 100.0));
        }
        assert_eq!(table.missed, ["m_prefill_128_ratio", "m_load_ms_ratio"]);
        assert_eq!(table.figures["m_prefill_128_ratio"], json!(1.19));
        assert_eq!(table.figures["m_prefill_32_llama_cpp"], json!(100.0));
    }

    #[test]
    fn a_load_is_missed_by_its_ratio_to_the_same_run_without() {
        for (mixed, missed) in [(16.1, &["m_loaded_to_streams_selvedge"][..]), (15.9, &[])] {
            let mut rounds = rounds();
            // What the other side misses is not ours.
            for (side, mixed) in [(&mut rounds.ours, mixed), (&mut rounds.llama, 500.0)] {
                for (load, value) in [(ALONE, 5.0), ("streams", 8.0), (MIXED, mixed)] {
                    side.note(&format!("{load}_{BETWEEN}"), value);
                }
            }
            let model = model();
            let mut table = Table::default();
            table.loaded(&model, &rounds);
            assert_eq!(table.missed, missed);
            assert_eq!(table.figures["m_loaded_to_alone_llama_cpp"], json!(100.0));
            assert!(table.figures.contains_key("m_loaded_to_streams_selvedge"));
        }
    }

    #[test]
    fn an_aim_is_told_and_never_missed() {
        let goal = Goal::new(Target::AtLeast(1.2), Some(Target::AtLeast(2.0)));
        assert_eq!(goal.shown(1.5), ">= 1.2 held, aim >= 2 not reached");
        assert_eq!(goal.shown(1.0), ">= 1.2 MISSED, aim >= 2 not reached");
        assert!(!goal.is_missed(1.5) && goal.is_missed(1.0));
        assert!(!BANDWIDTH.is_missed(1.0) && !BANDWIDTH.shown(85.0).contains("not"));
        assert!(LOADED.is_missed(2.1) && !LOADED.is_missed(2.0));
    }
}
