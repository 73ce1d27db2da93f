//! The verified policy records of a mesh as one node knows them, and what they say.
//!
//! Owns which records are kept and every look-up. A book changes only by records and, as windows
//! end, by [`PolicyBook::tick`]; it never reads a clock. Records are shared, so that a clone copies
//! maps and no record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selvedge_base::{MeshId, NodeId, Wall};
use selvedge_crdt::escrow::{BudgetId, Holder, LedgerKey};

use super::chain::{Chain, Held};
use super::force::Standing;
use super::grants::GrantNotice;
use super::view::{Budget, Entry, entries};
use super::{
    AccountGrant, AccountPath, Adopted, CutNotice, CutOrder, Epoch, KeyId, KeyNotice, Level,
    MAX_ACCOUNTS, MAX_CUTS, MAX_KEYS, MAX_TENANTS, PolicyError,
};
use crate::records::{CLOCK_SKEW, Record, RecordError, Roster, Signed, Signer};

/// Cuts kept of one budget. Two of them matter at once only when two stewards cut it without
/// knowing of each other.
const MAX_CUTS_OF_BUDGET: usize = 4;

/// The policy of a mesh. Cheap to clone next to what it holds.
#[derive(Clone, Debug)]
pub struct PolicyBook {
    pub(super) mesh: MeshId,
    pub(super) me: NodeId,
    pub(super) chains: BTreeMap<AccountPath, Chain>,
    pub(super) accounts: BTreeMap<AccountPath, Arc<GrantNotice<AccountGrant>>>,
    pub(super) keys: BTreeMap<KeyId, Arc<KeyNotice>>,
    pub(super) cuts: Cutting,
    revision: u64,
    /// Worked out from the above.
    entries: BTreeMap<BudgetId, Arc<Entry>>,
    by_account: BTreeMap<AccountPath, Arc<[Arc<Budget>]>>,
    by_key: BTreeMap<KeyId, (AccountPath, Arc<[Arc<Budget>]>)>,
    none: Arc<[Arc<Budget>]>,
}

/// Cuts by what they cut.
#[derive(Clone, Debug, Default)]
pub(super) struct Cutting {
    pub(super) keys: BTreeMap<KeyId, Arc<CutNotice>>,
    pub(super) accounts: BTreeMap<AccountPath, Arc<CutNotice>>,
    pub(super) budgets: BTreeMap<(Level, String), Vec<Arc<CutNotice>>>,
}

/// Where a tenant's newest epoch stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochStatus {
    /// Its number.
    pub number: u64,
    /// Windows that begin before are not its own.
    pub from: Wall,
    /// When it is over.
    pub until: Wall,
    /// Whether windows that begin now are its own, for all that this node knows.
    pub in_force: bool,
    /// From when on they are at the latest.
    pub settled_from: Wall,
    /// Whether another one of the same number was signed; nothing can be spent by either.
    pub forked: bool,
    /// Nodes that have not signed that they follow it, when it waits for them.
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
            revision: 0,
            entries: BTreeMap::new(),
            by_account: BTreeMap::new(),
            by_key: BTreeMap::new(),
            none: Arc::from([]),
        }
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
        if let Some((owner, budgets)) = key.and_then(|key| self.by_key.get(key))
            && owner == account
        {
            return budgets.clone();
        }
        account.upward().find_map(|path| self.by_account.get(path)).unwrap_or(&self.none).clone()
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
        let reign = chain.reigns(&self.me).last().copied()?;
        let in_force = reign.hi <= wall && wall < reign.until;
        let missing = |holder: &Holder| !slot.adopted.contains_key(holder);
        let waiting: BTreeSet<NodeId> = match chain.before(reign.number) {
            Some(before) if reign.hi > wall.max(reign.from) => {
                before.holders().into_iter().filter(missing).map(|holder| holder.node).collect()
            }
            Some(_) | None => BTreeSet::new(),
        };
        Some(EpochStatus {
            number: reign.number,
            from: reign.from,
            until: reign.until,
            in_force,
            settled_from: reign.hi,
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

    /// Forgets what no open window needs. True when an answer may have changed.
    pub fn tick(&mut self, wall: Wall) -> bool {
        let me = self.me;
        let mut touched = BTreeSet::new();
        for (tenant, chain) in &mut self.chains {
            if chain.prune(&me, wall) {
                touched.insert(tenant.clone());
            }
        }
        let listed = |entry: &Entry| {
            let level = &entry.budget.level;
            let budgets = self.budgets_of(&level.account, level.key.as_ref());
            budgets.iter().any(|budget| budget.id == entry.budget.id)
        };
        for entry in self.entries.values() {
            if entry.is_over(wall) == listed(entry) {
                touched.insert(entry.budget.level.account.tenant_path());
            }
        }
        for tenant in &touched {
            self.rebuild(tenant, wall);
        }
        let expired = |notice: &KeyNotice| {
            notice.signed.body.not_after.is_some_and(|end| wall > end.plus(KEPT_EXPIRED))
        };
        let before = self.keys.len();
        self.keys.retain(|_, notice| !expired(notice));
        let changed = !touched.is_empty() || before != self.keys.len();
        self.revision += u64::from(changed);
        changed
    }

    /// Takes an epoch. True when something changed.
    ///
    /// # Errors
    /// What is wrong with it, or [`PolicyError::Full`].
    pub fn apply_epoch(
        &mut self,
        signed: Signed<Epoch>,
        roster: &Roster,
        wall: Wall,
    ) -> Result<bool, PolicyError> {
        let body = &signed.body;
        let held = Held::new(signed.clone());
        let chain = self.chains.get(body.tenant.as_str());
        if chain.is_some_and(|chain| chain.number_of(&held.hash).is_some()) {
            return Ok(false);
        }
        if chain.is_none() && self.chains.len() >= MAX_TENANTS {
            return Err(PolicyError::Full { what: "tenant", limit: MAX_TENANTS });
        }
        body.check()?;
        roster.check_root(&signed, body.mesh, body.generation, body.issued)?;
        if !roster.is_within_grace(body.generation, wall) {
            let (theirs, ours) = (body.generation, roster.generation());
            let record = Epoch::KIND;
            return Err(RecordError::Generation { record, theirs, ours }.into());
        }
        let tenant = body.tenant.clone();
        let (me, number) = (self.me, body.number);
        let chain = self.chains.entry(tenant.clone()).or_default();
        let taken = chain.take(held, &me)?;
        chain.prune(&me, wall);
        let kept = chain.slots.contains_key(&number);
        self.rebuild(&tenant, wall);
        self.revision += u64::from(taken);
        Ok(taken && kept)
    }

    /// Takes a holder's word that it follows an epoch. True when it is new.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn apply_adopted(
        &mut self,
        signed: Signed<Adopted>,
        wall: Wall,
    ) -> Result<bool, PolicyError> {
        let body = &signed.body;
        if body.mesh != self.mesh || signed.signer != body.holder.node.0 {
            let expected = "the holder's own node";
            return Err(RecordError::Signer { record: Adopted::KIND, expected }.into());
        }
        let named = |(_, chain): &(&AccountPath, &Chain)| chain.number_of(&body.epoch).is_some();
        let tenant = self.chains.iter().find(named).map(|(tenant, _)| tenant.clone());
        let tenant = tenant.ok_or(PolicyError::Unknown(Adopted::KIND))?;
        signed.check_signature()?;
        let Some(chain) = self.chains.get_mut(&tenant) else { return Ok(false) };
        if !chain.take_adopted(signed)? {
            return Ok(false);
        }
        self.rebuild(&tenant, wall);
        self.revision += 1;
        Ok(true)
    }

    /// Takes an account's name. True when it is new.
    ///
    /// # Errors
    /// What is wrong with it, or [`PolicyError::Full`].
    pub fn apply_account(
        &mut self,
        notice: GrantNotice<AccountGrant>,
        roster: &Roster,
    ) -> Result<bool, PolicyError> {
        let body = &notice.signed.body;
        // The root's word stands above a steward's; then the later one.
        let rank = |notice: &GrantNotice<AccountGrant>| {
            let body = &notice.signed.body;
            (notice.steward.is_none(), body.issued, body.title.clone())
        };
        let held = self.accounts.get(&body.path);
        if held.is_some_and(|held| rank(held) >= rank(&notice)) {
            return Ok(false);
        }
        if held.is_none() && self.accounts.len() >= MAX_ACCOUNTS {
            return Err(PolicyError::Full { what: "account", limit: MAX_ACCOUNTS });
        }
        body.check()?;
        roster.check_right(&notice.signed, notice.steward.as_ref(), body.mesh, body.issued)?;
        self.accounts.insert(body.path.clone(), Arc::new(notice));
        self.revision += 1;
        Ok(true)
    }

    /// Takes a key. True when it is new.
    ///
    /// # Errors
    /// What is wrong with it, or [`PolicyError::Full`].
    pub fn apply_key(
        &mut self,
        notice: KeyNotice,
        roster: &Roster,
        wall: Wall,
    ) -> Result<bool, PolicyError> {
        let body = &notice.signed.body;
        let order = |notice: &KeyNotice| (notice.signed.body.issued, notice.signed.signature);
        let held = self.keys.get(&body.id);
        let expired = body.not_after.is_some_and(|end| wall > end.plus(CLOCK_SKEW));
        if held.is_some_and(|held| order(held) >= order(&notice))
            || self.cuts.keys.contains_key(&body.id)
            || expired
        {
            return Ok(false);
        }
        if held.is_none() && self.keys.len() >= MAX_KEYS {
            return Err(PolicyError::Full { what: "key", limit: MAX_KEYS });
        }
        body.check()?;
        roster.check_right(&notice.signed, notice.steward.as_ref(), body.mesh, body.issued)?;
        self.keys.insert(body.id, Arc::new(notice));
        self.revision += 1;
        Ok(true)
    }

    /// Takes a cut. True when it is new.
    ///
    /// # Errors
    /// What is wrong with it, or [`PolicyError::Full`].
    pub fn apply_cut(
        &mut self,
        notice: CutNotice,
        roster: &Roster,
        wall: Wall,
    ) -> Result<bool, PolicyError> {
        if !self.cuts.lacks(&notice) {
            return Ok(false);
        }
        let body = &notice.signed.body;
        body.check()?;
        roster.check_right(&notice.signed, notice.steward.as_ref(), body.mesh, body.at)?;
        let ahead = body.at.since(wall);
        // A date far ahead would outlast every limit the operator chooses. Keys never come back,
        // so the date of their end is no matter.
        if ahead > CLOCK_SKEW && !matches!(body.order, CutOrder::Key(_)) {
            let ahead_s = ahead.0 / 1_000_000;
            return Err(RecordError::NotYet { record: "cut", ahead_s }.into());
        }
        if self.cuts.len() >= MAX_CUTS {
            return Err(PolicyError::Full { what: "cut", limit: MAX_CUTS });
        }
        let order = body.order.clone();
        self.cuts.insert(Arc::new(notice));
        match order {
            CutOrder::Key(id) => drop(self.keys.remove(&id)),
            CutOrder::Account(_) => {}
            CutOrder::Budget { level, .. } => self.rebuild(&level.account.tenant_path(), wall),
        }
        self.revision += 1;
        Ok(true)
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
            let list: Arc<[Arc<Budget>]> = key
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

impl Cutting {
    pub(super) fn len(&self) -> usize {
        let budgets: usize = self.budgets.values().map(Vec::len).sum();
        self.keys.len() + self.accounts.len() + budgets
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<CutNotice>> {
        self.keys.values().chain(self.accounts.values()).chain(self.budgets.values().flatten())
    }

    /// Whether a cut would say something new.
    fn lacks(&self, notice: &CutNotice) -> bool {
        let at = notice.signed.body.at;
        match &notice.signed.body.order {
            CutOrder::Key(id) => !self.keys.contains_key(id),
            CutOrder::Account(path) => {
                self.accounts.get(path).is_none_or(|held| held.signed.body.at < at)
            }
            CutOrder::Budget { level, name, limit } => {
                let held = self.budgets.get(&(level.clone(), name.clone()));
                let covers =
                    |held: &Arc<CutNotice>| held.signed.body.at >= at && lowered(held) <= *limit;
                !held
                    .is_some_and(|held| held.iter().any(covers) || held.len() >= MAX_CUTS_OF_BUDGET)
            }
        }
    }

    fn insert(&mut self, notice: Arc<CutNotice>) {
        let (at, limit) = (notice.signed.body.at, lowered(&notice));
        match notice.signed.body.order.clone() {
            CutOrder::Key(id) => drop(self.keys.insert(id, notice)),
            CutOrder::Account(path) => drop(self.accounts.insert(path, notice)),
            CutOrder::Budget { level, name, .. } => {
                let held = self.budgets.entry((level, name)).or_default();
                held.retain(|held| held.signed.body.at > at || lowered(held) < limit);
                held.push(notice);
            }
        }
    }
}

/// The limit a cut sets; none of the others sets one.
fn lowered(notice: &CutNotice) -> u64 {
    match &notice.signed.body.order {
        CutOrder::Budget { limit, .. } => *limit,
        CutOrder::Key(_) | CutOrder::Account(_) => u64::MAX,
    }
}
