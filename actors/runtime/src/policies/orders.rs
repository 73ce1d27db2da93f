//! What operators order about accounts, keys and budgets: signed here, if this node may.
//!
//! Owns who signs what: epochs need the root key, the rest a steward's or the root's. The records
//! and their checks are the policy's.

use selvedge_base::{Code, Micros, NodeId, Refusal, Stage, Wall};
use selvedge_crdt::escrow::Holder;
use selvedge_net::{Identity, clock, entropy};
use selvedge_proto::policy::{
    self, AccountPath, BudgetTerms, CutOrder, EpochDraft, KeyId, Level, PolicyBook, PolicyError,
    sign_account, sign_cut, sign_key,
};
use serde::Serialize;

use super::Policies;
use crate::custody;
use crate::membership::{Key, broken, custody_refusal};
use crate::quota::QuotaLine;
use crate::signing::Signing;

/// A key to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDraft {
    /// What people call it.
    pub name: String,
    /// Whose requests it makes; none makes a key of this node alone, without budgets.
    pub account: Option<AccountPath>,
    /// When it ends by itself, counted from now.
    pub expires_in: Option<Micros>,
    /// Models it may use, by name or by prefix and `*`; empty: all.
    pub models: Vec<String>,
    /// Routes it may use; empty: all.
    pub routes: Vec<String>,
}

/// A budget to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetDraft {
    /// What it says.
    pub terms: BudgetTerms,
    /// Parts of the nodes, for all budgets of the tenant; a node that is not named keeps its own,
    /// and one that is new counts 1.
    pub weights: Vec<(NodeId, u32)>,
}

/// What became of an order that changes a tenant's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BudgetSet {
    /// The tenant.
    pub tenant: String,
    /// The number of the configuration that says so.
    pub epoch: u64,
    /// When it begins to count.
    pub from: Wall,
    /// When it is over unless it is renewed.
    pub until: Wall,
    /// Whether it counts for windows that begin now.
    pub in_force: bool,
    /// Nodes that have not promised to follow it yet.
    pub waiting_for: Vec<NodeId>,
}

/// An account, as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TenantView {
    /// The account.
    pub path: AccountPath,
    /// What people call it.
    pub title: String,
    /// Whether it, or an account above it, is suspended.
    pub suspended: bool,
}

impl Policies {
    /// Makes an account known by name; where the root key is, this ends a suspension.
    pub(crate) async fn tenant_create(
        &self,
        quota: &QuotaLine,
        path: &AccountPath,
        title: &str,
    ) -> Result<(), Refusal> {
        let signer = self.signer(true)?;
        let notice = signer.sign(|key, steward| {
            let mesh = self.membership.mesh();
            sign_account(key, steward, mesh, path.clone(), title, clock::wall())
        })?;
        self.change(quota, false, |book| {
            self.membership.with(|roster| book.apply_account(notice, roster)).map(drop)
        })
        .await
    }

    /// Refuses an account and all below it from now on, everywhere this is heard of.
    pub(crate) async fn cut(&self, quota: &QuotaLine, order: CutOrder) -> Result<(), Refusal> {
        self.book.load().check_cut(&order).map_err(|error| refused(&error))?;
        let wall = clock::wall();
        let at = self.book.load().cut_date(&order, wall);
        let mesh = self.membership.mesh();
        let notice = self
            .signer(false)?
            .sign(|key, steward| sign_cut(key, steward, mesh, order.clone(), at))?;
        self.change(quota, true, |book| {
            self.membership.with(|roster| book.apply_cut(notice, roster, wall))?;
            book.check_cut_counts(&order)
        })
        .await
    }

    /// Accounts known by name, and tenants that have budgets.
    pub(crate) fn tenants(&self) -> Vec<TenantView> {
        let book = self.book.load();
        let titled = book.accounts().map(|grant| (grant.path.clone(), grant.title.clone()));
        let mut all: Vec<(AccountPath, String)> = titled.collect();
        for (tenant, _) in book.tenants() {
            if !all.iter().any(|(path, _)| path == tenant) {
                all.push((tenant.clone(), String::new()));
            }
        }
        all.sort();
        let view = |(path, title): (AccountPath, String)| {
            let suspended = book.suspended(&path).is_some();
            TenantView { path, title, suspended }
        };
        all.into_iter().map(view).collect()
    }

    /// Makes a key of the mesh; its secret is in the answer and nowhere else.
    pub(crate) async fn key_create(
        &self,
        quota: &QuotaLine,
        draft: policy::KeyDraft,
    ) -> Result<(KeyId, String), Refusal> {
        let wall = clock::wall();
        let made = self.signer(false)?.sign(|key, steward| {
            let mesh = self.membership.mesh();
            sign_key(key, steward, mesh, draft, entropy::seed(), wall)
        })?;
        let id = made.notice.signed.body.id;
        self.change(quota, false, |book| {
            self.membership.with(|roster| book.apply_key(made.notice, roster, wall)).map(drop)
        })
        .await?;
        Ok((id, made.secret))
    }

    /// Sets a budget of an account or key, by the tenant's next epoch. Needs the root key here.
    pub(crate) async fn budget_set(
        &self,
        quota: &QuotaLine,
        level: Level,
        draft: BudgetDraft,
    ) -> Result<BudgetSet, Refusal> {
        let tenant = level.account.tenant_path();
        self.next_epoch(quota, &tenant, |epoch| {
            weigh(&mut epoch.members, &draft.weights);
            epoch.set(level, draft.terms);
            Ok(())
        })
        .await
    }

    /// Takes a budget away, by the tenant's next epoch. Needs the root key here.
    pub(crate) async fn budget_remove(
        &self,
        quota: &QuotaLine,
        level: &Level,
        name: &str,
    ) -> Result<BudgetSet, Refusal> {
        let tenant = level.account.tenant_path();
        self.next_epoch(quota, &tenant, |epoch| match epoch.remove(level, name) {
            true => Ok(()),
            false => {
                let message = "there is no such budget; `selvedge budget show` shows all";
                Err(Refusal::client(Stage::Validate, Code::InvalidRequest, message))
            }
        })
        .await
    }

    /// Prolongs all tenants' budgets by their time, from now on. Needs the root key here.
    pub(crate) async fn budget_renew(&self, quota: &QuotaLine) -> Result<Vec<BudgetSet>, Refusal> {
        let tenants: Vec<AccountPath> =
            self.book.load().tenants().map(|(tenant, _)| tenant.clone()).collect();
        let mut renewed = Vec::new();
        for tenant in tenants {
            renewed.push(self.next_epoch(quota, &tenant, |_| Ok(())).await?);
        }
        Ok(renewed)
    }

    /// Where the root key is at hand, renews the epochs whose half time is over. The caller has the
    /// turn.
    pub(super) async fn renew_due(&self, quota: &QuotaLine, wall: Wall) -> Result<(), Refusal> {
        let generation = self.membership.with(|roster| roster.generation());
        let due = self.book.load().renewal_due(generation, wall);
        if due.is_empty() || !custody::root_key_path(&self.home).exists() {
            return Ok(());
        }
        let root = custody::load_root(&self.home).map_err(|error| custody_refusal(&error))?;
        for tenant in due {
            let mut book = PolicyBook::clone(&self.book.load());
            let number = self.sign_next(quota, &root, &mut book, &tenant, wall, |_| Ok(()))?;
            self.keep(quota, book, false).await.map_err(|error| broken(&error))?;
            tracing::info!(%tenant, number, "the budgets' configuration was renewed");
        }
        Ok(())
    }

    /// Signs a tenant's next epoch and says where it stands.
    async fn next_epoch(
        &self,
        quota: &QuotaLine,
        tenant: &AccountPath,
        change: impl FnOnce(&mut EpochDraft) -> Result<(), Refusal>,
    ) -> Result<BudgetSet, Refusal> {
        let root = custody::load_root(&self.home).map_err(|error| custody_refusal(&error))?;
        let wall = clock::wall();
        let _turn = self.turn.lock().await;
        let mut book = PolicyBook::clone(&self.book.load());
        self.sign_next(quota, &root, &mut book, tenant, wall, change)?;
        self.keep(quota, book.clone(), false).await.map_err(|error| broken(&error))?;
        if book.adoption_due(wall) {
            self.adopt(quota, book, wall).await;
        }
        let book = self.book.load();
        let status = book.epoch_status(tenant.as_str(), clock::wall());
        let status = status.ok_or_else(|| refused(&PolicyError::Unknown("renewal")))?;
        Ok(BudgetSet {
            tenant: tenant.to_string(),
            epoch: status.number,
            from: status.from,
            until: status.until,
            in_force: status.in_force,
            waiting_for: status.waiting_for,
        })
    }

    /// Signs a tenant's next epoch: the present one as `change` alters it, with every member that
    /// came since. Its number.
    fn sign_next(
        &self,
        quota: &QuotaLine,
        root: &Identity,
        book: &mut PolicyBook,
        tenant: &AccountPath,
        wall: Wall,
        change: impl FnOnce(&mut EpochDraft) -> Result<(), Refusal>,
    ) -> Result<u64, Refusal> {
        let mut draft = match book.epoch(tenant.as_str()) {
            Some(epoch) => EpochDraft::after(&epoch.body, wall),
            None => EpochDraft::first(tenant.clone(), Vec::new(), wall),
        };
        self.add_members(quota, &mut draft);
        change(&mut draft)?;
        let signed =
            self.membership.with(|roster| book.sign_epoch(&Key(root), roster, draft, wall));
        signed.map(|signed| signed.body.number).map_err(|error| refused(&error))
    }

    /// Adds members that hold no rights yet, and drops those that were put out.
    fn add_members(&self, quota: &QuotaLine, draft: &mut EpochDraft) {
        let me = self.identity.node_id();
        let mut holders = vec![Holder { node: me, incarnation: quota.incarnation() }];
        self.membership.with(|roster| {
            draft.members.retain(|(holder, _)| !roster.is_revoked(&holder.node));
            let others = roster.members().map(|(node, _)| *node).filter(|node| *node != me);
            holders.extend(others.filter_map(|node| self.holder_of(&node)));
        });
        for holder in holders {
            // A store that was lost leaves its old name behind, whose rights nobody can use.
            draft.members.retain(|(held, _)| held.node != holder.node || *held == holder);
            if !draft.members.iter().any(|(held, _)| *held == holder) {
                draft.members.push((holder, 1));
            }
        }
        draft.members.truncate(policy::MAX_MEMBERS);
    }

    /// Changes the book, if the change holds.
    async fn change(
        &self,
        quota: &QuotaLine,
        tightens: bool,
        change: impl FnOnce(&mut PolicyBook) -> Result<(), PolicyError>,
    ) -> Result<(), Refusal> {
        let _turn = self.turn.lock().await;
        let mut book = PolicyBook::clone(&self.book.load());
        change(&mut book).map_err(|error| refused(&error))?;
        self.keep(quota, book, tightens).await.map_err(|error| broken(&error))
    }

    fn signer(&self, as_root: bool) -> Result<Signing<'_>, Refusal> {
        Signing::here(&self.membership, &self.identity, &self.home, as_root)
    }
}

fn weigh(members: &mut [(Holder, u32)], weights: &[(NodeId, u32)]) {
    for (holder, weight) in members {
        if let Some((_, wanted)) = weights.iter().find(|(node, _)| *node == holder.node) {
            *weight = *wanted;
        }
    }
}

fn refused(error: &PolicyError) -> Refusal {
    Refusal::client(Stage::Validate, Code::InvalidRequest, error.to_string())
}
