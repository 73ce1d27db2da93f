//! The JSON of tenants, keys and budgets.
//!
//! Owns names and shapes, as its parent does. Limits and counts are in the smallest unit of what
//! the budget counts: tokens, requests, micro-dollars.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::amount::{Measure, Span};

/// `POST /admin/tenants`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantRequest {
    /// The account: one to three names, separated by slashes.
    pub(crate) path: String,
    /// What people call it.
    #[serde(default)]
    pub(crate) title: String,
}

/// `POST /admin/tenants/suspend`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PathRequest {
    /// The account.
    pub(crate) path: String,
}

/// One line of `GET /admin/tenants`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Tenant {
    /// The account.
    pub(crate) path: String,
    /// What people call it.
    pub(crate) title: String,
    /// Whether it, or an account above it, was suspended.
    pub(crate) suspended: bool,
}

/// `POST /admin/keys`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRequest {
    /// What people call the key.
    pub(crate) name: String,
    /// The account it spends for; without one it is good at this node only, for `local`.
    #[serde(default)]
    pub(crate) account: Option<String>,
    /// After how many seconds it ends by itself; never unless told.
    #[serde(default)]
    pub(crate) expires_s: Option<u64>,
    /// Models it may ask, by name or by its beginning and `*`; empty: all.
    #[serde(default)]
    pub(crate) models: Vec<String>,
    /// Endpoints it may use: `chat`, `completions`, `messages`, `responses`, `ollama`, `models`;
    /// empty: all.
    #[serde(default)]
    pub(crate) routes: Vec<String>,
}

/// The answer to `POST /admin/keys`: the only time the secret is shown.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct NewKey {
    /// Names the key without revealing it.
    pub(crate) id: String,
    /// The key.
    pub(crate) secret: String,
}

/// One line of `GET /admin/keys`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Key {
    /// Names the key without revealing it.
    pub(crate) id: String,
    /// What people call it.
    pub(crate) name: String,
    /// When it was made.
    pub(crate) created_ms: u64,
    /// The account it spends for; absent for a key of this node only.
    pub(crate) account: Option<String>,
    /// Why it opens nothing now, if it does not.
    pub(crate) problem: Option<String>,
    /// When it ends by itself.
    pub(crate) expires_ms: Option<u64>,
    /// Models it may ask; empty: all.
    pub(crate) models: Vec<String>,
    /// Endpoints it may use; empty: all.
    pub(crate) routes: Vec<String>,
}

/// `POST /admin/budgets`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BudgetRequest {
    /// The account.
    pub(crate) path: String,
    /// How much in which time: `20000 tokens/hour`.
    pub(crate) amount: String,
    /// What the budget is called; its unit and window unless told.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// How far each node may go over, once per window, in the budget's unit; absent: not at all.
    #[serde(default)]
    pub(crate) elastic: Option<String>,
    /// `refuse`, `local-only` or `downgrade=MODEL`; `refuse` unless told.
    #[serde(default)]
    pub(crate) on_exhausted: Option<String>,
    /// `all`, `cloud`, `local`, or one or more of `model=NAME`; empty: all.
    #[serde(default)]
    pub(crate) scope: Vec<String>,
    /// Equal steps in which the limit becomes available; 1 unless told.
    #[serde(default)]
    pub(crate) sub_windows: Option<u32>,
    /// Whether what a node that is gone has left can be taken over by the others.
    #[serde(default)]
    pub(crate) reclaimable: bool,
    /// Parts of the nodes, for all budgets of the tenant; a node that is not named keeps its own.
    #[serde(default)]
    pub(crate) weights: Vec<Weight>,
}

/// A node's part of a tenant's limits, relative to the others'.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Weight {
    /// PeerId of the node.
    pub(crate) node: String,
    /// Its part.
    pub(crate) weight: u32,
}

/// The answer to `POST /admin/budgets`, `…/remove` and `…/renew`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Enacted {
    /// What was done, for people.
    pub(crate) done: String,
    /// The number of the tenant's configuration that says so; absent where several changed.
    pub(crate) epoch: Option<u64>,
    /// When it begins to count.
    pub(crate) from_ms: u64,
    /// When it is over unless it is renewed.
    pub(crate) until_ms: u64,
    /// Whether every node has taken it on; until then the smaller share counts.
    pub(crate) in_force: bool,
    /// The nodes that have not, by name.
    pub(crate) waiting_for: Vec<String>,
}

/// `POST /admin/budgets/lower`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LowerRequest {
    /// The account.
    pub(crate) path: String,
    /// The budget's name.
    pub(crate) name: String,
    /// The new limit, in the budget's own unit: `10000`, `2.50 usd`.
    pub(crate) limit: String,
}

/// `POST /admin/budgets/remove`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoveRequest {
    /// The account.
    pub(crate) path: String,
    /// The budget's name.
    pub(crate) name: String,
}

/// One line of `GET /admin/budgets`: a budget in its present window, as this node knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Budget {
    /// The account it belongs to.
    pub(crate) account: String,
    /// Its name.
    pub(crate) name: String,
    /// What it counts.
    pub(crate) unit: Measure,
    /// Its window; absent for concurrency and rates.
    pub(crate) period: Option<Span>,
    /// The limit that counts now.
    pub(crate) limit: u64,
    /// Spent in this window by all nodes, as known here: what a node that cannot be asked may
    /// have spent counts as spent.
    pub(crate) spent: u64,
    /// Reserved by answers being made at this node.
    pub(crate) reserved: u64,
    /// What is left of the limit, beyond what is spent and reserved.
    pub(crate) left: u64,
    /// Overruns that count against the next window.
    pub(crate) debt: u64,
    /// What this node may still spend without asking anybody.
    pub(crate) spendable_here: u64,
    /// When the window ends; absent where there is none, or while no configuration is in force.
    pub(crate) resets_ms: Option<u64>,
    /// Time until then.
    pub(crate) resets_in_us: Option<u64>,
    /// Whether a configuration is in force; without one nothing may be spent.
    pub(crate) in_force: bool,
    /// Whether what a node that is gone has left can be taken over by the others.
    pub(crate) reclaimable: bool,
    /// Of a reclaimable budget, once it is used here: how many nodes must have witnessed a block
    /// before any of it is spent.
    pub(crate) witnesses_needed: Option<u64>,
    /// How many of its witnesses can be reached, this node among them.
    pub(crate) witnesses_reached: Option<u64>,
    /// Each node's share.
    pub(crate) nodes: Vec<Share>,
}

/// What one node holds of a budget.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Share {
    /// PeerId.
    pub(crate) node: String,
    /// The name people gave it.
    pub(crate) name: String,
    /// Whether it is the node that answers.
    pub(crate) me: bool,
    /// What it was granted and given, less what it gave away.
    pub(crate) rights: u64,
    /// What it has spent, or may have.
    pub(crate) spent: u64,
    /// What it is asked for, per second, in thousandths.
    pub(crate) demand_milli: u64,
    /// The node that took over what this one had left, while it was gone.
    pub(crate) reclaimed_by: Option<String>,
}
