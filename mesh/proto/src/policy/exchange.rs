//! How policy records spread: what a node has, what another lacks, what taking it changed.
//!
//! A node that has news, or the time, sends [`PolicyBook::greeting`]: a fingerprint. Whoever has
//! another one answers with what it has, and so on down to the records themselves
//! ([`PolicyBook::answer`]); no message needs an answer, and all may be lost or doubled. Epochs are
//! named one by one, since each may be large; the many small records are compared by the
//! fingerprints of 256 groups, and a group that differs is sent whole. What does not fit one
//! message follows in later exchanges: where it begins moves with the `turn`.

use std::collections::BTreeSet;
use std::sync::Arc;

use selvedge_base::{MeshId, Wall};
use serde::{Deserialize, Serialize};

use super::chain::ChainSnapshot;
use super::grants::GrantNotice;
use super::{
    AccountGrant, AccountPath, Adopted, CutNotice, Epoch, KeyId, KeyNotice, MAX_ACCOUNTS, MAX_CUTS,
    MAX_KEYS, MAX_TENANTS, PolicyBook, PolicyError,
};
use crate::records::{Record, Roster, ShownRights, Signed};

/// Groups the small records are compared in: of 10,000 records 40 lie in one, so a single new one
/// costs about 12 KiB.
const GROUPS: usize = 256;
/// Bytes of records in one message: as rows of a sync.
pub const POLICY_BUDGET_BYTES: usize = 64 << 10;
/// Records taken from one message; each costs the check of up to two signatures, 100 µs.
const MAX_TAKEN: usize = 1_024;
/// What surrounds a record: signer, signature, a steward's record with its own.
const AROUND_BYTES: usize = 360;
/// The wire version that brought reclaimable budgets.
const RECLAIMABLE_SINCE: u8 = 3;

/// Between two members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyMessage {
    /// The fingerprint of all the sender has.
    Brief([u8; 16]),
    /// What the sender has.
    Digest(PolicyDigest),
    /// What the receiver lacks.
    Delta(Box<PolicyDelta>),
}

/// What a node has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDigest {
    /// Epochs held, by the first bytes of their names.
    pub epochs: BTreeSet<[u8; 8]>,
    /// Epochs forgotten not long ago, which are of no use any more.
    pub dropped: BTreeSet<[u8; 8]>,
    /// Fingerprints of the groups of everything else; empty when there is nothing.
    pub groups: Vec<u64>,
    /// Moves where an answer begins that does not fit.
    pub turn: u64,
}

/// What a node lacked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDelta {
    /// Cuts.
    pub cuts: Vec<CutNotice>,
    /// Epochs.
    pub epochs: Vec<Signed<Epoch>>,
    /// Words of holders.
    pub adopted: Vec<Signed<Adopted>>,
    /// Names of accounts.
    pub accounts: Vec<GrantNotice<AccountGrant>>,
    /// Keys.
    pub keys: Vec<KeyNotice>,
    /// What the sender has, when it seems to lack something too.
    pub digest: Option<PolicyDigest>,
}

/// What taking a delta changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Whether anything must be stored, and the machine that spends be told.
    pub policy: bool,
    /// Keys that open nothing any more.
    pub keys_revoked: Vec<KeyId>,
    /// Epochs that are new, by tenant and number.
    pub epochs: Vec<(AccountPath, u64)>,
    /// Records that were refused, and why.
    pub refused: Vec<PolicyError>,
}

/// All that a book holds; builds before its parts stored it as it is, under a version byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySnapshot {
    mesh: MeshId,
    pub(super) chains: Vec<(AccountPath, ChainSnapshot)>,
    pub(super) accounts: Vec<GrantNotice<AccountGrant>>,
    pub(super) keys: Vec<KeyNotice>,
    pub(super) cuts: Vec<CutNotice>,
}

/// One of the many small records.
enum Small<'a> {
    Cut(&'a Arc<CutNotice>),
    Word(&'a Signed<Adopted>),
    Account(&'a Arc<GrantNotice<AccountGrant>>),
    Key(&'a Arc<KeyNotice>),
}

impl Small<'_> {
    /// Its fingerprint: signatures are as good as random, and say all of a record but whose right
    /// it rests on.
    fn print(&self) -> u64 {
        let signature = match self {
            Self::Cut(notice) => notice.signed.signature,
            Self::Word(signed) => signed.signature,
            Self::Account(notice) => notice.signed.signature,
            Self::Key(notice) => notice.signed.signature,
        };
        signature.0[..8].iter().fold(0, |print, byte| print << 8 | u64::from(*byte))
    }

    fn wire_bytes(&self) -> usize {
        AROUND_BYTES
            + match self {
                Self::Cut(notice) => length(&notice.signed.body),
                Self::Word(signed) => length(&signed.body),
                Self::Account(notice) => length(&notice.signed.body),
                Self::Key(notice) => length(&notice.signed.body),
            }
    }

    fn add_to(&self, delta: &mut PolicyDelta) {
        match self {
            Self::Cut(notice) => delta.cuts.push(CutNotice::clone(notice)),
            Self::Word(signed) => delta.adopted.push(Signed::clone(signed)),
            Self::Account(notice) => delta.accounts.push(GrantNotice::clone(notice)),
            Self::Key(notice) => delta.keys.push(KeyNotice::clone(notice)),
        }
    }
}

impl PolicyBook {
    /// What to send to a peer from time to time, and when something changed.
    pub fn greeting(&self) -> PolicyMessage {
        PolicyMessage::Brief(self.fingerprint())
    }

    /// What to answer to a peer, if anything; the records of a delta are for [`PolicyBook::apply`]
    /// first. `turn` is any number that differs from exchange to exchange.
    pub fn answer(&self, message: &PolicyMessage, turn: u64) -> Option<PolicyMessage> {
        match message {
            PolicyMessage::Brief(theirs) if *theirs == self.fingerprint() => None,
            PolicyMessage::Brief(_) => Some(PolicyMessage::Digest(self.digest(turn))),
            PolicyMessage::Digest(theirs) => {
                let mut delta = self.delta(theirs, POLICY_BUDGET_BYTES);
                let ours = self.digest(turn);
                if lacks(&ours, theirs) {
                    delta.digest = Some(ours);
                }
                (delta != PolicyDelta::default()).then(|| PolicyMessage::Delta(Box::new(delta)))
            }
            PolicyMessage::Delta(delta) => {
                let lacking = self.delta(delta.digest.as_ref()?, POLICY_BUDGET_BYTES);
                let something = lacking != PolicyDelta::default();
                something.then(|| PolicyMessage::Delta(Box::new(lacking)))
            }
        }
    }

    /// What this node has.
    pub fn digest(&self, turn: u64) -> PolicyDigest {
        let (mut epochs, mut dropped) = (BTreeSet::new(), BTreeSet::new());
        for chain in self.chains.values() {
            let held = chain.slots.values().flat_map(|slot| slot.both().map(|held| held.hash));
            epochs.extend(held.map(|hash| short(&hash)));
            dropped.extend(chain.dropped.iter().map(short));
        }
        PolicyDigest { epochs, dropped, groups: self.groups(), turn }
    }

    /// Fingerprints of the groups of small records; empty when there is none.
    fn groups(&self) -> Vec<u64> {
        let mut groups = Vec::new();
        for small in self.small() {
            groups.resize(GROUPS, 0);
            let print = small.print();
            groups[(print >> 56) as usize] ^= print;
        }
        groups
    }

    /// What the holder of `theirs` lacks, in at most `budget` bytes and never less than one record.
    /// Every kind has a share that the others leave to it: cuts cannot crowd out epochs, nor those
    /// keys.
    pub fn delta(&self, theirs: &PolicyDigest, budget: usize) -> PolicyDelta {
        let mut delta = PolicyDelta::default();
        let ours = self.groups();
        let group = |groups: &[u64], at: usize| groups.get(at).copied().unwrap_or(0);
        let lacking = |small: &Small<'_>| {
            let at = (small.print() >> 56) as usize;
            group(&ours, at) != group(&theirs.groups, at)
        };
        let kinds: [fn(&Small<'_>) -> bool; 3] = [
            |small| matches!(small, Small::Cut(_)),
            |small| matches!(small, Small::Word(_)),
            |small| matches!(small, Small::Account(_) | Small::Key(_)),
        ];
        let mut left = budget;
        for (place, is_kind) in kinds.into_iter().enumerate() {
            // A quarter for cuts, then half of what is left for epochs before the rest.
            if place == 1 {
                left -= self.add_epochs(theirs, left / 2 + budget / 4, &mut delta).min(left);
            }
            let all: Vec<Small<'_>> =
                self.small().filter(|small| is_kind(small) && lacking(small)).collect();
            let share = if place == 2 { left } else { left.min(budget / 4) };
            left -= take_turns(&all, theirs.turn, share, &mut delta).min(left);
        }
        delta
    }

    /// Takes a delta; records that do not hold are refused one by one.
    pub fn apply(&mut self, delta: PolicyDelta, roster: &Roster, wall: Wall) -> Changed {
        let mut changed = Changed::default();
        let mut left = MAX_TAKEN;
        for cut in bounded(delta.cuts, &mut left) {
            let key = cut.signed.body.order.key();
            if changed.note(self.apply_cut(cut, roster, wall)) {
                changed.keys_revoked.extend(key);
            }
        }
        for epoch in bounded(delta.epochs, &mut left) {
            let named = (epoch.body.tenant.clone(), epoch.body.number);
            if changed.note(self.apply_epoch(epoch, roster, wall)) {
                changed.epochs.push(named);
            }
        }
        for word in bounded(delta.adopted, &mut left) {
            changed.note(self.apply_adopted(word, wall));
        }
        for account in bounded(delta.accounts, &mut left) {
            changed.note(self.apply_account(account, roster));
        }
        for key in bounded(delta.keys, &mut left) {
            changed.note(self.apply_key(key, roster, wall));
        }
        changed
    }

    /// What to store.
    pub fn snapshot(&self) -> PolicySnapshot {
        let chains = self.chains.iter().map(|(path, chain)| (path.clone(), chain.snapshot()));
        PolicySnapshot {
            mesh: self.mesh,
            chains: chains.collect(),
            accounts: self.accounts.values().map(|notice| GrantNotice::clone(notice)).collect(),
            keys: self.keys.values().map(|notice| GrantNotice::clone(notice)).collect(),
            cuts: self.cuts.iter().map(|notice| GrantNotice::clone(notice)).collect(),
        }
    }

    /// The book of a stored snapshot. Signatures are checked again: a damaged store must not grant
    /// anything. Small records that do not hold any more are left out; peers have them if they do.
    ///
    /// # Errors
    /// The first epoch that does not hold: without it this node could break its word.
    pub fn from_snapshot(
        snapshot: PolicySnapshot,
        roster: &Roster,
        wall: Wall,
    ) -> Result<Self, PolicyError> {
        Self::restored(snapshot, ShownRights::default(), roster, wall)
    }

    /// The book of a snapshot that is, byte for byte, what this node stored of a book of its own:
    /// the signatures under its many small records are not checked a second time. All else is, as
    /// rights end and keys expire between two starts, and so are the few epochs' signatures.
    ///
    /// # Errors
    /// As [`PolicyBook::from_snapshot`].
    pub fn from_own_snapshot(
        snapshot: PolicySnapshot,
        roster: &Roster,
        wall: Wall,
    ) -> Result<Self, PolicyError> {
        Self::restored(snapshot, ShownRights::all(), roster, wall)
    }

    fn restored(
        snapshot: PolicySnapshot,
        shown: ShownRights,
        roster: &Roster,
        wall: Wall,
    ) -> Result<Self, PolicyError> {
        let mut book = Self::new(roster.mesh(), roster.me());
        book.shown = shown;
        for (tenant, stored) in snapshot.chains.into_iter().take(MAX_TENANTS) {
            let (epochs, words) = stored.records();
            for epoch in epochs {
                epoch.body.check()?;
                // It was taken in time; a rotation heard of since does not undo that.
                let (mesh, generation) = (epoch.body.mesh, epoch.body.generation);
                roster.check_root(epoch, mesh, generation, Wall(0))?;
                if epoch.body.tenant != tenant {
                    return Err(epoch.body.refused("it is stored under another tenant"));
                }
            }
            for word in words {
                book.shown.check_record(word)?;
            }
            book.chains.insert(tenant, stored.restore());
        }
        // Cuts come before keys, which a cut closes, each at its own time: it was taken once,
        // whatever this node's clock says now.
        let mut left_out = Vec::new();
        for cut in snapshot.cuts.into_iter().take(MAX_CUTS) {
            let at = cut.signed.body.at;
            left_out.extend(book.apply_cut(cut, roster, at).err());
        }
        for account in snapshot.accounts.into_iter().take(MAX_ACCOUNTS) {
            left_out.extend(book.apply_account(account, roster).err());
        }
        for key in snapshot.keys.into_iter().take(MAX_KEYS) {
            left_out.extend(book.apply_key(key, roster, wall).err());
        }
        // What comes from now on comes from others.
        book.shown = ShownRights::default();
        let tenants: Vec<AccountPath> = book.chains.keys().cloned().collect();
        for tenant in &tenants {
            book.rebuild(tenant, wall);
        }
        let out = roster.revocations().map(|notice| notice.revocation.body.node).collect();
        book.put_out(&out, wall);
        book.revision += left_out.len() as u64;
        Ok(book)
    }

    /// The many small records, cuts first.
    fn small(&self) -> impl Iterator<Item = Small<'_>> {
        let words = self.chains.values().flat_map(|chain| chain.told());
        self.cuts
            .iter()
            .map(Small::Cut)
            .chain(words.map(Small::Word))
            .chain(self.accounts.values().map(Small::Account))
            .chain(self.keys.values().map(Small::Key))
    }

    fn fingerprint(&self) -> [u8; 16] {
        let digest = self.digest(0);
        let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 fingerprint of a policy");
        for epoch in &digest.epochs {
            hasher.update(epoch);
        }
        for group in &digest.groups {
            hasher.update(&group.to_be_bytes());
        }
        let mut short = [0; 16];
        short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        short
    }

    /// Adds epochs the other side lacks, oldest first per tenant, and says how many bytes.
    fn add_epochs(&self, theirs: &PolicyDigest, budget: usize, delta: &mut PolicyDelta) -> usize {
        let mut lacking = Vec::new();
        for chain in self.chains.values() {
            let held = chain.slots.values().flat_map(|slot| slot.both());
            lacking.extend(held.filter(|held| !theirs.knows(&short(&held.hash))));
        }
        let mut used = 0;
        for held in rotated(&lacking, theirs.turn) {
            let size = AROUND_BYTES + length(held.body());
            if used > 0 && used + size > budget {
                break;
            }
            used += size;
            delta.epochs.push(held.signed.clone());
        }
        // The rotation may have put a successor first.
        delta.epochs.sort_by_key(|epoch| epoch.body.number);
        used
    }
}

impl PolicyMessage {
    /// What of it a peer of wire version `version` can read, if anything. An epoch that names a
    /// reclaimable budget is not for older builds, which would spend of it without witnesses; where
    /// they are holders, it takes effect once they are updated or the epoch before it has ended.
    #[must_use]
    pub fn spoken_at(mut self, version: u8) -> Option<Self> {
        if let Self::Delta(delta) = &mut self
            && version < RECLAIMABLE_SINCE
        {
            let is_plain =
                |epoch: &Signed<Epoch>| epoch.body.budgets().all(|(_, budget)| !budget.reclaimable);
            delta.epochs.retain(is_plain);
            if **delta == PolicyDelta::default() {
                return None;
            }
        }
        Some(self)
    }
}

impl PolicyDigest {
    fn knows(&self, epoch: &[u8; 8]) -> bool {
        self.epochs.contains(epoch) || self.dropped.contains(epoch)
    }
}

impl Changed {
    fn note(&mut self, applied: Result<bool, PolicyError>) -> bool {
        match applied {
            Ok(new) => {
                self.policy |= new;
                new
            }
            Err(error) => {
                self.refused.push(error);
                false
            }
        }
    }
}

/// Whether the holder of `ours` lacks something that the holder of `theirs` has.
fn lacks(ours: &PolicyDigest, theirs: &PolicyDigest) -> bool {
    !theirs.epochs.iter().all(|epoch| ours.knows(epoch)) || ours.groups != theirs.groups
}

/// Adds records beginning at the turn's place and says how many bytes.
fn take_turns(all: &[Small<'_>], turn: u64, budget: usize, delta: &mut PolicyDelta) -> usize {
    let mut used = 0;
    for small in rotated(all, turn) {
        let size = small.wire_bytes();
        if used + size > budget && used > 0 {
            break;
        }
        used += size;
        small.add_to(delta);
    }
    used
}

/// All items, beginning at the turn's place.
fn rotated<T>(items: &[T], turn: u64) -> impl Iterator<Item = &T> {
    let place = (turn % items.len().max(1) as u64) as usize;
    items[place..].iter().chain(&items[..place])
}

fn bounded<T>(records: Vec<T>, left: &mut usize) -> impl Iterator<Item = T> + use<T> {
    let count = records.len().min(*left);
    *left -= count;
    records.into_iter().take(count)
}

fn short(hash: &[u8; 32]) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&hash[..8]);
    short
}

/// The bytes of a record's own fields.
fn length<T: Record>(record: &T) -> usize {
    let mut bytes = Vec::new();
    record.write(&mut bytes);
    bytes.len()
}
