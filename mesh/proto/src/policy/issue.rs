//! Making policy records: what the holder of the root key or a steward signs.
//!
//! Owns the refusals that keep an operator from signing what nodes would have to distrust: a
//! second epoch while one is pending, an overlap nobody asked for, a cut that loosens.

use std::collections::BTreeSet;

use selvedge_base::{MeshId, Micros, NodeId, Wall};
use selvedge_crdt::escrow::Holder;

use super::grants::GrantNotice;
use super::{
    AccountGrant, AccountPath, BudgetSpec, Cut, CutNotice, CutOrder, DEFAULT_VALIDITY, Epoch,
    EpochStatus, Hardness, KEY_PREFIX, KeyGrant, KeyId, Level, MAX_VALIDITY, NewKey, OnExhausted,
    Period, PolicyBook, PolicyError, Scope, Unit,
};
use crate::records::{Roster, Signed, Signer, Steward};

/// How soon after an epoch the next one may follow without everybody's agreement: while somebody
/// types, or a script sets several budgets.
const SUCCESSION: Micros = Micros::secs(60);
/// Epochs that may be pending at once, a quarter of those that are kept.
const MAX_PENDING: usize = super::MAX_EPOCHS / 4;

/// What an operator says of a budget; see [`BudgetSpec`], which adds its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetTerms {
    /// What people call it; unique in its account.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// Its window.
    pub period: Period,
    /// How much in one window.
    pub limit: u64,
    /// How strict it is.
    pub hardness: Hardness,
    /// What happens when it is used up.
    pub on_exhausted: OnExhausted,
    /// Which calls it counts.
    pub scope: Scope,
    /// Parts in which a window becomes usable.
    pub sub_windows: u32,
    /// See [`BudgetSpec::reclaimable`].
    pub reclaimable: bool,
}

/// An epoch to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochDraft {
    /// The tenant.
    pub tenant: AccountPath,
    /// When it begins.
    pub from: Wall,
    /// How long it lasts from then on.
    pub validity: Micros,
    /// Whether it may begin before the present epoch is over, which takes the word of everybody
    /// who holds rights now.
    pub supersede: bool,
    /// Who holds rights, with weights.
    pub members: Vec<(Holder, u32)>,
    /// Levels and their budgets.
    pub accounts: Vec<(Level, Vec<BudgetTerms>)>,
    /// Budgets whose limit the operator chose just now, which ends cuts of it from before.
    pub chosen: BTreeSet<(Level, String)>,
}

/// The epoch before, as the signer's node knows it.
#[derive(Clone, Copy, Debug)]
pub struct Previous<'a> {
    /// It.
    pub epoch: &'a Signed<Epoch>,
    /// Windows that begin at this time or later are its own for certain.
    pub settled_from: Wall,
}

/// A key to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDraft {
    /// What people call it.
    pub name: String,
    /// Whose requests it makes.
    pub account: AccountPath,
    /// Models it may use; none listed means all.
    pub models: Vec<String>,
    /// Routes it may use; none listed means all.
    pub routes: Vec<String>,
    /// When it expires, if it does.
    pub not_after: Option<Wall>,
}

impl From<&BudgetSpec> for BudgetTerms {
    fn from(spec: &BudgetSpec) -> Self {
        Self {
            name: spec.name.clone(),
            unit: spec.unit,
            period: spec.period,
            limit: spec.limit,
            hardness: spec.hardness,
            on_exhausted: spec.on_exhausted.clone(),
            scope: spec.scope.clone(),
            sub_windows: spec.sub_windows,
            reclaimable: spec.reclaimable,
        }
    }
}

impl EpochDraft {
    /// A tenant's first epoch, without budgets yet.
    pub fn first(tenant: AccountPath, members: Vec<(Holder, u32)>, wall: Wall) -> Self {
        Self {
            tenant,
            from: wall,
            validity: DEFAULT_VALIDITY,
            supersede: false,
            members,
            accounts: Vec::new(),
            chosen: BTreeSet::new(),
        }
    }

    /// The same as an epoch says, from `wall` on.
    pub fn after(epoch: &Epoch, wall: Wall) -> Self {
        let terms = |specs: &Vec<BudgetSpec>| specs.iter().map(BudgetTerms::from).collect();
        let accounts = epoch.accounts.iter().map(|(level, specs)| (level.clone(), terms(specs)));
        Self {
            tenant: epoch.tenant.clone(),
            from: wall.max(epoch.from),
            validity: epoch.until.since(epoch.from).min(MAX_VALIDITY),
            supersede: true,
            members: epoch.members.clone(),
            accounts: accounts.collect(),
            chosen: BTreeSet::new(),
        }
    }

    /// Sets a budget at a level, in place of one of the same name.
    pub fn set(&mut self, level: Level, terms: BudgetTerms) {
        self.chosen.insert((level.clone(), terms.name.clone()));
        match self.accounts.iter_mut().find(|(held, _)| *held == level) {
            None => self.accounts.push((level, vec![terms])),
            Some((_, budgets)) => match budgets.iter_mut().find(|held| held.name == terms.name) {
                Some(held) => *held = terms,
                None => budgets.push(terms),
            },
        }
    }

    /// Takes a budget away. False when there is none.
    pub fn remove(&mut self, level: &Level, name: &str) -> bool {
        let count = |accounts: &[(Level, Vec<BudgetTerms>)]| {
            accounts.iter().map(|(_, budgets)| budgets.len()).sum::<usize>()
        };
        let before = count(&self.accounts);
        for (_, budgets) in self.accounts.iter_mut().filter(|(held, _)| held == level) {
            budgets.retain(|terms| terms.name != name);
        }
        self.accounts.retain(|(_, budgets)| !budgets.is_empty());
        count(&self.accounts) < before
    }
}

/// Signs an epoch with the root key of `generation`. `previous` is the tenant's newest epoch.
///
/// # Errors
/// [`PolicyError`] with what the operator can do.
pub fn sign_epoch(
    root: &impl Signer,
    mesh: MeshId,
    generation: u32,
    previous: Option<Previous<'_>>,
    draft: EpochDraft,
    wall: Wall,
) -> Result<Signed<Epoch>, PolicyError> {
    let older = previous.map(|previous| &previous.epoch.body);
    let number = older.map_or(1, |older| older.number + 1);
    let refuse = |why| Err(PolicyError::Epoch { tenant: draft.tenant.to_string(), number, why });
    if let Some(older) = older {
        if older.tenant != draft.tenant {
            return refuse("the epoch before is another tenant's");
        }
        if draft.from < older.until && !draft.supersede {
            return refuse("it begins before the present one is over; say that it supersedes it");
        }
    }
    let mut members = draft.members.clone();
    members.sort_by_key(|(holder, _)| *holder);
    let mut epoch = Epoch {
        mesh,
        tenant: draft.tenant.clone(),
        number,
        prev: previous.map_or([0; 32], |previous| Epoch::hash(previous.epoch)),
        prev_until: older.map_or(Wall(0), |older| older.until),
        prev_since: previous.map_or(Wall(0), |previous| previous.settled_from),
        generation,
        issued: wall,
        from: older.map_or(draft.from, |older| draft.from.max(older.from)),
        until: Wall(0),
        members,
        accounts: Vec::new(),
    };
    epoch.until = epoch.from.plus(draft.validity.min(MAX_VALIDITY)).max(epoch.prev_until);
    for (level, budgets) in &draft.accounts {
        let aged = |terms| aged(older, &epoch, level, terms, &draft.chosen);
        let specs: Vec<BudgetSpec> = budgets.iter().map(aged).collect();
        epoch.accounts.push((level.clone(), specs));
    }
    epoch.accounts.sort_by(|a, b| a.0.cmp(&b.0));
    epoch.check()?;
    if let Some(older) = older {
        epoch.check_after(older)?;
    }
    Ok(Signed::seal(epoch, root))
}

/// A budget with its history: when it was born, since when nobody's grant changed, and when the
/// operator last chose its limit.
fn aged(
    older: Option<&Epoch>,
    epoch: &Epoch,
    level: &Level,
    terms: &BudgetTerms,
    chosen: &BTreeSet<(Level, String)>,
) -> BudgetSpec {
    let before = older.and_then(|older| older.budget(level, &terms.name)).filter(|before| {
        // What counts otherwise is another budget: its ledgers must not be mixed up.
        before.unit == terms.unit
            && before.period == terms.period
            && before.reclaimable == terms.reclaimable
    });
    let same_shares = older.is_some_and(|older| older.members == epoch.members);
    let same = before.filter(|before| same_shares && before.limit == terms.limit);
    let kept = before.filter(|before| {
        before.limit == terms.limit && !chosen.contains(&(level.clone(), terms.name.clone()))
    });
    BudgetSpec {
        name: terms.name.clone(),
        unit: terms.unit,
        period: terms.period,
        limit: terms.limit,
        hardness: terms.hardness,
        on_exhausted: terms.on_exhausted.clone(),
        scope: terms.scope.clone(),
        sub_windows: terms.sub_windows,
        reclaimable: terms.reclaimable,
        born: before.map_or(epoch.number, |before| before.born),
        ledger: same.map_or(epoch.number, |before| before.ledger),
        set: kept.map_or(epoch.issued, |before| before.set),
    }
}

/// Makes a key of 256 random bits.
///
/// # Errors
/// [`PolicyError::Grant`] with what to write instead.
pub fn sign_key(
    signer: &impl Signer,
    steward: Option<Signed<Steward>>,
    mesh: MeshId,
    draft: KeyDraft,
    entropy: [u8; 32],
    wall: Wall,
) -> Result<NewKey, PolicyError> {
    let hex: String = entropy.iter().map(|byte| format!("{byte:02x}")).collect();
    let secret = format!("{KEY_PREFIX}{hex}");
    let hash = KeyGrant::hash_of(&mesh, &secret);
    let grant = KeyGrant {
        mesh,
        id: KeyGrant::id_of(&hash),
        hash,
        name: draft.name.trim().to_owned(),
        account: draft.account,
        models: draft.models,
        routes: draft.routes,
        issued: wall,
        not_after: draft.not_after,
    };
    grant.check()?;
    Ok(NewKey { notice: GrantNotice { signed: Signed::seal(grant, signer), steward }, secret })
}

/// Gives an account a name; signed by the root, it also ends a suspension.
///
/// # Errors
/// [`PolicyError::Grant`] with what to write instead.
pub fn sign_account(
    signer: &impl Signer,
    steward: Option<Signed<Steward>>,
    mesh: MeshId,
    path: AccountPath,
    title: &str,
    wall: Wall,
) -> Result<GrantNotice<AccountGrant>, PolicyError> {
    let grant = AccountGrant { mesh, path, title: title.trim().to_owned(), issued: wall };
    grant.check()?;
    Ok(GrantNotice { signed: Signed::seal(grant, signer), steward })
}

/// Tightens something; see [`PolicyBook::check_cut`] for what a node should ask first.
///
/// # Errors
/// [`PolicyError::Cut`].
pub fn sign_cut(
    signer: &impl Signer,
    steward: Option<Signed<Steward>>,
    mesh: MeshId,
    order: CutOrder,
    wall: Wall,
) -> Result<CutNotice, PolicyError> {
    let cut = Cut { mesh, order, at: wall };
    cut.check()?;
    Ok(GrantNotice { signed: Signed::seal(cut, signer), steward })
}

impl PolicyBook {
    /// Signs a tenant's next epoch and takes it.
    ///
    /// The one before must be in force, or over, or at least agreed on by everybody: of two that
    /// wait the later waits for the earlier. Changes in quick succession are let through, as
    /// nobody had the time to agree yet; and one that has a rival of its own number is succeeded
    /// at once, which is all that helps.
    ///
    /// # Errors
    /// [`PolicyError::Pending`] with who is waited for, and as [`sign_epoch`].
    pub fn sign_epoch(
        &mut self,
        root: &impl Signer,
        roster: &Roster,
        draft: EpochDraft,
        wall: Wall,
    ) -> Result<Signed<Epoch>, PolicyError> {
        let status = self.epoch_status(draft.tenant.as_str(), wall);
        let waits = |status: &&EpochStatus| {
            let old = wall.since(status.issued) > SUCCESSION;
            let open = status.settled_from > wall && !status.forked;
            open && (old && !status.waiting_for.is_empty() || status.pending >= MAX_PENDING)
        };
        if let Some(status) = status.as_ref().filter(waits) {
            let waiting: Vec<String> = status.waiting_for.iter().map(NodeId::short).collect();
            let in_s = status.settled_from.since(wall).0 / 1_000_000;
            let waiting =
                if waiting.is_empty() { "its time".to_owned() } else { waiting.join(", ") };
            let (tenant, number) = (draft.tenant.to_string(), status.number);
            return Err(PolicyError::Pending { tenant, number, waiting, in_s });
        }
        let epoch = self.epoch(draft.tenant.as_str()).cloned();
        let previous = epoch
            .as_ref()
            .zip(status)
            .map(|(epoch, status)| Previous { epoch, settled_from: status.settled_from });
        let (mesh, generation) = (self.mesh(), roster.generation());
        let signed = sign_epoch(root, mesh, generation, previous, draft, wall)?;
        self.apply_epoch(signed.clone(), roster, wall)?;
        Ok(signed)
    }

    /// Tenants whose epoch should be renewed: half of its time is over, the root key rotated since,
    /// or it was signed before the one before was in force, so that newcomers could not tell when
    /// that was. One that still waits to come into force is not among them.
    pub fn renewal_due(&self, generation: u32, wall: Wall) -> Vec<AccountPath> {
        let due = |(tenant, signed): (&AccountPath, &Signed<Epoch>)| {
            let epoch = &signed.body;
            let half = epoch.from.plus(Micros(epoch.until.since(epoch.from).0 / 2));
            let pending = self
                .epoch_status(tenant.as_str(), wall)
                .is_none_or(|status| status.settled_from > wall);
            let vague = epoch.prev_since > wall;
            let is_due = !pending && (wall >= half || epoch.generation < generation || vague);
            is_due.then(|| tenant.clone())
        };
        self.tenants().filter_map(due).collect()
    }

    /// Renews a tenant's epoch: the same for as long again, from now on, without the holders that
    /// `is_out` says are gone for good.
    ///
    /// # Errors
    /// As [`PolicyBook::sign_epoch`]; [`PolicyError::Unknown`] without an epoch.
    pub fn renew(
        &mut self,
        root: &impl Signer,
        roster: &Roster,
        tenant: &AccountPath,
        is_out: impl Fn(&Holder) -> bool,
        wall: Wall,
    ) -> Result<Signed<Epoch>, PolicyError> {
        let epoch = self.epoch(tenant.as_str()).ok_or(PolicyError::Unknown("renewal"))?;
        let mut draft = EpochDraft::after(&epoch.body, wall);
        draft.members.retain(|(holder, _)| !is_out(holder));
        self.sign_epoch(root, roster, draft, wall)
    }

    /// Whether a cut would tighten anything that is known here.
    ///
    /// # Errors
    /// [`PolicyError::Cut`] with what to do.
    pub fn check_cut(&self, order: &CutOrder) -> Result<(), PolicyError> {
        match order {
            CutOrder::Key(key) | CutOrder::KeyUntil { key, .. } if !self.keys.contains_key(key) => {
                Err(PolicyError::Cut("there is no such key; `selvedge key list` shows all"))
            }
            CutOrder::Budget { level, name, limit } => {
                let held = self
                    .budgets()
                    .find(|budget| budget.level == *level && budget.spec.name == *name);
                match held {
                    None => Err(PolicyError::Cut(
                        "there is no such budget; `selvedge budget show` shows all",
                    )),
                    Some(budget) if *limit >= budget.limit => Err(PolicyError::Cut(
                        "a limit can only be lowered this way; raising it takes \
                         `selvedge budget set` where the root key is",
                    )),
                    Some(_) => Ok(()),
                }
            }
            CutOrder::Key(_) | CutOrder::KeyUntil { .. } | CutOrder::Account(_) => Ok(()),
        }
    }

    /// The order that closes a key: with its end, if it has one, so that nobody has to remember
    /// for ever that it was closed.
    pub fn close_key(&self, key: KeyId) -> CutOrder {
        match self.key(&key).and_then(|grant| grant.not_after) {
            Some(end) => CutOrder::KeyUntil { key, end },
            None => CutOrder::Key(key),
        }
    }

    /// The date a cut needs to count, where the clock may be behind the one that dated the limit or
    /// the confirmation it is to follow.
    pub fn cut_date(&self, order: &CutOrder, wall: Wall) -> Wall {
        let after = match order {
            CutOrder::Key(_) | CutOrder::KeyUntil { .. } => return wall,
            CutOrder::Budget { .. } => self.set_at(order).plus(Micros::millis(1)),
            CutOrder::Account(path) => {
                let lifted = self.accounts.get(path).filter(|grant| grant.steward.is_none());
                lifted.map_or(wall, |grant| grant.signed.body.issued)
            }
        };
        wall.max(after)
    }

    /// Whether a cut that was taken counts here.
    ///
    /// # Errors
    /// [`PolicyError::Cut`]: it changed nothing.
    pub fn check_cut_counts(&self, order: &CutOrder) -> Result<(), PolicyError> {
        let counts = match order {
            CutOrder::Key(key) | CutOrder::KeyUntil { key, .. } => !self.keys.contains_key(key),
            CutOrder::Account(path) => self.suspended(path).is_some(),
            CutOrder::Budget { level, name, limit } => self
                .budgets()
                .filter(|held| held.level == *level && held.spec.name == *name)
                .all(|held| held.limit <= *limit),
        };
        if counts {
            return Ok(());
        }
        Err(PolicyError::Cut("the order was taken and changes nothing: see this node's clock"))
    }

    /// A key's id by the beginning of its text, when only one fits.
    pub fn key_named(&self, text: &str) -> Option<KeyId> {
        let mut fitting = self.keys.keys().filter(|id| id.to_string().starts_with(text));
        let found = fitting.next().copied().filter(|_| !text.is_empty());
        if fitting.next().is_some() { None } else { found }
    }
}
