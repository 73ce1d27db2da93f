//! The verified policy records of a mesh as one node knows them, and what they say.
//!
//! Owns which records are kept and every look-up. A book changes only by records and, as windows
//! end, by [`PolicyBook::tick`]; it never reads a clock. Records are shared, so that a clone copies
//! maps and no record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selvedge_base::{MeshId, NodeId, Wall};
use selvedge_crdt::escrow::{BudgetId, Holder, LedgerKey};

use super::chain::Chain;
use super::force::Standing;
use super::grants::GrantNotice;
use super::take::Cutting;
use super::view::{Budget, Entry, entries};
use super::{AccountGrant, AccountPath, Epoch, KeyGrant, KeyId, KeyNotice, Level};
use crate::records::{ShownRights, Signed, Signer};

/// From the narrowest level up to the tenant.
type Budgets = Arc<[Arc<Budget>]>;

/// The policy of a mesh. Cheap to clone next to what it holds.
#[derive(Clone, Debug)]
pub struct PolicyBook {
    pub(super) mesh: MeshId,
    pub(super) me: NodeId,
    pub(super) chains: BTreeMap<AccountPath, Chain>,
    pub(super) accounts: BTreeMap<AccountPath, Arc<GrantNotice<AccountGrant>>>,
    pub(super) keys: BTreeMap<KeyId, Arc<KeyNotice>>,
    pub(super) cuts: Cutting,
    /// Nodes that were put out of the mesh.
    pub(super) out: BTreeSet<NodeId>,
    pub(super) revision: u64,
    /// Keys the hashes of the mesh's keys.
    pub(super) pepper: [u8; 32],
    /// Spares checks, and says nothing.
    pub(super) shown: ShownRights,
    /// Worked out from the above.
    entries: BTreeMap<BudgetId, Arc<Entry>>,
    by_account: BTreeMap<AccountPath, Budgets>,
    by_key: BTreeMap<KeyId, (AccountPath, Budgets)>,
    none: Budgets,
}

/// Where a tenant's newest epoch stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochStatus {
    /// Its number.
    pub number: u64,
    /// When it was signed.
    pub issued: Wall,
    /// Windows that begin before are not its own.
    pub from: Wall,
    /// When it is over.
    pub until: Wall,
    /// Whether windows that begin now are its own, for all that this node knows.
    pub in_force: bool,
    /// From when on they are at the latest.
    pub settled_from: Wall,
    /// Epochs, it among them, of which that is not certain yet although they have begun.
    pub pending: usize,
    /// Whether another one of the same number was signed; nothing can be spent by either.
    pub forked: bool,
    /// Nodes that have not signed that they follow those that are pending.
    pub waiting_for: Vec<NodeId>,
}

impl PolicyBook {
    /// A book without records, kept by node `me`.
    pub fn new(mesh: MeshId, me: NodeId) -> Self {
        Self {
            mesh,
            me,
            chains: BTreeMap::new(),
            accounts: BTreeMap::new(),
            keys: BTreeMap::new(),
            cuts: Cutting::default(),
            out: BTreeSet::new(),
            revision: 0,
            pepper: KeyGrant::pepper_of(&mesh),
            shown: ShownRights::default(),
            entries: BTreeMap::new(),
            by_account: BTreeMap::new(),
            by_key: BTreeMap::new(),
            none: Arc::from([]),
        }
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        let records = self.chains.len() + self.accounts.len() + self.keys.len() + self.cuts.len();
        records == 0
    }

    /// Changes when anything does.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The mesh.
    pub const fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// Every budget that a call of this account and key counts against, whatever its scope: from
    /// the key or the app up to the tenant.
    pub fn budgets_of(&self, account: &AccountPath, key: Option<&KeyId>) -> Arc<[Arc<Budget>]> {
        self.listed(account, key).clone()
    }

    /// Whether there is any such budget.
    pub fn has_budgets(&self, account: &AccountPath, key: Option<&KeyId>) -> bool {
        !self.listed(account, key).is_empty()
    }

    fn listed(&self, account: &AccountPath, key: Option<&KeyId>) -> &Budgets {
        if let Some((owner, budgets)) = key.and_then(|key| self.by_key.get(key))
            && owner == account
        {
            return budgets;
        }
        account.upward().find_map(|path| self.by_account.get(path)).unwrap_or(&self.none)
    }

    /// All budgets, in the order of their identities.
    pub fn budgets(&self) -> impl Iterator<Item = &Arc<Budget>> {
        self.entries.values().map(|entry| &entry.budget)
    }

    /// A budget by its identity.
    pub fn budget(&self, id: &BudgetId) -> Option<Arc<Budget>> {
        self.entries.get(id).map(|entry| entry.budget.clone())
    }

    /// Whether a budget counts at `wall`, and in which ledgers.
    pub fn standing(&self, id: &BudgetId, wall: Wall) -> Standing {
        self.entries.get(id).map_or(Standing::Free, |entry| entry.standing(wall))
    }

    /// The newest ledger that spending counts in at `wall`; none when it counts nowhere or nothing
    /// can be spent, which [`PolicyBook::standing`] tells apart.
    pub fn current(&self, id: &BudgetId, wall: Wall) -> Option<LedgerKey> {
        match self.standing(id, wall) {
            Standing::Open(ledgers) => Some(ledgers.first),
            Standing::Free | Standing::Stopped(_) => None,
        }
    }

    /// What a holder is granted of a ledger, as vested at `wall`; 0 for what is unknown.
    pub fn grant(&self, key: &LedgerKey, holder: &Holder, wall: Wall) -> u64 {
        self.entries.get(&key.budget).map_or(0, |entry| entry.grant(key, holder, wall))
    }

    /// The most a holder may have been granted of a ledger by all epochs known here that may govern
    /// it, cuts and vesting aside; none when one that is not known here may. A row above it is no
    /// proof of a lie: its holder may know a newer epoch.
    pub fn ceiling(&self, key: &LedgerKey, holder: &Holder) -> Option<u64> {
        self.entries.get(&key.budget)?.ceiling(key, holder)
    }

    /// Everybody who is granted part of a ledger.
    pub fn members(&self, key: &LedgerKey, wall: Wall) -> BTreeSet<Holder> {
        self.entries.get(&key.budget).map(|entry| entry.members(key, wall)).unwrap_or_default()
    }

    /// Whether a holder is granted part of a ledger.
    pub fn is_member(&self, key: &LedgerKey, holder: &Holder, wall: Wall) -> bool {
        self.entries.get(&key.budget).is_some_and(|entry| entry.is_member(key, holder, wall))
    }

    /// Who must agree, group by group, before a mark in a ledger of a reclaimable budget counts;
    /// empty for every other budget, and where that is not certain.
    pub fn voters(&self, key: &LedgerKey, wall: Wall) -> Vec<Vec<Holder>> {
        self.entries.get(&key.budget).map(|entry| entry.voters(key, wall)).unwrap_or_default()
    }

    /// The next moment after `wall` at which [`PolicyBook::standing`] or [`PolicyBook::grant`] may
    /// answer otherwise although no record changed.
    pub fn changes_at(&self, id: &BudgetId, wall: Wall) -> Wall {
        self.entries.get(id).map_or(Wall(u64::MAX), |entry| entry.changes_at(wall))
    }

    /// When a ledger's window ends; none for permits and rates.
    pub fn resets_at(&self, key: &LedgerKey) -> Option<Wall> {
        let spec = &self.entries.get(&key.budget)?.budget.spec;
        spec.unit.is_windowed().then(|| spec.period.end(key.window))
    }

    /// Tenants with an epoch, and the newest epoch of each.
    pub fn tenants(&self) -> impl Iterator<Item = (&AccountPath, &Signed<Epoch>)> {
        self.chains.iter().filter_map(|(path, chain)| Some((path, &chain.newest()?.held.signed)))
    }

    /// The newest epoch of a tenant.
    pub fn epoch(&self, tenant: &str) -> Option<&Signed<Epoch>> {
        Some(&self.chains.get(tenant)?.newest()?.held.signed)
    }

    /// Where a tenant's newest epoch stands.
    pub fn epoch_status(&self, tenant: &str, wall: Wall) -> Option<EpochStatus> {
        let chain = self.chains.get(tenant)?;
        let slot = chain.newest()?;
        let reigns = chain.reigns(&self.me);
        let reign = *reigns.last()?;
        let pending: Vec<u64> = reigns
            .iter()
            .filter(|reign| reign.hi > wall.max(reign.from))
            .map(|reign| reign.number)
            .collect();
        let waiting = pending.iter().flat_map(|number| chain.silent(*number));
        let waiting: BTreeSet<NodeId> = waiting.map(|holder| holder.node).collect();
        Some(EpochStatus {
            number: reign.number,
            issued: slot.body().issued,
            from: reign.from,
            until: reign.until,
            in_force: reign.hi <= wall && wall < reign.until,
            settled_from: reign.hi,
            pending: pending.len(),
            forked: reign.forked,
            waiting_for: waiting.into_iter().collect(),
        })
    }

    /// Accounts known by name.
    pub fn accounts(&self) -> impl Iterator<Item = &AccountGrant> {
        self.accounts.values().map(|notice| &notice.signed.body)
    }

    /// The account at or above a path that is suspended, if one is.
    pub fn suspended(&self, account: &AccountPath) -> Option<AccountPath> {
        account.upward().find_map(|path| {
            let (path, cut) = self.cuts.accounts.get_key_value(path)?;
            let lifted = self.accounts.get(path).filter(|grant| grant.steward.is_none());
            let lifted = lifted.map(|grant| grant.signed.body.issued);
            (lifted.is_none_or(|at| cut.signed.body.at >= at)).then(|| path.clone())
        })
    }

    /// Whether exactly these nodes are known to have been put out.
    pub fn knows_out(&self, nodes: &BTreeSet<NodeId>) -> bool {
        self.out == *nodes
    }

    /// Takes notice of who was put out of the mesh: their word is not waited for. True when an
    /// answer may have changed.
    pub fn put_out(&mut self, nodes: &BTreeSet<NodeId>, wall: Wall) -> bool {
        if self.out == *nodes {
            return false;
        }
        self.out.clone_from(nodes);
        let tenants: BTreeSet<AccountPath> = self.chains.keys().cloned().collect();
        for chain in self.chains.values_mut() {
            chain.out.clone_from(nodes);
        }
        self.after_adopting(tenants, wall);
        true
    }

    /// Whether [`PolicyBook::tick`] has anything to do: told without a copy of the book, for those
    /// who change a copy.
    pub fn tick_due(&self, wall: Wall) -> bool {
        self.chains.values().any(|chain| chain.prune_due(&self.me, wall))
            || self.entries.values().any(|entry| self.is_misplaced(entry, wall))
            || self.keys.values().any(|notice| has_expired(notice, wall))
            || self.cuts.tick_due(wall)
    }

    /// Forgets what no open window needs. True when an answer may have changed.
    pub fn tick(&mut self, wall: Wall) -> bool {
        if !self.tick_due(wall) {
            return false;
        }
        let me = self.me;
        let mut touched = BTreeSet::new();
        for (tenant, chain) in &mut self.chains {
            if chain.prune(&me, wall) {
                touched.insert(tenant.clone());
            }
        }
        for entry in self.entries.values() {
            if self.is_misplaced(entry, wall) {
                touched.insert(entry.budget.level.account.tenant_path());
            }
        }
        for tenant in &touched {
            self.rebuild(tenant, wall);
        }
        let before = self.keys.len();
        self.keys.retain(|_, notice| !has_expired(notice, wall));
        let forgot = self.cuts.tick(wall);
        let changed = forgot || !touched.is_empty() || before != self.keys.len();
        self.revision += u64::from(changed);
        changed
    }

    /// Whether a budget is listed for its level although it is over, or is not although it counts.
    fn is_misplaced(&self, entry: &Entry, wall: Wall) -> bool {
        let level = &entry.budget.level;
        let budgets = self.listed(&level.account, level.key.as_ref());
        entry.is_over(wall) == budgets.iter().any(|budget| budget.id == entry.budget.id)
    }

    /// Signs for this node every epoch that waits for its word, and says for how many.
    ///
    /// `latest` is the latest wall time this node ever spent at; clocks may have been set back
    /// since. From the moment of this call the book itself keeps the promise. Before anybody is
    /// told, the book must be stored and in the hands of the machine that spends; then
    /// [`PolicyBook::tell_adopted`] lets the words out.
    pub fn adopt(&mut self, signer: &impl Signer, wall: Wall, latest: Wall) -> usize {
        let me = self.me;
        let mut signed = BTreeSet::new();
        let mut count = 0;
        for (tenant, chain) in &mut self.chains {
            for (hash, holder) in chain.unsigned(&me, wall) {
                chain.adopt(signer, hash, holder, wall.max(latest));
                signed.insert(tenant.clone());
                count += 1;
            }
        }
        self.after_adopting(signed, wall);
        count
    }

    /// Lets this node's words out that are stored and heeded: those that begin after `latest`, the
    /// latest wall time it ever spent at. Words that were overtaken are signed anew, to be stored
    /// and told next time. True when something changed.
    pub fn tell_adopted(&mut self, signer: &impl Signer, wall: Wall, latest: Wall) -> bool {
        let (me, now) = (self.me, wall.max(latest));
        let mut touched = BTreeSet::new();
        for (tenant, chain) in &mut self.chains {
            if chain.tell(signer, &me, now) {
                touched.insert(tenant.clone());
            }
        }
        let changed = !touched.is_empty();
        self.after_adopting(touched, wall);
        changed
    }

    /// Whether an epoch waits for this node's word, or a word for being told.
    pub fn adoption_due(&self, wall: Wall) -> bool {
        let waits = |chain: &Chain| {
            !chain.unsigned(&self.me, wall).is_empty() || !chain.untold(&self.me, wall).is_empty()
        };
        self.chains.values().any(waits)
    }

    fn after_adopting(&mut self, tenants: BTreeSet<AccountPath>, wall: Wall) {
        self.revision += u64::from(!tenants.is_empty());
        for tenant in &tenants {
            self.rebuild(tenant, wall);
        }
    }

    /// Works out anew what a tenant's records say.
    pub(super) fn rebuild(&mut self, tenant: &AccountPath, wall: Wall) {
        let own = |level: &Level| level.account.tenant() == tenant.as_str();
        self.entries.retain(|_, entry| !own(&entry.budget.level));
        self.by_account.retain(|path, _| path.tenant() != tenant.as_str());
        self.by_key.retain(|_, (path, _)| path.tenant() != tenant.as_str());
        let Some(chain) = self.chains.get(tenant) else { return };
        let cuts = |level: &Level, name: &str| {
            let named = self.cuts.budgets.get(&(level.clone(), name.to_owned()));
            named.cloned().unwrap_or_default()
        };
        let mut levels: BTreeMap<Level, Vec<Arc<Budget>>> = BTreeMap::new();
        for entry in entries(chain, &self.me, &cuts) {
            let budget = entry.budget.clone();
            if !entry.is_over(wall) {
                levels.entry(budget.level.clone()).or_default().push(budget.clone());
            }
            self.entries.insert(budget.id, Arc::new(entry));
        }
        for level in levels.keys() {
            let key = level.key.map(|_| level.clone());
            let paths = level.account.upward().filter_map(|path| path.parse().ok()).map(Level::of);
            let list: Budgets = key
                .into_iter()
                .chain(paths)
                .filter_map(|level| levels.get(&level))
                .flatten()
                .cloned()
                .collect();
            match level.key {
                Some(key) => drop(self.by_key.insert(key, (level.account.clone(), list))),
                None => drop(self.by_account.insert(level.account.clone(), list)),
            }
        }
    }
}

/// How long an expired key is listed.
const KEPT_EXPIRED: selvedge_base::Micros = selvedge_base::Micros::secs(24 * 3_600);

fn has_expired(notice: &KeyNotice, wall: Wall) -> bool {
    notice.signed.body.not_after.is_some_and(|end| wall > end.plus(KEPT_EXPIRED))
}
