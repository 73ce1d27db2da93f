//! Epochs and the promises to follow them: the records, their signed bytes and what can be checked
//! of one alone.
//!
//! Does not own what an epoch means next to others: see `force`.

use selvedge_base::{MeshId, NodeId, Wall};
use selvedge_crdt::escrow::{BudgetId, Holder};
use serde::{Deserialize, Serialize};

use super::{
    AccountPath, BudgetSpec, Hardness, Level, MAX_BUDGETS, MAX_EPOCH_BYTES, MAX_LEVELS,
    MAX_MEMBERS, MAX_VALIDITY, OnExhausted, Period, PolicyError, Scope, Unit,
};
use crate::records::{Record, Signed};

/// A tenant's budgets and who holds which part of them. Signed by the mesh's root key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// The mesh.
    pub mesh: MeshId,
    /// The tenant; a path of one segment.
    pub tenant: AccountPath,
    /// Counts the tenant's epochs from 1.
    pub number: u64,
    /// The [`Epoch::hash`] of the epoch before; zeros for the first.
    pub prev: [u8; 32],
    /// When the epoch before is over; zero for the first.
    pub prev_until: Wall,
    /// Windows that begin at this time or later were never granted by the epoch before that one,
    /// as the operator's key attests; zero for the first.
    pub prev_since: Wall,
    /// The generation of the root key that signed.
    pub generation: u32,
    /// When it was signed.
    pub issued: Wall,
    /// Windows that begin before are not its own.
    pub from: Wall,
    /// Nor are windows that begin at this time or later.
    pub until: Wall,
    /// Who holds rights from the start, with weights of at least 1, in ascending order.
    pub members: Vec<(Holder, u32)>,
    /// The tenant's levels with their budgets, in ascending order.
    pub accounts: Vec<(Level, Vec<BudgetSpec>)>,
}

/// A holder follows an epoch that begins while the one before still runs: in windows that begin at
/// `since` or later it never uses more than either grants. Signed by the holder's node, stored
/// before it is told, and never taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The mesh.
    pub mesh: MeshId,
    /// The [`Epoch::hash`] of the epoch that is followed.
    pub epoch: [u8; 32],
    /// Who follows; a member of the epoch before.
    pub holder: Holder,
    /// From when on.
    pub since: Wall,
}

impl Epoch {
    /// The name of the epoch: a hash over everything it says and its signer.
    pub fn hash(signed: &Signed<Self>) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 epoch of budgets");
        hasher.update(&signed.signer);
        hasher.update(&written(&signed.body));
        *hasher.finalize().as_bytes()
    }

    /// The identity of one of its budgets.
    pub fn budget_id(mesh: &MeshId, level: &Level, spec: &BudgetSpec) -> BudgetId {
        let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 budget");
        let mut bytes = Vec::with_capacity(256);
        bytes.extend(mesh.0);
        put_level(&mut bytes, level);
        put_text(&mut bytes, &spec.name);
        bytes.extend(spec.born.to_be_bytes());
        hasher.update(&bytes);
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        BudgetId(id)
    }

    /// Every budget with its level.
    pub fn budgets(&self) -> impl Iterator<Item = (&Level, &BudgetSpec)> {
        self.accounts.iter().flat_map(|(level, specs)| specs.iter().map(move |spec| (level, spec)))
    }

    /// The budget of a name at a level.
    pub fn budget(&self, level: &Level, name: &str) -> Option<&BudgetSpec> {
        let found = self.accounts.binary_search_by(|(held, _)| held.cmp(level)).ok()?;
        self.accounts[found].1.iter().find(|spec| spec.name == name)
    }

    /// Whether a holder has a weight in it.
    pub fn has_member(&self, holder: &Holder) -> bool {
        self.members.binary_search_by(|(held, _)| held.cmp(holder)).is_ok()
    }

    /// Whether a node holds rights by it, whichever its store.
    pub fn has_node(&self, node: &NodeId) -> bool {
        self.members.iter().any(|(holder, _)| holder.node == *node)
    }

    /// Everything that needs no other record.
    ///
    /// # Errors
    /// [`PolicyError::Epoch`] or [`PolicyError::Terms`] with what is wrong.
    pub fn check(&self) -> Result<(), PolicyError> {
        let refuse = |why| Err(self.refused(why));
        if !self.tenant.is_tenant() {
            return refuse("an epoch belongs to a tenant, not to a team or an app");
        }
        let nothing = [0; 32];
        let first = self.number == 1;
        if self.number == 0
            || first != (self.prev == nothing)
            || first && (self.prev_until.0 > 0 || self.prev_since.0 > 0)
        {
            return refuse("its number does not fit the one before");
        }
        if self.until <= self.from || self.until < self.prev_until {
            return refuse("it ends before it begins, or before the one it follows");
        }
        if self.until.since(self.issued.min(self.from)) > MAX_VALIDITY.times(2)
            || self.until.since(self.from) > MAX_VALIDITY
        {
            return refuse("it lasts longer than 90 days");
        }
        if self.members.is_empty() || self.members.len() > MAX_MEMBERS {
            return refuse("it needs 1 to 256 holders");
        }
        let rising = self.members.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if !rising || self.members.iter().any(|(_, weight)| *weight == 0) {
            return refuse("holders must rise, each named once with a weight of at least 1");
        }
        self.check_accounts()?;
        if written(self).len() > MAX_EPOCH_BYTES {
            return refuse("it is larger than 128 KiB; split the tenant or list fewer models");
        }
        Ok(())
    }

    fn check_accounts(&self) -> Result<(), PolicyError> {
        let refuse = |why| Err(self.refused(why));
        if self.accounts.len() > MAX_LEVELS {
            return refuse("it has more than 64 accounts with budgets");
        }
        if !self.accounts.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            return refuse("accounts must rise, each named once");
        }
        for (level, specs) in &self.accounts {
            if level.account.tenant() != self.tenant.as_str() {
                return refuse("it names an account of another tenant");
            }
            if specs.is_empty() || specs.len() > MAX_BUDGETS {
                return refuse("an account needs 1 to 8 budgets, or is left out");
            }
            for (at, spec) in specs.iter().enumerate() {
                spec.check()?;
                if specs[..at].iter().any(|other| other.name == spec.name) {
                    return refuse("an account has two budgets of one name");
                }
                if spec.born == 0 || spec.ledger > self.number {
                    return refuse("a budget is born before the first epoch or after this one");
                }
            }
        }
        Ok(())
    }

    /// Whether it may follow `older`, of which it must be the direct successor: a budget that is
    /// not new was there, counts the same and over the same windows.
    ///
    /// # Errors
    /// [`PolicyError::Epoch`].
    pub(super) fn check_after(&self, older: &Self) -> Result<(), PolicyError> {
        if self.prev_until != older.until || self.from < older.from {
            return Err(self.refused("it does not fit the times of the one before"));
        }
        for (level, spec) in self.budgets().filter(|(_, spec)| spec.born < self.number) {
            let same = older.budget(level, &spec.name).is_some_and(|before| {
                before.born == spec.born
                    && before.unit == spec.unit
                    && before.period == spec.period
                    && before.reclaimable == spec.reclaimable
                    && (spec.ledger == self.number
                        || before.ledger == spec.ledger
                            && before.limit == spec.limit
                            && older.members == self.members)
            });
            if !same {
                return Err(self.refused("a budget claims an age or a ledger that is not its own"));
            }
        }
        Ok(())
    }

    pub(super) fn refused(&self, why: &'static str) -> PolicyError {
        PolicyError::Epoch { tenant: self.tenant.to_string(), number: self.number, why }
    }
}

fn written<T: Record>(record: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1_024);
    record.write(&mut bytes);
    bytes
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_be_bytes());
    out.extend(text.as_bytes());
}

pub(super) fn put_texts(out: &mut Vec<u8>, texts: &[String]) {
    out.extend((texts.len() as u64).to_be_bytes());
    texts.iter().for_each(|text| put_text(out, text));
}

pub(super) fn put_wall(out: &mut Vec<u8>, wall: Wall) {
    out.extend(wall.0.to_be_bytes());
}

pub(super) fn put_level(out: &mut Vec<u8>, level: &Level) {
    put_text(out, level.account.as_str());
    match &level.key {
        None => out.push(0),
        Some(key) => {
            out.push(1);
            out.extend(key.0);
        }
    }
}

fn put_holder(out: &mut Vec<u8>, holder: &Holder) {
    out.extend(holder.node.0);
    out.extend(holder.incarnation.to_be_bytes());
}

fn put_spec(out: &mut Vec<u8>, spec: &BudgetSpec) {
    put_text(out, &spec.name);
    out.push(match spec.unit {
        Unit::Tokens => 1,
        Unit::Requests => 2,
        Unit::MicroDollars => 3,
        Unit::Concurrent => 4,
        Unit::Rate => 5,
    });
    out.push(match spec.period {
        Period::Second => 1,
        Period::Minute => 2,
        Period::Hour => 3,
        Period::Day => 4,
        Period::Month => 5,
    });
    out.extend(spec.limit.to_be_bytes());
    match spec.hardness {
        Hardness::Hard => out.push(1),
        Hardness::Elastic { block } => {
            out.push(2);
            out.extend(block.to_be_bytes());
        }
    }
    match &spec.on_exhausted {
        OnExhausted::Refuse => out.push(1),
        OnExhausted::Downgrade(model) => {
            out.push(2);
            put_text(out, model);
        }
        OnExhausted::LocalOnly => out.push(3),
    }
    match &spec.scope {
        Scope::All => out.push(1),
        Scope::Cloud => out.push(2),
        Scope::Local => out.push(3),
        Scope::Models(models) => {
            out.push(4);
            put_texts(out, models);
        }
    }
    out.extend(spec.sub_windows.to_be_bytes());
    out.push(u8::from(spec.reclaimable));
    out.extend(spec.born.to_be_bytes());
    out.extend(spec.ledger.to_be_bytes());
    put_wall(out, spec.set);
}

impl Record for Epoch {
    const KIND: &'static str = "epoch of budgets";

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.mesh.0);
        put_text(out, self.tenant.as_str());
        out.extend(self.number.to_be_bytes());
        out.extend(self.prev);
        put_wall(out, self.prev_until);
        put_wall(out, self.prev_since);
        out.extend(self.generation.to_be_bytes());
        put_wall(out, self.issued);
        put_wall(out, self.from);
        put_wall(out, self.until);
        out.extend((self.members.len() as u64).to_be_bytes());
        for (holder, weight) in &self.members {
            put_holder(out, holder);
            out.extend(weight.to_be_bytes());
        }
        out.extend((self.accounts.len() as u64).to_be_bytes());
        for (level, specs) in &self.accounts {
            put_level(out, level);
            out.extend((specs.len() as u64).to_be_bytes());
            specs.iter().for_each(|spec| put_spec(out, spec));
        }
    }
}

impl Record for Adopted {
    const KIND: &'static str = "adoption of an epoch";

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.mesh.0);
        out.extend(self.epoch);
        put_holder(out, &self.holder);
        put_wall(out, self.since);
    }
}
