//! What routing knows of a request.

use std::collections::BTreeSet;

use selvedge_proto::policy::Unit;
use selvedge_proto::wire::Label;
use serde::{Deserialize, Serialize};

use super::Signals;
use crate::catalogue::Needs;
use crate::quota::Remaining;

/// Tokens of an answer that prices and times are compared for: a usual chat answer. Callers' limits
/// are often far above what they get.
const USUAL_ANSWER_TOKENS: u32 = 256;

/// A request, as far as routing looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The model as the caller wrote it.
    pub model: String,
    /// What it needs of whatever answers.
    pub needs: Needs,
    /// How far its data may travel.
    pub boundary: Boundary,
    /// Whose it is.
    pub tenant: String,
    /// The user it names.
    pub user: Option<String>,
    /// The conversation it belongs to.
    pub conversation: Option<String>,
    /// The tightest budget of money of its caller; `None` when no budget counts money.
    pub money: Option<Money>,
    /// What its complexity is told by; of use where [`super::Routes::asks_complexity`] says so.
    pub signals: Signals,
    /// Where chance comes from: the same seed makes the same choice.
    pub seed: u64,
}

/// How much of a budget is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// In thousandths of the budget.
    pub left_permille: u16,
}

impl Money {
    /// The tightest budget of money among those that count; all of it, where none has been counted
    /// from yet.
    pub fn of(left: &[Remaining]) -> Self {
        let left = left.iter().filter(|left| left.unit == Unit::MicroDollars);
        let permille = left.map(|left| {
            let of = u128::from(left.remaining) * 1_000 / u128::from(left.limit.max(1));
            u16::try_from(of).unwrap_or(1_000)
        });
        Self { left_permille: permille.min().unwrap_or(1_000) }
    }
}

/// How far a request's data may travel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Boundary {
    /// Not beyond the node that took it.
    Node,
    /// Not beyond its site.
    Site,
    /// Not beyond the mesh.
    #[default]
    Mesh,
    /// Not beyond the mesh and providers in these regions.
    Regions(BTreeSet<String>),
    /// Anywhere.
    Anywhere,
}

impl From<Label> for Boundary {
    fn from(label: Label) -> Self {
        match label {
            Label::Node => Self::Node,
            Label::Site => Self::Site,
            Label::Mesh => Self::Mesh,
            Label::Anywhere => Self::Anywhere,
        }
    }
}

impl Request {
    /// Tokens of the answer that prices and times are compared for.
    pub fn expected_answer(&self) -> u32 {
        if self.needs.embeddings {
            return 0;
        }
        self.needs.output_tokens.unwrap_or(USUAL_ANSWER_TOKENS).min(USUAL_ANSWER_TOKENS)
    }
}
