//! Accounts and budgets, as operators order and see them.
//!
//! Owns how the policy (what is set) and the quotas (what is spent) are shown together. Orders are
//! the policy's.

use selvedge_base::{Code, Micros, NodeId, Refusal, Stage, Wall};
use selvedge_core::quota::{BudgetStatus, HolderStatus, Remaining, WITNESSES_SINCE, WitnessStatus};
use selvedge_crdt::escrow::LedgerKey;
use selvedge_net::{Link, clock};
use selvedge_proto::policy::{
    AccountPath, Budget, CutOrder, KeyId, Level, Period, PolicyBook, Standing, Unit,
};
use serde::Serialize;

use super::Admin;
use crate::mesh::BUDGETS_SINCE;
use crate::policies::{BudgetDraft, BudgetSet, TenantView};

/// A peer tells its name when it is linked: a round trip and a write to its disk.
const NAMES_WITHIN: Micros = Micros::secs(2);
/// Between two looks at what peers told.
const GLANCE: Micros = Micros::millis(10);

/// A budget in its present window, as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BudgetView {
    /// Whose it is.
    pub level: Level,
    /// What people call it.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// Its window; none for permits, which have none.
    pub period: Option<Period>,
    /// The limit that counts now, cuts included.
    pub limit: u64,
    /// Spent in this window by all nodes, as known here: what another node may have spent counts.
    pub spent: u64,
    /// Reserved by answers being made at this node.
    pub reserved: u64,
    /// What this node may still spend without asking anybody.
    pub available: u64,
    /// What this node may use in this window in all.
    pub rights: u64,
    /// Overruns that the next window pays.
    pub debt: u64,
    /// When the window ends.
    pub resets_at: Option<Wall>,
    /// Whether anything can be spent: a configuration is in force.
    pub in_force: bool,
    /// Whether the rights of a node that is gone can be taken over.
    pub reclaimable: bool,
    /// Who witnesses that; unknown before the budget is used here.
    pub witnesses: Option<WitnessStatus>,
    /// All holders that are known.
    pub holders: Vec<HolderStatus>,
}

impl Admin {
    /// Makes an account known by name; where the root key is, this ends a suspension.
    ///
    /// # Errors
    /// A refusal when this node may not, or the record cannot be stored.
    pub async fn tenant_create(&self, path: &AccountPath, title: &str) -> Result<(), Refusal> {
        self.shared.policies.tenant_create(&self.shared.quota, path, title).await
    }

    /// Refuses an account and all below it from now on, everywhere this is heard of.
    ///
    /// # Errors
    /// A refusal when this node may not, or the record cannot be stored.
    pub async fn tenant_suspend(&self, path: &AccountPath) -> Result<(), Refusal> {
        let order = CutOrder::Account(path.clone());
        self.shared.policies.cut(&self.shared.quota, order).await
    }

    /// Accounts known by name, and tenants that have budgets.
    pub fn tenants(&self) -> Vec<TenantView> {
        self.shared.policies.tenants()
    }

    /// Sets a budget. Needs the root key on this node.
    ///
    /// # Errors
    /// A refusal that says what to do: the root key is elsewhere, the terms are unusable, an
    /// earlier change is still pending.
    pub async fn budget_set(
        &self,
        level: &Level,
        draft: BudgetDraft,
    ) -> Result<BudgetSet, Refusal> {
        self.names_known().await;
        if draft.terms.reclaimable {
            self.witnesses_can_be_told()?;
        }
        self.shared.policies.budget_set(&self.shared.quota, level.clone(), draft).await
    }

    /// An older build would hold up a reclaimable budget, of which it must not be told.
    fn witnesses_can_be_told(&self) -> Result<(), Refusal> {
        let links = self.shared.endpoint.links();
        let older: Vec<String> = links
            .iter()
            .filter(|link| link.version() < WITNESSES_SINCE)
            .map(|link| link.node().short().to_string())
            .collect();
        if older.is_empty() {
            return Ok(());
        }
        let message = format!(
            "a reclaimable budget needs nodes that can witness it, and {} cannot: update their \
             builds, or set the budget without --reclaimable",
            older.join(", ")
        );
        Err(Refusal::client(Stage::Admit, Code::InvalidRequest, message))
    }

    /// Waits a little until every peer that is linked has said under which name it holds rights:
    /// one whose name is unknown gets no share of its own.
    async fn names_known(&self) {
        let known = async {
            let unknown = |link: &Link| {
                link.version() >= BUDGETS_SINCE
                    && self.shared.policies.holder_of(&link.node()).is_none()
            };
            while self.shared.endpoint.links().iter().any(unknown) {
                tokio::time::sleep(GLANCE.into()).await;
            }
        };
        // Without its name a peer gets rights by transfers, as one that joins later does.
        let _known_or_late = tokio::time::timeout(NAMES_WITHIN.into(), known).await;
    }

    /// Lowers a budget's limit at once, everywhere this is heard of. A steward may.
    ///
    /// # Errors
    /// A refusal when there is no such budget, the limit is not lower, or this node may not.
    pub async fn budget_lower(&self, level: &Level, name: &str, limit: u64) -> Result<(), Refusal> {
        let order = CutOrder::Budget { level: level.clone(), name: name.to_owned(), limit };
        self.shared.policies.cut(&self.shared.quota, order).await
    }

    /// Takes a budget away. Needs the root key on this node.
    ///
    /// # Errors
    /// As [`Admin::budget_set`].
    pub async fn budget_remove(&self, level: &Level, name: &str) -> Result<BudgetSet, Refusal> {
        self.shared.policies.budget_remove(&self.shared.quota, level, name).await
    }

    /// Prolongs the validity of all budgets. Needs the root key on this node.
    ///
    /// # Errors
    /// As [`Admin::budget_set`].
    pub async fn budget_renew(&self) -> Result<Vec<BudgetSet>, Refusal> {
        self.shared.policies.budget_renew(&self.shared.quota).await
    }

    /// The budgets, all or those of an account and the accounts under it.
    pub fn budget_status(&self, path: Option<&AccountPath>) -> Vec<BudgetView> {
        let (book, wall) = (self.shared.policies.book(), clock::wall());
        let used = self.shared.quota.status();
        let budgets = book
            .budgets()
            .filter(|budget| path.is_none_or(|path| path.covers(&budget.level.account)));
        let mut views: Vec<BudgetView> = budgets
            .map(|budget| {
                let status = used.iter().find(|status| status.id == budget.id);
                view(&book, budget, status, (self.shared.me, wall))
            })
            .collect();
        views.sort_by(|a, b| (&a.level, &a.name).cmp(&(&b.level, &b.name)));
        views
    }

    /// Tells what is left of the budgets an account and key draw from, for headers of answers;
    /// nothing without budgets. Requests wait for what is done with it, which must be short.
    pub fn remaining(
        &self,
        account: &AccountPath,
        key: Option<&KeyId>,
        tell: impl FnMut(Remaining),
    ) {
        if self.shared.policies.limits(account, key) {
            self.shared.quota.each_remaining(account, key, tell);
        }
    }

    /// Under which number of its durable store this node holds rights.
    pub fn escrow_incarnation(&self) -> u64 {
        self.shared.quota.incarnation()
    }
}

fn view(
    book: &PolicyBook,
    budget: &Budget,
    status: Option<&BudgetStatus>,
    (me, wall): (NodeId, Wall),
) -> BudgetView {
    let (spec, ledger) = (&budget.spec, book.current(&budget.id, wall));
    let holders = match status {
        Some(status) => status.holders.clone(),
        None => ledger.map(|key| granted(book, &key, wall)).unwrap_or_default(),
    };
    // This node's own count is exact; of others the mark is all there is.
    let others = holders.iter().filter(|held| held.holder.node != me);
    let others: u64 = others.fold(0, |sum, held| sum.saturating_add(held.hw));
    let mine = holders.iter().find(|held| held.holder.node == me).map_or(0, |held| held.rights);
    BudgetView {
        level: budget.level.clone(),
        name: spec.name.clone(),
        unit: spec.unit,
        period: (spec.unit != Unit::Concurrent).then_some(spec.period),
        limit: budget.limit,
        spent: status.map_or(0, |status| status.spent).saturating_add(others),
        reserved: status.map_or(0, |status| status.reserved),
        available: status.map_or(mine, |status| status.available),
        rights: status.map_or(mine, |status| status.rights),
        debt: status.map_or(0, |status| status.debt),
        resets_at: ledger.and_then(|key| book.resets_at(&key)),
        in_force: matches!(book.standing(&budget.id, wall), Standing::Open(_)),
        reclaimable: spec.reclaimable,
        witnesses: status.and_then(|status| status.witnesses),
        holders,
    }
}

/// Holders of a budget that was not used here yet.
fn granted(book: &PolicyBook, key: &LedgerKey, wall: Wall) -> Vec<HolderStatus> {
    let members = book.members(key, wall).into_iter();
    let status = |holder| HolderStatus {
        holder,
        rights: book.grant(key, &holder, wall),
        hw: 0,
        demand: 0,
        seq: 0,
        sealed: false,
        quarantined: false,
        reclaimed_by: None,
    };
    members.map(status).collect()
}
