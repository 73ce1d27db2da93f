//! Which plan a command line means, and how to type it again.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use selvedge_sim::diff::Traced;
use selvedge_sim::{Plan, Scenario, scenarios};

use super::cli::Source;

/// The largest file that is read as a plan: thousands of faults.
const LARGEST_PLAN: u64 = 8 << 20;

/// A plan, what it is called, and how to run it again.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) plan: Plan,
    pub(super) scenario: Option<&'static Scenario>,
    /// What was recorded of an earlier run of it.
    pub(super) recorded: Option<Traced>,
    /// The options that name it on a command line.
    pub(super) words: String,
}

impl Subject {
    /// What the options of a command name; a seeded plan when they name nothing.
    pub(super) fn of(source: &Source) -> Result<Self> {
        if let Some(path) = &source.plan {
            return Self::of_file(path, "--plan ");
        }
        let seed = source.seed.unwrap_or(0);
        match &source.scenario {
            None => Ok(Self::of_seed(seed)),
            Some(name) => {
                let nodes = source.nodes.map_or(0, usize::from);
                Self::of_scenario(name, nodes, seed)
            }
        }
    }

    pub(super) fn of_seed(seed: u64) -> Self {
        let (plan, words) = (Plan::seeded(seed), format!("--seed {seed}"));
        Self { plan, scenario: None, recorded: None, words }
    }

    pub(super) fn of_scenario(name: &str, nodes: usize, seed: u64) -> Result<Self> {
        let Some(scenario) = scenarios().iter().find(|one| one.name == name) else {
            bail!("there is no scenario '{name}'{}; `selvedge sim list` names them", alike(name));
        };
        let plan = Plan::scenario(name, nodes, seed)?;
        if nodes != 0 && plan.nodes != nodes {
            bail!("the scenario '{name}' needs at least {} nodes", scenario.nodes_least);
        }
        let nodes = plan.nodes;
        let words = format!("--scenario {name} --nodes {nodes} --seed {seed}");
        Ok(Self { plan, scenario: Some(scenario), recorded: None, words })
    }

    /// A plan in TOML, or a recorded run in JSON. `option` is what stands before the path when it
    /// is typed again.
    pub(super) fn of_file(path: &Path, option: &str) -> Result<Self> {
        let shown = path.display();
        let size = std::fs::metadata(path).with_context(|| format!("reading {shown}"))?.len();
        if size > LARGEST_PLAN {
            bail!("{shown} has {size} bytes; a plan has at most {LARGEST_PLAN}");
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {shown}"))?;
        let words = format!("{option}{shown}");
        if text.trim_start().starts_with('{') {
            let traced: Traced =
                serde_json::from_str(&text).with_context(|| format!("{shown} is no trace"))?;
            if !traced.is_known() {
                bail!("{shown} was written by a newer selvedge");
            }
            traced.plan.check().with_context(|| format!("the plan in {shown}"))?;
            let plan = traced.plan.clone();
            return Ok(Self { plan, scenario: None, recorded: Some(traced), words });
        }
        let plan = Plan::from_toml(&text).with_context(|| format!("{shown} is no plan"))?;
        Ok(Self { plan, scenario: None, recorded: None, words })
    }

    /// A seed, or a file.
    pub(super) fn of_word(word: &str) -> Result<Self> {
        match word.parse::<u64>() {
            Ok(seed) => Ok(Self::of_seed(seed)),
            Err(_) => Self::of_file(Path::new(word), ""),
        }
    }

    /// The command that runs it again.
    pub(super) fn replay(&self) -> String {
        format!("selvedge sim replay {}", self.words)
    }

    /// The command that makes it small.
    pub(super) fn shrink(&self) -> String {
        format!("selvedge sim shrink {}", self.words)
    }

    /// Its name in reports.
    pub(super) fn name(&self) -> String {
        match self.scenario {
            Some(scenario) => scenario.name.to_owned(),
            None => format!("seed {}", self.plan.seed),
        }
    }
}

/// A scenario whose name shares its beginning or a word with what was typed.
fn alike(name: &str) -> String {
    let shares = |one: &&Scenario| {
        one.name.split('-').any(|part| name.split('-').any(|word| word == part))
            || name.get(..3).is_some_and(|head| one.name.starts_with(head))
    };
    scenarios()
        .iter()
        .find(shares)
        .map_or(String::new(), |one| format!("; did you mean '{}'?", one.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_again_names_the_same_plan() {
        let source = Source { seed: Some(7), ..Source::default() };
        let subject = Subject::of(&source).unwrap();
        assert_eq!(subject.replay(), "selvedge sim replay --seed 7");
        assert_eq!(subject.plan, Plan::seeded(7));
        let first = scenarios()[0].name;
        let subject = Subject::of_scenario(first, 0, 3).unwrap();
        let nodes = subject.plan.nodes;
        assert_eq!(subject.words, format!("--scenario {first} --nodes {nodes} --seed 3"));
    }

    #[test]
    fn a_wrong_name_is_answered_with_a_right_one() {
        let first = scenarios()[0].name;
        let wrong = format!("{}x", &first[..first.len() - 1]);
        let error = Subject::of_scenario(&wrong, 0, 1).unwrap_err().to_string();
        assert!(error.contains("did you mean"), "{error}");
        assert!(Subject::of_word("/no/such/plan.toml").is_err());
    }
}
