//! What a run is made of, explicit and serialisable: topology, network, engines, workload, faults.
//!
//! A plan is one page of TOML. Every part of a seeded one is drawn from its own stream, keyed by
//! purpose, and every fault from one of its own, so that leaving a fault out does not shift the
//! others. Owns the data and its checks; [`seeded`] draws, [`crate::scenario`] writes by hand.

mod cache;
mod cloud;
mod fault;
mod memory;
mod seeded;
mod workload;

use selvedge_base::Micros;
use selvedge_core::routes::PolicyConfig;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use cache::CachePlan;
pub use cloud::{CloudPlan, ProviderPlan};
pub use fault::{FAULT_NAMES, Fault, FaultKind, ProviderFault, Rerouting};
pub(crate) use memory::MAX_SHARED;
pub use memory::{MemoryPlan, ModelPlan};
pub(crate) use workload::MAX_ANSWER;
pub use workload::{BudgetPlan, BudgetUnit, ClientPlan, PerPeriod, TenantPlan, Workload};

/// The first fault comes after the mesh has formed.
pub const CALM_START: Micros = Micros::secs(5);
/// After the last fault: room for recovery and then some time in which all must stay well.
pub const CALM_END: Micros = Micros::secs(16);
/// Nodes a plan may have: what one mesh is meant for, this side of the detector's table.
pub const MAX_NODES: usize = 1_000;
/// Faults a plan may have: far more than anyone would read.
pub const MAX_FAULTS: usize = 4_096;

/// A run, before it is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// All randomness of the run comes from it; below 2^63, as TOML's integers are signed.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// When the last fault is over and the last request came.
    pub quiet_at: Micros,
    /// When the run ends.
    pub span: Micros,
    /// Choices of the machines under test.
    #[serde(default)]
    pub options: Options,
    /// The network.
    #[serde(default)]
    pub network: NetworkPlan,
    /// The engines.
    #[serde(default)]
    pub engine: EnginePlan,
    /// The models that share an engine's memory, if any do.
    #[serde(default, skip_serializing_if = "MemoryPlan::is_none")]
    pub memory: MemoryPlan,
    /// Who asks for what.
    #[serde(default)]
    pub workload: Workload,
    /// What is outside.
    #[serde(default, skip_serializing_if = "CloudPlan::is_none")]
    pub cloud: CloudPlan,
    /// The faults.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// Choices of the machines under test, alike on all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// How long a request may be held for rights on their way.
    pub hold: Micros,
    /// Whether a node spends after its start only once a peer has confirmed its row.
    pub rollback_guard: bool,
    /// How long a write takes to become durable.
    pub fsync: Micros,
    /// Nodes that run the older wire version, until they are upgraded.
    pub old_version: Vec<usize>,
    /// Nodes that are members but granted nothing: newcomers since the budgets were signed.
    pub newcomers: Vec<usize>,
    /// In how many places the nodes stand, in turn.
    pub sites: usize,
    /// How long the leases of the founding members still run; none = for days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<Micros>,
    /// Requests one peer may have running at a node.
    pub per_peer: usize,
    /// The exact cache of answers; none = it is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CachePlan>,
}

/// How the network behaves when nothing is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkPlan {
    /// One way, at least.
    pub latency_min: Micros,
    /// One way, at most.
    pub latency_max: Micros,
    /// Datagrams lost.
    pub loss_permille: u64,
    /// Datagrams that arrive twice.
    pub duplicate_permille: u64,
    /// Datagrams delayed by [`NetworkPlan::reorder_by`], so that later ones overtake them.
    pub reorder_permille: u64,
    /// How long those are delayed.
    pub reorder_by: Micros,
}

/// How fast and how large engines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnginePlan {
    /// Every how manieth node has the model; 1 = all.
    pub every: usize,
    /// Microseconds of a step in which one token is drawn for each sequence.
    pub step: Micros,
    /// Microseconds each prompt token adds to a step.
    pub prompt_token: Micros,
    /// Sequences computed together.
    pub max_batch: usize,
    /// Requests that may wait.
    pub max_queue: usize,
    /// Pages of memory for keys and values.
    pub pages: u64,
    /// How long a model takes to load at a start.
    pub load: Micros,
    /// Whether they hold a second, smaller model.
    pub small: bool,
}

/// Why a plan cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// Too few or too many nodes.
    #[error("a plan needs 2 to {MAX_NODES} nodes, not {0}")]
    Nodes(usize),
    /// A seed that TOML cannot hold.
    #[error("a plan's seed is below 2^63")]
    Seed,
    /// The network's shortest trip is longer than its longest.
    #[error("the network's least latency is above its greatest")]
    Latency,
    /// A fault ends before it begins, or names a node that does not exist.
    #[error("fault {0} ends before it begins or names a node that does not exist")]
    Fault(usize),
    /// A tenant, budget or client that cannot be.
    #[error("workload: {0}")]
    Workload(String),
    /// Models that cannot share a memory, or one that is asked for and is not there.
    #[error("memory: {0}")]
    Memory(String),
    /// A provider or a route that cannot be, or one that is asked for and is not there.
    #[error("providers: {0}")]
    Cloud(String),
    /// A zero where a number is needed.
    #[error("{0} may not be zero")]
    Zero(&'static str),
    /// Not a plan in TOML.
    #[error("not a plan: {0}")]
    Toml(String),
    /// No scenario of this name.
    #[error("there is no scenario '{0}'")]
    Scenario(String),
}

impl Plan {
    /// Whether the plan can be run.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), PlanError> {
        if !(2..=MAX_NODES).contains(&self.nodes) {
            return Err(PlanError::Nodes(self.nodes));
        }
        if self.seed > i64::MAX as u64 {
            return Err(PlanError::Seed);
        }
        if self.network.latency_min > self.network.latency_max {
            return Err(PlanError::Latency);
        }
        let zeros = [
            (self.engine.every as u64, "engine.every"),
            (self.engine.step.0, "engine.step"),
            (self.engine.max_batch as u64, "engine.max_batch"),
            (self.options.sites as u64, "options.sites"),
        ];
        if let Some((_, name)) = zeros.iter().find(|(value, _)| *value == 0) {
            return Err(PlanError::Zero(name));
        }
        self.workload.check(self.nodes).map_err(PlanError::Workload)?;
        self.memory.check(&self.workload.clients).map_err(PlanError::Memory)?;
        let (_, routes) = self.cloud.checked().map_err(PlanError::Cloud)?;
        for asked in self.workload.clients.iter().filter_map(|client| client.asks.as_ref()) {
            let providers = &self.cloud.providers;
            let is_model = |one: &ProviderPlan| {
                *asked == one.model || *asked == format!("{}/{}", one.name, one.model)
            };
            if !routes.has(asked) && !providers.iter().any(is_model) && asked != "loom" {
                return Err(PlanError::Cloud(format!("nobody has '{asked}', which is asked for")));
            }
        }
        self.options.cache.map_or(Ok(()), CachePlan::check).map_err(PlanError::Zero)?;
        if self.faults.len() > MAX_FAULTS {
            return Err(PlanError::Fault(MAX_FAULTS));
        }
        let providers = self.cloud.providers.len();
        let wrong =
            |fault: &Fault| fault.until < fault.at || !fault.kind.fits(self.nodes, providers);
        match self.faults.iter().position(wrong) {
            Some(index) => Err(PlanError::Fault(index)),
            None => Ok(()),
        }
    }

    /// A plan from a page of TOML, checked.
    ///
    /// # Errors
    /// [`PlanError::Toml`] when it is none, else as [`Plan::check`].
    pub fn from_toml(text: &str) -> Result<Self, PlanError> {
        let plan: Self =
            toml::from_str(text).map_err(|error| PlanError::Toml(error.to_string()))?;
        plan.check()?;
        Ok(plan)
    }

    /// The plan as a page of TOML.
    ///
    /// # Errors
    /// [`PlanError::Toml`] when a number is beyond what TOML can hold.
    pub fn to_toml(&self) -> Result<String, PlanError> {
        toml::to_string(self).map_err(|error| PlanError::Toml(error.to_string()))
    }

    /// The plan of a scenario; `nodes` 0 means as many as it was written for.
    ///
    /// # Errors
    /// [`PlanError::Scenario`] when there is none of this name, else as [`Plan::check`].
    pub fn scenario(name: &str, nodes: usize, seed: u64) -> Result<Self, PlanError> {
        let found = crate::scenario::scenarios().iter().find(|one| one.name == name);
        let scenario = found.ok_or_else(|| PlanError::Scenario(name.to_owned()))?;
        let nodes = if nodes == 0 { scenario.nodes } else { nodes.max(scenario.nodes_least) };
        let plan = (scenario.build)(nodes, seed);
        plan.check()?;
        Ok(plan)
    }

    /// A plan without faults or requests over a perfect LAN, to add to by hand.
    pub fn calm(seed: u64, nodes: usize) -> Self {
        Self {
            seed,
            nodes,
            quiet_at: CALM_START,
            span: CALM_START.plus(CALM_END),
            options: Options::default(),
            network: NetworkPlan::default(),
            engine: EnginePlan::default(),
            memory: MemoryPlan::default(),
            workload: Workload::default(),
            cloud: CloudPlan::default(),
            faults: Vec::new(),
        }
    }

    /// The same plan with one more fault.
    #[must_use]
    pub fn with(mut self, kind: FaultKind, at: Micros, lasting: Micros) -> Self {
        let until = at.plus(lasting);
        self.faults.push(Fault { at, until, kind });
        self.quiet_from(until)
    }

    /// The same plan, not quiet before `at`.
    #[must_use]
    pub fn quiet_from(mut self, at: Micros) -> Self {
        self.quiet_at = self.quiet_at.max(at);
        self.span = self.span.max(self.quiet_at.plus(CALM_END));
        self
    }

    /// The same plan with one more tenant.
    #[must_use]
    pub fn tenant(mut self, tenant: TenantPlan) -> Self {
        self.workload.tenants.push(tenant);
        self
    }

    /// The same plan with one more provider.
    #[must_use]
    pub fn provider(mut self, provider: ProviderPlan) -> Self {
        self.cloud.providers.push(provider);
        self
    }

    /// The same plan with a cache of answers at every node.
    #[must_use]
    pub const fn cached(mut self, cache: CachePlan) -> Self {
        self.options.cache = Some(cache);
        self
    }

    /// The same plan with one more route: the targets in the order in which they are tried, as
    /// `PROVIDER/MODEL` or the name of a model of the mesh.
    #[must_use]
    pub fn route(mut self, name: &str, policy: PolicyConfig, targets: &[&str]) -> Self {
        self.cloud.routes.push(cloud::route(name, policy, targets));
        self
    }

    /// The same plan with one more group of clients, not quiet before they are.
    #[must_use]
    pub fn client(mut self, client: ClientPlan) -> Self {
        let until = client.until;
        self.workload.clients.push(client);
        self.quiet_from(until)
    }
}

impl NetworkPlan {
    /// The longest a datagram takes.
    pub const fn slowest(&self) -> Micros {
        self.latency_max.plus(self.reorder_by)
    }
}

impl Default for NetworkPlan {
    /// A perfect LAN.
    fn default() -> Self {
        Self {
            latency_min: Micros(150),
            latency_max: Micros(600),
            loss_permille: 0,
            duplicate_permille: 0,
            reorder_permille: 0,
            reorder_by: Micros::ZERO,
        }
    }
}

impl Default for EnginePlan {
    /// A small model on a small machine: 50 tokens a second, alone or in a batch.
    fn default() -> Self {
        Self {
            every: 1,
            step: Micros::millis(20),
            prompt_token: Micros(300),
            max_batch: 8,
            max_queue: 64,
            pages: 256,
            load: Micros::millis(400),
            small: false,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hold: Micros::millis(30),
            rollback_guard: false,
            fsync: Micros::millis(2),
            old_version: Vec::new(),
            newcomers: Vec::new(),
            sites: 1,
            lease: None,
            per_peer: 64,
            cache: None,
        }
    }
}
