//! A decision in words, as a record that can be stored, sent and shown.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::check::{Place, Policy, Target};
use super::decision::{Decision, Standing, Verdict};
use crate::catalogue::Price;

/// The shape of an [`Explanation`].
const EXPLANATION_VERSION: u8 = 1;

/// Why a request goes where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Its shape: 1.
    pub version: u8,
    /// The model as the caller wrote it.
    pub asked: String,
    /// The aliases that were followed.
    pub via: Vec<String>,
    /// The route.
    pub route: String,
    /// Its policy.
    pub policy: String,
    /// How hard the request looks, where the policy asks.
    pub complexity: Option<String>,
    /// All targets in the order written.
    pub targets: Vec<ExplainedTarget>,
}

/// Why a target is tried or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedTarget {
    /// `mesh MODEL` or `PROVIDER MODEL`.
    pub target: String,
    /// `chosen`, `next (2)`, `not used` or `excluded`.
    pub verdict: String,
    /// Its score, when it is usable.
    pub score: Option<String>,
    /// All reasons, when it is excluded.
    pub because: Vec<String>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

impl Decision {
    /// The decision in words.
    pub fn explain(&self) -> Explanation {
        let targets = self.route.targets.iter().zip(&self.verdicts);
        Explanation {
            version: EXPLANATION_VERSION,
            asked: self.asked.clone(),
            via: self.via.clone(),
            route: self.route.name.clone(),
            policy: words(self.route.policy),
            complexity: self.complexity.map(|complexity| complexity.to_string()),
            targets: targets.map(|(target, verdict)| explained(target, verdict)).collect(),
        }
    }
}

fn explained(target: &Target, verdict: &Verdict) -> ExplainedTarget {
    let (standing, because) = match &verdict.standing {
        Standing::Chosen => ("chosen".to_owned(), Vec::new()),
        Standing::Next(at) => (format!("next ({at})"), Vec::new()),
        Standing::Unused => ("not used".to_owned(), Vec::new()),
        Standing::Excluded(reasons) => {
            ("excluded".to_owned(), reasons.iter().map(ToString::to_string).collect())
        }
    };
    let name = match &target.place {
        Place::Mesh { .. } => "mesh",
        Place::Provider { provider, .. } => provider,
    };
    ExplainedTarget {
        target: format!("{name} {}", verdict.model),
        verdict: standing,
        score: verdict.score.as_ref().map(ToString::to_string),
        because,
        notes: notes(target, verdict),
    }
}

fn notes(target: &Target, verdict: &Verdict) -> Vec<String> {
    let mut notes = Vec::new();
    match (&target.place, &verdict.known) {
        (Place::Mesh { .. }, _) => {}
        (Place::Provider { .. }, None) => {
            notes.push("the catalogue does not know it: what it can do is not checked".to_owned());
        }
        (Place::Provider { .. }, Some(known)) => {
            if known.id != verdict.model && !known.aliases.contains(&verdict.model) {
                notes.push(format!("taken for '{}' of the catalogue", known.id));
            }
            if known.deprecated {
                notes.push("the provider means to switch it off".to_owned());
            }
            if known.price == Price::Unknown {
                notes.push("its price is not known".to_owned());
            } else {
                notes.push(format!("price as of {}", known.as_of));
            }
        }
    }
    notes
}

fn words(policy: Policy) -> String {
    match policy {
        Policy::Fixed => "fixed: the first usable target alone".to_owned(),
        Policy::Fallback => "fallback: usable targets in the order written".to_owned(),
        Policy::Weighted(_) => "weighted: by shares, the same caller by the same".to_owned(),
        Policy::Cheapest => "cheapest: by the price of a usual answer".to_owned(),
        Policy::Fastest => "fastest: by the measured time of a usual answer".to_owned(),
        Policy::LeastLoaded => "least-loaded: by requests in progress".to_owned(),
        Policy::SmallFirst { min_confidence: None } => {
            "small-first: the smallest that is large enough, then larger ones".to_owned()
        }
        Policy::SmallFirst { min_confidence: Some(least) } => format!(
            "small-first: the smallest that is large enough; larger ones when the answer's mean \
             log-probability is below {least} thousandths"
        ),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.asked)?;
        for alias in self.via.iter().skip(1) {
            write!(f, " > '{alias}'")?;
        }
        writeln!(f, " goes by route '{}', {}", self.route, self.policy)?;
        if let Some(complexity) = &self.complexity {
            writeln!(f, "complexity {complexity}")?;
        }
        for target in &self.targets {
            write!(f, "  {}: {}", target.target, target.verdict)?;
            for reason in target.score.iter().chain(&target.because).chain(&target.notes) {
                write!(f, "; {reason}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
