//! What the command line asks for.

use anyhow::{Context, Result, bail};

use crate::peers::Peer;
use crate::scenario::Scenario;

/// What to measure and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// End with one JSON object.
    pub json: bool,
    /// Short spans, one round: for a look, not for a table.
    pub quick: bool,
    /// Without real-time priority: other work on the machine shows in the figures.
    pub fair: bool,
    /// The gateways.
    pub peers: Vec<Peer>,
    /// The scenarios.
    pub scenarios: Vec<Scenario>,
}

/// How long things last.
#[derive(Clone, Copy, Debug)]
pub struct Spans {
    /// Rounds whose median counts.
    pub rounds: usize,
    /// Load at saturation that counts, in milliseconds.
    pub saturated_ms: u64,
    /// Load at a fixed rate that counts, in milliseconds.
    pub fixed_ms: u64,
    /// Pieces of the load that lasts, after each of which memory is read.
    pub soak_pieces: usize,
    /// Each of them, in milliseconds.
    pub soak_ms: u64,
}

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    /// When a word is not known; with those that are.
    pub fn read(words: &[String]) -> Result<Self> {
        let mut options = Self {
            json: false,
            quick: false,
            fair: false,
            peers: Peer::ALL.to_vec(),
            scenarios: Scenario::ALL.into_iter().filter(|one| !one.is_long()).collect(),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut list = || words.next().context("a list of names is missing");
            match word.as_str() {
                "--json" => options.json = true,
                "--quick" => options.quick = true,
                "--fair" => options.fair = true,
                "--only" => options.peers = pick(list()?, &Peer::ALL, Peer::name)?,
                "--scenario" => {
                    options.scenarios = pick(list()?, &Scenario::ALL, Scenario::name)?;
                }
                other => bail!(
                    "unknown option `{other}`; there are --json, --quick, --fair, \
                     --only GATEWAY,... and --scenario NAME,..."
                ),
            }
        }
        Ok(options)
    }

    /// How long things last.
    pub fn spans(&self) -> Spans {
        if self.quick {
            Spans { rounds: 1, saturated_ms: 1_000, fixed_ms: 800, soak_pieces: 10, soak_ms: 500 }
        } else {
            // Three rounds make a median; three seconds are 300 ticks of the kernel's CPU clock.
            // Ten minutes of load in as many pieces show a leak of a megabyte. Each ends before a
            // gateway may close what was idle in it, which would meet the next request half-way.
            Spans {
                rounds: 3,
                saturated_ms: 3_000,
                fixed_ms: 2_000,
                soak_pieces: 120,
                soak_ms: 5_000,
            }
        }
    }
}

/// Those of `all` that a comma-separated list names, in the order of `all`.
fn pick<T: Copy>(list: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<Vec<T>> {
    let named: Vec<&str> = list.split(',').filter(|word| !word.is_empty()).collect();
    if let Some(unknown) = named.iter().find(|word| !all.iter().any(|one| name(*one) == **word)) {
        let known: Vec<&str> = all.iter().map(|one| name(*one)).collect();
        bail!("no `{unknown}`; there are: {}", known.join(", "));
    }
    Ok(all.iter().copied().filter(|one| named.contains(&name(*one))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_picked_and_unknown_ones_refused() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let options = Options::read(&words(&["--only", "nginx,floor", "--quick"])).unwrap();
        assert_eq!(options.peers, [Peer::Floor, Peer::Nginx]);
        assert_eq!(options.spans().rounds, 1);
        assert!(!options.scenarios.contains(&Scenario::Soak));
        let named = Options::read(&words(&["--scenario", "soak"])).unwrap();
        assert_eq!(named.scenarios, [Scenario::Soak]);
        let error = Options::read(&words(&["--only", "apache"])).unwrap_err().to_string();
        assert!(error.contains("apache") && error.contains("haproxy"), "{error}");
        assert!(Options::read(&words(&["--fast"])).is_err());
    }
}
