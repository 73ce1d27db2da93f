//! The digits, and who trains on which of them.
//!
//! Owns reading how they are divided: as the published figures were measured, by numpy's draws, so
//! that both have the same divisions. What draws them is tests/compare/digits.py. A node's clients
//! have data of their own and need no division.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use selvedge_tests::digits::{self, Digits};
use selvedge_tests::home::TempDir;
use selvedge_tests::time::Deadline;
use selvedge_tests::{places, process};
use selvedge_train::Examples;

use crate::run::CLIENTS;

/// Thirty seeds take some seconds.
const PATIENCE_SECS: u64 = 120;

/// How unequal the clients' examples are, as digits.py calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Division {
    /// Every client gets the same mix.
    Equal,
    /// By shares drawn from a Dirichlet distribution of concentration 0.5.
    Half,
    /// The same of concentration 0.1: most of a class is one client's.
    Tenth,
    /// Two pieces of what is sorted by label.
    Shards,
}

impl Division {
    const fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Half => "dirichlet_0.5",
            Self::Tenth => "dirichlet_0.1",
            Self::Shards => "shards_2",
        }
    }
}

/// The digits with their divisions.
pub(crate) struct Divided {
    pub(crate) digits: Digits,
    /// Of each division, by seed, by client: places among those that are trained on.
    places: BTreeMap<String, Vec<Vec<Vec<usize>>>>,
}

impl Divided {
    /// Reads the digits, and divides them for so many seeds from 0.
    pub(crate) fn load(seeds: u64) -> Result<Self> {
        let digits = digits::load().context("reading the digits")?;
        let script = places::repository().join("tests/compare/digits.py");
        let words = [script.display().to_string(), digits::folder().display().to_string()];
        let home = TempDir::new()?;
        let out = home.path().join("divisions.json");
        let (clients, seeds, file) =
            (CLIENTS.to_string(), seeds.to_string(), out.display().to_string());
        let asked = ["divide".to_owned(), clients, seeds, file];
        let words: Vec<String> = words.into_iter().chain(asked).collect();
        let deadline = Deadline::secs(PATIENCE_SECS);
        let ran = process::run(&places::python()?, &words, None, &[], deadline)?;
        ran.success().context("tests/compare/digits.py")?;
        let told = fs::read(&out).context("what digits.py wrote")?;
        let places: BTreeMap<String, Vec<Vec<Vec<usize>>>> =
            serde_json::from_slice(&told).context("what digits.py wrote")?;
        for parts in places.values().flatten() {
            let mut all: Vec<usize> = parts.iter().flatten().copied().collect();
            all.sort_unstable();
            ensure!(all.iter().copied().eq(0..digits.train.len()), "a digit is nobody's, or two's");
        }
        Ok(Self { digits, places })
    }

    /// What each client trains on.
    pub(crate) fn clients(&self, division: Division, seed: u64) -> Result<Vec<Examples>> {
        let name = division.name();
        let parts = self.places.get(name).and_then(|seeds| seeds.get(usize::try_from(seed).ok()?));
        let parts = parts.with_context(|| format!("{name} was not divided for seed {seed}"))?;
        Ok(parts.iter().map(|places| self.digits.train.pick(places)).collect())
    }
}
