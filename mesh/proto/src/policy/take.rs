//! Taking records into the book: whose signature they need, which of two stays, and the bounds.

use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_base::Wall;
use selvedge_base::plant::{self, Plant};
use selvedge_crdt::Signature;

use super::chain::{Chain, Held};
use super::grants::GrantNotice;
use super::{
    AccountGrant, AccountPath, Adopted, CutNotice, CutOrder, Epoch, KeyId, KeyNotice, Level,
    MAX_ACCOUNTS, MAX_CUTS, MAX_KEYS, MAX_TENANTS, PolicyBook, PolicyError,
};
use crate::records::{CLOCK_SKEW, Record, RecordError, Roster, Signed};

/// Cuts kept of one budget: each of them later and milder than the one before, or superfluous. More
/// make room by [`Cutting::room`].
const MAX_CUTS_OF_BUDGET: usize = 4;

/// Cuts by what they cut.
#[derive(Clone, Debug, Default)]
pub(super) struct Cutting {
    pub(super) keys: BTreeMap<KeyId, Arc<CutNotice>>,
    pub(super) accounts: BTreeMap<AccountPath, Arc<CutNotice>>,
    pub(super) budgets: BTreeMap<(Level, String), Vec<Arc<CutNotice>>>,
}

impl PolicyBook {
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
        let out = &self.out;
        let new = || Chain { out: out.clone(), ..Chain::default() };
        let chain = self.chains.entry(tenant.clone()).or_insert_with(new);
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
        let named = |(_, chain): &(&AccountPath, &Chain)| chain.has_met(&body.epoch);
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
        let GrantNotice { signed, steward } = &notice;
        roster.check_right_among(
            &mut self.shown,
            signed,
            steward.as_ref(),
            body.mesh,
            body.issued,
        )?;
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
        let GrantNotice { signed, steward } = &notice;
        roster.check_right_among(
            &mut self.shown,
            signed,
            steward.as_ref(),
            body.mesh,
            body.issued,
        )?;
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
        let set = self.set_at(&notice.signed.body.order);
        if is_over(&notice, wall) || !self.cuts.lacks(&notice, set) {
            return Ok(false);
        }
        let body = &notice.signed.body;
        body.check()?;
        let GrantNotice { signed, steward } = &notice;
        roster.check_right_among(&mut self.shown, signed, steward.as_ref(), body.mesh, body.at)?;
        let ahead = body.at.since(wall);
        // A date far ahead would outlast every limit the operator chooses. Keys never come back,
        // so the date of their end is no matter.
        if ahead > CLOCK_SKEW && body.order.key().is_none() {
            let ahead_s = ahead.0 / 1_000_000;
            return Err(RecordError::NotYet { record: "cut", ahead_s }.into());
        }
        if self.cuts.len() >= MAX_CUTS {
            return Err(PolicyError::Full { what: "cut", limit: MAX_CUTS });
        }
        let order = body.order.clone();
        self.cuts.insert(Arc::new(notice), set);
        match order {
            CutOrder::Key(_) | CutOrder::KeyUntil { .. }
                if plant::is_on(Plant::RevokedKeyOpens) => {}
            CutOrder::Key(key) | CutOrder::KeyUntil { key, .. } => drop(self.keys.remove(&key)),
            CutOrder::Account(_) => {}
            CutOrder::Budget { level, .. } => self.rebuild(&level.account.tenant_path(), wall),
        }
        self.revision += 1;
        Ok(true)
    }

    /// When the limit that a cut lowers was chosen; earlier cuts of it are over.
    pub(super) fn set_at(&self, order: &CutOrder) -> Wall {
        let CutOrder::Budget { level, name, .. } = order else { return Wall(0) };
        let meant = self.budgets().filter(|held| held.level == *level && held.spec.name == *name);
        meant.map(|held| held.spec.set).max().unwrap_or(Wall(0))
    }
}

impl Cutting {
    pub(super) fn len(&self) -> usize {
        let budgets: usize = self.budgets.values().map(Vec::len).sum();
        self.keys.len() + self.accounts.len() + budgets
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<CutNotice>> {
        self.keys.values().chain(self.accounts.values()).chain(self.budgets.values().flatten())
    }

    /// Whether there are cuts that nobody needs any more.
    pub(super) fn tick_due(&self, wall: Wall) -> bool {
        self.keys.values().any(|notice| is_over(notice, wall))
    }

    /// Forgets cuts that nobody needs any more; whether there were any.
    pub(super) fn tick(&mut self, wall: Wall) -> bool {
        let before = self.keys.len();
        self.keys.retain(|_, notice| !is_over(notice, wall));
        before != self.keys.len()
    }

    /// Whether a cut would say something new. `set`: when the limit it lowers was chosen.
    fn lacks(&self, notice: &CutNotice, set: Wall) -> bool {
        let at = notice.signed.body.at;
        match &notice.signed.body.order {
            CutOrder::Key(key) | CutOrder::KeyUntil { key, .. } => {
                self.keys.get(key).is_none_or(|held| rank(held) < rank(notice))
            }
            CutOrder::Account(path) => {
                self.accounts.get(path).is_none_or(|held| held.signed.body.at < at)
            }
            CutOrder::Budget { level, name, limit } => {
                let held = self.budgets.get(&(level.clone(), name.clone()));
                let held = held.map(Vec::as_slice).unwrap_or_default();
                let covers =
                    |held: &Arc<CutNotice>| held.signed.body.at >= at && lowered(held) <= *limit;
                let mut kept: Vec<(Wall, u64)> =
                    held.iter().map(|held| (held.signed.body.at, lowered(held))).collect();
                kept.retain(|(held, lowered)| *held > at || lowered < limit);
                kept.push((at, *limit));
                let last = kept.len() - 1;
                !held.iter().any(covers) && Self::room(&kept, set) != Some(last)
            }
        }
    }

    /// The one of too many cuts of a budget that goes: the oldest of those that a later choice of
    /// the limit ended, else the mildest. By what they say alone, so that nodes which hear of the
    /// same cuts in another order keep the same.
    fn room(cuts: &[(Wall, u64)], set: Wall) -> Option<usize> {
        if cuts.len() <= MAX_CUTS_OF_BUDGET {
            return None;
        }
        let oldest = (0..cuts.len()).min_by_key(|place| cuts[*place]);
        let mildest = (0..cuts.len()).max_by_key(|place| (cuts[*place].1, cuts[*place].0));
        oldest.filter(|place| cuts[*place].0 <= set).or(mildest)
    }

    fn insert(&mut self, notice: Arc<CutNotice>, set: Wall) {
        let (at, limit) = (notice.signed.body.at, lowered(&notice));
        match notice.signed.body.order.clone() {
            CutOrder::Key(key) | CutOrder::KeyUntil { key, .. } => {
                drop(self.keys.insert(key, notice));
            }
            CutOrder::Account(path) => drop(self.accounts.insert(path, notice)),
            CutOrder::Budget { level, name, .. } => {
                let held = self.budgets.entry((level, name)).or_default();
                held.retain(|held| held.signed.body.at > at || lowered(held) < limit);
                held.push(notice);
                let kept: Vec<(Wall, u64)> =
                    held.iter().map(|held| (held.signed.body.at, lowered(held))).collect();
                if let Some(place) = Self::room(&kept, set) {
                    held.remove(place);
                }
            }
        }
    }
}

/// Whether nobody needs a cut any more.
fn is_over(notice: &CutNotice, wall: Wall) -> bool {
    notice.signed.body.order.is_needed_until().is_some_and(|until| wall > until)
}

/// Of two cuts of one key the one with more of it stays, at every node: first what is needed
/// longer, then any order that is the same for all.
fn rank(notice: &CutNotice) -> (Wall, Signature) {
    let until = notice.signed.body.order.is_needed_until().unwrap_or(Wall(u64::MAX));
    (until, notice.signed.signature)
}

/// The limit a cut sets; none of the others sets one.
fn lowered(notice: &CutNotice) -> u64 {
    match &notice.signed.body.order {
        CutOrder::Budget { limit, .. } => *limit,
        CutOrder::Key(_) | CutOrder::KeyUntil { .. } | CutOrder::Account(_) => u64::MAX,
    }
}
