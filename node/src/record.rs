//! What is remembered of a request, as the admin API says it and people read it.
//!
//! Owns the shape of `GET /admin/requests/{id}` and telling it in words. What is remembered, and
//! how a node is chosen, belongs to `selvedge_core`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::amount::dollars_text;
use crate::ui::{self, Ink, paint, span_text};

/// One request, from arrival to its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) model: String,
    /// The model that answered instead, as a budget for the one asked for was used up.
    #[serde(default)]
    pub(crate) downgraded_to: Option<String>,
    pub(crate) tenant: String,
    /// `running`, `finished`, `failed` or `cancelled`.
    pub(crate) outcome: String,
    /// Why the answer ended, or why there is none.
    pub(crate) reason: String,
    pub(crate) prompt_tokens: u32,
    pub(crate) completion_tokens: u32,
    pub(crate) took_us: u64,
    pub(crate) first_token_us: Option<u64>,
    /// The longest pause that a change of node caused.
    pub(crate) longest_gap_us: Option<u64>,
    /// The targets it could go to, in order, where there was more to choose than a node.
    #[serde(default)]
    pub(crate) legs: Vec<Leg>,
    /// Every node that was tried, in order.
    pub(crate) attempts: Vec<Attempt>,
    /// What trying small models first saved, in millionths of a dollar: less than 0 when it cost
    /// more. None where the route does not, or the largest model bills nothing or has no known
    /// price.
    #[serde(default)]
    pub(crate) saved_micro_dollars: Option<i64>,
    /// The same in words.
    #[serde(default)]
    pub(crate) saving: Option<String>,
    /// What its targets bill together, in millionths of a dollar.
    #[serde(default)]
    pub(crate) micro_dollars: u64,
}

/// One target: a model of the mesh, or of a provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Leg {
    /// `MODEL` or `PROVIDER/MODEL`.
    pub(crate) target: String,
    /// Why it stands where it stands.
    pub(crate) why: String,
    /// Whether it was asked.
    pub(crate) asked: bool,
    /// Why it did not answer, or why its answer broke off.
    pub(crate) ended: Option<String>,
    /// How sure it was of its answer, where that decides.
    #[serde(default)]
    pub(crate) judged: Option<String>,
    /// Tokens of prompt and answer that it took.
    #[serde(default)]
    pub(crate) tokens: u64,
    /// What it bills, in millionths of a dollar, by the catalogue in force.
    #[serde(default)]
    pub(crate) micro_dollars: u64,
}

/// One node's turn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Attempt {
    pub(crate) node: String,
    pub(crate) name: String,
    /// Tokens the caller had when this turn began.
    pub(crate) from_index: u32,
    /// Why the turn ended before the answer did.
    pub(crate) ended: Option<String>,
    pub(crate) candidates: Vec<Candidate>,
}

/// A node that was considered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Candidate {
    pub(crate) node: String,
    pub(crate) name: String,
    /// Estimated time to the end of the answer.
    pub(crate) estimate_us: u64,
    pub(crate) verdict: String,
}

impl Record {
    /// Why the last node of the record answered, in one line.
    pub(crate) fn why(&self) -> Option<String> {
        let attempt = self.attempts.last()?;
        let about = |candidate: &Candidate| {
            format!("{} {}", candidate.verdict, estimate(candidate.estimate_us))
        };
        let chosen = attempt.candidates.iter().find(|candidate| candidate.node == attempt.node)?;
        let others: Vec<String> = attempt
            .candidates
            .iter()
            .filter(|candidate| candidate.node != attempt.node)
            .map(|candidate| format!("{}: {}", candidate.name, about(candidate)))
            .collect();
        let others = match others.as_slice() {
            [] => "no other node has the model".to_owned(),
            _ => others.join("; "),
        };
        Some(format!("{}; {others}", about(chosen)))
    }

    /// The whole record for people.
    pub(crate) fn told(&self) -> String {
        let mut text = format!("{}  {}", paint(Ink::Bold, &self.id), self.model);
        let first = self
            .first_token_us
            .map_or(String::new(), |first| format!(", first token after {}", span_text(first)));
        text.push_str(&format!(
            "\n{} ({}): {} prompt and {} answer tokens in {}{first}",
            self.outcome,
            self.reason,
            self.prompt_tokens,
            self.completion_tokens,
            span_text(self.took_us)
        ));
        if let Some(model) = &self.downgraded_to {
            text.push_str(&format!("\nanswered by {model}: the budget for the other was used up"));
        }
        if let Some(gap) = self.longest_gap_us {
            text.push_str(&format!("\nlongest pause from a change of node: {}", span_text(gap)));
        }
        for (index, leg) in self.legs.iter().enumerate() {
            let (asked, ended) = (leg.asked, leg.ended.as_deref());
            let what = match (asked, ended) {
                (true, None) => "answered".to_owned(),
                (true, Some(why)) => format!("asked, until: {why}"),
                (false, Some(why)) => format!("not asked: {why}"),
                (false, None) => "not needed".to_owned(),
            };
            let judged = leg.judged.as_ref().map_or(String::new(), |judged| format!("; {judged}"));
            let target = paint(Ink::Bold, &leg.target);
            let billed = match leg.micro_dollars {
                0 => String::new(),
                billed => format!("; {} tokens for {} usd", leg.tokens, dollars_text(billed)),
            };
            text.push_str(&format!(
                "\n{}. {target} ({}): {what}{judged}{billed}",
                index + 1,
                leg.why
            ));
        }
        if let Some(saving) = &self.saving {
            text.push_str(&format!("\nsmall models first: {saving}"));
        }
        for (index, attempt) in self.attempts.iter().enumerate() {
            text.push_str(&format!(
                "\n\n{}. {} from token {}{}",
                index + 1,
                paint(Ink::Bold, &attempt.name),
                attempt.from_index,
                attempt.ended.as_ref().map_or(String::new(), |why| format!(", until: {why}"))
            ));
            let mut rows = vec![vec!["node".into(), "estimate".into(), "verdict".into()]];
            rows.extend(attempt.candidates.iter().map(|candidate| {
                let verdict = candidate.verdict.clone();
                vec![candidate.name.clone(), span_text(candidate.estimate_us), verdict]
            }));
            for line in ui::table(&rows).lines() {
                text.push_str(&format!("\n   {line}"));
            }
        }
        text
    }
}

fn estimate(micros: u64) -> String {
    format!("(about {})", span_text(micros))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn record() -> Record {
        let candidate = |name: &str, estimate_us, verdict: &str| Candidate {
            node: format!("id-{name}"),
            name: name.to_owned(),
            estimate_us,
            verdict: verdict.to_owned(),
        };
        Record {
            outcome: "finished".to_owned(),
            attempts: vec![Attempt {
                node: "id-alder".to_owned(),
                name: "alder".to_owned(),
                candidates: vec![
                    candidate("alder", 900_000, "fastest"),
                    candidate("birch", 1_500_000, "slower"),
                ],
                ended: Some("connection lost".to_owned()),
                ..Attempt::default()
            }],
            ..Record::default()
        }
    }

    #[test]
    fn the_choice_is_told_with_its_alternatives() {
        let why = record().why().unwrap();
        assert_eq!(why, "fastest (about 900 ms); birch: slower (about 1.5 s)");
        let told = record().told();
        for part in ["alder from token 0, until: connection lost", "birch", "slower"] {
            assert!(told.contains(part), "{told}");
        }
        assert_eq!(Record::default().why(), None);
        assert!(!told.contains("answered by"), "{told}");
        let instead = Record { downgraded_to: Some("small".to_owned()), ..record() };
        assert!(instead.told().contains("answered by small: the budget"), "{}", instead.told());
    }
}
