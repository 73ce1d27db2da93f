//! The rounds of one model: both sides loaded, then every column in turn.
//!
//! Owns the order. Each round starts both anew, so that every round has its own loading and its own
//! peak; who is asked first alternates. Ours is started twice: a file that was never loaded is
//! packed and kept, and what it then has it maps, as the other side maps the file itself.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::driver::{Driver, Starter};
use crate::load::{ALONE, BETWEEN, LOADS, MIXED};
use crate::models::Model;
use crate::progress::say;
use crate::{bandwidth, load, ours, place};

/// Threads of both sides: the cores of the smallest machine that is worth serving from.
pub(crate) const THREADS: usize = 2;
/// Lengths of prompts, in tokens.
const PROMPTS: &[u32] = &[32, 128, 512, 2_048];
/// Answers computed together.
const BATCHES: &[u32] = &[1, 4, 8, 16];
/// Tokens of each prompt before the answers: a short question.
const QUESTION: u32 = 32;
/// Tokens of each answer: a paragraph.
const STEPS: u32 = 128;
/// More than there are columns and loads.
const SALTS: u32 = 16;
/// What is shown of the loads.
const SHOWN: &[(&str, &[&str])] = &[
    (ALONE, &["between_p50_ms", BETWEEN]),
    ("streams", &[BETWEEN]),
    (MIXED, &["first_p50_ms", "first_p99_ms", "between_p50_ms", BETWEEN]),
];
/// Larger than any cache of the machines that are measured.
const DRAM_BYTES: u64 = 1 << 30;

/// What was measured of one side: by column, one value a round.
#[derive(Debug, Default)]
pub(crate) struct Side(BTreeMap<String, Vec<f64>>);

/// What was measured of a model.
#[derive(Debug)]
pub(crate) struct Rounds {
    /// The columns in the order of the table.
    pub(crate) columns: Vec<String>,
    pub(crate) ours: Side,
    pub(crate) llama: Side,
    /// Bytes per second of reading as much as a step reads, and of reading what no cache holds.
    pub(crate) cached: f64,
    pub(crate) dram: f64,
}

impl Side {
    /// Notes a round's value.
    pub(crate) fn note(&mut self, column: &str, value: f64) {
        self.0.entry(column.to_owned()).or_default().push(value);
    }

    /// The median of the rounds; the lower middle one of an even number.
    pub(crate) fn median(&self, column: &str) -> Option<f64> {
        let mut values = self.0.get(column)?.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len().checked_sub(1)? / 2).copied()
    }
}

/// The column of loading a file that was never loaded, in milliseconds. The other side has one way
/// to load, which stands in both columns.
pub(crate) const LOAD_FIRST: &str = "load_first_ms";
/// The column of loading a file that was loaded before, in milliseconds.
pub(crate) const LOAD: &str = "load_ms";
/// The column of the first token of a short prompt, from the start of loading a file that was never
/// loaded, in milliseconds.
pub(crate) const FIRST: &str = "first_token_ms";
/// The same of a file that was loaded before.
const FIRST_MAPPED: &str = "first_token_mapped_ms";
/// The column of the peak of memory.
pub(crate) const PEAK: &str = "peak_mib";

/// Measures a model on both sides.
pub(crate) fn run(starter: &Starter, peer: &Path, model: &Model) -> Result<Rounds> {
    // Loading is measured of a file that is in the system's cache.
    let mut file = std::fs::File::open(&model.path)
        .with_context(|| format!("opening {}", model.path.display()))?;
    std::io::copy(&mut file, &mut std::io::sink())?;
    let orders = orders(model.context);
    let mut columns: Vec<String> = orders.iter().map(|(column, _)| column.clone()).collect();
    columns.extend([LOAD_FIRST, LOAD, FIRST, FIRST_MAPPED, PEAK].map(str::to_owned));
    let shown = SHOWN.iter().flat_map(|(load, names)| names.iter().map(move |name| (load, name)));
    columns.extend(shown.map(|(load, name)| format!("{load}_{name}")));
    let mut rounds = Rounds {
        columns,
        ours: Side::default(),
        llama: Side::default(),
        cached: bandwidth::read(starter, model.step_bytes, THREADS)?,
        dram: bandwidth::read(starter, DRAM_BYTES, THREADS)?,
    };
    for round in 0..model.rounds {
        say(&format!("{}: round {} of {}", model.name, round + 1, model.rounds));
        let mut sides = one(starter, peer, model, round, &orders, &mut rounds)?;
        under_load(&mut sides, round, &mut rounds)?;
    }
    Ok(rounds)
}

fn one(
    starter: &Starter,
    peer: &Path,
    model: &Model,
    round: u32,
    orders: &[(String, String)],
    rounds: &mut Rounds,
) -> Result<[Driver; 2]> {
    let path = model.path.to_str().context("a path that is no text")?;
    let threads = THREADS.to_string();
    let this = std::env::current_exe()?;
    let packed = emptied()?;
    let packed = packed.to_str().context("a path that is no text")?;
    let start_ours = || starter.start(&this, &[ours::WORD, path, &threads, packed]);
    let first = format!("first {}", ours::WARMING);
    // With nothing kept: what the first load of a file costs, which packs it.
    let mut once = start_ours()?;
    let took = once.load + once.ask(&first)?.took;
    rounds.ours.note(LOAD_FIRST, milliseconds(once.load));
    rounds.ours.note(FIRST, milliseconds(took));
    drop(once);
    let start_llama = || starter.start(peer, &[path, &threads]);
    let (mut ours, mut llama) = if round.is_multiple_of(2) {
        (start_ours()?, start_llama()?)
    } else {
        let llama = start_llama()?;
        (start_ours()?, llama)
    };
    // Before anything else is asked: nothing is warm but the files.
    let mut turns = [
        (&mut ours, &mut rounds.ours, &[FIRST_MAPPED][..]),
        (&mut llama, &mut rounds.llama, &[FIRST, FIRST_MAPPED]),
    ];
    turns.rotate_left(round as usize % 2);
    for (driver, side, columns) in turns {
        let took = driver.load + driver.ask(&first)?.took;
        columns.iter().for_each(|column| side.note(column, milliseconds(took)));
    }
    for (number, (column, order)) in (0..).zip(orders) {
        // Prompts differ, or whose they are does, so that none is helped by another.
        let order = format!("{order} {}", round * SALTS + number);
        let (mine, theirs) = (&mut rounds.ours, &mut rounds.llama);
        let mut turns = [(&mut ours, mine), (&mut llama, theirs)];
        turns.rotate_left((round + number) as usize % 2);
        for (driver, side) in turns {
            side.note(column, driver.ask(&order)?.rate());
        }
    }
    for (driver, side) in [(&ours, &mut rounds.ours), (&llama, &mut rounds.llama)] {
        side.note(LOAD, milliseconds(driver.load));
        side.note(PEAK, driver.peak_mib()?);
    }
    rounds.llama.note(LOAD_FIRST, milliseconds(llama.load));
    Ok([ours, llama])
}

fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

/// Where our side keeps packed weights, with nothing in it.
fn emptied() -> Result<PathBuf> {
    let folder = place::folder()?.join("packed");
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("emptying {}", folder.display()))
        }
        Ok(()) | Err(_) => Ok(folder),
    }
}

/// The loads, after the peak was read: what eight long contexts take is not what a model takes.
fn under_load([ours, llama]: &mut [Driver; 2], round: u32, rounds: &mut Rounds) -> Result<()> {
    for (number, (name, streams, longs)) in (0..).zip(LOADS) {
        let salt = (round + 1) * SALTS - 1 - number;
        let order = format!("{} {salt}", load::order(*streams, *longs));
        let mut turns = [(&mut *ours, &mut rounds.ours), (&mut *llama, &mut rounds.llama)];
        turns.rotate_left((round + number) as usize % 2);
        for (driver, side) in turns {
            for (figure, value) in load::figures(&driver.list(&order)?)? {
                side.note(&format!("{name}_{figure}"), value);
            }
        }
    }
    Ok(())
}

/// The columns with what is asked of a driver for each, for a model of this context.
fn orders(context: u32) -> Vec<(String, String)> {
    let fitting = PROMPTS.iter().filter(|&&tokens| tokens < context);
    let prompts = fitting.map(|tokens| (format!("prefill_{tokens}"), format!("prefill {tokens}")));
    let answers = BATCHES
        .iter()
        .map(|batch| (format!("decode_{batch}"), format!("decode {batch} {QUESTION} {STEPS}")));
    prompts.chain(answers).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_one_of_the_rounds() {
        let mut side = Side::default();
        assert_eq!(side.median("x"), None);
        for value in [5.0, 1.0, 9.0, 3.0] {
            side.note("x", value);
        }
        assert_eq!(side.median("x"), Some(3.0));
        side.note("x", 4.0);
        assert_eq!(side.median("x"), Some(4.0));
    }

    #[test]
    fn a_prompt_that_does_not_fit_is_not_asked() {
        let names = |context| -> Vec<String> {
            orders(context).into_iter().map(|(column, _)| column).collect()
        };
        assert!(names(8_192).contains(&"prefill_2048".to_owned()));
        assert!(!names(2_048).contains(&"prefill_2048".to_owned()));
        assert!(names(2_048).contains(&"decode_16".to_owned()));
    }
}
