//! Who asks for what: tenants with their budgets, clients with their habits.

use selvedge_base::Micros;
use selvedge_proto::wire::Label;
use serde::{Deserialize, Serialize};

/// Tenants, teams and applications a plan may have.
const MAX_TENANTS: usize = 256;
/// Groups of clients a plan may have.
const MAX_CLIENTS: usize = 4_096;
/// The longest answer a simulated client asks for: engines work token by token.
pub(crate) const MAX_ANSWER: u32 = 2_048;

/// Who asks for what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Workload {
    /// Accounts with their budgets.
    pub tenants: Vec<TenantPlan>,
    /// Groups of clients.
    pub clients: Vec<ClientPlan>,
}

/// An account and its budgets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantPlan {
    /// Its path: `acme`, `acme/line3`, `acme/line3/chat`.
    pub path: String,
    /// Its budgets.
    #[serde(default)]
    pub budgets: Vec<BudgetPlan>,
}

/// A budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetPlan {
    /// Its name.
    pub name: String,
    /// What it counts.
    pub unit: BudgetUnit,
    /// Over which period.
    pub per: PerPeriod,
    /// How much.
    pub limit: u64,
    /// Units each node may go over it; none = hard.
    #[serde(default)]
    pub elastic: Option<u64>,
    /// In how many parts of the period it becomes spendable.
    #[serde(default = "one")]
    pub sub_windows: u32,
    /// Which models it counts; none = all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// The model that requests get when nothing is left; none = they are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downgrade: Option<String>,
    /// Whether requests then go to no provider, but are answered in the mesh.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local_only: bool,
    /// Whether what a node that is gone has left may be taken over.
    #[serde(default)]
    pub reclaimable: bool,
}

const fn one() -> u32 {
    1
}

/// What a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BudgetUnit {
    /// Tokens of prompts and answers.
    Tokens,
    /// Requests.
    Requests,
    /// Requests at a time.
    Concurrent,
    /// Requests in a period, spread evenly.
    Rate,
    /// Millionths of a dollar, for what providers bill.
    MicroDollars,
}

/// Over which period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PerPeriod {
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A month.
    Month,
}

/// A group of clients with the same habits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientPlan {
    /// On whose account.
    pub account: String,
    /// To which nodes, in turn; none = all.
    #[serde(default)]
    pub nodes: Vec<usize>,
    /// Requests a minute, all of the group together, at random moments.
    pub per_minute: u64,
    /// From when on.
    pub from: Micros,
    /// Until when.
    pub until: Micros,
    /// Tokens of a prompt, at least and at most.
    pub prompt: (u32, u32),
    /// Tokens of an answer, at least and at most.
    pub answer: (u32, u32),
    /// How long a client waits for the end.
    pub deadline: Micros,
    /// How many leave in mid-answer.
    #[serde(default)]
    pub leave_permille: u64,
    /// How many of the requests may not leave the node they reached.
    #[serde(default)]
    pub home_permille: u64,
    /// How many prompts have more tokens than they look.
    #[serde(default)]
    pub dense_permille: u64,
    /// Whether clients set no limit to the answer, so that it is reserved for in pieces.
    #[serde(default)]
    pub unlimited: bool,
    /// How long their key of the mesh is good; none = for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_lasts: Option<Micros>,
    /// Which models their key of the mesh is good for; none = all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_models: Vec<String>,
    /// Which of the models that share a memory they ask for, by their places in the plan; none =
    /// the mesh's model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<usize>,
    /// What they ask for by name: a route, `PROVIDER/MODEL`, or a model; none = the mesh's model,
    /// as a completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks: Option<String>,
    /// How far they say that their data may travel, when they ask by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Label>,
    /// How many of the requests need a model that can call tools.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tools_permille: u64,
    /// How many different questions they ask, the same ones as all others who ask so many; 0 = no
    /// question is asked twice.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub questions: u64,
    /// How many of those say something about the cache, or draw words by chance.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wishes_permille: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Workload {
    pub(crate) fn check(&self, nodes: usize) -> Result<(), String> {
        if self.tenants.len() > MAX_TENANTS || self.clients.len() > MAX_CLIENTS {
            return Err("too many tenants or clients".to_owned());
        }
        for client in &self.clients {
            let sound = client.from <= client.until
                && client.prompt.0 >= 1
                && client.prompt.0 <= client.prompt.1
                && client.prompt.1 <= MAX_ANSWER
                && client.answer.0 >= 1
                && client.answer.0 <= client.answer.1
                && client.answer.1 <= MAX_ANSWER
                && client.nodes.iter().all(|node| *node < nodes);
            if !sound {
                return Err(format!("the clients of '{}' ask for the impossible", client.account));
            }
        }
        let nothing = |budget: &BudgetPlan| budget.sub_windows == 0;
        match self.tenants.iter().find(|tenant| tenant.budgets.iter().any(nothing)) {
            Some(tenant) => Err(format!("'{}' has a budget without sub-windows", tenant.path)),
            None => Ok(()),
        }
    }
}

impl TenantPlan {
    /// An account without budgets.
    pub fn new(path: &str) -> Self {
        Self { path: path.to_owned(), budgets: Vec::new() }
    }

    /// The same account with a hard budget of tokens.
    #[must_use]
    pub fn tokens(self, limit: u64, per: PerPeriod) -> Self {
        self.budget(BudgetUnit::Tokens, limit, per)
    }

    /// The same account with a hard budget.
    #[must_use]
    pub fn budget(mut self, unit: BudgetUnit, limit: u64, per: PerPeriod) -> Self {
        let name = format!("b{}", self.budgets.len());
        let budget = BudgetPlan {
            name,
            unit,
            per,
            limit,
            elastic: None,
            sub_windows: 1,
            models: Vec::new(),
            downgrade: None,
            local_only: false,
            reclaimable: false,
        };
        self.budgets.push(budget);
        self
    }

    /// The same account, with what a gone node has left of its budgets to be taken over.
    #[must_use]
    pub fn reclaimable(mut self) -> Self {
        self.budgets.iter_mut().for_each(|budget| budget.reclaimable = true);
        self
    }
}

impl ClientPlan {
    /// Clients of an account at all nodes that ask this often a minute, between two moments, for
    /// usual chat answers, and wait for half a minute.
    pub fn steady(account: &str, per_minute: u64, from: Micros, until: Micros) -> Self {
        Self {
            account: account.to_owned(),
            nodes: Vec::new(),
            per_minute,
            from,
            until,
            prompt: (16, 96),
            answer: (8, 40),
            deadline: Micros::secs(30),
            leave_permille: 0,
            home_permille: 0,
            dense_permille: 0,
            unlimited: false,
            key_lasts: None,
            key_models: Vec::new(),
            models: Vec::new(),
            asks: None,
            label: None,
            tools_permille: 0,
            questions: 0,
            wishes_permille: 0,
        }
    }

    /// The same clients, asking so many different questions again and again.
    #[must_use]
    pub const fn repeating(mut self, questions: u64) -> Self {
        self.questions = questions;
        self
    }

    /// The same clients, asking for these of the models that share a memory.
    #[must_use]
    pub fn of(mut self, models: &[usize]) -> Self {
        self.models = models.to_vec();
        self
    }

    /// The same clients, asking for this by name.
    #[must_use]
    pub fn asking(mut self, name: &str) -> Self {
        self.asks = Some(name.to_owned());
        self
    }

    /// The same clients, saying how far their data may travel.
    #[must_use]
    pub const fn labelled(mut self, label: Label) -> Self {
        self.label = Some(label);
        self
    }

    /// The same clients at these nodes only.
    #[must_use]
    pub fn at(mut self, nodes: &[usize]) -> Self {
        self.nodes = nodes.to_vec();
        self
    }
}
