//! The epochs of one tenant as this node knows them: the chain, rivals, and who follows.
//!
//! Owns what of them is kept and how their times follow from each other. The meaning of those
//! times is in `force`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use selvedge_base::{Micros, NodeId, Wall};
use selvedge_crdt::escrow::Holder;
use serde::{Deserialize, Serialize};

use super::force::{Below, LINGER, Reign};
use super::{ADOPTION_MARGIN, Adopted, Epoch, MAX_EPOCHS, Period, PolicyError};
use crate::records::{Signed, Signer};

/// How long after its last window an epoch is kept: requests that began in it settle, and clocks
/// differ.
const KEPT_AFTER: Micros = LINGER;
/// Names of epochs that were dropped, so that peers do not send them again.
const MAX_DROPPED: usize = 64;

/// A signed epoch with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) signed: Signed<Epoch>,
    pub(super) hash: [u8; 32],
}

/// The epoch of one number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) held: Arc<Held>,
    /// Another one of the same number: evidence that the operator's key was used by two hands.
    pub(super) rival: Option<Arc<Held>>,
    /// The successor names a predecessor that is neither.
    pub(super) disowned: bool,
    /// Who follows it.
    pub(super) adopted: BTreeMap<Holder, Adoption>,
    below: Below,
    /// What was known of its time when the epoch before was forgotten, with which went what that
    /// rests on.
    settled: Option<Settled>,
}

/// A holder's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Adoption {
    pub(super) signed: Signed<Adopted>,
    /// The earliest time ever promised; differs from the record for this node's own alone.
    pub(super) promised: Wall,
    /// Whether it may be told.
    pub(super) told: bool,
}

/// What stays of an epoch that was forgotten: the bracket of its successor, and when it was itself
/// in force at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Settled {
    lo: Wall,
    hi: Wall,
    prev_hi: Wall,
}

/// A tenant's epochs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) slots: BTreeMap<u64, Slot>,
    pub(super) dropped: VecDeque<[u8; 32]>,
    /// Nodes that were put out of the mesh: nobody waits for their word.
    pub(super) out: BTreeSet<NodeId>,
}

/// The durable form of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChainSnapshot {
    slots: Vec<SlotSnapshot>,
    dropped: Vec<[u8; 32]>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SlotSnapshot {
    epoch: Signed<Epoch>,
    rival: Option<Signed<Epoch>>,
    disowned: bool,
    adopted: Vec<Adoption>,
    /// Set when the epochs below were forgotten.
    forgotten: Option<Wall>,
    settled: Option<Settled>,
}

impl Held {
    pub(super) fn new(signed: Signed<Epoch>) -> Arc<Self> {
        let hash = Epoch::hash(&signed);
        Arc::new(Self { signed, hash })
    }

    pub(super) const fn body(&self) -> &Epoch {
        &self.signed.body
    }

    /// The one of the smaller name, so that all nodes agree on which of two is which.
    fn min_hash(self: Arc<Self>, other: Arc<Self>) -> Arc<Self> {
        if other.hash < self.hash { other } else { self }
    }
}

impl Slot {
    pub(super) fn body(&self) -> &Epoch {
        self.held.body()
    }

    /// Both epochs, when there are two.
    pub(super) fn both(&self) -> impl Iterator<Item = &Arc<Held>> {
        std::iter::once(&self.held).chain(&self.rival)
    }

    pub(super) const fn is_forked(&self) -> bool {
        self.rival.is_some() || self.disowned
    }

    /// Everybody who holds rights under it.
    pub(super) fn holders(&self) -> BTreeSet<Holder> {
        self.both().flat_map(|held| held.body().members.iter().map(|(holder, _)| *holder)).collect()
    }

    fn until(&self) -> Wall {
        self.both().map(|held| held.body().until).max().unwrap_or_default()
    }

    fn from(&self) -> Wall {
        self.both().map(|held| held.body().from).min().unwrap_or_default()
    }

    /// A second epoch of this number. One of a newer root key replaces those of the older.
    fn contest(&mut self, held: Arc<Held>, disowned: bool) -> Result<(), PolicyError> {
        let (ours, theirs) = (self.body().generation, held.body().generation);
        if theirs < ours {
            return Err(held.body().refused("a newer root key signed another of this number"));
        }
        if theirs > ours {
            let below = self.below;
            let adopted = BTreeMap::new();
            *self = Self { held, rival: None, disowned, adopted, below, settled: None };
        } else if self.rival.is_none() {
            let (low, high) = (self.held.clone().min_hash(held.clone()), held);
            let other = if low.hash == high.hash { self.held.clone() } else { high };
            (self.held, self.rival) = (low, Some(other));
        }
        // Two are evidence enough.
        Ok(())
    }

    /// The earliest and the latest time its windows may begin, as far as this node can know.
    fn bracket(&self, before: Option<&Self>, me: &NodeId, out: &BTreeSet<NodeId>) -> (Wall, Wall) {
        let (body, from) = (self.body(), self.from());
        let prev_until =
            before.map_or(body.prev_until, |before| before.until().max(body.prev_until));
        if body.number == 1 || from >= prev_until {
            return (from, from);
        }
        let told = || self.adopted.values().filter(|word| word.told).map(Adoption::since);
        let others = self.adopted.iter().filter(|(holder, _)| holder.node != *me);
        let lo = others.map(|(_, word)| word.since()).max().unwrap_or_default().max(from);
        let Some(before) = before else {
            let unknown = (lo.min(prev_until), prev_until);
            return self.settled.map_or(unknown, |settled| (settled.lo, settled.hi));
        };
        let holders = before.holders();
        let own =
            |holder: &Holder| self.adopted.get(holder).map_or(Wall(u64::MAX), |word| word.promised);
        let mine = holders.iter().filter(|holder| holder.node == *me).map(own).max();
        let lo = lo.max(mine.unwrap_or_default()).min(prev_until);
        let complete = holders
            .iter()
            .filter(|holder| !out.contains(&holder.node))
            .all(|holder| self.adopted.get(holder).is_some_and(|word| word.told));
        if !complete {
            return (lo, prev_until);
        }
        (lo, told().max().unwrap_or_default().max(from).min(prev_until))
    }
}

impl Adoption {
    fn since(&self) -> Wall {
        self.signed.body.since
    }
}

impl Chain {
    /// The newest epoch.
    pub(super) fn newest(&self) -> Option<&Slot> {
        self.slots.values().next_back()
    }

    /// The epoch before a number, when it is kept.
    pub(super) fn before(&self, number: u64) -> Option<&Slot> {
        self.slots.get(&number.checked_sub(1)?)
    }

    /// Takes an epoch whose signature was checked. False when nothing is new.
    pub(super) fn take(&mut self, held: Arc<Held>, me: &NodeId) -> Result<bool, PolicyError> {
        let (number, hash) = (held.body().number, held.hash);
        let known = |slot: &Slot| slot.both().any(|other| other.hash == hash);
        if self.dropped.contains(&hash) || self.slots.get(&number).is_some_and(known) {
            return Ok(false);
        }
        let mut disowns = false;
        if let Some(before) = self.before(number) {
            match before.both().find(|other| other.hash == held.body().prev) {
                Some(parent) => held.body().check_after(parent.body())?,
                None => disowns = true,
            }
        }
        let after = self.slots.get(&(number + 1));
        let disowned = after.is_some_and(|after| !after.both().any(|a| a.body().prev == hash));
        match self.slots.get_mut(&number) {
            None => {
                let below = Below::Missing;
                let adopted = BTreeMap::new();
                let slot = Slot { held, rival: None, disowned, adopted, below, settled: None };
                self.slots.insert(number, slot);
            }
            Some(slot) => slot.contest(held, disowned)?,
        }
        if disowns && let Some(before) = self.slots.get_mut(&(number - 1)) {
            before.disowned = true;
        }
        self.join();
        while self.slots.len() > MAX_EPOCHS {
            self.evict(me);
        }
        Ok(self.slots.contains_key(&number))
    }

    /// Takes a holder's word whose signature was checked. False when nothing is new.
    pub(super) fn take_adopted(&mut self, signed: Signed<Adopted>) -> Result<bool, PolicyError> {
        let body = &signed.body;
        if self.dropped.contains(&body.epoch) {
            return Ok(false);
        }
        let number = self.number_of(&body.epoch).ok_or(PolicyError::Unknown(ADOPTION))?;
        if self.slots.get(&number).is_some_and(|slot| slot.settled.is_some()) {
            return Ok(false);
        }
        let before = self.before(number).ok_or(PolicyError::Unknown(ADOPTION))?;
        if !before.holders().contains(&body.holder) {
            return Err(PolicyError::Grant("the holder has nothing to adopt in that epoch"));
        }
        let Some(slot) = self.slots.get_mut(&number) else { return Ok(false) };
        match slot.adopted.get(&body.holder) {
            // Two honest words of one holder are both kept promises; the earlier says more.
            Some(held) if held.signed.body.since <= body.since => Ok(false),
            Some(_) | None => {
                let promised = body.since;
                let adoption = Adoption { signed: signed.clone(), promised, told: true };
                slot.adopted.insert(body.holder, adoption);
                Ok(true)
            }
        }
    }

    /// Whether an epoch of this name is held, or was.
    pub(super) fn has_met(&self, hash: &[u8; 32]) -> bool {
        self.number_of(hash).is_some() || self.dropped.contains(hash)
    }

    /// The number of the epoch of a name.
    pub(super) fn number_of(&self, hash: &[u8; 32]) -> Option<u64> {
        let named = |slot: &&Slot| slot.both().any(|held| held.hash == *hash);
        self.slots.values().find(named).map(|slot| slot.body().number)
    }

    /// Holders whose word for an epoch is not known here.
    pub(super) fn silent(&self, number: u64) -> Vec<Holder> {
        let Some((slot, before)) = self.slots.get(&number).zip(self.before(number)) else {
            return Vec::new();
        };
        let told = |holder: &Holder| slot.adopted.contains_key(holder);
        let waited = |holder: &Holder| !told(holder) && !self.out.contains(&holder.node);
        before.holders().into_iter().filter(waited).collect()
    }

    /// Holders of `me` that should sign for an epoch, with its name.
    pub(super) fn unsigned(&self, me: &NodeId, wall: Wall) -> Vec<([u8; 32], Holder)> {
        let mut wanted = Vec::new();
        for slot in self.slots.values() {
            let Some(before) = self.before(slot.body().number) else { continue };
            // After the old epoch's end nobody waits for anybody's word.
            if slot.body().from >= before.until() || wall >= before.until() {
                continue;
            }
            for holder in before.holders().into_iter().filter(|holder| holder.node == *me) {
                if !slot.adopted.contains_key(&holder) {
                    wanted.push((slot.held.hash, holder));
                }
            }
        }
        wanted
    }

    /// Signs for this node: it follows the epoch from a little after `wall` on.
    pub(super) fn adopt(
        &mut self,
        signer: &impl Signer,
        hash: [u8; 32],
        holder: Holder,
        wall: Wall,
    ) {
        let since = wall.plus(ADOPTION_MARGIN);
        let Some(number) = self.number_of(&hash) else { return };
        let Some(slot) = self.slots.get_mut(&number) else { return };
        let body = Adopted { mesh: slot.body().mesh, epoch: slot.held.hash, holder, since };
        let promised = slot.adopted.get(&holder).map_or(since, |old| old.promised.min(since));
        let signed = Signed::seal(body, signer);
        slot.adopted.insert(holder, Adoption { signed, promised, told: false });
    }

    /// This node's words that were not told yet and that somebody waits for.
    pub(super) fn untold(&self, me: &NodeId, wall: Wall) -> Vec<([u8; 32], Holder)> {
        let mut found = Vec::new();
        for slot in self.slots.values() {
            let before = self.before(slot.body().number);
            if before.is_some_and(|before| wall < before.until()) {
                let own = |(holder, word): &(&Holder, &Adoption)| holder.node == *me && !word.told;
                let holders = slot.adopted.iter().filter(own);
                found.extend(holders.map(|(holder, _)| (slot.held.hash, *holder)));
            }
        }
        found
    }

    /// Lets this node's words out that begin after `wall`, and signs the others anew. True when
    /// there were any.
    pub(super) fn tell(&mut self, signer: &impl Signer, me: &NodeId, wall: Wall) -> bool {
        let untold = self.untold(me, wall);
        for (hash, holder) in &untold {
            let number = self.number_of(hash);
            let slot = number.and_then(|number| self.slots.get_mut(&number));
            let Some(word) = slot.and_then(|slot| slot.adopted.get_mut(holder)) else { continue };
            if word.since() > wall {
                word.told = true;
            } else {
                self.adopt(signer, *hash, *holder, wall);
            }
        }
        !untold.is_empty()
    }

    /// What this node knows of the epochs' times, oldest first.
    pub(super) fn reigns(&self, me: &NodeId) -> Vec<Reign> {
        let mut reigns: Vec<Reign> = Vec::with_capacity(self.slots.len());
        for slot in self.slots.values() {
            let body = slot.body();
            let older = reigns.last().copied().filter(|older| older.number + 1 == body.number);
            let before = older.and(self.before(body.number));
            let (raw_lo, raw_hi) = slot.bracket(before, me, &self.out);
            // What the operator's key says of the epoch before may be sharper than what was seen.
            let settled = match older {
                Some(older) => older.hi.min(body.prev_since.max(older.lo)),
                None => slot.settled.map_or(body.prev_since, |settled| settled.prev_hi),
            };
            if let Some(last) = reigns.last_mut() {
                last.hi = last.hi.min(body.prev_since.max(last.lo));
            }
            let hi = raw_hi.max(settled);
            let lo = raw_lo.max(older.map_or(Wall(0), |older| older.lo)).min(hi);
            reigns.push(Reign {
                number: body.number,
                issued: body.issued,
                from: slot.from(),
                until: slot.until(),
                lo,
                hi,
                prev_hi: settled,
                forked: slot.is_forked(),
                below: slot.below,
            });
        }
        reigns
    }

    /// Whether [`Chain::prune`] would forget an epoch.
    pub(super) fn prune_due(&self, me: &NodeId, wall: Wall) -> bool {
        // The newest stays: nearly all chains have that one alone.
        self.slots.len() > 1 && !self.outlived(&self.reigns(me), wall).is_empty()
    }

    /// Forgets epochs that govern no window that is open or still settling. True when one went.
    pub(super) fn prune(&mut self, me: &NodeId, wall: Wall) -> bool {
        let reigns = self.reigns(me);
        let outlived = self.outlived(&reigns, wall);
        for number in &outlived {
            self.drop_slot(*number, &reigns);
        }
        !outlived.is_empty()
    }

    /// Epochs that govern no window that is open or still settling.
    fn outlived(&self, reigns: &[Reign], wall: Wall) -> Vec<u64> {
        let mut outlived = Vec::new();
        for (at, pair) in reigns.windows(2).enumerate() {
            let (reign, next) = (&pair[0], &pair[1]);
            // Newcomers learn from the records when the next one came into force: from a later one
            // that was signed after that, or because this one's time is over.
            let later = reigns.get(at + 2).and_then(|later| self.slots.get(&later.number));
            let attested = later.is_some_and(|later| later.body().prev_since <= wall);
            let plain = attested || wall > reign.until.plus(KEPT_AFTER);
            let last = Wall(next.hi.0.saturating_sub(1));
            let longest = self.slots.get(&reign.number).map(longest_period);
            let over = longest.flatten().map_or(last, |p: Period| p.end(p.window(last)));
            let settled = wall > over.max(next.hi).plus(KEPT_AFTER);
            if plain && settled && next.number == reign.number + 1 || reign.until_over(next, wall) {
                outlived.push(reign.number);
            }
        }
        outlived
    }

    fn drop_slot(&mut self, number: u64, reigns: &[Reign]) {
        let Some(slot) = self.slots.remove(&number) else { return };
        for held in slot.both() {
            if self.dropped.len() >= MAX_DROPPED {
                self.dropped.pop_front();
            }
            self.dropped.push_back(held.hash);
        }
        let place = reigns.iter().position(|reign| reign.number == number);
        let lo = place.map(|at| reigns[at].lo);
        let has_older = self.slots.range(..number).next().is_some();
        if let Some((_, next)) = self.slots.range_mut(number..).next() {
            if let Some(after) = place.and_then(|at| reigns.get(at + 1))
                && after.number == number + 1
            {
                next.settled = Some(Settled { lo: after.lo, hi: after.hi, prev_hi: after.prev_hi });
                next.adopted.clear();
            }
            next.below = match (slot.below, lo) {
                // Nothing older is kept: whatever began before is not known here any more.
                _ if !has_older => Below::Missing,
                (Below::Nothing, Some(lo)) => Below::Forgotten(lo),
                (below, _) => below,
            };
        }
    }

    /// Makes room: of all but the oldest, which may govern the month, and the newest two, the one
    /// goes whose windows begin in the shortest time. Of those windows nothing is granted any more.
    fn evict(&mut self, me: &NodeId) {
        let reigns = self.reigns(me);
        let inner = reigns.windows(2).skip(1).take(reigns.len().saturating_sub(3));
        let shortest = inner.min_by_key(|pair| pair[1].hi.since(pair[0].lo));
        if let Some(pair) = shortest.or(reigns.windows(2).next()) {
            self.drop_slot(pair[0].number, &reigns);
        }
    }

    /// Notes which epochs follow each other directly.
    fn join(&mut self) {
        let mut before = 0;
        for (number, slot) in &mut self.slots {
            if *number == before + 1 {
                slot.below = Below::Nothing;
            }
            before = *number;
        }
    }

    /// The words that may be told.
    pub(super) fn told(&self) -> impl Iterator<Item = &Signed<Adopted>> {
        let words = self.slots.values().flat_map(|slot| slot.adopted.values());
        words.filter(|word| word.told).map(|word| &word.signed)
    }

    pub(super) fn snapshot(&self) -> ChainSnapshot {
        let stored = |slot: &Slot| SlotSnapshot {
            epoch: slot.held.signed.clone(),
            rival: slot.rival.as_ref().map(|rival| rival.signed.clone()),
            disowned: slot.disowned,
            adopted: slot.adopted.values().cloned().collect(),
            forgotten: match slot.below {
                Below::Forgotten(before) => Some(before),
                Below::Nothing | Below::Missing => None,
            },
            settled: slot.settled,
        };
        let dropped = self.dropped.iter().copied().collect();
        ChainSnapshot { slots: self.slots.values().map(stored).collect(), dropped }
    }
}

impl ChainSnapshot {
    /// The epochs and words in it, whose signatures are to be checked before [`Self::restore`].
    pub(super) fn records(
        &self,
    ) -> (impl Iterator<Item = &Signed<Epoch>>, impl Iterator<Item = &Signed<Adopted>>) {
        let epochs =
            self.slots.iter().flat_map(|slot| std::iter::once(&slot.epoch).chain(&slot.rival));
        let words = self.slots.iter().flat_map(|slot| &slot.adopted).map(|word| &word.signed);
        (epochs, words)
    }

    /// The chain that was stored.
    pub(super) fn restore(self) -> Chain {
        let dropped = self.dropped.into_iter().take(MAX_DROPPED).collect();
        let mut chain = Chain { slots: BTreeMap::new(), dropped, out: BTreeSet::new() };
        for stored in self.slots.into_iter().take(MAX_EPOCHS) {
            let number = stored.epoch.body.number;
            let words = stored.adopted.into_iter();
            let slot = Slot {
                held: Held::new(stored.epoch),
                rival: stored.rival.map(Held::new),
                disowned: stored.disowned,
                adopted: words.map(|word| (word.signed.body.holder, word)).collect(),
                below: stored.forgotten.map_or(Below::Missing, Below::Forgotten),
                settled: stored.settled,
            };
            chain.slots.insert(number, slot);
        }
        chain.join();
        chain
    }
}

/// What a record of adoption is called.
const ADOPTION: &str = "adoption";

impl Reign {
    /// Whether a missing epoch between this one and the next makes no difference any more.
    fn until_over(&self, next: &Self, wall: Wall) -> bool {
        let longest = Period::Month;
        let last = Wall(self.until.max(next.hi).0.saturating_sub(1));
        next.number > self.number + 1 && wall > longest.end(longest.window(last)).plus(KEPT_AFTER)
    }
}

/// The longest window of an epoch's budgets; none when it has none.
fn longest_period(slot: &Slot) -> Option<Period> {
    slot.both()
        .flat_map(|held| held.body().budgets())
        .filter(|(_, spec)| spec.unit.is_windowed())
        .map(|(_, spec)| spec.period)
        .max()
}
