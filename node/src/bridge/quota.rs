//! Accounts, keys and budgets of the node behind the surface.
//!
//! Owns the translation between the surface's words and the runtime's, and one check of its own:
//! an account must have been made before it is given anything, so that a misspelt one is noticed.

use selvedge_base::{Code, Micros, NodeId, Refusal, Stage, Wall};
use selvedge_net::clock;
use selvedge_proto::policy::{AccountPath, BudgetTerms, KeyProblem, Level};
use selvedge_runtime::{BudgetDraft, BudgetSet, BudgetView, KeyDraft};
use serde_json::Value;

use super::terms::{self, wrong};
use super::{Bridge, done, said};
use crate::amount::Amount;
use crate::http::{Allowance, Holder, KeyRefused, wire};

impl Bridge {
    /// Who an API key stands for.
    pub(super) fn holder(&self, key: &str) -> Result<Holder, KeyRefused> {
        match self.admin.verify_key(key) {
            Ok(caller) => Ok(Holder {
                tenant: caller.tenant,
                account: caller.account,
                key: caller.key,
                keyed: true,
                models: caller.models,
                routes: caller.routes,
            }),
            Err(KeyProblem::Unknown) => Err(KeyRefused::Unknown),
            Err(problem @ KeyProblem::Suspended(_)) => Err(KeyRefused::Barred(problem.to_string())),
            Err(
                problem @ (KeyProblem::Revoked(_)
                | KeyProblem::Expired { .. }
                | KeyProblem::NotYet { .. }),
            ) => Err(KeyRefused::Over(problem.to_string())),
        }
    }

    /// Tells what is left of a caller's budgets.
    pub(super) fn left_of(&self, holder: &Holder, tell: &mut dyn FnMut(Allowance)) {
        self.admin.remaining(&holder.account, holder.key.as_ref(), |left| {
            tell(Allowance {
                measure: terms::measure(left.unit),
                limit: left.limit,
                remaining: left.remaining,
                reset: left.resets_in.unwrap_or_default(),
            });
        });
    }

    /// The budgets, all or those of an account and the accounts under it.
    pub(super) fn budgets_of(&self, path: Option<&str>) -> Vec<wire::Budget> {
        let path = match path.map(str::parse::<AccountPath>) {
            // No account is called so: it has no budgets.
            Some(Err(_)) => return Vec::new(),
            Some(Ok(path)) => Some(path),
            None => None,
        };
        let (wall, view) = (clock::wall(), self.gateway.view());
        let name = |node: &NodeId| view.name_of(node);
        let budgets = self.admin.budget_status(path.as_ref());
        budgets.iter().map(|budget| told(budget, wall, view.me, &name)).collect()
    }

    pub(super) async fn tenant_create(
        &self,
        request: &wire::TenantRequest,
    ) -> Result<Value, Refusal> {
        let path = account(&request.path)?;
        let title = match request.title.as_str() {
            "" => path.as_str(),
            title => title,
        };
        self.admin.tenant_create(&path, title).await?;
        done(format!("{path} is an account of the mesh"))
    }

    pub(super) fn tenants(&self) -> Vec<wire::Tenant> {
        let tenants = self.admin.tenants().into_iter();
        tenants
            .map(|tenant| wire::Tenant {
                path: tenant.path.to_string(),
                title: tenant.title,
                suspended: tenant.suspended,
            })
            .collect()
    }

    pub(super) async fn tenant_suspend(&self, path: &str) -> Result<Value, Refusal> {
        let path = self.known(path)?;
        self.admin.tenant_suspend(&path).await?;
        done(format!("suspended {path}, here at once and elsewhere as it is heard of"))
    }

    pub(super) async fn key_create(&self, request: wire::KeyRequest) -> Result<Value, Refusal> {
        let draft = KeyDraft {
            name: request.name,
            account: request.account.map(|path| self.known(&path)).transpose()?,
            expires_in: request.expires_s.map(|seconds| Micros(seconds.saturating_mul(1_000_000))),
            models: request.models,
            routes: request.routes,
        };
        let key = self.admin.key_create(draft).await?;
        said(&wire::NewKey { id: key.id, secret: key.secret })
    }

    pub(super) fn keys(&self) -> Vec<wire::Key> {
        let keys = self.admin.key_list().into_iter();
        keys.map(|key| wire::Key {
            id: key.id,
            name: key.name,
            created_ms: key.created_s.saturating_mul(1_000),
            account: key.account.map(|account| account.to_string()),
            problem: key.problem,
            expires_ms: key.expires_s.map(|seconds| seconds.saturating_mul(1_000)),
            models: key.models,
            routes: key.routes,
        })
        .collect()
    }

    pub(super) async fn budget_set(
        &self,
        request: wire::BudgetRequest,
        amount: Amount,
    ) -> Result<Value, Refusal> {
        let level = self.level(&request.path)?;
        let (unit, period) = terms::unit_and_period(&amount);
        let name = request.name.unwrap_or_else(|| amount.default_name());
        let weights = request.weights.into_iter().map(|part| {
            let node = part.node.parse::<NodeId>();
            Ok((node.map_err(|error| wrong("weights", error.to_string()))?, part.weight))
        });
        let terms = BudgetTerms {
            name: name.clone(),
            unit,
            period,
            limit: amount.limit,
            hardness: terms::hardness(amount.measure, request.elastic.as_deref())?,
            on_exhausted: terms::on_exhausted(request.on_exhausted.as_deref())?,
            scope: terms::scope(&request.scope)?,
            sub_windows: request.sub_windows.unwrap_or(1),
            reclaimable: request.reclaimable,
        };
        let draft = BudgetDraft { terms, weights: weights.collect::<Result<_, Refusal>>()? };
        let set = self.admin.budget_set(&level, draft).await?;
        said(&self.enacted(format!("budget {name} of {level} is {amount}"), &[set]))
    }

    pub(super) async fn budget_lower(&self, request: wire::LowerRequest) -> Result<Value, Refusal> {
        let (level, name) = (self.level(&request.path)?, request.name);
        let budgets = self.admin.budget_status(Some(&level.account));
        let found = budgets.iter().find(|budget| budget.level == level && budget.name == name);
        let Some(budget) = found else { return Err(no_budget(&level, &name)) };
        let measure = terms::measure(budget.unit);
        let limit = measure.limit(&request.limit).map_err(|why| wrong("limit", why))?;
        self.admin.budget_lower(&level, &name, limit).await?;
        let limit = measure.text(limit);
        done(format!("budget {name} of {level} is lowered to {limit}, from now on"))
    }

    pub(super) async fn budget_remove(
        &self,
        request: wire::RemoveRequest,
    ) -> Result<Value, Refusal> {
        let (level, name) = (self.level(&request.path)?, request.name);
        let set = self.admin.budget_remove(&level, &name).await?;
        said(&self.enacted(format!("budget {name} of {level} is taken away"), &[set]))
    }

    pub(super) async fn budget_renew(&self) -> Result<Value, Refusal> {
        let renewed = self.admin.budget_renew().await?;
        let tenants: Vec<&str> = renewed.iter().map(|set| set.tenant.as_str()).collect();
        let what = match tenants.as_slice() {
            [] => "there are no budgets to renew".to_owned(),
            tenants => format!("renewed the budgets of {}", tenants.join(", ")),
        };
        said(&self.enacted(what, &renewed))
    }

    /// What became of changes, told together.
    fn enacted(&self, what: String, sets: &[BudgetSet]) -> wire::Enacted {
        let mut waiting_for: Vec<String> = sets
            .iter()
            .flat_map(|set| &set.waiting_for)
            .map(|node| self.gateway.view().name_of(node))
            .collect();
        waiting_for.sort();
        waiting_for.dedup();
        wire::Enacted {
            done: what,
            epoch: if let [set] = sets { Some(set.epoch) } else { None },
            from_ms: sets.iter().map(|set| set.from.0).max().unwrap_or(0),
            until_ms: sets.iter().map(|set| set.until.0).min().unwrap_or(0),
            in_force: sets.iter().all(|set| set.in_force),
            waiting_for,
        }
    }

    /// An account that was made.
    fn known(&self, path: &str) -> Result<AccountPath, Refusal> {
        let path = account(path)?;
        let made = self.admin.tenants().into_iter().any(|tenant| tenant.path == path);
        if made || path == AccountPath::local() {
            return Ok(path);
        }
        let why = format!("there is no account '{path}'; `selvedge tenant create {path}` makes it");
        Err(wrong("path", why))
    }

    /// What a budget hangs under: an account that was made, or a key of one (`acme#ID`).
    fn level(&self, path: &str) -> Result<Level, Refusal> {
        let level: Level = path.parse().map_err(|error| wrong("path", format!("{error}")))?;
        self.known(level.account.as_str())?;
        Ok(level)
    }
}

fn account(path: &str) -> Result<AccountPath, Refusal> {
    path.parse().map_err(|error| wrong("path", format!("{error}")))
}

fn no_budget(level: &Level, name: &str) -> Refusal {
    let why = format!("{level} has no budget '{name}'; `selvedge budget show` shows all");
    Refusal::client(Stage::Validate, Code::InvalidRequest, why).param("name")
}

fn told(
    budget: &BudgetView,
    wall: Wall,
    me: NodeId,
    name_of: &dyn Fn(&NodeId) -> String,
) -> wire::Budget {
    // This node's own count is exact: its mark, as the others see it, may be ahead of it.
    let others = budget.holders.iter().filter(|held| held.holder.node != me);
    let own = budget.spent.saturating_sub(others.map(|held| held.hw).sum());
    let shares = budget.holders.iter().map(|held| wire::Share {
        node: held.holder.node.to_string(),
        name: name_of(&held.holder.node),
        me: held.holder.node == me,
        rights: held.rights,
        spent: if held.holder.node == me { own } else { held.hw },
        demand_milli: held.demand,
        reclaimed_by: held.reclaimed_by.map(|by| name_of(&by.node)),
    });
    let taken = budget.spent.saturating_add(budget.reserved);
    wire::Budget {
        account: budget.level.to_string(),
        name: budget.name.clone(),
        unit: terms::measure(budget.unit),
        period: budget.period.and_then(|period| terms::span(budget.unit, period)),
        limit: budget.limit,
        spent: budget.spent,
        reserved: budget.reserved,
        left: budget.limit.saturating_sub(taken),
        debt: budget.debt,
        spendable_here: budget.available,
        resets_ms: budget.resets_at.map(|at| at.0),
        resets_in_us: budget.resets_at.map(|at| at.since(wall).0),
        in_force: budget.in_force,
        reclaimable: budget.reclaimable,
        witnesses_needed: budget.witnesses.map(|witnesses| witnesses.needed),
        witnesses_reached: budget.witnesses.map(|witnesses| witnesses.reached),
        nodes: shares.collect(),
    }
}
