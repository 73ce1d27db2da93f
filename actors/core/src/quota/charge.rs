//! What a request costs, and what it is told: granted, extended or refused with a reason to act on.

use selvedge_base::{Blame, Code, Micros, Refusal, Retry, Stage, Wall};
use selvedge_crdt::escrow::BudgetId;
use selvedge_proto::policy::{AccountPath, Period, Stop, Unit};
use serde::{Deserialize, Serialize};

/// Who is paid for a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CostClass {
    /// Nobody: the mesh computes it.
    #[default]
    Local,
    /// A provider.
    Cloud,
}

/// What a request may take at most, or really took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// Tokens of prompt and answer.
    pub tokens: u64,
    /// Requests: 1, or 0 for one that came to nothing.
    pub requests: u64,
    /// Millionths of a dollar. Local calls cost none, whatever this says.
    pub micro_dollars: u64,
    /// Who is paid.
    pub class: CostClass,
    /// The model, for budgets that count only some.
    pub model: String,
}

impl Charge {
    /// What the charge takes of a budget.
    pub fn cost(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Tokens => self.tokens,
            Unit::Requests | Unit::Rate => self.requests,
            Unit::MicroDollars if self.class == CostClass::Local => 0,
            Unit::MicroDollars => self.micro_dollars,
            Unit::Concurrent => 1,
        }
    }
}

/// What a request is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may run: the worst case is reserved durably.
    Granted {
        /// The budgets it draws from.
        budgets: Vec<BudgetId>,
        /// The model to use instead of the one asked for.
        downgrade: Option<String>,
        /// It must not leave for a provider.
        local_only: bool,
    },
    /// It may go on.
    Extended,
    /// It may not run, or not go on.
    Refused(Box<QuotaRefusal>),
}

/// Why a request was refused and when to come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaRefusal {
    /// The reason.
    pub why: Why,
    /// The budget that stood in the way, if one did.
    pub budget: Option<BlockedBudget>,
    /// Units the request needed of it.
    pub needed: u64,
    /// Units it could have had here.
    pub left: u64,
    /// When the budget's window ends.
    pub resets_at: Option<Wall>,
    /// When trying again may help; `None` when it cannot.
    pub retry_after: Option<Micros>,
}

/// The budget that stood in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedBudget {
    /// Its identity.
    pub id: BudgetId,
    /// Whose it is.
    pub account: AccountPath,
    /// What people call it.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// Its window.
    pub period: Period,
    /// Its limit in one window.
    pub limit: u64,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The budget is used up, as far as this node can reach.
    Exhausted,
    /// The request alone needs more than the whole budget.
    TooLarge,
    /// No policy is in force.
    Stopped(Stop),
    /// Of permits and rates: this node came after the policy in force was signed, and no node that
    /// the policy names vouches for it now.
    Unvouched,
    /// Of reclaimable budgets: rights are here, and too few witnesses to count on them.
    Unwitnessed {
        /// How many can be asked now, this node among them.
        reached: u64,
        /// How many must agree.
        needed: u64,
    },
    /// The rollback guard waits for a peer's word.
    Unconfirmed,
    /// The disk does not take writes.
    Storage,
    /// Too many requests or budgets at once.
    Overloaded,
    /// The node gives its rights away and leaves.
    Retiring,
    /// The request is not known, was asked twice, or is not running.
    Unknown,
}

impl QuotaRefusal {
    /// A refusal that no budget is to blame for.
    pub(super) fn plain(why: Why, retry_after: Option<Micros>) -> Box<Self> {
        Box::new(Self { why, budget: None, needed: 0, left: 0, resets_at: None, retry_after })
    }

    /// What the caller is told.
    pub fn to_refusal(&self) -> Refusal {
        let (blame, code) = match self.why {
            Why::Exhausted | Why::TooLarge => (Blame::Client, Code::QuotaExhausted),
            Why::Stopped(_) | Why::Unvouched | Why::Unwitnessed { .. } | Why::Unconfirmed => {
                (Blame::Us, Code::QuotaExhausted)
            }
            Why::Storage => (Blame::Us, Code::Internal),
            Why::Overloaded | Why::Retiring => (Blame::Us, Code::Overloaded),
            Why::Unknown => (Blame::Us, Code::Internal),
        };
        let retry = match (self.why, self.retry_after) {
            (Why::Retiring, _) => Retry::Elsewhere,
            (_, Some(wait)) => Retry::After(wait),
            (_, None) => Retry::Never,
        };
        let refusal = Refusal::new(Stage::Reserve, blame, retry, code, self.message());
        // Surfaces tell a budget that is back within the hour from one of a day or a month.
        match &self.budget {
            Some(at) if code == Code::QuotaExhausted => refusal.param(at.period.as_str()),
            Some(_) | None => refusal,
        }
    }

    fn message(&self) -> String {
        let budget = match &self.budget {
            None => String::new(),
            Some(at) => format!("budget '{}' of '{}' ({})", at.name, at.account, at.terms()),
        };
        match self.why {
            Why::Exhausted => format!(
                "{budget} is used up: the request needs up to {} and {} are left here{}",
                self.needed,
                self.left,
                self.resets_at.map_or(String::new(), |at| format!("; it resets at {}", utc(at)))
            ),
            Why::TooLarge => format!(
                "{budget} cannot pay for this: it needs up to {}; ask for fewer tokens",
                self.needed
            ),
            Why::Stopped(Stop::Clock) => format!(
                "{budget} is not in force: this node's clock is before every policy; set it"
            ),
            Why::Stopped(Stop::Lapsed { .. }) => format!(
                "{budget} is not in force: its policy is over, and no newer one was told here; \
                 connect this node, or renew with `selvedge budget renew`"
            ),
            Why::Stopped(Stop::Forked { number }) => format!(
                "{budget} is stopped: there are two policies of number {number}; set the budget \
                 once more to settle it"
            ),
            Why::Stopped(Stop::Unsettled) => {
                format!("{budget} is not in force here yet: a policy is missing or still settling")
            }
            Why::Unvouched => format!(
                "{budget} was signed before this node came, and no node that it names is in reach \
                 here; connect this node, or renew with `selvedge budget renew`"
            ),
            Why::Unwitnessed { reached, needed } => format!(
                "{budget} has enough left here, and {reached} of its witnesses are in reach, where \
                 {needed} must be: it is reclaimable; connect this node to more of the others"
            ),
            Why::Unconfirmed => "budgets wait until another node confirms that this node's store \
                                 was not rolled back"
                .to_owned(),
            Why::Storage => "budgets cannot be spent while the disk takes no writes".to_owned(),
            Why::Overloaded => "too many requests draw on budgets here at once".to_owned(),
            Why::Retiring => "this node is leaving the mesh".to_owned(),
            Why::Unknown => "the reservation is not known, or not running".to_owned(),
        }
    }
}

impl BlockedBudget {
    /// The limit as operators write it.
    fn terms(&self) -> String {
        let (limit, period) = (self.limit, self.period.as_str());
        match self.unit {
            Unit::Tokens => format!("{limit} tokens/{period}"),
            Unit::Requests | Unit::Rate => format!("{limit} requests/{period}"),
            Unit::MicroDollars => {
                format!("{}.{:06} usd/{period}", limit / 1_000_000, limit % 1_000_000)
            }
            Unit::Concurrent => format!("{limit} concurrent"),
        }
    }
}

/// A moment for people.
fn utc(at: Wall) -> String {
    let month = Period::Month.window(at);
    let day = at.0.saturating_sub(Period::Month.start(month).0) / 86_400_000 + 1;
    let (minutes, seconds) = (at.0 / 60_000, at.0 / 1_000 % 60);
    format!(
        "{}-{:02}-{day:02} {:02}:{:02}:{seconds:02} UTC",
        1_970 + month / 12,
        month % 12 + 1,
        minutes / 60 % 24,
        minutes % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_budget_its_limit_and_when_it_is_back() {
        let refusal = QuotaRefusal {
            why: Why::Exhausted,
            budget: Some(BlockedBudget {
                id: BudgetId([1; 16]),
                account: AccountPath::local(),
                name: "tokens-hour".to_owned(),
                unit: Unit::Tokens,
                period: Period::Hour,
                limit: 20_000,
            }),
            needed: 100,
            left: 9,
            resets_at: Some(Wall(1_795_384_800_000)),
            retry_after: Some(Micros::secs(7)),
        };
        let told = refusal.to_refusal();
        assert_eq!(
            told.message,
            "budget 'tokens-hour' of 'local' (20000 tokens/hour) is used up: the request needs up \
             to 100 and 9 are left here; it resets at 2026-11-22 22:00:00 UTC"
        );
        assert_eq!((told.code, told.retry), (Code::QuotaExhausted, Retry::After(Micros::secs(7))));
        assert_eq!(told.param.as_deref(), Some("hour"));
    }
}
