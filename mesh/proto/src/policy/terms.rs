//! What a budget says: what it counts, how much of it, in which time, and what happens at its end.
//!
//! Owns the words and the checks of one budget. Does not own who gets which share of it, nor when
//! it takes effect.

use selvedge_base::Wall;
use serde::{Deserialize, Serialize};

use super::account::is_word;
use super::{Period, PolicyError};

/// Models one scope may list: more fit a prefix.
pub const MAX_SCOPE_MODELS: usize = 16;
/// The longest name of a model in a policy.
pub const MAX_MODEL_BYTES: usize = 128;
/// Parts a window may vest in: the minutes of a day, more than any operator wants to look at.
pub const MAX_SUB_WINDOWS: u32 = 1_440;

/// What a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Unit {
    /// Tokens of prompts and answers.
    Tokens,
    /// Requests.
    Requests,
    /// Millionths of a dollar; local models cost none.
    MicroDollars,
    /// Requests at the same time: permits that come back, not spending.
    Concurrent,
    /// Requests per period, evenly spaced (GCRA).
    Rate,
}

/// How strict a budget is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hardness {
    /// Never exceeded by honest nodes.
    Hard,
    /// Every node may go one block of so many units over.
    Elastic {
        /// Units per node.
        block: u64,
    },
}

/// What a request gets when a budget is used up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnExhausted {
    /// A refusal.
    Refuse,
    /// This model instead.
    Downgrade(String),
    /// Local models only.
    LocalOnly,
}

/// Which calls a budget counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// All of them.
    All,
    /// Those that a provider is paid for.
    Cloud,
    /// Those that the mesh computes.
    Local,
    /// Those of these models: names, or prefixes that end in `*`.
    Models(Vec<String>),
}

/// One budget of one account, as an epoch says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetSpec {
    /// What people call it; unique in its account.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// Its window. Without meaning for [`Unit::Concurrent`].
    pub period: Period,
    /// How much of the unit in one window; for [`Unit::Concurrent`] at any time.
    pub limit: u64,
    /// How strict it is.
    pub hardness: Hardness,
    /// What happens when it is used up.
    pub on_exhausted: OnExhausted,
    /// Which calls it counts.
    pub scope: Scope,
    /// Parts in which a window becomes usable; 1 is all at once.
    pub sub_windows: u32,
    /// Whether a mark counts only once a majority of the holders keeps it, so that what a node that
    /// is gone has left can be taken over within the window. Never changes under one `born`.
    #[serde(with = "witnessed")]
    pub reclaimable: bool,
    /// The epoch that introduced it. Unit and period never change under one `born`.
    pub born: u64,
    /// The epoch since which nobody's grant changed: the number of the ledger of a concurrency
    /// limit or a rate, which no calendar divides.
    pub ledger: u64,
    /// When the operator last chose the limit. Cuts from before count no more.
    pub set: Wall,
}

impl Unit {
    /// The name in tables and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Requests => "requests",
            Self::MicroDollars => "micro_dollars",
            Self::Concurrent => "concurrent",
            Self::Rate => "rate",
        }
    }

    /// Whether the calendar divides its ledgers. Permits and rates have one ledger for as long as
    /// their grants stay the same.
    pub const fn is_windowed(self) -> bool {
        match self {
            Self::Tokens | Self::Requests | Self::MicroDollars => true,
            Self::Concurrent | Self::Rate => false,
        }
    }
}

impl Scope {
    /// Whether a call of `model` counts; `cloud` tells whether a provider is paid for it.
    pub fn counts(&self, model: &str, cloud: bool) -> bool {
        match self {
            Self::All => true,
            Self::Cloud => cloud,
            Self::Local => !cloud,
            Self::Models(patterns) => patterns.iter().any(|pattern| matches(pattern, model)),
        }
    }
}

/// How `reclaimable` looks on the wire and on disk: builds of wire version 2 read a byte of 0 or 1
/// there and would spend without witnesses. So it is 0 or 2, and they refuse what they must not do.
mod witnessed {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// No `bool` of any build has this byte.
    const YES: u8 = 2;

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape serde asks for")]
    pub(super) fn serialize<S: Serializer>(is: &bool, serializer: S) -> Result<S::Ok, S::Error> {
        (if *is { YES } else { 0 }).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
        match u8::deserialize(from)? {
            0 => Ok(false),
            YES => Ok(true),
            _ => Err(D::Error::custom("neither a plain nor a reclaimable budget")),
        }
    }
}

impl BudgetSpec {
    /// Everything about one budget that needs no other record.
    ///
    /// # Errors
    /// [`PolicyError::Terms`] with what to write instead.
    pub fn check(&self) -> Result<(), PolicyError> {
        let refuse = |why| Err(PolicyError::Terms { budget: shown(&self.name), why });
        if !is_word(&self.name) {
            return refuse("its name needs 1 to 48 characters of a-z, 0-9, '.', '_' and '-'");
        }
        if self.limit == 0 {
            return refuse("a limit of zero is no budget; suspend the account instead");
        }
        if matches!(self.hardness, Hardness::Elastic { block: 0 }) {
            return refuse("an elastic block of zero is a hard budget; leave it out");
        }
        if self.period == Period::Second && self.unit != Unit::Rate {
            return refuse("only rates count by the second; use minute, hour, day or month");
        }
        if !(1..=MAX_SUB_WINDOWS).contains(&self.sub_windows) {
            return refuse("sub-windows must be 1 to 1440");
        }
        if self.sub_windows > 1 && !self.unit.is_windowed() {
            return refuse("concurrency and rates have no window that could be divided");
        }
        if self.reclaimable && (!self.unit.is_windowed() || self.hardness != Hardness::Hard) {
            return refuse("only hard budgets of tokens, requests or money can be reclaimable");
        }
        let models = match &self.scope {
            Scope::Models(models) => models.as_slice(),
            Scope::All | Scope::Cloud | Scope::Local => &[],
        };
        if matches!(self.scope, Scope::Models(_)) && models.is_empty()
            || models.len() > MAX_SCOPE_MODELS
        {
            return refuse("a scope of models names 1 to 16 of them");
        }
        let downgrade = match &self.on_exhausted {
            OnExhausted::Downgrade(model) => Some(model),
            OnExhausted::Refuse | OnExhausted::LocalOnly => None,
        };
        if !models.iter().chain(downgrade).all(|model| is_model(model)) {
            return refuse("a model's name needs 1 to 128 printable characters");
        }
        if self.ledger < self.born {
            return refuse("its ledger is older than itself");
        }
        Ok(())
    }
}

/// Whether a text may name a model or a prefix of models in a policy.
pub(super) fn is_model(text: &str) -> bool {
    (1..=MAX_MODEL_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Whether a name fits a pattern: itself, or a prefix that ends in `*`.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

/// A text of unknown origin, short enough for a message.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_SEGMENT_SHOWN).collect()
}

/// As long as a good name may be.
const MAX_SEGMENT_SHOWN: usize = 48;
